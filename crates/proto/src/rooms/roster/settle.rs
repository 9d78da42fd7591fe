//! What concurrent operations do to each other.
//!
//! A *restriction* (removal, leaving, lowering a role, revoking a device) makes void whatever its target did without knowing of it, as far
//! as that took authority that the restriction takes away. Restrictions are gone through in order of precedence: higher rank of the author in its own
//! past, then earlier admission, then the smaller entry. One that is void by then does nothing; one that has had its turn is not
//! made void by one that comes after it. So of two who remove each other the first in that order stays, everywhere.
//!
//! What rests on void operations is void too: each is judged again without them. Last, of an invite that was used too often by
//! members cut off from each other, the uses that come later in causal order (then the greater entry) are void.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::bits::Bits;
use super::graph::{ControlGraph, Precedence, Void};
use super::rules::{Pos, View};

impl ControlGraph {
    /// The void operations of the part of the graph that `scope` holds: `heads` and their past.
    pub(super) fn void_in(&self, scope: &Bits, heads: &[usize]) -> Arc<Void> {
        match heads {
            _ if self.placed.contested.is_empty() && self.placed.crowded.is_empty() => Arc::default(),
            // Nothing in this scope is concurrent with the one head, so nothing changes.
            [head] => Arc::clone(&self.placed.nodes[*head].void),
            _ => {
                let extended = heads.iter().find_map(|head| self.extend_void(*head, scope));
                extended.unwrap_or_else(|| Arc::new(self.settle(scope)))
            }
        }
    }

    /// The same as [`Self::settle`] by a short way, if all conflicts of `scope` are in the past of one head already: then
    /// that head's void operations stay, and what rests on them in the rest of the scope joins them.
    fn extend_void(&self, head: usize, scope: &Bits) -> Option<Arc<Void>> {
        let node = &self.placed.nodes[head];
        let mut known = (*node.past).clone();
        if let Some(bit) = node.bit {
            known.set(bit);
        }
        if !self.conflicts_are_known(&known, scope) {
            return None;
        }
        let mut void = Arc::clone(&node.void);
        for bit in scope.iter().filter(|bit| !known.get(*bit)) {
            for pos in self.allowed_ops(self.placed.by_bit[bit as usize]) {
                if self.judge(pos, &void.ops, None).is_some() {
                    continue;
                }
                if self.placed.precedence.contains_key(&pos) {
                    // Whether a restriction falls with its ground depends on the order of restrictions: the long way.
                    return None;
                }
                Arc::make_mut(&mut void).ops.insert(pos);
            }
        }
        Some(void)
    }

    /// Whether every conflict of `scope` is in `known`, which is a part of it.
    fn conflicts_are_known(&self, known: &Bits, scope: &Bits) -> bool {
        let is_new = |node: usize| self.is_in(node, scope) && !self.is_in(node, known);
        let contests = self.placed.contested.iter();
        let new_contest = contests
            .map(|(_, number)| &self.placed.restrictions[*number])
            .any(|restriction| {
                let here = self.is_in(restriction.pos.node, scope);
                let unknown = is_new(restriction.pos.node);
                let mut acts = restriction.contested_by.iter();
                here && acts.any(|act| self.is_in(*act, scope) && (unknown || is_new(*act)))
            });
        let crowded = self.placed.crowded.iter();
        let new_use = crowded.map(|invite| &self.placed.invites[invite]).any(|deeds| {
            let uses = deeds.uses.iter().map(|(pos, _)| pos);
            uses.chain(&deeds.opens).any(|pos| is_new(pos.node))
        });
        !new_contest && !new_use
    }

    /// The void operations of the part of the graph that `scope` holds. `scope` must hold the past of all its members.
    pub(super) fn settle(&self, scope: &Bits) -> Void {
        let mut void = BTreeSet::new();
        for (key, number) in &self.placed.contested {
            let pos = self.placed.restrictions[*number].pos;
            if self.is_in(pos.node, scope) && !void.contains(&pos) {
                let struck = self.struck(*number, scope, &void);
                if !struck.is_empty() {
                    void.extend(struck);
                    self.unravel(scope, &mut void, Some(key));
                }
            }
        }
        let mut surplus = BTreeSet::new();
        while let Some(beyond) = self.first_surplus(scope, &void) {
            void.insert(beyond);
            surplus.insert(beyond);
            self.unravel(scope, &mut void, None);
        }
        Void { ops: void, surplus }
    }

    fn is_in(&self, node: usize, scope: &Bits) -> bool {
        self.placed.nodes[node].bit.is_some_and(|bit| scope.get(bit))
    }

    fn allowed_ops(&self, node: usize) -> impl Iterator<Item = Pos> + '_ {
        let allowed = self.placed.nodes[node].allowed;
        (0..16)
            .filter(move |op| allowed >> op & 1 == 1)
            .map(move |op| Pos { node, op })
    }

    /// The operations that a restriction makes void by itself.
    fn struck(&self, number: usize, scope: &Bits, void: &BTreeSet<Pos>) -> Vec<Pos> {
        let restriction = &self.placed.restrictions[number];
        let acts = restriction.contested_by.iter().filter(|act| self.is_in(**act, scope));
        acts.flat_map(|act| self.allowed_ops(*act))
            .filter(|pos| !void.contains(pos) && !self.had_its_turn(*pos, Some(&restriction.key)))
            .filter(|pos| match restriction.leaves {
                None => true,
                Some(role) => self.judge(*pos, void, Some(role)).is_none(),
            })
            .collect()
    }

    /// Whether this is a restriction that takes precedence over the one with that key.
    fn had_its_turn(&self, pos: Pos, key: Option<&Precedence>) -> bool {
        let own = self.placed.precedence.get(&pos);
        own.zip(key).is_some_and(|(own, key)| own < key)
    }

    /// Judges everything again, in causal order, and makes void what no longer has a ground.
    fn unravel(&self, scope: &Bits, void: &mut BTreeSet<Pos>, key: Option<&Precedence>) {
        for bit in scope.iter() {
            for pos in self.allowed_ops(self.placed.by_bit[bit as usize]) {
                if !void.contains(&pos) && !self.had_its_turn(pos, key) && self.judge(pos, void, None).is_none() {
                    void.insert(pos);
                }
            }
        }
    }

    /// The first use of an invite beyond its count.
    fn first_surplus(&self, scope: &Bits, void: &BTreeSet<Pos>) -> Option<Pos> {
        let view = View {
            past: scope,
            own: None,
            void,
        };
        let crowded = self.placed.crowded.iter();
        crowded
            .filter_map(|invite| self.surplus_of(invite, &view))
            .min_by_key(|pos| self.order(*pos))
    }

    fn surplus_of(&self, invite: &[u8; 32], view: &View<'_>) -> Option<Pos> {
        let terms = self.terms(invite, view)?;
        let uses = self.placed.invites[invite].uses.iter();
        let mut uses: Vec<_> = uses.filter(|(pos, _)| self.counts(*pos, view)).collect();
        uses.sort_by_key(|(pos, _)| self.order(*pos));
        let mut persons = BTreeSet::new();
        let beyond = uses.into_iter().find(|(_, person)| {
            persons.insert(*person);
            persons.len() > terms.uses as usize
        });
        beyond.map(|(pos, _)| *pos)
    }
}
