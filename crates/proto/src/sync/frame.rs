//! The frames of a line. Each is one varint tag and its fields; the stream puts a length before it.
//!
//! A room is recognised by an 8-byte tag in either side's `Hello`, and named by its place there ([`RoomName`]). A log is named by its place in a
//! table that each sender builds for itself as it goes ([`LogName`]): a log's first mention carries the key, later ones a small number. Runs and
//! changes are numbered by the distance to the one before, as most of what a room of many authors costs is naming them.

use crate::crypto::{Secret, Signature};
use crate::history::{Entry, EpochId, IntervalSet, LogKey, RoomId};
use crate::identity::{DeviceId, IdentityBundle, PersonId};
use crate::keeper::{Answer, Ask};
use crate::rooms::proposal::Token;
use crate::rooms::{Address, Invite, InviteUse, LogCertificate, RelayUrl};
use crate::sync::vector::Changes;
use crate::wire::{Reader, Wire, WireError, put_varint};
use crate::{wire_enum, wire_struct};

/// By what a hello says which room it means.
pub type RoomTag = [u8; 8];

/// Whose hellos, as the sender of a frame sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The sender's.
    Mine,
    /// The receiver's.
    Yours,
}

/// A room on one connection: its place among all rooms of one side's hellos, in the order in which they were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoomName {
    /// Whose hellos.
    pub side: Side,
    /// From 0.
    pub place: u32,
}

impl RoomName {
    /// The same name as the other end says it.
    pub fn turned(self) -> Self {
        let side = match self.side {
            Side::Mine => Side::Yours,
            Side::Yours => Side::Mine,
        };
        Self { side, ..self }
    }
}

impl Wire for RoomName {
    /// Twice the place; one more where it is in the receiver's hellos.
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, 2 * u64::from(self.place) + u64::from(self.side == Side::Yours));
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let packed = input.varint()?;
        let side = if packed % 2 == 0 { Side::Mine } else { Side::Yours };
        let place = u32::try_from(packed / 2).map_err(|_| WireError::Varint)?;
        Ok(Self { side, place })
    }
}

/// Ends the answer to a want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerEnd {
    /// The number of the want.
    pub want: u32,
    /// What was not sent is not held; otherwise ask again.
    pub complete: bool,
}

/// Whether a frame of entries ends an answer: a number, 0 if it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends(pub Option<AnswerEnd>);

impl Wire for Ends {
    fn encode(&self, out: &mut Vec<u8>) {
        let number = |end: AnswerEnd| 1 + 2 * u64::from(end.want) + u64::from(end.complete);
        put_varint(out, self.0.map_or(0, number));
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let Some(packed) = input.varint()?.checked_sub(1) else {
            return Ok(Self(None));
        };
        let want = u32::try_from(packed / 2).map_err(|_| WireError::Varint)?;
        Ok(Self(Some(AnswerEnd {
            want,
            complete: packed % 2 == 1,
        })))
    }
}

/// The most rooms in one hello.
pub const ROOMS_MAX: usize = 4096;
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

/// The runs of one frame, in any order; cheapest where the numbers of their logs ascend.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Runs(pub Vec<Run>);

/// In the head of a run: the log's key follows.
const RUN_NEW: u64 = 0;
/// In the head of a run: the log's number follows, as it is smaller than the one before of its kind.
const RUN_BACK: u64 = 1;
/// From here on the head holds the kind of the number (even, odd), and how much greater its half is than that of the one before of its kind.
const RUN_ON: u64 = 2;

impl Wire for Runs {
    /// Each run is a head, `2 * log + more`: what names the log, and whether there is more than one entry; then what the name needs, the number of entries
    /// less two where there are more, and the entries.
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.0.len() as u64);
        let mut before = [0, 0];
        for run in &self.0 {
            let more = u64::from(run.entries.len() > 1);
            match run.log {
                LogName::New(log) => {
                    put_varint(out, 2 * RUN_NEW + more);
                    log.encode(out);
                }
                LogName::Known(number) => {
                    let (half, kind) = (number / 2, number % 2);
                    match half.checked_sub(before[kind as usize]) {
                        Some(on) => put_varint(out, 2 * (RUN_ON + 2 * u64::from(on) + u64::from(kind)) + more),
                        None => {
                            put_varint(out, 2 * RUN_BACK + more);
                            number.encode(out);
                        }
                    }
                    before[kind as usize] = half;
                }
            }
            if more == 1 {
                put_varint(out, run.entries.len() as u64 - 2);
            }
            for entry in &run.entries {
                entry.encode(out);
            }
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let count = input.count(RUNS_MAX, 2, "runs")?;
        let mut runs = Vec::with_capacity(count.min(1024));
        let mut before: [u32; 2] = [0, 0];
        for _ in 0..count {
            let head = input.varint()?;
            let log = Self::decode_name(input, head / 2, &mut before)?;
            let more = match head % 2 {
                0 => 0,
                _ => input.count(RUN_MAX - 2, 1, "run")? + 1,
            };
            let mut entries = vec![Entry::decode(input)?];
            for _ in 0..more {
                entries.push(Entry::decode(input)?);
            }
            runs.push(Run { log, entries });
        }
        Ok(Self(runs))
    }
}

