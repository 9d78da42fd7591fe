//! What people do: they make rooms, let others in, talk, change what they said, and fall out with each other.
//!
//! A client hands a command to its node and waits for the answer. Where the node dies first, the client asks again with the same
//! client id once the node is back, which must not say anything twice.

use std::collections::BTreeSet;

use offhook_proto::history::EntryId;
use offhook_proto::identity::PersonId;
use offhook_proto::peer::view::{EntryKind, LineView, MemberView, Standing};
use offhook_proto::peer::{Command, CommandError, Input, Post, Reply};
use offhook_proto::rooms::{Invite, Role};

use crate::clock::{MILLI, Micros, SECOND};
use crate::host::Mishap;
use crate::model::{Knowledge, Posted};
use crate::plant::Plant;
use crate::world::{Event, World};

/// How long invites hold: longer than any scenario.
const INVITE_EXPIRES_S: u64 = 30 * 24 * 3600;
/// How many of the newest lines an author is taken to have seen.
const CAUSES_MAX: usize = 8;
/// Messages that people still react to: the newest so many of a room.
const RECENT: usize = 20;
/// Rooms are not emptied below this.
const MEMBERS_MIN: usize = 3;

/// Something that a client wants of a node.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) node: usize,
    pub(crate) room: usize,
    pub(crate) op: Op,
    pub(crate) client_id: [u8; 16],
    /// What the author knew when they first asked: a second asking may find it done already.
    pub(crate) knew: Option<Knowledge>,
}

/// What a client wants.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Create,
    Invite {
        nodes: Vec<usize>,
        uses: u32,
        only_me: bool,
        redeem_after: Micros,
    },
    Join(Box<Invite>),
    Post {
        text: String,
        reply_to: Option<EntryId>,
    },
    Edit {
        target: EntryId,
        text: String,
    },
    Delete {
        target: EntryId,
    },
    React {
        target: EntryId,
        emoji: &'static str,
        on: bool,
    },
    Remove(PersonId),
    Leave,
    SetRole(PersonId, Role),
    Rename(String),
    LimitFiles(u64),
    MarkRead(EntryId),
}

/// A command under way.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) wish: Wish,
}

/// What people do without a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Post,
    Reply,
    Edit,
    Delete,
    React,
    Remove,
    Role,
    Invite,
    Leave,
    Rename,
    LimitFiles,
    Read,
}

