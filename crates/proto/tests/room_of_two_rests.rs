//! A line to the other of a room of two that was closed as idle is not sought again until somebody writes there, or has the room open.

mod net;

use std::time::Duration;

use net::Net;
use offhook_proto::history::RoomId;
use offhook_proto::peer::{Command, Reply};

/// Ada and Bob, who share a kitchen, and their room of two.
fn room_of_two() -> (Net, usize, usize, RoomId, RoomId) {
    let mut net = Net::new(1);
    let (ada, bob) = (net.add("Ada"), net.add("Bob"));
    let kitchen = net.room(ada, "kitchen");
    net.join(ada, bob, kitchen);
    let person = net.person(bob);
    let Ok(Reply::Room(pair)) = net.command(ada, Command::Chat { person }) else {
        panic!("no room of two");
    };
    net.settle();
    (net, ada, bob, kitchen, pair)
}

/// The same with Cleo in the kitchen, so that nobody needs a line between Ada and Bob, and Bob's end has closed it.
fn a_line_at_rest() -> (Net, usize, usize, RoomId) {
    let (mut net, ada, bob, kitchen, pair) = room_of_two();
    let cleo = net.add("Cleo");
    net.join(ada, cleo, kitchen);
    net.say(ada, pair, "good evening");
    net.settle();
    assert_eq!(net.texts(bob, pair), ["good evening"]);
    net.forbid(ada, bob);
    net.dials.clear();
    net.pass(Duration::from_secs(100));
    assert_eq!(net.dials, [], "Cleo carries what both share with others");
    assert!(net.lines_of(ada).contains(&cleo) && net.lines_of(bob).contains(&cleo));
    (net, ada, bob, pair)
}

#[test]
fn whoever_closed_an_idle_line_is_left_alone_until_something_is_said() {
    let (mut net, ada, bob, pair) = a_line_at_rest();
    net.say(ada, pair, "are you there?");
    assert_eq!(net.dials, [(ada, bob)]);
}

#[test]
fn a_room_that_is_opened_is_looked_into_at_once() {
    let (mut net, ada, bob, pair) = a_line_at_rest();
    let opened = net.command(ada, Command::OpenRoom { room: Some(pair) });
    assert!(opened.is_ok());
    assert_eq!(net.dials, [(ada, bob)]);
}

#[test]
fn what_is_said_does_not_wait_for_a_dial_that_nobody_answers() {
    let (mut net, ada, bob, _, pair) = room_of_two();
    net.unanswered.insert((ada, bob));
    net.forbid(ada, bob);
    net.pass(Duration::from_secs(3));
    net.dials.clear();
    net.say(ada, pair, "are you there?");
    assert_eq!(net.dials, [(ada, bob)], "the one under way may go to where nobody is");
}
