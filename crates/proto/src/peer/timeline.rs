//! What is shown: rooms, members, timelines, where a message is.

use std::collections::BTreeMap;

use crate::history::entry::{Class, Clock, EntryId, LogKey, RoomId};
use crate::history::{Body, Said};
use crate::identity::{DeviceId, PersonId};
use crate::peer::command::size;
use crate::peer::record::{Annotations, LATE, ReactionRecord, SEALED, Stored, StoredStanding};
use crate::peer::room::{CLOCK_AHEAD_MAX_MS, Room, effective_ms};
use crate::peer::view::{
    DeliveryState, EntryKind, EntryView, LineView, MeView, MemberDelivery, MemberView, PeerView, RoomView, Standing,
    WhereView, WhyNot,
};
use crate::peer::{CommandError, Event, Peer, Reply, table};
use crate::rooms::{Op, Role, RoomKind};
use crate::store::{Direction, EntryKey, RoomNo, Store, StoreError, after_prefix};
use crate::wire::Wire;

/// The most lines of a timeline at once.
pub const TIMELINE_MAX: usize = 1000;
/// The most mentions that are counted.
const MENTIONS_MAX: usize = 100;
/// Up to this many devices, a message's whereabouts are told member by member.
const PER_MEMBER_MAX: usize = 50;

/// An own entry is safe when this many others have said that they hold it.
const SAFE_HOLDERS: usize = 2;

impl<S: Store> Peer<S> {
    /// The own person and device.
    pub fn me(&self) -> MeView {
        MeView {
            person: self.ctx.me,
            device: self.ctx.device,
            name: self.my_name.clone(),
        }
    }

    /// All rooms, the most recently active first.
    pub fn rooms(&self) -> Result<Vec<RoomView>, StoreError> {
        let mut views = Vec::with_capacity(self.rooms.len());
        for room in self.rooms.values() {
            let newest = self.newest_order(room.no)?;
            let mut view = self.room_view(room, newest.map(|(_, id)| id));
            view.mentions = self.unread_mentions(room)?;
            views.push((newest.map(|(at, _)| at), view));
        }
        views.sort_by_key(|(at, view)| (std::cmp::Reverse(*at), view.room));
        Ok(views.into_iter().map(|(_, view)| view).collect())
    }

    /// One room.
    pub fn room(&self, id: RoomId) -> Result<Option<RoomView>, StoreError> {
        let Some(room) = self.by_id.get(&id).and_then(|no| self.rooms.get(no)) else {
            return Ok(None);
        };
        let newest = self.newest_order(room.no)?.map(|(_, id)| id);
        let mut view = self.room_view(room, newest);
        view.mentions = self.unread_mentions(room)?;
        Ok(Some(view))
    }

    fn newest_order(&self, no: RoomNo) -> Result<Option<(i64, EntryId)>, StoreError> {
        let prefix = table::key(table::ORDER, &[&no.0.to_be_bytes()]);
        let newest = self
            .store
            .scan(&prefix, &after_prefix(&prefix), Direction::Descending, 1)?;
        let parts = newest.first().and_then(|(key, _)| table::order_parts(key));
        Ok(parts.map(|(at, log, seq)| (at, EntryId { log, seq })))
    }

    fn room_view(&self, room: &Room, newest: Option<EntryId>) -> RoomView {
        let online = |person: &PersonId| *person != self.ctx.me && self.is_online(room, person);
        let pair = self.pair_other(room);
        RoomView {
            room: room.id,
            name: pair.map_or_else(|| room.provisional_name.clone(), |other| self.name_of(&other)),
            pair,
            standing: standing(room),
            why_out: (!room.why_out.is_empty()).then(|| room.why_out.clone()),
            role: room.roster.role(&self.ctx.me).unwrap_or(Role::Reader),
            history: room.roster.history,
            file_bytes_max: room.roster.file_bytes_max,
            members: room.roster.members.len(),
            members_online: room.roster.members.keys().filter(|person| online(person)).count(),
            entries: room.messages,
            unread: room.unread,
            mentions: 0,
            read_up_to: room.read.map(|(_, id)| id),
            missing: room.logs.keys().map(|log| room.missing(log).len()).sum(),
            sealed: room.wanted_epochs.len() as u64,
            newest,
            keepers: room.roster.keepers.len(),
            exposed: if room.roster.members.len() > 1 || !room.roster.keepers.is_empty() {
                self.exposed(room)
            } else {
                0
            },
        }
    }

