//! Sets of sequence numbers, kept as sorted, disjoint, non-adjacent ranges.

use crate::wire::{Reader, Wire, WireError, put_varint};

/// The most ranges that a set on the wire may have.
pub const RANGES_MAX: usize = 4096;

/// A set of sequence numbers from 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IntervalSet {
    /// Inclusive ranges, ascending, with at least one number missing between two.
    ranges: Vec<(u32, u32)>,
}

impl IntervalSet {
    /// The set `from..=to`; empty if `from > to`.
    pub fn range(from: u32, to: u32) -> Self {
        let mut set = Self::default();
        set.insert(from, to);
        set
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> &[(u32, u32)] {
        &self.ranges
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many numbers are in it.
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|(from, to)| u64::from(to - from) + 1).sum()
    }

    /// The largest number, or 0.
    pub fn max(&self) -> u32 {
        self.ranges.last().map_or(0, |(_, to)| *to)
    }

    /// The largest `n` such that `1..=n` is all in it, or 0.
    pub fn contiguous(&self) -> u32 {
        match self.ranges.first() {
            Some((1, to)) => *to,
            _ => 0,
        }
    }

    /// Whether `n` is in it.
    pub fn contains(&self, n: u32) -> bool {
        let at = self.ranges.partition_point(|(_, to)| *to < n);
        self.ranges.get(at).is_some_and(|(from, _)| *from <= n)
    }

    /// Adds `from..=to`.
    pub fn insert(&mut self, from: u32, to: u32) {
        if from > to || from == 0 {
            return;
        }
        // The fast path: appending to the end, which is what nearly all entries do.
        if let Some(last) = self.ranges.last_mut()
            && from >= last.0
            && from <= last.1.saturating_add(1)
        {
            last.1 = last.1.max(to);
            return;
        }
        let first = self.ranges.partition_point(|(_, end)| end.saturating_add(1) < from);
        let last = self.ranges.partition_point(|(start, _)| *start <= to.saturating_add(1));
        let (mut low, mut high) = (from, to);
        if first < last {
            low = low.min(self.ranges[first].0);
            high = high.max(self.ranges[last - 1].1);
        }
        self.ranges.splice(first..last, [(low, high)]);
    }

    /// Takes `from..=to` away.
    pub fn remove(&mut self, from: u32, to: u32) {
        if from > to {
            return;
        }
        let mut kept = Vec::with_capacity(self.ranges.len() + 1);
        for &(start, end) in &self.ranges {
            if start < from {
                kept.push((start, end.min(from - 1)));
            }
            if end > to {
                kept.push((start.max(to + 1), end));
            }
        }
        self.ranges = kept;
    }

    /// Adds all of `other`.
    pub fn union(&mut self, other: &Self) {
        for &(from, to) in &other.ranges {
            self.insert(from, to);
        }
    }

    /// What is in this set and not in `other`.
    pub fn minus(&self, other: &Self) -> Self {
        let mut result = self.clone();
        for &(from, to) in &other.ranges {
            result.remove(from, to);
        }
        result
    }

    /// The part of it that is at most `max`.
    pub fn up_to(&self, max: u32) -> Self {
        let mut result = self.clone();
        if max < u32::MAX {
            result.remove(max + 1, u32::MAX);
        }
        result
    }

    /// The newest `count` numbers of it, as ranges, newest first.
    pub fn newest(&self, mut count: u32) -> Vec<(u32, u32)> {
        let mut picked = Vec::new();
        for &(from, to) in self.ranges.iter().rev() {
            if count == 0 {
                break;
            }
            let start = from.max(to.saturating_sub(count - 1));
            count -= to - start + 1;
            picked.push((start, to));
        }
        picked
    }
}

impl Wire for IntervalSet {
    /// A count, then for each range the distance from the end of the one before, less one, and the length less one.
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.ranges.len() as u64);
        let mut end = 0;
        for (i, &(from, to)) in self.ranges.iter().enumerate() {
            let skipped = if i == 0 { from - 1 } else { from - end - 2 };
            put_varint(out, u64::from(skipped));
            put_varint(out, u64::from(to - from));
            end = to;
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let count = input.count(RANGES_MAX, 2, "ranges")?;
        let mut ranges = Vec::with_capacity(count);
        let mut end: Option<u32> = None;
        for _ in 0..count {
            let skipped = u32::decode(input)?;
            let length = u32::decode(input)?;
            let base = match end {
                None => Some(1),
                Some(end) => end.checked_add(2),
            };
            let from = base
                .and_then(|base| base.checked_add(skipped))
                .ok_or(WireError::Invalid("ranges"))?;
            let to = from.checked_add(length).ok_or(WireError::Invalid("ranges"))?;
            ranges.push((from, to));
            end = Some(to);
        }
        Ok(Self { ranges })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn neighbours_merge() {
        let mut set = IntervalSet::range(1, 3);
        set.insert(5, 6);
        assert_eq!(set.ranges(), [(1, 3), (5, 6)]);
        set.insert(4, 4);
        assert_eq!(set.ranges(), [(1, 6)]);
        assert_eq!(set.contiguous(), 6);
        assert_eq!(set.newest(2), [(5, 6)]);
    }

    proptest! {
        #[test]
        fn it_is_a_set(ops in prop::collection::vec((any::<bool>(), 1u32..60, 0u32..12), 0..40)) {
            let mut set = IntervalSet::default();
            let mut model = BTreeSet::new();
            for (add, from, len) in ops {
                let to = from + len;
                if add { set.insert(from, to); model.extend(from..=to); }
                else { set.remove(from, to); model.retain(|n| *n < from || *n > to); }
                let listed: Vec<u32> = set.ranges().iter().flat_map(|(a, b)| *a..=*b).collect();
                prop_assert_eq!(&listed, &model.iter().copied().collect::<Vec<_>>());
                for pair in set.ranges().windows(2) { prop_assert!(pair[0].1 + 1 < pair[1].0); }
                prop_assert_eq!(IntervalSet::from_bytes(&set.to_bytes()), Ok(set.clone()));
                prop_assert_eq!(set.len(), model.len() as u64);
            }
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(set) = IntervalSet::from_bytes(&bytes) {
                prop_assert_eq!(set.to_bytes(), bytes);
            }
        }
    }
}
