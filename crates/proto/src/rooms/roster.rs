//! Who is a member of a room: a pure function of the *set* of control entries, whatever the order in which they came.
//!
//! Every member holds the same control entries sooner or later and must come to the same roster without asking anybody. So nothing local takes part
//! (no clock, no order of arrival), nobody votes, and no quorum is waited for. [`ControlGraph`] holds the entries and who knew of what;
//! an operation is judged from what its author knew ([`rules`]), and what concurrent operations do to each other follows fixed precedence
//! ([`settle`]): *a removal beats whatever the removed did without knowing of it*. The family is that of p2panda's "strong removal" and of the
//! group rules in Keyhive; the composition is our own and is described in `docs/protocol/rooms.md`.
//!
//! What it does not do: it does not say what a moderator may do to others' messages, nor which keys to speak with
//! ([`super::epochs`]); it takes entries whose headers, chains and seals were checked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::history::{EntryRef, LogKey};
use crate::identity::{DeviceId, IdentityState, PersonId};
use crate::rooms::{HistoryPolicy, KeeperPlace, Role, RoomKind};

mod bits;
mod graph;
mod pool;
mod proof;
mod resolve;
mod rules;
mod settle;
mod soundness;

pub(crate) use rules::may_remove;

pub use graph::{CONTROL_ENTRIES_MAX, ControlEntry, ControlGraph, Seniority};

/// What a set of control entries comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    /// The room's name.
    pub name: String,
    /// Its kind.
    pub kind: RoomKind,
    /// What newcomers may read.
    pub history: HistoryPolicy,
    /// The largest file that the room takes, in bytes.
    pub file_bytes_max: u64,
    /// Who keeps sealed entries for those who are away.
    pub keepers: Vec<KeeperPlace>,
    /// Who is in.
    pub members: BTreeMap<PersonId, Member>,
    /// Who was, or seemed to be.
    pub former: BTreeMap<PersonId, Former>,
    /// Whose each log is.
    pub logs: BTreeMap<LogKey, LogOwner>,
    /// Invites that were ever opened.
    pub invites: BTreeMap<[u8; 32], InviteState>,
    /// Logs whose author equivocates, with the last number below the fork.
    pub frozen: BTreeMap<LogKey, u32>,
    /// Entries that took somebody's reading away: effective removals, departures, revocations of devices, lowered roles that somebody
    /// acted against, and all uses of an invite that was used too often. Keys made without knowing them are not spoken with.
    pub removals: BTreeSet<EntryRef>,
    /// The proofs by which each log is frozen: those who were let in above the fork are out, too.
    pub freezes: BTreeMap<LogKey, BTreeSet<EntryRef>>,
    /// Of those, the uses of invites that were used too often: not even their own entry knew what they would come to.
    pub redemptions: BTreeSet<EntryRef>,
    /// Entries with effect: whose they are, and one bit for each operation that counts.
    pub effects: BTreeMap<EntryRef, Effect>,
    /// What people should be told.
    pub notices: Vec<Notice>,
    pub(crate) devices: BTreeMap<DeviceId, PersonId>,
}

/// Somebody who is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Their role. Where no owner is left, the senior-most of the highest role counts as owner.
    pub role: Role,
    /// Devices, prekeys, name.
    pub identity: Arc<IdentityState>,
    /// The entry that let them in.
    pub since: EntryRef,
    /// Who wrote that; none for the founder.
    pub admitted_by: Option<PersonId>,
    /// Smaller came earlier.
    pub seniority: Seniority,
}

/// Somebody who is no longer in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Former {
    /// Why not.
    pub why: Departure,
    /// The entry that says so.
    pub entry: EntryRef,
    /// Devices and name, as far as known.
    pub identity: Arc<IdentityState>,
}

/// Why somebody is no longer in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// Left.
    Left,
    /// Was removed.
    Removed {
        /// By whom.
        by: PersonId,
    },
    /// Came in by an invite that others had used up at the same time.
    OverRedeemed,
    /// Was let in by somebody who had no right to do so, as turned out.
    Undone,
}

/// Whose a log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOwner {
    /// The person.
    pub person: PersonId,
    /// The device.
    pub device: DeviceId,
    /// The last number with authority, after a removal or a fork; none while all counts.
    pub cutoff: Option<u32>,
    /// First and last numbers of what was written as a reader, who may not speak.
    pub muted: Vec<(u32, u32)>,
}

impl LogOwner {
    /// Whether an entry was written by somebody who might not speak then.
    pub fn is_muted(&self, seq: u32) -> bool {
        self.muted.iter().any(|(from, to)| (*from..=*to).contains(&seq))
    }
}

/// An invite, as the room knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteState {
    /// Who opened it.
    pub by: PersonId,
    /// The role that it gives.
    pub role: Role,
    /// How many persons may use it.
    pub uses: u32,
    /// Who did.
    pub used_by: BTreeSet<PersonId>,
    /// When it ends, in milliseconds since 1970.
    pub expires_ms: u64,
    /// The only device that may admit.
    pub only: Option<DeviceId>,
    /// Neither closed, nor used up, nor opened by somebody who is gone. It may have expired.
    pub open: bool,
}

/// What an entry does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effect {
    /// Its author.
    pub person: PersonId,
    /// The author's device.
    pub device: DeviceId,
    /// One bit for each operation that counts, the first in the lowest bit.
    pub ops: u16,
}

