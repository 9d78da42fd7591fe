//! What the fuzzers call: one function for each decoder of bytes from outside. Not for anything else.
//!
//! The same functions are called by `fuzz/fuzz_targets/*.rs` (libFuzzer) and, for the inputs in `fuzz/seeds` and changes
//! to them, by `tests/fuzz_seeds.rs`. Each checks more than that nothing panics: a decoder that accepts bytes must give
//! the same bytes back, or two peers could hold different bytes to be the same value.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::time::Instant;

use crate::crypto::{SealKeyPair, Secret};
use crate::files::{Fetch, FileAsk, FileTold, Order};
use crate::history::{Clock, Entry, EntryId, EntryRef, Header, IntervalSet, LogKey, RoomId, Said};
use crate::identity::{DeviceId, IdentityBundle};
use crate::keeper::{Answer, Ask, Caller, KeeperAddress, Limits, Vaults};
use crate::overlay::dht::{self, Dht, krpc, lookup::ASKED_MAX};
use crate::rooms::{Control, ControlEntry, ControlGraph, ControlPayload, Invite, Op};
use crate::store::MemoryStore;
use crate::sync::vector::Held;
use crate::sync::{self, Frame, Vector};
use crate::wire::{Reader, Wire};

mod line;

pub use line::line;

/// One decoder under test.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name of the fuzz target, of its folder of seeds and of its dictionary.
    pub name: &'static str,
    /// Takes anything, at any time; returns whether it was accepted; panics on a broken promise.
    pub run: fn(&[u8], Instant) -> bool,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target {
        name: "control",
        run: |data, _| control(data),
    },
    Target { name: "dht", run: dht },
    Target {
        name: "entry",
        run: |data, _| entry(data),
    },
    Target {
        name: "entry_id",
        run: |data, _| entry_id(data),
    },
    Target {
        name: "file",
        run: file,
    },
    Target {
        name: "frame",
        run: |data, _| frame(data),
    },
    Target {
        name: "identity",
        run: |data, _| identity(data),
    },
    Target {
        name: "invite",
        run: |data, _| invite(data),
    },
    Target {
        name: "keeper_address",
        run: |data, _| keeper_address(data),
    },
    Target {
        name: "line",
        run: line,
    },
    Target {
        name: "payload",
        run: |data, _| payload(data),
    },
    Target {
        name: "said",
        run: |data, _| said(data),
    },
    Target {
        name: "vault",
        run: |data, _| vault(data),
    },
    Target {
        name: "vector",
        run: |data, _| vector(data),
    },
];

/// The plaintext of a control entry.
///
/// It is also taken into a room as its first entry and as one after that: whatever a member may write, the roster comes out.
pub fn control(data: &[u8]) -> bool {
    let Some(control) = canonical::<Control>(data) else {
        return false;
    };
    let log = match control.ops.first() {
        Some(Op::Create { log, .. } | Op::OpenLog { log, .. }) => log.log,
        _ => LogKey([1; 32]),
    };
    let mut graph = ControlGraph::new(RoomId([1; 32]));
    for seq in 1..3 {
        let hash = [u8::try_from(seq).expect("small"); 8];
        let id = EntryRef {
            log: log.prefix(),
            seq,
            hash,
        };
        let mut control = control.clone();
        control.heads.extend(graph.heads());
        graph.insert(ControlEntry {
            id,
            log,
            seq,
            clock: Clock::default(),
            control,
        });
    }
    let roster = graph.resolve();
    assert!(roster.members.len() <= graph.len() * control.ops.len());
    true
}

