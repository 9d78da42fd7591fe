//! The detector under a model checker: messages lost, late and in any order, members paused at any point.
//!
//! Time is whole steps, a lease is one of them, or two where an owner is to be heard. Checked in every state: never may two members act; nobody claims who
//! slept, or who has heard that phones were told what it lacks; no witness that slept grants anybody new. The controls:
//! a witness that does not wait the lease out, an owner that goes on after it has handed over, nodes that do not mind
//! having slept, and an owner that does not say how far phones were told, must be found out. Messages are not repeated, clocks do not drift. Hand-overs take no time, so there could be any number of them in one
//! step: their number is bounded, as time is.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use offhook_exchange_proto::detector::{Mark, Member, Message, NodeId, Role, Timing, Witness};
use offhook_exchange_proto::time::Moment;
use stateright::{Checker, HasDiscoveries, Model, Property};

/// Who has not run for longer has slept.
const STARVED_STEPS: u64 = 1;
const PROMISES: [&str; 3] = [
    "one may act at most",
    "nobody claims who lacks something",
    "nobody judges who slept",
];

/// Two members (0, 1) and witnesses from 10 on.
struct Lab {
    witnesses: u64,
    steps_max: u64,
    witnesses_wait: bool,
    /// Hand-overs in one history, at most.
    releases_max: u8,
    /// Whoever hands over stops acting.
    releases_end: bool,
    /// Changes that phones are told of in one term, at most.
    changes_max: u64,
    /// Owners say how far phones have been told.
    owners_tell: bool,
    /// Whoever slept knows it.
    sleepers_know: bool,
}

impl Lab {
    fn new(witnesses: u64, steps_max: u64, releases_max: u8) -> Self {
        Self {
            witnesses,
            steps_max,
            witnesses_wait: true,
            releases_max,
            releases_end: true,
            changes_max: 0,
            owners_tell: true,
            sleepers_know: true,
        }
    }

