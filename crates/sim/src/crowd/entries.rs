//! Entries as numbers: said, pushed, announced, fetched.

use std::collections::BTreeSet;

use super::{Crowd, Event, Said, device, pair};
use crate::clock::{MILLI, Micros, SECOND};

/// What is new is collected for so long before it is announced.
const ANNOUNCE: Micros = 150 * MILLI;

/// A member says how far it has got so long after something came, where there are no more members than this.
const RECEIPT: Micros = 5 * SECOND;
const RECEIPTS_MAX: usize = 50;

impl Crowd<'_> {
    pub(super) fn place(&self, room: u32, node: usize) -> Option<usize> {
        self.plan.rooms[room as usize].binary_search(&node).ok()
    }

    pub(super) fn holds(&self, room: u32, node: usize, entry: u32) -> bool {
        let Some(place) = self.place(room, node) else {
            return true;
        };
        let words = &self.held[room as usize][place];
        words
            .get(entry as usize / 64)
            .is_some_and(|word| word >> (entry % 64) & 1 == 1)
    }

    pub(super) fn take(&mut self, room: u32, node: usize, entry: u32) {
        let Some(place) = self.place(room, node) else { return };
        let words = &mut self.held[room as usize][place];
        let word = entry as usize / 64;
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        words[word] |= 1 << (entry % 64);
    }

    pub(super) fn say(&mut self) {
        let gap = 60 * SECOND / self.plan.says_per_minute.max(1);
        if self.now < self.plan.quiet_after_s * SECOND {
            let wait = self.dice.around(gap);
            self.after(wait, Event::Say);
        } else {
            return;
        }
        let node = self.dice.index(self.plan.nodes);
        if !self.nodes[node].up || self.rooms_of[node].is_empty() || self.plan.naive.contains(&node) {
            return;
        }
        let room = self.rooms_of[node][self.dice.index(self.rooms_of[node].len())];
        let entry = self.said[room as usize].len() as u32;
        self.said[room as usize].push(Said {
            at: self.now,
            reachable: self.now,
            in_run: true,
        });
        self.take(room, node, entry);
        self.spoken(node, room);
        self.heard(node, room);
        let carried = self.neighbours(node, room);
        let now = self.clock.at(self.now);
        if carried.is_empty() {
            let state = &mut self.nodes[node];
            if let Some(room) = state.sight.rooms.get_mut(&room) {
                room.is_urgent = true;
            }
            for peer in state.sight.peers.values_mut() {
                if peer.rooms.contains(&room) && peer.failures == 0 {
                    peer.due = Some(now);
                }
            }
        }
        for other in carried {
            let latency = self.lines[&pair(node, other)].latency;
            self.after(
                latency,
                Event::Deliver {
                    from: node,
                    to: other,
                    room,
                    entry,
                },
            );
        }
        self.want_plan(node, MILLI);
    }

    /// Entries that the others have said among themselves, and all hold.
    pub(super) fn say_what_was_missed(&mut self, node: usize) {
        let rooms = self.rooms_of[node].clone();
        for number in 0..self.plan.missed {
            let room = rooms[number % rooms.len()];
            let entry = self.said[room as usize].len() as u32;
            self.said[room as usize].push(Said {
                at: self.now,
                reachable: self.now,
                in_run: false,
            });
            for member in self.plan.rooms[room as usize].clone() {
                if member != node {
                    self.take(room, member, entry);
                }
            }
        }
        self.missing = rooms
            .iter()
            .map(|room| {
                (0..self.said[*room as usize].len() as u32)
                    .filter(|entry| !self.holds(*room, node, *entry))
                    .count()
            })
            .sum();
    }

    /// Lines of a node to members of a room.
    pub(super) fn neighbours(&self, node: usize, room: u32) -> Vec<usize> {
        let lines = self.nodes[node].lines.iter().copied();
        lines.filter(|other| self.place(room, *other).is_some()).collect()
    }

    pub(super) fn spoken(&mut self, node: usize, room: u32) {
        let now = self.clock.at(self.now);
        let state = &mut self.nodes[node];
        if !state.planner.has_visited(room) {
            return;
        }
        let said = state.sight.rooms.get_mut(&room).map(|room| room.spoken.replace(now));
        let was_active = said
            .flatten()
            .is_some_and(|at| now.saturating_duration_since(at).as_secs() < 60);
        if !was_active {
            self.want_plan(node, 50 * MILLI);
        }
    }

    pub(super) fn frame(&mut self, node: usize, other: usize) {
        let now = self.clock.at(self.now);
        let peer = self.nodes[node].sight.peers.get_mut(&device(other));
        if let Some(line) = peer.and_then(|peer| peer.line.as_mut()) {
            line.last_frame = now;
        }
    }

    pub(super) fn deliver(&mut self, from: usize, to: usize, room: u32, entry: u32) {
        if !self.lines.contains_key(&pair(from, to)) {
            return;
        }
        self.frame(from, to);
        self.frame(to, from);
        self.nodes[from].sent += 1;
        if self.holds(room, to, entry) {
            return;
        }
        self.receive(to, room, entry);
        self.spoken(to, room);
        self.hand_on(to, from, room, entry);
    }

    pub(super) fn receive(&mut self, node: usize, room: u32, entry: u32) {
        self.take(room, node, entry);
        let said = self.said[room as usize][entry as usize];
        if said.in_run && self.plan.rooms[room as usize].len() <= RECEIPTS_MAX {
            self.after(RECEIPT, Event::Heard { node, room });
        }
        let state = &self.nodes[node];
        if said.in_run && state.up_since <= said.at {
            self.report.delays_ms.push((self.now - said.at) / MILLI);
            self.report.reachable_ms.push((self.now - said.reachable) / MILLI);
        }
        self.report.deliveries += usize::from(said.in_run);
        if self.plan.arriving.iter().next() == Some(&node) && said.at <= state.up_since {
            self.missing = self.missing.saturating_sub(1);
            if self.missing == 0 {
                self.report.caught_up_ms = Some((self.now - state.up_since) / MILLI);
            }
        }
    }

    /// A node came online: what nobody online had can be had again.
    pub(super) fn in_reach(&mut self, node: usize) {
        for room in self.rooms_of[node].clone() {
            for entry in 0..self.said[room as usize].len() {
                let said = &self.said[room as usize][entry];
                if said.reachable == Micros::MAX && self.holds(room, node, entry as u32) {
                    self.said[room as usize][entry].reachable = self.now;
                }
            }
        }
    }

    /// A node went offline: what nobody else online has cannot be had for now.
    pub(super) fn out_of_reach(&mut self, node: usize) {
        for room in self.rooms_of[node].clone() {
            for entry in 0..self.said[room as usize].len() {
                let members = &self.plan.rooms[room as usize];
                let is_there = |member: &usize| self.nodes[*member].up && self.holds(room, *member, entry as u32);
                if !members.iter().any(is_there) {
                    self.said[room as usize][entry].reachable = Micros::MAX;
                }
            }
        }
    }

    /// A member says how far it has got, and those to whom lines of the room lead hear of it.
    pub(super) fn heard(&mut self, node: usize, room: u32) {
        let now = self.clock.at(self.now);
        let mut open = vec![node];
        let mut reached = BTreeSet::from([node]);
        while let Some(at) = open.pop() {
            for other in self.neighbours(at, room) {
                if reached.insert(other) {
                    open.push(other);
                    if let Some(peer) = self.nodes[other].sight.peers.get_mut(&device(node)) {
                        peer.heard = Some(now);
                    }
                }
            }
        }
    }

    /// Announced, wanted, sent.
    pub(super) fn hand_on(&mut self, node: usize, from: usize, room: u32, entry: u32) {
        for other in self.neighbours(node, room) {
            if other != from && !self.holds(room, other, entry) {
                let latency = self.lines[&pair(node, other)].latency;
                self.after(
                    ANNOUNCE + 3 * latency,
                    Event::Deliver {
                        from: node,
                        to: other,
                        room,
                        entry,
                    },
                );
            }
        }
    }

    /// Both ends have said what they hold, and sent what the other lacks.
    pub(super) fn in_step(&mut self, a: usize, b: usize, number: u64) {
        if self.lines.get(&pair(a, b)).is_none_or(|line| line.number != number) {
            return;
        }
        let now = self.clock.at(self.now);
        for (here, there) in [(a, b), (b, a)] {
            let Some(peer) = self.nodes[here].sight.peers.get_mut(&device(there)) else {
                continue;
            };
            if let Some(line) = &mut peer.line {
                (line.is_busy, line.last_frame) = (false, now);
            }
            for room in peer.rooms.clone() {
                for entry in 0..self.said[room as usize].len() as u32 {
                    if self.holds(room, there, entry) && !self.holds(room, here, entry) {
                        self.nodes[there].sent += 1;
                        self.receive(here, room, entry);
                        self.hand_on(here, there, room, entry);
                    }
                }
            }
            self.want_plan(here, SECOND + 10 * MILLI);
        }
    }
}
