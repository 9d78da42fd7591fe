//! What can go wrong, once for the API and the command line: problem documents (RFC 9457) and stable exit codes.
//!
//! Every kind of problem has a code (a promise to scripts), an HTTP status, a title and an exit code; [`Kind::ALL`] is the table that
//! `docs/api.md` and `docs/cli.md` repeat and a test compares.

use std::fmt;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

/// How the program ends. The numbers are a promise to scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Something failed that the person cannot have caused.
    Failed = 1,
    /// No node is running on this home.
    NoNode = 3,
    /// No such room, person or entry.
    NotFound = 4,
    /// A name fits several.
    Ambiguous = 5,
    /// The room's rules do not allow it.
    Refused = 6,
    /// What was given cannot be used.
    BadInput = 7,
    /// Not so far yet; it goes on, or may be tried again.
    NotYet = 8,
    /// Another node is running on this home.
    Busy = 9,
    /// The home cannot be used.
    BadHome = 10,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident: $code:literal, $status:literal, $exit:ident, $title:literal;)*) => {
        /// A kind of problem.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Kind { $($(#[$doc])* $kind,)* }

        impl Kind {
            /// Every kind.
            pub(crate) const ALL: &[Self] = &[$(Self::$kind),*];

            /// The name that scripts may rely on.
            pub(crate) fn code(self) -> &'static str {
                match self { $(Self::$kind => $code,)* }
            }

            /// The HTTP status.
            pub(crate) fn status(self) -> u16 {
                match self { $(Self::$kind => $status,)* }
            }

            /// How the command line ends.
            pub(crate) fn exit(self) -> Exit {
                match self { $(Self::$kind => Exit::$exit,)* }
            }

            /// A few words, the same for every problem of the kind.
            pub(crate) fn title(self) -> &'static str {
                match self { $(Self::$kind => $title,)* }
            }
        }
    };
}

kinds! {
    /// The request is not understood.
    BadRequest: "bad-request", 400, BadInput, "The request is not understood";
    /// There is no such address in the API.
    NoEndpoint: "no-endpoint", 404, Failed, "There is no such address in this API";
    /// The address does not take this method.
    BadMethod: "bad-method", 405, Failed, "This address does not take that method";
    /// The body is larger than anything that is allowed.
    TooLarge: "too-large", 413, BadInput, "The request is too large";
    /// The body is not JSON.
    NotJson: "not-json", 415, BadInput, "The request is not JSON";
    /// The request named another host than this listener.
    BadHost: "bad-host", 421, Failed, "This listener has another name";
    /// Another page asked, or a page without saying which.
    ForeignOrigin: "foreign-origin", 403, Failed, "Another page may not ask";
    /// Not signed in, or the token is unknown.
    NoAccess: "no-access", 401, Refused, "Not signed in";
    /// The token does not allow this.
    Scope: "scope", 403, Refused, "The token does not allow this";
    /// HTTP is off.
    NoHttp: "no-http", 409, Refused, "This node speaks no HTTP";
    /// No such token or session.
    NoToken: "no-token", 404, NotFound, "No such token";
    /// No such room.
    NoRoom: "no-room", 404, NotFound, "No such room";
    /// No such entry.
    NoEntry: "no-entry", 404, NotFound, "No such entry";
    /// No such file.
    NoFile: "no-file", 404, NotFound, "No such file";
    /// A file is not here yet.
    NotHere: "not-here", 409, NotYet, "The file is not here yet";
    /// No such person.
    NoPerson: "no-person", 404, NotFound, "No such person";
    /// No such device nearby.
    NotNear: "not-near", 404, NotFound, "No such device nearby";
    /// No such invitation of somebody nearby.
    NoRequest: "no-request", 404, NotFound, "No such invitation";
    /// Not a member of the room.
    NotMember: "not-member", 404, NotFound, "Not a member of this room";
    /// A name fits several.
    Ambiguous: "ambiguous", 409, Ambiguous, "The name fits several";
    /// Left or removed.
    NoLongerMember: "no-longer-member", 403, Refused, "No longer a member";
    /// The role does not allow it.
    NotAllowed: "not-allowed", 403, Refused, "Your role does not allow this";
    /// Somebody else's.
    NotYours: "not-yours", 403, Refused, "Not yours to change";
    /// The room would have no owner.
    LastOwner: "last-owner", 409, Refused, "The room needs an owner";
    /// A fixed limit.
    Limit: "limit", 409, Refused, "A limit is reached";
    /// Already so.
    Already: "already", 409, Refused, "Already so";
    /// A text is empty or too long.
    Length: "length", 422, BadInput, "Empty or too long";
    /// The invite cannot be used.
    BadInvite: "bad-invite", 422, BadInput, "The invite cannot be used";
    /// A keeper's address cannot be used.
    BadKeeper: "bad-keeper", 422, BadInput, "The keeper's address cannot be used";
    /// No such keeper of the room.
    NoKeeper: "no-keeper", 404, NotFound, "No such keeper";
    /// A backup or its passphrase cannot be used.
    BadBackup: "bad-backup", 422, BadInput, "The backup cannot be used";
    /// The room's keys are not here yet.
    NoKeys: "no-keys", 503, NotYet, "The keys have not arrived yet";
    /// The join has not succeeded in the time given.
    NotJoined: "not-joined", 504, NotYet, "Not let in yet";
    /// A member refused to let this person in.
    JoinRefused: "join-refused", 403, Refused, "Not let in";
    /// The node is shutting down or restarting.
    Stopping: "stopping", 503, NotYet, "The node is stopping";
    /// Storage failed.
    Storage: "storage", 500, Failed, "Storage failed";
    /// Something else failed.
    Internal: "internal", 500, Failed, "Something failed";
    /// The configuration cannot be used (command line only).
    BadConfig: "bad-config", 400, BadInput, "The configuration cannot be used";
    /// No node is running (command line only).
    NoNode: "no-node", 503, NoNode, "No node is running";
    /// Another node is running on this home (command line only).
    Busy: "busy", 409, Busy, "Another node is running on this home";
    /// The node cannot listen where it was told to (command line only).
    CannotListen: "cannot-listen", 500, BadInput, "Cannot listen there";
    /// The home cannot be used (command line only).
    BadHome: "bad-home", 500, BadHome, "This home cannot be used";
}

