//! What the benches share: members who write by the book without a peer of their own, and two real peers with a line between them.
//!
//! A [`Scribe`] is a person with one device. It knocks at a real peer, is let in by a real control entry, and writes real entries, signed and sealed,
//! which are fed to real peers in frames over a line. So a room of hundreds costs one history, not hundreds of peers.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a bench's own scaffold, of which each bench uses a part; it measures time"
)]

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use offhook_proto::crypto::{self, Hash, KeyPair, SealKeyPair, Secret, prefix8};
use offhook_proto::history::{Body, Class, Clock, Entry, EntryRef, EpochId, Header, LogKey, RoomId, Said, entry};
use offhook_proto::identity::{DeviceId, DeviceKey, IdentityBundle, PersonId, RootKey};
use offhook_proto::peer::{Command, Input, Output, Peer, Post, Reply, Secrets};
use offhook_proto::rooms::{EpochSecret, HistoryPolicy, Invite, InviteUse, LogCertificate, Role};
use offhook_proto::store::{MemoryStore, Store};
use offhook_proto::sync::Frame;
use offhook_proto::sync::frame::{Ends, EpochGift, LogName, RoomName, Run, Runs, Side};
use offhook_proto::wire::Wire;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

/// The wall clock when a bench begins, in milliseconds since 1970.
pub const START_MS: u64 = 1_790_000_000_000;

/// Transactions around inputs, where the store has them.
pub trait Bracket: Store {
    fn begin_batch(&mut self) {}
    fn commit_batch(&mut self) {}
}

impl Bracket for MemoryStore {}

/// A real peer, and the time that it took.
pub struct Node<S> {
    pub peer: Peer<S>,
    pub device: DeviceId,
    pub person: PersonId,
    pub busy: Duration,
    batch: usize,
}

/// The clock that all share.
#[derive(Clone, Copy)]
pub struct Clocks {
    pub now: Instant,
    pub wall_ms: u64,
}

impl Clocks {
    pub fn start() -> Self {
        Self {
            now: Instant::now(),
            wall_ms: START_MS,
        }
    }

    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        self.wall_ms += u64::try_from(time.as_millis()).unwrap();
    }
}

/// How many inputs one transaction takes at most, as the node's driver batches what waits.
const BATCH_INPUTS_MAX: usize = 32;

impl<S: Bracket> Node<S> {
    pub fn open(mut store: S, seed: u8, name: &str, clocks: Clocks) -> Self {
        let root = RootKey::from_entropy(Secret([seed; 32]));
        let device = DeviceKey(KeyPair::from_seed(&Secret([seed + 100; 32])));
        let (person, id) = (root.person(), device.device());
        store.begin_batch();
        let mut peer = Peer::open(store, Secrets { root, device }, name, [seed; 32], clocks.now).unwrap();
        peer.store_mut().commit_batch();
        let mut node = Self {
            peer,
            device: id,
            person,
            busy: Duration::ZERO,
            batch: 0,
        };
        node.input(
            Input::WallClock {
                unix_ms: clocks.wall_ms,
            },
            clocks,
        );
        node.flush();
        node
    }

    pub fn input(&mut self, input: Input, clocks: Clocks) -> Vec<Output> {
        let start = Instant::now();
        if self.batch == 0 {
            self.peer.store_mut().begin_batch();
        }
        let outputs = self.peer.handle(input, clocks.now).unwrap().0;
        self.batch += 1;
        if self.batch >= BATCH_INPUTS_MAX {
            self.peer.store_mut().commit_batch();
            self.batch = 0;
        }
        self.busy += start.elapsed();
        outputs
    }

    /// Ends the transaction.
    pub fn flush(&mut self) {
        if std::mem::take(&mut self.batch) > 0 {
            let start = Instant::now();
            self.peer.store_mut().commit_batch();
            self.busy += start.elapsed();
        }
    }

    pub fn command(&mut self, command: Command, clocks: Clocks) -> (Reply, Vec<Output>) {
        let mut outputs = self.input(Input::Command { id: 7, command }, clocks);
        let at = outputs
            .iter()
            .position(|output| matches!(output, Output::Reply { .. }))
            .expect("every command is answered");
        let Output::Reply { reply, .. } = outputs.remove(at) else {
            unreachable!("just found")
        };
        (reply.expect("the bench asks for nothing that is refused"), outputs)
    }

