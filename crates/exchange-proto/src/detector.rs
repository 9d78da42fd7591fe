//! Who may act for a shard: heartbeats, a lease from a majority of witnesses, fencing epochs. Pure, no clock.
//!
//! An owner renews its lease with every witness each heartbeat. A renewal counts from the moment it was *sent*, by the
//! owner's clock, and holds for `lease_ms`; the owner [`Member::may_act`] while a majority of renewals hold. A witness
//! counts from the moment it *received*, later by construction, and adds `drift_ms`; until then it grants nobody else.
//! A standby that misses a number of heartbeats (fewer, the better its place) claims the next epoch; it owns when a
//! majority has granted. An owner that stops releases its lease instead, and names its successor. So:
//! * two members never may act at once, whatever is lost, late, repeated, or however long a member was paused,
//!   as long as clocks run apart by less than `drift_ms` in a lease;
//! * a paused owner that wakes finds its lease out and is silent; a higher epoch seen makes it a standby;
//! * the standby alone cannot take over, and an owner cut off from the witnesses stops by itself.
//!
//! Silence is proof of nothing to one that did not listen, and a standby with old state does more harm than a pause:
//! * who has not run for `starved_ms` may have slept through heartbeats that were sent: its count of silence begins
//!   anew ([`Member`]), and as witness it grants nobody new before a lease could have been renewed ([`Witness`]);
//! * a heartbeat carries how far phones have been told ([`Mark`]). A standby that lacks some of that waits for it, and
//!   after [`LACKING_MISSES`] goes on with what it has: late is better than never.
//!
//! Where packets go out and none come in, claims alone would keep the witnesses from granting anybody else. So whoever
//! claims in vain soon does so rarely ([`RARELY`]): a promise is over long before the next one. Soonest a claimant that no
//! majority answers: it may be heard and not hear, beside an owner of the same fate.
//!
//! Clocks need not agree, only run: no time of one machine is compared with another's. A witness that restarts has
//! forgotten its promise and must keep silent for one lease ([`Witness::restarted`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::Moment;

/// A member or a witness.
pub type NodeId = u64;

/// Heartbeats missed before a claim by a standby that lacks something phones have been told.
pub const LACKING_MISSES: u64 = 150;

/// Between claims of one that claims in vain, heartbeats.
pub const RARELY: u64 = 10;
/// Rounds of claims without a majority before an owner, and before a claimant, claims rarely. An owner has not had an
/// answer for a whole lease by then; a claimant has to wait the former owner's lease out.
const VAIN_ROUNDS_OWNER: u8 = 2;
const VAIN_ROUNDS_CLAIMANT: u8 = 10;
/// Rounds in a row that too few witnesses answered, before a claimant claims rarely until they do.
const SILENT_ROUNDS: u8 = 2;

/// Durations; the defaults suit one network with a 20 ms heartbeat. A machine that stands still for less than the lease without a heartbeat is not taken
/// over; the lease is most of the silence that a standby on the same network leaves (goal 200 ms).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// Between heartbeats, ms.
    pub heartbeat_ms: u64,
    /// How long a renewal holds, ms.
    pub lease_ms: u64,
    /// How far two clocks may run apart within a lease, ms.
    pub drift_ms: u64,
    /// Who has not run for longer cannot tell silence from its own sleep, ms; at least two heartbeats.
    pub starved_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat_ms: 20,
            lease_ms: 140,
            drift_ms: 5,
            starved_ms: 40,
        }
    }
}

impl Timing {
    /// Heartbeats missed before the first standby claims. It asks until the lease is out.
    pub const MISSES_FIRST: u64 = 3;

    /// Heartbeats missed before the second standby claims: the first, which may be able to take the address, has by then
    /// had two claims to which the witnesses could say yes.
    pub fn misses_second(self) -> u64 {
        (self.lease_ms + self.drift_ms).div_ceil(self.heartbeat_ms) + 2
    }
}

/// How far in the changes of a shard: everything up to a number of a stream. See [`crate::protection`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mark {
    /// One term of one owner.
    pub stream: u64,
    /// Of the last message.
    pub number: u64,
}

impl Mark {
    /// Whether everything up to `told` is here.
    pub fn covers(self, told: Mark) -> bool {
        self.stream == told.stream && self.number >= told.number
    }
}

/// When it ran last: so that it knows whether it was there to hear anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Pulse(Moment);

impl Pulse {
    /// Runs now; whether it had slept too long.
    fn beat(&mut self, timing: Timing, now: Moment) -> bool {
        let slept_ms = now.since_ms(self.0);
        self.0 = now;
        slept_ms > timing.starved_ms
    }
}

