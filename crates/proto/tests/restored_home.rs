//! A home that was copied or restored goes on in another log by itself, and nothing that it said is lost.

mod net;

use net::Net;

#[test]
fn a_restored_home_opens_another_log_and_gets_back_what_it_said() {
    let mut net = Net::new(1);
    let (ada, bob) = (net.add("Ada"), net.add("Bob"));
    let room = net.room(ada, "kitchen");
    net.join(ada, bob, room);
    net.say(bob, room, "one");
    net.settle();
    let backup = net.peer(bob).store().clone();
    let before = net.say(bob, room, "two");
    net.settle();

    net.offline(bob);
    net.reopen(bob, backup);
    net.online(bob);
    net.settle();
    assert_eq!(
        net.texts(bob, room),
        ["one", "two"],
        "what others hold of the own log comes back"
    );
    let after = net.say(bob, room, "three");
    assert_ne!(before.log, after.log, "the old log is not written again");
    net.settle();
    assert_eq!(net.texts(ada, room), ["one", "two", "three"]);
    assert_eq!(net.texts(bob, room), net.texts(ada, room));
    assert!(!net.peer(ada).entry(before).unwrap().unwrap().equivocation);
}

#[test]
fn two_copies_that_both_wrote_are_found_out_and_nothing_is_lost() {
    let mut net = Net::new(2);
    let (ada, bob, dan) = (net.add("Ada"), net.add("Bob"), net.add("Dan"));
    let room = net.room(ada, "kitchen");
    net.join(ada, bob, room);
    net.join(ada, dan, room);
    net.say(bob, room, "one");
    net.settle();
    let backup = net.peer(bob).store().clone();
    net.say(bob, room, "said by the original");
    net.settle();

    net.offline(bob);
    net.reopen(bob, backup);
    net.say(bob, room, "said by the copy");
    net.online(bob);
    net.settle();
    net.pass(std::time::Duration::from_secs(200));
    net.say(bob, room, "together again");
    net.settle();
    let texts = net.texts(ada, room);
    assert!(texts.contains(&"said by the copy".to_owned()), "{texts:?}");
    assert!(texts.contains(&"together again".to_owned()), "{texts:?}");
    assert_eq!(net.texts(bob, room), texts);
    assert_eq!(net.texts(dan, room), texts);
}
