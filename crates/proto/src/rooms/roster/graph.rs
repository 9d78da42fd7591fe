//! The control entries of a room as a graph: who knew of what.
//!
//! The past of an entry is the closure over [`crate::rooms::Control::heads`]. An entry is *placed* once its whole past is placed; until then it
//! waits and counts for nothing. What an entry may do is judged once, when it is placed, from its past alone, so this verdict never changes;
//! what the entries concurrent with it do to it is settled anew in [`super::settle`].
//!
//! A log with two entries of one number is frozen below the fork, by anybody's [`Op::Freeze`] with the proof. From then on the entries of that log
//! at or above the fork are treated as if they did not exist, and references to them as if they were not written: different members
//! may hold different branches, and must come to the same roster all the same. The room's first entry is named by the room's id and stays.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::bits::Bits;
use super::pool::Pool;
use super::rules::{Author, Pos, View};
use super::soundness;
use crate::crypto;
use crate::history::{Clock, EntryRef, LogKey, RoomId};
use crate::identity::{DeviceId, PersonId};
use crate::rooms::op::{CONTROL_HEADS_MAX, OPS_MAX};
use crate::rooms::{Control, Op, Role, RoomKind};

/// The most control entries of one room; more are refused.
pub const CONTROL_ENTRIES_MAX: usize = 1 << 17;

/// A control entry that was opened and decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlEntry {
    /// Its name.
    pub id: EntryRef,
    /// The log that it stands in.
    pub log: LogKey,
    /// Its number there.
    pub seq: u32,
    /// Its author's clock.
    pub clock: Clock,
    /// What it says.
    pub control: Control,
}

/// When somebody came in: distance from the room's first entry, then the entry. Smaller is senior.
pub type Seniority = (u32, EntryRef);

/// An entry with what was found out about it alone.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) entry: ControlEntry,
    /// One bit for each operation that is in order by itself.
    pub(super) sound: u16,
}

/// A placed entry.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) known: Arc<Known>,
    /// Indices of the entries that it names.
    pub(super) heads: Vec<usize>,
    /// Bits of everything in its past that can matter to anybody's authority.
    pub(super) past: Arc<Bits>,
    /// Its own bit, unless it is a bystander.
    pub(super) bit: Option<u32>,
    /// The longest way down to an entry without heads.
    pub(super) depth: u32,
    /// One bit for each operation that its author might do, judged from its past.
    pub(super) allowed: u16,
    /// The author of its allowed operations.
    pub(super) author: Option<Author>,
    /// Operations of its past that are void there.
    pub(super) void: Arc<Void>,
}

/// Operations that do not count in some part of the graph.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Void {
    pub(super) ops: BTreeSet<Pos>,
    /// Of those, uses of invites beyond their count.
    pub(super) surplus: BTreeSet<Pos>,
}

/// An operation about a person's membership.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deed {
    pub(super) pos: Pos,
    pub(super) kind: DeedKind,
    pub(super) by: PersonId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeedKind {
    Enter(Role),
    Role(Role),
    Out,
}

/// An operation that says whose a log is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) pos: Pos,
    pub(super) person: PersonId,
    pub(super) device: DeviceId,
}

/// An operation that takes authority away from somebody.
#[derive(Debug, Clone)]
pub(super) struct Restriction {
    pub(super) pos: Pos,
    /// Only this device of the target.
    pub(super) device: Option<DeviceId>,
    /// What is left to the target; nothing when removed.
    pub(super) leaves: Option<Role>,
    pub(super) key: Precedence,
    /// Entries by the target that are concurrent with it.
    pub(super) contested_by: Vec<usize>,
}

/// Whom an operation restricts, as in [`Restriction`].
struct Limit {
    target: PersonId,
    device: Option<DeviceId>,
    leaves: Option<Role>,
}

/// Which restriction comes first: higher rank of its author, then seniority, then the smaller entry. Smaller is first.
pub(super) type Precedence = (std::cmp::Reverse<u8>, Seniority, EntryRef, u8);

/// What is known of one invite.
#[derive(Debug, Clone, Default)]
pub(super) struct InviteDeeds {
    pub(super) opens: Vec<Pos>,
    pub(super) closes: Vec<Pos>,
    pub(super) uses: Vec<(Pos, PersonId)>,
    persons: BTreeSet<PersonId>,
    uses_min: Option<u32>,
}

