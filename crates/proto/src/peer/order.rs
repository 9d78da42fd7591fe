//! Taking what stands above a proven fork out of a room, and out of what it did to the order.
//!
//! Where an entry stands follows from the entries above it ([`crate::history`]). What is above a fork counts as absent, also for that: else whoever held it
//! before the proof came would go on showing what it pulled down lower than those who never did. The usual fork pulls nothing down, for clocks follow what
//! is referred to, and then taking it out costs no more than itself; else the whole room is put in order again.

use crate::history::entry::{Class, EntryRef, LogKey};
use crate::history::{EntryId, IntervalSet};
use crate::peer::record::{SEALED, SHOWN, Stored};
use crate::peer::room::{Ctx, Room, effective_of, push_below};
use crate::peer::{Event, table};
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
        let mut pulled = false;
        for (from, to) in gone.ranges() {
            for seq in *from..=*to {
                pulled |= self.take_out(store, ctx, log, EntryKey { log: no, seq })?;
            }
        }
        let kept = self.logs.get(log).map_or(0, |state| state.held.up_to(last).max());
        let top = self.stored(store, EntryKey { log: no, seq: kept })?;
        if let Some(state) = self.logs.get_mut(log) {
            state.held = state.held.up_to(last);
            state.dirty = true;
            state.top_hash = top.as_ref().map_or([0; 32], |top| top.entry.header.hash(log));
            state.top_clock = top.map_or_else(Default::default, |top| top.entry.header.clock);
        }
        self.tips.remove(&log.prefix());
        self.digest_cache = None;
        self.dirty = true;
        if pulled {
            self.put_in_order_anew(store)?;
        }
        Ok(())
    }

    /// Takes one entry out of the timeline. Whether it may have pulled others down.
    fn take_out<S: Store>(
        &mut self,
        store: &mut S,
        ctx: &mut Ctx,
        log: &LogKey,
        key: EntryKey,
    ) -> Result<bool, StoreError> {
        let Some(mut stored) = self.stored(store, key)? else {
            return Ok(false);
        };
        let counted = stored.flags & SHOWN != 0 && stored.flags & SEALED == 0;
        if counted && stored.entry.header.class == Class::Message && self.is_said(log, &stored) {
            self.messages = self.messages.saturating_sub(1);
        }
        self.hide(store, log, &mut stored, key)?;
        store.put_entry(key, &stored.to_bytes())?;
        ctx.event(Event::Entry {
            room: self.id,
            id: EntryId {
                log: log.prefix(),
                seq: key.seq,
            },
            new: false,
        });
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
