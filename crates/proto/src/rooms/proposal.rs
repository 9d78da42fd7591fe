//! Invitations between people who stand next to each other and share no room yet: which are shown to the person, and for how long.
//!
//! A stranger can only ask. What is asked waits for the person's word and for nothing else; nobody is let in, dialled or remembered because of it.
//! As strangers are free to ask, what they can take up is bounded: one question at a time from a device, [`ASKED_MAX`] from all, none from a device
//! for [`QUIET_FOR`] after it was told no, and none from anybody once [`QUIET_MAX`] were told so lately. A question that nobody answers is
//! over after [`WAITS_FOR`], at both ends.
//!
//! A device that has just come may ask before it was seen here: its question is kept for [`SEEN_WITHIN`], shown to nobody, and heard once it is seen.
//!
//! Whether the asker is near, blocked, or says the truth about itself is looked at before ([`crate::peer`]).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::history::RoomId;
use crate::identity::{DeviceId, IdentityBundle, PersonId};
use crate::rooms::Invite;

/// What a question is called at both ends; chosen at random by the asker.
pub type Token = [u8; 16];

/// Questions of others that wait for the person.
pub const ASKED_MAX: usize = 8;
/// Own questions that wait for an answer.
pub const MADE_MAX: usize = 8;
/// Own questions that are remembered, the settled ones among them.
const REMEMBERED_MAX: usize = 24;
/// How long a question waits.
pub const WAITS_FOR: Duration = Duration::from_secs(15 * 60);
/// How long a device that was told no is not heard again.
pub const QUIET_FOR: Duration = Duration::from_secs(10 * 60);
/// How long a question waits for its device to be seen nearby. Somebody who starts is announced within a second.
pub const SEEN_WITHIN: Duration = Duration::from_secs(30);
/// Questions that wait for their devices to be seen.
pub const UNSEEN_MAX: usize = 8;
/// Devices that were told no lately; with so many, no stranger is heard.
pub const QUIET_MAX: usize = 16;

/// Somebody nearby asks this person into a room.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The device that asks.
    pub from: DeviceId,
    /// Whose it is.
    pub person: PersonId,
    /// Shows that; with the name that the person goes by.
    pub identity: IdentityBundle,
    /// The way in; none: into a room of two.
    pub invite: Option<Invite>,
    /// When it is over.
    pub until: Instant,
}

/// What became of a question that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It is shown to the person.
    Shown,
    /// It was shown already.
    Again,
    /// There is no place for it.
    NotTaken,
}

/// How far an own question has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The device is being called.
    Calling,
    /// It was told; no answer yet.
    Sent,
    /// It is shown to its person.
    Shown,
    /// The person says yes.
    Accepted,
    /// The person says no.
    Declined,
    /// The device takes no questions now.
    NotTaken,
    /// Nobody answered in time.
    Expired,
}

impl Standing {
    /// Whether an answer may still come.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Calling | Self::Sent | Self::Shown)
    }

    /// In a word, for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Calling => "calling",
            Self::Sent => "sent",
            Self::Shown => "shown",
            Self::Accepted => "accepted",
            Self::Declined => "declined",
            Self::NotTaken => "not-taken",
            Self::Expired => "expired",
        }
    }
}

/// An own question.
#[derive(Debug, Clone)]
pub struct Made {
    /// Whom.
    pub to: DeviceId,
    /// Into which room; none: into a room of two that the other makes.
    pub room: Option<RoomId>,
    /// The way into it.
    pub invite: Option<Invite>,
    /// How far it has got.
    pub standing: Standing,
    /// When it is over; once settled, when it is forgotten.
    pub until: Instant,
}

/// All questions, of both directions.
#[derive(Debug, Default)]
pub struct Proposals {
    asked: BTreeMap<Token, Asked>,
    made: BTreeMap<Token, Made>,
    unseen: BTreeMap<DeviceId, (Token, Asked)>,
    quiet: BTreeMap<DeviceId, Instant>,
}

