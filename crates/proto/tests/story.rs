//! The story: one is away while the others talk, the others leave, and who comes back gets everything.

mod net;

use net::Net;
use offhook_proto::peer::{Command, Reply};

#[test]
fn who_comes_back_gets_everything_from_whoever_holds_it() {
    let mut net = Net::new(1);
    let (ada, bob, eve) = (net.add("Ada"), net.add("Bob"), net.add("Eve"));
    let room = net.room(ada, "kitchen");
    net.join(ada, bob, room);
    net.join(ada, eve, room);
    net.say(ada, room, "hello everybody");
    net.settle();
    assert_eq!(net.texts(eve, room), ["hello everybody"]);

    net.offline(eve);
    net.say(ada, room, "Eve is away");
    net.say(bob, room, "so she is");
    net.settle();
    net.offline(ada);
    net.say(bob, room, "now I am alone");
    net.settle();

    net.online(eve);
    net.settle();
    assert_eq!(
        net.texts(eve, room),
        ["hello everybody", "Eve is away", "so she is", "now I am alone"]
    );
    assert_eq!(net.texts(eve, room), net.texts(bob, room));
    let found = net.peer(eve).search("alone", None, 10).unwrap();
    assert_eq!(found.len(), 1);
}

#[test]
fn who_was_removed_reads_nothing_more() {
    let mut net = Net::new(2);
    let (ada, bob, eve) = (net.add("Ada"), net.add("Bob"), net.add("Eve"));
    let room = net.room(ada, "kitchen");
    net.join(ada, bob, room);
    net.join(ada, eve, room);
    net.say(eve, room, "I am in");
    net.settle();
    let person = net.person(eve);
    net.command(ada, Command::RemoveMember { room, person }).unwrap();
    net.say(ada, room, "without Eve");
    net.settle();
    net.say(bob, room, "indeed");
    net.settle();
    assert_eq!(net.texts(bob, room), ["I am in", "without Eve", "indeed"]);
    assert_eq!(net.texts(eve, room), ["I am in"]);
    let refused = net.command(
        eve,
        Command::Post {
            room,
            post: net::text("still here"),
            client_id: None,
        },
    );
    assert!(refused.is_err(), "{refused:?}");
}

#[test]
fn edits_reactions_and_deletions_arrive() {
    let mut net = Net::new(3);
    let (ada, bob) = (net.add("Ada"), net.add("Bob"));
    let room = net.room(ada, "kitchen");
    net.join(ada, bob, room);
    let hello = net.say(ada, room, "helo");
    let secret = net.say(ada, room, "the password is swordfish");
    net.settle();
    net.post(
        ada,
        room,
        offhook_proto::peer::Post::Edit {
            target: hello,
            text: "hello".into(),
        },
    );
    net.post(
        bob,
        room,
        offhook_proto::peer::Post::React {
            target: hello,
            emoji: "👍".into(),
            on: true,
        },
    );
    net.post(ada, room, offhook_proto::peer::Post::Delete { target: secret });
    net.settle();
    for peer in [ada, bob] {
        assert_eq!(net.texts(peer, room), ["hello", ""]);
        let entry = net.peer(peer).entry(hello).unwrap().unwrap();
        assert_eq!(entry.reactions.len(), 1);
        assert!(net.peer(peer).search("swordfish", None, 9).unwrap().is_empty());
        assert!(net.peer(peer).search("helo", None, 9).unwrap().is_empty());
        assert_eq!(net.peer(peer).search("hello", None, 9).unwrap().len(), 1);
    }
    let refused = net.command(
        bob,
        Command::Post {
            room,
            post: offhook_proto::peer::Post::Edit {
                target: hello,
                text: "no".into(),
            },
            client_id: None,
        },
    );
    assert!(refused.is_err());
}

#[test]
fn the_same_client_id_says_nothing_twice() {
    let mut net = Net::new(4);
    let ada = net.add("Ada");
    let room = net.room(ada, "notes");
    let post = || Command::Post {
        room,
        post: net::text("once"),
        client_id: Some([7; 16]),
    };
    let Ok(Reply::Entry(first)) = net.command(ada, post()) else {
        panic!()
    };
    let Ok(Reply::Entry(second)) = net.command(ada, post()) else {
        panic!()
    };
    assert_eq!(first, second);
    assert_eq!(net.texts(ada, room), ["once"]);
}

#[test]
fn a_chat_of_two_opens_for_both() {
    let mut net = Net::new(5);
    let (ada, bob) = (net.add("Ada"), net.add("Bob"));
    let room = net.room(ada, "kitchen");
    net.join(ada, bob, room);
    let person = net.person(bob);
    let Ok(Reply::Room(chat)) = net.command(ada, Command::Chat { person }) else {
        panic!()
    };
    net.say(ada, chat, "just us");
    net.settle();
    assert_eq!(net.texts(bob, chat), ["just us"]);
    net.say(bob, chat, "yes");
    net.settle();
    assert_eq!(net.texts(ada, chat), ["just us", "yes"]);
}

#[test]
fn delivery_is_told_honestly() {
    use offhook_proto::peer::view::{DeliveryState, WhyNot};
    let mut net = Net::new(6);
    let (ada, bob) = (net.add("Ada"), net.add("Bob"));
    let room = net.room(ada, "kitchen");
    net.join(ada, bob, room);
    net.offline(bob);
    let id = net.say(ada, room, "are you there?");
    net.settle();
    let whereabouts = net.peer(ada).where_is(id).unwrap().unwrap();
    assert_eq!(whereabouts.state, DeliveryState::Saved);
    assert_eq!(whereabouts.per_member[0].why, Some(WhyNot::LastSeen { minutes: 0 }));
    net.online(bob);
    net.settle();
    assert_eq!(
        net.peer(ada).where_is(id).unwrap().unwrap().state,
        DeliveryState::Reached
    );
    net.command(bob, Command::MarkRead { room, up_to: id }).unwrap();
    net.settle();
    assert_eq!(net.peer(ada).where_is(id).unwrap().unwrap().state, DeliveryState::Read);
}

#[test]
fn a_window_that_is_behind_another_takes_no_reading_back() {
    let mut net = Net::new(7);
    let (ada, bob) = (net.add("Ada"), net.add("Bob"));
    let room = net.room(ada, "kitchen");
    net.join(ada, bob, room);
    let ids = ["one", "two", "three"].map(|words| net.say(ada, room, words));
    net.settle();
    let unread = |net: &Net| net.peer(bob).room(room).unwrap().unwrap().unread;
    assert_eq!(unread(&net), 3);
    net.command(bob, Command::MarkRead { room, up_to: ids[2] }).unwrap();
    net.say(ada, room, "four");
    net.settle();
    net.command(bob, Command::MarkRead { room, up_to: ids[0] }).unwrap();
    assert_eq!(unread(&net), 1, "what the other window has read stays read");
}
