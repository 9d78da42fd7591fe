//! A few peers in one process with perfect lines between all that are online: for stepping by hand.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test's own scaffold, of which each file uses a part"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use offhook_proto::crypto::{KeyPair, Secret};
use offhook_proto::history::{EntryId, RoomId};
use offhook_proto::identity::{DeviceId, DeviceKey, PersonId, RootKey};
use offhook_proto::overlay::dht::Job;
use offhook_proto::overlay::dht::krpc::Item;
use offhook_proto::peer::view::LineView;
use offhook_proto::peer::{Command, CommandError, Event, Input, Output, Peer, Post, Reply, Secrets};
use offhook_proto::rooms::{HistoryPolicy, Role};
use offhook_proto::store::MemoryStore;
use offhook_proto::sync::frame::Frame;
use offhook_proto::wire::Wire as _;

pub struct Net {
    pub nodes: Vec<Node>,
    pub now: Instant,
    wall_ms: u64,
    queue: VecDeque<(usize, Input)>,
    lines: BTreeSet<(usize, usize)>,
    /// Pairs that cannot reach each other.
    forbidden: BTreeSet<(usize, usize)>,
    /// Who, calling whom, hears nothing at all: the dial stays under way.
    pub unanswered: BTreeSet<(usize, usize)>,
    /// Frames from one to another that never arrive, by sender, receiver and the tag of their kind.
    pub swallowed: BTreeSet<(usize, usize, u8)>,
    /// Who called whom, whether or not it succeeded.
    pub dials: Vec<(usize, usize)>,
    /// Where those are who have moved: calls elsewhere fail.
    moved: BTreeMap<usize, SocketAddr>,
    /// Who answers every question of where a device is at once, and wrongly.
    pub liars: BTreeSet<usize>,
    next_command: u64,
    reopened: u8,
    pub replies: Vec<(u64, Result<Reply, CommandError>)>,
    pub events: Vec<(usize, Event)>,
    /// What was asked of the DHT, by whom.
    pub dht_jobs: Vec<(usize, Job)>,
    /// What the DHT keeps.
    pub kept: BTreeMap<[u8; 32], Item>,
    /// Bytes sent, by sender and receiver.
    pub sent: Vec<(usize, usize, Vec<u8>)>,
}

pub struct Node {
    pub peer: Peer<MemoryStore>,
    pub device: DeviceId,
    pub secrets: Secrets,
    pub online: bool,
}

pub fn text(text: &str) -> Post {
    Post::Text {
        text: text.into(),
        reply_to: None,
        files: Vec::new(),
    }
}

impl Net {
    pub fn new(_seed: u8) -> Self {
        Self {
            nodes: Vec::new(),
            now: Instant::now(),
            wall_ms: 1_790_000_000_000,
            queue: VecDeque::new(),
            lines: BTreeSet::new(),
            forbidden: BTreeSet::new(),
            unanswered: BTreeSet::new(),
            swallowed: BTreeSet::new(),
            dials: Vec::new(),
            moved: BTreeMap::new(),
            liars: BTreeSet::new(),
            next_command: 0,
            reopened: 0,
            replies: Vec::new(),
            events: Vec::new(),
            dht_jobs: Vec::new(),
            kept: BTreeMap::new(),
            sent: Vec::new(),
        }
    }

    pub fn add(&mut self, name: &str) -> usize {
        let at = self.nodes.len();
        let seed = u8::try_from(at).unwrap() + 1;
        let root = RootKey::from_entropy(Secret([seed; 32]));
        let device = DeviceKey(KeyPair::from_seed(&Secret([seed + 100; 32])));
        let secrets = Secrets { root, device };
        let id = secrets.device.device();
        let peer = Peer::open(MemoryStore::default(), secrets.clone(), name, [seed; 32], self.now).unwrap();
        self.nodes.push(Node {
            peer,
            device: id,
            secrets,
            online: true,
        });
        self.input(at, Input::WallClock { unix_ms: self.wall_ms });
        let address = format!("192.0.2.{seed}:4433").parse().unwrap();
        self.input(
            at,
            Input::OwnAddresses {
                addresses: vec![address],
                relay: None,
            },
        );
        at
    }

