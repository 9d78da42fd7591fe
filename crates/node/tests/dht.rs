//! Two real nodes that have lost each other find each other through a Mainline DHT of real hosts (the `mainline` crate's, on loopback).
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use mainline::Testnet;
use offhook_node::dht::DhtOptions;
use offhook_node::{Config, Node, NodeHandle};
use offhook_proto::crypto::{KeyPair, Secret};
use offhook_proto::history::RoomId;
use offhook_proto::overlay::dht::krpc::{Item, signed_text};
use offhook_proto::overlay::dht::lookup::ASKED_MAX;
use offhook_proto::overlay::dht::{Dht, End, Input, Job, Outcome, Output};
use offhook_proto::overlay::ledger::{Kind, To};
use offhook_proto::peer::view::{EntryKind, LineView};
use offhook_proto::peer::{Command, Post, Reply};
use offhook_proto::rooms::{HistoryPolicy, Role};

/// Generous, for busy machines; nothing is judged by how long it takes.
const WAIT: Duration = Duration::from_secs(240);

async fn start(home: &Path, name: &str, dht: Option<&Testnet>) -> NodeHandle {
    let config = Config {
        listen: Some("127.0.0.1:0".parse().unwrap()),
        lan: false,
        dht: dht.map(|net| DhtOptions {
            bootstrap: net.bootstrap.clone(),
        }),
        ..Config::new(home, name)
    };
    Node::start(config).await.unwrap()
}

async fn say(node: &NodeHandle, room: RoomId, text: &str) {
    let post = Post::Text {
        text: text.into(),
        reply_to: None,
        files: Vec::new(),
    };
    let client_id = None;
    node.command(Command::Post { room, post, client_id }).await.unwrap();
}

async fn shows(node: &NodeHandle, room: RoomId, text: &str) -> bool {
    let lines = node
        .query(move |peer| peer.timeline(room, None, 1_000).unwrap().unwrap_or_default())
        .await
        .unwrap();
    lines.into_iter().any(|line| match line {
        LineView::Entry(entry) => entry.kind == EntryKind::Message && entry.text == text,
        _ => false,
    })
}