/// An answer of a host of the DHT, also as the first answer to a look-up under way.
///
/// Whatever it says, no more hosts are asked than may be, and none twice.
pub fn dht(data: &[u8], now: Instant) -> bool {
    let is_answer = krpc::decode(data).is_ok();
    let mut client = Dht::new([1; 32]);
    let entries: Vec<SocketAddrV4> = (1..=3).map(|n| SocketAddrV4::new([94, 1, 1, n].into(), 6881)).collect();
    let _ = client.handle(dht::Input::Remembered(entries), now);
    let want = dht::Input::Want(dht::Job::Get {
        key: DHT_KEY,
        newer_than: 0,
    });
    let mut asked = client.handle(want, now).0;
    let mut places = BTreeSet::new();
    while let Some(output) = asked.pop() {
        let dht::Output::Send { to, bytes } = output else {
            continue;
        };
        assert!(places.insert(to), "asked twice");
        let named = |text: &[u8]| text.windows(5).position(|window| window == b"1:t4:").map(|at| at + 5);
        let (Some(theirs), Some(ours)) = (named(data), named(&bytes)) else {
            break;
        };
        let mut answer = data.to_vec();
        if let (Some(place), Some(tx)) = (answer.get_mut(theirs..theirs + 4), bytes.get(ours..ours + 4)) {
            place.copy_from_slice(tx);
        }
        asked.extend(
            client
                .handle(
                    dht::Input::Datagram {
                        from: to,
                        bytes: answer,
                    },
                    now,
                )
                .0,
        );
    }
    assert!(places.len() <= ASKED_MAX);
    is_answer
}

/// Of the items in the samples.
const DHT_KEY: [u8; 32] = [
    0x77, 0xff, 0x84, 0x90, 0x5a, 0x91, 0x93, 0x63, 0x67, 0xc0, 0x13, 0x60, 0x80, 0x31, 0x04, 0xf9, 0x24, 0x32, 0xfc,
    0xd9, 0x04, 0xa4, 0x35, 0x11, 0x87, 0x6d, 0xf5, 0xcd, 0xf3, 0xe7, 0xe5, 0x48,
];

/// A request on a file's stream, or an answer.
///
/// Whatever is said to be held, no piece beyond the file is asked for.
pub fn file(data: &[u8], now: Instant) -> bool {
    const PIECES: u32 = 5;
    let Some(FileTold::Held { pieces }) = canonical::<FileTold>(data) else {
        return canonical::<FileAsk>(data).is_some() || canonical::<FileTold>(data).is_some();
    };
    let source = DeviceId([1; 32]);
    let mut fetch = Fetch::new(PIECES, IntervalSet::default());
    fetch.set_members(&[(source, true)]);
    fetch.poll(now);
    fetch.held(&source, &pieces, now);
    for order in fetch.poll(now) {
        assert!(matches!(order, Order::AskPiece(_, 1..=PIECES)), "{order:?}");
    }
    true
}

/// What the header of a control entry covers; opened with keys that do not fit.
pub fn payload(data: &[u8]) -> bool {
    let Some(payload) = canonical::<ControlPayload>(data) else {
        return false;
    };
    let prekeys = [SealKeyPair::from_seed(Secret([1; 32]))];
    assert!(payload.open_slot(&DeviceId([1; 32]), &prekeys).is_none());
    true
}

/// An entry as it travels; its signature is checked against an arbitrary key.
pub fn entry(data: &[u8]) -> bool {
    canonical::<Header>(data);
    let Some(entry) = canonical::<Entry>(data) else {
        return false;
    };
    let log = LogKey(entry.header.prev);
    let hash = entry.header.hash(&log);
    // The answer is of no interest: a stranger chooses key and signature, and neither may make it panic.
    let _ = crate::history::entry::verify(&log, &hash, &entry.signature);
    true
}

/// The name of an entry as people type it.
pub fn entry_id(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else {
        return false;
    };
    let Ok(id) = text.parse::<EntryId>() else {
        return false;
    };
    assert_eq!(id.to_string(), text, "an entry has one name");
    true
}

/// A frame of a line; a summary is applied to a base that has a log of its own and one that is full.
pub fn frame(data: &[u8]) -> bool {
    let Some(frame) = canonical::<Frame>(data) else {
        return false;
    };
    if let Frame::Summary { changes, .. } = frame {
        let held = |to| Held {
            held: IntervalSet::range(1, to),
            top: [0; 8],
        };
        let base = Vector([(LogKey([1; 32]), held(9)), (LogKey([2; 32]), held(u32::MAX))].into());
        // A stranger's changes may be refused, which is fine; they must not panic.
        let _ = sync::vector::apply(&base, &changes);
    }
    true
}