    pub fn room(&mut self, name: &str, clocks: Clocks) -> RoomId {
        let history = HistoryPolicy::All {};
        let name = name.to_owned();
        match self.command(Command::CreateRoom { name, history }, clocks).0 {
            Reply::Room(room) => room,
            other => panic!("{other:?}"),
        }
    }

    pub fn invite(&mut self, room: RoomId, clocks: Clocks) -> Invite {
        let invite = Command::Invite {
            room,
            expires_s: 3600,
            uses: 10_000,
            role: Role::Member,
            only_me: false,
        };
        match self.command(invite, clocks).0 {
            Reply::Invite(invite) => invite,
            other => panic!("{other:?}"),
        }
    }

    pub fn say(&mut self, room: RoomId, text: String, clocks: Clocks) {
        let post = Post::Text {
            text,
            reply_to: None,
            files: Vec::new(),
        };
        let client_id = None;
        let _ = self.command(Command::Post { room, post, client_id }, clocks);
    }

    pub fn line_down(&mut self, peer: DeviceId, clocks: Clocks) {
        let _ = self.input(Input::LineDown { peer }, clocks);
        self.flush();
    }
}

/// A member who writes without a peer.
pub struct Scribe {
    root: RootKey,
    pub device: DeviceKey,
    prekey: SealKeyPair,
}

impl Scribe {
    pub fn new(number: u32) -> Self {
        let seed = |what: u8| {
            let mut seed = [what; 32];
            seed[..4].copy_from_slice(&number.to_be_bytes());
            Secret(seed)
        };
        Self {
            root: RootKey::from_entropy(seed(0xa0)),
            device: DeviceKey(KeyPair::from_seed(&seed(0xa1))),
            prekey: SealKeyPair::from_seed(seed(0xa2)),
        }
    }

    /// Another device of the same person.
    pub fn second_device(&self, number: u32) -> Self {
        Self {
            root: self.root.clone(),
            ..Self::new(number + 0x1_0000)
        }
    }

    fn identity(&self, others: &[&DeviceKey]) -> IdentityBundle {
        let mut records = vec![self.root.certify(self.device.device(), 1)];
        records.extend(others.iter().map(|other| self.root.certify(other.device(), 1)));
        records.push(self.device.state_prekey(1, &self.prekey));
        records.push(self.device.state_profile(1, "Scribe of the bench"));
        IdentityBundle { records }
    }
}

/// One scribe's log in one room.
pub struct Pen {
    key: KeyPair,
    pub log: LogKey,
    seq: u32,
    prev: Hash,
    last: Option<EntryRef>,
}

/// A room as its scribes know it.
pub struct Hall {
    pub room: RoomId,
    pub invite: Invite,
    pub secret: EpochSecret,
    pub epoch: EpochId,
    pub pens: Vec<Pen>,
    pub clock_ms: u64,
    /// The two newest entries.
    tips: [Option<EntryRef>; 2],
    rng: ChaCha20Rng,
    names: BTreeMap<LogKey, u32>,
}

impl Hall {
    /// Makes a room at `host` and lets the scribes in, by knocking.
    pub fn open<S: Bracket>(host: &mut Node<S>, name: &str, scribes: &[Scribe], clocks: Clocks) -> Self {
        let room = host.room(name, clocks);
        let invite = host.invite(room, clocks);
        let mut hall = Self {
            room,
            invite,
            secret: EpochSecret(Secret([0; 32])),
            epoch: EpochId([0; 8]),
            pens: Vec::new(),
            clock_ms: clocks.wall_ms + 1,
            tips: [None; 2],
            rng: ChaCha20Rng::from_seed(room.0),
            names: BTreeMap::new(),
        };
        for scribe in scribes {
            hall.admit(host, scribe, &[], clocks);
        }
        hall
    }