    /// Unread messages that name the own person: looked up in the text index, newest first, so it costs nothing where there are none.
    fn unread_mentions(&self, room: &Room) -> Result<u64, StoreError> {
        if room.unread == 0 {
            return Ok(0);
        }
        let logs: BTreeMap<_, LogKey> = room.logs.iter().map(|(key, state)| (state.no, *key)).collect();
        let phrase = format!("\"{}\"", self.my_name.replace('"', " "));
        let mut count = 0;
        for EntryKey { log, seq } in self.store.search(&phrase, Some(room.no), MENTIONS_MAX)? {
            let Some(key) = logs.get(&log) else { continue };
            let id = EntryId { log: key.prefix(), seq };
            if self.is_unread(room, key, &id)? && self.view(room, id)?.is_some_and(|view| view.mentions_me) {
                count += 1;
            }
        }
        Ok(count)
    }

    fn is_unread(&self, room: &Room, log: &LogKey, id: &EntryId) -> Result<bool, StoreError> {
        if room.own.as_ref().is_some_and(|own| own.log == *log) {
            return Ok(false);
        }
        let Some((_, key)) = room.find(id) else {
            return Ok(false);
        };
        let Some(stored) = room.stored(&self.store, key)? else {
            return Ok(false);
        };
        let position = stored.effective.cast_unsigned() ^ (1 << 63);
        Ok(room.read.is_none_or(|read| (position, *id) > read))
    }

    /// The other person of a room of two.
    fn pair_other(&self, room: &Room) -> Option<PersonId> {
        let RoomKind::Pair { other } = room.roster.kind else {
            return None;
        };
        if other != self.ctx.me {
            return Some(other);
        }
        room.roster
            .members
            .keys()
            .chain(room.roster.former.keys())
            .find(|person| **person != self.ctx.me)
            .copied()
    }

    fn is_online(&self, room: &Room, person: &PersonId) -> bool {
        room.devices
            .iter()
            .any(|(device, owner)| owner == person && self.lines.contains_key(device))
    }

    /// The members of a room, highest rank first.
    pub fn members(&self, room: RoomId) -> Result<Option<Vec<MemberView>>, StoreError> {
        let Some(room) = self.by_id.get(&room).and_then(|no| self.rooms.get(no)) else {
            return Ok(None);
        };
        let mut members: Vec<MemberView> = room
            .roster
            .members
            .iter()
            .map(|(person, member)| {
                let devices: Vec<DeviceId> = room
                    .devices
                    .iter()
                    .filter(|(_, owner)| *owner == person)
                    .map(|(device, _)| *device)
                    .collect();
                let seen = devices
                    .iter()
                    .filter_map(|device| self.book.get(device))
                    .map(|dial| dial.record.seen_ms);
                MemberView {
                    person: *person,
                    name: self.name_of(person),
                    role: member.role,
                    verified: self.people.get(person).is_some_and(|known| known.verified),
                    is_me: *person == self.ctx.me,
                    online: *person == self.ctx.me || self.is_online(room, person),
                    seen_ms: seen.max().filter(|ms| *ms > 0),
                    devices,
                }
            })
            .collect();
        members.sort_by_key(|member| (std::cmp::Reverse(member.role), member.name.clone(), member.person));
        Ok(Some(members))
    }

    /// Peers and their lines.
    pub fn peers(&self) -> Vec<PeerView> {
        let mut devices: std::collections::BTreeSet<DeviceId> = self.lines.keys().copied().collect();
        for room in self.rooms.values().filter(|room| room.is_member()) {
            devices.extend(room.devices.keys());
        }
        devices.remove(&self.ctx.device);
        let view = |device: DeviceId| {
            let person = self.person_of(&device);
            let record = self.book.get(&device).map(|dial| &dial.record);
            PeerView {
                device,
                person,
                name: match person {
                    Some(person) => self.name_of(&person),
                    None if self.is_only_keeper(&device) => "keeper".to_owned(),
                    None => "unknown".to_owned(),
                },
                up: self.lines.contains_key(&device),
                rooms: self
                    .rooms
                    .values()
                    .filter(|room| room.devices.contains_key(&device))
                    .count(),
                seen_ms: record.map(|record| record.seen_ms).filter(|ms| *ms > 0),
                addresses: record
                    .map(|r| r.addresses.iter().map(|a| a.0).collect())
                    .unwrap_or_default(),
            }
        };
        devices.into_iter().map(view).collect()
    }

