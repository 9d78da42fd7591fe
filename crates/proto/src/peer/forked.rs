//! A log that forks: spreading the proof, and what its author does about it.
//!
//! What stands above a fork is shown by nobody any more ([`super::order`]). Where the fork was no malice but a copied home, its author says all of it again
//! in another log: what the author's own branch holds at once, what the other branches hold as soon as whoever has them gives them back. A text that the
//! author said again already is not said twice.

use crate::history::Body;
use crate::history::entry::{self, Entry, LogKey};
use crate::identity::DeviceId;
use crate::peer::room::Room;
use crate::peer::{Peer, record};
use crate::rooms::{Equivocation, Op};
use crate::store::{EntryKey, RoomNo, Store, StoreError};
use crate::sync::Frame;
use crate::sync::frame::FORKED_MAX;

/// The most bytes that are given back at once.
const GIVEN_BACK_BYTES_MAX: usize = 512 * 1024;
/// How many of the newest entries of each own log are looked through for what was said again already.
const SAID_AGAIN_MAX: u32 = 4096;

impl<S: Store> Peer<S> {
    /// Spreads the proof that a log forks.
    pub(super) fn publish_fork(&mut self, no: RoomNo, proof: Equivocation) -> Result<(), StoreError> {
        let Some(room) = self.rooms.get_mut(&no) else {
            return Ok(());
        };
        let lower = room.frozen_at(&proof.log).is_none_or(|last| proof.a.header.seq <= last);
        if !lower || room.my_role(&self.ctx.me).is_none() {
            return Ok(());
        }
        if room.own.as_ref().is_some_and(|own| own.log == proof.log) {
            // A copy of this home wrote too: go on in another log, and say again what the others may not have.
            room.own_stale = true;
        }
        let (log, from) = (proof.log, proof.a.header.seq);
        let branch = self.own_branch(no, &log, from)?;
        self.write_control(no, vec![Op::Freeze { proof }], false)?;
        self.say_again(no, &log, branch)
    }

    /// Own entries at and above a fork of an own log.
    fn own_branch(&self, no: RoomNo, log: &LogKey, from: u32) -> Result<Vec<Entry>, StoreError> {
        let Some(room) = self.rooms.get(&no) else {
            return Ok(Vec::new());
        };
        let Some(state) = room.logs.get(log).filter(|_| room.author(log) == Some(self.ctx.me)) else {
            return Ok(Vec::new());
        };
        let mut branch = Vec::new();
        for (seq, _) in self.store.entries(state.no, from, state.held.max(), usize::MAX)? {
            let stored = room.stored(&self.store, EntryKey { log: state.no, seq })?;
            branch.extend(stored.map(|stored| stored.entry));
        }
        Ok(branch)
    }

    /// Says again what entries of a forked own log say, but for what was said again already.
    fn say_again(&mut self, no: RoomNo, log: &LogKey, entries: Vec<Entry>) -> Result<(), StoreError> {
        let Some(room) = self.rooms.get(&no).filter(|room| room.my_role(&self.ctx.me).is_some()) else {
            return Ok(());
        };
        let said = entries.iter().filter_map(|entry| room.open(log, entry));
        let mut bodies: Vec<Body> = said.map(|said| said.body).collect();
        if !bodies.is_empty() {
            self.leave_out_said(room, &mut bodies)?;
        }
        for body in bodies {
            self.write_message(no, body)?;
        }
        Ok(())
    }

    /// Leaves out what this person's logs say by now.
    fn leave_out_said(&self, room: &Room, bodies: &mut Vec<Body>) -> Result<(), StoreError> {
        let own = room
            .logs
            .iter()
            .filter(|(log, _)| room.author(log) == Some(self.ctx.me));
        for (log, state) in own {
            let from = state.held.max().saturating_sub(SAID_AGAIN_MAX) + 1;
            for (seq, bytes) in self.store.entries(state.no, from, state.held.max(), usize::MAX)? {
                if state.held.contains(seq) {
                    let entry = record::decode::<record::Stored>(&bytes, "entry")?.entry;
                    let said = room.open(log, &entry).map(|said| said.body);
                    bodies.retain(|body| Some(body) != said.as_ref());
                }
            }
        }
        Ok(())
    }

    /// Gives every author with a line what it wrote above a fork.
    pub(super) fn give_back_everything(&mut self, no: RoomNo) -> Result<(), StoreError> {
        let peers: Vec<DeviceId> = match self.rooms.get(&no) {
            Some(room) if !room.roster.frozen.is_empty() => self.lines.keys().copied().collect(),
            _ => return Ok(()),
        };
        for peer in peers {
            self.give_back(peer, no)?;
        }
        Ok(())
    }

    /// Gives a device what it wrote above a fork and is still stored here, once on a line.
    pub(super) fn give_back(&mut self, peer: DeviceId, no: RoomNo) -> Result<(), StoreError> {
        let Some(room) = self.rooms.get(&no).filter(|_| self.may_serve(peer, no)) else {
            return Ok(());
        };
        let of_peer = |log: &LogKey| room.roster.logs.get(log).is_some_and(|owner| owner.device == peer);
        let frozen = room.roster.frozen.iter().filter(|(log, _)| of_peer(log));
        let frozen: Vec<(LogKey, u32)> = frozen.map(|(log, last)| (*log, *last)).collect();
        for (log, last) in frozen {
            let Some(shared) = self.lines.get(&peer).and_then(|line| line.rooms.get(&no)) else {
                return Ok(());
            };
            let (name, given) = (shared.name, shared.given_back.get(&log).copied().unwrap_or(last));
            let Some(state) = self.rooms.get(&no).and_then(|room| room.logs.get(&log)) else {
                continue;
            };
            let (mut entries, mut bytes, mut newest) = (Vec::new(), 0, given);
            for (seq, stored) in self
                .store
                .entries(state.no, given.saturating_add(1), u32::MAX, FORKED_MAX)?
            {
                bytes += stored.len();
                if bytes > GIVEN_BACK_BYTES_MAX {
                    break;
                }
                newest = seq;
                entries.push(record::decode::<record::Stored>(&stored, "entry")?.entry);
            }
            if let Some(shared) = self.shared(peer, no).filter(|_| !entries.is_empty()) {
                shared.given_back.insert(log, newest);
                self.send(peer, &Frame::Forked { name, log, entries });
            }
        }
        Ok(())
    }

    /// Somebody gives back what this person wrote above a fork: a copy of this home did, or this home before its copy took its place.
    pub(super) fn on_forked(&mut self, no: RoomNo, log: &LogKey, entries: Vec<Entry>) -> Result<(), StoreError> {
        let Some(room) = self.rooms.get(&no) else {
            return Ok(());
        };
        let mine = room.author(log) == Some(self.ctx.me);
        let Some(last) = room.frozen_at(log).filter(|_| mine && room.is_member()) else {
            return Ok(());
        };
        let authentic = |entry: &Entry| {
            let hash = entry.header.hash(log);
            entry.header.seq > last && entry::verify(log, &hash, &entry.signature).is_ok()
        };
        let entries = entries.into_iter().filter(authentic).collect();
        self.say_again(no, log, entries)
    }
}
