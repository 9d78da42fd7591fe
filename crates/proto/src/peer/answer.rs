//! Answering what peers ask for: by urgency, a frame at a time, and never more under way than a line's bound.
//!
//! Wants wait in a list on their line ([`Waiting`]). While less than [`super::line::IN_FLIGHT_BYTES_MAX`] of entries are under way, the next frame is made of the most urgent of
//! them: control entries, the newest page, the rest; of equals, the oldest. What the peer has said meanwhile that it holds is left out. The peer says by `Taken` how much it has stored. So neither a slow peer nor a greedy one makes
//! this node read ahead, and what is new never waits behind much.

use std::collections::{BTreeMap, VecDeque};

use crate::history::IntervalSet;
use crate::history::entry::{Class, LogKey};
use crate::identity::DeviceId;
use crate::peer::line::{HAS_PIECES_MAX, Line, PAGE, TAKEN_BYTES, Waiting, WantKind};
use crate::peer::record::{self, Stored};
use crate::peer::{Peer, table};
use crate::store::{Direction, LogNo, RoomNo, Store, StoreError, after_prefix};
use crate::sync::frame::{AnswerEnd, Ends, Frame, LogRanges, Run, Runs};

/// A frame of entries is closed when it gets this large.
const ENTRIES_FRAME_BYTES: usize = 64 * 1024;
/// An answer to one want stops at this many bytes; the asker asks again.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
impl<S: Store> Peer<S> {
    pub(super) fn on_want(
        &mut self,
        peer: DeviceId,
        no: RoomNo,
        want: u32,
        control_only: bool,
        ranges: Vec<LogRanges>,
    ) -> Result<(), StoreError> {
        let Some(shared) = self.shared(peer, no) else {
            return Ok(());
        };
        let mut wanted = BTreeMap::new();
        for LogRanges { log, seqs } in ranges {
            let Some(log) = shared.resolve(log) else { continue };
            // What it asks for it lacks, whatever it was sent before.
            if let Some(has) = shared.has.as_mut().and_then(|has| has.get_mut(&log)) {
                *has = has.minus(&seqs);
                if has.ranges().len() > HAS_PIECES_MAX {
                    return self.misbehaved(peer, "a log in too many pieces");
                }
            }
            wanted.insert(log, seqs);
        }
        let kind = match control_only {
            true => WantKind::Control,
            false => WantKind::Entries,
        };
        self.serve(peer, no, want, wanted, kind)
    }

    pub(super) fn on_want_all(&mut self, peer: DeviceId, no: RoomNo, want: u32) -> Result<(), StoreError> {
        let Some(shared) = self.shared(peer, no) else {
            return Ok(());
        };
        let Some(has) = shared.has.clone() else {
            shared.all_wanted = Some(want);
            return Ok(());
        };
        let Some(room) = self.rooms.get(&no) else { return Ok(()) };
        let mut wanted = BTreeMap::new();
        for (log, state) in &room.logs {
            let lacking = has
                .get(log)
                .map_or_else(|| state.held.clone(), |seqs| state.held.minus(seqs));
            if !lacking.is_empty() {
                wanted.insert(*log, lacking);
            }
        }
        self.serve(peer, no, want, wanted, WantKind::All)
    }

    pub(super) fn on_want_page(&mut self, peer: DeviceId, no: RoomNo, want: u32, count: u32) -> Result<(), StoreError> {
        let Some(room) = self.rooms.get(&no) else { return Ok(()) };
        let prefix = table::key(table::ORDER, &[&no.0.to_be_bytes()]);
        let limit = count.min(4 * PAGE) as usize;
        let page = self
            .store
            .scan(&prefix, &after_prefix(&prefix), Direction::Descending, limit)?;
        let mut wanted: BTreeMap<LogKey, IntervalSet> = BTreeMap::new();
        for (key, _) in page {
            if let Some((_, log, seq)) = table::order_parts(&key)
                && let Some(log) = room.by_prefix.get(&log)
            {
                wanted.entry(*log).or_default().insert(seq, seq);
            }
        }
        self.serve(peer, no, want, wanted, WantKind::Page)
    }

