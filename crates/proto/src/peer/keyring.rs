//! The epochs of a room as a peer holds them: the book that decides, and the secrets that let it seal them to others.

use std::collections::BTreeMap;

use crate::crypto::Secret;
use crate::history::{Clock, EntryRef, EpochId, Header};
use crate::identity::{DeviceId, PersonId};
use crate::rooms::epochs::Content;
use crate::rooms::{ControlGraph, ControlPayload, EpochBook, EpochKeys, EpochSecret, HistoryPolicy, Roster, Sending};
use crate::sync::frame::EpochGift;

/// All epochs known of one room.
#[derive(Debug, Default)]
pub(super) struct Keyring {
    book: EpochBook,
    secrets: BTreeMap<EpochId, EpochSecret>,
}

impl Keyring {
    /// Takes in an epoch's secret. True if it told something new.
    pub(super) fn learn_secret(&mut self, secret: EpochSecret) -> bool {
        let news = self.book.learn(secret.keys()).is_some();
        let id = secret.id();
        if self
            .book
            .keys(&id)
            .is_some_and(|keys| keys.commitment() == secret.keys().commitment())
        {
            self.secrets.insert(id, secret);
        }
        news
    }

    /// Takes in what another member gave. Returns the epoch if it told something new.
    pub(super) fn learn_gift(&mut self, gift: &EpochGift) -> Option<EpochId> {
        match gift {
            EpochGift::Whole { secret } => {
                let secret = EpochSecret(secret.clone());
                let id = secret.id();
                self.learn_secret(secret).then_some(id)
            }
            EpochGift::Outline { control, sync, content } => self.book.learn(outlined(control, sync, content)),
        }
    }

    /// The epoch that a gift is of, by what it commits to.
    pub(super) fn epoch_of(gift: &EpochGift) -> EpochId {
        match gift {
            EpochGift::Whole { secret } => EpochSecret(secret.clone()).id(),
            EpochGift::Outline { control, sync, content } => outlined(control, sync, content).id(),
        }
    }

    /// An epoch as it is stored, or given to another member.
    pub(super) fn gift(&self, epoch: &EpochId) -> Option<EpochGift> {
        if let Some(secret) = self.secrets.get(epoch) {
            return Some(EpochGift::Whole {
                secret: secret.0.clone(),
            });
        }
        self.book.keys(epoch).map(outline)
    }

    pub(super) fn keys(&self, epoch: &EpochId) -> Option<&EpochKeys> {
        self.book.keys(epoch)
    }

    pub(super) fn secret(&self, epoch: &EpochId) -> Option<&EpochSecret> {
        self.secrets.get(epoch)
    }

    pub(super) fn knows(&self, epoch: &EpochId) -> bool {
        self.book.keys(epoch).is_some()
    }

    pub(super) fn note_control(&mut self, entry: EntryRef, header: &Header, payload: &ControlPayload) {
        self.book.note_control(entry, header, payload);
    }

    pub(super) fn note_use(&mut self, epoch: &EpochId, clock: Clock) {
        self.book.note_use(epoch, clock);
    }

    /// What to write under. An epoch that some lack is no use to a device that cannot seal it to them.
    pub(super) fn sending_epoch(&self, roster: &Roster, graph: &ControlGraph, me: DeviceId) -> Sending {
        match self.book.sending_epoch(roster, graph, me) {
            Sending::Use { epoch, missing } if missing.is_empty() || self.secrets.contains_key(&epoch) => {
                Sending::Use { epoch, missing }
            }
            _ => Sending::NewEpoch,
        }
    }

    pub(super) fn due_for_rotation(&self, epoch: &EpochId, now: Clock) -> bool {
        self.book.due_for_rotation(epoch, now)
    }

    /// The secret by which this device names the room to peers: that of the epoch in use, else any.
    pub(super) fn current_sync(&self, roster: &Roster, graph: &ControlGraph, me: DeviceId) -> Option<Secret> {
        if let Sending::Use { epoch, .. } = self.sending_epoch(roster, graph, me) {
            return self.keys(&epoch).map(|keys| keys.sync.clone());
        }
        self.book.held().next().map(|(_, keys)| keys.sync.clone())
    }

    /// The secrets by which others may name the room. Old ones serve as well: who is served is decided by the roster, not by the name.
    pub(super) fn sync_secrets(&self) -> impl Iterator<Item = &Secret> {
        self.book.held().map(|(_, keys)| &keys.sync)
    }

    /// What a newcomer is given by the room's policy.
    pub(super) fn history_share(
        &self,
        roster: &Roster,
        graph: &ControlGraph,
        me: DeviceId,
        now: Clock,
    ) -> Vec<EpochGift> {
        let current = match self.sending_epoch(roster, graph, me) {
            Sending::Use { epoch, .. } => epoch,
            Sending::NewEpoch => EpochId([0; 8]),
        };
        let mut share = self.book.history_share(roster.history, &current, now);
        share.retain(|keys| self.may_be_given(&keys.id(), graph));
        let give = |keys: EpochKeys| match (keys.content_key(), self.secrets.get(&keys.id())) {
            (Some(_), Some(secret)) => EpochGift::Whole {
                secret: secret.0.clone(),
            },
            _ => outline(&keys),
        };
        share.into_iter().map(give).collect()
    }

    /// Whether this device may hand over an epoch's keys: only where it knows whatever their maker knew. A slot opens before the removals do that the maker knew
    /// of, and until they are here this device's roster still holds the removed.
    fn may_be_given(&self, epoch: &EpochId, graph: &ControlGraph) -> bool {
        self.book
            .entries_under(epoch)
            .any(|entry| graph.knows_as_much_as(entry))
    }

    /// What a member that lacks an epoch is given: nothing before this device knows what the epoch's maker knew; all of it where newcomers may read everything; otherwise the content key only
    /// of epochs that were made when it was in.
    pub(super) fn reseal(
        &self,
        epoch: &EpochId,
        roster: &Roster,
        graph: &ControlGraph,
        person: &PersonId,
    ) -> Option<EpochGift> {
        let since = roster.members.get(person)?.since;
        if !self.may_be_given(epoch, graph) {
            return None;
        }
        let made_before = |entry: &EntryRef| graph.is_past(entry, &since);
        let may_read = matches!(roster.history, HistoryPolicy::All {})
            || !self
                .book
                .entries_under(epoch)
                .any(|entry| made_before(entry) || *entry == since);
        if may_read {
            return self.gift(epoch);
        }
        self.book.keys(epoch).map(outline)
    }
}

fn outlined(control: &Secret, sync: &Secret, content: &[u8; 32]) -> EpochKeys {
    EpochKeys {
        control: control.clone(),
        sync: sync.clone(),
        content: Content::Withheld { commitment: *content },
    }
}

fn outline(keys: &EpochKeys) -> EpochGift {
    let Content::Withheld { commitment } = keys.without_content().content else {
        unreachable!("keys without content withhold it")
    };
    EpochGift::Outline {
        control: keys.control.clone(),
        sync: keys.sync.clone(),
        content: commitment,
    }
}
