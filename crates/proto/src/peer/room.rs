//! One room as a peer holds it: its logs, its membership, its keys, and how an entry finds its place.

mod fork;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use rand_chacha::ChaCha20Rng;

use crate::crypto::{Hash, KeyPair, Secret, prefix8};
use crate::history::entry::{self, Class, Clock, Entry, EntryId, EntryRef, EpochId, Header, LogKey, RoomId};
use crate::history::run::{self, Neighbours, RunError};
use crate::history::{Body, IntervalSet, Said};
use crate::identity::{DeviceId, IdentityRecord, PersonId};
use crate::peer::keyring::Keyring;
use crate::peer::record::{
    self, Annotations, DeliveryRecord, LATE, LogRecord, ReactionRecord, RoomRecord, SEALED, SHOWN, SIGNED, Stored,
    StoredStanding,
};
use crate::peer::{Event, Output, table};
use crate::rooms::{Control, ControlEntry, ControlGraph, ControlPayload, Equivocation, Op, Role, Roster};
use crate::store::{Direction, EntryKey, LogNo, RoomNo, Store, StoreError, after_prefix};
use crate::sync::Vector;
use crate::sync::frame::EpochGift;
use crate::sync::vector::Held;
use crate::wire::Wire;

/// How far ahead of the wall clock another's clock may drag the own one.
pub(super) const CLOCK_AHEAD_MAX_MS: u64 = 5 * 60 * 1000;
/// How many entries of a removed device above its cut-off are kept (marked, without authority).
const BEYOND_CUTOFF_MAX: u32 = 1000;
/// How many logs whose owner is not known yet may be held in a room.
const UNKNOWN_LOGS_MAX: usize = 256;

/// How many bytes of entries of logs that are nobody's yet are kept until the membership changes.
const LIMBO_BYTES_MAX: usize = 4 << 20;
/// What an entry in limbo counts for beyond its payload.
const LIMBO_ENTRY_BYTES: usize = 1024;
/// Pieces in which one log may be held. What would make more is not taken until the pieces between come: nothing is lost, only later.
const PIECES_MAX: usize = 2048;
/// Edits of one entry that are kept, newest first; deletions; reactions; of them by one person.
const EDITS_MAX: usize = 64;
const DELETES_MAX: usize = 32;
const REACTIONS_MAX: usize = 4096;
const REACTIONS_OF_ONE_MAX: usize = 16;

/// What every part of a peer needs to act.
#[derive(Debug)]
pub(super) struct Ctx {
    pub now: Instant,
    pub wall_ms: u64,
    pub rng: ChaCha20Rng,
    pub out: Vec<Output>,
    pub me: PersonId,
    pub device: DeviceId,
    /// Seeds of the own prekeys, for opening what was sealed to this device.
    pub prekeys: Vec<crate::crypto::SealKeyPair>,
    pub next_log: u32,
    pub next_room: u32,
    pub blocked: BTreeSet<PersonId>,
}

impl Ctx {
    pub(super) fn event(&mut self, event: Event) {
        self.out.push(Output::Event(event));
    }

    pub(super) fn notice(&mut self, room: Option<RoomId>, text: String) {
        self.event(Event::Notice { room, text });
    }
}

/// A log as held here.
#[derive(Debug, Clone)]
pub(super) struct LogState {
    pub no: LogNo,
    pub held: IntervalSet,
    pub top_hash: Hash,
    pub top_clock: Clock,
    pub dirty: bool,
}

/// The log that this device writes.
#[derive(Debug, Clone)]
pub(super) struct OwnLog {
    pub key: KeyPair,
    pub log: LogKey,
}

/// One room.
#[derive(Debug)]
pub(super) struct Room {
    pub no: RoomNo,
    pub id: RoomId,
    pub standing: StoredStanding,
    pub provisional_name: String,
    pub graph: ControlGraph,
    pub roster: Roster,
    pub roster_dirty: bool,
    pub epochs: Keyring,
    pub logs: BTreeMap<LogKey, LogState>,
    pub by_prefix: BTreeMap<[u8; 8], LogKey>,
    pub own: Option<OwnLog>,
    /// Peers know the own log further than this node does: open another before writing.
    pub own_stale: bool,
    /// This person left, and nobody has said yet that they heard of it.
    pub farewell_due: bool,
    /// The entries by which another member showed that this person is out, while the membership known here does not bear it out.
    pub shown_out: Vec<EntryRef>,
    /// Why this person is out, in words.
    pub why_out: String,
    pub tips: BTreeMap<[u8; 8], EntryRef>,
    pub last_clock: Clock,
    pub messages: u64,
    pub unread: u64,
    pub read: Option<(u64, EntryId)>,
    pub told_prekey: u64,
    pub told_profile: u64,
    pub receipts: u64,
    pub dirty: bool,
    /// What others said they hold, beyond what is here.
    pub known: BTreeMap<LogKey, IntervalSet>,
    /// Epochs that entries here need and whose keys are not here.
    pub wanted_epochs: BTreeSet<EpochId>,
    /// The digest of what is held, until that changes.
    pub digest_cache: Option<Hash>,
    /// The clock of the room's first entry, in milliseconds since 1970: nobody's clock can rightly be before.
    pub created_ms: u64,
    /// The epoch of the room's first entry: the one that every member knows.
    pub first_epoch: Option<EpochId>,
    /// Devices of current members, with whose they are.
    pub devices: BTreeMap<DeviceId, PersonId>,
    /// Devices that let this one in, heard until the membership is known.
    pub sponsors: BTreeSet<DeviceId>,
    /// Own logs that fork, and above which number what was said there has been said again.
    pub said_above: BTreeMap<LogKey, u32>,
    /// Devices that showed how they came in, heard until the entries that let them in are here.
    pub vouched: BTreeSet<DeviceId>,
    /// Runs of logs that are nobody's yet.
    limbo: Vec<(LogKey, Vec<Entry>)>,
    /// How far each other device has got with the own log.
    pub deliveries: BTreeMap<DeviceId, DeliveryRecord>,
}

/// A run, parted by what can be taken.
#[derive(Debug, Default)]
struct Parted {
    /// Stretches of entries that are whole, held already, or known to be deleted.
    whole: Vec<Vec<Entry>>,
    /// Entries without payload, and nobody is known to have deleted them.
    withheld: Vec<Entry>,
}

