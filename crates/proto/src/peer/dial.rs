//! Whom to hold a line to: the few peers that cover the rooms, dialled with patience.
//!
//! Candidates are devices of members of own rooms with a known address or relay, and the doorways of pending joins. They are taken greedily by how many
//! rooms they cover that are covered less than twice (greedy set cover), at most [`DIALS_MAX`] dials at once, at most [`LINES_MAX`] lines sought.
//! A failed dial is repeated after a delay that doubles up to [`RETRY_MAX`], with full jitter; news of an address begins anew.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_core::Rng;

use crate::crypto;
use crate::identity::{DeviceId, PersonId};
use crate::peer::record::{self, DeviceRecord};
use crate::peer::{Output, Peer, table};
use crate::rooms::{Address, RelayUrl};
use crate::store::{RoomNo, Store, StoreError};
use crate::sync::frame::{AddressRecord, DEVICE_ADDRESSES_MAX, Frame, RECORDS_MAX};
use crate::wire::Wire;

/// Lines sought by dialling; others may call beyond that.
pub(super) const LINES_MAX: usize = 12;
/// Lines sought for rooms that none of those covers, and for pending joins.
const LINES_AT_MOST: usize = 20;
/// Dials in flight.
const DIALS_MAX: usize = 4;
/// Rooms are covered by this many lines where possible.
const COVER: usize = 2;
/// The first delay before a dial is repeated.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// The longest delay before a dial is repeated.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// A dial that nothing was heard of counts as failed.
const DIAL_TIMEOUT: Duration = Duration::from_secs(20);
/// A line above [`LINES_MAX`] with nothing to say for this long is closed.
const IDLE: Duration = Duration::from_secs(90);
/// Addresses kept of one device.
const ADDRESSES_MAX: usize = 8;

const ADDRESS_RECORD: &str = "offhook 1 address record";

/// What is known of reaching a device.
#[derive(Debug, Clone)]
pub(super) struct Dial {
    pub record: DeviceRecord,
    pub in_flight: Option<Instant>,
    pub failures: u32,
    pub next: Instant,
}

impl<S: Store> Peer<S> {
    fn dial_state(&mut self, device: DeviceId) -> &mut Dial {
        let now = self.ctx.now;
        self.book.entry(device).or_insert_with(|| Dial {
            record: DeviceRecord::default(),
            in_flight: None,
            failures: 0,
            next: now,
        })
    }

    /// Remembers addresses of a device, newest knowledge first.
    pub(super) fn note_addresses(
        &mut self,
        device: DeviceId,
        addresses: Vec<SocketAddr>,
        relay: Option<RelayUrl>,
    ) -> Result<(), StoreError> {
        if device == self.ctx.device {
            return Ok(());
        }
        let dial = self.dial_state(device);
        let mut merged: Vec<Address> = addresses.into_iter().map(Address).collect();
        merged.extend(dial.record.addresses.iter().copied());
        let mut seen = std::collections::BTreeSet::new();
        merged.retain(|address| seen.insert(*address));
        merged.truncate(ADDRESSES_MAX);
        let relay = relay.or_else(|| dial.record.relay.clone());
        if merged != dial.record.addresses || relay != dial.record.relay {
            dial.record.addresses = merged;
            dial.record.relay = relay;
            // A dial under way goes to where the device was: the next one need not wait for its end.
            dial.in_flight = None;
            let bytes = dial.record.to_bytes();
            self.store.put(&table::device(&device), &bytes)?;
        }
        Ok(())
    }

    /// Tries a device at the next opportunity.
    pub(super) fn dial_soon(&mut self, device: DeviceId) {
        let now = self.ctx.now;
        let dial = self.dial_state(device);
        dial.failures = 0;
        dial.next = now;
    }

    pub(super) fn dial_everybody_soon(&mut self) {
        let now = self.ctx.now;
        for dial in self.book.values_mut() {
            dial.failures = 0;
            dial.next = now;
            dial.in_flight = None;
        }
        // Everybody at once would be a herd: spread over the first second.
        let devices: Vec<DeviceId> = self.book.keys().copied().collect();
        for device in devices {
            let jitter = Duration::from_millis(u64::from(self.ctx.rng.next_u32() % 1000));
            self.dial_state(device).next = now + jitter;
        }
    }

