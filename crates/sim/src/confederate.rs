//! The strongest reader: somebody who was removed, with the home as it was just before, and a confederate in the room who passes on every entry.
//!
//! At the end of a run, a member's home is opened beside an old copy of another member's; the two get in step, and every frame of entries that
//! the member sends is kept: all that the room says to its members. Those frames are then given to the home of the removed, under the room's names that it
//! itself goes by. It takes what it is given, keys excepted, and must still show nothing that was said by anyone who knew that it is out. A confederate
//! who gives away keys as well cannot be stopped by any protocol; giving away a whole device is the planted fault.

use std::collections::{BTreeMap, BTreeSet};

use offhook_proto::identity::DeviceId;
use offhook_proto::peer::view::EntryKind;
use offhook_proto::peer::{Input, Output, Peer};
use offhook_proto::sync::frame::{Ends, Frame, RoomName, Side};
use offhook_proto::wire::Wire;

use crate::clock::{MILLI, SECOND};
use crate::disk::{Disk, Tables};
use crate::invariants::{Invariant, RoomSights, Violation};
use crate::plant::Plant;
use crate::world::{World, whole_timeline};

/// Larger worlds are left out: the check is the same, and its cost is not.
const NODES_MAX: usize = 16;
/// The line's secret is the same on all three ends, so that names of rooms on it mean the same.
const EXPORTER: [u8; 32] = [7; 32];
/// Rounds of frames back and forth until two homes are in step.
const ROUNDS_MAX: usize = 400;

impl World<'_> {
    /// Hands every entry of every room to whoever was removed from it.
    pub(crate) fn check_confederates(&mut self, rooms: &[RoomSights]) -> Vec<Violation> {
        let mut found = Vec::new();
        if self.hosts.len() > NODES_MAX {
            return found;
        }
        for room in rooms {
            let at_rest = room.at_rest(&self.model);
            let Some(roster) = at_rest.first().map(|sight| &sight.members) else {
                continue;
            };
            let members: Vec<usize> = at_rest.iter().map(|sight| sight.node).collect();
            let out = |node: &usize| !roster.contains_key(&self.model.persons[*node]);
            let removed: Vec<usize> = self.homes_when_removed.keys().copied().filter(out).collect();
            let (&[member, ..], false) = (&members[..], removed.is_empty()) else {
                continue;
            };
            let Some(listener) = members.iter().copied().find(|node| *node != member) else {
                continue;
            };
            let frames = self.all_entries(member, listener);
            for node in removed {
                // The planted fault: not a word is passed on but a whole device, keys and all.
                let reader = if self.plant == Some(Plant::HandOverDevice) {
                    listener
                } else {
                    node
                };
                found.extend(self.read_by(node, reader, room.room, member, &frames));
            }
        }
        found
    }

    /// Every frame with which one member brings an early copy of another's home up to date.
    fn all_entries(&mut self, member: usize, listener: usize) -> Vec<Frame> {
        let full = self.hosts[member].disk.snapshot().without_agreed_states();
        let Some(early) = self.homes_at_start.get(&listener) else {
            return Vec::new();
        };
        let early = early.clone().without_agreed_states();
        let (mut speaker, mut hearer) = (self.reopen(member, &full), self.reopen(listener, &early));
        let (Some(speaker), Some(hearer)) = (&mut speaker, &mut hearer) else {
            return Vec::new();
        };
        let devices = [self.hosts[member].device(), self.hosts[listener].device()];
        let mut now = self.now;
        let mut frames = Vec::new();
        let mut to_hearer = line_up(speaker, devices[1], self.clock.at(now));
        let mut to_speaker = line_up(hearer, devices[0], self.clock.at(now));
        for _ in 0..ROUNDS_MAX {
            now += 20 * MILLI;
            let at = self.clock.at(now);
            frames.extend(to_hearer.iter().filter_map(|bytes| Frame::from_bytes(bytes).ok()));
            let answers = give_all(hearer, devices[0], &to_hearer, at);
            let questions = give_all(speaker, devices[1], &to_speaker, at);
            (to_speaker, to_hearer) = (answers, questions);
        }
        frames
    }

    /// What somebody who was removed reads with all that, on a reader's device: their own.
    fn read_by(&mut self, node: usize, reader: usize, room: usize, member: usize, frames: &[Frame]) -> Vec<Violation> {
        let homes = if reader == node {
            &self.homes_when_removed
        } else {
            &self.homes_at_start
        };
        let (Some(home), Some(id)) = (homes.get(&reader).cloned(), self.model.rooms[room].id) else {
            return Vec::new();
        };
        let confederate = self.hosts[member].device();
        let mut shown = BTreeSet::new();
        for of_room in by_name(frames).values() {
            // Which of the names is this room's is not told, so all are tried.
            let Some(mut peer) = self.reopen(reader, &home) else {
                return Vec::new();
            };
            let hellos = line_up(&mut peer, confederate, self.clock.at(self.now));
            let theirs = frames.iter().filter(|frame| matches!(frame, Frame::Hello { .. }));
            let theirs: Vec<Vec<u8>> = theirs.map(Wire::to_bytes).collect();
            let _ = give_all(&mut peer, confederate, &theirs, self.clock.at(self.now));
            for ours in names(&hellos) {
                let renamed: Vec<Vec<u8>> = of_room.iter().map(|frame| rename(frame, ours)).collect();
                let _ = give_all(&mut peer, confederate, &renamed, self.clock.at(self.now + SECOND));
            }
            let lines = whole_timeline(&peer, id).unwrap_or_default();
            let readable = lines.into_iter().filter(|line| line.kind == EntryKind::Message);
            shown.extend(readable.map(|line| line.id));
            self.counts.smuggled += of_room.len() as u64;
        }
        let person = self.model.persons[node];
        let forbidden = self
            .model
            .posts
            .iter()
            .filter(|(_, post)| post.room == room && post.knew.gone.contains(&person));
        let read = forbidden.filter(|(id, _)| shown.contains(id));
        read.map(|(id, post)| {
            let text = format!(
                "room {room}: n{node}, removed, reads {id} of n{} from a confederate",
                post.node
            );
            Violation::new(Invariant::RemovedReadNothing, text)
        })
        .collect()
    }

    /// A peer over a copy of a home.
    fn reopen(&mut self, node: usize, home: &Tables) -> Option<Peer<Disk>> {
        let secrets = self.hosts[node].secrets.clone();
        let seed = self.dice.seeds.bytes();
        let mut peer = Peer::open(Disk::holding(home), secrets, "copy", seed, self.clock.at(self.now)).ok()?;
        let unix_ms = self.hosts[node].wall.unix_ms(self.now);
        let _ = peer
            .handle(Input::WallClock { unix_ms }, self.clock.at(self.now))
            .ok()?;
        Some(peer)
    }

    /// Remembers the home of somebody who is about to be out.
    pub(crate) fn keep_home(&mut self, node: usize) {
        if self.hosts.len() <= NODES_MAX {
            let home = self.hosts[node].disk.snapshot();
            self.homes_when_removed.entry(node).or_insert(home);
        }
    }

    /// Remembers all homes as they are when the safety phase begins.
    pub(crate) fn keep_all_homes(&mut self) {
        if self.hosts.len() <= NODES_MAX {
            let homes = self
                .hosts
                .iter()
                .enumerate()
                .map(|(node, host)| (node, host.disk.snapshot()));
            self.homes_at_start = homes.collect::<BTreeMap<usize, Tables>>();
        }
    }
}

