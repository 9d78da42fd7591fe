//! The values of the records that a peer stores.

use crate::crypto::{Hash, Secret};
use crate::history::entry::{self, PAYLOAD_BYTES_MAX};
use crate::history::{Clock, Entry, EntryId, EntryRef, Header, IntervalSet, LogKey, RoomId};
use crate::identity::{IdentityBundle, PersonId};
use crate::keeper::audit::{Fault, Uptime};
use crate::keeper::frame::{Holding, LOGS_MAX};
use crate::peer::room::effective_of;
use crate::rooms::{Address, RelayUrl, VaultId};
use crate::store::{LogNo, RoomNo, StoreError};
use crate::wire::{Reader, Wire, WireError, put_bytes, put_varint};
use crate::{wire_enum, wire_struct};

/// Decodes a stored value.
pub(super) fn decode<T: Wire>(bytes: &[u8], what: &'static str) -> Result<T, StoreError> {
    T::from_bytes(bytes).map_err(|_| StoreError::Damaged(what))
}

/// The own person's and device's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Me {
    /// The own name.
    pub name: String,
    /// Counts own profiles.
    pub profile_number: u64,
    /// Seeds of own prekeys, oldest first, with their numbers.
    pub prekeys: Vec<Prekey>,
    /// Next local room number.
    pub next_room: u32,
    /// Next local log number.
    pub next_log: u32,
    /// Opened from a backup: every room gets a new log before anything is written.
    pub restored: bool,
}
wire_struct!(Me {
    name: text(64),
    profile_number,
    prekeys: list(1024),
    next_room,
    next_log,
    restored
});

/// An own prekey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prekey {
    pub number: u64,
    pub made_ms: u64,
    pub seed: Secret,
}
wire_struct!(Prekey { number, made_ms, seed });

/// How a room stands, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoredStanding {
    Joining {},
    Member {},
    Left {},
    Removed {},
}
wire_enum!(StoredStanding { 0 => Joining {}, 1 => Member {}, 2 => Left {}, 3 => Removed {} });

/// A room, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RoomRecord {
    pub id: RoomId,
    pub standing: StoredStanding,
    /// Name until the roster is known.
    pub name: String,
    /// The own log.
    pub own_log: Option<LogNo>,
    /// Entries of other logs that nothing here refers to.
    pub tips: Vec<EntryRef>,
    /// Messages here.
    pub messages: u64,
    /// Of those, not seen by the person.
    pub unread: u64,
    /// Timeline position up to which the person has seen.
    pub read: Option<(u64, EntryId)>,
    /// The number of the newest own prekey that this room was told.
    pub told_prekey: u64,
    /// The number of the newest own profile that this room was told.
    pub told_profile: u64,
    /// Counts own receipts.
    pub receipts: u64,
    /// The own log must not be written again: a copy of this home, or this home before a restore, wrote it further.
    pub own_stale: bool,
    /// This person left, and nobody has said yet that they heard of it.
    pub farewell_due: bool,
    /// The entries by which another member showed that this person is out, while the membership known here does not bear it out.
    pub shown_out: Vec<EntryRef>,
    /// Why this person is out, in words.
    pub why_out: String,
}
wire_struct!(RoomRecord {
    id,
    standing,
    name: text(256),
    own_log,
    tips: list(65_536),
    messages,
    unread,
    read,
    told_prekey,
    told_profile,
    receipts,
    own_stale,
    farewell_due,
    shown_out: list(64),
    why_out: text(512),
});

impl Wire for LogNo {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self(u32::decode(input)?))
    }
}

impl Wire for RoomNo {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self(u32::decode(input)?))
    }
}

/// A log, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogRecord {
    pub room: RoomNo,
    pub key: LogKey,
    pub held: IntervalSet,
    pub top_hash: Hash,
    pub top_clock: Clock,
    /// The seed of the signing key, for own logs.
    pub seed: Option<Secret>,
}
wire_struct!(LogRecord {
    room,
    key,
    held,
    top_hash,
    top_clock,
    seed
});

/// What is known of a person beyond rosters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ContactRecord {
    pub petname: String,
    pub verified: bool,
    pub blocked: bool,
    pub identity: IdentityBundle,
}
wire_struct!(ContactRecord {
    petname: text(64),
    verified,
    blocked,
    identity
});

