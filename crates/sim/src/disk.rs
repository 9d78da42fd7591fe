//! A disk that can fail: the store of a simulated node, with transactions, errors, copies of old states, and a size.
//!
//! A transaction is an undo log of what it touched, so that hundreds of nodes cost no more than what they write. The disk
//! outlives the peer that uses it, as files outlive a process. [`MemoryStore`] knows no transactions, so only its search is used here.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

use offhook_proto::store::{Direction, EntryKey, LogNo, MemoryStore, Record, RoomNo, Store, StoreError};

type TextKey = (u64, EntryKey);
type Text = (RoomNo, String);

/// How to take back one write: the key and what it held before.
#[derive(Debug)]
enum Undo {
    Record(Vec<u8>, Option<Vec<u8>>),
    Entry(EntryKey, Option<Vec<u8>>),
    Text(TextKey, Option<Text>),
}

/// The three tables. A clone is a backup, or a copied home.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tables {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    entries: BTreeMap<EntryKey, Vec<u8>>,
    texts: BTreeMap<TextKey, Text>,
    /// Of all keys and values of records and entries.
    bytes: u64,
}

#[derive(Debug, Default)]
struct Contents {
    tables: Tables,
    undo: Vec<Undo>,
    writes_until_error: Option<u64>,
    /// Bytes written down at every commit that nobody asked for: the planted fault of a node whose store grows without bound.
    hoarded_bytes: Option<u64>,
}

/// One node's disk. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    contents: Rc<RefCell<Contents>>,
    refuses: Rc<Cell<bool>>,
}

/// What a hoarding node writes down at every commit, in bytes.
const HOARD_BYTES: u64 = 64 * 1024;

impl Disk {
    /// A disk that holds a copy of another's tables.
    pub(crate) fn holding(tables: &Tables) -> Self {
        let disk = Self::default();
        disk.restore(tables);
        disk
    }

    /// Keeps all that was written since the last commit or rollback. Fails where the disk refuses.
    pub(crate) fn commit(&self) -> Result<(), StoreError> {
        self.check()?;
        let mut contents = self.contents.borrow_mut();
        contents.undo.clear();
        if let Some(hoarded) = &mut contents.hoarded_bytes {
            *hoarded += HOARD_BYTES;
        }
        Ok(())
    }

    /// Takes back all that was written since the last commit or rollback. Clears a passing error.
    pub(crate) fn rollback(&self) {
        let mut contents = self.contents.borrow_mut();
        while let Some(undo) = contents.undo.pop() {
            contents.tables.take_back(undo);
        }
        contents.writes_until_error = None;
        self.refuses.set(false);
    }

    /// Makes the disk refuse everything after so many more writes, until the next rollback.
    pub(crate) fn fail_after(&self, writes: u64) {
        self.contents.borrow_mut().writes_until_error = Some(writes);
    }

    /// Ends a planned error that has not come yet.
    pub(crate) fn recover(&self) {
        self.contents.borrow_mut().writes_until_error = None;
    }

    /// Plants the fault of a store that grows whatever arrives.
    pub(crate) fn hoard(&self) {
        self.contents.borrow_mut().hoarded_bytes = Some(0);
    }

    /// Plants the fault of a disk that gives back other than it was given: every record loses its last byte.
    pub(crate) fn spoil(&self) {
        let mut contents = self.contents.borrow_mut();
        for value in contents.tables.records.values_mut() {
            value.pop();
        }
    }

    /// The state after the last commit.
    pub(crate) fn snapshot(&self) -> Tables {
        let contents = self.contents.borrow();
        debug_assert!(contents.undo.is_empty(), "a snapshot inside a transaction");
        contents.tables.clone()
    }

    /// Goes back to an old state.
    pub(crate) fn restore(&self, tables: &Tables) {
        let mut contents = self.contents.borrow_mut();
        contents.tables = tables.clone();
        contents.undo.clear();
    }

    /// Bytes of all keys and values.
    pub(crate) fn bytes(&self) -> u64 {
        let contents = self.contents.borrow();
        contents.tables.bytes + contents.hoarded_bytes.unwrap_or(0)
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.refuses.get() {
            return Err(StoreError::Io("the simulated disk refuses".into()));
        }
        Ok(())
    }

    /// The tables, for one write: counts it towards the next error.
    fn write(&self) -> Result<RefMut<'_, Contents>, StoreError> {
        self.check()?;
        let mut contents = self.contents.borrow_mut();
        match &mut contents.writes_until_error {
            Some(0) => self.refuses.set(true),
            Some(left) => *left -= 1,
            None => {}
        }
        self.check()?;
        Ok(contents)
    }
}

impl Tables {
    /// Without what was agreed with single peers, so that the next meeting begins from nothing. They are a cache: table `B`.
    pub(crate) fn without_agreed_states(mut self) -> Self {
        self.records.retain(|key, _| key.first() != Some(&b'B'));
        self
    }

    fn take_back(&mut self, undo: Undo) {
        match undo {
            Undo::Record(key, old) => drop(self.set_record(key, old)),
            Undo::Entry(key, old) => drop(self.set_entry(key, old)),
            Undo::Text(key, old) => drop(set(&mut self.texts, key, old)),
        }
    }

    fn set_record(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let key_len = key.len() as u64;
        self.bytes += value.as_ref().map_or(0, |v| v.len() as u64 + key_len);
        let old = set(&mut self.records, key, value);
        self.bytes -= old.as_ref().map_or(0, |v| v.len() as u64 + key_len);
        old
    }

