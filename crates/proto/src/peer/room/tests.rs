#![allow(clippy::disallowed_methods, reason = "a test needs some instant to begin at")]
use super::*;
use crate::history::entry::SEQ_MAX;
use crate::identity::{DeviceKey, RootKey};
use crate::peer::line::RoomLine;
use crate::peer::{Command, Input, Peer, Reply, Secrets};
use crate::rooms::HistoryPolicy;
use crate::store::MemoryStore;
use crate::sync::Frame;
use crate::sync::frame::{LogName, RoomName, Run, Runs, Side};
use rand_core::SeedableRng;

const WALL_MS: u64 = 1_790_000_000_000;

fn key(seed: u8) -> KeyPair {
    KeyPair::from_seed(&Secret([seed; 32]))
}

fn log_of(key: &KeyPair) -> LogKey {
    LogKey(key.public())
}

fn ctx() -> Ctx {
    Ctx {
        now: Instant::now(),
        wall_ms: WALL_MS,
        rng: ChaCha20Rng::from_seed([7; 32]),
        out: Vec::new(),
        me: PersonId([1; 32]),
        device: DeviceId([2; 32]),
        prekeys: Vec::new(),
        next_log: 1,
        next_room: 1,
        blocked: BTreeSet::new(),
    }
}

/// A control entry of a log that nobody knows yet: such are taken up to a point.
fn entry(key: &KeyPair, seq: u32, prev: Hash, clock_ms: u64, parents: Vec<EntryRef>) -> Entry {
    let header = Header {
        class: Class::Control,
        seq,
        prev,
        clock: Clock::at_ms(clock_ms),
        epoch: EpochId([3; 8]),
        parents,
        payload_hash: [0; 32],
        payload_len: 0,
    };
    let signature = entry::sign(key, &header.hash(&log_of(key)));
    Entry {
        header,
        signature,
        payload: None,
    }
}

fn refer(key: &KeyPair, seq: u32, hash: &Hash) -> EntryRef {
    EntryRef {
        log: log_of(key).prefix(),
        seq,
        hash: prefix8(hash),
    }
}

fn effective(room: &Room, store: &MemoryStore, key: &KeyPair, seq: u32) -> i64 {
    let (_, at) = room.find(&refer(key, seq, &[0; 32]).id()).unwrap();
    room.stored(store, at).unwrap().unwrap().effective
}

#[test]
fn who_refers_to_its_own_future_stops_nobody() {
    let (ada, bob) = (key(1), key(2));
    let (mut store, mut ctx) = (MemoryStore::default(), ctx());
    let mut room = Room::new(RoomNo(1), RoomId([9; 32]), StoredStanding::Member {}, String::new());
    let first = entry(&ada, 1, [0; 32], WALL_MS, vec![refer(&ada, 2, &[5; 32])]);
    let hash = first.header.hash(&log_of(&ada));
    let second = entry(&ada, 2, hash, WALL_MS + 1, Vec::new());
    let answer = entry(&bob, 1, [0; 32], WALL_MS - 1000, vec![refer(&ada, 1, &hash)]);
    for (key, run) in [(&ada, vec![first, second]), (&bob, vec![answer])] {
        let outcome = room.ingest(&mut store, &mut ctx, log_of(key), run).unwrap();
        assert_eq!(outcome.refused, None);
    }
    let below_the_answer = effective_of(Clock::at_ms(WALL_MS - 1000)) - 1;
    assert_eq!(effective(&room, &store, &ada, 1), below_the_answer);
    assert_eq!(
        effective(&room, &store, &ada, 2),
        effective_of(Clock::at_ms(WALL_MS + 1)),
        "a reference whose hash does not fit pulls nothing"
    );
}

#[test]
fn a_reference_that_came_first_is_kept_for_the_entry_it_means() {
    let (ada, bob) = (key(1), key(2));
    let first = entry(&ada, 1, [0; 32], WALL_MS, Vec::new());
    let hash = first.header.hash(&log_of(&ada));
    for (meant, pulled) in [(hash, true), ([5; 32], false)] {
        let (mut store, mut ctx) = (MemoryStore::default(), ctx());
        let mut room = Room::new(RoomNo(1), RoomId([9; 32]), StoredStanding::Member {}, String::new());
        let answer = entry(&bob, 1, [0; 32], WALL_MS - 1000, vec![refer(&ada, 1, &meant)]);
        for (key, run) in [(&bob, vec![answer]), (&ada, vec![first.clone()])] {
            let outcome = room.ingest(&mut store, &mut ctx, log_of(key), run).unwrap();
            assert_eq!(outcome.refused, None);
        }
        let own = effective_of(Clock::at_ms(WALL_MS));
        assert_eq!(effective(&room, &store, &ada, 1) < own, pulled);
    }
}

