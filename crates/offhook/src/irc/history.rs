//! CHATHISTORY and MARKREAD (IRCv3 drafts *chathistory*, *read-marker*).
//!
//! A reference is a place between entries: right before or behind one, or behind all. A timestamp is the place before the first entry at or after it. What is
//! asked for is read from the room's timeline from such a place, forwards or backwards.

use tokio::io::{AsyncRead, AsyncWrite};

use super::line::Message;
use super::session::{End, Session};
use super::told::HOST;
use crate::api::entries::{self, Stretch};
use crate::api::model::Line;
use crate::problem::Problem;
use crate::proto::history::{EntryId, RoomId};
use crate::proto::peer::Command;

/// The most lines of one answer; `CHATHISTORY=` in 005 says so.
const LINES_MAX: usize = 1000;

/// What a client refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reference {
    /// `*`.
    End,
    Entry(EntryId),
    Ms(i64),
}

fn reference(text: &str) -> Option<Reference> {
    if text == "*" {
        return Some(Reference::End);
    }
    let (kind, value) = text.split_once('=')?;
    match kind {
        "msgid" => value.parse().ok().map(Reference::Entry),
        "timestamp" => ms(value).map(Reference::Ms),
        _ => None,
    }
}

/// A time as IRCv3 writes it.
fn ms(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>()
        .ok()
        .map(jiff::Timestamp::as_millisecond)
}

