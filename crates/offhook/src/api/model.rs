//! The JSON of the API, in both directions: the node writes it, the command line reads it. The names are a promise to scripts
//! (`docs/api.md`, golden tests in `tests/names.rs`).

mod files;
mod near;

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(crate) use files::{FileStanding, FileState, FileTaken, Files};
pub(crate) use near::{
    NearAnswer, NearAnswered, NearChange, NearInvite, NearInvited, NearRequest, NearVerdict, Nearby, Neighbour,
};

use crate::access::{Key, KeyKind, Scope};
use crate::proto::history::RoomId;
use crate::proto::identity::{DeviceId, PersonId};
use crate::proto::peer::{self, view};
use crate::proto::rooms::HistoryPolicy;

/// Ids of persons, devices and rooms are lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Times are RFC 3339 in UTC with milliseconds.
pub(crate) fn time(unix_ms: u64) -> String {
    let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    let at = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
    format!("{at:.3}")
}

/// `GET /status`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Status {
    pub(crate) person: String,
    pub(crate) device: String,
    pub(crate) name: String,
    pub(crate) home: String,
    pub(crate) since: String,
    pub(crate) addresses: Vec<String>,
    /// The relay through which others reach this node where they cannot call it.
    pub(crate) relay: Option<String>,
    pub(crate) network: String,
    /// Where HTTP is spoken.
    pub(crate) http: Option<String>,
    pub(crate) rooms: Vec<Room>,
    pub(crate) peers: Vec<Peer>,
    /// What this node keeps for others; null where it does not.
    pub(crate) keeper: Option<KeeperNode>,
    pub(crate) versions: Versions,
}

/// What this node keeps for others.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct KeeperNode {
    /// To be given to those whose rooms it shall keep.
    pub(crate) address: String,
    pub(crate) rooms: usize,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// `GET /rooms/{room}/keepers`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Keepers {
    pub(crate) room: String,
    pub(crate) keepers: Vec<Keeper>,
    /// How many a room should have.
    pub(crate) advised: usize,
}

/// `POST /rooms/{room}/keepers`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewKeeper {
    pub(crate) address: String,
}

/// A keeper of a room.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Keeper {
    pub(crate) device: String,
    /// There is a line to it.
    pub(crate) up: bool,
    /// It was named, and not reached yet to open its vault.
    pub(crate) pending: bool,
    /// Entries of the room that it says it holds.
    pub(crate) holds: u64,
    /// Entries held here that it does not hold.
    pub(crate) lacks: u64,
    /// What it holds of the room, in bytes; null while it is down.
    pub(crate) bytes: Option<u64>,
    pub(crate) bytes_max: Option<u64>,
    /// For how many days it keeps messages.
    pub(crate) days: Option<u32>,
    /// When it answered last.
    pub(crate) seen: Option<String>,
    /// Of a thousand times that it was tried it was there so often.
    pub(crate) uptime_permille: Option<u32>,
    /// How often it proved that it holds what it says.
    pub(crate) proofs: u32,
    /// What was found wrong with it, in words.
    pub(crate) fault: Option<String>,
    pub(crate) addresses: Vec<String>,
}

impl From<view::KeeperView> for Keeper {
    fn from(view: view::KeeperView) -> Self {
        Self {
            device: hex(&view.device.0),
            up: view.up,
            pending: view.pending,
            holds: view.holds,
            lacks: view.lacks,
            bytes: view.bytes,
            bytes_max: view.bytes_max,
            days: view.days,
            seen: view.seen_ms.map(time),
            uptime_permille: view.uptime_permille,
            proofs: view.proofs,
            fault: view.fault.map(|fault| fault.words()),
            addresses: view.addresses.iter().map(SocketAddr::to_string).collect(),
        }
    }
}

/// What speaks.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Versions {
    pub(crate) offhook: String,
    pub(crate) api: String,
}

/// A peer and its line.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Peer {
    pub(crate) device: String,
    pub(crate) person: Option<String>,
    pub(crate) name: String,
    pub(crate) up: bool,
    pub(crate) path: Option<String>,
    pub(crate) rooms: usize,
    pub(crate) seen: Option<String>,
    pub(crate) addresses: Vec<String>,
}