/// What travels between members and witnesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Message {
    /// Owner to standby.
    Heartbeat {
        /// Its epoch.
        epoch: u64,
        /// How far phones have been told; `None` where nobody stands by.
        told: Option<Mark>,
    },
    /// Former owner to the standby that shall claim at once.
    Handover {
        /// The epoch that was released.
        epoch: u64,
        /// How far phones have been told, and will be.
        told: Option<Mark>,
    },
    /// Former owner to witness: the lease is over.
    Released {
        /// Who held it.
        member: NodeId,
        /// For which epoch.
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
    pulse: Pulse,
}

impl Witness {
    /// One that has promised nothing to anyone, ever.
    pub fn new(id: NodeId, now: Moment) -> Self {
        Self {
            id,
            epoch: 0,
            holder: None,
            until: Moment(0),
            pulse: Pulse(now),
        }
    }

    /// One that may have promised something before it restarted: silent for a lease.
    pub fn restarted(id: NodeId, timing: Timing, now: Moment) -> Self {
        Self {
            until: now.plus_ms(timing.lease_ms + timing.drift_ms),
            ..Self::new(id, now)
        }
    }

    /// One that restarted and remembers which epoch it granted last, but not whether that lease is out.
    pub fn recalled(id: NodeId, epoch: u64, timing: Timing, now: Moment) -> Self {
        Self {
            epoch,
            ..Self::restarted(id, timing, now)
        }
    }

    /// The epoch that it granted last.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// When to look at the clock next, so as to know that it did not sleep.
    pub fn poll_timeout(&self, timing: Timing) -> Moment {
        self.pulse.0.plus_ms(timing.heartbeat_ms)
    }

    /// Looks at the clock. Renewals that it slept through may be lost or yet to come: the holder gets one more lease.
    pub fn handle_timeout(&mut self, timing: Timing, now: Moment) {
        if self.pulse.beat(timing, now) {
            self.until = self.until.max(now.plus_ms(timing.lease_ms + timing.drift_ms));
        }
    }

