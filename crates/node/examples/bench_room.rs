//! A room of 500 members with 1,000 devices and 100,000 entries: how long from an invite to a readable last page, and the memory that a peer
//! needs that holds it all.
//!
//! Both peers share one processor and an in-memory line; loopback with two processors is quicker.
#![allow(clippy::unwrap_used, reason = "a bench")]

mod disk;
#[path = "../../proto/examples/world/mod.rs"]
mod world;

use std::path::Path;
use std::time::{Duration, Instant};

use disk::cpu_ns;
use offhook_node::SqliteStore;
use offhook_proto::history::RoomId;
use offhook_proto::peer::Command;
use offhook_proto::peer::view::{EntryKind, LineView};
use offhook_proto::store::{MemoryStore, Store};
use world::{Between, Clocks, Hall, Node, Scribe, figure, table_head};

const MEMBERS: u32 = 500;
const TEXT_BYTES: usize = 200;
const PAGE: usize = 50;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, flag, path] = &args[..]
        && flag == "--open"
    {
        return reopen(Path::new(path));
    }
    let count: usize = args.get(1).map_or(100_000, |n| n.parse().unwrap());
    let mut clocks = Clocks::start();
    let mut host = Node::open(MemoryStore::default(), 1, "Host", clocks);
    let scribes: Vec<Scribe> = (0..MEMBERS - 2).map(Scribe::new).collect();
    let mut hall = Hall::open(&mut host, "square", &[], clocks);
    let seconds: Vec<Scribe> = (0u32..)
        .zip(&scribes)
        .map(|(i, scribe)| scribe.second_device(i))
        .collect();
    let start = Instant::now();
    for (scribe, second) in scribes.iter().zip(&seconds) {
        hall.admit(&mut host, scribe, &[&second.device], clocks);
    }
    println!(
        "{} members let in: {:.1} s",
        scribes.len(),
        start.elapsed().as_secs_f64()
    );
    let start = Instant::now();
    hall.clock_ms = hall.clock_ms.max(clocks.wall_ms);
    for (scribe, second) in scribes.iter().zip(&seconds) {
        hall.admit(&mut host, second, &[&scribe.device], clocks);
    }
    println!(
        "{} second devices: {:.1} s",
        seconds.len(),
        start.elapsed().as_secs_f64()
    );
    let said = hall.converse(count, TEXT_BYTES);
    hall.feed(&mut host, &scribes[0], &said, clocks);
    clocks.wall_ms = hall.clock_ms;
    drop(said);
    hall.invite = host.invite(hall.room, clocks);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut guest = Node::open(SqliteStore::open(&path).unwrap(), 2, "Guest", clocks);
    let mut line = Between::new();
    line.up(&mut host, &mut guest, clocks);
    line.settle(&mut host, &mut guest, &mut clocks);
    (host.busy, guest.busy) = (Duration::ZERO, Duration::ZERO);
    let (cpu, wall) = (cpu_ns(), Instant::now());
    let invite = hall.invite.clone();
    let (_, outputs) = guest.command(Command::Join { invite }, clocks);
    line.take(1, host.device, outputs, 0);
    loop {
        let page = last_page(&guest, hall.room);
        if !page.is_empty() && page == last_page(&host, hall.room) {
            break;
        }
        if !line.step(&mut host, &mut guest, clocks) {
            line.print_kinds();
            let (rooms, here) = (guest.peer.rooms().unwrap(), page.len());
            panic!("the page never came: {here} readable of {rooms:?}");
        }
    }
    guest.flush();
    let (cpu, wall) = (cpu_ns() - cpu, wall.elapsed());
    let busy = (host.busy, guest.busy);
    let at_page = guest.peer.rooms().unwrap()[0].entries;
    line.settle(&mut host, &mut guest, &mut clocks);
    let view = guest.peer.rooms().unwrap().remove(0);
    let devices: usize = guest
        .peer
        .members(hall.room)
        .unwrap()
        .unwrap()
        .iter()
        .map(|m| m.devices.len())
        .sum();
    assert_eq!(view.entries, count as u64);
    table_head();
    figure(
        "members / devices",
        "500 / 1000",
        &format!("{} / {devices}", view.members),
    );
    figure(
        "join to a readable last page, both peers, processor",
        "2 s",
        &format!("{:.2} s", cpu as f64 / 1e9),
    );
    figure("  by the wall", "2 s", &format!("{:.2} s", wall.as_secs_f64()));
    figure(
        "  host / guest",
        "-",
        &format!("{:.2} / {:.2} s", busy.0.as_secs_f64(), busy.1.as_secs_f64()),
    );
    figure("  messages here by then", "-", &at_page.to_string());
    figure(
        "until everything was here, guest",
        "-",
        &format!("{:.1} s", guest.busy.as_secs_f64()),
    );
    drop(guest);
    let here = std::env::current_exe().unwrap();
    let child = std::process::Command::new(here)
        .arg("--open")
        .arg(&path)
        .output()
        .unwrap();
    print!("{}", String::from_utf8_lossy(&child.stdout));
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
}

/// The texts of the messages among the newest lines: what the host shows there is what the guest must be able to read.
fn last_page<S: Store>(node: &Node<S>, room: RoomId) -> Vec<String> {
    let lines = node.peer.timeline(room, None, PAGE).unwrap().unwrap_or_default();
    let text = |line: LineView| match line {
        LineView::Entry(entry) if entry.kind == EntryKind::Message => Some(entry.text),
        _ => None,
    };
    lines.into_iter().filter_map(text).collect()
}

/// In a process of its own: opens the store, reads the last page, tells the memory.
fn reopen(path: &Path) {
    let start = Instant::now();
    let clocks = Clocks::start();
    let guest = Node::open(SqliteStore::open(path).unwrap(), 2, "Guest", clocks);
    let room = guest.peer.rooms().unwrap()[0].room;
    assert!(!last_page(&guest, room).is_empty());
    figure(
        "opened again, last page read",
        "-",
        &format!("{:.2} s", start.elapsed().as_secs_f64()),
    );
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    for (name, reach, what) in [
        ("VmRSS:", "150 MiB", "resident"),
        ("VmHWM:", "-", "resident at most, while opening"),
    ] {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        figure(what, reach, &format!("{:.1} MiB", kib / 1024.0));
    }
}
