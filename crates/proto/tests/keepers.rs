//! A keeper holds what was said while everybody is away, and learns nothing of it.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod net;

use std::time::Duration;

use net::Net;
use offhook_proto::history::{EntryId, RoomId};
use offhook_proto::keeper::{Answer, Limits, Refusal};
use offhook_proto::peer::view::KeeperView;
use offhook_proto::peer::{Command, Event, Reply};
use offhook_proto::store::MemoryStore;
use offhook_proto::sync::Frame;
use offhook_proto::wire::Wire;

/// Ada and Bob in a room, and a node that keeps.
struct Cast {
    net: Net,
    ada: usize,
    bob: usize,
    keeper: usize,
    room: RoomId,
}

impl Cast {
    fn new() -> Self {
        let mut net = Net::new(1);
        let (ada, bob, keeper) = (net.add("Ada"), net.add("Bob"), net.add("Keeper"));
        let room = net.room(ada, "kitchen");
        net.join(ada, bob, room);
        keep(&mut net, keeper);
        Self {
            net,
            ada,
            bob,
            keeper,
            room,
        }
    }

    /// The keeper is one of the room's.
    fn with_keeper() -> Self {
        let mut cast = Self::new();
        cast.name(cast.keeper);
        cast
    }

    fn second_keeper(&mut self) -> usize {
        let second = self.net.add("Second keeper");
        keep(&mut self.net, second);
        second
    }

    /// Ada names a keeper.
    fn name(&mut self, keeper: usize) {
        let (room, keeper) = (self.room, self.net.peer(keeper).keeper_address().expect("it keeps"));
        self.net.command(self.ada, Command::AddKeeper { room, keeper }).unwrap();
        self.net.settle();
    }

    /// Everybody who is there gets what was said.
    fn say(&mut self, at: usize, words: &str) -> EntryId {
        let id = self.net.say(at, self.room, words);
        self.net.settle();
        id
    }

    fn texts(&self, at: usize) -> Vec<String> {
        self.net.texts(at, self.room)
    }

    /// The first keeper, as Ada knows it.
    fn seen(&self) -> KeeperView {
        self.net.peer(self.ada).keepers(self.room).unwrap().remove(0)
    }

    /// The keeper's disk is as it was then.
    fn keeper_restarts_over(&mut self, store: MemoryStore) {
        self.net.offline(self.keeper);
        self.net.reopen(self.keeper, store);
        keep(&mut self.net, self.keeper);
        self.net.online(self.keeper);
    }
}

fn keep(net: &mut Net, at: usize) {
    let limits = Limits::default();
    assert!(matches!(net.command(at, Command::Keep { limits }), Ok(Reply::Done)));
}

fn answer(frame: &[u8]) -> Option<Answer> {
    match Frame::from_bytes(frame) {
        Ok(Frame::Keeper { answer }) => Some(answer),
        _ => None,
    }
}

/// Whether any frame to the keeper, or anything in its store, holds these words.
fn leaked(net: &Net, keeper: usize, words: &[u8]) -> bool {
    let holds = |bytes: &[u8]| bytes.windows(words.len()).any(|window| window == words);
    let to_it = net.sent.iter().filter(|(_, to, _)| *to == keeper);
    let store = net.peer(keeper).store();
    let records = offhook_proto::store::Store::scan(
        store,
        &[],
        &[255; 64],
        offhook_proto::store::Direction::Ascending,
        usize::MAX,
    );
    to_it.clone().count() == 0
        || to_it.into_iter().any(|(_, _, bytes)| holds(bytes))
        || records.unwrap().iter().any(|(_, value)| holds(value))
}

#[test]
fn who_was_away_all_the_time_reads_everything_when_nobody_but_the_keeper_is_there() {
    let mut cast = Cast::with_keeper();
    let (ada, bob) = (cast.ada, cast.bob);
    cast.net.offline(bob);
    cast.say(ada, "Bob is away");
    cast.say(ada, "and so shall I be");
    let last = cast.say(ada, "good night");
    assert_eq!(cast.net.peer(ada).where_is(last).unwrap().unwrap().kept.len(), 1);
    assert_eq!(cast.seen().lacks, 0);
    cast.net.offline(ada);

    cast.net.online(bob);
    cast.net.settle();
    assert_eq!(cast.texts(bob), ["Bob is away", "and so shall I be", "good night"]);
    assert_eq!(cast.texts(bob), cast.texts(ada));
    for words in [&b"Bob is away"[..], b"good night", b"kitchen", b"Ada", b"Bob"] {
        assert!(
            !leaked(&cast.net, cast.keeper, words),
            "the keeper saw {:?}",
            String::from_utf8_lossy(words)
        );
    }

    // The other way round: Bob answers and leaves, and Ada gets it there.
    cast.say(bob, "good morning");
    cast.net.offline(bob);
    cast.net.online(ada);
    cast.net.settle();
    assert_eq!(cast.texts(ada).last().map(String::as_str), Some("good morning"));
}

#[test]
fn without_a_keeper_nothing_comes() {
    let mut cast = Cast::new();
    let (ada, bob) = (cast.ada, cast.bob);
    cast.net.offline(bob);
    cast.say(ada, "Bob is away");
    cast.net.offline(ada);
    cast.net.online(bob);
    cast.net.settle();
    assert!(cast.texts(bob).is_empty());
}

