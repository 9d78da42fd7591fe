//! The identity records of one person that a room has seen: merged in a fixed order, so that the state depends on the set alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::identity::{DEVICES_MAX, DeviceId, IdentityBundle, IdentityRecord, IdentityState, PersonId};
use crate::wire::Wire;

/// Every best record of a person, and what they come to.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    /// Certificates first, then revocations, prekeys, profiles: the order in which they are merged.
    records: BTreeMap<(u8, DeviceId), IdentityRecord>,
    pub(super) state: Arc<IdentityState>,
}

impl Pool {
    pub(super) fn new(person: PersonId) -> Self {
        Self {
            records: BTreeMap::new(),
            state: Arc::new(IdentityState::new(person)),
        }
    }

    /// Takes in a bundle whose signatures were checked. Records about other persons change nothing.
    pub(super) fn add(&mut self, bundle: &IdentityBundle) {
        let mut news = false;
        for record in &bundle.records {
            let (kind, device, person) = key(record);
            if person.is_some_and(|person| person != self.state.person()) {
                continue;
            }
            let slot = self.records.get(&(kind, device));
            if slot.is_none_or(|old| rank(old) < rank(record)) {
                self.records.insert((kind, device), record.clone());
                news = true;
            }
        }
        if news {
            self.state = Arc::new(self.merged());
        }
    }

    fn merged(&self) -> IdentityState {
        let mut state = IdentityState::new(self.state.person());
        let mut devices = 0;
        for ((kind, device), record) in &self.records {
            let counts = match kind {
                0 => devices < DEVICES_MAX,
                1 => true,
                _ => state.has_device(device),
            };
            // A record that does not fit (one device too many) is left out, by everybody alike.
            if counts && state.merge_verified(record).is_ok() && *kind == 0 {
                devices += 1;
            }
        }
        state
    }
}

fn key(record: &IdentityRecord) -> (u8, DeviceId, Option<PersonId>) {
    match record {
        IdentityRecord::Device { device, person, .. } => (0, *device, Some(*person)),
        IdentityRecord::Revoked { device, person, .. } => (1, *device, Some(*person)),
        IdentityRecord::Prekey { device, .. } => (2, *device, None),
        IdentityRecord::Profile { device, .. } => (3, *device, None),
    }
}

fn rank(record: &IdentityRecord) -> (u64, Vec<u8>) {
    let number = match record {
        IdentityRecord::Device { number, .. }
        | IdentityRecord::Revoked { number, .. }
        | IdentityRecord::Prekey { number, .. }
        | IdentityRecord::Profile { number, .. } => *number,
    };
    (number, record.to_bytes())
}