/// Something that people should be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// An invite was used more often than it allows, by members who did not know of each other.
    OverRedeemed {
        /// The invite.
        invite: [u8; 32],
        /// Who is out for it.
        person: PersonId,
        /// Who let them in.
        admitted_by: PersonId,
        /// The entry that did.
        entry: EntryRef,
    },
    /// An operation was done without knowing of a removal or a change of role that stands against it.
    Void {
        /// The entry.
        entry: EntryRef,
        /// Its author.
        person: PersonId,
        /// The number of the operation in it.
        op: u8,
    },
    /// A log is frozen: its author showed different entries to different people.
    Frozen {
        /// The log.
        log: LogKey,
        /// Its owner, where known.
        person: Option<PersonId>,
        /// The last number below the fork.
        seq: u32,
    },
    /// No owner is left; this person counts as one.
    ActingOwner {
        /// The person.
        person: PersonId,
    },
}

/// Something that takes a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Saying something.
    Speak,
    /// Deleting what others said.
    DeleteOthers,
    /// Renaming the room.
    Rename,
    /// Changing what newcomers may read.
    SetHistory,
    /// Opening an invite that gives this role.
    Invite(Role),
    /// Closing an invite of somebody else's.
    CloseInvite,
    /// Letting somebody in by an open invite.
    AdmitByInvite,
    /// Letting somebody in, with this role, without an invite.
    Admit(Role),
    /// Removing this member.
    Remove(PersonId),
    /// Giving this member this role.
    SetRole(PersonId, Role),
}

/// Why an action is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The one who would act is not in.
    #[error("not a member of this room")]
    NotIn,
    /// The one whom it concerns is not in.
    #[error("that person is not a member of this room")]
    TargetNotIn,
    /// The role does not suffice.
    #[error("the role {have} does not allow this; it takes {need}")]
    Rank {
        /// The role.
        have: Role,
        /// The least role that would do.
        need: Role,
    },
    /// In a room of two neither names nor roles nor members change.
    #[error("this is a room of two: its members and their roles stay as they are")]
    Pair,
}

impl Roster {
    /// A member's role.
    pub fn role(&self, person: &PersonId) -> Option<Role> {
        self.members.get(person).map(|member| member.role)
    }

    /// The devices to speak to: of members, certified and not revoked, with a log in the room.
    pub fn devices(&self) -> &BTreeMap<DeviceId, PersonId> {
        &self.devices
    }

    /// Whose device this is, if it is one of the roster's.
    pub fn person_of(&self, device: &DeviceId) -> Option<PersonId> {
        self.devices.get(device).copied()
    }

    /// The newest prekey of one of the roster's devices.
    pub fn prekey(&self, device: &DeviceId) -> Option<[u8; 32]> {
        self.members.get(self.devices.get(device)?)?.identity.prekey(device)
    }

    /// The prekeys of all devices that have stated one.
    pub fn prekeys(&self) -> BTreeMap<DeviceId, [u8; 32]> {
        let stated = |device: &DeviceId| self.prekey(device).map(|prekey| (*device, prekey));
        self.devices.keys().filter_map(stated).collect()
    }

    /// Whose a log is.
    pub fn log_owner(&self, log: &LogKey) -> Option<&LogOwner> {
        self.logs.get(log)
    }

    /// The log with this prefix, as entries refer to it.
    pub fn log_by_prefix(&self, prefix: &[u8; 8]) -> Option<(&LogKey, &LogOwner)> {
        let mut first = [0; 32];
        first[..8].copy_from_slice(prefix);
        let (log, owner) = self.logs.range(LogKey(first)..).next()?;
        (log.prefix() == *prefix).then_some((log, owner))
    }

    /// Whether a person may do something now.
    pub fn may(&self, person: &PersonId, action: Action) -> Result<(), Refusal> {
        let have = self.role(person).ok_or(Refusal::NotIn)?;
        let target = |target: &PersonId| self.role(target).ok_or(Refusal::TargetNotIn);
        let fixed_in_pairs = !matches!(
            action,
            Action::Speak
                | Action::DeleteOthers
                | Action::SetHistory
                | Action::Invite(_)
                | Action::CloseInvite
                | Action::AdmitByInvite
        );
        if fixed_in_pairs && matches!(self.kind, RoomKind::Pair { .. }) {
            return Err(Refusal::Pair);
        }
        let need = match action {
            Action::Speak | Action::AdmitByInvite => Role::Member,
            Action::DeleteOthers | Action::CloseInvite => Role::Moderator,
            Action::Rename | Action::SetHistory => Role::Admin,
            Action::Invite(role) => role.max(Role::Member),
            Action::Admit(role) => role.max(Role::Admin),
            Action::Remove(other) if other == *person => Role::Reader,
            Action::Remove(other) => {
                let target = target(&other)?;
                least(|role| rules::may_remove(role, target))
            }
            Action::SetRole(other, role) => {
                let before = target(&other)?;
                if other == *person && role < before {
                    Role::Reader
                } else {
                    least(|own| rules::may_set_role(own, before, role, false))
                }
            }
        };
        if have >= need {
            Ok(())
        } else {
            Err(Refusal::Rank { have, need })
        }
    }
}

/// The least role for which `suffices` holds; owners may do everything.
fn least(suffices: impl Fn(Role) -> bool) -> Role {
    let below_owner = [Role::Reader, Role::Member, Role::Moderator, Role::Admin];
    below_owner
        .into_iter()
        .find(|role| suffices(*role))
        .unwrap_or(Role::Owner)
}

#[cfg(test)]
pub(crate) mod properties;
#[cfg(test)]
pub(crate) mod tests;
