//! A peer that takes a question, never answers it and keeps the line does not keep others from being asked.

mod net;

use std::time::Duration;

use net::Net;

/// The tag of `Entries`.
const ANSWERS: u8 = 6;

#[test]
fn what_a_silent_peer_was_asked_for_comes_from_another() {
    let mut net = Net::new(1);
    let peers: Vec<usize> = ["Ada", "Mallory", "Bob"].map(|name| net.add(name)).to_vec();
    let (ada, mallory, bob) = (peers[0], peers[1], peers[2]);
    let room = net.room(ada, "kitchen");
    net.join(ada, mallory, room);
    net.join(ada, bob, room);
    net.offline(bob);
    for i in 0..20 {
        net.say(ada, room, &format!("message {i}"));
    }
    net.settle();
    net.forbid(ada, bob);
    net.swallowed.insert((mallory, bob, ANSWERS));
    net.online(bob);
    net.pass(Duration::from_secs(2));
    assert_eq!(net.texts(bob, room).len(), 0, "Mallory alone is there, and silent");

    net.heal();
    net.pass(Duration::from_secs(2));
    assert!(net.lines_of(bob).contains(&ada));
    net.pass(Duration::from_secs(12));
    assert_eq!(net.texts(bob, room), net.texts(ada, room));
    assert!(net.lines_of(bob).contains(&mallory), "who is slow is not cut off");

    // Asked again later, and answering by then, Mallory is as good as anybody.
    net.swallowed.clear();
    net.pass(Duration::from_secs(180));
    net.offline(ada);
    net.say(mallory, room, "one more");
    net.settle();
    assert_eq!(net.texts(bob, room), net.texts(mallory, room));
}
