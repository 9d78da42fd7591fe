//! One behaviour a test.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::*;
use crate::crypto::KeyPair;
use crate::history::Class;
use crate::rooms::roster::tests::{Actor, World};
use crate::rooms::{Op, Role};

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(7)
}

fn header(epoch: EpochId, clock: Clock) -> Header {
    Header {
        class: Class::Control,
        seq: 3,
        prev: [0; 32],
        clock,
        epoch,
        parents: vec![],
        payload_hash: [0; 32],
        payload_len: 0,
    }
}

fn control() -> Control {
    Control {
        heads: vec![],
        ops: vec![Op::Seal {}],
    }
}

fn log() -> LogKey {
    LogKey(KeyPair::from_seed(&Secret([9; 32])).public())
}

/// The payload of a control entry under `secret` that seals it to `to`.
fn payload(secret: &EpochSecret, to: &[&Actor]) -> ControlPayload {
    let recipients = to
        .iter()
        .map(|actor| (actor.device.device(), actor.prekey.public()))
        .collect();
    let slots = seal_slots(secret, &recipients, &mut rng());
    let header = header(secret.id(), Clock::default());
    ControlPayload::seal(&header, &log(), &secret.keys(), slots, &control()).unwrap()
}

#[test]
fn a_slot_opens_for_its_device_only() {
    let [ada, bob] = [1, 2].map(Actor::new);
    let secret = EpochSecret::random(&mut rng());
    let payload = payload(&secret, &[&ada]);
    let prekeys = [bob.prekey.clone(), ada.prekey.clone()];
    assert_eq!(payload.open_slot(&ada.device.device(), &prekeys), Some(secret));
    assert_eq!(payload.open_slot(&ada.device.device(), &prekeys[..1]), None);
    assert_eq!(payload.open_slot(&bob.device.device(), &prekeys), None);
}

#[test]
fn a_body_opens_with_its_epoch_and_header_only() {
    let secret = EpochSecret::random(&mut rng());
    let header = header(secret.id(), Clock::at_ms(5));
    let payload = ControlPayload::seal(&header, &log(), &secret.keys(), vec![], &control()).unwrap();
    assert_eq!(payload.open(&header, &log(), &secret.keys()), Ok(control()));
    let without = secret.keys().without_content();
    assert_eq!(payload.open(&header, &log(), &without), Ok(control()));
    let mut other = header.clone();
    other.seq += 1;
    let refused = Err(PayloadError::NotAuthentic);
    assert_eq!(payload.open(&other, &log(), &secret.keys()), refused);
    let other = EpochSecret(Secret([1; 32])).keys();
    assert_eq!(payload.open(&header, &log(), &other), refused);
    let mut stripped = payload.clone();
    stripped.slots.push(Slot {
        hint: [0; 4],
        sealed: [0; HPKE_SECRET_BYTES],
    });
    assert_eq!(stripped.open(&header, &log(), &secret.keys()), refused);
}

#[test]
fn keys_without_content_belong_to_the_same_epoch() {
    let secret = EpochSecret::random(&mut rng());
    let (full, part) = (secret.keys(), secret.keys().without_content());
    assert_eq!(full.id(), part.id());
    assert_eq!(part.content_key(), None);
    let mut book = EpochBook::new();
    assert_eq!(book.learn(part.clone()), Some(secret.id()));
    assert_eq!(book.learn(part), None);
    assert_eq!(book.learn(full.clone()), Some(secret.id()));
    assert_eq!(book.learn(full.without_content()), None);
    assert_eq!(book.keys(&secret.id()), Some(&full));
}

/// A book in which everything is known, with one maker for each epoch.
fn book(epochs: &[(&EpochSecret, EntryRef, &[&Actor])]) -> EpochBook {
    let mut book = EpochBook::new();
    for (secret, entry, to) in epochs {
        book.learn(secret.keys());
        book.note_control(*entry, &header(secret.id(), Clock::at_ms(1)), &payload(secret, to));
    }
    book
}

fn secrets<const N: usize>() -> [EpochSecret; N] {
    let mut rng = rng();
    std::array::from_fn(|_| EpochSecret::random(&mut rng))
}

#[test]
fn nobody_speaks_with_what_a_removed_member_has() {
    let [ada, bob, eve] = [1, 2, 3].map(Actor::new);
    let [old, new] = secrets();
    let (mut world, created) = World::new(&ada);
    let ops = vec![bob.admission(Role::Member), eve.admission(Role::Member)];
    let admitted = world.write(&ada, &[created], ops);
    let before = book(&[(&old, admitted, &[&ada, &bob, &eve])]);
    let uses_old = Sending::Use {
        epoch: old.id(),
        missing: BTreeSet::new(),
    };
    let sending = |world: &World, book: &EpochBook| {
        let graph = world.graph();
        book.sending_epoch(&graph.resolve(), &graph, bob.device.device())
    };
    assert_eq!(sending(&world, &before), uses_old);
    let removed = world.write(&ada, &[admitted], vec![eve.removal()]);
    assert_eq!(sending(&world, &before), Sending::NewEpoch);
    let after = book(&[(&old, admitted, &[&ada, &bob, &eve]), (&new, removed, &[&ada])]);
    let uses_new = Sending::Use {
        epoch: new.id(),
        missing: BTreeSet::from([bob.device.device()]),
    };
    let from_ada = || {
        let graph = world.graph();
        after.sending_epoch(&graph.resolve(), &graph, ada.device.device())
    };
    assert_eq!(from_ada(), uses_new);
}

#[test]
fn a_rekey_for_400_devices_fits_in_36_kib() {
    let secret = EpochSecret::random(&mut rng());
    let recipients: BTreeMap<_, _> = (0..400u32)
        .map(|number| {
            let seed = crypto::hash("test device", &[&number.to_be_bytes()]);
            (DeviceId(seed), SealKeyPair::from_seed(Secret(seed)).public())
        })
        .collect();
    let slots = seal_slots(&secret, &recipients, &mut rng());
    let header = header(secret.id(), Clock::default());
    let payload = ControlPayload::seal(&header, &log(), &secret.keys(), slots, &control()).unwrap();
    assert_eq!(payload.slots.len(), 400);
    assert!(payload.to_bytes().len() <= 36_000, "{}", payload.to_bytes().len());
}
