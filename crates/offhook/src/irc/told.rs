//! Entries in IRC's words, as far as the client's capabilities go, with fallbacks that a person can read.
//!
//! A message is one PRIVMSG for each piece that fits a line; the first carries `msgid`. What happened to an entry later has no form of its own in older IRC:
//! an edit is said again with `* edited:` before it, a deletion is a REDACT or a NOTICE, a reaction a TAGMSG or an action. To tell which of
//! these an event is about, the newest entries are remembered as they were shown.

use std::collections::{BTreeMap, VecDeque};

use super::line::{Message, REST_BYTES_MAX, pieces};
use super::names::Names;
use crate::api::model::{Line, LineKind};
use crate::render::with_files;

/// Entries remembered as they were shown.
const SHOWN_MAX: usize = 4096;
/// The most of a message that is repeated to say which is meant, in characters.
const QUOTE_CHARS: usize = 40;
/// The host in everybody's mask.
pub(super) const HOST: &str = "offhook";

/// What a client can take.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Takes {
    pub(super) tags: bool,
    pub(super) redaction: bool,
}

/// An entry as it was last shown.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    kind: LineKind,
    text: String,
    reactions: BTreeMap<String, Vec<String>>,
}

/// The entries that were shown lately.
#[derive(Debug, Default)]
pub(super) struct Shown {
    seen: BTreeMap<String, Seen>,
    order: VecDeque<String>,
}

impl Shown {
    /// Remembers an entry, and tells how it was shown before.
    fn swap(&mut self, line: &Line) -> Option<Seen> {
        let reactions = line.entry.iter().flat_map(|entry| &entry.reactions);
        let seen = Seen {
            kind: line.kind,
            text: line_text(line),
            reactions: reactions.map(|r| (r.emoji.clone(), r.persons.clone())).collect(),
        };
        let before = self.seen.insert(line.id.clone(), seen);
        if before.is_none() {
            self.order.push_back(line.id.clone());
            if self.order.len() > SHOWN_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.seen.remove(&oldest);
            }
        }
        before
    }

    /// An entry shown for the first time.
    pub(super) fn first(&mut self, line: &Line, names: &Names, takes: Takes) -> Vec<Message> {
        self.swap(line);
        entry(line, names, takes, self)
    }

    /// What an event about an entry has to say.
    pub(super) fn event(&mut self, line: &Line, is_new: bool, names: &Names, takes: Takes) -> Vec<Message> {
        let Some(before) = self.swap(line) else {
            // Not shown here before: new, or too old to know what changed.
            return if is_new {
                entry(line, names, takes, self)
            } else {
                Vec::new()
            };
        };
        let (Some(author), Some(target)) = (author(line, names), target(line, names)) else {
            return Vec::new();
        };
        let mut told = Vec::new();
        match (before.kind, line.kind) {
            (LineKind::Sealed, LineKind::Message) => return entry(line, names, takes, self),
            (LineKind::Message, LineKind::Deleted) if takes.redaction => {
                told.push(Message::new("REDACT", &[&target, &line.id]).from(&author));
            }
            (LineKind::Message, LineKind::Deleted) => {
                told.push(Message::new("NOTICE", &[&target, "* deleted a message"]).from(&author));
            }
            (LineKind::Message, LineKind::Message) if before.text != line.text => {
                let said = said(&author, "PRIVMSG", &target, &format!("* edited: {}", line.text));
                told.extend(said.into_iter().map(|message| with_reply(message, &line.id)));
            }
            _ => {}
        }
        told.extend(reactions(&before, line, &target, names, takes));
        let time = line.entry.as_ref().and_then(|entry| entry.edited.clone());
        match time {
            Some(time) if before.text != line.text => told.into_iter().map(|m| m.tag("time", time.clone())).collect(),
            _ => told,
        }
    }

    /// The beginning of a message that was shown.
    fn quote(&self, id: &str) -> Option<String> {
        let seen = self.seen.get(id).filter(|seen| seen.kind == LineKind::Message)?;
        let first = seen.text.lines().next().unwrap_or_default();
        let quote: String = first.chars().take(QUOTE_CHARS).collect();
        Some(if quote.len() < seen.text.len() {
            format!("{quote}…")
        } else {
            quote
        })
    }
}

