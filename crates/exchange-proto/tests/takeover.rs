//! The detector under a model checker: messages lost, late and in any order, members paused at any point.
//!
//! Time is whole steps, a lease is one of them. Checked in every state: never may two members act. The controls: a
//! witness that does not wait the lease out, and an owner that goes on after it has handed over, must be found out.
//! Messages are not repeated, clocks do not drift. Hand-overs take no time, so there could be any number of them in one
//! step: their number is bounded, as time is.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use offhook_exchange_proto::detector::{Member, Message, NodeId, Role, Timing, Witness};
use offhook_exchange_proto::time::Moment;
use stateright::{Checker, Model, Property};

const TIMING: Timing = Timing {
    heartbeat_ms: 1,
    lease_ms: 1,
    drift_ms: 0,
};

/// Two members (0, 1) and witnesses from 10 on.
struct Lab {
    witnesses: u64,
    steps_max: u64,
    witnesses_wait: bool,
    /// Hand-overs in one history, at most.
    releases_max: u8,
    /// Whoever hands over stops acting.
    releases_end: bool,
}

impl Lab {
    fn new(witnesses: u64, steps_max: u64, releases_max: u8) -> Self {
        Self {
            witnesses,
            steps_max,
            witnesses_wait: true,
            releases_max,
            releases_end: true,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    now: u64,
    releases: u8,
    members: Vec<Member>,
    witnesses: Vec<Witness>,
    /// A set: in any order, late, or never delivered.
    network: BTreeSet<(NodeId, Message)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Step,
    /// A member looks at its clock; one that is not looked after is paused.
    Wake(usize),
    Deliver(NodeId, Message),
    /// An owner hands over to the other.
    Release(usize),
}

impl Model for Lab {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let ids = || 10..10 + self.witnesses;
        let member = |id, peer| Member::home(id, vec![peer], ids().collect(), 1, Moment(0));
        vec![State {
            now: 0,
            releases: 0,
            members: vec![member(0, 1), member(1, 0)],
            witnesses: ids().map(Witness::new).collect(),
            network: BTreeSet::new(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.now < self.steps_max {
            actions.push(Action::Step);
        }
        for (n, member) in state.members.iter().enumerate() {
            if member.poll_timeout(TIMING).is_some_and(|at| at <= Moment(state.now)) {
                actions.push(Action::Wake(n));
            }
        }
        for (n, member) in state.members.iter().enumerate() {
            if state.releases < self.releases_max && member.role() == Role::Owner {
                actions.push(Action::Release(n));
            }
        }
        actions.extend(state.network.iter().map(|(to, message)| Action::Deliver(*to, *message)));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let now = Moment(state.now);
        if let Action::Deliver(to, message) = &action {
            state.network.remove(&(*to, *message));
        }
        match action {
            Action::Step => state.now += 1,
            Action::Wake(n) => {
                let sent = state.members[n].handle_timeout(TIMING, now);
                state.network.extend(sent);
            }
            Action::Release(n) => {
                let mut leaving = state.members[n].clone();
                state.network.extend(leaving.release(1 - n as u64, now));
                state.releases += 1;
                if self.releases_end {
                    state.members[n] = leaving;
                }
            }
            Action::Deliver(to, message) if to < 10 => state.members[to as usize].handle(message, TIMING, now),
            Action::Deliver(to, message) => {
                let witness = &mut state.witnesses[to as usize - 10];
                let careless = Timing { lease_ms: 0, ..TIMING };
                let answer = witness.handle(message, if self.witnesses_wait { TIMING } else { careless }, now);
                if let (Some(answer), Message::Claim { member, .. }) = (answer, message) {
                    state.network.insert((member, answer));
                }
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn acting(state: &State) -> usize {
            state
                .members
                .iter()
                .filter(|member| member.may_act(TIMING, Moment(state.now)))
                .count()
        }
        vec![
            Property::<Self>::always("one may act at most", |_, state| acting(state) <= 1),
            Property::<Self>::sometimes("somebody acts", |_, state| acting(state) == 1),
            Property::<Self>::sometimes("the second epoch is owned", |_, state| {
                state
                    .members
                    .iter()
                    .any(|m| m.epoch() >= 2 && m.role() == Role::Owner && m.may_act(TIMING, Moment(state.now)))
            }),
        ]
    }
}

/// A run ends without a verdict when it grows beyond this: a few gigabytes.
const STATES_MAX: usize = 3_000_000;

/// How many states there are, and whether two acted in one of them. Ends at the first such one.
fn explore(lab: Lab) -> (usize, bool) {
    let checker = lab
        .checker()
        .threads(2)
        .target_state_count(STATES_MAX)
        .spawn_dfs()
        .join();
    let discoveries = checker.discoveries();
    let two_acted = discoveries.contains_key("one may act at most");
    let moved = discoveries.contains_key("somebody acts") && discoveries.contains_key("the second epoch is owned");
    assert!(two_acted || moved, "the model reaches a takeover");
    let states = checker.unique_state_count();
    assert!(two_acted || states < STATES_MAX, "not all states were seen");
    (states, two_acted)
}

#[test]
fn two_never_act_at_once() {
    for (witnesses, steps_max, releases_max) in [(1, 3, 0), (1, 2, 1), (1, 1, 2), (2, 2, 0), (2, 1, 1)] {
        let (states, two_acted) = explore(Lab::new(witnesses, steps_max, releases_max));
        println!(
            "takeover: {states} states, all, of {witnesses} witnesses in {steps_max} steps with {releases_max} hand-overs"
        );
        assert!(!two_acted);
    }
}

#[test]
fn a_witness_that_does_not_wait_the_lease_out_is_found_out() {
    for witnesses in 1..=3 {
        let lab = Lab {
            witnesses_wait: false,
            ..Lab::new(witnesses, 3, 0)
        };
        assert!(explore(lab).1);
    }
}

#[test]
fn an_owner_that_goes_on_after_it_has_handed_over_is_found_out() {
    let lab = Lab {
        releases_end: false,
        ..Lab::new(1, 2, 1)
    };
    assert!(explore(lab).1);
}

/// A pair and its witnesses stepped without loss: how long until the standby owns.
#[test]
fn a_standby_owns_soon_after_the_owner_dies_and_not_before_its_lease_is_out() {
    let timing = Timing::default();
    let mut members = [
        Member::home(0, vec![1], vec![10, 11, 12], 3, Moment(0)),
        Member::home(1, vec![0], vec![10, 11, 12], 3, Moment(5)),
    ];
    let mut witnesses = [10, 11, 12].map(Witness::new);
    let died_at = 1_000;
    let mut owned_at = None;
    for now in (0..1_500).map(Moment) {
        for n in 0..2 {
            if n == 0 && now.0 >= died_at {
                continue;
            }
            for (to, message) in members[n].handle_timeout(timing, now) {
                if to < 10 {
                    members[to as usize].handle(message, timing, now);
                } else if let Some(answer) = witnesses[to as usize - 10].handle(message, timing, now) {
                    members[n].handle(answer, timing, now);
                }
            }
        }
        let acting = members.iter().filter(|member| member.may_act(timing, now)).count();
        assert!(acting <= 1, "at {now:?}");
        if now.0 >= died_at && members[1].may_act(timing, now) {
            owned_at = owned_at.or(Some(now.0));
        }
    }
    let gap = owned_at.expect("the standby owns") - died_at;
    assert!((80..=200).contains(&gap), "{gap} ms");
}
