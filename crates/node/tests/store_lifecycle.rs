//! Opening, migrating, refusing, rolling back, backing up, forgetting.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use offhook_node::SqliteStore;
use offhook_node::store::SCHEMA_VERSION;
use offhook_proto::store::{EntryKey, LogNo, RoomNo, Store, StoreError};

fn key(seq: u32) -> EntryKey {
    EntryKey { log: LogNo(3), seq }
}

/// Everything in the store's files.
fn bytes_on_disk(dir: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for file in fs::read_dir(dir).unwrap() {
        all.extend(fs::read(file.unwrap().path()).unwrap());
    }
    all
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn a_store_of_a_newer_version_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    drop(SqliteStore::open(&path).unwrap());
    let db = rusqlite::Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
    drop(db);
    let before = fs::read(&path).unwrap();
    match SqliteStore::open(&path) {
        Err(StoreError::Io(why)) => assert!(why.contains("newer Offhook"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn what_is_no_store_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let text = "this is a shopping list, ".repeat(500);
    fs::write(&path, &text).unwrap();
    match SqliteStore::open(&path) {
        Err(StoreError::Io(why)) => assert!(why.contains("not a store"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_batch_is_kept_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let mut store = SqliteStore::open(&path).unwrap();
    store.begin().unwrap();
    store.put(b"a", b"1").unwrap();
    store.put_entry(key(1), b"one").unwrap();
    store.commit().unwrap();
    store.begin().unwrap();
    store.put(b"a", b"2").unwrap();
    store.put_entry(key(2), b"two").unwrap();
    store.index_text(RoomNo(1), key(2), 5_000, "two").unwrap();
    store.rollback();
    assert_eq!(store.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.entry(key(1)).unwrap().as_deref(), Some(&b"one"[..]));
    assert_eq!(store.entry(key(2)).unwrap(), None);
    assert!(store.search("two", None, 9).unwrap().is_empty());
    assert_eq!(store.entry_count().unwrap(), 1);
}

#[test]
fn a_copy_opens_with_everything_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(&dir.path().join("store.db")).unwrap();
    store.begin().unwrap();
    for seq in 1..=500 {
        store.put_entry(key(seq), &[7; 300]).unwrap();
        store.index_text(RoomNo(1), key(seq), 1_000, "hello there").unwrap();
    }
    store.commit().unwrap();
    let copy = dir.path().join("copy.db");
    store.backup_to(&copy).unwrap();
    store.put(b"later", b"x").unwrap();
    assert!(!dir.path().join("copy.db-wal").exists());
    let copy = SqliteStore::open(&copy).unwrap();
    copy.check().unwrap();
    assert_eq!(copy.entry_count().unwrap(), 500);
    assert_eq!(copy.search("\"hello there\"", None, 1_000).unwrap().len(), 500);
    assert_eq!(copy.get(b"later").unwrap(), None);
}

#[test]
fn a_deleted_text_is_gone_from_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let mut store = SqliteStore::open(&path).unwrap();
    for seq in 1..=50 {
        store.put_entry(key(seq), b"plain").unwrap();
        store
            .index_text(RoomNo(1), key(seq), u64::from(seq) * 1_000, "ordinary talk")
            .unwrap();
    }
    let text = "meet at xylophonestreet";
    store.put_entry(key(7), text.as_bytes()).unwrap();
    store.unindex_text(RoomNo(1), key(7), 7_000, "ordinary talk").unwrap();
    store.index_text(RoomNo(1), key(7), 7_000, text).unwrap();
    assert_eq!(store.search("xylophonestreet", None, 9).unwrap(), [key(7)]);
    assert!(holds(&bytes_on_disk(dir.path()), b"xylophonestreet"));

    store.put_entry(key(7), b"").unwrap();
    store.unindex_text(RoomNo(1), key(7), 7_000, text).unwrap();
    assert!(store.search("xylophonestreet", None, 9).unwrap().is_empty());
    assert_eq!(store.search("ordinary", None, 99).unwrap().len(), 49);
    store.check().unwrap();
    // Closing folds the write-ahead log into the file.
    drop(store);
    assert!(!holds(&bytes_on_disk(dir.path()), b"xylophonestreet"));
}

#[test]
fn a_flood_of_one_clock_stays_findable() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(&dir.path().join("store.db")).unwrap();
    store.begin().unwrap();
    for seq in 1..=5_000 {
        store.index_text(RoomNo(1), key(seq), 1_000, "flood").unwrap();
        // Again is no other.
        store.index_text(RoomNo(1), key(seq), 1_000, "flood").unwrap();
    }
    store.index_text(RoomNo(1), key(9_999), u64::MAX, "flood").unwrap();
    store.commit().unwrap();
    assert_eq!(store.search("flood", None, 10_000).unwrap().len(), 5_001);
    assert_eq!(store.search("flood", None, 1).unwrap(), [key(9_999)]);
    store.begin().unwrap();
    for seq in (1..=5_000).step_by(2) {
        store.unindex_text(RoomNo(1), key(seq), 1_000, "flood").unwrap();
    }
    store.commit().unwrap();
    let left = store.search("flood", None, 10_000).unwrap();
    assert_eq!(left.len(), 2_501);
    assert!(left.iter().all(|key| key.seq % 2 == 0 || key.seq == 9_999));
}

#[test]
fn words_are_found_across_case_accents_and_rooms() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(&dir.path().join("store.db")).unwrap();
    let texts = [
        (1, 1, "Grüße aus Köln"),
        (2, 1, "the café is open"),
        (3, 2, "open the gates, r1!"),
        (4, 2, "well-known facts"),
    ];
    for (seq, room, text) in texts {
        store
            .index_text(RoomNo(room), key(seq), u64::from(seq) * 1_000, text)
            .unwrap();
    }
    let found = |words: &str, room: Option<u32>| {
        let hits = store.search(words, room.map(RoomNo), 9).unwrap();
        hits.iter().map(|key| key.seq).collect::<Vec<_>>()
    };
    assert_eq!(found("köln", None), [1]);
    assert_eq!(found("CAFE", None), [2]);
    assert_eq!(found("open", None), [3, 2]);
    assert_eq!(found("open", Some(1)), [2]);
    assert_eq!(found("\"the gates\"", None), [3]);
    assert_eq!(found("\"gates the\"", None), [] as [u32; 0]);
    assert_eq!(found("r1", None), [3]);
    assert_eq!(found("well-known", None), [4]);
    assert_eq!(found("gr*", None), [1]);
    assert_eq!(found("open caf* \"is open\"", None), [2]);
}
