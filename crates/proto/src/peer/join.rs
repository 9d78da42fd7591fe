//! Getting in: invites, knocking, letting in.

use std::time::{Duration, Instant};

use crate::history::{Clock, RoomId};
use crate::identity::{DeviceId, IdentityBundle, IdentityState, PersonId};
use crate::peer::commands::ROOMS_MAX;
use crate::peer::line::{KNOCKS_MAX, Line};
use crate::peer::record::{self, StoredStanding};
use crate::peer::room::Room;
use crate::peer::{CommandError, Event, JoinStep, Peer, Reply, table};
use crate::rooms::{HistoryPolicy, Invite, InviteUse, LogCertificate, Op, Role, RoomKind};
use crate::store::{RoomNo, Store, StoreError};
use crate::sync::frame::{EpochGift, Frame};
use crate::wire::Wire;

/// How many joins may be pending.
const JOINS_MAX: usize = 64;
/// How long a door is given to answer before another is knocked at.
const KNOCK_PATIENCE: Duration = Duration::from_secs(3);

impl<S: Store> Peer<S> {
    /// Begins to join the room of an invite.
    pub(super) fn join(&mut self, invite: &Invite) -> Result<Result<Reply, CommandError>, StoreError> {
        if let Some(room) = self.by_id.get(&invite.room).and_then(|no| self.rooms.get(no)) {
            match room.standing {
                StoredStanding::Member {} => return Ok(Ok(Reply::Room(room.id))),
                StoredStanding::Joining {} => {}
                // An old membership ends with a new invite: history here stays, the log is a new one.
                StoredStanding::Left {} | StoredStanding::Removed {} => {}
            }
        }
        if self.ctx.wall_ms > invite.expires_ms {
            return Ok(Err(CommandError::BadInvite(
                "this invite has expired; ask for a new one",
            )));
        }
        if !self.by_id.contains_key(&invite.room) && self.rooms.len() >= ROOMS_MAX {
            return Ok(Err(CommandError::Limit("4,096 rooms are the most")));
        }
        if self.joins.len() >= JOINS_MAX {
            return Ok(Err(CommandError::Limit("64 joins are pending; cancel one first")));
        }
        let no = match self.by_id.get(&invite.room) {
            Some(no) => *no,
            None => self.add_room(invite.room, StoredStanding::Joining {}, invite.room_name.clone()),
        };
        if let Some(room) = self.rooms.get_mut(&no) {
            let knocked_before = matches!(room.standing, StoredStanding::Joining {}) && room.own.is_some();
            room.standing = StoredStanding::Joining {};
            room.shown_out.clear();
            room.why_out.clear();
            room.dirty = true;
            if !knocked_before {
                room.open_own_log(&mut self.ctx, &self.secrets.device.0);
            }
        }
        self.store
            .put(&table::key(table::JOINS, &[&no.0.to_be_bytes()]), &invite.to_bytes())?;
        self.joins.insert(no, invite.clone());
        for doorway in &invite.doorways {
            self.note_old_addresses(doorway.device, &doorway.addresses, doorway.relay.clone())?;
            self.ctx.event(Event::Join {
                room: invite.room,
                step: JoinStep::Knocking { peer: doorway.device },
            });
            self.dial_soon(doorway.device);
        }
        let doors: Vec<DeviceId> = invite.doorways.iter().map(|d| d.device).collect();
        for door in doors {
            self.knock(door);
        }
        self.plan_due = true;
        self.plan_lines()?;
        Ok(Ok(Reply::Room(invite.room)))
    }

    pub(super) fn cancel_join(&mut self, id: RoomId) -> Result<Result<Reply, CommandError>, StoreError> {
        let Some(no) = self.by_id.get(&id).copied() else {
            return Ok(Err(CommandError::NoRoom));
        };
        if self.joins.remove(&no).is_none() {
            return Ok(Err(CommandError::Already("nothing is pending for this room")));
        }
        self.store.delete(&table::key(table::JOINS, &[&no.0.to_be_bytes()]))?;
        if let Some(room) = self.rooms.get_mut(&no) {
            room.standing = StoredStanding::Left {};
            room.dirty = true;
        }
        Ok(Ok(Reply::Done))
    }

