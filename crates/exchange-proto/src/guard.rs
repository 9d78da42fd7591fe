//! Holding off strangers: brute force, scanners, floods. Silence is the answer to whom we owe none.
//!
//! A source that has not authenticated lately gets [`ANSWERS_MAX`] answers in [`WINDOW_MS`]. After
//! [`FAILURES_FREE`] wrong passwords a source, or an account as seen from unknown sources, is ignored for a time that
//! doubles with each further one. Phones already registered are never locked out by others' attempts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::time::Moment;

/// Unauthenticated requests answered in one window to one source.
pub const ANSWERS_MAX: u32 = 300;
/// The window, ms.
pub const WINDOW_MS: u64 = 60_000;
/// Wrong passwords before the first pause.
pub const FAILURES_FREE: u32 = 5;
/// Longest pause, ms.
pub const PAUSE_MS_MAX: u64 = 3_600_000;
/// Most sources and accounts remembered; the least recently seen is forgotten.
pub const REMEMBERED_MAX: usize = 20_000;

#[derive(Clone, Copy, Debug, Default)]
struct Suspect {
    seen: Moment,
    window: Moment,
    answers: u32,
    failures: u32,
    paused_until: Moment,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Source(IpAddr),
    Account(String),
}

/// Memory of strangers.
#[derive(Debug, Default)]
pub struct Guard {
    suspects: BTreeMap<Key, Suspect>,
}

impl Guard {
    /// Whether a stranger's request is to be answered; counts it.
    pub fn admits(&mut self, source: IpAddr, now: Moment) -> bool {
        let suspect = self.suspect(Key::Source(source), now);
        if suspect.paused_until > now {
            return false;
        }
        if now.since_ms(suspect.window) >= WINDOW_MS {
            suspect.window = now;
            suspect.answers = 0;
        }
        suspect.answers += 1;
        suspect.answers <= ANSWERS_MAX
    }

    /// Whether an account may be tried from an unknown source.
    pub fn admits_account(&self, account: &str, now: Moment) -> bool {
        self.suspects
            .get(&Key::Account(account.to_owned()))
            .is_none_or(|suspect| suspect.paused_until <= now)
    }

    /// A wrong password.
    pub fn failed(&mut self, source: IpAddr, account: &str, now: Moment) {
        for key in [Key::Source(source), Key::Account(account.to_owned())] {
            let suspect = self.suspect(key, now);
            suspect.failures += 1;
            if suspect.failures > FAILURES_FREE {
                let doublings = (suspect.failures - FAILURES_FREE).min(12);
                suspect.paused_until = now.plus_ms((1_000 << doublings).min(PAUSE_MS_MAX));
            }
        }
    }

    /// A right password.
    pub fn succeeded(&mut self, source: IpAddr, account: &str) {
        self.suspects.remove(&Key::Source(source));
        self.suspects.remove(&Key::Account(account.to_owned()));
    }

    fn suspect(&mut self, key: Key, now: Moment) -> &mut Suspect {
        if self.suspects.len() >= REMEMBERED_MAX && !self.suspects.contains_key(&key) {
            self.forget_some(now);
        }
        let suspect = self.suspects.entry(key).or_insert(Suspect {
            window: now,
            ..Suspect::default()
        });
        suspect.seen = now;
        suspect
    }

    /// Forgets all whose window and pause are over, or everything when that frees nothing.
    fn forget_some(&mut self, now: Moment) {
        self.suspects
            .retain(|_, s| s.paused_until > now || now.since_ms(s.seen) < WINDOW_MS);
        if self.suspects.len() >= REMEMBERED_MAX {
            let mut seen: Vec<Moment> = self.suspects.values().map(|suspect| suspect.seen).collect();
            seen.sort_unstable();
            let median = seen[seen.len() / 2];
            self.suspects.retain(|_, suspect| suspect.seen > median);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_passwords_pause_the_source_for_ever_longer() {
        let (source, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let mut guard = Guard::default();
        let now = Moment(1_000_000);
        for _ in 0..=FAILURES_FREE {
            assert!(guard.admits(source, now));
            guard.failed(source, "bob", now);
        }
        assert!(!guard.admits(source, now.plus_ms(1_999)));
        assert!(!guard.admits_account("bob", now.plus_ms(1_999)));
        assert!(guard.admits(other, now));
        assert!(guard.admits(source, now.plus_ms(2_000)));
        guard.failed(source, "bob", now.plus_ms(2_000));
        assert!(!guard.admits(source, now.plus_ms(5_999)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut guard = Guard::default();
        for n in 0..(REMEMBERED_MAX as u32 + 10) {
            guard.admits(IpAddr::from(n.to_be_bytes()), Moment(n.into()));
        }
        assert!(guard.suspects.len() <= REMEMBERED_MAX);
    }
}