impl Runs {
    fn decode_name(input: &mut Reader<'_>, log: u64, before: &mut [u32; 2]) -> Result<LogName, WireError> {
        if log == RUN_NEW {
            return Ok(LogName::New(LogKey::decode(input)?));
        }
        let number = if log == RUN_BACK {
            let number = u32::decode(input)?;
            if number / 2 >= before[(number % 2) as usize] {
                return Err(WireError::Invalid("run"));
            }
            number
        } else {
            let (on, kind) = ((log - RUN_ON) / 2, (log - RUN_ON) % 2);
            let half = u64::from(before[kind as usize]).checked_add(on);
            half.and_then(|half| half.checked_mul(2)?.checked_add(kind))
                .and_then(|number| u32::try_from(number).ok())
                .ok_or(WireError::Varint)?
        };
        before[(number % 2) as usize] = number / 2;
        Ok(LogName::Known(number))
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

/// An address record as an answer of the directory carries it, in bytes.
pub const SEALED_RECORD_BYTES_MAX: usize = 2048;

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

/// The answer to a `Propose`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProposalAnswer {
    /// It is shown to the person, who has not answered yet.
    Shown {},
    /// The person says no.
    Declined {},
    /// No invitations are taken now.
    NotTaken {},
    /// The person says yes, and is about to knock.
    Accepted {},
    /// The person says yes to a room of two, and has made it.
    Chat {
        /// Who.
        person: PersonId,
        /// The way in.
        invite: Invite,
    },
}
wire_enum!(ProposalAnswer { 0 => Shown {}, 1 => Declined {}, 2 => NotTaken {}, 3 => Accepted {}, 4 => Chat { person, invite } });

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
        name: RoomName,
        /// The digest of the base; absent: the changes are everything.
        base: Option<[u8; 8]>,
        /// Changes.
        changes: Changes,
    },
    /// The base of a summary is not known here: send everything.
    NoBase {
        /// The room.
        name: RoomName,
    },
    /// Asks for entries.
    Want {
        /// The room.
        name: RoomName,
        /// Its number, counted by the asker for each room.
        want: u32,
        /// Only control entries of these ranges.
        control_only: bool,
        /// Which.
        ranges: Vec<LogRanges>,
    },
    /// Asks for all that the sender of the summary holds and the asker's summary lacked.
    WantAll {
        /// The room.
        name: RoomName,
        /// Its number.
        want: u32,
    },
    /// Asks for the newest messages, whatever their logs.
    WantPage {
        /// The room.
        name: RoomName,
        /// Its number.
        want: u32,
        /// How many.
        count: u32,
    },
    /// Entries: asked for, or new.
    Entries {
        /// The room.
        name: RoomName,
        /// Whether they end the answer to a `Want`, `WantAll` or `WantPage`; an answer may be nothing but its end.
        ends: Ends,
        /// Runs.
        runs: Runs,
    },
    /// So many bytes of `Entries` frames were taken in since the last time: as many more may be under way.
    Taken {
        /// Bytes of whole frames.
        bytes: u32,
    },
    /// These entries are durable at the sender: acknowledges what came, announces what is new.
    Have {
        /// The room.
        name: RoomName,
        /// Which.
        ranges: Vec<LogRanges>,
    },
    /// The sender lacks nothing that it knows of; the digest of its state.
    InStep {
        /// The room.
        name: RoomName,
        /// Keyed digest.
        digest: [u8; 8],
    },
    /// Hashes of a log at some sequence numbers, to find where two states of it part.
    Hashes {
        /// The room.
        name: RoomName,
        /// The log.
        log: LogName,
        /// Sequence numbers, descending, and hash prefixes.
        hashes: Vec<(u32, [u8; 8])>,
    },
    /// Asks for the keys of epochs that the sender lacks.
    NeedEpochs {
        /// The room.
        name: RoomName,
        /// Which.
        epochs: Vec<EpochId>,
    },
    /// Keys of epochs.
    Epochs {
        /// The room.
        name: RoomName,
        /// Keys.
        gifts: Vec<EpochGift>,
    },
    /// How far devices have got.
    Receipts {
        /// The room.
        name: RoomName,
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
        name: RoomName,
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
        name: RoomName,
    },
    /// The receiver's own log forked: entries of it above the fork that the sender holds and nobody shows any more.
    Forked {
        /// The room.
        name: RoomName,
        /// The log.
        log: LogKey,
        /// Each signed by itself, ascending.
        entries: Vec<Entry>,
    },
    /// The answer to `Unknown`: the control entries that show how the sender came in.
    Admitted {
        /// The room.
        name: RoomName,
        /// Ancestors first.
        shown: Vec<ShownEntry>,
    },
    /// Asks where a device is, by a record newer than this.
    Seek {
        /// Names the look-up.
        token: [u8; 8],
        /// Names the device to those who know it.
        tag: [u8; 16],
        /// When the newest record was made that the asker has, in milliseconds since 1970; 0 for none.
        newer_ms: u64,
        /// How many lines far it may go, that to the receiver counted.
        hops: u32,
    },
    /// Answers a `Seek`: the record, for those who know the device.
    Found {
        /// The look-up.
        token: [u8; 8],
        /// Random, so that no two answers are sealed alike.
        salt: [u8; 16],
        /// An [`AddressRecord`].
        sealed: Vec<u8>,
    },
    /// Somebody nearby invites the receiver's person.
    Propose {
        /// What the answer calls it.
        token: Token,
        /// Who invites.
        person: PersonId,
        /// Shows that the sender is a device of that person; with the name.
        identity: IdentityBundle,
        /// The way in; absent: the receiver is asked for a room of two.
        invite: Option<Invite>,
    },
    /// Answers a `Propose`.
    Proposed {
        /// Which.
        token: Token,
        /// How.
        answer: ProposalAnswer,
    },
    /// Asks something of the receiver as a keeper.
    ToKeeper {
        /// What.
        ask: Ask,
    },
    /// Answers as a keeper.
    Keeper {
        /// What.
        answer: Answer,
    },
}
wire_enum!(Frame {
    0 => Hello { rooms: list(ROOMS_MAX) },
    1 => Summary { name, base, changes },
    2 => NoBase { name },
    3 => Want { name, want, control_only, ranges: list(RANGES_MAX) },
    4 => WantAll { name, want },
    5 => WantPage { name, want, count },
    6 => Entries { name, ends, runs },
    7 => Taken { bytes },
    8 => Have { name, ranges: list(RANGES_MAX) },
    9 => InStep { name, digest },
    10 => Hashes { name, log, hashes: list(64) },
    11 => NeedEpochs { name, epochs: list(EPOCHS_MAX) },
    12 => Epochs { name, gifts: list(EPOCHS_MAX) },
    13 => Receipts { name, receipts: list(256) },
    14 => Addresses { records: list(RECORDS_MAX) },
    15 => Knock { invite, person, identity, log },
    16 => Welcome { room, gifts: list(EPOCHS_MAX) },
    17 => Refused { invite, reason: text(REASON_BYTES_MAX), ask_others },
    18 => Removed { name, shown: list(SHOWN_MAX) },
    19 => Offer { invite },
    20 => Unknown { name },
    21 => Admitted { name, shown: list(SHOWN_MAX) },
    22 => Forked { name, log, entries: list(FORKED_MAX) },
    23 => Seek { token, tag, newer_ms, hops },
    24 => Found { token, salt, sealed: bytes(SEALED_RECORD_BYTES_MAX) },
    32 => ToKeeper { ask },
    33 => Keeper { answer },
    64 => Propose { token, person, identity, invite },
    65 => Proposed { token, answer },
});

