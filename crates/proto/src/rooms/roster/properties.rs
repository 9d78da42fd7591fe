//! What holds for every room: random graphs of random operations by five persons and a stranger, with concurrent removals, admissions,
//! changes of role, forked logs and revoked devices.

use proptest::prelude::*;
use proptest::sample::Index;

use super::bits::Bits;
use super::graph::DeedKind;
use super::rules::{Pos, View};
use super::settle::Touched;
use super::tests::{Actor, World};
use super::*;
use crate::crypto::{KeyPair, Secret};
use crate::history::Clock;
use crate::identity::IdentityBundle;
use crate::rooms::{Cutoff, Op};

const ROLES: [Role; 5] = [Role::Reader, Role::Member, Role::Moderator, Role::Admin, Role::Owner];

/// One entry to write: all choices as numbers, made sense of by [`room`].
#[derive(Debug, Clone)]
struct Step {
    author: usize,
    /// Which of the author's logs.
    log: u8,
    ops: Vec<(u8, usize, usize)>,
    /// Which entries it names: what came lately, more often than not.
    heads: Vec<(bool, Index)>,
    clock_ms: u64,
}

fn step() -> impl Strategy<Value = Step> {
    let op = (0..17u8, 0..6usize, 0..5usize);
    let heads = prop::collection::vec((prop::bool::weighted(0.7), any::<Index>()), 1..4);
    (0..6usize, 0..3u8, prop::collection::vec(op, 1..3), heads, 0..2_000u64).prop_map(
        |(author, log, ops, heads, clock_ms)| Step {
            author,
            // The first log most often.
            log: log.saturating_sub(1),
            ops,
            heads,
            clock_ms,
        },
    )
}

fn invite(number: usize) -> KeyPair {
    KeyPair::from_seed(&Secret([u8::try_from(number % 2).expect("below two"); 32]))
}

fn op(world: &World, actors: &[Actor], author: &Actor, (kind, target, role): (u8, usize, usize)) -> Op {
    let (target, role) = (&actors[target], ROLES[role]);
    match kind {
        0 | 1 => target.removal(),
        2 | 3 => target.role(role),
        4 => target.admission(role),
        5 | 6 => target.admission_by(&invite(role as usize), &world.room, Role::Member),
        7 => target.with_device(1).admission(role),
        8 => Op::Leave {
            cutoffs: vec![Cutoff {
                log: author.log_key(),
                seq: 3,
            }],
        },
        9 => Op::Rename {
            name: format!("{kind}{role}"),
        },
        10 => Op::OpenInvite {
            invite: invite(role as usize).public(),
            role: Role::Member,
            uses: 1,
            expires_ms: 1_500,
            only: None,
        },
        11 => Op::CloseInvite {
            invite: invite(role as usize).public(),
        },
        12 => Op::OpenLog {
            person: author.person(),
            log: author.certificate(),
        },
        13 => {
            let device = author.with_device(1).device.device();
            let records = vec![author.root.certify(device, 1), author.root.revoke(device, 2)];
            Op::Identity {
                identity: IdentityBundle { records },
            }
        }
        14 => Op::Identity {
            identity: author.bundle(),
        },
        15 => Op::SetFileLimit {
            bytes: 1_000_000 * role as u64,
        },
        _ if role == Role::Owner => target.fork(3),
        _ => Op::Seal {},
    }
}

/// Plays the steps: a room of five, of every rank, and then whatever comes.
fn room(steps: &[Step]) -> World {
    let actors: Vec<Actor> = (1..=6).map(Actor::new).collect();
    let (mut world, created) = World::new(&actors[0]);
    let roles = [Role::Owner, Role::Admin, Role::Moderator, Role::Member];
    let mut ops: Vec<Op> = roles
        .iter()
        .zip(&actors[1..])
        .map(|(role, actor)| actor.admission(*role))
        .collect();
    ops.push(op(&world, &actors, &actors[0], (10, 0, 0)));
    ops.push(op(&world, &actors, &actors[0], (10, 0, 1)));
    let mut ids = vec![created, world.write(&actors[0], &[created], ops)];
    for step in steps {
        let author = match step.log {
            0 => actors[step.author].clone(),
            _ => actors[step.author].with_device(1),
        };
        let ops = step.ops.iter().map(|choice| op(&world, &actors, &author, *choice));
        let ops: Vec<Op> = ops.collect();
        let heads = step.heads.iter().map(|(lately, index)| {
            let from = if *lately { ids.len().saturating_sub(4) } else { 0 };
            *index.get(&ids[from..])
        });
        let mut heads: Vec<_> = heads.collect();
        heads.push(ids[1]);
        ids.push(world.write_at(&author, &heads, ops, Clock::at_ms(step.clock_ms)));
    }
    world
}

