//! Senders who follow the rules, on random rooms: whoever is out never held the epoch that is chosen.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::*;
use crate::history::Class;
use crate::rooms::ControlEntry;
use crate::rooms::roster::properties::{author_of, rooms_of};
use crate::rooms::roster::tests::World;

/// What everybody did with keys, as only the test can know.
#[derive(Default)]
struct Keys {
    secrets: BTreeMap<EpochId, EpochSecret>,
    /// Every device that ever got an epoch, by whatever way.
    holders: BTreeMap<EpochId, BTreeSet<DeviceId>>,
    /// Each entry's epoch and payload.
    written: BTreeMap<EntryRef, (EpochId, ControlPayload)>,
    /// To whom each entry seals which epoch.
    sealed_by: BTreeMap<EntryRef, (EpochId, BTreeSet<DeviceId>)>,
}

fn header(epoch: EpochId) -> Header {
    Header {
        class: Class::Control,
        seq: 1,
        prev: [0; 32],
        clock: Clock::at_ms(1),
        epoch,
        parents: vec![],
        payload_hash: [0; 32],
        payload_len: 0,
    }
}

/// The entries that the author of `entry` knew.
fn past<'a>(world: &'a World, entry: &ControlEntry) -> Vec<&'a ControlEntry> {
    let by_id: BTreeMap<EntryRef, &ControlEntry> = world.entries.iter().map(|entry| (entry.id, entry)).collect();
    let (mut seen, mut left) = (BTreeSet::new(), entry.control.heads.clone());
    while let Some(id) = left.pop() {
        if seen.insert(id) {
            left.extend(&by_id[&id].control.heads);
        }
    }
    world.entries.iter().filter(|entry| seen.contains(&entry.id)).collect()
}

impl Keys {
    /// What a device knows of epochs from these entries.
    fn book<'a>(&self, device: &DeviceId, entries: impl IntoIterator<Item = &'a ControlEntry>) -> EpochBook {
        let mut book = EpochBook::new();
        for entry in entries {
            let (epoch, payload) = &self.written[&entry.id];
            if self.holders[epoch].contains(device) {
                book.learn(self.secrets[epoch].keys());
            }
            book.note_control(entry.id, &header(*epoch), payload);
        }
        book
    }

    /// Writes an entry as an honest device does: with its operation in view, under an epoch that may be used or a new one.
    fn write(&mut self, world: &World, entry: &ControlEntry, rng: &mut ChaCha20Rng) {
        let device = author_of(entry);
        let known = past(world, entry);
        let mut graph = ControlGraph::new(world.room);
        for entry in known.iter().copied().chain([entry]) {
            graph.insert(entry.clone());
        }
        let roster = graph.resolve();
        let (epoch, recipients) = match self.book(&device, known).sending_epoch(&roster, &graph, device) {
            Sending::Use { epoch, missing } => (epoch, missing),
            Sending::NewEpoch => {
                let secret = EpochSecret::random(rng);
                let id = secret.id();
                self.secrets.insert(id, secret);
                (id, roster.devices().keys().copied().collect())
            }
        };
        let slot = |device: &DeviceId| Slot {
            hint: slot_hint(&epoch, device),
            sealed: [0; HPKE_SECRET_BYTES],
        };
        let payload = ControlPayload {
            commitment: self.secrets[&epoch].keys().commitment(),
            slots: recipients.iter().map(slot).collect(),
            body: vec![],
        };
        self.sealed_by.insert(entry.id, (epoch, recipients.clone()));
        let holders = self.holders.entry(epoch).or_default();
        holders.extend(recipients);
        holders.insert(device);
        self.written.insert(entry.id, (epoch, payload));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Nobody on the roster would send with an epoch that anybody held who is not on it.
    #[test]
    fn nobody_who_is_out_holds_what_is_spoken_with(world in rooms_of(1..12)) {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut keys = Keys::default();
        for entry in &world.entries {
            keys.write(&world, entry, &mut rng);
        }
        let graph = world.graph_with_waiting();
        let roster = graph.resolve();
        // A fork that is proven nowhere but above itself cannot be asked of anybody's past.
        prop_assume!(roster.frozen.keys().all(|log| roster.freezes.contains_key(log)));
        for me in roster.devices().keys() {
            let book = keys.book(me, &world.entries);
            if let Sending::Use { epoch, missing } = book.sending_epoch(&roster, &graph, *me) {
                for holder in &keys.holders[&epoch] {
                    prop_assert!(
                        roster.devices().contains_key(holder),
                        "{:?} holds {:?}, written under {:?}",
                        holder,
                        epoch,
                        world.entries.iter().map(|entry| keys.written[&entry.id].0).collect::<Vec<_>>()
                    );
                }
                // What an entry without effect seals does not count, and is sealed again.
                let counting = keys.sealed_by.iter().filter(|(entry, _)| roster.effects.contains_key(*entry));
                let mut sealed_to = counting.filter(|(_, (of, _))| *of == epoch).flat_map(|(_, (_, to))| to);
                prop_assert!(!sealed_to.any(|device| missing.contains(device)));
            }
        }
    }
}
