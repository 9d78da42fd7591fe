//! How far each device has got: receipts are states that replace each other, signed by the device's log, handed on, and never entries.

use std::collections::BTreeMap;

use crate::crypto;
use crate::history::{EntryId, IntervalSet, LogKey};
use crate::identity::DeviceId;
use crate::peer::record::{self, DeliveryRecord, ReceiptsGiven};
use crate::peer::{Event, Peer, table};
use crate::store::{RoomNo, Store, StoreError};
use crate::sync::frame::{Frame, RECEIPT_LOGS_MAX, Receipt};
use crate::wire::{Wire, put_list, put_varint};

/// Rooms with more devices than this exchange no receipts; only direct acknowledgements count there.
pub(super) const RECEIPT_DEVICES_MAX: usize = 50;
/// Receipts in one frame.
const RECEIPTS_FRAME_MAX: usize = 128;
/// Entries that one step of a delivery is told of.
const EVENTS_MAX: u32 = 64;
/// Pieces of the own log that a device may say it holds.
const REACHED_PIECES_MAX: usize = 1024;

const RECEIPT: &str = "offhook 1 receipt";

impl<S: Store> Peer<S> {
    /// A device holds entries, among them perhaps own ones.
    pub(super) fn note_reached(
        &mut self,
        device: DeviceId,
        no: RoomNo,
        has: &BTreeMap<LogKey, IntervalSet>,
    ) -> Result<(), StoreError> {
        let Some(room) = self.rooms.get(&no) else { return Ok(()) };
        let Some(own) = room.own.as_ref().map(|own| own.log) else {
            return Ok(());
        };
        match has.get(&own) {
            Some(seqs) => self.update_delivery(device, no, seqs, 0),
            None => Ok(()),
        }
    }

    fn update_delivery(
        &mut self,
        device: DeviceId,
        no: RoomNo,
        seqs: &IntervalSet,
        read: u32,
    ) -> Result<(), StoreError> {
        let Some(room) = self.rooms.get_mut(&no) else {
            return Ok(());
        };
        let Some(own) = room.own.as_ref().map(|own| own.log) else {
            return Ok(());
        };
        let top = room.logs.get(&own).map_or(0, |state| state.held.max());
        let record = room.deliveries.entry(device).or_default();
        let before = record.clone();
        record.reached.union(&seqs.up_to(top));
        record.read = record.read.max(read.min(top));
        if record.reached.ranges().len() > REACHED_PIECES_MAX {
            *record = before;
            return Ok(());
        }
        if room.farewell_due && record.reached.contains(top) {
            room.farewell_due = false;
            room.dirty = true;
        }
        if *record == before {
            return Ok(());
        }
        self.store
            .put(&table::room_device(table::DELIVERIES, no, &device), &record.to_bytes())?;
        let news = record.reached.minus(&before.reached);
        let mut changed: Vec<u32> = news
            .newest(EVENTS_MAX)
            .iter()
            .flat_map(|(from, to)| *from..=*to)
            .collect();
        changed.extend(before.read + 1..=record.read);
        let id = room.id;
        for seq in changed.into_iter().take(EVENTS_MAX as usize) {
            let id_of = EntryId { log: own.prefix(), seq };
            self.ctx.event(Event::Entry {
                room: id,
                id: id_of,
                new: false,
            });
        }
        Ok(())
    }

    /// The own position changed: says so soon.
    pub(super) fn receipt_due(&mut self, no: RoomNo) {
        self.receipts_due.insert(no);
        let at = self.ctx.now + super::RECEIPT_DELAY;
        self.receipts_at = Some(self.receipts_at.map_or(at, |due| due.min(at)));
    }

    /// Others' entries came: says so a little later, for authors that have no line to this node.
    pub(super) fn delivery_due(&mut self, no: RoomNo) {
        self.receipts_due.insert(no);
        self.receipts_at.get_or_insert(self.ctx.now + super::DELIVERY_DELAY);
    }

    /// Makes the receipts that are due and sends them.
    pub(super) fn make_receipts(&mut self) -> Result<(), StoreError> {
        self.receipts_at = None;
        for no in std::mem::take(&mut self.receipts_due) {
            self.make_receipt(no)?;
            let peers: Vec<DeviceId> = self.lines.keys().copied().collect();
            for peer in peers {
                self.send_receipts(peer, no)?;
            }
        }
        Ok(())
    }

