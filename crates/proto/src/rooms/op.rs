//! The operations of a room's control log: everything about membership, roles, invites and settings.
//!
//! Control entries stand in their authors' logs beside messages, and form a graph of their own: each names the control heads that its author knew.
//! Who is a member is a function of the *set* of control entries (see [`super::roster`]), never of the order in which they arrived.

use crate::crypto::{self, KeyPair, NotAuthentic, Signature};
use crate::history::{Entry, EntryRef, LogKey, RoomId};
use crate::identity::{DeviceId, IdentityBundle, PersonId};
use crate::rooms::keepers::KEEPERS_MAX;
use crate::rooms::{HistoryPolicy, KeeperPlace, Role};
use crate::{wire_enum, wire_struct};

/// The longest name of a room, in bytes of UTF-8.
pub const ROOM_NAME_BYTES_MAX: usize = 64;
/// The most operations in one control entry.
pub const OPS_MAX: usize = 16;
/// The most control heads that one control entry names.
pub const CONTROL_HEADS_MAX: usize = 256;
/// The most logs that a removal cuts off.
pub const CUTOFFS_MAX: usize = 256;

const LOG_BY_DEVICE: &str = "offhook 1 log certificate by the device";
const LOG_BY_LOG: &str = "offhook 1 log certificate by the log";
const INVITE_USE: &str = "offhook 1 invite redemption";

/// The plaintext of a control entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// The heads of the control graph that the author knew, and the author's own last control entry or admission. Empty only in a room's first
    /// entry. See [`super::ControlGraph::heads_for`].
    pub heads: Vec<EntryRef>,
    /// What is done, in order.
    pub ops: Vec<Op>,
}
wire_struct!(Control {
    heads: list(CONTROL_HEADS_MAX),
    ops: list(OPS_MAX)
});

/// States that a log in a room is a device's, signed by both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogCertificate {
    /// The device.
    pub device: DeviceId,
    /// The log.
    pub log: LogKey,
    /// By the device.
    pub by_device: Signature,
    /// By the log's key.
    pub by_log: Signature,
}
wire_struct!(LogCertificate {
    device,
    log,
    by_device,
    by_log
});

impl LogCertificate {
    /// Certifies the log of `log_key` as the device's.
    pub fn issue(device_key: &KeyPair, log_key: &KeyPair) -> Self {
        let device = DeviceId(device_key.public());
        let log = LogKey(log_key.public());
        let by_device = device_key.sign(LOG_BY_DEVICE, &[&device.0, &log.0]);
        let by_log = log_key.sign(LOG_BY_LOG, &[&device.0, &log.0]);
        Self {
            device,
            log,
            by_device,
            by_log,
        }
    }

    /// Checks both signatures.
    pub fn verify(&self) -> Result<(), NotAuthentic> {
        crypto::verify(
            &self.device.0,
            LOG_BY_DEVICE,
            &[&self.device.0, &self.log.0],
            &self.by_device,
        )?;
        crypto::verify(&self.log.0, LOG_BY_LOG, &[&self.device.0, &self.log.0], &self.by_log)
    }
}

/// Proof that a newcomer held an invite's secret, bound to room and person so that it cannot be used for somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteUse {
    /// The public half of the key derived from the invite's secret.
    pub invite: [u8; 32],
    /// By that key.
    pub proof: Signature,
}
wire_struct!(InviteUse { invite, proof });

impl InviteUse {
    /// Proves possession of the invite for `person`.
    pub fn prove(invite_key: &KeyPair, room: &RoomId, person: &PersonId) -> Self {
        Self {
            invite: invite_key.public(),
            proof: invite_key.sign(INVITE_USE, &[&room.0, &person.0]),
        }
    }

    /// Checks the proof.
    pub fn verify(&self, room: &RoomId, person: &PersonId) -> Result<(), NotAuthentic> {
        crypto::verify(&self.invite, INVITE_USE, &[&room.0, &person.0], &self.proof)
    }
}

