//! Getting in step: what is said to whom when a line comes up, entries arrive, or something is missing.

use std::collections::BTreeMap;

use crate::crypto::{Secret, prefix8};
use crate::history::IntervalSet;
use crate::history::entry::{Class, Entry, Header, LogKey};
use crate::identity::DeviceId;
use crate::peer::author::{Written, random8};
use crate::peer::line::{Greeting, HAS_PIECES_MAX, NO_BASES_MAX, RoomLine, Unrecognised};
use crate::peer::record::{self, Base};
use crate::peer::room::{Ingested, Room};
use crate::peer::{Output, Peer, table};
use crate::store::{RoomNo, Store, StoreError};
use crate::sync::frame::{AnswerEnd, Ends, Frame, LogRanges, RoomHello, RoomName, RoomTag, Run, Runs, Side};
use crate::sync::{Changes, PADDING, Vector, vector};
use crate::wire::Wire;

/// Tags of a hello that are kept because a room may be joined later.
pub(super) const UNKNOWN_TAGS_MAX: usize = 4096;

impl<S: Store> Peer<S> {
    /// Says which rooms there are: all, or those that the line has not been told.
    pub(super) fn greet(&mut self, peer: DeviceId) {
        if self.is_only_keeper(&peer) {
            // It shares no room, and need not learn how many there are.
            return;
        }
        let Some(line) = self.lines.get_mut(&peer) else { return };
        let me = self.ctx.device;
        let mut rooms: Vec<Named> = Vec::new();
        for room in self.rooms.values_mut() {
            if !room.is_synced() || line.greeted.contains_key(&room.no) {
                continue;
            }
            let Some(sync) = room.epochs.current_sync(&room.roster, &room.graph, me) else {
                continue;
            };
            let tag = line.tag(&room.id, &sync, &me);
            let state = room.digest();
            let digest = line.digest(&sync, &me, &state);
            rooms.push((RoomHello { tag, digest }, Some((room.no, sync.clone()))));
            line.greeted.insert(room.no, Greeting { sync, digest: state });
        }
        if rooms.is_empty() && !line.greeted.is_empty() {
            return;
        }
        self.send_hello(peer, rooms);
    }

    pub(super) fn greet_all(&mut self) -> Result<(), StoreError> {
        let peers: Vec<DeviceId> = self.lines.keys().copied().collect();
        for peer in peers {
            self.greet(peer);
            self.recognise(peer, true)?;
            self.greet_again(peer);
        }
        Ok(())
    }

    /// The other side's rooms.
    pub(super) fn on_hello(&mut self, peer: DeviceId, rooms: Vec<RoomHello>) -> Result<(), StoreError> {
        let Some(line) = self.lines.get_mut(&peer) else {
            return Ok(());
        };
        for RoomHello { tag, digest } in rooms {
            let place = line.places_heard;
            let Some(next) = place.checked_add(1) else {
                return self.misbehaved(peer, "more rooms than can be counted");
            };
            line.places_heard = next;
            if line.unknown.len() < UNKNOWN_TAGS_MAX {
                line.unknown.push(Unrecognised { place, tag, digest });
            }
        }
        line.heard = true;
        self.recognise(peer, false)?;
        self.greet_again(peer);
        Ok(())
    }

    /// Names rooms that ought to be shared and were not recognised by either side once more, by their first epoch: two sides that both made
    /// new epochs, cut off from each other, know only older ones of each other's.
    fn greet_again(&mut self, peer: DeviceId) {
        let Some(line) = self.lines.get_mut(&peer).filter(|line| line.heard) else {
            return;
        };
        let me = self.ctx.device;
        let mut rooms = Vec::new();
        for room in self.rooms.values_mut() {
            let expected = room.is_synced() && room.devices.contains_key(&peer) && !line.rooms.contains_key(&room.no);
            if !expected || !line.greeted_again.insert(room.no) {
                continue;
            }
            let first = room
                .first_epoch
                .and_then(|epoch| room.epochs.keys(&epoch))
                .map(|keys| keys.sync.clone());
            let Some(sync) = first else { continue };
            if line.greeted_as(room.no, &sync).is_none() {
                let (tag, digest) = (line.tag(&room.id, &sync, &me), line.digest(&sync, &me, &room.digest()));
                rooms.push((RoomHello { tag, digest }, Some((room.no, sync))));
            }
        }
        if !rooms.is_empty() {
            self.send_hello(peer, rooms);
        }
    }

