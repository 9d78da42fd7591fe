//! Which changes of a shard are safe with its standbys, and how long anyone waits for that: the owner's side.
//!
//! Every batch of records gets the next number of a stream. A standby acknowledges a number when it has everything up
//! to there. What a phone is told waits until all standbys that keep up have acknowledged; one that is late
//! ([`WAIT_MS`]) is waited for no longer until it has caught up. With nobody keeping up, calls go on unprotected.

use std::collections::{BTreeMap, VecDeque};

use crate::detector::NodeId;
use crate::time::Moment;
use crate::wire::Live;

/// Longest wait for a standby, ms.
pub const WAIT_MS: u64 = 100;

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
        settled
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
            whole,
            records: Vec::new(),
        }
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
