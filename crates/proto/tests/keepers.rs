//! A keeper holds what was said while everybody is away, and learns nothing of it.

mod net;

use std::time::Duration;

use net::Net;
use offhook_proto::history::RoomId;
use offhook_proto::keeper::{Answer, Limits, Refusal};
use offhook_proto::peer::view::KeeperView;
use offhook_proto::peer::{Command, Reply};
use offhook_proto::sync::Frame;
use offhook_proto::wire::Wire;

/// Ada and Bob in a room, and a keeper.
struct Cast {
    net: Net,
    ada: usize,
    bob: usize,
    keeper: usize,
    room: RoomId,
}

fn cast() -> Cast {
    let mut net = Net::new(1);
    let (ada, bob, keeper) = (net.add("Ada"), net.add("Bob"), net.add("Keeper"));
    let room = net.room(ada, "kitchen");
    net.join(ada, bob, room);
    Cast {
        net,
        ada,
        bob,
        keeper,
        room,
    }
}

fn keep(net: &mut Net, at: usize) {
    let limits = Limits::default();
    assert!(matches!(net.command(at, Command::Keep { limits }), Ok(Reply::Done)));
}

fn name(net: &mut Net, member: usize, keeper: usize, room: RoomId) {
    let keeper = net.peer(keeper).keeper_address().expect("it keeps");
    net.command(member, Command::AddKeeper { room, keeper }).unwrap();
    net.settle();
}

fn answer(frame: &[u8]) -> Option<Answer> {
    match Frame::from_bytes(frame) {
        Ok(Frame::Keeper { answer }) => Some(answer),
        _ => None,
    }
}

fn seen(net: &Net, member: usize, room: RoomId) -> KeeperView {
    net.peer(member).keepers(room).unwrap().remove(0)
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
    let Cast {
        mut net,
        ada,
        bob,
        keeper,
        room,
    } = cast();
    keep(&mut net, keeper);
    name(&mut net, ada, keeper, room);
    net.offline(bob);
    net.say(ada, room, "Bob is away");
    net.say(ada, room, "and so shall I be");
    net.settle();
    let last = net.say(ada, room, "good night");
    net.settle();
    assert_eq!(net.peer(ada).where_is(last).unwrap().unwrap().kept.len(), 1);
    assert_eq!(seen(&net, ada, room).lacks, 0);
    net.offline(ada);

    net.online(bob);
    net.settle();
    assert_eq!(net.texts(bob, room), ["Bob is away", "and so shall I be", "good night"]);
    assert_eq!(net.texts(bob, room), net.texts(ada, room));
    for words in [&b"Bob is away"[..], b"good night", b"kitchen", b"Ada", b"Bob"] {
        assert!(
            !leaked(&net, keeper, words),
            "the keeper saw {:?}",
            String::from_utf8_lossy(words)
        );
    }

    // The other way round: Bob answers and leaves, and Ada gets it there.
    net.say(bob, room, "good morning");
    net.settle();
    net.offline(bob);
    net.online(ada);
    net.settle();
    assert_eq!(net.texts(ada, room).last().map(String::as_str), Some("good morning"));
}

#[test]
fn without_a_keeper_nothing_comes() {
    let Cast {
        mut net,
        ada,
        bob,
        keeper,
        room,
    } = cast();
    keep(&mut net, keeper);
    net.offline(bob);
    net.say(ada, room, "Bob is away");
    net.settle();
    net.offline(ada);
    net.online(bob);
    net.settle();
    assert!(net.texts(bob, room).is_empty());
}

#[test]
fn two_who_hold_it_make_it_safe_to_go_offline() {
    let Cast {
        mut net,
        ada,
        bob,
        keeper,
        room,
    } = cast();
    keep(&mut net, keeper);
    let second = net.add("Second keeper");
    keep(&mut net, second);
    net.offline(bob);
    name(&mut net, ada, keeper, room);
    let id = net.say(ada, room, "held by one");
    net.settle();
    let at = net.peer(ada).where_is(id).unwrap().unwrap();
    assert_eq!((at.handed.len(), at.safe), (1, false));
    assert!(net.peer(ada).rooms().unwrap()[0].exposed > 0);
    name(&mut net, ada, second, room);
    let at = net.peer(ada).where_is(id).unwrap().unwrap();
    assert_eq!((at.handed.len(), at.kept.len(), at.safe), (2, 2, true));
    assert_eq!(net.peer(ada).rooms().unwrap()[0].exposed, 0);
}

