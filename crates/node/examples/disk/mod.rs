//! The store on disk for the benches: with transactions around inputs, and one that leaves the text index out.
#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a bench's own scaffold, of which each bench uses a part"
)]

use offhook_node::SqliteStore;
use offhook_proto::store::{Direction, EntryKey, LogNo, Record, RoomNo, Store, StoreError};

use crate::world::Bracket;

impl Bracket for SqliteStore {
    fn begin_batch(&mut self) {
        self.begin().unwrap();
    }
    fn commit_batch(&mut self) {
        self.commit().unwrap();
    }
}

/// The store on disk without the text index.
pub(crate) struct Plain(pub(crate) SqliteStore);

impl Bracket for Plain {
    fn begin_batch(&mut self) {
        self.0.begin().unwrap();
    }
    fn commit_batch(&mut self) {
        self.0.commit().unwrap();
    }
}

impl Store for Plain {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(key)
    }
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.0.put(key, value)
    }
    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.0.delete(key)
    }
    fn scan(&self, from: &[u8], to: &[u8], direction: Direction, limit: usize) -> Result<Vec<Record>, StoreError> {
        self.0.scan(from, to, direction, limit)
    }
    fn entry(&self, key: EntryKey) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.entry(key)
    }
    fn put_entry(&mut self, key: EntryKey, value: &[u8]) -> Result<(), StoreError> {
        self.0.put_entry(key, value)
    }
    fn delete_entry(&mut self, key: EntryKey) -> Result<(), StoreError> {
        self.0.delete_entry(key)
    }
    fn entries(&self, log: LogNo, from: u32, to: u32, limit: usize) -> Result<Vec<(u32, Vec<u8>)>, StoreError> {
        self.0.entries(log, from, to, limit)
    }
    fn index_text(&mut self, _: RoomNo, _: EntryKey, _: u64, _: &str) -> Result<(), StoreError> {
        Ok(())
    }
    fn unindex_text(&mut self, _: RoomNo, _: EntryKey, _: u64, _: &str) -> Result<(), StoreError> {
        Ok(())
    }
    fn search(&self, words: &str, room: Option<RoomNo>, limit: usize) -> Result<Vec<EntryKey>, StoreError> {
        self.0.search(words, room, limit)
    }
}

/// Time that this thread was on a processor, in nanoseconds: others use the machine too.
pub(crate) fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}
