//! A hostile member on a live line: changed, repeated, reordered and invented frames against a whole peer.
//!
//! Random bytes would never get past the names of rooms, so an input is a small program over what an honest member really
//! sends in a fixed scene (Ada has been away, Mallory has news): play frame n, play it with bytes changed, send a frame
//! of any kind under the room's true name, send raw bytes, let time pass, have Ada answer an invitation. The scene is played anew in each process, so
//! inputs keep their meaning when the protocol changes.
//!
//! Checked: nothing panics, a stranger's frames never make the store fail, a little input never draws a flood of output, and
//! reopening from the store shows what was shown before.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::crypto::{KeyPair, Secret};
use crate::history::{EntryId, RoomId};
use crate::identity::{DeviceId, DeviceKey, RootKey};
use crate::peer::view::LineView;
use crate::peer::{Command, Input, Output, Peer, Post, Reply, Secrets, Verdict};
use crate::rooms::{HistoryPolicy, Role};
use crate::store::MemoryStore;
use crate::sync::Frame;
use crate::sync::frame::RoomName;
use crate::wire::{Reader, Wire, WireError};

const WALL_MS: u64 = 1_790_000_000_000;
const EXPORTER: [u8; 32] = [77; 32];
/// Steps of one input that are carried out.
const STEPS_MAX: usize = 64;
/// Bytes that the steps of one input may draw from a room of a dozen entries.
const SENT_BYTES_MAX: usize = 4 << 20;

/// What is the same for every input.
struct Scene {
    /// Ada's, before the line comes up.
    store: MemoryStore,
    room: RoomId,
    mallory: DeviceId,
    /// What Mallory sends when the line comes up, in order.
    frames: Vec<Vec<u8>>,
    /// Mallory's name for the room.
    name: RoomName,
}

/// Two peers with a perfect line between them.
struct Pair {
    peers: [Peer<MemoryStore>; 2],
    devices: [DeviceId; 2],
    queue: VecDeque<(usize, Input)>,
    /// What the second sent.
    sent: Vec<Vec<u8>>,
    replies: Vec<Reply>,
    now: Instant,
}

/// Runs one input; true if Ada learned something new.
pub fn line(data: &[u8], now: Instant) -> bool {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    let scene = SCENE.get_or_init(|| Scene::play(now));
    let mut ada = ada_over(scene.store.clone(), now);
    let before = shown(&ada, scene.room);
    let line_up = Input::LineUp {
        peer: scene.mallory,
        exporter: EXPORTER,
        address: None,
    };
    feed(&mut ada, line_up, now);
    // Ada is open to strangers and Mallory is near, so that her invitations are heard.
    let open = Input::Command {
        id: 0,
        command: Command::TakeProposals { on: true },
    };
    feed(&mut ada, open, now);
    let found = Input::Found {
        peer: scene.mallory,
        addresses: Vec::new(),
    };
    feed(&mut ada, found, now);
    let (mut sent, mut time) = (0, now);
    let mut steps = Reader::new(data);
    for _ in 0..STEPS_MAX {
        // The rest of a program that ends in the middle of a step is left out.
        let Ok(step) = scene.step(&mut steps) else { break };
        let input = match step {
            Step::Input(input) => input,
            Step::Answer(verdict) => match ada.proposals().first() {
                Some(asked) => Input::Command {
                    id: 0,
                    command: Command::AnswerProposal {
                        token: asked.token,
                        verdict,
                    },
                },
                None => continue,
            },
        };
        if matches!(input, Input::Timeout) {
            time += Duration::from_secs(2);
        }
        sent += feed(&mut ada, input, time);
    }
    assert!(sent <= SENT_BYTES_MAX, "{} bytes drew {sent}", data.len());
    let after = shown(&ada, scene.room);
    let reopened = ada_over(ada.store_mut().clone(), time);
    assert_eq!(shown(&reopened, scene.room), after, "reopening shows the same");
    after != before
}

