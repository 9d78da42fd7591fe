//! A member's side of keepers: what is held where, handing over, fetching, and finding out who lies.
//!
//! For each keeper of each room, while its line is up: ask how the vault stands; fetch what it holds and this node lacks; hand over what it lacks, own entries at
//! once and others' after a pause with jitter (their authors are likely to do it themselves); then bring the access up to date, if this member's view of the room is at
//! least what the keeper holds. In that order, because whoever comes back after a change of keys finds the new keys in entries that the vault
//! must have first. What a keeper says it holds is remembered and tested, see [`crate::keeper::audit`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand_core::Rng as _;

use crate::crypto::{Hash, KeyPair};
use crate::history::RoomId;
use crate::history::entry::{Class, Entry, LogKey};
use crate::history::{Clock, IntervalSet};
use crate::identity::DeviceId;
use crate::keeper::access::{self, Access};
use crate::keeper::audit::{self, Fault};
use crate::keeper::frame::{Holding, KeptRanges, KeptRun, LOGS_MAX, RUN_MAX, State};
use crate::keeper::vault::both;
use crate::keeper::{Answer, Ask, KeeperAddress, Refusal};
use crate::peer::command::CommandError;
use crate::peer::record::{self, DeliveryRecord, KeeperRecord, Stored};
use crate::peer::room::Room;
use crate::peer::view::KeeperView;
use crate::peer::{Event, Output, Peer, Reply, table};
use crate::rooms::keepers::{KEEPER_ADDRESSES_MAX, KEEPERS_MAX};
use crate::rooms::{KeeperPlace, Op, Role, Sending, VaultId};
use crate::store::{Direction, EntryKey, RoomNo, Store, StoreError, after_prefix};
use crate::sync::Frame;
use crate::wire::Wire;

/// A frame of entries for a keeper is closed when it gets this large, in bytes.
const PUT_BYTES: usize = 128 * 1024;
/// Puts that a keeper may owe answers to.
const PUTS_MAX: usize = 8;
/// Others' entries are handed over after this long at least, and up to twice as long.
const HAND_OVER_DELAY: Duration = Duration::from_secs(3);
/// The first challenge on a line comes after this long at least, and up to twice as long.
const CHALLENGE_FIRST: Duration = Duration::from_secs(5);
/// The next ones after this long at least, and up to twice as long.
const CHALLENGE_EVERY: Duration = Duration::from_secs(600);
/// How long a keeper may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The owner of a vault takes it back when its write key stays unknown for this long.
const RESET_AFTER: Duration = Duration::from_secs(30);
/// Tries of a keeper are counted towards its uptime at most this often.
const SAMPLE_EVERY_MS: u64 = 10 * 60 * 1000;
/// Refusals on one line after which nothing more is tried on it.
const REFUSALS_MAX: u32 = 8;
/// A message this close to its end, in milliseconds, may have expired already by the keeper's clock.
const EXPIRY_SLACK_MS: u64 = 24 * 3600 * 1000;
/// Places looked at for an entry to challenge.
const CHALLENGE_TRIES: usize = 4;

type Ranges = BTreeMap<LogKey, IntervalSet>;

/// One keeper of one room, as this member knows it.
#[derive(Debug)]
pub(super) struct Keeping {
    pub record: KeeperRecord,
    dirty: bool,
    /// Something is here that it is still to be given, as far as is known.
    pub owes: bool,
    /// While a line is up.
    pub session: Option<Session>,
}

/// What was said on a line about one vault.
#[derive(Debug)]
pub(super) struct Session {
    pub state: Option<State>,
    pub held: Ranges,
    bare: Ranges,
    /// Asked for, and not all of it answered yet.
    getting: Option<Ranges>,
    /// Came since the `Get`.
    came: Ranges,
    /// What was asked for once is not asked for again on this line.
    tried: Ranges,
    /// Claimed and not handed over: asked about again.
    doubtful: Ranges,
    /// Given, and not known to be durable yet.
    putting: Ranges,
    puts: usize,
    /// Not worth keeping: expired, or nothing that the keeper could use.
    skipped: Ranges,
    /// The access number that writing was proved for.
    writing: u64,
    renewing: bool,
    challenge: Option<Challenge>,
    /// Answers are due since then.
    due_since: Option<Instant>,
    hand_over_at: Option<Instant>,
    challenge_at: Instant,
    /// The write key was unknown since then.
    locked_since: Option<Instant>,
    refusals: u32,
}

#[derive(Debug)]
struct Challenge {
    log: LogKey,
    seq: u32,
    expected: Hash,
}

impl Session {
    fn new(now: Instant, jitter: u32) -> Self {
        Self {
            state: None,
            held: Ranges::new(),
            bare: Ranges::new(),
            getting: None,
            came: Ranges::new(),
            tried: Ranges::new(),
            doubtful: Ranges::new(),
            putting: Ranges::new(),
            puts: 0,
            skipped: Ranges::new(),
            writing: 0,
            renewing: false,
            challenge: None,
            due_since: Some(now),
            hand_over_at: Some(now + spread(HAND_OVER_DELAY, jitter)),
            challenge_at: now + spread(CHALLENGE_FIRST, jitter.rotate_left(16)),
            locked_since: None,
            refusals: 0,
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.state.is_none() || self.getting.is_some() || self.puts > 0 || self.renewing || self.challenge.is_some()
    }
}

/// Between one and two times `time`.
fn spread(time: Duration, jitter: u32) -> Duration {
    time + time.mul_f64(f64::from(jitter) / f64::from(u32::MAX))
}

fn add(to: &mut Ranges, log: LogKey, seqs: &IntervalSet) {
    to.entry(log).or_default().union(seqs);
}

fn without(seqs: IntervalSet, from: &Ranges, log: &LogKey) -> IntervalSet {
    match from.get(log) {
        Some(other) => seqs.minus(other),
        None => seqs,
    }
}

fn listed(ranges: Ranges) -> Vec<KeptRanges> {
    let all = ranges.into_iter().filter(|(_, seqs)| !seqs.is_empty());
    all.map(|(log, seqs)| KeptRanges { log, seqs }).take(LOGS_MAX).collect()
}

impl<S: Store> Peer<S> {
    pub(super) fn load_keepers(&mut self) -> Result<(), StoreError> {
        let from = [table::KEEPERS];
        for (key, value) in self
            .store
            .scan(&from, &after_prefix(&from), Direction::Ascending, usize::MAX)?
        {
            let no = key.get(1..5).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
            let device = key.get(5..37).and_then(|b| b.try_into().ok()).map(DeviceId);
            let (Some(no), Some(device)) = (no, device) else {
                return Err(StoreError::Damaged("keeper key"));
            };
            let keeping = Keeping {
                record: record::decode(&value, "keeper")?,
                dirty: false,
                owes: true,
                session: None,
            };
            self.keepers.insert((RoomNo(no), device), keeping);
        }
        let numbers: Vec<RoomNo> = self.rooms.keys().copied().collect();
        for no in numbers {
            self.learn_keepers(no)?;
        }
        Ok(())
    }