    /// Asks a peer to let this device into rooms whose invites name it.
    pub(super) fn knock(&mut self, peer: DeviceId) {
        if !self.lines.contains_key(&peer) {
            return;
        }
        let mut knocks = Vec::new();
        let now = self.ctx.now;
        for (no, invite) in &self.joins {
            // One door at a time: two that open at once would each write an admission.
            let waiting = self.knocked.get(no).is_some_and(|(door, at)| {
                *door != peer && self.lines.contains_key(door) && now.duration_since(*at) < KNOCK_PATIENCE
            });
            if waiting {
                continue;
            }
            let Some(own) = self.rooms.get(no).and_then(|room| room.own.as_ref()) else {
                continue;
            };
            if !invite.doorways.iter().any(|doorway| doorway.device == peer) {
                continue;
            }
            let log = LogCertificate::issue(&self.secrets.device.0, &own.key);
            let person = self.ctx.me;
            let used = InviteUse::prove(&invite.key(), &invite.room, &person);
            let identity = self.my_identity.bundle();
            knocks.push((
                invite.room,
                Frame::Knock {
                    invite: used,
                    person,
                    identity,
                    log,
                },
            ));
        }
        for (room, frame) in knocks {
            self.send(peer, &frame);
            self.ctx.event(Event::Join {
                room,
                step: JoinStep::Asked { peer },
            });
        }
    }

    /// Knocks at doors with a line, but for one.
    fn knock_elsewhere(&mut self, not: DeviceId) {
        let doors: Vec<DeviceId> = self.lines.keys().copied().filter(|peer| *peer != not).collect();
        for door in doors {
            self.knock(door);
        }
    }

    /// When a door that does not answer is given up for another.
    pub(super) fn next_knock(&self) -> Option<Instant> {
        self.knocked
            .iter()
            .filter(|(no, _)| self.joins.contains_key(no))
            .map(|(_, (_, at))| *at + KNOCK_PATIENCE)
            .min()
    }

    /// Gives up doors that did not answer.
    pub(super) fn knock_again(&mut self) {
        let now = self.ctx.now;
        let silent: Vec<(RoomNo, DeviceId)> = self
            .knocked
            .iter()
            .filter(|(_, (_, at))| now.duration_since(*at) >= KNOCK_PATIENCE)
            .map(|(no, (door, _))| (*no, *door))
            .collect();
        for (no, door) in silent {
            self.knocked.remove(&no);
            self.knock_elsewhere(door);
        }
    }

    /// Somebody asks to be let in.
    pub(super) fn on_knock(
        &mut self,
        peer: DeviceId,
        used: InviteUse,
        person: PersonId,
        identity: IdentityBundle,
        log: LogCertificate,
    ) -> Result<(), StoreError> {
        let invite = used.invite;
        if let Some(line) = self.lines.get_mut(&peer) {
            line.knocks += 1;
            if line.knocks > KNOCKS_MAX {
                return self.misbehaved(peer, "too many knocks");
            }
        }
        match self.consider(peer, &used, person, &identity, &log) {
            Err((reason, ask_others)) => {
                self.send(
                    peer,
                    &Frame::Refused {
                        invite,
                        reason: reason.to_owned(),
                        ask_others,
                    },
                );
                Ok(())
            }
            Ok(no) => {
                self.let_in(peer, no, used, person, identity, log)?;
                self.welcome(peer, no, &invite)
            }
        }
    }