/// Where a device was last reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct DeviceRecord {
    pub addresses: Vec<Address>,
    pub relay: Option<RelayUrl>,
    /// The age of the device's own signed record, in milliseconds since 1970.
    pub made_ms: u64,
    /// The device's own signed record, to hand on.
    pub signed: Vec<u8>,
    /// When a line was last up, in milliseconds since 1970; 0 for never.
    pub seen_ms: u64,
}
wire_struct!(DeviceRecord {
    addresses: list(64),
    relay,
    made_ms,
    signed: bytes(4096),
    seen_ms
});

/// How far a device has got with the own log of a room.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct DeliveryRecord {
    /// Durable there.
    pub reached: IntervalSet,
    /// Its person has seen everything up to here.
    pub read: u32,
}
wire_struct!(DeliveryRecord { reached, read });

/// The receipts of a room that a device was given, so that they are not given again on every connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ReceiptsGiven {
    /// By the prefix of its log: the counter of the receipt.
    pub counters: Vec<([u8; 8], u64)>,
}
wire_struct!(ReceiptsGiven { counters: list(4096) });

/// What is known of one keeper of one room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeeperRecord {
    /// Its vault of the room.
    pub vault: VaultId,
    /// Opens the vault; there until it is open.
    pub ticket: Option<[u8; 16]>,
    /// What it last said it holds.
    pub held: Vec<Holding>,
    /// Stands for that.
    pub digest: [u8; 8],
    /// How often it was there.
    pub uptime: Uptime,
    /// When that was last counted, in milliseconds since 1970.
    pub sampled_ms: u64,
    /// When it last answered, in milliseconds since 1970; 0 for never.
    pub seen_ms: u64,
    /// Challenges that it met.
    pub proofs: u32,
    /// What was found wrong with it.
    pub fault: Option<Fault>,
}
wire_struct!(KeeperRecord {
    vault,
    ticket,
    held: list(LOGS_MAX),
    digest,
    uptime,
    sampled_ms,
    seen_ms,
    proofs,
    fault
});

impl KeeperRecord {
    pub(super) fn new(vault: VaultId) -> Self {
        Self {
            vault,
            ticket: None,
            held: Vec::new(),
            digest: [0; 8],
            uptime: Uptime::default(),
            sampled_ms: 0,
            seen_ms: 0,
            proofs: 0,
            fault: None,
        }
    }
}

/// The person who knows of the deletion, as stored with an annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReactionRecord {
    pub person: PersonId,
    pub emoji: String,
    pub clock: Clock,
    pub by: EntryId,
    pub on: bool,
}
wire_struct!(ReactionRecord {
    person,
    emoji: text(32),
    clock,
    by,
    on
});

/// What was done to an entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Annotations {
    /// Edits: clock, the entry that edits.
    pub edits: Vec<(Clock, EntryId)>,
    /// The entry that deletes.
    pub deletes: Vec<EntryId>,
    /// Reactions, one for each person and emoji.
    pub reactions: Vec<ReactionRecord>,
}
wire_struct!(Annotations {
    edits: list(4096),
    deletes: list(64),
    reactions: list(4096)
});

/// An entry's signature was checked by itself, not only through the chain.
pub(super) const SIGNED: u8 = 1;
/// It came after entries that stand below it had been here.
pub(super) const LATE: u8 = 2;
/// It is in the timeline.
pub(super) const SHOWN: u8 = 4;
/// It waits for keys.
pub(super) const SEALED: u8 = 8;

/// An entry as stored: what is local, then the entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub flags: u8,
    /// The effective clock, see [`crate::history`].
    pub effective: i64,
    /// When it became durable here, in milliseconds since 1970.
    pub saved_ms: u64,
    pub entry: Entry,
}

/// In the first byte: the effective clock is not the entry's own, and follows.
const MOVED: u8 = 0x40;
/// In the first byte: written as below. Earlier versions of this program wrote the effective clock, the time, and the entry as it travels.
const COMPACT: u8 = 0x80;

