//! Who is in two rooms can repeat in one what was written in the other, so that devices in both come to hold the keys of one room in the other, too.
//! They still find each room as what it is.

#![allow(clippy::unwrap_used)]

mod net;

use std::collections::BTreeMap;

use net::Net;
use offhook_proto::history::{Class, Entry, EntryId, LogKey, RoomId, entry};
use offhook_proto::peer::{Command, Input};
use offhook_proto::sync::Frame;
use offhook_proto::sync::frame::{Ends, LogName, RoomName, Run, Runs};
use offhook_proto::wire::Wire as _;

/// The frames with entries that went from one to another.
fn frames(net: &Net, from: usize, to: usize) -> Vec<(RoomName, Vec<Run>)> {
    let between = (net.sent.iter()).filter(|(a, b, _)| (*a, *b) == (from, to));
    let entries = |bytes: &[u8]| match Frame::from_bytes(bytes) {
        Ok(Frame::Entries { name, runs, .. }) => Some((name, runs.0)),
        _ => None,
    };
    between.filter_map(|(_, _, bytes)| entries(bytes)).collect()
}

/// The control entries at the beginning of the log of `id`, as they went from one to another.
fn introduction(net: &Net, from: usize, to: usize, id: EntryId) -> (LogKey, Vec<Entry>) {
    let between = (net.sent.iter()).filter(|(a, b, _)| (*a, *b) == (from, to));
    let named = between.flat_map(|(_, _, bytes)| match Frame::from_bytes(bytes) {
        Ok(Frame::Summary { changes, .. }) => changes.added().copied().collect(),
        _ => Vec::new(),
    });
    let log = named.into_iter().find(|log| log.prefix() == id.log).unwrap();
    let runs = frames(net, from, to).into_iter().flat_map(|(_, runs)| runs);
    let signed = |entry: &Entry| entry::verify(&log, &entry.header.hash(&log), &entry.signature).is_ok();
    let of_log = runs.flat_map(|run| run.entries).filter(signed);
    let by_number: BTreeMap<u32, Entry> = of_log.map(|entry| (entry.header.seq, entry)).collect();
    let control = (1..).map_while(|seq| by_number.get(&seq).filter(|entry| entry.header.class == Class::Control));
    (log, control.cloned().collect())
}

/// Eve repeats to another, as if it belonged to the room in which she said something last, the beginning of the log of `id`.
fn repeat_elsewhere(net: &mut Net, eve: usize, to: usize, id: EntryId) {
    let (log, entries) = introduction(net, eve, to, id);
    assert!(entries.len() > 3, "whom Eve let in, and whom she removed");
    let (name, _) = frames(net, eve, to).pop().unwrap();
    let log = LogName::New(log);
    let runs = Runs(vec![Run { log, entries }]);
    let ends = Ends(None);
    let bytes = Frame::Entries { name, ends, runs }.to_bytes();
    let peer = net.nodes[eve].device;
    net.input(to, Input::Frame { peer, bytes });
}

fn room_with(net: &mut Net, eve: usize, others: &[usize], name: &str) -> RoomId {
    let room = net.room(eve, name);
    for other in others {
        net.join(eve, *other, room);
    }
    room
}

#[test]
fn a_room_whose_entries_were_repeated_in_another_is_found() {
    let mut net = Net::new(1);
    let [ada, bob, eve, dan] = ["Ada", "Bob", "Eve", "Dan"].map(|name| net.add(name));
    let kitchen = room_with(&mut net, eve, &[ada, bob, dan], "kitchen");
    // Eve's log now holds keys that are sealed to Ada and to Bob.
    let person = net.person(dan);
    net.command(eve, Command::RemoveMember { room: kitchen, person })
        .unwrap();
    let in_kitchen = net.say(eve, kitchen, "tea");
    net.settle();
    let study = room_with(&mut net, eve, &[ada, bob], "study");
    net.say(eve, study, "quiet");
    net.drain();
    for to in [ada, bob] {
        repeat_elsewhere(&mut net, eve, to, in_kitchen);
    }
    net.offline(eve);

    net.forbid(ada, bob);
    net.allow(ada, bob);
    net.settle();
    for (at, room, words) in [
        (ada, kitchen, "coffee"),
        (bob, kitchen, "cocoa"),
        (ada, study, "is anybody here"),
    ] {
        net.say(at, room, words);
        net.settle();
    }
    for at in [ada, bob] {
        assert_eq!(net.texts(at, kitchen), ["tea", "coffee", "cocoa"]);
        assert_eq!(net.texts(at, study), ["quiet", "is anybody here"]);
    }
}
