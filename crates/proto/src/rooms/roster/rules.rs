//! Who may do what: each operation judged from what its author knew.
//!
//! [`ControlGraph::judge`] answers for one operation from a [`View`]: the operations of its causal past, without those that
//! are void. Nothing else takes part: no local clock, no order of arrival, no entries that came later.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::bits::Bits;
use super::graph::{Claim, ControlGraph, Deed, DeedKind, Seniority};
use crate::history::LogKey;
use crate::identity::{DeviceId, PersonId};
use crate::rooms::{InviteUse, Op, Role};

/// An operation: the index of its entry and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pos {
    pub(super) node: usize,
    pub(super) op: u8,
}

/// A part of the graph to judge from.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) past: &'a Bits,
    /// The operation that looks: it sees those before it in its own entry too.
    pub(super) own: Option<Pos>,
    pub(super) void: &'a BTreeSet<Pos>,
}

/// Who did something, as judged from its past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Author {
    pub(super) person: PersonId,
    pub(super) device: DeviceId,
    pub(super) role: Role,
    pub(super) seniority: Seniority,
}

/// How a member stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) role: Role,
    pub(super) seniority: Seniority,
    pub(super) admitted_by: PersonId,
}

/// The terms of an open invite.
pub(super) struct Terms {
    pub(super) by: PersonId,
    pub(super) role: Role,
    pub(super) uses: u32,
    pub(super) expires_ms: u64,
    pub(super) only: Option<DeviceId>,
}

impl ControlGraph {
    pub(super) fn op(&self, pos: Pos) -> &Op {
        &self.placed.nodes[pos.node].known.entry.control.ops[usize::from(pos.op)]
    }

    /// Whether `a` comes before `b` causally.
    pub(super) fn before(&self, a: Pos, b: Pos) -> bool {
        if a.node == b.node {
            a.op < b.op
        } else {
            self.in_past(a.node, b.node)
        }
    }

    /// The place of an operation in an order that respects causality and is equal everywhere.
    pub(super) fn order(&self, pos: Pos) -> (Seniority, u8) {
        let node = &self.placed.nodes[pos.node];
        ((node.depth, node.known.entry.id), pos.op)
    }

    /// Whether an operation is seen, allowed and not void.
    pub(super) fn counts(&self, pos: Pos, view: &View<'_>) -> bool {
        let node = &self.placed.nodes[pos.node];
        let seen = match view.own {
            Some(own) if own.node == pos.node => pos.op < own.op,
            _ => node.bit.is_some_and(|bit| view.past.get(bit)),
        };
        seen && node.allowed >> pos.op & 1 == 1 && !view.void.contains(&pos)
    }

    /// The author, if this operation is allowed from what its author knew, with a role no higher than `cap`.
    pub(super) fn judge(&self, pos: Pos, void: &BTreeSet<Pos>, cap: Option<Role>) -> Option<Author> {
        let known = &self.placed.nodes[pos.node].known;
        if known.sound >> pos.op & 1 == 0 {
            return None;
        }
        let view = self.view_at(pos, void);
        match self.op(pos) {
            Op::Create { person, log, .. } => {
                let first = self.is_root(&known.entry.id) && known.entry.control.heads.is_empty();
                first.then_some(Author {
                    person: *person,
                    device: log.device,
                    role: Role::Owner,
                    seniority: (0, known.entry.id),
                })
            }
            Op::OpenLog { person, log } => self.opens_log(&view, person, log.device, &log.log),
            op => {
                let mut author = self.author(&known.entry.log, &view)?;
                if self.permits_up_to(cap, pos, op, &author, &view) {
                    return Some(author);
                }
                // Asked last, for it looks at everybody.
                author.role = Role::Owner;
                let may_as_owner = self.permits_up_to(cap, pos, op, &author, &view);
                (may_as_owner && self.acting_owner(&view) == Some(author.person)).then_some(author)
            }
        }
    }

    fn permits_up_to(&self, cap: Option<Role>, pos: Pos, op: &Op, author: &Author, view: &View<'_>) -> bool {
        let mut author = *author;
        author.role = author.role.min(cap.unwrap_or(Role::Owner));
        self.permits(pos, op, &author, view)
    }

    /// A device that is in already opens another log.
    fn opens_log(&self, view: &View<'_>, person: &PersonId, device: DeviceId, log: &LogKey) -> Option<Author> {
        let standing = self.standing(person, view)?;
        let had_one = self.placed.by_device.get(&device).is_some_and(|claims| {
            let mut of_person = claims.iter().filter(|claim| claim.person == *person);
            of_person.any(|claim| self.is_live_claim(claim, view))
        });
        let free = self.owner_claim(log, view).is_none_or(|claim| claim.person == *person);
        let fits = had_one && free && !self.is_revoked(&device, view);
        fits.then(|| as_author(*person, device, &standing))
    }

    /// Whose entry this is, if they are a member in the view.
    pub(super) fn author(&self, log: &LogKey, view: &View<'_>) -> Option<Author> {
        let claim = self.owner_claim(log, view)?;
        let standing = self.standing(&claim.person, view)?;
        let has_authority = self.is_live_log(log, &claim, view) && !self.is_revoked(&claim.device, view);
        has_authority.then(|| as_author(claim.person, claim.device, &standing))
    }

