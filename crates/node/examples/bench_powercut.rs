//! Power cuts: what the store acknowledged is there afterwards, whatever the disk did with what it had not been told to keep.
//!
//! A writer runs under `strace`, which records every write, truncation, sync and removal that it asks of the kernel, and every acknowledgement on its
//! standard output, in order. A cut is a place in that record: what was synced before it is kept; of the rest, each 512-byte sector, truncation and removal is
//! kept or lost by the throw of a coin, in any order, as a disk with a volatile cache may do. The files so made are opened as a store, checked, and
//! compared with what had been acknowledged. The control is the same with `synchronous=OFF`, and has to lose.
//!
//! `bench_powercut [CUTS [SEED]]`. Not shown: file systems that lie about a sync, and sectors that are torn inside.
#![allow(clippy::unwrap_used, reason = "a bench")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use offhook_node::SqliteStore;
use offhook_proto::store::{EntryKey, LogNo, RoomNo, Store};

/// Transactions of a recorded run: enough for a checkpoint in the middle.
const TRANSACTIONS: u32 = 600;
const SECTOR: usize = 512;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|word| word == "write") {
        return write(Path::new(&args[2]), args[3] == "OFF");
    }
    let number = |at: usize, usual| args.get(at).map_or(usual, |n: &String| n.parse::<u64>().unwrap());
    let (cuts, seed) = (number(1, 100), number(2, 1));
    println!(
        "| synchronous | cuts | acknowledged then, on average | not opened | cuts that lost | acknowledged entries lost |"
    );
    println!("|---|---|---|---|---|---|");
    let kept = trial("FULL", cuts, seed);
    let control = trial("OFF", cuts, seed);
    assert_eq!(
        (kept.unopened, kept.lossy),
        (0, 0),
        "the store lost what it had acknowledged"
    );
    assert!(
        control.unopened + control.lossy > 0,
        "a control that cannot lose shows nothing"
    );
}

/// The process that is recorded: says on standard output what is committed.
fn write(path: &Path, off: bool) {
    let mut store = SqliteStore::open(path).unwrap();
    let careless = off.then(|| {
        drop(std::mem::replace(
            &mut store,
            SqliteStore::open(&path.with_extension("unused")).unwrap(),
        ));
        let db = rusqlite::Connection::open(path).unwrap();
        db.pragma_update(None, "journal_mode", "WAL").unwrap();
        db.pragma_update(None, "synchronous", "OFF").unwrap();
        db
    });
    let mut out = std::io::stdout().lock();
    let mut seq = 1;
    for _ in 0..TRANSACTIONS {
        let last = seq + seq % 7;
        match &careless {
            Some(db) => {
                db.execute_batch("BEGIN IMMEDIATE").unwrap();
                for seq in seq..=last {
                    let id = key(seq).to_u64().cast_signed();
                    let put = "REPLACE INTO entry(id, data) VALUES (?, ?)";
                    db.execute(put, rusqlite::params![id, value(seq)]).unwrap();
                }
                let put = "REPLACE INTO record(key, value) VALUES (?, ?)";
                db.execute(put, rusqlite::params![b"newest", last.to_be_bytes()])
                    .unwrap();
                db.execute_batch("COMMIT").unwrap();
            }
            None => {
                store.begin().unwrap();
                for seq in seq..=last {
                    store.put_entry(key(seq), &value(seq)).unwrap();
                    let text = format!("entry number{seq} of many");
                    store
                        .index_text(RoomNo(1), key(seq), u64::from(seq) * 100, &text)
                        .unwrap();
                }
                store.put(b"newest", &last.to_be_bytes()).unwrap();
                store.commit().unwrap();
            }
        }
        seq = last + 1;
        writeln!(out, "{last}").unwrap();
        out.flush().unwrap();
    }
}

fn key(seq: u32) -> EntryKey {
    EntryKey { log: LogNo(1), seq }
}

fn value(seq: u32) -> Vec<u8> {
    seq.to_be_bytes().repeat(60)
}

#[derive(Default)]
struct Verdict {
    unopened: u64,
    lossy: u64,
    entries: u64,
}

