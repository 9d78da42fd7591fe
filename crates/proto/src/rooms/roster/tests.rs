//! One behaviour a test, on small rooms made by hand.

use std::collections::BTreeMap;

use super::*;
use crate::crypto::{self, KeyPair, SealKeyPair, Secret};
use crate::history::{Clock, RoomId};
use crate::identity::{DeviceKey, IdentityBundle, RootKey};
use crate::rooms::{Control, Cutoff, InviteUse, LogCertificate, Op};

/// A person with one device and one log, and how far the log is.
#[derive(Clone)]
pub(crate) struct Actor {
    pub(crate) root: RootKey,
    pub(crate) device: DeviceKey,
    pub(crate) prekey: SealKeyPair,
    pub(crate) log: KeyPair,
}

impl Actor {
    pub(crate) fn new(seed: u8) -> Self {
        let secret = |what: u8| {
            let mut bytes = [seed; 32];
            bytes[0] = what;
            Secret(bytes)
        };
        Self {
            root: RootKey::from_entropy(secret(1)),
            device: DeviceKey(KeyPair::from_seed(&secret(2))),
            prekey: SealKeyPair::from_seed(secret(3)),
            log: KeyPair::from_seed(&secret(4)),
        }
    }

    /// The same person and device with another log.
    pub(crate) fn with_log(&self, number: u8) -> Self {
        let mut other = self.clone();
        other.log = KeyPair::from_seed(&self.log.seed().derive("test log", &[number]));
        other
    }

    /// The same person on another device.
    pub(crate) fn with_device(&self, number: u8) -> Self {
        let mut other = self.with_log(number);
        other.device = DeviceKey(KeyPair::from_seed(&self.log.seed().derive("test device", &[number])));
        other
    }

    pub(crate) fn person(&self) -> PersonId {
        self.root.person()
    }

    pub(crate) fn log_key(&self) -> LogKey {
        LogKey(self.log.public())
    }

    pub(crate) fn bundle(&self) -> IdentityBundle {
        IdentityBundle {
            records: vec![
                self.root.certify(self.device.device(), 1),
                self.device.state_prekey(1, &self.prekey),
                self.device.state_profile(1, "somebody"),
            ],
        }
    }

    pub(crate) fn certificate(&self) -> LogCertificate {
        LogCertificate::issue(&self.device.0, &self.log)
    }

    pub(crate) fn create(&self) -> Op {
        Op::Create {
            name: "Kitchen".into(),
            kind: RoomKind::Group {},
            history: HistoryPolicy::All {},
            person: self.person(),
            identity: self.bundle(),
            log: self.certificate(),
            nonce: [0; 16],
        }
    }

    pub(crate) fn admission(&self, role: Role) -> Op {
        Op::Admit {
            person: self.person(),
            identity: self.bundle(),
            log: self.certificate(),
            role,
            invite: None,
        }
    }

    pub(crate) fn admission_by(&self, invite: &KeyPair, room: &RoomId, role: Role) -> Op {
        Op::Admit {
            person: self.person(),
            identity: self.bundle(),
            log: self.certificate(),
            role,
            invite: Some(InviteUse::prove(invite, room, &self.person())),
        }
    }

    pub(crate) fn removal(&self) -> Op {
        Op::Remove {
            person: self.person(),
            cutoffs: vec![],
        }
    }

    pub(crate) fn role(&self, role: Role) -> Op {
        Op::SetRole {
            person: self.person(),
            role,
        }
    }
}

/// Everything that was ever written in a room, and who could have known of what.
pub(crate) struct World {
    pub(crate) room: RoomId,
    pub(crate) entries: Vec<ControlEntry>,
    seqs: BTreeMap<LogKey, u32>,
}

impl World {
    pub(crate) fn new(founder: &Actor) -> (Self, EntryRef) {
        Self::with_create(founder, vec![founder.create()])
    }

    pub(crate) fn with_create(founder: &Actor, ops: Vec<Op>) -> (Self, EntryRef) {
        let mut world = Self {
            room: RoomId([0; 32]),
            entries: Vec::new(),
            seqs: BTreeMap::new(),
        };
        let id = world.write(founder, &[], ops);
        world.room.0[..8].copy_from_slice(&id.hash);
        (world, id)
    }

    pub(crate) fn write(&mut self, author: &Actor, heads: &[EntryRef], ops: Vec<Op>) -> EntryRef {
        self.write_at(author, heads, ops, Clock::at_ms(1_000))
    }

    pub(crate) fn write_at(&mut self, author: &Actor, heads: &[EntryRef], ops: Vec<Op>, clock: Clock) -> EntryRef {
        let log = author.log_key();
        let seq = self.seqs.entry(log).or_insert(0);
        *seq += 1;
        let number = self.entries.len() as u64;
        let hash = crypto::hash("test entry", &[&log.0, &number.to_be_bytes()]);
        let id = EntryRef {
            log: log.prefix(),
            seq: *seq,
            hash: crypto::prefix8(&hash),
        };
        self.entries.push(ControlEntry {
            id,
            log,
            seq: *seq,
            clock,
            control: Control {
                heads: heads.to_vec(),
                ops,
            },
        });
        id
    }

    pub(crate) fn graph(&self) -> ControlGraph {
        let mut graph = ControlGraph::new(self.room);
        for entry in &self.entries {
            assert!(graph.insert(entry.clone()));
        }
        assert_eq!(graph.waiting(), 0);
        graph
    }

    pub(crate) fn roster(&self) -> Roster {
        self.graph().resolve()
    }
}

#[test]
fn the_founder_is_owner() {
    let ada = Actor::new(1);
    let (world, created) = World::new(&ada);
    let roster = world.roster();
    assert_eq!(roster.role(&ada.person()), Some(Role::Owner));
    assert_eq!(roster.name, "Kitchen");
    assert_eq!(roster.members[&ada.person()].since, created);
    assert_eq!(roster.members[&ada.person()].admitted_by, None);
    assert_eq!(roster.person_of(&ada.device.device()), Some(ada.person()));
    assert_eq!(roster.prekey(&ada.device.device()), Some(ada.prekey.public()));
}

#[test]
fn a_removal_beats_a_concurrent_act_of_the_removed() {
    let [ada, bob, eve] = [1, 2, 3].map(Actor::new);
    let (mut world, created) = World::new(&ada);
    let admitted = world.write(&ada, &[created], vec![bob.admission(Role::Admin)]);
    world.write(
        &bob,
        &[admitted],
        vec![eve.admission(Role::Member), Op::Rename { name: "Mine".into() }],
    );
    let removed = world.write(
        &ada,
        &[admitted],
        vec![Op::Remove {
            person: bob.person(),
            cutoffs: vec![Cutoff {
                log: bob.log_key(),
                seq: 7,
            }],
        }],
    );
    let roster = world.roster();
    assert_eq!(roster.members.keys().copied().collect::<Vec<_>>(), [ada.person()]);
    assert_eq!(roster.name, "Kitchen");
    assert!(roster.removals.contains(&removed));
    assert_eq!(
        roster.former[&bob.person()].why,
        Departure::Removed { by: ada.person() }
    );
    assert_eq!(roster.former[&eve.person()].why, Departure::Undone);
    assert_eq!(roster.logs[&bob.log_key()].cutoff, Some(7));
    assert_eq!(roster.notices.len(), 2);
}
