//! Which control entries show somebody that they are out, or show others that somebody is in.
//!
//! Who is out is not served, so the entries that put them out would never reach them; who was let in by somebody who is gone cannot be recognised by
//! those whom the admission has not reached. Both are shown just the entries that settle it, as few as will do, each checked by its receiver
//! like any other. What a receiver is taken to know is what it wrote, what let it in, and the past of both.

use std::collections::{BTreeSet, BinaryHeap};

use super::Roster;
use super::bits::Bits;
use super::graph::{ControlGraph, DeedKind};
use super::rules::View;
use crate::history::EntryRef;
use crate::identity::PersonId;

impl ControlGraph {
    /// At most `max` entries that, on top of what `person` knows, show that they are out; ancestors first. Empty where they are in, or more would be needed.
    pub fn why_out(&self, roster: &Roster, person: &PersonId, max: usize) -> Vec<EntryRef> {
        let known = self.known_to(person);
        if self.is_out(person, &known) {
            // What they did rests on entries that count for nothing since a log forked.
            return self.fork_proofs(roster, max);
        }
        let causes = roster.removals.iter().filter_map(|entry| self.placed.index.get(entry));
        let mut causes: Vec<usize> = causes.copied().filter(|cause| !known.contains(cause)).collect();
        causes.sort_by_key(|cause| {
            (
                self.placed.nodes[*cause].depth,
                self.placed.nodes[*cause].known.entry.id,
            )
        });
        causes.truncate(max);
        let mut fewest: Option<BTreeSet<usize>> = None;
        for cause in &causes {
            let above = self.closure_above([*cause], &known);
            let better = above.len() <= fewest.as_ref().map_or(max, |fewest| fewest.len() - 1);
            if better && self.is_out(person, &(&known | &above)) {
                fewest = Some(above);
            }
        }
        let all = || {
            let above = self.closure_above(causes.iter().copied(), &known);
            (above.len() <= max && self.is_out(person, &(&known | &above))).then_some(above)
        };
        self.ancestors_first(fewest.or_else(all).unwrap_or_default())
    }

    /// At most `max` entries that show how somebody came in, ancestors first: the one that let them in and the newest of its past.
    pub fn admission(&self, roster: &Roster, person: &PersonId, max: usize) -> Vec<EntryRef> {
        let since = roster.members.get(person).map(|member| member.since);
        let Some(since) = since.and_then(|since| self.placed.index.get(&since)) else {
            return Vec::new();
        };
        let key = |node: usize| {
            (
                self.placed.nodes[node].depth,
                self.placed.nodes[node].known.entry.id,
                node,
            )
        };
        let mut left = BinaryHeap::from([key(*since)]);
        let mut chosen = BTreeSet::new();
        while let Some((_, _, node)) = left.pop() {
            if chosen.len() < max && chosen.insert(node) {
                left.extend(self.placed.nodes[node].heads.iter().map(|head| key(*head)));
            }
        }
        self.ancestors_first(chosen)
    }

    /// One proof for each forked log, at most `max`. A proof stands by itself, whatever comes before it.
    pub fn fork_proofs(&self, roster: &Roster, max: usize) -> Vec<EntryRef> {
        let proofs = roster.freezes.values().filter_map(|proofs| proofs.first());
        proofs.copied().take(max).collect()
    }

    /// Whether an entry counts for nothing because it stands above a fork.
    pub fn is_void_by_fork(&self, entry: &EntryRef) -> bool {
        self.is_frozen(entry)
    }

    /// What somebody wrote and what let them in, with the past of both.
    fn known_to(&self, person: &PersonId) -> BTreeSet<usize> {
        let acts = self.placed.acts.get(person).into_iter().flatten().copied();
        let deeds = self.placed.about.get(person).into_iter().flatten();
        let entered = deeds.filter(|deed| matches!(deed.kind, DeedKind::Enter(_)));
        self.closure_above(acts.chain(entered.map(|deed| deed.pos.node)), &BTreeSet::new())
    }

    /// These and their ancestors, down to what is known.
    fn closure_above(&self, from: impl IntoIterator<Item = usize>, known: &BTreeSet<usize>) -> BTreeSet<usize> {
        let mut left: Vec<usize> = from.into_iter().collect();
        let mut closure = BTreeSet::new();
        while let Some(node) = left.pop() {
            if !known.contains(&node) && closure.insert(node) {
                left.extend(&self.placed.nodes[node].heads);
            }
        }
        closure
    }

    fn is_out(&self, person: &PersonId, nodes: &BTreeSet<usize>) -> bool {
        let mut scope = Bits::default();
        for bit in nodes.iter().filter_map(|node| self.placed.nodes[*node].bit) {
            scope.set(bit);
        }
        let void = self.settle(&scope);
        let view = View {
            past: &scope,
            own: None,
            void: &void.ops,
        };
        self.standing(person, &view).is_none()
    }

    fn ancestors_first(&self, nodes: BTreeSet<usize>) -> Vec<EntryRef> {
        // Indices grow along causality.
        nodes
            .into_iter()
            .map(|node| self.placed.nodes[node].known.entry.id)
            .collect()
    }
}
