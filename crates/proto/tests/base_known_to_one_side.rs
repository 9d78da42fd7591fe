//! After a first meeting both sides note the state in which they parted as a base, whoever was in step first, and its
//! names for logs hold as long as the line, whatever else is said again.

mod net;

use net::Net;
use offhook_proto::sync::Frame;
use offhook_proto::wire::Wire as _;

fn no_bases(net: &Net) -> usize {
    let is_no_base = |bytes: &[u8]| matches!(Frame::from_bytes(bytes), Ok(Frame::NoBase { .. }));
    net.sent.iter().filter(|(_, _, bytes)| is_no_base(bytes)).count()
}

#[test]
fn a_short_first_meeting_leaves_a_base_on_both_sides() {
    let mut net = Net::new(1);
    let (ada, bob) = (net.add("Ada"), net.add("Bob"));
    let room = net.room(ada, "kitchen");
    net.join(ada, bob, room);
    net.offline(ada);
    net.say(bob, room, "while Ada was away");
    net.sent.clear();
    net.online(ada);
    net.settle();
    assert_eq!(net.texts(ada, room), ["while Ada was away"]);
    assert_eq!(no_bases(&net), 0);
}

#[test]
fn many_epochs_after_a_base_arrive_whole() {
    let mut net = Net::new(2);
    let (ada, bob) = (net.add("Ada"), net.add("Bob"));
    let room = net.room(ada, "kitchen");
    net.join(ada, bob, room);
    net.say(bob, room, "before");
    net.settle();
    net.offline(bob);
    for i in 0..5000 {
        net.say(ada, room, &format!("message {i}"));
    }
    net.online(bob);
    net.settle();
    assert_eq!(net.peer(bob).rooms().unwrap()[0].entries, 5001);
    assert_eq!(net.peer(bob).rooms().unwrap()[0].missing, 0);
}
