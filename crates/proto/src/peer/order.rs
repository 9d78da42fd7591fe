//! Taking what stands above a proven fork out of a room, with all that it did there.
//!
//! Edits, deletions and reactions above a fork count as never made. What one of them had replaced comes back: the reaction from what its giver wrote before, a
//! deleted text from whoever still has it.
//!
//! Where an entry stands follows from the entries above it ([`crate::history`]). What is above a fork counts as absent, also for that: else whoever held it
//! before the proof came would go on showing what it pulled down lower than those who never did. The usual fork pulls nothing down, for clocks follow what
//! is referred to, and then taking it out costs no more than itself; else the whole room is put in order again.

use std::collections::BTreeSet;

use crate::crypto::prefix8;
use crate::history::entry::{Class, EntryRef, LogKey};
use crate::history::{Body, Clock, EntryId, IntervalSet};
use crate::identity::PersonId;
use crate::peer::record::{ReactionRecord, SHOWN, Stored};
use crate::peer::room::{Ctx, Room, effective_of, push_below, put_reaction};
use crate::peer::{Event, table};
use crate::rooms::roster::LogOwner;
use crate::store::{Direction, EntryKey, LogNo, Store, StoreError, after_prefix};
use crate::wire::Wire;

/// Entries of a log that are read at once.
const BATCH: usize = 256;

impl Room {
    /// Takes everything of a log above `last` out of sight.
    pub(super) fn freeze<S: Store>(
        &mut self,
        store: &mut S,
        ctx: &mut Ctx,
        log: &LogKey,
        last: u32,
    ) -> Result<(), StoreError> {
        let Some(state) = self.logs.get(log) else { return Ok(()) };
        let (no, gone) = (state.no, state.held.minus(&IntervalSet::range(1, last)));
        if gone.is_empty() {
            return Ok(());
        }
        let (mut pulled, mut undone) = (false, Vec::new());
        for (from, to) in gone.ranges() {
            for seq in *from..=*to {
                let key = EntryKey { log: no, seq };
                if let Some(mut stored) = self.stored(store, key)? {
                    undone.extend(self.take_out(store, ctx, log, key, &mut stored)?);
                    pulled |= self.pulls(store, log, &stored)?;
                }
            }
        }
        self.hold_only(store, log, &IntervalSet::range(1, last))?;
        self.tips.remove(&log.prefix());
        if let Some(state) = self.logs.get(log).filter(|state| !state.held.is_empty()) {
            // What is below the fork is not referred to by what was above it any more.
            let tip = EntryRef {
                log: log.prefix(),
                seq: state.held.max(),
                hash: prefix8(&state.top_hash),
            };
            self.tips.insert(tip.log, tip);
        }
        if pulled {
            self.put_in_order_anew(store)?;
        }
        self.undo(store, ctx, log, &undone)
    }

    /// From now on nothing but `kept` of a log counts as held.
    fn hold_only<S: Store>(&mut self, store: &S, log: &LogKey, kept: &IntervalSet) -> Result<(), StoreError> {
        let Some(state) = self.logs.get(log) else { return Ok(()) };
        let (no, held) = (state.no, state.held.minus(&state.held.minus(kept)));
        let top = EntryKey {
            log: no,
            seq: held.max(),
        };
        let top = self.stored(store, top)?;
        if let Some(state) = self.logs.get_mut(log) {
            state.held = held;
            state.dirty = true;
            state.top_hash = top.as_ref().map_or([0; 32], |top| top.entry.header.hash(log));
            state.top_clock = top.map_or_else(Clock::default, |top| top.entry.header.clock);
        }
        self.digest_cache = None;
        self.dirty = true;
        Ok(())
    }