    /// At most `limit` lines of a room's timeline, ascending: the newest, or those before an entry.
    pub fn timeline(
        &self,
        room: RoomId,
        before: Option<EntryId>,
        limit: usize,
    ) -> Result<Option<Vec<LineView>>, StoreError> {
        let Some(room) = self.by_id.get(&room).and_then(|no| self.rooms.get(no)) else {
            return Ok(None);
        };
        let prefix = table::key(table::ORDER, &[&room.no.0.to_be_bytes()]);
        let mut to = after_prefix(&prefix);
        if let Some(before) = before {
            let Some((_, key)) = room.find(&before) else {
                return Ok(Some(Vec::new()));
            };
            let Some(stored) = room.stored(&self.store, key)? else {
                return Ok(Some(Vec::new()));
            };
            to = table::order(room.no, stored.effective, &before.log, before.seq);
        }
        let limit = limit.min(TIMELINE_MAX);
        let mut lines = Vec::new();
        let mut gaps = Vec::new();
        while lines.len() < limit {
            let page = self.store.scan(&prefix, &to, Direction::Descending, limit)?;
            let Some((last, _)) = page.last() else { break };
            to.clone_from(last);
            for (key, _) in page {
                if lines.len() >= limit {
                    break;
                }
                let Some((_, log, seq)) = table::order_parts(&key) else {
                    continue;
                };
                let Some(view) = self.view(room, EntryId { log, seq })? else {
                    continue;
                };
                let gap = self.gap_before(room, &view);
                lines.push(LineView::Entry(Box::new(view)));
                gaps.extend(gap.map(|gap| (lines.len(), gap)));
            }
        }
        for (at, gap) in gaps.into_iter().rev() {
            lines.insert(at, gap);
        }
        lines.reverse();
        Ok(Some(lines))
    }

    /// At most `limit` lines right after an entry, ascending.
    pub fn timeline_after(
        &self,
        room: RoomId,
        after: EntryId,
        limit: usize,
    ) -> Result<Option<Vec<LineView>>, StoreError> {
        let Some(room) = self.by_id.get(&room).and_then(|no| self.rooms.get(no)) else {
            return Ok(None);
        };
        let Some((_, key)) = room.find(&after) else {
            return Ok(Some(Vec::new()));
        };
        let Some(stored) = room.stored(&self.store, key)? else {
            return Ok(Some(Vec::new()));
        };
        let end = after_prefix(&table::key(table::ORDER, &[&room.no.0.to_be_bytes()]));
        // Behind the entry's own key.
        let mut from = table::order(room.no, stored.effective, &after.log, after.seq);
        from.push(0);
        let limit = limit.min(TIMELINE_MAX);
        let mut lines = Vec::new();
        while lines.len() < limit {
            let page = self.store.scan(&from, &end, Direction::Ascending, limit)?;
            let Some((last, _)) = page.last() else { break };
            from.clone_from(last);
            from.push(0);
            for (key, _) in page {
                if lines.len() >= limit {
                    break;
                }
                let Some((_, log, seq)) = table::order_parts(&key) else {
                    continue;
                };
                let Some(view) = self.view(room, EntryId { log, seq })? else {
                    continue;
                };
                lines.extend(self.gap_before(room, &view));
                lines.push(LineView::Entry(Box::new(view)));
            }
        }
        Ok(Some(lines))
    }

