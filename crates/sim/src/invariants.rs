//! What must always hold. Each check is a function of what the nodes show and what the model knows, and each has a planted
//! fault (see [`crate::Plant`]) that it must find.

use std::collections::{BTreeMap, BTreeSet};

use offhook_proto::history::EntryId;
use offhook_proto::identity::PersonId;
use offhook_proto::peer::view::{EntryKind, EntryView, Standing};
use offhook_proto::rooms::Role;

use crate::model::{Model, Posted};
use crate::scenario::History;

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// Nothing acknowledged is lost while one replica lives.
    NothingLost,
    /// Nothing is shown twice.
    NothingTwice,
    /// Causes stand before their effects in every timeline.
    CausesFirst,
    /// At rest, all members agree on who is a member, with which role, and on the room's settings.
    EqualMembership,
    /// At rest, all members show the same in the same order.
    EqualOrder,
    /// Who was removed reads nothing that was said by anyone who knew of it.
    RemovedReadNothing,
    /// What readers say with a changed program is marked.
    ReadersMarked,
    /// Outputs, frames, stores and wake-ups stay within bounds, whatever arrives.
    Bounded,
    /// Everything heals within a bound.
    Progress,
    /// No store is ever found damaged, and nothing panics.
    Sound,
    /// What the scenario's script expects at the end.
    Expected,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::NothingLost,
        Self::NothingTwice,
        Self::CausesFirst,
        Self::EqualMembership,
        Self::EqualOrder,
        Self::RemovedReadNothing,
        Self::ReadersMarked,
        Self::Bounded,
        Self::Progress,
        Self::Sound,
        Self::Expected,
    ];

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::NothingLost => "nothing acknowledged is lost",
            Self::NothingTwice => "nothing is shown twice",
            Self::CausesFirst => "causes come before effects",
            Self::EqualMembership => "membership is equal at rest",
            Self::EqualOrder => "order is equal at rest",
            Self::RemovedReadNothing => "the removed read nothing new",
            Self::ReadersMarked => "what readers say is marked",
            Self::Bounded => "memory and queues are bounded",
            Self::Progress => "progress within a bound after healing",
            Self::Sound => "stores are sound and nothing panics",
            Self::Expected => "the scenario's own expectations",
        }
    }
}

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// Where and how.
    pub text: String,
}

impl Violation {
    pub(crate) fn new(invariant: Invariant, text: String) -> Self {
        Self { invariant, text }
    }
}

/// What one node shows of one room.
#[derive(Debug, Clone)]
pub(crate) struct Sight {
    pub(crate) node: usize,
    pub(crate) person: PersonId,
    pub(crate) standing: Standing,
    pub(crate) members: BTreeMap<PersonId, Role>,
    /// The room's name, and the largest file that it takes.
    pub(crate) settings: (String, u64),
    pub(crate) lines: Vec<EntryView>,
    /// Where each entry stands in `lines`, first of all places.
    pub(crate) places: BTreeMap<EntryId, usize>,
}

impl Sight {
    /// Puts lines in, and notes where each stands.
    pub(crate) fn show(&mut self, lines: Vec<EntryView>) {
        self.places = lines.iter().enumerate().rev().map(|(i, line)| (line.id, i)).collect();
        self.lines = lines;
    }

    fn find(&self, id: &EntryId) -> Option<&EntryView> {
        self.places.get(id).map(|at| &self.lines[*at])
    }
}

/// What all nodes show of one room, hostile ones too.
#[derive(Debug, Clone)]
pub(crate) struct RoomSights {
    pub(crate) room: usize,
    pub(crate) sights: Vec<Sight>,
}

impl RoomSights {
    /// The honest members: those who take themselves for members, without those who may have been removed and whom another
    /// honest member, not doubtful itself, no longer counts.
    pub(crate) fn at_rest(&self, model: &Model) -> Vec<&Sight> {
        let perhaps_gone = &model.rooms[self.room].perhaps_gone;
        let honest = |s: &&Sight| s.standing == Standing::Member && !model.hostile.contains(&s.node);
        let members: Vec<&Sight> = self.sights.iter().filter(honest).collect();
        let refused = |person: &PersonId| {
            let others = members.iter().filter(|s| s.person != *person);
            let certain: Vec<_> = others.clone().filter(|s| !perhaps_gone.contains(&s.person)).collect();
            match certain.is_empty() {
                false => certain.iter().any(|s| !s.members.contains_key(person)),
                true => others.clone().any(|s| !s.members.contains_key(person)),
            }
        };
        let stays = |s: &&Sight| !(perhaps_gone.contains(&s.person) && refused(&s.person));
        members.iter().filter(|s| stays(s)).copied().collect()
    }
}

