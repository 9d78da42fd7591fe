//! Who is in and who is out: telling those who do not know, and believing what others show.
//!
//! Only members are served, so what puts somebody out would never reach them. Whoever names a room and is not served is shown the few control entries that
//! settle why ([`crate::rooms::ControlGraph::why_out`]), each with the key of its own payload. It takes them on top of what it holds, on trial, and draws
//! the conclusion itself: nobody can talk a member out of a room. Whoever was never heard of here (let in by a member whose entries have not come) is asked
//! how it came in, and served as soon as what it shows settles that.

use crate::history::EntryRef;
use crate::history::entry;
use crate::identity::{DeviceId, PersonId};
use crate::peer::exchange::UNKNOWN_TAGS_MAX;
use crate::peer::line::{SHOWINGS_MAX, Unrecognised};
use crate::peer::record::StoredStanding;
use crate::peer::room::Room;
use crate::peer::{Event, Peer, table};
use crate::rooms::roster::{Departure, Former, may_remove};
use crate::rooms::{Control, ControlEntry, ControlGraph, ControlPayload, Op, Roster};
use crate::store::{RoomNo, Store, StoreError};
use crate::sync::Frame;
use crate::sync::frame::{RoomName, SHOWN_MAX, ShownEntry, Side};
use crate::wire::Wire;

/// The most bytes of entries that are shown at once.
const SHOWN_BYTES_MAX: usize = 512 * 1024;

impl<S: Store> Peer<S> {
    /// Somebody who is not served named a room: it is told so, and heard again when the membership changes.
    pub(super) fn turn_away(&mut self, peer: DeviceId, no: RoomNo, hello: Unrecognised) -> Result<(), StoreError> {
        if let Some(line) = self.lines.get_mut(&peer) {
            line.theirs.insert(hello.place, no);
            if line.unknown.len() < UNKNOWN_TAGS_MAX {
                line.unknown.push(hello);
            }
        }
        let (side, place) = (Side::Yours, hello.place);
        self.tell_out(peer, no, RoomName { side, place })
    }

    /// Shows a device that is not served why; once for each state of the membership.
    pub(super) fn tell_out(&mut self, peer: DeviceId, no: RoomNo, name: RoomName) -> Result<(), StoreError> {
        let (Some(room), Some(line)) = (self.rooms.get(&no), self.lines.get_mut(&peer)) else {
            return Ok(());
        };
        let knows = room.is_member() && room.roster.members.contains_key(&self.ctx.me);
        let state = room.graph.len();
        if !knows || line.told_out.insert(no, state) == Some(state) {
            return Ok(());
        }
        let former = former_of(&room.roster, &peer);
        let refs = match former {
            Some((person, former)) => {
                let why = room.graph.why_out(&room.roster, person, SHOWN_MAX);
                // Somebody who has been away for long lacks more than fits: the removal alone may still convince.
                if why.is_empty() { vec![former.entry] } else { why }
            }
            None => room.graph.fork_proofs(&room.roster, SHOWN_MAX),
        };
        let never_heard_of = former.is_none();
        let shown = room.shown(&self.store, &refs)?;
        if !shown.is_empty() {
            self.send(peer, &Frame::Removed { name, shown });
        }
        if never_heard_of {
            self.send(peer, &Frame::Unknown { name });
        }
        Ok(())
    }

    /// The membership changed: who shared the room on a line and is out now is told at once, and owes no answers.
    pub(super) fn send_away(&mut self, no: RoomNo) -> Result<(), StoreError> {
        if let Some(room) = self.rooms.get_mut(&no) {
            let (roster, devices) = (&room.roster, &room.devices);
            room.vouched
                .retain(|device| !devices.contains_key(device) && former_of(roster, device).is_none());
        }
        let peers: Vec<DeviceId> = self.lines.keys().copied().collect();
        for peer in peers {
            if self.may_serve(peer, no) {
                continue;
            }
            let Some(shared) = self.shared(peer, no) else { continue };
            shared.asked.clear();
            shared.has = None;
            let name = shared.name;
            self.tell_out(peer, no, name)?;
        }
        Ok(())
    }

    /// The room that the peer names, if it has not shown entries too often on this line.
    fn shown_about(&mut self, peer: DeviceId, name: RoomName) -> Option<RoomNo> {
        let line = self.lines.get_mut(&peer)?;
        line.shown += 1;
        let no = line.room_at(name).filter(|_| line.shown <= SHOWINGS_MAX)?;
        let room = self.rooms.get(&no)?;
        (room.is_member() && room.roster.members.contains_key(&self.ctx.me)).then_some(no)
    }

