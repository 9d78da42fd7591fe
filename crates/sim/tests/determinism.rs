//! The same seed gives the same run, bit by bit; another seed gives another.

use offhook_sim::{Options, Scenario, run};

fn hash(name: &str, seed: u64) -> String {
    let report = run(
        &Scenario::named(name).expect("the scenario exists"),
        seed,
        Options::default(),
    );
    assert!(report.passed(), "{report}");
    report.trace_hash
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    assert_eq!(hash("story", 7), hash("story", 7));
    assert_ne!(hash("story", 7), hash("story", 8));
}

#[test]
fn faults_are_seeded_too() {
    assert_eq!(hash("crash-loop", 7), hash("crash-loop", 7));
}