    pub fn peer(&self, at: usize) -> &Peer<MemoryStore> {
        &self.nodes[at].peer
    }

    pub fn person(&self, at: usize) -> PersonId {
        self.nodes[at].secrets.root.person()
    }

    pub fn input(&mut self, at: usize, input: Input) {
        let outputs = self.nodes[at].peer.handle(input, self.now).unwrap();
        for output in outputs.0 {
            self.output(at, output);
        }
    }

    fn output(&mut self, at: usize, output: Output) {
        match output {
            Output::Reply { id, reply } => self.replies.push((id, reply)),
            Output::Send { peer, bytes } => {
                let to = self.at(&peer);
                let kind = bytes.first().copied().unwrap_or(u8::MAX);
                if self.lines.contains(&(at.min(to), at.max(to))) && !self.swallowed.contains(&(at, to, kind)) {
                    self.sent.push((at, to, bytes.clone()));
                    self.queue.push_back((
                        to,
                        Input::Frame {
                            peer: self.nodes[at].device,
                            bytes,
                        },
                    ));
                }
            }
            Output::Dial { peer, addresses, .. } => {
                let to = self.at(&peer);
                self.dials.push((at, to));
                let barred = self.forbidden.contains(&(at.min(to), at.max(to)));
                let is_there = self.moved.get(&to).is_none_or(|place| addresses.contains(place));
                if self.unanswered.contains(&(at, to)) {
                    // It stays under way.
                } else if self.nodes[to].online && self.nodes[at].online && !barred && is_there {
                    self.connect(at, to);
                } else {
                    self.queue.push_back((at, Input::DialFailed { peer }));
                }
            }
            Output::Dht(job) => self.ask_dht(at, job),
            Output::CatchingUp(_) | Output::Announce(_) => {}
            Output::Close { peer, .. } => {
                let to = self.at(&peer);
                self.disconnect(at, to);
            }
            Output::Event(event) => self.events.push((at, event)),
        }
    }

    /// A DHT that keeps and finds everything.
    fn ask_dht(&mut self, at: usize, job: Job) {
        self.dht_jobs.push((at, job.clone()));
        match job {
            Job::Put(item) => drop(self.kept.insert(item.key, item)),
            Job::Get { key, newer_than } => {
                let item = self.kept.get(&key).filter(|item| item.seq > newer_than);
                self.queue.extend(item.map(|item| (at, Input::DhtFound(item.clone()))));
            }
            Job::Check => {}
        }
    }

    pub fn at(&self, device: &DeviceId) -> usize {
        self.nodes.iter().position(|node| node.device == *device).unwrap()
    }

    pub fn connect(&mut self, a: usize, b: usize) {
        let pair = (a.min(b), a.max(b));
        if self.lines.insert(pair) {
            let mut exporter = [u8::try_from(pair.0).unwrap(); 32];
            exporter[16..].fill(u8::try_from(pair.1).unwrap());
            for (x, y) in [(a, b), (b, a)] {
                let peer = self.nodes[y].device;
                self.queue.push_back((
                    x,
                    Input::LineUp {
                        peer,
                        exporter,
                        address: None,
                    },
                ));
            }
        }
    }

    /// To whom a peer has lines.
    pub fn lines_of(&self, at: usize) -> BTreeSet<usize> {
        let pairs = self.lines.iter().filter(|(a, b)| *a == at || *b == at);
        pairs.map(|(a, b)| if *a == at { *b } else { *a }).collect()
    }

    fn disconnect(&mut self, a: usize, b: usize) {
        if self.lines.remove(&(a.min(b), a.max(b))) {
            for (x, y) in [(a, b), (b, a)] {
                let peer = self.nodes[y].device;
                self.queue.push_back((x, Input::LineDown { peer }));
            }
        }
    }