/// What came of a run of entries.
#[derive(Debug, Default)]
pub(super) struct Ingested {
    /// Stored now.
    pub new: IntervalSet,
    /// A control entry was among them.
    pub control: bool,
    /// Two entries with one sequence number.
    pub proof: Option<Equivocation>,
    /// The run does not fit what is held although it is signed: the log forks somewhere below.
    pub forks: bool,
    /// The run was refused for this reason.
    pub refused: Option<&'static str>,
    /// Identity records that rode along, with their author.
    pub riders: Vec<(PersonId, IdentityRecord)>,
}

impl Ingested {
    pub(super) fn absorb(&mut self, other: Self) {
        self.new.union(&other.new);
        self.control |= other.control;
        self.forks |= other.forks;
        self.proof = self.proof.take().or(other.proof);
        self.refused = self.refused.or(other.refused);
        self.riders.extend(other.riders);
    }
}

/// An entry on its way into the store.
struct Arrival<'a> {
    log: &'a LogKey,
    key: EntryKey,
    hash: Hash,
    signed: bool,
    entry: Entry,
}

/// The effective clock of an entry with nothing above it. There is room below for pulling it down.
pub(super) fn effective_of(clock: Clock) -> i64 {
    const FLOOR: u64 = 1 << 40;
    (clock.0.max(FLOOR) ^ (1 << 63)).cast_signed()
}

/// The wall time that an effective clock stands for, in milliseconds since 1970.
pub(super) fn effective_ms(effective: i64) -> u64 {
    (effective.cast_unsigned() ^ (1 << 63)) >> 16
}

impl Room {
    /// A room about which nothing but its id is known.
    pub(super) fn new(no: RoomNo, id: RoomId, standing: StoredStanding, name: String) -> Self {
        let graph = ControlGraph::new(id);
        let roster = graph.resolve();
        Self {
            no,
            id,
            standing,
            provisional_name: name,
            graph,
            roster,
            roster_dirty: false,
            epochs: Keyring::default(),
            logs: BTreeMap::new(),
            by_prefix: BTreeMap::new(),
            own: None,
            own_stale: false,
            farewell_due: false,
            shown_out: Vec::new(),
            why_out: String::new(),
            tips: BTreeMap::new(),
            last_clock: Clock::default(),
            messages: 0,
            unread: 0,
            read: None,
            told_prekey: 0,
            told_profile: 0,
            receipts: 0,
            dirty: true,
            known: BTreeMap::new(),
            wanted_epochs: BTreeSet::new(),
            digest_cache: None,
            created_ms: 0,
            first_epoch: None,
            devices: BTreeMap::new(),
            sponsors: BTreeSet::new(),
            vouched: BTreeSet::new(),
            said_above: BTreeMap::new(),
            limbo: Vec::new(),
            deliveries: BTreeMap::new(),
        }
    }

    /// Reads a room back, given its record. Logs are added by [`Room::load_log`], then [`Room::load_rest`] completes it.
    pub(super) fn from_record(no: RoomNo, record: &RoomRecord) -> Self {
        let mut room = Self::new(no, record.id, record.standing, record.name.clone());
        room.tips = record.tips.iter().map(|tip| (tip.log, *tip)).collect();
        room.messages = record.messages;
        room.unread = record.unread;
        room.read = record.read;
        room.told_prekey = record.told_prekey;
        room.told_profile = record.told_profile;
        room.receipts = record.receipts;
        room.own_stale = record.own_stale;
        room.farewell_due = record.farewell_due;
        room.shown_out.clone_from(&record.shown_out);
        room.why_out.clone_from(&record.why_out);
        room.dirty = false;
        room
    }

    pub(super) fn load_log(&mut self, no: LogNo, record: LogRecord, own: Option<LogNo>) {
        if let (Some(seed), true) = (&record.seed, own == Some(no)) {
            self.own = Some(OwnLog {
                key: KeyPair::from_seed(seed),
                log: record.key,
            });
        }
        self.last_clock = self.last_clock.max(record.top_clock);
        self.by_prefix.insert(record.key.prefix(), record.key);
        let state = LogState {
            no,
            held: record.held,
            top_hash: record.top_hash,
            top_clock: record.top_clock,
            dirty: false,
        };
        self.logs.insert(record.key, state);
    }

    pub(super) fn load_rest<S: Store>(&mut self, store: &S, wall_ms: u64) -> Result<(), StoreError> {
        self.last_clock = self.last_clock.min(Clock::at_ms(wall_ms + CLOCK_AHEAD_MAX_MS));
        let prefix = table::key(table::EPOCHS, &[&self.no.0.to_be_bytes()]);
        for (_, value) in store.scan(&prefix, &after_prefix(&prefix), Direction::Ascending, usize::MAX)? {
            self.epochs.learn_gift(&record::decode::<EpochGift>(&value, "epoch")?);
        }
        let names: BTreeMap<LogNo, LogKey> = self.logs.iter().map(|(key, state)| (state.no, *key)).collect();
        let prefix = table::key(table::CONTROL, &[&self.no.0.to_be_bytes()]);
        for (key, _) in store.scan(&prefix, &after_prefix(&prefix), Direction::Ascending, usize::MAX)? {
            let at = key.get(5..13).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
            let at = EntryKey::from_u64(at.ok_or(StoreError::Damaged("control index"))?);
            let log = *names.get(&at.log).ok_or(StoreError::Damaged("control index"))?;
            let stored = self.stored(store, at)?.ok_or(StoreError::Damaged("control entry"))?;
            if let Some(payload) = &stored.entry.payload {
                self.learn_control(&log, &stored.entry.header, payload, None);
            }
        }
        let prefix = table::key(table::SEALED, &[&self.no.0.to_be_bytes()]);
        for (key, _) in store.scan(&prefix, &after_prefix(&prefix), Direction::Ascending, usize::MAX)? {
            if let Some(epoch) = key.get(5..13).and_then(|b| b.try_into().ok()).map(EpochId)
                && !self.epochs.knows(&epoch)
            {
                self.wanted_epochs.insert(epoch);
            }
        }
        let prefix = table::key(table::DELIVERIES, &[&self.no.0.to_be_bytes()]);
        for (key, value) in store.scan(&prefix, &after_prefix(&prefix), Direction::Ascending, usize::MAX)? {
            if let Some(device) = key.get(5..37).and_then(|b| b.try_into().ok()).map(DeviceId) {
                self.deliveries.insert(device, record::decode(&value, "delivery")?);
            }
        }
        self.roster = self.graph.resolve();
        self.roster_dirty = false;
        self.devices.clone_from(self.roster.devices());
        Ok(())
    }