    pub(super) fn dial_failed(&mut self, device: DeviceId) {
        let jitter = self.ctx.rng.next_u32();
        let now = self.ctx.now;
        let Some(dial) = self.book.get_mut(&device) else { return };
        dial.in_flight = None;
        dial.failures = dial.failures.saturating_add(1);
        let ceiling = RETRY_MIN.saturating_mul(1 << dial.failures.min(7)).min(RETRY_MAX);
        let spread = ceiling.mul_f64(f64::from(jitter) / f64::from(u32::MAX));
        dial.next = now + RETRY_MIN / 2 + spread;
    }

    /// Begins dials that are due.
    pub(super) fn plan_dials(&mut self) {
        let now = self.ctx.now;
        let expired = |dial: &Dial| {
            dial.in_flight
                .is_some_and(|since| now.duration_since(since) > DIAL_TIMEOUT)
        };
        let late: Vec<DeviceId> = self
            .book
            .iter()
            .filter(|(_, dial)| expired(dial))
            .map(|(device, _)| *device)
            .collect();
        for device in late {
            self.dial_failed(device);
        }
        let mut in_flight = self.book.values().filter(|dial| dial.in_flight.is_some()).count();
        let candidates = self.candidates();
        let mut covered = self.coverage();
        let mut lines = self.lines.len() + in_flight;
        let mut open: Vec<(DeviceId, Vec<RoomNo>)> = candidates.into_iter().collect();
        while in_flight < DIALS_MAX && lines < LINES_AT_MOST && !open.is_empty() {
            if lines >= LINES_MAX {
                let uncovered = |no: &RoomNo| covered.get(no).copied().unwrap_or(0) == 0;
                open.retain(|(_, rooms)| rooms.iter().any(uncovered));
            }
            let gain = |rooms: &[RoomNo]| {
                rooms
                    .iter()
                    .filter(|no| covered.get(no).copied().unwrap_or(0) < COVER)
                    .count()
            };
            let best = open.iter().enumerate().max_by_key(|(i, (device, rooms))| {
                (gain(rooms), self.book[device].record.seen_ms, std::cmp::Reverse(*i))
            });
            let Some((at, _)) = best else { break };
            let (device, rooms) = open.swap_remove(at);
            let Some(dial) = self.book.get_mut(&device) else {
                continue;
            };
            if dial.next > now || dial.in_flight.is_some() {
                continue;
            }
            dial.in_flight = Some(now);
            let addresses = dial.record.addresses.iter().map(|a| a.0).collect();
            let relay = dial.record.relay.as_ref().map(|url| url.0.clone());
            self.ctx.out.push(Output::Dial {
                peer: device,
                addresses,
                relay,
            });
            for no in rooms {
                *covered.entry(no).or_insert(0) += 1;
            }
            in_flight += 1;
            lines += 1;
        }
    }

    /// Devices worth a line that have none, with the rooms that they cover.
    fn candidates(&self) -> BTreeMap<DeviceId, Vec<RoomNo>> {
        let mut candidates: BTreeMap<DeviceId, Vec<RoomNo>> = BTreeMap::new();
        let reachable = |device: &DeviceId| {
            let known = self.book.get(device);
            *device != self.ctx.device
                && !self.lines.contains_key(device)
                && known.is_some_and(|dial| !dial.record.addresses.is_empty() || dial.record.relay.is_some())
        };
        for room in self.rooms.values().filter(|room| room.seeks_lines()) {
            for device in room
                .devices
                .keys()
                .chain(&room.sponsors)
                .filter(|device| reachable(device))
            {
                candidates.entry(*device).or_default().push(room.no);
            }
            for place in room.roster.keepers.iter().filter(|place| reachable(&place.device)) {
                candidates.entry(place.device).or_default().push(room.no);
            }
        }
        for (no, invite) in &self.joins {
            for doorway in invite.doorways.iter().filter(|doorway| reachable(&doorway.device)) {
                candidates.entry(doorway.device).or_default().push(*no);
            }
        }
        candidates
    }

