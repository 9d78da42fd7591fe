//! What a peer keeps, as a synchronous trait, and a store in memory.
//!
//! Two kinds of data: *records*, an ordered map from byte keys to byte values (the first key byte is the table, see
//! [`table`]), and *entries*, the bulk of the history, under an integer key. A third, the text index, can be rebuilt from them.
//! The caller of [`crate::peer::Peer::handle`] opens a transaction, applies a batch of inputs, commits, and only then releases the outputs:
//! persist, then send. Nothing here commits.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use thiserror::Error;

/// The store failed. Fatal: the memory may be ahead of the disk, so drop the peer and reopen it from the store.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The disk refused to read or write; the text says how.
    #[error("storage failed: {0}")]
    Io(String),
    /// Something stored does not decode: the store is damaged or from another version.
    #[error("stored data is damaged: {0}")]
    Damaged(&'static str),
}

/// The local number of a room. Numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomNo(pub u32);

/// The local number of a log, unique over all rooms. Numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogNo(pub u32);

/// Where an entry is stored: local log number and sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryKey {
    /// The log.
    pub log: LogNo,
    /// The sequence number in the log, from 1.
    pub seq: u32,
}

impl EntryKey {
    /// As one integer, ordered like the pair. Below 2^63 because log numbers stay below 2^31.
    pub fn to_u64(self) -> u64 {
        (u64::from(self.log.0) << 32) | u64::from(self.seq)
    }

    /// Back from [`EntryKey::to_u64`].
    pub fn from_u64(value: u64) -> Self {
        // Splitting the two halves is meant to truncate.
        Self {
            log: LogNo((value >> 32) as u32),
            seq: value as u32,
        }
    }
}

/// The direction of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Smallest key first.
    Ascending,
    /// Largest key first.
    Descending,
}

/// A record's key and value.
pub type Record = (Vec<u8>, Vec<u8>);

/// Synchronous storage of one peer.
pub trait Store {
    /// The value of a record.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Writes a record.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError>;
    /// Removes a record; removing what is not there is no error.
    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError>;
    /// At most `limit` records with `from <= key < to`.
    fn scan(&self, from: &[u8], to: &[u8], direction: Direction, limit: usize) -> Result<Vec<Record>, StoreError>;

    /// A stored entry's bytes.
    fn entry(&self, key: EntryKey) -> Result<Option<Vec<u8>>, StoreError>;
    /// Writes an entry's bytes, replacing what was there.
    fn put_entry(&mut self, key: EntryKey, value: &[u8]) -> Result<(), StoreError>;
    /// Removes an entry's bytes; removing what is not there is no error.
    fn delete_entry(&mut self, key: EntryKey) -> Result<(), StoreError>;
    /// At most `limit` entries of one log with `from <= seq <= to`, ascending.
    fn entries(&self, log: LogNo, from: u32, to: u32, limit: usize) -> Result<Vec<(u32, Vec<u8>)>, StoreError>;

    /// Makes `text` findable as `entry`. `clock_ms` orders results, newest first.
    fn index_text(&mut self, room: RoomNo, entry: EntryKey, clock_ms: u64, text: &str) -> Result<(), StoreError>;
    /// Makes an entry no longer findable, given the text it was indexed with.
    fn unindex_text(&mut self, room: RoomNo, entry: EntryKey, clock_ms: u64, text: &str) -> Result<(), StoreError>;
    /// The newest `limit` entries that hold all `words`; a word ending in `*` is a prefix, words in double quotes are a phrase.
    fn search(&self, words: &str, room: Option<RoomNo>, limit: usize) -> Result<Vec<EntryKey>, StoreError>;
}

/// The smallest key that is greater than every key with this prefix.
pub fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![u8::MAX; 64]
}

/// Everything in memory: for the simulator and the tests.
#[derive(Clone, Default)]
pub struct MemoryStore {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    entries: BTreeMap<EntryKey, Vec<u8>>,
    texts: BTreeMap<(u64, EntryKey), (RoomNo, String)>,
}