    /// Writes what changed.
    pub(super) fn save<S: Store>(&mut self, store: &mut S) -> Result<(), StoreError> {
        for (key, state) in &mut self.logs {
            if !std::mem::take(&mut state.dirty) {
                continue;
            }
            let seed = self
                .own
                .as_ref()
                .filter(|own| own.log == *key)
                .map(|own| own.key.seed());
            let record = LogRecord {
                room: self.no,
                key: *key,
                held: state.held.clone(),
                top_hash: state.top_hash,
                top_clock: state.top_clock,
                seed,
            };
            store.put(&table::log(state.no), &record.to_bytes())?;
            self.dirty = true;
        }
        if std::mem::take(&mut self.dirty) {
            store.put(&table::room(self.no), &self.to_record().to_bytes())?;
        }
        Ok(())
    }

    fn to_record(&self) -> RoomRecord {
        RoomRecord {
            id: self.id,
            standing: self.standing,
            name: self.provisional_name.clone(),
            own_log: self
                .own
                .as_ref()
                .and_then(|own| self.logs.get(&own.log))
                .map(|state| state.no),
            tips: self.tips.values().copied().collect(),
            messages: self.messages,
            unread: self.unread,
            read: self.read,
            told_prekey: self.told_prekey,
            told_profile: self.told_profile,
            receipts: self.receipts,
            own_stale: self.own_stale,
            farewell_due: self.farewell_due,
            shown_out: self.shown_out.clone(),
            why_out: self.why_out.clone(),
        }
    }

    /// Whether entries are exchanged: a member's; those of somebody who left, until another has heard of it; those of somebody who is out by others' deeds:
    /// what undoes these may still come, and then the others count this person in again.
    pub(super) fn is_synced(&self) -> bool {
        match self.standing {
            StoredStanding::Member {} | StoredStanding::Removed {} => true,
            StoredStanding::Left {} => self.farewell_due,
            StoredStanding::Joining {} => false,
        }
    }

    /// Whether lines are sought for this room: not for one that this person is out of as far as the room's own log says.
    pub(super) fn seeks_lines(&self) -> bool {
        self.is_synced() && (!matches!(self.standing, StoredStanding::Removed {}) || !self.shown_out.is_empty())
    }

    pub(super) fn is_member(&self) -> bool {
        matches!(self.standing, StoredStanding::Member {})
    }

    /// The own role, if a member.
    pub(super) fn my_role(&self, me: &PersonId) -> Option<Role> {
        self.is_member().then(|| self.roster.role(me)).flatten()
    }

    /// What is held of every log, frozen parts left out.
    pub(super) fn vector(&self) -> Vector {
        let held = |(log, state): (&LogKey, &LogState)| {
            (!state.held.is_empty()).then(|| {
                (
                    *log,
                    Held {
                        held: state.held.clone(),
                        top: prefix8(&state.top_hash),
                    },
                )
            })
        };
        Vector(self.logs.iter().filter_map(held).collect())
    }

    /// What is held of every log.
    pub(super) fn held(&self) -> BTreeMap<LogKey, IntervalSet> {
        let held = self.logs.iter().filter(|(_, state)| !state.held.is_empty());
        held.map(|(log, state)| (*log, state.held.clone())).collect()
    }

    /// Stands for what is held.
    pub(super) fn digest(&mut self) -> Hash {
        if let Some(digest) = self.digest_cache {
            return digest;
        }
        let digest = self.vector().digest();
        self.digest_cache = Some(digest);
        digest
    }

    /// The highest sequence number of a log that counts, if it is frozen.
    pub(super) fn frozen_at(&self, log: &LogKey) -> Option<u32> {
        self.roster.frozen.get(log).copied()
    }

    /// Adds a log that nothing is held of.
    pub(super) fn add_log(&mut self, ctx: &mut Ctx, log: LogKey) -> LogNo {
        let no = LogNo(ctx.next_log);
        ctx.next_log += 1;
        self.by_prefix.insert(log.prefix(), log);
        let state = LogState {
            no,
            held: IntervalSet::default(),
            top_hash: [0; 32],
            top_clock: Clock::default(),
            dirty: true,
        };
        self.logs.insert(log, state);
        no
    }

    /// A stored entry.
    pub(super) fn stored<S: Store>(&self, store: &S, key: EntryKey) -> Result<Option<Stored>, StoreError> {
        store
            .entry(key)?
            .map(|bytes| record::decode(&bytes, "entry"))
            .transpose()
    }

    /// Where an entry of this room is stored, if it is held.
    pub(super) fn find(&self, id: &EntryId) -> Option<(LogKey, EntryKey)> {
        let log = self.by_prefix.get(&id.log)?;
        let state = self.logs.get(log)?;
        state.held.contains(id.seq).then_some((
            *log,
            EntryKey {
                log: state.no,
                seq: id.seq,
            },
        ))
    }

    /// Takes consecutive entries of one log: checks them, stores those that are new, and gives them their place.
    pub(super) fn ingest<S: Store>(
        &mut self,
        store: &mut S,
        ctx: &mut Ctx,
        log: LogKey,
        run: Vec<Entry>,
    ) -> Result<Ingested, StoreError> {
        let mut outcome = Ingested::default();
        if !self.accepts(&log, &run) {
            outcome.refused = Some("the log is nobody's in this room");
            return Ok(outcome);
        }
        if !self.logs.contains_key(&log) {
            self.add_log(ctx, log);
        }
        let frozen = self.frozen_at(&log).unwrap_or(u32::MAX);
        let mut stretch: Vec<Entry> = Vec::new();
        for entry in run.into_iter().filter(|entry| entry.header.seq <= frozen) {
            let held = self
                .logs
                .get(&log)
                .is_some_and(|state| state.held.contains(entry.header.seq));
            if !held {
                stretch.push(entry);
                continue;
            }
            let stretch = std::mem::take(&mut stretch);
            outcome.absorb(self.ingest_stretch(store, ctx, &log, stretch)?);
            if let Some(proof) = self.compare(store, &log, entry)? {
                outcome.proof = Some(proof);
            }
        }
        outcome.absorb(self.ingest_stretch(store, ctx, &log, stretch)?);
        Ok(outcome)
    }