#[test]
fn two_who_hold_it_make_it_safe_to_go_offline() {
    let mut cast = Cast::new();
    let ada = cast.ada;
    let second = cast.second_keeper();
    cast.net.offline(cast.bob);
    cast.name(cast.keeper);
    let id = cast.say(ada, "held by one");
    let at = cast.net.peer(ada).where_is(id).unwrap().unwrap();
    assert_eq!((at.handed.len(), at.safe), (1, false));
    assert!(cast.net.peer(ada).rooms().unwrap()[0].exposed > 0);
    cast.name(second);
    let at = cast.net.peer(ada).where_is(id).unwrap().unwrap();
    assert_eq!((at.handed.len(), at.kept.len(), at.safe), (2, 2, true));
    assert_eq!(cast.net.peer(ada).rooms().unwrap()[0].exposed, 0);
}

#[test]
fn a_removed_member_neither_reads_nor_writes_at_the_keeper() {
    let mut cast = Cast::new();
    let (ada, bob, room) = (cast.ada, cast.bob, cast.room);
    let eve = cast.net.add("Eve");
    cast.net.join(ada, eve, room);
    cast.name(cast.keeper);
    cast.say(ada, "all are here");
    cast.net.offline(bob);
    cast.net.offline(eve);
    let person = cast.net.person(eve);
    cast.net.command(ada, Command::RemoveMember { room, person }).unwrap();
    cast.say(ada, "without Eve");
    cast.net.offline(ada);

    cast.net.online(eve);
    let before = cast.net.sent.len();
    cast.net.settle();
    let to_eve = cast.net.sent[before..]
        .iter()
        .filter(|(from, to, _)| (*from, *to) == (cast.keeper, eve));
    let told: Vec<Answer> = to_eve.filter_map(|(_, _, bytes)| answer(bytes)).collect();
    let refused = |answer: &Answer| {
        matches!(
            answer,
            Answer::Refused {
                why: Refusal::Closed {},
                ..
            }
        )
    };
    assert!(
        !told.is_empty() && told.iter().all(refused),
        "the keeper gave Eve something: {told:?}"
    );
    cast.say(eve, "Eve was here");
    cast.net.offline(eve);

    // Bob knows only the old keys, and is on the list: he reads, and finds the new ones in what he reads.
    cast.net.online(bob);
    cast.net.settle();
    assert_eq!(cast.texts(bob), ["all are here", "without Eve"]);
    cast.say(bob, "just the two of us");
    cast.net.offline(bob);
    cast.net.online(ada);
    cast.net.settle();
    assert_eq!(cast.texts(ada).last().map(String::as_str), Some("just the two of us"));
    assert_eq!(cast.texts(ada).len(), 3);
}

/// Who noticed that the keeper lost so many entries.
fn noticed_a_loss(net: &Net, entries: u32) -> Vec<usize> {
    let words = format!("lost {entries} entries");
    let is_it = |(_, event): &&(usize, Event)| format!("{event:?}").contains(&words);
    net.events.iter().filter(is_it).map(|(at, _)| *at).collect()
}

#[test]
fn a_keeper_that_lost_its_disk_is_found_out_and_given_everything_again() {
    let mut cast = Cast::with_keeper();
    let ada = cast.ada;
    let early = cast.net.peer(cast.keeper).store().clone();
    for i in 0..10 {
        cast.net.say(ada, cast.room, &format!("message {i}"));
    }
    cast.net.settle();
    let held = cast.seen().holds;
    cast.net.pass(Duration::from_secs(120));
    cast.keeper_restarts_over(early);
    cast.net.pass(Duration::from_secs(300));
    // Whoever meets it first finds out, and gives it everything again; the next ones find nothing missing.
    assert!(
        !noticed_a_loss(&cast.net, 10).is_empty(),
        "{:?} {:?}",
        cast.seen(),
        cast.net.events
    );
    assert_eq!((cast.seen().holds, cast.seen().lacks), (held, 0));
}

#[test]
fn a_single_member_finds_out_that_a_keeper_lost_its_disk() {
    let mut cast = Cast::with_keeper();
    let ada = cast.ada;
    let early = cast.net.peer(cast.keeper).store().clone();
    cast.net.offline(cast.bob);
    let id = cast.say(ada, "held there once");
    assert_eq!(cast.net.peer(ada).where_is(id).unwrap().unwrap().kept.len(), 1);
    cast.keeper_restarts_over(early);
    cast.net.pass(Duration::from_secs(300));
    assert_eq!(
        noticed_a_loss(&cast.net, 1),
        [ada],
        "{:?} {:?}",
        cast.seen(),
        cast.net.events
    );
    assert_eq!(cast.seen().lacks, 0);
}

#[test]
fn a_new_keeper_is_given_what_another_had() {
    let mut cast = Cast::with_keeper();
    let (ada, bob, room) = (cast.ada, cast.bob, cast.room);
    let second = cast.second_keeper();
    cast.net.say(bob, room, "said by Bob");
    cast.say(ada, "said by Ada");
    cast.net.offline(bob);
    cast.net.offline(cast.keeper);
    let device = cast.net.nodes[cast.keeper].device;
    cast.net.command(ada, Command::RemoveKeeper { room, device }).unwrap();
    cast.name(second);
    assert_eq!(cast.seen().lacks, 0, "{:?}", cast.seen());
    cast.net.offline(ada);
    let eve = cast.net.add("Eve");
    assert!(cast.net.peer(eve).rooms().unwrap().is_empty());
    cast.net.online(bob);
    cast.net.settle();
    assert_eq!(cast.texts(bob).len(), 2);
}

#[test]
fn a_keeper_meets_challenges() {
    let mut cast = Cast::with_keeper();
    cast.say(cast.ada, "something to hold");
    cast.net.pass(Duration::from_secs(3600));
    let view = cast.seen();
    assert!(view.proofs >= 2, "{view:?}");
    assert_eq!(view.fault, None);
}
