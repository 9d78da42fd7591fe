//! Where is a device? Asked over lines that are open already: no new flow, no place that everybody depends on.
//!
//! Whoever knows answers with a record that the device itself signed; whoever does not asks a few others in its turn (recursive, as in Gnutella's flooding but bounded: at most
//! [`HOPS_MAX`] hops, [`FAN_OUT`] others, one answer). The caller checks every record before it comes in here, at every hop, so a liar can only be silent, or
//! repeat what was true once; an asker says how old a record it has, and takes none that is not newer.
//!
//! Bounds: a node relays at most [`RELAYED_MAX`] questions at a time and [`BURST`] of one neighbour in a row, then one every [`REFILL`]. One look-up costs at most
//! 12 + 12 * 3 + 12 * 9 = 156 questions with 12 lines, and ends with the first answer.
//!
//! What it does not do: it neither stores records for strangers nor places them by key, as a distributed hash table does. It finds who is known to somebody a few
//! lines away: members of shared rooms, and whoever calls the same keepers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::identity::DeviceId;
use crate::wire_struct;

/// The most hops of a question, the first one included.
pub const HOPS_MAX: u32 = 3;
/// The most others that a question is passed on to, and asked at once.
pub const FAN_OUT: usize = 3;
/// Questions that a node relays at a time.
pub const RELAYED_MAX: usize = 256;
/// Own questions at a time.
pub const OWN_MAX: usize = 4;
/// Questions of one neighbour that are relayed in a row.
pub const BURST: u32 = 20;
/// After this long one more is.
pub const REFILL: Duration = Duration::from_secs(3);
/// How long each hop may take.
pub const HOP_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Asks where a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seek {
    /// Names the question on this line; another one at each hop.
    pub id: [u8; 8],
    /// The device.
    pub device: DeviceId,
    /// The asker has a record of this age, in milliseconds since 1970, and wants none that is not newer.
    pub newer_than_ms: u64,
    /// How many hops it may go from here: 0 for no further.
    pub hops: u32,
}
wire_struct!(Seek {
    id,
    device,
    newer_than_ms,
    hops
});

/// What to do next. `R` is a record that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<R> {
    /// Send a question.
    Ask {
        /// To whom.
        peer: DeviceId,
        /// The question.
        seek: Seek,
    },
    /// Send an answer.
    Tell {
        /// To whom.
        peer: DeviceId,
        /// Whose question it answers.
        id: [u8; 8],
        /// The record; none where nobody knows.
        record: Option<R>,
    },
    /// An own look-up succeeded.
    Found {
        /// The record.
        record: R,
    },
    /// An own look-up ended without an answer.
    NotFound {
        /// The device.
        device: DeviceId,
    },
}

/// One question, own or relayed.
#[derive(Debug)]
struct Question {
    /// Who asked, and by what name; none for own ones.
    asker: Option<(DeviceId, [u8; 8])>,
    device: DeviceId,
    newer_than_ms: u64,
    hops: u32,
    /// Asked and not heard of yet.
    open: Vec<[u8; 8]>,
    /// Who may still be asked.
    unasked: Vec<DeviceId>,
    until: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Allowance {
    left: u32,
    since: Instant,
}

/// All questions under way at one node.
#[derive(Debug, Default)]
pub struct Directory {
    questions: BTreeMap<u64, Question>,
    /// Which question, and who was asked, by the names given to questions on lines.
    asked: BTreeMap<[u8; 8], (u64, DeviceId)>,
    next: u64,
    allowances: BTreeMap<DeviceId, Allowance>,
}

impl Directory {
    /// Begins an own look-up over these lines, best first. `name` gives names that nobody can guess.
    pub fn seek<R>(
        &mut self,
        device: DeviceId,
        newer_than_ms: u64,
        lines: Vec<DeviceId>,
        now: Instant,
        name: &mut impl FnMut() -> [u8; 8],
    ) -> Vec<Step<R>> {
        if lines.is_empty() || self.is_sought(&device) || self.own() >= OWN_MAX {
            return Vec::new();
        }
        let question = Question {
            asker: None,
            device,
            newer_than_ms,
            hops: HOPS_MAX - 1,
            open: Vec::new(),
            unasked: lines,
            until: now,
        };
        self.begin(question, now, name)
    }

