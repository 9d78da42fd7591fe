//! Finding out that a keeper lost something or lies.

use std::time::Duration;

use rand_core::Rng as _;

use crate::crypto::Hash;
use crate::history::Clock;
use crate::history::entry::Class;
use crate::history::entry::Entry;
use crate::history::entry::LogKey;
use crate::identity::DeviceId;
use crate::keeper::Ask;
use crate::keeper::audit;
use crate::keeper::audit::Fault;
use crate::keeper::frame::Holding;
use crate::keeper::vault::both;
use crate::peer::Event;
use crate::peer::Peer;
use crate::peer::keeping::session::Challenge;
use crate::peer::keeping::session::Ranges;
use crate::peer::keeping::session::spread;
use crate::peer::keeping::session::without;
use crate::peer::record::Stored;
use crate::store::EntryKey;
use crate::store::RoomNo;
use crate::store::Store;
use crate::store::StoreError;

/// The next ones after this long at least, and up to twice as long.
const CHALLENGE_EVERY: Duration = Duration::from_secs(600);
/// A message this close to its end, in milliseconds, may have expired already by the keeper's clock.
const EXPIRY_SLACK_MS: u64 = 24 * 3600 * 1000;
/// Places looked at for an entry to challenge.
const CHALLENGE_TRIES: usize = 4;

impl<S: Store> Peer<S> {
    /// How many entries a keeper no longer has although it said that they are on its disk, and they cannot have expired.
    pub(super) fn lost_since(&self, no: RoomNo, device: DeviceId, held: &Ranges, days: u32) -> Result<u32, StoreError> {
        let (Some(keeping), Some(room)) = (self.keepers.get(&(no, device)), self.rooms.get(&no)) else {
            return Ok(0);
        };
        let mut lost = 0;
        for Holding { log, held: before, .. } in &keeping.record.held {
            let gone = without(before.clone(), held, log);
            let Some(state) = room.logs.get(log) else { continue };
            for (from, to) in both(&gone, &state.held).ranges() {
                for seq in *from..=*to {
                    if let Some(stored) = room.stored(&self.store, EntryKey { log: state.no, seq })?
                        && self.should_be_kept(&stored.entry, days)
                    {
                        lost += 1;
                    }
                }
            }
        }
        Ok(lost)
    }

    /// Whether a keeper that was given an entry when it was new still has to have it.
    pub(super) fn should_be_kept(&self, entry: &Entry, days: u32) -> bool {
        let kept_ms = (u64::from(days) * 24 * 3600 * 1000).saturating_sub(EXPIRY_SLACK_MS);
        let clock: Clock = entry.header.clock;
        entry.header.class == Class::Control || clock.ms().saturating_add(kept_ms) > self.ctx.wall_ms
    }

    pub(super) fn found_fault(&mut self, no: RoomNo, device: DeviceId, fault: Fault) -> Result<(), StoreError> {
        let Some(keeping) = self.keepers.get_mut(&(no, device)) else {
            return Ok(());
        };
        let worse = keeping.record.fault.is_none_or(|old| !old.is_lie() && old != fault);
        if !worse {
            return Ok(());
        }
        keeping.record.fault = Some(fault);
        keeping.dirty = true;
        let room = self.rooms.get(&no).map(|room| room.id);
        let name = crate::peer::dial::short(&device);
        self.ctx.notice(room, format!("The keeper {name} {}.", fault.words()));
        if let Some(room) = room {
            self.ctx.event(Event::Room { room });
        }
        self.note_kept(no, device)
    }

    /// Asks the keeper to prove that it holds an entry which is held here, too.
    pub(super) fn challenge(&mut self, no: RoomNo, device: DeviceId) -> Result<(), StoreError> {
        let jitter = self.ctx.rng.next_u32();
        let now = self.ctx.now;
        let mut key = [0; 32];
        self.ctx.rng.fill_bytes(&mut key);
        if let Some(session) = self.session(no, device) {
            session.challenge_at = now + spread(CHALLENGE_EVERY, jitter);
        }
        for _ in 0..CHALLENGE_TRIES {
            let dice = self.ctx.rng.next_u64();
            let Some((log, seq, expected)) = self.pick_challenge(no, device, dice, &key)? else {
                continue;
            };
            let Some(keeping) = self.keepers.get_mut(&(no, device)) else {
                return Ok(());
            };
            let vault = keeping.record.vault;
            if let Some(session) = &mut keeping.session {
                session.challenge = Some(Challenge { log, seq, expected });
                session.due_since.get_or_insert(now);
            }
            self.ask_keeper(device, Ask::Challenge { vault, log, seq, key });
            return Ok(());
        }
        Ok(())
    }

    /// An entry at random among those that both hold, with the proof that is expected.
    fn pick_challenge(
        &self,
        no: RoomNo,
        device: DeviceId,
        dice: u64,
        key: &[u8; 32],
    ) -> Result<Option<(LogKey, u32, Hash)>, StoreError> {
        let (Some(room), Some(keeping)) = (self.rooms.get(&no), self.keepers.get(&(no, device))) else {
            return Ok(None);
        };
        let Some(session) = &keeping.session else {
            return Ok(None);
        };
        let common = session.held.iter().filter_map(|(log, held)| {
            let state = room.logs.get(log)?;
            let whole = without(both(held, &state.held), &session.bare, log);
            (!whole.is_empty()).then_some((*log, state.no, whole))
        });
        let common: Vec<_> = common.collect();
        let total: u64 = common.iter().map(|(_, _, seqs)| seqs.len()).sum();
        let Some(mut at) = dice.checked_rem(total) else {
            return Ok(None);
        };
        for (log, log_no, seqs) in common {
            for (from, to) in seqs.ranges() {
                let len = u64::from(to - from) + 1;
                if at >= len {
                    at -= len;
                    continue;
                }
                let seq = from + u32::try_from(at).unwrap_or(0);
                let stored = room.stored(&self.store, EntryKey { log: log_no, seq })?;
                let days = session.state.as_ref().map_or(0, |state| state.days);
                let fits = |stored: &Stored| stored.entry.payload.is_some() && self.should_be_kept(&stored.entry, days);
                return Ok(stored.filter(fits).map(|stored| {
                    let entry = stored.entry;
                    (
                        log,
                        seq,
                        audit::proof(key, &log, &entry.header, entry.payload.as_deref()),
                    )
                }));
            }
        }
        Ok(None)
    }

    pub(super) fn on_proof(
        &mut self,
        no: RoomNo,
        device: DeviceId,
        log: &LogKey,
        seq: u32,
        hash: Option<Hash>,
    ) -> Result<(), StoreError> {
        let Some(session) = self.session(no, device) else {
            return Ok(());
        };
        let Some(challenge) = session.challenge.take_if(|c| c.log == *log && c.seq == seq) else {
            return Ok(());
        };
        if hash == Some(challenge.expected) {
            if let Some(keeping) = self.keepers.get_mut(&(no, device)) {
                keeping.record.proofs = keeping.record.proofs.saturating_add(1);
                keeping.dirty = true;
            }
            return Ok(());
        }
        self.found_fault(no, device, Fault::WrongProof {})
    }
}