    /// The first entry of a room's timeline at or after a time.
    pub fn entry_at(&self, room: RoomId, unix_ms: u64) -> Result<Option<EntryId>, StoreError> {
        let Some(room) = self.by_id.get(&room).and_then(|no| self.rooms.get(no)) else {
            return Ok(None);
        };
        let end = after_prefix(&table::key(table::ORDER, &[&room.no.0.to_be_bytes()]));
        let effective = (Clock::at_ms(unix_ms).0 ^ (1 << 63)).cast_signed();
        let mut from = table::order(room.no, effective, &[0; 8], 0);
        loop {
            let page = self.store.scan(&from, &end, Direction::Ascending, 16)?;
            let Some((last, _)) = page.last() else { return Ok(None) };
            from.clone_from(last);
            from.push(0);
            for (key, _) in page {
                let Some((_, log, seq)) = table::order_parts(&key) else {
                    continue;
                };
                let id = EntryId { log, seq };
                if self.view(room, id)?.is_some() {
                    return Ok(Some(id));
                }
            }
        }
    }

    /// Entries of the same log right before this one that exist and are not here.
    fn gap_before(&self, room: &Room, view: &EntryView) -> Option<LineView> {
        let log = room.by_prefix.get(&view.id.log)?;
        let missing = room.missing(log);
        let (from, to) = *missing
            .ranges()
            .iter()
            .find(|(_, to)| to.checked_add(1) == Some(view.seq))?;
        Some(LineView::Gap {
            log: view.id.log,
            author: room.author(log),
            from,
            to,
        })
    }

    /// One entry as it is shown.
    pub fn entry(&self, id: EntryId) -> Result<Option<EntryView>, StoreError> {
        match self.room_with(&id) {
            Some(room) => self.view(room, id),
            None => Ok(None),
        }
    }

    pub(super) fn room_with(&self, id: &EntryId) -> Option<&Room> {
        self.rooms.values().find(|room| room.find(id).is_some())
    }

    /// An entry as it is shown; `None` where it is no line of the timeline or its author is blocked here.
    fn view(&self, room: &Room, id: EntryId) -> Result<Option<EntryView>, StoreError> {
        let Some((log, key)) = room.find(&id) else {
            return Ok(None);
        };
        let Some(stored) = room.stored(&self.store, key)? else {
            return Ok(None);
        };
        let owner = room.roster.logs.get(&log);
        let (Some(author), Some(device)) = (owner.map(|o| o.person), owner.map(|o| o.device)) else {
            return Ok(None);
        };
        if self.ctx.blocked.contains(&author) {
            return Ok(None);
        }
        let notes = room.annotations(&self.store, &id)?;
        let header = &stored.entry.header;
        let mut view = EntryView {
            id,
            room: room.id,
            author,
            author_name: self.name_of(&author),
            device,
            seq: id.seq,
            time_ms: effective_ms(stored.effective),
            kind: EntryKind::Message,
            text: String::new(),
            state: self.state(room, &log, id.seq, &author),
            reply_to: None,
            files: Vec::new(),
            edited_ms: None,
            reactions: reactions(room, &notes),
            late: stored.flags & LATE != 0,
            clock_ahead: header.clock.ms() > effective_ms(stored.effective).saturating_add(CLOCK_AHEAD_MAX_MS)
                || header.clock.ms() > self.ctx.wall_ms.saturating_add(CLOCK_AHEAD_MAX_MS),
            after_removal: owner.and_then(|o| o.cutoff).is_some_and(|cutoff| id.seq > cutoff)
                && !room.roster.frozen.contains_key(&log),
            by_reader: header.class == Class::Message && owner.is_some_and(|owner| owner.is_muted(id.seq)),
            equivocation: room.roster.frozen.contains_key(&log),
            mentions_me: false,
        };
        Ok(self.fill(room, &log, &stored, &notes, &mut view)?.then_some(view))
    }

    /// Fills in what an entry says. False where it is no line of the timeline.
    fn fill(
        &self,
        room: &Room,
        log: &LogKey,
        stored: &Stored,
        notes: &Annotations,
        view: &mut EntryView,
    ) -> Result<bool, StoreError> {
        if stored.entry.header.class == Class::Control {
            view.kind = EntryKind::Control;
            view.text = self.sentence(room, log, stored);
            return Ok(!view.text.is_empty());
        }
        if stored.entry.payload.is_none() || room.is_deleted(notes, log) {
            view.kind = EntryKind::Deleted;
            return Ok(true);
        }
        match room.open(log, &stored.entry) {
            Some(Said {
                body: Body::Text { text, reply_to, files },
                ..
            }) => {
                view.reply_to = reply_to.map(|target| target.id());
                view.text = text;
                view.files = files;
                if let Some((clock, text)) = room.edited(&self.store, notes, log)? {
                    view.text = text;
                    view.edited_ms = Some(clock.ms());
                }
                view.mentions_me = mentions(&view.text, &self.my_name);
                Ok(true)
            }
            Some(_) => Ok(false),
            None => {
                view.kind = EntryKind::Sealed;
                Ok(stored.flags & SEALED != 0)
            }
        }
    }