/// What kind of room this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomKind {
    /// A named room of any size.
    Group {},
    /// The room of two persons, made by one of them for the other.
    Pair {
        /// The other person.
        other: PersonId,
    },
}
wire_enum!(RoomKind { 0 => Group {}, 1 => Pair { other } });

/// Up to where a log counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cutoff {
    /// The log.
    pub log: LogKey,
    /// The last sequence number with authority; 0 for none.
    pub seq: u32,
}
wire_struct!(Cutoff { log, seq });

/// Two headers of one log that no honest author signs both: proof that its author equivocates. Either both have one number, or the second follows on the first
/// by number and not by its predecessor's hash (so there is another entry with the first one's number), or it does follow and its clock does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Equivocation {
    /// The log.
    pub log: LogKey,
    /// One entry, without its payload.
    pub a: Entry,
    /// The other.
    pub b: Entry,
}
wire_struct!(Equivocation { log, a, b });

impl Equivocation {
    /// The first sequence number that does not count, as the headers say; none if they go together.
    pub fn forks_at(&self) -> Option<u32> {
        let (a, b) = (&self.a.header, &self.b.header);
        let hash_a = a.hash(&self.log);
        if a.seq == b.seq {
            return (hash_a != b.hash(&self.log)).then_some(a.seq);
        }
        if a.seq.checked_add(1) != Some(b.seq) {
            return None;
        }
        match (b.prev == hash_a, b.clock > a.clock) {
            (false, _) => Some(a.seq),
            (true, false) => Some(b.seq),
            (true, true) => None,
        }
    }

    /// [`Self::forks_at`], if the author signed both.
    pub fn verify(&self) -> Result<u32, NotAuthentic> {
        let at = self.forks_at().ok_or(NotAuthentic)?;
        for entry in [&self.a, &self.b] {
            crate::history::entry::verify(&self.log, &entry.header.hash(&self.log), &entry.signature)?;
        }
        Ok(at)
    }
}

