//! IRC lines: taking them apart and putting them together (modern.ircdocs.horse; IRCv3 *message tags*). Pure: text in, text out; nothing else of the program
//! is used here, so the fuzz target takes the file as it is.
//!
//! `[@tags ][:source ]command[ params][ :trailing]`. Limits: [`TAGS_BYTES_MAX`] for a client's tags with `@` and the space, [`REST_BYTES_MAX`] for the
//! rest with its line break. Names of tags are not checked further than that they are not empty.

use std::fmt::Write as _;

/// A client's tags, with the leading `@` and the closing space.
pub(crate) const TAGS_BYTES_MAX: usize = 4096;
/// All else, with the line break.
pub(crate) const REST_BYTES_MAX: usize = 512;
/// A whole line as it may come in.
pub(crate) const LINE_BYTES_MAX: usize = TAGS_BYTES_MAX + REST_BYTES_MAX;
/// The most parameters.
const PARAMS_MAX: usize = 15;
/// The most tags that are looked at.
const TAGS_MAX: usize = 64;

/// A message, either way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// Names and values, unescaped.
    pub(crate) tags: Vec<(String, String)>,
    /// Who says it: `nick!user@host`, or a server.
    pub(crate) source: Option<String>,
    /// In upper case, or three digits.
    pub(crate) command: String,
    /// The last may hold spaces.
    pub(crate) params: Vec<String>,
}

/// Why a line is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineError {
    /// There is nothing on it.
    Empty,
    /// Tags or the rest are longer than allowed.
    TooLong,
    /// The command is not letters or three digits.
    BadCommand,
}

impl Message {
    /// A message from nobody in particular.
    pub(crate) fn new(command: &str, params: &[&str]) -> Self {
        Self {
            command: command.to_owned(),
            params: params.iter().map(|param| (*param).to_owned()).collect(),
            ..Self::default()
        }
    }

    /// With who says it.
    pub(crate) fn from(mut self, source: &str) -> Self {
        self.source = Some(source.to_owned());
        self
    }

    /// With one more tag.
    pub(crate) fn tag(mut self, name: &str, value: impl Into<String>) -> Self {
        self.tags.push((name.to_owned(), value.into()));
        self
    }

