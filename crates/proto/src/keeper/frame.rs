//! What is said between a member and a keeper. It travels in two frames of the one line that both have ([`crate::sync::Frame`]).

use crate::crypto::{Hash, Signature};
use crate::history::{Entry, IntervalSet, LogKey};
use crate::keeper::Access;
use crate::rooms::VaultId;
use crate::wire::{Reader, Wire, WireError, put_list};
use crate::{wire_enum, wire_struct};

/// The most runs in one frame.
pub const RUNS_MAX: usize = 1024;
/// The most entries in one run.
pub const RUN_MAX: usize = 1024;
/// The most logs of one vault, and in one list.
pub const LOGS_MAX: usize = 4096;

/// Consecutive entries of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRun {
    /// The log.
    pub log: LogKey,
    /// Ascending, at least one.
    pub entries: Vec<Entry>,
}

impl Wire for KeptRun {
    fn encode(&self, out: &mut Vec<u8>) {
        self.log.encode(out);
        put_list(out, &self.entries);
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let (log, entries) = (LogKey::decode(input)?, input.list(RUN_MAX, "run")?);
        if entries.is_empty() {
            return Err(WireError::Invalid("run"));
        }
        Ok(Self { log, entries })
    }
}

/// Sequence numbers of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRanges {
    /// The log.
    pub log: LogKey,
    /// Which.
    pub seqs: IntervalSet,
}
wire_struct!(KeptRanges { log, seqs });

/// What a keeper holds of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The log.
    pub log: LogKey,
    /// Entries held.
    pub held: IntervalSet,
    /// Of those, the ones that came without their payload.
    pub bare: IntervalSet,
}
wire_struct!(Holding { log, held, bare });

/// What a member says to a keeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Makes a vault, with its first access.
    Redeem {
        /// The keeper's ticket.
        ticket: [u8; 16],
        /// Who may read and write.
        access: Access,
    },
    /// Asks how a vault stands, and to be told what comes new.
    Open {
        /// The vault.
        vault: VaultId,
        /// The digest that the caller knows of what is held: if it still holds, the list is left out.
        known: [u8; 8],
    },
    /// Replaces the access.
    Renew {
        /// The next access.
        access: Access,
    },
    /// Proves to hold the write key, for this connection.
    Write {
        /// The vault.
        vault: VaultId,
        /// By the write key of the access that holds now.
        proof: Signature,
    },
    /// Gives entries to keep.
    Put {
        /// The vault.
        vault: VaultId,
        /// Runs.
        runs: Vec<KeptRun>,
    },
    /// Asks for entries; control entries come first.
    Get {
        /// The vault.
        vault: VaultId,
        /// Which.
        ranges: Vec<KeptRanges>,
    },
    /// Asks for a proof that an entry is held.
    Challenge {
        /// The vault.
        vault: VaultId,
        /// The log.
        log: LogKey,
        /// The entry.
        seq: u32,
        /// Keys the proof; never used twice.
        key: [u8; 32],
    },
}
wire_enum!(Ask {
    0 => Redeem { ticket, access },
    1 => Open { vault, known },
    2 => Renew { access },
    3 => Write { vault, proof },
    4 => Put { vault, runs: list(RUNS_MAX) },
    5 => Get { vault, ranges: list(LOGS_MAX) },
    6 => Challenge { vault, log, seq, key },
});

/// How a vault stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The vault.
    pub vault: VaultId,
    /// The number of the access that holds.
    pub number: u64,
    /// Its owner.
    pub owner: [u8; 32],
    /// Its write key.
    pub write: [u8; 32],
    /// Stands for its readers and write key.
    pub fingerprint: [u8; 8],
    /// What is held; absent where the caller knows.
    pub held: Option<Vec<Holding>>,
    /// Stands for what is held.
    pub digest: [u8; 8],
    /// Bytes kept in the vault.
    pub bytes: u64,
    /// The most that it may keep.
    pub bytes_max: u64,
    /// For how many days messages are kept.
    pub days: u32,
}

impl Wire for State {
    fn encode(&self, out: &mut Vec<u8>) {
        self.vault.encode(out);
        self.number.encode(out);
        self.owner.encode(out);
        self.write.encode(out);
        self.fingerprint.encode(out);
        match &self.held {
            None => out.push(0),
            Some(held) => {
                out.push(1);
                put_list(out, held);
            }
        }
        self.digest.encode(out);
        self.bytes.encode(out);
        self.bytes_max.encode(out);
        self.days.encode(out);
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            vault: VaultId::decode(input)?,
            number: u64::decode(input)?,
            owner: input.array()?,
            write: input.array()?,
            fingerprint: input.array()?,
            held: match bool::decode(input)? {
                true => Some(input.list(LOGS_MAX, "held")?),
                false => None,
            },
            digest: input.array()?,
            bytes: u64::decode(input)?,
            bytes_max: u64::decode(input)?,
            days: u32::decode(input)?,
        })
    }
}

/// What a keeper says to a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To `Redeem`, `Open` and `Renew`.
    State {
        /// How the vault stands.
        state: State,
    },
    /// To `Get`, as many as it takes.
    Entries {
        /// The vault.
        vault: VaultId,
        /// Runs.
        runs: Vec<KeptRun>,
    },
    /// The answer to one `Get` has been sent.
    Done {
        /// The vault.
        vault: VaultId,
        /// What was not sent is not held; otherwise ask again.
        complete: bool,
    },
    /// To `Put`: these are on the keeper's disk.
    Durable {
        /// The vault.
        vault: VaultId,
        /// Which.
        ranges: Vec<KeptRanges>,
    },
    /// Somebody else gave these, and they are on the keeper's disk.
    News {
        /// The vault.
        vault: VaultId,
        /// Which.
        ranges: Vec<KeptRanges>,
    },
    /// To `Challenge`.
    Proof {
        /// The vault.
        vault: VaultId,
        /// The log.
        log: LogKey,
        /// The entry.
        seq: u32,
        /// Keyed hash of header and payload; absent where the entry is not held.
        hash: Option<Hash>,
    },
    /// Not done.
    Refused {
        /// The vault.
        vault: VaultId,
        /// Why.
        why: Refusal,
    },
}
wire_enum!(Answer {
    0 => State { state },
    1 => Entries { vault, runs: list(RUNS_MAX) },
    2 => Done { vault, complete },
    3 => Durable { vault, ranges: list(LOGS_MAX) },
    4 => News { vault, ranges: list(LOGS_MAX) },
    5 => Proof { vault, log, seq, hash },
    6 => Refused { vault, why },
});

/// Why a keeper does not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It has no such vault, or the caller may not read it: the two are not told apart.
    Closed {},
    /// The ticket is not its own, or it has as many vaults as it takes.
    Ticket {},
    /// The access does not follow the one that holds.
    Access {},
    /// The caller has not proved to hold the write key of the access that holds.
    Writer {},
    /// Entries that their log's key did not sign, or that part from what is held.
    Entries {},
    /// The vault or the log is full.
    Full {},
}
wire_enum!(Refusal { 0 => Closed {}, 1 => Ticket {}, 2 => Access {}, 3 => Writer {}, 4 => Entries {}, 5 => Full {} });

impl Answer {
    /// The vault that it is about.
    pub fn vault(&self) -> VaultId {
        match self {
            Self::State { state } => state.vault,
            Self::Entries { vault, .. }
            | Self::Done { vault, .. }
            | Self::Durable { vault, .. }
            | Self::News { vault, .. }
            | Self::Proof { vault, .. }
            | Self::Refused { vault, .. } => *vault,
        }
    }
}
