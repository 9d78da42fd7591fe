//! The roster of everything that is placed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::bits::Bits;
use super::graph::{Claim, ControlGraph, DeedKind, Void};
use super::rules::{Pos, View};
use super::{Departure, Effect, Former, InviteState, LogOwner, Member, Notice, Roster};
use crate::history::file::ROOM_FILE_BYTES_MAX;
use crate::history::{EntryRef, LogKey};
use crate::identity::{DeviceId, IdentityState, PersonId};
use crate::rooms::{HistoryPolicy, KeeperPlace, Op, Role, RoomKind};

impl ControlGraph {
    /// What all placed entries come to.
    pub fn resolve(&self) -> Roster {
        let bits = u32::try_from(self.placed.by_bit.len()).expect("there are at most CONTROL_ENTRIES_MAX entries");
        let scope = Bits::below(bits);
        let heads: Vec<usize> = self.placed.heads.iter().copied().collect();
        let void = self.void_in(&scope, &heads);
        let Void { ops, surplus } = &*void;
        let view = View {
            past: &scope,
            own: None,
            void: ops,
        };
        let members = self.members(&view);
        let former = self.former(&members, surplus, &view);
        let logs = self.logs(&members, &view);
        let (name, kind, history) = self.settings(&view);
        let keepers = self.keepers(&view);
        let file_bytes_max = self.file_bytes_max(&view);
        let redemptions = self.redemptions(surplus);
        let mut roster = Roster {
            name,
            kind,
            history,
            file_bytes_max,
            keepers,
            devices: devices(&members, &logs, self, &view),
            invites: self.invites(&members, &view),
            frozen: self.frozen.clone(),
            removals: &self.removals(&view) | &redemptions,
            redemptions,
            freezes: self.freezes(),
            effects: self.effects(&view),
            notices: Vec::new(),
            members,
            former,
            logs,
        };
        roster.notices = self.notices(&roster, surplus, &view);
        roster
    }

    fn id(&self, pos: Pos) -> EntryRef {
        self.placed.nodes[pos.node].known.entry.id
    }

    fn identity(&self, person: &PersonId) -> Arc<IdentityState> {
        match self.placed.pools.get(person) {
            Some(pool) => Arc::clone(&pool.state),
            None => Arc::new(IdentityState::new(*person)),
        }
    }

    fn members(&self, view: &View<'_>) -> BTreeMap<PersonId, Member> {
        let acting = self.acting_owner(view);
        let member = |person: &PersonId| {
            let standing = self.standing(person, view)?;
            let is_founder = self.is_root(&standing.seniority.1) && standing.admitted_by == *person;
            let member = Member {
                role: if acting == Some(*person) {
                    Role::Owner
                } else {
                    standing.role
                },
                identity: self.identity(person),
                since: standing.seniority.1,
                admitted_by: (!is_founder).then_some(standing.admitted_by),
                seniority: standing.seniority,
            };
            Some((*person, member))
        };
        self.placed.about.keys().filter_map(member).collect()
    }

    fn former(
        &self,
        members: &BTreeMap<PersonId, Member>,
        surplus: &BTreeSet<Pos>,
        view: &View<'_>,
    ) -> BTreeMap<PersonId, Former> {
        let gone = self.placed.about.keys().filter(|person| !members.contains_key(person));
        gone.filter_map(|person| {
            let (why, pos) = self.departure(person, surplus, view)?;
            let former = Former {
                why,
                entry: self.id(pos),
                identity: self.identity(person),
            };
            Some((*person, former))
        })
        .collect()
    }

    fn departure(&self, person: &PersonId, surplus: &BTreeSet<Pos>, view: &View<'_>) -> Option<(Departure, Pos)> {
        let deeds = &self.placed.about[person];
        let outs = deeds
            .iter()
            .filter(|deed| deed.kind == DeedKind::Out && self.counts(deed.pos, view));
        if let Some(out) = outs.max_by_key(|deed| self.order(deed.pos)) {
            let by_self = out.by == *person;
            let why = if by_self {
                Departure::Left
            } else {
                Departure::Removed { by: out.by }
            };
            return Some((why, out.pos));
        }
        let entered = deeds.iter().filter(|deed| matches!(deed.kind, DeedKind::Enter(_)));
        let mut entered: Vec<Pos> = entered.map(|deed| deed.pos).collect();
        entered.sort_by_key(|pos| self.order(*pos));
        let beyond = entered.iter().find(|pos| surplus.contains(pos));
        match beyond {
            Some(pos) => Some((Departure::OverRedeemed, *pos)),
            None => Some((Departure::Undone, *entered.first()?)),
        }
    }