    pub fn admit<S: Bracket>(&mut self, host: &mut Node<S>, scribe: &Scribe, others: &[&DeviceKey], clocks: Clocks) {
        let device = scribe.device.device();
        let key = KeyPair::random(&mut self.rng);
        let log = LogCertificate::issue(&scribe.device.0, &key);
        let person = scribe.root.person();
        let knock = Frame::Knock {
            invite: InviteUse::prove(&self.invite.key(), &self.room, &person),
            person,
            identity: scribe.identity(others),
            log: log.clone(),
        };
        let up = Input::LineUp {
            peer: device,
            exporter: [3; 32],
            address: None,
        };
        let _ = host.input(up, clocks);
        let outputs = host.input(
            Input::Frame {
                peer: device,
                bytes: knock.to_bytes(),
            },
            clocks,
        );
        let gift = outputs.into_iter().find_map(|output| match output {
            Output::Send { bytes, .. } => match Frame::from_bytes(&bytes) {
                Ok(Frame::Welcome { gifts, .. }) => gifts.into_iter().next(),
                Ok(Frame::Refused { reason, .. }) => panic!("{reason}"),
                _ => None,
            },
            _ => None,
        });
        let Some(EpochGift::Whole { secret }) = gift else {
            panic!("no welcome")
        };
        self.secret = EpochSecret(secret);
        self.epoch = self.secret.id();
        host.line_down(device, clocks);
        self.pens.push(Pen {
            key,
            log: log.log,
            seq: 0,
            prev: [0; 32],
            last: None,
        });
    }

    /// Which author speaks next: Zipf with exponent one.
    pub fn next_author(&mut self, cumulative: &[f64]) -> usize {
        let total = cumulative.last().copied().unwrap_or(1.0);
        let at = f64::from(self.rng.next_u32()) / f64::from(u32::MAX) * total;
        cumulative.partition_point(|sum| *sum < at).min(cumulative.len() - 1)
    }

    /// A text of about that many bytes, of words with a Zipf distribution.
    pub fn text(&mut self, bytes: usize) -> String {
        let mut text = String::with_capacity(bytes + 12);
        while text.len() < bytes {
            let r = f64::from(self.rng.next_u32() | 1) / f64::from(u32::MAX);
            let word = (20_000f64.powf(r)) as u32;
            text.push_str(&word_of(word));
            text.push(' ');
        }
        text.truncate(bytes);
        text
    }

    /// Somebody says something, having seen the newest two entries of others.
    pub fn write(&mut self, author: usize, text: String) -> (LogKey, Entry) {
        self.clock_ms += 500;
        let own = self.pens[author].log.prefix();
        let body = Body::Text {
            text,
            reply_to: None,
            files: Vec::new(),
        };
        let plain = Said { riders: vec![], body }.to_bytes();
        let mut parents: Vec<EntryRef> = self
            .tips
            .iter()
            .flatten()
            .filter(|tip| tip.log != own)
            .copied()
            .collect();
        // Most entries answer the newest; one in four was written while another came in.
        if !self.rng.next_u32().is_multiple_of(4) {
            parents.truncate(1);
        }
        parents.dedup_by_key(|tip| tip.log);
        self.append(author, Class::Message, parents, |header, log, secret| {
            let key = header.payload_key(log, &secret.content());
            crypto::seal_once(&key, &header.bound(log), &plain)
        })
    }

    fn append(
        &mut self,
        author: usize,
        class: Class,
        parents: Vec<EntryRef>,
        seal: impl FnOnce(&Header, &LogKey, &EpochSecret) -> Vec<u8>,
    ) -> (LogKey, Entry) {
        let pen = &mut self.pens[author];
        let mut header = Header {
            class,
            seq: pen.seq + 1,
            prev: pen.prev,
            clock: Clock::at_ms(self.clock_ms),
            epoch: self.epoch,
            parents,
            payload_hash: [0; 32],
            payload_len: 0,
        };
        let payload = seal(&header, &pen.log, &self.secret);
        header.payload_hash = entry::payload_hash(&payload);
        header.payload_len = u32::try_from(payload.len()).unwrap();
        let hash = header.hash(&pen.log);
        let signature = entry::sign(&pen.key, &hash);
        pen.seq += 1;
        pen.prev = hash;
        let tip = EntryRef {
            log: pen.log.prefix(),
            seq: pen.seq,
            hash: prefix8(&hash),
        };
        pen.last = Some(tip);
        self.tips = [Some(tip), self.tips[0]];
        let entry = Entry {
            header,
            signature,
            payload: Some(payload),
        };
        (pen.log, entry)
    }

