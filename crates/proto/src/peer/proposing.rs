//! Inviting somebody nearby who need not be known, and being invited: the frames and commands around [`crate::rooms::proposal`].
//!
//! Nobody is asked who did not say so ([`crate::peer::Command::TakeProposals`]). Only a device that was found on the local network or on this machine is invited, or
//! heard; one that has just come is given a moment to be found. The asker shows that its device is its person's; the name
//! in there is a claim like any other. A yes to a room begins the same join as an invite that was pasted. A yes to a room of two makes that
//! room and sends the way into it back, which the asker follows without being asked again: it was its own wish.

use std::time::{Duration, Instant};

use rand_core::Rng;

use crate::history::RoomId;
use crate::identity::{DeviceId, IdentityBundle, IdentityState, PersonId};
use crate::peer::line::PROPOSALS_MAX;
use crate::peer::{CommandError, Event, Output, PAIR_INVITE_S, Peer, Reply, Verdict, table};
use crate::rooms::proposal::{Asked, Heard, Standing, Token, WAITS_FOR};
use crate::rooms::{HistoryPolicy, Invite, Role, RoomKind};
use crate::store::{Store, StoreError};
use crate::sync::frame::{Frame, ProposalAnswer};

/// How long the invite inside an invitation holds, in seconds: whoever says yes at the last moment still gets in.
const INVITE_S: u64 = 3600;
/// Answers that are remembered.
const GIVEN_MAX: usize = 16;

type Answer = Result<Result<Reply, CommandError>, StoreError>;

/// An answer to an invitation.
#[derive(Debug)]
pub(super) struct Given {
    to: DeviceId,
    answer: ProposalAnswer,
    /// When nobody asks for it any more.
    until: Instant,
}

/// Somebody nearby invites this person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposalView {
    /// What to answer by.
    pub token: Token,
    /// The device that asks.
    pub device: DeviceId,
    /// Whose it is: shown by signatures.
    pub person: PersonId,
    /// The name that this person claims.
    pub claimed: Option<String>,
    /// What they are called here, where they are known from a room.
    pub name: Option<String>,
    /// The room, and its name as the asker has it; none for a room of two.
    pub room: Option<(RoomId, String)>,
    /// When it is over.
    pub left: Duration,
}

/// This person invites somebody nearby.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeProposalView {
    /// Names it.
    pub token: Token,
    /// The device that was asked.
    pub device: DeviceId,
    /// The room; none for a room of two that is not made yet.
    pub room: Option<RoomId>,
    /// How far it has got.
    pub standing: Standing,
    /// When it is over, or forgotten.
    pub left: Duration,
}

impl<S: Store> Peer<S> {
    /// Whether this person takes invitations of strangers who are near.
    pub fn takes_proposals(&self) -> bool {
        self.takes_proposals
    }

    /// Who nearby invites this person.
    pub fn proposals(&self) -> Vec<ProposalView> {
        let view = |(token, asked): (&Token, &Asked)| ProposalView {
            token: *token,
            device: asked.from,
            person: asked.person,
            claimed: claimed_name(asked),
            name: self
                .people
                .contains_key(&asked.person)
                .then(|| self.name_of(&asked.person)),
            room: asked
                .invite
                .as_ref()
                .map(|invite| (invite.room, invite.room_name.clone())),
            left: asked.until.saturating_duration_since(self.ctx.now),
        };
        self.proposals.asked().map(view).collect()
    }

    /// Whom this person invites.
    pub fn made_proposals(&self) -> Vec<MadeProposalView> {
        let made = self.proposals.made().map(|(token, made)| MadeProposalView {
            token: *token,
            device: made.to,
            room: made.room,
            standing: made.standing,
            left: made.until.saturating_duration_since(self.ctx.now),
        });
        made.collect()
    }

    pub(super) fn load_takes_proposals(&mut self) -> Result<(), StoreError> {
        self.takes_proposals = self.store.get(table::PROPOSALS)?.is_some();
        Ok(())
    }

