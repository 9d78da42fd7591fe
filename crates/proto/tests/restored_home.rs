//! A home that was copied or restored goes on in another log by itself, and nothing that it said is lost.

mod net;

use net::Net;
use offhook_proto::peer::Peer;

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
fn a_home_that_was_told_of_its_restore_forks_nothing_before_it_reaches_anybody() {
    let mut net = Net::new(3);
    let (ada, bob) = (net.add("Ada"), net.add("Bob"));
    let room = net.room(ada, "kitchen");
    net.join(ada, bob, room);
    net.say(bob, room, "one");
    net.settle();
    let mut backup = net.peer(bob).store().clone();
    Peer::mark_restored(&mut backup).expect("memory refuses nothing");
    let lost = net.say(bob, room, "said after the backup");
    net.settle();

    net.offline(bob);
    net.reopen(bob, backup);
    let alone = net.say(bob, room, "said before reaching anybody");
    assert_ne!(lost.log, alone.log, "the old log is not written again");
    net.online(bob);
    net.settle();
    assert_eq!(net.texts(ada, room).len(), 3);
    assert_eq!(net.texts(bob, room), net.texts(ada, room));
    for id in [lost, alone] {
        assert!(!net.peer(ada).entry(id).unwrap().unwrap().equivocation);
    }
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
    for said in ["said by the original", "said by the copy"] {
        let times = texts.iter().filter(|text| *text == said).count();
        assert_eq!(times, 1, "{said}: {texts:?}");
    }
    assert!(texts.contains(&"together again".to_owned()), "{texts:?}");
    assert_eq!(net.texts(bob, room), texts);
    assert_eq!(net.texts(dan, room), texts);
}
