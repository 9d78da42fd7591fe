//! Files: what a message says about a file that it carries, and how the file's bytes are sealed.
//!
//! The bytes themselves travel apart from entries. A file is sealed with a key of its own, which stands in the message, by the ChaCha20 stream alone
//! (RFC 8439, 2.4; nonce zero: a key seals one file), so that any part of it can be opened by itself. Whether the sealed bytes are the right ones is told by the
//! root of their BLAKE3 tree, which stands in the signed message, too: each group of them is checked as it arrives (`docs/protocol/files.md`).

use crate::crypto::Secret;
use crate::{wire_id, wire_struct};

/// The most files of one message.
pub const FILES_MAX: usize = 4;
/// The longest file name, in bytes of UTF-8.
pub const FILE_NAME_BYTES_MAX: usize = 255;
/// The longest media type, in bytes.
pub const MEDIA_TYPE_BYTES_MAX: usize = 127;
/// The largest thumbnail, in bytes.
pub const THUMBNAIL_BYTES_MAX: usize = 12 * 1024;
/// The largest file that can be told of, in bytes; far below the 256 GiB that one key's stream reaches.
pub const FILE_BYTES_MAX: u64 = 64 << 30;
/// The largest file that a room takes where its members have said nothing else, in bytes.
pub const ROOM_FILE_BYTES_MAX: u64 = 100_000_000;

wire_id!(
    /// The root of the BLAKE3 tree over a file's sealed bytes.
    ContentId,
    32
);

/// A file, as a message tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// What its author calls it; a name, never a path.
    pub name: String,
    /// Its media type (RFC 6838), as its author claims; for display only.
    pub media_type: String,
    /// Its size in bytes, sealed or not.
    pub bytes: u64,
    /// Its sealed bytes.
    pub content: ContentId,
    /// What it is sealed with.
    pub key: Secret,
    /// For pictures.
    pub picture: Option<Picture>,
}
wire_struct!(Attachment {
    name: text(FILE_NAME_BYTES_MAX),
    media_type: text(MEDIA_TYPE_BYTES_MAX),
    bytes,
    content,
    key,
    picture
});

/// What of a picture can be shown before it is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// A small JPEG; may be empty.
    pub thumbnail: Vec<u8>,
}
wire_struct!(Picture {
    width,
    height,
    thumbnail: bytes(THUMBNAIL_BYTES_MAX)
});

/// A name that can be one of a file in any folder: no path, no control characters, nothing that a system takes for something else.
///
/// What cannot be in a name becomes `_`; longer names lose what is before their last extension.
pub fn safe_name(name: &str) -> String {
    let is_odd =
        |c: char| c.is_control() || matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|') || is_bidi(c);
    let name: String = name.chars().map(|c| if is_odd(c) { '_' } else { c }).collect();
    let name = name.trim().trim_start_matches('.').trim_end_matches(['.', ' ']);
    if name.is_empty() {
        return "file".to_owned();
    }
    if name.len() <= FILE_NAME_BYTES_MAX {
        return name.to_owned();
    }
    let extension = name.rfind('.').map_or("", |at| &name[at..]);
    let extension = if extension.len() > 16 { "" } else { extension };
    let mut end = FILE_NAME_BYTES_MAX - extension.len();
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{extension}", &name[..end])
}

/// Characters that turn the direction of writing, and can make `exe.txt` of `txt.exe`.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_a_path() {
        for (given, made) in [
            ("cat.jpg", "cat.jpg"),
            ("../../etc/passwd", "_.._etc_passwd"),
            ("C:\\temp\\a", "C__temp_a"),
            ("..", "file"),
            ("", "file"),
            ("a\u{202e}gpj.exe", "a_gpj.exe"),
            ("line\nbreak", "line_break"),
            ("trailing. ", "trailing"),
        ] {
            assert_eq!(safe_name(given), made);
        }
        let long = format!("{}.jpeg", "ü".repeat(300));
        let made = safe_name(&long);
        assert!(made.len() <= FILE_NAME_BYTES_MAX && made.ends_with(".jpeg"));
    }
}