    /// A control entry in words; empty where there is nothing to tell.
    fn sentence(&self, room: &Room, log: &LogKey, stored: &Stored) -> String {
        let Some(control) = room.control_of(log, &stored.entry) else {
            return String::new();
        };
        let who = room.author(log).map(|person| self.name_of(&person)).unwrap_or_default();
        let sentences: Vec<String> = control.ops.iter().filter_map(|op| self.op_sentence(&who, op)).collect();
        sentences.join("; ")
    }

    fn op_sentence(&self, who: &str, op: &Op) -> Option<String> {
        Some(match op {
            Op::Create {
                kind: RoomKind::Pair { .. },
                ..
            } => format!("{who} opened this chat"),
            Op::Create { name, .. } => format!("{who} made the room “{name}”"),
            Op::Admit { person, role, .. } => format!("{who} let {} in as {role}", self.name_of(person)),
            Op::Leave { .. } => format!("{who} left"),
            Op::Remove { person, .. } => format!("{who} removed {}", self.name_of(person)),
            Op::SetRole { person, role, .. } => format!("{who} made {} {role}", self.name_of(person)),
            Op::Rename { name } => format!("{who} renamed the room to “{name}”"),
            Op::SetHistory { .. } => format!("{who} changed what newcomers may read"),
            Op::SetFileLimit { bytes: 0 } => format!("{who} ended the sending of files in this room"),
            Op::SetFileLimit { bytes } => format!("{who} set the room's limit for files to {}", size(*bytes)),
            Op::SetKeepers { keepers } if keepers.is_empty() => format!("{who} took the room's keepers away"),
            Op::SetKeepers { keepers } => format!("{who} chose keepers for the room ({})", keepers.len()),
            Op::Freeze { .. } => format!("{who} proved that a member shows different people different things"),
            Op::OpenLog { .. } | Op::OpenInvite { .. } | Op::CloseInvite { .. } | Op::Identity { .. } | Op::Seal {} => {
                return None;
            }
        })
    }

    /// How far an entry got: own ones as told, others' are elsewhere by nature.
    fn state(&self, room: &Room, log: &LogKey, seq: u32, author: &PersonId) -> DeliveryState {
        if *author != self.ctx.me {
            return DeliveryState::Handed;
        }
        if room.own.as_ref().is_none_or(|own| own.log != *log) {
            return DeliveryState::Handed;
        }
        if !room.is_member() && !room.deliveries.values().any(|delivery| delivery.reached.contains(seq)) {
            return DeliveryState::Failed;
        }
        let members = self.member_states(room, seq);
        let handed = room.deliveries.values().any(|delivery| delivery.reached.contains(seq));
        match members.values().min() {
            Some(state) if *state >= DeliveryState::Reached => *state,
            _ if handed => DeliveryState::Handed,
            _ => DeliveryState::Saved,
        }
    }

    /// The best state among each other member's devices.
    fn member_states(&self, room: &Room, seq: u32) -> BTreeMap<PersonId, DeliveryState> {
        let mut states: BTreeMap<PersonId, DeliveryState> = BTreeMap::new();
        for (device, person) in room.devices.iter().filter(|(_, person)| **person != self.ctx.me) {
            let (reached, read) = self.delivery(room.no, device, seq);
            let state = match (reached, read) {
                (_, true) => DeliveryState::Read,
                (true, false) => DeliveryState::Reached,
                (false, false) => DeliveryState::Saved,
            };
            let best = states.entry(*person).or_insert(state);
            *best = state.max(*best);
        }
        states
    }

