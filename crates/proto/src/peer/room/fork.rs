//! Proofs that a log forks, or that its clock goes back: found in what comes, beside what is held.

use crate::history::entry::{Entry, LogKey};
use crate::peer::room::Room;
use crate::rooms::Equivocation;
use crate::store::{EntryKey, Store, StoreError};

impl Room {
    /// Compares an entry with the one held under its sequence number.
    pub(super) fn compare<S: Store>(
        &self,
        store: &S,
        log: &LogKey,
        entry: Entry,
    ) -> Result<Option<Equivocation>, StoreError> {
        let Some(state) = self.logs.get(log) else {
            return Ok(None);
        };
        let key = EntryKey {
            log: state.no,
            seq: entry.header.seq,
        };
        let Some(stored) = self.stored(store, key)? else {
            return Ok(None);
        };
        if stored.entry.header == entry.header {
            return Ok(None);
        }
        Ok(proof_of(log, &stored.entry, &entry))
    }

    /// Whether clocks do not ascend in a run, or from what is held right before it: no honest author writes so.
    pub(super) fn descends(&self, log: &LogKey, run: &[Entry]) -> bool {
        let Some(first) = run.first() else { return false };
        let before = self
            .logs
            .get(log)
            .filter(|state| state.held.max().checked_add(1) == Some(first.header.seq) && first.header.seq > 1);
        before.is_some_and(|state| first.header.clock <= state.top_clock)
            || run.windows(2).any(|pair| pair[1].header.clock <= pair[0].header.clock)
    }

    /// The proof that the first entry of a run does not go together with the one held before it.
    pub(super) fn proof_before<S: Store>(
        &self,
        store: &S,
        log: &LogKey,
        run: &[Entry],
    ) -> Result<Option<Equivocation>, StoreError> {
        let (Some(first), Some(state)) = (run.first(), self.logs.get(log)) else {
            return Ok(None);
        };
        let seq = first.header.seq.saturating_sub(1);
        let before = EntryKey { log: state.no, seq };
        let Some(before) = self.stored(store, before)?.filter(|_| state.held.contains(seq)) else {
            return Ok(None);
        };
        Ok(proof_of(log, &before.entry, first))
    }
}

/// The proof that two entries of a log do not go together, if they do not.
fn proof_of(log: &LogKey, a: &Entry, b: &Entry) -> Option<Equivocation> {
    let bare = |entry: &Entry| Entry {
        header: entry.header.clone(),
        signature: entry.signature,
        payload: None,
    };
    let (log, a, b) = (*log, bare(a), bare(b));
    let proof = Equivocation { log, a, b };
    proof.verify().is_ok().then_some(proof)
}

pub(super) fn proof_within(log: &LogKey, run: &[Entry]) -> Option<Equivocation> {
    run.windows(2).find_map(|pair| proof_of(log, &pair[0], &pair[1]))
}