    /// Whether to let somebody in, and if not, why, and whether another member may decide otherwise.
    fn consider(
        &self,
        peer: DeviceId,
        used: &InviteUse,
        person: PersonId,
        identity: &IdentityBundle,
        log: &LogCertificate,
    ) -> Result<RoomNo, (&'static str, bool)> {
        let knows = |room: &&Room| room.is_member() && room.roster.invites.contains_key(&used.invite);
        let room = self
            .rooms
            .values()
            .find(knows)
            .ok_or(("this member does not know the invite (yet)", true))?;
        let invite = &room.roster.invites[&used.invite];
        let mut state = IdentityState::new(person);
        let fits = state.merge_bundle(identity).is_ok() && state.has_device(&peer) && state.prekey(&peer).is_some();
        if !fits || log.device != peer || log.verify().is_err() || used.verify(&room.id, &person).is_err() {
            return Err(("the request is not properly signed", false));
        }
        if room.roster.logs.contains_key(&log.log) && room.roster.members.contains_key(&person) {
            return Ok(room.no);
        }
        if room.my_role(&self.ctx.me).is_none_or(|role| role < Role::Member) {
            return Err(("this member may not let anybody in", true));
        }
        if invite.used_by.len() >= invite.uses as usize && !invite.used_by.contains(&person) {
            return Err(("this invite has been used up; ask for a new one", false));
        }
        if !invite.open {
            return Err(("this invite was withdrawn; ask for a new one", false));
        }
        if self.ctx.wall_ms > invite.expires_ms {
            return Err(("this invite has expired; ask for a new one", false));
        }
        if let Some(only) = invite.only
            && only != self.ctx.device
        {
            return Err(("only the device that made this invite may let you in", true));
        }
        Ok(room.no)
    }

    fn let_in(
        &mut self,
        peer: DeviceId,
        no: RoomNo,
        used: InviteUse,
        person: PersonId,
        identity: IdentityBundle,
        log: LogCertificate,
    ) -> Result<(), StoreError> {
        for record in &identity.records {
            self.learn_identity(&person, record)?;
        }
        let mut prekeys = self.prekeys(no);
        prekeys.extend(self.prekey_of(&person, &peer).map(|prekey| (peer, prekey)));
        self.ensure_writable(no)?;
        let Some(room) = self.rooms.get_mut(&no) else {
            return Ok(());
        };
        if room.roster.logs.contains_key(&log.log) && room.roster.members.contains_key(&person) {
            return Ok(());
        }
        let Some(role) = room.roster.invites.get(&used.invite).map(|invite| invite.role) else {
            return Ok(());
        };
        if self.proposals.came_in(&used.invite) {
            self.ctx.event(Event::Proposals { news: None });
        }
        let op = Op::Admit {
            person,
            identity,
            log,
            role,
            invite: Some(used),
        };
        let (written, outcome) = room.write_admission(&mut self.store, &mut self.ctx, &prekeys, op)?;
        self.written(no, &written, outcome)
    }

    /// Gives a newcomer what it needs to sync the room.
    fn welcome(&mut self, peer: DeviceId, no: RoomNo, invite: &[u8; 32]) -> Result<(), StoreError> {
        let Some(room) = self.rooms.get(&no) else { return Ok(()) };
        if !room.devices.contains_key(&peer) {
            let reason = "this invite was used by others at the same time; ask for a new one".to_owned();
            self.send(
                peer,
                &Frame::Refused {
                    invite: *invite,
                    reason,
                    ask_others: false,
                },
            );
            return Ok(());
        }
        let now = Clock::at_ms(self.ctx.wall_ms);
        let gifts = room
            .epochs
            .history_share(&room.roster, &room.graph, self.ctx.device, now);
        let id = room.id;
        self.send(peer, &Frame::Welcome { room: id, gifts });
        self.greet(peer);
        self.recognise(peer, true)
    }

