//! What the detector and everything that sends share about a shard: until when it may be spoken for, and how far it is.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use offhook_exchange_proto::detector::Mark;
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

/// How far a shard is. Without locks: the detector must not wait for anything that runs after it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    has: MarkCell,
    told: MarkCell,
}

impl Progress {
    /// Of an owner: how far phones have been told. Of a standby: what it has.
    pub(crate) fn set_has(&self, has: Option<Mark>) {
        self.has.set(has);
    }

    pub(crate) fn has(&self) -> Option<Mark> {
        self.has.get()
    }

    /// How far phones have been told, as its owner said last.
    pub(crate) fn set_told(&self, told: Option<Mark>) {
        self.told.set(told);
    }

    pub(crate) fn told(&self) -> Option<Mark> {
        self.told.get()
    }
}

/// A mark with one writer; stream zero is none. What is read while it changes streams is none, for a moment.
#[derive(Debug, Default)]
struct MarkCell {
    stream: AtomicU64,
    number: AtomicU64,
}

impl MarkCell {
    fn set(&self, mark: Option<Mark>) {
        let stream = mark.map_or(0, |mark| mark.stream);
        if self.stream.load(Ordering::SeqCst) != stream {
            self.stream.store(0, Ordering::SeqCst);
        }
        self.number.store(mark.map_or(0, |mark| mark.number), Ordering::SeqCst);
        self.stream.store(stream, Ordering::SeqCst);
    }

    fn get(&self) -> Option<Mark> {
        let stream = self.stream.load(Ordering::SeqCst);
        let number = self.number.load(Ordering::SeqCst);
        let same = stream != 0 && self.stream.load(Ordering::SeqCst) == stream;
        same.then_some(Mark { stream, number })
    }
}