    /// Where no owner is left, the senior-most of those with the highest role acts as owner.
    pub(super) fn acting_owner(&self, view: &View<'_>) -> Option<PersonId> {
        let standing = |person: &PersonId| self.standing(person, view).map(|standing| (*person, standing));
        let owners = self.placed.owners.iter();
        if owners
            .filter_map(standing)
            .any(|(_, standing)| standing.role == Role::Owner)
        {
            return None;
        }
        let members = self.placed.about.keys().filter_map(standing);
        members
            .max_by_key(|(_, standing)| (standing.role, Reverse(standing.seniority)))
            .map(|(person, _)| person)
    }

    /// The claim that first said whose a log is.
    pub(super) fn owner_claim(&self, log: &LogKey, view: &View<'_>) -> Option<Claim> {
        let claims = self.placed.claims.get(log)?.iter();
        let seen = claims.filter(|claim| self.counts(claim.pos, view));
        seen.min_by_key(|claim| self.order(claim.pos)).copied()
    }

    /// Whether a log was certified after every removal of its owner.
    pub(super) fn is_live_log(&self, log: &LogKey, owner: &Claim, view: &View<'_>) -> bool {
        let claims = self.placed.claims.get(log).into_iter().flatten();
        let mut of_owner = claims.filter(|claim| claim.person == owner.person && self.counts(claim.pos, view));
        of_owner.any(|claim| self.is_live_claim(claim, view))
    }

    fn is_live_claim(&self, claim: &Claim, view: &View<'_>) -> bool {
        let deeds = self.placed.about.get(&claim.person).into_iter().flatten();
        let mut outs = deeds.filter(|deed| deed.kind == DeedKind::Out && self.counts(deed.pos, view));
        self.counts(claim.pos, view) && outs.all(|out| self.before(out.pos, claim.pos))
    }

    pub(super) fn is_revoked(&self, device: &DeviceId, view: &View<'_>) -> bool {
        let revocations = self.placed.revocations.get(device);
        revocations.is_some_and(|all| all.iter().any(|pos| self.counts(*pos, view)))
    }

    /// How a person stands in a view: what of the operations about them is newest decides, a removal beats whatever did not
    /// know of it, and of concurrent roles the lower one counts.
    pub(super) fn standing(&self, person: &PersonId, view: &View<'_>) -> Option<Standing> {
        let deeds = self.placed.about.get(person)?;
        let seen: Vec<&Deed> = deeds.iter().filter(|deed| self.counts(deed.pos, view)).collect();
        let outs: Vec<Pos> = seen
            .iter()
            .filter(|deed| deed.kind == DeedKind::Out)
            .map(|deed| deed.pos)
            .collect();
        let live: Vec<&Deed> = seen
            .into_iter()
            .filter(|deed| deed.kind != DeedKind::Out && outs.iter().all(|out| self.before(*out, deed.pos)))
            .collect();
        let enters: Vec<&Deed> = live
            .iter()
            .copied()
            .filter(|deed| matches!(deed.kind, DeedKind::Enter(_)))
            .collect();
        // Whoever is in already does not come in again: a later admission brings a device, not a role.
        let first: Vec<&Deed> = enters
            .iter()
            .copied()
            .filter(|deed| !enters.iter().any(|other| self.before(other.pos, deed.pos)))
            .collect();
        let senior = first.iter().min_by_key(|deed| self.order(deed.pos))?;
        let deciding = live
            .iter()
            .copied()
            .filter(|deed| matches!(deed.kind, DeedKind::Role(_)))
            .chain(first.iter().copied());
        Some(Standing {
            role: self.newest_role(deciding.collect())?,
            seniority: self.order(senior.pos).0,
            admitted_by: senior.by,
        })
    }

    /// The role that the newest of these give: of a change rather than an admission, and the lowest of several.
    fn newest_role(&self, mut deeds: Vec<&Deed>) -> Option<Role> {
        let mut newest: Vec<&Deed> = Vec::new();
        // Indices grow along causality, so whatever supersedes a deed comes before it in this order.
        deeds.sort_by_key(|deed| Reverse(deed.pos));
        for deed in deeds {
            if !newest.iter().any(|newer| self.before(deed.pos, newer.pos)) {
                newest.push(deed);
            }
        }
        let changed = newest.iter().filter_map(|deed| match deed.kind {
            DeedKind::Role(role) => Some(role),
            _ => None,
        });
        let entered = newest.iter().filter_map(|deed| match deed.kind {
            DeedKind::Enter(role) => Some(role),
            _ => None,
        });
        changed.min().or_else(|| entered.min())
    }