    /// Whether entries of this log are taken at all: its owner is known, or it may be about to say whose it is.
    pub(super) fn accepts(&self, log: &LogKey, run: &[Entry]) -> bool {
        if let Some(owner) = self.roster.logs.get(log) {
            let beyond = |cutoff: u32| {
                run.iter()
                    .any(|e| e.header.seq > cutoff.saturating_add(BEYOND_CUTOFF_MAX))
            };
            return owner.cutoff.is_none_or(|cutoff| !beyond(cutoff));
        }
        let introduces = run
            .first()
            .is_some_and(|e| e.header.seq == 1 && e.header.class == Class::Control);
        let continues = self.logs.contains_key(log) && run.iter().all(|e| e.header.class == Class::Control);
        let same_prefix = self.by_prefix.get(&log.prefix()).is_some_and(|other| other != log);
        (introduces || continues) && !same_prefix && self.logs.len() < self.roster.logs.len() + UNKNOWN_LOGS_MAX
    }

    /// Keeps a run until its log is known, within bounds: the oldest goes first.
    fn keep_in_limbo(&mut self, log: LogKey, entries: Vec<Entry>) {
        self.limbo.push((log, entries));
        let size = |run: &Vec<Entry>| run.iter().map(limbo_bytes).sum::<usize>();
        let mut bytes: usize = self.limbo.iter().map(|(_, run)| size(run)).sum();
        let mut oldest = 0;
        while bytes > LIMBO_BYTES_MAX && oldest < self.limbo.len() {
            bytes -= size(&self.limbo[oldest].1);
            oldest += 1;
        }
        self.limbo.drain(..oldest);
    }

    /// The stretches of a run that can be taken now; the rest is kept.
    pub(super) fn ready_of<S: Store>(
        &mut self,
        store: &S,
        log: LogKey,
        run: Vec<Entry>,
    ) -> Result<Vec<Vec<Entry>>, StoreError> {
        if !self.accepts(&log, &run) {
            self.keep_in_limbo(log, run);
            return Ok(Vec::new());
        }
        let parted = self.part_withheld(store, &log, run)?;
        for entry in parted.withheld {
            self.keep_in_limbo(log, vec![entry]);
        }
        Ok(parted.whole)
    }

    /// The stretches in limbo that can be taken by now.
    pub(super) fn take_from_limbo<S: Store>(&mut self, store: &S) -> Result<Vec<(LogKey, Vec<Entry>)>, StoreError> {
        let mut ready = Vec::new();
        for (log, run) in std::mem::take(&mut self.limbo) {
            let whole = self.ready_of(store, log, run)?;
            ready.extend(whole.into_iter().map(|stretch| (log, stretch)));
        }
        Ok(ready)
    }

    pub(super) fn limbo_is_empty(&self) -> bool {
        self.limbo.is_empty()
    }

    /// Parts a run into stretches that can be taken, and entries that came without their payload though no deletion of them is known here: their sender
    /// withholds it, or the deletion is still on its way, perhaps in this very run. Those have to wait.
    fn part_withheld<S: Store>(&self, store: &S, log: &LogKey, run: Vec<Entry>) -> Result<Parted, StoreError> {
        let mut parted = Parted::default();
        let mut stretch = Vec::new();
        for entry in run {
            if self.is_withheld(store, log, &entry)? {
                parted.whole.push(std::mem::take(&mut stretch));
                parted.withheld.push(entry);
            } else {
                stretch.push(entry);
            }
        }
        parted.whole.push(stretch);
        parted.whole.retain(|stretch| !stretch.is_empty());
        Ok(parted)
    }

    fn is_withheld<S: Store>(&self, store: &S, log: &LogKey, entry: &Entry) -> Result<bool, StoreError> {
        let seq = entry.header.seq;
        let held = self.logs.get(log).is_some_and(|state| state.held.contains(seq));
        if entry.payload.is_some() || held {
            return Ok(false);
        }
        let id = EntryId { log: log.prefix(), seq };
        let notes = self.annotations(store, &id)?;
        Ok(entry.header.class == Class::Control || !self.is_deleted(&notes, log))
    }

    fn ingest_stretch<S: Store>(
        &mut self,
        store: &mut S,
        ctx: &mut Ctx,
        log: &LogKey,
        run: Vec<Entry>,
    ) -> Result<Ingested, StoreError> {
        let mut outcome = Ingested::default();
        let (Some(first), Some(last)) = (run.first().map(|e| e.header.seq), run.last().map(|e| e.header.seq)) else {
            return Ok(outcome);
        };
        if !self.fits(log, first, last) {
            return Ok(outcome);
        }
        let known = self.neighbours(store, log, first, last)?;
        let (hashes, signed) = match run::verify(log, &run, known) {
            Ok(verified) => verified,
            Err(RunError::BrokenChain) if run::verify(log, &run, Neighbours::default()).is_ok() => {
                outcome.forks = true;
                outcome.proof = self.proof_before(store, log, &run)?;
                return Ok(outcome);
            }
            Err(_) => {
                outcome.refused = Some("the entries are not what their author signed");
                return Ok(outcome);
            }
        };
        let Some(no) = self.logs.get(log).map(|state| state.no) else {
            return Ok(outcome);
        };
        if self.descends(log, &run) {
            outcome.proof = self
                .proof_before(store, log, &run)?
                .or_else(|| fork::proof_within(log, &run));
        }
        let count = run.len();
        for (i, (entry, hash)) in run.into_iter().zip(hashes).enumerate() {
            let key = EntryKey {
                log: no,
                seq: entry.header.seq,
            };
            let arrival = Arrival {
                log,
                key,
                hash,
                signed: signed && i + 1 == count,
                entry,
            };
            self.admit(store, ctx, arrival, &mut outcome)?;
        }
        outcome.new.insert(first, last);
        Ok(outcome)
    }

    /// Whether taking `first..=last` leaves the log in a bounded number of pieces.
    fn fits(&self, log: &LogKey, first: u32, last: u32) -> bool {
        let Some(state) = self.logs.get(log) else { return true };
        let touches = state.held.contains(first.saturating_sub(1)) || state.held.contains(last.saturating_add(1));
        touches || state.held.ranges().len() < PIECES_MAX
    }

