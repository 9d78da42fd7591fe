//! What a member can find out about a keeper.
//!
//! A keeper says what it holds; four checks say whether that can be believed. *Memory*: what it said is durable is remembered, and what is missing later
//! though neither expired nor pruned is a rollback. *Challenge*: now and then it is asked for a hash of an entry under a key that it cannot know before. *Delivery*:
//! what it says it holds it must hand over. *Answering*: every try counts towards its measured uptime. None of them proves that it will still hold
//! an entry tomorrow; several keepers, and members who compare, are what availability rests on.

use crate::crypto::{Hash, Secret};
use crate::history::{Header, LogKey, RoomId};
use crate::identity::DeviceId;
use crate::wire::Wire;
use crate::wire_enum;

const CHALLENGE: &str = "offhook 1 keeper challenge";
const RENDEZVOUS: &str = "offhook 1 keeper rendezvous";

/// A keeper's uptime is believed as if it had been measured this often before, once in vain.
const PRIOR_TRIES: u64 = 4;

/// What was found wrong with a keeper. It stays until the keeper is taken away or named anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It no longer has entries that it had said are on its disk.
    Rollback {
        /// How many, as far as is known here.
        entries: u32,
    },
    /// Its proof that it holds an entry was wrong, or it had none.
    WrongProof {},
    /// It says that it holds entries and does not hand them over.
    Withheld {
        /// How many.
        entries: u32,
    },
    /// It does not answer on a line that is up.
    Silent {},
    /// It refuses this room.
    Refuses {},
    /// It has no room left for this one.
    Full {},
}
wire_enum!(Fault {
    0 => Rollback { entries },
    1 => WrongProof {},
    2 => Withheld { entries },
    3 => Silent {},
    4 => Refuses {},
    5 => Full {},
});

impl Fault {
    /// Whether what the keeper says it holds counts for nothing from now on.
    pub fn is_lie(&self) -> bool {
        matches!(self, Self::WrongProof {} | Self::Withheld { .. })
    }

    /// In words, and what to do.
    pub fn words(&self) -> String {
        match self {
            Self::Rollback { entries } => {
                format!(
                    "lost {entries} entries that it had said it holds; what members still have is given to it again"
                )
            }
            Self::WrongProof {} => {
                "could not prove that it holds what it says; nothing it says is counted: replace it".to_owned()
            }
            Self::Withheld { entries } => {
                format!("says it holds {entries} entries and does not hand them over: replace it")
            }
            Self::Silent {} => "is reached and does not answer".to_owned(),
            Self::Refuses {} => "refuses this room: name it anew with a fresh address".to_owned(),
            Self::Full {} => "has no room left for this room's entries".to_owned(),
        }
    }
}

/// The proof that an entry is held, for a challenge's key: over the header and the payload, where there is one.
pub fn proof(key: &[u8; 32], log: &LogKey, header: &Header, payload: Option<&[u8]>) -> Hash {
    let mut held = log.0.to_vec();
    header.encode(&mut held);
    held.extend_from_slice(payload.unwrap_or_default());
    Secret(*key).derive(CHALLENGE, b"").mac(&held)
}

/// How often somebody was there when asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Uptime {
    /// Times asked.
    pub tries: u32,
    /// Times answered.
    pub answered: u32,
}
crate::wire_struct!(Uptime { tries, answered });

impl Uptime {
    /// Takes note of one try. The old weighs less as the new comes: half at 512 tries.
    pub fn note(&mut self, answered: bool) {
        if self.tries >= 512 {
            self.tries /= 2;
            self.answered /= 2;
        }
        self.tries += 1;
        self.answered += u32::from(answered);
    }

    /// The share of tries that were answered, in thousandths; `None` before the first.
    pub fn permille(&self) -> Option<u32> {
        (self.tries > 0).then(|| self.answered * 1000 / self.tries)
    }

    /// A cautious guess of it, in thousandths.
    fn weight(&self) -> u64 {
        let (tries, answered) = (u64::from(self.tries), u64::from(self.answered));
        (answered + PRIOR_TRIES - 1) * 1000 / (tries + PRIOR_TRIES)
    }
}

/// Orders volunteers by how well they suit a room, the best first: weighted rendezvous hashing, so that members who know the same volunteers propose the same
/// few, and load spreads over all in the measure of their uptime. It only proposes; the set is what the control log says.
pub fn propose(room: &RoomId, volunteers: &[(DeviceId, Uptime)]) -> Vec<DeviceId> {
    let mut scored: Vec<(f64, DeviceId)> = volunteers
        .iter()
        .map(|(device, uptime)| (score(room, device, uptime), *device))
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    scored.into_iter().map(|(_, device)| device).collect()
}

/// `-w / ln(h)` with `h` uniform in (0, 1): the volunteer with weight `w` wins in proportion to it (Schindelhauer and Schomaker, 2005). The weight is the uptime to the
/// fourth power: of two keepers, one down twice as often as the other is worth far less than half.
fn score(room: &RoomId, device: &DeviceId, uptime: &Uptime) -> f64 {
    let hash = crate::crypto::prefix8(&crate::crypto::hash(RENDEZVOUS, &[&room.0, &device.0]));
    // 53 bits are what a double holds; half a step keeps it off 0 and 1.
    let uniform = ((u64::from_be_bytes(hash) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let share = uptime.weight() as f64 / 1000.0;
    -share.powi(4) / uniform.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uptime(answered: u32, tries: u32) -> Uptime {
        Uptime { tries, answered }
    }

    #[test]
    fn who_is_there_more_often_is_proposed_more_often() {
        let all: Vec<(DeviceId, Uptime)> = (0..10)
            .map(|i| (DeviceId([i; 32]), uptime(if i < 5 { 95 } else { 50 }, 100)))
            .collect();
        let mut good = 0;
        for room in 0..200u8 {
            let best = propose(&RoomId([room; 32]), &all);
            good += best[..3].iter().filter(|device| device.0[0] < 5).count();
        }
        assert!(good > 480, "{good} of 600 were the ones that are up");
    }

    #[test]
    fn members_who_know_the_same_propose_the_same() {
        let all: Vec<(DeviceId, Uptime)> = (0..6).map(|i| (DeviceId([i; 32]), uptime(9, 10))).collect();
        let mut shuffled = all.clone();
        shuffled.reverse();
        let room = RoomId([3; 32]);
        assert_eq!(propose(&room, &all), propose(&room, &shuffled));
        let without: Vec<_> = all
            .iter()
            .copied()
            .filter(|(d, _)| *d != propose(&room, &all)[0])
            .collect();
        assert_eq!(
            propose(&room, &without),
            propose(&room, &all)[1..],
            "one gone moves no other"
        );
    }

    #[test]
    fn old_measurements_fade() {
        let mut uptime = Uptime::default();
        assert_eq!(uptime.permille(), None);
        (0..600).for_each(|_| uptime.note(false));
        (0..1200).for_each(|_| uptime.note(true));
        assert!(uptime.permille().unwrap() > 700, "{uptime:?}");
    }
}
