//! A set of small numbers, one bit each: the causal past of a control entry.

/// A growing bit set; trailing zero words are never stored, so equal sets are equal values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub(super) fn get(&self, bit: u32) -> bool {
        let word = self.0.get(bit as usize / 64);
        word.is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    pub(super) fn set(&mut self, bit: u32) {
        let index = bit as usize / 64;
        if self.0.len() <= index {
            self.0.resize(index + 1, 0);
        }
        self.0[index] |= 1 << (bit % 64);
    }

    pub(super) fn union(&mut self, other: &Bits) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }

    /// The set of all numbers below `count`.
    pub(super) fn below(count: u32) -> Self {
        let mut bits = Self(vec![u64::MAX; count as usize / 64]);
        for bit in count / 64 * 64..count {
            bits.set(bit);
        }
        bits
    }

    /// The members, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let words = (0u32..).zip(&self.0);
        words.flat_map(|(index, word)| {
            (0..64)
                .filter(move |bit| word >> bit & 1 == 1)
                .map(move |bit| index * 64 + bit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_union_holds_both_and_nothing_else() {
        let mut a = Bits::default();
        a.set(3);
        let mut b = Bits::default();
        b.set(200);
        a.union(&b);
        assert_eq!(a.iter().collect::<Vec<_>>(), [3, 200]);
        assert!(a.get(3) && a.get(200) && !a.get(4) && !a.get(10_000));
        assert_eq!(Bits::below(130).iter().count(), 130);
    }
}