#[test]
fn a_removed_member_neither_reads_nor_writes_at_the_keeper() {
    let Cast {
        mut net,
        ada,
        bob,
        keeper,
        room,
    } = cast();
    let eve = net.add("Eve");
    net.join(ada, eve, room);
    keep(&mut net, keeper);
    name(&mut net, ada, keeper, room);
    net.say(ada, room, "all are here");
    net.settle();
    net.offline(bob);
    net.offline(eve);
    let person = net.person(eve);
    net.command(ada, Command::RemoveMember { room, person }).unwrap();
    net.say(ada, room, "without Eve");
    net.settle();
    net.offline(ada);

    net.online(eve);
    let before = net.sent.len();
    net.settle();
    let to_eve = net.sent[before..]
        .iter()
        .filter(|(from, to, _)| (*from, *to) == (keeper, eve));
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
    net.say(eve, room, "Eve was here");
    net.settle();
    net.offline(eve);

    // Bob knows only the old keys, and is on the list: he reads, and finds the new ones in what he reads.
    net.online(bob);
    net.settle();
    assert_eq!(net.texts(bob, room), ["all are here", "without Eve"]);
    net.say(bob, room, "just the two of us");
    net.settle();
    net.offline(bob);
    net.online(ada);
    net.settle();
    assert_eq!(
        net.texts(ada, room).last().map(String::as_str),
        Some("just the two of us")
    );
    assert_eq!(net.texts(ada, room).len(), 3);
}

#[test]
fn a_keeper_that_lost_its_disk_is_found_out_and_given_everything_again() {
    let Cast {
        mut net,
        ada,
        bob: _,
        keeper,
        room,
    } = cast();
    keep(&mut net, keeper);
    name(&mut net, ada, keeper, room);
    net.settle();
    let early = net.peer(keeper).store().clone();
    for i in 0..10 {
        net.say(ada, room, &format!("message {i}"));
    }
    net.settle();
    let held = seen(&net, ada, room).holds;
    net.pass(Duration::from_secs(120));
    net.offline(keeper);
    net.reopen(keeper, early);
    keep(&mut net, keeper);
    net.online(keeper);
    net.settle();
    let notice = |(at, event): &(usize, offhook_proto::peer::Event)| {
        *at == ada && format!("{event:?}").contains("lost 10 entries")
    };
    assert!(net.events.iter().any(notice), "{:?}", seen(&net, ada, room));
    assert_eq!((seen(&net, ada, room).holds, seen(&net, ada, room).lacks), (held, 0));
}

#[test]
fn a_new_keeper_is_given_what_another_had() {
    let Cast {
        mut net,
        ada,
        bob,
        keeper,
        room,
    } = cast();
    let second = net.add("Second keeper");
    keep(&mut net, keeper);
    keep(&mut net, second);
    name(&mut net, ada, keeper, room);
    net.say(bob, room, "said by Bob");
    net.say(ada, room, "said by Ada");
    net.settle();
    net.offline(bob);
    net.offline(keeper);
    let device = net.nodes[keeper].device;
    net.command(ada, Command::RemoveKeeper { room, device }).unwrap();
    name(&mut net, ada, second, room);
    assert_eq!(seen(&net, ada, room).lacks, 0, "{:?}", seen(&net, ada, room));
    net.offline(ada);
    let eve = net.add("Eve");
    assert!(net.peer(eve).rooms().unwrap().is_empty());
    net.online(bob);
    net.settle();
    assert_eq!(net.texts(bob, room).len(), 2);
}

