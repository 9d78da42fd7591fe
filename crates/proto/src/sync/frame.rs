//! The frames of a line. Each is one varint tag and its fields; the stream puts a length before it.
//!
//! A room is named by an 8-byte tag from either side's `Hello`. A log is named by its place in a table that each sender builds
//! for itself as it goes ([`LogName`]): a log's first mention carries the key, later ones a small number.

use crate::crypto::{Secret, Signature};
use crate::history::{Entry, EpochId, IntervalSet, LogKey, RoomId};
use crate::identity::{DeviceId, IdentityBundle, PersonId};
use crate::rooms::{Address, Invite, InviteUse, LogCertificate, RelayUrl};
use crate::sync::vector::Change;
use crate::wire::{Reader, Wire, WireError, put_list, put_varint};
use crate::{wire_enum, wire_struct};

/// Names a room on one connection.
pub type RoomTag = [u8; 8];

/// The most rooms in one hello.
pub const ROOMS_MAX: usize = 4096;
/// The most changes in one summary.
pub const CHANGES_MAX: usize = 16 * 1024;
/// The most ranges in one want or have.
pub const RANGES_MAX: usize = 8192;
/// The most runs in one frame of entries.
pub const RUNS_MAX: usize = 4096;
/// The most entries in one run.
pub const RUN_MAX: usize = 4096;
/// The most epochs in one frame.
pub const EPOCHS_MAX: usize = 4096;
/// The most address records in one frame.
pub const RECORDS_MAX: usize = 64;
/// The most addresses of one device.
pub const DEVICE_ADDRESSES_MAX: usize = 8;
/// The longest reason, in bytes.
pub const REASON_BYTES_MAX: usize = 256;
/// The most control entries that are shown to somebody who is not served.
pub const SHOWN_MAX: usize = 64;
/// The most entries above a fork that are given back to their author at once.
pub const FORKED_MAX: usize = 256;
/// The most logs that one receipt speaks of.
pub const RECEIPT_LOGS_MAX: usize = 64;

/// A log on one connection: `New` gives it the next free number in the sender's table for this room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogName {
    /// First mention.
    New(LogKey),
    /// By number.
    Known(u32),
}

impl Wire for LogName {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::New(log) => {
                out.push(0);
                log.encode(out);
            }
            Self::Known(number) => put_varint(out, u64::from(*number) + 1),
        }
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        match input.varint()? {
            0 => Ok(Self::New(LogKey::decode(input)?)),
            n => u32::try_from(n - 1).map(Self::Known).map_err(|_| WireError::Varint),
        }
    }
}

/// One room of a hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomHello {
    /// Its tag.
    pub tag: RoomTag,
    /// Keyed digest of what is held.
    pub digest: [u8; 8],
}
wire_struct!(RoomHello { tag, digest });

/// Sequence numbers of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRanges {
    /// The log.
    pub log: LogName,
    /// Which.
    pub seqs: IntervalSet,
}
wire_struct!(LogRanges { log, seqs });

/// Consecutive entries of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The log.
    pub log: LogName,
    /// Ascending, at least one.
    pub entries: Vec<Entry>,
}

impl Wire for Run {
    fn encode(&self, out: &mut Vec<u8>) {
        self.log.encode(out);
        put_list(out, &self.entries);
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let (log, entries) = (LogName::decode(input)?, input.list(RUN_MAX, "run")?);
        if entries.is_empty() {
            return Err(WireError::Invalid("run"));
        }
        Ok(Self { log, entries })
    }
}

/// An epoch, as one member gives it to another over their line, and as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EpochGift {
    /// Everything.
    Whole {
        /// The epoch's secret.
        secret: Secret,
    },
    /// What is needed to follow the room's membership, and not to read.
    Outline {
        /// Opens control entries.
        control: Secret,
        /// Recognises the room.
        sync: Secret,
        /// Stands in for the content key.
        content: [u8; 32],
    },
}
wire_enum!(EpochGift { 0 => Whole { secret }, 1 => Outline { control, sync, content } });

/// Where a device can be reached, signed by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressRecord {
    /// The device.
    pub device: DeviceId,
    /// When it was made, in milliseconds since 1970; the newest wins.
    pub made_ms: u64,
    /// Best first.
    pub addresses: Vec<Address>,
    /// Home relay.
    pub relay: Option<RelayUrl>,
    /// By the device.
    pub signature: Signature,
}
wire_struct!(AddressRecord {
    device,
    made_ms,
    addresses: list(DEVICE_ADDRESSES_MAX),
    relay,
    signature
});