    pub(super) fn take_proposals(&mut self, on: bool) -> Answer {
        if on {
            self.store.put(table::PROPOSALS, &[])?;
        } else {
            self.store.delete(table::PROPOSALS)?;
            self.proposals.drop_asked(None);
        }
        self.takes_proposals = on;
        self.ctx.event(Event::Proposals { news: None });
        Ok(Ok(Reply::Done))
    }

    /// Tells the shell what to announce, when it changes.
    pub(super) fn tell_announcement(&mut self) {
        let name = self.takes_proposals.then(|| self.my_name.clone());
        if self.told_announcement.as_ref() != Some(&name) {
            self.told_announcement = Some(name.clone());
            self.ctx.out.push(Output::Announce(name));
        }
    }

    /// Invites a device nearby.
    pub(super) fn make_proposal(&mut self, device: DeviceId, room: Option<RoomId>) -> Answer {
        if device == self.ctx.device || !self.is_near(&device) {
            return Ok(Err(CommandError::NotNear));
        }
        if let Err(why) = self.proposals.may_make(&device, room) {
            return Ok(Err(CommandError::Limit(why)));
        }
        let invite = match room {
            None if self.person_of(&device).is_some() => {
                return Ok(Err(CommandError::Already(
                    "you know each other from a room: `offhook chat` opens your room of two",
                )));
            }
            None => None,
            Some(id) => {
                let Some(no) = self.by_id.get(&id).copied() else {
                    return Ok(Err(CommandError::NoRoom));
                };
                let is_in = |room: &crate::peer::room::Room| room.devices.contains_key(&device);
                if self.rooms.get(&no).is_some_and(is_in) {
                    return Ok(Err(CommandError::Already("they are in this room already")));
                }
                match self.make_invite(no, INVITE_S, 1, Role::Member, false)? {
                    Ok(invite) => Some(invite),
                    Err(error) => return Ok(Err(error)),
                }
            }
        };
        let mut token: Token = [0; 16];
        self.ctx.rng.fill_bytes(&mut token);
        self.proposals.make(token, device, invite, self.ctx.now);
        self.ctx.event(Event::Proposals { news: None });
        self.dial_soon(device);
        self.propose(device);
        Ok(Ok(Reply::Done))
    }

    /// Puts own questions to a device whose line is up: again where it did not answer, for its answer may have been lost.
    pub(super) fn propose(&mut self, peer: DeviceId) {
        if !self.lines.contains_key(&peer) {
            return;
        }
        let (person, identity) = (self.ctx.me, self.my_identity.bundle());
        let due = self.proposals.to_send(&peer);
        if !due.is_empty() {
            self.ctx.event(Event::Proposals { news: None });
        }
        for (token, invite) in due {
            let identity = identity.clone();
            let question = Frame::Propose {
                token,
                person,
                identity,
                invite,
            };
            self.send(peer, &question);
        }
    }

    /// Somebody nearby asks.
    pub(super) fn on_propose(
        &mut self,
        peer: DeviceId,
        token: Token,
        person: PersonId,
        identity: IdentityBundle,
        invite: Option<Invite>,
    ) -> Result<(), StoreError> {
        if !self.may_go_on(peer)? {
            return Ok(());
        }
        let mut state = IdentityState::new(person);
        let is_theirs = state.merge_bundle(&identity).is_ok() && state.has_device(&peer) && person != self.ctx.me;
        let leads_to_them = |invite: &Invite| invite.doorways.iter().any(|door| door.device == peer);
        if !is_theirs || !invite.as_ref().is_none_or(leads_to_them) {
            return self.misbehaved(peer, "an invitation that is not its sender's");
        }
        if self.ctx.blocked.contains(&person) {
            // Not told: they need not learn it.
            return Ok(());
        }
        if let Some(given) = self.given.get(&token).filter(|given| given.to == peer) {
            let answer = given.answer.clone();
            self.send(peer, &Frame::Proposed { token, answer });
            return Ok(());
        }
        let asked = Asked {
            from: peer,
            person,
            identity,
            invite,
            until: self.ctx.now,
        };
        if self.takes_proposals
            && !self.is_near(&peer)
            && self.proposals.keep_unseen(token, asked.clone(), self.ctx.now)
        {
            return Ok(());
        }
        self.consider_proposal(token, asked);
        Ok(())
    }

