//! What a person can ask of their peer, and what comes back.

use std::net::SocketAddr;

use thiserror::Error;

use crate::history::{Attachment, EntryId, RoomId};
use crate::identity::{DeviceId, PersonId};
use crate::keeper::{KeeperAddress, Limits};
use crate::rooms::proposal::Token;
use crate::rooms::{HistoryPolicy, Invite, Role};

/// One request. Each is answered by exactly one [`Reply`] or [`CommandError`], after what it did is durable.
#[derive(Debug, Clone)]
pub enum Command {
    /// Makes a room with this person as its owner. Answer: [`Reply::Room`].
    CreateRoom {
        /// The room's name, 1 to 64 bytes.
        name: String,
        /// What newcomers may read.
        history: HistoryPolicy,
    },
    /// Gives a room another name (admins).
    RenameRoom {
        /// The room.
        room: RoomId,
        /// Its new name.
        name: String,
    },
    /// Changes how large a file a room takes (admins).
    LimitFiles {
        /// The room.
        room: RoomId,
        /// In bytes; 0 for no files at all.
        bytes_max: u64,
    },
    /// Gives a member another role (admins; nobody above their own rank).
    SetRole {
        /// The room.
        room: RoomId,
        /// The member.
        person: PersonId,
        /// The new role.
        role: Role,
    },
    /// Removes a member and makes a new epoch without them (moderators and up, ranks below their own; owners anybody).
    RemoveMember {
        /// The room.
        room: RoomId,
        /// The member.
        person: PersonId,
    },
    /// Leaves a room. What was said stays readable here.
    LeaveRoom {
        /// The room.
        room: RoomId,
    },
    /// Makes an invite. Answer: [`Reply::Invite`].
    Invite {
        /// The room.
        room: RoomId,
        /// How long it holds, in seconds.
        expires_s: u64,
        /// How many persons may use it.
        uses: u32,
        /// The role that it gives; not above the inviter's own.
        role: Role,
        /// Only this very device may admit (strict single use).
        only_me: bool,
    },
    /// Redeems an invite. Answer: [`Reply::Room`] at once; progress comes as events.
    Join {
        /// The invite.
        invite: Invite,
    },
    /// Invites somebody who is near and need not be known, into a room or, without one, to a room of two.
    Propose {
        /// A device that was found on the local network or on this machine.
        device: DeviceId,
        /// The room.
        room: Option<RoomId>,
    },
    /// Answers somebody nearby who invites this person. Answer to a yes: [`Reply::Room`]; the join goes on by itself.
    AnswerProposal {
        /// Which invitation.
        token: Token,
        /// How.
        verdict: Verdict,
    },
    /// Takes invitations of strangers who are near, and is announced to them by name; or neither.
    TakeProposals {
        /// Whether.
        on: bool,
    },
    /// Gives up a join that has not succeeded yet.
    CancelJoin {
        /// The room of the invite.
        room: RoomId,
    },
    /// Gives a person a local name that nobody else sees; empty takes it away.
    NamePerson {
        /// The person.
        person: PersonId,
        /// The local name.
        petname: String,
    },
    /// Marks a person as verified by comparing safety numbers, or takes that back.
    VerifyPerson {
        /// The person.
        person: PersonId,
        /// Verified or not.
        verified: bool,
    },
    /// Hides what a person says in every room, here only, and refuses their new rooms of two; or takes that back.
    BlockPerson {
        /// The person.
        person: PersonId,
        /// Blocked or not.
        blocked: bool,
    },
    /// Opens the room of two with a known person. Answer: [`Reply::Room`].
    Chat {
        /// The person.
        person: PersonId,
    },
    /// Says something. Answer: [`Reply::Entry`].
    Post {
        /// The room.
        room: RoomId,
        /// What.
        post: Post,
        /// Chosen by the client: the same id again gives the same entry and says nothing twice.
        client_id: Option<[u8; 16]>,
    },
    /// Everything up to here has been seen by the person.
    MarkRead {
        /// The room.
        room: RoomId,
        /// The newest entry seen.
        up_to: EntryId,
    },
    /// States the name that this person goes by.
    SetName {
        /// 1 to 64 bytes.
        name: String,
    },
    /// Adds an address to try for a device.
    AddAddress {
        /// The device.
        device: DeviceId,
        /// Its address.
        address: SocketAddr,
    },
    /// Names a keeper for a room (admins), and opens a vault there as soon as it is reached.
    AddKeeper {
        /// The room.
        room: RoomId,
        /// The keeper's address, with its ticket.
        keeper: KeeperAddress,
    },
    /// Takes a keeper away from a room (admins).
    RemoveKeeper {
        /// The room.
        room: RoomId,
        /// The keeper's device.
        device: DeviceId,
    },
    /// Keeps sealed entries for rooms that show this node's ticket, until it is closed.
    Keep {
        /// How much of it.
        limits: Limits,
    },
    /// Puts the rooms back in order of interest: this one is on somebody's screen. What it lacks is asked for first, and for [`OPEN_FOR`](crate::overlay::plan::OPEN_FOR) from now a line leads into it; to be said
    /// again while it is there.
    OpenRoom {
        /// The room on screen, or none.
        room: Option<RoomId>,
    },
}

