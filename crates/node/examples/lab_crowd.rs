//! A crowd for the lab: many real nodes in one process, each with a home, an address and a key of its own; and, to compare, a client that dials everybody.
//!
//! `lab_crowd crowd FOLDER RELAY` reads its plan from stdin, one line each, and answers on stdout:
//!
//! * `node ADDRESS [DEAD...]` starts a node that listens at ADDRESS and names the dead addresses as its own, too. Answer: `node NUMBER KEY`.
//! * `room NAME A B C...` node A makes a room that B, C... join. Answer: `room NAME LINK`, an invite for one more, once all are in.
//! * `say COUNT` that many entries are said, by all nodes in turn in the rooms made here. Answer: `said COUNT` once all are stored.
//! * `texts NUMBER NAME` the number of messages that a node shows in a room. Answer: `texts COUNT`.
//!
//! `lab_crowd naive` reads `peer KEY ADDRESS...` lines, one for each member of each room, then `go`: a QUIC connection to each at all its addresses at once.
//! It prints `connected COUNT` every second.
#![allow(clippy::unwrap_used, reason = "a program of the lab: what fails fails it")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use iroh::endpoint::presets;
use iroh::{Endpoint, EndpointAddr, EndpointId, TransportAddr};
use offhook_node::proto::history::RoomId;
use offhook_node::proto::peer::view::Standing;
use offhook_node::proto::peer::{Command, Post, Reply};
use offhook_node::proto::rooms::{HistoryPolicy, Invite, Role};
use offhook_node::{Config, Node, NodeHandle};

/// How long a member may take to get in.
const JOIN_MAX: Duration = Duration::from_secs(120);
/// Members that join at the same time.
const JOINS: usize = 8;

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["crowd", folder, relay] => crowd(Path::new(folder), relay).await,
        ["naive"] => naive().await,
        _ => panic!("lab_crowd crowd FOLDER RELAY | lab_crowd naive"),
    }
}

fn lines() -> impl Iterator<Item = Vec<String>> {
    let words = |line: String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    std::io::stdin()
        .lock()
        .lines()
        .map_while(Result::ok)
        .map(words)
        .filter(|words| !words.is_empty())
}

fn answer(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").unwrap();
    out.flush().unwrap();
}

/// The nodes and the rooms that they made.
struct Crowd {
    folder: PathBuf,
    relay: Option<String>,
    nodes: Vec<NodeHandle>,
    rooms: BTreeMap<String, (RoomId, Vec<usize>)>,
    said: usize,
}

async fn crowd(folder: &Path, relay: &str) {
    let mut crowd = Crowd {
        folder: folder.to_owned(),
        relay: (relay != "none").then(|| relay.to_owned()),
        nodes: Vec::new(),
        rooms: BTreeMap::new(),
        said: 0,
    };
    for words in lines() {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match &words[..] {
            ["node", address, dead @ ..] => crowd.start(address, dead).await,
            ["room", name, members @ ..] => crowd.make(name, members).await,
            ["say", count] => crowd.say(count.parse().unwrap()).await,
            ["one", room] => crowd.say_one(room).await,
            ["texts", node, name] => crowd.texts(node.parse().unwrap(), name).await,
            other => panic!("what is {other:?}?"),
        }
    }
    let ending = crowd.nodes.iter().map(|node| {
        let node = node.clone();
        tokio::spawn(async move { node.shutdown().await })
    });
    for end in ending.collect::<Vec<_>>() {
        end.await.unwrap();
    }
}

impl Crowd {
    async fn start(&mut self, address: &str, dead: &[&str]) {
        let number = self.nodes.len();
        let name = format!("member-{}-{number}", self.folder.file_name().unwrap().to_string_lossy());
        let config = Config {
            listen: Some(address.parse().unwrap()),
            announce: dead.iter().map(|address| address.parse().unwrap()).collect(),
            relays: self.relay.iter().cloned().collect(),
            lan: false,
            no_public_infrastructure: true,
            ..Config::new(self.folder.join(&name), &name)
        };
        let node = Node::start(config).await.unwrap();
        let key = EndpointId::from_bytes(&node.device().0).unwrap();
        answer(&format!("node {number} {key}"));
        self.nodes.push(node);
    }