/// One step of a program.
enum Step {
    /// What Ada is given.
    Input(Input),
    /// Ada answers the first invitation that waits for her.
    Answer(Verdict),
}

fn feed(ada: &mut Peer<MemoryStore>, input: Input, now: Instant) -> usize {
    let outputs = ada.handle(input, now).expect("no frame makes a store in memory fail");
    let bytes = |output: &Output| match output {
        Output::Send { bytes, .. } => bytes.len(),
        _ => 0,
    };
    outputs.0.iter().map(bytes).sum()
}

/// What a person sees of a room: the entries and gaps, as text.
fn shown(peer: &Peer<MemoryStore>, room: RoomId) -> Vec<String> {
    let lines = peer.timeline(room, None, 1000).expect("memory does not fail");
    let text = |line: LineView| match line {
        LineView::Entry(entry) => format!("{} {}", entry.id, entry.text),
        gap @ LineView::Gap { .. } => format!("{gap:?}"),
    };
    lines.unwrap_or_default().into_iter().map(text).collect()
}

impl Scene {
    /// Reads one step of a program.
    fn step(&self, steps: &mut Reader<'_>) -> Result<Step, WireError> {
        let bytes = match steps.byte()? {
            0 => self.frame(steps)?,
            1 => {
                let mut bytes = self.frame(steps)?;
                for _ in 0..steps.byte()? % 8 {
                    let (at, value) = (usize::from(u16::from_be_bytes(steps.array()?)), steps.byte()?);
                    let len = bytes.len().max(1);
                    if let Some(byte) = bytes.get_mut(at % len) {
                        *byte = value;
                    }
                }
                bytes
            }
            2 => {
                let mut bytes = vec![steps.byte()?];
                self.name.encode(&mut bytes);
                bytes.extend(steps.bytes(4096, "rest")?);
                bytes
            }
            3 => steps.bytes(4096, "frame")?.to_vec(),
            4 => return Ok(Step::Input(Input::Timeout)),
            5 => return Ok(Step::Answer(Verdict::Accept)),
            6 => return Ok(Step::Answer(Verdict::Decline)),
            7 => return Ok(Step::Answer(Verdict::Block)),
            _ => return Err(WireError::Unknown("step")),
        };
        let peer = self.mallory;
        Ok(Step::Input(Input::Frame { peer, bytes }))
    }

    fn frame(&self, steps: &mut Reader<'_>) -> Result<Vec<u8>, WireError> {
        Ok(self.frames[usize::from(steps.byte()?) % self.frames.len()].clone())
    }

    /// Ada makes a room, Mallory joins, Ada leaves for a while, Mallory says things, and the line comes up again.
    fn play(now: Instant) -> Scene {
        let mut pair = Pair::new(now);
        let room = pair.meet();
        pair.lines(false);
        let store = pair.peers[0].store_mut().clone();
        pair.chatter(room);
        pair.peers[0] = ada_over(store.clone(), pair.now);
        pair.sent.clear();
        pair.lines(true);
        let frames = std::mem::take(&mut pair.sent);
        let name = frames.iter().find_map(|bytes| Frame::from_bytes(bytes).ok()?.name());
        Scene {
            store,
            room,
            mallory: pair.devices[1],
            frames,
            name: name.expect("Mallory's state differs, so she sends a summary of the room"),
        }
    }
}

/// Ada, from the same randomness each time: her hellos have the same rooms at the same places.
fn ada_over(store: MemoryStore, now: Instant) -> Peer<MemoryStore> {
    let mut ada = Peer::open(store, secrets(1), "Ada", [9; 32], now).expect("memory does not fail");
    feed(&mut ada, Input::WallClock { unix_ms: WALL_MS }, now);
    ada
}

fn secrets(seed: u8) -> Secrets {
    Secrets {
        root: RootKey::from_entropy(Secret([seed; 32])),
        device: DeviceKey(KeyPair::from_seed(&Secret([seed + 100; 32]))),
    }
}

