//! One entry of a log: a signed header, and apart from it a sealed payload that can be deleted.
//!
//! A *log* is one device's append-only record of what it said in one room, named by the public half of a signing key made for just that log ([`LogKey`]);
//! whose log it is stands inside the sealed roster, so whoever stores entries can check them without learning whose they are.
//! Sequence numbers are dense from 1. A header carries the hash of the one before (the chain), the hash of the sealed
//! payload, references to entries of *other* logs that its author had seen (the DAG), a hybrid logical clock, and the epoch
//! whose key sealed the payload. Because of the chain, one valid signature at the newest header of a contiguous run covers the run.

use crate::crypto::{self, Hash, NotAuthentic, Secret, Signature};
use crate::wire::{Reader, Wire, WireError, put_bytes, put_list};
use crate::{wire_id, wire_struct};

wire_id!(
    /// A room: the hash of its first entry.
    RoomId,
    32
);
wire_id!(
    /// A log: the public half of the key that signs its headers.
    LogKey,
    32
);
wire_id!(
    /// An epoch: a commitment to its secret.
    EpochId,
    8
);

/// The largest sealed payload, in bytes. What is larger travels as a file.
pub const PAYLOAD_BYTES_MAX: usize = 128 * 1024;
/// The most references to other logs in one header.
pub const PARENTS_MAX: usize = 16;
/// The largest sequence number: far above what a device writes, far below where adding to it could overflow.
pub const SEQ_MAX: u32 = 1 << 31;
/// The encoding's version, the first byte of every header.
pub const HEADER_VERSION: u8 = 1;

const ENTRY_HASH: &str = "offhook 1 entry header";
const ENTRY_SIGNATURE: &str = "offhook 1 entry signature";
const PAYLOAD_HASH: &str = "offhook 1 entry payload";
const ENTRY_KEY: &str = "offhook 1 entry key";

/// A hybrid logical clock: milliseconds since 1970 in the upper 48 bits, a counter in the lower 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Clock(pub u64);

impl Clock {
    /// The clock at a wall time.
    pub fn at_ms(ms: u64) -> Self {
        Self(ms.min(u64::MAX >> 16) << 16)
    }

    /// The wall time, in milliseconds since 1970.
    pub fn ms(self) -> u64 {
        self.0 >> 16
    }

    /// The smallest clock after this one.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Wire for Clock {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_be_bytes());
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self(u64::from_be_bytes(input.array()?)))
    }
}

/// What an entry is, as everybody who stores it can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Membership, keys, room settings: fetched first, never deleted.
    Control,
    /// What people say.
    Message,
}

impl Wire for Class {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Control => 0,
            Self::Message => 1,
        });
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        match input.byte()? {
            0 => Ok(Self::Control),
            1 => Ok(Self::Message),
            _ => Err(WireError::Unknown("entry class")),
        }
    }
}

/// A reference to an entry of a log: the first eight bytes of the log's key, the sequence number, the first eight bytes of the entry's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryRef {
    /// Prefix of the [`LogKey`].
    pub log: [u8; 8],
    /// Sequence number, from 1.
    pub seq: u32,
    /// Prefix of the entry's hash.
    pub hash: [u8; 8],
}
wire_struct!(EntryRef { log, seq, hash });

/// The name of an entry for people and scripts: the log's prefix and the sequence number, as `k3j5xq2m7pabc.17`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Prefix of the [`LogKey`].
    pub log: [u8; 8],
    /// Sequence number, from 1.
    pub seq: u32,
}
wire_struct!(EntryId { log, seq });

impl EntryRef {
    /// The entry's name.
    pub fn id(&self) -> EntryId {
        EntryId {
            log: self.log,
            seq: self.seq,
        }
    }
}

/// The lower-case base32 alphabet of RFC 4648, without padding.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bits = u64::from_be_bytes(self.log);
        for i in 0..13 {
            // 13 digits of five bits are 65 bits: the last digit holds the lowest four, shifted up by one.
            let digit = if i < 12 {
                (bits >> (59 - 5 * i)) & 31
            } else {
                (bits << 1) & 31
            };
            write!(f, "{}", char::from(BASE32[digit as usize]))?;
        }
        write!(f, ".{}", self.seq)
    }
}

impl std::str::FromStr for EntryId {
    type Err = WireError;

    fn from_str(text: &str) -> Result<Self, WireError> {
        let bad = WireError::Invalid("entry id");
        let (log, seq) = text.split_once('.').ok_or(bad)?;
        // Sequence numbers start at 1; a leading zero would be a second name for the same entry.
        if log.len() != 13 || seq.is_empty() || seq.starts_with('0') || !seq.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad);
        }
        let mut bits = 0u128;
        for c in log.bytes() {
            let digit = BASE32.iter().position(|b| *b == c).ok_or(bad)?;
            bits = (bits << 5) | digit as u128;
        }
        if bits & 1 == 1 {
            return Err(bad);
        }
        let log = u64::try_from(bits >> 1).map_err(|_| bad)?.to_be_bytes();
        Ok(Self {
            log,
            seq: seq.parse().map_err(|_| bad)?,
        })
    }
}

