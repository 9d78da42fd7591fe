//! Roles: who may do what in a room.

use crate::wire::{Reader, Wire, WireError};
use crate::wire_enum;

/// The rank of a member. A higher rank may do all that a lower one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads.
    Reader,
    /// Writes, reacts, edits and deletes what is its own, invites members and readers.
    Member,
    /// Deletes others' messages, removes members and readers.
    Moderator,
    /// Changes name, history policy and roles up to admin; removes ranks below admin.
    Admin,
    /// Everything, other owners included.
    Owner,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Reader => "reader",
            Self::Member => "member",
            Self::Moderator => "moderator",
            Self::Admin => "admin",
            Self::Owner => "owner",
        })
    }
}

impl std::str::FromStr for Role {
    type Err = WireError;

    fn from_str(text: &str) -> Result<Self, WireError> {
        match text {
            "reader" => Ok(Self::Reader),
            "member" => Ok(Self::Member),
            "moderator" => Ok(Self::Moderator),
            "admin" => Ok(Self::Admin),
            "owner" => Ok(Self::Owner),
            _ => Err(WireError::Unknown("role")),
        }
    }
}

impl Wire for Role {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Reader => 0,
            Self::Member => 1,
            Self::Moderator => 2,
            Self::Admin => 3,
            Self::Owner => 4,
        });
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        match input.byte()? {
            0 => Ok(Self::Reader),
            1 => Ok(Self::Member),
            2 => Ok(Self::Moderator),
            3 => Ok(Self::Admin),
            4 => Ok(Self::Owner),
            _ => Err(WireError::Unknown("role")),
        }
    }
}

/// What newcomers may read of what was said before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryPolicy {
    /// Everything.
    All {},
    /// The last days, at the granularity of an epoch (at most seven days).
    Days {
        /// How many.
        days: u32,
    },
    /// Nothing.
    None {},
}
wire_enum!(HistoryPolicy { 0 => All {}, 1 => Days { days }, 2 => None {} });