/// Why a request for history is refused: a code and a sentence.
type Refusal = (&'static str, String);

impl<T: AsyncRead + AsyncWrite + Unpin> Session<T> {
    pub(super) async fn chathistory(&mut self, message: &Message) -> Result<(), End> {
        let verb = message.param(0).unwrap_or("*").to_ascii_uppercase();
        let target = message.param(1).unwrap_or("*").to_owned();
        if verb == "TARGETS" {
            return self.targets(message).await;
        }
        match self.read_history(&verb, message).await {
            Ok((room, lines)) => {
                // An empty answer is a batch too: the client waits for it.
                let takes = self.takes();
                let told = lines
                    .iter()
                    .flat_map(|line| self.shown.first(line, &self.names, takes))
                    .collect();
                let target = self
                    .names
                    .places
                    .get(&room)
                    .map_or(target, |place| place.target.clone());
                self.send_batch(&["chathistory", &target], told).await
            }
            Err((code, why)) => self.fail("CHATHISTORY", code, &[&verb, &target], &why).await,
        }
    }

    async fn read_history(&mut self, verb: &str, message: &Message) -> Result<(String, Vec<Line>), Refusal> {
        let bad = |why: &str| ("INVALID_PARAMS", why.to_owned());
        let count = match verb {
            "LATEST" | "BEFORE" | "AFTER" | "AROUND" => 4,
            "BETWEEN" => 5,
            _ => {
                let known = "LATEST, BEFORE, AFTER, AROUND, BETWEEN and TARGETS are known";
                return Err(("INVALID_PARAMS", format!("`{verb}` is not known; {known}")));
            }
        };
        if message.params.len() < count {
            return Err(("NEED_MORE_PARAMS", format!("{verb} takes {} parameters", count - 1)));
        }
        let target = message.param(1).unwrap_or_default();
        let found = self
            .names
            .place(target)
            .map(|(id, place)| (id.to_owned(), place.view.room));
        let (id, room) =
            found.ok_or_else(|| ("INVALID_TARGET", format!("there is no room or person `{target}` here")))?;
        let at = |index: usize| {
            let text = message.param(index).unwrap_or_default();
            reference(text).ok_or_else(|| bad("say msgid=ID or timestamp=YYYY-MM-DDThh:mm:ss.sssZ"))
        };
        let limit = message.param(count - 1).and_then(|limit| limit.parse::<usize>().ok());
        let limit = limit.ok_or_else(|| bad("the limit is a number"))?.min(LINES_MAX);
        let first = at(2)?;
        let lines = match verb {
            "LATEST" => self.latest(room, first, limit).await,
            "BEFORE" => self.stretch(room, first, Side::Before, limit).await,
            "AFTER" => self.stretch(room, first, Side::After, limit).await,
            "AROUND" => self.around(room, first, limit).await,
            _ => self.between(room, first, at(3)?, limit).await,
        };
        let lines = lines.map_err(|problem| ("MESSAGE_ERROR", problem.detail))?;
        Ok((id, lines))
    }

    async fn latest(&self, room: RoomId, after: Reference, limit: usize) -> Result<Vec<Line>, Problem> {
        let mut lines = entries::stretch(&self.surface, room, Stretch::Newest, limit).await?;
        match after {
            Reference::End => {}
            Reference::Ms(ms) => lines.retain(|line| line_ms(line) > ms),
            Reference::Entry(id) => {
                let id = id.to_string();
                if let Some(at) = lines.iter().position(|line| line.id == id) {
                    lines.drain(..=at);
                }
            }
        }
        Ok(lines)
    }

    /// Lines on one side of a reference, the nearest, oldest first.
    async fn stretch(&self, room: RoomId, at: Reference, side: Side, limit: usize) -> Result<Vec<Line>, Problem> {
        let stretch = match (at, side) {
            (Reference::End, Side::Before) => Stretch::Newest,
            (Reference::End, Side::After) => return Ok(Vec::new()),
            (Reference::Entry(id), Side::Before) => Stretch::Before(id),
            (Reference::Entry(id), Side::After) => Stretch::After(id),
            (Reference::Ms(ms), Side::Before) => match entries::entry_at(&self.surface, room, ms).await? {
                Some(id) => Stretch::Before(id),
                None => Stretch::Newest,
            },
            (Reference::Ms(ms), Side::After) => {
                match entries::entry_at(&self.surface, room, ms.saturating_add(1)).await? {
                    Some(id) => Stretch::From(id),
                    None => return Ok(Vec::new()),
                }
            }
        };
        entries::stretch(&self.surface, room, stretch, limit).await
    }

    async fn around(&self, room: RoomId, at: Reference, limit: usize) -> Result<Vec<Line>, Problem> {
        let at = match at {
            Reference::Ms(ms) => entries::entry_at(&self.surface, room, ms)
                .await?
                .map_or(Reference::End, Reference::Entry),
            other => other,
        };
        let mut lines = self.stretch(room, at, Side::Before, limit / 2).await?;
        if let Reference::Entry(id) = at {
            let after = entries::stretch(&self.surface, room, Stretch::From(id), limit - limit / 2).await?;
            lines.extend(after);
        }
        Ok(lines)
    }

    /// From the first towards the second, which may be older.
    async fn between(&self, room: RoomId, from: Reference, to: Reference, limit: usize) -> Result<Vec<Line>, Problem> {
        let (from_ms, to_ms) = (self.reference_ms(from).await?, self.reference_ms(to).await?);
        let side = if from_ms <= to_ms { Side::After } else { Side::Before };
        let mut lines = self.stretch(room, from, side, limit).await?;
        let end = match to {
            Reference::Entry(id) => lines.iter().position(|line| line.id == id.to_string()),
            _ => None,
        };
        match (end, side) {
            (Some(at), Side::After) => lines.truncate(at),
            (Some(at), Side::Before) => drop(lines.drain(..=at)),
            (None, Side::After) => lines.retain(|line| line_ms(line) < to_ms),
            (None, Side::Before) => lines.retain(|line| line_ms(line) > to_ms),
        }
        Ok(lines)
    }

    async fn reference_ms(&self, at: Reference) -> Result<i64, Problem> {
        match at {
            Reference::End => Ok(i64::MAX),
            Reference::Ms(ms) => Ok(ms),
            Reference::Entry(id) => Ok(line_ms(&entries::line(&self.surface, id).await?)),
        }
    }

    /// `CHATHISTORY TARGETS`: rooms whose newest entry is between two times.
    async fn targets(&mut self, message: &Message) -> Result<(), End> {
        let time = |index: usize| match reference(message.param(index)?)? {
            Reference::Ms(ms) => Some(ms),
            _ => None,
        };
        let (Some(a), Some(b)) = (time(1), time(2)) else {
            let text = "say TARGETS timestamp=... timestamp=... LIMIT";
            return self.fail("CHATHISTORY", "INVALID_PARAMS", &["TARGETS"], text).await;
        };
        let limit = message
            .param(3)
            .and_then(|limit| limit.parse().ok())
            .unwrap_or(LINES_MAX)
            .min(LINES_MAX);
        let newest: Vec<(String, EntryId)> = self
            .names
            .places
            .values()
            .filter_map(|place| Some((place.target.clone(), place.view.newest?)))
            .collect();
        let mut told = Vec::new();
        for (target, id) in newest {
            let Ok(line) = entries::line(&self.surface, id).await else {
                continue;
            };
            let at = line_ms(&line);
            if at > a.min(b) && at < a.max(b) {
                let time = line.time.unwrap_or_default();
                told.push((at, Message::new("CHATHISTORY", &["TARGETS", &target, &time]).from(HOST)));
            }
        }
        told.sort_by_key(|(at, _)| *at);
        let told = told.into_iter().take(limit).map(|(_, message)| message).collect();
        self.send_batch(&["draft/chathistory-targets"], told).await
    }

    /// `MARKREAD`: tells the mark of a room, or moves it forward.
    pub(super) async fn mark_read(&mut self, message: &Message) -> Result<(), End> {
        let target = message.param(0).unwrap_or_default().to_owned();
        let Some(room) = self.names.place(&target).map(|(_, place)| place.view.room) else {
            return self
                .fail("MARKREAD", "INVALID_PARAMS", &[&target], "there is no such room here")
                .await;
        };
        if let Some(text) = message.param(1) {
            let Some(Reference::Ms(ms)) = reference(text) else {
                return self
                    .fail("MARKREAD", "INVALID_PARAMS", &[&target], "say timestamp=...")
                    .await;
            };
            let seen = self
                .stretch(room, Reference::Ms(ms.saturating_add(1)), Side::Before, 1)
                .await;
            let newest = seen.ok().and_then(|lines| lines.last()?.id.parse().ok());
            if let Some(up_to) = newest {
                // What is read further already stays so.
                let _ = self.surface.command(Command::MarkRead { room, up_to }).await;
            }
        }
        let mark = self
            .surface
            .query(move |peer| Ok(peer.room(room).ok().flatten().and_then(|room| room.read_up_to)))
            .await;
        let time = match mark.ok().flatten() {
            Some(id) => entries::line(&self.surface, id).await.ok().and_then(|line| line.time),
            None => None,
        };
        let mark = time.map_or("*".to_owned(), |time| format!("timestamp={time}"));
        self.send(Message::new("MARKREAD", &[&target, &mark]).from(HOST)).await
    }
}

/// Which way from a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

fn line_ms(line: &Line) -> i64 {
    line.time.as_deref().and_then(ms).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_msgids_and_timestamps() {
        assert_eq!(reference("*"), Some(Reference::End));
        assert_eq!(
            reference("timestamp=2026-01-01T00:00:00.001Z"),
            Some(Reference::Ms(1_767_225_600_001))
        );
        let id = EntryId { log: [7; 8], seq: 9 };
        assert_eq!(reference(&format!("msgid={id}")), Some(Reference::Entry(id)));
        for bad in ["", "msgid=", "timestamp=yesterday", "id=1", "2026-01-01T00:00:00.001Z"] {
            assert_eq!(reference(bad), None, "{bad}");
        }
    }
}