/// An entry's own lines.
fn entry(line: &Line, names: &Names, takes: Takes, shown: &Shown) -> Vec<Message> {
    let Some(target) = target(line, names) else {
        return Vec::new();
    };
    let time = line.time.clone().unwrap_or_default();
    let author = author(line, names);
    let reply_to = line.entry.as_ref().and_then(|entry| entry.reply_to.clone());
    let told = match (line.kind, author) {
        (LineKind::Message, Some(author)) => {
            let mut text = line_text(line);
            if let (Some(id), false) = (&reply_to, takes.tags) {
                let quote = shown.quote(id).unwrap_or_else(|| "an earlier message".to_owned());
                text = format!("(to “{quote}”) {text}");
            }
            let mut said = match text.strip_prefix("/me ") {
                Some(action) => said_action(&author, &target, action),
                None => said(&author, "PRIVMSG", &target, &text),
            };
            if let (Some(first), Some(id)) = (said.first_mut(), &reply_to) {
                first.tags.push(("+draft/reply".to_owned(), id.clone()));
            }
            said
        }
        (LineKind::Sealed, Some(author)) => said(&author, "NOTICE", &target, "* a message that cannot be read yet"),
        (LineKind::Control, _) => said(HOST, "NOTICE", &target, &line.text),
        _ => Vec::new(),
    };
    let account = names.nick(line.author.as_deref().unwrap_or_default());
    let mut first = true;
    let tagged = told.into_iter().map(|message| {
        let message = message.tag("time", time.clone()).tag("account", account.clone());
        match std::mem::take(&mut first) {
            true => message.tag("msgid", line.id.clone()),
            false => message,
        }
    });
    tagged.collect()
}

fn reactions(before: &Seen, line: &Line, target: &str, names: &Names, takes: Takes) -> Vec<Message> {
    let none = Vec::new();
    let now: BTreeMap<&String, &Vec<String>> = line
        .entry
        .iter()
        .flat_map(|entry| &entry.reactions)
        .map(|reaction| (&reaction.emoji, &reaction.persons))
        .collect();
    let mut told = Vec::new();
    for (emoji, persons) in &now {
        let had = before.reactions.get(*emoji).unwrap_or(&none);
        for person in persons.iter().filter(|person| !had.contains(person)) {
            let source = mask(&names.nick(person));
            if takes.tags {
                let message = Message::new("TAGMSG", &[target]).from(&source);
                told.push(with_reply(message, &line.id).tag("+draft/react", (*emoji).clone()));
            } else {
                let quote: String = line.text.chars().take(QUOTE_CHARS).collect();
                told.extend(said_action(&source, target, &format!("reacted {emoji} to “{quote}”")));
            }
        }
    }
    for (emoji, had) in &before.reactions {
        let has = now.get(emoji).copied().unwrap_or(&none);
        for person in had.iter().filter(|person| takes.tags && !has.contains(person)) {
            let message = Message::new("TAGMSG", &[target]).from(&mask(&names.nick(person)));
            told.push(with_reply(message, &line.id).tag("+draft/unreact", emoji.clone()));
        }
    }
    told
}

fn with_reply(message: Message, id: &str) -> Message {
    message.tag("+draft/reply", id)
}

/// `nick!nick@offhook`.
pub(super) fn mask(nick: &str) -> String {
    format!("{nick}!{nick}@{HOST}")
}

fn author(line: &Line, names: &Names) -> Option<String> {
    line.author.as_deref().map(|person| mask(&names.nick(person)))
}

/// Where a line is said: in a query it is the other's nick for what oneself says, and the own nick for what the other says.
fn target(line: &Line, names: &Names) -> Option<String> {
    let place = names.places.get(&line.room)?;
    let is_mine = line.author.as_deref() == Some(names.me.as_str());
    match place.view.pair {
        Some(_) if !is_mine && line.kind != LineKind::Control => Some(names.my_nick.clone()),
        _ => Some(place.target.clone()),
    }
}

/// What is said, with what it carries: an IRC client shows a file by its name, and how to get it.
fn line_text(line: &Line) -> String {
    let files = line
        .entry
        .as_ref()
        .map(|entry| entry.files.as_slice())
        .unwrap_or_default();
    let text = with_files(line.text.clone(), files);
    match files {
        [] => text,
        _ => format!("{text} (offhook file get {})", line.id),
    }
}

fn said(source: &str, command: &str, target: &str, text: &str) -> Vec<Message> {
    let around = format!(":{source} {command} {target} :\r\n").len();
    let pieces = pieces(text, REST_BYTES_MAX.saturating_sub(around));
    let message = |piece: String| Message::new(command, &[target, &piece]).from(source);
    pieces.into_iter().map(message).collect()
}

fn said_action(source: &str, target: &str, text: &str) -> Vec<Message> {
    let around = format!(":{source} PRIVMSG {target} :\u{1}ACTION \u{1}\r\n").len();
    let pieces = pieces(text, REST_BYTES_MAX.saturating_sub(around));
    let message = |piece: String| Message::new("PRIVMSG", &[target, &format!("\u{1}ACTION {piece}\u{1}")]).from(source);
    pieces.into_iter().map(message).collect()
}
