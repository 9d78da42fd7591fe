//! What is asked of whom.
//!
//! A peer that holds what is lacking here is asked for it, the newest first, and nobody else is for as long as it answers. Who brings nothing for a while is *overdue*: others are
//! asked in its stead. Who brings something, but slowly, is a *straggler*, and others help: whoever has nothing to bring takes over a part of what the straggler still owes, from
//! the end that it will come to last (as the last pieces are asked of several in BitTorrent: Cohen 2003, "end game"; and backup tasks in MapReduce: Dean and Ghemawat 2004). What came from one is said to hold
//! it, and the other leaves it out of its answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::history::IntervalSet;
use crate::history::entry::LogKey;
use crate::identity::DeviceId;
use crate::peer::Peer;
use crate::peer::line::{Asked, PAGE, PER, RoomLine, WANT_ALL_MAX, WANT_ENTRIES_MAX, WANT_NEWEST};
use crate::store::{RoomNo, Store};
use crate::sync::frame::Frame;

/// Who owes answers for so long and will need as long again is a straggler.
pub(super) const STRAGGLING: Duration = Duration::from_secs(1);
/// Who helps is so many times as fast.
const FASTER: u64 = 2;
/// Entries that are not worth parting.
const PART_MIN: u64 = 64;

impl<S: Store> Peer<S> {
    /// Somebody looks at a room: its newest page comes before all else but membership and keys, from one peer that has more of it than this node.
    pub(super) fn ask_for_screen(&mut self, no: RoomNo) {
        let peers: Vec<DeviceId> = self.lines.keys().copied().collect();
        for peer in peers {
            if self.ask_page(peer, no) {
                return;
            }
        }
    }

    /// Asks for the newest page of the room on somebody's screen, once on each line. True if it is asked for.
    fn ask_page(&mut self, peer: DeviceId, no: RoomNo) -> bool {
        let (Some(room), Some(line)) = (self.rooms.get(&no), self.lines.get_mut(&peer)) else {
            return false;
        };
        let Some(shared) = line.rooms.get_mut(&no) else {
            return false;
        };
        if shared.page_asked || shared.let_down || !shared.has_more(&room.held()) {
            return false;
        }
        shared.page_asked = true;
        let (name, want, count) = (shared.name, shared.next_want, PAGE);
        self.ask(peer, no, BTreeMap::new(), true);
        self.send(peer, &Frame::WantPage { name, want, count });
        true
    }

    /// Asks a peer for what it holds and this node lacks, unless another was asked for it.
    pub(super) fn plan_wants(&mut self, peer: DeviceId, no: RoomNo) {
        if self.opened_room == Some(no) && !self.asked_elsewhere(peer, no) {
            self.ask_page(peer, no);
        }
        loop {
            let mut missing = self.missing_at(peer, no);
            let all = missing.clone();
            self.leave_out_spent(no, &mut missing);
            let some_spent = missing.len() < all.len();
            let Some(shared) = self.shared(peer, no) else { return };
            let control_first = some_spent && !shared.control_asked;
            let knows_what_lacks = shared.left_for_later.is_none();
            if control_first {
                missing = all;
            }
            if missing.is_empty() {
                return self.take_over(peer, no);
            }
            if !shared.may_ask() {
                return;
            }
            let total = total(&missing);
            let (name, want) = (shared.name, shared.next_want);
            // What a page brings is left out of everything.
            let first = shared.asked.iter().all(|asked| asked.partial);
            let is_all = total <= WANT_ALL_MAX && first && !some_spent && knows_what_lacks;
            let frame = if is_all && !self.asked_elsewhere(peer, no) {
                self.ask(peer, no, missing, false);
                Frame::WantAll { name, want }
            } else {
                let Some(shared) = self.shared(peer, no) else { return };
                if control_first || total > WANT_ALL_MAX && !shared.control_asked {
                    shared.control_asked = true;
                    let ranges = shared.name_ranges(missing);
                    self.ask(peer, no, BTreeMap::new(), true);
                    let control_only = true;
                    Frame::Want {
                        name,
                        want,
                        control_only,
                        ranges,
                    }
                } else if total > WANT_ALL_MAX && !shared.page_asked {
                    shared.page_asked = true;
                    self.ask(peer, no, BTreeMap::new(), true);
                    let count = PAGE;
                    Frame::WantPage { name, want, count }
                } else {
                    let picked = pick_newest(&missing);
                    let ranges = shared.name_ranges(picked.clone());
                    self.ask(peer, no, picked, false);
                    let control_only = false;
                    Frame::Want {
                        name,
                        want,
                        control_only,
                        ranges,
                    }
                }
            };
            self.send(peer, &frame);
        }
    }