    /// Whether an own look-up of a device is under way.
    pub fn is_sought(&self, device: &DeviceId) -> bool {
        let own = self.questions.values().filter(|question| question.asker.is_none());
        own.into_iter().any(|question| question.device == *device)
    }

    fn own(&self) -> usize {
        self.questions.values().filter(|question| question.asker.is_none()).count()
    }

    /// A neighbour asks. `known` is a record that is here, and newer than the one that it has; `lines` are those to others, best first.
    pub fn on_seek<R>(
        &mut self,
        from: DeviceId,
        seek: Seek,
        known: Option<R>,
        lines: Vec<DeviceId>,
        now: Instant,
        name: &mut impl FnMut() -> [u8; 8],
    ) -> Vec<Step<R>> {
        let tell = |record: Option<R>| {
            vec![Step::Tell {
                peer: from,
                id: seek.id,
                record,
            }]
        };
        let relayed = self.questions.len() - self.own();
        if !self.allow(from, now) || known.is_some() || seek.hops == 0 || relayed >= RELAYED_MAX {
            return tell(known);
        }
        let mut unasked: Vec<DeviceId> = lines.into_iter().filter(|peer| *peer != from).collect();
        unasked.truncate(FAN_OUT);
        let question = Question {
            asker: Some((from, seek.id)),
            device: seek.device,
            newer_than_ms: seek.newer_than_ms,
            hops: seek.hops.min(HOPS_MAX - 1) - 1,
            open: Vec::new(),
            unasked,
            until: now,
        };
        self.begin(question, now, name)
    }

    /// A neighbour answered. `record` was checked, and `made_ms` is its age; none where it had no answer, or one that is false.
    pub fn on_answer<R>(
        &mut self,
        from: DeviceId,
        id: [u8; 8],
        record: Option<(u64, R)>,
        now: Instant,
        name: &mut impl FnMut() -> [u8; 8],
    ) -> Vec<Step<R>> {
        if self.asked.get(&id).is_none_or(|(_, peer)| *peer != from) {
            return Vec::new();
        }
        let Some((at, _)) = self.asked.remove(&id) else {
            return Vec::new();
        };
        let Some(question) = self.questions.get_mut(&at) else {
            return Vec::new();
        };
        question.open.retain(|open| *open != id);
        match record.filter(|(made_ms, _)| *made_ms > question.newer_than_ms) {
            Some((_, record)) => {
                let asker = question.asker;
                self.end(at);
                vec![match asker {
                    Some((peer, id)) => Step::Tell {
                        peer,
                        id,
                        record: Some(record),
                    },
                    None => Step::Found { record },
                }]
            }
            None => self.go_on(at, now, name),
        }
    }

    /// The device that a question asked of a neighbour is about, for checking an answer to it.
    pub fn device_of(&self, from: DeviceId, id: &[u8; 8]) -> Option<DeviceId> {
        let (at, _) = self.asked.get(id).filter(|(_, peer)| *peer == from)?;
        Some(self.questions.get(at)?.device)
    }

    /// A line is gone: what was asked there is answered by nobody, and what came from there needs no answer.
    pub fn line_down<R>(&mut self, peer: DeviceId, now: Instant, name: &mut impl FnMut() -> [u8; 8]) -> Vec<Step<R>> {
        self.allowances.remove(&peer);
        let from_there = |question: &Question| question.asker.is_some_and(|(asker, _)| asker == peer);
        let gone: Vec<u64> = self.questions.iter().filter(|(_, q)| from_there(q)).map(|(at, _)| *at).collect();
        gone.into_iter().for_each(|at| self.end(at));
        let asked: Vec<[u8; 8]> = self.asked.iter().filter(|(_, (_, to))| *to == peer).map(|(id, _)| *id).collect();
        let answers = asked.into_iter().map(|id| self.on_answer(peer, id, None, now, name));
        answers.collect::<Vec<_>>().into_iter().flatten().collect()
    }

    /// When [`Self::timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.questions.values().map(|question| question.until).min()
    }

