//! What is held of a room, log by log: the digest over it, and the difference from a base that both sides know.

use std::collections::BTreeMap;

use crate::crypto::{self, Hash};
use crate::history::{IntervalSet, LogKey};
use crate::wire::{Reader, Wire, WireError, put_varint};

/// The most logs in one room.
pub const LOGS_MAX: usize = 16 * 1024;

const DIGEST: &str = "offhook 1 room digest";

/// What is held of each log of a room, and the hash of each log's newest entry held.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Vector(pub BTreeMap<LogKey, Held>);

/// What is held of one log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Held {
    /// Sequence numbers.
    pub held: IntervalSet,
    /// First eight bytes of the hash of the newest one, so that a fork is seen.
    pub top: [u8; 8],
}

impl Vector {
    /// Stands for the state: equal states, equal digests.
    pub fn digest(&self) -> Hash {
        let mut bytes = Vec::with_capacity(self.0.len() * 48);
        for (log, held) in &self.0 {
            log.encode(&mut bytes);
            held.held.encode(&mut bytes);
            held.top.encode(&mut bytes);
        }
        crypto::hash(DIGEST, &[&bytes])
    }
}

impl Wire for Vector {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.0.len() as u64);
        for (log, held) in &self.0 {
            log.encode(out);
            held.held.encode(out);
            held.top.encode(out);
        }
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let count = input.count(LOGS_MAX, 41, "logs")?;
        let mut logs: BTreeMap<LogKey, Held> = BTreeMap::new();
        for _ in 0..count {
            let log = LogKey::decode(input)?;
            // One order, so that a vector has one encoding.
            if logs.last_key_value().is_some_and(|(last, _)| *last >= log) {
                return Err(WireError::Invalid("logs"));
            }
            let held = IntervalSet::decode(input)?;
            logs.insert(
                log,
                Held {
                    held,
                    top: input.array()?,
                },
            );
        }
        Ok(Self(logs))
    }
}

/// What is held of one log, as a `Summary` says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A log of the base, by its place there, whose newest range grew by so many entries.
    Grew {
        /// Place in the base.
        index: u32,
        /// By how many, at least one.
        by: u32,
    },
    /// A log of the base of which all is held now, up to the newest of the base.
    Filled {
        /// Place in the base.
        index: u32,
    },
    /// A log of the base of which these are held besides.
    Gained {
        /// Place in the base.
        index: u32,
        /// What came.
        more: IntervalSet,
    },
    /// A log of the base that changed in another way.
    Replaced {
        /// Place in the base.
        index: u32,
        /// All that is held.
        held: IntervalSet,
    },
    /// A log that the base does not have.
    Added {
        /// The log.
        log: LogKey,
        /// All that is held.
        held: IntervalSet,
    },
}

impl Change {
    fn index(&self) -> Option<u32> {
        match self {
            Self::Grew { index, .. }
            | Self::Filled { index }
            | Self::Gained { index, .. }
            | Self::Replaced { index, .. } => Some(*index),
            Self::Added { .. } => None,
        }
    }
}

/// The changes of one summary: logs of the base in order, then others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes(pub Vec<Change>);

impl Changes {
    /// The logs that are named by their keys, in order: each has the next number on the line by that.
    pub fn added(&self) -> impl Iterator<Item = &LogKey> {
        self.0.iter().filter_map(|change| match change {
            Change::Added { log, .. } => Some(log),
            _ => None,
        })
    }
}

/// The most changes in one summary.
pub const CHANGES_MAX: usize = 16 * 1024;

const GREW_BY_ONE: u64 = 0;
const GREW: u64 = 1;
const FILLED: u64 = 2;
const GAINED: u64 = 3;
const REPLACED: u64 = 4;
const ADDED: u64 = 5;
const KINDS: u64 = 6;