    pub(super) fn on_welcome(&mut self, peer: DeviceId, id: RoomId, gifts: Vec<EpochGift>) -> Result<(), StoreError> {
        let Some(no) = self.by_id.get(&id).copied() else {
            return Ok(());
        };
        let Some(invite) = self.joins.get(&no) else {
            return Ok(());
        };
        if !invite.doorways.iter().any(|doorway| doorway.device == peer) {
            return Ok(());
        }
        self.take_gifts(no, gifts)?;
        let Some(room) = self.rooms.get_mut(&no) else {
            return Ok(());
        };
        room.standing = StoredStanding::Member {};
        room.sponsors.insert(peer);
        room.dirty = true;
        // The stored invite goes when the membership is verified: a crash before that knocks again.
        self.joins.remove(&no);
        self.arriving.insert(no, peer);
        self.ctx.event(Event::Room { room: id });
        self.greet_all()
    }

    /// Whoever let this device in is gone before the membership was verified: knocks again, at whatever door there is.
    pub(super) fn sponsor_gone(&mut self, peer: DeviceId) -> Result<(), StoreError> {
        let of_peer = |(no, sponsor): (&RoomNo, &DeviceId)| (*sponsor == peer).then_some(*no);
        let rooms: Vec<RoomNo> = self.arriving.iter().filter_map(of_peer).collect();
        for no in rooms {
            let stored = self.store.get(&table::key(table::JOINS, &[&no.0.to_be_bytes()]))?;
            let Some(invite) = stored.map(|bytes| record::decode(&bytes, "join")).transpose()? else {
                continue;
            };
            self.arriving.remove(&no);
            if let Some(room) = self.rooms.get_mut(&no) {
                room.standing = StoredStanding::Joining {};
                room.dirty = true;
            }
            self.joins.insert(no, invite);
            self.knock_elsewhere(peer);
        }
        Ok(())
    }

    pub(super) fn on_refused(&mut self, peer: DeviceId, key: [u8; 32], why: String, ask_others: bool) {
        let names = |(_, invite): &(&RoomNo, &Invite)| {
            invite.key().public() == key && invite.doorways.iter().any(|d| d.device == peer)
        };
        let Some((no, room)) = self.joins.iter().find(names).map(|(no, invite)| (*no, invite.room)) else {
            return;
        };
        if ask_others {
            self.knocked.remove(&no);
            self.knock_elsewhere(peer);
        }
        self.ctx.event(Event::Join {
            room,
            step: JoinStep::Refused { why, last: !ask_others },
        });
    }

    /// Tells how a join gets on, once its first answers are in.
    pub(super) fn join_progress(&mut self, no: RoomNo) -> Result<(), StoreError> {
        let Some(sponsor) = self.arriving.get(&no).copied() else {
            return Ok(());
        };
        let Some(room) = self.rooms.get(&no) else { return Ok(()) };
        let Some(by) = room.devices.get(&sponsor).copied() else {
            return Ok(());
        };
        if !room.roster.members.contains_key(&self.ctx.me) {
            return Ok(());
        }
        if let Some(person) = self.offered.remove(&no)
            && !matches!(room.roster.kind, RoomKind::Pair { other } if other == self.ctx.me)
        {
            let (id, name) = (room.id, self.name_of(&person));
            self.ctx.notice(
                Some(id),
                format!("{name} offered a chat of two that is none; it was left."),
            );
            let _ = self.command(super::Command::LeaveRoom { room: id })?;
            return Ok(());
        }
        let id = room.id;
        let (members, entries) = (room.roster.members.len(), room.messages);
        let missing = room.roster.logs.keys().map(|log| room.missing(log).len()).sum();
        self.arriving.remove(&no);
        for step in [
            JoinStep::Admitted { by },
            JoinStep::RosterVerified { members },
            JoinStep::Readable { entries, missing },
        ] {
            self.ctx.event(Event::Join { room: id, step });
        }
        Ok(())
    }