/// The signed part of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub class: Class,
    /// Sequence number in its log, from 1, dense.
    pub seq: u32,
    /// Hash of the header before; zero for the first.
    pub prev: Hash,
    /// The author's clock: greater than that of the header before.
    pub clock: Clock,
    /// The epoch whose key sealed the payload.
    pub epoch: EpochId,
    /// Entries of other logs that the author had seen and had not yet referred to; newest first.
    pub parents: Vec<EntryRef>,
    /// Hash of the sealed payload.
    pub payload_hash: Hash,
    /// Length of the sealed payload in bytes.
    pub payload_len: u32,
}

impl Wire for Header {
    fn encode(&self, out: &mut Vec<u8>) {
        self.encode_bound(out);
        self.payload_hash.encode(out);
        self.payload_len.encode(out);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let header = Self::decode_bound(input)?;
        let (payload_hash, payload_len) = (input.array()?, u32::decode(input)?);
        if payload_len as usize > PAYLOAD_BYTES_MAX {
            return Err(WireError::TooLong("payload"));
        }
        Ok(Self {
            payload_hash,
            payload_len,
            ..header
        })
    }
}

impl Header {
    /// The fields that the payload's seal binds: all but the payload's own hash and length.
    pub(crate) fn encode_bound(&self, out: &mut Vec<u8>) {
        out.push(HEADER_VERSION);
        self.class.encode(out);
        self.seq.encode(out);
        self.prev.encode(out);
        self.clock.encode(out);
        self.epoch.encode(out);
        put_list(out, &self.parents);
    }

    /// Reads those fields. The payload's hash and length are still to come.
    pub(crate) fn decode_bound(input: &mut Reader<'_>) -> Result<Self, WireError> {
        if input.byte()? != HEADER_VERSION {
            return Err(WireError::Unknown("entry version"));
        }
        let header = Self {
            class: Class::decode(input)?,
            seq: u32::decode(input)?,
            prev: input.array()?,
            clock: Clock::decode(input)?,
            epoch: EpochId::decode(input)?,
            parents: input.list(PARENTS_MAX, "parents")?,
            payload_hash: [0; 32],
            payload_len: 0,
        };
        if header.seq == 0 || header.seq > SEQ_MAX {
            return Err(WireError::Invalid("sequence number"));
        }
        Ok(header)
    }

    /// The hash that names this header in its log: the next header's `prev`.
    pub fn hash(&self, log: &LogKey) -> Hash {
        crypto::hash(ENTRY_HASH, &[&log.0, &self.to_bytes()])
    }

    /// The additional data of the payload's seal.
    pub fn bound(&self, log: &LogKey) -> Vec<u8> {
        let mut out = log.0.to_vec();
        self.encode_bound(&mut out);
        out
    }

    /// The key that seals this entry's payload, from the secret of its class in its epoch. It follows from all that [`Self::bound`] holds,
    /// so that a copied home which writes a sequence number a second time does not use a key twice.
    pub fn payload_key(&self, log: &LogKey, class_secret: &Secret) -> Secret {
        class_secret.derive(ENTRY_KEY, &self.bound(log))
    }
}

/// The hash of a sealed payload as a header states it.
pub fn payload_hash(sealed: &[u8]) -> Hash {
    crypto::hash(PAYLOAD_HASH, &[sealed])
}

/// Signs a header's hash with its log's key.
pub fn sign(key: &crypto::KeyPair, hash: &Hash) -> Signature {
    key.sign(ENTRY_SIGNATURE, &[hash])
}

/// Checks the signature over a header's hash.
pub fn verify(log: &LogKey, hash: &Hash, signature: &Signature) -> Result<(), NotAuthentic> {
    crypto::verify(&log.0, ENTRY_SIGNATURE, &[hash], signature)
}

/// An entry as it travels: header, signature, and the sealed payload unless it was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The header.
    pub header: Header,
    /// By the log's key, over the header's hash.
    pub signature: Signature,
    /// The sealed payload; `None` where it was deleted.
    pub payload: Option<Vec<u8>>,
}

impl Wire for Entry {
    fn encode(&self, out: &mut Vec<u8>) {
        self.header.encode(out);
        self.signature.encode(out);
        match &self.payload {
            None => out.push(0),
            Some(payload) => {
                out.push(1);
                put_bytes(out, payload);
            }
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let entry = Self::decode_trusted(input)?;
        if !entry.payload_fits() {
            return Err(WireError::Invalid("payload"));
        }
        Ok(entry)
    }
}

impl Entry {
    /// Decodes without comparing the payload with its hash: for what this peer itself stored.
    pub fn decode_trusted(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let header = Header::decode(input)?;
        let signature = input.array()?;
        let payload = match bool::decode(input)? {
            true => Some(input.bytes(PAYLOAD_BYTES_MAX, "payload")?.to_vec()),
            false => None,
        };
        Ok(Self {
            header,
            signature,
            payload,
        })
    }

    /// Whether the payload, where there is one, is the one that the header speaks of.
    pub fn payload_fits(&self) -> bool {
        let fits = |payload: &Vec<u8>| {
            payload.len() == self.header.payload_len as usize && payload_hash(payload) == self.header.payload_hash
        };
        self.payload.as_ref().is_none_or(fits)
    }

    /// How others refer to this entry.
    pub fn reference(&self, log: &LogKey) -> EntryRef {
        EntryRef {
            log: log.prefix(),
            seq: self.header.seq,
            hash: crypto::prefix8(&self.header.hash(log)),
        }
    }
}
