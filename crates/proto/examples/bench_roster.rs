//! Roster: what it costs to take in the control log of a large room, and to say who is in it.
//!
//! A room of 500 persons and 1,000 devices with 2,000 control entries: admissions, then ten admins who change roles, remove and admit at
//! the same time, round after round, now and then against each other. To reach: resolved in at most 50 ms.

use std::time::Instant;

use offhook_proto::crypto::{self, KeyPair, SealKeyPair, Secret};
use offhook_proto::history::{Clock, EntryRef, LogKey, RoomId};
use offhook_proto::identity::{DeviceKey, IdentityBundle, RootKey};
use offhook_proto::rooms::{Control, ControlEntry, ControlGraph, HistoryPolicy, LogCertificate, Op, Role, RoomKind};

const PERSONS: usize = 500;
const ADMINS: usize = 10;
const ENTRIES: usize = 2_000;

/// A person's device and its log.
struct Device {
    root: RootKey,
    key: DeviceKey,
    log: KeyPair,
    bundle: IdentityBundle,
    seq: u32,
}

fn device(person: usize, number: usize) -> Device {
    let secret = |what: &str, number: usize| {
        let place = [person.to_le_bytes(), number.to_le_bytes()].concat();
        Secret(crypto::hash("bench roster", &[what.as_bytes(), &place]))
    };
    let root = RootKey::from_entropy(secret("root", 0));
    let key = DeviceKey(KeyPair::from_seed(&secret("device", number)));
    let records = vec![
        root.certify(key.device(), 1),
        key.state_prekey(1, &SealKeyPair::from_seed(secret("prekey", number))),
        key.state_profile(1, "somebody"),
    ];
    Device {
        root,
        log: KeyPair::from_seed(&secret("log", number)),
        bundle: IdentityBundle { records },
        key,
        seq: 0,
    }
}

impl Device {
    fn certificate(&self) -> LogCertificate {
        LogCertificate::issue(&self.key.0, &self.log)
    }

    fn admission(&self, role: Role) -> Op {
        Op::Admit {
            person: self.root.person(),
            identity: self.bundle.clone(),
            log: self.certificate(),
            role,
            invite: None,
        }
    }

    fn entry(&mut self, heads: &[EntryRef], ops: Vec<Op>) -> ControlEntry {
        self.seq += 1;
        let log = LogKey(self.log.public());
        let hash = crypto::hash("bench roster entry", &[&log.0, &self.seq.to_le_bytes()]);
        let id = EntryRef {
            log: log.prefix(),
            seq: self.seq,
            hash: crypto::prefix8(&hash),
        };
        ControlEntry {
            id,
            log,
            seq: self.seq,
            clock: Clock::at_ms(1),
            control: Control {
                heads: heads.to_vec(),
                ops,
            },
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a bench measures real time")]
fn main() {
    let entries = control_log();
    let mut room = RoomId([0; 32]);
    room.0[..8].copy_from_slice(&entries[0].id.hash);
    let mut graph = ControlGraph::new(room);
    let start = Instant::now();
    for entry in &entries {
        graph.insert(entry.clone());
    }
    let insert_ms = start.elapsed().as_secs_f64() * 1e3;
    let start = Instant::now();
    let roster = graph.resolve();
    let resolve_ms = start.elapsed().as_secs_f64() * 1e3;
    println!(
        "entries {}   members {}   devices {}",
        graph.len(),
        roster.members.len(),
        roster.devices().len()
    );
    println!("void {}   removals {}", roster.notices.len(), roster.removals.len());
    println!("insert_all_ms {insert_ms:.1}   resolve_ms {resolve_ms:.1}");
}

fn control_log() -> Vec<ControlEntry> {
    let mut devices: Vec<Device> = (0..PERSONS).map(|person| device(person, 0)).collect();
    let create = Op::Create {
        name: "Bench".into(),
        kind: RoomKind::Group {},
        history: HistoryPolicy::All {},
        person: devices[0].root.person(),
        identity: devices[0].bundle.clone(),
        log: devices[0].certificate(),
        nonce: [0; 16],
    };
    let mut entries = vec![devices[0].entry(&[], vec![create])];
    let mut heads = vec![entries[0].id];
    for person in 1..PERSONS {
        let role = if person < ADMINS { Role::Admin } else { Role::Member };
        let op = devices[person].admission(role);
        let entry = devices[0].entry(&heads, vec![op]);
        heads = vec![entry.id];
        entries.push(entry);
    }
    for (person, first) in devices.iter_mut().enumerate() {
        let op = device(person, 1).admission(Role::Reader);
        let entry = first.entry(&heads, vec![op]);
        heads = vec![entry.id];
        entries.push(entry);
    }
    for round in 0.. {
        let mut written = Vec::new();
        for admin in 0..ADMINS {
            if entries.len() == ENTRIES {
                return entries;
            }
            let target = ADMINS + (round * ADMINS + admin) % (PERSONS - ADMINS);
            let op = match round % 10 {
                0 => Op::Remove {
                    person: devices[target].root.person(),
                    cutoffs: vec![],
                },
                3 => devices[target].admission(Role::Member),
                5 if admin == 0 => Op::SetRole {
                    person: devices[1 + round % (ADMINS - 1)].root.person(),
                    role: Role::Member,
                    cutoffs: Vec::new(),
                },
                6 if admin == 0 => Op::SetRole {
                    person: devices[1 + (round - 1) % (ADMINS - 1)].root.person(),
                    role: Role::Admin,
                    cutoffs: Vec::new(),
                },
                _ => Op::SetRole {
                    person: devices[target].root.person(),
                    role: if round % 2 == 0 { Role::Member } else { Role::Moderator },
                    cutoffs: Vec::new(),
                },
            };
            let entry = devices[admin].entry(&heads, vec![op]);
            written.push(entry.id);
            entries.push(entry);
        }
        heads = written;
    }
    entries
}