    /// Another member shows why this person is out.
    pub(super) fn on_removed(
        &mut self,
        peer: DeviceId,
        name: RoomName,
        shown: &[ShownEntry],
    ) -> Result<(), StoreError> {
        let no = self.shown_about(peer, name).filter(|no| self.may_serve(peer, *no));
        let Some((no, room)) = no.and_then(|no| Some((no, self.rooms.get(&no)?))) else {
            return Ok(());
        };
        let me = self.ctx.me;
        let (graph, entries) = room.on_trial(shown);
        let news: Vec<EntryRef> = entries
            .into_iter()
            .filter(|entry| !room.graph.contains(entry))
            .collect();
        if news.is_empty() {
            return Ok(());
        }
        let roster = graph.resolve();
        let why = match roster.members.contains_key(&me) {
            false => Some(self.departure(&roster, &me)),
            true => {
                let by = shown.iter().find_map(|shown| room.removed_by(shown, &me));
                by.map(|by| format!("{} removed you.", self.name_of(&by)))
            }
        };
        let Some(why) = why else { return Ok(()) };
        if let Some(room) = self.rooms.get_mut(&no) {
            room.shown_out = news;
        }
        self.go_out(no, why);
        Ok(())
    }

    /// A member does not know how this person came in.
    pub(super) fn on_unknown(&mut self, peer: DeviceId, name: RoomName) -> Result<(), StoreError> {
        let Some(no) = self.shown_about(peer, name).filter(|no| self.may_serve(peer, *no)) else {
            return Ok(());
        };
        let (Some(line), Some(room)) = (self.lines.get_mut(&peer), self.rooms.get(&no)) else {
            return Ok(());
        };
        if !line.admission_shown.insert(no) {
            return Ok(());
        }
        let refs = room.graph.admission(&room.roster, &self.ctx.me, SHOWN_MAX);
        let shown = room.shown(&self.store, &refs)?;
        if !shown.is_empty() {
            let name = name.turned();
            self.send(peer, &Frame::Admitted { name, shown });
        }
        Ok(())
    }

    /// Somebody who was never heard of here shows how they came in.
    pub(super) fn on_admitted(
        &mut self,
        peer: DeviceId,
        name: RoomName,
        shown: &[ShownEntry],
    ) -> Result<(), StoreError> {
        let no = self.shown_about(peer, name);
        let Some(room) = no.and_then(|no| self.rooms.get_mut(&no)) else {
            return Ok(());
        };
        if room.devices.contains_key(&peer) || former_of(&room.roster, &peer).is_some() {
            return Ok(());
        }
        let (graph, _) = room.on_trial(shown);
        let roster = graph.resolve();
        if roster.devices().contains_key(&peer) {
            room.vouched.insert(peer);
            return self.recognise(peer, true);
        }
        let Some((person, _)) = former_of(&roster, &peer) else {
            return Ok(());
        };
        let refs = graph.why_out(&roster, person, SHOWN_MAX);
        let shown = room.shown(&self.store, &refs)?;
        if !shown.is_empty() {
            let name = name.turned();
            self.send(peer, &Frame::Removed { name, shown });
        }
        Ok(())
    }

    /// What the membership, as it is known here now, means for this person.
    pub(super) fn note_standing(&mut self, no: RoomNo) -> Result<(), StoreError> {
        let me = self.ctx.me;
        let Some(room) = self.rooms.get_mut(&no) else {
            return Ok(());
        };
        if room.roster.members.contains_key(&me) {
            room.sponsors.clear();
            let settled = |entry: &EntryRef| room.graph.contains(entry) || room.graph.is_void_by_fork(entry);
            if matches!(room.standing, StoredStanding::Removed {}) && room.shown_out.iter().all(settled) {
                // What put this person out is known whole by now, and does not count: its author had been removed or lowered at the same time.
                self.come_back(no);
            }
            return self.store.delete(&table::key(table::JOINS, &[&no.0.to_be_bytes()]));
        }
        // Of somebody who comes in again, the membership tells of the time before until the new admission is here.
        let admission_here = room
            .own
            .as_ref()
            .is_some_and(|own| room.roster.logs.contains_key(&own.log));
        let decided = admission_here || (room.sponsors.is_empty() && !room.graph.is_empty());
        if room.roster.former.contains_key(&me) {
            room.dirty |= !room.shown_out.is_empty();
            room.shown_out.clear();
        }
        let own = room.own.as_ref().map(|own| own.log.prefix());
        let left = |former: &Former| former.why == Departure::Left && Some(former.entry.log) == own;
        if room.roster.former.get(&me).is_some_and(left) {
            // This very device is leaving.
            return Ok(());
        }
        if room.is_member() && decided {
            let why = self.rooms.get(&no).map(|room| self.departure(&room.roster, &me));
            self.go_out(no, why.unwrap_or_default());
        }
        Ok(())
    }

