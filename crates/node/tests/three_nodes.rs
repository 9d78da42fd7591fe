//! Three real nodes on loopback: stores on disk, real connections, nobody in the middle.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use offhook_node::{Config, Happening, Node, NodeError, NodeHandle, PathAddress};
use offhook_proto::history::{EntryId, RoomId};
use offhook_proto::peer::view::{EntryKind, LineView};
use offhook_proto::peer::{Command, Event, Post, Reply};
use offhook_proto::rooms::{HistoryPolicy, Invite, Role};

const WAIT: Duration = Duration::from_secs(30);

async fn start(home: &Path, name: &str) -> NodeHandle {
    let config = Config {
        listen: Some("127.0.0.1:0".parse().unwrap()),
        lan: false,
        ..Config::new(home, name)
    };
    Node::start(config).await.unwrap()
}

async fn create(node: &NodeHandle) -> RoomId {
    let create = Command::CreateRoom {
        name: "kitchen".into(),
        history: HistoryPolicy::All {},
    };
    match node.command(create).await.unwrap() {
        Reply::Room(room) => room,
        other => panic!("{other:?}"),
    }
}

async fn invite(node: &NodeHandle, room: RoomId) -> Invite {
    let invite = Command::Invite {
        room,
        expires_s: 3_600,
        uses: 5,
        role: Role::Member,
        only_me: false,
    };
    match node.command(invite).await.unwrap() {
        Reply::Invite(invite) => invite,
        other => panic!("{other:?}"),
    }
}

async fn say(node: &NodeHandle, room: RoomId, text: &str) -> EntryId {
    let post = Command::Post {
        room,
        post: Post::Text {
            text: text.into(),
            reply_to: None,
            files: Vec::new(),
        },
        client_id: None,
    };
    match node.command(post).await.unwrap() {
        Reply::Entry(id) => id,
        other => panic!("{other:?}"),
    }
}

/// The texts of a room's messages as they are shown, or none while the room is not there.
async fn texts(node: &NodeHandle, room: RoomId) -> Vec<String> {
    let lines = node
        .query(move |peer| peer.timeline(room, None, 1_000).unwrap().unwrap_or_default())
        .await
        .unwrap();
    let messages = lines.into_iter().filter_map(|line| match line {
        LineView::Entry(entry) if entry.kind == EntryKind::Message => Some(entry.text),
        _ => None,
    });
    messages.collect()
}

/// Waits until a room shows exactly these messages.
async fn shows(node: &NodeHandle, room: RoomId, wanted: &[&str]) {
    let until = Instant::now() + WAIT;
    loop {
        let seen = texts(node, room).await;
        if seen == wanted {
            return;
        }
        if Instant::now() >= until {
            let peers = node.query(|peer| peer.peers()).await;
            panic!("seen {seen:?}, wanted {wanted:?}; peers {peers:#?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_gets_everything_from_whoever_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let home = |name: &str| dir.path().join(name);
    let ada = start(&home("ada"), "Ada").await;
    let bob = start(&home("bob"), "Bob").await;
    let eve = start(&home("eve"), "Eve").await;
    let mut watched = bob.events();

    let room = create(&ada).await;
    let invite = invite(&ada, room).await;
    for guest in [&bob, &eve] {
        let join = Command::Join { invite: invite.clone() };
        assert!(matches!(guest.command(join).await, Ok(Reply::Room(joined)) if joined == room));
    }
    say(&ada, room, "hello everybody").await;
    for node in [&ada, &bob, &eve] {
        shows(node, room, &["hello everybody"]).await;
    }
    let paths = bob.paths();
    assert!(paths.iter().any(|path| {
        path.peer == ada.device()
            && path.selected
            && matches!(path.address, PathAddress::Direct(at) if at.ip().is_loopback())
    }));

    let started = Instant::now();
    eve.shutdown().await;
    assert!(started.elapsed() < Duration::from_secs(2));
    let gone = eve.command(Command::OpenRoom { room: None }).await;
    assert_eq!(gone.unwrap_err(), NodeError::Stopped);
    say(&ada, room, "Eve is away").await;
    shows(&bob, room, &["hello everybody", "Eve is away"]).await;
    ada.shutdown().await;
    say(&bob, room, "now I am alone").await;

    let eve = start(&home("eve"), "Eve").await;
    let all = ["hello everybody", "Eve is away", "now I am alone"];
    shows(&eve, room, &all).await;
    let found = eve.query(|peer| peer.search("alone", None, 9).unwrap()).await.unwrap();
    assert_eq!(found.len(), 1);
    eve.check_store().await.unwrap();

    // Those who watch were told.
    let mut entries = 0;
    while let Ok(Some(happening)) = tokio::time::timeout(Duration::from_millis(200), watched.next()).await {
        entries += usize::from(matches!(happening, Happening::Event(Event::Entry { new: true, .. })));
    }
    assert!(entries >= 2, "{entries}");
    eve.shutdown().await;
    bob.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn homes_on_one_machine_find_each_other_without_an_address() {
    let dir = tempfile::tempdir().unwrap();
    let ada = start(&dir.path().join("ada"), "Ada").await;
    let bob = start(&dir.path().join("bob"), "Bob").await;
    let room = create(&ada).await;
    let invite = invite(&ada, room).await;
    let join = Command::Join { invite };
    bob.command(join).await.unwrap();
    say(&ada, room, "one").await;
    shows(&bob, room, &["one"]).await;
    ada.shutdown().await;
    bob.shutdown().await;

    // Both come back at other ports, of which nobody told the other.
    let ada = start(&dir.path().join("ada"), "Ada").await;
    let bob = start(&dir.path().join("bob"), "Bob").await;
    say(&bob, room, "two").await;
    shows(&ada, room, &["one", "two"]).await;
    ada.shutdown().await;
    bob.shutdown().await;
}

#[tokio::test]
async fn a_home_runs_once_and_is_free_again_after_shutdown() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), "Ada").await;
    let config = Config {
        lan: false,
        ..Config::new(dir.path(), "Ada")
    };
    let refused = Node::start(config).await.unwrap_err();
    assert!(refused.to_string().contains("already running"), "{refused}");
    let person = node.person();
    node.shutdown().await;
    let again = start(dir.path(), "Ada").await;
    assert_eq!(again.person(), person);
    again.shutdown().await;
}
