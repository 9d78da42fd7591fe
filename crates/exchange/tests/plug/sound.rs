//! Sound whose every sample is known to whoever hears it, played as a phone plays it: with a fixed delay, silence
//! where nothing has come in time.
//!
//! A sample is a hash of its speaker and its number, so that one that is wrong, twice or out of its turn is seen. What
//! is late is not heard: the longest run of samples that were not there when their turn came is the gap.

use std::time::{Duration, Instant};

pub const PACKET_SAMPLES: u32 = 160;
const RATE: u32 = 8_000;
/// How long a phone holds sound back to even out its journey.
const PLAYOUT_DELAY: Duration = Duration::from_millis(60);
const HEADER: usize = 12;
/// So many silences are remembered.
const SILENCES_MAX: usize = 256;

/// Sample `number` of a speaker, as an octet of PCMU.
pub fn sample(speaker: u32, number: u32) -> u8 {
    let mixed = (u64::from(speaker) << 32 | u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

/// The RTP packet that begins with sample `number`.
pub fn packet(speaker: u32, number: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend(((number / PACKET_SAMPLES) as u16).to_be_bytes());
    packet.extend(number.to_be_bytes());
    packet.extend(speaker.to_be_bytes());
    packet.extend((0..PACKET_SAMPLES).map(|k| sample(speaker, number.wrapping_add(k))));
    packet
}

/// What one phone hears of another.
#[derive(Default)]
pub struct Ear {
    /// When sample 0 would be played: the fastest journey so far, and the delay.
    origin: Option<Instant>,
    /// The next sample that has not been played.
    next: u32,
    longest_silence: u32,
    /// When each silence since the mark would have been heard, and how many samples long it was.
    silences: Vec<(Instant, u32)>,
    pub wrong: u64,
    pub heard: u64,
}

impl Ear {
    pub fn packet(&mut self, bytes: &[u8], now: Instant) {
        if bytes.len() != HEADER + PACKET_SAMPLES as usize {
            self.wrong += PACKET_SAMPLES as u64;
            return;
        }
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (first, speaker) = (word(4), word(8));
        let spoken = (HEADER..).zip(first..first + PACKET_SAMPLES);
        self.wrong += spoken.filter(|(at, n)| bytes[*at] != sample(speaker, *n)).count() as u64;
        let origin = now + PLAYOUT_DELAY - duration(first);
        if self.origin.is_none() {
            self.next = first;
        }
        let origin = self.origin.map_or(origin, |known| known.min(origin));
        self.origin = Some(origin);
        // Samples whose turn is over are not heard, though their packet is here.
        let begin = first.max(self.turn(now)).max(self.next);
        let end = first + PACKET_SAMPLES;
        if begin < end {
            self.longest_silence = self.longest_silence.max(begin - self.next);
            if begin > self.next && self.silences.len() < SILENCES_MAX {
                self.silences.push((origin + duration(self.next), begin - self.next));
            }
            self.heard += u64::from(end - begin);
            self.next = end;
        }
    }

    /// The sample whose turn it is.
    fn turn(&self, now: Instant) -> u32 {
        let played = self
            .origin
            .map_or(Duration::ZERO, |origin| now.saturating_duration_since(origin));
        (played.as_micros() as u64 * u64::from(RATE) / 1_000_000) as u32
    }

    pub fn mark(&mut self) {
        self.longest_silence = 0;
        self.silences.clear();
    }

    /// Each silence since the mark that is over: when it began, and how long it was.
    pub fn silences(&self) -> impl Iterator<Item = (Instant, Duration)> {
        self.silences.iter().map(|(at, samples)| (*at, duration(*samples)))
    }

    /// The longest silence since the mark, the one that lasts included, ms.
    pub fn longest_silence_ms(&self, now: Instant) -> u64 {
        let open = match self.origin {
            Some(_) => self.turn(now).saturating_sub(self.next),
            None => u32::MAX,
        };
        u64::from(self.longest_silence.max(open)) * 1_000 / u64::from(RATE)
    }
}

fn duration(samples: u32) -> Duration {
    Duration::from_micros(u64::from(samples) * 1_000_000 / u64::from(RATE))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Begins late enough for the subtraction of sample numbers.
    fn begun() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn hear(missing: std::ops::Range<u32>, damaged: bool) -> Ear {
        let (mut ear, begun) = (Ear::default(), begun());
        for n in (0..100).filter(|n| !missing.contains(n)) {
            let mut bytes = packet(7, n * PACKET_SAMPLES);
            if damaged && n == 50 {
                bytes[100] ^= 1;
            }
            ear.packet(&bytes, begun + duration(n * PACKET_SAMPLES));
        }
        ear
    }

    #[test]
    fn an_unbroken_voice_has_no_gap() {
        let ear = hear(0..0, false);
        assert_eq!((ear.longest_silence, ear.wrong, ear.heard), (0, 0, 100 * 160));
    }

    #[test]
    fn what_is_missing_late_or_changed_is_found() {
        assert_eq!(hear(40..45, false).longest_silence, 5 * PACKET_SAMPLES);
        assert_eq!(hear(0..0, true).wrong, 1);
        let (mut ear, begun) = (Ear::default(), begun());
        ear.packet(&packet(7, 0), begun);
        // 20 ms and 25 ms late beyond the delay: of the first packet nothing is left, of the second 15 ms.
        ear.packet(
            &packet(7, 160),
            begun + duration(160) + PLAYOUT_DELAY + Duration::from_millis(25),
        );
        ear.packet(
            &packet(7, 320),
            begun + duration(320) + PLAYOUT_DELAY + Duration::from_millis(5),
        );
        assert_eq!(ear.longest_silence, 160 + 40);
        assert_eq!(ear.longest_silence_ms(begun), 25);
    }
}