    /// Takes in which keepers a room has now.
    pub(super) fn learn_keepers(&mut self, no: RoomNo) -> Result<(), StoreError> {
        let Some(room) = self.rooms.get(&no) else { return Ok(()) };
        let places = room.roster.keepers.clone();
        let known: Vec<DeviceId> = self.keepers_of(no).map(|(device, _)| device).collect();
        for device in known {
            let stays = |place: &KeeperPlace| {
                place.device == device
                    && self
                        .keepers
                        .get(&(no, device))
                        .is_some_and(|k| k.record.vault == place.vault)
            };
            if !places.iter().any(stays) {
                self.keepers.remove(&(no, device));
                self.store.delete(&table::room_device(table::KEEPERS, no, &device))?;
                self.forget_delivery(no, device)?;
            }
        }
        for place in places {
            if place.device == self.ctx.device {
                continue;
            }
            if self
                .book
                .get(&place.device)
                .is_none_or(|dial| dial.record.addresses.is_empty())
            {
                let addresses = place.addresses.iter().map(|address| address.0).collect();
                self.note_addresses(place.device, addresses, place.relay.clone())?;
            }
            let keeping = self.keepers.entry((no, place.device)).or_insert_with(|| Keeping {
                record: KeeperRecord::new(place.vault),
                dirty: true,
                owes: true,
                session: None,
            });
            if keeping.session.is_none() && self.lines.contains_key(&place.device) {
                self.open_vault(no, place.device)?;
            }
        }
        Ok(())
    }

    fn keepers_of(&self, no: RoomNo) -> impl Iterator<Item = (DeviceId, &Keeping)> {
        let end = RoomNo(no.0 + 1);
        let from = (no, DeviceId([0; 32]))..(end, DeviceId([0; 32]));
        self.keepers
            .range(from)
            .map(|((_, device), keeping)| (*device, keeping))
    }

    fn rooms_kept_by(&self, device: DeviceId) -> Vec<RoomNo> {
        let of_it = self.keepers.keys().filter(|(_, keeper)| *keeper == device);
        of_it.map(|(no, _)| *no).collect()
    }

    /// Whether a device is known as a keeper alone, and belongs to nobody in any room.
    pub(super) fn is_only_keeper(&self, device: &DeviceId) -> bool {
        let keeps = self.keepers.keys().any(|(_, keeper)| keeper == device);
        keeps
            && !self
                .rooms
                .values()
                .any(|room| room.devices.contains_key(device) || room.sponsors.contains(device))
            && !self
                .joins
                .values()
                .any(|invite| invite.doorways.iter().any(|door| door.device == *device))
    }

    pub(super) fn is_keeper(&self, no: RoomNo, device: &DeviceId) -> bool {
        self.keepers.contains_key(&(no, *device))
    }

    /// Names a keeper and opens a vault there as soon as it is reached.
    pub(super) fn add_keeper(
        &mut self,
        id: RoomId,
        keeper: &KeeperAddress,
    ) -> Result<Result<Reply, CommandError>, StoreError> {
        let no = match self.allowed(id, Role::Admin) {
            Ok(no) => no,
            Err(error) => return Ok(Err(error)),
        };
        let Some(room) = self.rooms.get(&no) else {
            return Ok(Err(CommandError::NoRoom));
        };
        if keeper.device == self.ctx.device || room.devices.contains_key(&keeper.device) {
            return Ok(Err(CommandError::Already(
                "that node is a member of this room: it holds everything as it is",
            )));
        }
        let mut keepers = room.roster.keepers.clone();
        keepers.retain(|place| place.device != keeper.device);
        if keepers.len() >= KEEPERS_MAX {
            return Ok(Err(CommandError::Limit(
                "a room has at most 6 keepers; remove one first",
            )));
        }
        let mut vault = [0; 16];
        self.ctx.rng.fill_bytes(&mut vault);
        let vault = VaultId(vault);
        keepers.push(KeeperPlace {
            device: keeper.device,
            vault,
            addresses: keeper.addresses.iter().copied().take(KEEPER_ADDRESSES_MAX).collect(),
            relay: keeper.relay.clone(),
        });
        // Known here before the room's log names it: else a vault would be looked for that nobody has opened.
        self.keepers.remove(&(no, keeper.device));
        self.forget_delivery(no, keeper.device)?;
        let mut record = KeeperRecord::new(vault);
        record.ticket = Some(keeper.ticket);
        let bytes = record.to_bytes();
        self.store
            .put(&table::room_device(table::KEEPERS, no, &keeper.device), &bytes)?;
        let keeping = Keeping {
            record,
            dirty: false,
            owes: true,
            session: None,
        };
        self.keepers.insert((no, keeper.device), keeping);
        let addresses = keeper.addresses.iter().map(|address| address.0).collect();
        self.note_addresses(keeper.device, addresses, keeper.relay.clone())?;
        self.dial_soon(keeper.device);
        self.write_control(no, vec![Op::SetKeepers { keepers }], false)?;
        Ok(Ok(Reply::Done))
    }

