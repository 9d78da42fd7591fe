//! One behaviour a test, on small rooms made by hand.

use std::collections::BTreeMap;

use super::*;
use crate::crypto::{self, KeyPair, SealKeyPair, Secret};
use crate::history::{self, Class, Entry, EpochId, Header};
use crate::history::{Clock, RoomId};
use crate::identity::{DeviceKey, IdentityBundle, RootKey};
use crate::rooms::{Control, Cutoff, Equivocation, InviteUse, LogCertificate, Op};

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

    /// Proof that this actor's log forks at `seq`.
    pub(crate) fn fork(&self, seq: u32) -> Op {
        let log = self.log_key();
        let entry = |ms: u64| {
            let header = Header {
                class: Class::Message,
                seq,
                prev: [0; 32],
                clock: Clock::at_ms(ms),
                epoch: EpochId([0; 8]),
                parents: vec![],
                payload_hash: [0; 32],
                payload_len: 0,
            };
            Entry {
                signature: history::entry::sign(&self.log, &header.hash(&log)),
                header,
                payload: None,
            }
        };
        let proof = Equivocation {
            log,
            a: entry(1),
            b: entry(2),
        };
        Op::Freeze { proof }
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
            cutoffs: Vec::new(),
        }
    }
}

#[derive(Clone)]
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

    /// The graph, of which parts may wait: what stands above a fork is never placed.
    pub(crate) fn graph_with_waiting(&self) -> ControlGraph {
        let mut graph = ControlGraph::new(self.room);
        for entry in &self.entries {
            graph.insert(entry.clone());
        }
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

fn open_invite(key: &KeyPair, role: Role, uses: u32) -> Op {
    Op::OpenInvite {
        invite: key.public(),
        role,
        uses,
        expires_ms: 10_000,
        only: None,
    }
}

fn key(seed: u8) -> KeyPair {
    KeyPair::from_seed(&Secret([seed; 32]))
}

#[test]
fn two_owners_who_remove_each_other_leave_the_senior_in() {
    let [ada, bob] = [1, 2].map(Actor::new);
    let (mut world, created) = World::new(&ada);
    let admitted = world.write(&ada, &[created], vec![bob.admission(Role::Owner)]);
    let by_bob = world.write(&bob, &[admitted], vec![ada.removal()]);
    let by_ada = world.write(&ada, &[admitted], vec![bob.removal()]);
    let roster = world.roster();
    assert_eq!(roster.role(&ada.person()), Some(Role::Owner));
    assert_eq!(roster.role(&bob.person()), None);
    assert_eq!(roster.removals, BTreeSet::from([by_ada]));
    // The same from the other side, and with whatever comes after both.
    world.entries.reverse();
    assert_eq!(world.roster(), roster);
    world.write(&bob, &[by_ada, by_bob], vec![Op::Rename { name: "Bob's".into() }]);
    assert_eq!(world.roster().name, "Kitchen");
}

#[test]
fn a_higher_rank_wins_a_mutual_removal() {
    let [ada, bob, eve] = [1, 2, 3].map(Actor::new);
    let (mut world, created) = World::new(&ada);
    let ops = vec![bob.admission(Role::Moderator), eve.admission(Role::Admin)];
    let admitted = world.write(&ada, &[created], ops);
    world.write(
        &bob,
        &[admitted],
        vec![eve.role(Role::Reader), Op::Rename { name: "x".into() }],
    );
    world.write(&eve, &[admitted], vec![bob.removal()]);
    let roster = world.roster();
    assert_eq!(roster.role(&eve.person()), Some(Role::Admin));
    assert_eq!(roster.role(&bob.person()), None);
}

#[test]
fn who_comes_back_needs_a_new_certificate_for_an_old_log() {
    let [ada, bob] = [1, 2].map(Actor::new);
    let bob_again = bob.with_log(1);
    let (mut world, created) = World::new(&ada);
    let admitted = world.write(&ada, &[created], vec![bob.admission(Role::Admin)]);
    let cutoffs = vec![Cutoff {
        log: bob.log_key(),
        seq: 5,
    }];
    let person = bob.person();
    let removed = world.write(&ada, &[admitted], vec![Op::Remove { person, cutoffs }]);
    let back = world.write(&ada, &[removed], vec![bob_again.admission(Role::Admin)]);
    world.write(&bob, &[back], vec![Op::Rename { name: "old log".into() }]);
    let roster = world.roster();
    assert_eq!(roster.role(&person), Some(Role::Admin));
    assert_eq!(roster.name, "Kitchen");
    assert_eq!(roster.logs[&bob.log_key()].cutoff, Some(5));
    assert_eq!(roster.logs[&bob_again.log_key()].cutoff, None);
    let again = world.write(&ada, &[back], vec![bob.admission(Role::Reader)]);
    world.write(
        &bob,
        &[again],
        vec![Op::Rename {
            name: "recertified".into(),
        }],
    );
    let roster = world.roster();
    assert_eq!(roster.name, "recertified");
    assert_eq!(
        roster.role(&person),
        Some(Role::Admin),
        "a further log does not change the role"
    );
    assert_eq!(roster.logs[&bob.log_key()].cutoff, None);
}

#[test]
fn the_lower_of_two_concurrent_roles_counts() {
    let [ada, bob, eve] = [1, 2, 3].map(Actor::new);
    let (mut world, created) = World::new(&ada);
    let ops = vec![bob.admission(Role::Owner), eve.admission(Role::Member)];
    let admitted = world.write(&ada, &[created], ops);
    world.write(&ada, &[admitted], vec![eve.role(Role::Moderator)]);
    world.write(&bob, &[admitted], vec![eve.role(Role::Admin)]);
    assert_eq!(world.roster().role(&eve.person()), Some(Role::Moderator));
}

#[test]
fn nobody_acts_above_their_rank() {
    let [ada, bob, eve, dan] = [1, 2, 3, 4].map(Actor::new);
    let (mut world, created) = World::new(&ada);
    let ops = vec![
        bob.admission(Role::Admin),
        eve.admission(Role::Member),
        dan.admission(Role::Admin),
    ];
    let admitted = world.write(&ada, &[created], ops);
    let tries = [
        (&bob, dan.removal()),
        (&bob, ada.removal()),
        (&bob, dan.role(Role::Member)),
        (&bob, bob.role(Role::Owner)),
        (&bob, eve.role(Role::Owner)),
        (&eve, bob.removal()),
        (&eve, Op::Rename { name: "x".into() }),
        (&eve, eve.role(Role::Moderator)),
        (&eve, Actor::new(9).admission(Role::Reader)),
        (&eve, open_invite(&key(1), Role::Moderator, 1)),
        (&Actor::new(8), Op::Rename { name: "x".into() }),
    ];
    let before = world.roster();
    for (author, op) in tries {
        world.write(author, &[admitted], vec![op.clone()]);
        assert_eq!(world.roster(), before, "{op:?}");
    }
    world.write(&bob, &[admitted], vec![eve.role(Role::Admin), bob.role(Role::Reader)]);
    let roster = world.roster();
    assert_eq!(roster.role(&eve.person()), Some(Role::Admin));
    assert_eq!(roster.role(&bob.person()), Some(Role::Reader));
}

#[test]
fn may_says_what_the_rules_say() {
    let [ada, bob] = [1, 2].map(Actor::new);
    let (mut world, created) = World::new(&ada);
    world.write(&ada, &[created], vec![bob.admission(Role::Moderator)]);
    let roster = world.roster();
    let bob = bob.person();
    let rank = |need| {
        Err(Refusal::Rank {
            have: Role::Moderator,
            need,
        })
    };
    assert_eq!(roster.may(&bob, Action::Rename), rank(Role::Admin));
    assert_eq!(roster.may(&bob, Action::Remove(ada.person())), rank(Role::Owner));
    assert_eq!(
        roster.may(&bob, Action::SetRole(ada.person(), Role::Admin)),
        rank(Role::Owner)
    );
    assert_eq!(roster.may(&bob, Action::SetRole(bob, Role::Member)), Ok(()));
    assert_eq!(roster.may(&bob, Action::Invite(Role::Moderator)), Ok(()));
    assert_eq!(roster.may(&bob, Action::Invite(Role::Admin)), rank(Role::Admin));
    assert_eq!(roster.may(&ada.person(), Action::Remove(bob)), Ok(()));
    assert_eq!(roster.may(&PersonId([0; 32]), Action::Speak), Err(Refusal::NotIn));
}

#[test]
fn the_senior_most_of_the_highest_rank_acts_when_no_owner_is_left() {
    let [ada, bob, eve] = [1, 2, 3].map(Actor::new);
    let (mut world, created) = World::new(&ada);
    let second = world.write(&ada, &[created], vec![bob.admission(Role::Moderator)]);
    let third = world.write(&ada, &[second], vec![eve.admission(Role::Moderator)]);
    let left = world.write(&ada, &[third], vec![Op::Leave { cutoffs: vec![] }]);
    let roster = world.roster();
    assert_eq!(roster.role(&bob.person()), Some(Role::Owner));
    assert_eq!(roster.role(&eve.person()), Some(Role::Moderator));
    assert_eq!(roster.notices, [Notice::ActingOwner { person: bob.person() }]);
    assert_eq!(roster.former[&ada.person()].why, Departure::Left);
    world.write(&eve, &[left], vec![Op::Rename { name: "Eve's".into() }]);
    world.write(&bob, &[left], vec![eve.role(Role::Owner)]);
    let roster = world.roster();
    assert_eq!(roster.name, "Kitchen");
    assert_eq!(roster.role(&eve.person()), Some(Role::Owner));
    assert_eq!(roster.role(&bob.person()), Some(Role::Moderator));
}

#[test]
fn an_invite_lets_in_as_many_as_it_says() {
    let [ada, bob, eve] = [1, 2, 3].map(Actor::new);
    let (invite, room_of) = (key(1), |world: &World| world.room);
    let (mut world, created) = World::new(&ada);
    let room = room_of(&world);
    let opened = world.write(&ada, &[created], vec![open_invite(&invite, Role::Member, 1)]);
    let first = world.write(&ada, &[opened], vec![bob.admission_by(&invite, &room, Role::Member)]);
    let tries = [
        world.write(&ada, &[first], vec![eve.admission_by(&invite, &room, Role::Member)]),
        world.write(&ada, &[opened], vec![eve.admission_by(&invite, &room, Role::Admin)]),
        world.write(&ada, &[opened], vec![eve.admission_by(&key(2), &room, Role::Member)]),
    ];
    world.write_at(
        &ada,
        &[opened],
        vec![eve.admission_by(&invite, &room, Role::Member)],
        Clock::at_ms(10_001),
    );
    let roster = world.roster();
    assert_eq!(roster.role(&bob.person()), Some(Role::Member));
    assert_eq!(roster.role(&eve.person()), None);
    assert!(tries.iter().all(|id| !roster.effects.contains_key(id)));
    let state = &roster.invites[&invite.public()];
    assert_eq!(state.used_by, BTreeSet::from([bob.person()]));
    assert!(!state.open);
}

#[test]
fn of_two_who_used_one_invite_apart_the_greater_entry_is_out() {
    let [ada, bob, eve, dan, kim] = [1, 2, 3, 4, 5].map(Actor::new);
    let invite = key(1);
    let (mut world, created) = World::new(&ada);
    let room = world.room;
    let ops = vec![bob.admission(Role::Member), open_invite(&invite, Role::Member, 1)];
    let opened = world.write(&ada, &[created], ops);
    let by_ada = world.write(&ada, &[opened], vec![eve.admission_by(&invite, &room, Role::Member)]);
    let by_bob = world.write(&bob, &[opened], vec![dan.admission_by(&invite, &room, Role::Member)]);
    let (lucky, late, late_entry, late_host) = if by_ada < by_bob {
        (&eve, &dan, by_bob, &bob)
    } else {
        (&dan, &eve, by_ada, &ada)
    };
    let own = key(2);
    let opened = world.write(late, &[late_entry], vec![open_invite(&own, Role::Member, 1)]);
    world.write(late, &[opened], vec![kim.admission_by(&own, &room, Role::Member)]);
    let roster = world.roster();
    assert_eq!(roster.role(&lucky.person()), Some(Role::Member));
    assert_eq!(roster.role(&late.person()), None);
    assert_eq!(roster.former[&late.person()].why, Departure::OverRedeemed);
    assert_eq!(roster.former[&kim.person()].why, Departure::Undone);
    assert_eq!(roster.redemptions, BTreeSet::from([by_ada, by_bob]));
    assert!(roster.removals.is_superset(&roster.redemptions));
    assert!(roster.notices.contains(&Notice::OverRedeemed {
        invite: invite.public(),
        person: late.person(),
        admitted_by: late_host.person(),
        entry: late_entry,
    }));
}

#[test]
fn one_person_who_knocks_twice_counts_once() {
    let [ada, bob, eve] = [1, 2, 3].map(Actor::new);
    let invite = key(1);
    let (mut world, created) = World::new(&ada);
    let room = world.room;
    let ops = vec![bob.admission(Role::Member), open_invite(&invite, Role::Member, 1)];
    let opened = world.write(&ada, &[created], ops);
    world.write(&ada, &[opened], vec![eve.admission_by(&invite, &room, Role::Member)]);
    world.write(&bob, &[opened], vec![eve.admission_by(&invite, &room, Role::Member)]);
    let roster = world.roster();
    assert_eq!(roster.role(&eve.person()), Some(Role::Member));
    assert_eq!(roster.removals, BTreeSet::new());
}

#[test]
fn the_invites_of_the_removed_are_dead() {
    let [ada, bob, eve, dan] = [1, 2, 3, 4].map(Actor::new);
    let invite = key(1);
    let (mut world, created) = World::new(&ada);
    let room = world.room;
    let ops = vec![bob.admission(Role::Member), eve.admission(Role::Member)];
    let admitted = world.write(&ada, &[created], ops);
    let opened = world.write(&bob, &[admitted], vec![open_invite(&invite, Role::Member, 5)]);
    let removed = world.write(&ada, &[opened], vec![bob.removal()]);
    world.write(&eve, &[removed], vec![dan.admission_by(&invite, &room, Role::Member)]);
    let roster = world.roster();
    assert_eq!(roster.role(&dan.person()), None);
    assert!(!roster.invites[&invite.public()].open);
}

#[test]
fn a_closed_or_reserved_invite_admits_nobody() {
    let [ada, bob, eve, dan] = [1, 2, 3, 4].map(Actor::new);
    let (closed, reserved) = (key(1), key(2));
    let (mut world, created) = World::new(&ada);
    let room = world.room;
    let only_ada = Op::OpenInvite {
        invite: reserved.public(),
        role: Role::Member,
        uses: 1,
        expires_ms: 10_000,
        only: Some(ada.device.device()),
    };
    let ops = vec![
        bob.admission(Role::Member),
        open_invite(&closed, Role::Member, 5),
        only_ada,
    ];
    let opened = world.write(&ada, &[created], ops);
    let invite = closed.public();
    let shut = world.write(&ada, &[opened], vec![Op::CloseInvite { invite }]);
    world.write(&bob, &[shut], vec![eve.admission_by(&closed, &room, Role::Member)]);
    world.write(&bob, &[shut], vec![eve.admission_by(&reserved, &room, Role::Member)]);
    assert_eq!(world.roster().role(&eve.person()), None);
    world.write(&ada, &[shut], vec![dan.admission_by(&reserved, &room, Role::Member)]);
    assert_eq!(world.roster().role(&dan.person()), Some(Role::Member));
}

#[test]
fn a_device_that_is_in_opens_another_log() {
    let [ada, eve] = [1, 2].map(Actor::new);
    let (again, laptop) = (ada.with_log(1), ada.with_device(2));
    let (mut world, created) = World::new(&ada);
    let open = |actor: &Actor, person| Op::OpenLog {
        person,
        log: actor.certificate(),
    };
    let name = |name: &str| Op::Rename { name: name.into() };
    let renamed = world.write(&again, &[created], vec![open(&again, ada.person()), name("again")]);
    assert_eq!(world.roster().name, "again");
    world.write(
        &laptop,
        &[created],
        vec![open(&laptop, ada.person()), name("never admitted")],
    );
    world.write(&eve, &[created], vec![open(&eve, ada.person()), name("not hers")]);
    let roster = world.roster();
    assert_eq!(roster.name, "again");
    assert_eq!(roster.logs.len(), 2);
    assert_eq!(
        roster.log_by_prefix(&again.log_key().prefix()).unwrap().0,
        &again.log_key()
    );
    let added = world.write(&ada, &[renamed], vec![laptop.admission(Role::Reader)]);
    world.write(&laptop, &[added], vec![name("laptop")]);
    let roster = world.roster();
    assert_eq!(roster.name, "laptop");
    assert_eq!(roster.role(&ada.person()), Some(Role::Owner));
    assert_eq!(roster.devices().len(), 2);
}

#[test]
fn a_revoked_device_has_no_say_from_what_it_did_not_know_on() {
    let ada = Actor::new(1);
    let laptop = ada.with_device(1);
    let (mut world, created) = World::new(&ada);
    let name = |name: &str| vec![Op::Rename { name: name.into() }];
    let added = world.write(&ada, &[created], vec![laptop.admission(Role::Owner)]);
    let before = world.write(&laptop, &[added], name("before"));
    let records = vec![
        ada.root.certify(laptop.device.device(), 1),
        ada.root.revoke(laptop.device.device(), 2),
    ];
    let identity = IdentityBundle { records };
    let revoked = world.write(
        &ada,
        &[before],
        vec![Op::Identity {
            identity: identity.clone(),
        }],
    );
    world.write(&laptop, &[before], name("concurrent"));
    world.write(&laptop, &[revoked], name("after"));
    let roster = world.roster();
    assert_eq!(roster.name, "before");
    assert_eq!(
        roster.devices().keys().copied().collect::<Vec<_>>(),
        [ada.device.device()]
    );
    assert_eq!(roster.removals, BTreeSet::from([revoked]));
    // Saying it again is not another removal.
    world.write(&ada, &[revoked], vec![Op::Identity { identity }]);
    assert_eq!(world.roster().removals, BTreeSet::from([revoked]));
}

#[test]
fn a_frozen_log_counts_below_its_fork_whatever_branch_is_here() {
    let [ada, bob, eve] = [1, 2, 3].map(Actor::new);
    let (mut world, created) = World::new(&ada);
    let ops = vec![bob.admission(Role::Admin), eve.admission(Role::Member)];
    let admitted = world.write(&ada, &[created], ops);
    let first = world.write(&bob, &[admitted], vec![Op::Rename { name: "first".into() }]);
    let second = world.write(&bob, &[first], vec![Op::Rename { name: "second".into() }]);
    let heads = world.graph().heads_for(&eve.log_key());
    assert_eq!(BTreeSet::from_iter(heads.clone()), BTreeSet::from([admitted, second]));
    let seen = world.write(&eve, &heads, vec![Op::Seal {}]);
    assert_eq!(world.roster().name, "second");
    world.write(&eve, &[seen], vec![bob.fork(2)]);
    let with_branch = world.roster();
    assert_eq!(with_branch.name, "first");
    assert_eq!(with_branch.frozen, BTreeMap::from([(bob.log_key(), 1)]));
    assert_eq!(with_branch.logs[&bob.log_key()].cutoff, Some(1));
    assert!(
        with_branch.effects.contains_key(&seen),
        "what others built on it stands"
    );
    world.entries.retain(|entry| entry.id != second);
    let without_branch = world.roster();
    assert_eq!(without_branch.effects, with_branch.effects);
    assert_eq!(without_branch.name, "first");
}

#[test]
fn a_room_of_two_stays_one() {
    let [ada, bob, eve] = [1, 2, 3].map(Actor::new);
    let create = match ada.create() {
        Op::Create {
            name,
            history,
            person,
            identity,
            log,
            nonce,
            ..
        } => Op::Create {
            kind: RoomKind::Pair { other: bob.person() },
            name,
            history,
            person,
            identity,
            log,
            nonce,
        },
        _ => unreachable!(),
    };
    let (mut world, created) = World::with_create(&ada, vec![create]);
    let ops = vec![
        bob.admission(Role::Member),
        eve.admission(Role::Owner),
        bob.admission(Role::Owner),
    ];
    let admitted = world.write(&ada, &[created], ops);
    let ops = vec![
        eve.admission(Role::Owner),
        ada.removal(),
        ada.role(Role::Member),
        bob.with_device(1).admission(Role::Owner),
    ];
    world.write(&bob, &[admitted], ops);
    let roster = world.roster();
    assert_eq!(roster.members.len(), 2);
    assert_eq!(roster.role(&ada.person()), Some(Role::Owner));
    assert_eq!(roster.role(&bob.person()), Some(Role::Owner));
    assert_eq!(roster.devices().len(), 3);
    assert_eq!(roster.may(&ada.person(), Action::Rename), Err(Refusal::Pair));
}

#[test]
fn an_entry_waits_for_its_ancestors() {
    let ada = Actor::new(1);
    let (mut world, created) = World::new(&ada);
    let renamed = world.write(&ada, &[created], vec![Op::Rename { name: "x".into() }]);
    let mut graph = ControlGraph::new(world.room);
    assert!(graph.insert(world.entries[1].clone()));
    assert!(!graph.insert(world.entries[1].clone()));
    assert_eq!((graph.waiting(), graph.heads()), (1, vec![]));
    assert_eq!(graph.missing().collect::<Vec<_>>(), [created]);
    assert!(graph.resolve().members.is_empty());
    assert!(graph.insert(world.entries[0].clone()));
    assert_eq!((graph.waiting(), graph.heads()), (0, vec![renamed]));
    assert!(graph.is_past(&created, &renamed) && !graph.is_past(&renamed, &created));
    assert_eq!(graph.resolve().name, "x");
}

#[test]
fn what_strangers_write_is_no_head() {
    let [ada, eve] = [1, 2].map(Actor::new);
    let (mut world, created) = World::new(&ada);
    let junk = world.write(&eve, &[created], vec![Op::Seal {}]);
    assert_eq!(world.graph().heads(), [created]);
    let above = world.write(&ada, &[junk], vec![Op::Seal {}]);
    assert_eq!(world.graph().heads(), [above]);
}