    fn ask(&mut self, peer: DeviceId, no: RoomNo, ranges: BTreeMap<LogKey, IntervalSet>, partial: bool) {
        let now = self.ctx.now;
        let Some(line) = self.lines.get_mut(&peer) else { return };
        let Some(shared) = line.rooms.get_mut(&no) else { return };
        let asked = Asked {
            want: shared.next_want,
            ranges,
            partial,
            at: now,
            overdue: false,
        };
        shared.next_want = shared.next_want.wrapping_add(1);
        let look = asked.due(line.last_news).min(now + STRAGGLING);
        if !shared.is_answering() {
            shared.pace.begin(now);
        }
        shared.asked.push_back(asked);
        self.wants_at = Some(self.wants_at.map_or(look, |at| at.min(look)));
    }

    /// Asks others for what somebody was asked for and has not brought in time. Nobody can tell who withholds from who is slow: nothing else follows.
    pub(super) fn ask_in_stead(&mut self) {
        let now = self.ctx.now;
        self.wants_at = None;
        let (mut late, mut owed) = (BTreeSet::new(), BTreeSet::new());
        for line in self.lines.values_mut() {
            for (no, shared) in &mut line.rooms {
                for asked in shared.asked.iter_mut().filter(|asked| !asked.overdue) {
                    let due = asked.due(line.last_news);
                    if due > now {
                        let look = due.min(shared.pace.next_look(now));
                        self.wants_at = Some(self.wants_at.map_or(look, |at| at.min(look)));
                        owed.insert(*no);
                        continue;
                    }
                    asked.overdue = true;
                    shared.let_down = true;
                    late.insert(*no);
                }
            }
        }
        let peers: Vec<DeviceId> = self.lines.keys().copied().collect();
        for peer in &peers {
            for no in &late {
                self.plan_wants(*peer, *no);
            }
            for no in &owed {
                self.take_over(*peer, *no);
            }
        }
    }

    /// Has a peer that owes nothing bring what a straggler would bring last.
    fn take_over(&mut self, peer: DeviceId, no: RoomNo) {
        let Some(mut part) = self.part_for(peer, no) else {
            return;
        };
        self.leave_out_spent(no, &mut part);
        let Some(shared) = self.shared(peer, no).filter(|_| !part.is_empty()) else {
            return;
        };
        let (name, want) = (shared.name, shared.next_want);
        let ranges = shared.name_ranges(part.clone());
        self.ask(peer, no, part, false);
        let control_only = false;
        self.send(
            peer,
            &Frame::Want {
                name,
                want,
                control_only,
                ranges,
            },
        );
    }

