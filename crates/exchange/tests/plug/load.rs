//! How busy this machine is, from `/proc`.

use std::fmt;
use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use thread_priority::{RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};

/// Between two looks.
pub const STEP: Duration = Duration::from_secs(10);

/// Between two looks for processors that were taken away, and how long one must have been to be told.
const TAKEN_STEP: Duration = Duration::from_millis(20);
const TAKEN_MS: u64 = 50;

/// A processor that the machine below took away: for so long nothing runs on it, whatever its priority.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    pub at: Instant,
    pub processor: usize,
    pub ms: u64,
}

/// Notes until then which processors are taken away.
pub fn watch_taken(until: Instant, taken: &Mutex<Vec<Taken>>) {
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::RoundRobin);
    let this = thread_priority::thread_native_id();
    let _ = thread_priority::set_thread_priority_and_policy(this, ThreadPriority::Min, policy);
    let mut before = stolen_ms();
    while Instant::now() < until {
        std::thread::sleep(TAKEN_STEP);
        let (at, now) = (Instant::now(), stolen_ms());
        for (processor, (before, now)) in before.iter().zip(&now).enumerate() {
            let ms = now.saturating_sub(*before);
            if ms >= TAKEN_MS {
                taken.lock().unwrap().push(Taken { at, processor, ms });
            }
        }
        before = now;
    }
}

/// For how long each processor was taken away since the machine's start.
fn stolen_ms() -> Vec<u64> {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let lines = text.lines().filter(|line| line.starts_with("cpu")).skip(1);
    let stolen = lines.map(|line| line.split_whitespace().nth(8).and_then(|word| word.parse::<u64>().ok()));
    stolen.map(|ticks| 10 * ticks.unwrap_or(0)).collect()
}

/// The least and the most that was seen.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// Load average of a minute.
    pub average: Option<(f64, f64)>,
    /// Hundredths of all processors' time in which they were busy, over one [`STEP`] each.
    pub busy: Option<(f64, f64)>,
    ticks: (u64, u64),
}

impl Load {
    pub fn new() -> Self {
        Self {
            ticks: ticks(),
            ..Self::default()
        }
    }

    pub fn look(&mut self) {
        let average = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        if let Some(now) = average.split(' ').next().and_then(|word| word.parse().ok()) {
            self.average = Some(widen(self.average, now));
        }
        let (idle, all) = ticks();
        let passed = (idle - self.ticks.0, all - self.ticks.1);
        self.ticks = (idle, all);
        if passed.1 > 0 {
            let busy = 100.0 - 100.0 * passed.0 as f64 / passed.1 as f64;
            self.busy = Some(widen(self.busy, busy));
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (average, busy) = (self.average.unwrap_or_default(), self.busy.unwrap_or_default());
        write!(
            out,
            "load average {:.1} to {:.1}, processors busy {:.1} to {:.1} % of any ten seconds",
            average.0, average.1, busy.0, busy.1
        )
    }
}

fn widen(range: Option<(f64, f64)>, value: f64) -> (f64, f64) {
    range.map_or((value, value), |(least, most)| (least.min(value), most.max(value)))
}

/// Of all processors: idle (and waiting for a disk), and all, since the machine's start.
fn ticks() -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    // User, nice, system, idle, iowait, irq, softirq, steal; what follows is counted among these.
    let numbers: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .map(|word| word.parse().unwrap_or(0))
        .collect();
    let idle = numbers.get(3..5).map_or(0, |idle| idle.iter().sum());
    (idle, numbers.iter().sum())
}
