//! A log that forks: finding where, spreading the proof, and what its author does about it.
//!
//! What stands above a fork is shown by nobody any more ([`super::order`]). Where the fork was no malice but a copied home, its author says all of it again
//! in another log: what the author's own branch holds at once, what the other branches hold as soon as whoever has them gives them back. A text that the
//! author said again already is not said twice.

use crate::crypto::prefix8;
use crate::history::Body;
use crate::history::entry::{self, Entry, LogKey};
use crate::identity::DeviceId;
use crate::peer::Peer;
use crate::peer::record::{self, Stored};
use crate::peer::room::Room;
use crate::rooms::{Equivocation, Op};
use crate::store::{EntryKey, RoomNo, Store, StoreError};
use crate::sync::Frame;
use crate::sync::frame::{Ends, FORKED_MAX, LogName, Run, Runs};

/// The most bytes that are given back at once.
const GIVEN_BACK_BYTES_MAX: usize = 512 * 1024;
/// How often a peer may give something back on one connection.
const GIVEN_BACK_MAX: u32 = 64;
/// How many of the newest entries of each own log are looked through for what was said again already.
const SAID_AGAIN_MAX: u32 = 4096;
/// Hashes of one log in one `Hashes` frame.
const HASHES_MAX: usize = 24;
/// Entries sent to show where a log forks.
const FORK_ENTRIES_MAX: u32 = 64;

impl<S: Store> Peer<S> {
    pub(super) fn send_all_hashes(&mut self, peer: DeviceId, no: RoomNo) -> Result<(), StoreError> {
        let Some(room) = self.rooms.get(&no) else { return Ok(()) };
        let logs: Vec<LogKey> = room.logs.keys().copied().collect();
        for log in logs {
            self.send_hashes(peer, no, &log)?;
        }
        Ok(())
    }

    /// Sends hashes of a log at exponentially spaced places, so that the peer can tell where it parts from its own.
    pub(super) fn send_hashes(&mut self, peer: DeviceId, no: RoomNo, log: &LogKey) -> Result<(), StoreError> {
        let Some(room) = self.rooms.get(&no) else { return Ok(()) };
        let Some(state) = room.logs.get(log) else { return Ok(()) };
        let top = state.held.contiguous();
        let mut hashes = Vec::new();
        let mut step = 0;
        while hashes.len() < HASHES_MAX && top > step {
            let seq = top - step;
            if let Some(stored) = room.stored(&self.store, EntryKey { log: state.no, seq })? {
                hashes.push((seq, prefix8(&stored.entry.header.hash(log))));
            }
            step = if step == 0 { 1 } else { step * 2 };
        }
        let Some(shared) = self.shared(peer, no) else {
            return Ok(());
        };
        let frame = Frame::Hashes {
            name: shared.name,
            log: shared.log_name(log),
            hashes,
        };
        self.send(peer, &frame);
        Ok(())
    }

    /// Where our log differs from the hashes, shows our entries there: with the peer's own they prove the fork.
    pub(super) fn on_hashes(
        &mut self,
        peer: DeviceId,
        no: RoomNo,
        log: LogName,
        hashes: &[(u32, [u8; 8])],
    ) -> Result<(), StoreError> {
        let Some(log) = self.shared(peer, no).and_then(|shared| shared.resolve(log)) else {
            return Ok(());
        };
        let Some(room) = self.rooms.get(&no) else { return Ok(()) };
        let Some(state) = room.logs.get(&log) else {
            return Ok(());
        };
        let (mut differs, mut agrees) = (None, 0);
        for (seq, hash) in hashes {
            let Some(stored) = room.stored(
                &self.store,
                EntryKey {
                    log: state.no,
                    seq: *seq,
                },
            )?
            else {
                continue;
            };
            if prefix8(&stored.entry.header.hash(&log)) == *hash {
                agrees = agrees.max(*seq);
            } else {
                differs = Some(differs.map_or(*seq, |d: u32| d.min(*seq)));
            }
        }
        let Some(differs) = differs else { return Ok(()) };
        let Some(first) = agrees.checked_add(1) else {
            return Ok(());
        };
        let last = differs.min(agrees.saturating_add(FORK_ENTRIES_MAX));
        let log_no = state.no;
        let mut runs = Vec::new();
        for (_, bytes) in self.store.entries(log_no, first, last, FORK_ENTRIES_MAX as usize)? {
            let stored: Stored = record::decode(&bytes, "entry")?;
            let Some(shared) = self.shared(peer, no) else {
                return Ok(());
            };
            runs.push(Run {
                log: shared.log_name(&log),
                entries: vec![stored.entry],
            });
        }
        let Some(name) = self.shared(peer, no).map(|shared| shared.name) else {
            return Ok(());
        };
        let (ends, runs) = (Ends(None), Runs(runs));
        self.send(peer, &Frame::Entries { name, ends, runs });
        Ok(())
    }

