//! What a peer shows: plain data, with nothing of how it is kept.

use crate::history::{Attachment, EntryId, RoomId};
use crate::identity::{DeviceId, PersonId};
use crate::keeper::audit::Fault;
use crate::rooms::{HistoryPolicy, Role};

/// A room, for lists.
#[derive(Debug, Clone, PartialEq)]
pub struct RoomView {
    /// The room.
    pub room: RoomId,
    /// Its name; for a room of two the other person's.
    pub name: String,
    /// The other person, in a room of two.
    pub pair: Option<PersonId>,
    /// How this person stands to it.
    pub standing: Standing,
    /// Why this person is out, in words, where others brought that about.
    pub why_out: Option<String>,
    /// The own role.
    pub role: Role,
    /// What newcomers may read.
    pub history: HistoryPolicy,
    /// The largest file that it takes, in bytes.
    pub file_bytes_max: u64,
    /// How many persons are in it.
    pub members: usize,
    /// How many of them, this one left out, have a line to this node now.
    pub members_online: usize,
    /// Messages here.
    pub entries: u64,
    /// Of those, not yet seen by the person.
    pub unread: u64,
    /// Of the unread, those that name the own person; no more than a hundred are counted.
    pub mentions: u64,
    /// The newest entry that the person has seen.
    pub read_up_to: Option<EntryId>,
    /// Entries that are known to exist and are not here.
    pub missing: u64,
    /// Entries that are here and cannot be read yet for want of a key.
    pub sealed: u64,
    /// The newest message.
    pub newest: Option<EntryId>,
    /// Keepers of the room.
    pub keepers: usize,
    /// Own entries, control entries among them, that two others have not said yet that they hold. None is shown where nobody else is in the room.
    pub exposed: u64,
}

/// A keeper of a room, as known here.
#[derive(Debug, Clone, PartialEq)]
pub struct KeeperView {
    /// Its device.
    pub device: DeviceId,
    /// Whether the line to it is up.
    pub up: bool,
    /// Named, and not reached yet to open the vault.
    pub pending: bool,
    /// Entries of the room that it said it holds.
    pub holds: u64,
    /// Entries of the room that are here and that it does not hold; expired ones among them.
    pub lacks: u64,
    /// Bytes that it keeps for the room, while the line is up.
    pub bytes: Option<u64>,
    /// The most that it keeps for the room.
    pub bytes_max: Option<u64>,
    /// For how many days it keeps messages.
    pub days: Option<u32>,
    /// When it last answered, in milliseconds since 1970.
    pub seen_ms: Option<u64>,
    /// The share of tries that it answered, in thousandths.
    pub uptime_permille: Option<u32>,
    /// Challenges that it met.
    pub proofs: u32,
    /// What was found wrong with it.
    pub fault: Option<Fault>,
    /// Where it may be.
    pub addresses: Vec<std::net::SocketAddr>,
}

/// How this person stands to a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Knocking with an invite.
    Joining,
    /// A member.
    Member,
    /// Left.
    Left,
    /// Was removed.
    Removed,
}

/// A member of a room.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberView {
    /// The person.
    pub person: PersonId,
    /// What they are called here: petname, else their own name, else the key's prefix.
    pub name: String,
    /// Role.
    pub role: Role,
    /// Whether the safety number was compared.
    pub verified: bool,
    /// Whether this is the own person.
    pub is_me: bool,
    /// Whether a line to one of their devices is up.
    pub online: bool,
    /// When a line to one of their devices was last up, in milliseconds since 1970.
    pub seen_ms: Option<u64>,
    /// Their devices in this room.
    pub devices: Vec<DeviceId>,
}

/// A person known from any room.
#[derive(Debug, Clone, PartialEq)]
pub struct ContactView {
    /// The person.
    pub person: PersonId,
    /// What they call themselves.
    pub own_name: Option<String>,
    /// What they are called here.
    pub petname: Option<String>,
    /// Whether the safety number was compared.
    pub verified: bool,
    /// Whether blocked here.
    pub blocked: bool,
    /// The number to compare.
    pub safety_number: String,
    /// Rooms shared with them.
    pub rooms: Vec<RoomId>,
}

/// The five honest states of an own entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeliveryState {
    /// Durable on this device and nowhere else, as far as is known.
    Saved,
    /// At least one other node has said that it is durable there.
    Handed,
    /// On at least one device of every other member.
    Reached,
    /// Seen by every other member.
    Read,
    /// Cannot get any further; the reason is in [`WhereView`].
    Failed,
}

/// One line of a room's timeline.
#[derive(Debug, Clone, PartialEq)]
pub enum LineView {
    /// Something said or done.
    Entry(Box<EntryView>),
    /// Entries that exist and are not here.
    Gap {
        /// The log.
        log: [u8; 8],
        /// The author, where known.
        author: Option<PersonId>,
        /// First missing sequence number.
        from: u32,
        /// Last missing sequence number.
        to: u32,
    },
}

