//! Look-ups in the directory, over the lines that there are at the end of a run: the real [`Directory`] at every node, with liars among them.
//!
//! The hard case is played: two who share no room (or none but a new room of two), and have no line; one has moved. The other members of its rooms who are online know where it is, for they were told (`Addresses`);
//! whoever looks for it has to find one of them. A liar answers at once with nonsense, as often as anybody listens, and asks nobody.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use offhook_proto::identity::DeviceId;
use offhook_proto::overlay::directory::{Asker, Directory, Effort, Question, Token};

use super::{Crowd, device, node_of};

/// Look-ups tried at most.
const TRIED_MAX: usize = 300;

/// How look-ups went with so many liars.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LookUps {
    /// The share of nodes that lie.
    pub liars: f64,
    /// How many were tried.
    pub tried: usize,
    /// How many found the record.
    pub found: usize,
    /// Questions and answers sent for all of them, each line that one crosses counted.
    pub messages: usize,
}

enum Message {
    Question { hops: u32 },
    Answer { is_true: bool },
}

impl Crowd<'_> {
    pub(super) fn look_ups(&mut self, liars: f64) -> LookUps {
        let mut result = LookUps {
            liars,
            tried: 0,
            found: 0,
            messages: 0,
        };
        for (asker, sought) in self.strangers() {
            let lying: BTreeSet<usize> = (0..self.nodes.len())
                .filter(|node| ![asker, sought].contains(node) && self.dice.chance(liars))
                .collect();
            let (found, messages) = self.look_up(asker, sought, &lying);
            result.tried += 1;
            result.found += usize::from(found);
            result.messages += messages;
        }
        result
    }

    /// Pairs that are online, share no room and have no line.
    fn strangers(&mut self) -> Vec<(usize, usize)> {
        let up: Vec<usize> = (0..self.nodes.len()).filter(|node| self.nodes[*node].up).collect();
        let drawn: Vec<(usize, usize)> = (0..2 * TRIED_MAX)
            .map(|_| (up[self.dice.index(up.len())], up[self.dice.index(up.len())]))
            .collect();
        let is_strange = |(a, b): &(usize, usize)| {
            let shares = self.rooms_of[*a].iter().any(|room| self.rooms_of[*b].contains(room));
            a != b && !shares && !self.nodes[*a].lines.contains(b)
        };
        drawn.into_iter().filter(is_strange).take(TRIED_MAX).collect()
    }

    fn look_up(&mut self, asker: usize, sought: usize, lying: &BTreeSet<usize>) -> (bool, usize) {
        let token: Token = [1; 8];
        let now = self.clock.at(self.now);
        let mut directories: BTreeMap<usize, Directory> = BTreeMap::new();
        let nodes = &self.nodes;
        let rng = self.dice.source();
        let lines = |node: usize| -> Vec<DeviceId> { nodes[node].lines.iter().copied().map(device).collect() };
        let knows = |node: usize| {
            let shares = self.rooms_of[node]
                .iter()
                .any(|room| self.rooms_of[sought].contains(room));
            node == sought || node != asker && shares
        };
        let mut under_way = VecDeque::new();
        let asked =
            directories
                .entry(asker)
                .or_default()
                .ask(token, device(sought), Effort::Waited, &lines(asker), rng, now);
        let hops = Effort::Waited.hops();
        under_way.extend(asked.iter().map(|to| (asker, node_of(to), Message::Question { hops })));
        let (mut found, mut messages) = (false, 0);
        while let Some((from, to, message)) = under_way.pop_front() {
            messages += 1;
            let directory = directories.entry(to).or_default();
            match message {
                Message::Question { .. } if lying.contains(&to) => {
                    under_way.extend((0..20).map(|_| (to, from, Message::Answer { is_true: false })));
                }
                Message::Question { hops } => {
                    let question = Question {
                        from: device(from),
                        token,
                        hops,
                        is_known: knows(to),
                    };
                    let step = directory.on_question(question, &lines(to), rng, now);
                    if step.answer {
                        under_way.push_back((to, from, Message::Answer { is_true: true }));
                    }
                    let hops = hops.saturating_sub(1);
                    under_way.extend(
                        step.pass_to
                            .iter()
                            .map(|next| (to, node_of(next), Message::Question { hops })),
                    );
                }
                Message::Answer { is_true } => match directory.on_answer(device(from), token, now) {
                    // Whoever passes an answer on cannot tell; whoever asked can, by the signature.
                    Some(Asker::Line(back)) => under_way.push_back((to, node_of(&back), Message::Answer { is_true })),
                    Some(Asker::Own(_)) => found |= is_true,
                    None => {}
                },
            }
        }
        (found, messages)
    }
}
