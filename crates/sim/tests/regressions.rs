//! Seeds that once failed, kept for good: each with what was wrong.

use offhook_sim::{Options, Scenario, run};

/// Scenario, seed, and what it once found.
const KEPT: &[(&str, u64, &str)] = &[
    (
        "partition-removal",
        2,
        "two halves that both rekeyed never recognised the room again",
    ),
    (
        "partition-removal",
        62_276_145_768,
        "who had not heard of a removal handed keys that were made after it to the removed",
    ),
    (
        "rooms-small",
        3,
        "a deleted message and its deletion in one run waited for each other",
    ),
    (
        "hostile-withhold",
        2_748_440_304,
        "whoever took a question and never answered kept others from being asked",
    ),
    (
        "membership-storm",
        45,
        "somebody let in by a member who was being removed went on counting itself a member: nobody could tell it",
    ),
    (
        "hostile-equivocate",
        62_276_145_770,
        "a reaction from above a fork stayed with those who had seen it before the proof",
    ),
    (
        "restored-home",
        92_187_304_824,
        "a restored home that spoke before it reached anybody forked its log, and what was above the fork was gone",
    ),
    (
        "hostile-flood",
        630_458_503_109,
        "entries of one room that a member repeated in another brought keys along, and the one was taken for the other on every line",
    ),
    ("hostile-flood", 103, "the same, with other rooms"),
];

#[test]
fn kept_seeds_pass() {
    for (name, seed, was) in KEPT {
        let report = run(
            &Scenario::named(name).expect("the scenario exists"),
            *seed,
            Options::default(),
        );
        assert!(report.passed(), "once: {was}\n{report}");
    }
}
