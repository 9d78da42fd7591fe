//! Where devices are: what is known of it from whom, and looking it up over the lines that are open.
//!
//! Sources, cheapest first: an invite; members, who hand on signed records of the devices of a shared room; the local network; the look-up over open lines
//! ([`crate::overlay::directory`]). A record that a device signed is kept for whoever has a line here, so that a node which many call, a keeper for instance, can
//! say where they are. Nobody's word counts: an address leads to a device only if that device answers there with its own key.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::crypto;
use crate::identity::DeviceId;
use crate::overlay::directory::{Seek, Step};
use crate::peer::author::random8;
use crate::peer::dial::{ADDRESS_RECORD, address_body};
use crate::peer::view::Origin;
use crate::peer::{Ctx, Peer};
use crate::store::{Store, StoreError};
use crate::sync::frame::{AddressRecord, Frame};
use crate::wire::Wire;

/// Records of strangers that are remembered.
const SIGHTINGS_MAX: usize = 1024;
/// Dials that failed before a device is looked up.
const FAILURES_BEFORE: u32 = 2;
/// The pause before a device is looked up again; doubled up to [`AGAIN_MAX`].
const AGAIN_MIN: Duration = Duration::from_secs(30);
/// The longest pause before a device is looked up again.
const AGAIN_MAX: Duration = Duration::from_secs(3600);
/// Between two look-ups.
const PACE: Duration = Duration::from_secs(2);

/// When a device is looked up next.
#[derive(Debug, Clone, Copy)]
pub(super) struct NextSeek {
    at: Instant,
    pause: Duration,
}

/// What is known of devices beyond rosters, and for this run only.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    /// Records of devices that had a line here and are nobody's in own rooms.
    records: BTreeMap<DeviceId, AddressRecord>,
    /// From whom each address came.
    origins: BTreeMap<DeviceId, BTreeMap<SocketAddr, Origin>>,
    next: BTreeMap<DeviceId, NextSeek>,
    pace: Option<Instant>,
}

impl Sightings {
    /// Remembers where addresses came from. The first source to name an address keeps it.
    pub(super) fn note_origin(&mut self, device: DeviceId, addresses: &[SocketAddr], origin: Origin) {
        let known = self.origins.entry(device).or_default();
        for address in addresses {
            known.entry(*address).or_insert(origin);
        }
        // As many as are kept of a device, and some that came and went.
        while known.len() > 32 {
            known.pop_first();
        }
    }

    pub(super) fn origin(&self, device: &DeviceId, address: &SocketAddr) -> Origin {
        let known = self.origins.get(device).and_then(|known| known.get(address));
        known.copied().unwrap_or(Origin::Remembered)
    }
}

/// Names that nobody can guess.
fn namer(ctx: &mut Ctx) -> impl FnMut() -> [u8; 8] {
    || random8(ctx)
}

impl AddressRecord {
    /// Whether the device that it speaks of signed it.
    pub(super) fn is_authentic(&self) -> bool {
        let body = address_body(&self.device, self.made_ms, &self.addresses, self.relay.as_ref());
        crypto::verify(&self.device.0, ADDRESS_RECORD, &[&body], &self.signature).is_ok()
    }
}

impl<S: Store> Peer<S> {
    /// Keeps the record of a device that has a line here, for those who ask.
    pub(super) fn note_sighting(&mut self, record: &AddressRecord) {
        let records = &mut self.sightings.records;
        let newer = records.get(&record.device).is_none_or(|known| known.made_ms < record.made_ms);
        if !newer || !record.is_authentic() {
            return;
        }
        records.insert(record.device, record.clone());
        if records.len() > SIGHTINGS_MAX
            && let Some(oldest) = records.iter().min_by_key(|(_, record)| record.made_ms).map(|(device, _)| *device)
        {
            records.remove(&oldest);
        }
    }

    /// The newest signed record of a device that is here.
    fn record_of(&self, device: &DeviceId) -> Option<AddressRecord> {
        if *device == self.ctx.device {
            return self.my_addresses.clone();
        }
        let in_book = self
            .book
            .get(device)
            .and_then(|dial| AddressRecord::from_bytes(&dial.record.signed).ok());
        let seen = self.sightings.records.get(device).cloned();
        in_book.into_iter().chain(seen).max_by_key(|record| record.made_ms)
    }

    /// Lines to ask over, those that were up longest and heard of last first.
    fn lines_to_ask(&self) -> Vec<DeviceId> {
        let mut lines: Vec<(bool, DeviceId)> = self
            .lines
            .keys()
            .map(|peer| (!self.is_only_keeper(peer), *peer))
            .collect();
        // Keepers know most.
        lines.sort_unstable();
        lines.truncate(super::dial::LINES_MAX);
        lines.into_iter().map(|(_, peer)| peer).collect()
    }

