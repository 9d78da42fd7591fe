//! Where members are is told to whom it is news, and not again on every connection.

#![allow(clippy::unwrap_used)]

mod net;

use std::time::Duration;

use net::Net;
use offhook_proto::peer::Input;
use offhook_proto::sync::frame::Frame;
use offhook_proto::wire::Wire;

/// How many address records were sent since the last look.
fn records(net: &mut Net) -> usize {
    let of = |bytes: &[u8]| match Frame::from_bytes(bytes) {
        Ok(Frame::Addresses { records }) => records.len(),
        _ => 0,
    };
    let count = net.sent.iter().map(|(_, _, bytes)| of(bytes)).sum();
    net.sent.clear();
    count
}

#[test]
fn what_was_told_on_one_line_is_not_told_on_the_next() {
    let mut net = Net::new(1);
    let (members, room) = net.kitchen_of(["Ada", "Bob", "Cleo", "Dan"]);
    net.say(members[0], room, "tea");
    net.pass(Duration::from_secs(200));
    assert!(records(&mut net) > 0, "it was news once");

    let bob = members[1];
    net.offline(bob);
    net.online(bob);
    net.settle();
    assert_eq!(records(&mut net), 0, "nobody has moved since");

    net.offline(bob);
    net.pass(Duration::from_secs(1));
    let addresses = vec!["203.0.113.7:4433".parse().unwrap()];
    net.input(bob, Input::OwnAddresses { addresses, relay: None });
    net.online(bob);
    net.settle();
    assert!(records(&mut net) > 0, "who has moved says so");

    net.offline(bob);
    net.pass(Duration::from_secs(4_000));
    net.sent.clear();
    net.online(bob);
    net.settle();
    assert!(
        records(&mut net) > 0,
        "after an hour all is told again, for something may not have been of use then"
    );
}

/// A line of a look is closed after seconds, and most of what is known would be told again and again on the next ones.
#[test]
fn a_look_tells_the_newest_and_a_line_that_stands_everything() {
    let mut net = Net::new(1);
    let founder = net.add("Ada");
    let room = net.room(founder, "kitchen");
    let others: Vec<usize> = (0..20).map(|n| net.add(&format!("member {n}"))).collect();
    for newcomer in &others {
        net.join(founder, *newcomer, room);
    }
    net.pass(Duration::from_secs(200));
    let bob = others[0];
    net.offline(bob);
    net.pass(Duration::from_secs(4_000));
    for member in &others[1..] {
        net.offline(*member);
    }
    net.sent.clear();
    net.online(bob);
    net.settle();
    let told = |net: &mut Net| {
        let sent = std::mem::take(&mut net.sent);
        net.sent = sent.into_iter().filter(|(from, _, _)| *from == founder).collect();
        records(net)
    };
    assert_eq!(told(&mut net), 9, "its own, and the newest of the others");
    net.pass(Duration::from_secs(5));
    assert_eq!(told(&mut net), 0, "the rest waits");
    net.pass(Duration::from_secs(16));
    assert_eq!(told(&mut net), 11, "whoever stays is told everything, once");
}
