//! Handing on keys: asking for the epochs that entries here need, and giving those that members missed through a fork.
//!
//! Keys go to devices of this node's roster only, and only while this node knows whatever their maker knew ([`Keyring::reseal`]); what cannot be given yet is owed
//! until the membership known here changes.

use std::collections::BTreeSet;

use crate::history::EpochId;
use crate::identity::DeviceId;
use crate::peer::keyring::Keyring;
use crate::peer::{Peer, table};
use crate::store::{RoomNo, Store, StoreError};
use crate::sync::frame::{EpochGift, Frame};
use crate::wire::Wire;

/// Epochs asked for in one frame, and owed on one line for one room.
const NEED_EPOCHS_MAX: usize = 256;

impl<S: Store> Peer<S> {
    /// Asks for the keys of epochs that entries here need.
    pub(super) fn ask_epochs(&mut self, peer: DeviceId, no: RoomNo) {
        let Some(room) = self.rooms.get(&no) else { return };
        let wanted = room.wanted_epochs.clone();
        let Some(shared) = self.shared(peer, no) else { return };
        shared.epochs_asked.retain(|epoch| wanted.contains(epoch));
        let epochs: Vec<EpochId> = wanted
            .difference(&shared.epochs_asked)
            .copied()
            .take(NEED_EPOCHS_MAX)
            .collect();
        if epochs.is_empty() {
            return;
        }
        shared.epochs_asked.extend(&epochs);
        let name = shared.name;
        self.send(peer, &Frame::NeedEpochs { name, epochs });
    }

    /// Gives a member the keys of epochs that it missed through a fork. It is on the roster, or its frames were not heard. What cannot be given yet is owed.
    pub(super) fn on_need_epochs(&mut self, peer: DeviceId, no: RoomNo, epochs: &[EpochId]) -> Result<(), StoreError> {
        let Some(room) = self.rooms.get(&no) else { return Ok(()) };
        let Some(person) = room.devices.get(&peer) else {
            return Ok(());
        };
        let (mut gifts, mut owed) = (Vec::new(), BTreeSet::new());
        for epoch in epochs {
            match room.epochs.reseal(epoch, &room.roster, &room.graph, person) {
                Some(gift) => gifts.push(gift),
                None => _ = owed.insert(*epoch),
            }
        }
        let Some(shared) = self.shared(peer, no) else {
            return Ok(());
        };
        let name = shared.name;
        let room_left = NEED_EPOCHS_MAX.saturating_sub(shared.epochs_owed.len());
        shared.epochs_owed.extend(owed.into_iter().take(room_left));
        if !gifts.is_empty() {
            self.send(peer, &Frame::Epochs { name, gifts });
        }
        Ok(())
    }

    /// Gives what was asked for before this node knew enough to give it.
    pub(super) fn give_owed_epochs(&mut self, no: RoomNo) -> Result<(), StoreError> {
        let mut owing = Vec::new();
        for (peer, line) in &mut self.lines {
            if let Some(shared) = line.rooms.get_mut(&no)
                && !shared.epochs_owed.is_empty()
            {
                owing.push((*peer, std::mem::take(&mut shared.epochs_owed)));
            }
        }
        for (peer, epochs) in owing {
            let epochs: Vec<EpochId> = epochs.into_iter().collect();
            self.on_need_epochs(peer, no, &epochs)?;
        }
        Ok(())
    }

    /// Keys came from a member. Those that nothing here needs are not taken: anybody can make up epochs.
    pub(super) fn on_epochs(&mut self, no: RoomNo, mut gifts: Vec<EpochGift>) -> Result<(), StoreError> {
        let Some(room) = self.rooms.get(&no) else { return Ok(()) };
        gifts.retain(|gift| room.wanted_epochs.contains(&Keyring::epoch_of(gift)));
        self.take_gifts(no, gifts)?;
        self.settle(no)
    }

    /// Takes keys that another member gave, where they are what they claim to be.
    pub(super) fn take_gifts(&mut self, no: RoomNo, gifts: Vec<EpochGift>) -> Result<(), StoreError> {
        for gift in gifts {
            let Some(room) = self.rooms.get_mut(&no) else {
                return Ok(());
            };
            let Some(epoch) = room.epochs.learn_gift(&gift) else {
                continue;
            };
            if let Some(gift) = room.epochs.gift(&epoch) {
                self.store.put(&table::epoch(no, &epoch), &gift.to_bytes())?;
            }
            let outcome = room.unseal(&mut self.store, &mut self.ctx, epoch, None)?;
            for (person, record) in outcome.riders {
                self.learn_identity(&person, &record)?;
            }
        }
        Ok(())
    }
}
