//! How far devices have got is told to whom it is news, and not again on every connection.

mod net;

use std::time::Duration;

use net::Net;
use offhook_proto::peer::view::DeliveryState;
use offhook_proto::sync::frame::Frame;
use offhook_proto::wire::Wire as _;

/// The kind of a `Receipts` frame on the wire.
const RECEIPTS: u8 = 13;

fn receipts(net: &mut Net) -> usize {
    let count = net
        .sent
        .iter()
        .filter(|(_, _, bytes)| bytes.first() == Some(&RECEIPTS))
        .count();
    net.sent.clear();
    count
}

#[test]
fn what_a_device_was_given_is_not_given_again() {
    let mut net = Net::new(1);
    let ([ada, bob, _], room) = net.kitchen_of(["Ada", "Bob", "Cleo"]);
    net.say(ada, room, "tea");
    net.pass(Duration::from_secs(200));
    assert!(receipts(&mut net) > 0, "it was news once");

    net.offline(bob);
    net.online(bob);
    net.settle();
    assert_eq!(receipts(&mut net), 0, "nothing happened since");

    let store = net.peer(bob).store().clone();
    net.offline(bob);
    net.reopen(bob, store);
    net.online(bob);
    net.settle();
    assert_eq!(receipts(&mut net), 0, "a restart is no news either");

    net.offline(bob);
    net.say(ada, room, "cake");
    net.online(bob);
    net.settle();
    assert!(receipts(&mut net) > 0, "what is new is told");
}

/// Lines of looks are shorter than the time between two comparisons of states.
#[test]
fn what_was_given_on_a_short_line_is_not_given_again() {
    let mut net = Net::new(3);
    let (members, room) = net.kitchen_of(["Ada", "Bob", "Cleo", "Dan"]);
    net.say(members[0], room, "tea");
    net.pass(Duration::from_secs(200));
    let bob = members[1];
    net.offline(bob);
    net.say(members[0], room, "cake");
    net.pass(Duration::from_secs(200));
    receipts(&mut net);
    for round in 0..3 {
        net.online(bob);
        net.pass(Duration::from_secs(11));
        net.offline(bob);
        let given = receipts(&mut net);
        assert_eq!(given > 0, round == 0, "{given} in round {round}");
    }
}

/// Both have learnt the same from others: who dialled says it, and the other side sees that there is nothing to add.
#[test]
fn what_both_know_is_told_by_one_of_them() {
    let mut net = Net::new(4);
    let (ada, bob, cleo) = (net.add("Ada"), net.add("Bob"), net.add("Cleo"));
    net.forbid(bob, cleo);
    let room = net.room(ada, "kitchen");
    for newcomer in [bob, cleo] {
        net.join(ada, newcomer, room);
    }
    net.say(ada, room, "tea");
    net.pass(Duration::from_secs(200));
    net.sent.clear();
    net.unbar(bob, cleo);
    net.pass(Duration::from_secs(60));
    let told = |from: usize, to: usize| {
        let between = net.sent.iter().filter(|(a, b, _)| (*a, *b) == (from, to));
        between
            .filter_map(|(_, _, bytes)| match Frame::from_bytes(bytes) {
                Ok(Frame::Receipts { receipts, .. }) => Some(receipts.len()),
                _ => None,
            })
            .sum::<usize>()
    };
    let mut both = [told(bob, cleo), told(cleo, bob)];
    both.sort_unstable();
    assert_eq!(both, [0, 3]);
}

#[test]
fn an_author_without_a_line_to_a_reader_learns_that_it_is_there() {
    let mut net = Net::new(2);
    let ([ada, _, cleo], room) = net.kitchen_of(["Ada", "Bob", "Cleo"]);
    net.settle();
    net.forbid(ada, cleo);
    let said = net.say(ada, room, "tea");
    net.settle();
    assert_eq!(net.texts(cleo, room), ["tea"], "by way of Bob");
    let shown = net.peer(ada).entry(said).unwrap().unwrap();
    assert_eq!(shown.state, DeliveryState::Reached);
}
