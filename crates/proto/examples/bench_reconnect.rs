//! Coming back: what two peers that share 76 rooms of 2 to 200 members say to each other when nothing happened, and when
//! 1,000 entries in 20 of the rooms were missed.
#![allow(clippy::unwrap_used, reason = "a bench")]

mod world;

use world::{Between, Clocks, Hall, Node, Scribe, figure, is_apart, table_head};
use offhook_proto::store::MemoryStore;

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
            hall.clock_ms = clocks.wall_ms;
            if let Some(feeder) = scribes.first() {
                let said = hall.converse(members * 3, 200);
                hall.feed(&mut host, feeder, &said, clocks);
            }
            line.join(&mut host, &mut guest, &hall.invite.clone(), &mut clocks);
            halls.push(hall);
        }
    }
    let rooms = guest.peer.rooms().unwrap();
    assert_eq!(rooms.len(), 76);
    let memberships: usize = rooms.iter().map(|room| room.members).sum();
    println!("{} rooms, {memberships} memberships", rooms.len());

    line.down(&mut host, &mut guest, clocks);
    line.sent.clear();
    line.up(&mut host, &mut guest, clocks);
    line.settle(&mut host, &mut guest, &mut clocks);
    line.print_kinds();
    let (out, back) = (line.bytes(0, |s| !is_apart(s)), line.bytes(1, |s| !is_apart(s)));
    let depth = line.sent.iter().filter(|sent| !is_apart(sent)).map(|sent| sent.depth).max();
    let apart = line.bytes(0, is_apart) + line.bytes(1, is_apart);
    let before = (out, back, depth.unwrap_or(0), apart);

    line.down(&mut host, &mut guest, clocks);
    let mut missed = 0;
    for hall in halls.iter_mut().filter(|hall| !hall.pens.is_empty()).rev().step_by(2).take(20) {
        hall.clock_ms = clocks.wall_ms;
        let said = hall.converse(50, 200);
        missed += said.len();
        hall.feed(&mut host, &scribes[0], &said, clocks);
    }
    line.sent.clear();
    line.up(&mut host, &mut guest, clocks);
    line.settle(&mut host, &mut guest, &mut clocks);
    line.print_kinds();
    let brought: usize = line.sent.iter().map(|sent| sent.entries).sum();
    assert_eq!((missed, brought), (1_000, 1_000));
    let all = line.bytes(0, |s| !is_apart(s)) + line.bytes(1, |s| !is_apart(s));
    let entries: usize = line.sent.iter().map(|sent| sent.entry_bytes).sum();
    let last = line.sent.iter().filter(|sent| sent.entries > 0).map(|sent| sent.depth).max();
    let apart = line.bytes(0, is_apart) + line.bytes(1, is_apart);

    table_head();
    figure("76 rooms unchanged: bytes from the one / the other", "1300 B each", &format!("{} / {} B", before.0, before.1));
    figure("frames that wait for another (1: all go at once)", "1", &before.2.to_string());
    figure("addresses and receipts, both ways, apart", "-", &format!("{} B", before.3));
    figure("naive: every room's vector with whole keys", "-", &format!("{} B", memberships * 36));
    figure("1,000 missed in 20 of 76 rooms: beyond the entries", "5000 B", &format!("{} B", all - entries));
    figure("the entries themselves", "-", &format!("{entries} B"));
    figure("frames one after the other until the last entry", "-", &last.unwrap_or(0).to_string());
    figure("addresses and receipts, both ways, apart", "-", &format!("{apart} B"));
}