    /// What a peer that owes nothing may take over from the straggler with the most of it.
    fn part_for(&self, peer: DeviceId, no: RoomNo) -> Option<BTreeMap<LogKey, IntervalSet>> {
        let now = self.ctx.now;
        let helper = self.lines.get(&peer)?.rooms.get(&no)?;
        let has = helper.has.as_ref()?;
        if !helper.asked.is_empty() || helper.let_down {
            return None;
        }
        let rate = helper.pace.rate(now);
        let others = || {
            let others = self.lines.iter().filter(|(device, _)| **device != peer);
            others.filter_map(|(_, line)| line.rooms.get(&no))
        };
        // Where all are slow it is this node's own network, and more lines bring no more: those whose pace is not known are tried one at a time.
        let is_untried = |line: &RoomLine| line.is_answering() && line.pace.rate(now).is_none();
        if rate.is_none() && others().any(is_untried) {
            return None;
        }
        let slow = others().filter_map(|straggler| {
            let theirs = straggler.pace.rate(now).filter(|_| straggler.is_answering())?;
            let is_faster = rate.is_none_or(|rate| rate >= FASTER * theirs);
            let owed = is_faster.then(|| self.owed_by(straggler, no))?;
            let takes_long = total(&owed) * PER > theirs * STRAGGLING.as_secs();
            let owed = takes_long.then(|| both(&owed, has))?;
            Some((total(&owed), theirs, owed))
        });
        let (count, theirs, owed) = slow.max_by_key(|(count, ..)| *count)?;
        let share = match rate {
            _ if count <= PART_MIN => count,
            None => count / 2,
            Some(rate) => count * rate / (rate + theirs).max(1),
        };
        Some(last_of(&owed, share.clamp(count.min(PART_MIN), WANT_ENTRIES_MAX)))
    }

    /// What a peer was asked for that has not come, and that nobody was asked for since.
    fn owed_by(&self, line: &RoomLine, no: RoomNo) -> BTreeMap<LogKey, IntervalSet> {
        let mut owed: BTreeMap<LogKey, IntervalSet> = BTreeMap::new();
        let Some(room) = self.rooms.get(&no) else { return owed };
        let all = || self.lines.values().filter_map(|line| line.rooms.get(&no));
        for asked in line.asked.iter().filter(|asked| !asked.overdue) {
            for (log, seqs) in &asked.ranges {
                let mut seqs = room
                    .logs
                    .get(log)
                    .map_or_else(|| seqs.clone(), |state| seqs.minus(&state.held));
                let wants = all().flat_map(|line| &line.asked);
                for later in wants.filter(|other| !other.overdue && other.at > asked.at) {
                    if let Some(taken) = later.ranges.get(log) {
                        seqs = seqs.minus(taken);
                    }
                }
                if !seqs.is_empty() {
                    owed.entry(*log).or_default().union(&seqs);
                }
            }
        }
        owed
    }

    fn asked_elsewhere(&self, peer: DeviceId, no: RoomNo) -> bool {
        let others = self.lines.iter().filter(|(device, _)| **device != peer);
        others
            .filter_map(|(_, line)| line.rooms.get(&no))
            .any(RoomLine::is_answering)
    }

    /// What a peer holds, this node lacks and has asked nobody for. Logs of nobody in the room only as far as they may introduce themselves.
    pub(super) fn missing_at(&self, peer: DeviceId, no: RoomNo) -> BTreeMap<LogKey, IntervalSet> {
        let mut missing = BTreeMap::new();
        let (Some(room), Some(line)) = (self.rooms.get(&no), self.lines.get(&peer)) else {
            return missing;
        };
        let Some(theirs) = line.rooms.get(&no) else {
            return missing;
        };
        let Some(has) = &theirs.has else {
            return missing;
        };
        for (log, seqs) in has {
            let mut lacking = match room.logs.get(log) {
                Some(state) => seqs.minus(&state.held),
                None => seqs.clone(),
            };
            if let Some(last) = room.frozen_at(log) {
                lacking = lacking.up_to(last);
            }
            if lacking.is_empty() {
                continue;
            }
            for other in self.lines.values() {
                let Some(shared) = other.rooms.get(&no) else { continue };
                lacking = lacking.minus(&shared.was_asked(log));
                let instead = shared.has.as_ref().filter(|_| theirs.let_down && !shared.let_down);
                if let Some(seqs) = instead.and_then(|has| has.get(log)) {
                    lacking = lacking.minus(seqs);
                }
            }
            if !lacking.is_empty() {
                missing.insert(*log, lacking);
            }
        }
        missing
    }
}