    /// Where an entry is, and why not further.
    pub fn where_is(&self, id: EntryId) -> Result<Option<WhereView>, StoreError> {
        let Some(room) = self.room_with(&id) else {
            return Ok(None);
        };
        let Some((log, key)) = room.find(&id) else {
            return Ok(None);
        };
        let Some(stored) = room.stored(&self.store, key)? else {
            return Ok(None);
        };
        let Some(author) = room.author(&log) else {
            return Ok(None);
        };
        let mine = room.own.as_ref().is_some_and(|own| own.log == log);
        let states = if mine {
            self.member_states(room, id.seq)
        } else {
            BTreeMap::new()
        };
        let handed = if mine { Self::holders(room, id.seq) } else { Vec::new() };
        let kept = handed.iter().filter(|device| !room.devices.contains_key(device));
        let count = |least| states.values().filter(|state| **state >= least).count();
        let per_member = if room.devices.len() <= PER_MEMBER_MAX {
            self.per_member(room, &states)
        } else {
            Vec::new()
        };
        Ok(Some(WhereView {
            id,
            state: self.state(room, &log, id.seq, &author),
            saved_ms: stored.saved_ms,
            kept: kept.copied().collect(),
            safe: handed.len() >= SAFE_HOLDERS,
            handed,
            reached: count(DeliveryState::Reached),
            read: count(DeliveryState::Read),
            members: states.len(),
            per_member,
        }))
    }

    fn per_member(&self, room: &Room, states: &BTreeMap<PersonId, DeliveryState>) -> Vec<MemberDelivery> {
        let why = |person: &PersonId, state: DeliveryState| match state {
            DeliveryState::Read => None,
            DeliveryState::Reached | DeliveryState::Handed => Some(WhyNot::NotSeenYet),
            DeliveryState::Saved | DeliveryState::Failed if self.is_online(room, person) => Some(WhyNot::OnItsWay),
            DeliveryState::Saved | DeliveryState::Failed => {
                let devices = room.devices.iter().filter(|(_, owner)| *owner == person);
                let dials = devices.filter_map(|(device, _)| self.book.get(device));
                let seen = dials.map(|dial| dial.record.seen_ms).max().filter(|ms| *ms > 0);
                let minutes = |ms| self.ctx.wall_ms.saturating_sub(ms) / 60_000;
                Some(seen.map_or(WhyNot::NeverSeen, |ms| WhyNot::LastSeen { minutes: minutes(ms) }))
            }
        };
        states
            .iter()
            .map(|(person, state)| MemberDelivery {
                person: *person,
                name: self.name_of(person),
                state: *state,
                why: why(person, *state),
            })
            .collect()
    }

    /// The newest messages that hold all `words` (a word ending in `*` is a prefix, words in double quotes are a phrase).
    pub fn search(&self, words: &str, room: Option<RoomId>, limit: usize) -> Result<Vec<EntryView>, StoreError> {
        let no = match room {
            Some(room) => match self.by_id.get(&room) {
                Some(no) => Some(*no),
                None => return Ok(Vec::new()),
            },
            None => None,
        };
        let logs: BTreeMap<_, (&Room, LogKey)> = self
            .rooms
            .values()
            .flat_map(|room| room.logs.iter().map(move |(key, s)| (s.no, (room, *key))))
            .collect();
        let mut views = Vec::new();
        for EntryKey { log, seq } in self.store.search(words, no, limit.min(TIMELINE_MAX))? {
            let Some((room, key)) = logs.get(&log) else { continue };
            views.extend(self.view(room, EntryId { log: key.prefix(), seq })?);
        }
        Ok(views)
    }

