//! Coming back after a long time: everything arrives, once, from several peers at once, and the order is the same everywhere.

mod net;

use net::Net;
use offhook_proto::sync::Frame;
use offhook_proto::wire::Wire;

#[test]
fn each_missing_entry_is_fetched_once_though_several_have_it() {
    let mut net = Net::new(1);
    let peers: Vec<usize> = ["Ada", "Bob", "Eve", "Dan"].map(|name| net.add(name)).to_vec();
    let room = net.room(peers[0], "kitchen");
    for peer in &peers[1..] {
        net.join(peers[0], *peer, room);
    }
    let away = peers[3];
    net.offline(away);
    for i in 0..300 {
        net.say(peers[i % 3], room, &format!("message {i}"));
    }
    net.settle();
    net.sent.clear();
    net.online(away);
    net.settle();
    assert_eq!(net.texts(away, room).len(), 300);
    assert_eq!(net.texts(away, room), net.texts(peers[0], room));
    let received: usize = net
        .sent
        .iter()
        .filter(|(_, to, _)| *to == away)
        .map(|(_, _, bytes)| entries_in(bytes))
        .sum();
    assert!((300..=305).contains(&received), "{received} entries came for 300");
}

#[test]
fn a_room_far_behind_shows_its_newest_page_first_and_then_everything() {
    let mut net = Net::new(2);
    let (ada, bob) = (net.add("Ada"), net.add("Bob"));
    let room = net.room(ada, "kitchen");
    net.join(ada, bob, room);
    net.offline(bob);
    for i in 0..6000 {
        net.say(ada, room, &format!("message {i}"));
    }
    net.sent.clear();
    net.online(bob);
    net.settle();
    let texts = net.texts(bob, room);
    assert_eq!(texts.last().map(String::as_str), Some("message 5999"));
    assert_eq!(net.peer(bob).rooms().unwrap()[0].entries, 6000);
    assert_eq!(net.peer(bob).rooms().unwrap()[0].missing, 0);
    let first = net
        .sent
        .iter()
        .find(|(_, to, bytes)| *to == bob && entries_in(bytes) > 0);
    let newest_first = first.is_some_and(|(_, _, bytes)| match Frame::from_bytes(bytes) {
        Ok(Frame::Entries { runs, .. }) => runs.0.iter().flat_map(|run| &run.entries).any(|e| e.header.seq > 5900),
        _ => false,
    });
    assert!(newest_first, "the first entries are the newest page");
}

#[test]
fn members_without_a_line_between_them_hear_each_other_through_others() {
    let mut net = Net::new(3);
    let (ada, bob, eve) = (net.add("Ada"), net.add("Bob"), net.add("Eve"));
    let room = net.room(ada, "kitchen");
    net.join(ada, bob, room);
    net.join(ada, eve, room);
    net.forbid(bob, eve);
    net.settle();
    net.say(bob, room, "through Ada");
    net.pass(std::time::Duration::from_secs(3));
    assert_eq!(net.texts(eve, room), ["through Ada"]);
}

fn entries_in(bytes: &[u8]) -> usize {
    match Frame::from_bytes(bytes) {
        Ok(Frame::Entries { runs, .. }) => runs.0.iter().map(|run| run.entries.len()).sum(),
        _ => 0,
    }
}
