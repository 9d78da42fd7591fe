//! Looks devices up in the directory ([`crate::overlay::directory`]), and answers others who do.
//!
//! A question names a device by a hash of its key, so that only those who know the device understand whom it is about. An answer is the record that the device signed about itself, sealed under
//! a key that follows from the device's own: those who pass it on cannot read it. Whoever knows a device's key can ask where it is.
//!
//! Asked is for devices that do not answer where they were last: at once where somebody waits for them, else seldom. Where that finds nobody, and the person chose so, the Mainline DHT is asked
//! ([`crate::peer::dht`]).

use std::time::{Duration, Instant};

use rand_core::Rng;

use crate::crypto::{self, Secret};
use crate::identity::DeviceId;
use crate::overlay::directory::{Asker, Effort, Question, Token};
use crate::overlay::plan;
use crate::peer::Peer;
use crate::store::{Store, StoreError};
use crate::sync::frame::{AddressRecord, Frame};
use crate::wire::Wire;

/// What a question calls a device.
pub(super) type Tag = [u8; 16];

const TAG: &str = "offhook 1 directory tag";
const ANSWER: &str = "offhook 1 directory answer";

/// Between two look-ups of a device for which somebody waits.
const WAITED_GAP: Duration = Duration::from_secs(30);
/// Look-ups within [`WAITED_GAP`]: a room of hundreds in which nobody is there is not asked for all at once.
const WAITED_MAX: usize = 8;
/// Between two look-ups of a device for which nobody does, and between any two such.
const SPARE_PERIOD: Duration = Duration::from_hours(1);
const SPARE_GAP: Duration = Duration::from_secs(60);
/// So many calls have failed before a device is looked up for which nobody waits.
const SPARE_FAILURES: u32 = 2;

impl<S: Store> Peer<S> {
    /// A call failed: the device may be somewhere else.
    pub(super) fn seek_after_failure(&mut self, device: DeviceId) {
        if self.lines.is_empty() {
            self.dht_may_be_asked(false);
        }
        let failures = self.book.get(&device).map_or(0, |dial| dial.failures);
        if self.is_waited_for(&device) {
            self.seek(device, Effort::Waited);
        } else if failures >= SPARE_FAILURES {
            self.seek(device, Effort::Spare);
        }
    }

    /// Looks up those that somebody waits for and that cannot be called, or do not answer.
    pub(super) fn seek_waited(&mut self) {
        let now = self.ctx.now;
        let mut waited = self.waited_for();
        // Each in turn, beginning with those that were here last.
        waited.sort_by_cached_key(|device| {
            let dial = self.book.get(device);
            let seen_ms = dial.map_or(0, |dial| dial.record.seen_ms);
            (dial.and_then(|dial| dial.sought), std::cmp::Reverse(seen_ms), *device)
        });
        for device in waited {
            let is_sought = !self.lines.contains_key(&device)
                && self.book.get(&device).is_none_or(|dial| {
                    let is_known = !dial.record.addresses.is_empty() || dial.record.relay.is_some();
                    let is_slow = |since: Instant| now.saturating_duration_since(since) >= plan::SLOW;
                    !is_known || dial.failures > 0 || dial.in_flight.is_some_and(is_slow)
                });
            if is_sought {
                self.seek(device, Effort::Waited);
            }
        }
    }

    /// Asks peers where a device is, unless that was done lately.
    fn seek(&mut self, device: DeviceId, effort: Effort) {
        let now = self.ctx.now;
        let dial = self.dial_state(device);
        let gap = match effort {
            Effort::Waited => WAITED_GAP,
            Effort::Spare => SPARE_PERIOD,
        };
        let is_early = |at: Option<Instant>, gap| at.is_some_and(|at| now.saturating_duration_since(at) < gap);
        let (last, newer_ms) = (dial.sought, dial.record.made_ms);
        let is_enough = || {
            let sought = self.book.values().filter(|dial| is_early(dial.sought, WAITED_GAP));
            match effort {
                Effort::Waited => sought.count() >= WAITED_MAX,
                Effort::Spare => is_early(self.sought, SPARE_GAP),
            }
        };
        if is_early(last, gap) || is_enough() {
            return;
        }
        let lines: Vec<DeviceId> = self.lines.keys().copied().collect();
        let mut token: Token = [0; 8];
        self.ctx.rng.fill_bytes(&mut token);
        let asked = (self.directory).ask(token, device, effort, &lines, &mut self.ctx.rng, now);
        if effort == Effort::Waited {
            self.dht_may_be_asked(!asked.is_empty());
        }
        if asked.is_empty() {
            return;
        }
        self.sought = Some(now);
        self.dial_state(device).sought = Some(now);
        let question = Frame::Seek {
            token,
            tag: tag(&device),
            newer_ms,
            hops: effort.hops(),
        };
        for peer in asked {
            self.send(peer, &question);
        }
    }

