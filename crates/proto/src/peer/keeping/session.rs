//! What was said on a line about one vault.

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;

use crate::crypto::Hash;
use crate::history::IntervalSet;
use crate::history::entry::LogKey;
use crate::keeper::frame::KeptRanges;
use crate::keeper::frame::LOGS_MAX;
use crate::keeper::frame::State;
use crate::peer::keeping::HAND_OVER_DELAY;

/// The first challenge on a line comes after this long at least, and up to twice as long.
const CHALLENGE_FIRST: Duration = Duration::from_secs(5);

/// Parts of logs.
pub(super) type Ranges = BTreeMap<LogKey, IntervalSet>;

/// What was said on a line about one vault.
#[derive(Debug)]
pub(in crate::peer) struct Session {
    pub(super) state: Option<State>,
    pub(super) held: Ranges,
    pub(super) bare: Ranges,
    /// Asked for, and not all of it answered yet.
    pub(super) getting: Option<Ranges>,
    /// Came since the `Get`.
    pub(super) came: Ranges,
    /// What was asked for once is not asked for again on this line.
    pub(super) tried: Ranges,
    /// Claimed and not handed over: asked about again.
    pub(super) doubtful: Ranges,
    /// Given, and not known to be durable yet.
    pub(super) putting: Ranges,
    pub(super) puts: usize,
    /// Not worth keeping: expired, or nothing that the keeper could use.
    pub(super) skipped: Ranges,
    /// The access number that writing was proved for.
    pub(super) writing: u64,
    pub(super) renewing: bool,
    pub(super) challenge: Option<Challenge>,
    /// Answers are due since then.
    pub(super) due_since: Option<Instant>,
    pub(super) hand_over_at: Option<Instant>,
    pub(super) challenge_at: Instant,
    /// The write key was unknown since then.
    pub(super) locked_since: Option<Instant>,
    pub(super) refusals: u32,
}

#[derive(Debug)]
pub(super) struct Challenge {
    pub(super) log: LogKey,
    pub(super) seq: u32,
    pub(super) expected: Hash,
}

impl Session {
    pub(super) fn new(now: Instant, jitter: u32) -> Self {
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

    pub(in crate::peer) fn is_waiting(&self) -> bool {
        self.state.is_none() || self.getting.is_some() || self.puts > 0 || self.renewing || self.challenge.is_some()
    }
}

/// Between one and two times `time`.
pub(super) fn spread(time: Duration, jitter: u32) -> Duration {
    time + time.mul_f64(f64::from(jitter) / f64::from(u32::MAX))
}

pub(super) fn add(to: &mut Ranges, log: LogKey, seqs: &IntervalSet) {
    to.entry(log).or_default().union(seqs);
}

pub(super) fn without(seqs: IntervalSet, from: &Ranges, log: &LogKey) -> IntervalSet {
    match from.get(log) {
        Some(other) => seqs.minus(other),
        None => seqs,
    }
}

pub(super) fn listed(ranges: Ranges) -> Vec<KeptRanges> {
    let all = ranges.into_iter().filter(|(_, seqs)| !seqs.is_empty());
    all.map(|(log, seqs)| KeptRanges { log, seqs }).take(LOGS_MAX).collect()
}
