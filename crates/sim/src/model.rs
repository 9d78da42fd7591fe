//! What should be true: everything that was acknowledged, by whom, with what they knew; and who was told to go.
//!
//! The model is filled from what leaves the nodes (replies and events) and from what they show at the moment of a command. It never looks into a
//! store, and it claims only what is certain: what an author knew is what they were shown *before* the command was handed over.

use std::collections::{BTreeMap, BTreeSet};

use offhook_proto::history::{EntryId, RoomId};
use offhook_proto::identity::PersonId;

/// What an author knew when they said something.
#[derive(Debug, Clone, Default)]
pub(crate) struct Knowledge {
    /// Members, as shown to the author.
    pub(crate) audience: BTreeSet<PersonId>,
    /// Persons whom the author had once been shown as members, and no longer.
    pub(crate) gone: BTreeSet<PersonId>,
    /// What the author was shown last; all of it comes before.
    pub(crate) causes: Vec<EntryId>,
}

/// An acknowledged message.
#[derive(Debug, Clone)]
pub(crate) struct Posted {
    pub(crate) room: usize,
    pub(crate) node: usize,
    pub(crate) author: PersonId,
    /// Counts all messages, in the order of their acknowledgement.
    pub(crate) number: u64,
    pub(crate) text: String,
    pub(crate) knew: Knowledge,
    /// Nodes that have it on disk, as far as their events told.
    pub(crate) holders: BTreeSet<usize>,
    /// Every replica was destroyed by a restored home: no protocol could bring it back.
    pub(crate) destroyed: bool,
}

/// What happened to a message after it was said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    /// Texts that its author gave it, in order: each with whether that was acknowledged.
    pub(crate) edits: Vec<(String, bool)>,
    /// Somebody asked for its deletion.
    pub(crate) deletion_asked: bool,
    /// Its author did, and was told that it is done.
    pub(crate) deleted_by_author: bool,
}

/// A room as the simulator made it.
#[derive(Debug, Clone, Default)]
pub(crate) struct RoomModel {
    /// Once it is made.
    pub(crate) id: Option<RoomId>,
    /// Nodes that joined, by their own word.
    pub(crate) joined: BTreeSet<usize>,
    /// Nodes that hold an invite and have not joined yet.
    pub(crate) knocking: BTreeSet<usize>,
    /// Persons who may be out: somebody asked for their removal, they asked to leave, or their invite was used too often.
    pub(crate) perhaps_gone: BTreeSet<PersonId>,
}

/// Everything known for certain.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) rooms: Vec<RoomModel>,
    pub(crate) posts: BTreeMap<EntryId, Posted>,
    pub(crate) changes: BTreeMap<EntryId, Changes>,
    /// Persons whom a node was ever shown as members of a room.
    shown: BTreeMap<(usize, usize), BTreeSet<PersonId>>,
    /// Nodes whose home was restored from an old copy: what they said and did since is known for what others hold only.
    pub(crate) restored: BTreeSet<usize>,
    /// Nodes whose home was put back from an old copy without being told: what they said above the fork is said again under other names.
    pub(crate) copied: BTreeSet<usize>,
    /// Of what they said, that whose name the copy gave to something else.
    pub(crate) renamed: Vec<Posted>,
    /// The logs that they forked: a name there can be two entries'.
    pub(crate) forked_logs: BTreeSet<[u8; 8]>,
    /// What was said by somebody who was a reader, with a changed program.
    pub(crate) by_readers: BTreeSet<(usize, EntryId)>,
    /// Nodes that mean harm: nothing is promised to them.
    pub(crate) hostile: BTreeSet<usize>,
    /// Whether any of them writes well-formed entries against the rules.
    pub(crate) insiders: bool,
    /// Persons by node.
    pub(crate) persons: Vec<PersonId>,
}

impl Model {
    pub(crate) fn room_of(&self, id: RoomId) -> Option<usize> {
        self.rooms.iter().position(|room| room.id == Some(id))
    }

    /// A node was shown these members.
    pub(crate) fn members_shown(&mut self, node: usize, room: usize, members: &BTreeSet<PersonId>) {
        self.shown.entry((node, room)).or_default().extend(members);
    }

    /// Those whom a node has seen leave.
    pub(crate) fn gone(&self, node: usize, room: usize, members: &BTreeSet<PersonId>) -> BTreeSet<PersonId> {
        let shown = self.shown.get(&(node, room));
        shown.map_or_else(BTreeSet::new, |shown| shown.difference(members).copied().collect())
    }

    /// A node has an entry on disk.
    pub(crate) fn holds(&mut self, node: usize, entry: EntryId) {
        if let Some(post) = self.posts.get_mut(&entry) {
            post.holders.insert(node);
        }
    }

    /// Messages of honest nodes that some replica must still have.
    pub(crate) fn promised(&self) -> impl Iterator<Item = (&EntryId, &Posted)> {
        self.posts
            .iter()
            .filter(|(_, post)| !post.destroyed && !self.hostile.contains(&post.node))
    }

    /// The texts that a message may show at rest.
    pub(crate) fn texts(&self, id: &EntryId, post: &Posted) -> Vec<String> {
        let edits = self.changes.get(id).map_or(&[][..], |changes| &changes.edits);
        let author_stays =
            !self.restored.contains(&post.node) && !self.rooms[post.room].perhaps_gone.contains(&post.author);
        let last_acknowledged = edits.iter().rposition(|(_, acknowledged)| *acknowledged);
        let first = match last_acknowledged {
            Some(last) if author_stays => last,
            _ => 0,
        };
        let original = (last_acknowledged.is_none() || !author_stays).then(|| post.text.clone());
        let later = edits[first.min(edits.len())..].iter().map(|(text, _)| text.clone());
        original.into_iter().chain(later).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: EntryId = EntryId { log: [1; 8], seq: 1 };

    fn model(edits: &[(&str, bool)]) -> Model {
        let author = PersonId([1; 32]);
        let mut model = Model::default();
        model.rooms.push(RoomModel::default());
        let post = Posted {
            room: 0,
            node: 0,
            author,
            number: 0,
            text: "first".into(),
            knew: Knowledge::default(),
            holders: BTreeSet::new(),
            destroyed: false,
        };
        model.posts.insert(ID, post);
        let edits = edits.iter().map(|(text, done)| ((*text).to_owned(), *done)).collect();
        let changes = Changes {
            edits,
            ..Changes::default()
        };
        model.changes.insert(ID, changes);
        model
    }

    fn texts(model: &Model) -> Vec<String> {
        model.texts(&ID, &model.posts[&ID])
    }

    #[test]
    fn an_acknowledged_edit_replaces_what_was_before() {
        assert_eq!(texts(&model(&[])), ["first"]);
        assert_eq!(texts(&model(&[("second", false)])), ["first", "second"]);
        assert_eq!(
            texts(&model(&[("second", true), ("third", false)])),
            ["second", "third"]
        );
    }

    #[test]
    fn edits_of_somebody_who_left_may_be_void() {
        let mut model = model(&[("second", true)]);
        model.rooms[0].perhaps_gone.insert(PersonId([1; 32]));
        assert_eq!(texts(&model), ["first", "second"]);
    }

    #[test]
    fn gone_is_who_was_shown_and_is_no_longer() {
        let mut model = model(&[]);
        let [a, b] = [PersonId([1; 32]), PersonId([2; 32])];
        model.members_shown(0, 0, &[a, b].into());
        assert_eq!(model.gone(0, 0, &[a].into()), [b].into());
        assert_eq!(model.gone(1, 0, &[a].into()), BTreeSet::new());
    }
}