    /// Opens the room of two with somebody.
    pub(super) fn chat(&mut self, person: PersonId) -> Result<Result<Reply, CommandError>, StoreError> {
        if person == self.ctx.me {
            return Ok(Err(CommandError::NotYours(
                "a room of two takes somebody else; `room new` makes a room of one",
            )));
        }
        if !self.people.contains_key(&person) {
            return Ok(Err(CommandError::NoPerson));
        }
        if let Some(room) = self.pair_room(&person) {
            return Ok(Ok(Reply::Room(room)));
        }
        let kind = RoomKind::Pair { other: person };
        let (no, id) = self.create_room("chat".to_owned(), kind, HistoryPolicy::All {})?;
        self.offer_pair(no, person)?;
        Ok(Ok(Reply::Room(id)))
    }

    /// The room of two with somebody; of several (both sides opened one at once) the one with the smallest id.
    pub(super) fn pair_room(&self, person: &PersonId) -> Option<RoomId> {
        let with = |room: &&Room| {
            let involves = match room.roster.kind {
                RoomKind::Pair { other } => other == *person || room.roster.members.contains_key(person),
                RoomKind::Group {} => false,
            };
            room.is_member() && involves
        };
        self.rooms.values().filter(with).map(|room| room.id).min()
    }

    /// Offers the room of two to the other person's devices that have a line; later to those that come.
    pub(super) fn offer_pair(&mut self, no: RoomNo, person: PersonId) -> Result<(), StoreError> {
        let Some(room) = self.rooms.get(&no) else { return Ok(()) };
        if room.roster.members.contains_key(&person) {
            return Ok(());
        }
        let peers: Vec<DeviceId> = self
            .lines
            .keys()
            .copied()
            .filter(|peer| self.person_of(peer) == Some(person))
            .collect();
        for peer in peers {
            let usable = |invite: &&Invite| invite.expires_ms > self.ctx.wall_ms;
            let invite = match self.pair_invites.get(&no).filter(usable).cloned() {
                Some(invite) => invite,
                None => match self.make_invite(no, super::PAIR_INVITE_S, 1, Role::Owner, true)? {
                    Ok(invite) => invite,
                    Err(_) => return Ok(()),
                },
            };
            self.pair_invites.insert(no, invite.clone());
            self.send(peer, &Frame::Offer { invite });
        }
        Ok(())
    }

    /// Offers pending rooms of two to a peer whose line came up.
    pub(super) fn offer_pairs(&mut self, peer: DeviceId) -> Result<(), StoreError> {
        let Some(person) = self.person_of(&peer) else {
            return Ok(());
        };
        let pending = |room: &&Room| {
            let founder = matches!(room.roster.kind, RoomKind::Pair { other } if other == person);
            room.is_member() && founder && !room.roster.members.contains_key(&person)
        };
        let rooms: Vec<RoomNo> = self.rooms.values().filter(pending).map(|room| room.no).collect();
        for no in rooms {
            self.offer_pair(no, person)?;
        }
        Ok(())
    }

    /// A known person made a room of two for this one.
    pub(super) fn on_offer(&mut self, peer: DeviceId, invite: &Invite) -> Result<(), StoreError> {
        let Some(person) = self.person_of(&peer) else {
            return Ok(());
        };
        let from_peer = matches!(&invite.doorways[..], [doorway] if doorway.device == peer);
        if self.ctx.blocked.contains(&person) || !from_peer || self.by_id.contains_key(&invite.room) {
            return Ok(());
        }
        let pending = self
            .joins
            .values()
            .any(|join| join.doorways.iter().any(|door| door.device == peer));
        if pending || self.pair_room(&person).is_some() {
            return Ok(());
        }
        if self.join(invite)?.is_ok()
            && let Some(no) = self.by_id.get(&invite.room)
        {
            self.offered.insert(*no, person);
        }
        Ok(())
    }

    pub(super) fn new_line(&mut self, peer: DeviceId, exporter: [u8; 32]) {
        let told = self.addresses_told(&peer);
        self.lines.insert(peer, Line::new(exporter, told, self.ctx.now));
    }
}