    async fn make(&mut self, name: &str, members: &[&str]) {
        let members: Vec<usize> = members.iter().map(|member| member.parse().unwrap()).collect();
        let host = &self.nodes[members[0]];
        let create = Command::CreateRoom {
            name: name.to_owned(),
            history: HistoryPolicy::All {},
        };
        let Reply::Room(room) = host.command(create).await.unwrap() else {
            panic!("no room");
        };
        let invite = invite(host, room, u32::try_from(members.len()).unwrap()).await;
        for some in members[1..].chunks(JOINS) {
            let joining = some.iter().map(|member| {
                let (node, invite) = (self.nodes[*member].clone(), invite.clone());
                tokio::spawn(async move { join(&node, invite).await })
            });
            for joined in joining.collect::<Vec<_>>() {
                joined.await.unwrap();
            }
        }
        answer(&format!("room {name} {}", invite.to_link()));
        self.rooms.insert(name.to_owned(), (room, members));
    }

    async fn say(&mut self, count: usize) {
        let rooms: Vec<&(RoomId, Vec<usize>)> = self.rooms.values().collect();
        for number in 0..count {
            let (room, members) = rooms[number % rooms.len()];
            let speaker = members[(number / rooms.len()) % members.len()];
            self.post(speaker, *room, self.said + number).await;
        }
        self.said += count;
        answer(&format!("said {count}"));
    }

    /// One member of a room says something.
    async fn say_one(&mut self, name: &str) {
        let (room, members) = &self.rooms[name];
        self.post(members[members.len() - 1], *room, self.said).await;
        self.said += 1;
        answer(&format!("one {name}"));
    }

    async fn post(&self, speaker: usize, room: RoomId, number: usize) {
        let post = Command::Post {
            room,
            post: Post::Text {
                text: format!("number {number} of what was said here, with some words around it"),
                reply_to: None,
                files: Vec::new(),
            },
            client_id: None,
        };
        self.nodes[speaker].command(post).await.unwrap();
    }

    async fn texts(&self, node: usize, name: &str) {
        let rooms = self.nodes[node].query(|peer| peer.rooms().unwrap()).await.unwrap();
        let count = rooms
            .iter()
            .find(|room| room.name == name)
            .map_or(0, |room| room.entries);
        answer(&format!("texts {count}"));
    }
}

async fn invite(host: &NodeHandle, room: RoomId, uses: u32) -> Invite {
    let invite = Command::Invite {
        room,
        expires_s: 86_400,
        uses,
        role: Role::Member,
        only_me: false,
    };
    match host.command(invite).await.unwrap() {
        Reply::Invite(invite) => invite,
        other => panic!("{other:?}"),
    }
}

async fn join(node: &NodeHandle, invite: Invite) {
    let room = invite.room;
    node.command(Command::Join { invite }).await.unwrap();
    let is_in = async {
        loop {
            let rooms = node.query(|peer| peer.rooms().unwrap()).await.unwrap();
            if rooms
                .iter()
                .any(|view| view.room == room && view.standing == Standing::Member)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(JOIN_MAX, is_in)
        .await
        .expect("a member was not let in");
}

/// One connection to each member of each room, at every address, all at once and for ever.
async fn naive() {
    let endpoint = Endpoint::builder(presets::Minimal).bind().await.unwrap();
    let connected = Arc::new(AtomicUsize::new(0));
    let mut targets = Vec::new();
    for words in lines() {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match &words[..] {
            ["peer", key, addresses @ ..] => {
                let addresses = addresses
                    .iter()
                    .map(|at| TransportAddr::Ip(at.parse::<SocketAddr>().unwrap()));
                targets.push(EndpointAddr::from_parts(key.parse().unwrap(), addresses));
            }
            ["go"] => break,
            other => panic!("what is {other:?}?"),
        }
    }
    let total = targets.len();
    for target in targets {
        let (endpoint, connected) = (endpoint.clone(), connected.clone());
        tokio::spawn(async move {
            loop {
                if let Ok(connection) = endpoint.connect(target.clone(), b"offhook/1").await {
                    connected.fetch_add(1, Ordering::Relaxed);
                    connection.closed().await;
                    connected.fetch_sub(1, Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }
    loop {
        answer(&format!("connected {} of {total}", connected.load(Ordering::Relaxed)));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
