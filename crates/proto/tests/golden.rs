//! The bytes of the protocol, one value of every kind from fixed keys, compared with the committed `tests/golden/vectors.txt`.
//!
//! Another implementation can check itself against that file; here it fails as soon as one byte changes. A change that is meant is blessed by
//! `OFFHOOK_BLESS=1 cargo test -p offhook-proto --test golden`, and `docs/protocol/` says what it means. One line a vector: name,
//! space, hexadecimal.

mod samples;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use offhook_proto::crypto::{self, KeyPair, SealKeyPair, Secret};
use offhook_proto::history::{Class, Clock, Entry, EntryRef, EpochId, Header, IntervalSet, LogKey, RoomId, entry};
use offhook_proto::identity::{DeviceId, DeviceKey, PersonId, RootKey, safety_number};
use offhook_proto::rooms::epochs::{seal_slots, slot_hint};
use offhook_proto::rooms::{Control, ControlPayload, EpochSecret, Invite, InviteUse, LogCertificate, Op, Role};
use offhook_proto::sync::Vector;
use offhook_proto::sync::vector::Held;
use offhook_proto::wire::Wire;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

type Vectors = BTreeMap<String, Vec<u8>>;

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/vectors.txt")
}

fn key(seed: u8) -> KeyPair {
    KeyPair::from_seed(&Secret([seed; 32]))
}

/// One value of every kind that crosses the network, as the fuzzers have them.
fn formats(vectors: &mut Vectors) {
    // A script of whole lines is an input to the fuzzer, and no format.
    for (kind, samples) in samples::all().into_iter().filter(|(kind, _)| *kind != "line") {
        for (name, bytes) in samples {
            vectors.insert(format!("{kind}/{name}"), bytes);
        }
    }
}

fn identities(vectors: &mut Vectors) {
    let root = RootKey::from_entropy(Secret([3; 32]));
    let device = DeviceKey(key(2));
    let prekey = SealKeyPair::from_seed(Secret([4; 32]));
    let mut put = |name: &str, bytes: Vec<u8>| vectors.insert(format!("identity/{name}"), bytes);
    put("phrase", root.phrase().into_bytes());
    put("person", root.person().to_bytes());
    put("device", device.device().to_bytes());
    put("record-device", root.certify(device.device(), 1).to_bytes());
    put("record-revoked", root.revoke(device.device(), 2).to_bytes());
    put("record-prekey", device.state_prekey(300, &prekey).to_bytes());
    put("record-profile", device.state_profile(2, "Zoë").to_bytes());
    let other = PersonId([7; 32]);
    put("safety-number", safety_number(&root.person(), &other).into_bytes());
    let certificate = LogCertificate::issue(&key(2), &key(1));
    put("log-certificate", certificate.to_bytes());
}

fn header(log: &KeyPair, class: Class, epoch: EpochId) -> Header {
    let other = EntryRef {
        log: LogKey(key(9).public()).prefix(),
        seq: 41,
        hash: [6; 8],
    };
    Header {
        class,
        seq: 7,
        prev: crypto::hash("a test's own hash", &[&log.public()]),
        clock: Clock(Clock::at_ms(1_700_000_000_000).0 + 2),
        epoch,
        parents: vec![other],
        payload_hash: [0; 32],
        payload_len: 0,
    }
}

fn signed(key: &KeyPair, mut header: Header, payload: Vec<u8>) -> Entry {
    header.payload_hash = entry::payload_hash(&payload);
    header.payload_len = u32::try_from(payload.len()).expect("samples are small");
    let signature = entry::sign(key, &header.hash(&LogKey(key.public())));
    Entry {
        header,
        signature,
        payload: Some(payload),
    }
}