    /// Answers a claim; takes note of a release.
    pub fn handle(&mut self, message: Message, timing: Timing, now: Moment) -> Option<Message> {
        self.handle_timeout(timing, now);
        if let Message::Released { member, epoch } = message {
            self.released(member, epoch, now);
        }
        let Message::Claim { member, epoch, sent } = message else {
            return None;
        };
        let renewal = self.holder == Some(member) && epoch >= self.epoch;
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

    /// Whoever released will not act again under that epoch: a renewal that comes late finds no holder.
    fn released(&mut self, member: NodeId, epoch: u64, now: Moment) {
        if self.holder == Some(member) && self.epoch == epoch {
            self.holder = None;
            self.until = now;
        }
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

/// A member of a shard: its owner, or one that stands by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    id: NodeId,
    peers: Vec<NodeId>,
    witnesses: Vec<NodeId>,
    role: Role,
    epoch: u64,
    /// Heartbeats missed before a claim by one that has everything.
    misses: u64,
    pulse: Pulse,
    /// Of an owner: how far phones have been told. Of a standby: what it has.
    has: Option<Mark>,
    /// How far phones have been told, as its owner said last.
    told: Option<Mark>,
    /// The owner has stopped for it to go on.
    invited: bool,
    /// When the newest renewal granted by each witness was sent.
    grants: BTreeMap<NodeId, Moment>,
    /// The last heartbeat; a standby that has never heard one does not claim.
    heard: Option<Moment>,
    next: Moment,
    /// Rounds of claims since it last had a majority.
    vain_rounds: u8,
    /// Of a claimant: how many have answered since its last round, counted up to a majority, and the rounds in a row in
    /// which fewer did.
    answers: u8,
    silent_rounds: u8,
}

/// A message and whom it is for.
pub type Envelope = (NodeId, Message);

impl Member {
    /// A member that claims when it hears nobody: who begins is settled by the same claims as everything else.
    pub fn home(id: NodeId, peers: Vec<NodeId>, witnesses: Vec<NodeId>, misses: u64, now: Moment) -> Self {
        Self {
            heard: Some(now),
            ..Self::standby(id, peers, witnesses, misses, now)
        }
    }

    /// A member that claims only from an owner that it has heard.
    pub fn standby(id: NodeId, peers: Vec<NodeId>, witnesses: Vec<NodeId>, misses: u64, now: Moment) -> Self {
        Self {
            id,
            peers,
            witnesses,
            role: Role::Standby,
            epoch: 0,
            misses,
            pulse: Pulse(now),
            has: None,
            told: None,
            invited: false,
            grants: BTreeMap::new(),
            heard: None,
            next: now,
            vain_rounds: 0,
            answers: 0,
            silent_rounds: 0,
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

    /// Who grants leases: the same for everybody, and for ever once there are enough.
    pub fn set_witnesses(&mut self, witnesses: Vec<NodeId>) {
        self.witnesses = witnesses;
    }

    /// Who else is told that it lives.
    pub fn set_peers(&mut self, peers: Vec<NodeId>) {
        self.peers = peers;
    }

    /// How many heartbeats it misses before it claims: more for one that is farther away.
    pub fn set_misses(&mut self, misses: u64) {
        self.misses = misses;
    }

    /// How far phones have been told, of an owner; what it has, of a standby: `None` while it lacks the beginning.
    pub fn set_has(&mut self, has: Option<Mark>) {
        self.has = has;
    }

    /// How far phones have been told, as far as a standby has heard.
    pub fn told(&self) -> Option<Mark> {
        self.told
    }

    /// Whether phones have been told what it does not know.
    pub fn lacks(&self) -> bool {
        match (self.told, self.has) {
            (Some(told), Some(has)) => !has.covers(told),
            (told, _) => told.is_some(),
        }
    }

    /// Heartbeats missed before it claims.
    fn patience(&self) -> u64 {
        match (self.lacks(), self.invited) {
            (true, _) => LACKING_MISSES,
            (false, true) => 0,
            (false, false) => self.misses,
        }
    }

    /// Until when it may act, as far as is known now; `None` when it may not.
    pub fn lease_until(&self, timing: Timing) -> Option<Moment> {
        if self.role != Role::Owner {
            return None;
        }
        // With a majority of n, the lease ends when the (n/2 + 1)-th newest renewal does.
        let mut sent: Vec<Moment> = self.grants.values().copied().collect();
        sent.sort_unstable_by(|a, b| b.cmp(a));
        sent.get(self.witnesses.len() / 2)
            .map(|sent| sent.plus_ms(timing.lease_ms))
    }

    /// Whether it may send anything in its shard's name **now**; to be asked before each sending.
    pub fn may_act(&self, timing: Timing, now: Moment) -> bool {
        self.lease_until(timing).is_some_and(|until| until > now)
    }

    /// The next deadline; `None` while it waits for a first heartbeat. A standby looks at the clock at every heartbeat,
    /// so as to know that it did not sleep.
    pub fn poll_timeout(&self, timing: Timing) -> Option<Moment> {
        match self.role {
            Role::Owner | Role::Claimant => Some(self.next),
            Role::Standby => self.claim_at(timing).map(|at| {
                let look = self.pulse.0.plus_ms(timing.heartbeat_ms);
                at.min(look)
            }),
        }
    }

    fn claim_at(&self, timing: Timing) -> Option<Moment> {
        self.heard.map(|at| at.plus_ms(timing.heartbeat_ms * self.patience()))
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, timing: Timing, now: Moment) -> Vec<Envelope> {
        self.look(timing, now);
        let due = match self.role {
            Role::Owner | Role::Claimant => Some(self.next),
            Role::Standby => self.claim_at(timing),
        };
        if due.is_none_or(|at| at > now) {
            return Vec::new();
        }
        if self.role == Role::Standby {
            self.role = Role::Claimant;
            self.epoch = self.epoch.saturating_add(1);
            self.grants.clear();
            self.invited = false;
        } else if self.role == Role::Claimant && !self.is_answered() {
            self.silent_rounds = (self.silent_rounds + 1).min(SILENT_ROUNDS);
        }
        self.answers = 0;
        let acts = self.may_act(timing, now);
        self.vain_rounds = if acts { 0 } else { self.vain_rounds.saturating_add(1) };
        let rounds = if self.in_vain() { RARELY } else { 1 };
        self.next = now.plus_ms(timing.heartbeat_ms * rounds);
        let claim = Message::Claim {
            member: self.id,
            epoch: self.epoch,
            sent: now,
        };
        let mut out: Vec<Envelope> = self.witnesses.iter().map(|witness| (*witness, claim)).collect();
        // An owner without lease is silent, so that somebody who can get one claims it.
        if acts {
            let heartbeat = Message::Heartbeat {
                epoch: self.epoch,
                told: self.has,
            };
            out.extend(self.peers.iter().map(|peer| (*peer, heartbeat)));
        }
        out
    }

    /// Who slept cannot say that nobody spoke: it counts anew, and takes back a claim that it had begun.
    fn look(&mut self, timing: Timing, now: Moment) {
        if !self.pulse.beat(timing, now) {
            return;
        }
        match self.role {
            Role::Claimant => self.follow(self.epoch.saturating_sub(1), now),
            Role::Standby => self.heard = self.heard.map(|_| now),
            // Whether it still holds its lease is seen by the clock alone.
            Role::Owner => {}
        }
    }

    fn in_vain(&self) -> bool {
        let patience = match self.role {
            Role::Owner => VAIN_ROUNDS_OWNER,
            _ => VAIN_ROUNDS_CLAIMANT,
        };
        self.vain_rounds > patience || self.silent_rounds == SILENT_ROUNDS
    }

    /// Whether a majority has answered its last round.
    fn is_answered(&self) -> bool {
        usize::from(self.answers) > self.witnesses.len() / 2
    }

    /// A witness has answered a claimant: enough of them, and it goes on at its usual pace.
    fn answered(&mut self, timing: Timing, now: Moment) {
        if self.role != Role::Claimant || self.is_answered() {
            return;
        }
        self.answers += 1;
        if self.is_answered() && std::mem::take(&mut self.silent_rounds) == SILENT_ROUNDS && !self.in_vain() {
            self.next = self.next.min(now.plus_ms(timing.heartbeat_ms));
        }
    }

    /// Stops acting at once and lets `successor` claim without waiting.
    pub fn release(&mut self, successor: NodeId, now: Moment) -> Vec<Envelope> {
        if self.role != Role::Owner {
            return Vec::new();
        }
        let (epoch, told) = (self.epoch, self.has);
        self.follow(epoch, now);
        self.told = None;
        let released = Message::Released { member: self.id, epoch };
        let mut out: Vec<Envelope> = self.witnesses.iter().map(|witness| (*witness, released)).collect();
        out.push((successor, Message::Handover { epoch, told }));
        out
    }

    /// Takes a message.
    pub fn handle(&mut self, message: Message, timing: Timing, now: Moment) {
        self.look(timing, now);
        if matches!(message, Message::Granted { .. } | Message::Refused { .. }) {
            self.answered(timing, now);
        }
        match message {
            Message::Heartbeat { epoch, told } => self.heartbeat(epoch, told, now),
            Message::Handover { epoch, told } if epoch >= self.epoch && self.role == Role::Standby => {
                self.follow(epoch, now);
                self.told = told;
                self.invited = true;
            }
            Message::Granted { witness, epoch, sent } if epoch == self.epoch && self.role != Role::Standby => {
                let newest = self.grants.entry(witness).or_insert(sent);
                *newest = sent.max(*newest);
                self.role_by_grants(timing, now);
            }
            Message::Refused { epoch } => self.refused(epoch, timing, now),
            _ => {}
        }
    }

    fn heartbeat(&mut self, epoch: u64, told: Option<Mark>, now: Moment) {
        let follows = match self.role {
            Role::Owner => epoch > self.epoch,
            Role::Standby => epoch >= self.epoch,
            // The owner that it took for dead lives.
            Role::Claimant => epoch.saturating_add(1) >= self.epoch,
        };
        if follows {
            // Of one stream only the farthest counts, whatever comes late.
            let older = |known: &Mark| told.is_some_and(|told| known.covers(told));
            self.told = self.told.filter(|known| epoch == self.epoch && older(known)).or(told);
            self.follow(epoch, now);
        }
    }

    /// Some witness has promised an epoch. To a claimant below it that is somebody else's. An owner with a majority
    /// need not step down for one witness that it had lost: it goes above, keeping what the others have granted.
    fn refused(&mut self, epoch: u64, timing: Timing, now: Moment) {
        match self.role {
            Role::Claimant if epoch >= self.epoch => self.follow(epoch, now),
            Role::Owner if epoch > self.epoch && self.may_act(timing, now) => self.epoch = epoch.saturating_add(1),
            Role::Owner if epoch > self.epoch => self.follow(epoch, now),
            _ => {}
        }
    }

    fn role_by_grants(&mut self, timing: Timing, now: Moment) {
        let holding = self
            .grants
            .values()
            .filter(|sent| sent.plus_ms(timing.lease_ms) > now)
            .count();
        if holding <= self.witnesses.len() / 2 {
            return;
        }
        self.role = Role::Owner;
        (self.answers, self.silent_rounds) = (0, 0);
        if std::mem::take(&mut self.vain_rounds) > 0 {
            self.next = self.next.min(now.plus_ms(timing.heartbeat_ms));
        }
    }

    /// Steps down or back: somebody holds this epoch.
    fn follow(&mut self, epoch: u64, now: Moment) {
        self.role = Role::Standby;
        self.epoch = epoch;
        self.grants.clear();
        self.heard = Some(now);
        self.invited = false;
        self.vain_rounds = 0;
        (self.answers, self.silent_rounds) = (0, 0);
    }
}
