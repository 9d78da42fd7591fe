//! The script of a scenario: what happens at given times, and what is expected at the end.

use offhook_proto::peer::view::EntryKind;

use crate::clock::SECOND;
use crate::invariants::{Invariant, RoomSights, Violation};
use crate::scenario::{Action, role};
use crate::workload::Op;
use crate::world::{Event, World};

impl World<'_> {
    /// Carries out a step.
    pub(crate) fn step(&mut self, number: usize) {
        let action = self.scenario.step[number].action.clone();
        self.note(0, format_args!("step {action:?}"));
        match action {
            Action::Post { node, room, times } => (0..times).for_each(|_| self.wish_post(node, room, None)),
            Action::Invite {
                by,
                room,
                nodes,
                uses,
                only_me,
                redeem_after_s,
            } => {
                self.model.rooms[room].knocking.extend(&nodes);
                self.wish_invite(by, room, nodes, uses, only_me, redeem_after_s * SECOND);
            }
            Action::Remove { by, node, room } => {
                let person = self.model.persons[node];
                self.wish(by, room, Op::Remove(person));
            }
            Action::Leave { node, room } => self.wish(node, room, Op::Leave),
            Action::Role {
                by,
                node,
                room,
                role: name,
            } => {
                let person = self.model.persons[node];
                self.wish(by, room, Op::SetRole(person, role(&name)));
            }
            Action::Off { nodes } => nodes.iter().for_each(|node| self.switch(*node, false)),
            Action::On { nodes } => nodes.iter().for_each(|node| self.switch(*node, true)),
            Action::Partition { groups } => {
                let cut = self.net.partition(&groups, self.now);
                self.schedule_net(cut);
            }
            Action::Heal {} => self.net.heal(),
            Action::Snapshot { node } => self.copy_home(node),
            Action::Restore { node } => {
                self.restore(node);
                self.count("homes restored");
            }
            Action::Copy { node } => {
                self.put_copy_back(node);
                self.count("homes copied");
            }
            Action::Clock { node, off_by_s } => self.set_clock(node, off_by_s),
            expectation @ (Action::ExpectMembers { .. } | Action::ExpectShown { .. }) => {
                self.expected.push(expectation)
            }
        }
    }

    pub(crate) fn switch(&mut self, node: usize, on: bool) {
        self.hosts[node].switched_off = !on;
        if on {
            self.after(0, Event::Start { node });
        } else {
            self.kill(node, 0);
        }
    }

    /// What the script expects and does not find.
    pub(crate) fn check_expected(&self, rooms: &[RoomSights]) -> Vec<Violation> {
        let missing = self.expected.iter().filter_map(|expected| match expected {
            Action::ExpectMembers { room, count } => {
                let at_rest = rooms[*room].at_rest(&self.model);
                let shown = at_rest.first().map_or(0, |sight| sight.members.len());
                (shown != *count).then(|| format!("room {room} has {shown} members, not {count}"))
            }
            Action::ExpectShown { node, room, count } => {
                let sight = rooms[*room].sights.iter().find(|sight| sight.node == *node);
                let lines = sight.map_or(&[][..], |sight| &sight.lines);
                let shown = lines.iter().filter(|line| line.kind == EntryKind::Message).count();
                (shown != *count).then(|| format!("n{node} shows {shown} messages in room {room}, not {count}"))
            }
            _ => None,
        });
        missing.map(|text| Violation::new(Invariant::Expected, text)).collect()
    }
}