    pub(super) fn on_seek(
        &mut self,
        from: DeviceId,
        token: Token,
        sought: Tag,
        newer_ms: u64,
        hops: u32,
    ) -> Result<(), StoreError> {
        let record = self
            .record_by_tag(&sought)
            .filter(|(_, made_ms, _)| *made_ms > newer_ms);
        let lines: Vec<DeviceId> = self.lines.keys().copied().collect();
        let now = self.ctx.now;
        let question = Question {
            from,
            token,
            hops,
            is_known: record.is_some(),
        };
        let step = (self.directory).on_question(question, &lines, &mut self.ctx.rng, now);
        if let (true, Some((device, _, record))) = (step.answer, record) {
            let mut salt = [0; 16];
            self.ctx.rng.fill_bytes(&mut salt);
            let sealed = crypto::seal_once(&answer_key(&device, &token, &salt), &token, &record);
            self.send(from, &Frame::Found { token, salt, sealed });
        }
        let question = Frame::Seek {
            token,
            tag: sought,
            newer_ms,
            hops: hops.saturating_sub(1),
        };
        for other in step.pass_to {
            self.send(other, &question);
        }
        Ok(())
    }

    pub(super) fn on_found(
        &mut self,
        peer: DeviceId,
        token: Token,
        salt: [u8; 16],
        sealed: Vec<u8>,
    ) -> Result<(), StoreError> {
        match self.directory.on_answer(peer, token, self.ctx.now) {
            Some(Asker::Line(asker)) => {
                self.send(asker, &Frame::Found { token, salt, sealed });
                Ok(())
            }
            Some(Asker::Own(device)) => {
                let opened = crypto::open_once(&answer_key(&device, &token, &salt), &token, &sealed);
                let record = opened.ok().and_then(|bytes| AddressRecord::from_bytes(&bytes).ok());
                // Whatever is not what was asked for is a liar's: others may know better.
                match record.filter(|record| record.device == device) {
                    Some(record) => self.take_record(&record).map(|_| ()),
                    None => Ok(()),
                }
            }
            None => Ok(()),
        }
    }

    /// A device's signed record, when it was made, and whose it is.
    fn record_by_tag(&self, sought: &Tag) -> Option<(DeviceId, u64, Vec<u8>)> {
        let own = self.my_addresses.as_ref().filter(|own| tag(&own.device) == *sought);
        if let Some(own) = own {
            return Some((own.device, own.made_ms, own.to_bytes()));
        }
        let device = self.tags.get(sought)?;
        let record = &self.book.get(device)?.record;
        (!record.signed.is_empty()).then(|| (*device, record.made_ms, record.signed.clone()))
    }

    fn is_waited_for(&self, device: &DeviceId) -> bool {
        self.waited_for().contains(device)
    }

    /// Devices through which something said here would be heard by anybody, and doors of pending joins.
    pub(super) fn waited_for(&self) -> Vec<DeviceId> {
        let unheard = self.unheard.iter().filter_map(|no| self.rooms.get(no));
        let members = unheard.flat_map(|room| room.devices.keys().copied());
        let doors = self
            .joins
            .values()
            .flat_map(|invite| invite.doorways.iter().map(|door| door.device));
        members
            .chain(doors)
            .filter(|device| *device != self.ctx.device)
            .collect()
    }
}

/// What a question calls a device.
pub(super) fn tag(device: &DeviceId) -> Tag {
    let hash = crypto::hash(TAG, &[&device.0]);
    let mut tag = [0; 16];
    tag.copy_from_slice(&hash[..16]);
    tag
}

fn answer_key(device: &DeviceId, token: &Token, salt: &[u8; 16]) -> Secret {
    Secret(crypto::hash(ANSWER, &[&device.0, token, salt]))
}
