//! Files under way: what is said on a file's stream, and whom to ask for which piece.
//!
//! `frame` is the request and the answer; `fetch` decides, and knows neither disks nor streams. The bytes of a piece follow an answer as a
//! verified slice of a BLAKE3 tree; checking them is the shell's. Files go over lines that are up; they open no flow of their own.

pub mod fetch;
pub mod frame;

pub use fetch::{Failure, Fetch, Order};
pub use frame::{FileAsk, FileTold};

/// Bytes of one leaf of the tree: the least that can be checked by itself.
pub const GROUP_BYTES: u64 = 256 << 10;
/// Bytes of a piece: what is asked for at once. Small enough to be a moment on a slow line, large enough to be few.
pub const PIECE_BYTES: u64 = 4 * GROUP_BYTES;

/// How many pieces a file has; they are numbered from 1. An empty file has none.
pub fn piece_count(bytes: u64) -> u32 {
    // Files are far below 2^32 pieces.
    u32::try_from(bytes.div_ceil(PIECE_BYTES)).unwrap_or(u32::MAX)
}

/// The bytes of a piece: from, and up to but without.
pub fn piece_range(piece: u32, bytes: u64) -> std::ops::Range<u64> {
    let from = u64::from(piece.saturating_sub(1)) * PIECE_BYTES;
    from.min(bytes)..(from + PIECE_BYTES).min(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_a_file_once() {
        for bytes in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 10 * PIECE_BYTES] {
            let mut at = 0;
            for piece in 1..=piece_count(bytes) {
                let range = piece_range(piece, bytes);
                assert_eq!(range.start, at);
                assert!(range.end > range.start);
                at = range.end;
            }
            assert_eq!(at, bytes);
        }
    }
}