    fn neighbours<S: Store>(&self, store: &S, log: &LogKey, first: u32, last: u32) -> Result<Neighbours, StoreError> {
        let mut known = Neighbours::default();
        let Some(state) = self.logs.get(log) else {
            return Ok(known);
        };
        if first > 1 && state.held.contains(first - 1) {
            known.before = if state.held.max() == first - 1 {
                Some(state.top_hash)
            } else {
                let before = self.stored(
                    store,
                    EntryKey {
                        log: state.no,
                        seq: first - 1,
                    },
                )?;
                before.map(|stored| stored.entry.header.hash(log))
            };
        }
        if let Some(next) = last.checked_add(1)
            && state.held.contains(next)
        {
            let after = self.stored(
                store,
                EntryKey {
                    log: state.no,
                    seq: next,
                },
            )?;
            known.after_prev = after.map(|stored| stored.entry.header.prev);
        }
        Ok(known)
    }

    /// Stores one believed entry, gives it its place, and takes in what it says.
    fn admit<S: Store>(
        &mut self,
        store: &mut S,
        ctx: &mut Ctx,
        arrival: Arrival<'_>,
        outcome: &mut Ingested,
    ) -> Result<(), StoreError> {
        let Arrival {
            log,
            key,
            hash,
            signed,
            entry,
        } = arrival;
        let id = EntryId {
            log: log.prefix(),
            seq: key.seq,
        };
        self.note_clock(ctx, entry.header.clock);
        self.note_tip(log, &entry.header, &hash);
        let effective = self.first_effective(store, log, &entry.header, &hash)?;
        self.pull_below(store, log, &entry.header, effective)?;
        let flags = if signed { SIGNED } else { 0 };
        let mut stored = Stored {
            flags,
            effective,
            saved_ms: ctx.wall_ms,
            entry,
        };
        self.mark_held(log, &stored.entry.header, hash);
        match stored.entry.header.class {
            Class::Control => {
                store.put(&table::control(self.no, key), &[])?;
                outcome.control |= self.take_control(store, ctx, log, key, &stored)?;
                self.show(store, ctx, &id, &mut stored, key, false)?;
            }
            Class::Message => self.take_message(store, ctx, log, key, &mut stored, outcome)?,
        }
        store.put_entry(key, &stored.to_bytes())
    }

    /// Follows others' clocks, but never far ahead of the own one, unless the own one is plainly wrong.
    fn note_clock(&mut self, ctx: &Ctx, clock: Clock) {
        let trusted = ctx.wall_ms.saturating_add(CLOCK_AHEAD_MAX_MS);
        if clock.ms() <= trusted || trusted < self.created_ms {
            self.last_clock = self.last_clock.max(clock);
        }
    }

    /// This entry is referred to by nothing here; what it refers to no longer is a tip.
    fn note_tip(&mut self, log: &LogKey, header: &Header, hash: &Hash) {
        for parent in &header.parents {
            if self.tips.get(&parent.log).is_some_and(|tip| tip.seq <= parent.seq) {
                self.tips.remove(&parent.log);
            }
        }
        let tip = EntryRef {
            log: log.prefix(),
            seq: header.seq,
            hash: prefix8(hash),
        };
        let newer = self.logs.get(log).is_none_or(|state| state.held.max() < header.seq);
        if newer {
            self.tips.insert(tip.log, tip);
        }
        self.dirty = true;
    }

    /// The effective clock of an arriving entry: its own, or what entries above it that came earlier demand.
    fn first_effective<S: Store>(
        &self,
        store: &mut S,
        log: &LogKey,
        header: &Header,
        hash: &Hash,
    ) -> Result<i64, StoreError> {
        let own = effective_of(header.clock);
        let reference = EntryRef {
            log: log.prefix(),
            seq: header.seq,
            hash: prefix8(hash),
        };
        let waiting = table::waiting(self.no, &reference);
        let Some(value) = store.get(&waiting)? else {
            return Ok(own);
        };
        store.delete(&waiting)?;
        let limit = value
            .try_into()
            .map(i64::from_be_bytes)
            .map_err(|_| StoreError::Damaged("waiting"))?;
        Ok(own.min(limit))
    }

    /// Makes everything below an entry stand before it. A reference counts only where its hash fits what is held, so nobody can refer to what was
    /// written later: that would go round for ever.
    fn pull_below<S: Store>(
        &mut self,
        store: &mut S,
        log: &LogKey,
        header: &Header,
        effective: i64,
    ) -> Result<(), StoreError> {
        let mut below: Vec<(EntryRef, i64)> = Vec::new();
        let top = self
            .logs
            .get(log)
            .filter(|state| state.held.max().checked_add(1) == Some(header.seq));
        let ascends = top.is_some_and(|state| state.top_clock < header.clock);
        push_below(&mut below, log, header, effective, ascends);
        self.pull(store, below)
    }

    /// Moves these entries, and what is below them, down to their limits; notes the limits of those that are not here.
    pub(super) fn pull<S: Store>(&mut self, store: &mut S, mut below: Vec<(EntryRef, i64)>) -> Result<(), StoreError> {
        while let Some((reference, limit)) = below.pop() {
            let Some((log_key, key)) = self.find(&reference.id()) else {
                let waiting = table::waiting(self.no, &reference);
                let before = store
                    .get(&waiting)?
                    .and_then(|v| v.try_into().ok())
                    .map(i64::from_be_bytes);
                if before.is_none_or(|before| limit < before) {
                    store.put(&waiting, &limit.to_be_bytes())?;
                }
                continue;
            };
            let Some(mut stored) = self.stored(store, key)? else {
                continue;
            };
            if stored.effective <= limit || prefix8(&stored.entry.header.hash(&log_key)) != reference.hash {
                continue;
            }
            self.move_to(store, &log_key, key, &mut stored, limit)?;
            push_below(&mut below, &log_key, &stored.entry.header, limit, false);
        }
        Ok(())
    }

    /// Gives an entry another place.
    pub(super) fn move_to<S: Store>(
        &self,
        store: &mut S,
        log: &LogKey,
        key: EntryKey,
        stored: &mut Stored,
        effective: i64,
    ) -> Result<(), StoreError> {
        if stored.effective == effective {
            return Ok(());
        }
        if stored.flags & SHOWN != 0 {
            store.delete(&table::order(self.no, stored.effective, &log.prefix(), key.seq))?;
            store.put(
                &table::order(self.no, effective, &log.prefix(), key.seq),
                &key.log.0.to_be_bytes(),
            )?;
        }
        stored.effective = effective;
        store.put_entry(key, &stored.to_bytes())
    }

    fn mark_held(&mut self, log: &LogKey, header: &Header, hash: Hash) {
        let Some(state) = self.logs.get_mut(log) else { return };
        if header.seq > state.held.max() {
            state.top_hash = hash;
            state.top_clock = header.clock;
        }
        state.held.insert(header.seq, header.seq);
        state.dirty = true;
        self.digest_cache = None;
    }