impl Proposals {
    /// Somebody asks. `asked.until` is set here.
    pub fn hear(&mut self, token: Token, mut asked: Asked, now: Instant) -> Heard {
        self.quiet.retain(|_, until| now < *until);
        if let Some(known) = self.asked.get(&token) {
            return if known.from == asked.from {
                Heard::Again
            } else {
                Heard::NotTaken
            };
        }
        let is_pending = self.asked.values().any(|known| known.from == asked.from);
        let is_quiet = self.quiet.contains_key(&asked.from) || self.quiet.len() >= QUIET_MAX;
        if is_pending || is_quiet || self.asked.len() >= ASKED_MAX {
            return Heard::NotTaken;
        }
        asked.until = now + WAITS_FOR;
        self.asked.insert(token, asked);
        Heard::Shown
    }

    /// A device that was not seen yet asks; tells whether its question is kept. `asked.until` is set here.
    pub fn keep_unseen(&mut self, token: Token, mut asked: Asked, now: Instant) -> bool {
        if let Some((known, _)) = self.unseen.get(&asked.from) {
            return *known == token;
        }
        if self.unseen.len() >= UNSEEN_MAX {
            return false;
        }
        asked.until = now + SEEN_WITHIN;
        self.unseen.insert(asked.from, (token, asked));
        true
    }

    /// A device was seen: takes out what it asked before.
    pub fn take_unseen(&mut self, device: &DeviceId) -> Option<(Token, Asked)> {
        self.unseen.remove(device)
    }

    /// Takes out the questions of devices that were not seen in time.
    pub fn drop_unseen(&mut self, now: Instant) -> Vec<(DeviceId, Token)> {
        let is_over = |_: &DeviceId, (_, asked): &mut (Token, Asked)| asked.until <= now;
        let over = self.unseen.extract_if(.., is_over);
        over.map(|(device, (token, _))| (device, token)).collect()
    }

    /// Takes a question out, to be answered with yes.
    pub fn take(&mut self, token: &Token) -> Option<Asked> {
        self.asked.remove(token)
    }

    /// Takes a question out, to be answered with no: its device is not heard for a while.
    pub fn turn_down(&mut self, token: &Token, now: Instant) -> Option<Asked> {
        let asked = self.asked.remove(token)?;
        if self.quiet.len() < QUIET_MAX {
            self.quiet.insert(asked.from, now + QUIET_FOR);
        }
        Some(asked)
    }

    /// Takes out all that a person or anybody asked.
    pub fn drop_asked(&mut self, of: Option<&PersonId>) -> bool {
        let before = self.asked.len();
        let stays = |asked: &Asked| of.is_some_and(|person| asked.person != *person);
        self.asked.retain(|_, asked| stays(asked));
        self.unseen.retain(|_, (_, asked)| stays(asked));
        self.asked.len() != before
    }

