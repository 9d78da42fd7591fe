//! What people see: timeline lines, lists, times. Whatever others wrote goes through [`clean`] first, so that no message can
//! move the cursor, change colours, or turn the direction of the line around.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use unicode_width::UnicodeWidthStr as _;

use crate::api::model::{EntryDetail, FileTaken, Line, LineKind, State};

/// The widest that a name may make its column.
const NAME_COLUMNS_MAX: usize = 16;

/// Text that somebody else wrote, safe for a terminal; line breaks stay.
pub(crate) fn clean(text: &str) -> String {
    let safe = |c: char| match c {
        '\n' => c,
        '\t' => ' ',
        // Control characters, and those that override the direction of writing.
        _ if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => '\u{fffd}',
        _ => c,
    };
    text.chars().map(safe).collect()
}

/// The same on one line.
pub(crate) fn clean_line(text: &str) -> String {
    clean(text).replace('\n', " ")
}

/// The first digits of an id: enough to name it.
pub(crate) fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// Pads `text` to `columns` of a terminal.
pub(crate) fn pad(text: &str, columns: usize) -> String {
    let missing = columns.saturating_sub(text.width());
    format!("{text}{}", " ".repeat(missing))
}

/// `1 room`, `2 rooms`.
pub(crate) fn count(n: impl Into<u64>, one: &str) -> String {
    match n.into() {
        1 => format!("1 {one}"),
        n => format!("{n} {one}s"),
    }
}

/// Colours, where the person wants them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    /// Escape sequences may be printed.
    pub(crate) colour: bool,
}

impl Style {
    /// Less important.
    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// More important.
    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        match self.colour && !text.is_empty() {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

/// Writes timelines: a separator for each day, names in a column.
pub(crate) struct Timeline {
    style: Style,
    zone: TimeZone,
    ids: bool,
    names: usize,
    day: Option<Date>,
}

impl Timeline {
    /// A timeline in local time.
    pub(crate) fn new(style: Style, ids: bool) -> Self {
        Self::in_zone(style, ids, TimeZone::system())
    }

    fn in_zone(style: Style, ids: bool, zone: TimeZone) -> Self {
        Self {
            style,
            zone,
            ids,
            names: 0,
            day: None,
        }
    }

    /// Makes the column of names wide enough for these lines.
    pub(crate) fn measure<'a>(&mut self, lines: impl IntoIterator<Item = &'a Line>) {
        let widths = lines.into_iter().filter_map(|line| line.entry.as_ref());
        let widest = widths.map(|entry| clean_line(&entry.author_name).width()).max();
        self.names = self.names.max(widest.unwrap_or(0)).min(NAME_COLUMNS_MAX);
    }

    /// One line, with the day before it where the day changes, and a line break after it.
    pub(crate) fn line(&mut self, line: &Line) -> String {
        let mut out = String::new();
        let Some(entry) = &line.entry else {
            let _ = writeln!(out, "  {}", self.style.dim(&format!("⋯ {}", line.text)));
            return out;
        };
        let at = line.time.as_deref().and_then(|time| time.parse::<Timestamp>().ok());
        let at = at.unwrap_or_default().to_zoned(self.zone.clone());
        if self.day != Some(at.date()) {
            self.day = Some(at.date());
            let day = at.strftime("%A %-d %B %Y");
            let _ = writeln!(out, "{}", self.style.dim(&format!("── {day} ──")));
        }
        let clock = at.strftime("%H:%M").to_string();
        let name = pad(&clean_line(&entry.author_name), self.names);
        let indent = clock.width() + 1 + name.width() + 2;
        let body = self
            .body(line, entry)
            .replace('\n', &format!("\n{}", " ".repeat(indent)));
        let _ = write!(out, "{} {}  {body}", self.style.dim(&clock), self.style.bold(&name));
        let marks = marks(line, entry);
        if !marks.is_empty() {
            let _ = write!(out, "  {}", self.style.dim(&marks));
        }
        if self.ids {
            let _ = write!(out, "  {}", self.style.dim(&line.id));
        }
        out.push('\n');
        out
    }

    fn body(&self, line: &Line, entry: &EntryDetail) -> String {
        let text = clean(&line.text);
        let text = match line.kind {
            LineKind::Message => text,
            LineKind::Deleted => self.style.dim("(deleted)"),
            LineKind::Sealed => self.style.dim("(cannot be read yet: its key has not arrived)"),
            LineKind::Control | LineKind::Gap => self.style.dim(&format!("* {text}")),
        };
        let text = with_files(text, &entry.files);
        match &entry.reply_to {
            Some(target) => format!("{} {text}", self.style.dim(&format!("↳ {target}"))),
            None => text,
        }
    }
}

/// A message's text, and the names of what it carries.
pub(crate) fn with_files(text: String, files: &[FileTaken]) -> String {
    let named = files
        .iter()
        .map(|file| format!("[file {}, {}]", clean_line(&file.name), size(file.bytes)));
    let said = (!text.is_empty()).then_some(text);
    said.into_iter().chain(named).collect::<Vec<_>>().join(" ")
}

pub(crate) use crate::proto::peer::command::size;

fn marks(line: &Line, entry: &EntryDetail) -> String {
    let mut marks = Vec::new();
    for reaction in &entry.reactions {
        let emoji = clean_line(&reaction.emoji);
        marks.push(match reaction.persons.len() {
            1 => emoji,
            n => format!("{emoji} {n}"),
        });
    }
    let flags = [
        (entry.edited.is_some(), "(edited)"),
        (entry.late, "(late)"),
        (entry.clock_ahead, "(clock ahead)"),
        (entry.after_removal, "(after removal)"),
        (entry.by_reader, "(by a reader, who may not write here)"),
        (entry.equivocation, "(author equivocates)"),
    ];
    marks.extend(flags.iter().filter(|(on, _)| *on).map(|(_, mark)| (*mark).to_owned()));
    if entry.mine && line.kind == LineKind::Message {
        marks.push(ticks(line.state).to_owned());
    }
    marks.join(" ")
}

/// How far an own message got, in a sign.
fn ticks(state: State) -> &'static str {
    match state {
        State::Saved => "·",
        State::Handed => "✓",
        State::Reached => "✓✓",
        State::Read => "✓✓ read",
        State::Failed => "✗ see `offhook where`",
        State::Missing => "",
    }
}

