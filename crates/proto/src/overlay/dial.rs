//! One dial: which addresses of a device it tries, and how long it is waited for.
//!
//! *Addresses*: a device that was reached is tried at the address that worked. Once that has failed it stays one of the two that are tried, for a device may be slow to answer, and the
//! others come beside it in turn; of a device that was never reached, the next two each time, so that a dead address does not stand before a good one for ever.
//!
//! *Patience*: the transport sends a full packet to each address at 0, two at 1, 3 and 7 s each (RFC 9002 section 6.2), so a dial to the dead costs 20 KB in ten seconds. One that nobody
//! waits for ends sooner where nothing at all has come back; where anything has, it has its ten seconds.

use std::time::Duration;

use crate::overlay::ledger::{ADDRESSES_PER_DIAL_MAX, Urgency};

/// A dial ends after this, whatever has come back.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// The first round of packets and the second, sent after a second.
const SPARE: Duration = Duration::from_millis(2_800);
/// The third round too.
const COVER: Duration = Duration::from_secs(5);

/// How long a dial is waited for of which nothing at all has come back. What comes through a relay is not seen apart from what else comes from there, so one through a relay has its ten seconds.
pub fn patience(urgency: Urgency, by_relay: bool) -> Duration {
    match urgency {
        _ if by_relay => TIMEOUT,
        Urgency::Urgent => TIMEOUT,
        Urgency::Cover => COVER,
        Urgency::Spare => SPARE,
    }
}

/// Which of a device's addresses, best first, the next dial tries, after so many in a row that nobody answered. `was_reached`: a line came up at the first of them.
pub fn addresses<T: Clone>(all: &[T], was_reached: bool, missed: u32) -> Vec<T> {
    let missed = missed as usize;
    match all {
        [good, ..] if was_reached && missed == 0 => vec![good.clone()],
        [good, others @ ..] if was_reached && !others.is_empty() => {
            vec![good.clone(), others[(missed - 1) % others.len()].clone()]
        }
        _ => {
            let first = ADDRESSES_PER_DIAL_MAX * missed;
            let next = first..first + ADDRESSES_PER_DIAL_MAX.min(all.len());
            next.map(|at| all[at % all.len()].clone()).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_that_worked_is_tried_each_time() {
        let tried: Vec<Vec<u8>> = (0..5).map(|missed| addresses(&[1, 2, 3, 4], true, missed)).collect();
        assert_eq!(tried, [vec![1], vec![1, 2], vec![1, 3], vec![1, 4], vec![1, 2]]);
        assert_eq!(addresses(&[1], true, 3), [1]);
    }

    #[test]
    fn a_device_never_reached_is_tried_everywhere() {
        let tried: Vec<Vec<u8>> = (0..4).map(|missed| addresses(&[1, 2, 3], false, missed)).collect();
        assert_eq!(tried, [[1, 2], [3, 1], [2, 3], [1, 2]]);
        assert_eq!(addresses(&[1], false, 7), [1]);
        assert_eq!(addresses::<u8>(&[], false, 1), Vec::<u8>::new());
        assert_eq!(addresses::<u8>(&[], true, 0), Vec::<u8>::new());
    }

    #[test]
    fn what_somebody_waits_for_is_waited_for() {
        assert_eq!(patience(Urgency::Urgent, false), TIMEOUT);
        assert!(patience(Urgency::Spare, false) < patience(Urgency::Cover, false));
        assert!(patience(Urgency::Cover, false) < TIMEOUT);
        assert_eq!(patience(Urgency::Spare, true), TIMEOUT);
    }
}
