//! The hotel and its control, and small crowds.

use super::*;

#[test]
fn the_hotel_guest_stays_below_the_cap_and_has_everything() {
    let plan = CrowdPlan::hotel(1);
    let others: usize = plan.rooms.iter().map(|members| members.len() - 1).sum();
    assert_eq!((plan.rooms.len(), others), (76, 625));
    let report = run_crowd(&plan, 1);
    assert!(
        report.peaks[0] <= 60,
        "{} flows at the guest's gateway",
        report.peaks[0]
    );
    assert!(
        report.caught_up_ms.is_some_and(|ms| ms <= 10_000),
        "{:?}",
        report.caught_up_ms
    );
    let rest: Vec<usize> = report
        .series
        .iter()
        .filter(|(at, ..)| *at >= 60 + 300 + 300)
        .map(|(.., flows)| *flows)
        .collect();
    let most = rest.iter().max().copied().unwrap_or(usize::MAX);
    assert!(most <= 20, "{most} flows five minutes after the last word");
}

#[test]
fn a_client_that_knows_of_no_flows_is_the_control() {
    let mut plan = CrowdPlan::hotel(1);
    plan.naive.insert(0);
    plan.run_s = 90;
    let report = run_crowd(&plan, 1);
    assert!(
        report.peaks[0] > 200,
        "the check must be able to fail: {}",
        report.peaks[0]
    );
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let mut plan = CrowdPlan::drawn(200, 3);
    plan.run_s = 180;
    let (a, b) = (run_crowd(&plan, 5), run_crowd(&plan, 5));
    assert_eq!((a.peaks, a.delays_ms, a.plans), (b.peaks, b.delays_ms, b.plans));
}

#[test]
fn a_crowd_with_churn_stays_below_the_cap_and_delivers() {
    let mut plan = CrowdPlan::drawn(300, 2);
    plan.session_s = 1_800;
    plan.run_s = 900;
    let report = run_crowd(&plan, 2);
    assert!(
        report.peaks.iter().all(|peak| *peak <= 60),
        "{:?}",
        report.peaks.iter().max()
    );
    assert_eq!(report.ledger_below, 0, "a ledger counted fewer flows than the gateway");
    assert!(!report.delays_ms.is_empty());
}

#[test]
fn who_has_moved_is_found_unless_nearly_everybody_lies() {
    let mut plan = CrowdPlan::drawn(300, 4);
    plan.run_s = 300;
    plan.liars = vec![0.0, 0.5, 1.0];
    let report = run_crowd(&plan, 4);
    let [honest, half, all] = report.look_ups[..] else {
        panic!("{:?}", report.look_ups);
    };
    assert!(honest.tried >= 10, "{honest:?}");
    assert!(honest.found * 10 >= honest.tried * 9, "{honest:?}");
    assert!(half.found * 2 >= half.tried, "{half:?}");
    assert_eq!(all.found, 0, "the control: {all:?}");
    // Whatever liars send: what is passed on stays below what there can be behind the lines asked.
    assert!(all.messages <= all.tried * 12 * (1 + 20 + 13), "{all:?}");
}