    fn logs(&self, members: &BTreeMap<PersonId, Member>, view: &View<'_>) -> BTreeMap<LogKey, LogOwner> {
        let owner = |(log, claims): (&LogKey, &Vec<Claim>)| {
            let first = claims.iter().min_by_key(|claim| self.order(claim.pos))?;
            let claim = self.owner_claim(log, view).unwrap_or(*first);
            let cutoff = self.removal_cutoff(log, &claim, members.contains_key(&claim.person), view);
            let fork = self.frozen.get(log).copied();
            let owner = LogOwner {
                person: claim.person,
                device: claim.device,
                cutoff: cutoff.into_iter().chain(fork).min(),
                muted: self.muted(log, &claim, view),
            };
            Some((*log, owner))
        };
        self.placed.claims.iter().filter_map(owner).collect()
    }

    /// Up to where a log counts: what the removers knew of it. Only removals that the log's newest certificate did not know of
    /// cut it off, and of those the first ones.
    fn removal_cutoff(&self, log: &LogKey, owner: &Claim, is_member: bool, view: &View<'_>) -> Option<u32> {
        let claims = self.placed.claims[log].iter();
        let of_owner = claims.filter(|claim| claim.person == owner.person && self.counts(claim.pos, view));
        let Some(newest) = of_owner.max_by_key(|claim| self.order(claim.pos)) else {
            return Some(0);
        };
        let outs: Vec<Pos> = self.placed.about[&owner.person]
            .iter()
            .filter(|deed| deed.kind == DeedKind::Out && self.counts(deed.pos, view))
            .map(|deed| deed.pos)
            .filter(|out| !self.before(*out, newest.pos))
            .collect();
        let first = outs
            .iter()
            .filter(|out| !outs.iter().any(|other| self.before(*other, **out)));
        let cutoff = first.map(|out| self.stated_cutoff(*out, log)).min();
        cutoff.or((!is_member).then_some(0))
    }

    /// What of a log was written by a reader: from what was known of it to whoever made its owner one, to what was known of it to whoever gave them a higher
    /// role again.
    fn muted(&self, log: &LogKey, owner: &Claim, view: &View<'_>) -> Vec<(u32, u32)> {
        let deeds = self.placed.about.get(&owner.person).into_iter().flatten();
        let roles: Vec<(Pos, Role)> = deeds
            .filter(|deed| self.counts(deed.pos, view))
            .filter_map(|deed| match deed.kind {
                DeedKind::Role(role) => Some((deed.pos, role)),
                // For somebody who is in already an admission brings a device, never a role.
                DeedKind::Enter(role) => {
                    let before = self.standing(&owner.person, &self.view_at(deed.pos, view.void));
                    before.is_none().then_some((deed.pos, role))
                }
                DeedKind::Out => None,
            })
            .collect();
        let mut muted = Vec::new();
        for (low, _) in roles.iter().filter(|(_, role)| *role < Role::Member) {
            let raises = roles
                .iter()
                .filter(|(pos, role)| *role >= Role::Member && self.before(*low, *pos));
            let raises: Vec<Pos> = raises.map(|(pos, _)| *pos).collect();
            // A log that was opened with a higher role has nothing to do with it.
            if raises
                .iter()
                .any(|raise| *raise == owner.pos || self.before(*raise, owner.pos))
            {
                continue;
            }
            let until = raises.iter().map(|raise| self.stated_cutoff(*raise, log)).min();
            let (from, to) = (
                self.stated_cutoff(*low, log).saturating_add(1),
                until.unwrap_or(u32::MAX),
            );
            if from <= to {
                muted.push((from, to));
            }
        }
        muted.sort_unstable();
        muted.dedup();
        muted
    }

    fn stated_cutoff(&self, out: Pos, log: &LogKey) -> u32 {
        match self.op(out) {
            Op::Leave { cutoffs } | Op::Remove { cutoffs, .. } | Op::SetRole { cutoffs, .. } => {
                let of_log = cutoffs.iter().filter(|cutoff| cutoff.log == *log);
                of_log.map(|cutoff| cutoff.seq).min().unwrap_or(0)
            }
            _ => 0,
        }
    }

