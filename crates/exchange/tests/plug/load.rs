//! How busy this machine is, from `/proc`.

use std::fmt;
use std::fs;
use std::time::Duration;

/// Between two looks.
pub const STEP: Duration = Duration::from_secs(10);

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
