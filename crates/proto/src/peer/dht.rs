//! What this device keeps in the Mainline DHT and looks for there ([`crate::overlay::dht`]), where its person chose to.
//!
//! *Kept* is the record of where this device is, as it signs it for its peers, sealed to those who know the device, under a key that those alone can compute: the device's own, blinded anew
//! for each day ([`crate::crypto::blind`]). Whoever does not know the device's key sees that somebody keeps something, and cannot tell it from what somebody else keeps, or the same device
//! on another day. Days begin at another time for each device, so that not all put at midnight.
//!
//! *Looked for* is a device that somebody waits for, that does not answer where it was last, and that those to whom there are lines have been asked for in vain. An answer counts where the
//! device signed it and it is newer; who is looked for in vain is looked for again less and less often. A peer that has no line at all looks for those seen last as well, some times: somebody has come online
//! and waits for everybody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand_core::Rng;

use crate::crypto::{self, Secret};
use crate::identity::DeviceId;
use crate::overlay::dht::Job;
use crate::overlay::dht::krpc::{Item, VALUE_BYTES_MAX, signed_text};
use crate::overlay::directory::PATIENCE;
use crate::peer::{Output, Peer};
use crate::store::{Store, StoreError};
use crate::sync::frame::AddressRecord;
use crate::wire::Wire;

const OFFSET: &str = "offhook 1 dht day";
const SALT: &str = "offhook 1 dht salt";
const RECORD: &str = "offhook 1 dht record";

/// How long a blinded key is used.
const DAY_MS: u64 = 24 * 3600 * 1000;
/// So near to the end of a day, the other side's clock may have another day.
const EDGE_MS: u64 = 3600 * 1000;
/// Hosts keep an item for two hours.
const PUT_PERIOD: Duration = Duration::from_hours(1);
/// Added by chance, up to.
const PUT_JITTER_MS: u32 = 10 * 60 * 1000;
/// How long after an address was learned it is put: a second one mostly follows at once.
const PUT_DELAY: Duration = Duration::from_secs(5);
/// Between two puts, however often addresses change.
const PUT_GAP: Duration = Duration::from_secs(120);
/// Between two look-ups of one device; doubled each time up to [`GET_GAP_MAX`].
const GET_GAP_MIN: Duration = Duration::from_secs(60);
const GET_GAP_MAX: Duration = Duration::from_hours(1);
/// Devices looked for at the same time.
const SOUGHT_MAX: usize = 8;
/// Devices that a peer without any line looks for, and how many look-ups it makes of them before it has a line or another address.
const ALONE_MAX: usize = 2;
const ALONE_TIMES: u32 = 12;
/// Bytes of a value before what is sealed.
const SALT_BYTES: usize = 16;

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct DhtUse {
    is_on: bool,
    /// Devices looked for lately.
    sought: BTreeMap<DeviceId, Sought>,
    look_at: Option<Instant>,
    put_at: Option<Instant>,
    put_last: Option<Instant>,
    /// Look-ups made because there is no line at all.
    alone: u32,
}

#[derive(Debug)]
struct Sought {
    key: [u8; 32],
    last: Instant,
    times: u32,
    /// Somebody waited for it, and not only for anybody.
    is_waited: bool,
}

impl Sought {
    fn again_at(&self) -> Instant {
        let doubled = GET_GAP_MIN.saturating_mul(1 << self.times.saturating_sub(1).min(10));
        self.last + doubled.min(GET_GAP_MAX)
    }
}

impl<S: Store> Peer<S> {
    pub(super) fn use_dht(&mut self, is_on: bool) {
        self.dht = DhtUse {
            is_on,
            ..DhtUse::default()
        };
        self.own_addresses_changed();
    }

    /// The own record is a new one.
    pub(super) fn own_addresses_changed(&mut self) {
        self.dht.alone = 0;
        if self.dht.is_on && self.my_addresses.is_some() {
            let earliest = self.dht.put_last.map_or(self.ctx.now, |last| last + PUT_GAP);
            self.dht.put_at = Some(earliest.max(self.ctx.now + PUT_DELAY));
        }
    }

    /// A device was looked for over open lines: the DHT is asked once they have had their time, or at once where there is none.
    pub(super) fn dht_may_be_asked(&mut self, has_lines: bool) {
        if self.dht.is_on {
            let at = self.ctx.now + if has_lines { PATIENCE } else { Duration::ZERO };
            self.dht.look_at = Some(self.dht.look_at.map_or(at, |earlier| earlier.min(at)));
        }
    }

    pub(super) fn next_dht_step(&self) -> Option<Instant> {
        self.dht.look_at.into_iter().chain(self.dht.put_at).min()
    }

    /// Does what is due.
    pub(super) fn tend_dht(&mut self) {
        let now = self.ctx.now;
        if self.dht.put_at.is_some_and(|at| at <= now) {
            self.put_own_record();
        }
        if self.dht.look_at.is_some_and(|at| at <= now) {
            self.look_in_dht();
        }
    }

