//! Somebody let in by a member who is being removed at the same time: the admission does not count, and the newcomer is told and can come again. And the
//! other way round: whoever was let in by a member that nobody has heard from since is believed.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod net;

use std::time::Duration;

use net::Net;
use offhook_proto::history::RoomId;
use offhook_proto::peer::view::Standing;
use offhook_proto::peer::{Command, CommandError, Reply};
use offhook_proto::rooms::Role;

/// Ada and Bob on one side, Eve and Dan on the other; Eve lets Dan in.
fn parted(net: &mut Net) -> ([usize; 4], RoomId) {
    let (ada, bob, eve, dan) = (net.add("Ada"), net.add("Bob"), net.add("Eve"), net.add("Dan"));
    let room = net.room(ada, "kitchen");
    net.join(ada, bob, room);
    net.join(ada, eve, room);
    net.say(ada, room, "before");
    net.settle();
    net.split(&[&[ada, bob], &[eve, dan]]);
    net.join(eve, dan, room);
    ([ada, bob, eve, dan], room)
}

fn standing(net: &Net, at: usize, room: RoomId) -> (Standing, Option<String>) {
    let views = net.peer(at).rooms().unwrap();
    let view = views.into_iter().find(|view| view.room == room).unwrap();
    (view.standing, view.why_out)
}

fn remove(net: &mut Net, by: usize, whom: usize, room: RoomId) {
    let person = net.person(whom);
    net.command(by, Command::RemoveMember { room, person }).unwrap();
    net.settle();
}

fn is_out(net: &Net, [ada, bob, _, dan]: [usize; 4], room: RoomId) {
    for peer in [ada, bob] {
        assert_eq!(net.peer(peer).members(room).unwrap().unwrap().len(), 2);
    }
    let (standing, why) = standing(net, dan, room);
    assert_eq!(standing, Standing::Removed);
    assert!(why.unwrap().contains("ask a member for a new invite"));
}

#[test]
fn the_newcomer_is_told_why_and_comes_again() {
    let mut net = Net::new(1);
    let (nodes, room) = parted(&mut net);
    let [ada, _, eve, dan] = nodes;
    remove(&mut net, ada, eve, room);
    net.say(dan, room, "into the void");
    net.heal();
    net.pass(Duration::from_secs(120));
    is_out(&net, nodes, room);
    let refused = net.command(
        dan,
        Command::RenameRoom {
            room,
            name: "mine".into(),
        },
    );
    assert!(matches!(refused, Err(CommandError::NoLongerMember)), "{refused:?}");
    // A new process knows it as well.
    net.offline(dan);
    let store = net.nodes[dan].peer.store_mut().clone();
    net.reopen(dan, store);
    is_out(&net, nodes, room);
    net.online(dan);
    net.settle();
    is_out(&net, nodes, room);

    net.join(ada, dan, room);
    net.say(ada, room, "welcome back");
    net.settle();
    assert_eq!(standing(&net, dan, room), (Standing::Member, None));
    assert!(net.texts(dan, room).contains(&"welcome back".to_owned()));
}

#[test]
fn the_newcomer_is_told_even_where_nobody_else_was_there() {
    let mut net = Net::new(2);
    let (nodes, room) = parted(&mut net);
    let [ada, _, eve, _] = nodes;
    remove(&mut net, ada, eve, room);
    // Eve never meets anybody again; only Dan knows that Dan was let in.
    net.offline(eve);
    net.heal();
    net.pass(Duration::from_secs(120));
    is_out(&net, nodes, room);
}

#[test]
fn who_was_let_in_by_somebody_unheard_of_since_is_believed() {
    let mut net = Net::new(3);
    let ([ada, bob, eve, dan], room) = parted(&mut net);
    net.offline(eve);
    let said = net.say(dan, room, "Eve let me in");
    net.heal();
    net.pass(Duration::from_secs(900));
    net.say(ada, room, "then you are welcome");
    net.settle();
    for peer in [ada, bob, dan] {
        assert_eq!(net.peer(peer).members(room).unwrap().unwrap().len(), 4);
        assert!(net.peer(peer).entry(said).unwrap().is_some());
        assert!(net.texts(peer, room).contains(&"then you are welcome".to_owned()));
    }
}

#[test]
fn whoever_comes_too_late_with_an_invite_for_one_is_told() {
    let mut net = Net::new(4);
    let (ada, bob, eve, dan) = (net.add("Ada"), net.add("Bob"), net.add("Eve"), net.add("Dan"));
    let room = net.room(ada, "kitchen");
    net.join(ada, bob, room);
    let invite = Command::Invite {
        room,
        expires_s: 3600,
        uses: 1,
        role: Role::Member,
        only_me: false,
    };
    let Ok(Reply::Invite(invite)) = net.command(ada, invite) else {
        panic!("no invite")
    };
    net.settle();
    net.split(&[&[ada, eve], &[bob, dan]]);
    net.command(eve, Command::Join { invite: invite.clone() }).unwrap();
    net.command(dan, Command::Join { invite }).unwrap();
    net.settle();
    net.heal();
    net.pass(Duration::from_secs(120));
    let out = [eve, dan].map(|peer| standing(&net, peer, room));
    let told = out.iter().filter(|(standing, _)| *standing == Standing::Removed);
    let told: Vec<_> = told.collect();
    assert_eq!(told.len(), 1, "{out:?}");
    assert!(told[0].1.as_ref().unwrap().contains("used up by others"));
}