impl Pair {
    fn new(now: Instant) -> Pair {
        let open = |seed: u8, name: &str| {
            Peer::open(MemoryStore::default(), secrets(seed), name, [seed; 32], now).expect("memory does not fail")
        };
        let mut pair = Pair {
            peers: [open(1, "Ada"), open(2, "Mallory")],
            devices: [secrets(1).device.device(), secrets(2).device.device()],
            queue: VecDeque::new(),
            sent: Vec::new(),
            replies: Vec::new(),
            now,
        };
        for at in 0..2 {
            pair.queue.push_back((at, Input::WallClock { unix_ms: WALL_MS }));
        }
        pair.settle();
        pair
    }

    fn meet(&mut self) -> RoomId {
        let name = "kitchen".to_owned();
        let history = HistoryPolicy::All {};
        let Reply::Room(room) = self.command(0, Command::CreateRoom { name, history }) else {
            panic!("a room was asked for")
        };
        let invite = Command::Invite {
            room,
            expires_s: 3600,
            uses: 1,
            role: Role::Admin,
            only_me: false,
        };
        let Reply::Invite(invite) = self.command(0, invite) else {
            panic!("an invite was asked for")
        };
        self.lines(true);
        self.command(1, Command::Join { invite });
        self.settle();
        room
    }

    /// One of everything that a member can say or do.
    fn chatter(&mut self, room: RoomId) {
        let first = self.post(room, text("one"));
        let second = self.post(room, text("two"));
        let edit = Post::Edit {
            target: first,
            text: "One".into(),
        };
        self.post(room, edit);
        let react = Post::React {
            target: first,
            emoji: "👍".into(),
            on: true,
        };
        self.post(room, react);
        self.post(room, Post::Delete { target: second });
        let name = "Kitchen".to_owned();
        self.command(1, Command::RenameRoom { room, name });
        self.post(room, text("three"));
    }

    fn post(&mut self, room: RoomId, post: Post) -> EntryId {
        let client_id = None;
        match self.command(1, Command::Post { room, post, client_id }) {
            Reply::Entry(id) => id,
            other => panic!("an entry was asked for, not {other:?}"),
        }
    }

    fn command(&mut self, at: usize, command: Command) -> Reply {
        self.queue.push_back((at, Input::Command { id: 0, command }));
        self.settle();
        self.replies.pop().expect("every command is answered")
    }

    fn lines(&mut self, up: bool) {
        for at in 0..2 {
            let peer = self.devices[1 - at];
            let (exporter, address) = (EXPORTER, None);
            let input = match up {
                true => Input::LineUp {
                    peer,
                    exporter,
                    address,
                },
                false => Input::LineDown { peer },
            };
            self.queue.push_back((at, input));
        }
        self.settle();
    }

    /// Delivers what is under way and lets ten seconds pass.
    fn settle(&mut self) {
        let end = self.now + Duration::from_secs(10);
        while self.now <= end {
            while let Some((at, input)) = self.queue.pop_front() {
                self.input(at, input);
            }
            self.now += Duration::from_millis(100);
            for at in 0..2 {
                if self.peers[at].poll_timeout().is_some_and(|(due, _)| due <= self.now) {
                    self.input(at, Input::Timeout);
                }
            }
        }
    }

    fn input(&mut self, at: usize, input: Input) {
        let outputs = self.peers[at].handle(input, self.now).expect("memory does not fail");
        for output in outputs.0 {
            match output {
                Output::Send { bytes, .. } => {
                    if at == 1 {
                        self.sent.push(bytes.clone());
                    }
                    let peer = self.devices[at];
                    self.queue.push_back((1 - at, Input::Frame { peer, bytes }));
                }
                Output::Reply { reply, .. } => self.replies.extend(reply.ok()),
                _ => {}
            }
        }
    }
}

fn text(text: &str) -> Post {
    Post::Text {
        text: text.to_owned(),
        reply_to: None,
        files: Vec::new(),
    }
}
