//! A removal made on one side of a partition: who knew of it is not read by the removed, and both sides agree afterwards.

mod net;

use net::Net;
use offhook_proto::peer::Command;

#[test]
fn nobody_who_knew_is_read_and_all_agree_after_healing() {
    let mut net = Net::new(1);
    let (ada, bob, eve, dan) = (net.add("Ada"), net.add("Bob"), net.add("Eve"), net.add("Dan"));
    let room = net.room(ada, "kitchen");
    for peer in [bob, eve, dan] {
        net.join(ada, peer, room);
    }
    net.split(&[&[ada, bob], &[eve, dan]]);
    let person = net.person(eve);
    net.command(ada, Command::RemoveMember { room, person }).unwrap();
    net.settle();
    net.say(bob, room, "Eve must not read this");
    let unaware = net.say(dan, room, "Dan does not know yet");
    let late = net.say(eve, room, "Eve goes on");
    net.settle();

    net.heal();
    net.settle();
    net.pass(std::time::Duration::from_secs(120));
    assert_eq!(net.texts(ada, room), net.texts(bob, room));
    assert_eq!(net.texts(ada, room), net.texts(dan, room));
    assert!(net.texts(dan, room).contains(&"Eve must not read this".to_owned()));
    assert!(!net.texts(eve, room).contains(&"Eve must not read this".to_owned()));
    assert!(net.texts(eve, room).contains(&"Dan does not know yet".to_owned()));
    let entry = net.peer(ada).entry(unaware).unwrap().unwrap();
    assert!(!entry.after_removal);
    let entry = net.peer(ada).entry(late).unwrap().unwrap();
    assert!(
        entry.after_removal,
        "what the removed said without anybody's knowledge is marked"
    );
    for peer in [ada, bob, dan] {
        assert_eq!(net.peer(peer).members(room).unwrap().unwrap().len(), 3);
    }
}

/// Kinds of frames: entries, and what there is to fetch.
const ENTRIES: u8 = 6;
const HAVE: u8 = 8;

#[test]
fn keys_are_not_handed_on_by_who_has_not_heard_yet_whom_they_are_kept_from() {
    let mut net = Net::new(4);
    let [ada, bob, cat, eve, finn] = ["Ada", "Bob", "Cat", "Eve", "Finn"].map(|name| net.add(name));
    let room = net.room(ada, "kitchen");
    for peer in [bob, cat, eve] {
        net.join(ada, peer, room);
    }
    net.split(&[&[ada], &[bob, cat, eve, finn]]);
    let person = net.person(eve);
    net.command(ada, Command::RemoveMember { room, person }).unwrap();
    net.settle();
    // Bob does not hear of Finn, so the keys that he makes are not sealed to him; Cat does not hear what Bob learns from others.
    for other in [eve, finn] {
        net.forbid(bob, other);
    }
    net.swallowed
        .extend([(cat, bob, HAVE), (cat, bob, ENTRIES), (bob, cat, HAVE)]);
    net.join(cat, finn, room);
    net.allow(ada, bob);
    net.drain();
    net.say(bob, room, "Eve must not read this");
    net.settle();
    let shown = |net: &Net, at| net.texts(at, room).contains(&"Eve must not read this".to_owned());
    let persons = net.peer(cat).members(room).unwrap().unwrap();
    assert!(
        persons.iter().any(|member| member.person == person),
        "Cat has not heard of the removal"
    );
    assert!(shown(&net, cat), "and can read what Bob said");
    assert!(!shown(&net, eve));

    net.swallowed.clear();
    net.heal();
    net.pass(std::time::Duration::from_secs(120));
    for peer in [ada, bob, cat, finn] {
        assert!(shown(&net, peer), "{peer} does not read it");
        assert_eq!(net.peer(peer).members(room).unwrap().unwrap().len(), 4);
    }
    assert!(!shown(&net, eve));
}

#[test]
fn an_invite_used_twice_across_a_partition_lets_in_one() {
    use offhook_proto::peer::Reply;
    use offhook_proto::rooms::Role;
    let mut net = Net::new(2);
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
        panic!()
    };
    net.settle();
    assert!(
        invite.doorways.len() >= 2,
        "other members are named as well: {invite:?}"
    );
    net.split(&[&[ada, eve], &[bob, dan]]);
    net.command(eve, Command::Join { invite: invite.clone() }).unwrap();
    net.command(dan, Command::Join { invite }).unwrap();
    net.settle();
    assert_eq!(net.peer(ada).members(room).unwrap().unwrap().len(), 3);
    assert_eq!(net.peer(bob).members(room).unwrap().unwrap().len(), 3);
    net.heal();
    net.settle();
    net.say(ada, room, "who is here?");
    net.settle();
    let (a, b) = (
        net.peer(ada).members(room).unwrap().unwrap(),
        net.peer(bob).members(room).unwrap().unwrap(),
    );
    assert_eq!(a.len(), 3, "one of the two is out again: {a:?}");
    let persons =
        |members: &[offhook_proto::peer::view::MemberView]| members.iter().map(|m| m.person).collect::<Vec<_>>();
    assert_eq!(persons(&a), persons(&b));
    let readers = [eve, dan]
        .into_iter()
        .filter(|p| net.texts(*p, room).contains(&"who is here?".to_owned()))
        .count();
    assert_eq!(readers, 1, "and reads nothing more");
}

#[test]
fn two_sides_that_both_made_new_keys_find_each_other_again() {
    let mut net = Net::new(3);
    let peers: Vec<usize> = ["Ada", "Bob", "Eve", "Dan"].map(|name| net.add(name)).to_vec();
    let room = net.room(peers[0], "kitchen");
    for peer in &peers[1..] {
        net.join(peers[0], *peer, room);
    }
    let person = net.person(peers[2]);
    let role = offhook_proto::rooms::Role::Owner;
    net.command(peers[0], Command::SetRole { room, person, role }).unwrap();
    net.settle();
    net.split(&[&peers[..2], &peers[2..]]);
    let (bob, dan) = (net.person(peers[1]), net.person(peers[3]));
    net.command(peers[0], Command::RemoveMember { room, person: dan })
        .unwrap();
    net.command(peers[2], Command::RemoveMember { room, person: bob })
        .unwrap();
    net.say(peers[0], room, "from Ada");
    net.say(peers[2], room, "from Eve");
    net.heal();
    net.settle();
    net.say(peers[0], room, "together");
    net.settle();
    let texts = net.texts(peers[0], room);
    assert_eq!(texts.len(), 3, "{texts:?}");
    assert_eq!(net.texts(peers[2], room), texts);
    assert_eq!(net.peer(peers[0]).members(room).unwrap().unwrap().len(), 2);
}
