//! Who floods a room fills nobody's disk: beyond a quota messages come slowly, what decides the membership at once.

mod net;

use std::time::Duration;

use net::Net;
use offhook_proto::peer::{Command, Event, QUOTA_BYTES_PER_SECOND};
use offhook_proto::rooms::Role;

/// About ten messages of a thousand bytes.
const BURST: u64 = 14_000;

fn flood(net: &mut Net, at: usize, room: offhook_proto::history::RoomId, count: usize) {
    for number in 0..count {
        net.say(at, room, &format!("{number} {}", "x".repeat(1_000)));
    }
    net.settle();
}

#[test]
fn beyond_a_quota_messages_come_slowly_and_control_entries_at_once() {
    let mut net = Net::new(1);
    let ([ada, bob, cleo], room) = net.kitchen_of(["Ada", "Bob", "Cleo"]);
    let person = net.person(bob);
    let role = Role::Admin;
    net.command(ada, Command::SetRole { room, person, role }).unwrap();
    net.settle();
    net.nodes[cleo].peer.set_quota_burst(BURST);
    flood(&mut net, bob, room, 40);

    let taken = net.texts(cleo, room).len();
    assert!((5..30).contains(&taken), "{taken} were taken");
    assert_eq!(net.texts(ada, room).len(), 40, "others have quotas of their own");
    let noticed = |event: &&(usize, Event)| event.0 == cleo && matches!(event.1, Event::Notice { .. });
    assert_eq!(net.events.iter().filter(noticed).count(), 1);

    let name = "cellar".to_owned();
    net.command(bob, Command::RenameRoom { room, name }).unwrap();
    net.say(ada, room, "still here");
    net.settle();
    let view = net.peer(cleo).room(room).unwrap().unwrap();
    assert_eq!(view.name, "cellar", "what the flooder decides is known");
    assert!(
        net.texts(cleo, room).contains(&"still here".to_owned()),
        "others are heard"
    );

    // It is also so for who was away meanwhile and is asked for what it lacks.
    net.offline(cleo);
    net.command(
        bob,
        Command::RenameRoom {
            room,
            name: "attic".to_owned(),
        },
    )
    .unwrap();
    flood(&mut net, bob, room, 5);
    net.online(cleo);
    net.settle();
    assert_eq!(net.peer(cleo).room(room).unwrap().unwrap().name, "attic");
    // A few more than before, for a quota grows with time.
    let taken = net.texts(cleo, room).len();
    assert!(taken < 40, "{taken} of 46 were taken");

    let all = net.texts(ada, room).len();
    for _ in 0..60 * 40_000 / QUOTA_BYTES_PER_SECOND / 30 {
        net.pass(Duration::from_secs(30));
        net.settle();
    }
    assert_eq!(net.texts(cleo, room).len(), all, "in the end nothing is missing");
    assert_eq!(net.texts(cleo, room), net.texts(ada, room));
}

#[test]
fn what_was_left_for_later_is_had_from_whoever_brought_it() {
    let mut net = Net::new(2);
    let (bob, cleo) = (net.add("Bob"), net.add("Cleo"));
    let room = net.room(bob, "kitchen");
    net.join(bob, cleo, room);
    net.nodes[cleo].peer.set_quota_burst(BURST);
    for round in 0..4 {
        flood(&mut net, bob, room, 20);
        net.pass(Duration::from_secs(300 * round));
        net.offline(cleo);
        flood(&mut net, bob, room, 3);
        net.online(cleo);
        net.settle();
    }
    net.pass(Duration::from_secs(3_600));
    assert_eq!(net.texts(cleo, room).len(), 92);
    assert_eq!(net.texts(cleo, room), net.texts(bob, room));
}