    /// Whether one more may be made, to this device and into this room.
    pub fn may_make(&self, to: &DeviceId, room: Option<RoomId>) -> Result<(), &'static str> {
        let mut open = self.made.values().filter(|made| made.standing.is_open());
        if open.clone().any(|made| made.to == *to && made.room == room) {
            return Err("that device has your invitation already; wait for its answer");
        }
        match open.nth(MADE_MAX - 1) {
            Some(_) => Err("8 invitations wait for an answer already; wait for one of them"),
            None => Ok(()),
        }
    }

    /// Makes a question.
    pub fn make(&mut self, token: Token, to: DeviceId, invite: Option<Invite>, now: Instant) {
        // A new one to the same device takes the place of what it said to the last.
        self.made.retain(|_, made| made.standing.is_open() || made.to != to);
        while self.made.len() >= REMEMBERED_MAX {
            let settled = self.made.iter().filter(|(_, made)| !made.standing.is_open());
            let Some(oldest) = settled.min_by_key(|(_, made)| made.until).map(|(token, _)| *token) else {
                break;
            };
            self.made.remove(&oldest);
        }
        let made = Made {
            to,
            room: invite.as_ref().map(|invite| invite.room),
            invite,
            standing: Standing::Calling,
            until: now + WAITS_FOR,
        };
        self.made.insert(token, made);
    }

    /// Own questions that are to be put to a device whose line came up, again where it did not answer; they count as sent.
    pub fn to_send(&mut self, to: &DeviceId) -> Vec<(Token, Option<Invite>)> {
        let open = self
            .made
            .iter_mut()
            .filter(|(_, made)| made.to == *to && made.standing.is_open());
        open.map(|(token, made)| {
            if made.standing == Standing::Calling {
                made.standing = Standing::Sent;
            }
            (*token, made.invite.clone())
        })
        .collect()
    }

    /// A device has answered; tells whether that is news, and about which question.
    pub fn answered(&mut self, token: &Token, from: &DeviceId, standing: Standing) -> Option<&mut Made> {
        let made = self.made.get_mut(token).filter(|made| made.to == *from)?;
        if !made.standing.is_open() || made.standing == standing {
            return None;
        }
        made.standing = standing;
        Some(made)
    }

    /// Own questions of which no answer may come any more because the way in was used.
    pub fn came_in(&mut self, invite: &[u8; 32]) -> bool {
        let is_meant = |made: &&mut Made| {
            let way = made.invite.as_ref().map(|way| way.key().public());
            way.as_ref() == Some(invite) && made.standing.is_open()
        };
        let mut changed = false;
        for made in self.made.values_mut().filter(is_meant) {
            made.standing = Standing::Accepted;
            changed = true;
        }
        changed
    }

    /// Drops what is over. Tells whether anything was, and whom own questions waited for in vain.
    pub fn expire(&mut self, now: Instant) -> (bool, Vec<DeviceId>) {
        let before = self.asked.len() + self.made.len();
        self.asked.retain(|_, asked| now < asked.until);
        self.made.retain(|_, made| made.standing.is_open() || now < made.until);
        let mut in_vain = Vec::new();
        for made in self
            .made
            .values_mut()
            .filter(|made| made.standing.is_open() && made.until <= now)
        {
            made.standing = Standing::Expired;
            made.until = now + WAITS_FOR;
            in_vain.push(made.to);
        }
        let changed = !in_vain.is_empty() || before != self.asked.len() + self.made.len();
        (changed, in_vain)
    }

    /// When [`Self::expire`] or [`Self::drop_unseen`] is due.
    pub fn next_expiry(&self) -> Option<Instant> {
        let unseen = self.unseen.values().map(|(_, asked)| asked);
        let asked = self.asked.values().chain(unseen).map(|asked| asked.until);
        asked.chain(self.made.values().map(|made| made.until)).min()
    }

    /// Questions of others that wait for the person.
    pub fn asked(&self) -> impl Iterator<Item = (&Token, &Asked)> {
        self.asked.iter()
    }

    /// Own questions.
    pub fn made(&self) -> impl Iterator<Item = (&Token, &Made)> {
        self.made.iter()
    }

    /// Devices that own questions wait for.
    pub fn awaited(&self) -> impl Iterator<Item = &DeviceId> {
        let open = self.made.values().filter(|made| made.standing.is_open());
        open.map(|made| &made.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(from: u16) -> Asked {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&from.to_be_bytes());
        Asked {
            from: DeviceId(id),
            person: PersonId(id),
            identity: IdentityBundle { records: Vec::new() },
            invite: None,
            until: now(),
        }
    }

    fn token(number: u16) -> Token {
        let mut token = [0; 16];
        token[..2].copy_from_slice(&number.to_be_bytes());
        token
    }

    #[allow(clippy::disallowed_methods, reason = "an instant can be had in no other way")]
    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_device_asks_once_at_a_time_and_not_again_after_a_no() {
        let (mut all, now) = (Proposals::default(), now());
        assert_eq!(all.hear(token(1), asked(1), now), Heard::Shown);
        assert_eq!(all.hear(token(1), asked(1), now), Heard::Again);
        assert_eq!(all.hear(token(1), asked(2), now), Heard::NotTaken, "another's question");
        assert_eq!(all.hear(token(2), asked(1), now), Heard::NotTaken);
        assert!(all.turn_down(&token(1), now).is_some());
        assert_eq!(all.hear(token(3), asked(1), now), Heard::NotTaken);
        assert_eq!(all.hear(token(3), asked(1), now + QUIET_FOR), Heard::Shown);
    }

    #[test]
    fn strangers_together_are_bounded() {
        let (mut all, now) = (Proposals::default(), now());
        let mut shown = 0;
        for round in 0..1000u16 {
            let heard = all.hear(token(round), asked(round), now);
            assert!(all.asked().count() <= ASKED_MAX);
            if heard == Heard::Shown {
                shown += 1;
            }
            if all.asked().count() == ASKED_MAX {
                let tokens: Vec<Token> = all.asked().map(|(token, _)| *token).collect();
                for token in tokens {
                    all.turn_down(&token, now);
                }
            }
        }
        assert_eq!(shown, QUIET_MAX, "with so many told no, nobody is heard");
        assert_eq!(all.hear(token(2000), asked(2000), now + QUIET_FOR), Heard::Shown);
    }

    #[test]
    fn a_device_that_was_not_seen_is_kept_waiting_once_and_not_for_long() {
        let (mut all, now) = (Proposals::default(), now());
        assert!(all.keep_unseen(token(1), asked(1), now));
        assert!(all.keep_unseen(token(1), asked(1), now), "it asks again");
        assert!(!all.keep_unseen(token(2), asked(1), now), "another question");
        assert_eq!(all.next_expiry(), Some(now + SEEN_WITHIN));
        for number in 2..100 {
            all.keep_unseen(token(number), asked(number), now);
        }
        assert_eq!(all.unseen.len(), UNSEEN_MAX);
        assert_eq!(all.asked().count(), 0, "shown to nobody");
        assert_eq!(all.take_unseen(&asked(1).from).map(|(named, _)| named), Some(token(1)));
        assert!(all.take_unseen(&asked(1).from).is_none());
        assert!(all.drop_unseen(now).is_empty());
        assert_eq!(all.drop_unseen(now + SEEN_WITHIN).len(), UNSEEN_MAX - 1);
        assert_eq!(all.next_expiry(), None);
    }

    #[test]
    fn what_nobody_answers_is_over() {
        let (mut all, now) = (Proposals::default(), now());
        assert_eq!(all.hear(token(1), asked(1), now), Heard::Shown);
        all.make(token(2), asked(2).from, None, now);
        assert_eq!(all.next_expiry(), Some(now + WAITS_FOR));
        assert_eq!(all.expire(now + WAITS_FOR), (true, vec![asked(2).from]));
        assert_eq!(all.asked().count(), 0);
        assert_eq!(
            all.made().next().map(|(_, made)| made.standing),
            Some(Standing::Expired)
        );
        assert_eq!(all.awaited().count(), 0);
        assert_eq!(all.expire(now + 2 * WAITS_FOR), (true, vec![]));
        assert_eq!(all.next_expiry(), None);
    }

    #[test]
    fn an_answer_counts_once_and_only_from_whom_was_asked() {
        let (mut all, now) = (Proposals::default(), now());
        let (to, other) = (asked(1).from, asked(2).from);
        all.make(token(1), to, None, now);
        assert_eq!(all.to_send(&to).len(), 1);
        assert!(all.answered(&token(1), &other, Standing::Accepted).is_none());
        assert!(all.answered(&token(9), &to, Standing::Accepted).is_none());
        assert!(all.answered(&token(1), &to, Standing::Shown).is_some());
        assert!(all.answered(&token(1), &to, Standing::Declined).is_some());
        assert!(
            all.answered(&token(1), &to, Standing::Accepted).is_none(),
            "it is settled"
        );
        assert_eq!(all.to_send(&to).len(), 0);
    }

    #[test]
    fn own_questions_are_bounded() {
        let (mut all, now) = (Proposals::default(), now());
        for number in 0..100u16 {
            let to = asked(number).from;
            if all.may_make(&to, None).is_ok() {
                all.make(token(number), to, None, now);
                assert!(all.may_make(&to, None).is_err(), "one at a time");
            }
        }
        assert_eq!(all.made().count(), MADE_MAX);
        for number in 100..200u16 {
            let (token_before, to) = (*all.made().next().expect("some").0, asked(number).from);
            let asked_before = all.made().next().expect("some").1.to;
            all.answered(&token_before, &asked_before, Standing::Declined);
            all.make(token(number), to, None, now);
            assert!(all.made().count() <= REMEMBERED_MAX);
        }
    }
}
