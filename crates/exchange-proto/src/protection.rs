//! Which changes of a shard are safe with its standbys, and how long anyone waits for that: the owner's side.
//!
//! Every batch of records gets the next number of a stream. A standby acknowledges a number when it has everything up
//! to there. What a phone is told waits until all standbys that keep up have acknowledged; one that is late
//! ([`WAIT_MS`]) is waited for no longer until it has caught up. With nobody keeping up, calls go on unprotected.
//!
//! How far phones have been told is known as [`Protection::told`]: the owner's heartbeats carry it, so that a standby
//! that was not waited for knows what it lacks. Whoever kept up has all of it, by what is waited for.

use std::collections::{BTreeMap, VecDeque};

use crate::detector::{Mark, NodeId};
use crate::time::Moment;
use crate::wire::Live;

/// Longest wait for a standby, ms.
pub const WAIT_MS: u64 = 100;
/// Between a standby's questions for everything, ms: the first pause, and the longest one. Each answer is long, so one
/// that does not come in time is not made faster by asking.
const ASK_AGAIN_MS: u64 = 300;
const ASK_AGAIN_MS_MAX: u64 = 5_000;

#[derive(Clone, Copy, Debug, Default)]
struct Standby {
    /// Number of the last part of the whole state that it asked for.
    whole_at: Option<u64>,
    acked: u64,
    late: bool,
}

impl Standby {
    fn keeps_up(&self) -> bool {
        !self.late && self.has_all()
    }

    fn has_all(&self) -> bool {
        self.whole_at.is_some_and(|whole| self.acked >= whole)
    }
}

/// The owner's view of its standbys.
#[derive(Clone, Debug, Default)]
pub struct Protection {
    number: u64,
    told: u64,
    standbys: BTreeMap<NodeId, Standby>,
    /// Numbers that somebody waits for, with the end of the wait.
    waiting: VecDeque<(u64, Moment)>,
}

impl Protection {
    /// Who stands by from now on; a new one keeps up once it has asked for, and got, everything.
    pub fn set_standbys(&mut self, nodes: &[NodeId]) {
        self.standbys.retain(|node, _| nodes.contains(node));
        for node in nodes {
            self.standbys.entry(*node).or_default();
        }
    }

    /// The number of the next batch, which is being sent.
    pub fn push(&mut self, now: Moment) -> u64 {
        self.number += 1;
        self.waiting.push_back((self.number, now.plus_ms(WAIT_MS)));
        self.number
    }

    /// Everything was sent to a standby that had asked, the last part under this number.
    pub fn whole_sent(&mut self, node: NodeId, number: u64) {
        if let Some(standby) = self.standbys.get_mut(&node) {
            standby.whole_at = Some(number);
        }
    }

    /// A standby asks for everything: until then it keeps nothing up.
    pub fn asked_whole(&mut self, node: NodeId) {
        self.standbys.insert(node, Standby::default());
    }

    /// A standby has everything up to a number.
    pub fn acked(&mut self, node: NodeId, number: u64) {
        let newest = self.number;
        if let Some(standby) = self.standbys.get_mut(&node).filter(|_| number <= newest) {
            standby.acked = standby.acked.max(number);
            standby.late &= standby.acked < newest;
        }
    }

    /// Nobody can be reached: nothing is waited for.
    pub fn cut_off(&mut self) {
        self.standbys.values_mut().for_each(|standby| standby.late = true);
    }

    /// Up to which number what was decided may be told; waits that are over are given up.
    pub fn settled(&mut self, now: Moment) -> u64 {
        while let Some((number, _)) = self.waiting.front().copied().filter(|(_, until)| *until <= now) {
            self.waiting.pop_front();
            for standby in self.standbys.values_mut().filter(|standby| standby.acked < number) {
                standby.late = true;
            }
        }
        let keeping_up = self.standbys.values().filter(|standby| standby.keeps_up());
        let settled = keeping_up.map(|standby| standby.acked).min().unwrap_or(self.number);
        while self.waiting.front().is_some_and(|(number, _)| *number <= settled) {
            self.waiting.pop_front();
        }
        self.told = self.told.max(settled);
        settled
    }