    /// Takes a keeper away. What it has stays sealed, and goes when nobody calls for it.
    pub(super) fn remove_keeper(
        &mut self,
        id: RoomId,
        device: DeviceId,
    ) -> Result<Result<Reply, CommandError>, StoreError> {
        let no = match self.allowed(id, Role::Admin) {
            Ok(no) => no,
            Err(error) => return Ok(Err(error)),
        };
        let mut keepers = self
            .rooms
            .get(&no)
            .map(|room| room.roster.keepers.clone())
            .unwrap_or_default();
        let before = keepers.len();
        keepers.retain(|place| place.device != device);
        if keepers.len() == before {
            return Ok(Err(CommandError::Already("that is no keeper of this room")));
        }
        self.write_control(no, vec![Op::SetKeepers { keepers }], false)?;
        Ok(Ok(Reply::Done))
    }

    pub(super) fn keeper_line_up(&mut self, device: DeviceId) -> Result<(), StoreError> {
        self.sample_keeper(device, true);
        for no in self.rooms_kept_by(device) {
            self.open_vault(no, device)?;
        }
        Ok(())
    }

    pub(super) fn keeper_line_down(&mut self, device: DeviceId) {
        for ((_, keeper), keeping) in &mut self.keepers {
            if *keeper == device {
                keeping.session = None;
            }
        }
    }

    /// Counts whether a keeper was there.
    pub(super) fn sample_keeper(&mut self, device: DeviceId, answered: bool) {
        let wall_ms = self.ctx.wall_ms;
        for ((_, keeper), keeping) in &mut self.keepers {
            let record = &mut keeping.record;
            if *keeper == device && wall_ms >= record.sampled_ms.saturating_add(SAMPLE_EVERY_MS) {
                record.sampled_ms = wall_ms;
                record.uptime.note(answered);
                keeping.dirty = true;
            }
        }
    }

    /// Writes down what is known of keepers and changed.
    pub(super) fn save_keepers(&mut self) -> Result<(), StoreError> {
        for ((no, device), keeping) in &mut self.keepers {
            if std::mem::take(&mut keeping.dirty) {
                let key = table::room_device(table::KEEPERS, *no, device);
                self.store.put(&key, &keeping.record.to_bytes())?;
            }
        }
        Ok(())
    }

    fn open_vault(&mut self, no: RoomNo, device: DeviceId) -> Result<(), StoreError> {
        let synced = self.rooms.get(&no).is_some_and(Room::is_synced);
        let (jitter, now) = (self.ctx.rng.next_u32(), self.ctx.now);
        let Some(keeping) = self.keepers.get_mut(&(no, device)).filter(|_| synced) else {
            return Ok(());
        };
        keeping.session = Some(Session::new(now, jitter));
        let (vault, ticket) = (keeping.record.vault, keeping.record.ticket);
        let known = keeping.record.digest;
        let Some(ticket) = ticket else {
            self.ask_keeper(device, Ask::Open { vault, known });
            return Ok(());
        };
        let owner = access::owner_key(&self.secrets.device.0, &vault);
        let Some((write, readers)) = self.wanted_access(no, &vault, None) else {
            return Ok(());
        };
        let access = Access::issue(vault, 1, owner.public(), write, readers, &owner);
        self.ask_keeper(device, Ask::Redeem { ticket, access });
        Ok(())
    }

    fn ask_keeper(&mut self, device: DeviceId, ask: Ask) {
        self.send(device, &Frame::ToKeeper { ask });
    }

    /// The write key and the readers that a vault should have by what is known here. Where a new epoch is due and not made yet, the write key stays.
    fn wanted_access(
        &self,
        no: RoomNo,
        vault: &VaultId,
        now: Option<[u8; 32]>,
    ) -> Option<([u8; 32], Vec<access::ReaderTag>)> {
        let room = self.rooms.get(&no)?;
        let sending = room.epochs.sending_epoch(&room.roster, &room.graph, self.ctx.device);
        let sync = match sending {
            Sending::Use { epoch, .. } => room.epochs.keys(&epoch).map(|keys| keys.sync.clone()),
            Sending::NewEpoch => None,
        };
        let write = match (sync, now) {
            (Some(sync), _) => access::write_key(&sync, vault).public(),
            (None, Some(now)) => now,
            (None, None) => access::write_key(room.epochs.sync_secrets().next()?, vault).public(),
        };
        let mut readers: Vec<_> = room
            .roster
            .devices()
            .keys()
            .map(|device| access::reader_tag(vault, device))
            .collect();
        readers.sort_unstable();
        readers.dedup();
        readers.truncate(access::READERS_MAX);
        Some((write, readers))
    }

    /// The secret half of a vault's write key, where it is known here.
    fn key_of_vault(&self, no: RoomNo, vault: &VaultId, write: &[u8; 32]) -> Option<KeyPair> {
        let room = self.rooms.get(&no)?;
        let keys = room.epochs.sync_secrets().map(|sync| access::write_key(sync, vault));
        keys.into_iter().find(|key| key.public() == *write)
    }

    /// A keeper said something.
    pub(super) fn on_answer(&mut self, device: DeviceId, answer: Answer) -> Result<(), StoreError> {
        let vault = answer.vault();
        let of_vault = |((_, keeper), keeping): &(&(RoomNo, DeviceId), &Keeping)| {
            *keeper == device && keeping.record.vault == vault && keeping.session.is_some()
        };
        let Some(no) = self.keepers.iter().find(of_vault).map(|((no, _), _)| *no) else {
            return Ok(());
        };
        match answer {
            Answer::State { state } => self.on_state(no, device, state)?,
            Answer::Entries { runs, .. } => self.on_kept_entries(no, device, runs)?,
            Answer::Done { complete, .. } => self.on_kept_done(no, device, complete),
            Answer::Durable { ranges, .. } => self.on_durable(no, device, ranges, true)?,
            Answer::News { ranges, .. } => self.on_durable(no, device, ranges, false)?,
            Answer::Proof { log, seq, hash, .. } => self.on_proof(no, device, &log, seq, hash)?,
            Answer::Refused { why, .. } => self.on_keeper_refused(no, device, why)?,
        }
        self.tend_keeper(no, device)?;
        self.note_answered(no, device);
        Ok(())
    }

    fn note_answered(&mut self, no: RoomNo, device: DeviceId) {
        let (now, wall_ms) = (self.ctx.now, self.ctx.wall_ms);
        if let Some(keeping) = self.keepers.get_mut(&(no, device)) {
            keeping.record.seen_ms = wall_ms;
            if let Some(session) = &mut keeping.session {
                session.due_since = session.is_waiting().then_some(now);
            }
        }
    }