    /// `count` entries by Zipf authors, in the order in which they were written.
    pub fn converse(&mut self, count: usize, text_bytes: usize) -> Vec<(LogKey, Entry)> {
        let cumulative = zipf(self.pens.len());
        let mut said = Vec::with_capacity(count);
        for _ in 0..count {
            let author = self.next_author(&cumulative);
            let text = self.text(text_bytes);
            said.push(self.write(author, text));
        }
        said
    }

    /// The tag by which `host` names this room on a line with this exporter secret.
    fn tag(&self, host: &DeviceId, exporter: &[u8; 32]) -> [u8; 8] {
        prefix8(&self.secret.sync().mac(&[&exporter[..], &host.0, b"tag"].concat()))
    }

    /// Where a hello of `host` on the feeder's line has this room.
    fn place_in(&self, host: &DeviceId, outputs: &[Output]) -> RoomName {
        let tag = self.tag(host, &FEEDER_EXPORTER);
        let mut places = outputs
            .iter()
            .filter_map(|output| match output {
                Output::Send { bytes, .. } => Frame::from_bytes(bytes).ok(),
                _ => None,
            })
            .flat_map(|frame| match frame {
                Frame::Hello { rooms } => rooms,
                _ => Vec::new(),
            });
        let place = places.position(|hello| hello.tag == tag).expect("the room is greeted");
        RoomName {
            side: Side::Yours,
            place: u32::try_from(place).unwrap(),
        }
    }

    /// The frames that bring these entries, `per_frame` in each: grouped by author within a frame, or each a run of its own. Their room is named when
    /// they are fed.
    pub fn frames(
        &self,
        said: &[(LogKey, Entry)],
        per_frame: usize,
        grouped: bool,
        names: &mut BTreeMap<LogKey, u32>,
    ) -> Vec<Vec<u8>> {
        let name = RoomName {
            side: Side::Yours,
            place: 0,
        };
        let mut frames = Vec::new();
        for chunk in said.chunks(per_frame) {
            let mut runs: Vec<(LogKey, Vec<Entry>)> = Vec::new();
            let mut at: BTreeMap<LogKey, usize> = BTreeMap::new();
            for (log, entry) in chunk {
                let follows = |run: &&usize| {
                    let before = runs[**run].1.last().map_or(0, |before| before.header.seq);
                    grouped && before + 1 == entry.header.seq
                };
                match at.get(log).filter(follows).copied() {
                    Some(run) => runs[run].1.push(entry.clone()),
                    None => {
                        at.insert(*log, runs.len());
                        runs.push((*log, vec![entry.clone()]));
                    }
                }
            }
            let mut log_name = |log: LogKey| {
                let next = u32::try_from(names.len()).unwrap();
                match names.get(&log) {
                    Some(number) => LogName::Known(2 * number + 1),
                    None => {
                        names.insert(log, next);
                        LogName::New(log)
                    }
                }
            };
            let runs = runs
                .into_iter()
                .map(|(log, entries)| Run {
                    log: log_name(log),
                    entries,
                })
                .collect();
            let (ends, runs) = (Ends(None), Runs(runs));
            frames.push(Frame::Entries { name, ends, runs }.to_bytes());
        }
        frames
    }

    /// Gives a peer these entries, as another member would. `feeder` is a scribe of the room.
    pub fn feed<S: Bracket>(&self, host: &mut Node<S>, feeder: &Scribe, said: &[(LogKey, Entry)], clocks: Clocks) {
        let frames = self.frames(said, 512, true, &mut BTreeMap::new());
        self.feed_frames(host, feeder, frames, clocks);
    }

    pub fn feed_frames<S: Bracket>(
        &self,
        host: &mut Node<S>,
        feeder: &Scribe,
        frames: Vec<Vec<u8>>,
        mut clocks: Clocks,
    ) {
        clocks.wall_ms = clocks.wall_ms.max(self.clock_ms);
        let peer = feeder.device.device();
        let up = Input::LineUp {
            peer,
            exporter: FEEDER_EXPORTER,
            address: None,
        };
        let _ = host.input(
            Input::WallClock {
                unix_ms: clocks.wall_ms,
            },
            clocks,
        );
        let hellos = host.input(up, clocks);
        let place = self.place_in(&host.device, &hellos);
        for mut bytes in frames {
            // The kind is one byte, and so is the name that stands in for this one.
            bytes.splice(1..2, place.to_bytes());
            let outputs = host.input(Input::Frame { peer, bytes }, clocks);
            let closed = outputs.iter().find(|output| matches!(output, Output::Close { .. }));
            assert!(closed.is_none(), "the peer refused: {closed:?}");
        }
        host.flush();
        host.line_down(peer, clocks);
    }
}

