//! The plug is pulled on the process that carries the calls: none may drop, and sound goes on.
//!
//! Four instances, three engine servers and the phones are processes of their own, in network namespaces. Needs root
//! and iproute2; where namespaces are not allowed it says so and fails. Times are not judged here, only printed:
//! `cargo xtask lab exchange-cut` measures.
#![allow(clippy::unwrap_used)]

mod plug;

use std::sync::{Mutex, PoisonError};

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

/// The control: the same cut must be able to end calls.
#[test]
fn calls_drop_without_replication() {
    let plan = Plan {
        replicate: false,
        ringing: 0,
        ..plan(Cut::Process)
    };
    let outcome = play(&plan);
    assert_eq!(outcome.up_before, plan.calls, "{outcome:?}");
    assert_eq!(outcome.up_after, 0, "{outcome:?}");
}

fn plan(cut: Cut) -> Plan {
    Plan {
        cut,
        calls: 12,
        audio: 4,
        ringing: 2,
        replicate: true,
    }
}

fn calls_stay_up(cut: Cut) {
    let plan = plan(cut);
    let outcome = play(&plan);
    assert_eq!(outcome.up_before, plan.calls, "{outcome:?}");
    assert_eq!(outcome.up_after, plan.calls, "{outcome:?}");
    assert_eq!(outcome.held, plan.calls, "{outcome:?}");
    assert_eq!(outcome.hung, plan.calls, "{outcome:?}");
    assert_eq!(outcome.records, plan.calls + outcome.rung, "{outcome:?}");
    assert_eq!(outcome.records_doubled, 0, "{outcome:?}");
    assert!(outcome.transferred, "{outcome:?}");
    assert!(outcome.gap_max_ms < 5_000, "sound goes on: {outcome:?}");
}

/// One laboratory at a time: two would only take the processors from each other.
fn play(plan: &Plan) -> Outcome {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(
        plug::net::possible(),
        "network namespaces cannot be made here: run as root with iproute2 installed"
    );
    plug::play(plan)
}
