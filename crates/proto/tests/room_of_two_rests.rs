//! A line to the other of a room of two that was closed as idle is not sought again until somebody writes there.

mod net;

use std::time::Duration;

use net::Net;
use offhook_proto::peer::{Command, Reply};

#[test]
fn whoever_closed_an_idle_line_is_left_alone_until_something_is_said() {
    let mut net = Net::new(1);
    let (ada, bob, cleo) = (net.add("Ada"), net.add("Bob"), net.add("Cleo"));
    let kitchen = net.room(ada, "kitchen");
    net.join(ada, bob, kitchen);
    net.join(ada, cleo, kitchen);
    let person = net.person(bob);
    let Ok(Reply::Room(pair)) = net.command(ada, Command::Chat { person }) else {
        panic!("no room of two");
    };
    net.say(ada, pair, "good evening");
    net.settle();
    assert_eq!(net.texts(bob, pair), ["good evening"]);

    // As when Bob's end closes it.
    net.forbid(ada, bob);
    net.dials.clear();
    net.pass(Duration::from_secs(100));
    assert_eq!(net.dials, [], "Cleo carries what both share with others");
    assert!(net.lines_of(ada).contains(&cleo) && net.lines_of(bob).contains(&cleo));

    net.say(ada, pair, "are you there?");
    assert_eq!(net.dials, [(ada, bob)]);
}

#[test]
fn what_is_said_does_not_wait_for_a_dial_that_nobody_answers() {
    let mut net = Net::new(1);
    let (ada, bob) = (net.add("Ada"), net.add("Bob"));
    let kitchen = net.room(ada, "kitchen");
    net.join(ada, bob, kitchen);
    let person = net.person(bob);
    let Ok(Reply::Room(pair)) = net.command(ada, Command::Chat { person }) else {
        panic!("no room of two");
    };
    net.settle();
    net.unanswered.insert((ada, bob));
    net.forbid(ada, bob);
    net.pass(Duration::from_secs(3));
    net.dials.clear();
    net.say(ada, pair, "are you there?");
    assert_eq!(net.dials, [(ada, bob)], "the one under way may go to where nobody is");
}
