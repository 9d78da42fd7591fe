//! How large a file may be is the room's to say: who may say so, who keeps to it, and what comes of it where two did not know of each other.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod net;

use net::Net;
use offhook_proto::crypto::Secret;
use offhook_proto::history::file::{FILE_BYTES_MAX, ROOM_FILE_BYTES_MAX};
use offhook_proto::history::{Attachment, ContentId, EntryId, RoomId};
use offhook_proto::peer::{Command, CommandError, Post, Reply};
use offhook_proto::rooms::Role;

fn of(bytes: u64) -> Post {
    let file = Attachment {
        name: "plan.pdf".into(),
        media_type: "application/pdf".into(),
        bytes,
        content: ContentId([7; 32]),
        key: Secret([8; 32]),
        picture: None,
    };
    Post::Text {
        text: String::new(),
        reply_to: None,
        files: vec![file],
    }
}

fn send(net: &mut Net, at: usize, room: RoomId, bytes: u64) -> Result<EntryId, CommandError> {
    let said = net.command(
        at,
        Command::Post {
            room,
            post: of(bytes),
            client_id: None,
        },
    );
    said.map(|reply| match reply {
        Reply::Entry(id) => id,
        other => panic!("{other:?}"),
    })
}

fn limit(net: &mut Net, at: usize, room: RoomId, bytes_max: u64) -> Result<(), CommandError> {
    net.command(at, Command::LimitFiles { room, bytes_max }).map(|_| ())
}

fn limit_of(net: &Net, at: usize, room: RoomId) -> u64 {
    net.peer(at).room(room).unwrap().unwrap().file_bytes_max
}

fn two_in_a_room() -> (Net, usize, usize, RoomId) {
    let mut net = Net::new(1);
    let (ada, bob) = (net.add("Ada"), net.add("Bob"));
    let room = net.room(ada, "kitchen");
    net.join(ada, bob, room);
    (net, ada, bob, room)
}

#[test]
fn members_keep_to_what_admins_say() {
    let (mut net, ada, bob, room) = two_in_a_room();
    assert_eq!(limit_of(&net, bob, room), ROOM_FILE_BYTES_MAX);
    let too_large = |bytes_max| Err(CommandError::TooLargeForRoom { bytes_max });
    assert_eq!(
        send(&mut net, bob, room, ROOM_FILE_BYTES_MAX + 1),
        too_large(ROOM_FILE_BYTES_MAX)
    );
    let need = Role::Admin;
    let have = Role::Member;
    assert_eq!(
        limit(&mut net, bob, room, 5),
        Err(CommandError::NotAllowed { have, need })
    );
    assert!(matches!(
        limit(&mut net, ada, room, FILE_BYTES_MAX + 1),
        Err(CommandError::Limit(_))
    ));

    limit(&mut net, ada, room, 2_000_000_000).unwrap();
    net.settle();
    let id = send(&mut net, bob, room, 1_500_000_000).unwrap();
    net.settle();
    assert_eq!(net.peer(ada).file_limit(id), Some(2_000_000_000));

    limit(&mut net, ada, room, 1_000).unwrap();
    net.settle();
    assert_eq!(send(&mut net, bob, room, 1_001), too_large(1_000));
    send(&mut net, bob, room, 1_000).unwrap();
    assert_eq!(
        net.peer(bob).file_limit(id),
        Some(1_000),
        "it holds for what was said before, too"
    );
    let told = net.peer(bob).timeline(room, None, 10).unwrap();
    let told = format!("{told:?}");
    assert!(told.contains("Ada set the room's limit for files to 2 GB"), "{told}");

    limit(&mut net, ada, room, 0).unwrap();
    net.settle();
    let none = send(&mut net, bob, room, 1).unwrap_err();
    assert!(none.to_string().starts_with("this room takes no files"), "{none}");
    net.say(bob, room, "words are always taken");
}

#[test]
fn of_two_limits_that_did_not_know_of_each_other_one_holds_everywhere() {
    let (mut net, ada, bob, room) = two_in_a_room();
    let (person, role) = (net.person(bob), Role::Admin);
    net.command(ada, Command::SetRole { room, person, role }).unwrap();
    net.settle();
    net.offline(bob);
    limit(&mut net, bob, room, 10).unwrap();
    limit(&mut net, ada, room, 20).unwrap();
    let id = send(&mut net, ada, room, 15).unwrap();
    net.online(bob);
    net.settle();
    assert_eq!(
        (limit_of(&net, ada, room), limit_of(&net, bob, room)),
        (20, 20),
        "the owner's"
    );
    assert_eq!(net.peer(bob).file_limit(id), Some(20));
}
