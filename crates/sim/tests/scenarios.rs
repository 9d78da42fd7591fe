//! One seed of every scenario.

use offhook_sim::{Options, Scenario, run};

fn passes(name: &str) {
    let report = run(
        &Scenario::named(name).expect("the scenario exists"),
        1,
        Options::default(),
    );
    assert!(report.passed(), "{report}");
    assert!(
        report.messages > 0,
        "nothing was said, so nothing was proved:\n{report}"
    );
}

macro_rules! scenarios {
    ($($test:ident $name:literal)*) => {
        $(#[test] fn $test() { passes($name); })*

        #[test]
        fn every_scenario_has_a_test() {
            let mut tested = vec![$($name),*];
            tested.sort_unstable();
            let mut names = offhook_sim::names();
            names.sort_unstable();
            assert_eq!(tested, names);
        }
    };
}

scenarios! {
    story "story"
    rooms_small "rooms-small"
    stragglers "stragglers"
    partition_removal "partition-removal"
    over_redemption "over-redemption"
    crash_loop "crash-loop"
    disk_errors "disk-errors"
    clock_years "clock-years"
    churn "churn"
    restored_home "restored-home"
    copied_home "copied-home"
    rejoin_after_days "rejoin-after-days"
    newcomers "newcomers"
    membership_storm "membership-storm"
    hostile_equivocate "hostile-equivocate"
    hostile_withhold "hostile-withhold"
    hostile_replay "hostile-replay"
    hostile_forge "hostile-forge"
    hostile_flood "hostile-flood"
    hostile_backdate "hostile-backdate"
    hostile_insider "hostile-insider"
    hostile_reader "hostile-reader"
    hundreds "hundreds"
}