impl Peer {
    pub(crate) fn new(view: view::PeerView, path: Option<String>) -> Self {
        Self {
            device: hex(&view.device.0),
            person: view.person.map(|person| hex(&person.0)),
            name: view.name,
            up: view.up,
            path,
            rooms: view.rooms,
            seen: view.seen_ms.map(time),
            addresses: view.addresses.iter().map(SocketAddr::to_string).collect(),
        }
    }
}

/// A room.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Room {
    pub(crate) room: String,
    pub(crate) name: String,
    pub(crate) pair: Option<String>,
    pub(crate) standing: Standing,
    /// Why the person is out, where others brought that about.
    pub(crate) why_out: Option<String>,
    pub(crate) role: String,
    pub(crate) history: String,
    /// The largest file that it takes, in bytes.
    pub(crate) file_limit: u64,
    pub(crate) members: usize,
    pub(crate) members_online: usize,
    pub(crate) entries: u64,
    pub(crate) unread: u64,
    pub(crate) mentions: u64,
    pub(crate) read_up_to: Option<String>,
    pub(crate) missing: u64,
    pub(crate) sealed: u64,
    pub(crate) newest: Option<String>,
    pub(crate) keepers: usize,
    /// Own entries that two others have not said yet that they hold.
    pub(crate) exposed: u64,
    pub(crate) pinned: bool,
    pub(crate) muted: bool,
    pub(crate) note_to_self: bool,
    pub(crate) draft: Option<Draft>,
}

/// What was begun and not said yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Draft {
    pub(crate) text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reply_to: Option<String>,
}

/// How the person stands to a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Standing {
    Joining,
    Member,
    Left,
    Removed,
}

impl Room {
    /// A room with what is kept about it here alone.
    pub(crate) fn new(view: view::RoomView, kept: Kept) -> Self {
        Self {
            room: hex(&view.room.0),
            name: view.name,
            pair: view.pair.map(|person| hex(&person.0)),
            standing: match view.standing {
                view::Standing::Joining => Standing::Joining,
                view::Standing::Member => Standing::Member,
                view::Standing::Left => Standing::Left,
                view::Standing::Removed => Standing::Removed,
            },
            why_out: view.why_out,
            role: view.role.to_string(),
            history: history_text(view.history),
            file_limit: view.file_bytes_max,
            members: view.members,
            members_online: view.members_online,
            entries: view.entries,
            unread: view.unread,
            mentions: view.mentions,
            read_up_to: view.read_up_to.map(|id| id.to_string()),
            missing: view.missing,
            sealed: view.sealed,
            newest: view.newest.map(|id| id.to_string()),
            keepers: view.keepers,
            exposed: view.exposed,
            pinned: kept.pinned,
            muted: kept.muted,
            note_to_self: kept.note_to_self,
            draft: kept.draft,
        }
    }
}

/// What is kept about a room on this node alone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    pub(crate) pinned: bool,
    pub(crate) muted: bool,
    pub(crate) note_to_self: bool,
    pub(crate) draft: Option<Draft>,
}

/// `GET /rooms`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Rooms {
    pub(crate) rooms: Vec<Room>,
}

/// `POST /rooms`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRoom {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) history: Option<String>,
}

/// A room that was made, opened or is being joined.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct RoomMade {
    pub(crate) room: String,
    pub(crate) name: String,
}

/// `PATCH /rooms/{room}`: what is absent stays as it is.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RoomChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// The largest file that it takes, in bytes; 0 for no files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file_limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pinned: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) muted: Option<bool>,
}

/// `GET /rooms/{room}/members`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Members {
    pub(crate) room: String,
    pub(crate) members: Vec<Member>,
}

/// A member.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Member {
    pub(crate) person: String,
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) verified: bool,
    pub(crate) me: bool,
    pub(crate) online: bool,
    pub(crate) seen: Option<String>,
    pub(crate) devices: Vec<String>,
}