fn entries(vectors: &mut Vectors) {
    let (author, secret) = (key(1), EpochSecret(Secret([15; 32])));
    let (log, keys) = (LogKey(author.public()), secret.keys());
    let mut put = |name: &str, bytes: Vec<u8>| vectors.insert(name.to_owned(), bytes);
    put("epoch/control-key", keys.control.to_bytes());
    put("epoch/content-key", secret.content().to_bytes());
    put("epoch/sync-key", keys.sync.to_bytes());
    put("epoch/commitment", keys.commitment().to_vec());
    put("epoch/id", keys.id().to_bytes());

    let message = header(&author, Class::Message, keys.id());
    let payload_key = message.payload_key(&log, &secret.content());
    put("entry/payload-key", payload_key.to_bytes());
    put("entry/bound", message.bound(&log));
    let sealed = crypto::seal_once(&payload_key, &message.bound(&log), b"said");
    let message = signed(&author, message, sealed);
    put("entry/sealed-message", message.to_bytes());
    put("entry/hash", message.header.hash(&log).to_vec());

    let control = header(&author, Class::Control, keys.id());
    let recipient = SealKeyPair::from_seed(Secret([21; 32]));
    let device = DeviceId(key(22).public());
    let recipients = [(device, recipient.public())].into();
    let slots = seal_slots(&secret, &recipients, &mut ChaCha20Rng::from_seed([23; 32]));
    put("epoch/slot-hint", slot_hint(&keys.id(), &device).to_vec());
    let ops = vec![Op::SetRole {
        person: PersonId([7; 32]),
        role: Role::Admin,
        cutoffs: Vec::new(),
    }];
    let plain = Control {
        heads: control.parents.clone(),
        ops,
    };
    let payload = ControlPayload::seal(&control, &log, &keys, slots, &plain).expect("it is small");
    assert_eq!(
        payload.open(&control, &log, &keys),
        Ok(plain),
        "what is committed opens"
    );
    assert_eq!(payload.open_slot(&device, &[recipient]), Some(secret));
    put("control/sealed-payload", payload.to_bytes());
    put(
        "control/sealed-entry",
        signed(&author, control, payload.to_bytes()).to_bytes(),
    );
}

fn invites(vectors: &mut Vectors) {
    let link = vectors["invite/link"].clone();
    let invite = Invite::from_link(std::str::from_utf8(&link).expect("a link is text")).expect("it is one");
    vectors.insert("invite/key".into(), invite.key().public().to_vec());
    let used = InviteUse::prove(&invite.key(), &RoomId([7; 32]), &PersonId([8; 32]));
    vectors.insert("invite/use".into(), used.to_bytes());
}

fn sets(vectors: &mut Vectors) {
    let mut set = IntervalSet::range(2, 5);
    set.insert(7, 7);
    set.insert(300, 70_000);
    vectors.insert("interval/set".into(), set.to_bytes());
    let held = Held { held: set, top: [3; 8] };
    let vector = Vector([(LogKey([1; 32]), held)].into());
    vectors.insert("vector/one-log".into(), vector.to_bytes());
    vectors.insert("vector/digest".into(), vector.digest().to_vec());
}

fn vectors() -> Vectors {
    let mut vectors = Vectors::new();
    formats(&mut vectors);
    identities(&mut vectors);
    entries(&mut vectors);
    invites(&mut vectors);
    sets(&mut vectors);
    vectors
}

fn to_text(vectors: &Vectors) -> String {
    let mut text = String::new();
    for (name, bytes) in vectors {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{name} {hex}").expect("writing to a string cannot fail");
    }
    text
}

fn differing(committed: &str, now: &str) -> Vec<String> {
    let lines = |text: &str| -> BTreeMap<String, String> {
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        pairs.map(|(name, hex)| (name.to_owned(), hex.to_owned())).collect()
    };
    let (committed, now) = (lines(committed), lines(now));
    let names: std::collections::BTreeSet<&String> = committed.keys().chain(now.keys()).collect();
    let differ = |name: &&&String| committed.get(**name) != now.get(**name);
    names.iter().filter(differ).map(|name| (*name).clone()).collect()
}

#[test]
fn not_a_byte_has_changed() {
    let now = to_text(&vectors());
    if std::env::var_os("OFFHOOK_BLESS").is_some() {
        std::fs::create_dir_all(path().parent().expect("has a folder")).expect("writable");
        std::fs::write(path(), &now).expect("writable");
    }
    let committed = std::fs::read_to_string(path()).expect("the vectors are part of the tree");
    let differ = differing(&committed, &now);
    assert!(
        differ.is_empty(),
        "the bytes of {differ:?} changed; if that is meant, say so in docs/protocol and bless"
    );
}

#[test]
fn one_byte_would_be_noticed() {
    let vectors = vectors();
    let committed = to_text(&vectors);
    for name in vectors.keys() {
        let mut changed = vectors.clone();
        let bytes = changed.get_mut(name).expect("it is one of them");
        bytes[0] ^= 1;
        assert_eq!(differing(&committed, &to_text(&changed)), std::slice::from_ref(name));
        changed.remove(name);
        assert_eq!(differing(&committed, &to_text(&changed)), std::slice::from_ref(name));
    }
}

#[test]
fn every_kind_of_frame_is_there() {
    let tags: std::collections::BTreeSet<u8> = vectors()
        .iter()
        .filter(|(name, _)| name.starts_with("frame/"))
        .map(|(_, bytes)| bytes[0])
        .collect();
    let all: std::collections::BTreeSet<u8> = (0..25).chain(32..34).chain(64..66).collect();
    assert_eq!(tags, all);
}