/// Records hold secrets, so they are counted and not printed.
impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (records, entries) = (self.records.len(), self.entries.len());
        write!(f, "MemoryStore({records} records, {entries} entries)")
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.records.get(key).cloned())
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.records.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.records.remove(key);
        Ok(())
    }

    fn scan(&self, from: &[u8], to: &[u8], direction: Direction, limit: usize) -> Result<Vec<Record>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let range = self
            .records
            .range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        let owned = |(k, v): (&Vec<u8>, &Vec<u8>)| (k.clone(), v.clone());
        Ok(match direction {
            Direction::Ascending => range.take(limit).map(owned).collect(),
            Direction::Descending => range.rev().take(limit).map(owned).collect(),
        })
    }

    fn entry(&self, key: EntryKey) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.entries.get(&key).cloned())
    }

    fn put_entry(&mut self, key: EntryKey, value: &[u8]) -> Result<(), StoreError> {
        self.entries.insert(key, value.to_vec());
        Ok(())
    }

    fn delete_entry(&mut self, key: EntryKey) -> Result<(), StoreError> {
        self.entries.remove(&key);
        Ok(())
    }

    fn entries(&self, log: LogNo, from: u32, to: u32, limit: usize) -> Result<Vec<(u32, Vec<u8>)>, StoreError> {
        if from > to {
            return Ok(Vec::new());
        }
        let range = self
            .entries
            .range(EntryKey { log, seq: from }..=EntryKey { log, seq: to });
        Ok(range.take(limit).map(|(key, value)| (key.seq, value.clone())).collect())
    }

    fn index_text(&mut self, room: RoomNo, entry: EntryKey, clock_ms: u64, text: &str) -> Result<(), StoreError> {
        self.texts.insert((clock_ms, entry), (room, text.to_lowercase()));
        Ok(())
    }

    fn unindex_text(&mut self, _: RoomNo, entry: EntryKey, clock_ms: u64, _: &str) -> Result<(), StoreError> {
        self.texts.remove(&(clock_ms, entry));
        Ok(())
    }

    fn search(&self, words: &str, room: Option<RoomNo>, limit: usize) -> Result<Vec<EntryKey>, StoreError> {
        let wanted: Vec<String> = words.split_whitespace().map(str::to_lowercase).collect();
        let holds = |text: &str| {
            let present: BTreeSet<&str> = text.split(|c: char| !c.is_alphanumeric()).collect();
            wanted.iter().all(|word| match word.strip_suffix('*') {
                Some(prefix) => present.iter().any(|w| w.starts_with(prefix)),
                None => present.contains(word.as_str()),
            })
        };
        let newest_first = self.texts.iter().rev();
        let hits = newest_first.filter(|(_, (in_room, text))| room.is_none_or(|r| r == *in_room) && holds(text));
        Ok(hits.take(limit).map(|((_, entry), _)| *entry).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_are_half_open_and_go_both_ways() {
        let mut store = MemoryStore::default();
        for key in [b"a1", b"a2", b"b1"] {
            store.put(key, b"v").unwrap();
        }
        let up = store.scan(b"a", &after_prefix(b"a"), Direction::Ascending, 9).unwrap();
        assert_eq!(up.iter().map(|r| &r.0[..]).collect::<Vec<_>>(), [b"a1", b"a2"]);
        let down = store.scan(b"a", b"b1", Direction::Descending, 1).unwrap();
        assert_eq!(down[0].0, b"a2");
        assert!(store.scan(b"b", b"a", Direction::Ascending, 9).unwrap().is_empty());
    }

    #[test]
    fn keys_survive_packing() {
        let key = EntryKey {
            log: LogNo(7),
            seq: u32::MAX,
        };
        assert_eq!(EntryKey::from_u64(key.to_u64()), key);
    }
}