fn rooms() -> impl Strategy<Value = World> {
    rooms_of(1..24)
}

/// Random rooms with so many entries beyond the first two.
pub(crate) fn rooms_of(entries: std::ops::Range<usize>) -> impl Strategy<Value = World> {
    prop::collection::vec(step(), entries).prop_map(|steps| room(&steps))
}

/// The device that wrote an entry of such a room.
pub(crate) fn author_of(entry: &ControlEntry) -> DeviceId {
    let actors = (1..=6).map(Actor::new).flat_map(|actor| [actor.with_device(1), actor]);
    let mut authors = actors.filter(|actor| actor.log_key() == entry.log);
    authors.next().expect("one of the six").device.device()
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = |id: &EntryRef| {
            let number = self.entries.iter().position(|entry| entry.id == *id);
            number.map_or("?".to_owned(), |number| format!("#{number}"))
        };
        for entry in &self.entries {
            let heads: Vec<String> = entry.control.heads.iter().map(name).collect();
            let ops: Vec<String> = entry.control.ops.iter().map(short).collect();
            writeln!(
                f,
                "{} by {:?} above {}: {}",
                name(&entry.id),
                author_of(entry),
                heads.join(" "),
                ops.join(", ")
            )?;
        }
        Ok(())
    }
}

/// An operation in a few letters.
fn short(op: &Op) -> String {
    match op {
        Op::Admit {
            person,
            role,
            invite,
            log,
            ..
        } => format!("admit {person:?} {:?} {role} invited:{}", log.device, invite.is_some()),
        Op::Remove { person, .. } => format!("remove {person:?}"),
        Op::SetRole { person, role, .. } => format!("role {person:?} {role}"),
        Op::Freeze { proof } => format!("freeze {:?}", proof.log),
        other => format!("{other:?}")
            .split([' ', '{'])
            .next()
            .unwrap_or_default()
            .to_owned(),
    }
}

fn graph_of<'a>(world: &World, entries: impl IntoIterator<Item = &'a ControlEntry>) -> ControlGraph {
    let mut graph = ControlGraph::new(world.room);
    for entry in entries {
        graph.insert(entry.clone());
    }
    graph
}