    fn settings(&self, view: &View<'_>) -> (String, RoomKind, HistoryPolicy) {
        let name = self.newest(&self.placed.names, view).map(|pos| self.op(pos));
        let name = match name {
            Some(Op::Create { name, .. } | Op::Rename { name }) => name.clone(),
            _ => String::new(),
        };
        let history = self.newest(&self.placed.policies, view).map(|pos| self.op(pos));
        let history = match history {
            Some(Op::Create { history, .. } | Op::SetHistory { history }) => *history,
            _ => HistoryPolicy::None {},
        };
        let kind = match self.placed.pair {
            Some((_, other)) => RoomKind::Pair { other },
            None => RoomKind::Group {},
        };
        (name, kind, history)
    }

    fn file_bytes_max(&self, view: &View<'_>) -> u64 {
        match self.newest(&self.placed.file_limits, view).map(|pos| self.op(pos)) {
            Some(Op::SetFileLimit { bytes }) => *bytes,
            _ => ROOM_FILE_BYTES_MAX,
        }
    }

    fn keepers(&self, view: &View<'_>) -> Vec<KeeperPlace> {
        match self.newest(&self.placed.keepers, view).map(|pos| self.op(pos)) {
            Some(Op::SetKeepers { keepers }) => keepers.clone(),
            _ => Vec::new(),
        }
    }

    /// The newest setting; of concurrent ones that of the higher rank, then the senior, then the smaller entry.
    fn newest(&self, settings: &[Pos], view: &View<'_>) -> Option<Pos> {
        let seen: Vec<Pos> = settings.iter().copied().filter(|pos| self.counts(*pos, view)).collect();
        let newest = seen
            .iter()
            .filter(|pos| !seen.iter().any(|other| self.before(**pos, *other)));
        let key = |pos: &&Pos| {
            let author = self.placed.nodes[pos.node].author;
            let rank = author.map(|author| (Reverse(author.role), author.seniority));
            (rank, self.id(**pos), Reverse(pos.op))
        };
        newest.min_by_key(key).copied()
    }

    fn invites(&self, members: &BTreeMap<PersonId, Member>, view: &View<'_>) -> BTreeMap<[u8; 32], InviteState> {
        let state = |(invite, deeds): (&[u8; 32], &super::graph::InviteDeeds)| {
            let terms = self.terms(invite, view)?;
            let uses = deeds.uses.iter().filter(|(pos, _)| self.counts(*pos, view));
            let used_by: BTreeSet<PersonId> = uses.map(|(_, person)| *person).collect();
            let closed = deeds.closes.iter().any(|pos| self.counts(*pos, view));
            let inviter_may = members.get(&terms.by).is_some_and(|member| member.role >= Role::Member);
            let state = InviteState {
                by: terms.by,
                role: terms.role,
                uses: terms.uses,
                expires_ms: terms.expires_ms,
                only: terms.only,
                open: !closed && inviter_may && used_by.len() < terms.uses as usize,
                used_by,
            };
            Some((*invite, state))
        };
        self.placed.invites.iter().filter_map(state).collect()
    }

    fn removals(&self, view: &View<'_>) -> BTreeSet<EntryRef> {
        let deeds = self.placed.about.values().flatten();
        let outs = deeds.filter(|deed| deed.kind == DeedKind::Out).map(|deed| deed.pos);
        let revocations = self.placed.revocations.values().flatten().copied();
        let contested = self.placed.contested.iter();
        let lowered = contested.map(|(_, number)| self.placed.restrictions[*number].pos);
        outs.chain(revocations)
            .chain(lowered)
            .filter(|pos| self.counts(*pos, view))
            .map(|pos| self.id(pos))
            .collect()
    }

    /// The placed proofs of each log's lowest fork.
    fn freezes(&self) -> BTreeMap<LogKey, BTreeSet<EntryRef>> {
        let lowest = |(log, proofs): (&LogKey, &BTreeSet<(u32, EntryRef)>)| {
            let lowest = self.frozen.get(log)?;
            let of_lowest = proofs.iter().filter(|(good, _)| good == lowest);
            Some((*log, of_lowest.map(|(_, entry)| *entry).collect()))
        };
        self.placed.freezes.iter().filter_map(lowest).collect()
    }