    /// Takes one entry out of the timeline and the search. What it did, if it was no text.
    fn take_out<S: Store>(
        &mut self,
        store: &mut S,
        ctx: &mut Ctx,
        log: &LogKey,
        key: EntryKey,
        stored: &mut Stored,
    ) -> Result<Option<(EntryId, Body)>, StoreError> {
        let id = EntryId {
            log: log.prefix(),
            seq: key.seq,
        };
        let was_shown = stored.flags & SHOWN != 0;
        self.hide(store, log, stored, key)?;
        store.put_entry(key, &stored.to_bytes())?;
        ctx.event(Event::Entry {
            room: self.id,
            id,
            new: false,
        });
        if stored.entry.header.class == Class::Control {
            return Ok(None);
        }
        self.messages -= u64::from(was_shown && self.messages > 0);
        Ok(match self.open(log, &stored.entry).map(|said| said.body) {
            Some(Body::Text { text, .. }) => {
                let notes = self.annotations(store, &id)?;
                let text = self.edited(store, &notes, log)?.map_or(text, |(_, text)| text);
                store.unindex_text(self.no, key, stored.entry.header.clock.ms(), &text)?;
                None
            }
            Some(body) => Some((id, body)),
            None => None,
        })
    }

    /// Undoes what entries of a frozen log did to others.
    fn undo<S: Store>(
        &mut self,
        store: &mut S,
        ctx: &mut Ctx,
        log: &LogKey,
        undone: &[(EntryId, Body)],
    ) -> Result<(), StoreError> {
        let mut reacted = BTreeSet::new();
        // The newest first, so that each edit finds what the one before it said.
        for (by, body) in undone.iter().rev() {
            match body {
                Body::Text { .. } => {}
                Body::Edit { target, text } => self.undo_edit(store, ctx, by, target, text)?,
                Body::Delete { target } => {
                    self.annotate(store, ctx, target, |notes| notes.deletes.retain(|delete| delete != by))?;
                    self.fetch_again(store, target)?;
                }
                Body::React { target, .. } => {
                    self.annotate(store, ctx, target, |notes| notes.reactions.retain(|r| r.by != *by))?;
                    reacted.insert(*target);
                }
            }
        }
        match self.author(log).filter(|_| !reacted.is_empty()) {
            Some(person) => self.react_again(store, ctx, person, &reacted),
            None => Ok(()),
        }
    }

    /// Takes an edit away; if it was the newest, the message is found by what it said before.
    fn undo_edit<S: Store>(
        &mut self,
        store: &mut S,
        ctx: &mut Ctx,
        by: &EntryId,
        target: &EntryId,
        text: &str,
    ) -> Result<(), StoreError> {
        let mut was_newest = false;
        self.annotate(store, ctx, target, |notes| {
            was_newest = notes.edits.last().is_some_and(|(_, edit)| edit == by);
            notes.edits.retain(|(_, edit)| edit != by);
        })?;
        let Some((log, key)) = self.find(target).filter(|_| was_newest) else {
            return Ok(());
        };
        let Some(stored) = self.stored(store, key)? else {
            return Ok(());
        };
        let said = self.open(&log, &stored.entry).map(|said| said.body);
        if let Some(Body::Text { text: first, .. }) = said {
            let notes = self.annotations(store, target)?;
            let before = self.edited(store, &notes, &log)?.map_or(first, |(_, text)| text);
            let at = stored.entry.header.clock.ms();
            store.unindex_text(self.no, key, at, text)?;
            store.index_text(self.no, key, at, &before)?;
        }
        Ok(())
    }

    /// A message whose text was dropped for a deletion that does not count is missing again: others may still have it.
    fn fetch_again<S: Store>(&mut self, store: &mut S, target: &EntryId) -> Result<(), StoreError> {
        let Some((log, key)) = self.find(target) else {
            return Ok(());
        };
        let notes = self.annotations(store, target)?;
        let Some(mut stored) = self.stored(store, key)? else {
            return Ok(());
        };
        if stored.entry.payload.is_some() || self.is_deleted(&notes, &log) {
            return Ok(());
        }
        self.messages -= u64::from(stored.flags & SHOWN != 0 && self.messages > 0);
        self.hide(store, &log, &mut stored, key)?;
        store.put_entry(key, &stored.to_bytes())?;
        let held = self.logs.get(&log).map(|state| state.held.clone()).unwrap_or_default();
        let known = self.known.entry(log).or_default();
        known.union(&held);
        self.hold_only(store, &log, &held.minus(&IntervalSet::range(key.seq, key.seq)))
    }