    /// Begins a look-up of a device that is wanted and not reached where it is thought to be.
    pub(super) fn plan_seeks(&mut self) -> Result<(), StoreError> {
        let now = self.ctx.now;
        if self.lines.is_empty() || self.sightings.pace.is_some_and(|at| at > now) {
            return Ok(());
        }
        let due = |device: &DeviceId| self.sightings.next.get(device).is_none_or(|next| next.at <= now);
        let Some(device) = self.unreached().into_iter().find(due) else {
            return Ok(());
        };
        self.sightings.pace = Some(now + PACE);
        let pause = self
            .sightings
            .next
            .get(&device)
            .map_or(AGAIN_MIN, |next| (next.pause * 2).min(AGAIN_MAX));
        self.sightings.next.insert(device, NextSeek { at: now + pause, pause });
        let newer_than_ms = self.record_of(&device).map_or(0, |record| record.made_ms);
        let lines = self.lines_to_ask();
        let steps = self.directory.seek(device, newer_than_ms, lines, now, &mut namer(&mut self.ctx));
        self.take_steps(steps)
    }

    /// Devices worth a line that dialling did not reach.
    fn unreached(&self) -> Vec<DeviceId> {
        let wanted = self.wanted_devices();
        let lost = |device: &DeviceId| {
            !self.lines.contains_key(device)
                && self.book.get(device).is_none_or(|dial| {
                    dial.failures >= FAILURES_BEFORE
                        || dial.record.addresses.is_empty() && dial.record.relay.is_none()
                })
        };
        wanted.into_iter().filter(lost).collect()
    }

    /// Devices of members and keepers of own rooms, and those that pending invites name.
    fn wanted_devices(&self) -> std::collections::BTreeSet<DeviceId> {
        let mut wanted = std::collections::BTreeSet::new();
        for room in self.rooms.values().filter(|room| room.is_synced()) {
            wanted.extend(room.devices.keys().copied());
            wanted.extend(room.roster.keepers.iter().map(|place| place.device));
        }
        for invite in self.joins.values() {
            wanted.extend(invite.doorways.iter().map(|door| door.device));
        }
        wanted.remove(&self.ctx.device);
        wanted
    }

    pub(super) fn on_seek(&mut self, peer: DeviceId, seek: Seek) -> Result<(), StoreError> {
        let known = self.record_of(&seek.device).filter(|record| record.made_ms > seek.newer_than_ms);
        let lines = self.lines_to_ask().into_iter().filter(|line| *line != seek.device).collect();
        let now = self.ctx.now;
        let steps = self.directory.on_seek(peer, seek, known, lines, now, &mut namer(&mut self.ctx));
        self.take_steps(steps)
    }

    pub(super) fn on_sighting(
        &mut self,
        peer: DeviceId,
        id: [u8; 8],
        record: Option<AddressRecord>,
    ) -> Result<(), StoreError> {
        let wanted = self.directory.device_of(peer, &id);
        // A record of somebody else, or one that the device did not sign, is no answer.
        let record = record.filter(|record| Some(record.device) == wanted && record.is_authentic());
        let record = record.map(|record| (record.made_ms, record));
        let now = self.ctx.now;
        let steps = self.directory.on_answer(peer, id, record, now, &mut namer(&mut self.ctx));
        self.take_steps(steps)
    }

    pub(super) fn directory_line_down(&mut self, peer: DeviceId) -> Result<(), StoreError> {
        let now = self.ctx.now;
        let steps = self.directory.line_down(peer, now, &mut namer(&mut self.ctx));
        self.take_steps(steps)
    }

    pub(super) fn directory_timeout(&mut self) -> Result<(), StoreError> {
        let now = self.ctx.now;
        let steps = self.directory.timeout(now, &mut namer(&mut self.ctx));
        self.take_steps(steps)?;
        self.plan_seeks()
    }

    /// When a look-up goes on, or the next one is due.
    pub(super) fn next_seek(&self) -> Option<Instant> {
        let going_on = self.directory.poll_timeout();
        let begins = |device: &DeviceId| {
            let next = self.sightings.next.get(device).map(|next| next.at);
            next.max(self.sightings.pace).unwrap_or(self.ctx.now)
        };
        let next = match self.lines.is_empty() {
            true => None,
            false => self.unreached().iter().map(begins).min(),
        };
        going_on.into_iter().chain(next).min()
    }

    fn take_steps(&mut self, steps: Vec<Step<AddressRecord>>) -> Result<(), StoreError> {
        for step in steps {
            match step {
                Step::Ask { peer, seek } => self.send(peer, &Frame::Seek { seek }),
                Step::Tell { peer, id, record } => {
                    if self.lines.contains_key(&peer) {
                        self.send(peer, &Frame::Sighting { id, record });
                    }
                }
                Step::Found { record } => {
                    self.sightings.next.remove(&record.device);
                    self.take_address_record(record, Origin::LookUp)?;
                }
                Step::NotFound { .. } => {}
            }
        }
        Ok(())
    }
}