#[test]
fn numbers_out_of_all_proportion_are_refused() {
    let at = |seq| entry(&key(1), seq, [4; 32], WALL_MS, Vec::new()).to_bytes();
    assert!(Entry::from_bytes(&at(SEQ_MAX)).is_ok());
    assert!(Entry::from_bytes(&at(SEQ_MAX + 1)).is_err());
    assert!(Entry::from_bytes(&at(0)).is_err());
}

#[test]
fn a_run_of_nothing_is_refused() {
    let run = |entries| {
        let log = LogName::Known(0);
        Runs(vec![Run { log, entries }]).to_bytes()
    };
    assert!(Runs::from_bytes(&run(Vec::new())).is_err());
    assert!(Runs::from_bytes(&run(vec![entry(&key(1), 1, [0; 32], WALL_MS, Vec::new())])).is_ok());
}

#[test]
fn limbo_is_bounded_by_bytes() {
    let mut room = Room::new(RoomNo(1), RoomId([9; 32]), StoredStanding::Member {}, String::new());
    for seq in 1..200 {
        let mut large = entry(&key(1), seq, [0; 32], WALL_MS, Vec::new());
        large.payload = Some(vec![0; 100_000]);
        room.keep_in_limbo(log_of(&key(1)), vec![large]);
    }
    let kept: usize = room.limbo.iter().flat_map(|(_, run)| run).map(limbo_bytes).sum();
    assert!(kept <= LIMBO_BYTES_MAX && kept > LIMBO_BYTES_MAX / 2, "{kept}");
    let newest = room.limbo.last().map(|(_, run)| run[0].header.seq);
    assert_eq!(newest, Some(199), "the oldest go first");
}

fn peer_with_room() -> (Peer<MemoryStore>, RoomNo) {
    let secrets = Secrets {
        root: RootKey::from_entropy(Secret([1; 32])),
        device: DeviceKey(key(50)),
    };
    let now = Instant::now();
    let mut peer = Peer::open(MemoryStore::default(), secrets, "Ada", [1; 32], now).unwrap();
    let _ = peer.handle(Input::WallClock { unix_ms: WALL_MS }, now).unwrap();
    let command = Command::CreateRoom {
        name: "kitchen".into(),
        history: HistoryPolicy::All {},
    };
    match peer.command(command).unwrap() {
        Ok(Reply::Room(id)) => {
            let no = peer.by_id[&id];
            (peer, no)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn epochs_that_nobody_asked_for_are_not_kept() {
    let (mut peer, no) = peer_with_room();
    let held = |peer: &Peer<MemoryStore>| peer.rooms[&no].epochs.sync_secrets().count();
    let before = held(&peer);
    let gift = |seed: u8| EpochGift::Whole {
        secret: Secret([seed; 32]),
    };
    peer.on_epochs(no, (0..100).map(gift).collect()).unwrap();
    assert_eq!(held(&peer), before);

    let wanted = crate::rooms::EpochSecret(Secret([5; 32])).id();
    peer.rooms.get_mut(&no).unwrap().wanted_epochs.insert(wanted);
    peer.on_epochs(no, (0..100).map(gift).collect()).unwrap();
    assert_eq!(held(&peer), before + 1);
}

#[test]
fn each_epoch_that_is_lacking_is_asked_for() {
    let (mut peer, no) = peer_with_room();
    let other = DeviceId([77; 32]);
    peer.new_line(other, [8; 32]);
    let (side, place) = (Side::Mine, 3);
    let name = RoomName { side, place };
    let shared = RoomLine::new(name, Secret([2; 32]), None, BTreeMap::new());
    peer.lines.get_mut(&other).unwrap().rooms.insert(no, shared);
    for wanted in [EpochId([1; 8]), EpochId([2; 8])] {
        let room = peer.rooms.get_mut(&no).unwrap();
        room.wanted_epochs = [wanted].into();
        peer.ctx.out.clear();
        for _ in 0..2 {
            peer.after_contact(other, no).unwrap();
        }
        let asked: Vec<Frame> = std::mem::take(&mut peer.ctx.out)
            .into_iter()
            .filter_map(|output| match output {
                Output::Send { bytes, .. } => Frame::from_bytes(&bytes).ok(),
                _ => None,
            })
            .collect();
        let once = Frame::NeedEpochs {
            name,
            epochs: vec![wanted],
        };
        assert_eq!(asked, [once]);
    }
}
