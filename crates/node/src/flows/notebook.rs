//! What a gateway still remembers when this program begins anew: the home's `flows`, a line a flow.
//!
//! ```text
//! udp answered 1790000000000 192.0.2.1:4433
//! tcp answered 1790000000000 https://relay.example/
//! ```
//!
//! The number is when the last packet went, in milliseconds since 1970; of a flow in use it lies ahead: it may be used until the next writing. The file is written without waiting
//! for the disk and read with forgiveness: a line that is not understood is left out.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use offhook_proto::overlay::ledger::{Remembered, To};

/// Written this often, or sooner where there are other flows than then.
const PERIOD: Duration = Duration::from_secs(60);
/// No sooner than this after the last time.
const PERIOD_MIN: Duration = Duration::from_secs(10);
/// No longer file is read.
const BYTES_MAX: u64 = 256 * 1024;

/// The file, and what was written to it last.
#[derive(Debug)]
pub(super) struct Notebook {
    path: PathBuf,
    written: Vec<To>,
    written_at: Option<Instant>,
}

impl Notebook {
    pub(super) fn of(home: &Path) -> Self {
        Self {
            path: home.join("flows"),
            written: Vec::new(),
            written_at: None,
        }
    }

    /// What the last run left.
    pub(super) fn read(&self, unix_ms: u64) -> Vec<Remembered> {
        let is_short = fs::metadata(&self.path).is_ok_and(|meta| meta.len() <= BYTES_MAX);
        match is_short.then(|| fs::read_to_string(&self.path)) {
            Some(Ok(text)) => parse(&text, unix_ms),
            _ => Vec::new(),
        }
    }

    /// Whether it is time to write.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.written_at.is_none_or(|at| now.duration_since(at) >= PERIOD_MIN)
    }

    /// Writes where there is something new to write.
    pub(super) fn note(&mut self, flows: &[Remembered], unix_ms: u64, now: Instant) {
        let to: Vec<To> = flows.iter().map(|flow| flow.to.clone()).collect();
        if to == self.written && self.written_at.is_some_and(|at| now.duration_since(at) < PERIOD) {
            return;
        }
        (self.written, self.written_at) = (to, Some(now));
        self.write(flows, unix_ms, PERIOD);
    }

    /// Writes for the last time: nothing is sent any more.
    pub(super) fn close(&self, flows: &[Remembered], unix_ms: u64) {
        self.write(flows, unix_ms, Duration::ZERO);
    }

    fn write(&self, flows: &[Remembered], unix_ms: u64, ahead: Duration) {
        let fresh = self.path.with_extension("new");
        let written = fs::write(&fresh, text(flows, unix_ms, ahead)).and_then(|()| fs::rename(&fresh, &self.path));
        if let Err(error) = written {
            tracing::debug!(path = ?self.path, %error, "cannot note which flows there are");
        }
    }
}

fn text(flows: &[Remembered], unix_ms: u64, ahead: Duration) -> String {
    let mut text = String::new();
    for flow in flows {
        let last = match flow.unused_for {
            Some(unused) => unix_ms.saturating_sub(millis(unused)),
            None => unix_ms.saturating_add(millis(ahead)),
        };
        let (kind, name) = match &flow.to {
            To::Udp(at) => ("udp", at.to_string()),
            To::Tcp(name) => ("tcp", name.clone()),
            To::Lookup(name) => ("lookup", name.clone()),
        };
        let answered = if flow.answered { "answered" } else { "unanswered" };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{kind} {answered} {last} {}", name.replace(char::is_control, " "));
    }
    text
}

fn parse(text: &str, unix_ms: u64) -> Vec<Remembered> {
    let flow = |line: &str| {
        let mut words = line.splitn(4, ' ');
        let (kind, answered) = (words.next()?, words.next()? == "answered");
        let last: u64 = words.next()?.parse().ok()?;
        let name = words.next()?;
        let to = match kind {
            "udp" => To::Udp(name.parse().ok()?),
            "tcp" => To::Tcp(name.to_owned()),
            "lookup" => To::Lookup(name.to_owned()),
            _ => return None,
        };
        Some(Remembered {
            to,
            answered,
            // A clock that was set back makes it longer, never shorter.
            unused_for: Some(Duration::from_millis(unix_ms.saturating_sub(last))),
        })
    };
    text.lines().filter_map(flow).collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may")]

    use super::*;

    const NOW: u64 = 1_790_000_000_000;

    fn flow(to: To, unused_s: Option<u64>) -> Remembered {
        Remembered {
            to,
            answered: unused_s.is_none(),
            unused_for: unused_s.map(Duration::from_secs),
        }
    }

    #[test]
    fn what_was_written_is_read_with_its_age() {
        let dir = tempfile::tempdir().unwrap();
        let book = Notebook::of(dir.path());
        assert_eq!(book.read(NOW), Vec::new());
        let to = [
            To::Udp("192.0.2.1:4433".parse().unwrap()),
            To::Tcp("https://relay.example/ (latency)".to_owned()),
        ];
        book.close(&[flow(to[0].clone(), Some(5)), flow(to[1].clone(), None)], NOW);
        let read = book.read(NOW + 20_000);
        let ages: Vec<_> = read
            .iter()
            .map(|flow| (flow.to.clone(), flow.answered, flow.unused_for.unwrap().as_secs()))
            .collect();
        assert_eq!(ages, [(to[0].clone(), false, 25), (to[1].clone(), true, 20)]);
    }

    #[test]
    fn a_flow_in_use_counts_until_the_next_writing_would_have_been() {
        let dir = tempfile::tempdir().unwrap();
        let mut book = Notebook::of(dir.path());
        let to = To::Udp("192.0.2.1:4433".parse().unwrap());
        book.note(&[flow(to, None)], NOW, Instant::now());
        let unused = |after_s: u64| book.read(NOW + after_s * 1_000)[0].unused_for.unwrap().as_secs();
        assert_eq!((unused(0), unused(60), unused(70)), (0, 0, 10));
    }

    #[test]
    fn lines_that_are_not_understood_are_left_out() {
        let text = "udp answered 1 nowhere\n\nudp\nraw answered 1 192.0.2.1:1\nudp answered x 192.0.2.1:1\nudp answered 5 192.0.2.1:1\n";
        assert_eq!(parse(text, 5).len(), 1);
    }
}