    /// Takes the reactions of a person to some messages from what they wrote and still counts.
    fn react_again<S: Store>(
        &mut self,
        store: &mut S,
        ctx: &mut Ctx,
        person: PersonId,
        targets: &BTreeSet<EntryId>,
    ) -> Result<(), StoreError> {
        let of_person = |(log, owner): (&LogKey, &LogOwner)| (owner.person == person).then_some(*log);
        let logs: Vec<LogKey> = self.roster.logs.iter().filter_map(of_person).collect();
        let logs: Vec<(LogKey, LogNo, u32)> = self
            .logs
            .iter()
            .filter(|(log, _)| logs.contains(log))
            .map(|(log, state)| (*log, state.no, state.held.max()))
            .collect();
        for (log, no, last) in logs {
            self.each(store, (&log, no, last), |room, store, key, stored| {
                let Some(Body::React { target, emoji, on }) = room.open(&log, &stored.entry).map(|said| said.body)
                else {
                    return Ok(());
                };
                if !targets.contains(&target) {
                    return Ok(());
                }
                let by = EntryId {
                    log: log.prefix(),
                    seq: key.seq,
                };
                let reaction = ReactionRecord {
                    person,
                    emoji,
                    clock: stored.entry.header.clock,
                    by,
                    on,
                };
                room.annotate(store, ctx, &target, |notes| put_reaction(notes, reaction))
            })?;
        }
        Ok(())
    }

    /// Whether an entry that was taken out may have pulled others down.
    fn pulls<S: Store>(&self, store: &S, log: &LogKey, stored: &Stored) -> Result<bool, StoreError> {
        let mut below = Vec::new();
        push_below(&mut below, log, &stored.entry.header, stored.effective, false);
        for (reference, _) in below {
            if self.is_pulled(store, &reference)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether something above an entry makes it stand lower than its own clock says, or will once it comes.
    fn is_pulled<S: Store>(&self, store: &S, reference: &EntryRef) -> Result<bool, StoreError> {
        let Some((_, key)) = self.find(&reference.id()) else {
            return Ok(store.get(&table::waiting(self.no, reference))?.is_some());
        };
        let stored = self.stored(store, key)?;
        Ok(stored.is_some_and(|stored| stored.effective < effective_of(stored.entry.header.clock)))
    }

    /// Gives every entry its place as if they had all just come.
    fn put_in_order_anew<S: Store>(&mut self, store: &mut S) -> Result<(), StoreError> {
        let prefix = table::key(table::WAITING, &[&self.no.0.to_be_bytes()]);
        for (key, _) in store.scan(&prefix, &after_prefix(&prefix), Direction::Ascending, usize::MAX)? {
            store.delete(&key)?;
        }
        let logs: Vec<(LogKey, LogNo, u32)> = self
            .logs
            .iter()
            .map(|(log, state)| (*log, state.no, state.held.max()))
            .collect();
        for (log, no, last) in &logs {
            self.each(store, (log, *no, *last), |room, store, key, mut stored| {
                let own = effective_of(stored.entry.header.clock);
                room.move_to(store, log, key, &mut stored, own)
            })?;
        }
        for (log, no, last) in &logs {
            self.each(store, (log, *no, *last), |room, store, _, stored| {
                let mut below = Vec::new();
                push_below(&mut below, log, &stored.entry.header, stored.effective, false);
                room.pull(store, below)
            })?;
        }
        Ok(())
    }

    /// Does something with every entry of a log that is held.
    fn each<S: Store>(
        &mut self,
        store: &mut S,
        (log, no, last): (&LogKey, LogNo, u32),
        mut act: impl FnMut(&mut Self, &mut S, EntryKey, Stored) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut next = 1;
        while next <= last {
            let batch = store.entries(no, next, last, BATCH)?;
            let Some((newest, _)) = batch.last() else { break };
            next = newest + 1;
            for (seq, _) in batch {
                let key = EntryKey { log: no, seq };
                // Read again: what was done with an earlier one may have moved it.
                if self.find(&EntryId { log: log.prefix(), seq }).is_some()
                    && let Some(stored) = self.stored(store, key)?
                {
                    act(self, store, key, stored)?;
                }
            }
        }
        Ok(())
    }
}
