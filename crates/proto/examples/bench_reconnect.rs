//! Coming back: what two peers that share 76 rooms of 2 to 200 members say to each other when nothing happened, and when
//! 1,000 entries in 20 of the rooms were missed.
#![allow(clippy::unwrap_used, reason = "a bench")]

mod world;

use std::time::Duration;

use offhook_proto::peer::{Command, Input};
use offhook_proto::store::MemoryStore;
use world::{Between, Clocks, Hall, Node, Scribe, figure, is_apart, table_head};

/// How many rooms of how many members: 76 rooms.
const MIX: [(usize, usize); 7] = [(30, 2), (16, 5), (12, 12), (8, 25), (5, 60), (3, 120), (2, 200)];
/// The two peers and at least the feeder take part in every room.
const PEERS: usize = 2;

fn main() {
    let mut clocks = Clocks::start();
    let mut host = Node::open(MemoryStore::default(), 1, "Host", clocks);
    let mut guest = Node::open(MemoryStore::default(), 2, "Guest", clocks);
    let scribes: Vec<Scribe> = (0..200).map(Scribe::new).collect();
    let mut line = Between::new();
    line.up(&mut host, &mut guest, clocks);
    line.settle(&mut host, &mut guest, &mut clocks);
    let mut halls = Vec::new();
    for (count, members) in MIX {
        for i in 0..count {
            // A room of two is the peers alone.
            let scribes = &scribes[..members - PEERS];
            let mut hall = Hall::open(&mut host, &format!("room {members}-{i}"), scribes, clocks);
            // An author's clock never goes back.
            hall.clock_ms = hall.clock_ms.max(clocks.wall_ms);
            if let Some(feeder) = scribes.first() {
                let said = hall.converse(members * 3, 200);
                hall.feed(&mut host, feeder, &said, clocks);
            }
            // A line of its own for each join: a peer hears only so many knocks on one.
            line.down(&mut host, &mut guest, clocks);
            line.up(&mut host, &mut guest, clocks);
            line.join(&mut host, &mut guest, &hall.invite.clone(), &mut clocks);
            halls.push(hall);
        }
    }
    let rooms = guest.peer.rooms().unwrap();
    assert_eq!(rooms.len(), 76);
    let memberships: usize = rooms.iter().map(|room| room.members).sum();
    println!("{} rooms, {memberships} memberships", rooms.len());

    rest(&mut host, &mut guest, &mut line, &mut clocks);
    line.down(&mut host, &mut guest, clocks);
    line.sent.clear();
    line.up(&mut host, &mut guest, clocks);
    line.settle(&mut host, &mut guest, &mut clocks);
    line.print_kinds();
    let (out, back) = (line.bytes(0, |s| !is_apart(s)), line.bytes(1, |s| !is_apart(s)));
    let depth = line
        .sent
        .iter()
        .filter(|sent| !is_apart(sent))
        .map(|sent| sent.depth)
        .max();
    let apart = line.bytes(0, is_apart) + line.bytes(1, is_apart);
    let before = (out, back, depth.unwrap_or(0), apart);

    line.down(&mut host, &mut guest, clocks);
    let spread: Vec<usize> = (0..20).map(|i| i * 75 / 19).collect();
    let spread = miss(
        &mut host,
        &mut guest,
        &mut line,
        &mut halls,
        &scribes[0],
        &spread,
        &mut clocks,
    );
    line.down(&mut host, &mut guest, clocks);
    let largest: Vec<usize> = (56..76).collect();
    let largest = miss(
        &mut host,
        &mut guest,
        &mut line,
        &mut halls,
        &scribes[0],
        &largest,
        &mut clocks,
    );

    line.down(&mut host, &mut guest, clocks);
    let moved = moved_and_read(&mut host, &mut guest, &mut line, &mut clocks);

    table_head();
    figure(
        "76 rooms unchanged: bytes from the one / the other",
        "1300 B each",
        &format!("{} / {} B", before.0, before.1),
    );
    figure(
        "frames that wait for another (1: all go at once)",
        "1",
        &before.2.to_string(),
    );
    figure(
        "addresses and receipts, both ways, apart",
        "-",
        &format!("{} B", before.3),
    );
    figure(
        "unchanged but moved, 20 rooms read: addresses, both ways",
        "-",
        &format!("{} B", moved[0]),
    );
    figure("  receipts, both ways", "-", &format!("{} B", moved[1]));
    figure("  all else, both ways", "-", &format!("{} B", moved[2]));
    figure(
        "naive: every room's vector with whole keys",
        "-",
        &format!("{} B", memberships * 36),
    );
    for (which, missed) in [("20 rooms across the mix", spread), ("the 20 largest rooms", largest)] {
        figure(
            &format!("1,000 missed in {which}: beyond the entries"),
            "5000 B",
            &format!("{} B", missed.beyond),
        );
        figure("  of that the two hellos", "-", &format!("{} B", missed.hellos));
        figure("  the entries themselves", "-", &format!("{} B", missed.entries));
        figure(
            "  frames one after the other until the last entry",
            "-",
            &missed.depth.to_string(),
        );
        figure(
            "  addresses and receipts, both ways, apart",
            "-",
            &format!("{} B", missed.apart),
        );
    }
}

