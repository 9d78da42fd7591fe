//! Every committed fuzz input, and random changes to it, go through the decoder that it is for.
//!
//! `fuzz/seeds/TARGET/` holds samples of every kind of value, written by this test (`OFFHOOK_BLESS=1 cargo test -p
//! offhook-proto --test fuzz_seeds`), and inputs that a fuzzer once found, kept under any other name.

mod samples;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use offhook_proto::fuzzing::{TARGETS, Target};
use proptest::prelude::*;

/// Targets whose decoder is in another crate, which replays their seeds itself.
const OF_OTHERS: &[&str] = &["irc_line"];

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn names_in(folder: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(fuzz_folder().join(folder)).expect("the folder is part of the tree");
    entries
        .map(|entry| entry.expect("readable").path())
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        // Those of the exchange are looked after by its own crate.
        .filter(|name| !name.starts_with("exchange_"))
        .collect()
}

fn seeds(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = fuzz_folder().join("seeds").join(target.name);
    let entries = std::fs::read_dir(folder).expect("every target has seeds");
    let mut seeds: Vec<(PathBuf, Vec<u8>)> = entries
        .map(|entry| entry.expect("readable").path())
        .map(|path| (path.clone(), std::fs::read(path).expect("readable")))
        .collect();
    seeds.sort();
    seeds
}

/// Any instant will do: only what passes after it counts.
fn base() -> Instant {
    #[allow(clippy::disallowed_methods, reason = "an instant can be had in no other way")]
    Instant::now()
}

fn survives(target: &Target, bytes: &[u8]) -> bool {
    std::panic::catch_unwind(|| (target.run)(bytes, base())).is_ok()
}

#[test]
fn every_target_has_seeds_a_dictionary_and_a_fuzzer_and_nothing_else_has() {
    let of_proto = TARGETS.iter().map(|target| target.name.to_owned());
    let targets: BTreeSet<String> = of_proto
        .chain(OF_OTHERS.iter().map(|name| (*name).to_owned()))
        .collect();
    assert_eq!(names_in("seeds"), targets);
    let mut with_planted = targets;
    with_planted.insert("planted".to_owned());
    assert_eq!(names_in("dictionaries"), with_planted);
    assert_eq!(names_in("fuzz_targets"), with_planted);
}

#[test]
fn every_sample_is_accepted_and_committed() {
    for (target, samples) in samples::all() {
        let target = TARGETS
            .iter()
            .find(|known| known.name == target)
            .expect("a known target");
        for (name, bytes) in samples {
            assert!(
                (target.run)(&bytes, base()),
                "{} does not accept its sample {name}",
                target.name
            );
            let path = fuzz_folder().join("seeds").join(target.name).join(name);
            if std::env::var_os("OFFHOOK_BLESS").is_some() {
                std::fs::create_dir_all(path.parent().expect("has a folder")).expect("writable");
                std::fs::write(&path, &bytes).expect("writable");
            }
            let committed = std::fs::read(&path).unwrap_or_default();
            assert!(
                committed == bytes,
                "{} is stale: run with OFFHOOK_BLESS=1",
                path.display()
            );
        }
    }
}

#[test]
fn every_seed_is_replayed() {
    let mut replayed = 0;
    for target in TARGETS {
        for (path, bytes) in seeds(target) {
            assert!(survives(target, &bytes), "{}", path.display());
            replayed += 1;
        }
    }
    assert!(replayed >= TARGETS.len());
    println!("{replayed} inputs replayed through {} decoders", TARGETS.len());
}

/// One change to an input.
#[derive(Debug, Clone)]
enum Change {
    Set(usize, u8),
    Cut(usize),
    Drop(usize),
    Repeat(usize, usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let len = bytes.len();
        match *self {
            Change::Set(at, value) => bytes[at % len] = value,
            Change::Cut(at) => bytes.truncate(at % len),
            Change::Drop(at) => drop(bytes.remove(at % len)),
            Change::Repeat(at, many) => {
                let piece = bytes[at % len..].to_vec();
                for _ in 0..many {
                    bytes.extend_from_slice(&piece);
                }
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<usize>(), any::<u8>()).prop_map(|(at, value)| Change::Set(at, value)),
        1 => any::<usize>().prop_map(Change::Cut),
        1 => any::<usize>().prop_map(Change::Drop),
        1 => (any::<usize>(), 1..4_usize).prop_map(|(at, many)| Change::Repeat(at, many)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn changed_seeds_panic_nowhere(
        target in 0..TARGETS.len(),
        seed in any::<prop::sample::Index>(),
        changes in prop::collection::vec(change(), 0..6),
    ) {
        let target = &TARGETS[target];
        let mut bytes = seed.get(&seeds(target)).1.clone();
        for change in &changes {
            change.apply(&mut bytes);
        }
        prop_assert!(survives(target, &bytes), "{}: {}", target.name, bytes.escape_ascii());
    }

    #[test]
    fn arbitrary_bytes_panic_nowhere(
        target in 0..TARGETS.len(),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let target = &TARGETS[target];
        prop_assert!(survives(target, &bytes), "{}: {}", target.name, bytes.escape_ascii());
    }
}