    /// Everything up to an entry has been seen.
    pub(super) fn mark_read(&mut self, id: RoomId, up_to: EntryId) -> Result<Result<Reply, CommandError>, StoreError> {
        let Some(no) = self.by_id.get(&id).copied() else {
            return Ok(Err(CommandError::NoRoom));
        };
        let Some(room) = self.rooms.get(&no) else {
            return Ok(Err(CommandError::NoRoom));
        };
        let Some((_, key)) = room.find(&up_to) else {
            return Ok(Err(CommandError::NoEntry));
        };
        let Some(stored) = room.stored(&self.store, key)? else {
            return Ok(Err(CommandError::NoEntry));
        };
        let position = stored.effective.cast_unsigned() ^ (1 << 63);
        if room.read.is_some_and(|(at, id)| (at, id) >= (position, up_to)) && room.unread == 0 {
            return Ok(Ok(Reply::Done));
        }
        let prefix = table::key(table::ORDER, &[&no.0.to_be_bytes()]);
        let mark = table::order(no, stored.effective, &up_to.log, up_to.seq);
        let read = room
            .read
            .map(|(at, id)| table::order(no, (at ^ (1 << 63)).cast_signed(), &id.log, id.seq));
        let from = read.as_ref().unwrap_or(&prefix).min(&mark).clone();
        // A window that is behind another one takes nothing back.
        let mark = read.max(Some(mark)).unwrap_or_default();
        let end = after_prefix(&prefix);
        let mut unread = 0;
        let own = room.own.as_ref().map(|own| own.log.prefix());
        let mut seen: Vec<([u8; 8], u32)> = Vec::new();
        for (order, _) in self.store.scan(&from, &end, Direction::Ascending, usize::MAX)? {
            let Some((_, log, seq)) = table::order_parts(&order) else {
                continue;
            };
            if order <= mark {
                seen.push((log, seq));
            } else if Some(log) != own && self.is_message(room, EntryId { log, seq })? {
                unread += 1;
            }
        }
        let read = self.read_up_to.entry(no).or_default();
        for (log, seq) in seen.into_iter().filter(|(log, _)| Some(*log) != own) {
            let at = read.entry(log).or_insert(0);
            *at = seq.max(*at);
        }
        if let Some(room) = self.rooms.get_mut(&no) {
            room.read = room.read.max(Some((position, up_to)));
            room.unread = unread;
            room.dirty = true;
        }
        self.receipt_due(no);
        // Whoever else shows this room shows less unread now.
        self.ctx.event(Event::Room { room: id });
        Ok(Ok(Reply::Done))
    }

    fn is_message(&self, room: &Room, id: EntryId) -> Result<bool, StoreError> {
        let Some((_, key)) = room.find(&id) else {
            return Ok(false);
        };
        let stored = room.stored(&self.store, key)?;
        Ok(stored.is_some_and(|stored| stored.entry.header.class == Class::Message && stored.flags & SEALED == 0))
    }
}

fn standing(room: &Room) -> Standing {
    match room.standing {
        StoredStanding::Joining {} => Standing::Joining,
        StoredStanding::Member {} => Standing::Member,
        StoredStanding::Left {} => Standing::Left,
        StoredStanding::Removed {} => Standing::Removed,
    }
}

fn reactions(room: &Room, notes: &Annotations) -> Vec<(String, Vec<PersonId>)> {
    let mut by_emoji: BTreeMap<&str, Vec<PersonId>> = BTreeMap::new();
    let counts = |reaction: &&ReactionRecord| reaction.on && !room.is_muted(&reaction.by);
    for reaction in notes.reactions.iter().filter(counts) {
        by_emoji.entry(&reaction.emoji).or_default().push(reaction.person);
    }
    by_emoji
        .into_iter()
        .map(|(emoji, persons)| (emoji.to_owned(), persons))
        .collect()
}

/// Whether a text names somebody: `@name`, not followed by a letter or digit.
fn mentions(text: &str, name: &str) -> bool {
    let (text, name) = (text.to_lowercase(), format!("@{}", name.to_lowercase()));
    let mut rest = text.as_str();
    while let Some(at) = rest.find(&name) {
        rest = &rest[at + name.len()..];
        if !rest.starts_with(char::is_alphanumeric) {
            return true;
        }
    }
    false
}

/// For tests and exports: an id's bytes.
pub(super) fn client_key(client_id: &[u8; 16]) -> Vec<u8> {
    table::key(table::CLIENT_IDS, &[client_id])
}

/// The client id table's value.
pub(super) fn client_value(id: &EntryId) -> Vec<u8> {
    id.to_bytes()
}

#[cfg(test)]
mod tests {
    use super::mentions;

    #[test]
    fn a_mention_is_a_whole_name() {
        assert!(mentions("hi @Ada!", "ada"));
        assert!(!mentions("hi @adam", "ada"));
        assert!(mentions("@adam and @ada", "Ada"));
    }
}