    /// Up to which number phones have been told, by what was settled last.
    pub fn told(&self) -> u64 {
        self.told
    }

    /// When a wait ends.
    pub fn poll_timeout(&self) -> Option<Moment> {
        self.waiting.front().map(|(_, until)| *until)
    }

    /// Whether a standby has everything that was settled.
    pub fn is_protected(&self) -> bool {
        self.standbys.values().any(Standby::keeps_up)
    }
}

/// What a standby does about a message of the owner's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// It has everything up to this number: say so.
    Ack(u64),
    /// Something is missing: ask for everything.
    AskWhole,
    /// The whole is still coming.
    Wait,
}

/// The standby's side of a stream.
#[derive(Clone, Debug, Default)]
pub struct Follower {
    stream: u64,
    number: u64,
    receiving: bool,
    complete: bool,
    /// What it had when it was looked at last.
    looked: Option<Mark>,
    /// When it may ask again, and after how long once more.
    ask: Option<(Moment, u64)>,
}

impl Follower {
    /// Takes note of a message; whether what is held is to be forgotten before its records are applied, and what to do.
    pub fn follow(&mut self, own: NodeId, live: &Live) -> (bool, Follow) {
        let part = live.whole.filter(|part| part.standby == own);
        let begins = part.is_some_and(|part| part.first);
        let next = live.stream == self.stream && live.number == self.number.wrapping_add(1);
        if !begins && !next {
            self.receiving = false;
            self.complete = false;
            if live.stream != self.stream {
                // Another owner: it was not asked yet.
                self.ask = None;
            }
            self.stream = live.stream;
            return (false, Follow::AskWhole);
        }
        self.stream = live.stream;
        self.number = live.number;
        if begins {
            self.receiving = true;
            self.complete = false;
        }
        if self.receiving && part.is_some_and(|part| part.last) {
            self.receiving = false;
            self.complete = true;
            self.ask = None;
        }
        let follow = if self.complete {
            Follow::Ack(self.number)
        } else {
            Follow::Wait
        };
        (begins, follow)
    }

    /// Whether it has everything.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// What it has; `None` while it lacks the beginning.
    pub fn has(&self) -> Option<Mark> {
        self.complete.then_some(self.place())
    }

    fn place(&self) -> Mark {
        Mark {
            stream: self.stream,
            number: self.number,
        }
    }

    /// Looked at now and then: whether it lacks something that phones have been told, and nothing came since the last
    /// look. One that is only slow is not helped by being sent everything.
    pub fn is_stuck(&mut self, told: Option<Mark>) -> bool {
        let place = self.place();
        let moved = self.looked.replace(place).is_some_and(|before| before != place);
        let lacks = !self.complete || told.is_some_and(|told| !place.covers(told));
        lacks && !moved
    }

