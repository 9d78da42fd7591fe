//! A member's side of keepers: what is held where, handing over, fetching, and finding out who lies.
//!
//! For each keeper of each room, while its line is up: ask how the vault stands; fetch what it holds and this node lacks; hand over what it lacks, own entries at
//! once and others' after a pause with jitter (their authors are likely to do it themselves); then bring the access up to date, if this member's view of the room is at
//! least what the keeper holds. In that order, because whoever comes back after a change of keys finds the new keys in entries that the vault
//! must have first. What a keeper says it holds is remembered and tested, see [`crate::keeper::audit`].

mod answer;
mod doubt;
mod fetch;
mod give;
mod session;
mod set;
mod view;
mod writing;

use std::time::Duration;
use std::time::Instant;

use rand_core::Rng as _;

use crate::identity::DeviceId;
use crate::keeper::Ask;
use crate::keeper::access;
use crate::keeper::access::Access;
use crate::keeper::audit::Fault;
use crate::peer::Output;
use crate::peer::Peer;
use crate::peer::record;
use crate::peer::record::KeeperRecord;
use crate::peer::room::Room;
use crate::peer::table;
use crate::store::Direction;
use crate::store::RoomNo;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::after_prefix;
use crate::sync::Frame;
use crate::wire::Wire;

pub(super) use session::Session;
use session::spread;

/// Others' entries are handed over after this long at least, and up to twice as long.
const HAND_OVER_DELAY: Duration = Duration::from_secs(3);
/// How long a keeper may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The owner of a vault takes it back when its write key stays unknown for this long.
const RESET_AFTER: Duration = Duration::from_secs(30);
/// Tries of a keeper are counted towards its uptime at most this often.
const SAMPLE_EVERY_MS: u64 = 10 * 60 * 1000;
/// Refusals on one line after which nothing more is tried on it.
const REFUSALS_MAX: u32 = 8;

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
}