    fn set_entry(&mut self, key: EntryKey, value: Option<Vec<u8>>) -> Option<Vec<u8>> {
        self.bytes += value.as_ref().map_or(0, |v| v.len() as u64);
        let old = set(&mut self.entries, key, value);
        self.bytes -= old.as_ref().map_or(0, |v| v.len() as u64);
        old
    }
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    }
}

impl Contents {
    fn set_record(&mut self, key: &[u8], value: Option<Vec<u8>>) {
        let old = self.tables.set_record(key.to_vec(), value);
        self.undo.push(Undo::Record(key.to_vec(), old));
    }

    fn set_text(&mut self, key: TextKey, value: Option<Text>) {
        let old = set(&mut self.tables.texts, key, value);
        self.undo.push(Undo::Text(key, old));
    }
}

impl Store for Disk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.check()?;
        Ok(self.contents.borrow().tables.records.get(key).cloned())
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.write()?.set_record(key, Some(value.to_vec()));
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.write()?.set_record(key, None);
        Ok(())
    }

    fn scan(&self, from: &[u8], to: &[u8], direction: Direction, limit: usize) -> Result<Vec<Record>, StoreError> {
        self.check()?;
        if from >= to {
            return Ok(Vec::new());
        }
        let contents = self.contents.borrow();
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        let range = contents.tables.records.range::<[u8], _>(bounds);
        let owned = |(k, v): (&Vec<u8>, &Vec<u8>)| (k.clone(), v.clone());
        Ok(match direction {
            Direction::Ascending => range.take(limit).map(owned).collect(),
            Direction::Descending => range.rev().take(limit).map(owned).collect(),
        })
    }

    fn entry(&self, key: EntryKey) -> Result<Option<Vec<u8>>, StoreError> {
        self.check()?;
        Ok(self.contents.borrow().tables.entries.get(&key).cloned())
    }

    fn put_entry(&mut self, key: EntryKey, value: &[u8]) -> Result<(), StoreError> {
        let mut contents = self.write()?;
        let old = contents.tables.set_entry(key, Some(value.to_vec()));
        contents.undo.push(Undo::Entry(key, old));
        Ok(())
    }

    fn delete_entry(&mut self, key: EntryKey) -> Result<(), StoreError> {
        let mut contents = self.write()?;
        let old = contents.tables.set_entry(key, None);
        contents.undo.push(Undo::Entry(key, old));
        Ok(())
    }

    fn entries(&self, log: LogNo, from: u32, to: u32, limit: usize) -> Result<Vec<(u32, Vec<u8>)>, StoreError> {
        self.check()?;
        if from > to {
            return Ok(Vec::new());
        }
        let contents = self.contents.borrow();
        let keys = EntryKey { log, seq: from }..=EntryKey { log, seq: to };
        let range = contents.tables.entries.range(keys);
        Ok(range.take(limit).map(|(key, value)| (key.seq, value.clone())).collect())
    }

    fn index_text(&mut self, room: RoomNo, entry: EntryKey, clock_ms: u64, text: &str) -> Result<(), StoreError> {
        self.write()?.set_text((clock_ms, entry), Some((room, text.to_owned())));
        Ok(())
    }

    fn unindex_text(&mut self, _: RoomNo, entry: EntryKey, clock_ms: u64, _: &str) -> Result<(), StoreError> {
        self.write()?.set_text((clock_ms, entry), None);
        Ok(())
    }

    fn search(&self, words: &str, room: Option<RoomNo>, limit: usize) -> Result<Vec<EntryKey>, StoreError> {
        self.check()?;
        let mut index = MemoryStore::default();
        for ((clock_ms, entry), (room, text)) in &self.contents.borrow().tables.texts {
            index.index_text(*room, *entry, *clock_ms, text)?;
        }
        index.search(words, room, limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: EntryKey = EntryKey { log: LogNo(1), seq: 1 };

    fn written() -> Disk {
        let mut disk = Disk::default();
        disk.put(b"a", b"1").unwrap();
        disk.put_entry(KEY, b"entry").unwrap();
        disk.index_text(RoomNo(1), KEY, 5, "hello").unwrap();
        disk.commit().unwrap();
        disk
    }

    #[test]
    fn a_rollback_takes_back_everything() {
        let mut disk = written();
        let (before, bytes) = (disk.snapshot(), disk.bytes());
        disk.put(b"a", b"22").unwrap();
        disk.put(b"b", b"3").unwrap();
        disk.delete(b"a").unwrap();
        disk.put_entry(KEY, b"other entry").unwrap();
        disk.unindex_text(RoomNo(1), KEY, 5, "hello").unwrap();
        disk.rollback();
        assert_eq!(disk.bytes(), bytes);
        assert_eq!(format!("{:?}", disk.snapshot()), format!("{before:?}"));
        assert_eq!(disk.search("hello", None, 9).unwrap(), [KEY]);
    }

    #[test]
    fn a_failing_disk_refuses_until_rolled_back() {
        let mut disk = written();
        disk.fail_after(1);
        disk.put(b"b", b"2").unwrap();
        assert!(disk.put(b"c", b"3").is_err());
        assert!(disk.get(b"a").is_err());
        assert!(disk.commit().is_err());
        disk.rollback();
        assert_eq!(disk.get(b"a").unwrap().unwrap(), b"1");
        assert_eq!(disk.get(b"b").unwrap(), None);
    }

    #[test]
    fn an_old_state_comes_back() {
        let mut disk = written();
        let old = disk.snapshot();
        disk.put(b"a", b"2").unwrap();
        disk.commit().unwrap();
        disk.restore(&old);
        assert_eq!(disk.get(b"a").unwrap().unwrap(), b"1");
        assert_eq!(Disk::holding(&old).bytes(), disk.bytes());
    }
}