    fn on_state(&mut self, no: RoomNo, device: DeviceId, mut state: State) -> Result<(), StoreError> {
        let Some(keeping) = self.keepers.get_mut(&(no, device)) else {
            return Ok(());
        };
        let Some(session) = &mut keeping.session else {
            return Ok(());
        };
        let had_ticket = keeping.record.ticket.take().is_some();
        session.renewing = false;
        match state.held.take() {
            Some(held) => {
                session.held = held.iter().map(|h| (h.log, h.held.clone())).collect();
                session.bare = held.iter().map(|h| (h.log, h.bare.clone())).collect();
            }
            None if session.state.is_none() => {
                session.held = keeping.record.held.iter().map(|h| (h.log, h.held.clone())).collect();
                session.bare = keeping.record.held.iter().map(|h| (h.log, h.bare.clone())).collect();
            }
            None => {}
        }
        let (held, days) = (session.held.clone(), state.days);
        keeping.dirty |= had_ticket;
        session.state = Some(state);
        let doubtful = std::mem::take(&mut session.doubtful);
        let withheld: u64 = doubtful
            .iter()
            .map(|(log, seqs)| held.get(log).map_or(0, |held| both(held, seqs).len()))
            .sum();
        if withheld > 0 {
            let entries = u32::try_from(withheld).unwrap_or(u32::MAX);
            self.found_fault(no, device, Fault::Withheld { entries })?;
        }
        let lost = self.lost_since(no, device, &held, days)?;
        if lost > 0 {
            self.found_fault(no, device, Fault::Rollback { entries: lost })?;
        }
        self.remember_holdings(no, device);
        self.note_known(no, &held);
        self.note_kept(no, device)
    }

    /// How many entries a keeper no longer has although it said that they are on its disk, and they cannot have expired.
    fn lost_since(&self, no: RoomNo, device: DeviceId, held: &Ranges, days: u32) -> Result<u32, StoreError> {
        let (Some(keeping), Some(room)) = (self.keepers.get(&(no, device)), self.rooms.get(&no)) else {
            return Ok(0);
        };
        let mut lost = 0;
        for Holding { log, held: before, .. } in &keeping.record.held {
            let gone = without(before.clone(), held, log);
            let Some(state) = room.logs.get(log) else { continue };
            for (from, to) in both(&gone, &state.held).ranges() {
                for seq in *from..=*to {
                    if let Some(stored) = room.stored(&self.store, EntryKey { log: state.no, seq })?
                        && self.should_be_kept(&stored.entry, days)
                    {
                        lost += 1;
                    }
                }
            }
        }
        Ok(lost)
    }

    /// Whether a keeper that was given an entry when it was new still has to have it.
    fn should_be_kept(&self, entry: &Entry, days: u32) -> bool {
        let kept_ms = (u64::from(days) * 24 * 3600 * 1000).saturating_sub(EXPIRY_SLACK_MS);
        let clock: Clock = entry.header.clock;
        entry.header.class == Class::Control || clock.ms().saturating_add(kept_ms) > self.ctx.wall_ms
    }

    fn remember_holdings(&mut self, no: RoomNo, device: DeviceId) {
        let Some(keeping) = self.keepers.get_mut(&(no, device)) else {
            return;
        };
        let Some(session) = &keeping.session else { return };
        let holding = |(log, held): (&LogKey, &IntervalSet)| Holding {
            log: *log,
            held: held.clone(),
            bare: session.bare.get(log).cloned().unwrap_or_default(),
        };
        let held = session.held.iter().filter(|(_, held)| !held.is_empty());
        keeping.record.held = held.map(holding).take(LOGS_MAX).collect();
        keeping.record.digest = crate::keeper::vault::holdings_digest(&keeping.record.held);
        keeping.dirty = true;
    }

    /// Own entries that a keeper holds are held by one more. What it no longer holds, or lies about, is not.
    fn note_kept(&mut self, no: RoomNo, device: DeviceId) -> Result<(), StoreError> {
        let Some(keeping) = self.keepers.get(&(no, device)) else {
            return Ok(());
        };
        if keeping.record.fault.is_some_and(|fault| fault.is_lie()) {
            return self.forget_delivery(no, device);
        }
        let Some(room) = self.rooms.get_mut(&no) else {
            return Ok(());
        };
        let Some(own) = room.own.as_ref().map(|own| own.log) else {
            return Ok(());
        };
        let session = keeping.session.as_ref();
        let whole = session.and_then(|session| {
            let held = session.held.get(&own)?.clone();
            Some(without(held, &session.bare, &own))
        });
        let whole = whole.unwrap_or_default();
        let less = room
            .deliveries
            .get(&device)
            .is_some_and(|record| !record.reached.minus(&whole).is_empty());
        if less && let Some(record) = room.deliveries.get_mut(&device) {
            record.reached = both(&record.reached, &whole);
        }
        let has = [(own, whole)].into();
        self.note_reached(device, no, &has)
    }

    fn forget_delivery(&mut self, no: RoomNo, device: DeviceId) -> Result<(), StoreError> {
        let Some(room) = self.rooms.get_mut(&no) else {
            return Ok(());
        };
        if room.devices.contains_key(&device) {
            return Ok(());
        }
        room.deliveries.remove(&device);
        self.store.delete(&table::room_device(table::DELIVERIES, no, &device))
    }

    fn found_fault(&mut self, no: RoomNo, device: DeviceId, fault: Fault) -> Result<(), StoreError> {
        let Some(keeping) = self.keepers.get_mut(&(no, device)) else {
            return Ok(());
        };
        let worse = keeping.record.fault.is_none_or(|old| !old.is_lie() && old != fault);
        if !worse {
            return Ok(());
        }
        keeping.record.fault = Some(fault);
        keeping.dirty = true;
        let room = self.rooms.get(&no).map(|room| room.id);
        let name = super::dial::short(&device);
        self.ctx.notice(room, format!("The keeper {name} {}.", fault.words()));
        if let Some(room) = room {
            self.ctx.event(Event::Room { room });
        }
        self.note_kept(no, device)
    }