    fn permits(&self, pos: Pos, op: &Op, author: &Author, view: &View<'_>) -> bool {
        let pair = self.placed.pair;
        match op {
            Op::Create { .. } | Op::OpenLog { .. } => false,
            Op::Admit {
                person,
                log,
                role,
                invite,
                ..
            } => {
                let free = self
                    .owner_claim(&log.log, view)
                    .is_none_or(|claim| claim.person == *person);
                let fits_pair = pair.is_none_or(|(founder, other)| {
                    let fresh = author.person == founder && *person == other && *role == Role::Owner;
                    let is_in = self.standing(person, view).is_some();
                    is_in || fresh
                });
                free && fits_pair && self.admits(pos, person, *role, invite.as_ref(), author, view)
            }
            Op::Leave { .. } => true,
            Op::Remove { person, .. } if *person == author.person => true,
            Op::Remove { person, .. } => {
                let target = self.standing(person, view);
                pair.is_none() && target.is_some_and(|target| may_remove(author.role, target.role))
            }
            Op::SetRole { person, role, .. } => {
                let target = self.standing(person, view);
                let own = *person == author.person;
                pair.is_none() && target.is_some_and(|target| may_set_role(author.role, target.role, *role, own))
            }
            Op::Rename { .. } => pair.is_none() && author.role >= Role::Admin,
            Op::SetHistory { .. } | Op::SetKeepers { .. } | Op::SetFileLimit { .. } => author.role >= Role::Admin,
            Op::OpenInvite { role, .. } => author.role >= Role::Member && *role <= author.role,
            Op::CloseInvite { invite } => {
                let opener = self.terms(invite, view).map(|terms| terms.by);
                opener.is_some_and(|by| by == author.person || author.role >= Role::Moderator)
            }
            Op::Freeze { .. } | Op::Identity { .. } | Op::Seal {} => true,
        }
    }

    fn admits(
        &self,
        pos: Pos,
        person: &PersonId,
        role: Role,
        used: Option<&InviteUse>,
        author: &Author,
        view: &View<'_>,
    ) -> bool {
        if let Some(used) = used {
            return self.fits_invite(pos, role, used, author, view);
        }
        match self.standing(person, view) {
            Some(_) => author.person == *person || author.role >= Role::Admin,
            None => author.role >= Role::Admin && role <= author.role,
        }
    }

    fn fits_invite(&self, pos: Pos, role: Role, used: &InviteUse, author: &Author, view: &View<'_>) -> bool {
        let Some(terms) = self.terms(&used.invite, view) else {
            return false;
        };
        let deeds = &self.placed.invites[&used.invite];
        let closed = deeds.closes.iter().any(|close| self.counts(*close, view));
        let inviter = self.standing(&terms.by, view);
        let inviter_may = inviter.is_some_and(|inviter| inviter.role >= Role::Member);
        let clock_ms = self.placed.nodes[pos.node].known.entry.clock.ms();
        author.role >= Role::Member
            && !closed
            && inviter_may
            && role == terms.role
            && clock_ms <= terms.expires_ms
            && terms.only.is_none_or(|only| only == author.device)
    }

    /// Whether the invite that an operation uses, if any, was not used up yet as its author knew. Asked once, when it is placed: what members cut off from each other
    /// came to is counted in the end ([`super::settle`]), when it is known which uses count.
    pub(super) fn finds_invite_open(&self, pos: Pos, void: &BTreeSet<Pos>) -> bool {
        let view = self.view_at(pos, void);
        let Op::Admit {
            person,
            invite: Some(used),
            ..
        } = self.op(pos)
        else {
            return true;
        };
        let Some(terms) = self.terms(&used.invite, &view) else {
            return false;
        };
        let uses = self.placed.invites[&used.invite].uses.iter();
        let others: BTreeSet<PersonId> = uses
            .filter(|(at, by)| by != person && self.counts(*at, &view))
            .map(|(_, by)| *by)
            .collect();
        others.len() < terms.uses as usize
    }

    /// The terms of an invite: those of the first operation that opened it.
    pub(super) fn terms(&self, invite: &[u8; 32], view: &View<'_>) -> Option<Terms> {
        let opens = self.placed.invites.get(invite)?.opens.iter();
        let open = opens
            .filter(|open| self.counts(**open, view))
            .min_by_key(|open| self.order(**open))?;
        match self.op(*open) {
            Op::OpenInvite {
                role,
                uses,
                expires_ms,
                only,
                ..
            } => Some(Terms {
                by: self.placed.nodes[open.node].author?.person,
                role: *role,
                uses: *uses,
                expires_ms: *expires_ms,
                only: *only,
            }),
            _ => None,
        }
    }
}

fn as_author(person: PersonId, device: DeviceId, standing: &Standing) -> Author {
    Author {
        person,
        device,
        role: standing.role,
        seniority: standing.seniority,
    }
}

/// Moderators and up remove ranks below their own; owners anybody.
pub(crate) fn may_remove(own: Role, target: Role) -> bool {
    own == Role::Owner || (own >= Role::Moderator && target < own)
}

/// Admins and up give roles up to their own to ranks below their own; owners any to anybody; everybody may step down.
pub(super) fn may_set_role(own: Role, target: Role, role: Role, is_self: bool) -> bool {
    if is_self {
        return role < target;
    }
    own == Role::Owner || (own == Role::Admin && target < own && role <= own)
}