impl Wire for Changes {
    /// For each a number `6 * skipped + kind`, where so many logs of the base before it did not change, then the rest. Indexes have to ascend.
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.0.len() as u64);
        let mut next = 0;
        for change in &self.0 {
            let skipped = change.index().map_or(0, |index| index.saturating_sub(next));
            next = change.index().map_or(next, |index| index.saturating_add(1));
            let mut head = |kind| put_varint(out, KINDS * u64::from(skipped) + kind);
            match change {
                Change::Grew { by: 1, .. } => head(GREW_BY_ONE),
                Change::Grew { by, .. } => {
                    head(GREW);
                    put_varint(out, u64::from(*by).saturating_sub(2));
                }
                Change::Filled { .. } => head(FILLED),
                Change::Gained { more, .. } => {
                    head(GAINED);
                    more.encode(out);
                }
                Change::Replaced { held, .. } => {
                    head(REPLACED);
                    held.encode(out);
                }
                Change::Added { log, held } => {
                    head(ADDED);
                    log.encode(out);
                    held.encode(out);
                }
            }
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let count = input.count(CHANGES_MAX, 1, "changes")?;
        let mut changes = Vec::with_capacity(count.min(1024));
        // Where the next log of the base may be; none once logs of their own have come.
        let mut next: Option<u32> = Some(0);
        for _ in 0..count {
            let packed = input.varint()?;
            if packed == ADDED {
                next = None;
                let (log, held) = (LogKey::decode(input)?, IntervalSet::decode(input)?);
                changes.push(Change::Added { log, held });
                continue;
            }
            let skipped = u32::try_from(packed / KINDS).map_err(|_| WireError::Varint)?;
            let index = next.and_then(|next| next.checked_add(skipped));
            let index = index.ok_or(WireError::Invalid("change"))?;
            next = index.checked_add(1);
            changes.push(match packed % KINDS {
                GREW_BY_ONE => Change::Grew { index, by: 1 },
                GREW => {
                    let by = u32::decode(input)?.checked_add(2).ok_or(WireError::Varint)?;
                    Change::Grew { index, by }
                }
                FILLED => Change::Filled { index },
                GAINED => Change::Gained {
                    index,
                    more: IntervalSet::decode(input)?,
                },
                REPLACED => Change::Replaced {
                    index,
                    held: IntervalSet::decode(input)?,
                },
                _ => return Err(WireError::Invalid("change")),
            });
        }
        Ok(Self(changes))
    }
}

/// The changes that lead from `base` to `now`: logs of the base in order, then others.
pub fn difference(base: &Vector, now: &Vector) -> Changes {
    let places: BTreeMap<&LogKey, u32> = base.0.keys().zip(0..).collect();
    let (mut changes, mut added) = (Vec::new(), Vec::new());
    for (log, now) in &now.0 {
        let Some(index) = places.get(log).copied() else {
            added.push(Change::Added {
                log: *log,
                held: now.held.clone(),
            });
            continue;
        };
        let before = &base.0[log].held;
        if *before != now.held {
            changes.push(change_of(index, before, &now.held));
        }
    }
    changes.append(&mut added);
    Changes(changes)
}

/// How to say most cheaply what became of one log.
fn change_of(index: u32, before: &IntervalSet, now: &IntervalSet) -> Change {
    if let Some(by) = growth(before, now) {
        return Change::Grew { index, by };
    }
    if *now == IntervalSet::range(1, before.max()) {
        return Change::Filled { index };
    }
    let more = now.minus(before);
    if before.minus(now).is_empty() && more.to_bytes().len() < now.to_bytes().len() {
        return Change::Gained { index, more };
    }
    Change::Replaced {
        index,
        held: now.clone(),
    }
}

/// By how much the newest range grew, if that is all that happened.
fn growth(before: &IntervalSet, now: &IntervalSet) -> Option<u32> {
    let ((_, end_before), rest_before) = before.ranges().split_last().map(|(last, rest)| (*last, rest))?;
    let ((_, end_now), rest_now) = now.ranges().split_last().map(|(last, rest)| (*last, rest))?;
    let same = rest_before == rest_now && before.ranges().last()?.0 == now.ranges().last()?.0;
    (same && end_now > end_before).then(|| end_now - end_before)
}