    pub fn offline(&mut self, at: usize) {
        self.nodes[at].online = false;
        for other in 0..self.nodes.len() {
            self.disconnect(at, other);
        }
        self.drain();
    }

    /// Cuts the line between two and lets none come up.
    pub fn forbid(&mut self, a: usize, b: usize) {
        self.forbidden.insert((a.min(b), a.max(b)));
        self.disconnect(a, b);
        self.drain();
    }

    /// Lets a line between two come up again.
    pub fn unbar(&mut self, a: usize, b: usize) {
        self.forbidden.remove(&(a.min(b), a.max(b)));
    }

    /// Lets a line between two come up again, and has it come up.
    pub fn allow(&mut self, a: usize, b: usize) {
        self.forbidden.remove(&(a.min(b), a.max(b)));
        self.connect(a, b);
    }

    /// Only members of one group reach each other.
    pub fn split(&mut self, groups: &[&[usize]]) {
        let group = |at: usize| groups.iter().position(|group| group.contains(&at));
        for a in 0..self.nodes.len() {
            for b in a + 1..self.nodes.len() {
                if group(a) != group(b) {
                    self.forbid(a, b);
                }
            }
        }
    }

    /// Everybody reaches everybody again.
    pub fn heal(&mut self) {
        self.forbidden.clear();
        for at in 0..self.nodes.len() {
            self.input(at, Input::NetworkChanged);
        }
    }

    /// Starts a peer again over another store.
    pub fn reopen(&mut self, at: usize, store: MemoryStore) {
        self.reopened += 1;
        let seed = [200 + self.reopened; 32];
        let secrets = self.nodes[at].secrets.clone();
        self.nodes[at].peer = Peer::open(store, secrets, "", seed, self.now).unwrap();
        self.input(at, Input::WallClock { unix_ms: self.wall_ms });
    }

    pub fn online(&mut self, at: usize) {
        self.nodes[at].online = true;
        self.input(at, Input::NetworkChanged);
    }

    /// Where one would call another.
    pub fn place_known(&self, at: usize, whom: usize) -> Vec<String> {
        let mut peer = Peer::open(
            self.peer(at).store().clone(),
            self.nodes[at].secrets.clone(),
            "",
            [7; 32],
            self.now,
        )
        .unwrap();
        let sought = self.nodes[whom].device;
        let mut places = Vec::new();
        for input in [Input::NetworkChanged, Input::TryPeer { peer: sought }] {
            for output in peer.handle(input, self.now).unwrap().0 {
                match output {
                    Output::Dial { peer, addresses, .. } if peer == sought => places.extend(addresses),
                    _ => {}
                }
            }
        }
        places.iter().map(SocketAddr::to_string).collect()
    }

    /// Delivers everything under way.
    pub fn drain(&mut self) {
        for _ in 0..200_000 {
            let Some((to, input)) = self.queue.pop_front() else {
                return;
            };
            if let Input::Frame { peer, .. } = &input {
                let from = self.at(peer);
                if !self.lines.contains(&(from.min(to), from.max(to))) {
                    continue;
                }
            }
            if self.lies(to, &input) {
                continue;
            }
            self.input(to, input);
        }
        panic!("the peers never stop talking");
    }

    /// A liar answers a question of where a device is with nonsense, more often than there can be answers, and asks nobody.
    fn lies(&mut self, at: usize, input: &Input) -> bool {
        let Input::Frame { peer, bytes } = input else {
            return false;
        };
        let (true, Ok(Frame::Seek { token, .. })) = (self.liars.contains(&at), Frame::from_bytes(bytes)) else {
            return false;
        };
        for number in 0..20 {
            let sealed = vec![number; 150];
            let salt = [number; 16];
            let bytes = Frame::Found { token, salt, sealed }.to_bytes();
            self.output(at, Output::Send { peer: *peer, bytes });
        }
        true
    }

