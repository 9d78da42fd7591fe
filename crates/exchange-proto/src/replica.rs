//! Replication: ONE kind of record for everything, with version, owner and epoch.
//!
//! A replica takes a record when its epoch is newer, or the same with a newer version; so a fenced old owner cannot
//! overwrite what its successor wrote, and records may arrive late, twice or out of order. The body's own version
//! ([`SCHEMA`]) comes first: a standby of another build refuses what it cannot read instead of guessing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bridge::{Call, CallRecord};
use crate::flow::Flow;
use crate::registrar::Binding;
use crate::relay::{MediaSource, RelayCommand};
use crate::sip::sdp::Sdp;

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
    /// One call that nobody has answered yet. After the bindings: its INVITE is taken anew from a known phone.
    Setup(String),
    /// The call record of a call that is over, until it is stored for good.
    Ended(String),
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

/// What it takes to begin a call in set-up again: the caller's INVITE as it came, and the INVITEs that ring phones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Where the INVITE came from.
    pub flow: Flow,
    /// As it came.
    pub invite: Vec<u8>,
    /// What was sent, and where to: to be cancelled.
    pub rung: Vec<(Flow, Vec<u8>)>,
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

    /// The record of a call in set-up.
    pub fn setup(key: &str, setup: &Setup, owner: u64, epoch: u64) -> Self {
        Self {
            key: Key::Setup(key.to_owned()),
            owner,
            epoch,
            version: 0,
            body: Some(encode(setup)),
        }
    }

    /// The record of a call that is over.
    pub fn ended(record: &CallRecord, owner: u64, epoch: u64) -> Self {
        Self {
            key: Key::Ended(record.call.clone()),
            owner,
            epoch,
            version: 0,
            body: Some(encode(record)),
        }
    }

    /// What the relay of a standby needs for a call, so that sound goes on before signalling does.
    pub fn media(&self) -> Vec<RelayCommand> {
        let body = self.body.as_deref().filter(|_| matches!(self.key, Key::Call(_)));
        let call = body.and_then(|body| decode::<Call>(body).ok());
        call.map(|call| relay_commands(&call)).unwrap_or_default()
    }

    /// The same by the clock of another node, which is so far ahead of its owner's. One that cannot be read stays as it
    /// is, to be refused where it is used.
    #[must_use]
    pub fn by_clock_ahead(self, ahead_ms: i64) -> Self {
        let Some(body) = &self.body else { return self };
        let set = match self.key {
            Key::Call(_) => decode(body).map(|call: Call| encode(&call.by_clock_ahead(ahead_ms))),
            Key::Bindings(_) => decode(body).map(|mut bindings: Vec<Binding>| {
                for binding in &mut bindings {
                    binding.expires_at = binding.expires_at.by_clock_ahead(ahead_ms);
                    binding.refreshed_at = binding.refreshed_at.by_clock_ahead(ahead_ms);
                }
                encode(&bindings)
            }),
            Key::Ended(_) => decode(body).map(|mut record: CallRecord| {
                record.started = record.started.by_clock_ahead(ahead_ms);
                record.answered = record.answered.map(|at| at.by_clock_ahead(ahead_ms));
                record.ended = record.ended.by_clock_ahead(ahead_ms);
                encode(&record)
            }),
            // An INVITE as it came: no time in it is ours.
            Key::Setup(_) => return self,
        };
        match set {
            Ok(body) => Self {
                body: Some(body),
                ..self
            },
            Err(_) => self,
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

/// How the relay is set up for a call: its ports, whom they expect, and who is paired with whom.
pub fn relay_commands(call: &Call) -> Vec<RelayCommand> {
    let mut commands = Vec::new();
    for leg in call.legs.values() {
        let sdp = Sdp::parse(&leg.received_sdp);
        let targets = sdp.map(|sdp| sdp.targets()).unwrap_or_default();
        for (n, &port) in leg.ports.iter().enumerate() {
            commands.push(RelayCommand::Open { port });
            let Some(target) = targets.get(n) else { continue };
            let source = MediaSource {
                rtp: target.rtp,
                rtcp: target.rtcp,
                authenticated: leg.dialog.flow.remote.ip(),
            };
            commands.push(RelayCommand::Remote { port, source });
        }
    }
    for leg in call.legs.values() {
        let Some(peer) = leg.peer.and_then(|peer| call.legs.get(&peer)) else {
            continue;
        };
        let pairs = leg.ports.iter().zip(&peer.ports);
        commands.extend(pairs.map(|(&a, &b)| RelayCommand::Pair { a, b }));
    }
    commands
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

    /// All live records, calls before what they need least: see [`Key`].
    pub fn live(&self) -> impl Iterator<Item = &Record> {
        self.records.values().filter(|record| record.body.is_some())
    }

    /// The record held under a key, tombstones included.
    pub fn get(&self, key: &Key) -> Option<&Record> {
        self.records.get(key)
    }

    /// Forgets everything, to begin again from its owner's whole state.
    pub fn clear(&mut self) {
        self.records.clear();
    }

    /// Forgets that things are gone which were gone in an epoch before this one's last `keep` versions.
    pub fn forget_gone(&mut self, most: usize) {
        let gone = self.records.values().filter(|record| record.body.is_none()).count();
        if gone > most {
            self.records.retain(|_, record| record.body.is_some());
        }
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