impl From<view::MemberView> for Member {
    fn from(view: view::MemberView) -> Self {
        Self {
            person: hex(&view.person.0),
            name: view.name,
            role: view.role.to_string(),
            verified: view.verified,
            me: view.is_me,
            online: view.online,
            seen: view.seen_ms.map(time),
            devices: view.devices.iter().map(|device| hex(&device.0)).collect(),
        }
    }
}

/// `PUT /rooms/{room}/members/{person}/role`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoleChange {
    pub(crate) role: String,
}

/// `POST /rooms/{room}/invites`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NewInvite {
    pub(crate) expires_s: u64,
    pub(crate) uses: u32,
    pub(crate) role: String,
    pub(crate) only_me: bool,
}

impl Default for NewInvite {
    fn default() -> Self {
        Self {
            expires_s: 7 * 24 * 3600,
            uses: 1,
            role: "member".to_owned(),
            only_me: false,
        }
    }
}

/// An invite that was made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct InviteMade {
    pub(crate) invite: String,
    /// The same to be read aloud: lines of eight words, of which the last checks the line.
    pub(crate) words: Vec<String>,
    pub(crate) room: String,
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) uses: u32,
    pub(crate) expires: String,
}

/// `POST /joins`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewJoin {
    pub(crate) invite: String,
}

/// `GET /contacts`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Contacts {
    pub(crate) contacts: Vec<Contact>,
}

/// Somebody known from a room.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Contact {
    pub(crate) person: String,
    pub(crate) name: String,
    pub(crate) own_name: Option<String>,
    pub(crate) petname: Option<String>,
    pub(crate) verified: bool,
    pub(crate) blocked: bool,
    pub(crate) safety_number: String,
    pub(crate) rooms: Vec<String>,
}

impl From<view::ContactView> for Contact {
    fn from(view: view::ContactView) -> Self {
        let person = hex(&view.person.0);
        let name = view.petname.clone().or_else(|| view.own_name.clone());
        Self {
            name: name.unwrap_or_else(|| person[..8].to_owned()),
            person,
            own_name: view.own_name,
            petname: view.petname,
            verified: view.verified,
            blocked: view.blocked,
            safety_number: view.safety_number,
            rooms: view.rooms.iter().map(|room| hex(&room.0)).collect(),
        }
    }
}

/// `PATCH /contacts/{person}`: what is absent stays as it is.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ContactChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) petname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) verified: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) blocked: Option<bool>,
}

/// `POST /rooms/{room}/entries` and `POST /entries/{id}/replies`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewEntry {
    /// May be empty where there are files.
    pub(crate) text: String,
    /// Files that were taken in, by their content ids; at most four.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) files: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) client_id: Option<String>,
}

/// `PATCH /entries/{id}`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EntryChange {
    pub(crate) text: String,
}

/// `POST /rooms/{room}/read`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadMark {
    pub(crate) up_to: String,
}

/// An entry that was written.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct EntryMade {
    pub(crate) id: String,
    pub(crate) room: String,
}

/// Done, and nothing else to tell.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Done {
    pub(crate) done: bool,
}

/// What a line of a timeline is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LineKind {
    /// A message.
    Message,
    /// A message whose text was deleted.
    Deleted,
    /// A message that cannot be read yet.
    Sealed,
    /// A change to the room.
    Control,
    /// Entries that exist and are not here.
    Gap,
}

/// How far an entry got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// On this device only.
    Saved,
    /// On at least one other.
    Handed,
    /// On a device of every other member.
    Reached,
    /// Seen by every other member.
    Read,
    /// Can get no further.
    Failed,
    /// Not here (gaps only).
    Missing,
}

impl From<view::DeliveryState> for State {
    fn from(state: view::DeliveryState) -> Self {
        match state {
            view::DeliveryState::Saved => Self::Saved,
            view::DeliveryState::Handed => Self::Handed,
            view::DeliveryState::Reached => Self::Reached,
            view::DeliveryState::Read => Self::Read,
            view::DeliveryState::Failed => Self::Failed,
        }
    }
}

