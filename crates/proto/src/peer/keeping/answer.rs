//! What a keeper says: how its vault stands, and what it refuses; and what follows for "safe to go offline".

use crate::history::IntervalSet;
use crate::history::entry::LogKey;
use crate::identity::DeviceId;
use crate::keeper::Answer;
use crate::keeper::Ask;
use crate::keeper::Refusal;
use crate::keeper::audit::Fault;
use crate::keeper::frame::Holding;
use crate::keeper::frame::LOGS_MAX;
use crate::keeper::frame::State;
use crate::keeper::vault::both;
use crate::peer::Peer;
use crate::peer::keeping::Keeping;
use crate::peer::keeping::REFUSALS_MAX;
use crate::peer::keeping::session::without;
use crate::peer::table;
use crate::store::RoomNo;
use crate::store::Store;
use crate::store::StoreError;

impl<S: Store> Peer<S> {
    /// A keeper said something.
    pub(in crate::peer) fn on_answer(&mut self, device: DeviceId, answer: Answer) -> Result<(), StoreError> {
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

    pub(super) fn remember_holdings(&mut self, no: RoomNo, device: DeviceId) {
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
    pub(super) fn note_kept(&mut self, no: RoomNo, device: DeviceId) -> Result<(), StoreError> {
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

    pub(super) fn forget_delivery(&mut self, no: RoomNo, device: DeviceId) -> Result<(), StoreError> {
        let Some(room) = self.rooms.get_mut(&no) else {
            return Ok(());
        };
        if room.devices.contains_key(&device) {
            return Ok(());
        }
        room.deliveries.remove(&device);
        self.store.delete(&table::room_device(table::DELIVERIES, no, &device))
    }
}