/// All control entries of a room that are here.
#[derive(Debug, Clone)]
pub struct ControlGraph {
    pub(super) room: RoomId,
    all: BTreeMap<EntryRef, Arc<Known>>,
    /// For each missing entry, those that name it.
    waiters: BTreeMap<EntryRef, BTreeSet<EntryRef>>,
    waiting: BTreeSet<EntryRef>,
    pub(super) frozen: BTreeMap<LogKey, u32>,
    pub(super) placed: Placed,
}

/// What follows from the placed entries; rebuilt from nothing when a log is frozen.
#[derive(Debug, Clone, Default)]
pub(super) struct Placed {
    pub(super) nodes: Vec<Node>,
    pub(super) index: BTreeMap<EntryRef, usize>,
    /// The node of each bit.
    pub(super) by_bit: Vec<usize>,
    /// Of the entries that have an author, those that no other one has in its past.
    pub(super) heads: BTreeSet<usize>,
    pub(super) about: BTreeMap<PersonId, Vec<Deed>>,
    pub(super) claims: BTreeMap<LogKey, Vec<Claim>>,
    pub(super) by_device: BTreeMap<DeviceId, Vec<Claim>>,
    pub(super) acts: BTreeMap<PersonId, Vec<usize>>,
    /// The two persons of a room of two, the founder first.
    pub(super) pair: Option<(PersonId, PersonId)>,
    /// Operations that set the room's name.
    pub(super) names: Vec<Pos>,
    /// Operations that set what newcomers may read.
    pub(super) policies: Vec<Pos>,
    /// Operations that say how large a file may be.
    pub(super) file_limits: Vec<Pos>,
    /// Operations that name the keepers.
    pub(super) keepers: Vec<Pos>,
    /// Proofs of forks: the last number below, and the entry.
    pub(super) freezes: BTreeMap<LogKey, BTreeSet<(u32, EntryRef)>>,
    /// Invites that more persons used than it allows.
    pub(super) crowded: BTreeSet<[u8; 32]>,
    pub(super) owners: BTreeSet<PersonId>,
    /// Whether somebody who ever was owner was removed, left or was lowered.
    pub(super) owners_restricted: bool,
    /// The void operations of the past of entries with several heads.
    pub(super) merges: BTreeMap<Vec<usize>, Arc<Void>>,
    pub(super) revocations: BTreeMap<DeviceId, Vec<Pos>>,
    pub(super) invites: BTreeMap<[u8; 32], InviteDeeds>,
    pub(super) restrictions: Vec<Restriction>,
    pub(super) restricted: BTreeMap<PersonId, Vec<usize>>,
    /// The precedence of each operation that is a restriction.
    pub(super) precedence: BTreeMap<Pos, Precedence>,
    /// Indices of restrictions that somebody's concurrent act contests.
    pub(super) contested: BTreeSet<(Precedence, usize)>,
    pub(super) pools: BTreeMap<PersonId, Pool>,
}

impl ControlGraph {
    /// The empty graph of a room.
    pub fn new(room: RoomId) -> Self {
        Self {
            room,
            all: BTreeMap::new(),
            waiters: BTreeMap::new(),
            waiting: BTreeSet::new(),
            frozen: BTreeMap::new(),
            placed: Placed::default(),
        }
    }

    /// Takes in an entry whose header and seal were checked. False if it was there already, is misnamed, or the room has
    /// [`CONTROL_ENTRIES_MAX`].
    pub fn insert(&mut self, entry: ControlEntry) -> bool {
        let misnamed = entry.id.log != entry.log.prefix() || entry.id.seq != entry.seq;
        if misnamed || self.all.contains_key(&entry.id) || self.all.len() >= CONTROL_ENTRIES_MAX {
            return false;
        }
        let id = entry.id;
        let sound = soundness::sound_ops(&self.room, &entry.log, &entry.control);
        let froze = self.freeze(&entry.control, sound);
        self.all.insert(id, Arc::new(Known { entry, sound }));
        if froze {
            self.rebuild();
        } else {
            self.place_from(id);
        }
        true
    }

    /// How many entries are here, waiting ones included.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether nothing is here.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether this entry is here, waiting or not.
    pub fn contains(&self, id: &EntryRef) -> bool {
        self.all.contains_key(id)
    }

