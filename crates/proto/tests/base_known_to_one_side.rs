//! After a first meeting both sides note the state in which they parted as a base, whoever was in step first, and its
//! names for logs hold as long as the line, whatever else is said again.

#![allow(clippy::unwrap_used)]

mod net;

use net::Net;
use offhook_proto::peer::{Input, Output};
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

#[test]
fn whoever_wants_a_summary_again_and_again_loses_the_line() {
    let mut net = Net::new(3);
    let (ada, bob) = (net.add("Ada"), net.add("Bob"));
    let room = net.room(ada, "kitchen");
    net.join(ada, bob, room);
    net.say(bob, room, "tea");
    net.settle();
    let (peer, now) = (net.nodes[bob].device, net.now);
    let named = |bytes: &[u8]| match Frame::from_bytes(bytes) {
        Ok(Frame::Have { name, .. } | Frame::Entries { name, .. } | Frame::Summary { name, .. }) => Some(name),
        _ => None,
    };
    let from_bob = net.sent.iter().filter(|(from, to, _)| (*from, *to) == (bob, ada));
    let name = from_bob.filter_map(|(_, _, bytes)| named(bytes)).next_back().unwrap();
    let bytes = Frame::NoBase { name }.to_bytes();
    let mut summaries = 0;
    for _ in 0..100 {
        let bytes = bytes.clone();
        let outputs = net.nodes[ada].peer.handle(Input::Frame { peer, bytes }, now).unwrap().0;
        let is_summary = |bytes: &[u8]| matches!(Frame::from_bytes(bytes), Ok(Frame::Summary { .. }));
        summaries += (outputs.iter())
            .filter(|output| matches!(output, Output::Send { bytes, .. } if is_summary(bytes)))
            .count();
        if outputs.iter().any(|output| matches!(output, Output::Close { .. })) {
            break;
        }
    }
    assert!((1..=8).contains(&summaries), "{summaries} summaries");
    assert!(net.peer(ada).lines().is_empty());
}
