//! The store on disk: SQLite in WAL mode, fsync at every commit, one writer.
//!
//! | table | holds |
//! |---|---|
//! | `record` | the ordered byte map, clustered by key |
//! | `entry` | the entries; the integer key is [`EntryKey::to_u64`] |
//! | `words` | the text index (FTS5, contentless: it keeps no copy of the text) |
//! | `found` | from a document number of `words` to the entry |
//!
//! A document number is the entry's clock in units of 64 ms, moved up while taken. FTS5 walks a posting list backwards at
//! no cost, so *newest first, and stop after 50* needs no sorting; and numbers that lie close together take fewer bytes in each posting.
//! Moving up goes one by one at first, then by leaps within a window that doubles, so that a flood of entries of one clock stays
//! cheap. A removed entry leaves a mark in `found`, so that looking for another goes on behind it. The room is a column of the index with one
//! word such as `r17`. Prefixes are looked up in the list of words: an index of prefixes would double the bytes at rest.
//!
//! The driver brackets a batch of inputs with [`SqliteStore::begin`] and [`SqliteStore::commit`]: group commit. After an error
//! nothing is written until the driver has reopened the store.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use offhook_proto::store::{Direction, EntryKey, LogNo, Record, RoomNo, Store, StoreError};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use crate::query::match_expression;

/// The newest schema that this program writes.
pub const SCHEMA_VERSION: i64 = 2;