/// What a person says to an invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Yes: into the room.
    Accept,
    /// No; the other side is told.
    Decline,
    /// No, and nothing of that person any more; the other side is not told.
    Block,
}

/// Something to say in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Post {
    /// A message.
    Text {
        /// 1 to 65,536 bytes.
        text: String,
        /// The entry that it answers.
        reply_to: Option<EntryId>,
        /// The files that it carries, sealed already. With any, the text may be empty.
        files: Vec<Attachment>,
    },
    /// Another text for an own message.
    Edit {
        /// The message.
        target: EntryId,
        /// Its new text.
        text: String,
    },
    /// Takes a message away (the author, or moderators and up): its text is dropped wherever the deletion arrives.
    Delete {
        /// The message.
        target: EntryId,
    },
    /// A reaction, or its withdrawal.
    React {
        /// The message.
        target: EntryId,
        /// One emoji, 1 to 32 bytes.
        emoji: String,
        /// False to withdraw.
        on: bool,
    },
}

/// The answer to a [`Command`].
#[derive(Debug, Clone)]
pub enum Reply {
    /// Done; nothing to tell.
    Done,
    /// The room that was made, opened or is being joined.
    Room(RoomId),
    /// The entry that was written.
    Entry(EntryId),
    /// The invite that was made.
    Invite(Invite),
}

/// Why a command was not carried out. Nothing was changed. The text is for people and says what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommandError {
    /// There is no such room here.
    #[error("there is no such room here; `offhook room list` shows those there are")]
    NoRoom,
    /// There is no such entry here.
    #[error("there is no such entry here; it may not have arrived yet")]
    NoEntry,
    /// There is no such person here.
    #[error("nobody here by that name or key; `offhook contact list` shows whom you know")]
    NoPerson,
    /// The person is not a member of this room.
    #[error("that person is not a member of this room; `offhook room members` shows who is")]
    NotMember,
    /// This person has left or was removed.
    #[error("you are no longer a member of this room; what was said before can still be read")]
    NoLongerMember,
    /// The own role does not allow this.
    #[error("your role in this room ({have}) does not allow this; it takes {need}")]
    NotAllowed {
        /// The own role.
        have: Role,
        /// The role needed.
        need: Role,
    },
    /// The room would be left without an owner.
    #[error("this would leave the room without an owner; make somebody else owner first")]
    LastOwner,
    /// Text, name or emoji is empty or too long.
    #[error("{what} must be 1 to {bytes_max} bytes long")]
    Length {
        /// Which field.
        what: &'static str,
        /// Its maximum.
        bytes_max: usize,
    },
    /// The room does not take so large a file.
    #[error("{}", too_large(*bytes_max))]
    TooLargeForRoom {
        /// The largest that it takes, in bytes.
        bytes_max: u64,
    },
    /// The target cannot be edited, deleted or answered by this person.
    #[error("{0}")]
    NotYours(&'static str),
    /// The device was not found nearby.
    #[error("no such device announces itself near here (any more); `offhook near` lists who does")]
    NotNear,
    /// The invitation was answered already, or is over.
    #[error("there is no such invitation (any more); `offhook near` lists those there are")]
    NoProposal,
    /// The invite cannot be used.
    #[error("{0}")]
    BadInvite(&'static str),
    /// The keys to write in this room have not arrived yet.
    #[error("this room's keys have not arrived yet; they come with the next member that is reached")]
    NoKeys,
    /// A fixed limit is reached.
    #[error("{0}")]
    Limit(&'static str),
    /// Already so.
    #[error("{0}")]
    Already(&'static str),
}

/// Why a room does not take a file, and what can be done.
pub fn too_large(bytes_max: u64) -> String {
    match bytes_max {
        0 => "this room takes no files; an admin can change that with `offhook room limit`".to_owned(),
        _ => format!(
            "this room takes files of at most {}; an admin can change that with `offhook room limit`",
            size(bytes_max)
        ),
    }
}

/// A size as a person says it, in powers of ten; whole to the first digit after the point.
pub fn size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        1 => return "1 byte".to_owned(),
        0..1_000 => return format!("{bytes} bytes"),
        1_000..1_000_000 => (1_000, "kB"),
        1_000_000..1_000_000_000 => (1_000_000, "MB"),
        1_000_000_000..1_000_000_000_000 => (1_000_000_000, "GB"),
        _ => (1_000_000_000_000, "TB"),
    };
    match bytes % unit / (unit / 10) {
        0 => format!("{} {name}", bytes / unit),
        tenth => format!("{}.{tenth} {name}", bytes / unit),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_said_in_powers_of_ten() {
        for (bytes, said) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (999, "999 bytes"),
            (1_000, "1 kB"),
            (1_049, "1 kB"),
            (1_550, "1.5 kB"),
            (100_000_000, "100 MB"),
            (64 << 30, "68.7 GB"),
            (u64::MAX, "18446744 TB"),
        ] {
            assert_eq!(size(bytes), said);
        }
    }
}