    /// Puts an entry into the timeline.
    fn show<S: Store>(
        &mut self,
        store: &mut S,
        ctx: &mut Ctx,
        id: &EntryId,
        stored: &mut Stored,
        key: EntryKey,
        is_message: bool,
    ) -> Result<(), StoreError> {
        let order = table::order(self.no, stored.effective, &id.log, id.seq);
        store.put(&order, &key.log.0.to_be_bytes())?;
        let first_time = stored.flags & SHOWN == 0;
        stored.flags |= SHOWN;
        let mine = self.own.as_ref().is_some_and(|own| own.log.prefix() == id.log);
        let before_read = self
            .read
            .is_some_and(|(at, _)| (stored.effective.cast_unsigned() ^ (1 << 63)) < at);
        if before_read && !mine {
            stored.flags |= LATE;
        }
        if is_message && first_time {
            self.messages += 1;
            self.unread += u64::from(!mine);
        }
        self.dirty = true;
        ctx.event(Event::Entry {
            room: self.id,
            id: *id,
            new: first_time,
        });
        Ok(())
    }

    /// Takes in a control entry. True if the membership may have changed.
    fn take_control<S: Store>(
        &mut self,
        store: &mut S,
        ctx: &mut Ctx,
        log: &LogKey,
        key: EntryKey,
        stored: &Stored,
    ) -> Result<bool, StoreError> {
        let header = &stored.entry.header;
        let Some(payload) = &stored.entry.payload else {
            return Ok(false);
        };
        let known_before = self.epochs.knows(&header.epoch);
        if self.learn_control(log, header, payload, Some((&ctx.device, &ctx.prekeys))) {
            self.roster_dirty = true;
        } else {
            store.put(&table::sealed(self.no, &header.epoch, key), &[])?;
            self.wanted_epochs.insert(header.epoch);
        }
        if !known_before && let Some(gift) = self.epochs.gift(&header.epoch) {
            store.put(&table::epoch(self.no, &header.epoch), &gift.to_bytes())?;
            self.unseal(store, ctx, header.epoch, Some(key))?;
        }
        Ok(true)
    }

    /// Opens a control entry's payload and gives it to the graph. False if its keys are not here.
    fn learn_control(
        &mut self,
        log: &LogKey,
        header: &Header,
        payload: &[u8],
        mine: Option<(&DeviceId, &[crate::crypto::SealKeyPair])>,
    ) -> bool {
        let Ok(payload) = ControlPayload::from_bytes(payload) else {
            return true;
        };
        let hash = header.hash(log);
        let id = EntryRef {
            log: log.prefix(),
            seq: header.seq,
            hash: prefix8(&hash),
        };
        if hash == self.id.0 {
            self.created_ms = header.clock.ms();
            self.first_epoch = Some(header.epoch);
        }
        if let Some((device, prekeys)) = mine
            && !self.epochs.knows(&header.epoch)
            && payload.speaks_of(&header.epoch)
            && let Some(secret) = payload.open_slot(device, prekeys)
        {
            self.epochs.learn_secret(secret);
        }
        let Some(keys) = self.epochs.keys(&header.epoch) else {
            return false;
        };
        let Ok(control) = payload.open(header, log, keys) else {
            return true;
        };
        let makes_a_room = control.ops.iter().any(|op| matches!(op, Op::Create { .. }));
        if makes_a_room && hash != self.id.0 {
            return true;
        }
        self.epochs.note_control(id, header, &payload);
        self.graph.insert(ControlEntry {
            id,
            log: *log,
            seq: header.seq,
            clock: header.clock,
            control,
        });
        true
    }

    /// An epoch's keys came: takes in what waited for them, except `not`, which is being taken in already.
    pub(super) fn unseal<S: Store>(
        &mut self,
        store: &mut S,
        ctx: &mut Ctx,
        epoch: EpochId,
        not: Option<EntryKey>,
    ) -> Result<Ingested, StoreError> {
        let mut outcome = Ingested::default();
        self.wanted_epochs.remove(&epoch);
        let names: BTreeMap<LogNo, LogKey> = self.logs.iter().map(|(key, state)| (state.no, *key)).collect();
        let prefix = table::key(table::SEALED, &[&self.no.0.to_be_bytes(), &epoch.0]);
        for (record_key, _) in store.scan(&prefix, &after_prefix(&prefix), Direction::Ascending, usize::MAX)? {
            store.delete(&record_key)?;
            let at = record_key
                .get(13..21)
                .and_then(|b| b.try_into().ok())
                .map(u64::from_be_bytes);
            let key = EntryKey::from_u64(at.ok_or(StoreError::Damaged("sealed index"))?);
            if not == Some(key) {
                continue;
            }
            let Some(log) = names.get(&key.log).copied() else {
                continue;
            };
            let Some(mut stored) = self.stored(store, key)? else {
                continue;
            };
            match stored.entry.header.class {
                Class::Control => outcome.control |= self.take_control(store, ctx, &log, key, &stored)?,
                Class::Message => {
                    self.hide(store, &log, &mut stored, key)?;
                    self.take_message(store, ctx, &log, key, &mut stored, &mut outcome)?;
                    store.put_entry(key, &stored.to_bytes())?;
                }
            }
        }
        Ok(outcome)
    }

    /// Takes an entry out of the timeline.
    pub(super) fn hide<S: Store>(
        &mut self,
        store: &mut S,
        log: &LogKey,
        stored: &mut Stored,
        key: EntryKey,
    ) -> Result<(), StoreError> {
        if stored.flags & SHOWN != 0 {
            store.delete(&table::order(self.no, stored.effective, &log.prefix(), key.seq))?;
            stored.flags &= !SHOWN;
        }
        stored.flags &= !SEALED;
        Ok(())
    }

    /// The key that opens a message of this epoch, where this device may read it.
    pub(super) fn content_key(&self, log: &LogKey, header: &Header) -> Option<Secret> {
        let content = self.epochs.keys(&header.epoch)?.content_key()?;
        Some(header.payload_key(log, content))
    }

    /// Opens a message entry.
    pub(super) fn open(&self, log: &LogKey, entry: &Entry) -> Option<Said> {
        let key = self.content_key(log, &entry.header)?;
        let payload = entry.payload.as_ref()?;
        let plain = crate::crypto::open_once(&key, &entry.header.bound(log), payload).ok()?;
        Said::from_bytes(&plain).ok()
    }