    /// Goes on where nobody answered in time.
    pub fn timeout<R>(&mut self, now: Instant, name: &mut impl FnMut() -> [u8; 8]) -> Vec<Step<R>> {
        let late: Vec<u64> = self.questions.iter().filter(|(_, q)| q.until <= now).map(|(at, _)| *at).collect();
        let mut steps = Vec::new();
        for at in late {
            if let Some(question) = self.questions.get_mut(&at) {
                for id in std::mem::take(&mut question.open) {
                    self.asked.remove(&id);
                }
            }
            steps.extend(self.go_on(at, now, name));
        }
        steps
    }

    fn begin<R>(&mut self, question: Question, now: Instant, name: &mut impl FnMut() -> [u8; 8]) -> Vec<Step<R>> {
        self.next += 1;
        let at = self.next;
        self.questions.insert(at, question);
        self.go_on(at, now, name)
    }

    /// Asks the next few, once all that were asked are heard of; ends where there are none.
    fn go_on<R>(&mut self, at: u64, now: Instant, name: &mut impl FnMut() -> [u8; 8]) -> Vec<Step<R>> {
        let Some(question) = self.questions.get_mut(&at) else {
            return Vec::new();
        };
        if !question.open.is_empty() {
            return Vec::new();
        }
        if question.unasked.is_empty() {
            let (asker, device) = (question.asker, question.device);
            self.end(at);
            return vec![match asker {
                Some((peer, id)) => Step::Tell { peer, id, record: None },
                None => Step::NotFound { device },
            }];
        }
        let few = question.unasked.len().min(FAN_OUT);
        let mut steps = Vec::new();
        for peer in question.unasked.drain(..few) {
            let id = name();
            question.open.push(id);
            self.asked.insert(id, (at, peer));
            let seek = Seek {
                id,
                device: question.device,
                newer_than_ms: question.newer_than_ms,
                hops: question.hops,
            };
            steps.push(Step::Ask { peer, seek });
        }
        // Those further away have to give up sooner, or their answers come to nobody.
        question.until = now + HOP_TIMEOUT * (question.hops + 1);
        steps
    }

    fn end(&mut self, at: u64) {
        if let Some(question) = self.questions.remove(&at) {
            for id in question.open {
                self.asked.remove(&id);
            }
        }
    }

    /// Whether a neighbour may have one more question passed on.
    fn allow(&mut self, peer: DeviceId, now: Instant) -> bool {
        let allowance = self.allowances.entry(peer).or_insert(Allowance {
            left: BURST,
            since: now,
        });
        let passed = now.saturating_duration_since(allowance.since);
        let more = u32::try_from(passed.as_millis() / REFILL.as_millis()).unwrap_or(u32::MAX);
        if more > 0 {
            allowance.left = allowance.left.saturating_add(more).min(BURST);
            allowance.since = now;
        }
        let may = allowance.left > 0;
        allowance.left = allowance.left.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AGE: u64 = 7;

    fn device(seed: u8) -> DeviceId {
        DeviceId([seed; 32])
    }

    fn names() -> impl FnMut() -> [u8; 8] {
        let mut next = 0u64;
        move || {
            next += 1;
            next.to_be_bytes()
        }
    }

    fn asked(steps: &[Step<u8>]) -> Vec<(DeviceId, Seek)> {
        let asks = steps.iter().filter_map(|step| match step {
            Step::Ask { peer, seek } => Some((*peer, *seek)),
            _ => None,
        });
        asks.collect()
    }

    #[allow(clippy::disallowed_methods, reason = "an instant can be had in no other way")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_few_are_asked_at_a_time_and_the_first_answer_ends_it() {
        let (now, mut name) = (start(), names());
        let mut directory = Directory::default();
        let lines: Vec<DeviceId> = (1..6).map(device).collect();
        let steps: Vec<Step<u8>> = directory.seek(device(9), AGE, lines, now, &mut name);
        let first = asked(&steps);
        assert_eq!(first.len(), FAN_OUT);
        for (peer, seek) in &first {
            let more: Vec<Step<u8>> = directory.on_answer(*peer, seek.id, None, now, &mut name);
            if *peer == first[FAN_OUT - 1].0 {
                let second = asked(&more);
                assert_eq!(second.len(), 2);
                let (peer, seek) = second[0];
                let stale = directory.on_answer(peer, seek.id, Some((AGE, 1)), now, &mut name);
                assert!(stale.is_empty(), "no newer than what is known");
                let (peer, seek) = second[1];
                let found = directory.on_answer(peer, seek.id, Some((AGE + 1, 2)), now, &mut name);
                assert_eq!(found, [Step::Found { record: 2 }]);
            } else {
                assert!(more.is_empty());
            }
        }
        assert_eq!(directory.poll_timeout(), None);
        assert!(directory.asked.is_empty());
    }