    /// Spreads the proof that a log forks.
    pub(super) fn publish_fork(&mut self, no: RoomNo, proof: Equivocation) -> Result<(), StoreError> {
        let Some(room) = self.rooms.get_mut(&no) else {
            return Ok(());
        };
        let Some(at) = proof.forks_at() else { return Ok(()) };
        let lower = room.frozen_at(&proof.log).is_none_or(|last| at <= last);
        if !lower || room.my_role(&self.ctx.me).is_none() {
            return Ok(());
        }
        if room.own.as_ref().is_some_and(|own| own.log == proof.log) {
            // A copy of this home wrote too: go on in another log, and say again what the others may not have.
            room.own_stale = true;
        }
        self.write_control(no, vec![Op::Freeze { proof }], false)
    }

    /// Own logs turned out to fork, whoever proved it: what this home holds above the forks is said again.
    pub(super) fn say_own_branches(&mut self, no: RoomNo) -> Result<(), StoreError> {
        let me = self.ctx.me;
        let Some(room) = self.rooms.get_mut(&no).filter(|room| room.is_member()) else {
            return Ok(());
        };
        let frozen = room.roster.frozen.iter().map(|(log, last)| (*log, *last));
        let news = frozen.filter(|(log, last)| room.author(log) == Some(me) && room.said_above.get(log) != Some(last));
        let news: Vec<(LogKey, u32)> = news.collect();
        room.said_above.extend(news.iter().copied());
        for (log, last) in news {
            let Some(state) = self.rooms.get(&no).and_then(|room| room.logs.get(&log)) else {
                continue;
            };
            let above = self
                .store
                .entries(state.no, last.saturating_add(1), u32::MAX, usize::MAX)?;
            let mut branch = Vec::new();
            for (_, bytes) in above {
                branch.push(record::decode::<record::Stored>(&bytes, "entry")?.entry);
            }
            self.say_again(no, &log, branch)?;
        }
        Ok(())
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
            let name = shared.name;
            // Where an earlier fork was proven since, everything above that one is given again.
            let given = shared.given_back.get(&log).filter(|(above, _)| *above == last);
            let given = given.map_or(last, |(_, newest)| *newest);
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
                shared.given_back.insert(log, (last, newest));
                self.send(peer, &Frame::Forked { name, log, entries });
            }
        }
        Ok(())
    }

    /// Somebody gives back what this person wrote above a fork: a copy of this home did, or this home before its copy took its place.
    pub(super) fn on_forked(
        &mut self,
        peer: DeviceId,
        no: RoomNo,
        log: &LogKey,
        entries: Vec<Entry>,
    ) -> Result<(), StoreError> {
        let (Some(line), Some(room)) = (self.lines.get_mut(&peer), self.rooms.get(&no)) else {
            return Ok(());
        };
        line.given_back += 1;
        if line.given_back > GIVEN_BACK_MAX {
            return Ok(());
        }
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