    /// The value of a tag.
    pub(crate) fn tag_value(&self, name: &str) -> Option<&str> {
        let found = self.tags.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// A parameter, where it is there and not empty.
    pub(crate) fn param(&self, index: usize) -> Option<&str> {
        self.params
            .get(index)
            .map(String::as_str)
            .filter(|param| !param.is_empty())
    }

    /// The line, without its line break. What would end a line or a parameter early is left out: a message is one line always.
    pub(crate) fn line(&self) -> String {
        let mut line = String::new();
        for (index, (name, value)) in self.tags.iter().enumerate() {
            line.push(if index == 0 { '@' } else { ';' });
            line.extend(
                name.chars()
                    .filter(|c| !matches!(c, ' ' | ';' | '=' | '\r' | '\n' | '\0')),
            );
            if !value.is_empty() {
                let _ = write!(line, "={}", escape(value));
            }
        }
        if !self.tags.is_empty() {
            line.push(' ');
        }
        if let Some(source) = &self.source {
            let _ = write!(line, ":{} ", one_word(source));
        }
        line.push_str(&self.command);
        let last = self.params.len().saturating_sub(1);
        for (index, param) in self.params.iter().enumerate() {
            line.push(' ');
            match index == last {
                true if param.is_empty() || param.starts_with(':') || param.contains(' ') => {
                    line.push(':');
                    line.extend(param.chars().filter(|c| !matches!(c, '\r' | '\n' | '\0')));
                }
                _ => line.push_str(&one_word(param)),
            }
        }
        line
    }
}

/// A word that stays one: a middle parameter has no space and no leading colon.
fn one_word(text: &str) -> String {
    let word: String = text
        .trim_start_matches(':')
        .chars()
        .filter(|c| !matches!(c, ' ' | '\r' | '\n' | '\0'))
        .collect();
    if word.is_empty() { "*".to_owned() } else { word }
}

/// Takes a line apart. It comes without its line break.
pub(crate) fn parse(line: &str) -> Result<Message, LineError> {
    let mut message = Message::default();
    let mut rest = line;
    if let Some(tagged) = rest.strip_prefix('@') {
        let (tags, behind) = tagged.split_once(' ').ok_or(LineError::Empty)?;
        if tags.len() + 2 > TAGS_BYTES_MAX {
            return Err(LineError::TooLong);
        }
        message.tags = tags.split(';').filter_map(tag).take(TAGS_MAX).collect();
        rest = behind;
    }
    if rest.len() + 2 > REST_BYTES_MAX {
        return Err(LineError::TooLong);
    }
    rest = rest.trim_start_matches(' ');
    if let Some(sourced) = rest.strip_prefix(':') {
        let (source, behind) = sourced.split_once(' ').ok_or(LineError::Empty)?;
        message.source = Some(source.to_owned());
        rest = behind.trim_start_matches(' ');
    }
    let (command, mut params) = rest.split_once(' ').unwrap_or((rest, ""));
    if command.is_empty() {
        return Err(LineError::Empty);
    }
    let is_word = command.bytes().all(|byte| byte.is_ascii_alphabetic());
    let is_number = command.len() == 3 && command.bytes().all(|byte| byte.is_ascii_digit());
    if !is_word && !is_number {
        return Err(LineError::BadCommand);
    }
    message.command = command.to_ascii_uppercase();
    loop {
        params = params.trim_start_matches(' ');
        if params.is_empty() {
            break;
        }
        if message.params.len() + 1 == PARAMS_MAX || params.starts_with(':') {
            message
                .params
                .push(params.strip_prefix(':').unwrap_or(params).to_owned());
            break;
        }
        let (param, behind) = params.split_once(' ').unwrap_or((params, ""));
        message.params.push(param.to_owned());
        params = behind;
    }
    Ok(message)
}

fn tag(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (!name.is_empty()).then(|| (name.to_owned(), unescape(value)))
}

fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            ';' => escaped.push_str("\\:"),
            ' ' => escaped.push_str("\\s"),
            '\\' => escaped.push_str("\\\\"),
            '\r' => escaped.push_str("\\r"),
            '\n' => escaped.push_str("\\n"),
            '\0' => {}
            c => escaped.push(c),
        }
    }
    escaped
}

fn unescape(value: &str) -> String {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        // A backslash at the end, or before anything else, falls away.
        match chars.next() {
            Some(':') => plain.push(';'),
            Some('s') => plain.push(' '),
            Some('r') => plain.push('\r'),
            Some('n') => plain.push('\n'),
            Some(other) => plain.push(other),
            None => {}
        }
    }
    plain
}

