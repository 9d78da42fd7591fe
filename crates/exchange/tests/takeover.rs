//! The plug is pulled on the process that carries the calls: none may drop, and sound goes on.
//!
//! Four instances, three engine servers and the phones are processes of their own, in network namespaces. Needs root
//! and iproute2; where namespaces are not allowed it says so and fails. Times are not judged here, only printed:
//! `cargo run -p offhook-exchange --example exchange_cut` measures.
#![allow(clippy::unwrap_used)]

mod plug;

use plug::{Cut, Plan};

/// Not a test of its own: the processes of the laboratory are this program, told by the environment what to be.
#[test]
fn a_part_of_the_laboratory() {
    plug::run_part_if_one();
}

#[test]
#[ignore = "the instances do not find their standbys in the laboratory yet"]
fn calls_stay_up_when_the_process_that_carries_them_is_killed() {
    assert!(
        plug::net::possible(),
        "network namespaces cannot be made here: run as root with iproute2 installed"
    );
    let plan = Plan {
        cut: Cut::Process,
        calls: 12,
        audio: 4,
        ringing: 2,
        replicate: true,
    };
    let outcome = plug::play(&plan);
    assert_eq!(outcome.up_before, plan.calls, "{outcome:?}");
    assert_eq!(outcome.up_after, plan.calls, "{outcome:?}");
    assert_eq!(outcome.held, plan.calls, "{outcome:?}");
    assert_eq!(outcome.hung, plan.calls, "{outcome:?}");
    assert_eq!(outcome.records, plan.calls + outcome.rung, "{outcome:?}");
    assert_eq!(outcome.records_doubled, 0, "{outcome:?}");
    assert!(outcome.transferred, "{outcome:?}");
    assert!(outcome.gap_max_ms < 5_000, "sound goes on: {outcome:?}");
}
