//! Two who share nothing but a room of two find each other again by asking the people around them, when one has moved.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod net;

use std::time::Duration;

use net::Net;
use offhook_proto::history::RoomId;
use offhook_proto::peer::{Command, Reply};

/// The tag of `Seek`.
const SEEK: u8 = 23;

/// Ada and Zoe at the ends, circles between them, each sharing a person or more with the next.
struct Town {
    net: Net,
    ada: usize,
    zoe: usize,
    pair: RoomId,
    /// Those in between.
    others: Vec<usize>,
}

fn town() -> Town {
    let mut net = Net::new(1);
    let ada = net.add("Ada");
    let near: Vec<usize> = (0..8).map(|n| net.add(&format!("Near {n}"))).collect();
    let far: Vec<usize> = (0..8).map(|n| net.add(&format!("Far {n}"))).collect();
    let zoe = net.add("Zoe");
    // Where they met.
    let party = net.room(ada, "party");
    net.join(ada, zoe, party);
    let person = net.person(zoe);
    let Ok(Reply::Room(pair)) = net.command(ada, Command::Chat { person }) else {
        panic!("no room of two");
    };
    net.say(ada, pair, "well met");
    net.settle();
    net.command(zoe, Command::LeaveRoom { room: party }).unwrap();
    net.settle();
    let mut circle = |name: &str, members: &[usize]| {
        let room = net.room(members[0], name);
        for member in &members[1..] {
            net.join(members[0], *member, room);
        }
    };
    circle("street", &[&[ada], &near[..]].concat());
    for (at, pair) in near.iter().zip(&far).enumerate() {
        circle(&format!("bridge {at}"), &[*pair.0, *pair.1]);
    }
    circle("village", &[&[zoe], &far[..]].concat());
    let others = [near, far].concat();
    Town {
        net,
        ada,
        zoe,
        pair,
        others,
    }
}

/// Zoe moves, is found by her village, and Ada writes to her.
fn zoe_is_written_to(town: &mut Town) -> bool {
    let net = &mut town.net;
    net.forbid(town.ada, town.zoe);
    net.moves(town.zoe, "203.0.113.99:4433");
    for other in &town.others {
        // Zoe can call them as before.
        net.connect(town.zoe, *other);
    }
    net.settle();
    net.hide(town.ada);
    net.unbar(town.ada, town.zoe);
    net.say(town.ada, town.pair, "where are you?");
    net.pass(Duration::from_secs(40));
    net.texts(town.zoe, town.pair).contains(&"where are you?".to_owned())
}

#[test]
fn a_large_room_with_nobody_there_is_not_asked_for_all_at_once() {
    let mut net = Net::new(2);
    let members: Vec<usize> = (0..20).map(|n| net.add(&format!("Member {n}"))).collect();
    let (ada, bob) = (members[0], members[1]);
    let crowd = net.room(ada, "crowd");
    for member in &members[2..] {
        net.join(ada, *member, crowd);
    }
    let pair = net.room(ada, "other");
    net.join(ada, bob, pair);
    for member in &members[2..] {
        net.offline(*member);
    }
    net.pass(Duration::from_secs(300));
    net.sent.clear();
    net.say(ada, crowd, "is anybody there?");
    net.pass(Duration::from_secs(60));
    let asked = net
        .sent
        .iter()
        .filter(|(from, _, bytes)| *from == ada && bytes[0] == SEEK);
    let asked = asked.count();
    assert!((1..=3 * 8).contains(&asked), "{asked} questions");
}

#[test]
fn who_has_moved_is_found_by_asking_around() {
    let mut town = town();
    assert!(zoe_is_written_to(&mut town));
}

#[test]
fn where_all_lie_nobody_is_found_and_nobody_misled() {
    let mut town = town();
    town.net.liars = town.others.iter().copied().collect();
    assert!(
        !zoe_is_written_to(&mut town),
        "the control: there is no other way than asking"
    );
    let place = town.net.place_known(town.ada, town.zoe);
    assert_eq!(place, ["192.0.2.18:4433"], "the last true word");
}

#[test]
fn liars_keep_nobody_from_being_found_who_is_known_to_others() {
    let mut town = town();
    // Every second way is a liar's.
    town.net.liars = town.others.iter().copied().step_by(2).collect();
    assert!(zoe_is_written_to(&mut town));
}

#[test]
fn where_all_but_a_few_lie_a_look_up_may_fail_and_never_misleads() {
    let mut town = town();
    town.net.liars = town.others.iter().copied().filter(|other| other % 10 != 0).collect();
    let found = zoe_is_written_to(&mut town);
    let (ada, zoe) = (town.ada, town.zoe);
    let place = town.net.place_known(ada, zoe);
    let truth = ["192.0.2.18:4433", "203.0.113.99:4433"];
    assert!(place.iter().all(|at| truth.contains(&at.as_str())), "{place:?}");
    assert!(found || !place.contains(&truth[1].to_owned()));
    // Who is not found stays sought: once honest people are asked, Zoe is there.
    town.net.liars.clear();
    town.net.pass(Duration::from_secs(90));
    let texts = town.net.texts(zoe, town.pair);
    assert!(texts.contains(&"where are you?".to_owned()));
}