fn trial(mode: &str, cuts: u64, seed: u64) -> Verdict {
    let folder = tempfile::tempdir().unwrap();
    let events = record(folder.path(), mode);
    let mut dice = Dice(seed);
    let (mut verdict, mut acknowledged_all) = (Verdict::default(), 0u64);
    for _ in 0..cuts {
        let at = usize::try_from(dice.next() % (events.len() as u64 + 1)).unwrap();
        let (disk, acknowledged) = disk_at(&events[..at]);
        acknowledged_all += u64::from(acknowledged);
        let image = tempfile::tempdir().unwrap();
        disk.lay_out(image.path(), &mut dice);
        match survivors(&image.path().join("store.db"), acknowledged) {
            Some(lost) => {
                verdict.lossy += u64::from(lost > 0);
                verdict.entries += u64::from(lost);
            }
            None => verdict.unopened += 1,
        }
    }
    println!(
        "| {mode} | {cuts} | {} | {} | {} | {} |",
        acknowledged_all / cuts.max(1),
        verdict.unopened,
        verdict.lossy,
        verdict.entries
    );
    verdict
}

/// How many of the acknowledged entries are not there; none if the store does not open or does not pass its own checks.
fn survivors(path: &Path, acknowledged: u32) -> Option<u32> {
    let store = SqliteStore::open(path).ok()?;
    store.check().ok()?;
    let is_there = |seq: &u32| store.entry(key(*seq)).ok().flatten() == Some(value(*seq));
    let lost = (1..=acknowledged).filter(|seq| !is_there(seq)).count();
    Some(u32::try_from(lost).unwrap())
}

/// What the writer asked of the kernel.
enum Event {
    Write { file: String, at: usize, bytes: Vec<u8> },
    Truncate { file: String, len: usize },
    Sync { file: String },
    SyncFolder,
    Remove { file: String },
    Acknowledge { last: u32 },
}

/// Runs the writer under `strace` and reads the record.
fn record(folder: &Path, mode: &str) -> Vec<Event> {
    let (home, trace) = (folder.join("home"), folder.join("trace"));
    fs::create_dir(&home).unwrap();
    let status = Command::new("strace")
        .args(["-f", "-y", "-xx", "-s", "1000000"])
        .args([
            "-e",
            "trace=write,pwrite64,ftruncate,fsync,fdatasync,unlink,unlinkat,rename",
        ])
        .arg("-o")
        .arg(&trace)
        .arg(std::env::current_exe().unwrap())
        .args(["write".as_ref(), home.join("store.db").as_os_str(), mode.as_ref()])
        .stdout(Stdio::null())
        .status()
        .expect("strace is installed (apt install strace)");
    assert!(status.success());
    let lines = BufReader::new(File::open(&trace).unwrap()).lines();
    let events: Vec<Event> = lines.filter_map(|line| event(&line.unwrap(), &home)).collect();
    let acknowledged = events.iter().filter(|event| matches!(event, Event::Acknowledge { .. }));
    assert_eq!(acknowledged.count(), TRANSACTIONS as usize, "the record is whole");
    events
}