/// Every check of what is shown, over all rooms.
pub(crate) fn check_all(rooms: &[RoomSights], model: &Model, history: History) -> Vec<Violation> {
    let mut found = check_at_rest(rooms, model, history);
    for room in rooms {
        found.extend(removed_read_nothing(room, model));
        for sight in &room.sights {
            if !model.hostile.contains(&sight.node) {
                found.extend(check_timeline(room.room, sight, model));
            }
        }
    }
    found
}

/// What must hold once everything has come to rest.
pub(crate) fn check_at_rest(rooms: &[RoomSights], model: &Model, history: History) -> Vec<Violation> {
    let mut found = Vec::new();
    for room in rooms {
        let at_rest = room.at_rest(model);
        found.extend(nothing_lost(room.room, &at_rest, model, history));
        found.extend(said_again(room.room, &at_rest, model));
        found.extend(equal_membership(room.room, &at_rest, model));
        found.extend(equal_order(room.room, &at_rest, history));
        found.extend(readers_are_marked(room.room, &at_rest, model));
    }
    found
}

/// What must hold of every timeline at any time.
pub(crate) fn check_timeline(room: usize, sight: &Sight, model: &Model) -> Vec<Violation> {
    let mut found = nothing_twice(room, sight, model);
    found.extend(causes_first(room, sight, model));
    found
}

fn nothing_lost(room: usize, at_rest: &[&Sight], model: &Model, history: History) -> Vec<Violation> {
    let mut found = Vec::new();
    let members: BTreeSet<usize> = at_rest.iter().map(|sight| sight.node).collect();
    for (id, post) in model.promised().filter(|(_, post)| post.room == room) {
        // What somebody said who is out by now, and no member got in time, is nobody's to give.
        if !members.contains(&post.node) && post.holders.is_disjoint(&members) {
            continue;
        }
        for sight in at_rest {
            let entitled = history == History::All || post.knew.audience.contains(&sight.person);
            if let Some(why) = entitled.then(|| lost_at(sight, id, post, model)).flatten() {
                let (node, author, text) = (sight.node, post.node, brief(&post.text));
                let what = format!("room {room}: {id} (\"{text}\" by n{author}) at n{node}: {why}");
                found.push(Violation::new(Invariant::NothingLost, what));
            }
        }
    }
    found
}

/// Whether a message's text is shown, whatever its name.
fn says_again(sight: &Sight, post: &Posted) -> bool {
    let same = |line: &&EntryView| line.author == post.author && line.text == post.text;
    sight.lines.iter().any(|line| same(&line))
}

/// What a copied home said under a name that its copy gave to something else must be shown all the same.
fn said_again(room: usize, at_rest: &[&Sight], model: &Model) -> Vec<Violation> {
    let mut found = Vec::new();
    for post in model.renamed.iter().filter(|post| post.room == room && !post.destroyed) {
        for sight in at_rest.iter().filter(|sight| !says_again(sight, post)) {
            let (node, author, text) = (sight.node, post.node, brief(&post.text));
            let what =
                format!("room {room}: \"{text}\" by n{author}, whose home was copied, at n{node}: not said again");
            found.push(Violation::new(Invariant::NothingLost, what));
        }
    }
    found
}

/// The first words: the rest is filler.
fn brief(text: &str) -> &str {
    text.split(" word").next().unwrap_or(text)
}

/// Why a message does not count as being here.
fn lost_at(sight: &Sight, id: &EntryId, post: &Posted, model: &Model) -> Option<String> {
    if model.copied.contains(&post.node) && says_again(sight, post) {
        return None;
    }
    let Some(shown) = sight.find(id) else {
        return Some("not shown".to_owned());
    };
    let changes = model.changes.get(id);
    match shown.kind {
        EntryKind::Sealed => Some("cannot be read".to_owned()),
        EntryKind::Control => Some("shown as something else".to_owned()),
        EntryKind::Deleted if changes.is_some_and(|c| c.deletion_asked) => None,
        EntryKind::Deleted => Some("deleted though nobody asked for it".to_owned()),
        EntryKind::Message => {
            let stays =
                !model.rooms[post.room].perhaps_gone.contains(&post.author) && !model.restored.contains(&post.node);
            if stays && changes.is_some_and(|c| c.deleted_by_author) {
                return Some("still there after its deletion was acknowledged".to_owned());
            }
            let texts = model.texts(id, post);
            (!texts.contains(&shown.text)).then(|| format!("says {:?}, not one of {texts:?}", shown.text))
        }
    }
}