fn line_up(peer: &mut Peer<Disk>, other: DeviceId, at: std::time::Instant) -> Vec<Vec<u8>> {
    let exporter = EXPORTER;
    let up = Input::LineUp {
        peer: other,
        exporter,
        address: None,
    };
    sent(peer.handle(up, at), other)
}

/// Gives frames and whatever time-outs are due; the frames sent back.
fn give_all(peer: &mut Peer<Disk>, from: DeviceId, frames: &[Vec<u8>], at: std::time::Instant) -> Vec<Vec<u8>> {
    let mut back = Vec::new();
    for bytes in frames {
        let bytes = bytes.clone();
        back.extend(sent(peer.handle(Input::Frame { peer: from, bytes }, at), from));
    }
    if peer.poll_timeout().is_some_and(|(due, _)| due <= at) {
        back.extend(sent(peer.handle(Input::Timeout, at), from));
    }
    back
}

fn sent<E>(outputs: Result<offhook_proto::peer::Outputs, E>, to: DeviceId) -> Vec<Vec<u8>> {
    let outputs = outputs.map(|outputs| outputs.0).unwrap_or_default();
    let to_them = outputs.into_iter().filter_map(|output| match output {
        Output::Send { peer, bytes } if peer == to => Some(bytes),
        _ => None,
    });
    to_them.collect()
}

/// Frames about entries, by the name that their room goes by. All kinds that name logs are kept, since names are counted on a line.
fn by_name(frames: &[Frame]) -> BTreeMap<RoomName, Vec<Frame>> {
    let mut rooms: BTreeMap<RoomName, Vec<Frame>> = BTreeMap::new();
    for frame in frames {
        let keep = matches!(
            frame,
            Frame::Summary { .. }
                | Frame::Entries { .. }
                | Frame::Have { .. }
                | Frame::Want { .. }
                | Frame::Hashes { .. }
        );
        if let Some(name) = frame.name().filter(|_| keep) {
            rooms.entry(name).or_default().push(frame.clone());
        }
    }
    rooms
}

/// The names of all rooms in a peer's own hellos, as the other end says them.
fn names(frames: &[Vec<u8>]) -> Vec<RoomName> {
    let hellos = frames.iter().filter_map(|bytes| match Frame::from_bytes(bytes) {
        Ok(Frame::Hello { rooms }) => Some(rooms),
        _ => None,
    });
    let side = Side::Yours;
    (0..)
        .zip(hellos.flatten())
        .map(|(place, _)| RoomName { side, place })
        .collect()
}

/// The frame under another name of its room.
fn rename(frame: &Frame, to: RoomName) -> Vec<u8> {
    let mut frame = frame.clone();
    if let Some(name) = frame.name_mut() {
        *name = to;
    }
    // Pushed: the reader asked for nothing, and an end of an answer that it did not ask for would break the line.
    if let Frame::Entries { ends, .. } = &mut frame {
        *ends = Ends(None);
    }
    frame.to_bytes()
}
