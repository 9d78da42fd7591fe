//! Measures one node with a long history: posting with group commit, time to be usable again, resident memory.
//!
//! `cargo run --release -p offhook-node --example bench_node -- [ENTRIES] [DIR]`
//!
//! Posts texts of 200 bytes into one room, 256 commands in flight, each answered after the commit that holds it. Then stops, starts again on the same
//! home, and asks for the last page and a search.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use offhook_node::{Config, Node, NodeHandle};
use offhook_proto::history::RoomId;
use offhook_proto::peer::{Command, Post, Reply};
use offhook_proto::rooms::HistoryPolicy;
use tokio::sync::Semaphore;

const IN_FLIGHT: usize = 256;
const TEXT_BYTES: usize = 200;

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let entries: usize = args.next().map_or(Ok(100_000), |n| n.parse())?;
    let dir = args
        .next()
        .map_or_else(|| std::env::temp_dir().join("offhook-bench-node"), PathBuf::from);
    let _ = std::fs::remove_dir_all(&dir);
    let config = Config {
        listen: Some("127.0.0.1:0".parse()?),
        lan: false,
        ..Config::new(&dir, "Ada")
    };

    let node = Node::start(config.clone()).await?;
    let create = Command::CreateRoom {
        name: "bench".into(),
        history: HistoryPolicy::All {},
    };
    let Reply::Room(room) = node.command(create).await? else {
        bail!("no room was made");
    };
    let started = Instant::now();
    post(&node, room, entries).await?;
    let took = started.elapsed();
    println!("posted               {entries:>9}");
    println!(
        "posting              {:>9.0} entries/s",
        entries as f64 / took.as_secs_f64()
    );
    println!("resident after it    {:>9.1} MiB", resident_mib());
    node.shutdown().await;
    let size = std::fs::metadata(dir.join("store.db"))?.len();
    let each = size as f64 / entries as f64;
    println!("at rest              {each:>9.1} B each, of which text {TEXT_BYTES}");

    let started = Instant::now();
    let node = Node::start(config).await?;
    let page = node.query(move |peer| peer.timeline(room, None, 50)).await??;
    let usable = started.elapsed();
    let lines = page.context("the room is there")?.len();
    println!("usable again         {:>9.1} ms, {lines} lines", ms(usable));
    let started = Instant::now();
    let hits = node.query(|peer| peer.search("number77", None, 50)).await??;
    println!(
        "search               {:>9.1} ms, {} hits",
        ms(started.elapsed()),
        hits.len()
    );
    println!("resident after start {:>9.1} MiB", resident_mib());
    node.shutdown().await;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

async fn post(node: &NodeHandle, room: RoomId, entries: usize) -> Result<()> {
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    for i in 0..entries {
        let slot = slots.clone().acquire_owned().await?;
        let node = node.clone();
        tokio::spawn(async move {
            let command = Command::Post {
                room,
                post: Post::Text {
                    text: text(i),
                    reply_to: None,
                    files: Vec::new(),
                },
                client_id: None,
            };
            if let Err(error) = node.command(command).await {
                eprintln!("a post failed: {error}");
            }
            drop(slot);
        });
    }
    let all = u32::try_from(IN_FLIGHT)?;
    let _done = slots.acquire_many(all).await?;
    Ok(())
}

/// Different words in each, as people use.
fn text(i: usize) -> String {
    let mut text = format!("number{i}");
    let mut draw = i as u64;
    while text.len() < TEXT_BYTES {
        draw = draw
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let rank = (1.0 / (1e-5 + (draw >> 33) as f64 / (1u64 << 31) as f64)) as u64;
        text.push_str(&format!(" w{rank}"));
    }
    text.truncate(TEXT_BYTES);
    text
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line
        .and_then(|line| line.split_whitespace().next())
        .and_then(|n| n.parse().ok())
        .unwrap_or_default();
    kib / 1024.0
}
