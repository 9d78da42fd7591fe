//! Time inside the exchange: milliseconds of Unix time, so that deadlines can live in replicated records.
//!
//! The clock is monotonic on one node: it is read from the `Instant`s given to [`crate::Exchange::handle`] and
//! anchored to wall time once, so a stepping wall clock never moves a deadline. Two nodes' clocks may be years apart:
//! what one takes over from another it sets by its own clock first, see [`crate::replica::Record::by_clock_ahead`].

use serde::{Deserialize, Serialize};

/// A point in time, milliseconds of Unix time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Moment(pub u64);

impl Moment {
    /// Later by so many milliseconds.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Later by so many seconds.
    #[must_use]
    pub fn plus_s(self, s: u64) -> Self {
        self.plus_ms(s.saturating_mul(1_000))
    }

    /// The same point by a clock that is so far ahead, or behind where it is negative.
    #[must_use]
    pub fn by_clock_ahead(self, ahead_ms: i64) -> Self {
        Self(self.0.saturating_add_signed(ahead_ms))
    }

    /// Whole seconds of Unix time.
    pub fn unix_s(self) -> u64 {
        self.0 / 1_000
    }

    /// Milliseconds since an earlier moment, zero if it is later.
    pub fn since_ms(self, earlier: Moment) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
