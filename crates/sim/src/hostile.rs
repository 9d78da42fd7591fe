//! Nodes that mean harm. Each runs the honest peer, so that it knows what to say, and bends what goes out of it: frames are
//! flipped, kept back, repeated, multiplied; an equivocator runs two copies of its home; a stranger has no room and talks
//! nonsense to everybody. Nothing is promised to them, and everything is promised to the others.

use std::collections::VecDeque;

use offhook_proto::history::{EntryId, RoomId};
use offhook_proto::identity::DeviceId;
use offhook_proto::peer::Forgery;
use offhook_proto::rooms::Role;
use offhook_proto::wire::FRAME_BYTES_MAX;

use crate::clock::{MILLI, SECOND};
use crate::disk::Disk;
use crate::net::Network;
use crate::scenario::HostileKind;
use crate::world::{Event, Phase, World};

/// How many frames a hostile node remembers.
const REMEMBERED_MAX: usize = 200;
/// Longer ones are not worth repeating.
const REMEMBERED_BYTES_MAX: usize = 64 * 1024;
/// How much an insider says at once, when it says too much.
const FLOOD_ENTRIES: usize = 100;
/// How many frames one burst of a flood has, for each line.
const BURST: usize = 30;

/// What a hostile node does and remembers.
#[derive(Debug)]
pub(crate) struct Mischief {
    kind: HostileKind,
    remembered: VecDeque<Vec<u8>>,
}

impl Mischief {
    pub(crate) fn new(kind: HostileKind) -> Self {
        Self {
            kind,
            remembered: VecDeque::new(),
        }
    }

    fn remember(&mut self, bytes: &[u8]) {
        if bytes.len() <= REMEMBERED_BYTES_MAX {
            self.remembered.push_back(bytes.to_vec());
        }
        if self.remembered.len() > REMEMBERED_MAX {
            self.remembered.pop_front();
        }
    }
}