    fn send_hello(&mut self, peer: DeviceId, mut rooms: Vec<Named>) {
        let padded = rooms.len().max(1).next_multiple_of(PADDING);
        while rooms.len() < padded {
            let filler = RoomHello {
                tag: random8(&mut self.ctx),
                digest: random8(&mut self.ctx),
            };
            rooms.push((filler, None));
        }
        // Tags are as good as random: sorting by them is shuffling.
        rooms.sort_by_key(|(hello, _)| hello.tag);
        let (rooms, named): (Vec<RoomHello>, Vec<Option<(RoomNo, Secret)>>) = rooms.into_iter().unzip();
        if let Some(line) = self.lines.get_mut(&peer) {
            line.mine.extend(named);
        }
        self.send(peer, &Frame::Hello { rooms });
    }

    /// Looks for own rooms among the tags of the other side's hellos. `late`: what the other side said of them meanwhile was not heard.
    pub(super) fn recognise(&mut self, peer: DeviceId, late: bool) -> Result<(), StoreError> {
        let Some(line) = self.lines.get_mut(&peer) else {
            return Ok(());
        };
        if line.unknown.is_empty() {
            return Ok(());
        }
        let mut expected: BTreeMap<RoomTag, (RoomNo, Secret)> = BTreeMap::new();
        let me = self.ctx.me;
        for room in self.rooms.values() {
            // Before the membership is known only those who let this device in are heard; the others' tags wait.
            let verified = room.farewell_due || room.roster.members.contains_key(&me) || room.sponsors.contains(&peer);
            if room.is_synced() && verified {
                for sync in room.epochs.sync_secrets() {
                    expected.insert(line.tag(&room.id, sync, &peer), (room.no, sync.clone()));
                }
            }
        }
        let mut found = Vec::new();
        line.unknown.retain(|hello| match expected.get(&hello.tag) {
            Some((no, sync)) => {
                found.push((*no, *hello, sync.clone()));
                false
            }
            None => true,
        });
        for (no, hello, sync) in found {
            self.meet(peer, no, hello, sync)?;
            let unheard = self.shared(peer, no).filter(|shared| late && shared.has.is_none());
            if let Some(name) = unheard.map(|shared| shared.name) {
                self.send(peer, &Frame::NoBase { name });
            }
        }
        Ok(())
    }

    /// A room turned out to be shared.
    fn meet(&mut self, peer: DeviceId, no: RoomNo, hello: Unrecognised, sync: Secret) -> Result<(), StoreError> {
        let Unrecognised { place, digest, .. } = hello;
        let side = Side::Yours;
        let name = RoomName { side, place };
        if !self.may_serve(peer, no) {
            return self.turn_away(peer, no, hello);
        }
        self.share(peer, no, name, &sync)?;
        let (Some(line), Some(room)) = (self.lines.get_mut(&peer), self.rooms.get_mut(&no)) else {
            return Ok(());
        };
        line.theirs.insert(place, no);
        let state = room.digest();
        let equal = line.digest(&sync, &peer, &state) == digest;
        let said = line.greeted_as(no, &sync);
        if let Some(shared) = line.rooms.get_mut(&no) {
            shared.heard = Some(digest);
            // The own hello stands for an `InStep`, where the peer can read it.
            shared.in_step_sent = said.filter(|said| *said == state).or(shared.in_step_sent);
            if equal {
                shared.has = Some(room.held());
                shared.agreed = Some(state);
            }
        }
        if equal {
            let all = self.rooms.get(&no).map(Room::held).unwrap_or_default();
            self.note_reached(peer, no, &all)?;
            self.note_in_step(peer, no)?;
            return self.after_contact(peer, no);
        }
        self.send_summary(peer, no)
    }