    /// How many entries wait for ancestors.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The ancestors that are waited for and are not here.
    pub fn missing(&self) -> impl Iterator<Item = EntryRef> + '_ {
        self.waiters.keys().copied().filter(|id| !self.all.contains_key(id))
    }

    /// What an entry in `log` names as [`Control::heads`]: [`Self::heads`], and the log's own last entry or else the one that let it in, even
    /// where others have it in their past. So its author stays known, and knows what it knew, when a head turns out to
    /// stand in a log that forks and counts no longer.
    pub fn heads_for(&self, log: &LogKey) -> Vec<EntryRef> {
        let nodes = &self.placed.nodes;
        let with_author = |node: &&Node| node.author.is_some() && node.known.entry.log == *log;
        let last = nodes.iter().filter(with_author).max_by_key(|node| node.known.entry.seq);
        let claims = self.placed.claims.get(log).into_iter().flatten();
        let claim = claims
            .max_by_key(|claim| self.order(claim.pos))
            .map(|claim| &nodes[claim.pos.node]);
        let anchor = last.or(claim).map(|node| node.known.entry.id);
        let mut heads = self.heads();
        if let Some(anchor) = anchor.filter(|anchor| !heads.contains(anchor)) {
            heads.truncate(CONTROL_HEADS_MAX - 1);
            heads.push(anchor);
            heads.sort();
        }
        heads
    }

    /// The newest entries of those whose ancestors are all here and which their authors were allowed to write. Where there
    /// are more than [`CONTROL_HEADS_MAX`], restrictions come first, then one of each log, then the deepest: nobody can crowd a removal out.
    pub fn heads(&self) -> Vec<EntryRef> {
        let nodes = &self.placed.nodes;
        let restricting: BTreeSet<usize> = self.placed.precedence.keys().map(|pos| pos.node).collect();
        let mut heads: Vec<usize> = self.placed.heads.iter().copied().collect();
        heads.sort_by_key(|head| (std::cmp::Reverse(nodes[*head].depth), nodes[*head].known.entry.id));
        let mut logs = BTreeSet::new();
        let mut ranked: Vec<_> = heads
            .into_iter()
            .map(|head| {
                let another_of_log = !logs.insert(nodes[head].known.entry.log);
                (!restricting.contains(&head), another_of_log, head)
            })
            .collect();
        // Stable: within a class the deepest stay first.
        ranked.sort_by_key(|(plain, another, _)| (*plain, *another));
        ranked.truncate(CONTROL_HEADS_MAX);
        let mut heads: Vec<_> = ranked
            .into_iter()
            .map(|(.., head)| nodes[head].known.entry.id)
            .collect();
        heads.sort();
        heads
    }

    /// Whether everything that the author of an entry knew is here: it is placed, or would be if its log were not frozen below it.
    pub fn knows_as_much_as(&self, id: &EntryRef) -> bool {
        let is_placed = |id: &EntryRef| self.placed.index.contains_key(id);
        let heads_are_placed = || {
            let heads = self.all.get(id).map(|known| known.entry.control.heads.iter());
            heads.is_some_and(|mut heads| heads.all(|head| is_placed(head) || self.is_frozen(head)))
        };
        is_placed(id) || (self.is_frozen(id) && heads_are_placed())
    }

    /// Whether `a` is in the causal past of `of`. False where either has not been placed.
    pub fn is_past(&self, a: &EntryRef, of: &EntryRef) -> bool {
        match (self.placed.index.get(a), self.placed.index.get(of)) {
            (Some(a), Some(of)) => self.in_past(*a, *of),
            _ => false,
        }
    }

    /// The longest way from an entry down to one without heads; none while it waits.
    pub fn depth(&self, id: &EntryRef) -> Option<u32> {
        self.placed.index.get(id).map(|index| self.placed.nodes[*index].depth)
    }

    pub(super) fn in_past(&self, a: usize, of: usize) -> bool {
        match self.placed.nodes[a].bit {
            Some(bit) => self.placed.nodes[of].past.get(bit),
            None => self.walks_down_to(a, of),
        }
    }

    /// The slow way, for bystanders, which have no bit: down the heads, no deeper than `a` lies.
    fn walks_down_to(&self, a: usize, of: usize) -> bool {
        let nodes = &self.placed.nodes;
        let (mut seen, mut left) = (BTreeSet::new(), vec![of]);
        while let Some(at) = left.pop() {
            for head in &nodes[at].heads {
                if *head == a {
                    return true;
                }
                if nodes[*head].depth > nodes[a].depth && seen.insert(*head) {
                    left.push(*head);
                }
            }
        }
        false
    }

    /// Takes in the proofs of equivocation of an entry; true if a log is now frozen further down. A proof stands on its own, so it
    /// does not matter who brings it, nor when.
    fn freeze(&mut self, control: &Control, sound: u16) -> bool {
        let mut news = false;
        for (index, op) in control.ops.iter().take(OPS_MAX).enumerate() {
            if let Op::Freeze { proof } = op
                && sound >> index & 1 == 1
            {
                let good = proof.forks_at().unwrap_or(u32::MAX).saturating_sub(1);
                let held = self.frozen.entry(proof.log).or_insert(u32::MAX);
                news |= good < *held;
                *held = good.min(*held);
            }
        }
        news
    }

    /// Whether an entry stands at or above the fork of a frozen log.
    pub(super) fn is_frozen(&self, id: &EntryRef) -> bool {
        let forked = |(log, good): (&LogKey, &u32)| log.prefix() == id.log && id.seq > *good;
        !self.is_root(id) && self.frozen.iter().any(forked)
    }

    /// Whether this is the room's first entry: the room's id is its hash.
    pub(super) fn is_root(&self, id: &EntryRef) -> bool {
        id.hash == crypto::prefix8(&self.room.0)
    }

    fn rebuild(&mut self) {
        self.placed = Placed::default();
        self.waiters.clear();
        self.waiting.clear();
        let ids: Vec<_> = self.all.keys().copied().collect();
        for id in ids {
            self.place_from(id);
        }
    }

    /// Places an entry, if it can be, and those that waited for it.
    fn place_from(&mut self, id: EntryRef) {
        let mut ready = vec![id];
        while let Some(id) = ready.pop() {
            if self.is_frozen(&id) || self.placed.index.contains_key(&id) {
                continue;
            }
            let known = Arc::clone(&self.all[&id]);
            let heads = known.entry.control.heads.iter().take(CONTROL_HEADS_MAX);
            let heads: BTreeSet<_> = heads.filter(|head| !self.is_frozen(head)).copied().collect();
            if let Some(missing) = heads.iter().find(|head| !self.placed.index.contains_key(head)) {
                self.waiters.entry(*missing).or_default().insert(id);
                self.waiting.insert(id);
                continue;
            }
            self.waiting.remove(&id);
            self.place(known, &heads);
            ready.extend(self.waiters.remove(&id).unwrap_or_default());
        }
    }

    fn place(&mut self, known: Arc<Known>, heads: &BTreeSet<EntryRef>) {
        let placed = &mut self.placed;
        let index = placed.nodes.len();
        let heads: Vec<usize> = heads.iter().map(|head| placed.index[head]).collect();
        let ops = &known.entry.control.ops;
        let bystander = !ops.is_empty() && ops.iter().all(soundness::is_bystander);
        let bit = (!bystander).then(|| {
            placed.by_bit.push(index);
            u32::try_from(placed.by_bit.len() - 1).expect("there are at most CONTROL_ENTRIES_MAX entries")
        });
        let past = placed.past_above(&heads);
        let depth = heads
            .iter()
            .map(|head| placed.nodes[*head].depth + 1)
            .max()
            .unwrap_or(0);
        placed.index.insert(known.entry.id, index);
        let void = self.void_in(&past, &heads);
        if heads.len() > 1 {
            self.placed.merges.insert(heads.clone(), Arc::clone(&void));
        }
        self.placed.nodes.push(Node {
            known,
            heads,
            past,
            bit,
            depth,
            allowed: 0,
            author: None,
            void,
        });
        self.judge_all(index);
    }

    /// Judges a new entry's operations one after the other: each sees those before it.
    fn judge_all(&mut self, index: usize) {
        let known = Arc::clone(&self.placed.nodes[index].known);
        let void = Arc::clone(&self.placed.nodes[index].void);
        let void = &void.ops;
        for (number, op) in (0u8..).zip(known.entry.control.ops.iter().take(OPS_MAX)) {
            let pos = Pos {
                node: index,
                op: number,
            };
            let Some(author) = self.judge(pos, void, None) else {
                continue;
            };
            if !self.finds_invite_open(pos, void) {
                continue;
            }
            let limits = self.limits(pos, op, &author, void);
            let node = &mut self.placed.nodes[index];
            node.allowed |= 1 << number;
            node.author = Some(author);
            self.note(pos, op, &author);
            for limit in limits {
                self.restrict(pos, limit, &author, void);
            }
        }
        if let Some(author) = self.placed.nodes[index].author {
            let mut heads = std::mem::take(&mut self.placed.heads);
            heads.retain(|head| !self.in_past(*head, index));
            heads.insert(index);
            self.placed.heads = heads;
            self.placed.acts.entry(author.person).or_default().push(index);
            self.contest(index, &author);
        }
    }

    /// Whom an allowed operation restricts, and to what.
    fn limits(&self, pos: Pos, op: &Op, author: &Author, void: &BTreeSet<Pos>) -> Vec<Limit> {
        let removed = |target: PersonId| Limit {
            target,
            device: None,
            leaves: None,
        };
        let view = self.view_at(pos, void);
        match op {
            Op::Remove { person, .. } => vec![removed(*person)],
            Op::Leave { .. } => vec![removed(author.person)],
            Op::SetRole { person, role, .. } => {
                let before = self.standing(person, &view).map(|standing| standing.role);
                let lowered = Limit {
                    target: *person,
                    device: None,
                    leaves: Some(*role),
                };
                before
                    .filter(|before| role < before)
                    .map(|_| lowered)
                    .into_iter()
                    .collect()
            }
            Op::Identity { identity } => {
                let revoked = soundness::revoked_devices(identity, &author.person).into_iter();
                let news = revoked.filter(|device| !self.is_revoked(device, &view));
                news.map(|device| Limit {
                    target: author.person,
                    device: Some(device),
                    leaves: None,
                })
                .collect()
            }
            _ => Vec::new(),
        }
    }

    /// Enters an allowed operation into the tables.
    fn note(&mut self, pos: Pos, op: &Op, author: &Author) {
        let own_log = self.placed.nodes[pos.node].known.entry.log;
        let placed = &mut self.placed;
        match op {
            Op::Create {
                person,
                identity,
                log,
                kind,
                ..
            } => {
                placed.pair = match kind {
                    RoomKind::Pair { other } => Some((*person, *other)),
                    RoomKind::Group {} => None,
                };
                placed.names.push(pos);
                placed.policies.push(pos);
                placed.deed(pos, *person, DeedKind::Enter(Role::Owner), author);
                placed.claim(pos, log.log, *person, log.device);
                placed.pool(*person).add(identity);
            }
            Op::Admit {
                person,
                identity,
                log,
                role,
                invite,
            } => {
                placed.deed(pos, *person, DeedKind::Enter(*role), author);
                placed.claim(pos, log.log, *person, log.device);
                placed.pool(*person).add(identity);
                if let Some(used) = invite {
                    placed.redeem(used.invite, pos, *person);
                }
            }
            Op::OpenLog { person, log } => placed.claim(pos, own_log, *person, log.device),
            Op::Leave { .. } => placed.deed(pos, author.person, DeedKind::Out, author),
            Op::Remove { person, .. } => placed.deed(pos, *person, DeedKind::Out, author),
            Op::SetRole { person, role, .. } => placed.deed(pos, *person, DeedKind::Role(*role), author),
            Op::OpenInvite { invite, uses, .. } => {
                let deeds = placed.invites.entry(*invite).or_default();
                deeds.opens.push(pos);
                deeds.uses_min = deeds.uses_min.map_or(*uses, |least| least.min(*uses)).into();
            }
            Op::CloseInvite { invite } => placed.invites.entry(*invite).or_default().closes.push(pos),
            Op::Identity { identity } => placed.pool(author.person).add(identity),
            Op::Rename { .. } => placed.names.push(pos),
            Op::SetHistory { .. } => placed.policies.push(pos),
            Op::SetKeepers { .. } => placed.keepers.push(pos),
            Op::SetFileLimit { .. } => placed.file_limits.push(pos),
            Op::Freeze { proof } => {
                let fork = (
                    proof.forks_at().unwrap_or(u32::MAX).saturating_sub(1),
                    placed.nodes[pos.node].known.entry.id,
                );
                placed.freezes.entry(proof.log).or_default().insert(fork);
            }
            Op::Seal {} => {}
        }
    }

    fn restrict(&mut self, pos: Pos, limit: Limit, author: &Author, void: &BTreeSet<Pos>) {
        let Limit { target, device, leaves } = limit;
        let acts_as_owner = || self.acting_owner(&self.view_at(pos, void)) == Some(author.person);
        let rank = match device {
            Some(_) => u8::MAX,
            None if acts_as_owner() => Role::Owner as u8,
            None => author.role as u8,
        };
        let id = self.placed.nodes[pos.node].known.entry.id;
        let key = (std::cmp::Reverse(rank), author.seniority, id, pos.op);
        let by_target = self.placed.acts.get(&target).into_iter().flatten().copied();
        let contested_by: Vec<usize> = by_target
            .filter(|act| *act != pos.node && !self.in_past(*act, pos.node))
            .filter(|act| self.touches(*act, device))
            .collect();
        let placed = &mut self.placed;
        let number = placed.restrictions.len();
        if !contested_by.is_empty() {
            placed.contested.insert((key, number));
        }
        if let Some(device) = device {
            placed.revocations.entry(device).or_default().push(pos);
        }
        placed.restricted.entry(target).or_default().push(number);
        placed.precedence.insert(pos, key);
        placed.owners_restricted |= placed.owners.contains(&target);
        placed.restrictions.push(Restriction {
            pos,
            device,
            leaves,
            key,
            contested_by,
        });
    }

    /// Enters a new entry with the restrictions on its author that it did not know of.
    fn contest(&mut self, act: usize, author: &Author) {
        let on_author = self.placed.restricted.get(&author.person).cloned().unwrap_or_default();
        for number in on_author {
            let restriction = &self.placed.restrictions[number];
            let at = restriction.pos.node;
            if at != act && !self.in_past(at, act) && self.touches(act, restriction.device) {
                let placed = &mut self.placed;
                placed.contested.insert((placed.restrictions[number].key, number));
                placed.restrictions[number].contested_by.push(act);
            }
        }
    }

    fn touches(&self, act: usize, device: Option<DeviceId>) -> bool {
        let author = &self.placed.nodes[act].author;
        device.is_none_or(|device| author.is_some_and(|author| author.device == device))
    }

    /// What an operation sees: its entry's past, and the operations before it in the same entry.
    pub(super) fn view_at<'a>(&'a self, pos: Pos, void: &'a BTreeSet<Pos>) -> View<'a> {
        View {
            past: &self.placed.nodes[pos.node].past,
            own: Some(pos),
            void,
        }
    }
}