    fn put_own_record(&mut self) {
        let now = self.ctx.now;
        let jitter = Duration::from_millis(u64::from(self.ctx.rng.next_u32() % PUT_JITTER_MS));
        // Under the next day's key soon after it begins.
        let day_ends = Duration::from_millis(DAY_MS - time_of_day(&self.ctx.device, self.ctx.wall_ms));
        let next = PUT_PERIOD.min(day_ends + PUT_DELAY) + jitter;
        self.dht.put_at = Some(now + next);
        self.dht.put_last = Some(now);
        let Some(record) = &self.my_addresses else { return };
        if record.addresses.is_empty() && record.relay.is_none() {
            return;
        }
        let day = day_of(&self.ctx.device, self.ctx.wall_ms);
        if let Some(item) = item(&self.secrets.device.0, record, day) {
            self.ctx.out.push(Output::Dht(Job::Put(item)));
        }
    }

    /// The last put led nowhere: there may have been no network yet.
    pub(super) fn put_again_soon(&mut self) {
        let soon = self.ctx.now + PUT_GAP;
        self.dht.put_at = self.dht.put_at.map(|at| at.min(soon));
    }

    /// Looks for those that somebody waits for, and that nobody else has found.
    fn look_in_dht(&mut self) {
        let now = self.ctx.now;
        self.dht.look_at = None;
        let waited: BTreeSet<DeviceId> = self.waited_for().into_iter().collect();
        let wanted = waited.iter().copied().chain(self.missed_when_alone());
        let lost: BTreeSet<DeviceId> = wanted.filter(|device| self.is_lost(device)).collect();
        // Who is lost again soon after is looked for with the patience of before.
        (self.dht.sought).retain(|device, sought| lost.contains(device) || sought.again_at() > now);
        for (device, sought) in &mut self.dht.sought {
            if waited.contains(device) && !sought.is_waited {
                (sought.times, sought.is_waited) = (1, true);
            }
        }
        for device in &lost {
            let is_due = match self.dht.sought.get(device) {
                Some(sought) => sought.again_at() <= now,
                None => self.dht.sought.len() < SOUGHT_MAX,
            };
            if is_due {
                let is_waited = waited.contains(device);
                self.dht.alone += u32::from(!is_waited);
                self.get_record(*device, is_waited);
            }
        }
        let again = lost.iter().filter_map(|device| self.dht.sought.get(device));
        self.dht.look_at = again.map(Sought::again_at).min();
    }

    /// Those seen last, where there is no line to anybody.
    fn missed_when_alone(&mut self) -> Vec<DeviceId> {
        if !self.lines.is_empty() {
            self.dht.alone = 0;
        }
        if !self.lines.is_empty() || self.dht.alone >= ALONE_TIMES {
            return Vec::new();
        }
        let devices = self.rooms.values().flat_map(|room| room.devices.keys());
        let others: BTreeSet<&DeviceId> = devices.filter(|device| **device != self.ctx.device).collect();
        let seen = |device: &DeviceId| Some((self.book.get(device)?.record.seen_ms, *device));
        let mut seen: Vec<(u64, DeviceId)> = others.into_iter().filter_map(seen).collect();
        seen.sort_unstable();
        let last = seen.into_iter().rev().take(ALONE_MAX);
        last.map(|(_, device)| device).collect()
    }

    /// Whether a device does not answer where it is known to have been.
    fn is_lost(&self, device: &DeviceId) -> bool {
        let is_silent = self.book.get(device).is_none_or(|dial| {
            let is_known = !dial.record.addresses.is_empty() || dial.record.relay.is_some();
            !is_known || dial.failures > 0
        });
        is_silent && !self.lines.contains_key(device)
    }

    fn get_record(&mut self, device: DeviceId, is_waited: bool) {
        let times = self.dht.sought.get(&device).map_or(0, |sought| sought.times);
        let day = day_looked_at(&device, self.ctx.wall_ms, times);
        let Some(key) = crypto::blind(&device.0, &tweak(day)) else {
            return;
        };
        let newer_than = self.book.get(&device).map_or(0, |dial| dial.record.made_ms);
        let sought = Sought {
            key,
            last: self.ctx.now,
            times: times + 1,
            is_waited,
        };
        self.dht.sought.insert(device, sought);
        self.ctx.out.push(Output::Dht(Job::Get { key, newer_than }));
    }

    /// An item that its key signed came; whose it is and what it says is looked at here.
    pub(super) fn on_dht_item(&mut self, item: &Item) -> Result<(), StoreError> {
        let of_key = |(device, sought): (&DeviceId, &Sought)| (sought.key == item.key).then_some(*device);
        let Some(device) = self.dht.sought.iter().find_map(of_key) else {
            return Ok(());
        };
        match open(&device, item) {
            Some(record) => self.take_record(&record).map(|_| ()),
            None => Ok(()),
        }
    }
}