/// How far an entry got, in words.
pub(crate) fn state_words(state: State) -> &'static str {
    match state {
        State::Saved => "saved here",
        State::Handed => "handed on",
        State::Reached => "reached",
        State::Read => "read",
        State::Failed => "failed",
        State::Missing => "missing",
    }
}

/// Time and day in local time.
pub(crate) fn moment(rfc3339: &str) -> String {
    let Ok(at) = rfc3339.parse::<Timestamp>() else {
        return rfc3339.to_owned();
    };
    at.to_zoned(TimeZone::system()).strftime("%-d %b %Y %H:%M").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::model::Reaction;

    fn line(text: &str) -> Line {
        Line {
            id: "aaaaaaaaaaaaa.1".into(),
            room: "00".into(),
            author: Some("01".into()),
            device: Some("02".into()),
            seq: 1,
            time: Some("2026-11-23T15:04:05.000Z".into()),
            kind: LineKind::Message,
            text: text.into(),
            state: State::Reached,
            entry: Some(EntryDetail {
                author_name: "Ada".into(),
                mine: true,
                reply_to: None,
                edited: None,
                reactions: Vec::new(),
                late: false,
                clock_ahead: false,
                after_removal: false,
                by_reader: false,
                equivocation: false,
                mentions_me: false,
                files: Vec::new(),
            }),
            missing_to: None,
        }
    }

    fn shown(line: &Line) -> String {
        let mut timeline = Timeline::in_zone(Style { colour: false }, false, TimeZone::UTC);
        timeline.measure([line]);
        timeline.line(line)
    }

    #[test]
    fn a_line_has_time_name_text_and_ticks() {
        let day = "── Monday 23 November 2026 ──\n";
        assert_eq!(shown(&line("hello")), format!("{day}15:04 Ada  hello  ✓✓\n"));
        assert_eq!(shown(&line("a\nb")), format!("{day}15:04 Ada  a\n           b  ✓✓\n"));
        let mut marked = line("hello");
        let entry = marked.entry.as_mut().unwrap();
        entry.late = true;
        entry.edited = marked.time.clone();
        entry.reactions = vec![Reaction {
            emoji: "👍".into(),
            persons: vec!["1".into(), "2".into()],
        }];
        assert_eq!(
            shown(&marked),
            format!("{day}15:04 Ada  hello  👍 2 (edited) (late) ✓✓\n")
        );
    }

    #[test]
    fn a_gap_is_shown_where_it_is() {
        let mut gap = line("3 entries are missing here");
        gap.entry = None;
        gap.kind = LineKind::Gap;
        assert_eq!(shown(&gap), "  ⋯ 3 entries are missing here\n");
    }

    #[test]
    fn what_others_write_cannot_steer_the_terminal() {
        assert_eq!(
            clean("a\x1b[2Jb\r\u{9b}c\u{202e}d\te"),
            "a\u{fffd}[2Jb\u{fffd}\u{fffd}c\u{fffd}d e"
        );
        let mut hostile = line("x");
        hostile.entry.as_mut().unwrap().author_name = "E\x1b]0;owned\x07\nve".into();
        assert!(!shown(&hostile).contains(['\x1b', '\x07']));
    }
}