    fn timing(&self) -> Timing {
        Timing {
            heartbeat_ms: 1,
            lease_ms: if self.changes_max > 0 { 2 } else { 1 },
            drift_ms: 0,
            starved_ms: if self.sleepers_know { STARVED_STEPS } else { 1_000 },
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
    /// How far phones were told, as far as each member has heard from whom it follows.
    heard: Vec<Option<Mark>>,
    /// What each standby has; what an owner has told.
    has: Vec<Option<Mark>>,
    /// Who has been asked to go on, so that there is no silence to judge.
    invited: Vec<bool>,
    /// Whom each witness granted last, who has not released since.
    granted: Vec<Option<NodeId>>,
    /// When each ran last: members, then witnesses.
    ran: Vec<u64>,
    /// Somebody claimed who lacked something; somebody claimed, or granted, who had slept.
    claimed_lacking: bool,
    judged_asleep: bool,
}

impl State {
    /// Notes that a node runs; whether it had slept.
    fn runs(&mut self, node: usize) -> bool {
        let slept = self.now - self.ran[node] > STARVED_STEPS;
        self.ran[node] = self.now;
        slept
    }

    fn set_has(&mut self, n: usize, has: Option<Mark>) {
        self.has[n] = has;
        self.members[n].set_has(has);
    }

    /// A member that has become an owner begins a stream of its own.
    fn begin_term(&mut self, n: usize, before: Role) {
        if before != Role::Owner && self.members[n].role() == Role::Owner {
            self.heard[n] = None;
            let stream = n as u64;
            self.set_has(n, Some(Mark { stream, number: 0 }));
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Step,
    /// A member looks at its clock; one that is not looked after is paused.
    Wake(usize),
    Deliver(NodeId, Message),
    /// An owner hands over to the other.
    Release(usize),
    /// An owner tells phones of a change.
    Tell(usize),
    /// What an owner has told reaches the other member.
    Apply(usize),
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
            witnesses: ids().map(|id| Witness::new(id, Moment(0))).collect(),
            network: BTreeSet::new(),
            heard: vec![None; 2],
            has: vec![None; 2],
            invited: vec![false; 2],
            granted: vec![None; self.witnesses as usize],
            ran: vec![0; 2 + self.witnesses as usize],
            claimed_lacking: false,
            judged_asleep: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.now < self.steps_max {
            actions.push(Action::Step);
        }
        for (n, member) in state.members.iter().enumerate() {
            if member
                .poll_timeout(self.timing())
                .is_some_and(|at| at <= Moment(state.now))
            {
                actions.push(Action::Wake(n));
            }
            if member.role() != Role::Owner {
                continue;
            }
            if state.releases < self.releases_max {
                actions.push(Action::Release(n));
            }
            if self.changes_max > 0 {
                actions.extend([Action::Tell(n), Action::Apply(n)]);
            }
        }
        actions.extend(state.network.iter().map(|(to, message)| Action::Deliver(*to, *message)));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Step => state.now += 1,
            Action::Wake(n) => self.wake(&mut state, n),
            Action::Release(n) => {
                let mut leaving = state.members[n].clone();
                let now = Moment(state.now);
                state.network.extend(leaving.release(1 - n as u64, now));
                state.releases += 1;
                if self.releases_end {
                    state.members[n] = leaving;
                }
            }
            Action::Tell(n) => {
                let acts = state.members[n].may_act(self.timing(), Moment(state.now));
                let told = state.has[n].filter(|told| acts && told.number < self.changes_max)?;
                let number = told.number + 1;
                state.set_has(n, Some(Mark { number, ..told }));
            }
            Action::Apply(n) => {
                if state.members[1 - n].role() != Role::Owner {
                    state.set_has(1 - n, state.has[n]);
                }
            }
            Action::Deliver(to, message) => {
                state.network.remove(&(to, message));
                if to < 10 {
                    self.deliver(&mut state, to as usize, message);
                } else {
                    self.ask(&mut state, to as usize - 10, message);
                }
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn acting(lab: &Lab, state: &State) -> usize {
            let acts = |member: &&Member| member.may_act(lab.timing(), Moment(state.now));
            state.members.iter().filter(acts).count()
        }
        vec![
            Property::<Self>::always(PROMISES[0], |lab, state| acting(lab, state) <= 1),
            Property::<Self>::always(PROMISES[1], |_, state| !state.claimed_lacking),
            Property::<Self>::always(PROMISES[2], |_, state| !state.judged_asleep),
            Property::<Self>::sometimes("somebody acts", |lab, state| acting(lab, state) == 1),
            Property::<Self>::sometimes("the second epoch is owned", |lab, state| {
                let acts = |member: &Member| member.may_act(lab.timing(), Moment(state.now));
                state.members.iter().any(|member| member.epoch() >= 2 && acts(member))
            }),
        ]
    }
}

impl Lab {
    fn wake(&self, state: &mut State, n: usize) {
        let slept = state.runs(n);
        let before = state.members[n].role();
        let sent = state.members[n].handle_timeout(self.timing(), Moment(state.now));
        state.network.extend(sent);
        if before == Role::Standby && state.members[n].role() == Role::Claimant {
            let covered = |told: Mark| state.has[n].is_some_and(|has| has.covers(told));
            state.claimed_lacking |= state.heard[n].is_some_and(|told| !covered(told));
            state.judged_asleep |= slept && !state.invited[n];
            state.invited[n] = false;
        }
    }

    fn deliver(&self, state: &mut State, n: usize, message: Message) {
        state.runs(n);
        let before = state.members[n].role();
        let said = match message {
            Message::Heartbeat { epoch, .. } if !self.owners_tell => Message::Heartbeat { epoch, told: None },
            message => message,
        };
        state.members[n].handle(said, self.timing(), Moment(state.now));
        if self.changes_max > 0 {
            state.begin_term(n, before);
        }
        state.invited[n] |= matches!(message, Message::Handover { .. });
        let member = &state.members[n];
        if let Message::Heartbeat { epoch, told } = message
            && member.role() == Role::Standby
            && member.epoch() == epoch
        {
            // Of one stream the farthest.
            let known = state.heard[n].filter(|known| told.is_some_and(|told| known.covers(told)));
            state.heard[n] = known.or(told);
        }
    }

    /// A witness takes a message, and answers.
    fn ask(&self, state: &mut State, n: usize, message: Message) {
        let slept = state.runs(2 + n);
        let timing = self.timing();
        let careless = Timing { lease_ms: 0, ..timing };
        let timing = if self.witnesses_wait { timing } else { careless };
        let answer = state.witnesses[n].handle(message, timing, Moment(state.now));
        match (message, answer) {
            (Message::Claim { member, .. }, Some(answer)) => {
                if matches!(answer, Message::Granted { .. }) {
                    let holder = state.granted[n].replace(member);
                    state.judged_asleep |= slept && holder.is_some_and(|holder| holder != member);
                }
                state.network.insert((member, answer));
            }
            (Message::Released { member, .. }, _) if state.granted[n] == Some(member) => state.granted[n] = None,
            _ => {}
        }
    }
}

/// A run ends without a verdict when it grows beyond this: a few gigabytes.
const STATES_MAX: usize = 3_000_000;

/// How many states there are, and which promises were broken in one of them. Ends at the first that breaks one.
fn explore(lab: Lab) -> (usize, Vec<&'static str>) {
    let checker = lab
        .checker()
        .threads(2)
        .target_state_count(STATES_MAX)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_dfs()
        .join();
    let discoveries = checker.discoveries();
    let seen = |names: &[&'static str]| -> Vec<&'static str> {
        let seen = names.iter().filter(|name| discoveries.contains_key(*name));
        seen.copied().collect()
    };
    let broken = seen(&PROMISES);
    let reached = seen(&["somebody acts", "the second epoch is owned"]);
    assert!(!broken.is_empty() || reached.len() == 2, "the model reaches a takeover");
    let states = checker.unique_state_count();
    assert!(!broken.is_empty() || states < STATES_MAX, "not all states were seen");
    (states, broken)
}

#[test]
fn two_never_act_at_once_and_nobody_goes_on_who_slept_or_lacks_something() {
    let bounds = [
        (1, 3, 0, 0),
        (1, 2, 1, 0),
        (1, 1, 2, 0),
        (1, 3, 0, 1),
        (1, 2, 1, 1),
        (2, 2, 0, 0),
        (2, 1, 1, 0),
        (1, 3, 1, 1),
        (2, 3, 0, 1),
    ];
    for (witnesses, steps_max, releases_max, changes_max) in bounds {
        let lab = Lab {
            changes_max,
            ..Lab::new(witnesses, steps_max, releases_max)
        };
        let (states, broken) = explore(lab);
        println!(
            "takeover: {states} states, all, of {witnesses} witnesses in {steps_max} steps with {releases_max} hand-overs \
             and {changes_max} changes a term"
        );
        assert_eq!(broken, Vec::<&str>::new());
    }
}

/// Whether a broken promise is found.
fn is_found_out(lab: Lab, promise: &'static str) -> bool {
    let checker = lab
        .checker()
        .threads(2)
        .target_state_count(STATES_MAX)
        .finish_when(HasDiscoveries::AnyOf([promise].into()))
        .spawn_dfs()
        .join();
    checker.discoveries().contains_key(promise)
}

#[test]
fn a_witness_that_does_not_wait_the_lease_out_is_found_out() {
    for witnesses in 1..=3 {
        let lab = Lab {
            witnesses_wait: false,
            ..Lab::new(witnesses, 3, 0)
        };
        assert!(is_found_out(lab, "one may act at most"));
    }
}

#[test]
fn an_owner_that_goes_on_after_it_has_handed_over_is_found_out() {
    let lab = Lab {
        releases_end: false,
        ..Lab::new(1, 2, 1)
    };
    assert!(is_found_out(lab, "one may act at most"));
}

#[test]
fn an_owner_that_does_not_say_how_far_phones_were_told_is_found_out() {
    let lab = Lab {
        changes_max: 1,
        owners_tell: false,
        ..Lab::new(1, 3, 0)
    };
    assert!(is_found_out(lab, "nobody claims who lacks something"));
}

#[test]
fn nodes_that_do_not_mind_having_slept_are_found_out() {
    let lab = Lab {
        sleepers_know: false,
        ..Lab::new(1, 3, 0)
    };
    assert!(is_found_out(lab, "nobody judges who slept"));
}

/// A pair and its witnesses stepped without loss: how long until the standby owns.
#[test]
fn a_standby_owns_soon_after_the_owner_dies_and_not_before_its_lease_is_out() {
    let timing = Timing::default();
    let mut members = [
        Member::home(0, vec![1], vec![10, 11, 12], 3, Moment(0)),
        Member::home(1, vec![0], vec![10, 11, 12], 3, Moment(5)),
    ];
    let mut witnesses = [10, 11, 12].map(|id| Witness::new(id, Moment(0)));
    let died_at = 1_000;
    let mut owned_at = None;
    for now in (0..1_500).map(Moment) {
        witnesses
            .iter_mut()
            .for_each(|witness| witness.handle_timeout(timing, now));
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