    /// Begins to share a room with a line. The first name by which either side recognised it stays.
    fn share(&mut self, peer: DeviceId, no: RoomNo, name: RoomName, sync: &Secret) -> Result<(), StoreError> {
        let base = self.store.get(&table::room_device(table::BASES, no, &peer))?;
        let base = base.map(|bytes| record::decode::<Base>(&bytes, "base")).transpose()?;
        let receipts = self.receipts_given(peer, no)?;
        let Some(line) = self.lines.get_mut(&peer) else {
            return Ok(());
        };
        line.rooms
            .entry(no)
            .or_insert_with(|| RoomLine::new(name, sync.clone(), base, receipts));
        Ok(())
    }

    /// Whether entries of a room may be given to a device: it belongs to a member.
    pub(super) fn may_serve(&self, peer: DeviceId, no: RoomNo) -> bool {
        let Some(room) = self.rooms.get(&no) else { return false };
        let known = room.devices.contains_key(&peer) || room.sponsors.contains(&peer) || room.vouched.contains(&peer);
        room.is_synced() && known
    }

    fn send_summary(&mut self, peer: DeviceId, no: RoomNo) -> Result<(), StoreError> {
        let (Some(line), Some(room)) = (self.lines.get_mut(&peer), self.rooms.get(&no)) else {
            return Ok(());
        };
        let Some(shared) = line.rooms.get_mut(&no) else {
            return Ok(());
        };
        if std::mem::replace(&mut shared.summary_sent, true) {
            return Ok(());
        }
        let empty = Vector::default();
        let base = shared.base.as_ref();
        let changes = vector::difference(base.map_or(&empty, |base| &base.vector), &room.vector());
        let base = base.map(|base| base.digest);
        shared.numbered(&changes);
        let frame = Frame::Summary {
            name: shared.name,
            base,
            changes,
        };
        self.send(peer, &frame);
        Ok(())
    }

    /// The room that the other side names, if entries may be exchanged about it. Begins to share it where the other side recognised our hello first.
    pub(super) fn room_of(&mut self, peer: DeviceId, name: RoomName) -> Result<Option<RoomNo>, StoreError> {
        let Some(line) = self.lines.get(&peer) else {
            return Ok(None);
        };
        let Some(no) = line.room_at(name) else {
            return Ok(None);
        };
        if !self.may_serve(peer, no) {
            self.tell_out(peer, no, name.turned())?;
            return Ok(None);
        }
        if !line.rooms.contains_key(&no) {
            let Some(sync) = line.greeted_by(name).cloned() else {
                return Ok(None);
            };
            self.share(peer, no, name.turned(), &sync)?;
        }
        Ok(Some(no))
    }

    pub(super) fn on_summary(
        &mut self,
        peer: DeviceId,
        no: RoomNo,
        base: Option<[u8; 8]>,
        changes: &Changes,
    ) -> Result<(), StoreError> {
        let Some(shared) = self.shared(peer, no) else {
            return Ok(());
        };
        if !shared.number(changes) {
            return self.misbehaved(peer, "too many names for logs");
        }
        let empty = Vector::default();
        let vector = match (base, shared.base.as_ref()) {
            (None, _) => &empty,
            (Some(digest), Some(known)) if known.digest == digest => {
                shared.base_confirmed = true;
                &known.vector
            }
            (Some(_), _) => {
                let name = shared.name;
                shared.base = None;
                self.send(peer, &Frame::NoBase { name });
                return Ok(());
            }
        };
        let Ok(has) = vector::apply(vector, changes) else {
            return self.misbehaved(peer, "a summary that does not fit its base");
        };
        shared.has = Some(has.clone());
        let sent = shared.summary_sent;
        let all_wanted = shared.all_wanted.take();
        self.note_known(no, &has);
        self.note_reached(peer, no, &has)?;
        if !sent {
            self.send_summary(peer, no)?;
        }
        if let Some(want) = all_wanted {
            self.on_want_all(peer, no, want)?;
        }
        self.after_contact(peer, no)
    }

