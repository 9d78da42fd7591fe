//! Who is nearby, and invitations between strangers there.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /near`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Nearby {
    pub(crate) near: Vec<Neighbour>,
    /// Who of them invites this person, and waits for an answer.
    pub(crate) requests: Vec<NearRequest>,
    /// Whether strangers nearby see this person's name and may invite them.
    pub(crate) visible: bool,
}

/// `PATCH /near`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NearChange {
    pub(crate) visible: bool,
}

/// Somebody nearby invites this person.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct NearRequest {
    /// To answer by.
    pub(crate) request: String,
    pub(crate) device: String,
    /// Whose device it is: shown by signatures.
    pub(crate) person: String,
    /// The name that this person claims.
    pub(crate) claims: Option<String>,
    /// What they are called here; null where they are not known.
    pub(crate) name: Option<String>,
    /// The room's name, as the other side has it; null for a room of two.
    pub(crate) room_name: Option<String>,
    /// `machine`, `network`, or null where they are gone.
    pub(crate) place: Option<String>,
    pub(crate) expires_s: u64,
}

/// `POST /near/{device}/invite`.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NearInvite {
    /// Without one: to a room of two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) room: Option<String>,
}

/// `POST /near/requests/{request}`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NearAnswer {
    pub(crate) answer: NearVerdict,
}

/// How to answer.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NearVerdict {
    /// Into the room; the steps come as events.
    Accept,
    /// The other side is told.
    Decline,
    /// The other side is not told, and not heard again.
    Block,
}

/// What an answer led to.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct NearAnswered {
    /// The room that is being joined, after `accept`.
    pub(crate) room: Option<String>,
    pub(crate) name: Option<String>,
}

/// An invitation of this person's to somebody nearby.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct NearInvited {
    /// Null for a room of two that is not made yet.
    pub(crate) room: Option<String>,
    /// `calling`, `sent`, `shown`, `accepted`, `declined`, `not-taken` or `expired`.
    pub(crate) standing: String,
    /// When it is over, or forgotten.
    pub(crate) left_s: u64,
}

/// A node that announces itself nearby.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Neighbour {
    pub(crate) device: String,
    pub(crate) person: Option<String>,
    pub(crate) name: Option<String>,
    /// The name that it announces. Whoever does takes invitations of strangers. Anybody on the network can announce any name.
    pub(crate) claims: Option<String>,
    /// `machine` or `network`.
    pub(crate) place: String,
    /// What this person invited it to, the newest last.
    pub(crate) invited: Vec<NearInvited>,
    pub(crate) addresses: Vec<String>,
    /// Whether a line is up: then it is who it says.
    pub(crate) up: bool,
    pub(crate) heard_s: u64,
}