    /// How many lines cover each room.
    fn coverage(&self) -> BTreeMap<RoomNo, usize> {
        let mut covered = BTreeMap::new();
        for room in self.rooms.values() {
            let serves = |peer: &&DeviceId| room.devices.contains_key(peer) || self.is_keeper(room.no, peer);
            let lines = self.lines.keys().filter(serves).count();
            covered.insert(room.no, lines);
        }
        covered
    }

    /// When the next dial is due, if there is room for it.
    pub(super) fn next_dial(&self) -> Option<Instant> {
        let in_flight = self.book.values().filter_map(|dial| dial.in_flight);
        let expiry = in_flight
            .clone()
            .min()
            .map(|since| since + DIAL_TIMEOUT + Duration::from_millis(1));
        let in_flight = in_flight.count();
        let lines = self.lines.len() + in_flight;
        if in_flight >= DIALS_MAX || lines >= LINES_AT_MOST {
            return expiry;
        }
        let covered = self.coverage();
        let uncovered = |no: &RoomNo| covered.get(no).copied().unwrap_or(0) == 0;
        let wanted = |rooms: &Vec<RoomNo>| lines < LINES_MAX || rooms.iter().any(uncovered);
        let candidates = self.candidates().into_iter().filter(|(_, rooms)| wanted(rooms));
        let waiting = candidates.filter_map(|(device, _)| {
            let dial = self.book.get(&device)?;
            dial.in_flight.is_none().then_some(dial.next)
        });
        waiting.chain(expiry).min()
    }

    /// Closes lines beyond those sought that have had nothing to say.
    pub(super) fn close_idle(&mut self) {
        let now = self.ctx.now;
        let mut surplus = self.lines.len().saturating_sub(LINES_MAX);
        let covered = self.coverage();
        let idle: Vec<DeviceId> = self
            .lines
            .iter()
            .filter(|(_, line)| now.duration_since(line.last_frame) > IDLE)
            .map(|(p, _)| *p)
            .collect();
        for peer in idle {
            if surplus == 0 {
                return;
            }
            let only_one = |no: &RoomNo| covered.get(no).is_some_and(|lines| *lines <= 1);
            if self.lines[&peer].rooms.keys().any(only_one) {
                continue;
            }
            surplus -= 1;
            self.ctx.out.push(Output::Close { peer, reason: "idle" });
            self.drop_line(peer);
        }
    }

    /// The own addresses, signed, for others to hand on.
    pub(super) fn state_own_addresses(
        &mut self,
        addresses: &[SocketAddr],
        relay: Option<&str>,
    ) -> Result<(), StoreError> {
        let addresses: Vec<Address> = addresses
            .iter()
            .take(DEVICE_ADDRESSES_MAX)
            .copied()
            .map(Address)
            .collect();
        let relay = relay.map(|url| RelayUrl(url.to_owned()));
        let unsigned = (self.ctx.device, self.ctx.wall_ms);
        let body = address_body(&unsigned.0, unsigned.1, &addresses, relay.as_ref());
        let signature = self.secrets.device.0.sign(ADDRESS_RECORD, &[&body]);
        let made_ms = self.ctx.wall_ms;
        let record = AddressRecord {
            device: self.ctx.device,
            made_ms,
            addresses,
            relay,
            signature,
        };
        self.my_addresses = Some(record);
        let peers: Vec<DeviceId> = self.lines.keys().copied().collect();
        for peer in peers {
            self.send_addresses(peer);
        }
        Ok(())
    }

