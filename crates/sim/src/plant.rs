//! Planted faults: for each invariant a way to break it, to prove that its check can fail.

use offhook_proto::peer::view::{EntryKind, EntryView};
use offhook_proto::rooms::Role;

use crate::clock::SECOND;
use crate::invariants::{Invariant, RoomSights, Sight};
use crate::world::World;

/// A fault planted on purpose. Those of nodes and network are in the run itself; the others are in what one node shows at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// A node answers and sends before it commits, and dies in between.
    LoseAcknowledged,
    /// A client forgets its client id and asks for the same again.
    ForgetClientId,
    /// One node shows an answer above what it answers.
    AnswerFirst,
    /// One node shows a member with another role.
    StaleRole,
    /// One node shows two messages, neither the other's cause, in the other order.
    SwapTwo,
    /// An accomplice shows their screen to somebody who was removed.
    ShowToRemoved,
    /// An accomplice gives somebody who was removed a device that is still in.
    HandOverDevice,
    /// What a reader said is shown like others'.
    UnmarkReader,
    /// One node writes something down at every commit, whatever comes in.
    Hoard,
    /// One node stays cut off when everything else heals.
    StayCutOff,
    /// Every record on one node's disk loses its last byte.
    SpoilStore,
    /// One node does not show the last message.
    MissLast,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::LoseAcknowledged,
        Self::ForgetClientId,
        Self::AnswerFirst,
        Self::StaleRole,
        Self::SwapTwo,
        Self::ShowToRemoved,
        Self::HandOverDevice,
        Self::UnmarkReader,
        Self::Hoard,
        Self::StayCutOff,
        Self::SpoilStore,
        Self::MissLast,
    ];

    /// The invariant that must be found broken.
    pub fn breaks(self) -> Invariant {
        match self {
            Self::LoseAcknowledged => Invariant::NothingLost,
            Self::ForgetClientId => Invariant::NothingTwice,
            Self::AnswerFirst => Invariant::CausesFirst,
            Self::StaleRole => Invariant::EqualMembership,
            Self::SwapTwo => Invariant::EqualOrder,
            Self::ShowToRemoved | Self::HandOverDevice => Invariant::RemovedReadNothing,
            Self::UnmarkReader => Invariant::ReadersMarked,
            Self::Hoard => Invariant::Bounded,
            Self::StayCutOff => Invariant::Progress,
            Self::SpoilStore => Invariant::Sound,
            Self::MissLast => Invariant::Expected,
        }
    }
}

impl World<'_> {
    /// Faults that prevent healing.
    pub(crate) fn plant_at_heal(&mut self) {
        if self.plant == Some(Plant::SpoilStore) {
            let last = self.hosts.len() - 1;
            self.kill(last, SECOND);
            self.hosts[last].disk.spoil();
        }
        if self.plant == Some(Plant::StayCutOff) {
            // Somebody says something while the last node is away, and it stays away.
            let last = self.hosts.len() - 1;
            let rest = (0..last).collect();
            let cut = self.net.partition(&[rest], self.now);
            self.schedule_net(cut);
            // Somebody who is there: a node that is only starting would not be heard before the first look.
            let speaker = (0..last).find(|node| self.hosts[*node].is_up()).unwrap_or(0);
            self.wish_post(speaker, 0, None);
            self.after(SECOND, crate::world::Event::Look);
        }
    }

    /// Faults in what nodes show.
    pub(crate) fn plant_in_sights(&mut self, rooms: &mut [RoomSights]) {
        match self.plant {
            Some(Plant::AnswerFirst) => answer_first(rooms),
            Some(Plant::StaleRole) => stale_role(rooms),
            Some(Plant::SwapTwo) => swap_two(rooms),
            Some(Plant::MissLast) => miss_last(rooms),
            Some(Plant::UnmarkReader) => unmark_readers(rooms),
            Some(Plant::ShowToRemoved) => self.show_to_removed(rooms),
            _ => {}
        }
    }

    /// Somebody who is out is shown what a member who knew of it sees.
    fn show_to_removed(&self, rooms: &mut [RoomSights]) {
        for room in rooms {
            let at_rest = room.at_rest(&self.model);
            let Some(member) = at_rest.first() else { continue };
            let (lines, roster) = (member.lines.clone(), member.members.clone());
            for sight in room.sights.iter_mut().filter(|s| !roster.contains_key(&s.person)) {
                sight.show(lines.clone());
            }
        }
    }
}

fn last_sight(rooms: &mut [RoomSights]) -> Option<&mut Sight> {
    rooms.first_mut()?.sights.last_mut()
}

/// Moves an answer to the top.
fn answer_first(rooms: &mut [RoomSights]) {
    let Some(sight) = last_sight(rooms) else { return };
    let mut lines = sight.lines.clone();
    if let Some(at) = lines.iter().rposition(|line| line.reply_to.is_some()) {
        let answer = lines.remove(at);
        lines.insert(0, answer);
    }
    sight.show(lines);
}

fn stale_role(rooms: &mut [RoomSights]) {
    let Some(sight) = last_sight(rooms) else { return };
    if let Some(role) = sight.members.values_mut().find(|role| **role != Role::Owner) {
        *role = Role::Reader;
    }
}

fn miss_last(rooms: &mut [RoomSights]) {
    let Some(sight) = last_sight(rooms) else { return };
    let mut lines = sight.lines.clone();
    if let Some(at) = lines.iter().rposition(|line| line.kind == EntryKind::Message) {
        lines.remove(at);
    }
    sight.show(lines);
}

fn unmark_readers(rooms: &mut [RoomSights]) {
    let sights = rooms.iter_mut().flat_map(|room| &mut room.sights);
    sights
        .flat_map(|sight| &mut sight.lines)
        .for_each(|line| line.by_reader = false);
}

fn swap_two(rooms: &mut [RoomSights]) {
    let Some(sight) = last_sight(rooms) else { return };
    let mut lines = sight.lines.clone();
    let message = |line: &EntryView| line.kind == EntryKind::Message;
    let swappable =
        |i: &usize| message(&lines[*i]) && message(&lines[*i + 1]) && lines[*i].device != lines[*i + 1].device;
    if let Some(at) = (0..lines.len().saturating_sub(1)).rev().find(swappable) {
        lines.swap(at, at + 1);
    }
    sight.show(lines);
}
