//! Lines from a client, with limits: of length ([`LINE_BYTES_MAX`]), of encoding (UTF-8 only), and of pace.

use tokio::io::{self, AsyncRead, AsyncReadExt as _};
use tokio::time::{Duration, Instant};

use super::line::LINE_BYTES_MAX;

/// Lines that may come at once.
const BURST_LINES: u32 = 40;
/// After a burst, a line each so often.
const PACE: Duration = Duration::from_millis(100);

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Line(String),
    TooLong,
    NotUtf8,
}

/// The lines of a client.
pub(super) struct Intake<R> {
    io: R,
    held: Vec<u8>,
    /// The rest of a line that was too long is thrown away.
    is_skipping: bool,
    /// When the client has as many lines free as there may be.
    full_at: Instant,
}

impl<R: AsyncRead + Unpin> Intake<R> {
    pub(super) fn new(io: R) -> Self {
        Self {
            io,
            held: Vec::new(),
            is_skipping: false,
            full_at: Instant::now(),
        }
    }

    /// The next line; `None` at the end. May be dropped and called again at any time.
    pub(super) async fn next(&mut self) -> io::Result<Option<Taken>> {
        loop {
            if let Some(end) = self.held.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.held.drain(..=end).collect();
                let was_skipping = std::mem::take(&mut self.is_skipping);
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                if was_skipping || line.is_empty() {
                    continue;
                }
                return Ok(Some(match String::from_utf8(line.to_vec()) {
                    Ok(line) => Taken::Line(line),
                    Err(_) => Taken::NotUtf8,
                }));
            }
            if self.held.len() > LINE_BYTES_MAX {
                self.held.clear();
                if !std::mem::replace(&mut self.is_skipping, true) {
                    return Ok(Some(Taken::TooLong));
                }
            }
            if self.io.read_buf(&mut self.held).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Counts a line, and says how long to wait before the next is looked at.
    pub(super) fn pace(&mut self) -> Duration {
        let now = Instant::now();
        self.full_at = self.full_at.max(now) + PACE;
        let free_until = now + PACE * BURST_LINES;
        self.full_at.saturating_duration_since(free_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn taken(bytes: &[u8]) -> Vec<Taken> {
        let mut intake = Intake::new(bytes);
        let mut all = Vec::new();
        while let Some(taken) = intake.next().await.unwrap() {
            all.push(taken);
        }
        all
    }

    #[tokio::test]
    async fn lines_end_in_any_way_and_long_ones_are_told_once() {
        let line = |text: &str| Taken::Line(text.to_owned());
        assert_eq!(taken(b"a\r\nb\n\r\n\nc").await, [line("a"), line("b")]);
        assert_eq!(taken(b"\xff\nx\n").await, [Taken::NotUtf8, line("x")]);
        let long = [vec![b'x'; 3 * LINE_BYTES_MAX], b"\nPING\n".to_vec()].concat();
        assert_eq!(taken(&long).await, [Taken::TooLong, line("PING")]);
    }

    #[tokio::test]
    async fn a_flood_is_slowed_down() {
        let mut intake = Intake::new(b"".as_slice());
        let waits: Vec<Duration> = (0..BURST_LINES + 5).map(|_| intake.pace()).collect();
        assert!(waits[..BURST_LINES as usize].iter().all(Duration::is_zero));
        assert!(waits.last().is_some_and(|wait| *wait > PACE), "{waits:?}");
    }
}