/// A line of a timeline. Every line has the first nine; the rest is there for all kinds but gaps.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Line {
    pub(crate) id: String,
    pub(crate) room: String,
    pub(crate) author: Option<String>,
    pub(crate) device: Option<String>,
    pub(crate) seq: u32,
    pub(crate) time: Option<String>,
    pub(crate) kind: LineKind,
    pub(crate) text: String,
    pub(crate) state: State,
    #[serde(flatten)]
    pub(crate) entry: Option<EntryDetail>,
    /// The last missing sequence number, of a gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) missing_to: Option<u32>,
}

/// What an entry has beyond a gap.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct EntryDetail {
    pub(crate) author_name: String,
    pub(crate) mine: bool,
    pub(crate) reply_to: Option<String>,
    pub(crate) edited: Option<String>,
    pub(crate) reactions: Vec<Reaction>,
    pub(crate) late: bool,
    pub(crate) clock_ahead: bool,
    pub(crate) after_removal: bool,
    pub(crate) by_reader: bool,
    pub(crate) equivocation: bool,
    pub(crate) mentions_me: bool,
    /// What it carries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) files: Vec<FileTaken>,
}

/// An emoji and who gave it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Reaction {
    pub(crate) emoji: String,
    pub(crate) persons: Vec<String>,
}

impl Line {
    /// An entry, as seen by `me`.
    pub(crate) fn entry(view: view::EntryView, me: &PersonId) -> Self {
        let reaction = |(emoji, persons): (String, Vec<PersonId>)| Reaction {
            emoji,
            persons: persons.iter().map(|person| hex(&person.0)).collect(),
        };
        Self {
            id: view.id.to_string(),
            room: hex(&view.room.0),
            author: Some(hex(&view.author.0)),
            device: Some(hex(&view.device.0)),
            seq: view.seq,
            time: Some(time(view.time_ms)),
            kind: match view.kind {
                view::EntryKind::Message => LineKind::Message,
                view::EntryKind::Deleted => LineKind::Deleted,
                view::EntryKind::Sealed => LineKind::Sealed,
                view::EntryKind::Control => LineKind::Control,
            },
            text: view.text,
            state: view.state.into(),
            entry: Some(EntryDetail {
                author_name: view.author_name,
                mine: view.author == *me,
                reply_to: view.reply_to.map(|id| id.to_string()),
                edited: view.edited_ms.map(time),
                reactions: view.reactions.into_iter().map(reaction).collect(),
                late: view.late,
                clock_ahead: view.clock_ahead,
                after_removal: view.after_removal,
                by_reader: view.by_reader,
                equivocation: view.equivocation,
                mentions_me: view.mentions_me,
                files: view.files.iter().map(FileTaken::new).collect(),
            }),
            missing_to: None,
        }
    }

    /// A line of a room's timeline, as seen by `me`.
    pub(crate) fn new(view: view::LineView, room: &RoomId, me: &PersonId) -> Self {
        match view {
            view::LineView::Entry(entry) => Self::entry(*entry, me),
            view::LineView::Gap { log, author, from, to } => Self::gap(log, author, from, to, room),
        }
    }

    fn gap(log: [u8; 8], author: Option<PersonId>, from: u32, to: u32, room: &RoomId) -> Self {
        let text = match to.saturating_sub(from) {
            0 => "1 entry is missing here".to_owned(),
            more => format!("{} entries are missing here", u64::from(more) + 1),
        };
        Self {
            id: crate::proto::history::EntryId { log, seq: from }.to_string(),
            room: hex(&room.0),
            author: author.map(|person| hex(&person.0)),
            device: None,
            seq: from,
            time: None,
            kind: LineKind::Gap,
            text,
            state: State::Missing,
            entry: None,
            missing_to: Some(to),
        }
    }
}

/// A page of a timeline, oldest line first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Line>,
    /// Give it as `cursor` to get the page before; null on the oldest.
    pub(crate) older: Option<String>,
    /// Give it as `cursor` to get the page after; null on the newest.
    pub(crate) newer: Option<String>,
}

/// `GET /search`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Found {
    pub(crate) entries: Vec<Line>,
}

