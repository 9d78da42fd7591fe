//! Measures a file on its way from one node to another on loopback, in the same run beside a bare copy of as many bytes over one QUIC stream
//! of the same library: what sealing, hashing, the disk, and asking piece by piece cost.
//!
//! `cargo run --release -p offhook-node --example bench_files -- [MEGABYTES]`
//!
//! Sender and receiver are in one process and share its cores.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use iroh::endpoint::{Endpoint, PortmapperConfig, RelayMode, presets};
use offhook_node::files::FileLimits;
use offhook_node::{Config, Node, NodeHandle};
use offhook_proto::history::{Attachment, EntryId, RoomId};
use offhook_proto::peer::{Command, Post, Reply};
use offhook_proto::rooms::{HistoryPolicy, Role};

const MEGABYTES: usize = 400;
const MEGABYTE: usize = 1_000_000;
const STEP_BYTES: usize = 256 << 10;
const PATIENCE: Duration = Duration::from_secs(300);
const ALPN: &[u8] = b"bench";

#[tokio::main]
async fn main() -> Result<()> {
    let megabytes = std::env::args().nth(1).map_or(Ok(MEGABYTES), |n| n.parse())?;
    let bytes = megabytes * MEGABYTE;
    let bare = bare_copy(bytes).await?;
    tell("bare copy over one QUIC stream", megabytes, bare);

    let dir = std::env::temp_dir().join("offhook-bench-files");
    let _ = std::fs::remove_dir_all(&dir);
    let [ada, bea, cem] = [
        start(&dir, "ada").await?,
        start(&dir, "bea").await?,
        start(&dir, "cem").await?,
    ];
    let create = Command::CreateRoom {
        name: "bench".into(),
        history: HistoryPolicy::All {},
    };
    let Reply::Room(room) = ada.command(create).await? else {
        bail!("no room was made");
    };
    let bytes_max = bytes as u64;
    ada.command(Command::LimitFiles { room, bytes_max }).await?;
    for newcomer in [&bea, &cem] {
        join(&ada, room, newcomer).await?;
    }

    let started = Instant::now();
    let (id, file) = send(&ada, room, bytes).await?;
    tell("taken in: sealed, hashed, on disk", megabytes, started.elapsed());
    for (node, what) in [(&bea, "from one member"), (&cem, "from two members")] {
        until(async || matches!(node.query(move |peer| peer.entry(id)).await, Ok(Ok(Some(_))))).await?;
        let started = Instant::now();
        node.fetch_file(id, file.content).await?;
        until(async || node.file_progress(&file).is_whole).await?;
        tell(what, megabytes, started.elapsed());
    }
    let started = Instant::now();
    let reader = bea.read_file(&file).await?;
    let mut read = 0;
    while read < file.bytes {
        read += reader.read_at(read).await?.len() as u64;
    }
    tell("read: opened from disk", megabytes, started.elapsed());
    for node in [ada, bea, cem] {
        node.shutdown().await;
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn tell(what: &str, megabytes: usize, took: Duration) {
    println!("{what:<36} {:>7.0} MB/s", megabytes as f64 / took.as_secs_f64());
}

async fn start(dir: &Path, name: &str) -> Result<NodeHandle> {
    let config = Config {
        listen: Some("127.0.0.1:0".parse()?),
        lan: false,
        files: FileLimits {
            send_bytes_max: u64::MAX,
            unasked_bytes_max: 0,
        },
        ..Config::new(dir.join(name), name)
    };
    Ok(Node::start(config).await?)
}

async fn until(mut is_so: impl AsyncFnMut() -> bool) -> Result<()> {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .context("it takes too long")
}

async fn join(owner: &NodeHandle, room: RoomId, newcomer: &NodeHandle) -> Result<()> {
    until(async || !owner.addresses().is_empty()).await?;
    let invite = Command::Invite {
        room,
        expires_s: 3600,
        uses: 1,
        role: Role::Member,
        only_me: false,
    };
    let Reply::Invite(invite) = owner.command(invite).await? else {
        bail!("no invite");
    };
    newcomer.command(Command::Join { invite }).await?;
    until(async || {
        let members = newcomer.query(move |peer| peer.members(room)).await;
        matches!(members, Ok(Ok(Some(members))) if members.len() > 1)
    })
    .await
}

/// Bytes that do not repeat.
fn part(at: usize) -> Vec<u8> {
    let words = (0..STEP_BYTES as u64 / 8).map(|i| (at as u64 ^ i).wrapping_mul(6_364_136_223_846_793_005));
    words.flat_map(u64::to_le_bytes).collect()
}

async fn send(node: &NodeHandle, room: RoomId, bytes: usize) -> Result<(EntryId, Attachment)> {
    let mut writer = node.new_file().await?;
    let mut at = 0;
    while at < bytes {
        let mut part = part(at);
        part.truncate(bytes - at);
        writer.write(&part).await?;
        at += part.len();
    }
    let kept = writer.finish().await?;
    let file = Attachment {
        name: "bench".into(),
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
    let Reply::Entry(id) = node.command(said).await? else {
        bail!("not said");
    };
    node.file_was_sent(id, file.content).await?;
    Ok((id, file))
}

/// As many bytes over one stream, from memory to nowhere.
async fn bare_copy(bytes: usize) -> Result<Duration> {
    let bind = async || {
        let builder = Endpoint::builder(presets::Minimal)
            .alpns(vec![ALPN.to_vec()])
            .relay_mode(RelayMode::Disabled)
            .portmapper_config(PortmapperConfig::Disabled)
            .clear_ip_transports()
            .bind_addr("127.0.0.1:0")?;
        anyhow::Ok(builder.bind().await?)
    };
    let (from, to) = (bind().await?, bind().await?);
    let at = iroh::EndpointAddr::new(to.id()).with_ip_addr(*to.bound_sockets().first().context("no address")?);
    let taking = tokio::spawn(async move {
        let connection = to.accept().await.context("nobody came")?.accept()?.await?;
        let mut recv = connection.accept_uni().await?;
        let mut taken = 0;
        while let Some(chunk) = recv.read_chunk(STEP_BYTES).await? {
            taken += chunk.len();
        }
        connection.close(0u32.into(), b"done");
        anyhow::Ok(taken)
    });
    let connection = from.connect(at, ALPN).await?;
    let started = Instant::now();
    let mut send = connection.open_uni().await?;
    let part = part(0);
    let mut left = bytes;
    while left > 0 {
        let step = left.min(part.len());
        send.write_all(&part[..step]).await?;
        left -= step;
    }
    send.finish()?;
    let taken = taking.await??;
    anyhow::ensure!(taken == bytes, "{taken} bytes came");
    Ok(started.elapsed())
}