/// Waits until a room shows a message.
async fn waits_for(node: &NodeHandle, room: RoomId, text: &str) {
    let until = Instant::now() + WAIT;
    while !shows(node, room, text).await {
        assert!(Instant::now() < until, "{text:?} never came; flows {:#?}", node.flows());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Two who share a room, and then both start again elsewhere, so that neither knows where the other is.
async fn two_strays(dir: &Path, dht: Option<&Testnet>) -> (NodeHandle, NodeHandle, RoomId) {
    let home = |name: &str| dir.join(name);
    let (ada, bob) = (
        start(&home("ada"), "Ada", None).await,
        start(&home("bob"), "Bob", None).await,
    );
    let create = Command::CreateRoom {
        name: "kitchen".into(),
        history: HistoryPolicy::All {},
    };
    let Ok(Reply::Room(room)) = ada.command(create).await else {
        panic!("no room");
    };
    let invite = Command::Invite {
        room,
        expires_s: 3_600,
        uses: 1,
        role: Role::Member,
        only_me: false,
    };
    let Ok(Reply::Invite(invite)) = ada.command(invite).await else {
        panic!("no invite");
    };
    bob.command(Command::Join { invite }).await.unwrap();
    say(&ada, room, "hello").await;
    waits_for(&bob, room, "hello").await;
    let before = [ada.addresses(), bob.addresses()].concat();
    ada.shutdown().await;
    bob.shutdown().await;
    // Both ports are taken meanwhile, so that neither comes back to its own.
    let _taken: Vec<_> = before.iter().map(UdpSocket::bind).collect();
    let (ada, bob) = (
        start(&home("ada"), "Ada", dht).await,
        start(&home("bob"), "Bob", dht).await,
    );
    (ada, bob, room)
}

/// Nodes of one machine find each other through a directory of its user; in a process of its own, that has none, they do not.
#[test]
fn two_who_lost_each_other_meet_again_with_the_dht_and_not_without() {
    let dir = tempfile::tempdir().unwrap();
    let inner = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "two_strays_meet", "--nocapture"])
        .env("XDG_RUNTIME_DIR", dir.path().join("none/here"))
        .status();
    assert!(inner.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test above, in a process of its own"]
async fn two_strays_meet() {
    let dir = tempfile::tempdir().unwrap();
    let net = tokio::task::spawn_blocking(|| Testnet::builder(30).build().unwrap())
        .await
        .unwrap();
    let (with, without) = (dir.path().join("with"), dir.path().join("without"));
    let ((ada, bob, room), (control, control_bob, control_room)) =
        tokio::join!(two_strays(&with, Some(&net)), two_strays(&without, None));
    say(&control, control_room, "where are you?").await;
    say(&ada, room, "where are you?").await;
    waits_for(&bob, room, "where are you?").await;
    assert!(
        !shows(&control_bob, control_room, "where are you?").await,
        "the control: without the DHT there is no way"
    );

    let is_host = |to: &To| matches!(to, To::Lookup(host) if host.contains("(DHT,"));
    let asked: Vec<_> = ada.flows().flows.into_iter().filter(|flow| is_host(&flow.to)).collect();
    assert!(
        !asked.is_empty() && asked.iter().all(|flow| flow.kind == Kind::Lookup),
        "{asked:?}"
    );
    assert!(ada.flows().peak <= ada.flows().limits.hard());
    let found = ada.checkup().await.dht.unwrap();
    assert_eq!(found.answers, Some(true), "{found:?}");
    assert!(
        found.hosts > 0 && found.put.is_some_and(|(_, hosts)| hosts > 0),
        "{found:?}"
    );
    let control_flows = control.flows().flows;
    assert!(!control_flows.iter().any(|flow| is_host(&flow.to)), "{control_flows:?}");
    assert_eq!(control.checkup().await.dht, None);
    for node in [ada, bob, control, control_bob] {
        node.shutdown().await;
    }
    let kept = std::fs::read_to_string(with.join("ada/dht-hosts")).unwrap();
    assert!(kept.lines().count() > 0 && kept.lines().all(|line| line.parse::<SocketAddrV4>().is_ok()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_answers_the_doctor_says_so() {
    let dir = tempfile::tempdir().unwrap();
    // A socket that reads nothing.
    let deaf = UdpSocket::bind("127.0.0.1:0").unwrap();
    let config = Config {
        listen: Some("127.0.0.1:0".parse().unwrap()),
        lan: false,
        dht: Some(DhtOptions {
            bootstrap: vec![deaf.local_addr().unwrap().to_string()],
        }),
        ..Config::new(dir.path(), "Ada")
    };
    let node = Node::start(config).await.unwrap();
    let until = Instant::now() + WAIT;
    while node.checkup().await.dht.unwrap().answers != Some(false) {
        assert!(Instant::now() < until);
    }
    node.shutdown().await;
}

/// The client over a socket of its own.
struct Client {
    dht: Dht,
    socket: UdpSocket,
    bootstrap: Vec<SocketAddrV4>,
    asked: BTreeSet<SocketAddrV4>,
    found: Vec<Item>,
}

impl Client {
    fn new(seed: u8, net: &Testnet) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        Self {
            dht: Dht::new([seed; 32]),
            socket,
            bootstrap: net.bootstrap.iter().map(|at| at.parse().unwrap()).collect(),
            asked: BTreeSet::new(),
            found: Vec::new(),
        }
    }

    fn run(&mut self, job: Job) -> Outcome {
        self.asked.clear();
        let mut inputs = vec![Input::Want(job)];
        let mut buffer = [0; 2_048];
        loop {
            for input in std::mem::take(&mut inputs) {
                for output in self.dht.handle(input, Instant::now()).0 {
                    match output {
                        Output::Send { to, bytes } => {
                            self.asked.insert(to);
                            self.socket.send_to(&bytes, to).unwrap();
                        }
                        Output::Resolve => inputs.push(Input::Routers(self.bootstrap[..2].to_vec())),
                        Output::Found(item) => self.found.push(item),
                        Output::Remember(_) => {}
                        Output::Done(outcome) => return outcome,
                    }
                }
            }
            if !inputs.is_empty() {
                continue;
            }
            inputs.push(match self.socket.recv_from(&mut buffer) {
                Ok((length, SocketAddr::V4(from))) => Input::Datagram {
                    from,
                    bytes: buffer[..length].to_vec(),
                },
                _ => Input::Timeout,
            });
        }
    }
}

fn item(number: u8, seq: u64) -> Item {
    let value = vec![number; 400];
    let pair = KeyPair::from_seed(&Secret([number; 32]));
    let (key, signature) = pair.sign_blinded(b"day", &signed_text(seq, &value));
    Item {
        key,
        seq,
        value,
        signature,
    }
}

/// Real hosts keep what is put, refuse an older one, and give it to whoever asks; with `--nocapture` it says how many were asked.
#[test]
fn real_hosts_keep_and_give_within_twenty_flows() {
    let net = Testnet::builder(60).build().unwrap();
    let mut figures = Vec::new();
    for number in 1..=5 {
        let mut writer = Client::new(number, &net);
        let put = writer.run(Job::Put(item(number, 5)));
        assert!(put.end == End::Complete && put.stored > 0, "{put:?}");
        let put_flows = writer.asked.len();
        // Somebody who begins afresh.
        let mut reader = Client::new(100 + number, &net);
        let key = item(number, 5).key;
        let got = reader.run(Job::Get { key, newer_than: 4 });
        assert!(
            got.is_found && reader.found.iter().all(|found| *found == item(number, 5)),
            "{got:?}"
        );
        let found_flows = reader.asked.len();
        let mut stranger = Client::new(200 + number, &net);
        let key = item(50 + number, 5).key;
        let missed = stranger.run(Job::Get { key, newer_than: 0 });
        assert!(!missed.is_found && missed.end == End::Complete, "{missed:?}");
        let flows = [put_flows, found_flows, stranger.asked.len()];
        assert!(flows.iter().all(|flows| *flows <= ASKED_MAX), "{flows:?}");
        figures.push((flows, put.stored));
    }
    for ([put, found, missed], stored) in figures {
        println!("put: {put} hosts asked, {stored} keep it; found: {found} asked; not there: {missed} asked");
    }
}