/// Frames from this tag on can be left out: who does not know one passes over it, where an unknown one below ends the line.
pub const OPTIONAL_FROM: u64 = 64;
/// Tags are below this.
const TAGS_MAX: u64 = 128;

/// Whether these bytes are a frame of a kind that is not known here, and that can be passed over.
pub fn may_be_passed_over(bytes: &[u8]) -> bool {
    let unknown = matches!(Frame::from_bytes(bytes), Err(WireError::Unknown("Frame")));
    let tag = Reader::new(bytes).varint();
    unknown && tag.is_ok_and(|tag| (OPTIONAL_FROM..TAGS_MAX).contains(&tag))
}

/// The name of the room that a frame is about.
macro_rules! name_in {
    ($frame:expr) => {
        match $frame {
            Frame::Summary { name, .. }
            | Frame::NoBase { name }
            | Frame::Want { name, .. }
            | Frame::WantAll { name, .. }
            | Frame::WantPage { name, .. }
            | Frame::Entries { name, .. }
            | Frame::Have { name, .. }
            | Frame::InStep { name, .. }
            | Frame::Hashes { name, .. }
            | Frame::NeedEpochs { name, .. }
            | Frame::Epochs { name, .. }
            | Frame::Receipts { name, .. }
            | Frame::Removed { name, .. }
            | Frame::Unknown { name }
            | Frame::Admitted { name, .. }
            | Frame::Forked { name, .. } => Some(name),
            Frame::Hello { .. }
            | Frame::Taken { .. }
            | Frame::Addresses { .. }
            | Frame::Knock { .. }
            | Frame::Welcome { .. }
            | Frame::Refused { .. }
            | Frame::Offer { .. }
            | Frame::Seek { .. }
            | Frame::Found { .. }
            | Frame::Propose { .. }
            | Frame::Proposed { .. }
            | Frame::ToKeeper { .. }
            | Frame::Keeper { .. } => None,
        }
    };
}