    fn on_kept_entries(&mut self, no: RoomNo, device: DeviceId, runs: Vec<KeptRun>) -> Result<(), StoreError> {
        for KeptRun { log, entries } in runs {
            let Some(session) = self.session(no, device).filter(|session| session.getting.is_some()) else {
                return Ok(());
            };
            for entry in &entries {
                add(
                    &mut session.came,
                    log,
                    &IntervalSet::range(entry.header.seq, entry.header.seq),
                );
            }
            self.take_run(device, no, log, entries)?;
        }
        self.settle(no)?;
        self.retry_limbo(no)?;
        self.settle(no)
    }

    fn on_kept_done(&mut self, no: RoomNo, device: DeviceId, complete: bool) {
        let Some(keeping) = self.keepers.get_mut(&(no, device)) else {
            return;
        };
        let Some(session) = &mut keeping.session else { return };
        let Some(asked) = session.getting.take() else { return };
        let came = std::mem::take(&mut session.came);
        for (log, seqs) in asked {
            let rest = without(seqs.clone(), &came, &log);
            add(
                &mut session.tried,
                log,
                &if complete { seqs } else { seqs.minus(&rest) },
            );
            if complete && !rest.is_empty() {
                add(&mut session.doubtful, log, &rest);
            }
        }
        if session.doubtful.is_empty() {
            return;
        }
        // They may just have expired: what it says once more, it has to mean.
        let (vault, known) = (keeping.record.vault, [0; 8]);
        self.ask_keeper(device, Ask::Open { vault, known });
    }

    fn on_durable(
        &mut self,
        no: RoomNo,
        device: DeviceId,
        ranges: Vec<KeptRanges>,
        is_own: bool,
    ) -> Result<(), StoreError> {
        let Some(session) = self.session(no, device) else {
            return Ok(());
        };
        if is_own {
            session.puts = session.puts.saturating_sub(1);
        }
        let mut known = Ranges::new();
        for KeptRanges { log, seqs } in ranges {
            if is_own {
                let given = session
                    .putting
                    .get(&log)
                    .map(|given| both(given, &seqs))
                    .unwrap_or_default();
                // What was given came with its payload where there is one here.
                if let Some(bare) = session.bare.get_mut(&log) {
                    *bare = bare.minus(&given);
                }
            }
            if let Some(putting) = session.putting.get_mut(&log) {
                *putting = putting.minus(&seqs);
            }
            if session.held.len() >= LOGS_MAX && !session.held.contains_key(&log) {
                continue;
            }
            let held = session.held.entry(log).or_default();
            held.union(&seqs);
            if held.ranges().len() > crate::peer::line::HAS_PIECES_MAX {
                return self.misbehaved(device, "a log in too many pieces");
            }
            known.insert(log, seqs);
        }
        if is_own && session.puts == 0 {
            // What was given and refused is not given again on this line.
            for (log, seqs) in std::mem::take(&mut session.putting) {
                add(&mut session.skipped, log, &seqs);
            }
        }
        self.note_known(no, &known);
        self.remember_holdings(no, device);
        self.note_kept(no, device)
    }

    fn on_proof(
        &mut self,
        no: RoomNo,
        device: DeviceId,
        log: &LogKey,
        seq: u32,
        hash: Option<Hash>,
    ) -> Result<(), StoreError> {
        let Some(session) = self.session(no, device) else {
            return Ok(());
        };
        let Some(challenge) = session.challenge.take_if(|c| c.log == *log && c.seq == seq) else {
            return Ok(());
        };
        if hash == Some(challenge.expected) {
            if let Some(keeping) = self.keepers.get_mut(&(no, device)) {
                keeping.record.proofs = keeping.record.proofs.saturating_add(1);
                keeping.dirty = true;
            }
            return Ok(());
        }
        self.found_fault(no, device, Fault::WrongProof {})
    }

    fn on_keeper_refused(&mut self, no: RoomNo, device: DeviceId, why: Refusal) -> Result<(), StoreError> {
        let Some(keeping) = self.keepers.get_mut(&(no, device)) else {
            return Ok(());
        };
        let (vault, had_state) = (
            keeping.record.vault,
            keeping.session.as_ref().is_some_and(|s| s.state.is_some()),
        );
        let Some(session) = &mut keeping.session else {
            return Ok(());
        };
        session.refusals += 1;
        let again = session.refusals < REFUSALS_MAX;
        match why {
            Refusal::Full {} => {
                self.found_fault(no, device, Fault::Full {})?;
            }
            Refusal::Entries {} => {}
            // Somebody else changed the access meanwhile: look again.
            Refusal::Access {} | Refusal::Writer {} if again && had_state => {
                session.renewing = false;
                session.writing = 0;
                session.puts = 0;
                session.putting.clear();
                self.ask_keeper(device, Ask::Open { vault, known: [0; 8] });
            }
            Refusal::Access {} | Refusal::Writer {} | Refusal::Closed {} | Refusal::Ticket {} => {
                keeping.session = None;
                // A device that was just let in is listed once a member who let it in reaches the keeper.
                if matches!(why, Refusal::Ticket {}) {
                    self.found_fault(no, device, Fault::Refuses {})?;
                }
            }
        }
        Ok(())
    }

    fn session(&mut self, no: RoomNo, device: DeviceId) -> Option<&mut Session> {
        self.keepers.get_mut(&(no, device))?.session.as_mut()
    }

    /// Something is new in a room: its keepers are to have it. Own entries at once, others' after a while.
    pub(super) fn keepers_due(&mut self, no: RoomNo) {
        if self.keepers_of(no).next().is_none() {
            return;
        }
        let jitter = self.ctx.rng.next_u32();
        let at = self.ctx.now + spread(HAND_OVER_DELAY, jitter);
        let now = self.ctx.now;
        for ((room, device), keeping) in self.keepers.iter_mut().filter(|((room, _), _)| *room == no) {
            self.plan_due |= !keeping.owes;
            keeping.owes = true;
            if let Some(session) = &mut keeping.session {
                session.hand_over_at.get_or_insert(at);
                self.tend.insert((*room, *device));
            } else if let Some(dial) = self.book.get_mut(device).filter(|dial| dial.failures == 0) {
                // A keeper that rests is woken; one that fails is still tried with patience.
                dial.next = now;
            }
        }
    }

