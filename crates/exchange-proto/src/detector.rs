//! Who may act for a shard: heartbeats, a lease from a majority of witnesses, fencing epochs. Pure, no clock.
//!
//! An owner renews its lease with every witness each heartbeat. A renewal counts from the moment it was *sent*, by the
//! owner's clock, and holds for `lease_ms`; the owner [`Member::may_act`] while a majority of renewals hold. A witness
//! counts from the moment it *received*, later by construction, and adds `drift_ms`; until then it grants nobody else.
//! A standby that misses `misses` heartbeats claims the next epoch; it owns when a majority has granted. So:
//! * two members never may act at once, whatever is lost, late, repeated, or however long a member was paused,
//!   as long as clocks run apart by less than `drift_ms` in a lease;
//! * a paused owner that wakes finds its lease out and is silent; a higher epoch seen makes it a standby;
//! * the standby alone cannot take over, and an owner cut off from the witnesses stops by itself.
//!
//! Clocks need not agree, only run: no time of one machine is compared with another's. A witness that restarts has
//! forgotten its promise and must keep silent for one lease ([`Witness::restarted`]).

use std::collections::BTreeMap;

use crate::time::Moment;

/// A member or a witness.
pub type NodeId = u8;

/// Durations; the defaults suit one network with a 20 ms heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// Between heartbeats, ms.
    pub heartbeat_ms: u64,
    /// Heartbeats missed before a claim.
    pub misses: u64,
    /// How long a renewal holds, ms.
    pub lease_ms: u64,
    /// How far two clocks may run apart within a lease, ms.
    pub drift_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat_ms: 20,
            misses: 3,
            lease_ms: 100,
            drift_ms: 5,
        }
    }
}

/// What travels between members and witnesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    /// Owner to standby.
    Heartbeat {
        /// Its epoch.
        epoch: u64,
    },
    /// Member to witness: renew, or take over with a new epoch.
    Claim {
        /// Who claims.
        member: NodeId,
        /// For which epoch.
        epoch: u64,
        /// When, by the claimant's clock.
        sent: Moment,
    },
    /// Witness to member.
    Granted {
        /// Which witness.
        witness: NodeId,
        /// The epoch.
        epoch: u64,
        /// The claim's `sent`, returned.
        sent: Moment,
    },
    /// Witness to member: somebody else holds this epoch or a later one.
    Refused {
        /// The epoch that is held.
        epoch: u64,
    },
}

/// A witness' promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Witness {
    id: NodeId,
    epoch: u64,
    holder: Option<NodeId>,
    until: Moment,
}

impl Witness {
    /// One that has promised nothing to anyone, ever.
    pub fn new(id: NodeId) -> Self {
        Self {
            id,
            epoch: 0,
            holder: None,
            until: Moment(0),
        }
    }

    /// One that may have promised something before it restarted: silent for a lease.
    pub fn restarted(id: NodeId, timing: Timing, now: Moment) -> Self {
        Self {
            until: now.plus_ms(timing.lease_ms + timing.drift_ms),
            ..Self::new(id)
        }
    }

    /// Answers a claim.
    pub fn handle(&mut self, claim: Message, timing: Timing, now: Moment) -> Option<Message> {
        let Message::Claim { member, epoch, sent } = claim else {
            return None;
        };
        let renewal = self.holder == Some(member) && epoch == self.epoch;
        let free = now >= self.until && epoch > self.epoch;
        if !renewal && !free {
            return Some(Message::Refused { epoch: self.epoch });
        }
        self.holder = Some(member);
        self.epoch = epoch;
        self.until = now.plus_ms(timing.lease_ms + timing.drift_ms);
        Some(Message::Granted {
            witness: self.id,
            epoch,
            sent,
        })
    }
}

/// What a member takes itself for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Sends heartbeats and renews its lease; acts only while [`Member::may_act`].
    Owner,
    /// Listens.
    Standby,
    /// Has missed the owner and asks the witnesses.
    Claimant,
}

/// A member of a pair.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    id: NodeId,
    peer: NodeId,
    witnesses: Vec<NodeId>,
    role: Role,
    epoch: u64,
    /// When the newest renewal granted by each witness was sent.
    grants: BTreeMap<NodeId, Moment>,
    heard: Moment,
    next: Moment,
}

/// A message and whom it is for.
pub type Envelope = (NodeId, Message);

impl Member {
    /// A member that starts as standby: who begins is settled by the same claims as everything else.
    pub fn new(id: NodeId, peer: NodeId, witnesses: Vec<NodeId>, now: Moment) -> Self {
        Self {
            id,
            peer,
            witnesses,
            role: Role::Standby,
            epoch: 0,
            grants: BTreeMap::new(),
            heard: now,
            next: now,
        }
    }

    /// What it takes itself for.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its epoch: everything it sends or writes carries it.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether it may send anything in its shard's name **now**; to be asked before each sending.
    pub fn may_act(&self, timing: Timing, now: Moment) -> bool {
        let holding = self
            .grants
            .values()
            .filter(|sent| sent.plus_ms(timing.lease_ms) > now)
            .count();
        self.role == Role::Owner && holding > self.witnesses.len() / 2
    }

    /// The next deadline.
    pub fn poll_timeout(&self, timing: Timing) -> Moment {
        match self.role {
            Role::Owner | Role::Claimant => self.next,
            Role::Standby => self.heard.plus_ms(timing.heartbeat_ms * timing.misses),
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, timing: Timing, now: Moment) -> Vec<Envelope> {
        if self.poll_timeout(timing) > now {
            return Vec::new();
        }
        if self.role == Role::Standby {
            self.role = Role::Claimant;
            self.epoch += 1;
            self.grants.clear();
        }
        self.next = now.plus_ms(timing.heartbeat_ms);
        let claim = Message::Claim {
            member: self.id,
            epoch: self.epoch,
            sent: now,
        };
        let mut out: Vec<Envelope> = self.witnesses.iter().map(|witness| (*witness, claim)).collect();
        if self.role == Role::Owner {
            out.push((self.peer, Message::Heartbeat { epoch: self.epoch }));
        }
        out
    }

    /// Takes a message.
    pub fn handle(&mut self, message: Message, timing: Timing, now: Moment) {
        match message {
            Message::Heartbeat { epoch } if epoch >= self.epoch && self.role != Role::Owner => self.follow(epoch, now),
            Message::Heartbeat { epoch } if epoch > self.epoch => self.follow(epoch, now),
            Message::Granted { witness, epoch, sent } if epoch == self.epoch && self.role != Role::Standby => {
                let newest = self.grants.entry(witness).or_insert(sent);
                *newest = sent.max(*newest);
                self.role_by_grants(timing, now);
            }
            Message::Refused { epoch } if epoch >= self.epoch && self.role == Role::Claimant => self.follow(epoch, now),
            Message::Refused { epoch } if epoch > self.epoch => self.follow(epoch, now),
            _ => {}
        }
    }

    fn role_by_grants(&mut self, timing: Timing, now: Moment) {
        let holding = self
            .grants
            .values()
            .filter(|sent| sent.plus_ms(timing.lease_ms) > now)
            .count();
        if self.role == Role::Claimant && holding > self.witnesses.len() / 2 {
            self.role = Role::Owner;
        }
    }

    /// Steps down or back: somebody holds this epoch.
    fn follow(&mut self, epoch: u64, now: Moment) {
        self.role = Role::Standby;
        self.epoch = epoch;
        self.grants.clear();
        self.heard = now;
    }
}
