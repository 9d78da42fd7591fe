//! The store on disk answers like the store in memory, whatever is done to both.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use offhook_node::SqliteStore;
use offhook_proto::store::{Direction, EntryKey, LogNo, MemoryStore, RoomNo, Store};
use proptest::prelude::*;

const VOCABULARY: [&str; 8] = ["ant", "bee", "beetle", "cat", "caterpillar", "dog", "dogma", "Elk"];

#[derive(Debug, Clone)]
enum Step {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    PutEntry(EntryKey, Vec<u8>),
    /// Index an entry if it is not, else take it out.
    ToggleText(EntryKey, Vec<usize>),
    Get(Vec<u8>),
    Scan(Vec<u8>, Vec<u8>, bool, usize),
    Entry(EntryKey),
    Entries(LogNo, u32, u32, usize),
    Search(Vec<usize>, bool, Option<u32>, usize),
    Commit,
    Reopen,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0u8, 1, 7, 255]), 0..4)
}

fn entry_key() -> impl Strategy<Value = EntryKey> {
    (0u32..4, 1u32..12).prop_map(|(log, seq)| EntryKey { log: LogNo(log), seq })
}

fn words(most: usize) -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..VOCABULARY.len(), 1..most)
}

fn step() -> impl Strategy<Value = Step> {
    let value = || prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        4 => (key(), value()).prop_map(|(k, v)| Step::Put(k, v)),
        1 => key().prop_map(Step::Delete),
        4 => (entry_key(), value()).prop_map(|(k, v)| Step::PutEntry(k, v)),
        6 => (entry_key(), words(5)).prop_map(|(k, w)| Step::ToggleText(k, w)),
        2 => key().prop_map(Step::Get),
        3 => (key(), key(), any::<bool>(), 0usize..9).prop_map(|(a, b, up, n)| Step::Scan(a, b, up, n)),
        2 => entry_key().prop_map(Step::Entry),
        2 => (0u32..4, 0u32..14, 0u32..14, 0usize..9).prop_map(|(l, a, b, n)| Step::Entries(LogNo(l), a, b, n)),
        4 => (words(3), any::<bool>(), prop::option::of(0u32..3), 0usize..9)
            .prop_map(|(w, prefix, room, n)| Step::Search(w, prefix, room, n)),
        1 => Just(Step::Commit),
        1 => Just(Step::Reopen),
    ]
}

/// The room and clock of an entry: clocks differ by more than the index's unit, so that the order is one.
fn place(key: EntryKey) -> (RoomNo, u64) {
    (
        RoomNo(key.log.0 % 3),
        u64::from(key.seq * 7 % 12 * 4 + key.log.0) * 1_000,
    )
}

fn sentence(words: &[usize]) -> String {
    let words: Vec<&str> = words.iter().map(|word| VOCABULARY[*word]).collect();
    words.join(", ")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn both_stores_agree(steps in prop::collection::vec(step(), 1..120)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let mut disk = SqliteStore::open(&path).unwrap();
        let mut memory = MemoryStore::default();
        let mut indexed = BTreeMap::new();
        disk.begin().unwrap();
        for step in steps {
            match step {
                Step::Put(k, v) => {
                    disk.put(&k, &v).unwrap();
                    memory.put(&k, &v).unwrap();
                }
                Step::Delete(k) => {
                    disk.delete(&k).unwrap();
                    memory.delete(&k).unwrap();
                }
                Step::PutEntry(k, v) => {
                    disk.put_entry(k, &v).unwrap();
                    memory.put_entry(k, &v).unwrap();
                }
                Step::ToggleText(k, words) => {
                    let (room, clock_ms) = place(k);
                    match indexed.remove(&k) {
                        Some(text) => {
                            let text: String = text;
                            disk.unindex_text(room, k, clock_ms, &text).unwrap();
                            memory.unindex_text(room, k, clock_ms, &text).unwrap();
                        }
                        None => {
                            let text = sentence(&words);
                            disk.index_text(room, k, clock_ms, &text).unwrap();
                            memory.index_text(room, k, clock_ms, &text).unwrap();
                            indexed.insert(k, text);
                        }
                    }
                }
                Step::Get(k) => prop_assert_eq!(disk.get(&k), memory.get(&k)),
                Step::Scan(a, b, up, n) => {
                    let direction = if up { Direction::Ascending } else { Direction::Descending };
                    prop_assert_eq!(disk.scan(&a, &b, direction, n), memory.scan(&a, &b, direction, n));
                }
                Step::Entry(k) => prop_assert_eq!(disk.entry(k), memory.entry(k)),
                Step::Entries(log, a, b, n) => {
                    prop_assert_eq!(disk.entries(log, a, b, n), memory.entries(log, a, b, n));
                }
                Step::Search(words, prefix, room, n) => {
                    let mut wanted: Vec<String> = words.iter().map(|word| VOCABULARY[*word].to_owned()).collect();
                    if prefix {
                        wanted[0] = format!("{}*", &wanted[0][..2]);
                    }
                    let wanted = wanted.join(" ");
                    let room = room.map(RoomNo);
                    prop_assert_eq!(disk.search(&wanted, room, n), memory.search(&wanted, room, n));
                }
                Step::Commit => {
                    disk.commit().unwrap();
                    disk.begin().unwrap();
                }
                Step::Reopen => {
                    disk.commit().unwrap();
                    drop(disk);
                    disk = SqliteStore::open(&path).unwrap();
                    disk.begin().unwrap();
                }
            }
        }
        disk.commit().unwrap();
        disk.check().unwrap();
    }

    #[test]
    fn no_search_is_an_error(typed in any::<String>(), soup in "[\"*():^+\\-a-z \\x00{}]{0,40}") {
        let dir = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(&dir.path().join("store.db")).unwrap();
        let key = EntryKey { log: LogNo(1), seq: 1 };
        store.index_text(RoomNo(1), key, 1_000, &format!("{typed} {soup}")).unwrap();
        for words in [&typed, &soup] {
            store.search(words, None, 10).unwrap();
            store.search(words, Some(RoomNo(1)), 10).unwrap();
        }
    }
}