    /// Whether a keeper of a room is there and says how its vault stands.
    pub(super) fn has_open_vault(&self, no: RoomNo) -> bool {
        let is_open = |session: &Session| session.state.is_some();
        self.keepers_of(no)
            .any(|(_, keeping)| keeping.session.as_ref().is_some_and(is_open))
    }

    pub(super) fn is_vault_open(&self, no: RoomNo, device: DeviceId) -> bool {
        let session = self
            .keepers
            .get(&(no, device))
            .and_then(|keeping| keeping.session.as_ref());
        session.is_some_and(|session| session.state.is_some())
    }

    /// Does what is due with keepers since the last input.
    pub(super) fn tend_keepers(&mut self) -> Result<(), StoreError> {
        for (no, device) in std::mem::take(&mut self.tend) {
            self.tend_keeper(no, device)?;
        }
        Ok(())
    }

    /// When something about keepers is due.
    pub(super) fn next_keeper_step(&self) -> Option<Instant> {
        let sessions = self.keepers.values().filter_map(|keeping| keeping.session.as_ref());
        let due = |session: &Session| {
            let answer = session.due_since.map(|since| since + ANSWER_TIMEOUT);
            let challenge = (session.challenge.is_none() && session.state.is_some()).then_some(session.challenge_at);
            let reset = session.locked_since.map(|since| since + RESET_AFTER);
            [answer, challenge, reset, session.hand_over_at]
                .into_iter()
                .flatten()
                .min()
        };
        sessions.filter_map(due).min()
    }

    pub(super) fn keepers_timeout(&mut self) -> Result<(), StoreError> {
        let now = self.ctx.now;
        let all: Vec<(RoomNo, DeviceId)> = self.keepers.keys().copied().collect();
        for (no, device) in all {
            let Some(session) = self.session(no, device) else {
                continue;
            };
            if session.due_since.is_some_and(|since| since + ANSWER_TIMEOUT <= now) {
                self.found_fault(no, device, Fault::Silent {})?;
                self.sample_keeper(device, false);
                let reason = "the keeper does not answer";
                self.ctx.out.push(Output::Close { peer: device, reason });
                self.drop_line(device);
                continue;
            }
            let reset_due = session.locked_since.is_some_and(|since| since + RESET_AFTER <= now);
            let hand_over_due = session.hand_over_at.is_some_and(|at| at <= now);
            let challenge_due = session.challenge_at <= now && session.challenge.is_none() && session.state.is_some();
            if challenge_due {
                self.challenge(no, device)?;
            }
            if hand_over_due || reset_due {
                self.tend_keeper(no, device)?;
                if let Some(session) = self.session(no, device) {
                    session.hand_over_at = session.hand_over_at.filter(|at| *at > now);
                    session.locked_since = session.locked_since.filter(|since| *since + RESET_AFTER > now);
                }
            }
        }
        Ok(())
    }

    /// The next step with one keeper: fetch, hand over, bring the access up to date.
    fn tend_keeper(&mut self, no: RoomNo, device: DeviceId) -> Result<(), StoreError> {
        let synced = self.rooms.get(&no).is_some_and(Room::is_synced);
        let is_ready =
            |session: &mut Session| session.state.is_some() && session.getting.is_none() && !session.renewing;
        if !synced || !self.session(no, device).is_some_and(is_ready) {
            return Ok(());
        }
        if self.fetch_kept(no, device) {
            return Ok(());
        }
        self.hand_over(no, device)?;
        if self.session(no, device).is_some_and(|session| session.puts == 0) {
            self.renew_access(no, device);
        }
        if let Some(session) = self.session(no, device)
            && session.is_waiting()
            && session.due_since.is_none()
        {
            let now = self.ctx.now;
            if let Some(session) = self.session(no, device) {
                session.due_since = Some(now);
            }
        }
        self.note_debt(no, device);
        Ok(())
    }

    /// Nothing is under way and nothing waits: the line may go.
    fn note_debt(&mut self, no: RoomNo, device: DeviceId) {
        let now = self.ctx.now;
        let Some(keeping) = self.keepers.get_mut(&(no, device)) else {
            return;
        };
        let is_done = |session: &Session| !session.is_waiting() && session.hand_over_at.is_none_or(|at| at <= now);
        if keeping.owes && keeping.session.as_ref().is_some_and(is_done) {
            keeping.owes = false;
            self.plan_due = true;
        }
    }

    /// Asks for what the keeper holds and this node lacks and has asked nobody for. True if something was asked for.
    fn fetch_kept(&mut self, no: RoomNo, device: DeviceId) -> bool {
        let (Some(room), Some(keeping)) = (self.rooms.get(&no), self.keepers.get(&(no, device))) else {
            return false;
        };
        let Some(session) = &keeping.session else { return false };
        let mut lacking = Ranges::new();
        for (log, held) in &session.held {
            let mut seqs = match room.logs.get(log) {
                Some(state) => held.minus(&state.held),
                None => held.clone(),
            };
            if let Some(last) = room.frozen_at(log) {
                seqs = seqs.up_to(last);
            }
            seqs = without(seqs, &session.tried, log);
            if seqs.is_empty() {
                continue;
            }
            for line in self.lines.values() {
                if let Some(shared) = line.rooms.get(&no) {
                    seqs = seqs.minus(&shared.was_asked(log));
                }
            }
            let others = self.keepers_of(no).filter(|(other, _)| *other != device);
            for (_, other) in others {
                if let Some(getting) = other.session.as_ref().and_then(|session| session.getting.as_ref()) {
                    seqs = without(seqs, getting, log);
                }
            }
            if !seqs.is_empty() {
                lacking.insert(*log, seqs);
            }
        }
        if lacking.is_empty() {
            return false;
        }
        let vault = keeping.record.vault;
        if let Some(session) = self.session(no, device) {
            session.getting = Some(lacking.clone());
        }
        let ranges = listed(lacking);
        self.ask_keeper(device, Ask::Get { vault, ranges });
        true
    }