/// `GET /entries/{id}/where`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Whereabouts {
    pub(crate) id: String,
    pub(crate) state: State,
    pub(crate) saved: String,
    pub(crate) handed: Vec<String>,
    /// Of `handed`, those that are keepers.
    pub(crate) kept: Vec<String>,
    /// Two others have said that they hold it.
    pub(crate) safe: bool,
    pub(crate) reached: usize,
    pub(crate) read: usize,
    pub(crate) members: usize,
    pub(crate) per_member: Vec<MemberState>,
}

/// How far an entry got with one member.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct MemberState {
    pub(crate) person: String,
    pub(crate) name: String,
    pub(crate) state: State,
    /// Why not further, in a sentence; empty once read.
    pub(crate) why: String,
    /// The same for programs: `not-seen-yet`, `on-its-way`, `last-seen` or `never-seen`.
    pub(crate) why_code: Option<String>,
    /// Minutes since this node had a line to them, where that is why.
    pub(crate) last_seen_min: Option<u64>,
}

impl From<view::WhereView> for Whereabouts {
    fn from(view: view::WhereView) -> Self {
        let member = |m: view::MemberDelivery| MemberState {
            person: hex(&m.person.0),
            name: m.name,
            state: m.state.into(),
            why: m.why.map(view::WhyNot::sentence).unwrap_or_default(),
            why_code: m.why.map(|why| why.code().to_owned()),
            last_seen_min: match m.why {
                Some(view::WhyNot::LastSeen { minutes }) => Some(minutes),
                _ => None,
            },
        };
        Self {
            id: view.id.to_string(),
            state: view.state.into(),
            saved: time(view.saved_ms),
            handed: view.handed.iter().map(|device| hex(&device.0)).collect(),
            kept: view.kept.iter().map(|device| hex(&device.0)).collect(),
            safe: view.safe,
            reached: view.reached,
            read: view.read,
            members: view.members,
            per_member: view.per_member.into_iter().map(member).collect(),
        }
    }
}

/// `GET /identity`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Identity {
    pub(crate) person: String,
    pub(crate) device: String,
    pub(crate) name: String,
}

/// `PATCH /identity`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdentityChange {
    pub(crate) name: String,
}

/// `PUT /focus`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Focus {
    pub(crate) room: Option<String>,
}

/// `GET /irc`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct IrcState {
    pub(crate) on: bool,
    pub(crate) at: Option<String>,
    /// The Unix socket, where nothing is asked.
    pub(crate) socket: Option<String>,
}

/// `PUT /irc`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IrcChange {
    pub(crate) on: bool,
    /// 6667 unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
}

/// `POST /session`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignIn {
    pub(crate) token: String,
}

/// `GET /session`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Session {
    pub(crate) scopes: Vec<String>,
    pub(crate) expires: Option<String>,
}

/// `POST /login-links`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct LoginLink {
    pub(crate) url: String,
    pub(crate) expires: String,
}

/// `POST /tokens`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    pub(crate) name: String,
    pub(crate) scopes: Vec<Scope>,
}

/// A token that was made: the only time that it is shown.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct TokenMade {
    pub(crate) token: String,
    #[serde(flatten)]
    pub(crate) about: Token,
}

/// `GET /tokens`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Tokens {
    pub(crate) tokens: Vec<Token>,
}

/// A program's token or a browser's session.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Token {
    pub(crate) id: String,
    pub(crate) kind: KeyKind,
    pub(crate) name: String,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) made: String,
    /// To the hour.
    pub(crate) used: String,
    pub(crate) expires: Option<String>,
}

impl From<Key> for Token {
    fn from(key: Key) -> Self {
        let time_of = |ms: i64| time(u64::try_from(ms).unwrap_or(0));
        Self {
            made: time_of(key.made_ms),
            used: time_of(key.used_ms),
            expires: key.expires_ms().map(time_of),
            id: key.id,
            kind: key.kind,
            name: key.name,
            scopes: key.scopes,
        }
    }
}

/// `GET /events/consumers`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Consumers {
    pub(crate) newest: u64,
    pub(crate) consumers: Vec<Consumer>,
}

/// Somebody who follows the events and says how far.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Consumer {
    pub(crate) consumer: String,
    pub(crate) acknowledged: u64,
}

/// `PUT /events/consumers/{consumer}`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Acknowledged {
    pub(crate) acknowledged: u64,
}