    /// Tells a peer where this device is, and where other members of shared rooms are.
    pub(super) fn send_addresses(&mut self, peer: DeviceId) {
        let Some(line) = self.lines.get_mut(&peer) else { return };
        let mut records: Vec<AddressRecord> = self.my_addresses.iter().cloned().collect();
        for no in line.rooms.keys() {
            let Some(room) = self.rooms.get(no) else { continue };
            if !room.devices.contains_key(&peer) {
                continue;
            }
            for device in room.devices.keys().filter(|device| **device != peer) {
                let signed = self
                    .book
                    .get(device)
                    .map(|dial| dial.record.signed.as_slice())
                    .unwrap_or_default();
                records.extend(AddressRecord::from_bytes(signed).ok());
            }
        }
        records.retain(|record| {
            let sent = line.addresses_sent.entry(record.device).or_insert(0);
            let newer = *sent < record.made_ms;
            *sent = record.made_ms.max(*sent);
            newer
        });
        records.truncate(RECORDS_MAX);
        if !records.is_empty() {
            self.send(peer, &Frame::Addresses { records });
        }
    }

    pub(super) fn on_addresses(&mut self, records: Vec<AddressRecord>) -> Result<(), StoreError> {
        for record in records {
            let known = self
                .rooms
                .values()
                .any(|room| room.devices.contains_key(&record.device) || self.is_keeper(room.no, &record.device));
            let body = address_body(&record.device, record.made_ms, &record.addresses, record.relay.as_ref());
            let authentic = || crypto::verify(&record.device.0, ADDRESS_RECORD, &[&body], &record.signature).is_ok();
            let newer = self
                .book
                .get(&record.device)
                .is_none_or(|dial| dial.record.made_ms < record.made_ms);
            if !known || !newer || record.device == self.ctx.device || !authentic() {
                continue;
            }
            let addresses = record.addresses.iter().map(|a| a.0).collect();
            self.note_addresses(record.device, addresses, record.relay.clone())?;
            let dial = self.dial_state(record.device);
            dial.record.made_ms = record.made_ms;
            dial.record.signed = record.to_bytes();
            let bytes = dial.record.to_bytes();
            self.store.put(&table::device(&record.device), &bytes)?;
            if !self.lines.contains_key(&record.device) {
                self.dial_soon(record.device);
            }
        }
        Ok(())
    }

    /// A line came up: what is known of reaching the device is up to date.
    pub(super) fn note_seen(&mut self, device: DeviceId, address: Option<SocketAddr>) -> Result<(), StoreError> {
        let wall_ms = self.ctx.wall_ms;
        if let Some(address) = address.filter(|_| self.book.get(&device).is_none_or(|d| d.record.addresses.is_empty()))
        {
            self.note_addresses(device, vec![address], None)?;
        }
        let dial = self.dial_state(device);
        dial.in_flight = None;
        dial.failures = 0;
        dial.record.seen_ms = wall_ms;
        let bytes = dial.record.to_bytes();
        self.store.put(&table::device(&device), &bytes)
    }

    pub(super) fn load_book(&mut self) -> Result<(), StoreError> {
        let from = table::key(table::DEVICES, &[]);
        let to = crate::store::after_prefix(&from);
        for (key, value) in self
            .store
            .scan(&from, &to, crate::store::Direction::Ascending, usize::MAX)?
        {
            let Some(device) = key.get(1..33).and_then(|b| b.try_into().ok()).map(DeviceId) else {
                continue;
            };
            let record: DeviceRecord = record::decode(&value, "device")?;
            self.dial_state(device).record = record;
        }
        Ok(())
    }

    /// The person behind a device, as far as rosters tell.
    pub(super) fn person_of(&self, device: &DeviceId) -> Option<PersonId> {
        self.rooms.values().find_map(|room| room.devices.get(device)).copied()
    }
}

fn address_body(device: &DeviceId, made_ms: u64, addresses: &[Address], relay: Option<&RelayUrl>) -> Vec<u8> {
    let mut body = device.to_bytes();
    made_ms.encode(&mut body);
    crate::wire::put_list(&mut body, addresses);
    relay.cloned().encode(&mut body);
    body
}

/// The first digits of a device's id: enough to name it.
pub(super) fn short(device: &DeviceId) -> String {
    device.0[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}
