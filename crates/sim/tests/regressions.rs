//! Seeds that once failed, kept for good: each with what was wrong.

use offhook_sim::{Options, Scenario, run};

/// Scenario, seed, and what it once found.
const KEPT: &[(&str, u64, &str)] = &[];

#[test]
fn kept_seeds_pass() {
    for (name, seed, was) in KEPT {
        let report = run(&Scenario::named(name).unwrap(), *seed, Options::default());
        assert!(report.passed(), "once: {was}\n{report}");
    }
}
