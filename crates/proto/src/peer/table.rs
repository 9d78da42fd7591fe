//! The keys of the records that a peer stores. The first byte is the table; numbers are big-endian, so that scans are in order.

use crate::history::{EntryRef, EpochId};
use crate::identity::{DeviceId, PersonId};
use crate::store::{EntryKey, LogNo, RoomNo};

/// Single values: [`super::record::Me`].
pub(super) const ME: &[u8] = b"M";
/// Whether strangers nearby see this person's name and may invite: there is nothing where they may not.
pub(super) const PROPOSALS: &[u8] = b"n";
/// `R` room: [`super::record::RoomRecord`].
pub(super) const ROOMS: u8 = b'R';
/// `L` log: [`super::record::LogRecord`].
pub(super) const LOGS: u8 = b'L';
/// `K` room epoch: the epoch's keys.
pub(super) const EPOCHS: u8 = b'K';
/// `C` room log seq: nothing; the entry is a control entry.
pub(super) const CONTROL: u8 = b'C';
/// `S` room epoch log seq: nothing; the entry waits for the epoch's keys.
pub(super) const SEALED: u8 = b'S';
/// `O` room effective-clock log-prefix seq: local log number; the entry is in the timeline.
pub(super) const ORDER: u8 = b'O';
/// `W` room log-prefix seq hash-prefix: the effective clock above which this entry, not here yet, must not stand.
pub(super) const WAITING: u8 = b'W';
/// `A` room log-prefix seq: what was done to this entry.
pub(super) const ANNOTATIONS: u8 = b'A';
/// `I` client id: the entry that it stands for.
pub(super) const CLIENT_IDS: u8 = b'I';
/// `P` person: [`super::record::ContactRecord`].
pub(super) const PERSONS: u8 = b'P';
/// `D` device: [`super::record::DeviceRecord`].
pub(super) const DEVICES: u8 = b'D';
/// `B` room device: the last state that both sides agreed on.
pub(super) const BASES: u8 = b'B';
/// `T` room device: how far the device has got with the own log.
pub(super) const DELIVERIES: u8 = b'T';
/// `J` room: the invite of a pending join.
pub(super) const JOINS: u8 = b'J';
/// `Q` room log-prefix: the newest receipt of that log's device.
pub(super) const RECEIPTS: u8 = b'Q';
/// `q` room device: [`super::record::ReceiptsGiven`].
pub(super) const RECEIPTS_GIVEN: u8 = b'q';

/// `k` room device: [`super::record::KeeperRecord`]. What this node keeps for others is in the tables of [`crate::keeper::vault`].
pub(super) const KEEPERS: u8 = b'k';

/// `U` room person: [`super::quota::Bucket`].
pub(super) const QUOTAS: u8 = b'U';

/// A key: the table and its parts.
pub(super) fn key(table: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![table];
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

pub(super) fn room(no: RoomNo) -> Vec<u8> {
    key(ROOMS, &[&no.0.to_be_bytes()])
}

pub(super) fn log(no: LogNo) -> Vec<u8> {
    key(LOGS, &[&no.0.to_be_bytes()])
}

pub(super) fn epoch(no: RoomNo, epoch: &EpochId) -> Vec<u8> {
    key(EPOCHS, &[&no.0.to_be_bytes(), &epoch.0])
}

pub(super) fn control(no: RoomNo, entry: EntryKey) -> Vec<u8> {
    key(
        CONTROL,
        &[
            &no.0.to_be_bytes(),
            &entry.log.0.to_be_bytes(),
            &entry.seq.to_be_bytes(),
        ],
    )
}

pub(super) fn sealed(no: RoomNo, epoch: &EpochId, entry: EntryKey) -> Vec<u8> {
    key(
        SEALED,
        &[
            &no.0.to_be_bytes(),
            &epoch.0,
            &entry.log.0.to_be_bytes(),
            &entry.seq.to_be_bytes(),
        ],
    )
}

pub(super) fn order(no: RoomNo, effective: i64, log: &[u8; 8], seq: u32) -> Vec<u8> {
    // Flipping the sign bit makes signed numbers sort as bytes.
    let biased = effective.cast_unsigned() ^ (1 << 63);
    key(
        ORDER,
        &[&no.0.to_be_bytes(), &biased.to_be_bytes(), log, &seq.to_be_bytes()],
    )
}

/// The log prefix and sequence number at the end of an [`order`] key.
pub(super) fn order_parts(key: &[u8]) -> Option<(i64, [u8; 8], u32)> {
    let biased = u64::from_be_bytes(key.get(5..13)?.try_into().ok()?);
    let log = key.get(13..21)?.try_into().ok()?;
    let seq = u32::from_be_bytes(key.get(21..25)?.try_into().ok()?);
    Some(((biased ^ (1 << 63)).cast_signed(), log, seq))
}

pub(super) fn in_room(table: u8, no: RoomNo, log: &[u8; 8], seq: u32) -> Vec<u8> {
    key(table, &[&no.0.to_be_bytes(), log, &seq.to_be_bytes()])
}

pub(super) fn waiting(no: RoomNo, entry: &EntryRef) -> Vec<u8> {
    let mut key = in_room(WAITING, no, &entry.log, entry.seq);
    key.extend_from_slice(&entry.hash);
    key
}

pub(super) fn room_device(table: u8, no: RoomNo, device: &DeviceId) -> Vec<u8> {
    key(table, &[&no.0.to_be_bytes(), &device.0])
}

pub(super) fn quota(no: RoomNo, person: &PersonId) -> Vec<u8> {
    key(QUOTAS, &[&no.0.to_be_bytes(), &person.0])
}

pub(super) fn person(person: &PersonId) -> Vec<u8> {
    key(PERSONS, &[&person.0])
}

pub(super) fn device(device: &DeviceId) -> Vec<u8> {
    key(DEVICES, &[&device.0])
}
