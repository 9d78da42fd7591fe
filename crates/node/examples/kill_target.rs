//! Writes entries through the store and says on standard output which are committed, until it is killed. For `tests/kill.rs`.
//!
//! `kill_target STORE FIRST`: writes sequence numbers from FIRST, a few to a transaction, and prints the last of each after its commit.

use std::io::Write;
use std::path::Path;

use offhook_node::SqliteStore;
use offhook_proto::store::{EntryKey, LogNo, RoomNo, Store, StoreError};

fn main() -> Result<(), StoreError> {
    let args: Vec<String> = std::env::args().collect();
    let first: u32 = args[2].parse().expect("a sequence number");
    let mut store = SqliteStore::open(Path::new(&args[1]))?;
    let mut out = std::io::stdout().lock();
    let mut seq = first;
    loop {
        store.begin()?;
        for _ in 0..=seq % 7 {
            let key = EntryKey { log: LogNo(1), seq };
            store.put_entry(key, &seq.to_be_bytes().repeat(60))?;
            store.index_text(
                RoomNo(1),
                key,
                u64::from(seq) * 100,
                &format!("entry number{seq} of many"),
            )?;
            store.put(b"newest", &seq.to_be_bytes())?;
            seq += 1;
        }
        store.commit()?;
        // Acknowledged only now. A closed pipe means that nobody counts any more.
        if writeln!(out, "{}", seq - 1).and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
    }
}