    /// The person behind a log.
    pub(super) fn author(&self, log: &LogKey) -> Option<PersonId> {
        self.roster.logs.get(log).map(|owner| owner.person)
    }

    fn take_message<S: Store>(
        &mut self,
        store: &mut S,
        ctx: &mut Ctx,
        log: &LogKey,
        key: EntryKey,
        stored: &mut Stored,
        outcome: &mut Ingested,
    ) -> Result<(), StoreError> {
        let id = EntryId {
            log: log.prefix(),
            seq: key.seq,
        };
        self.epochs
            .note_use(&stored.entry.header.epoch, stored.entry.header.clock);
        if stored.entry.payload.is_none() {
            return self.show(store, ctx, &id, stored, key, true);
        }
        let Some(said) = self.open(log, &stored.entry) else {
            return self.keep_sealed(store, ctx, &id, key, stored);
        };
        let author = self.author(log);
        if let Some(person) = author {
            outcome
                .riders
                .extend(said.riders.into_iter().map(|record| (person, record)));
        }
        let clock = stored.entry.header.clock;
        match said.body {
            Body::Text { text, .. } => self.take_text(store, ctx, log, key, stored, text)?,
            Body::Edit { target, .. } => {
                let target_author = self.by_prefix.get(&target.log).and_then(|log| self.author(log));
                if target_author.is_some() && target_author != author {
                    return Ok(());
                }
                self.annotate(store, ctx, &target, |notes| put_edit(notes, clock, id))?;
                store.put_entry(key, &stored.to_bytes())?;
                self.reindex(store, &target)?;
            }
            Body::Delete { target } => {
                let mut notes = self.annotations(store, &target)?;
                if notes.deletes.len() >= DELETES_MAX && !self.is_deleted(&notes, log) {
                    // None of those kept counts as yet: the newest has as good a claim.
                    notes.deletes.remove(0);
                }
                let full = notes.deletes.len() >= DELETES_MAX;
                self.annotate(store, ctx, &target, |kept| {
                    kept.deletes = notes.deletes;
                    if !full && !kept.deletes.contains(&id) {
                        kept.deletes.push(id);
                    }
                })?;
                self.drop_if_deleted(store, ctx, &target)?;
            }
            Body::React { target, emoji, on } => {
                let Some(person) = author else { return Ok(()) };
                let reaction = ReactionRecord {
                    person,
                    emoji,
                    clock,
                    by: id,
                    on,
                };
                self.annotate(store, ctx, &target, |notes| put_reaction(notes, reaction))?;
            }
        }
        Ok(())
    }

    fn keep_sealed<S: Store>(
        &mut self,
        store: &mut S,
        ctx: &mut Ctx,
        id: &EntryId,
        key: EntryKey,
        stored: &mut Stored,
    ) -> Result<(), StoreError> {
        let epoch = stored.entry.header.epoch;
        stored.flags |= SEALED;
        if self.epochs.knows(&epoch) {
            // The keys here open no messages of that time (history policy), or the payload is garbage: nothing to show.
            return Ok(());
        }
        store.put(&table::sealed(self.no, &epoch, key), &[])?;
        self.wanted_epochs.insert(epoch);
        self.show(store, ctx, id, stored, key, false)
    }

    fn take_text<S: Store>(
        &mut self,
        store: &mut S,
        ctx: &mut Ctx,
        log: &LogKey,
        key: EntryKey,
        stored: &mut Stored,
        text: String,
    ) -> Result<(), StoreError> {
        let id = EntryId {
            log: log.prefix(),
            seq: key.seq,
        };
        let notes = self.annotations(store, &id)?;
        if self.is_deleted(&notes, log) {
            stored.entry.payload = None;
        } else {
            let text = self.edited(store, &notes, log)?.map_or(text, |(_, text)| text);
            store.index_text(self.no, key, stored.entry.header.clock.ms(), &text)?;
        }
        self.show(store, ctx, &id, stored, key, true)
    }

    /// What was done to an entry.
    pub(super) fn annotations<S: Store>(&self, store: &S, id: &EntryId) -> Result<Annotations, StoreError> {
        match store.get(&table::in_room(table::ANNOTATIONS, self.no, &id.log, id.seq))? {
            Some(bytes) => record::decode(&bytes, "annotations"),
            None => Ok(Annotations::default()),
        }
    }

    pub(super) fn annotate<S: Store>(
        &mut self,
        store: &mut S,
        ctx: &mut Ctx,
        target: &EntryId,
        change: impl FnOnce(&mut Annotations),
    ) -> Result<(), StoreError> {
        let mut notes = self.annotations(store, target)?;
        change(&mut notes);
        store.put(
            &table::in_room(table::ANNOTATIONS, self.no, &target.log, target.seq),
            &notes.to_bytes(),
        )?;
        ctx.event(Event::Entry {
            room: self.id,
            id: *target,
            new: false,
        });
        Ok(())
    }

    /// The person behind an entry, unless it stands above its log's cut-off or was written by a reader.
    fn with_authority(&self, id: &EntryId) -> Option<PersonId> {
        let owner = self.roster.logs.get(self.by_prefix.get(&id.log)?)?;
        let counts = owner.cutoff.is_none_or(|cutoff| id.seq <= cutoff) && !owner.is_muted(id.seq);
        counts.then_some(owner.person)
    }

    /// Whether an entry was written by somebody who was a reader then.
    pub(super) fn is_muted(&self, id: &EntryId) -> bool {
        let owner = self.by_prefix.get(&id.log).and_then(|log| self.roster.logs.get(log));
        owner.is_some_and(|owner| owner.is_muted(id.seq))
    }

    /// Whether a deletion of an entry in `log` counts: by its author's person, or by a moderator.
    pub(super) fn is_deleted(&self, notes: &Annotations, log: &LogKey) -> bool {
        let author = self.author(log);
        notes.deletes.iter().any(|by| {
            let Some(person) = self.with_authority(by) else {
                return false;
            };
            Some(person) == author || self.roster.role(&person).is_some_and(|role| role >= Role::Moderator)
        })
    }

