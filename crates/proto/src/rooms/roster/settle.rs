//! What concurrent operations do to each other.
//!
//! A *restriction* (removal, leaving, lowering a role, revoking a device) makes void whatever its target did without knowing of it, as far
//! as that took authority that the restriction takes away. Restrictions are gone through in order of precedence: higher rank of the author in its own
//! past, then earlier admission, then the smaller entry. One that is void by then does nothing; one that has had its turn is not
//! made void by one that comes after it. So of two who remove each other the first in that order stays, everywhere.
//!
//! What rests on void operations is void too: each is judged again without them, once the restrictions that it knew of have had their turn: before that, what its
//! author rightly took for void may still seem to stand. Last, of an invite that was used too often by
//! members cut off from each other, the uses that come later in causal order (then the greater entry) are void.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::bits::Bits;
use super::graph::{ControlGraph, Precedence, Void};
use super::rules::{Pos, View};
use crate::identity::PersonId;
use crate::rooms::Op;

/// Whom and what to look at again.
#[derive(Default)]
pub(super) struct Touched {
    persons: BTreeSet<PersonId>,
    invites: BTreeSet<[u8; 32]>,
    pub(super) everything: bool,
}

impl Touched {
    fn is_nothing(&self) -> bool {
        self.persons.is_empty() && self.invites.is_empty() && !self.everything
    }

    fn add(&mut self, more: Self) {
        self.persons.extend(more.persons);
        self.invites.extend(more.invites);
        self.everything |= more.everything;
    }
}

impl ControlGraph {
    /// The void operations of the part of the graph that `scope` holds: `heads` and their past.
    pub(super) fn void_in(&self, scope: &Bits, heads: &[usize]) -> Arc<Void> {
        match heads {
            _ if self.placed.contested.is_empty() && self.placed.crowded.is_empty() => Arc::default(),
            // Nothing in this scope is concurrent with the one head, so nothing changes.
            [head] => Arc::clone(&self.placed.nodes[*head].void),
            // Those who write at the same time often name the same heads.
            _ if self.placed.merges.contains_key(heads) => Arc::clone(&self.placed.merges[heads]),
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
        self.settle_by(scope, |struck| self.touched_by(struck))
    }

    /// [`Self::settle`], judging again after each step what `touched` says may have lost its ground.
    pub(super) fn settle_by(&self, scope: &Bits, touched: impl Fn(&[Pos]) -> Touched) -> Void {
        let mut void = BTreeSet::new();
        let mut deferred = BTreeSet::new();
        for (key, number) in &self.placed.contested {
            let pos = self.placed.restrictions[*number].pos;
            if !self.is_in(pos.node, scope) {
                continue;
            }
            let struck = match void.contains(&pos) {
                false => self.struck(*number, scope, &void),
                true => Vec::new(),
            };
            void.extend(struck.iter().copied());
            self.unravel(scope, &mut void, Some(key), touched(&struck), &mut deferred);
        }
        let mut surplus = BTreeSet::new();
        while let Some(beyond) = self.first_surplus(scope, &void) {
            void.insert(beyond);
            surplus.insert(beyond);
            self.unravel(scope, &mut void, None, touched(&[beyond]), &mut deferred);
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

    /// Judges again what is touched, in causal order, and makes void what no longer has a ground; that touches more. What knew of a restriction that is still to have its
    /// turn is deferred until then.
    fn unravel(
        &self,
        scope: &Bits,
        void: &mut BTreeSet<Pos>,
        key: Option<&Precedence>,
        mut touched: Touched,
        deferred: &mut BTreeSet<Pos>,
    ) {
        if touched.is_nothing() && deferred.is_empty() {
            return;
        }
        for bit in scope.iter() {
            for pos in self.allowed_ops(self.placed.by_bit[bit as usize]) {
                let is_due = deferred.remove(&pos) || self.is_touched(pos, &touched);
                if !is_due || void.contains(&pos) || self.had_its_turn(pos, key) {
                    continue;
                }
                if self.knows_one_to_come(pos, key, scope, void) {
                    deferred.insert(pos);
                } else if self.judge(pos, void, None).is_none() {
                    void.insert(pos);
                    touched.add(self.touched_by(&[pos]));
                }
            }
        }
    }

    /// Whether a contested restriction in the past of an operation has its turn only after the one with that key.
    fn knows_one_to_come(&self, pos: Pos, key: Option<&Precedence>, scope: &Bits, void: &BTreeSet<Pos>) -> bool {
        let Some(key) = key else { return false };
        let mut to_come = self.placed.contested.iter().rev().take_while(|(other, _)| other > key);
        to_come.any(|(_, number)| {
            let at = self.placed.restrictions[*number].pos;
            self.is_in(at.node, scope) && !void.contains(&at) && self.before(at, pos)
        })
    }

    /// What may look different once these operations do not count.
    fn touched_by(&self, gone: &[Pos]) -> Touched {
        let mut touched = Touched::default();
        for pos in gone {
            match self.op(*pos) {
                Op::Create { person, .. }
                | Op::Admit { person, .. }
                | Op::OpenLog { person, .. }
                | Op::Remove { person, .. }
                | Op::SetRole { person, .. } => touched.persons.insert(*person),
                Op::Leave { .. } => {
                    let author = self.placed.nodes[pos.node].author;
                    touched.persons.extend(author.map(|author| author.person));
                    continue;
                }
                Op::OpenInvite { invite, .. } => touched.invites.insert(*invite),
                // Without these more is allowed, not less; or nothing else asks for them.
                Op::CloseInvite { .. }
                | Op::Identity { .. }
                | Op::Rename { .. }
                | Op::SetHistory { .. }
                | Op::SetKeepers { .. }
                | Op::SetFileLimit { .. }
                | Op::Freeze { .. }
                | Op::Seal {} => continue,
            };
        }
        // Who acts as owner depends on everybody, once an owner could be missing. And what a restriction would have struck stands again.
        touched.everything = self.placed.owners_restricted && !touched.persons.is_empty()
            || gone.iter().any(|pos| self.placed.precedence.contains_key(pos));
        touched
    }

    fn is_touched(&self, pos: Pos, touched: &Touched) -> bool {
        let author = self.placed.nodes[pos.node].author;
        let by_touched = || author.is_some_and(|author| touched.persons.contains(&author.person));
        let about_touched = || match self.op(pos) {
            // The one who opened the invite may be touched.
            Op::Admit { invite: Some(_), .. } => true,
            Op::Admit { person, .. }
            | Op::OpenLog { person, .. }
            | Op::Remove { person, .. }
            | Op::SetRole { person, .. } => touched.persons.contains(person),
            Op::CloseInvite { invite } => touched.invites.contains(invite),
            _ => false,
        };
        touched.everything || by_touched() || about_touched()
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
