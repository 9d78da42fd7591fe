//! Values of header fields, which are copied from message to message without copying their octets.

use std::fmt;
use std::sync::Arc;

/// A part of the message that it came in, or words of our own.
#[derive(Clone)]
pub struct Text(Kept);

#[derive(Clone)]
enum Kept {
    /// Octets `from` to `to` of a header section.
    Part {
        whole: Arc<str>,
        from: u32,
        to: u32,
    },
    Own(String),
}

impl Text {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Kept::Part { whole, from, to } => whole.get(*from as usize..*to as usize).unwrap_or_default(),
            Kept::Own(text) => text,
        }
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Kept::Own(text))
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Kept::Own(text.to_owned()))
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl fmt::Debug for Text {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(out)
    }
}

/// A header section that is being split, copied once.
pub struct Source<'a> {
    octets: &'a [u8],
    /// Missing where not all of it is UTF-8: what is, is copied then.
    whole: Option<Arc<str>>,
}

impl<'a> Source<'a> {
    /// Copies it.
    pub fn new(octets: &'a [u8]) -> Self {
        Self {
            octets,
            whole: std::str::from_utf8(octets).ok().map(Arc::from),
        }
    }

    /// A part of it.
    pub fn text(&self, part: &str) -> Text {
        let from = part.as_ptr().addr().wrapping_sub(self.octets.as_ptr().addr());
        let within = from.checked_add(part.len()).is_some_and(|to| to <= self.octets.len());
        match &self.whole {
            Some(whole) if within && whole.len() <= u32::MAX as usize => Text(Kept::Part {
                whole: whole.clone(),
                from: from as u32,
                to: (from + part.len()) as u32,
            }),
            _ => part.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_section_and_a_copy_are_the_same_text() {
        let section = b"Subject: gr\xc3\xbc\xc3\x9fe\r\n";
        let words = std::str::from_utf8(&section[9..16]).unwrap();
        assert_eq!(Source::new(section).text(words), Text::from("gr\u{fc}\u{df}e"));
        let broken = b"Subject: hello\r\nX: \xff\r\n";
        let words = std::str::from_utf8(&broken[9..14]).unwrap();
        assert_eq!(Source::new(broken).text(words).as_str(), "hello");
        assert_eq!(Source::new(section).text("of elsewhere").as_str(), "of elsewhere");
    }
}