fn nothing_twice(room: usize, sight: &Sight, model: &Model) -> Vec<Violation> {
    let mut ids = BTreeSet::new();
    let mut texts = BTreeSet::new();
    let mut found = Vec::new();
    for line in &sight.lines {
        let twice = !ids.insert(line.id);
        // Every message of the simulator has a text of its own, so a second one is the same thing said again. A hostile author may repeat itself.
        // So may, for a moment, one whose home was copied: what it says again can come before the proof that takes the first away.
        let mut repeating = model.hostile.iter().chain(&model.copied);
        let by_hostile = repeating.any(|node| model.persons[*node] == line.author);
        let unique = line.kind == EntryKind::Message && line.edited_ms.is_none() && !by_hostile;
        let said_twice = unique && !texts.insert(&line.text);
        if twice || said_twice {
            let what = format!("room {room} at n{}: {} \"{}\"", sight.node, line.id, line.text);
            found.push(Violation::new(Invariant::NothingTwice, what));
        }
    }
    found
}

fn causes_first(room: usize, sight: &Sight, model: &Model) -> Vec<Violation> {
    let mut newest_of_log: BTreeMap<[u8; 8], u32> = BTreeMap::new();
    let mut found = Vec::new();
    // What was known only through what a fork took away is known no more, and a clock that was dated back then parts cause and effect (history.md, section 7),
    // both of them perhaps by honest members: so nothing is asked of a room where an insider forked a log.
    let unlinked = model.insiders && sight.lines.iter().any(|line| line.equivocation);
    for (place, line) in sight.lines.iter().enumerate() {
        let knew = model.posts.get(&line.id).map_or(&[][..], |post| &post.knew.causes);
        let causes = knew.iter().chain(&line.reply_to);
        for cause in causes.filter(|cause| !unlinked && !model.forked_logs.contains(&cause.log)) {
            if sight.places.get(cause).is_some_and(|at| *at > place) {
                let what = format!(
                    "room {room} at n{}: {} stands before its cause {cause}",
                    sight.node, line.id
                );
                found.push(Violation::new(Invariant::CausesFirst, what));
            }
        }
        let newest = newest_of_log.entry(line.id.log).or_default();
        if line.id.seq < *newest {
            let what = format!(
                "room {room} at n{}: {} stands behind number {newest} of its log",
                sight.node, line.id
            );
            found.push(Violation::new(Invariant::CausesFirst, what));
        }
        *newest = line.id.seq.max(*newest);
    }
    found
}

fn equal_membership(room: usize, at_rest: &[&Sight], model: &Model) -> Vec<Violation> {
    let Some(first) = at_rest.first() else {
        return vec![Violation::new(
            Invariant::EqualMembership,
            format!("room {room} has no honest member left"),
        )];
    };
    let mut found = Vec::new();
    for sight in at_rest {
        if sight.members != first.members {
            let (a, b) = (first.node, sight.node);
            let what = format!("room {room}: n{a} and n{b} differ: {}", difference(first, sight, model));
            found.push(Violation::new(Invariant::EqualMembership, what));
        }
        if sight.settings != first.settings {
            let (a, b) = (first.node, sight.node);
            let what = format!(
                "room {room}: n{a} and n{b} differ: {:?} / {:?}",
                first.settings, sight.settings
            );
            found.push(Violation::new(Invariant::EqualMembership, what));
        }
        if !first.members.contains_key(&sight.person) {
            let what = format!(
                "room {room}: n{} takes itself for a member, n{} does not",
                sight.node, first.node
            );
            found.push(Violation::new(Invariant::EqualMembership, what));
        }
    }
    let present: BTreeSet<PersonId> = at_rest.iter().map(|sight| sight.person).collect();
    let joined = &model.rooms[room].joined;
    for (node, person) in model.persons.iter().enumerate() {
        let counted = first.members.contains_key(person);
        if counted && joined.contains(&node) && !model.hostile.contains(&node) && !present.contains(person) {
            let what = format!(
                "room {room}: n{} counts n{node} as a member, which does not itself",
                first.node
            );
            found.push(Violation::new(Invariant::EqualMembership, what));
        }
    }
    found
}