    /// All uses of the invites that were used too often.
    fn redemptions(&self, surplus: &BTreeSet<Pos>) -> BTreeSet<EntryRef> {
        let crowded = self.placed.crowded.iter();
        let uses = crowded.map(|invite| &self.placed.invites[invite].uses);
        uses.filter(|uses| uses.iter().any(|(pos, _)| surplus.contains(pos)))
            .flatten()
            .map(|(pos, _)| self.id(*pos))
            .collect()
    }

    fn effects(&self, view: &View<'_>) -> BTreeMap<EntryRef, Effect> {
        let effect = |node: usize| {
            let author = self.placed.nodes[node].author?;
            let allowed = self.placed.nodes[node].allowed;
            let counting = (0..16).filter(|op| allowed >> op & 1 == 1 && self.has_effect(Pos { node, op: *op }, view));
            let ops = counting.fold(0, |mask, op| mask | 1u16 << op);
            let effect = Effect {
                person: author.person,
                device: author.device,
                ops,
            };
            (ops != 0).then_some((self.placed.nodes[node].known.entry.id, effect))
        };
        (0..self.placed.nodes.len()).filter_map(effect).collect()
    }

    /// Whether an allowed operation is not void. Bystanders are not settled with the rest, so they are looked at here.
    fn has_effect(&self, pos: Pos, view: &View<'_>) -> bool {
        let node = &self.placed.nodes[pos.node];
        if node.bit.is_some() {
            return !view.void.contains(&pos);
        }
        let person = node.author.map(|author| author.person);
        let restrictions = person.and_then(|person| self.placed.restricted.get(&person));
        let mut stands_against = restrictions.into_iter().flatten().filter(|number| {
            let restriction = &self.placed.restrictions[**number];
            restriction.leaves.is_none() && restriction.contested_by.contains(&pos.node)
        });
        !stands_against.any(|number| self.counts(self.placed.restrictions[*number].pos, view))
            && (view.void.is_empty() || self.judge(pos, view.void, None).is_some())
    }

    fn notices(&self, roster: &Roster, surplus: &BTreeSet<Pos>, view: &View<'_>) -> Vec<Notice> {
        let mut notices = Vec::new();
        for pos in view.void {
            let Some(author) = self.placed.nodes[pos.node].author else {
                continue;
            };
            let entry = self.id(*pos);
            let notice = match self.op(*pos) {
                Op::Admit {
                    person,
                    invite: Some(used),
                    ..
                } if surplus.contains(pos) => Notice::OverRedeemed {
                    invite: used.invite,
                    person: *person,
                    admitted_by: author.person,
                    entry,
                },
                _ => Notice::Void {
                    entry,
                    person: author.person,
                    op: pos.op,
                },
            };
            notices.push(notice);
        }
        // Indices differ from peer to peer; the order shown must not.
        notices.sort_by_key(|notice| match notice {
            Notice::OverRedeemed { entry, .. } => (*entry, 0),
            Notice::Void { entry, op, .. } => (*entry, *op),
            Notice::Frozen { .. } | Notice::ActingOwner { .. } => unreachable!("only the two above were pushed"),
        });
        notices.extend(self.frozen.iter().map(|(log, seq)| Notice::Frozen {
            log: *log,
            person: roster.logs.get(log).map(|owner| owner.person),
            seq: *seq,
        }));
        notices.extend(self.acting_owner(view).map(|person| Notice::ActingOwner { person }));
        notices
    }
}

fn devices(
    members: &BTreeMap<PersonId, Member>,
    logs: &BTreeMap<LogKey, LogOwner>,
    graph: &ControlGraph,
    view: &View<'_>,
) -> BTreeMap<DeviceId, PersonId> {
    let mut devices = BTreeMap::new();
    for (log, owner) in logs {
        let member = members.get(&owner.person);
        let live = member.is_some_and(|member| member.identity.has_device(&owner.device));
        let certified = || {
            graph
                .owner_claim(log, view)
                .is_some_and(|claim| graph.is_live_log(log, &claim, view))
        };
        if live && !graph.is_revoked(&owner.device, view) && certified() {
            devices.entry(owner.device).or_insert(owner.person);
        }
    }
    devices
}
