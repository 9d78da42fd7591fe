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

/// The graph of a room in which the founder let in `others` as members, and the entry that did.
fn room_of(founder: &Actor, others: &[&Actor]) -> (World, EntryRef) {
    let (mut world, created) = World::new(founder);
    let ops = others.iter().map(|actor| actor.admission(Role::Member)).collect();
    let admitted = world.write(founder, &[created], ops);
    (world, admitted)
}

fn sending(world: &World, book: &EpochBook, me: &Actor) -> Sending {
    let graph = world.graph();
    book.sending_epoch(&graph.resolve(), &graph, me.device.device())
}

fn uses(secret: &EpochSecret, missing: &[&Actor]) -> Sending {
    Sending::Use {
        epoch: secret.id(),
        missing: missing.iter().map(|actor| actor.device.device()).collect(),
    }
}

#[test]
fn the_epoch_with_most_recipients_wins_then_the_causally_latest() {
    let [ada, bob, eve] = [1, 2, 3].map(Actor::new);
    let [small, first, later] = secrets();
    let (mut world, admitted) = room_of(&ada, &[&bob, &eve]);
    let one = world.write(&ada, &[admitted], vec![Op::Seal {}]);
    let two = world.write(&bob, &[one], vec![Op::Seal {}]);
    let three = world.write(&ada, &[two], vec![Op::Seal {}]);
    let all: &[&Actor] = &[&ada, &bob, &eve];
    let book = book(&[(&first, one, all), (&later, two, all), (&small, three, &[&ada, &bob])]);
    assert_eq!(sending(&world, &book, &ada), uses(&later, &[]));
}

#[test]
fn an_epoch_that_only_a_newcomer_lacks_is_sealed_to_them() {
    let [ada, bob, eve] = [1, 2, 3].map(Actor::new);
    let [secret] = secrets();
    let (mut world, admitted) = room_of(&ada, &[&bob]);
    let mut book = book(&[(&secret, admitted, &[&ada, &bob])]);
    let newcomer = world.write(&ada, &[admitted], vec![eve.admission(Role::Member)]);
    assert_eq!(sending(&world, &book, &bob), uses(&secret, &[&eve]));
    book.note_control(
        newcomer,
        &header(secret.id(), Clock::at_ms(2)),
        &payload(&secret, &[&eve]),
    );
    assert_eq!(sending(&world, &book, &bob), uses(&secret, &[]));
}

#[test]
fn two_concurrent_removals_need_a_third_epoch() {
    let [ada, bob, eve, dan] = [1, 2, 3, 4].map(Actor::new);
    let [by_ada, by_bob] = secrets();
    let (mut world, admitted) = room_of(&ada, &[&eve, &dan]);
    let owner = world.write(&ada, &[admitted], vec![bob.admission(Role::Owner)]);
    let first = world.write(&ada, &[owner], vec![eve.removal()]);
    let second = world.write(&bob, &[owner], vec![dan.removal()]);
    let book = book(&[
        (&by_ada, first, &[&ada, &bob, &dan]),
        (&by_bob, second, &[&ada, &bob, &eve]),
    ]);
    assert_eq!(sending(&world, &book, &ada), Sending::NewEpoch);
}

#[test]
fn an_old_epoch_is_not_lifted_over_a_removal_by_another_entry_under_it() {
    let [ada, bob, eve] = [1, 2, 3].map(Actor::new);
    let [old] = secrets();
    let (mut world, admitted) = room_of(&ada, &[&bob, &eve]);
    let removed = world.write(&ada, &[admitted], vec![eve.removal()]);
    let forged = world.write(&bob, &[removed], vec![Op::Seal {}]);
    let mut before = book(&[(&old, forged, &[&ada, &bob])]);
    assert_eq!(sending(&world, &before, &ada), uses(&old, &[]));
    before.note_control(
        admitted,
        &header(old.id(), Clock::at_ms(1)),
        &payload(&old, &[&ada, &bob]),
    );
    assert_eq!(sending(&world, &before, &ada), Sending::NewEpoch);
}

