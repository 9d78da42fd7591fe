//! 100 entries missing of 100,000 in a room of 200: what is said to find and fetch them, beside `negentropy` on the same sets.
#![allow(clippy::unwrap_used, reason = "a bench")]

mod world;

use negentropy::{Id, Negentropy, NegentropyStorageVector};
use offhook_proto::history::{Entry, LogKey};
use offhook_proto::store::MemoryStore;
use world::{Between, Clocks, Hall, Node, Scribe, figure, is_apart, table_head};

const MEMBERS: u32 = 200;
const ENTRIES: usize = 100_000;
const MISSING: usize = 100;

fn main() {
    let scribes: Vec<Scribe> = (0..MEMBERS - 2).map(Scribe::new).collect();
    table_head();
    for scattered in [false, true] {
        let name = if scattered { "scattered" } else { "tail" };
        let mut clocks = Clocks::start();
        let mut host = Node::open(MemoryStore::default(), 1, "Host", clocks);
        let mut guest = Node::open(MemoryStore::default(), 2, "Guest", clocks);
        let mut hall = Hall::open(&mut host, "square", &scribes, clocks);
        let mut line = Between::new();
        line.up(&mut host, &mut guest, clocks);
        line.settle(&mut host, &mut guest, &mut clocks);
        line.join(&mut host, &mut guest, &hall.invite.clone(), &mut clocks);
        line.down(&mut host, &mut guest, clocks);
        hall.clock_ms = hall.clock_ms.max(clocks.wall_ms);
        let said = hall.converse(ENTRIES, 40);
        clocks.wall_ms = hall.clock_ms;
        let is_missing = |i: usize| {
            if scattered {
                // Multiplying by a number without common factors spreads them.
                (i * 7_919) % ENTRIES < MISSING
            } else {
                i >= ENTRIES - MISSING
            }
        };
        let (missing, common) = split(said, is_missing);
        hall.feed(&mut host, &scribes[0], &common, clocks);
        hall.feed(&mut guest, &scribes[0], &common, clocks);
        // They agree on what both hold, and part.
        line.up(&mut host, &mut guest, clocks);
        line.settle(&mut host, &mut guest, &mut clocks);
        line.down(&mut host, &mut guest, clocks);
        hall.feed(&mut host, &scribes[0], &missing, clocks);

        line.sent.clear();
        line.up(&mut host, &mut guest, clocks);
        line.settle(&mut host, &mut guest, &mut clocks);
        line.print_kinds();
        let brought: usize = line.sent.iter().map(|sent| sent.entries).sum();
        assert_eq!(brought, MISSING);
        let of = |kinds: &[&str]| {
            let counted = line.sent.iter().filter(|sent| kinds.contains(&sent.kind));
            counted.map(|sent| sent.bytes - sent.entry_bytes).sum::<usize>()
        };
        let reach = if scattered { "600 B" } else { "300 B" };
        let find = of(&["Summary", "Want", "WantAll", "NoBase"]);
        figure(
            &format!("{name}: to find what is missing and ask for it"),
            reach,
            &format!("{find} B"),
        );
        let frame = of(&["Entries", "InStep", "Have"]);
        figure(
            &format!("{name}: framing of the entries, and the end of it"),
            "-",
            &format!("{frame} B"),
        );
        let all = line
            .sent
            .iter()
            .filter(|sent| !is_apart(sent))
            .map(|sent| sent.bytes - sent.entry_bytes);
        figure(
            &format!("{name}: all, with both hellos"),
            "-",
            &format!("{} B", all.sum::<usize>()),
        );
        let (bytes, trips) = reconcile(&common, &missing);
        figure(
            &format!("{name}: negentropy 0.5.3, bytes / round trips"),
            "-",
            &format!("{bytes} B / {trips}"),
        );
    }
}

/// Entries and the logs that they stand in.
type Entries = Vec<(LogKey, Entry)>;

fn split(said: Vec<(LogKey, Entry)>, is_missing: impl Fn(usize) -> bool) -> (Entries, Entries) {
    let (mut missing, mut common) = (Vec::new(), Vec::new());
    for (i, one) in said.into_iter().enumerate() {
        if is_missing(i) {
            missing.push(one)
        } else {
            common.push(one)
        }
    }
    (missing, common)
}

/// The same two sets by range-based set reconciliation: bytes both ways, round trips.
fn reconcile(common: &[(LogKey, Entry)], missing: &[(LogKey, Entry)]) -> (usize, usize) {
    let mut behind = NegentropyStorageVector::new();
    let mut ahead = NegentropyStorageVector::new();
    let id = |(log, entry): &(LogKey, Entry)| Id::from_byte_array(entry.header.hash(log));
    for one in common {
        behind.insert(one.1.header.clock.ms() / 1000, id(one)).unwrap();
        ahead.insert(one.1.header.clock.ms() / 1000, id(one)).unwrap();
    }
    for one in missing {
        ahead.insert(one.1.header.clock.ms() / 1000, id(one)).unwrap();
    }
    behind.seal().unwrap();
    ahead.seal().unwrap();
    let mut asks = Negentropy::owned(behind, 0).unwrap();
    let mut answers = Negentropy::owned(ahead, 0).unwrap();
    let mut query = asks.initiate().unwrap();
    let (mut bytes, mut trips, mut needed) = (0, 0, Vec::new());
    loop {
        trips += 1;
        let answer = answers.reconcile(&query).unwrap();
        bytes += query.len() + answer.len();
        match asks.reconcile_with_ids(&answer, &mut Vec::new(), &mut needed).unwrap() {
            Some(next) => query = next,
            None => break,
        }
    }
    assert_eq!(needed.len(), missing.len());
    (bytes, trips)
}