    fn come_back(&mut self, no: RoomNo) {
        let Some(room) = self.rooms.get_mut(&no) else { return };
        room.standing = StoredStanding::Member {};
        room.shown_out.clear();
        room.why_out.clear();
        room.dirty = true;
        let (id, name) = (room.id, room.provisional_name.clone());
        self.ctx.notice(
            Some(id),
            format!("What put you out of “{name}” turned out not to count: you are a member."),
        );
    }

    fn go_out(&mut self, no: RoomNo, why: String) {
        let Some(room) = self.rooms.get_mut(&no) else { return };
        room.standing = StoredStanding::Removed {};
        room.dirty = true;
        let (id, name) = (room.id, room.provisional_name.clone());
        let text = format!("You are no longer a member of “{name}”: {why} What was said before can still be read.");
        room.why_out = why;
        self.ctx.event(Event::Room { room: id });
        self.ctx.notice(Some(id), text);
    }

    /// Why somebody who was in is out, in words to them.
    fn departure(&self, roster: &Roster, person: &PersonId) -> String {
        let again = "ask a member for a new invite.";
        match roster.former.get(person).map(|former| former.why) {
            Some(Departure::Removed { by }) => format!("{} removed you.", self.name_of(&by)),
            Some(Departure::Left) => "you left on another device.".to_owned(),
            Some(Departure::OverRedeemed) => {
                format!("the invite that let you in had been used up by others at the same time; {again}")
            }
            Some(Departure::Undone) => {
                format!("whoever let you in was being removed at the same time and could not let anybody in; {again}")
            }
            None => {
                format!("whoever let you in told different members different things, which counts for nothing; {again}")
            }
        }
    }
}

impl Room {
    /// Entries with the keys of their payloads, as far as they are here and fit.
    fn shown<S: Store>(&self, store: &S, refs: &[EntryRef]) -> Result<Vec<ShownEntry>, StoreError> {
        let (mut shown, mut bytes) = (Vec::new(), 0);
        for reference in refs {
            let Some((log, key)) = self.find(&reference.id()) else {
                continue;
            };
            let Some(stored) = self.stored(store, key)? else {
                continue;
            };
            let Some(keys) = self.epochs.keys(&stored.entry.header.epoch) else {
                continue;
            };
            bytes += stored.entry.payload.as_ref().map_or(0, Vec::len);
            if bytes > SHOWN_BYTES_MAX || stored.entry.reference(&log) != *reference {
                continue;
            }
            let key = stored.entry.header.payload_key(&log, &keys.control);
            let entry = stored.entry;
            shown.push(ShownEntry { log, entry, key });
        }
        Ok(shown)
    }

    /// The room's control entries with those that somebody shows, as far as they are in order; and these.
    fn on_trial(&self, shown: &[ShownEntry]) -> (ControlGraph, Vec<EntryRef>) {
        let mut graph = self.graph.clone();
        let mut entries = Vec::new();
        for shown in shown {
            let Some(control) = opened(shown) else { continue };
            let id = shown.entry.reference(&shown.log);
            entries.push(id);
            graph.insert(ControlEntry {
                id,
                log: shown.log,
                seq: shown.entry.header.seq,
                clock: shown.entry.header.clock,
                control,
            });
        }
        (graph, entries)
    }

    /// Who removed this person, if the entry does, going by what is known of its author here: for who lacks what the entry rests on.
    fn removed_by(&self, shown: &ShownEntry, me: &PersonId) -> Option<PersonId> {
        let control = opened(shown)?;
        let (author, mine) = (self.author(&shown.log)?, self.roster.members.get(me)?);
        let may = self.roster.role(&author)?;
        // An older removal, from before this person came in again, is no news.
        let knows = |head: &EntryRef| *head == mine.since || self.graph.is_past(&mine.since, head);
        let after = control.heads.iter().any(knows) || control.heads.iter().all(|head| !self.graph.contains(head));
        let removes = |op: &Op| matches!(op, Op::Remove { person, .. } if person == me);
        (may_remove(may, mine.role) && after && control.ops.iter().any(removes)).then_some(author)
    }
}

/// What a shown entry says, if its log signed it and its key opens it.
fn opened(shown: &ShownEntry) -> Option<Control> {
    let header = &shown.entry.header;
    entry::verify(&shown.log, &header.hash(&shown.log), &shown.entry.signature).ok()?;
    let payload = ControlPayload::from_bytes(shown.entry.payload.as_ref()?).ok()?;
    payload.open_alone(header, &shown.log, &shown.key).ok()
}

/// The person who is out and whose device this was.
fn former_of<'a>(roster: &'a Roster, device: &DeviceId) -> Option<(&'a PersonId, &'a Former)> {
    let mut former = roster.former.iter();
    former.find(|(_, former)| former.identity.has_device(device))
}
