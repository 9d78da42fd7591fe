//! A disk that runs full: commands are refused with the reason, nothing confirmed is lost, and the node goes on when there is space again.
//!
//! Needs a small file system of its own, so it runs as root only (a tmpfs is mounted); elsewhere it says that it was left out.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use offhook_node::{Config, Node, NodeError, SqliteStore};
use offhook_proto::peer;
use offhook_proto::rooms::HistoryPolicy;
use offhook_proto::store::{EntryKey, LogNo, Store, StoreError};

/// A small file system, unmounted at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=12m,mode=0700", "offhook-test"])
            .arg(at)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            _ => {
                eprintln!("left out: a small tmpfs cannot be mounted here (root is needed)");
                None
            }
        }
    }

    /// Takes all the space that is left but for a few bytes.
    fn fill(&self) {
        let path = self.0.join("ballast");
        for size in [1 << 20, 4_096] {
            while append(&path, size) {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn append(path: &Path, size: usize) -> bool {
    use std::io::Write;
    let file = fs::OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(&vec![1; size])).is_ok()
}

#[test]
fn what_the_disk_refuses_is_not_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path()) else {
        return;
    };
    let path = dir.path().join("store.db");
    let key = |seq| EntryKey { log: LogNo(1), seq };
    let mut store = SqliteStore::open(&path).unwrap();
    let mut acknowledged = 0;
    let error = loop {
        let mut write = || {
            store.begin()?;
            for seq in acknowledged + 1..=acknowledged + 100 {
                store.put_entry(key(seq), &[1; 1_000])?;
            }
            store.commit()
        };
        match write() {
            Ok(()) => acknowledged += 100,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&error, StoreError::Io(why) if why.contains("disk is full")),
        "{error}"
    );
    assert!(acknowledged > 0);
    // Nothing more is written until the store is opened again.
    assert!(store.put(b"a", b"b").is_err());
    store.rollback();
    drop(store);
    drop(SqliteStore::open(&path));

    // More room, as after a clean-up.
    let grown = Command::new("mount")
        .args(["-o", "remount,size=64m"])
        .arg(&disk.0)
        .status()
        .unwrap();
    assert!(grown.success());
    let mut store = SqliteStore::open(&path).unwrap();
    store.check().unwrap();
    assert_eq!(store.entry_count().unwrap(), u64::from(acknowledged));
    store.put_entry(key(acknowledged + 1), b"goes on").unwrap();
}

#[tokio::test]
async fn a_node_says_so_and_goes_on_when_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path()) else {
        return;
    };
    let node = Node::start(Config {
        listen: Some("127.0.0.1:0".parse().unwrap()),
        lan: false,
        ..Config::new(dir.path().join("home"), "Ada")
    })
    .await
    .unwrap();
    let create = |name: &str| peer::Command::CreateRoom {
        name: name.into(),
        history: HistoryPolicy::All {},
    };
    node.command(create("first")).await.unwrap();
    disk.fill();
    let mut refused = None;
    for i in 0..2_000 {
        if let Err(error) = node.command(create(&format!("room {i}"))).await {
            refused = Some((i, error));
            break;
        }
    }
    let (made, error) = refused.expect("the disk is full");
    assert!(
        matches!(&error, NodeError::Storage(why) if why.contains("disk is full")),
        "{error}"
    );
    // Still refused, still running, and what is there can be read.
    assert!(node.command(create("another")).await.is_err());
    let rooms = node.query(|peer| peer.rooms().map(|rooms| rooms.len())).await.unwrap();
    assert_eq!(rooms, Ok(made + 1));

    disk.free();
    tokio::time::sleep(Duration::from_millis(200)).await;
    node.command(create("last")).await.unwrap();
    let rooms = node.query(|peer| peer.rooms().map(|rooms| rooms.len())).await.unwrap();
    assert_eq!(rooms, Ok(made + 2));
    node.shutdown().await;
}