impl Kind {
    /// The kind with this code, or [`Kind::Internal`] for one that only a newer node knows.
    fn from_code(code: &str) -> Self {
        let known = Self::ALL.iter().find(|kind| kind.code() == code);
        known.copied().unwrap_or(Self::Internal)
    }
}

impl Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Self::from_code(&String::deserialize(from)?))
    }
}

/// One of several that a name may mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Candidate {
    /// Lower-case hex.
    pub(crate) id: String,
    /// What it is called.
    pub(crate) name: String,
}

/// A problem document (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Problem {
    /// Where the kind is described.
    #[serde(rename = "type")]
    type_uri: String,
    title: String,
    status: u16,
    /// A sentence for people that says what to do.
    pub(crate) detail: String,
    /// The kind.
    #[serde(rename = "code")]
    #[schema(value_type = String)]
    pub(crate) kind: Kind,
    /// What an ambiguous name may mean.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) candidates: Vec<Candidate>,
}

impl Problem {
    /// A problem of a kind, with a sentence for people.
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            type_uri: format!("/api/v1/problems/{}", kind.code()),
            title: kind.title().to_owned(),
            status: kind.status(),
            detail: detail.into(),
            kind,
            candidates: Vec::new(),
        }
    }

    /// The name `wanted` fits several.
    pub(crate) fn ambiguous(what: &str, wanted: &str, candidates: Vec<Candidate>) -> Self {
        let detail = format!(
            "`{wanted}` fits {} {what}; use the beginning of an id instead",
            candidates.len()
        );
        Self {
            candidates,
            ..Self::new(Kind::Ambiguous, detail)
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        for candidate in &self.candidates {
            let id = candidate.id.get(..16).unwrap_or(&candidate.id);
            write!(f, "\n  {id}  {}", crate::render::clean(&candidate.name))?;
        }
        Ok(())
    }
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        Self::new(Kind::Internal, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_come_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_code(kind.code()), *kind);
        }
        assert_eq!(Kind::from_code("from-the-future"), Kind::Internal);
    }

    #[test]
    fn every_code_is_documented_with_its_status_and_exit_code() {
        let documented = include_str!("../../../docs/api.md");
        for kind in Kind::ALL {
            let row = format!("| `{}` | {} | {} |", kind.code(), kind.status(), kind.exit() as u8);
            assert!(documented.contains(&row), "docs/api.md lacks: {row}");
        }
    }

    #[test]
    fn the_shape_of_a_problem_is_a_promise() {
        let candidate = Candidate {
            id: "ab".into(),
            name: "Küche".into(),
        };
        let problem = Problem::ambiguous("rooms", "k", vec![candidate]);
        let text = serde_json::to_string(&problem).unwrap();
        assert_eq!(
            text,
            r#"{"type":"/api/v1/problems/ambiguous","title":"The name fits several","status":409,"detail":"`k` fits 1 rooms; use the beginning of an id instead","code":"ambiguous","candidates":[{"id":"ab","name":"Küche"}]}"#
        );
        assert_eq!(serde_json::from_str::<Problem>(&text).unwrap(), problem);
    }
}
