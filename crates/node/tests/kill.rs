//! What was acknowledged survives `kill -9`.
//!
//! `OFFHOOK_KILLS=1000 cargo test -p offhook-node --test kill` for the long run.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use offhook_node::SqliteStore;
use offhook_proto::store::{EntryKey, LogNo, Store};

const KILLS: u32 = 25;

fn target() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples/kill_target")
}

/// Runs the writer for a while, kills it, and returns the last sequence number that it acknowledged.
fn write_and_kill(store: &Path, first: u32, after: Duration) -> u32 {
    let mut child = Command::new(target())
        .arg(store)
        .arg(first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the example kill_target was built with the tests");
    let out = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        out.lines()
            .map_while(Result::ok)
            .filter_map(|line| line.parse::<u32>().ok())
            .last()
    });
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap().unwrap_or(first - 1)
}

#[test]
fn nothing_acknowledged_is_lost() {
    let kills = std::env::var("OFFHOOK_KILLS").map_or(KILLS, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let mut acknowledged = 0;
    let mut slowest = Duration::ZERO;
    for round in 0..kills {
        let after = Duration::from_millis(20 + u64::from(round * 37 % 60));
        let last = write_and_kill(&path, acknowledged + 1, after);
        let started = Instant::now();
        let store = SqliteStore::open(&path).unwrap();
        slowest = slowest.max(started.elapsed());
        let newest = newest(&store);
        assert!(
            newest >= last,
            "round {round}: {last} was acknowledged, {newest} is there"
        );
        for seq in acknowledged + 1..=newest {
            let key = EntryKey { log: LogNo(1), seq };
            assert_eq!(store.entry(key).unwrap(), Some(seq.to_be_bytes().repeat(60)));
            assert_eq!(store.search(&format!("number{seq}"), None, 2).unwrap(), [key]);
        }
        let beyond = EntryKey {
            log: LogNo(1),
            seq: newest + 1,
        };
        assert_eq!(store.entry(beyond).unwrap(), None);
        acknowledged = newest;
    }
    let store = SqliteStore::open(&path).unwrap();
    store.check().unwrap();
    assert_eq!(store.entry_count().unwrap(), u64::from(acknowledged));
    assert!(acknowledged > kills, "only {acknowledged} entries were written");
    println!("{kills} kills, {acknowledged} entries, 0 lost; slowest opening {slowest:?}");
}

fn newest(store: &SqliteStore) -> u32 {
    let bytes = store.get(b"newest").unwrap();
    bytes.map_or(0, |bytes| u32::from_be_bytes(bytes.try_into().unwrap()))
}