    /// The text that the newest valid edit gives an entry of `log`, and when.
    pub(super) fn edited<S: Store>(
        &self,
        store: &S,
        notes: &Annotations,
        log: &LogKey,
    ) -> Result<Option<(Clock, String)>, StoreError> {
        for (clock, by) in notes.edits.iter().rev() {
            let Some((edit_log, key)) = self.find(by) else { continue };
            if self.with_authority(by) != self.author(log) {
                continue;
            }
            let Some(stored) = self.stored(store, key)? else {
                continue;
            };
            if let Some(Said {
                body: Body::Edit { text, .. },
                ..
            }) = self.open(&edit_log, &stored.entry)
            {
                return Ok(Some((*clock, text)));
            }
        }
        Ok(None)
    }

    /// Makes an edited message findable by its new text only.
    fn reindex<S: Store>(&mut self, store: &mut S, target: &EntryId) -> Result<(), StoreError> {
        let Some((log, key)) = self.find(target) else {
            return Ok(());
        };
        let Some(stored) = self.stored(store, key)? else {
            return Ok(());
        };
        let Some(Said {
            body: Body::Text { text, .. },
            ..
        }) = self.open(&log, &stored.entry)
        else {
            return Ok(());
        };
        let mut notes = self.annotations(store, target)?;
        let Some((_, now)) = self.edited(store, &notes, &log)? else {
            return Ok(());
        };
        notes.edits.pop();
        let before = self.edited(store, &notes, &log)?.map_or(text, |(_, text)| text);
        let at = stored.entry.header.clock.ms();
        store.unindex_text(self.no, key, at, &before)?;
        store.index_text(self.no, key, at, &now)
    }

    /// Drops the payload of a message whose deletion counts.
    pub(super) fn drop_if_deleted<S: Store>(
        &mut self,
        store: &mut S,
        ctx: &mut Ctx,
        target: &EntryId,
    ) -> Result<(), StoreError> {
        let Some((log, key)) = self.find(target) else {
            return Ok(());
        };
        let notes = self.annotations(store, target)?;
        let Some(mut stored) = self.stored(store, key)? else {
            return Ok(());
        };
        if !self.is_deleted(&notes, &log) || stored.entry.payload.is_none() {
            return Ok(());
        }
        if let Some(Said {
            body: Body::Text { text, .. },
            ..
        }) = self.open(&log, &stored.entry)
        {
            let text = self.edited(store, &notes, &log)?.map_or(text, |(_, text)| text);
            store.unindex_text(self.no, key, stored.entry.header.clock.ms(), &text)?;
            stored.entry.payload = None;
            store.put_entry(key, &stored.to_bytes())?;
            ctx.event(Event::Entry {
                room: self.id,
                id: *target,
                new: false,
            });
        }
        Ok(())
    }

    /// Brings the membership up to date, and takes what is above a proven fork out of sight.
    pub(super) fn refresh_roster<S: Store>(&mut self, store: &mut S, ctx: &mut Ctx) -> Result<bool, StoreError> {
        if !std::mem::take(&mut self.roster_dirty) {
            return Ok(false);
        }
        self.roster = self.graph.resolve();
        self.devices.clone_from(self.roster.devices());
        if !self.roster.name.is_empty() {
            self.provisional_name.clone_from(&self.roster.name);
        }
        self.dirty = true;
        let frozen: Vec<(LogKey, u32)> = self.roster.frozen.iter().map(|(log, seq)| (*log, *seq)).collect();
        for (log, last) in frozen {
            self.freeze(store, ctx, &log, last)?;
        }
        ctx.event(Event::Room { room: self.id });
        Ok(true)
    }

    /// Operations of a control entry held here, for the timeline.
    pub(super) fn control_of(&self, log: &LogKey, entry: &Entry) -> Option<Control> {
        let payload = ControlPayload::from_bytes(entry.payload.as_ref()?).ok()?;
        let keys = self.epochs.keys(&entry.header.epoch)?;
        payload.open(&entry.header, log, keys).ok()
    }

    /// Checks a signature that was only covered by its chain, before others are shown it as the end of a run.
    pub(super) fn signature_holds(&self, log: &LogKey, stored: &Stored) -> bool {
        stored.flags & SIGNED != 0
            || entry::verify(log, &stored.entry.header.hash(log), &stored.entry.signature).is_ok()
    }

    /// Sequence numbers of a log that are known to exist and are not here.
    pub(super) fn missing(&self, log: &LogKey) -> IntervalSet {
        let held = self.logs.get(log).map(|state| state.held.clone()).unwrap_or_default();
        let mut exist = self.known.get(log).cloned().unwrap_or_default();
        exist.insert(1, held.max());
        let missing = exist.minus(&held);
        match self.frozen_at(log) {
            Some(last) => missing.up_to(last),
            None => missing,
        }
    }
}

fn limbo_bytes(entry: &Entry) -> usize {
    LIMBO_ENTRY_BYTES + entry.payload.as_ref().map_or(0, Vec::len)
}

/// What stands directly below an entry, and what its effective clock must not exceed. `ascends`: the entry before in the same log is known to have a
/// smaller clock, and needs no pulling unless this one was pulled itself.
pub(super) fn push_below(
    below: &mut Vec<(EntryRef, i64)>,
    log: &LogKey,
    header: &Header,
    effective: i64,
    ascends: bool,
) {
    if header.seq > 1 && (!ascends || effective < effective_of(header.clock)) {
        let before = EntryRef {
            log: log.prefix(),
            seq: header.seq - 1,
            hash: prefix8(&header.prev),
        };
        below.push((before, effective.saturating_sub(1)));
    }
    for parent in &header.parents {
        below.push((*parent, effective.saturating_sub(1)));
    }
}

fn put_edit(notes: &mut Annotations, clock: Clock, by: EntryId) {
    if !notes.edits.contains(&(clock, by)) {
        notes.edits.push((clock, by));
        notes.edits.sort_unstable();
        let surplus = notes.edits.len().saturating_sub(EDITS_MAX);
        notes.edits.drain(..surplus);
    }
}

pub(super) fn put_reaction(notes: &mut Annotations, reaction: ReactionRecord) {
    let same = |r: &&mut ReactionRecord| r.person == reaction.person && r.emoji == reaction.emoji;
    match notes.reactions.iter_mut().find(same) {
        Some(old) if (old.clock, old.by) < (reaction.clock, reaction.by) => *old = reaction,
        Some(_) => {}
        None => {
            let by_them = notes.reactions.iter().filter(|r| r.person == reaction.person).count();
            if by_them < REACTIONS_OF_ONE_MAX && notes.reactions.len() < REACTIONS_MAX {
                notes.reactions.push(reaction);
            }
        }
    }
}

#[cfg(test)]
mod tests;