impl World<'_> {
    /// Wishes for all rooms and their first members.
    pub(crate) fn make_rooms(&mut self) {
        if self.scenario.drawn {
            return self.make_drawn_rooms();
        }
        let peers = self.scenario.peers;
        for room in 0..self.scenario.rooms {
            self.model.rooms.push(crate::model::RoomModel::default());
            let [fewest, most] = self.scenario.members;
            let maker = self.maker(room);
            let count = self.dice.work.between(fewest as u64, most as u64) as usize;
            let mut others: Vec<usize> = (0..peers).filter(|n| *n != maker && !self.is_stranger(*n)).collect();
            // Scripts count on rooms of everybody, or of the first so many.
            if self.scenario.step.is_empty() {
                self.dice.work.shuffle(&mut others);
            }
            others.truncate(count - 1);
            self.model.rooms[room].knocking.extend(others);
            self.wish_in(SECOND, maker, room, Op::Create);
        }
    }

    fn make_drawn_rooms(&mut self) {
        let (seed, [_, most]) = (self.dice.work.below(u64::MAX), self.scenario.members);
        for (room, members) in crate::crowd::drawn_rooms(self.scenario.peers, seed)
            .into_iter()
            .enumerate()
        {
            let mut members = members.into_iter().take(most);
            let Some(maker) = members.next() else { continue };
            self.model.rooms.push(crate::model::RoomModel::default());
            self.model.rooms[room].knocking.extend(members);
            self.wish_in(SECOND, maker, room, Op::Create);
        }
    }

    /// Who makes a room: the nodes in turn, passing over those that mean harm.
    fn maker(&self, room: usize) -> usize {
        let honest: Vec<usize> = (0..self.scenario.peers)
            .filter(|n| self.hostility(*n).is_none())
            .collect();
        honest[room % honest.len()]
    }

    fn is_stranger(&self, node: usize) -> bool {
        self.hostility(node) == Some(crate::scenario::HostileKind::Stranger)
    }

    pub(crate) fn begin_work(&mut self) {
        if self.scenario.work.gap_ms > 0 {
            self.after(SECOND, Event::Act);
        }
    }

    /// Somebody does something, and the next one's turn is set.
    pub(crate) fn act(&mut self) {
        if self.phase != crate::world::Phase::Safety {
            return;
        }
        let gap = self.dice.work.around(self.scenario.work.gap_ms * MILLI);
        self.after(gap, Event::Act);
        let room = self.dice.work.index(self.model.rooms.len());
        let joined: Vec<usize> = self.model.rooms[room].joined.iter().copied().collect();
        let Some(node) = self.dice.work.pick(&joined).copied() else {
            return;
        };
        let deed = self.draw_deed();
        if self.standing(node, room) == Some(Standing::Member) {
            self.do_deed(deed, node, room);
        }
    }

    fn draw_deed(&mut self) -> Deed {
        let work = &self.scenario.work;
        let weights = [
            (Deed::Post, work.post),
            (Deed::Reply, work.reply),
            (Deed::Edit, work.edit),
            (Deed::Delete, work.delete),
            (Deed::React, work.react),
            (Deed::Remove, work.remove),
            (Deed::Role, work.role),
            (Deed::Invite, work.invite),
            (Deed::Leave, work.leave),
            (Deed::Rename, work.rename),
            (Deed::LimitFiles, work.limit_files),
            (Deed::Read, work.read),
        ];
        let total: u32 = weights.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.dice.work.below(u64::from(total)) as u32;
        for (deed, weight) in weights {
            if drawn < weight {
                return deed;
            }
            drawn -= weight;
        }
        Deed::Post
    }

    fn do_deed(&mut self, deed: Deed, node: usize, room: usize) {
        match deed {
            Deed::Post => self.wish_post(node, room, None),
            Deed::Reply => {
                let target = self.recent(node, room, false);
                self.wish_post(node, room, target);
            }
            Deed::Edit => {
                if let Some(target) = self.recent(node, room, true) {
                    let text = format!("{} edited", self.fresh_text(node, room));
                    self.wish(node, room, Op::Edit { target, text });
                }
            }
            Deed::Delete => {
                if let Some(target) = self.recent(node, room, true) {
                    self.wish(node, room, Op::Delete { target });
                }
            }
            Deed::React => {
                let emoji = *self.dice.work.pick(&["+1", "heart", "tada"]).unwrap_or(&"+1");
                let on = self.dice.work.chance(0.75);
                if let Some(target) = self.recent(node, room, false) {
                    self.wish(node, room, Op::React { target, emoji, on });
                }
            }
            Deed::Read => {
                if let Some(newest) = self.causes(node, room).last() {
                    self.wish(node, room, Op::MarkRead(*newest));
                }
            }
            Deed::Rename => {
                let name = format!("room {room} {}", self.commands);
                self.wish(node, room, Op::Rename(name));
            }
            Deed::LimitFiles => {
                let bytes = self.commands * 1_000;
                self.wish(node, room, Op::LimitFiles(bytes));
            }
            Deed::Remove | Deed::Role | Deed::Invite | Deed::Leave => self.change_membership(deed, node, room),
        }
    }

    fn change_membership(&mut self, deed: Deed, node: usize, room: usize) {
        let members = self.member_views(node, room);
        let Some(mine) = members.iter().find(|m| m.is_me).map(|m| m.role) else {
            return;
        };
        let below: Vec<PersonId> = members
            .iter()
            .filter(|m| !m.is_me && m.role < mine)
            .map(|m| m.person)
            .collect();
        match deed {
            Deed::Invite => self.invite_somebody(node, room),
            Deed::Leave if mine < Role::Owner && members.len() > MEMBERS_MIN => {
                self.wish(node, room, Op::Leave);
            }
            Deed::Remove if members.len() > MEMBERS_MIN => {
                if let Some(person) = self.dice.work.pick(&below).copied() {
                    self.wish(node, room, Op::Remove(person));
                }
            }
            Deed::Role => {
                let roles = [Role::Reader, Role::Member, Role::Moderator, Role::Admin];
                let role = *self.dice.work.pick(&roles).unwrap_or(&Role::Member);
                if let Some(person) = self.dice.work.pick(&below).copied().filter(|_| role <= mine) {
                    self.wish(node, room, Op::SetRole(person, role));
                }
            }
            _ => {}
        }
    }

    pub(crate) fn member_views(&self, node: usize, room: usize) -> Vec<MemberView> {
        let id = self.model.rooms[room].id;
        let peer = self.hosts[node].peer.as_ref();
        peer.zip(id)
            .and_then(|(peer, id)| peer.members(id).ok().flatten())
            .unwrap_or_default()
    }

    /// Invites one who was never asked before: whoever was removed stays out, so that what they may read is certain.
    fn invite_somebody(&mut self, node: usize, room: usize) {
        let state = &self.model.rooms[room];
        let fresh = |n: &usize| {
            let out = state.perhaps_gone.contains(&self.model.persons[*n]);
            !(state.joined.contains(n) || state.knocking.contains(n) || out || self.is_stranger(*n))
        };
        let fresh: Vec<usize> = (0..self.scenario.peers).filter(fresh).collect();
        if let Some(newcomer) = self.dice.work.pick(&fresh).copied() {
            self.model.rooms[room].knocking.insert(newcomer);
            self.wish_invite(node, room, vec![newcomer], 1, false, 0);
        }
    }

    pub(crate) fn wish_invite(
        &mut self,
        node: usize,
        room: usize,
        nodes: Vec<usize>,
        uses: u32,
        only_me: bool,
        redeem_after: Micros,
    ) {
        if nodes.len() > uses as usize {
            // Whoever comes too late may be removed again.
            let persons: Vec<PersonId> = nodes.iter().map(|n| self.model.persons[*n]).collect();
            self.model.rooms[room].perhaps_gone.extend(persons);
        }
        let op = Op::Invite {
            nodes,
            uses,
            only_me,
            redeem_after,
        };
        self.wish(node, room, op);
    }

    pub(crate) fn wish_post(&mut self, node: usize, room: usize, reply_to: Option<EntryId>) {
        let text = self.fresh_text(node, room);
        self.wish(node, room, Op::Post { text, reply_to });
    }

    /// A text that nobody has said before, of some length.
    fn fresh_text(&mut self, node: usize, room: usize) -> String {
        self.commands += 1;
        let filler = "word ".repeat(self.dice.work.below(40) as usize);
        format!("n{node} r{room} number{} {}", self.commands, filler.trim_end())
    }

    /// One of the newest messages that a node has in a room; an own one where asked for.
    fn recent(&mut self, node: usize, room: usize, own: bool) -> Option<EntryId> {
        let of_room = self.model.posts.iter().filter(|(_, post)| post.room == room);
        let wanted = of_room.filter(|(_, post)| match own {
            true => post.node == node,
            false => post.holders.contains(&node),
        });
        let mut wanted: Vec<(u64, EntryId)> = wanted.map(|(id, post)| (post.number, *id)).collect();
        wanted.sort_unstable();
        let newest = wanted.len().saturating_sub(RECENT);
        self.dice.work.pick(&wanted[newest..]).map(|(_, id)| *id)
    }

    /// What a node shows last in a room.
    fn causes(&self, node: usize, room: usize) -> Vec<EntryId> {
        let id = self.model.rooms[room].id;
        let peer = self.hosts[node].peer.as_ref();
        let lines = peer
            .zip(id)
            .and_then(|(peer, id)| peer.timeline(id, None, CAUSES_MAX).ok().flatten());
        let lines = lines.unwrap_or_default().into_iter();
        let entries = lines.filter_map(|line| match line {
            LineView::Entry(entry) => Some(*entry),
            LineView::Gap { .. } => None,
        });
        // What has no authority, or cannot be read, is nobody's cause.
        let counts =
            entries.filter(|e| !e.after_removal && !e.by_reader && !e.equivocation && e.kind != EntryKind::Sealed);
        counts.map(|entry| entry.id).collect()
    }

    /// A client wants something now.
    pub(crate) fn wish(&mut self, node: usize, room: usize, op: Op) {
        let client_id = self.dice.work.bytes();
        self.hand_over(Wish {
            node,
            room,
            op,
            client_id,
            knew: None,
        });
    }

    pub(crate) fn wish_in(&mut self, wait: Micros, node: usize, room: usize, op: Op) {
        let client_id = self.dice.work.bytes();
        let wish = Wish {
            node,
            room,
            op,
            client_id,
            knew: None,
        };
        self.after(wait, Event::Wish(Box::new(wish)));
    }

    /// Hands a wish to its node as a command; again later, where the node is down.
    pub(crate) fn hand_over(&mut self, mut wish: Wish) {
        if !self.hosts[wish.node].is_up() {
            if !self.hosts[wish.node].switched_off || matches!(wish.op, Op::Join(_)) {
                self.after(2 * SECOND, Event::Wish(Box::new(wish)));
            }
            return;
        }
        let Some(command) = self.command(&wish) else { return };
        self.note_intent(&wish);
        if wish.knew.is_none() && matches!(wish.op, Op::Post { .. }) {
            wish.knew = Some(self.knowledge(wish.node, wish.room));
        }
        self.commands += 1;
        let id = self.commands;
        let lose = self.plant == Some(Plant::LoseAcknowledged) && self.model.posts.len() >= 5;
        if lose && !self.planted && matches!(wish.op, Op::Post { .. }) {
            self.planted = true;
            self.hosts[wish.node].mishap = Some(Mishap::SendThenLose);
        }
        let node = wish.node;
        self.pending.insert(id, Pending { wish });
        self.give(node, Input::Command { id, command });
    }

    fn command(&self, wish: &Wish) -> Option<Command> {
        let room = self.model.rooms[wish.room].id;
        let post = |post| {
            Some(Command::Post {
                room: room?,
                post,
                client_id: Some(wish.client_id),
            })
        };
        match wish.op.clone() {
            Op::Create => Some(Command::CreateRoom {
                name: format!("room {}", wish.room),
                history: self.scenario.history.policy(),
            }),
            Op::Invite { uses, only_me, .. } => Some(Command::Invite {
                room: room?,
                expires_s: INVITE_EXPIRES_S,
                uses,
                role: Role::Member,
                only_me,
            }),
            Op::Join(invite) => Some(Command::Join { invite: *invite }),
            Op::Post { text, reply_to } => post(Post::Text {
                text,
                reply_to,
                files: Vec::new(),
            }),
            Op::Edit { target, text } => post(Post::Edit { target, text }),
            Op::Delete { target } => post(Post::Delete { target }),
            Op::React { target, emoji, on } => {
                let emoji = emoji.to_owned();
                post(Post::React { target, emoji, on })
            }
            Op::Remove(person) => Some(Command::RemoveMember { room: room?, person }),
            Op::Leave => Some(Command::LeaveRoom { room: room? }),
            Op::SetRole(person, role) => Some(Command::SetRole {
                room: room?,
                person,
                role,
            }),
            Op::Rename(name) => Some(Command::RenameRoom { room: room?, name }),
            Op::LimitFiles(bytes_max) => Some(Command::LimitFiles { room: room?, bytes_max }),
            Op::MarkRead(up_to) => Some(Command::MarkRead { room: room?, up_to }),
        }
    }

    /// What may come of a wish even if no answer arrives.
    fn note_intent(&mut self, wish: &Wish) {
        match &wish.op {
            Op::Remove(person) => {
                self.model.rooms[wish.room].perhaps_gone.insert(*person);
                if let Some(node) = self.model.persons.iter().position(|known| known == person) {
                    self.keep_home(node);
                }
            }
            Op::Leave => {
                let person = self.model.persons[wish.node];
                self.model.rooms[wish.room].perhaps_gone.insert(person);
                self.keep_home(wish.node);
            }
            Op::Delete { target } => self.model.changes.entry(*target).or_default().deletion_asked = true,
            Op::Edit { target, text } => {
                let edits = &mut self.model.changes.entry(*target).or_default().edits;
                if edits.iter().all(|(known, _)| known != text) {
                    edits.push((text.clone(), false));
                }
            }
            _ => {}
        }
    }

    fn knowledge(&mut self, node: usize, room: usize) -> Knowledge {
        let audience: BTreeSet<PersonId> = self.members(node, room);
        let gone = self.model.gone(node, room, &audience);
        let causes = self.causes(node, room);
        Knowledge { audience, gone, causes }
    }

    /// A command was answered.
    pub(crate) fn answered(&mut self, node: usize, id: u64, reply: Result<Reply, CommandError>) {
        let Some(pending) = self.pending.remove(&id) else {
            return;
        };
        if node != pending.wish.node {
            return;
        }
        match reply {
            Ok(reply) => self.granted(pending, reply),
            Err(error) => {
                let name = format!("{error:?}");
                let name = name.split([' ', '(']).next().unwrap_or_default().to_owned();
                *self.counts.refusals.entry(name).or_default() += 1;
                if let Op::Invite { nodes, .. } = pending.wish.op {
                    let knocking = &mut self.model.rooms[pending.wish.room].knocking;
                    knocking.retain(|node| !nodes.contains(node));
                }
            }
        }
    }

    fn granted(&mut self, pending: Pending, reply: Reply) {
        self.counts.acknowledged += 1;
        let Pending { wish } = pending;
        let (room, knew) = (wish.room, wish.knew.unwrap_or_default());
        match (wish.op, reply) {
            (Op::Create, Reply::Room(id)) => {
                let state = &mut self.model.rooms[room];
                state.id = Some(id);
                state.joined.insert(wish.node);
                let nodes: Vec<usize> = state.knocking.iter().copied().collect();
                let uses = nodes.len() as u32;
                if uses > 0 {
                    self.wish_invite(wish.node, room, nodes, uses, false, 0);
                }
            }
            (
                Op::Invite {
                    nodes, redeem_after, ..
                },
                Reply::Invite(invite),
            ) => {
                for node in nodes {
                    let stagger = redeem_after + self.dice.work.between(10 * MILLI, 400 * MILLI);
                    self.wish_in(stagger, node, room, Op::Join(Box::new(invite.clone())));
                }
            }
            (Op::Post { text, .. }, Reply::Entry(id)) => self.said(wish.node, room, text, knew, id),
            (Op::Edit { target, text }, _) => {
                let edits = &mut self.model.changes.entry(target).or_default().edits;
                edits
                    .iter_mut()
                    .filter(|(known, _)| *known == text)
                    .for_each(|(_, done)| *done = true);
            }
            (Op::Delete { target }, _) => self.model.changes.entry(target).or_default().deleted_by_author = true,
            _ => {}
        }
    }

    fn said(&mut self, node: usize, room: usize, text: String, knew: Knowledge, id: EntryId) {
        let post = Posted {
            room,
            node,
            author: self.model.persons[node],
            number: self.model.posts.len() as u64,
            text: text.clone(),
            knew,
            holders: [node].into(),
            destroyed: false,
        };
        if let Some(before) = self.model.posts.insert(id, post).filter(|before| before.text != text) {
            self.model.renamed.push(before);
            self.model.forked_logs.insert(id.log);
        }
        if self.plant == Some(Plant::ForgetClientId) && self.model.posts.len() == 5 {
            self.wish(node, room, Op::Post { text, reply_to: None });
        }
    }

    /// The commands that a dead node never answered: clients ask again once it is back.
    pub(crate) fn retry_pending(&mut self, node: usize, down_for: Micros) {
        let lost: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, p)| p.wish.node == node)
            .map(|(id, _)| *id)
            .collect();
        for id in lost {
            if let Some(pending) = self.pending.remove(&id) {
                self.after(down_for + SECOND, Event::Wish(Box::new(pending.wish)));
            }
        }
    }

    /// Newcomers who are in by now.
    pub(crate) fn see_who_joined(&mut self) {
        for room in 0..self.model.rooms.len() {
            let knocking: Vec<usize> = self.model.rooms[room].knocking.iter().copied().collect();
            for node in knocking {
                let counts_itself = |members: &[MemberView]| members.iter().any(|member| member.is_me);
                if self.standing(node, room) == Some(Standing::Member) && counts_itself(&self.member_views(node, room))
                {
                    self.model.rooms[room].knocking.remove(&node);
                    self.model.rooms[room].joined.insert(node);
                }
            }
        }
    }
}