impl World<'_> {
    pub(crate) fn begin_mischief(&mut self) {
        for node in self.model.hostile.clone() {
            self.after(SECOND, Event::Mischief { node });
        }
    }

    /// A hostile node hears a frame.
    pub(crate) fn hear(&mut self, node: usize, _: DeviceId, bytes: &[u8]) {
        if let Some(mischief) = self.mischief.get_mut(&node) {
            mischief.remember(bytes);
        }
    }

    /// What really goes out when a node sends a frame.
    pub(crate) fn bend(&mut self, node: usize, to: DeviceId, bytes: Vec<u8>) -> Vec<Vec<u8>> {
        let Some(mischief) = self.mischief.get_mut(&node) else {
            return vec![bytes];
        };
        mischief.remember(&bytes);
        let dice = &mut self.dice.mischief;
        match mischief.kind {
            // Only once all have met: who never lets anybody in is merely absent.
            _ if self.phase == Phase::Setup => vec![bytes],
            HostileKind::Forge if dice.chance(0.3) => vec![forged(dice, &bytes, &mischief.remembered)],
            // Some hear nothing but small talk.
            HostileKind::Withhold if to.0[0].is_multiple_of(2) && bytes.len() > 100 && dice.chance(0.8) => Vec::new(),
            HostileKind::Withhold if dice.chance(0.1) => Vec::new(),
            _ => vec![bytes],
        }
    }

    /// A hostile node does something of its own accord.
    pub(crate) fn make_mischief(&mut self, node: usize) {
        if matches!(self.phase, Phase::Done { .. }) {
            return;
        }
        let Some(kind) = self.mischief.get(&node).map(|mischief| mischief.kind) else {
            return;
        };
        match kind {
            HostileKind::Replay => self.repeat(node, 3),
            HostileKind::Flood => self.flood(node),
            HostileKind::Forge => self.repeat(node, 1),
            HostileKind::Equivocate => self.split(node),
            HostileKind::Stranger => self.intrude(node),
            HostileKind::Withhold => {}
            HostileKind::Insider => self.forge(node),
        }
        let gap = self.dice.mischief.around(SECOND);
        self.after(gap, Event::Mischief { node });
    }

    /// Writes something against the rules in some room, now and then much of it at once.
    fn forge(&mut self, node: usize) {
        let room = self.dice.mischief.index(self.model.rooms.len());
        let Some(id) = self.model.rooms[room].id.filter(|_| self.phase == Phase::Safety) else {
            return;
        };
        let dice = &mut self.dice.mischief;
        let day_ms = 24 * 3600 * 1000;
        let times = if dice.chance(0.1) { FLOOD_ENTRIES } else { 1 };
        for number in 0..times {
            let text = format!("n{node} r{room} forged {} {number}", self.commands);
            let forgery = match (times, self.dice.mischief.below(8)) {
                (1, 0) => Forgery::Say {
                    text,
                    clock_off_ms: -(self.dice.mischief.below(400 * day_ms) as i64),
                },
                (1, 1) => Forgery::Say {
                    text,
                    clock_off_ms: self.dice.mischief.below(4000 * day_ms) as i64,
                },
                (1, 2) => Forgery::SealToNobody { text },
                (1, 3) => Forgery::UselessPrekey,
                (1, 4) => {
                    // Not itself: who leaves above a fork comes back when the fork is proven.
                    let victim = (node + 1 + self.dice.mischief.index(self.scenario.peers - 1)) % self.scenario.peers;
                    Forgery::Seize {
                        victim: self.model.persons[victim],
                    }
                }
                (1, 5) if self.dice.mischief.chance(0.2) => Forgery::SplitControl,
                (1, 6) => match self.others_message(node, room) {
                    Some(target) => Forgery::Meddle { target },
                    None => Forgery::Say { text, clock_off_ms: 0 },
                },
                _ => Forgery::Say { text, clock_off_ms: 0 },
            };
            self.commands += 1;
            self.write_forgery(node, room, id, forgery);
        }
    }

    fn write_forgery(&mut self, node: usize, room: usize, id: RoomId, forgery: Forgery) {
        if !self.hosts[node].is_up() || self.hosts[node].working {
            return;
        }
        let members = self.member_views(node, room);
        let as_reader = members.iter().any(|member| member.is_me && member.role == Role::Reader);
        let is_said = matches!(forgery, Forgery::Say { .. });
        self.note(node, format_args!("forges {forgery:?}"));
        let (outputs, ids) = self.hosts[node].forge(id, forgery);
        self.counts.forged += ids.len() as u64;
        // Of what it wrote, the last is what it says; keys may have gone before.
        if let Some(said) = ids.last().filter(|_| as_reader && is_said) {
            self.model.by_readers.insert((room, *said));
        }
        for output in outputs {
            self.release(node, output);
        }
        self.count("forgeries");
    }

    /// Something that somebody else said.
    fn others_message(&mut self, node: usize, room: usize) -> Option<EntryId> {
        let others = self
            .model
            .posts
            .iter()
            .filter(|(_, post)| post.room == room && post.node != node);
        let others: Vec<EntryId> = others.map(|(id, _)| *id).collect();
        self.dice.mischief.pick(&others).copied()
    }

    /// Old frames again, on every line.
    fn repeat(&mut self, node: usize, times: usize) {
        for peer in self.net.peers_of(node) {
            for _ in 0..times {
                let remembered = &self.mischief[&node].remembered;
                let at = self.dice.mischief.index(remembered.len());
                if let Some(frame) = remembered.get(at).cloned() {
                    self.throw(node, peer, frame);
                }
            }
        }
    }

    fn flood(&mut self, node: usize) {
        self.repeat(node, BURST);
        for peer in self.net.peers_of(node) {
            for _ in 0..BURST {
                let len = self.dice.mischief.below(600) as usize;
                let mut frame = self.dice.mischief.garbage(len);
                // Half of it begins like a frame.
                if let Some(first) = frame.first_mut().filter(|first| **first < 128) {
                    *first %= 16;
                }
                self.throw(node, peer, frame);
            }
            if self.dice.mischief.chance(0.02) {
                let frame = self.dice.mischief.garbage(FRAME_BYTES_MAX);
                self.throw(node, peer, frame);
            }
        }
        self.count("floods");
    }

    /// A stranger dials everybody, and floods those who answer.
    fn intrude(&mut self, node: usize) {
        let target = self.dice.mischief.index(self.scenario.peers);
        let device = self.net.device(target);
        if target != node && !self.net.has_good_line(node, device) {
            let dial = self.net.dial(node, device, &[Network::address(target)], None, self.now);
            self.schedule_net([dial]);
        }
        self.flood(node);
    }

    fn throw(&mut self, node: usize, peer: DeviceId, frame: Vec<u8>) {
        self.note(node, format_args!("throws {} bytes", frame.len()));
        let sent = self.net.send(node, peer, frame, self.now);
        self.schedule_net(sent);
    }

    /// Once, and only while the original is alone with its copy: the second copy of a home starts from what the first one has now. From then
    /// on, both speak with the same keys.
    fn split(&mut self, node: usize) {
        let Some(original) = self.twins.get(&node).copied() else {
            return;
        };
        if !self.hosts[node].switched_off || self.phase != Phase::Safety {
            return;
        }
        let home = self.hosts[original].disk.snapshot();
        self.hosts[node].disk = Disk::holding(&home);
        self.hosts[node].switched_off = false;
        for room in 0..self.model.rooms.len() {
            if self.model.rooms[room].joined.contains(&original) {
                self.model.rooms[room].joined.insert(node);
            }
        }
        self.count("split homes");
        self.start(node);
        // Both speak before either has heard what the other said.
        for room in 0..self.model.rooms.len() {
            for speaker in [node, original] {
                if self.model.rooms[room].joined.contains(&speaker) {
                    self.wish_in(
                        MILLI,
                        speaker,
                        room,
                        crate::workload::Op::Post {
                            text: format!("n{speaker} r{room} says one thing here and another there"),
                            reply_to: None,
                        },
                    );
                }
            }
        }
    }
}

/// A frame with something wrong in it.
fn forged(dice: &mut crate::dice::Dice, bytes: &[u8], remembered: &VecDeque<Vec<u8>>) -> Vec<u8> {
    let mut frame = bytes.to_vec();
    match dice.below(4) {
        // A flipped bit.
        0 => {
            let at = dice.index(frame.len());
            if let Some(byte) = frame.get_mut(at) {
                *byte ^= 1 << dice.below(8);
            }
        }
        // Cut short.
        1 => frame.truncate(dice.index(bytes.len())),
        // The front of one and the back of another.
        2 => {
            let at = dice.index(remembered.len());
            if let Some(other) = remembered.get(at) {
                frame.truncate(dice.index(bytes.len()));
                frame.extend_from_slice(&other[other.len() / 2..]);
            }
        }
        // A stretch of garbage.
        _ => {
            let at = dice.index(frame.len());
            let end = (at + 8).min(frame.len());
            let garbage = dice.garbage(end - at);
            frame[at..end].copy_from_slice(&garbage);
        }
    }
    frame
}