    /// What others hold exists. The own log included; but that they hold more of it than is here is believed only when they show it, see [`Self::take_run`].
    pub(super) fn note_known(&mut self, no: RoomNo, has: &BTreeMap<LogKey, IntervalSet>) {
        let Some(room) = self.rooms.get_mut(&no) else { return };
        for (log, seqs) in has {
            if !room.roster.logs.contains_key(log) {
                continue;
            }
            room.known.entry(*log).or_default().union(seqs);
        }
    }

    pub(super) fn on_no_base(&mut self, peer: DeviceId, no: RoomNo) -> Result<(), StoreError> {
        let Some(shared) = self.shared(peer, no) else {
            return Ok(());
        };
        shared.summary_sent = false;
        shared.no_bases += 1;
        if shared.no_bases > NO_BASES_MAX {
            // Each would be answered by what led to the last one. The next line begins without a base.
            self.store.delete(&table::room_device(table::BASES, no, &peer))?;
            return self.misbehaved(peer, "wants a summary again and again");
        }
        // A base that the peer used itself is not what it lacks, and its names for logs stand for places in it.
        if !shared.base_confirmed {
            shared.base = None;
            self.store.delete(&table::room_device(table::BASES, no, &peer))?;
        }
        self.send_summary(peer, no)
    }

    /// Asks for what is missing, or says that nothing is.
    pub(super) fn after_contact(&mut self, peer: DeviceId, no: RoomNo) -> Result<(), StoreError> {
        self.ask_epochs(peer, no);
        self.plan_wants(peer, no);
        self.say_in_step(peer, no)?;
        self.give_back(peer, no)?;
        self.begin_receipts(peer, no)
    }