/// What somebody said as a reader is marked wherever it is shown. Taken for granted by nobody: whoever has not heard of the role yet shows it plainly.
fn readers_are_marked(room: usize, at_rest: &[&Sight], model: &Model) -> Vec<Violation> {
    let mut found = Vec::new();
    for sight in at_rest {
        for (_, id) in model.by_readers.iter().filter(|(at, _)| *at == room) {
            let plain = |line: &&EntryView| !line.by_reader && !line.after_removal && !line.equivocation;
            if sight.find(id).filter(plain).is_some() {
                let what = format!(
                    "room {room}: n{} shows {id}, said by a reader, like others'",
                    sight.node
                );
                found.push(Violation::new(Invariant::ReadersMarked, what));
            }
        }
    }
    found
}

fn difference(a: &Sight, b: &Sight, model: &Model) -> String {
    let persons: BTreeSet<&PersonId> = a.members.keys().chain(b.members.keys()).collect();
    let differing = persons.into_iter().filter(|p| a.members.get(p) != b.members.get(p));
    let words = differing.map(|p| {
        let node = model.persons.iter().position(|q| q == p);
        format!(
            "n{}: {:?} / {:?}",
            node.unwrap_or(usize::MAX),
            a.members.get(p),
            b.members.get(p)
        )
    });
    words.collect::<Vec<_>>().join(", ")
}

/// What of a line must be the same at every member. Names, own delivery states, late marks, mentions, and what is ahead of the own clock are local.
fn essence(line: &EntryView) -> String {
    let reactions: Vec<_> = line.reactions.iter().map(|(emoji, by)| (emoji, by.len())).collect();
    format!(
        "{} time {} {:?} {:?} reply {:?} edited {:?} {reactions:?} after removal {} by reader {} equivocation {}",
        line.id,
        line.time_ms,
        line.kind,
        line.text,
        line.reply_to.map(|id| id.to_string()),
        line.edited_ms,
        line.after_removal,
        line.by_reader,
        line.equivocation,
    )
}

fn equal_order(room: usize, at_rest: &[&Sight], history: History) -> Vec<Violation> {
    let Some(first) = at_rest.first() else {
        return Vec::new();
    };
    let found = at_rest[1..].iter().filter_map(|sight| {
        let differs = match history {
            History::All => first_difference(&essences(first, |_| true), &essences(sight, |_| true)),
            // Who came later may lack what was before, or have it sealed; what both can read stands in the same order.
            History::None => {
                let readable = |s: &Sight, id: &EntryId| s.find(id).is_some_and(|l| l.kind != EntryKind::Sealed);
                let both = |line: &EntryView| readable(first, &line.id) && readable(sight, &line.id);
                first_difference(&essences(first, both), &essences(sight, both))
            }
        };
        let (a, b) = (first.node, sight.node);
        differs.map(|what| {
            Violation::new(
                Invariant::EqualOrder,
                format!("room {room}: n{a} and n{b} differ {what}"),
            )
        })
    });
    found.collect()
}

fn essences(sight: &Sight, which: impl Fn(&EntryView) -> bool) -> Vec<String> {
    // Sentences for control entries name people as they are called locally.
    let line = |line: &EntryView| match line.kind {
        EntryKind::Control => format!("{} control", line.id),
        _ => essence(line),
    };
    sight.lines.iter().filter(|l| which(l)).map(line).collect()
}

fn first_difference(a: &[String], b: &[String]) -> Option<String> {
    let nothing = "nothing".to_owned();
    let longer = a.len().max(b.len());
    let at = (0..longer).find(|i| a.get(*i) != b.get(*i))?;
    let (a_has, b_has) = (a.get(at).unwrap_or(&nothing), b.get(at).unwrap_or(&nothing));
    Some(format!("at {at} of {}/{}: {a_has} | {b_has}", a.len(), b.len()))
}

fn removed_read_nothing(room: &RoomSights, model: &Model) -> Vec<Violation> {
    let at_rest = room.at_rest(model);
    let Some(roster) = at_rest.first().map(|sight| &sight.members) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for sight in room.sights.iter().filter(|sight| !roster.contains_key(&sight.person)) {
        for line in sight.lines.iter().filter(|line| line.kind == EntryKind::Message) {
            let said = model.posts.get(&line.id);
            if said.is_some_and(|post| post.knew.gone.contains(&sight.person)) {
                let what = format!(
                    "room {}: n{}, who is out, reads {} \"{}\"",
                    room.room, sight.node, line.id, line.text
                );
                found.push(Violation::new(Invariant::RemovedReadNothing, what));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
