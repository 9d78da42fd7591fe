//! Handing over to a keeper what it lacks.

use crate::history::IntervalSet;
use crate::history::entry::Entry;
use crate::history::entry::LogKey;
use crate::identity::DeviceId;
use crate::keeper::Ask;
use crate::keeper::frame::KeptRanges;
use crate::keeper::frame::KeptRun;
use crate::keeper::frame::LOGS_MAX;
use crate::keeper::frame::RUN_MAX;
use crate::keeper::vault::both;
use crate::peer::Peer;
use crate::peer::keeping::session::Ranges;
use crate::peer::keeping::session::add;
use crate::peer::keeping::session::without;
use crate::peer::record;
use crate::peer::record::Stored;
use crate::store::RoomNo;
use crate::store::Store;
use crate::store::StoreError;

/// A frame of entries for a keeper is closed when it gets this large, in bytes.
const PUT_BYTES: usize = 128 * 1024;
/// Puts that a keeper may owe answers to.
const PUTS_MAX: usize = 8;

impl<S: Store> Peer<S> {
    /// Gives the keeper what it lacks, as far as it may owe answers.
    pub(super) fn hand_over(&mut self, no: RoomNo, device: DeviceId) -> Result<(), StoreError> {
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

    pub(super) fn put(&mut self, no: RoomNo, device: DeviceId, log: LogKey, entries: Vec<Entry>) {
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

    pub(super) fn on_durable(
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
}