    #[test]
    fn a_question_is_passed_on_a_few_hops_and_no_further() {
        let (now, mut name) = (start(), names());
        let mut directory = Directory::default();
        let lines: Vec<DeviceId> = (1..9).map(device).collect();
        let seek = |hops| Seek {
            id: [1; 8],
            device: device(9),
            newer_than_ms: 0,
            hops,
        };
        let steps: Vec<Step<u8>> = directory.on_seek(device(1), seek(u32::MAX), None, lines.clone(), now, &mut name);
        let relayed = asked(&steps);
        assert_eq!(relayed.len(), FAN_OUT);
        assert!(relayed.iter().all(|(peer, seek)| *peer != device(1) && seek.hops <= HOPS_MAX - 2));
        let last: Vec<Step<u8>> = directory.on_seek(device(2), seek(0), None, lines.clone(), now, &mut name);
        assert!(matches!(last[..], [Step::Tell { record: None, .. }]));
        let known = directory.on_seek(device(2), seek(2), Some(5), lines, now, &mut name);
        assert!(matches!(known[..], [Step::Tell { record: Some(5), .. }]));
    }

    #[test]
    fn a_neighbour_that_asks_without_end_is_answered_and_not_relayed() {
        let (now, mut name) = (start(), names());
        let mut directory = Directory::default();
        let mut relayed = 0;
        for i in 0..1000u64 {
            let seek = Seek {
                id: i.to_be_bytes(),
                device: device(9),
                newer_than_ms: 0,
                hops: 2,
            };
            let steps: Vec<Step<u8>> =
                directory.on_seek(device(1), seek, None, vec![device(2), device(3)], now, &mut name);
            relayed += usize::from(!asked(&steps).is_empty());
        }
        assert_eq!(relayed, BURST as usize);
    }

    proptest! {
        /// Whatever neighbours say, in whatever order: bounded state, and everything ends.
        #[test]
        fn it_stays_bounded_and_ends(script in prop::collection::vec((0u8..6, 0u8..8, any::<u8>(), 0u32..5), 0..300)) {
            let (mut now, mut name) = (start(), names());
            let mut directory = Directory::default();
            let lines: Vec<DeviceId> = (0..8).map(device).collect();
            let mut open: Vec<(DeviceId, Seek)> = Vec::new();
            for (kind, peer, value, hops) in script {
                let steps: Vec<Step<u8>> = match kind {
                    0 => directory.seek(device(value), 0, lines.clone(), now, &mut name),
                    1 | 2 => {
                        let seek = Seek { id: [value; 8], device: device(value), newer_than_ms: 0, hops };
                        directory.on_seek(device(peer), seek, (value % 5 == 0).then_some(value), lines.clone(), now, &mut name)
                    }
                    3 if !open.is_empty() => {
                        let (to, seek) = open.swap_remove(usize::from(value) % open.len());
                        directory.on_answer(to, seek.id, (hops == 0).then_some((1, value)), now, &mut name)
                    }
                    4 => directory.line_down(device(peer), now, &mut name),
                    _ => {
                        now += Duration::from_millis(u64::from(value) * 20);
                        directory.timeout(now, &mut name)
                    }
                };
                open.extend(asked(&steps));
                prop_assert!(directory.questions.len() <= RELAYED_MAX + OWN_MAX);
                prop_assert!(directory.asked.len() <= directory.questions.len() * FAN_OUT);
            }
            for _ in 0..100 {
                now += HOP_TIMEOUT * (HOPS_MAX + 1);
                let _: Vec<Step<u8>> = directory.timeout(now, &mut name);
            }
            prop_assert_eq!(directory.poll_timeout(), None);
            prop_assert!(directory.asked.is_empty());
        }
    }
}