/// How far a device has got with a room's logs, signed by its own log's key. The highest counter holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The log of the device that speaks.
    pub log: LogKey,
    /// Counts this log's receipts.
    pub counter: u64,
    /// For each log, by key prefix, up to where everything is durable there.
    pub delivered: Vec<([u8; 8], u32)>,
    /// For each log, up to where its person has seen everything.
    pub read: Vec<([u8; 8], u32)>,
    /// By the log's key.
    pub signature: Signature,
}
wire_struct!(Receipt {
    log,
    counter,
    delivered: list(RECEIPT_LOGS_MAX),
    read: list(RECEIPT_LOGS_MAX),
    signature
});

/// A control entry as it is shown to somebody who is not served: with the key of its payload, which opens nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownEntry {
    /// The log that it stands in.
    pub log: LogKey,
    /// The entry, signed by itself.
    pub entry: Entry,
    /// Opens this payload.
    pub key: Secret,
}
wire_struct!(ShownEntry { log, entry, key });

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Rooms, by tag, with digests. Sent first; later again for rooms that came new.
    Hello {
        /// Shuffled and padded.
        rooms: Vec<RoomHello>,
    },
    /// What the sender holds of a room, as changes to a base.
    Summary {
        /// The room.
        tag: RoomTag,
        /// The digest of the base; absent: the changes are everything.
        base: Option<[u8; 8]>,
        /// Changes.
        changes: Vec<Change>,
    },
    /// The base of a summary is not known here: send everything.
    NoBase {
        /// The room.
        tag: RoomTag,
    },
    /// Asks for entries.
    Want {
        /// The room.
        tag: RoomTag,
        /// Only control entries of these ranges.
        control_only: bool,
        /// Which.
        ranges: Vec<LogRanges>,
    },
    /// Asks for all that the sender of the summary holds and the asker's summary lacked.
    WantAll {
        /// The room.
        tag: RoomTag,
    },
    /// Asks for the newest messages, whatever their logs.
    WantPage {
        /// The room.
        tag: RoomTag,
        /// How many.
        count: u32,
    },
    /// Entries: asked for, or new.
    Entries {
        /// The room.
        tag: RoomTag,
        /// Runs.
        runs: Vec<Run>,
    },
    /// The answer to one `Want`, `WantAll` or `WantPage` has been sent.
    Done {
        /// The room.
        tag: RoomTag,
        /// What was not sent is not held; otherwise ask again.
        complete: bool,
    },
    /// These entries are durable at the sender: acknowledges what came, announces what is new.
    Have {
        /// The room.
        tag: RoomTag,
        /// Which.
        ranges: Vec<LogRanges>,
    },
    /// The sender lacks nothing that it knows of; the digest of its state.
    InStep {
        /// The room.
        tag: RoomTag,
        /// Keyed digest.
        digest: [u8; 8],
    },
    /// Hashes of a log at some sequence numbers, to find where two states of it part.
    Hashes {
        /// The room.
        tag: RoomTag,
        /// The log.
        log: LogName,
        /// Sequence numbers, descending, and hash prefixes.
        hashes: Vec<(u32, [u8; 8])>,
    },
    /// Asks for the keys of epochs that the sender lacks.
    NeedEpochs {
        /// The room.
        tag: RoomTag,
        /// Which.
        epochs: Vec<EpochId>,
    },
    /// Keys of epochs.
    Epochs {
        /// The room.
        tag: RoomTag,
        /// Keys.
        gifts: Vec<EpochGift>,
    },
    /// How far devices have got.
    Receipts {
        /// The room.
        tag: RoomTag,
        /// Receipts.
        receipts: Vec<Receipt>,
    },
    /// Where devices can be reached.
    Addresses {
        /// Records.
        records: Vec<AddressRecord>,
    },
    /// Asks to be let into the room of an invite.
    Knock {
        /// Proof of the invite.
        invite: InviteUse,
        /// Who asks.
        person: PersonId,
        /// Its identity records.
        identity: IdentityBundle,
        /// The log that the asking device will write.
        log: LogCertificate,
    },
    /// Let in: everything needed to sync the room.
    Welcome {
        /// The room.
        room: RoomId,
        /// Keys.
        gifts: Vec<EpochGift>,
    },
    /// Not let in.
    Refused {
        /// The invite.
        invite: [u8; 32],
        /// Why, for people.
        reason: String,
        /// Whether another member may decide otherwise.
        ask_others: bool,
    },
    /// The receiver is out: the control entries that show it.
    Removed {
        /// The room.
        tag: RoomTag,
        /// Ancestors first.
        shown: Vec<ShownEntry>,
    },
    /// Asks the receiver to join a room of two, made by the sender for the receiver's person.
    Offer {
        /// The way in.
        invite: Invite,
    },
    /// The receiver named a room whose membership, as the sender knows it, it is not in and never was.
    Unknown {
        /// The room.
        tag: RoomTag,
    },
    /// The receiver's own log forked: entries of it above the fork that the sender holds and nobody shows any more.
    Forked {
        /// The room.
        tag: RoomTag,
        /// The log.
        log: LogKey,
        /// Each signed by itself, ascending.
        entries: Vec<Entry>,
    },
    /// The answer to `Unknown`: the control entries that show how the sender came in.
    Admitted {
        /// The room.
        tag: RoomTag,
        /// Ancestors first.
        shown: Vec<ShownEntry>,
    },
}
wire_enum!(Frame {
    0 => Hello { rooms: list(ROOMS_MAX) },
    1 => Summary { tag, base, changes: list(CHANGES_MAX) },
    2 => NoBase { tag },
    3 => Want { tag, control_only, ranges: list(RANGES_MAX) },
    4 => WantAll { tag },
    5 => WantPage { tag, count },
    6 => Entries { tag, runs: list(RUNS_MAX) },
    7 => Done { tag, complete },
    8 => Have { tag, ranges: list(RANGES_MAX) },
    9 => InStep { tag, digest },
    10 => Hashes { tag, log, hashes: list(64) },
    11 => NeedEpochs { tag, epochs: list(EPOCHS_MAX) },
    12 => Epochs { tag, gifts: list(EPOCHS_MAX) },
    13 => Receipts { tag, receipts: list(256) },
    14 => Addresses { records: list(RECORDS_MAX) },
    15 => Knock { invite, person, identity, log },
    16 => Welcome { room, gifts: list(EPOCHS_MAX) },
    17 => Refused { invite, reason: text(REASON_BYTES_MAX), ask_others },
    18 => Removed { tag, shown: list(SHOWN_MAX) },
    19 => Offer { invite },
    20 => Unknown { tag },
    21 => Admitted { tag, shown: list(SHOWN_MAX) },
    22 => Forked { tag, log, entries: list(FORKED_MAX) },
});