    fn make_receipt(&mut self, no: RoomNo) -> Result<(), StoreError> {
        let Some(room) = self.rooms.get_mut(&no) else {
            return Ok(());
        };
        if !room.is_member() || room.devices.len() > RECEIPT_DEVICES_MAX {
            return Ok(());
        }
        let Some(own) = room.own.clone() else { return Ok(()) };
        let others = room
            .logs
            .iter()
            .filter(|(log, state)| **log != own.log && state.held.contiguous() > 0);
        let delivered: Vec<([u8; 8], u32)> = others
            .map(|(log, state)| (log.prefix(), state.held.contiguous()))
            .take(RECEIPT_LOGS_MAX)
            .collect();
        let read = self.read_up_to.get(&no).cloned().unwrap_or_default();
        let read: Vec<([u8; 8], u32)> = read.into_iter().take(RECEIPT_LOGS_MAX).collect();
        let stored = self.store.get(&receipt_key(no, &own.log))?;
        let before = stored
            .map(|bytes| record::decode::<Receipt>(&bytes, "receipt"))
            .transpose()?;
        if before.is_some_and(|before| before.delivered == delivered && before.read == read) {
            return Ok(());
        }
        room.receipts += 1;
        room.dirty = true;
        let counter = room.receipts;
        let signature = own.key.sign(RECEIPT, &[&body(&own.log, counter, &delivered, &read)]);
        let receipt = Receipt {
            log: own.log,
            counter,
            delivered,
            read,
            signature,
        };
        self.store.put(&receipt_key(no, &own.log), &receipt.to_bytes())
    }

    /// Both ends know mostly the same receipts: who dialled gives its own first, and the other side what is newer.
    pub(super) fn begin_receipts(&mut self, peer: DeviceId, no: RoomNo) -> Result<(), StoreError> {
        if self.book.get(&peer).is_some_and(|dial| dial.is_own) {
            return self.send_receipts(peer, no);
        }
        self.receipt_due(no);
        Ok(())
    }

    /// Sends receipts of a room that this line has not been sent.
    pub(super) fn send_receipts(&mut self, peer: DeviceId, no: RoomNo) -> Result<(), StoreError> {
        if !self.may_serve(peer, no) {
            return Ok(());
        }
        let Some(room) = self.rooms.get(&no) else { return Ok(()) };
        if room.devices.len() > RECEIPT_DEVICES_MAX {
            return Ok(());
        }
        let Some(shared) = self.lines.get_mut(&peer).and_then(|line| line.rooms.get_mut(&no)) else {
            return Ok(());
        };
        let mut receipts = Vec::new();
        for log in room.roster.logs.keys() {
            let Some(bytes) = self.store.get(&receipt_key(no, log))? else {
                continue;
            };
            let receipt: Receipt = record::decode(&bytes, "receipt")?;
            let sent = shared.receipts_sent.entry(log.prefix()).or_insert(0);
            if *sent < receipt.counter && receipts.len() < RECEIPTS_FRAME_MAX {
                *sent = receipt.counter;
                receipts.push(receipt);
            }
        }
        let name = shared.name;
        if !receipts.is_empty() {
            self.send(peer, &Frame::Receipts { name, receipts });
        }
        Ok(())
    }

    /// What a device was given on earlier connections.
    pub(super) fn receipts_given(&self, peer: DeviceId, no: RoomNo) -> Result<BTreeMap<[u8; 8], u64>, StoreError> {
        let stored = self.store.get(&table::room_device(table::RECEIPTS_GIVEN, no, &peer))?;
        let given = stored.map(|bytes| record::decode::<ReceiptsGiven>(&bytes, "receipts given"));
        Ok(given.transpose()?.unwrap_or_default().counters.into_iter().collect())
    }

    /// A line is closed, and what was given on it has arrived: also what was given since the last comparison.
    pub(super) fn note_all_receipts_given(&mut self, peer: DeviceId) -> Result<(), StoreError> {
        let rooms: Vec<RoomNo> = (self.lines.get(&peer).into_iter())
            .flat_map(|line| line.rooms.keys().copied())
            .collect();
        for no in rooms {
            if let Some(shared) = self.shared(peer, no) {
                shared.receipts_before = shared.receipts_sent.clone();
            }
            self.note_receipts_given(peer, no)?;
        }
        Ok(())
    }

