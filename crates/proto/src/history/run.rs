//! Runs: consecutive entries of one log, and why they can be believed.
//!
//! Each header holds the hash of the one before, so a valid signature at the newest header of a contiguous run covers the run.
//! Payloads need no check here: no [`Entry`] decodes whose payload is not the one that its header speaks of.
//! A run is also covered when the entry that follows it is already held and its `prev` is the hash of the run's last header.

use crate::crypto::Hash;
use crate::history::entry::{self, Entry, LogKey};

/// Why a run cannot be believed. The sender is at fault, or the author equivocates; nothing of the run is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunError {
    /// Sequence numbers are not consecutive.
    NotConsecutive,
    /// A header's `prev` is not the hash of the header before.
    BrokenChain,
    /// The newest header's signature is not the log's.
    BadSignature,
    /// The first entry of a log does not begin a chain.
    BadFirst,
}

/// What is already known on either side of a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Neighbours {
    /// The hash of the entry before the run's first, where held.
    pub before: Option<Hash>,
    /// The `prev` of the entry after the run's last, where held.
    pub after_prev: Option<Hash>,
}

/// Checks a run and returns the hashes of its headers, and whether the last one's signature was checked.
pub fn verify(log: &LogKey, run: &[Entry], known: Neighbours) -> Result<(Vec<Hash>, bool), RunError> {
    let mut hashes: Vec<Hash> = Vec::with_capacity(run.len());
    for (i, entry) in run.iter().enumerate() {
        let header = &entry.header;
        if let Some(before) = i.checked_sub(1).map(|i| &run[i].header) {
            if before.seq.checked_add(1) != Some(header.seq) {
                return Err(RunError::NotConsecutive);
            }
            if header.prev != hashes[i - 1] {
                return Err(RunError::BrokenChain);
            }
        } else if header.seq == 1 && header.prev != [0; 32] {
            return Err(RunError::BadFirst);
        } else if known.before.is_some_and(|hash| hash != header.prev) {
            return Err(RunError::BrokenChain);
        }
        hashes.push(header.hash(log));
    }
    let (Some(last), Some(last_hash)) = (run.last(), hashes.last()) else {
        return Ok((hashes, false));
    };
    if let Some(prev) = known.after_prev {
        return if prev == *last_hash {
            Ok((hashes, false))
        } else {
            Err(RunError::BrokenChain)
        };
    }
    entry::verify(log, last_hash, &last.signature).map_err(|_| RunError::BadSignature)?;
    Ok((hashes, true))
}
