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
        /// By how many.
        by: u32,
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

impl Wire for Change {
    /// One varint `tag + 3 * number`, then the rest.
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Grew { index, by } => {
                put_varint(out, 3 * u64::from(*index));
                by.encode(out);
            }
            Self::Replaced { index, held } => {
                put_varint(out, 3 * u64::from(*index) + 1);
                held.encode(out);
            }
            Self::Added { log, held } => {
                put_varint(out, 2);
                log.encode(out);
                held.encode(out);
            }
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let packed = input.varint()?;
        let index = u32::try_from(packed / 3).map_err(|_| WireError::Varint)?;
        match packed % 3 {
            0 => Ok(Self::Grew {
                index,
                by: u32::decode(input)?,
            }),
            1 => Ok(Self::Replaced {
                index,
                held: IntervalSet::decode(input)?,
            }),
            _ if index == 0 => Ok(Self::Added {
                log: LogKey::decode(input)?,
                held: IntervalSet::decode(input)?,
            }),
            _ => Err(WireError::Invalid("change")),
        }
    }
}

/// The changes that lead from `base` to `now`, logs in order.
pub fn difference(base: &Vector, now: &Vector) -> Vec<Change> {
    let places: BTreeMap<&LogKey, u32> = base.0.keys().zip(0..).collect();
    let mut changes = Vec::new();
    for (log, now) in &now.0 {
        let Some(index) = places.get(log).copied() else {
            changes.push(Change::Added {
                log: *log,
                held: now.held.clone(),
            });
            continue;
        };
        let before = &base.0[log].held;
        if *before == now.held {
            continue;
        }
        match growth(before, &now.held) {
            Some(by) => changes.push(Change::Grew { index, by }),
            None => changes.push(Change::Replaced {
                index,
                held: now.held.clone(),
            }),
        }
    }
    changes
}

/// By how much the newest range grew, if that is all that happened.
fn growth(before: &IntervalSet, now: &IntervalSet) -> Option<u32> {
    let ((_, end_before), rest_before) = before.ranges().split_last().map(|(last, rest)| (*last, rest))?;
    let ((_, end_now), rest_now) = now.ranges().split_last().map(|(last, rest)| (*last, rest))?;
    let same = rest_before == rest_now && before.ranges().last()?.0 == now.ranges().last()?.0;
    (same && end_now > end_before).then(|| end_now - end_before)
}

/// What a peer holds, from its changes to `base`. Fails if a change speaks of a log that the base does not have.
pub fn apply(base: &Vector, changes: &[Change]) -> Result<BTreeMap<LogKey, IntervalSet>, WireError> {
    let places: Vec<&LogKey> = base.0.keys().collect();
    let log_at = |index: u32| {
        places
            .get(index as usize)
            .copied()
            .ok_or(WireError::Invalid("index into the base"))
    };
    let mut held: BTreeMap<LogKey, IntervalSet> = base.0.iter().map(|(log, h)| (*log, h.held.clone())).collect();
    for change in changes {
        match change {
            Change::Grew { index, by } => {
                let set = held
                    .get_mut(log_at(*index)?)
                    .ok_or(WireError::Invalid("index into the base"))?;
                let end = set.max();
                let grown = end.checked_add(*by).filter(|grown| *grown > end);
                set.insert(end.saturating_add(1), grown.ok_or(WireError::Invalid("growth"))?);
            }
            Change::Replaced { index, held: now } => {
                held.insert(*log_at(*index)?, now.clone());
            }
            Change::Added { log, held: now } => {
                held.insert(*log, now.clone());
            }
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
            let applied = apply(&base, &difference(&base, &now)).unwrap();
            let wanted: BTreeMap<_, _> = now.0.iter().map(|(log, h)| (*log, h.held.clone())).collect();
            prop_assert_eq!(applied, wanted);
            prop_assert_eq!(Vector::from_bytes(&now.to_bytes()), Ok(now));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(change) = Change::from_bytes(&bytes) {
                prop_assert_eq!(change.to_bytes(), bytes);
            }
        }
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
        assert_eq!(changes, [Change::Grew { index: 0, by: 30 }]);
        assert_eq!(changes[0].to_bytes().len(), 2);
        assert_ne!(base.digest(), now.digest());
    }
}