/// A text as pieces that each fit a line: broken at line breaks, else at spaces, else between characters. Empty lines are left out.
pub(crate) fn pieces(text: &str, bytes_max: usize) -> Vec<String> {
    let bytes_max = bytes_max.max(8);
    let mut pieces = Vec::new();
    for line in text.split(['\n', '\r']).filter(|line| !line.is_empty()) {
        let mut rest = line;
        while rest.len() > bytes_max {
            let mut end = bytes_max;
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            // A break in the first half would make many short lines.
            let space = rest[..end].rfind(' ').filter(|at| *at > bytes_max / 2);
            let end = space.map_or(end, |at| at + 1);
            pieces.push(rest[..end].trim_end().to_owned());
            rest = &rest[end..];
        }
        if !rest.is_empty() {
            pieces.push(rest.to_owned());
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_of_the_specifications() {
        let message = parse("@id=123AB;rose :irc.example.com CAP LS * :multi-prefix extended-join sasl").unwrap();
        assert_eq!(
            message.tags,
            [
                ("id".to_owned(), "123AB".to_owned()),
                ("rose".to_owned(), String::new())
            ]
        );
        assert_eq!(message.source.as_deref(), Some("irc.example.com"));
        assert_eq!(message.command, "CAP");
        assert_eq!(message.params, ["LS", "*", "multi-prefix extended-join sasl"]);
        let message = parse("@+example=raw+:=,escaped\\:\\s\\\\ :n!u@h privmsg #me Hello").unwrap();
        assert_eq!(message.tag_value("+example"), Some("raw+:=,escaped; \\"));
        assert_eq!((message.command.as_str(), message.params.len()), ("PRIVMSG", 2));
        assert_eq!(parse("PRIVMSG #a ::-) ").unwrap().params, ["#a", ":-) "]);
        assert_eq!(parse("  NICK   x  ").unwrap().params, ["x"]);
        assert_eq!(parse("TOPIC #a :").unwrap().params, ["#a", ""]);
        assert_eq!(parse("@a=b\\;a=c\\").unwrap_err(), LineError::Empty);
        assert_eq!(
            parse("@a=1;a=2 X").unwrap().tag_value("a"),
            Some("2"),
            "the last counts"
        );
        assert_eq!(parse(""), Err(LineError::Empty));
        assert_eq!(parse(":x "), Err(LineError::Empty));
        assert_eq!(parse("P@NG"), Err(LineError::BadCommand));
        assert_eq!(parse(&"x".repeat(511)), Err(LineError::TooLong));
        assert_eq!(parse(&format!("@{} PING", "x".repeat(4095))), Err(LineError::TooLong));
        let params = parse(&format!("X {}", "a ".repeat(20))).unwrap().params;
        assert_eq!((params.len(), params[14].as_str()), (15, "a a a a a a "));
    }

    #[test]
    fn what_is_said_stays_one_line() {
        let message = Message::new("PRIVMSG", &["#a\r\nQUIT", "x\r\nQUIT :y"])
            .from("n\n")
            .tag("t\n", "v\r\n; ");
        assert_eq!(message.line(), "@t=v\\r\\n\\:\\s :n PRIVMSG #aQUIT :xQUIT :y");
        assert_eq!(Message::new("X", &["", ":a", ""]).line(), "X * a :");
    }

    #[test]
    fn long_texts_are_broken_where_they_can_be() {
        assert_eq!(pieces("a\n\nb\r\nc", 100), ["a", "b", "c"]);
        assert_eq!(pieces("hello brave world", 12), ["hello brave", "world"]);
        assert_eq!(pieces("üüüüüü", 9), ["üüüü", "üü"]);
        assert!(pieces("\n", 9).is_empty());
    }

    #[test]
    fn every_committed_fuzz_input_is_taken_or_refused() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/irc_line");
        let mut count = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            let Ok(text) = String::from_utf8(bytes) else { continue };
            if let Ok(message) = parse(&text) {
                assert!(!message.line().contains(['\r', '\n', '\0']), "{text:?}");
            }
            assert!(pieces(&text, 400).iter().all(|piece| piece.len() <= 400));
            count += 1;
        }
        assert!(count >= 5);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_line_is_taken_or_refused(line in "\\PC{0,600}") {
            let _ = parse(&line);
        }

        #[test]
        fn what_is_composed_reads_back(
            tags in prop::collection::vec(("[+a-z/.-]{1,12}", "\\PC{0,20}"), 0..4),
            source in prop::option::of("[a-z!@.]{1,20}"),
            command in "[A-Z]{1,10}",
            middle in prop::collection::vec("[^ :\\r\\n\\x00][^ \\r\\n\\x00]{0,8}", 0..6),
            last in prop::option::of("[^\\r\\n\\x00]{0,40}"),
        ) {
            let mut params = middle;
            params.extend(last);
            let message = Message { tags, source, command, params };
            prop_assert_eq!(parse(&message.line()), Ok(message));
        }

        #[test]
        fn pieces_lose_nothing_but_white_space(text in "[a-zü \n]{0,300}", bytes_max in 8usize..80) {
            let pieces = pieces(&text, bytes_max);
            prop_assert!(pieces.iter().all(|piece| piece.len() <= bytes_max && !piece.contains('\n')));
            let squeeze = |text: &str| text.split_whitespace().collect::<String>();
            prop_assert_eq!(squeeze(&pieces.concat()), squeeze(&text));
        }
    }
}