    /// Shows a question to the person, or turns it away; the device is told which.
    fn consider_proposal(&mut self, token: Token, asked: Asked) {
        let peer = asked.from;
        let is_known = |invite: &Invite| {
            let room = self.by_id.get(&invite.room).and_then(|no| self.rooms.get(no));
            room.is_some_and(crate::peer::room::Room::is_member) || self.ctx.wall_ms > invite.expires_ms
        };
        let is_open = self.takes_proposals && self.is_near(&peer) && !asked.invite.as_ref().is_some_and(is_known);
        let news = Some(self.proposal_sentence(&asked));
        let heard = match is_open {
            true => self.proposals.hear(token, asked, self.ctx.now),
            false => Heard::NotTaken,
        };
        let answer = match heard {
            Heard::Shown | Heard::Again => ProposalAnswer::Shown {},
            Heard::NotTaken => ProposalAnswer::NotTaken {},
        };
        if heard == Heard::Shown {
            self.ctx.event(Event::Proposals { news });
        }
        self.send(peer, &Frame::Proposed { token, answer });
    }

    /// A device was seen nearby: what it asked before counts from now on.
    pub(super) fn consider_unseen_proposal(&mut self, device: &DeviceId) {
        if let Some((token, asked)) = self.proposals.take_unseen(device) {
            self.consider_proposal(token, asked);
        }
    }

    /// That somebody invites, for those who have no page to see it on.
    fn proposal_sentence(&self, asked: &Asked) -> String {
        let claimed = || claimed_name(asked).unwrap_or_else(|| "no name".to_owned());
        let who = match self.people.contains_key(&asked.person) {
            true => self.name_of(&asked.person),
            false => format!("somebody nearby who goes by {:?}", claimed()),
        };
        let into = match &asked.invite {
            Some(invite) => format!("to the room {:?}", invite.room_name),
            None => "to a chat of two".to_owned(),
        };
        format!("{who} invites you {into}; `offhook near` shows it and how to answer")
    }

    /// The person answers.
    pub(super) fn answer_proposal(&mut self, token: Token, verdict: Verdict) -> Answer {
        let now = self.ctx.now;
        let asked = match verdict {
            Verdict::Accept => self.proposals.take(&token),
            Verdict::Decline | Verdict::Block => self.proposals.turn_down(&token, now),
        };
        let Some(asked) = asked else {
            return Ok(Err(CommandError::NoProposal));
        };
        self.ctx.event(Event::Proposals { news: None });
        match verdict {
            Verdict::Accept => self.accept(token, asked),
            Verdict::Decline => {
                self.give(asked.from, token, ProposalAnswer::Declined {});
                Ok(Ok(Reply::Done))
            }
            Verdict::Block => {
                self.learn_person(&asked)?;
                self.proposals.drop_asked(Some(&asked.person));
                self.block_person(asked.person, true)
            }
        }
    }

    fn accept(&mut self, token: Token, asked: Asked) -> Answer {
        let from = asked.from;
        if let Some(invite) = &asked.invite {
            let reply = self.join(invite)?;
            if reply.is_ok() {
                self.give(from, token, ProposalAnswer::Accepted {});
            }
            return Ok(reply);
        }
        self.learn_person(&asked)?;
        if let Some(room) = self.pair_room(&asked.person) {
            self.give(from, token, ProposalAnswer::Accepted {});
            return Ok(Ok(Reply::Room(room)));
        }
        let kind = RoomKind::Pair { other: asked.person };
        let (no, room) = self.create_room("chat".to_owned(), kind, HistoryPolicy::All {})?;
        let invite = match self.make_invite(no, PAIR_INVITE_S, 1, Role::Owner, true)? {
            Ok(invite) => invite,
            Err(error) => return Ok(Err(error)),
        };
        self.pair_invites.insert(no, invite.clone());
        let person = self.ctx.me;
        self.give(from, token, ProposalAnswer::Chat { person, invite });
        Ok(Ok(Reply::Room(room)))
    }

    /// Their name, and what blocking them needs.
    fn learn_person(&mut self, asked: &Asked) -> Result<(), StoreError> {
        for record in &asked.identity.records {
            self.learn_identity(&asked.person, record)?;
        }
        Ok(())
    }

