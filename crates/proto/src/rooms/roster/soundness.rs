//! What can be said of an operation by looking at it alone: are its signatures and records in order?
//!
//! Checked once, when the entry comes in, because signatures are what costs time. Whether the author was allowed to do it is a
//! question for [`super::rules`].

use crate::history::file::FILE_BYTES_MAX;
use crate::history::{LogKey, RoomId};
use crate::identity::{DeviceId, IdentityBundle, IdentityRecord, IdentityState, PersonId};
use crate::rooms::keepers;
use crate::rooms::op::{OPS_MAX, ROOM_NAME_BYTES_MAX};
use crate::rooms::{Control, LogCertificate, Op, RoomKind};

/// For each operation of an entry that stands in `log`, one bit: is it in order by itself?
pub(super) fn sound_ops(room: &RoomId, log: &LogKey, control: &Control) -> u16 {
    let ops = control.ops.iter().take(OPS_MAX).enumerate();
    ops.filter(|(index, op)| is_sound(room, log, *index, op))
        .fold(0, |mask, (index, _)| mask | 1 << index)
}

fn is_sound(room: &RoomId, log: &LogKey, index: usize, op: &Op) -> bool {
    match op {
        Op::Create {
            name,
            kind,
            person,
            identity,
            log: certificate,
            ..
        } => {
            let names_itself = matches!(kind, RoomKind::Pair { other } if other == person);
            index == 0
                && is_name(name)
                && !names_itself
                && certificate.log == *log
                && brings_device(person, identity, certificate)
        }
        Op::Admit {
            person,
            identity,
            log: certificate,
            invite,
            ..
        } => {
            let proven = invite.as_ref().is_none_or(|used| used.verify(room, person).is_ok());
            proven && brings_device(person, identity, certificate)
        }
        Op::OpenLog { log: certificate, .. } => index == 0 && certificate.log == *log && certificate.verify().is_ok(),
        Op::Rename { name } => is_name(name),
        Op::OpenInvite { uses, .. } => *uses > 0,
        Op::Freeze { proof } => proof.verify().is_ok(),
        Op::Identity { identity } => identity.records.iter().all(|record| record.verify().is_ok()),
        Op::SetFileLimit { bytes } => *bytes <= FILE_BYTES_MAX,
        Op::SetKeepers { keepers } => keepers::are_distinct(keepers),
        Op::Leave { .. }
        | Op::Remove { .. }
        | Op::SetRole { .. }
        | Op::SetHistory { .. }
        | Op::CloseInvite { .. }
        | Op::Seal {} => true,
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= ROOM_NAME_BYTES_MAX
}

/// Whether the records say that the certificate's device is the person's, and the device says that the log is its own.
fn brings_device(person: &PersonId, identity: &IdentityBundle, certificate: &LogCertificate) -> bool {
    let mut state = IdentityState::new(*person);
    state.merge_bundle(identity).is_ok() && state.has_device(&certificate.device) && certificate.verify().is_ok()
}

/// The devices that a bundle revokes, as devices of `person`.
pub(super) fn revoked_devices(identity: &IdentityBundle, person: &PersonId) -> Vec<DeviceId> {
    let of_person = |record: &IdentityRecord| match record {
        IdentityRecord::Revoked {
            person: whose, device, ..
        } if whose == person => Some(*device),
        _ => None,
    };
    identity.records.iter().filter_map(of_person).collect()
}

/// Whether an operation can never change what another one may do: prekeys, names.
pub(super) fn is_bystander(op: &Op) -> bool {
    match op {
        Op::Identity { identity } => !identity
            .records
            .iter()
            .any(|record| matches!(record, IdentityRecord::Revoked { .. })),
        _ => false,
    }
}