    /// Gives the keeper what it lacks, as far as it may owe answers.
    fn hand_over(&mut self, no: RoomNo, device: DeviceId) -> Result<(), StoreError> {
        if !self.may_write(no, device) {
            return Ok(());
        }
        let now = self.ctx.now;
        let (Some(room), Some(session)) = (
            self.rooms.get(&no),
            self.keepers
                .get(&(no, device))
                .and_then(|keeping| keeping.session.as_ref()),
        ) else {
            return Ok(());
        };
        let own = room.own.as_ref().map(|own| own.log);
        let others_too = session.hand_over_at.is_none_or(|at| at <= now);
        let mut lacking: Vec<(LogKey, IntervalSet)> = Vec::new();
        for (log, state) in &room.logs {
            if Some(*log) != own && !others_too {
                continue;
            }
            let mut seqs = without(state.held.clone(), &session.held, log);
            if let Some(bare) = session.bare.get(log) {
                seqs.union(&both(bare, &state.held));
            }
            let seqs = without(without(seqs, &session.putting, log), &session.skipped, log);
            if !seqs.is_empty() {
                lacking.push((*log, seqs));
            }
        }
        for (log, seqs) in lacking {
            if !self.hand_over_log(no, device, log, &seqs)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Hands over parts of one log. False if the keeper owes enough answers for now.
    fn hand_over_log(
        &mut self,
        no: RoomNo,
        device: DeviceId,
        log: LogKey,
        seqs: &IntervalSet,
    ) -> Result<bool, StoreError> {
        for (from, to) in seqs.ranges() {
            let mut next = *from;
            while next <= *to {
                if self.session(no, device).is_none_or(|session| session.puts >= PUTS_MAX) {
                    return Ok(false);
                }
                let (run, after) = self.next_run(no, device, &log, next, *to)?;
                if !run.is_empty() {
                    self.put(no, device, log, run);
                }
                next = after;
            }
        }
        Ok(true)
    }

    /// The next entries worth keeping of `from..=to`, and where to go on.
    fn next_run(
        &mut self,
        no: RoomNo,
        device: DeviceId,
        log: &LogKey,
        from: u32,
        to: u32,
    ) -> Result<(Vec<Entry>, u32), StoreError> {
        let end = to.saturating_add(1);
        let (Some(room), Some(keeping)) = (self.rooms.get(&no), self.keepers.get(&(no, device))) else {
            return Ok((Vec::new(), end));
        };
        let (Some(state), Some(session)) = (room.logs.get(log), &keeping.session) else {
            return Ok((Vec::new(), end));
        };
        let days = session.state.as_ref().map_or(0, |state| state.days);
        let bare = session.bare.get(log).cloned().unwrap_or_default();
        let mut run: Vec<Stored> = Vec::new();
        let mut skipped = IntervalSet::default();
        let (mut bytes, mut next) = (0, from);
        for (seq, value) in self.store.entries(state.no, from, to, RUN_MAX)? {
            let stored: Stored = record::decode(&value, "entry")?;
            let useless = bare.contains(seq) && stored.entry.payload.is_none();
            if useless || !self.should_be_kept(&stored.entry, days) {
                skipped.insert(seq, seq);
                if !run.is_empty() {
                    next = seq;
                    break;
                }
            } else if run.last().is_some_and(|last| last.entry.header.seq + 1 != seq) {
                next = seq;
                break;
            } else {
                bytes += value.len();
                run.push(stored);
            }
            next = seq.saturating_add(1);
            if bytes > PUT_BYTES {
                break;
            }
        }
        while run.last().is_some_and(|last| !room.signature_holds(log, last)) {
            let seq = run.pop().map_or(0, |last| last.entry.header.seq);
            skipped.insert(seq, seq);
        }
        if next == from {
            next = end;
        }
        if let Some(session) = self.session(no, device) {
            add(&mut session.skipped, *log, &skipped);
        }
        Ok((run.into_iter().map(|stored| stored.entry).collect(), next))
    }

    fn put(&mut self, no: RoomNo, device: DeviceId, log: LogKey, entries: Vec<Entry>) {
        let Some(keeping) = self.keepers.get_mut(&(no, device)) else {
            return;
        };
        let Some(session) = &mut keeping.session else { return };
        for entry in &entries {
            add(
                &mut session.putting,
                log,
                &IntervalSet::range(entry.header.seq, entry.header.seq),
            );
        }
        session.puts += 1;
        let vault = keeping.record.vault;
        let runs = vec![KeptRun { log, entries }];
        self.ask_keeper(device, Ask::Put { vault, runs });
    }

    /// Whether the keeper takes entries from this device now; proves to it that it may where that has not been done.
    fn may_write(&mut self, no: RoomNo, device: DeviceId) -> bool {
        let now = self.ctx.now;
        let Some(keeping) = self.keepers.get(&(no, device)) else {
            return false;
        };
        let Some(session) = &keeping.session else { return false };
        let Some(state) = &session.state else { return false };
        if session.refusals >= REFUSALS_MAX {
            return false;
        }
        let (number, vault) = (state.number, state.vault);
        if session.writing == number {
            return true;
        }
        let Some(exporter) = self.lines.get(&device).map(|line| line.exporter.clone()) else {
            return false;
        };
        let Some(key) = self.key_of_vault(no, &vault, &state.write) else {
            if let Some(session) = self.session(no, device) {
                session.locked_since.get_or_insert(now);
            }
            return false;
        };
        let proof = access::prove_writer(&key, &exporter.0, &vault, number);
        if let Some(session) = self.session(no, device) {
            session.writing = number;
            session.locked_since = None;
        }
        self.ask_keeper(device, Ask::Write { vault, proof });
        true
    }

    /// States the next access where the one that holds is not what is known here.
    fn renew_access(&mut self, no: RoomNo, device: DeviceId) {
        let now = self.ctx.now;
        let Some(keeping) = self.keepers.get(&(no, device)) else {
            return;
        };
        let Some(session) = &keeping.session else { return };
        let Some(state) = session.state.clone().filter(|_| session.refusals < REFUSALS_MAX) else {
            return;
        };
        let member = self.rooms.get(&no).is_some_and(Room::is_member);
        let wanted = self
            .wanted_access(no, &state.vault, Some(state.write))
            .filter(|_| member);
        let Some((write, readers)) = wanted else { return };
        if access::fingerprint(&write, &readers) == state.fingerprint {
            return;
        }
        let owner = access::owner_key(&self.secrets.device.0, &state.vault);
        let locked = session.locked_since.is_some_and(|since| since + RESET_AFTER <= now);
        let by = match self.key_of_vault(no, &state.vault, &state.write) {
            Some(key) => key,
            // A member turned the vault against the room, or keys are lost: its owner takes it back.
            None if locked && owner.public() == state.owner => owner,
            None => return,
        };
        let number = state.number.saturating_add(1);
        let access = Access::issue(state.vault, number, state.owner, write, readers, &by);
        if let Some(session) = self.session(no, device) {
            session.renewing = true;
            session.writing = 0;
        }
        self.ask_keeper(device, Ask::Renew { access });
    }

    /// Asks the keeper to prove that it holds an entry which is held here, too.
    fn challenge(&mut self, no: RoomNo, device: DeviceId) -> Result<(), StoreError> {
        let jitter = self.ctx.rng.next_u32();
        let now = self.ctx.now;
        let mut key = [0; 32];
        self.ctx.rng.fill_bytes(&mut key);
        if let Some(session) = self.session(no, device) {
            session.challenge_at = now + spread(CHALLENGE_EVERY, jitter);
        }
        for _ in 0..CHALLENGE_TRIES {
            let dice = self.ctx.rng.next_u64();
            let Some((log, seq, expected)) = self.pick_challenge(no, device, dice, &key)? else {
                continue;
            };
            let Some(keeping) = self.keepers.get_mut(&(no, device)) else {
                return Ok(());
            };
            let vault = keeping.record.vault;
            if let Some(session) = &mut keeping.session {
                session.challenge = Some(Challenge { log, seq, expected });
                session.due_since.get_or_insert(now);
            }
            self.ask_keeper(device, Ask::Challenge { vault, log, seq, key });
            return Ok(());
        }
        Ok(())
    }

    /// An entry at random among those that both hold, with the proof that is expected.
    fn pick_challenge(
        &self,
        no: RoomNo,
        device: DeviceId,
        dice: u64,
        key: &[u8; 32],
    ) -> Result<Option<(LogKey, u32, Hash)>, StoreError> {
        let (Some(room), Some(keeping)) = (self.rooms.get(&no), self.keepers.get(&(no, device))) else {
            return Ok(None);
        };
        let Some(session) = &keeping.session else {
            return Ok(None);
        };
        let common = session.held.iter().filter_map(|(log, held)| {
            let state = room.logs.get(log)?;
            let whole = without(both(held, &state.held), &session.bare, log);
            (!whole.is_empty()).then_some((*log, state.no, whole))
        });
        let common: Vec<_> = common.collect();
        let total: u64 = common.iter().map(|(_, _, seqs)| seqs.len()).sum();
        let Some(mut at) = dice.checked_rem(total) else {
            return Ok(None);
        };
        for (log, log_no, seqs) in common {
            for (from, to) in seqs.ranges() {
                let len = u64::from(to - from) + 1;
                if at >= len {
                    at -= len;
                    continue;
                }
                let seq = from + u32::try_from(at).unwrap_or(0);
                let stored = room.stored(&self.store, EntryKey { log: log_no, seq })?;
                let days = session.state.as_ref().map_or(0, |state| state.days);
                let fits = |stored: &Stored| stored.entry.payload.is_some() && self.should_be_kept(&stored.entry, days);
                return Ok(stored.filter(fits).map(|stored| {
                    let entry = stored.entry;
                    (
                        log,
                        seq,
                        audit::proof(key, &log, &entry.header, entry.payload.as_deref()),
                    )
                }));
            }
        }
        Ok(None)
    }

    /// The keepers of a room.
    pub fn keepers(&self, room: RoomId) -> Option<Vec<KeeperView>> {
        let no = *self.by_id.get(&room)?;
        let room = self.rooms.get(&no)?;
        let view = |place: &KeeperPlace| {
            let keeping = self.keepers.get(&(no, place.device));
            let record = keeping.map(|keeping| &keeping.record);
            let session = keeping.and_then(|keeping| keeping.session.as_ref());
            let state = session.and_then(|session| session.state.as_ref());
            let held: Ranges = record
                .map(|record| record.held.iter().map(|h| (h.log, h.held.clone())).collect())
                .unwrap_or_default();
            let lacking = room
                .logs
                .iter()
                .map(|(log, state)| without(state.held.clone(), &held, log).len());
            KeeperView {
                device: place.device,
                up: self.lines.contains_key(&place.device),
                pending: record.is_some_and(|record| record.ticket.is_some()),
                holds: held.values().map(IntervalSet::len).sum(),
                lacks: lacking.sum(),
                bytes: state.map(|state| state.bytes),
                bytes_max: state.map(|state| state.bytes_max),
                days: state.map(|state| state.days),
                seen_ms: record.map(|record| record.seen_ms).filter(|ms| *ms > 0),
                uptime_permille: record.and_then(|record| record.uptime.permille()),
                proofs: record.map_or(0, |record| record.proofs),
                fault: record.and_then(|record| record.fault),
                addresses: self
                    .book
                    .get(&place.device)
                    .map(|dial| dial.record.addresses.iter().map(|address| address.0).collect())
                    .unwrap_or_default(),
            }
        };
        Some(room.roster.keepers.iter().map(view).collect())
    }

    /// Which devices, members' or keepers', have said that an own entry is durable there.
    pub(super) fn holders(room: &Room, seq: u32) -> Vec<DeviceId> {
        let holds = |(_, record): &(&DeviceId, &DeliveryRecord)| record.reached.contains(seq);
        room.deliveries
            .iter()
            .filter(holds)
            .map(|(device, _)| *device)
            .collect()
    }

    /// How many own entries of a room are not held by two others yet.
    pub(super) fn exposed(&self, room: &Room) -> u64 {
        let Some(own) = room.own.as_ref().and_then(|own| room.logs.get(&own.log)) else {
            return 0;
        };
        let (mut once, mut twice) = (IntervalSet::default(), IntervalSet::default());
        for record in room.deliveries.values() {
            twice.union(&both(&once, &record.reached));
            once.union(&record.reached);
        }
        own.held.minus(&twice).len()
    }
}