/// `GET /identity/phrase`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Phrase {
    pub(crate) person: String,
    pub(crate) phrase: String,
}

/// `POST /backup`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewBackup {
    pub(crate) passphrase: String,
    /// Also the files of messages that are here.
    #[serde(default)]
    pub(crate) files: bool,
}

/// One event of the stream. `event` says which; the other fields depend on it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Event {
    /// An entry is new or is shown differently now.
    Entry {
        room: String,
        id: String,
        new: bool,
        /// The line, where it is still there.
        line: Option<Box<Line>>,
    },
    /// A room's members, name or standing changed, or what was read of it, or that it is pinned or muted.
    Room { room: String },
    /// The draft of a room changed.
    Draft { room: String, draft: Option<Draft> },
    /// A line came up or went down.
    Line { device: String, up: bool },
    /// Somebody nearby invites this person, or an invitation of either side got further: read `/near` anew.
    Near {
        /// That somebody invites, in a sentence.
        text: Option<String>,
    },
    /// A step of a join.
    Join { room: String, step: Step },
    /// A file of a message got further, or stands differently. Not numbered: who was away asks how the file stands.
    File {
        /// The message.
        entry: String,
        /// The file's content id.
        file: String,
        /// Bytes that are here and checked.
        here: u64,
        state: FileStanding,
        /// Members with a line that are asked for it.
        sources: usize,
        /// Why it stands still.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        problem: Option<String>,
    },
    /// Something that a person should look at.
    Notice { room: Option<String>, text: String },
    /// Events before this one are no longer held: read anew what you show.
    Reset {},
}

/// How far a join has come.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(tag = "step", rename_all = "lowercase")]
pub(crate) enum Step {
    Knocking { device: String },
    Asked { device: String },
    Admitted { by: String },
    Verified { members: usize },
    Readable { entries: u64, missing: u64 },
    Refused { why: String, last: bool },
}

impl From<peer::Event> for Event {
    fn from(event: peer::Event) -> Self {
        match event {
            peer::Event::Entry { room, id, new } => Self::Entry {
                room: hex(&room.0),
                id: id.to_string(),
                new,
                line: None,
            },
            peer::Event::Room { room } => Self::Room { room: hex(&room.0) },
            peer::Event::Line { peer, up } => Self::Line {
                device: hex(&peer.0),
                up,
            },
            peer::Event::Proposals { news } => Self::Near { text: news },
            peer::Event::Join { room, step } => Self::Join {
                room: hex(&room.0),
                step: step.into(),
            },
            peer::Event::Notice { room, text } => Self::Notice {
                room: room.map(|room| hex(&room.0)),
                text,
            },
        }
    }
}

impl From<peer::JoinStep> for Step {
    fn from(step: peer::JoinStep) -> Self {
        let device = |peer: DeviceId| hex(&peer.0);
        match step {
            peer::JoinStep::Knocking { peer } => Self::Knocking { device: device(peer) },
            peer::JoinStep::Asked { peer } => Self::Asked { device: device(peer) },
            peer::JoinStep::Admitted { by } => Self::Admitted { by: hex(&by.0) },
            peer::JoinStep::RosterVerified { members } => Self::Verified { members },
            peer::JoinStep::Readable { entries, missing } => Self::Readable { entries, missing },
            peer::JoinStep::Refused { why, last } => Self::Refused { why, last },
        }
    }
}

/// A history policy as text: `all`, `none`, or days as `30d`.
pub(crate) fn history_text(policy: HistoryPolicy) -> String {
    match policy {
        HistoryPolicy::All {} => "all".to_owned(),
        HistoryPolicy::Days { days } => format!("{days}d"),
        HistoryPolicy::None {} => "none".to_owned(),
    }
}

/// The history policy that a text states.
pub(crate) fn history_policy(text: &str) -> Option<HistoryPolicy> {
    match text {
        "all" => Some(HistoryPolicy::All {}),
        "none" => Some(HistoryPolicy::None {}),
        days => {
            let days = days.strip_suffix('d')?.parse().ok().filter(|days| *days > 0)?;
            Some(HistoryPolicy::Days { days })
        }
    }
}
