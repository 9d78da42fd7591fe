//! What somebody looks at comes first, and nothing large is in the way of what is urgent.

mod net;

use std::collections::BTreeSet;

use net::Net;
use offhook_proto::peer::Command;
use offhook_proto::sync::Frame;
use offhook_proto::wire::Wire;

/// More than may be under way at once: 256 KiB, the frame that goes beyond it, and what is pushed.
const UNDER_WAY_MAX: usize = (256 + 64 + 16) * 1024;
/// Entries in the page of a screen.
const PAGE: usize = 64;

#[test]
fn the_page_on_screen_comes_before_the_backlog_of_another_room() {
    let mut net = Net::new(1);
    let (ada, bob) = (net.add("Ada"), net.add("Bob"));
    let large = net.room(ada, "large");
    let small = net.room(ada, "small");
    for room in [large, small] {
        net.join(ada, bob, room);
    }
    net.offline(bob);
    for i in 0..1500 {
        net.say(ada, large, &format!("{i} {}", "x".repeat(1000)));
    }
    for i in 0..100 {
        net.say(ada, small, &format!("small {i}"));
    }
    net.settle();
    net.sent.clear();
    let open = Command::OpenRoom { room: Some(small) };
    net.command(bob, open).unwrap();
    net.online(bob);
    net.settle();
    assert_eq!(net.texts(bob, small).len(), 100);
    assert_eq!(
        net.peer(bob)
            .rooms()
            .unwrap()
            .iter()
            .map(|room| room.missing)
            .sum::<u64>(),
        0
    );

    let brought: Vec<usize> = entries(&net, ada, bob);
    let brought: usize = brought.iter().sum();
    assert!((1600..=1605).contains(&brought), "{brought} entries came for 1600");
    let before_page: usize = net
        .sent
        .iter()
        .filter(|(from, ..)| *from == ada)
        .take_while(|(_, _, bytes)| !is_page(bytes))
        .map(|(_, _, bytes)| bytes.len())
        .sum();
    assert!(
        before_page <= UNDER_WAY_MAX,
        "{before_page} B came before the page on screen"
    );
}

#[test]
fn an_answer_waits_until_what_was_sent_is_taken_in() {
    const TAKEN: u8 = 7;
    let mut net = Net::new(2);
    let (ada, bob) = (net.add("Ada"), net.add("Bob"));
    let room = net.room(ada, "large");
    net.join(ada, bob, room);
    net.offline(bob);
    for i in 0..1500 {
        net.say(ada, room, &format!("{i} {}", "x".repeat(1000)));
    }
    net.settle();
    net.sent.clear();
    // Bob never says that he took anything in.
    net.swallowed.insert((bob, ada, TAKEN));
    net.online(bob);
    net.settle();
    let sent: usize = net
        .sent
        .iter()
        .filter(|(from, ..)| *from == ada)
        .map(|(_, _, bytes)| bytes.len())
        .sum();
    assert!((200 * 1024..=UNDER_WAY_MAX).contains(&sent), "{sent} B were under way");
    // What is new does not wait.
    net.say(ada, room, "new");
    net.settle();
    assert!(net.texts(bob, room).contains(&"new".to_owned()));
}

fn entries(net: &Net, from: usize, to: usize) -> Vec<usize> {
    let frames = net.sent.iter().filter(|(a, b, _)| (*a, *b) == (from, to));
    let count = |bytes: &[u8]| match Frame::from_bytes(bytes) {
        Ok(Frame::Entries { runs, .. }) => runs.0.iter().map(|run| run.entries.len()).sum(),
        _ => 0,
    };
    frames.map(|(_, _, bytes)| count(bytes)).collect()
}

/// Whether a frame brings the page: fifty small entries, the newest.
fn is_page(bytes: &[u8]) -> bool {
    let Ok(Frame::Entries { runs, .. }) = Frame::from_bytes(bytes) else {
        return false;
    };
    let seqs: BTreeSet<u32> = runs
        .0
        .iter()
        .flat_map(|run| &run.entries)
        .map(|e| e.header.seq)
        .collect();
    let small = runs
        .0
        .iter()
        .flat_map(|run| &run.entries)
        .all(|e| e.header.payload_len < 200);
    small && seqs.len() == PAGE
}