    /// Answers a device now; where there is no line, it asks again when there is one.
    fn give(&mut self, to: DeviceId, token: Token, answer: ProposalAnswer) {
        let now = self.ctx.now;
        self.given.retain(|_, given| now < given.until);
        if self.given.len() >= GIVEN_MAX
            && let Some(oldest) = self
                .given
                .iter()
                .min_by_key(|(_, given)| given.until)
                .map(|(token, _)| *token)
        {
            self.given.remove(&oldest);
        }
        let until = now + WAITS_FOR;
        let given = Given {
            to,
            answer: answer.clone(),
            until,
        };
        self.given.insert(token, given);
        self.send(to, &Frame::Proposed { token, answer });
    }

    /// A device answers.
    pub(super) fn on_proposed(
        &mut self,
        peer: DeviceId,
        token: Token,
        answer: ProposalAnswer,
    ) -> Result<(), StoreError> {
        if !self.may_go_on(peer)? {
            return Ok(());
        }
        let standing = match &answer {
            ProposalAnswer::Shown {} => Standing::Shown,
            ProposalAnswer::Declined {} => Standing::Declined,
            ProposalAnswer::NotTaken {} => Standing::NotTaken,
            ProposalAnswer::Accepted {} | ProposalAnswer::Chat { .. } => Standing::Accepted,
        };
        let Some(made) = self.proposals.answered(&token, &peer, standing) else {
            return Ok(());
        };
        let is_for_two = made.invite.is_none();
        if let (ProposalAnswer::Chat { person, invite }, true) = (answer, is_for_two) {
            let leads_to_them = matches!(&invite.doorways[..], [door] if door.device == peer);
            if leads_to_them && !self.by_id.contains_key(&invite.room) {
                made.room = Some(invite.room);
                if self.join(&invite)?.is_ok()
                    && let Some(no) = self.by_id.get(&invite.room)
                {
                    self.offered.insert(*no, person);
                }
            }
        }
        self.ctx.event(Event::Proposals { news: None });
        if matches!(standing, Standing::Declined | Standing::NotTaken) {
            self.let_go(peer);
        }
        Ok(())
    }

    /// Bounds what one line can say of invitations.
    fn may_go_on(&mut self, peer: DeviceId) -> Result<bool, StoreError> {
        let Some(line) = self.lines.get_mut(&peer) else {
            return Ok(false);
        };
        line.proposals += 1;
        if line.proposals <= PROPOSALS_MAX {
            return Ok(true);
        }
        self.misbehaved(peer, "too many invitations")?;
        Ok(false)
    }

    pub(super) fn expire_proposals(&mut self) {
        for (device, token) in self.proposals.drop_unseen(self.ctx.now) {
            let answer = ProposalAnswer::NotTaken {};
            self.send(device, &Frame::Proposed { token, answer });
        }
        let (changed, in_vain) = self.proposals.expire(self.ctx.now);
        if changed {
            self.ctx.event(Event::Proposals { news: None });
        }
        for device in in_vain {
            self.let_go(device);
        }
    }

    /// Closes the line to somebody who was called for nothing else than an invitation.
    fn let_go(&mut self, peer: DeviceId) {
        let is_door = |invite: &Invite| invite.doorways.iter().any(|door| door.device == peer);
        let is_needed = self.person_of(&peer).is_some()
            || self.is_only_keeper(&peer)
            || self.joins.values().any(is_door)
            || self.proposals.awaited().any(|awaited| *awaited == peer)
            || self.proposals.asked().any(|(_, asked)| asked.from == peer);
        if !is_needed && self.lines.contains_key(&peer) {
            let reason = "the invitation is settled";
            self.ctx.out.push(Output::Close { peer, reason });
            self.drop_line(peer);
        }
    }

    fn is_near(&self, device: &DeviceId) -> bool {
        self.book.get(device).is_some_and(|dial| dial.is_near)
    }
}

/// The name that somebody who asks goes by.
fn claimed_name(asked: &Asked) -> Option<String> {
    let mut state = IdentityState::new(asked.person);
    state.merge_bundle(&asked.identity).ok()?;
    state.name().map(str::to_owned)
}