/// Leaves the line up for some minutes, so that both have compared twice and know what receipts the other was given.
fn rest(host: &mut Node<MemoryStore>, guest: &mut Node<MemoryStore>, line: &mut Between, clocks: &mut Clocks) {
    for _ in 0..20 {
        line.settle(host, guest, clocks);
    }
}

/// How many rooms somebody looked into while offline.
const READ: usize = 20;

/// What comes on top in life: both have other addresses than before, and the guest has read what had come in some of the rooms. Bytes of addresses, of
/// receipts, and of all else.
fn moved_and_read(
    host: &mut Node<MemoryStore>,
    guest: &mut Node<MemoryStore>,
    line: &mut Between,
    clocks: &mut Clocks,
) -> [usize; 3] {
    let rooms = guest.peer.rooms().unwrap();
    let unread = rooms.iter().filter(|room| room.unread > 0 && room.members <= 50);
    let newest: Vec<_> = unread
        .filter_map(|room| Some((room.room, room.newest?)))
        .take(READ)
        .collect();
    assert_eq!(newest.len(), READ);
    for (room, up_to) in newest {
        let _ = guest.command(Command::MarkRead { room, up_to }, *clocks);
    }
    for (node, last) in [(&mut *host, 7), (&mut *guest, 8)] {
        let address = |net: u8| format!("{net}.0.2.{last}:4433").parse().unwrap();
        let own = Input::OwnAddresses {
            addresses: vec![address(192), address(10)],
            relay: None,
        };
        let _ = node.input(own, *clocks);
    }
    // The receipts' own deadline.
    clocks.pass(Duration::from_secs(2));
    let _ = guest.input(Input::Timeout, *clocks);
    line.sent.clear();
    line.up(host, guest, *clocks);
    line.settle(host, guest, clocks);
    line.print_kinds();
    let of = |counts: &dyn Fn(&str) -> bool| {
        line.bytes(0, |sent| counts(sent.kind)) + line.bytes(1, |sent| counts(sent.kind))
    };
    [
        of(&|kind| kind == "Addresses"),
        of(&|kind| kind == "Receipts"),
        of(&|kind| kind != "Addresses" && kind != "Receipts"),
    ]
}

/// What it took to get back in step.
struct Missed {
    beyond: usize,
    hellos: usize,
    entries: usize,
    depth: u32,
    apart: usize,
}

/// Lets 50 entries be written in each of these rooms while the guest is away, and brings it back.
fn miss(
    host: &mut Node<MemoryStore>,
    guest: &mut Node<MemoryStore>,
    line: &mut Between,
    halls: &mut [Hall],
    feeder: &Scribe,
    rooms: &[usize],
    clocks: &mut Clocks,
) -> Missed {
    for room in rooms {
        let hall = &mut halls[*room];
        if hall.pens.is_empty() {
            // A room of two: the host itself writes.
            for _ in 0..50 {
                let text = hall.text(200);
                host.say(hall.room, text, *clocks);
            }
            continue;
        }
        hall.clock_ms = hall.clock_ms.max(clocks.wall_ms);
        let said = hall.converse(50, 200);
        hall.feed(host, feeder, &said, *clocks);
    }
    line.sent.clear();
    line.up(host, guest, *clocks);
    line.settle(host, guest, clocks);
    line.print_kinds();
    let brought: usize = line.sent.iter().map(|sent| sent.entries).sum();
    assert_eq!(brought, 50 * rooms.len());
    let all = line.bytes(0, |s| !is_apart(s)) + line.bytes(1, |s| !is_apart(s));
    let entries: usize = line.sent.iter().map(|sent| sent.entry_bytes).sum();
    let carrying = line.sent.iter().filter(|sent| sent.entries > 0);
    let missed = Missed {
        beyond: all - entries,
        hellos: line.bytes(0, |s| s.kind == "Hello") + line.bytes(1, |s| s.kind == "Hello"),
        entries,
        depth: carrying.map(|sent| sent.depth).max().unwrap_or(0),
        apart: line.bytes(0, is_apart) + line.bytes(1, is_apart),
    };
    rest(host, guest, line, clocks);
    missed
}
