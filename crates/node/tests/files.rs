//! Files between real nodes on loopback: what is sent arrives, also from somebody other than its author, in parts, and over restarts; what is taken back goes.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::path::Path;
use std::time::Duration;

use offhook_node::files::FileLimits;
use offhook_node::proto::history::{Attachment, EntryId, RoomId};
use offhook_node::proto::peer::{Command, Post, Reply};
use offhook_node::proto::rooms::{HistoryPolicy, Role};
use offhook_node::{Config, Node, NodeHandle};

const PATIENCE: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

async fn start(dir: &Path, name: &str, unasked_bytes_max: u64) -> NodeHandle {
    let mut config = Config::new(dir.join(name), name);
    config.listen = Some("127.0.0.1:0".parse().unwrap());
    config.lan = false;
    config.files = FileLimits {
        unasked_bytes_max,
        ..FileLimits::default()
    };
    Node::start(config).await.unwrap()
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

async fn new_room(owner: &NodeHandle) -> RoomId {
    let made = Command::CreateRoom {
        name: "files".into(),
        history: HistoryPolicy::All {},
    };
    match owner.command(made).await.unwrap() {
        Reply::Room(room) => room,
        other => panic!("{other:?}"),
    }
}

async fn join(owner: &NodeHandle, room: RoomId, newcomer: &NodeHandle) {
    until("the owner knows where it is", async || !owner.addresses().is_empty()).await;
    let invite = Command::Invite {
        room,
        expires_s: 3600,
        uses: 1,
        role: Role::Member,
        only_me: false,
    };
    let Reply::Invite(invite) = owner.command(invite).await.unwrap() else {
        panic!("no invite");
    };
    newcomer.command(Command::Join { invite }).await.unwrap();
    until("the newcomer is in", async || {
        let members = newcomer.query(move |peer| peer.members(room).unwrap()).await.unwrap();
        members.is_some_and(|members| members.len() > 1)
    })
    .await;
}

fn plain(bytes: usize) -> Vec<u8> {
    (0..bytes as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

/// Sends a file as a message without words.
async fn send(node: &NodeHandle, room: RoomId, plain: &[u8]) -> (EntryId, Attachment) {
    let mut writer = node.new_file().await.unwrap();
    for part in plain.chunks(70_000) {
        writer.write(part).await.unwrap();
    }
    let kept = writer.finish().await.unwrap();
    let file = Attachment {
        name: "plan.bin".into(),
        media_type: "application/octet-stream".into(),
        bytes: kept.bytes,
        content: kept.content,
        key: kept.key,
        picture: None,
    };
    let post = Post::Text {
        text: String::new(),
        reply_to: None,
        files: vec![file.clone()],
    };
    let said = Command::Post {
        room,
        post,
        client_id: None,
    };
    let Reply::Entry(id) = node.command(said).await.unwrap() else {
        panic!("not said");
    };
    node.file_was_sent(id, file.content).await.unwrap();
    (id, file)
}

/// Waits for the message, and returns what it says of the file.
async fn told(node: &NodeHandle, id: EntryId) -> Attachment {
    until("the message arrives", async || {
        node.query(move |peer| peer.entry(id).unwrap().is_some()).await.unwrap()
    })
    .await;
    let entry = node.query(move |peer| peer.entry(id).unwrap().unwrap()).await.unwrap();
    entry.files[0].clone()
}

async fn whole(node: &NodeHandle, file: &Attachment) -> Vec<u8> {
    until("the file is whole", async || node.file_progress(file).is_whole).await;
    let reader = node.read_file(file).await.unwrap();
    let mut read = Vec::new();
    loop {
        let part = reader.read_at(read.len() as u64).await.unwrap();
        if part.is_empty() {
            return read;
        }
        read.extend(part);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_file_comes_unasked_and_a_large_one_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (ada, bea) = (
        start(dir.path(), "ada", 0).await,
        start(dir.path(), "bea", MIB as u64).await,
    );
    let room = new_room(&ada).await;
    join(&ada, room, &bea).await;

    let small = plain(300_000);
    let (id, _) = send(&ada, room, &small).await;
    let file = told(&bea, id).await;
    assert_eq!(whole(&bea, &file).await, small);

    let large = plain(5 * MIB + 17);
    let (id, _) = send(&ada, room, &large).await;
    let file = told(&bea, id).await;
    assert_eq!(file.bytes, large.len() as u64);
    let progress = bea.file_progress(&file);
    assert!(!progress.is_whole && !progress.is_fetching, "{progress:?}");
    bea.read_file(&file).await.unwrap_err();
    bea.fetch_file(id, file.content).await.unwrap();
    assert_eq!(whole(&bea, &file).await, large);

    // An empty file is a file, too.
    let (id, _) = send(&ada, room, &[]).await;
    let file = told(&bea, id).await;
    assert!(whole(&bea, &file).await.is_empty());
    ada.shutdown().await;
    bea.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_comes_from_another_member_after_its_author_has_gone_and_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (ada, bea) = (
        start(dir.path(), "ada", 0).await,
        start(dir.path(), "bea", u64::MAX).await,
    );
    let room = new_room(&ada).await;
    join(&ada, room, &bea).await;
    let said = plain(3 * MIB);
    let (id, _) = send(&ada, room, &said).await;
    let file = told(&bea, id).await;
    assert_eq!(whole(&bea, &file).await, said);
    ada.shutdown().await;

    let cyd = start(dir.path(), "cyd", 0).await;
    join(&bea, room, &cyd).await;
    let file = told(&cyd, id).await;
    bea.shutdown().await;
    // Wanted while nobody is there who has it; the wish outlives a restart.
    cyd.fetch_file(id, file.content).await.unwrap();
    assert!(cyd.file_progress(&file).is_fetching);
    cyd.shutdown().await;
    let cyd = start(dir.path(), "cyd", 0).await;
    until("the wish is taken up again", async || {
        cyd.file_progress(&file).is_fetching
    })
    .await;
    let bea = start(dir.path(), "bea", 0).await;
    let (device, at) = (bea.device(), bea.addresses());
    if let Some(address) = at.first().copied() {
        cyd.command(Command::AddAddress { device, address }).await.unwrap();
    }
    assert_eq!(whole(&cyd, &file).await, said);
    bea.shutdown().await;
    cyd.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_cut_again_and_again_loses_nothing_that_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let ada = start(dir.path(), "ada", 0).await;
    let mut bea = start(dir.path(), "bea", 0).await;
    let room = new_room(&ada).await;
    join(&ada, room, &bea).await;
    let said = plain(24 * MIB);
    let (id, _) = send(&ada, room, &said).await;
    let file = told(&bea, id).await;
    bea.fetch_file(id, file.content).await.unwrap();
    let mut before = 0;
    for _ in 0..10 {
        until("some more of it is there", async || {
            let progress = bea.file_progress(&file);
            progress.is_whole || progress.bytes > before
        })
        .await;
        before = bea.file_progress(&file).bytes;
        bea.shutdown().await;
        bea = start(dir.path(), "bea", 0).await;
        until("what was there is known again", async || {
            bea.file_progress(&file).bytes >= before
        })
        .await;
    }
    assert_eq!(whole(&bea, &file).await, said);
    ada.shutdown().await;
    bea.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_back_is_removed_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let (ada, bea) = (
        start(dir.path(), "ada", 0).await,
        start(dir.path(), "bea", u64::MAX).await,
    );
    let room = new_room(&ada).await;
    join(&ada, room, &bea).await;
    let (id, _) = send(&ada, room, &plain(200_000)).await;
    let file = told(&bea, id).await;
    whole(&bea, &file).await;
    let post = Post::Delete { target: id };
    let deletion = Command::Post {
        room,
        post,
        client_id: None,
    };
    ada.command(deletion).await.unwrap();
    for name in ["ada", "bea"] {
        let files = dir.path().join(name).join("files");
        until("the folder is empty", async || {
            std::fs::read_dir(&files).unwrap().count() == 0
        })
        .await;
    }
    ada.shutdown().await;
    bea.shutdown().await;
}