impl Placed {
    fn past_above(&self, heads: &[usize]) -> Arc<Bits> {
        if let [head] = heads
            && self.nodes[*head].bit.is_none()
        {
            return Arc::clone(&self.nodes[*head].past);
        }
        let mut past = Bits::default();
        for head in heads {
            past.union(&self.nodes[*head].past);
            if let Some(bit) = self.nodes[*head].bit {
                past.set(bit);
            }
        }
        Arc::new(past)
    }

    fn deed(&mut self, pos: Pos, person: PersonId, kind: DeedKind, author: &Author) {
        if matches!(kind, DeedKind::Enter(Role::Owner) | DeedKind::Role(Role::Owner)) {
            self.owners.insert(person);
        }
        let by = author.person;
        self.about.entry(person).or_default().push(Deed { pos, kind, by });
    }

    fn claim(&mut self, pos: Pos, log: LogKey, person: PersonId, device: DeviceId) {
        let claim = Claim { pos, person, device };
        self.claims.entry(log).or_default().push(claim);
        self.by_device.entry(device).or_default().push(claim);
    }

    fn redeem(&mut self, invite: [u8; 32], pos: Pos, person: PersonId) {
        let deeds = self.invites.entry(invite).or_default();
        deeds.uses.push((pos, person));
        deeds.persons.insert(person);
        if deeds.uses_min.is_some_and(|uses| deeds.persons.len() > uses as usize) {
            self.crowded.insert(invite);
        }
    }

    fn pool(&mut self, person: PersonId) -> &mut Pool {
        self.pools.entry(person).or_insert_with(|| Pool::new(person))
    }
}
