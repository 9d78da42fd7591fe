//! Replication: ONE kind of record for everything, with version, owner and epoch.
//!
//! A replica takes a record when its epoch is newer, or the same with a newer version; so a fenced old owner cannot
//! overwrite what its successor wrote, and records may arrive late, twice or out of order. The body's own version
//! ([`SCHEMA`]) comes first: a standby of another build refuses what it cannot read instead of guessing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bridge::Call;
use crate::registrar::Binding;

/// Version of the bodies' layout.
pub const SCHEMA: u8 = 1;
/// Longest record body, octets.
pub const BODY_BYTES_MAX: usize = 262_144;

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Key {
    /// One call.
    Call(String),
    /// The bindings of one account.
    Bindings(String),
}

/// One versioned piece of state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What it is about.
    pub key: Key,
    /// The node that owns it.
    pub owner: u64,
    /// Fencing epoch of the owner.
    pub epoch: u64,
    /// Rises with every change under one epoch.
    pub version: u64,
    /// Encoded state; `None` when it is gone.
    pub body: Option<Vec<u8>>,
}

/// Why a record's body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by another build: upgrade this node.
    #[error("record has layout {0}")]
    Schema(u8),
    /// Damaged: drop it and ask again.
    #[error("record is damaged")]
    Damaged,
}

impl Record {
    /// The record of a call.
    pub fn call(call: &Call, owner: u64, epoch: u64) -> Self {
        Self {
            key: Key::Call(call.key.clone()),
            owner,
            epoch,
            version: 0,
            body: Some(encode(call)),
        }
    }

    /// The record of an account's bindings.
    pub fn bindings(account: &str, bindings: &[Binding], owner: u64, epoch: u64) -> Self {
        let body = (!bindings.is_empty()).then(|| encode(&bindings));
        Self {
            key: Key::Bindings(account.to_owned()),
            owner,
            epoch,
            version: 0,
            body,
        }
    }

    /// The record that something is gone.
    pub fn gone(key: Key, owner: u64, epoch: u64) -> Self {
        Self {
            key,
            owner,
            epoch,
            version: 0,
            body: None,
        }
    }
}

/// Writes a record's body.
pub fn encode(value: &impl Serialize) -> Vec<u8> {
    // Writing plain data into a Vec cannot fail.
    let mut bytes = vec![SCHEMA];
    bytes.extend(postcard::to_allocvec(value).unwrap_or_default());
    bytes
}

/// Reads a record's body.
pub fn decode<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, DecodeError> {
    match body.split_first() {
        Some((&SCHEMA, rest)) if rest.len() <= BODY_BYTES_MAX => {
            let (value, rest) = postcard::take_from_bytes(rest).map_err(|_| DecodeError::Damaged)?;
            if rest.is_empty() {
                Ok(value)
            } else {
                Err(DecodeError::Damaged)
            }
        }
        Some((&schema, _)) if schema != SCHEMA => Err(DecodeError::Schema(schema)),
        _ => Err(DecodeError::Damaged),
    }
}

/// What became of a record that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is now held.
    Taken,
    /// What is held is as new or newer.
    Stale,
}

/// The records that a standby holds for others.
#[derive(Clone, Debug, Default)]
pub struct Replicas {
    records: BTreeMap<Key, Record>,
}

impl Replicas {
    /// Takes a record if it is newer.
    pub fn apply(&mut self, record: Record) -> Applied {
        let newer = |held: &Record| (record.epoch, record.version) > (held.epoch, held.version);
        if !self.records.get(&record.key).is_none_or(newer) {
            return Applied::Stale;
        }
        self.records.insert(record.key.clone(), record);
        Applied::Taken
    }

    /// What an owner had, when it is taken over: its live records.
    pub fn of_owner(&self, owner: u64) -> impl Iterator<Item = &Record> {
        self.records
            .values()
            .filter(move |record| record.owner == owner && record.body.is_some())
    }

    /// Records held, tombstones included.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}