/// One control operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Makes the room: the first operation of its first entry, whose hash is the room's id.
    Create {
        /// Name.
        name: String,
        /// Kind.
        kind: RoomKind,
        /// What newcomers may read.
        history: HistoryPolicy,
        /// The founder, who becomes owner.
        person: PersonId,
        /// The founder's identity records.
        identity: IdentityBundle,
        /// The log that this entry stands in.
        log: LogCertificate,
        /// Random, so that no two rooms have one id.
        nonce: [u8; 16],
    },
    /// Lets a person in, with one device and its log. A member adding a further device of a person uses it too.
    Admit {
        /// The person.
        person: PersonId,
        /// The person's identity records.
        identity: IdentityBundle,
        /// The log of the device that comes in.
        log: LogCertificate,
        /// The role.
        role: Role,
        /// The invite that was redeemed, if one was.
        invite: Option<InviteUse>,
    },
    /// Opens another log of a device that is already in; stands in the new log itself, as its first entry.
    OpenLog {
        /// The person.
        person: PersonId,
        /// The certificate of this log.
        log: LogCertificate,
    },
    /// The author's person leaves.
    Leave {
        /// The last sequence numbers of the person's logs that the author knew.
        cutoffs: Vec<Cutoff>,
    },
    /// Removes a person. Always comes with a new epoch.
    Remove {
        /// The person.
        person: PersonId,
        /// For each of the person's logs, the last entry that the author knew.
        cutoffs: Vec<Cutoff>,
    },
    /// Gives a member another role.
    SetRole {
        /// The member.
        person: PersonId,
        /// The role.
        role: Role,
        /// For each of the person's logs, the last entry that the author knew: what a reader says from here on does not count, or from here on does again.
        cutoffs: Vec<Cutoff>,
    },
    /// Renames the room.
    Rename {
        /// The new name.
        name: String,
    },
    /// Changes what newcomers may read.
    SetHistory {
        /// The policy.
        history: HistoryPolicy,
    },
    /// Makes an invite known to those who may admit.
    OpenInvite {
        /// The public half of the key derived from the invite's secret.
        invite: [u8; 32],
        /// The role that it gives.
        role: Role,
        /// How many persons may use it.
        uses: u32,
        /// When it ends, in milliseconds since 1970.
        expires_ms: u64,
        /// The only device that may admit; any member's (member rank and up) otherwise.
        only: Option<DeviceId>,
    },
    /// Ends an invite.
    CloseInvite {
        /// The invite.
        invite: [u8; 32],
    },
    /// Spreads the proof that a log's author equivocates: the log is frozen below the fork.
    Freeze {
        /// The proof.
        proof: Equivocation,
    },
    /// Newer identity records of the author's person.
    Identity {
        /// The records.
        identity: IdentityBundle,
    },
    /// Nothing but the seals that the entry carries.
    Seal {},
    /// Names the keepers of the room, all of them.
    SetKeepers {
        /// The keepers.
        keepers: Vec<KeeperPlace>,
    },
    /// Changes how large a file may be.
    SetFileLimit {
        /// In bytes; at most [`FILE_BYTES_MAX`](crate::history::file::FILE_BYTES_MAX), and 0 for no files at all.
        bytes: u64,
    },
}
wire_enum!(Op {
    0 => Create { name: text(ROOM_NAME_BYTES_MAX), kind, history, person, identity, log, nonce },
    1 => Admit { person, identity, log, role, invite },
    2 => OpenLog { person, log },
    3 => Leave { cutoffs: list(CUTOFFS_MAX) },
    4 => Remove { person, cutoffs: list(CUTOFFS_MAX) },
    5 => SetRole { person, role, cutoffs: list(CUTOFFS_MAX) },
    6 => Rename { name: text(ROOM_NAME_BYTES_MAX) },
    7 => SetHistory { history },
    8 => OpenInvite { invite, role, uses, expires_ms, only },
    9 => CloseInvite { invite },
    10 => Freeze { proof },
    11 => Identity { identity },
    12 => Seal {},
    16 => SetKeepers { keepers: list(KEEPERS_MAX) },
    17 => SetFileLimit { bytes },
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Secret;
    use crate::history::{Class, Clock, EpochId, Header, entry};

    fn written(key: &KeyPair, seq: u32, prev: [u8; 32], clock: u64) -> Entry {
        let header = Header {
            class: Class::Message,
            seq,
            prev,
            clock: Clock(clock),
            epoch: EpochId([1; 8]),
            parents: Vec::new(),
            payload_hash: [0; 32],
            payload_len: 0,
        };
        let signature = entry::sign(key, &header.hash(&LogKey(key.public())));
        Entry {
            header,
            signature,
            payload: None,
        }
    }

    #[test]
    fn what_an_honest_author_never_signs_both_is_a_proof_and_nothing_else_is() {
        let key = KeyPair::from_seed(&Secret([1; 32]));
        let log = LogKey(key.public());
        let hash = |entry: &Entry| entry.header.hash(&log);
        let first = written(&key, 7, [0; 32], 10);
        let prove = |a: &Entry, b: &Entry| Equivocation {
            log,
            a: a.clone(),
            b: b.clone(),
        };
        let next = written(&key, 8, hash(&first), 11);
        assert_eq!(prove(&first, &next).verify(), Err(NotAuthentic), "they go together");
        assert_eq!(prove(&first, &first).verify(), Err(NotAuthentic));
        let other = written(&key, 7, [0; 32], 11);
        assert_eq!(prove(&first, &other).verify(), Ok(7), "one number twice");
        let on_other = written(&key, 8, hash(&other), 12);
        assert_eq!(
            prove(&first, &on_other).verify(),
            Ok(7),
            "the second stands on another first"
        );
        let back = written(&key, 8, hash(&first), 10);
        assert_eq!(prove(&first, &back).verify(), Ok(8), "the clock does not ascend");
        let far = written(&key, 9, hash(&other), 12);
        assert_eq!(prove(&first, &far).verify(), Err(NotAuthentic));
        let mut unsigned = other;
        unsigned.header.clock = Clock(12);
        assert_eq!(prove(&first, &unsigned).verify(), Err(NotAuthentic));
    }
}