impl Wire for Stored {
    /// What follows from the rest is left out: the effective clock where it is the entry's own, the hash and the length of a payload that is there.
    fn encode(&self, out: &mut Vec<u8>) {
        let Entry {
            header,
            signature,
            payload,
        } = &self.entry;
        let moved = self.effective != effective_of(header.clock);
        out.push(self.flags | COMPACT | if moved { MOVED } else { 0 });
        header.encode_bound(out);
        if moved {
            out.extend_from_slice(&self.effective.to_be_bytes());
        }
        put_varint(out, zigzag(self.saved_ms.wrapping_sub(header.clock.ms()).cast_signed()));
        signature.encode(out);
        match payload {
            Some(payload) => {
                out.push(1);
                put_bytes(out, payload);
            }
            None => {
                out.push(0);
                header.payload_hash.encode(out);
                header.payload_len.encode(out);
            }
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let first = input.byte()?;
        if first & COMPACT == 0 {
            return Ok(Self {
                flags: first,
                effective: i64::from_be_bytes(input.array()?),
                saved_ms: input.varint()?,
                entry: Entry::decode_trusted(input)?,
            });
        }
        let mut header = Header::decode_bound(input)?;
        let effective = match first & MOVED {
            0 => effective_of(header.clock),
            _ => i64::from_be_bytes(input.array()?),
        };
        let since = unzigzag(input.varint()?).cast_unsigned();
        let saved_ms = header.clock.ms().wrapping_add(since);
        let signature = input.array()?;
        let payload = match bool::decode(input)? {
            true => Some(input.bytes(PAYLOAD_BYTES_MAX, "payload")?.to_vec()),
            false => None,
        };
        match &payload {
            Some(payload) => {
                header.payload_hash = entry::payload_hash(payload);
                // Bounded just above.
                header.payload_len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
            }
            None => (header.payload_hash, header.payload_len) = (input.array()?, u32::decode(input)?),
        }
        Ok(Self {
            flags: first & !(COMPACT | MOVED),
            effective,
            saved_ms,
            entry: Entry {
                header,
                signature,
                payload,
            },
        })
    }
}

/// Small numbers of either sign as small ones without.
fn zigzag(n: i64) -> u64 {
    (n.cast_unsigned() << 1) ^ (n >> 63).cast_unsigned()
}

fn unzigzag(n: u64) -> i64 {
    (n >> 1).cast_signed() ^ -(n & 1).cast_signed()
}

/// A stored state of a room that both sides of a line agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    pub digest: [u8; 8],
    pub vector: crate::sync::Vector,
}
wire_struct!(Base { digest, vector });

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Class, EpochId};
    use proptest::prelude::*;

    fn stored(clock_ms: u64, pulled: i64, saved_ms: u64, payload: Option<Vec<u8>>) -> Stored {
        let clock = Clock::at_ms(clock_ms);
        let known = payload.clone().unwrap_or_else(|| b"deleted".to_vec());
        let header = Header {
            class: Class::Message,
            seq: 7,
            prev: [8; 32],
            clock,
            epoch: EpochId([9; 8]),
            parents: vec![],
            payload_hash: entry::payload_hash(&known),
            payload_len: u32::try_from(known.len()).unwrap(),
        };
        Stored {
            flags: SHOWN | SIGNED,
            effective: effective_of(clock).saturating_sub(pulled),
            saved_ms,
            entry: Entry {
                header,
                signature: [3; 64],
                payload,
            },
        }
    }

    proptest! {
        #[test]
        fn what_is_stored_comes_back(
            clock_ms in 0u64..1 << 48, pulled in 0i64..3, saved_ms in any::<u64>(), payload in prop::option::of(prop::collection::vec(any::<u8>(), 0..40))
        ) {
            let stored = stored(clock_ms, pulled, saved_ms, payload);
            prop_assert_eq!(Stored::from_bytes(&stored.to_bytes()), Ok(stored));
        }
    }

    #[test]
    fn entries_as_they_were_stored_before_are_read() {
        let now = stored(1_790_000_000_000, 0, 1_790_000_000_400, Some(vec![1; 200]));
        let mut before = vec![now.flags];
        before.extend_from_slice(&now.effective.to_be_bytes());
        put_varint(&mut before, now.saved_ms);
        now.entry.encode(&mut before);
        assert_eq!(Stored::from_bytes(&before), Ok(now.clone()));
        assert!(now.to_bytes().len() + 40 <= before.len());
    }
}