    /// Lines up the answer to a want: what is held of `wanted`, control entries first, then logs in order.
    fn serve(
        &mut self,
        peer: DeviceId,
        no: RoomNo,
        want: u32,
        wanted: BTreeMap<LogKey, IntervalSet>,
        kind: WantKind,
    ) -> Result<(), StoreError> {
        let Some(room) = self.rooms.get(&no) else { return Ok(()) };
        let mut control = VecDeque::new();
        let mut ranges = BTreeMap::new();
        for (log, seqs) in wanted {
            let Some(state) = room.logs.get(&log) else { continue };
            let held = state.held.minus(&state.held.minus(&seqs));
            control.extend(
                self.control_seqs(no, state.no, &held)?
                    .into_iter()
                    .map(|seq| (log, seq)),
            );
            ranges.insert(log, held);
        }
        if kind == WantKind::Control {
            ranges.clear();
        }
        let sent = 0;
        let waiting = Waiting {
            no,
            want,
            kind,
            control,
            ranges,
            sent,
        };
        if let Some(line) = self.lines.get_mut(&peer) {
            line.put_off(waiting);
        }
        self.send_answers(peer)
    }

    /// Sends of what the peer waits for as much as may be under way.
    fn send_answers(&mut self, peer: DeviceId) -> Result<(), StoreError> {
        while let Some(mut waiting) = self.lines.get_mut(&peer).and_then(Line::next_waiting) {
            if !self.may_serve(peer, waiting.no) {
                continue;
            }
            let runs = self.next_runs(peer, &mut waiting)?;
            let (no, want) = (waiting.no, waiting.want);
            let complete = waiting.control.is_empty() && waiting.ranges.is_empty();
            let ends = complete || waiting.sent > ANSWER_BYTES_MAX;
            let ends = Ends(ends.then_some(AnswerEnd { want, complete }));
            if ends.0.is_none()
                && let Some(line) = self.lines.get_mut(&peer)
            {
                line.waiting.insert(0, waiting);
            }
            if let Some(name) = self.shared(peer, no).map(|shared| shared.name) {
                let runs = Runs(runs);
                self.send(peer, &Frame::Entries { name, ends, runs });
            }
        }
        Ok(())
    }

    /// The peer took in so much.
    pub(super) fn on_taken(&mut self, peer: DeviceId, bytes: u32) -> Result<(), StoreError> {
        if let Some(line) = self.lines.get_mut(&peer) {
            line.in_flight = line.in_flight.saturating_sub(bytes as usize);
        }
        self.send_answers(peer)
    }

    /// Tells the peer how much of what it sent was taken in, now and then.
    pub(super) fn note_taken(&mut self, peer: DeviceId, bytes: usize) {
        let Some(line) = self.lines.get_mut(&peer) else { return };
        line.taken = line.taken.saturating_add(bytes);
        if line.taken >= TAKEN_BYTES {
            let bytes = u32::try_from(std::mem::take(&mut line.taken)).unwrap_or(u32::MAX);
            self.send(peer, &Frame::Taken { bytes });
        }
    }

