//! What is said on a file's stream: one request, one answer, and for a piece its bytes behind it.

use crate::history::{ContentId, EntryId};
use crate::{wire_enum, wire_struct};

/// The most ranges of pieces that an answer names. More are left out: they are asked for later.
pub const HELD_RANGES_MAX: usize = 256;
/// The longest request or answer, in bytes, without a piece's own.
pub const FILE_FRAME_BYTES_MAX: usize = 4096;

/// A request. The message that tells of the file is named, because being in its room is what gives the right to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileAsk {
    /// Which pieces are there?
    Held {
        /// The message.
        entry: EntryId,
        /// The file.
        content: ContentId,
    },
    /// One piece, please.
    Piece {
        /// The message.
        entry: EntryId,
        /// The file.
        content: ContentId,
        /// From 1.
        piece: u32,
    },
}
wire_enum!(FileAsk {
    0 => Held { entry, content },
    1 => Piece { entry, content, piece },
});

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileTold {
    /// These pieces are here.
    Held {
        /// Ascending.
        pieces: Vec<PieceRange>,
    },
    /// The slice of the tree for the piece follows.
    Piece {},
    /// Not here, or not for the one who asks: the two are not told apart.
    Refused {},
    /// Too much is being served at the moment.
    Busy {},
}
wire_enum!(FileTold {
    0 => Held { pieces: list(HELD_RANGES_MAX) },
    1 => Piece {},
    2 => Refused {},
    3 => Busy {},
});

/// Pieces in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceRange {
    /// The first.
    pub from: u32,
    /// The last.
    pub to: u32,
}
wire_struct!(PieceRange { from, to });