/// What each schema version adds to the one before.
const MIGRATIONS: [&str; SCHEMA_VERSION as usize] = [
    "
    CREATE TABLE record(key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE entry(id INTEGER PRIMARY KEY, data BLOB NOT NULL);
    CREATE TABLE found(docid INTEGER PRIMARY KEY, entry INTEGER NOT NULL);
    CREATE VIRTUAL TABLE words USING fts5(
        body, room, content='', columnsize=0, tokenize='unicode61 remove_diacritics 2'
    );
    INSERT INTO words(words, rank) VALUES ('secure-delete', 1);
",
    // Entries are written shorter, and read in both ways: nothing to change but that earlier programs must not open them.
    "",
];

/// A document number counts units of 2^6 ms.
const UNIT_BITS: u32 = 6;
/// Clocks above this (the year 10889) count as this, so that document numbers stay far below 2^63.
const CLOCK_MS_MAX: u64 = 1 << 48;
/// Document numbers tried one by one.
const STEPS_MAX: u64 = 32;
/// Leaps tried after that; the last goes 2^40 numbers far.
const LEAPS_MAX: u32 = 32;
/// In `found`: the entry was taken out of the index. No log has this number.
const REMOVED: i64 = -1;

/// Page cache, in KiB: most of the store's resident memory.
const CACHE_KIB: i64 = 16 * 1024;
/// Pages in the write-ahead log before it is copied into the database.
const CHECKPOINT_PAGES: i64 = 4_000;
/// The write-ahead log is cut back to this after a checkpoint.
const WAL_BYTES_MAX: i64 = 64 << 20;
/// Statements kept prepared.
const STATEMENTS_MAX: usize = 32;

/// The store of one home.
#[derive(Debug)]
pub struct SqliteStore {
    db: Connection,
    /// Set by the first failed write: the memory may be ahead of the disk.
    failed: Cell<bool>,
}

impl SqliteStore {
    /// Opens the store, making or migrating it as needed. A store written by a newer version is refused untouched.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let db = Connection::open(path).map_err(io_error)?;
        configure(&db).map_err(io_error)?;
        migrate(&db)?;
        Ok(Self {
            db,
            failed: Cell::new(false),
        })
    }

    /// Begins a transaction.
    pub fn begin(&mut self) -> Result<(), StoreError> {
        self.write("BEGIN IMMEDIATE")
    }

    /// Commits: when this returns, everything since [`SqliteStore::begin`] survives a power cut.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        self.write("COMMIT")
    }

    /// Undoes everything since [`SqliteStore::begin`]. Does nothing where there is no transaction.
    pub fn rollback(&mut self) {
        if !self.db.is_autocommit() {
            // What cannot be rolled back is rolled back by the next opening.
            let _ = self.db.execute_batch("ROLLBACK");
        }
    }

    /// Opens the store to read from where it cannot be written: [`SqliteStore::begin`] needs the disk to take writes.
    pub fn begin_reading(&mut self) -> Result<(), StoreError> {
        self.write("BEGIN DEFERRED")
    }

    /// Proves that the disk takes writes again: commits a row and takes it away.
    ///
    /// A failed fsync leaves pages of the write-ahead log that the system takes for written and that may not be on the disk; whatever is committed behind them would be lost
    /// with them (<https://wiki.postgresql.org/wiki/Fsync_Errors>). So first all of it is written anew, into the database itself, and the log begins anew.
    pub fn probe(&mut self) -> Result<(), StoreError> {
        let busy: i64 = self
            .db
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .map_err(|error| self.fail(error))?;
        if busy != 0 {
            self.failed.set(true);
            return Err(StoreError::Io("another program is using the store".into()));
        }
        // One MiB: a disk with less space left would fail again at once.
        self.write(
            "BEGIN IMMEDIATE;
             CREATE TABLE probe(x); INSERT INTO probe VALUES (zeroblob(1048576)); DROP TABLE probe;
             COMMIT",
        )
    }

    /// Copies the store into a new file, consistent at one moment, while it stays in use.
    pub fn backup_to(&self, path: &Path) -> Result<(), StoreError> {
        let mut target = Connection::open(path).map_err(io_error)?;
        // A transaction that reads pins the moment; else every commit of others would begin the copy anew.
        let snapshot = self.db.is_autocommit();
        if snapshot {
            self.db
                .execute_batch("BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1")
                .map_err(io_error)?;
        }
        let backup = rusqlite::backup::Backup::new(&self.db, &mut target).map_err(io_error)?;
        let copied = backup.run_to_completion(4_096, Duration::ZERO, None);
        if snapshot {
            // It has written nothing.
            let _ = self.db.execute_batch("COMMIT");
        }
        copied.map_err(io_error)?;
        drop(backup);
        target
            .execute_batch("PRAGMA journal_mode=DELETE; PRAGMA synchronous=FULL; PRAGMA user_version")
            .map_err(io_error)
    }

    /// Checks the whole file and the text index against their own checksums and orders. Reads everything.
    pub fn check(&self) -> Result<(), StoreError> {
        let verdict: String = self
            .db
            .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
            .map_err(io_error)?;
        if verdict != "ok" {
            return Err(StoreError::Io(format!("the store is damaged: {verdict}")));
        }
        self.db
            .execute_batch("INSERT INTO words(words) VALUES ('integrity-check')")
            .map_err(|_| StoreError::Damaged("text index"))
    }

    /// How many entries are stored.
    pub fn entry_count(&self) -> Result<u64, StoreError> {
        let count: i64 = self
            .db
            .query_row("SELECT count(*) FROM entry", [], |row| row.get(0))
            .map_err(io_error)?;
        Ok(count.unsigned_abs())
    }

    /// Runs statements that write. After a failure all of them are refused.
    fn write(&self, sql: &str) -> Result<(), StoreError> {
        self.refuse_after_failure()?;
        self.db.execute_batch(sql).map_err(|error| self.fail(error))
    }

    fn run(&self, sql: &str, params: impl rusqlite::Params) -> Result<usize, StoreError> {
        self.refuse_after_failure()?;
        self.db
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(params))
            .map_err(|error| self.fail(error))
    }

    fn fail(&self, error: rusqlite::Error) -> StoreError {
        self.failed.set(true);
        io_error(error)
    }

    fn refuse_after_failure(&self) -> Result<(), StoreError> {
        if self.failed.get() {
            return Err(StoreError::Io("stopped writing after an earlier failure".into()));
        }
        Ok(())
    }

    /// The document number under which an entry is indexed, or the free one where it goes.
    fn docid(&self, clock_ms: u64, entry: EntryKey) -> Result<(i64, Slot), StoreError> {
        let wanted = entry.to_u64().cast_signed();
        let mut statement = self
            .db
            .prepare_cached("SELECT entry FROM found WHERE docid = ?")
            .map_err(io_error)?;
        for docid in docids(clock_ms, entry) {
            let there: Option<i64> = statement
                .query_row([docid], |row| row.get(0))
                .optional()
                .map_err(io_error)?;
            match there {
                None => return Ok((docid, Slot::Free)),
                Some(entry) if entry == wanted => return Ok((docid, Slot::Taken)),
                Some(_) => {}
            }
        }
        Err(StoreError::Damaged("text index: no document number is free"))
    }

    fn unindex(&self, docid: i64, room: RoomNo, text: &str) -> Result<(), StoreError> {
        self.run(
            "INSERT INTO words(words, rowid, body, room) VALUES ('delete', ?, ?, ?)",
            params![docid, text, room_word(room)],
        )?;
        self.run("UPDATE found SET entry = ? WHERE docid = ?", [REMOVED, docid])?;
        Ok(())
    }
}