    /// Entries came: asked for, or new.
    pub(super) fn on_entries(&mut self, peer: DeviceId, no: RoomNo, ends: Ends, runs: Runs) -> Result<(), StoreError> {
        let mut joined: Vec<(LogKey, Vec<Entry>)> = Vec::new();
        let mut last_of: BTreeMap<LogKey, usize> = BTreeMap::new();
        for Run { log, entries } in runs.0 {
            let Some(shared) = self.shared(peer, no) else {
                return Ok(());
            };
            let Some(log) = shared.resolve(log) else {
                return self.misnamed(peer, no);
            };
            shared.pace.count(entries.len());
            if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
                let seqs = IntervalSet::range(first.header.seq, last.header.seq);
                shared.note_has(&log, &seqs);
            }
            let before = last_of.get(&log).and_then(|at| joined.get_mut(*at));
            match before.filter(|(_, before)| continues(&log, before, &entries)) {
                Some((_, before)) => before.extend(entries),
                None => {
                    last_of.insert(log, joined.len());
                    joined.push((log, entries));
                }
            }
        }
        for (log, entries) in joined {
            self.take_run(peer, no, log, entries)?;
        }
        self.settle(no)?;
        self.retry_limbo(no)?;
        self.settle(no)?;
        match ends.0 {
            Some(end) => self.on_answered(peer, no, end),
            None => Ok(()),
        }
    }

    /// Takes one run from a peer. What belongs to a log that is nobody's yet waits until the membership changes.
    pub(super) fn take_run(
        &mut self,
        peer: DeviceId,
        no: RoomNo,
        log: LogKey,
        entries: Vec<Entry>,
    ) -> Result<(), StoreError> {
        let needs_roster = |room: &Room| room.roster_dirty && !room.roster.logs.contains_key(&log);
        if self.rooms.get(&no).is_some_and(needs_roster) {
            self.settle(no)?;
        }
        let Some(room) = self.rooms.get_mut(&no) else {
            return Ok(());
        };
        let mut taken = Vec::new();
        for stretch in room.ready_of(&self.store, log, entries)? {
            let came = numbers(std::slice::from_ref(&stretch));
            let within = self.within_quota(no, &log, stretch)?;
            let left = came.minus(&numbers(&within));
            if let Some(shared) = self.shared(peer, no).filter(|_| !left.is_empty()) {
                let logs = shared.left_for_later.get_or_insert_default();
                logs.entry(log).or_default().union(&left);
            }
            taken.extend(within);
        }
        for stretch in taken {
            let Some(room) = self.rooms.get_mut(&no) else {
                return Ok(());
            };
            let outcome = room.ingest(&mut self.store, &mut self.ctx, log, stretch)?;
            if outcome.refused.is_some() {
                return self.misbehaved(peer, "entries that their author did not sign");
            }
            if room.own.as_ref().is_some_and(|own| own.log == log) && !outcome.new.is_empty() {
                // Signed with the own key, and not written by this home: it is a copy, or was restored. It opens another log before it writes again.
                room.own_stale = true;
                room.dirty = true;
            }
            if outcome.forks {
                self.send_hashes(peer, no, &log)?;
            }
            self.after_ingest(Some(peer), no, &log, outcome)?;
        }
        Ok(())
    }

    /// Tries again what came before its log was known.
    pub(super) fn retry_limbo(&mut self, no: RoomNo) -> Result<(), StoreError> {
        let Some(room) = self.rooms.get_mut(&no) else {
            return Ok(());
        };
        if room.limbo_is_empty() {
            return Ok(());
        }
        let ready = room.take_from_limbo(&self.store)?;
        let more_may_follow = !ready.is_empty();
        for (log, entries) in ready {
            let Some(room) = self.rooms.get_mut(&no) else {
                return Ok(());
            };
            let outcome = room.ingest(&mut self.store, &mut self.ctx, log, entries)?;
            self.after_ingest(None, no, &log, outcome)?;
        }
        match more_may_follow {
            true => self.retry_limbo(no),
            false => Ok(()),
        }
    }

    /// What follows from new entries: riders, proofs, acknowledgements, announcements.
    pub(super) fn after_ingest(
        &mut self,
        from: Option<DeviceId>,
        no: RoomNo,
        log: &LogKey,
        outcome: Ingested,
    ) -> Result<(), StoreError> {
        for (person, record) in outcome.riders {
            self.learn_identity(&person, &record)?;
        }
        if let Some(proof) = outcome.proof {
            self.publish_fork(no, proof)?;
        }
        if outcome.new.is_empty() {
            return Ok(());
        }
        self.keepers_due(no);
        // What comes in before the first look into a room is what was said before.
        if self.planner.has_visited(no.0) {
            self.note_spoken(no);
        }
        let author = (self.rooms.get(&no)).and_then(|room| Some(room.roster.logs.get(log)?.device));
        if let Some(author) = author {
            self.note_heard(author);
        }
        if from.is_some() {
            self.delivery_due(no);
        }
        for (device, line) in &mut self.lines {
            if from == Some(*device) {
                line.last_news = self.ctx.now;
            }
            let Some(shared) = line.rooms.get_mut(&no) else {
                continue;
            };
            let holds = shared.has.as_ref().and_then(|has| has.get(log));
            let news = holds.map_or_else(|| outcome.new.clone(), |has| outcome.new.minus(has));
            let asked_for = from == Some(*device) && !shared.asked.is_empty();
            let acknowledge = from == Some(*device) && !asked_for;
            let mut announce = if acknowledge { outcome.new.clone() } else { news };
            if from != Some(*device) {
                // Who was asked for it, and is helped, may leave it out.
                let unasked = outcome.new.minus(&shared.was_asked(log));
                announce.union(&outcome.new.minus(&unasked));
            }
            if !announce.is_empty() && shared.has.is_some() && !asked_for {
                shared.announce.entry(*log).or_default().union(&announce);
                self.announce_at.get_or_insert(self.ctx.now + super::ANNOUNCE_DELAY);
            }
        }
        Ok(())
    }

    /// Sends what is due to be acknowledged and announced.
    pub(super) fn announce(&mut self) {
        self.announce_at = None;
        let mut frames = Vec::new();
        for (device, line) in &mut self.lines {
            for shared in line.rooms.values_mut() {
                let announce = std::mem::take(&mut shared.announce);
                if !announce.is_empty() {
                    let ranges = shared.name_ranges(announce);
                    frames.push((
                        *device,
                        Frame::Have {
                            name: shared.name,
                            ranges,
                        },
                    ));
                }
            }
        }
        for (device, frame) in frames {
            self.send(device, &frame);
        }
    }

    /// The membership may have changed: brings everything up to date that hangs on it.
    pub(super) fn settle(&mut self, no: RoomNo) -> Result<(), StoreError> {
        let Some(room) = self.rooms.get_mut(&no) else {
            return Ok(());
        };
        if !room.refresh_roster(&mut self.store, &mut self.ctx)? {
            return Ok(());
        }
        self.roster_changed(no)
    }

    /// All that comes of a want has come.
    fn on_answered(&mut self, peer: DeviceId, no: RoomNo, end: AnswerEnd) -> Result<(), StoreError> {
        let held: BTreeMap<LogKey, IntervalSet> = match self.rooms.get(&no) {
            Some(room) => room
                .logs
                .iter()
                .map(|(log, state)| (*log, state.held.clone()))
                .collect(),
            None => return Ok(()),
        };
        let mut refuted = Vec::new();
        let now = self.ctx.now;
        let Some(mut asked) = self.shared(peer, no).and_then(|shared| shared.answered(end.want, now)) else {
            return Ok(());
        };
        self.leave_out_spent(no, &mut asked.ranges);
        let Some(shared) = self.shared(peer, no) else {
            return Ok(());
        };
        shared.let_down = false;
        // What came and was left for later is to be had there: it is asked for again.
        for (log, left) in shared.left_for_later.iter_mut().flatten() {
            if let Some(seqs) = asked.ranges.get_mut(log) {
                let came = left.clone();
                *left = left.minus(seqs);
                *seqs = seqs.minus(&came);
            }
        }
        if end.complete
            && !asked.partial
            && let Some(has) = &mut shared.has
        {
            // What was asked for and did not come is not to be had there after all.
            for (log, seqs) in &asked.ranges {
                let lacking = held.get(log).map_or_else(|| seqs.clone(), |held| seqs.minus(held));
                if let Some(has) = has.get_mut(log) {
                    *has = has.minus(&lacking);
                }
                refuted.push((*log, lacking));
            }
        }
        if let Some(room) = self.rooms.get_mut(&no) {
            for (log, lacking) in refuted {
                if let Some(known) = room.known.get_mut(&log) {
                    *known = known.minus(&lacking);
                }
            }
        }
        self.join_progress(no)?;
        self.after_contact(peer, no)?;
        // Others may hold what this one turned out not to.
        let others: Vec<DeviceId> = self.lines.keys().copied().filter(|other| *other != peer).collect();
        for other in others {
            self.plan_wants(other, no);
        }
        Ok(())
    }

    pub(super) fn on_have(&mut self, peer: DeviceId, no: RoomNo, ranges: Vec<LogRanges>) -> Result<(), StoreError> {
        let mut has = BTreeMap::new();
        let Some(shared) = self.shared(peer, no) else {
            return Ok(());
        };
        for LogRanges { log, seqs } in ranges {
            let Some(log) = shared.resolve(log) else {
                return self.misnamed(peer, no);
            };
            let holds = shared.has.get_or_insert_default().entry(log).or_default();
            holds.union(&seqs);
            if holds.ranges().len() > HAS_PIECES_MAX {
                return self.misbehaved(peer, "a log in too many pieces");
            }
            has.insert(log, seqs);
        }
        self.note_known(no, &has);
        self.note_reached(peer, no, &has)?;
        self.after_contact(peer, no)
    }

    /// Says that nothing is missing, once for each state.
    fn say_in_step(&mut self, peer: DeviceId, no: RoomNo) -> Result<(), StoreError> {
        if !self.missing_at(peer, no).is_empty() {
            return Ok(());
        }
        let me = self.ctx.device;
        let (Some(line), Some(room)) = (self.lines.get_mut(&peer), self.rooms.get_mut(&no)) else {
            return Ok(());
        };
        let digest = room.digest();
        let Some(shared) = line.rooms.get_mut(&no) else {
            return Ok(());
        };
        if !shared.asked.is_empty() || shared.in_step_sent == Some(digest) || shared.has.is_none() {
            return Ok(());
        }
        shared.in_step_sent = Some(digest);
        let (name, sync, heard) = (shared.name, shared.sync.clone(), shared.heard);
        let keyed = line.digest(&sync, &me, &digest);
        let same_as_heard = heard == Some(line.digest(&sync, &peer, &digest));
        let all = room.held();
        if let Some(shared) = line.rooms.get_mut(&no).filter(|_| same_as_heard) {
            // The peer said that it is in this state, and will not say so again.
            shared.agreed = Some(digest);
            shared.disagreements = 0;
        }
        self.send(peer, &Frame::InStep { name, digest: keyed });
        if same_as_heard {
            self.note_reached(peer, no, &all)?;
        }
        self.note_in_step(peer, no)
    }

    pub(super) fn on_in_step(&mut self, peer: DeviceId, no: RoomNo, keyed: [u8; 8]) -> Result<(), StoreError> {
        let (Some(line), Some(room)) = (self.lines.get_mut(&peer), self.rooms.get_mut(&no)) else {
            return Ok(());
        };
        let Some(sync) = line.rooms.get(&no).map(|shared| shared.sync.clone()) else {
            return Ok(());
        };
        let digest = room.digest();
        let equal = line.digest(&sync, &peer, &digest) == keyed;
        let said = line.greeted_as(no, &sync);
        let all = room.held();
        let Some(shared) = line.rooms.get_mut(&no) else {
            return Ok(());
        };
        if equal {
            shared.has = Some(all.clone());
            shared.agreed = Some(digest);
            shared.in_step_sent = said.filter(|said| *said == digest).or(shared.in_step_sent);
            shared.disagreements = 0;
            self.note_reached(peer, no, &all)?;
            self.say_in_step(peer, no)?;
            self.note_in_step(peer, no)?;
            return self.begin_receipts(peer, no);
        }
        // It may be ahead: remembered for when this side gets there.
        shared.heard = Some(keyed);
        shared.agreed = None;
        if !shared.asked.is_empty() {
            return Ok(());
        }
        shared.disagreements += 1;
        if shared.disagreements < 2 {
            return Ok(());
        }
        shared.disagreements = 0;
        if shared.has.as_ref() == Some(&all) {
            return self.send_all_hashes(peer, no);
        }
        // The peer's state is not what its frames said: begin again.
        shared.summary_sent = false;
        self.send_summary(peer, no)
    }

    /// Both sides said that they are in the same state: it is the next base.
    fn note_in_step(&mut self, peer: DeviceId, no: RoomNo) -> Result<(), StoreError> {
        let (Some(line), Some(room)) = (self.lines.get_mut(&peer), self.rooms.get_mut(&no)) else {
            return Ok(());
        };
        let digest = room.digest();
        let Some(shared) = line.rooms.get_mut(&no) else {
            return Ok(());
        };
        let known = shared.base.as_ref().is_some_and(|base| base.digest == prefix8(&digest));
        if shared.agreed != Some(digest) || known {
            return Ok(());
        }
        // Numbers of logs on this line stand for places in the base that it began with: the new one serves the next line.
        let base = Base {
            digest: prefix8(&digest),
            vector: room.vector(),
        };
        self.store
            .put(&table::room_device(table::BASES, no, &peer), &base.to_bytes())
    }

    /// Compares notes again with everybody, now and then: what events missed, digests find.
    pub(super) fn reconcile_all(&mut self) -> Result<(), StoreError> {
        let now = self.ctx.now;
        let pairs: Vec<(DeviceId, RoomNo)> = self
            .lines
            .iter()
            .flat_map(|(peer, line)| line.rooms.keys().map(|no| (*peer, *no)))
            .collect();
        for (peer, no) in pairs {
            self.note_receipts_given(peer, no)?;
            let Some(room) = self.rooms.get_mut(&no) else { continue };
            let digest = room.digest();
            let Some(shared) = self.shared(peer, no) else { continue };
            // Who lacked keys a while ago may have them now.
            shared.epochs_asked.clear();
            shared.forget_overdue(now);
            if shared.agreed == Some(digest) {
                self.ask_epochs(peer, no);
                continue;
            }
            shared.in_step_sent = None;
            self.after_contact(peer, no)?;
        }
        Ok(())
    }

    /// Sends what was just written to everybody who shares the room and has a line.
    pub(super) fn push(&mut self, no: RoomNo, written: &Written) {
        if written.entries.is_empty() {
            return;
        }
        self.keepers_due(no);
        let peers: Vec<DeviceId> = self.lines.keys().copied().collect();
        for peer in peers {
            if !self.may_serve(peer, no) {
                continue;
            }
            let Some(shared) = self.shared(peer, no) else { continue };
            let mut runs = Vec::new();
            for (log, entry) in &written.entries {
                shared.note_has(log, &IntervalSet::range(entry.header.seq, entry.header.seq));
                runs.push(Run {
                    log: shared.log_name(log),
                    entries: vec![entry.clone()],
                });
            }
            let frame = Frame::Entries {
                name: shared.name,
                ends: Ends(None),
                runs: Runs(runs),
            };
            self.send(peer, &frame);
        }
    }

    pub(super) fn shared(&mut self, peer: DeviceId, no: RoomNo) -> Option<&mut RoomLine> {
        self.lines.get_mut(&peer)?.rooms.get_mut(&no)
    }

    pub(super) fn send(&mut self, peer: DeviceId, frame: &Frame) {
        let bytes = frame.to_bytes();
        if let Some(line) = self.lines.get_mut(&peer) {
            line.last_sent = self.ctx.now;
            if matches!(frame, Frame::Entries { .. }) {
                line.in_flight = line.in_flight.saturating_add(bytes.len());
            }
        }
        self.ctx.out.push(Output::Send { peer, bytes });
    }

    /// A peer named a log by a number that it gave to none; or that it gave in a summary which came before this side knew that the room is shared: that one is on
    /// its way again.
    fn misnamed(&mut self, peer: DeviceId, no: RoomNo) -> Result<(), StoreError> {
        match self.shared(peer, no).is_some_and(|shared| shared.summary_heard) {
            true => self.misbehaved(peer, "a log that was never named"),
            false => Ok(()),
        }
    }

    /// A peer broke the protocol: its line is closed. What it sent before stays checked on its own.
    pub(super) fn misbehaved(&mut self, peer: DeviceId, reason: &'static str) -> Result<(), StoreError> {
        self.ctx.out.push(Output::Close { peer, reason });
        self.drop_line(peer);
        Ok(())
    }
}

/// A room of an own hello, and what its tag stands for; nothing where it is padding.
type Named = (RoomHello, Option<(RoomNo, Secret)>);

/// Whether one run of messages goes on where another of the same log ended, on the same chain: then one signature covers both.
fn continues(log: &LogKey, before: &[Entry], entries: &[Entry]) -> bool {
    let (Some(last), Some(next)) = (before.last().map(|e| &e.header), entries.first().map(|e| &e.header)) else {
        return false;
    };
    let message = |header: &Header| header.class == Class::Message;
    message(last) && message(next) && last.seq.checked_add(1) == Some(next.seq) && next.prev == last.hash(log)
}

/// The numbers of consecutive entries of one log.
fn numbers(stretches: &[Vec<Entry>]) -> IntervalSet {
    let mut numbers = IntervalSet::default();
    for (first, last) in stretches
        .iter()
        .filter_map(|stretch| stretch.first().zip(stretch.last()))
    {
        numbers.insert(first.header.seq, last.header.seq);
    }
    numbers
}