/// A record as an item for a day. Equal records are equal items: hosts refuse a second value with the same number.
fn item(device: &crypto::KeyPair, record: &AddressRecord, day: u64) -> Option<Item> {
    let plain = record.to_bytes();
    let key = crypto::blind(&record.device.0, &tweak(day))?;
    let mut value = crypto::hash(SALT, &[&record.device.0, &key, &plain])[..SALT_BYTES].to_vec();
    value.extend(crypto::seal_once(&seal_key(&record.device, &key, &value), &key, &plain));
    if value.len() > VALUE_BYTES_MAX {
        // Eight addresses and a relay take half of it.
        return None;
    }
    let seq = record.made_ms;
    let (signed_by, signature) = device.sign_blinded(&tweak(day), &signed_text(seq, &value));
    let item = Item {
        key,
        seq,
        value,
        signature,
    };
    (signed_by == key).then_some(item)
}

/// What an item says, where the device sealed it.
fn open(device: &DeviceId, item: &Item) -> Option<AddressRecord> {
    let (salt, sealed) = item.value.split_at_checked(SALT_BYTES)?;
    let plain = crypto::open_once(&seal_key(device, &item.key, salt), &item.key, sealed).ok()?;
    let record = AddressRecord::from_bytes(&plain).ok()?;
    (record.device == *device).then_some(record)
}

fn seal_key(device: &DeviceId, key: &[u8; 32], salt: &[u8]) -> Secret {
    Secret(crypto::hash(RECORD, &[&device.0, key, salt]))
}

fn tweak(day: u64) -> Vec<u8> {
    [&b"offhook 1 dht "[..], &day.to_be_bytes()].concat()
}

/// How far the device's day is behind UTC's.
fn offset_ms(device: &DeviceId) -> u64 {
    u64::from_be_bytes(crypto::prefix8(&crypto::hash(OFFSET, &[&device.0]))) % DAY_MS
}

fn day_of(device: &DeviceId, wall_ms: u64) -> u64 {
    wall_ms.saturating_add(offset_ms(device)) / DAY_MS
}

fn time_of_day(device: &DeviceId, wall_ms: u64) -> u64 {
    wall_ms.saturating_add(offset_ms(device)) % DAY_MS
}

/// Under which day's key a device is looked for: every second time near the end of a day under its neighbour's.
fn day_looked_at(device: &DeviceId, wall_ms: u64, times: u32) -> u64 {
    let (day, time) = (day_of(device, wall_ms), time_of_day(device, wall_ms));
    match times % 2 {
        1 if time < EDGE_MS => day.saturating_sub(1),
        1 if time >= DAY_MS - EDGE_MS => day + 1,
        _ => day,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::KeyPair;
    use crate::rooms::{Address, RelayUrl};

    fn record(pair: &KeyPair, addresses: usize) -> AddressRecord {
        let address = |n: usize| Address(format!("[2001:db8::{n:x}]:4433").parse().unwrap());
        AddressRecord {
            device: DeviceId(pair.public()),
            made_ms: 1_790_000_000_000,
            addresses: (0..addresses).map(address).collect(),
            relay: Some(RelayUrl(format!("https://{}.example.org", "relay".repeat(9)))),
            signature: [9; 64],
        }
    }

    #[test]
    fn whoever_knows_the_device_finds_and_reads_what_it_keeps_and_nobody_else() {
        let (pair, other) = (
            KeyPair::from_seed(&Secret([1; 32])),
            KeyPair::from_seed(&Secret([2; 32])),
        );
        let record = record(&pair, 8);
        let item = item(&pair, &record, 7).unwrap();
        assert!(item.is_authentic() && item.value.len() <= VALUE_BYTES_MAX);
        assert_eq!(Some(item.key), crypto::blind(&record.device.0, &tweak(7)));
        assert_eq!(open(&record.device, &item), Some(record.clone()));
        assert_eq!(open(&DeviceId(other.public()), &item), None);
        let visible = [&item.value[..], &item.key].concat();
        assert!(!visible.windows(8).any(|window| record.device.0.starts_with(window)));
        assert_ne!(super::item(&pair, &record, 8).unwrap().key, item.key, "another day");
        assert_eq!(
            super::item(&pair, &record, 7),
            Some(item),
            "the same number, the same value"
        );
        // Somebody else's key signs for no key of this device.
        assert_eq!(super::item(&other, &record, 7), None);
    }

    #[test]
    fn days_meet_at_their_ends() {
        let device = DeviceId([3; 32]);
        let begins = DAY_MS * 20_000 - offset_ms(&device);
        let day = day_of(&device, begins);
        assert_eq!(day_of(&device, begins - 1), day - 1);
        let looked = |wall_ms| [0, 1, 2].map(|times| day_looked_at(&device, wall_ms, times));
        assert_eq!(looked(begins), [day, day - 1, day]);
        assert_eq!(looked(begins + DAY_MS / 2), [day; 3]);
        assert_eq!(looked(begins + DAY_MS - 1), [day, day + 1, day]);
        assert_ne!(offset_ms(&device), offset_ms(&DeviceId([4; 32])));
    }
}
