//! Posts that wait together are made durable together: one commit for many, and no answer before it.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use offhook_node::{Config, Node, NodeHandle};
use offhook_proto::history::RoomId;
use offhook_proto::peer::{self, Post, Reply};
use offhook_proto::rooms::HistoryPolicy;

const POSTS: usize = 200;
/// Two batches, one of which may have begun with the query, and what the clock may add on a slow machine.
const COMMITS_MAX: usize = 10;

#[tokio::test]
async fn many_posts_share_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(Config {
        listen: Some("127.0.0.1:0".parse().unwrap()),
        lan: false,
        ..Config::new(dir.path().join("home"), "Ada")
    })
    .await
    .unwrap();
    let create = peer::Command::CreateRoom {
        name: "kitchen".into(),
        history: HistoryPolicy::All {},
    };
    let Reply::Room(room) = node.command(create).await.unwrap() else {
        panic!("a room was asked for");
    };
    let before = commits(node.home());
    // One after the other: a commit for each, and so the counting is shown to count.
    for i in 0..5 {
        post(&node, room, i).await;
    }
    assert!(commits(node.home()) >= before + 5);

    // The peer's thread is held until all of them wait.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let holding = tokio::spawn({
        let node = node.clone();
        async move { node.query(move |_| held.recv()).await }
    });
    tokio::task::yield_now().await;
    let before = commits(node.home());
    let posts: Vec<_> = (0..POSTS)
        .map(|i| {
            let node = node.clone();
            tokio::spawn(async move { post(&node, room, i).await })
        })
        .collect();
    // The runtime has one thread, and takes turns: each of them has asked by then.
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    assert!(!posts.iter().any(tokio::task::JoinHandle::is_finished));
    release.send(()).unwrap();
    for post in posts {
        post.await.unwrap();
    }
    holding.await.unwrap().unwrap().unwrap();
    let made = commits(node.home()) - before;
    assert!(made <= COMMITS_MAX, "{POSTS} posts took {made} commits");
    node.shutdown().await;
}

async fn post(node: &NodeHandle, room: RoomId, i: usize) {
    let post = Post::Text {
        text: format!("message {i}"),
        reply_to: None,
        files: Vec::new(),
    };
    let client_id = None;
    let said = peer::Command::Post { room, post, client_id };
    assert!(matches!(node.command(said).await.unwrap(), Reply::Entry(_)));
}

/// Commits in the write-ahead log (SQLite's file format, 4.1 and 4.2): frames of the present generation that say how large the database is.
fn commits(home: &Path) -> usize {
    const HEAD: usize = 32;
    const FRAME_HEAD: usize = 24;
    let wal = std::fs::read(home.join("store.db-wal")).unwrap();
    let number = |at: usize| u32::from_be_bytes(wal[at..at + 4].try_into().unwrap());
    let frame = FRAME_HEAD + number(8) as usize;
    let salts = &wal[16..24];
    let frames = (HEAD..).step_by(frame).take_while(|at| at + frame <= wal.len());
    let present = frames.take_while(|at| &wal[at + 8..at + 16] == salts);
    present.filter(|at| number(at + 4) != 0).count()
}