const FEEDER_EXPORTER: [u8; 32] = [4; 32];

/// Sums of Zipf weights.
pub fn zipf(count: usize) -> Vec<f64> {
    let mut sum = 0.0;
    (1..=count)
        .map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        })
        .collect()
}

/// A made-up word for a rank: short ones are common.
pub fn word_of(rank: u32) -> String {
    const SYLLABLES: [&str; 16] = [
        "an", "be", "co", "di", "el", "fo", "ga", "hu", "in", "ja", "ko", "la", "mi", "no", "or", "pe",
    ];
    let mut word = String::new();
    let mut rest = rank;
    loop {
        word.push_str(SYLLABLES[(rest % 16) as usize]);
        rest /= 16;
        if rest == 0 {
            return word;
        }
    }
}

/// A frame that went over the line between two peers.
pub struct Sent {
    /// 0: from the first, 1: from the second.
    pub from: usize,
    pub kind: &'static str,
    /// With the length before it.
    pub bytes: usize,
    /// Of those, the encodings of entries.
    pub entry_bytes: usize,
    pub entries: usize,
    /// How many frames had to come one after the other before this one could be sent.
    pub depth: u32,
}

/// A line between two real peers.
pub struct Between {
    pub sent: Vec<Sent>,
    queue: VecDeque<(usize, Vec<u8>, u32)>,
    exporter: u8,
}

impl Between {
    pub fn new() -> Self {
        Self {
            sent: Vec::new(),
            queue: VecDeque::new(),
            exporter: 10,
        }
    }

    /// Both hear that the line is up.
    pub fn up<A: Bracket, B: Bracket>(&mut self, a: &mut Node<A>, b: &mut Node<B>, clocks: Clocks) {
        self.exporter += 1;
        let exporter = [self.exporter; 32];
        let up = |peer| Input::LineUp {
            peer,
            exporter,
            address: None,
        };
        let out = a.input(up(b.device), clocks);
        self.take(0, b.device, out, 0);
        let out = b.input(up(a.device), clocks);
        self.take(1, a.device, out, 0);
    }

    pub fn down<A: Bracket, B: Bracket>(&mut self, a: &mut Node<A>, b: &mut Node<B>, clocks: Clocks) {
        self.queue.clear();
        a.line_down(b.device, clocks);
        b.line_down(a.device, clocks);
    }

    pub fn take(&mut self, from: usize, to: DeviceId, outputs: Vec<Output>, depth: u32) {
        for output in outputs {
            match output {
                Output::Send { peer, bytes } if peer == to => {
                    self.sent.push(describe(from, &bytes, depth + 1));
                    self.queue.push_back((1 - from, bytes, depth + 1));
                }
                Output::Close { reason, .. } => panic!("closed: {reason}"),
                _ => {}
            }
        }
    }

    /// Delivers one frame. False when nothing is under way.
    pub fn step<A: Bracket, B: Bracket>(&mut self, a: &mut Node<A>, b: &mut Node<B>, clocks: Clocks) -> bool {
        let Some((to, bytes, depth)) = self.queue.pop_front() else {
            return false;
        };
        if to == 0 {
            let peer = b.device;
            let out = a.input(Input::Frame { peer, bytes }, clocks);
            self.take(0, peer, out, depth);
        } else {
            let peer = a.device;
            let out = b.input(Input::Frame { peer, bytes }, clocks);
            self.take(1, peer, out, depth);
        }
        true
    }