    /// Somebody goes where the others do not know it to be; the lines that it had are gone.
    pub fn moves(&mut self, at: usize, place: &str) {
        let place = place.parse().unwrap();
        self.moved.insert(at, place);
        for other in 0..self.nodes.len() {
            self.disconnect(at, other);
        }
        let addresses = vec![place];
        self.input(at, Input::OwnAddresses { addresses, relay: None });
    }

    /// Nobody can call it any more, as behind most translators.
    pub fn hide(&mut self, at: usize) {
        self.moved.insert(at, SocketAddr::from(([0; 4], 0)));
    }

    /// Lets ten seconds pass.
    pub fn settle(&mut self) {
        self.pass(Duration::from_secs(10));
    }

    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.drain();
            let due = (0..self.nodes.len())
                .filter_map(|at| Some((self.nodes[at].peer.poll_timeout()?.0, at)))
                .min();
            match due {
                Some((when, at)) if when <= end => {
                    let step = when.saturating_duration_since(self.now).max(Duration::from_millis(1));
                    self.now += step;
                    self.wall_ms += u64::try_from(step.as_millis()).unwrap();
                    self.input(at, Input::Timeout);
                }
                _ => break,
            }
        }
        self.now = end;
        self.drain();
    }

    pub fn command(&mut self, at: usize, command: Command) -> Result<Reply, CommandError> {
        let id = self.next_command;
        self.next_command += 1;
        self.input(at, Input::Command { id, command });
        let found = self
            .replies
            .iter()
            .position(|(reply, _)| *reply == id)
            .expect("every command is answered");
        self.replies.remove(found).1
    }

    pub fn room(&mut self, at: usize, name: &str) -> RoomId {
        self.room_with(at, name, HistoryPolicy::All {})
    }

    pub fn room_with(&mut self, at: usize, name: &str, history: HistoryPolicy) -> RoomId {
        match self.command(
            at,
            Command::CreateRoom {
                name: name.into(),
                history,
            },
        ) {
            Ok(Reply::Room(room)) => room,
            other => panic!("{other:?}"),
        }
    }

    /// A room of these, that the first of them founded.
    pub fn kitchen_of<const N: usize>(&mut self, names: [&str; N]) -> ([usize; N], RoomId) {
        let members = names.map(|name| self.add(name));
        let [founder, newcomers @ ..] = &members[..] else {
            panic!("a room of nobody");
        };
        let room = self.room(*founder, "kitchen");
        for newcomer in newcomers {
            self.join(*founder, *newcomer, room);
        }
        (members, room)
    }

    pub fn join(&mut self, from: usize, to: usize, room: RoomId) {
        let invite = Command::Invite {
            room,
            expires_s: 3600,
            uses: 1,
            role: Role::Member,
            only_me: false,
        };
        let Ok(Reply::Invite(invite)) = self.command(from, invite) else {
            panic!("no invite")
        };
        self.command(to, Command::Join { invite }).unwrap();
        self.settle();
        let members = self.peer(to).members(room).unwrap().unwrap();
        assert!(
            members.iter().any(|member| member.is_me),
            "{to} did not get in: {:?}",
            self.events
        );
    }

    pub fn post(&mut self, at: usize, room: RoomId, post: Post) -> EntryId {
        match self.command(
            at,
            Command::Post {
                room,
                post,
                client_id: None,
            },
        ) {
            Ok(Reply::Entry(id)) => id,
            other => panic!("{other:?}"),
        }
    }

    pub fn say(&mut self, at: usize, room: RoomId, words: &str) -> EntryId {
        self.post(at, room, text(words))
    }

    /// The messages that a peer shows.
    pub fn texts(&self, at: usize, room: RoomId) -> Vec<String> {
        use offhook_proto::peer::view::EntryKind;
        let lines = self.peer(at).timeline(room, None, 1000).unwrap().unwrap_or_default();
        let text = |line: LineView| match line {
            LineView::Entry(entry) if entry.kind != EntryKind::Control => Some(entry.text),
            LineView::Entry(_) => None,
            LineView::Gap { from, to, .. } => Some(format!("(gap {from}-{to})")),
        };
        lines.into_iter().filter_map(text).collect()
    }
}
