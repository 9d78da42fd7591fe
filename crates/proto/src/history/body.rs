//! The plaintext of a message entry: what somebody said, or did to something said.

use crate::history::entry::{EntryId, EntryRef};
use crate::history::file::{Attachment, FILES_MAX};
use crate::identity::IdentityRecord;
use crate::{wire_enum, wire_struct};

/// The longest message, in bytes of UTF-8.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// The longest reaction, in bytes of UTF-8.
pub const EMOJI_BYTES_MAX: usize = 32;
/// The most identity records that ride along.
pub const RIDERS_MAX: usize = 8;

/// The plaintext of a message entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Newer identity records of the author's device (prekey, profile) that this room has not been told.
    pub riders: Vec<IdentityRecord>,
    /// What.
    pub body: Body,
}
wire_struct!(Said {
    riders: list(RIDERS_MAX),
    body
});

/// What somebody said or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A message.
    Text {
        /// The text.
        text: String,
        /// The message that it answers.
        reply_to: Option<EntryRef>,
        /// The files that it carries. With any, the text may be empty.
        files: Vec<Attachment>,
    },
    /// Another text for an own message. The edit with the highest clock holds.
    Edit {
        /// The message.
        target: EntryId,
        /// Its text now.
        text: String,
    },
    /// Takes a message away: its payload is dropped wherever this arrives.
    Delete {
        /// The message.
        target: EntryId,
    },
    /// Gives or withdraws a reaction. For each person and emoji the one with the highest clock holds.
    React {
        /// The message.
        target: EntryId,
        /// The emoji.
        emoji: String,
        /// Given or withdrawn.
        on: bool,
    },
}
wire_enum!(Body {
    0 => Text { text: text(TEXT_BYTES_MAX), reply_to, files: list(FILES_MAX) },
    1 => Edit { target, text: text(TEXT_BYTES_MAX) },
    2 => Delete { target },
    3 => React { target, emoji: text(EMOJI_BYTES_MAX), on },
});