fn everything(graph: &ControlGraph) -> Bits {
    Bits::below(u32::try_from(graph.placed.by_bit.len()).expect("few"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// The same set gives the same roster, heads and waiting entries, in whatever order it came.
    #[test]
    fn the_order_of_arrival_does_not_matter(
        (world, order) in rooms().prop_flat_map(|world| {
            let order: Vec<usize> = (0..world.entries.len()).collect();
            (Just(world), Just(order).prop_shuffle())
        }),
        missing in prop::option::weighted(0.3, any::<Index>()),
    ) {
        let left_out = missing.map(|index| index.index(order.len()));
        let here = |index: &usize| Some(*index) != left_out;
        let in_order = graph_of(&world, (0..order.len()).filter(here).map(|index| &world.entries[index]));
        let shuffled = graph_of(&world, order.iter().copied().filter(here).map(|index| &world.entries[index]));
        prop_assert_eq!(in_order.resolve(), shuffled.resolve());
        prop_assert_eq!(in_order.heads(), shuffled.heads());
        prop_assert_eq!(in_order.waiting(), shuffled.waiting());
    }

    /// The short ways to the void operations of an entry's past lead where the long one does.
    #[test]
    fn short_ways_lead_where_the_long_one_does(world in rooms()) {
        let graph = world.graph_with_waiting();
        let everybody = |_: &[Pos]| {
            let mut touched = Touched::default();
            touched.everything = true;
            touched
        };
        for node in &graph.placed.nodes {
            let long_way = graph.settle_by(&node.past, everybody);
            prop_assert_eq!(&long_way, &*node.void);
            prop_assert_eq!(&long_way, &graph.settle(&node.past));
        }
        let heads: Vec<usize> = graph.placed.heads.iter().copied().collect();
        let all = everything(&graph);
        prop_assert_eq!(&graph.settle(&all), &*graph.void_in(&all, &heads));
    }

    /// Whoever is out by an effective removal did nothing that counts without knowing of it, other than what comes
    /// before that removal in the order of restrictions.
    #[test]
    fn no_concurrent_act_of_the_removed_counts(world in rooms()) {
        let graph = world.graph_with_waiting();
        let (roster, all) = (graph.resolve(), everything(&graph));
        let void = graph.settle(&all);
        let view = View { past: &all, own: None, void: &void.ops };
        for (person, deeds) in &graph.placed.about {
            let outs = deeds.iter().filter(|deed| deed.kind == DeedKind::Out && graph.counts(deed.pos, &view));
            for out in outs.map(|deed| deed.pos) {
                for act in graph.placed.acts.get(person).into_iter().flatten().copied() {
                    let known = graph.in_past(act, out.node) || graph.in_past(out.node, act) || act == out.node;
                    let effect = roster.effects.get(&graph.placed.nodes[act].known.entry.id);
                    let counting = (0..16).filter(|op| effect.is_some_and(|effect| effect.ops >> op & 1 == 1));
                    for op in counting {
                        let own = graph.placed.precedence.get(&Pos { node: act, op });
                        let first = own.is_some_and(|own| *own < graph.placed.precedence[&out]);
                        prop_assert!(known || first, "{:?} of {:?} against {:?}", op, act, out);
                    }
                }
            }
        }
    }

    /// There is always somebody to turn to; members, former members and devices are told apart.
    #[test]
    fn a_roster_hangs_together(world in rooms()) {
        let roster = world.graph_with_waiting().resolve();
        let owners = roster.members.values().filter(|member| member.role == Role::Owner).count();
        prop_assert!(owners > 0 || roster.members.is_empty());
        prop_assert!(roster.members.keys().all(|person| !roster.former.contains_key(person)));
        prop_assert!(roster.removals.is_superset(&roster.redemptions));
        for (device, person) in roster.devices() {
            prop_assert!(roster.members[person].identity.has_device(device));
            prop_assert!(roster.prekey(device).is_some());
        }
        for (log, owner) in &roster.logs {
            let is_in = roster.members.contains_key(&owner.person);
            prop_assert!(is_in || owner.cutoff.is_some());
            prop_assert_eq!(roster.log_by_prefix(&log.prefix()), Some((log, owner)));
        }
        for (invite, state) in &roster.invites {
            prop_assert!(state.used_by.len() <= state.uses as usize, "{:?}", invite);
        }
    }

    /// More entries never change what was allowed where it was written, nor what was in whose past.
    #[test]
    fn what_was_judged_stays_judged(world in rooms()) {
        let mut graph = ControlGraph::new(world.room);
        let mut judged: BTreeMap<EntryRef, u16> = BTreeMap::new();
        for entry in &world.entries {
            let frozen = graph.frozen.clone();
            graph.insert(entry.clone());
            if graph.frozen != frozen {
                judged.clear();
            }
            for node in &graph.placed.nodes {
                let before = judged.insert(node.known.entry.id, node.allowed);
                prop_assert!(before.is_none_or(|before| before == node.allowed));
            }
        }
    }

    /// Entries made of anything at all, naming anything at all, are taken in without harm.
    #[test]
    fn garbage_does_no_harm(
        world in rooms(),
        garbage in prop::collection::vec((any::<Index>(), any::<Index>(), any::<Index>(), 0..4u8), 0..12),
    ) {
        let mut graph = world.graph_with_waiting();
        let before = graph.resolve();
        let strangers: Vec<Actor> = (20..23).map(Actor::new).collect();
        let ids: Vec<EntryRef> = world.entries.iter().map(|entry| entry.id).collect();
        for (number, (stranger, copied, head, kind)) in (100u32..).zip(garbage) {
            let log = stranger.get(&strangers).log_key();
            let id = EntryRef { log: log.prefix(), seq: number, hash: [kind; 8] };
            let mut entry = copied.get(&world.entries).clone();
            entry.control.ops.retain(|op| !matches!(op, Op::Freeze { .. }));
            entry.control.heads.push(match kind {
                0 => id,
                1 => EntryRef { log: log.prefix(), seq: number + 1, hash: [kind; 8] },
                _ => *head.get(&ids),
            });
            (entry.id, entry.log, entry.seq) = (id, log, number);
            graph.insert(entry);
        }
        prop_assert_eq!(graph.resolve(), before);
    }
}
