//! Simulated time: one monotonic clock for the world, and for each node a wall clock that may be wrong in every way.

use std::time::{Duration, Instant};

/// Microseconds since the start of the run.
pub(crate) type Micros = u64;

/// One second.
pub(crate) const SECOND: Micros = 1_000_000;
/// One millisecond.
pub(crate) const MILLI: Micros = 1_000;

/// What a right wall clock shows at the start of every run: 2026-11-22 12:00 UTC.
const START_UNIX_MS: i64 = 1_795_348_800_000;

/// The monotonic clock. Only differences of its instants mean anything, so the base may be any instant at all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Monotonic {
    base: Instant,
}

impl Monotonic {
    pub(crate) fn new() -> Self {
        #[allow(
            clippy::disallowed_methods,
            reason = "an Instant cannot be made from nothing; only offsets matter"
        )]
        let base = Instant::now();
        Self { base }
    }

    pub(crate) fn at(&self, now: Micros) -> Instant {
        self.base + Duration::from_micros(now)
    }

    /// The offset of an instant, rounded up so that a deadline is never found to lie in the future when it is due.
    pub(crate) fn offset(&self, instant: Instant) -> Micros {
        let nanos = instant.saturating_duration_since(self.base).as_nanos();
        u64::try_from(nanos.div_ceil(1_000)).unwrap_or(u64::MAX)
    }
}

/// A node's wall clock: skewed, drifting, and stepped now and then.
#[derive(Debug, Clone, Default)]
pub(crate) struct WallClock {
    pub(crate) offset_ms: i64,
    pub(crate) drift_ppm: i64,
}

impl WallClock {
    /// What it shows. Never before 1970.
    pub(crate) fn unix_ms(&self, now: Micros) -> u64 {
        let elapsed_ms = (now / MILLI) as i64;
        let drifted_ms = elapsed_ms + elapsed_ms * self.drift_ppm / 1_000_000;
        let shown = START_UNIX_MS.saturating_add(drifted_ms).saturating_add(self.offset_ms);
        u64::try_from(shown).unwrap_or(0)
    }

    /// Sets it to 1970-01-01 00:00 at `now`.
    pub(crate) fn set_to_1970(&mut self, now: Micros) {
        self.offset_ms = -START_UNIX_MS - (now / MILLI) as i64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_clocks_drift_and_stop_at_1970() {
        let mut clock = WallClock::default();
        assert_eq!(clock.unix_ms(5 * SECOND), START_UNIX_MS as u64 + 5_000);
        clock.drift_ppm = 1_000;
        assert_eq!(clock.unix_ms(1_000 * SECOND), START_UNIX_MS as u64 + 1_001_000);
        clock.drift_ppm = 0;
        clock.set_to_1970(SECOND);
        assert_eq!(clock.unix_ms(3 * SECOND), 2_000);
        clock.offset_ms = i64::MIN;
        assert_eq!(clock.unix_ms(0), 0);
    }

    #[test]
    fn offsets_come_back() {
        let clock = Monotonic::new();
        assert_eq!(clock.offset(clock.at(1_234_567)), 1_234_567);
        assert_eq!(clock.offset(clock.at(5) + Duration::from_nanos(1)), 6);
    }
}
