//! The plug is pulled on the process that carries the calls: none may drop, and sound goes on.
//!
//! Four instances, three engine servers and the phones are processes of their own, in network namespaces. Needs root
//! and iproute2; where namespaces are not allowed it says so and fails. Times are not judged here, only printed:
//! `cargo xtask lab exchange-cut` measures.
#![allow(clippy::unwrap_used)]

mod plug;

use plug::{Cut, Outcome, Plan};

/// Not a test of its own: the processes of the laboratory are this program, told by the environment what to be.
#[test]
fn a_part_of_the_laboratory() {
    plug::run_part_if_one();
}

#[test]
fn calls_stay_up_when_the_process_that_carries_them_is_killed() {
    calls_stay_up(Cut::Process);
}

#[test]
fn calls_stay_up_when_the_cable_of_the_machine_that_carries_them_is_pulled() {
    calls_stay_up(Cut::Machine);
}

/// One that is stopped, and goes on when another has long spoken in its place, must be silent.
#[test]
fn an_owner_that_was_paused_never_speaks_again_in_the_place_of_another() {
    let outcome = calls_stay_up(Cut::Pause);
    assert_eq!(
        outcome.turns.len(),
        2,
        "one machine after another, and none twice: {outcome:?}"
    );
}

/// An operator stops it, as for an upgrade.
#[test]
fn calls_stay_up_when_the_instance_that_carries_them_is_stopped() {
    calls_stay_up(Cut::Stop);
}

#[test]
fn a_new_instance_carries_calls_with_nothing_configured() {
    let outcome = calls_stay_up(Cut::Newcomer);
    assert!(outcome.newcomer_ms.1 < 60_000, "{outcome:?}");
}

/// Nothing from outside gets through but answers: only the flow that each phone keeps to the other data centres does.
#[test]
fn calls_of_phones_behind_a_translator_stay_up_when_their_data_centre_is_lost() {
    let plan = Plan {
        flows: true,
        translated: true,
        ..Plan::new(Cut::DataCentre)
    };
    calls_of_stay_up(&plan);
}

/// Heartbeats need no engine. One instance that is starved here for a moment may be asked for; all would be, without.
#[test]
fn heartbeats_go_on_while_the_engine_is_gone() {
    let plan = Plan {
        seconds: 8,
        ringing: 0,
        ..Plan::new(Cut::Engine)
    };
    let outcome = calls_of_stay_up(&plan);
    let asking = outcome
        .remarks
        .iter()
        .filter(|(_, remark)| remark.contains("asking the witnesses"));
    assert!(asking.count() < 4, "{outcome:?}");
}

/// In the middle of an upgrade: it is named on both sides, stands by for nobody, and nobody is worse off for it.
#[test]
fn calls_stay_up_beside_an_instance_of_another_version() {
    let plan = Plan {
        stranger: Some(9),
        ..Plan::new(Cut::DataCentre)
    };
    let outcome = calls_of_stay_up(&plan);
    assert_eq!(outcome.strangers, [1, 4], "{outcome:?}");
    let said = outcome.stranger_said.join("\n");
    let words = "speaks version 2 between instances, and this one 9: neither stands by for the other's calls";
    assert!(said.contains(words), "{said}");
    // Two are a majority; the third may be heard of a moment later.
    assert!(said.contains("of 3 witnesses speak another version"), "{said}");
}

/// The control: the same cut must be able to end calls.
#[test]
fn calls_drop_without_replication() {
    let plan = Plan {
        replicate: false,
        ringing: 0,
        ..Plan::new(Cut::Process)
    };
    let outcome = play(&plan);
    assert_eq!(outcome.up_before, plan.calls, "{outcome:?}");
    assert_eq!(outcome.up_after, 0, "{outcome:?}");
}

fn calls_stay_up(cut: Cut) -> Outcome {
    calls_of_stay_up(&Plan::new(cut))
}

fn calls_of_stay_up(plan: &Plan) -> Outcome {
    let outcome = play(plan);
    assert_eq!(outcome.up_before, plan.calls, "{outcome:?}");
    assert_eq!(outcome.up_after, plan.calls, "{outcome:?}");
    assert_eq!(outcome.held, plan.calls, "{outcome:?}");
    assert_eq!(outcome.hung, plan.calls, "{outcome:?}");
    assert_eq!(outcome.records, plan.calls + outcome.rung, "{outcome:?}");
    assert_eq!(outcome.records_doubled, 0, "{outcome:?}");
    assert!(outcome.transferred, "{outcome:?}");
    assert_eq!(outcome.rung, plan.ringing, "{outcome:?}");
    assert!(outcome.gap_max_ms < 5_000, "sound goes on: {outcome:?}");
    assert_eq!(outcome.wrong_samples, 0, "{outcome:?}");
    outcome
}

fn play(plan: &Plan) -> Outcome {
    assert!(
        plug::net::possible(),
        "network namespaces cannot be made here: run as root with iproute2 installed"
    );
    plug::play(plan)
}