impl Frame {
    /// The name of the room that a frame is about, where it is about one that both sides share.
    pub fn name(&self) -> Option<RoomName> {
        name_in!(self).copied()
    }

    /// The same, to be changed.
    pub fn name_mut(&mut self) -> Option<&mut RoomName> {
        name_in!(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Class, Clock, Header};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(frame) = Frame::from_bytes(&bytes) {
                prop_assert_eq!(frame.to_bytes(), bytes);
            }
        }

        #[test]
        fn any_tagged_bytes_decode_or_are_refused(tag in prop_oneof![0u8..34, 64u8..66], bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut framed = vec![tag];
            framed.extend_from_slice(&bytes);
            if let Ok(frame) = Frame::from_bytes(&framed) {
                prop_assert_eq!(frame.to_bytes(), framed);
            }
        }
    }

    #[test]
    fn only_what_is_unknown_and_optional_is_passed_over() {
        for (bytes, expected) in [
            (&[66, 1, 2][..], true),
            (&[127], true),
            (&[0x80, 1, 7], false),
            (&[40, 1, 2], false),
            (&[64, 1, 2], false),
            (&[7, 1], false),
            (&[], false),
        ] {
            assert_eq!(may_be_passed_over(bytes), expected, "{bytes:?}");
        }
    }

    fn run(log: LogName, count: u32) -> Run {
        let entry = |seq| Entry {
            header: Header {
                class: Class::Message,
                seq,
                prev: [0; 32],
                clock: Clock::at_ms(1),
                epoch: EpochId([1; 8]),
                parents: vec![],
                payload_hash: [0; 32],
                payload_len: 0,
            },
            signature: [2; 64],
            payload: None,
        };
        Run {
            log,
            entries: (1..=count).map(entry).collect(),
        }
    }

    proptest! {
        #[test]
        fn runs_decode_to_themselves(names in prop::collection::vec((0u32..2000, 1u32..4, any::<bool>()), 0..40)) {
            let log = |number, new| if new { LogName::New(LogKey([7; 32])) } else { LogName::Known(number) };
            let runs = Runs(names.into_iter().map(|(number, count, new)| run(log(number, new), count)).collect());
            prop_assert_eq!(Runs::from_bytes(&runs.to_bytes()), Ok(runs));
        }
    }

    #[test]
    fn a_run_of_one_costs_a_byte_beyond_its_entry() {
        let runs = Runs((0..30).map(|place| run(LogName::Known(2 * place), 1)).collect());
        let entries: usize = runs.0.iter().map(|run| run.entries[0].to_bytes().len()).sum();
        assert_eq!(runs.to_bytes().len(), 1 + entries + runs.0.len());
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
        let hello = Frame::Hello { rooms }.to_bytes();
        let length = (hello.len() as u64).to_bytes();
        assert!(length.len() + hello.len() <= 1_300, "{}", hello.len());
    }
}