    /// The next frame's worth of an answer.
    fn next_runs(&mut self, peer: DeviceId, waiting: &mut Waiting) -> Result<Vec<Run>, StoreError> {
        let no = waiting.no;
        let mut answer = Answer::default();
        while answer.bytes < ENTRIES_FRAME_BYTES
            && let Some((log, seq)) = waiting.control.pop_front()
        {
            let has = self.shared(peer, no).and_then(|shared| shared.has.as_ref()?.get(&log));
            if has.is_some_and(|has| has.contains(seq)) {
                continue;
            }
            self.add_range(peer, no, &log, (seq, seq), Class::Control, &mut answer)?;
        }
        while answer.bytes < ENTRIES_FRAME_BYTES
            && let Some(mut first) = waiting.ranges.first_entry()
        {
            let log = *first.key();
            if let Some(has) = self.shared(peer, no).and_then(|shared| shared.has.as_ref()?.get(&log)) {
                *first.get_mut() = first.get().minus(has);
            }
            let Some((from, to)) = first.get().ranges().first().copied() else {
                first.remove();
                continue;
            };
            let end = self.add_range(peer, no, &log, (from, to), Class::Message, &mut answer)?;
            if let Some(rest) = waiting.ranges.get_mut(&log) {
                rest.remove(from, end);
            }
        }
        waiting.sent += answer.bytes;
        Ok(answer.runs)
    }

    fn control_seqs(&self, no: RoomNo, log: LogNo, within: &IntervalSet) -> Result<Vec<u32>, StoreError> {
        let prefix = table::key(table::CONTROL, &[&no.0.to_be_bytes(), &log.0.to_be_bytes()]);
        let records = self
            .store
            .scan(&prefix, &after_prefix(&prefix), Direction::Ascending, usize::MAX)?;
        let seq_of = |key: &[u8]| key.get(9..13).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
        Ok(records
            .iter()
            .filter_map(|(key, _)| seq_of(key))
            .filter(|seq| within.contains(*seq))
            .collect())
    }

    /// Adds of one range what the frame has room for, and returns where it stopped. Control entries that stand between messages are left out: they were
    /// sent before.
    fn add_range(
        &mut self,
        peer: DeviceId,
        no: RoomNo,
        log: &LogKey,
        (from, to): (u32, u32),
        class: Class,
        answer: &mut Answer,
    ) -> Result<u32, StoreError> {
        let Some(log_no) = self.rooms.get(&no).and_then(|room| Some(room.logs.get(log)?.no)) else {
            return Ok(to);
        };
        let mut run: Vec<Stored> = Vec::new();
        let mut next = from;
        while next <= to {
            let batch = self.store.entries(log_no, next, to, 256)?;
            let Some((last, _)) = batch.last() else { break };
            let Some(after) = last.checked_add(1) else { break };
            for (seq, bytes) in batch {
                if answer.bytes >= ENTRIES_FRAME_BYTES {
                    self.add_run(peer, no, log, run, answer);
                    return Ok(seq.saturating_sub(1));
                }
                let stored: Stored = record::decode(&bytes, "entry")?;
                let consecutive = run.last().is_none_or(|before| before.entry.header.seq + 1 == seq);
                let wrong_class = stored.entry.header.class != class;
                if !consecutive || wrong_class {
                    self.add_run(peer, no, log, std::mem::take(&mut run), answer);
                }
                if !wrong_class {
                    answer.bytes += bytes.len();
                    run.push(stored);
                }
            }
            next = after;
        }
        self.add_run(peer, no, log, run, answer);
        Ok(to)
    }

    /// Closes a run. It ends at an entry whose own signature holds.
    fn add_run(&mut self, peer: DeviceId, no: RoomNo, log: &LogKey, mut run: Vec<Stored>, answer: &mut Answer) {
        let Some(room) = self.rooms.get(&no) else { return };
        while run.last().is_some_and(|stored| !room.signature_holds(log, stored)) {
            run.pop();
        }
        if run.is_empty() {
            return;
        }
        let Some(shared) = self.shared(peer, no) else { return };
        let seqs = IntervalSet::range(run[0].entry.header.seq, run[run.len() - 1].entry.header.seq);
        shared.note_has(log, &seqs);
        let log = shared.log_name(log);
        let entries = run.into_iter().map(|stored| stored.entry).collect();
        answer.runs.push(Run { log, entries });
    }
}

/// A frame of an answer, in progress.
#[derive(Debug, Default)]
struct Answer {
    runs: Vec<Run>,
    /// About as many bytes as the frame has.
    bytes: usize,
}
