//! Catching up: 100,000 entries of 200 authors, checked, decrypted and stored, in memory and on disk, with and without the text index.
//!
//! `bench_catchup [ENTRIES [VARIANT]]`
#![allow(clippy::unwrap_used, reason = "a bench")]

mod disk;
#[path = "../../proto/examples/world/mod.rs"]
mod world;

use std::collections::BTreeMap;
use std::time::Instant;

use disk::{Plain, cpu_ns};
use offhook_node::SqliteStore;
use offhook_proto::history::{Entry, LogKey};
use offhook_proto::store::MemoryStore;
use offhook_proto::wire::Wire;
use world::{Between, Bracket, Clocks, Hall, Node, Scribe, figure, table_head};

const MEMBERS: usize = 200;
const TEXT_BYTES: usize = 200;

struct Bench {
    host: Node<MemoryStore>,
    hall: Hall,
    feeder: Scribe,
    said: Vec<(LogKey, Entry)>,
    clocks: Clocks,
}

fn main() {
    let mut args = std::env::args().skip(1);
    let count: usize = args.next().map_or(100_000, |n| n.parse().unwrap());
    let variant = args.next();
    let is_chosen = |name: &str| variant.as_deref().is_none_or(|chosen| chosen == name);
    let mut clocks = Clocks::start();
    let mut host = Node::open(MemoryStore::default(), 1, "Host", clocks);
    let mut scribes: Vec<Scribe> = (0..MEMBERS as u32 - 2).map(Scribe::new).collect();
    let mut hall = Hall::open(&mut host, "square", &scribes, clocks);
    hall.clock_ms = hall.clock_ms.max(clocks.wall_ms);
    let said = hall.converse(count, TEXT_BYTES);
    let wire: usize = said.iter().map(|(_, entry)| entry.to_bytes().len()).sum();
    clocks.wall_ms = hall.clock_ms;
    let feeder = scribes.remove(0);
    let mut bench = Bench {
        host,
        hall,
        feeder,
        said,
        clocks,
    };
    let folder = tempfile::tempdir().unwrap();
    table_head();
    figure(
        "per entry on the wire beyond its text",
        "220 B",
        &format!("{:.1} B", wire as f64 / count as f64 - TEXT_BYTES as f64),
    );
    for (name, grouped) in [("interleaved", true), ("runs of one", false)] {
        if is_chosen("memory") {
            bench.run(&format!("{name}: in memory"), "-", MemoryStore::default(), grouped);
        }
        if is_chosen("plain") {
            let path = folder.path().join(format!("plain-{grouped}"));
            bench.run(
                &format!("{name}: on disk"),
                "20000 /s",
                Plain(SqliteStore::open(&path).unwrap()),
                grouped,
            );
        }
        if is_chosen("indexed") {
            let path = folder.path().join(format!("indexed-{grouped}"));
            bench.run(
                &format!("{name}: on disk, with the text index"),
                "5000 /s",
                SqliteStore::open(&path).unwrap(),
                grouped,
            );
            let bytes = std::fs::metadata(&path).unwrap().len();
            let each = bytes as f64 / count as f64;
            figure(
                "  at rest, beyond the text, with every index",
                "450 B",
                &format!("{:.1} B", each - TEXT_BYTES as f64),
            );
        }
    }
}

impl Bench {
    fn run<S: Bracket>(&mut self, what: &str, reach: &str, store: S, grouped: bool) {
        let mut clocks = Clocks::start();
        let mut guest = Node::open(store, 2, "Guest", clocks);
        let mut line = Between::new();
        line.up(&mut self.host, &mut guest, clocks);
        line.settle(&mut self.host, &mut guest, &mut clocks);
        line.join(&mut self.host, &mut guest, &self.hall.invite.clone(), &mut clocks);
        line.down(&mut self.host, &mut guest, clocks);
        let frames = self.hall.frames(&self.said, 512, grouped, &mut BTreeMap::new());
        clocks.wall_ms = self.clocks.wall_ms;
        let (cpu, wall) = (cpu_ns(), Instant::now());
        self.hall.feed_frames(&mut guest, &self.feeder, frames, clocks);
        let (cpu, wall) = (cpu_ns() - cpu, wall.elapsed());
        let here = guest.peer.rooms().unwrap()[0].entries;
        assert_eq!(here, self.said.len() as u64);
        let rate = |seconds: f64| here as f64 / seconds;
        let measured = format!(
            "{:.0} /s ({:.0} by wall)",
            rate(cpu as f64 / 1e9),
            rate(wall.as_secs_f64())
        );
        figure(what, reach, &measured);
    }
}