impl Frame {
    /// The room that a frame is about, where it is about one that both sides share.
    pub fn tag(&self) -> Option<RoomTag> {
        match self {
            Self::Summary { tag, .. }
            | Self::NoBase { tag }
            | Self::Want { tag, .. }
            | Self::WantAll { tag }
            | Self::WantPage { tag, .. }
            | Self::Entries { tag, .. }
            | Self::Done { tag, .. }
            | Self::Have { tag, .. }
            | Self::InStep { tag, .. }
            | Self::Hashes { tag, .. }
            | Self::NeedEpochs { tag, .. }
            | Self::Epochs { tag, .. }
            | Self::Receipts { tag, .. }
            | Self::Removed { tag, .. }
            | Self::Unknown { tag }
            | Self::Admitted { tag, .. }
            | Self::Forked { tag, .. } => Some(*tag),
            Self::Hello { .. }
            | Self::Addresses { .. }
            | Self::Knock { .. }
            | Self::Welcome { .. }
            | Self::Refused { .. }
            | Self::Offer { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(frame) = Frame::from_bytes(&bytes) {
                prop_assert_eq!(frame.to_bytes(), bytes);
            }
        }

        #[test]
        fn any_tagged_bytes_decode_or_are_refused(tag in 0u8..23, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut framed = vec![tag];
            framed.extend_from_slice(&bytes);
            if let Ok(frame) = Frame::from_bytes(&framed) {
                prop_assert_eq!(frame.to_bytes(), framed);
            }
        }
    }

    #[test]
    fn seventy_six_rooms_fit_the_promise() {
        let rooms = vec![
            RoomHello {
                tag: [1; 8],
                digest: [2; 8]
            };
            76_usize.next_multiple_of(crate::sync::PADDING)
        ];
        let hello = Frame::Hello { rooms };
        assert!(hello.to_bytes().len() + 4 <= 1_300, "{}", hello.to_bytes().len());
    }
}