/// One line of the record: `PID call(FD<PATH>, "BYTES", ...) = RESULT`, where paths and bytes are written `\x2f\x74..`.
fn event(line: &str, home: &Path) -> Option<Event> {
    let (_, call) = line.split_once(' ')?;
    let (name, rest) = call.trim_start().split_once('(')?;
    let (arguments, result) = rest.rsplit_once(") = ")?;
    assert!(!result.starts_with('-'), "the writer met an error: {result}");
    if name.starts_with("unlink") || name == "rename" {
        assert_ne!(name, "rename", "a call that this bench does not know");
        let path = PathBuf::from(String::from_utf8(unhex(arguments)?).ok()?);
        let file = path.file_name()?.to_str()?.to_owned();
        return (path.parent() == Some(home)).then_some(Event::Remove { file });
    }
    let (descriptor, rest) = arguments.split_once('<')?;
    let (path, rest) = rest.split_once('>')?;
    if descriptor == "1" {
        let last = String::from_utf8(unhex(rest)?).ok()?.trim().parse().ok()?;
        return Some(Event::Acknowledge { last });
    }
    let path = PathBuf::from(String::from_utf8(bytes_of(path)?).ok()?);
    if path == home {
        return Some(Event::SyncFolder);
    }
    let file = path.file_name()?.to_str()?.to_owned();
    // The index of the write-ahead log is made anew by whoever opens the store.
    if path.parent() != Some(home) || !file.starts_with("store.db") || file.ends_with("-shm") {
        return None;
    }
    let last_number = || rest.rsplit(", ").next()?.trim().parse::<usize>().ok();
    match name {
        "pwrite64" => {
            let (at, bytes) = (last_number()?, unhex(rest)?);
            Some(Event::Write { file, at, bytes })
        }
        "ftruncate" => Some(Event::Truncate {
            file,
            len: last_number()?,
        }),
        "fsync" | "fdatasync" => Some(Event::Sync { file }),
        other => panic!("a call that this bench does not know: {other} on {file}"),
    }
}

/// The bytes of the first string `"\x..\x.."` in a text.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once('"')?;
    bytes_of(rest.split_once('"')?.0)
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let bytes = hex.split("\\x").skip(1);
    bytes.map(|byte| u8::from_str_radix(byte, 16).ok()).collect()
}

/// A file: what is on the disk for certain, and what was asked since.
#[derive(Default)]
struct Kept {
    durable: Vec<u8>,
    /// There is a name for it on the disk.
    named: bool,
    pending: Vec<Change>,
}

enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Default)]
struct Disk {
    files: BTreeMap<String, Kept>,
    /// Removed, while the folder was not synced.
    removed: BTreeMap<String, Kept>,
}

/// The disk as it may be when the power goes after these events, and the last entry that was acknowledged.
fn disk_at(events: &[Event]) -> (Disk, u32) {
    let (mut disk, mut acknowledged) = (Disk::default(), 0);
    for event in events {
        match event {
            Event::Write { file, at, bytes } => {
                let file = disk.files.entry(file.clone()).or_default();
                file.pending.push(Change::Write(*at, bytes.clone()));
            }
            Event::Truncate { file, len } => {
                let file = disk.files.entry(file.clone()).or_default();
                file.pending.push(Change::Truncate(*len));
            }
            Event::Sync { file } => {
                let file = disk.files.entry(file.clone()).or_default();
                file.named = true;
                for change in std::mem::take(&mut file.pending) {
                    change.apply(&mut file.durable);
                }
            }
            Event::SyncFolder => {
                disk.removed.clear();
                disk.files.values_mut().for_each(|file| file.named = true);
            }
            Event::Remove { file } => {
                if let Some(kept) = disk.files.remove(file) {
                    disk.removed.insert(file.clone(), kept);
                }
            }
            Event::Acknowledge { last } => acknowledged = *last,
        }
    }
    (disk, acknowledged)
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Write(at, new) => {
                let end = at + new.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[*at..end].copy_from_slice(new);
            }
            Change::Truncate(len) => bytes.resize(*len, 0),
        }
    }
}

impl Disk {
    /// Writes the files that are left, each uncertain thing kept or lost by a coin.
    fn lay_out(mut self, folder: &Path, dice: &mut Dice) {
        for (name, file) in std::mem::take(&mut self.removed) {
            if dice.coin() {
                self.files.entry(name).or_insert(file);
            }
        }
        for (name, file) in self.files {
            if !file.named && dice.coin() {
                continue;
            }
            let mut bytes = file.durable;
            for change in &file.pending {
                match change {
                    Change::Write(at, new) => {
                        for (i, sector) in new.chunks(SECTOR).enumerate() {
                            if dice.coin() {
                                Change::Write(at + i * SECTOR, sector.to_vec()).apply(&mut bytes);
                            }
                        }
                    }
                    cut @ Change::Truncate(_) if dice.coin() => cut.apply(&mut bytes),
                    Change::Truncate(_) => {}
                }
            }
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn coin(&mut self) -> bool {
        self.next().is_multiple_of(2)
    }
}