/// An entry as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct EntryView {
    /// Its name.
    pub id: EntryId,
    /// The room.
    pub room: RoomId,
    /// The author.
    pub author: PersonId,
    /// What the author is called here.
    pub author_name: String,
    /// The author's device.
    pub device: DeviceId,
    /// Sequence number in the device's log.
    pub seq: u32,
    /// The author's clock, in milliseconds since 1970; where it is far ahead of what came after it, that of what came after.
    pub time_ms: u64,
    /// What it is.
    pub kind: EntryKind,
    /// The current text; for control entries a sentence.
    pub text: String,
    /// How far it got, for own entries; [`DeliveryState::Handed`] for others'.
    pub state: DeliveryState,
    /// The message that it answers.
    pub reply_to: Option<EntryId>,
    /// The files that it carries.
    pub files: Vec<Attachment>,
    /// When it was last edited, in milliseconds since 1970.
    pub edited_ms: Option<u64>,
    /// Reactions: emoji and who gave it, in order.
    pub reactions: Vec<(String, Vec<PersonId>)>,
    /// It came after entries that stand below it had been here already.
    pub late: bool,
    /// Its own clock was far ahead of others'.
    pub clock_ahead: bool,
    /// Its author had been removed: it has no authority.
    pub after_removal: bool,
    /// Said by somebody who was a reader then: it has no authority.
    pub by_reader: bool,
    /// Its log forks here or above: its author shows different people different things.
    pub equivocation: bool,
    /// It names the own person.
    pub mentions_me: bool,
}

/// What an entry is, as shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A message.
    Message,
    /// A message whose text was deleted.
    Deleted,
    /// A message that cannot be read yet for want of a key.
    Sealed,
    /// A change to the room: joined, left, removed, renamed, ...
    Control,
}

/// Where an entry is, and why not further.
#[derive(Debug, Clone, PartialEq)]
pub struct WhereView {
    /// The entry.
    pub id: EntryId,
    /// Summary.
    pub state: DeliveryState,
    /// When it became durable here, in milliseconds since 1970.
    pub saved_ms: u64,
    /// Devices, members' and keepers', that said it is durable there.
    pub handed: Vec<DeviceId>,
    /// Of those, the ones that are keepers.
    pub kept: Vec<DeviceId>,
    /// Two others have said that they hold it: this node can go offline, and it will reach those who come back.
    pub safe: bool,
    /// How many other members have it on a device.
    pub reached: usize,
    /// How many other members have seen it.
    pub read: usize,
    /// How many other members there are.
    pub members: usize,
    /// For each other member, in rooms of up to 50 devices.
    pub per_member: Vec<MemberDelivery>,
}

/// How far an entry got with one member.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberDelivery {
    /// The member.
    pub person: PersonId,
    /// What they are called here.
    pub name: String,
    /// Saved when not reached.
    pub state: DeliveryState,
    /// Why not yet; none once read.
    pub why: Option<WhyNot>,
}

/// Why an entry got no further with a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyNot {
    /// It is on a device of theirs.
    NotSeenYet,
    /// There is a line to them.
    OnItsWay,
    /// They were seen last so many minutes ago.
    LastSeen {
        /// Since then.
        minutes: u64,
    },
    /// This node has never had a line to them.
    NeverSeen,
}

impl WhyNot {
    /// The name of this reason for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotSeenYet => "not-seen-yet",
            Self::OnItsWay => "on-its-way",
            Self::LastSeen { .. } => "last-seen",
            Self::NeverSeen => "never-seen",
        }
    }

    /// In a sentence, for a person.
    pub fn sentence(self) -> String {
        match self {
            Self::NotSeenYet => "is there, not seen yet".to_owned(),
            Self::OnItsWay => "has a line to this node; on its way".to_owned(),
            Self::LastSeen { minutes } => {
                let unit = if minutes == 1 { "minute" } else { "minutes" };
                format!("not reached: last seen {minutes} {unit} ago; others who hold it may hand it on")
            }
            Self::NeverSeen => "not reached: never seen by this node; others who hold it may hand it on".to_owned(),
        }
    }
}

/// A peer that this node has or wants a line to.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerView {
    /// The device.
    pub device: DeviceId,
    /// Whose it is, where known.
    pub person: Option<PersonId>,
    /// What they are called here.
    pub name: String,
    /// Whether the line is up.
    pub up: bool,
    /// Rooms shared.
    pub rooms: usize,
    /// When the line was last up, in milliseconds since 1970.
    pub seen_ms: Option<u64>,
    /// Addresses known.
    pub addresses: Vec<std::net::SocketAddr>,
}

/// A line, and why it is held.
#[derive(Debug, Clone, PartialEq)]
pub struct LineState {
    /// The device at the other end.
    pub device: DeviceId,
    /// What its person is called here.
    pub name: String,
    /// Rooms that both have spoken of on it.
    pub rooms: usize,
    /// How long it has been up.
    pub up_for: std::time::Duration,
    /// How long nothing came on it.
    pub idle_for: std::time::Duration,
    /// This node dialled.
    pub is_own: bool,
    /// Why it is held.
    pub reason: crate::overlay::plan::Reason,
}

/// The own person and device.
#[derive(Debug, Clone, PartialEq)]
pub struct MeView {
    /// The person.
    pub person: PersonId,
    /// The device.
    pub device: DeviceId,
    /// The own name.
    pub name: String,
}