/// A bundle of identity records, each of which is checked.
pub fn identity(data: &[u8]) -> bool {
    let Some(bundle) = canonical::<IdentityBundle>(data) else {
        return false;
    };
    for record in &bundle.records {
        // As for entries: only that it returns.
        let _ = record.verify();
    }
    true
}

/// An invite as pasted, or what is inside alone, since the checksum hides that from a fuzzer.
pub fn invite(data: &[u8]) -> bool {
    if canonical::<Invite>(data).is_some() {
        return true;
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return false;
    };
    let Ok(invite) = Invite::from_text(text) else {
        return false;
    };
    let again = Invite::from_text(&invite.to_lines().join("\n")).expect("what is said can be heard");
    assert_eq!(
        again.key().public(),
        invite.key().public(),
        "words let in as the invite does"
    );
    assert_eq!(
        Invite::from_link(&invite.to_link()),
        Ok(invite),
        "a link stands for one invite"
    );
    true
}

/// A keeper's address as pasted, or what is inside alone.
pub fn keeper_address(data: &[u8]) -> bool {
    if canonical::<KeeperAddress>(data).is_some() {
        return true;
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return false;
    };
    let Ok(address) = KeeperAddress::from_link(text) else {
        return false;
    };
    let again = KeeperAddress::from_link(&address.to_link());
    assert_eq!(again, Ok(address), "a link stands for one address");
    true
}

/// A conversation with a keeper: asks, each with its length before it, from the device and on the connection that the samples are made for. Accepted if a vault came of it.
///
/// What the keeper has on its disk is what it remembers, within its limits, whatever it is asked.
pub fn vault(data: &[u8]) -> bool {
    let mut store = MemoryStore::default();
    let limits = Limits {
        vaults_max: 2,
        vault_bytes_max: 4096,
        log_bytes_max: 2048,
        days: 1,
    };
    let Ok(mut vaults) = Vaults::load(&store) else {
        return false;
    };
    vaults.keep(&mut store, limits, [32; 16]).expect("memory does not fail");
    let device = DeviceId(crate::crypto::KeyPair::from_seed(&Secret([2; 32])).public());
    let (mut next_log, mut now_ms) = (1, 1_700_000_000_000);
    let mut input = Reader::new(data);
    while let Ok(bytes) = input.bytes(data.len(), "ask") {
        let Some(ask) = canonical::<Ask>(bytes) else { continue };
        let caller = Caller {
            device,
            exporter: &[36; 32],
            now_ms,
        };
        let answers = vaults.answer(&mut store, &mut next_log, caller, ask);
        for (_, answer) in answers.expect("memory does not fail") {
            assert_eq!(canonical::<Answer>(&answer.to_bytes()), Some(answer));
        }
        now_ms += 3_600_000;
        vaults.sweep(&mut store, now_ms).expect("memory does not fail");
        let usage = vaults.usage();
        assert!(usage.bytes <= 2 * limits.vault_bytes_max && usage.vaults <= limits.vaults_max);
        let reloaded = Vaults::load(&store).expect("what was stored decodes");
        assert_eq!(reloaded.usage(), usage, "the disk holds what the keeper remembers");
    }
    vaults.usage().vaults > 0
}

/// The plaintext of a message entry.
pub fn said(data: &[u8]) -> bool {
    canonical::<Said>(data).is_some()
}

/// What is held of a room.
pub fn vector(data: &[u8]) -> bool {
    canonical::<Vector>(data).is_some()
}

fn canonical<T: Wire>(data: &[u8]) -> Option<T> {
    let value = T::from_bytes(data).ok()?;
    assert_eq!(value.to_bytes(), data, "a value has one encoding");
    Some(value)
}