#[test]
fn a_keeper_meets_challenges() {
    let Cast {
        mut net,
        ada,
        bob: _,
        keeper,
        room,
    } = cast();
    keep(&mut net, keeper);
    name(&mut net, ada, keeper, room);
    net.say(ada, room, "something to hold");
    net.pass(Duration::from_secs(3600));
    let view = seen(&net, ada, room);
    assert!(view.proofs >= 2, "{view:?}");
    assert_eq!(view.fault, None);
}

/// What a lying keeper does to the entries that it keeps.
#[derive(Clone, Copy)]
enum Spoil {
    /// It no longer has what it was given.
    Payload,
    /// It has it, and gives nothing that can be believed.
    Signature,
}

/// Spoils all entries but the first of each kept log.
fn spoil(net: &mut Net, keeper: usize, what: Spoil) {
    use offhook_proto::history::Header;
    use offhook_proto::store::{Direction, EntryKey, LogNo, Store};
    use offhook_proto::wire::Reader;
    let mut store = net.peer(keeper).store().clone();
    let kept = store.scan(b"v", b"w", Direction::Ascending, usize::MAX).unwrap();
    assert!(!kept.is_empty());
    for (key, _) in kept {
        let log = LogNo(u32::from_be_bytes(key[1..5].try_into().unwrap()));
        for (seq, mut bytes) in store.entries(log, 2, u32::MAX, usize::MAX).unwrap() {
            let mut reader = Reader::new(&bytes);
            reader.varint().unwrap();
            Header::decode(&mut reader).unwrap();
            let signature = bytes.len() - reader.remaining();
            let at = match what {
                Spoil::Payload => bytes.len() - 1,
                Spoil::Signature => signature,
            };
            bytes[at] ^= 1;
            store.put_entry(EntryKey { log, seq }, &bytes).unwrap();
        }
    }
    net.reopen(keeper, store);
}

#[test]
fn a_keeper_that_lies_about_what_it_holds_is_found_out_and_no_longer_counts() {
    let Cast {
        mut net,
        ada,
        bob,
        keeper,
        room,
    } = cast();
    let honest = net.add("Honest keeper");
    for at in [keeper, honest] {
        keep(&mut net, at);
        name(&mut net, ada, at, room);
    }
    net.offline(bob);
    let last = (0..20)
        .map(|i| net.say(ada, room, &format!("message {i}")))
        .last()
        .unwrap();
    net.settle();
    assert!(net.peer(ada).where_is(last).unwrap().unwrap().safe);
    net.offline(keeper);
    spoil(&mut net, keeper, Spoil::Payload);
    keep(&mut net, keeper);
    net.online(keeper);
    net.pass(Duration::from_secs(4 * 3600));
    let liar = net.nodes[keeper].device;
    let of_liar = |net: &Net, member: usize| {
        let views = net.peer(member).keepers(room).unwrap();
        views.into_iter().find(|view| view.device == liar).unwrap()
    };
    let fault = of_liar(&net, ada).fault.expect("it cannot prove what it says");
    assert!(fault.is_lie(), "{fault:?}");
    assert!(
        !net.peer(ada).where_is(last).unwrap().unwrap().safe,
        "one honest holder is not two"
    );

    // Bob has nothing to test it with: he asks for what it says it holds, and gets all of it from the other one.
    net.offline(ada);
    net.online(bob);
    net.pass(Duration::from_secs(60));
    assert_eq!(net.texts(bob, room).len(), 20);
}

#[test]
fn a_keeper_that_holds_back_is_found_out_by_who_comes_back() {
    let Cast {
        mut net,
        ada,
        bob,
        keeper,
        room,
    } = cast();
    keep(&mut net, keeper);
    name(&mut net, ada, keeper, room);
    net.offline(bob);
    for i in 0..20 {
        net.say(ada, room, &format!("message {i}"));
    }
    net.settle();
    net.offline(ada);
    net.offline(keeper);
    spoil(&mut net, keeper, Spoil::Signature);
    keep(&mut net, keeper);
    net.online(keeper);
    net.online(bob);
    net.pass(Duration::from_secs(4));
    let view = seen(&net, bob, room);
    let fault = view.fault.expect("it says what it does not give");
    assert!(format!("{fault:?}").contains("Withheld"), "{fault:?}");
}