#[test]
fn an_epoch_sealed_to_who_did_not_get_in_is_not_used() {
    let [ada, bob, eve] = [1, 2, 3].map(Actor::new);
    let [secret] = secrets();
    let (mut world, admitted) = room_of(&ada, &[&bob]);
    let mut book = book(&[(&secret, admitted, &[&ada, &bob])]);
    // A member may not let anybody in without an invite, but may write under the epoch.
    let ops = vec![eve.admission(Role::Member), Op::Seal {}];
    let sealed = world.write(&bob, &[admitted], ops);
    book.note_control(
        sealed,
        &header(secret.id(), Clock::at_ms(1)),
        &payload(&secret, &[&eve]),
    );
    assert_eq!(sending(&world, &book, &ada), Sending::NewEpoch);
}

#[test]
fn what_strangers_and_leavers_make_is_not_used() {
    let [ada, bob, eve] = [1, 2, 3].map(Actor::new);
    let [strange, left] = secrets();
    let (mut world, admitted) = room_of(&ada, &[&bob]);
    let by_eve = world.write(&eve, &[admitted], vec![Op::Seal {}]);
    let leave = world.write(&bob, &[admitted], vec![Op::Leave { cutoffs: vec![] }]);
    let book = book(&[(&strange, by_eve, &[&ada]), (&left, leave, &[&ada])]);
    assert_eq!(sending(&world, &book, &ada), Sending::NewEpoch);
}

#[test]
fn an_epoch_with_two_commitments_is_not_used() {
    let [ada, bob] = [1, 2].map(Actor::new);
    let [secret] = secrets();
    let (mut world, admitted) = room_of(&ada, &[&bob]);
    let mut book = book(&[(&secret, admitted, &[&ada, &bob])]);
    let twin = world.write(&bob, &[admitted], vec![Op::Seal {}]);
    let mut other = payload(&secret, &[&ada]);
    other.commitment[31] ^= 1;
    assert!(other.speaks_of(&secret.id()));
    assert_eq!(
        other.open_slot(&ada.device.device(), std::slice::from_ref(&ada.prekey)),
        None
    );
    book.note_control(twin, &header(secret.id(), Clock::at_ms(1)), &other);
    assert_eq!(sending(&world, &book, &ada), Sending::NewEpoch);
}

#[test]
fn an_epoch_is_due_after_a_week_or_a_thousand_entries() {
    let ada = Actor::new(1);
    let [by_age, by_use] = secrets();
    let (_, created) = World::new(&ada);
    let mut book = book(&[(&by_age, created, &[&ada]), (&by_use, created, &[&ada])]);
    let week = Clock::at_ms(1 + ROTATION_DAYS * DAY_MS);
    assert!(!book.due_for_rotation(&by_age.id(), Clock::at_ms(ROTATION_DAYS * DAY_MS)));
    assert!(book.due_for_rotation(&by_age.id(), week));
    for _ in 2..ROTATION_ENTRIES {
        book.note_use(&by_use.id(), Clock::at_ms(1));
    }
    assert!(!book.due_for_rotation(&by_use.id(), Clock::at_ms(1)));
    book.note_use(&by_use.id(), Clock::at_ms(1));
    assert!(book.due_for_rotation(&by_use.id(), Clock::at_ms(1)));
}

#[test]
fn newcomers_get_what_the_policy_says() {
    let ada = Actor::new(1);
    let [old, recent, current] = secrets();
    let (_, created) = World::new(&ada);
    let mut book = book(&[
        (&old, created, &[&ada]),
        (&recent, created, &[&ada]),
        (&current, created, &[&ada]),
    ]);
    let now = Clock::at_ms(30 * DAY_MS);
    book.note_use(&recent.id(), Clock::at_ms(25 * DAY_MS));
    let readable = |policy| {
        let share = book.history_share(policy, &current.id(), now);
        assert_eq!(share.len(), 3, "control keys are always given");
        let readable = share.iter().filter(|keys| keys.content_key().is_some());
        readable.map(EpochKeys::id).collect::<BTreeSet<_>>()
    };
    let ids = |of: &[&EpochSecret]| of.iter().map(|secret| secret.id()).collect::<BTreeSet<_>>();
    assert_eq!(readable(HistoryPolicy::All {}), ids(&[&old, &recent, &current]));
    assert_eq!(readable(HistoryPolicy::Days { days: 7 }), ids(&[&recent, &current]));
    assert_eq!(readable(HistoryPolicy::None {}), ids(&[&current]));
}