    /// Writes down what was given to a device up to the last comparison of states.
    pub(super) fn note_receipts_given(&mut self, peer: DeviceId, no: RoomNo) -> Result<(), StoreError> {
        let Some(shared) = self.shared(peer, no) else {
            return Ok(());
        };
        let arrived = std::mem::replace(&mut shared.receipts_before, shared.receipts_sent.clone());
        if arrived == shared.receipts_stored {
            return Ok(());
        }
        let counters = arrived.iter().map(|(log, counter)| (*log, *counter)).collect();
        shared.receipts_stored = arrived;
        let key = table::room_device(table::RECEIPTS_GIVEN, no, &peer);
        self.store.put(&key, &ReceiptsGiven { counters }.to_bytes())
    }

    pub(super) fn on_receipts(&mut self, peer: DeviceId, no: RoomNo, receipts: Vec<Receipt>) -> Result<(), StoreError> {
        let mut news = false;
        for receipt in receipts {
            news |= self.take_receipt(peer, no, &receipt)?;
        }
        if news {
            let others: Vec<DeviceId> = self.lines.keys().copied().filter(|other| *other != peer).collect();
            for other in others {
                self.send_receipts(other, no)?;
            }
        }
        Ok(())
    }

    fn take_receipt(&mut self, peer: DeviceId, no: RoomNo, receipt: &Receipt) -> Result<bool, StoreError> {
        let Some(room) = self.rooms.get(&no) else {
            return Ok(false);
        };
        let Some(device) = room.roster.logs.get(&receipt.log).map(|owner| owner.device) else {
            return Ok(false);
        };
        let Some(own) = room.own.as_ref().map(|own| own.log) else {
            return Ok(false);
        };
        let stored = self.store.get(&receipt_key(no, &receipt.log))?;
        let before = stored
            .map(|bytes| record::decode::<Receipt>(&bytes, "receipt"))
            .transpose()?;
        // It has what it sends, also where that is no news here.
        if let Some(shared) = self.shared(peer, no) {
            let known = shared.receipts_sent.entry(receipt.log.prefix()).or_insert(0);
            *known = receipt.counter.max(*known);
        }
        let old = before.is_some_and(|before| before.counter >= receipt.counter);
        let signed = body(&receipt.log, receipt.counter, &receipt.delivered, &receipt.read);
        if old || own == receipt.log || crypto::verify(&receipt.log.0, RECEIPT, &[&signed], &receipt.signature).is_err()
        {
            return Ok(false);
        }
        self.note_heard(device);
        self.store.put(&receipt_key(no, &receipt.log), &receipt.to_bytes())?;
        let up_to = |list: &[([u8; 8], u32)]| {
            list.iter()
                .find(|(log, _)| *log == own.prefix())
                .map_or(0, |(_, seq)| *seq)
        };
        let reached = IntervalSet::range(1, up_to(&receipt.delivered));
        self.update_delivery(device, no, &reached, up_to(&receipt.read))?;
        Ok(true)
    }

    /// How far a device has got with an own entry: reached, read.
    pub(super) fn delivery(&self, no: RoomNo, device: &DeviceId, seq: u32) -> (bool, bool) {
        let record: Option<&DeliveryRecord> = self.rooms.get(&no).and_then(|room| room.deliveries.get(device));
        record.map_or((false, false), |record| {
            (record.reached.contains(seq) || record.read >= seq, record.read >= seq)
        })
    }
}

fn receipt_key(no: RoomNo, log: &LogKey) -> Vec<u8> {
    table::key(table::RECEIPTS, &[&no.0.to_be_bytes(), &log.0])
}

fn body(log: &LogKey, counter: u64, delivered: &[([u8; 8], u32)], read: &[([u8; 8], u32)]) -> Vec<u8> {
    let mut body = log.to_bytes();
    put_varint(&mut body, counter);
    put_list(&mut body, delivered);
    put_list(&mut body, read);
    body
}