/// Whether an entry is in the text index.
enum Slot {
    Free,
    Taken,
}

/// Where an entry's document number may be, in the order of looking: upwards from its clock, then by leaps.
fn docids(clock_ms: u64, entry: EntryKey) -> impl Iterator<Item = i64> {
    let base = clock_ms.min(CLOCK_MS_MAX) >> UNIT_BITS;
    let steps = (0..STEPS_MAX).map(move |step| base + step);
    let leaps = (0..LEAPS_MAX).map(move |leap| {
        let window_bits = STEPS_MAX.ilog2() + 1 + leap;
        base + STEPS_MAX + (scatter(entry.to_u64(), leap) >> (64 - window_bits))
    });
    steps.chain(leaps).map(u64::cast_signed)
}

/// Mixes all bits of a number (the finalizer of SplitMix64).
fn scatter(value: u64, round: u32) -> u64 {
    let mut z = value.wrapping_add(u64::from(round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Store for SqliteStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.db
            .prepare_cached("SELECT value FROM record WHERE key = ?")
            .and_then(|mut statement| statement.query_row([key], |row| row.get(0)).optional())
            .map_err(io_error)
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.run("REPLACE INTO record(key, value) VALUES (?, ?)", params![key, value])?;
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.run("DELETE FROM record WHERE key = ?", [key])?;
        Ok(())
    }

    fn scan(&self, from: &[u8], to: &[u8], direction: Direction, limit: usize) -> Result<Vec<Record>, StoreError> {
        let sql = match direction {
            Direction::Ascending => "SELECT key, value FROM record WHERE key >= ? AND key < ? ORDER BY key LIMIT ?",
            Direction::Descending => {
                "SELECT key, value FROM record WHERE key >= ? AND key < ? ORDER BY key DESC LIMIT ?"
            }
        };
        self.db
            .prepare_cached(sql)
            .and_then(|mut statement| {
                let rows = statement.query_map(params![from, to, sql_limit(limit)], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
                rows.collect()
            })
            .map_err(io_error)
    }

    fn entry(&self, key: EntryKey) -> Result<Option<Vec<u8>>, StoreError> {
        self.db
            .prepare_cached("SELECT data FROM entry WHERE id = ?")
            .and_then(|mut statement| {
                statement
                    .query_row([key.to_u64().cast_signed()], |row| row.get(0))
                    .optional()
            })
            .map_err(io_error)
    }

    fn put_entry(&mut self, key: EntryKey, value: &[u8]) -> Result<(), StoreError> {
        self.run(
            "REPLACE INTO entry(id, data) VALUES (?, ?)",
            params![key.to_u64().cast_signed(), value],
        )?;
        Ok(())
    }

    fn delete_entry(&mut self, key: EntryKey) -> Result<(), StoreError> {
        self.run("DELETE FROM entry WHERE id = ?", [key.to_u64().cast_signed()])?;
        Ok(())
    }

    fn entries(&self, log: LogNo, from: u32, to: u32, limit: usize) -> Result<Vec<(u32, Vec<u8>)>, StoreError> {
        let id = |seq| EntryKey { log, seq }.to_u64().cast_signed();
        self.db
            .prepare_cached("SELECT id, data FROM entry WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?")
            .and_then(|mut statement| {
                let rows = statement.query_map(params![id(from), id(to), sql_limit(limit)], |row| {
                    let id: i64 = row.get(0)?;
                    Ok((EntryKey::from_u64(id.cast_unsigned()).seq, row.get(1)?))
                })?;
                rows.collect()
            })
            .map_err(io_error)
    }

    fn index_text(&mut self, room: RoomNo, entry: EntryKey, clock_ms: u64, text: &str) -> Result<(), StoreError> {
        let (docid, slot) = self.docid(clock_ms, entry)?;
        if matches!(slot, Slot::Taken) {
            return Ok(());
        }
        self.run(
            "INSERT INTO found(docid, entry) VALUES (?, ?)",
            params![docid, entry.to_u64().cast_signed()],
        )?;
        self.run(
            "INSERT INTO words(rowid, body, room) VALUES (?, ?, ?)",
            params![docid, text, room_word(room)],
        )?;
        Ok(())
    }

    fn unindex_text(&mut self, room: RoomNo, entry: EntryKey, clock_ms: u64, text: &str) -> Result<(), StoreError> {
        match self.docid(clock_ms, entry)? {
            (docid, Slot::Taken) => self.unindex(docid, room, text),
            (_, Slot::Free) => Ok(()),
        }
    }

    fn search(&self, words: &str, room: Option<RoomNo>, limit: usize) -> Result<Vec<EntryKey>, StoreError> {
        let Some(body) = match_expression(words) else {
            return Ok(Vec::new());
        };
        let expression = match room {
            Some(room) => format!("room : {} AND body : ({body})", room_word(room)),
            None => format!("body : ({body})"),
        };
        let sql = "SELECT found.entry FROM words CROSS JOIN found ON found.docid = words.rowid
                   WHERE words MATCH ? ORDER BY words.rowid DESC LIMIT ?";
        self.db
            .prepare_cached(sql)
            .and_then(|mut statement| {
                let rows = statement.query_map(params![expression, sql_limit(limit)], |row| {
                    let id: i64 = row.get(0)?;
                    Ok(EntryKey::from_u64(id.cast_unsigned()))
                })?;
                rows.collect()
            })
            .map_err(io_error)
    }
}

fn room_word(room: RoomNo) -> String {
    format!("r{}", room.0)
}

fn sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn configure(db: &Connection) -> rusqlite::Result<()> {
    db.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    db.busy_timeout(Duration::from_secs(5))?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "cache_size", -CACHE_KIB)?;
    db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    db.pragma_update(None, "journal_size_limit", WAL_BYTES_MAX)?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    // Deleted payloads are overwritten, not only unlinked.
    db.pragma_update(None, "secure_delete", "ON")?;
    db.pragma_update(None, "trusted_schema", false)?;
    db.pragma_update(None, "cell_size_check", true)
}

fn migrate(db: &Connection) -> Result<(), StoreError> {
    let version: i64 = db
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(io_error)?;
    if version > SCHEMA_VERSION {
        return Err(StoreError::Io(format!(
            "this home was written by a newer Offhook (store version {version}, this program knows {SCHEMA_VERSION}); \
             update this program, or choose another home"
        )));
    }
    for next in version..SCHEMA_VERSION {
        let migration = usize::try_from(next)
            .ok()
            .and_then(|step| MIGRATIONS.get(step))
            .ok_or(StoreError::Damaged("schema version"))?;
        db.execute_batch(&format!(
            "BEGIN IMMEDIATE; {migration} PRAGMA user_version = {}; COMMIT",
            next + 1
        ))
        .map_err(io_error)?;
    }
    Ok(())
}

/// What went wrong, in words that say what to do.
fn io_error(error: rusqlite::Error) -> StoreError {
    let text = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "the disk is full; free some space, nothing that was confirmed is lost".into(),
        Some(ErrorCode::ReadOnly) => "the disk or the store's file is read-only; make it writable".into(),
        Some(ErrorCode::CannotOpen) => "the store's file cannot be opened; check its owner and mode".into(),
        Some(ErrorCode::NotADatabase) => "store.db is not a store; restore it from a backup".into(),
        Some(ErrorCode::DatabaseCorrupt) => "the store is damaged; restore it from a backup".into(),
        Some(ErrorCode::SystemIoFailure) => {
            "the disk reports an error; look after it (`dmesg` says more). Nothing that was confirmed is lost; this home can be read, and is written again as soon as the disk takes writes"
                .into()
        }
        Some(ErrorCode::DatabaseBusy) => "another program is using the store".into(),
        _ => error.to_string(),
    };
    StoreError::Io(text)
}