fn total(logs: &BTreeMap<LogKey, IntervalSet>) -> u64 {
    logs.values().map(IntervalSet::len).sum()
}

fn both(one: &BTreeMap<LogKey, IntervalSet>, other: &BTreeMap<LogKey, IntervalSet>) -> BTreeMap<LogKey, IntervalSet> {
    let shared = one.iter().filter_map(|(log, seqs)| {
        let seqs = seqs.minus(&seqs.minus(other.get(log)?));
        (!seqs.is_empty()).then_some((*log, seqs))
    });
    shared.collect()
}

/// So many of those that an answer brings last: it goes through logs and numbers in order.
fn last_of(logs: &BTreeMap<LogKey, IntervalSet>, mut count: u64) -> BTreeMap<LogKey, IntervalSet> {
    let mut last = BTreeMap::new();
    for (log, seqs) in logs.iter().rev() {
        let mut set = IntervalSet::default();
        for (from, to) in seqs.newest(u32::try_from(count).unwrap_or(u32::MAX)) {
            set.insert(from, to);
        }
        count -= set.len();
        if !set.is_empty() {
            last.insert(*log, set);
        }
    }
    last
}

/// The newest of each log, up to a bound altogether.
fn pick_newest(missing: &BTreeMap<LogKey, IntervalSet>) -> BTreeMap<LogKey, IntervalSet> {
    let mut picked = BTreeMap::new();
    let mut total = 0;
    for (log, seqs) in missing {
        let mut set = IntervalSet::default();
        for (from, to) in seqs.newest(WANT_NEWEST) {
            set.insert(from, to);
        }
        total += set.len();
        picked.insert(*log, set);
        if total >= WANT_ENTRIES_MAX {
            break;
        }
    }
    picked
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::history::LogKey;
    use crate::peer::line::Pace;

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn start() -> Instant {
        Instant::now()
    }

    fn set(ranges: &[(u32, u32)]) -> IntervalSet {
        let mut set = IntervalSet::default();
        for (from, to) in ranges {
            set.insert(*from, *to);
        }
        set
    }

    #[test]
    fn what_is_taken_over_is_what_comes_last() {
        let key = |n: u8| LogKey([n; 32]);
        let logs = BTreeMap::from([(key(1), set(&[(1, 10)])), (key(2), set(&[(1, 4), (7, 8)]))]);
        assert_eq!(total(&logs), 16);
        assert_eq!(last_of(&logs, 3), BTreeMap::from([(key(2), set(&[(4, 4), (7, 8)]))]));
        assert_eq!(
            last_of(&logs, 8),
            BTreeMap::from([(key(1), set(&[(9, 10)])), (key(2), set(&[(1, 4), (7, 8)]))])
        );
        assert_eq!(last_of(&logs, 100), logs);
        assert_eq!(last_of(&logs, 0), BTreeMap::new());
        let other = BTreeMap::from([(key(2), set(&[(3, 7)])), (key(3), set(&[(1, 1)]))]);
        assert_eq!(both(&logs, &other), BTreeMap::from([(key(2), set(&[(3, 4), (7, 7)]))]));
    }

    #[test]
    fn a_pace_is_known_after_a_second_or_a_whole_answer() {
        let start = start();
        let mut pace = Pace::default();
        pace.begin(start);
        pace.count(100);
        assert_eq!(pace.rate(start + STRAGGLING / 2), None);
        assert_eq!(pace.rate(start + STRAGGLING * 2), Some(50 * PER));
        pace.end(start + STRAGGLING / 2);
        assert_eq!(pace.rate(start + STRAGGLING * 9), Some(200 * PER));
        // A few entries tell nothing.
        pace.begin(start + STRAGGLING * 9);
        pace.count(1);
        pace.end(start + STRAGGLING * 10);
        assert_eq!(pace.rate(start + STRAGGLING * 10), Some(200 * PER));
    }
}