    /// Whether to ask the owner for everything, now; then it asks.
    pub fn may_ask(&mut self, now: Moment) -> bool {
        let wait_ms = match self.ask {
            Some((at, _)) if at > now => return false,
            Some((_, last)) => (2 * last).min(ASK_AGAIN_MS_MAX),
            None => ASK_AGAIN_MS,
        };
        self.ask = Some((now.plus_ms(wait_ms), wait_ms));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(1_000);

    fn with_standby() -> Protection {
        let mut protection = Protection::default();
        protection.set_standbys(&[2]);
        let number = protection.push(NOW);
        protection.whole_sent(2, number);
        protection.acked(2, number);
        protection
    }

    #[test]
    fn without_a_standby_nothing_waits() {
        let mut protection = Protection::default();
        assert_eq!(protection.push(NOW), 1);
        assert_eq!(protection.settled(NOW), 1);
        assert!(!protection.is_protected());
    }

    #[test]
    fn an_answer_waits_for_the_standby_and_not_longer_than_the_limit() {
        let mut protection = with_standby();
        assert!(protection.is_protected());
        assert_eq!(protection.push(NOW), 2);
        assert_eq!(protection.settled(NOW), 1);
        protection.acked(2, 2);
        assert_eq!(protection.settled(NOW), 2);
        assert_eq!(protection.push(NOW), 3);
        assert_eq!(protection.settled(NOW.plus_ms(WAIT_MS - 1)), 2);
        assert_eq!(protection.settled(NOW.plus_ms(WAIT_MS)), 3);
        assert!(!protection.is_protected(), "it is late");
        protection.acked(2, 3);
        assert!(protection.is_protected(), "it has caught up");
    }

    #[test]
    fn a_newcomer_is_not_waited_for_before_it_has_everything() {
        let mut protection = with_standby();
        protection.set_standbys(&[2, 3]);
        protection.push(NOW);
        protection.acked(2, 2);
        assert_eq!(protection.settled(NOW), 2);
        protection.acked(3, 2);
        protection.asked_whole(2);
        assert!(!protection.is_protected());
        assert!(protection.poll_timeout().is_none());
    }

    fn live(number: u64, whole: Option<crate::wire::Part>) -> Live {
        Live {
            shard: 1,
            stream: 7,
            number,
            clock: NOW,
            whole,
            records: Vec::new(),
        }
    }

    #[test]
    fn who_keeps_up_has_all_that_phones_were_told_and_who_is_late_is_known_to_lack_it() {
        let mut protection = with_standby();
        protection.push(NOW);
        protection.settled(NOW);
        assert_eq!(protection.told(), 1, "the second is waited for");
        protection.settled(NOW.plus_ms(WAIT_MS));
        assert_eq!(protection.told(), 2, "without the standby");
        protection.acked(2, 2);
        protection.push(NOW);
        protection.settled(NOW);
        assert_eq!(protection.told(), 2, "never taken back");
    }

    #[test]
    fn a_standby_asks_for_everything_when_nothing_comes_any_more_and_ever_more_rarely() {
        let mut follower = Follower::default();
        let told = |number| Some(Mark { stream: 7, number });
        let part = crate::wire::Part {
            standby: 2,
            first: true,
            last: true,
        };
        follower.follow(2, &live(1, Some(part)));
        assert_eq!(follower.has(), told(1));
        assert!(!follower.is_stuck(told(1)));
        assert!(!follower.is_stuck(told(1)), "it has that");
        assert!(follower.is_stuck(told(2)), "the last message was lost");
        follower.follow(2, &live(2, None));
        assert!(!follower.is_stuck(told(9)), "more is coming");
        assert!(follower.is_stuck(told(9)));
        let asked: Vec<u64> = (0..20_000).filter(|ms| follower.may_ask(NOW.plus_ms(*ms))).collect();
        assert_eq!(asked, [0, 300, 900, 2_100, 4_500, 9_300, 14_300, 19_300]);
    }

    #[test]
    fn a_standby_that_misses_a_message_asks_for_everything() {
        let part = |first, last| {
            Some(crate::wire::Part {
                standby: 2,
                first,
                last,
            })
        };
        let mut follower = Follower::default();
        assert_eq!(follower.follow(2, &live(5, None)), (false, Follow::AskWhole));
        assert_eq!(follower.follow(2, &live(6, part(true, false))), (true, Follow::Wait));
        assert_eq!(
            follower.follow(2, &live(7, None)),
            (false, Follow::Wait),
            "a change in between"
        );
        assert_eq!(follower.follow(2, &live(8, part(false, true))), (false, Follow::Ack(8)));
        assert_eq!(follower.follow(2, &live(9, None)), (false, Follow::Ack(9)));
        assert_eq!(follower.follow(2, &live(11, None)), (false, Follow::AskWhole));
        assert!(!follower.is_complete());
    }
}