    /// Delivers everything, and lets the peers' own deadlines of the next ten seconds come.
    pub fn settle<A: Bracket, B: Bracket>(&mut self, a: &mut Node<A>, b: &mut Node<B>, clocks: &mut Clocks) {
        let end = clocks.now + Duration::from_secs(10);
        loop {
            while self.step(a, b, *clocks) {}
            a.flush();
            b.flush();
            let due = [a.peer.poll_timeout(), b.peer.poll_timeout()];
            let due = due.map(|due| due.map(|(at, _)| at).filter(|at| *at <= end));
            let Some(at) = due.into_iter().flatten().min() else {
                break;
            };
            clocks.pass(at.saturating_duration_since(clocks.now).max(Duration::from_millis(1)));
            let depth = 1_000;
            let out = a.input(Input::Timeout, *clocks);
            self.take(0, b.device, out, depth);
            let out = b.input(Input::Timeout, *clocks);
            self.take(1, a.device, out, depth);
        }
        clocks.now = end.max(clocks.now);
        a.flush();
        b.flush();
    }

    /// Lets the second into a room of the first, by an invite, over the line.
    pub fn join<A: Bracket, B: Bracket>(
        &mut self,
        a: &mut Node<A>,
        b: &mut Node<B>,
        invite: &Invite,
        clocks: &mut Clocks,
    ) {
        let invite = invite.clone();
        let (_, outputs) = b.command(Command::Join { invite }, *clocks);
        self.take(1, a.device, outputs, 0);
        self.settle(a, b, clocks);
    }

    /// Bytes by one side of frames that `counts`.
    pub fn bytes(&self, from: usize, counts: impl Fn(&Sent) -> bool) -> usize {
        self.sent
            .iter()
            .filter(|sent| sent.from == from && counts(sent))
            .map(|sent| sent.bytes)
            .sum()
    }

    /// A line for each kind of frame.
    pub fn print_kinds(&self) {
        let mut kinds: BTreeMap<(&str, usize), (usize, usize, usize)> = BTreeMap::new();
        for sent in &self.sent {
            let sum = kinds.entry((sent.kind, sent.from)).or_default();
            *sum = (sum.0 + 1, sum.1 + sent.bytes, sum.2 + sent.entry_bytes);
        }
        for ((kind, from), (count, bytes, entry_bytes)) in kinds {
            println!("    {kind:<10} from {from}: {count:>5} frames {bytes:>9} B, of which entries {entry_bytes:>9} B");
        }
    }
}

fn describe(from: usize, bytes: &[u8], depth: u32) -> Sent {
    let frame = Frame::from_bytes(bytes).unwrap();
    let (mut entry_bytes, mut entries) = (0, 0);
    if let Frame::Entries { runs, .. } = &frame {
        for run in &runs.0 {
            entry_bytes += run.entries.iter().map(|entry| entry.to_bytes().len()).sum::<usize>();
            entries += run.entries.len();
        }
    }
    let kind = match frame {
        Frame::Hello { .. } => "Hello",
        Frame::Summary { .. } => "Summary",
        Frame::NoBase { .. } => "NoBase",
        Frame::Want { .. } => "Want",
        Frame::WantAll { .. } => "WantAll",
        Frame::WantPage { .. } => "WantPage",
        Frame::Entries { .. } => "Entries",
        Frame::Taken { .. } => "Taken",
        Frame::Have { .. } => "Have",
        Frame::InStep { .. } => "InStep",
        Frame::Hashes { .. } => "Hashes",
        Frame::NeedEpochs { .. } => "NeedEpochs",
        Frame::Epochs { .. } => "Epochs",
        Frame::Receipts { .. } => "Receipts",
        Frame::Addresses { .. } => "Addresses",
        Frame::Seek { .. } => "Seek",
        Frame::Found { .. } => "Found",
        _ => "Joining",
    };
    Sent {
        from,
        kind,
        bytes: bytes.len() + (bytes.len() as u64).to_bytes().len(),
        entry_bytes,
        entries,
        depth,
    }
}

/// Whether a frame is about where devices are or how far they got: these come when they come, and are counted apart.
pub fn is_apart(sent: &Sent) -> bool {
    matches!(sent.kind, "Addresses" | "Receipts")
}

/// One line of a bench's table.
pub fn figure(what: &str, reach: &str, measured: &str) {
    println!("| {what:<58} | {reach:>16} | {measured:>26} |");
}

/// The head of a bench's table.
pub fn table_head() {
    figure("figure", "reach", "measured");
    println!("|{}|{}|{}|", "-".repeat(60), "-".repeat(18), "-".repeat(28));
}