/// What a peer holds, from its changes to `base`. Fails if a change speaks of a log that the base does not have.
pub fn apply(base: &Vector, changes: &Changes) -> Result<BTreeMap<LogKey, IntervalSet>, WireError> {
    let places: Vec<&LogKey> = base.0.keys().collect();
    let mut held: BTreeMap<LogKey, IntervalSet> = base.0.iter().map(|(log, h)| (*log, h.held.clone())).collect();
    for change in &changes.0 {
        if let Change::Added { log, held: now } = change {
            held.insert(*log, now.clone());
            continue;
        }
        let log = change.index().and_then(|index| places.get(index as usize));
        let set = log.and_then(|log| held.get_mut(*log));
        let set = set.ok_or(WireError::Invalid("index into the base"))?;
        match change {
            Change::Grew { by, .. } => {
                let end = set.max();
                let grown = end.checked_add(*by).filter(|grown| *grown > end);
                set.insert(end.saturating_add(1), grown.ok_or(WireError::Invalid("growth"))?);
            }
            Change::Filled { .. } => *set = IntervalSet::range(1, set.max()),
            Change::Gained { more, .. } => set.union(more),
            Change::Replaced { held, .. } => *set = held.clone(),
            Change::Added { .. } => {}
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vectors() -> impl Strategy<Value = Vector> {
        let held = prop::collection::vec((1u32..50, 0u32..9), 1..4).prop_map(|ranges| {
            let mut set = IntervalSet::default();
            for (from, len) in ranges {
                set.insert(from, from + len);
            }
            Held { held: set, top: [0; 8] }
        });
        prop::collection::btree_map((0u8..6).prop_map(|n| LogKey([n; 32])), held, 0..6).prop_map(Vector)
    }

    proptest! {
        #[test]
        fn differences_lead_back(base in vectors(), grown in vectors()) {
            let mut now = base.clone();
            for (log, held) in grown.0 {
                now.0.entry(log).or_default().held.union(&held.held);
            }
            let changes = difference(&base, &now);
            prop_assert_eq!(Changes::from_bytes(&changes.to_bytes()), Ok(changes.clone()));
            let applied = apply(&base, &changes).unwrap();
            let wanted: BTreeMap<_, _> = now.0.iter().map(|(log, h)| (*log, h.held.clone())).collect();
            prop_assert_eq!(applied, wanted);
            prop_assert_eq!(Vector::from_bytes(&now.to_bytes()), Ok(now));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(changes) = Changes::from_bytes(&bytes) {
                prop_assert_eq!(changes.to_bytes(), bytes);
            }
        }
    }

    #[test]
    fn gaps_that_were_filled_cost_a_byte() {
        let mut gaps = IntervalSet::range(1, 500);
        gaps.remove(100, 101);
        gaps.remove(300, 300);
        let vector = |held: IntervalSet| Vector([(LogKey([1; 32]), Held { held, top: [0; 8] })].into());
        let mut one_left = gaps.clone();
        one_left.insert(300, 300);
        let more = IntervalSet::range(300, 300);
        let (gaps, one_left, full) = (vector(gaps), vector(one_left), vector(IntervalSet::range(1, 500)));
        assert_eq!(difference(&gaps, &full).to_bytes().len(), 1 + 1);
        assert_eq!(difference(&gaps, &one_left).0, [Change::Gained { index: 0, more }]);
    }

    #[test]
    fn a_log_that_grew_costs_two_bytes() {
        let mut base = Vector::default();
        base.0.insert(
            LogKey([1; 32]),
            Held {
                held: IntervalSet::range(1, 500),
                top: [0; 8],
            },
        );
        let mut now = base.clone();
        now.0.insert(
            LogKey([1; 32]),
            Held {
                held: IntervalSet::range(1, 530),
                top: [1; 8],
            },
        );
        let changes = difference(&base, &now);
        assert_eq!(changes.0, [Change::Grew { index: 0, by: 30 }]);
        assert_eq!(changes.to_bytes().len(), 1 + 2);
        assert_ne!(base.digest(), now.digest());
    }
}
