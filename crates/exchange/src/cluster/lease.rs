//! Until when a shard may be spoken for, shared between the detector, which renews it, and everything that sends.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use offhook_exchange_proto::time::Moment;

/// Time of this process, in the unit of the detector, beginning so late that zero is long ago.
pub(crate) fn clock() -> Moment {
    static ANCHOR: OnceLock<Instant> = OnceLock::new();
    const BEGIN_MS: u64 = 1_000_000_000;
    Moment(BEGIN_MS + ANCHOR.get_or_init(Instant::now).elapsed().as_millis() as u64)
}

/// The right to act, asked for before each packet and message.
#[derive(Debug)]
pub(crate) struct Lease {
    until_ms: AtomicU64,
}

impl Lease {
    /// Of a single machine, where nobody else could act.
    pub(crate) fn unlimited() -> Self {
        Self {
            until_ms: AtomicU64::new(u64::MAX),
        }
    }

    /// Not granted yet.
    pub(crate) fn none() -> Self {
        Self {
            until_ms: AtomicU64::new(0),
        }
    }

    /// Renewed, or taken away.
    pub(crate) fn set(&self, until: Option<Moment>) {
        self.until_ms.store(until.map_or(0, |until| until.0), Ordering::Release);
    }

    /// Whether it holds now.
    pub(crate) fn holds(&self) -> bool {
        match self.until_ms.load(Ordering::Acquire) {
            u64::MAX => true,
            until => until > clock().0,
        }
    }
}
