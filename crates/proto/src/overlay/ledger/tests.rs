//! The rules one by one, then whatever the inputs: never above the cap, nothing kept for ever, nobody passed by.

use proptest::prelude::*;

use super::*;

fn device(n: u8) -> DeviceId {
    DeviceId([n; 32])
}

fn at(n: u16) -> SocketAddr {
    let [a, b] = n.to_be_bytes();
    SocketAddr::from(([203, 0, a, b], 4433))
}

fn ask(n: u8, to: &[u16], urgency: Urgency) -> Ask {
    Ask {
        peer: device(n),
        to: to.iter().map(|n| To::Udp(at(*n))).collect(),
        urgency,
        reason: "a test",
    }
}

fn go(to: &[u16]) -> Answer {
    Answer::Go(to.iter().map(|n| To::Udp(at(*n))).collect())
}

fn ledger(hard: u16, soft: u16) -> (FlowLedger, Instant) {
    (FlowLedger::new(Limits::new(hard, Some(soft)).unwrap()), start())
}

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
fn start() -> Instant {
    Instant::now()
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn caps_below_eight_are_refused_in_words() {
    let error = Limits::new(7, None).unwrap_err();
    assert!(error.to_string().contains("8 is the least"), "{error}");
    assert!(
        Limits::new(60, Some(61))
            .unwrap_err()
            .to_string()
            .contains("from 4 to 60")
    );
    assert_eq!(Limits::new(8, None).unwrap().soft(), 6);
    assert_eq!(Limits::new(60, None).unwrap(), Limits::default());
}

#[test]
fn two_addresses_of_a_dial_get_tokens_and_the_rest_is_refused() {
    let (mut ledger, now) = ledger(60, 40);
    assert_eq!(ledger.ask(ask(1, &[1, 2, 3, 4], Urgency::Cover), now), go(&[1, 2]));
    assert!(ledger.may_send(at(1), now));
    assert!(!ledger.may_send(at(3), now));
    assert_eq!(ledger.in_use(now), 2);
    let view = ledger.view(now);
    assert_eq!(view.refused[0].to, at(3));
    assert_eq!(view.flows[0].state, State::Unanswered);
    assert_eq!(view.flows[1].state, State::Reserved);
}

#[test]
fn flows_are_kept_as_long_as_a_gateway_remembers() {
    let (mut ledger, now) = ledger(60, 40);
    let _ = ledger.ask(ask(1, &[1, 2], Urgency::Cover), now);
    assert!(ledger.may_send(at(1), now) && ledger.may_send(at(2), now));
    ledger.heard(at(1), now);
    assert_eq!(ledger.in_use(now + UNANSWERED - SECOND), 2);
    assert_eq!(ledger.in_use(now + UNANSWERED), 1);
    assert_eq!(ledger.in_use(now + ANSWERED - SECOND), 1);
    assert_eq!(ledger.in_use(now + ANSWERED), 0);
}

#[test]
fn a_token_that_was_not_used_is_given_back() {
    let (mut ledger, now) = ledger(60, 40);
    let _ = ledger.ask(ask(1, &[1, 2], Urgency::Cover), now);
    assert!(ledger.may_send(at(1), now));
    ledger.dial_ended(device(1));
    assert_eq!(ledger.in_use(now), 1);
    assert!(!ledger.may_send(at(2), now));
}

#[test]
fn an_open_connection_counts_until_it_was_closed_and_forgotten() {
    let (mut ledger, now) = ledger(60, 40);
    let relay = To::Tcp("relay.example".to_owned());
    assert!(ledger.hold(relay.clone(), Kind::Relay, "the home relay", now));
    let later = now + ANSWERED * 10;
    assert_eq!(ledger.in_use(later), 1);
    ledger.release(&relay, later);
    assert_eq!(ledger.in_use(later + ANSWERED - SECOND), 1);
    assert_eq!(ledger.in_use(later + ANSWERED), 0);
}

#[test]
fn what_somebody_waits_for_may_use_the_space_above_the_soft_cap() {
    let (mut ledger, now) = ledger(8, 4);
    assert_eq!(ledger.ask(ask(1, &[1, 2], Urgency::Spare), now), go(&[1, 2]));
    assert_eq!(ledger.ask(ask(2, &[3, 4], Urgency::Spare), now), go(&[3, 4]));
    assert_eq!(ledger.ask(ask(3, &[5, 6], Urgency::Cover), now), Answer::Waits);
    assert_eq!(ledger.ask(ask(4, &[7, 8], Urgency::Urgent), now), go(&[7, 8]));
    assert_eq!(ledger.ask(ask(5, &[9, 10, 11], Urgency::Urgent), now), go(&[9, 10]));
    assert_eq!(ledger.ask(ask(6, &[12], Urgency::Urgent), now), Answer::Waits);
    let view = ledger.view(now);
    assert_eq!((view.now, view.waiting.len()), (8, 2));
    assert_eq!(view.waiting[0].peer, device(6), "the urgent one is the next");
    assert!(view.waiting[0].reason.contains("all flows are in use"));
}

#[test]
fn whoever_waited_longest_is_next_and_one_address_is_better_than_none() {
    let (mut ledger, now) = ledger(8, 4);
    let _ = ledger.ask(ask(1, &[1, 2], Urgency::Cover), now);
    let _ = ledger.ask(ask(2, &[3], Urgency::Cover), now + SECOND);
    for (to, when) in [(1, now), (2, now), (3, now + SECOND)] {
        assert!(ledger.may_send(at(to), when));
    }
    assert_eq!(ledger.ask(ask(3, &[4, 5], Urgency::Cover), now + SECOND), go(&[4]));
    assert!(ledger.may_send(at(4), now + SECOND));
    for n in 4..7 {
        let asked = ledger.ask(ask(n, &[u16::from(n) * 10], Urgency::Cover), now + SECOND * 2);
        assert_eq!(asked, Answer::Waits);
    }
    let due = ledger.poll_timeout().unwrap();
    assert_eq!(due, now + UNANSWERED);
    let turns: Vec<DeviceId> = ledger.poll(due).into_iter().map(|(ask, _)| ask.peer).collect();
    assert_eq!(turns, [device(4), device(5)]);
    assert_eq!(ledger.poll(due + SECOND)[0].0.peer, device(6));
    assert_eq!(ledger.poll_timeout(), None);
}

#[test]
fn an_old_ask_passes_urgent_ones_but_does_not_stand_in_their_way() {
    let (mut ledger, now) = ledger(8, 4);
    for n in 1..=4 {
        assert!(ledger.hold(To::Tcp(n.to_string()), Kind::Relay, "a relay", now));
    }
    assert_eq!(ledger.ask(ask(1, &[1], Urgency::Spare), now), Answer::Waits);
    let later = now + PROMOTED_AFTER;
    assert_eq!(ledger.ask(ask(2, &[2], Urgency::Urgent), later), go(&[2]));
    assert_eq!(ledger.ask(ask(3, &[3], Urgency::Cover), later), Answer::Waits);
    ledger.release(&To::Tcp("1".to_owned()), later);
    ledger.release(&To::Tcp("2".to_owned()), later);
    assert_eq!(
        ledger.ask(ask(1, &[1], Urgency::Spare), later + SECOND * 80),
        Answer::Waits
    );
    assert_eq!(ledger.poll(later + ANSWERED)[0].0.peer, device(1));
}

#[test]
fn a_full_queue_refuses_those_that_are_wanted_least() {
    let (mut ledger, now) = ledger(8, 8);
    for n in 0..8 {
        assert!(ledger.hold(To::Tcp(n.to_string()), Kind::Relay, "a relay", now));
    }
    for n in 0..QUEUE_MAX as u8 {
        assert_eq!(ledger.ask(ask(n, &[u16::from(n)], Urgency::Spare), now), Answer::Waits);
    }
    assert_eq!(ledger.ask(ask(200, &[200], Urgency::Spare), now), Answer::Refused);
    assert_eq!(ledger.ask(ask(201, &[201], Urgency::Urgent), now), Answer::Waits);
    let view = ledger.view(now);
    assert_eq!(view.waiting.len(), QUEUE_MAX);
    assert_eq!(view.waiting[0].peer, device(201));
}

#[test]
fn an_ask_that_is_not_repeated_is_forgotten() {
    let (mut ledger, now) = ledger(8, 4);
    for n in 0..8 {
        assert!(ledger.hold(To::Tcp(n.to_string()), Kind::Relay, "a relay", now));
    }
    assert_eq!(ledger.ask(ask(1, &[1], Urgency::Cover), now), Answer::Waits);
    assert_eq!(ledger.view(now + FORGOTTEN_AFTER - SECOND).waiting.len(), 1);
    assert_eq!(ledger.view(now + FORGOTTEN_AFTER).waiting.len(), 0);
}

#[test]
fn callers_are_answered_and_leave_something_for_own_dials() {
    let (mut ledger, now) = ledger(8, 4);
    assert!(!ledger.may_send(at(9), now), "nobody called from there");
    for n in 0..8 {
        ledger.heard(at(n), now);
    }
    let answered = (0..8).filter(|n| ledger.may_send(at(*n), now)).count();
    assert_eq!(answered, 6);
    assert_eq!(ledger.ask(ask(1, &[20, 21], Urgency::Urgent), now), go(&[20, 21]));
    ledger.heard(at(30), now);
    assert!(!ledger.may_send(at(30), now + CALLER_KEPT), "that was long ago");
}

#[test]
fn a_punch_has_eight_tokens_and_only_when_it_is_allowed() {
    let (mut ledger, now) = ledger(60, 40);
    assert!(!ledger.may_send(at(1), now));
    ledger.set_punching(Punching::NotNeeded);
    assert!(!ledger.may_send(at(1), now));
    ledger.set_punching(Punching::Allowed);
    let punched = (1..=32).filter(|n| ledger.may_send(at(*n), now)).count();
    assert_eq!(punched, PUNCH_TOKENS);
    // Who answers is a path from then on, and makes room for nobody before the window is over.
    ledger.heard(at(1), now);
    assert!(!ledger.may_send(at(20), now + SECOND));
    let kinds: Vec<Kind> = ledger.view(now).flows.iter().map(|flow| flow.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::Path).count(), 1);
    // Who does not answer is tried for ten seconds, then left alone.
    assert!(ledger.may_send(at(2), now + PUNCH_TRIED));
    assert!(!ledger.may_send(at(2), now + PUNCH_TRIED + SECOND));
    let later = now + PUNCH_TRIED + UNANSWERED;
    assert!(!ledger.may_send(at(2), later));
    let next = (20..=52).filter(|n| ledger.may_send(at(*n), later)).count();
    assert_eq!(next, PUNCH_TOKENS);
    ledger.network_changed();
    assert!(ledger.may_send(at(2), later + PUNCH_WINDOW + PUNCH_TRIED));
}

/// Anything that can reach a ledger.
#[derive(Debug, Clone)]
enum Move {
    Ask(u8, Vec<u16>, Urgency),
    Send(u16),
    Heard(u16),
    Ended(u8),
    Withdraw(u8),
    Hold(u8),
    Release(u8),
    Question(u8),
    Punch(Punching),
    Changed,
    Poll,
    Wait(u16),
}

fn any_move() -> impl Strategy<Value = Move> {
    let urgency = prop_oneof![Just(Urgency::Urgent), Just(Urgency::Cover), Just(Urgency::Spare)];
    let punching = prop_oneof![
        Just(Punching::Allowed),
        Just(Punching::CatchingUp),
        Just(Punching::NotNeeded)
    ];
    prop_oneof![
        4 => (any::<u8>(), prop::collection::vec(0..200u16, 0..5), urgency).prop_map(|(n, to, u)| Move::Ask(n, to, u)),
        8 => (0..200u16).prop_map(Move::Send),
        4 => (0..200u16).prop_map(Move::Heard),
        1 => any::<u8>().prop_map(Move::Ended),
        1 => any::<u8>().prop_map(Move::Withdraw),
        1 => any::<u8>().prop_map(Move::Hold),
        1 => any::<u8>().prop_map(Move::Release),
        1 => any::<u8>().prop_map(Move::Question),
        1 => punching.prop_map(Move::Punch),
        1 => Just(Move::Changed),
        2 => Just(Move::Poll),
        3 => (0..4000u16).prop_map(Move::Wait),
    ]
}

/// A gateway that counts what was sent, and knows nothing of the ledger: the oracle.
#[derive(Default)]
struct Gateway(BTreeMap<SocketAddr, (Instant, bool)>);

impl Gateway {
    fn sent(&mut self, to: SocketAddr, now: Instant) {
        let entry = self.0.entry(to).or_insert((now, false));
        entry.0 = now;
    }

    fn heard(&mut self, from: SocketAddr, now: Instant) {
        if let Some(entry) = self.0.get_mut(&from) {
            *entry = (now, true);
        }
    }

    fn flows(&mut self, now: Instant) -> usize {
        self.0.retain(|_, (last, answered)| {
            let kept = Duration::from_secs(if *answered { 120 } else { 30 });
            now.saturating_duration_since(*last) < kept
        });
        self.0.len()
    }
}

#[test]
fn what_a_gateway_remembers_of_the_last_run_is_counted() {
    let (mut before, now) = ledger(60, 40);
    assert!(matches!(
        before.ask(ask(1, &[1, 2], Urgency::Cover), now),
        Answer::Go(_)
    ));
    assert!(before.may_send(at(1), now) && before.may_send(at(2), now));
    before.heard(at(1), now);
    assert!(before.hold(To::Tcp("relay".to_owned()), Kind::Relay, "the home relay", now));
    let ended = now + Duration::from_secs(20);
    let remembered = before.remembered(ended);

    let mut after = FlowLedger::new(before.limits());
    after.take_up(remembered.clone(), true, ended);
    assert_eq!(after.in_use(ended), 3);
    // The socket has the same port again: who was called before costs nothing. A connection has another one.
    assert!(matches!(after.ask(ask(1, &[1], Urgency::Cover), ended), Answer::Go(_)));
    assert_eq!(after.in_use(ended), 3);
    assert!(after.hold(To::Tcp("relay".to_owned()), Kind::Relay, "the home relay", ended));
    assert_eq!(after.in_use(ended), 4);
    // Nobody answered at the second: 32 s after the last packet it is forgotten. The first was answered; the connection was there to the end.
    assert_eq!(after.in_use(now + UNANSWERED), 3);
    assert_eq!(after.in_use(now + ANSWERED), 2);
    assert_eq!(after.in_use(ended + ANSWERED), 1);

    // From another port, every call is a new flow.
    let mut elsewhere = FlowLedger::new(before.limits());
    elsewhere.take_up(remembered, false, ended);
    assert!(matches!(
        elsewhere.ask(ask(1, &[1], Urgency::Cover), ended),
        Answer::Go(_)
    ));
    assert_eq!(elsewhere.in_use(ended), 4);
}

#[test]
fn nothing_is_sent_anew_while_a_full_account_of_the_last_run_is_remembered() {
    let (mut before, now) = ledger(8, 4);
    for n in 0..8 {
        assert!(before.hold(To::Tcp(n.to_string()), Kind::Relay, "a relay", now));
    }
    let mut after = FlowLedger::new(before.limits());
    after.take_up(before.remembered(now), true, now);
    assert_eq!(after.ask(ask(1, &[1], Urgency::Urgent), now), Answer::Waits);
    assert_eq!(
        after.poll(now + ANSWERED).len(),
        0,
        "an ask that nobody repeats is forgotten"
    );
    assert!(matches!(
        after.ask(ask(1, &[1], Urgency::Urgent), now + ANSWERED),
        Answer::Go(_)
    ));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn never_above_the_cap_whatever_the_inputs(hard in 8..40u16, moves in prop::collection::vec(any_move(), 1..600)) {
        let limits = Limits::new(hard, None).unwrap();
        let (mut ledger, mut now) = (FlowLedger::new(limits), start());
        let mut gateway = Gateway::default();
        for step in moves {
            match step {
                Move::Ask(n, to, urgency) => drop(ledger.ask(ask(n, &to, urgency), now)),
                Move::Send(n) => {
                    if ledger.may_send(at(n), now) {
                        gateway.sent(at(n), now);
                    }
                }
                Move::Heard(n) => {
                    gateway.heard(at(n), now);
                    ledger.heard(at(n), now);
                }
                Move::Ended(n) => ledger.dial_ended(device(n)),
                Move::Withdraw(n) => ledger.withdraw(device(n)),
                Move::Hold(n) => drop(ledger.hold(To::Tcp(n.to_string()), Kind::Relay, "a relay", now)),
                Move::Release(n) => ledger.release(&To::Tcp(n.to_string()), now),
                Move::Question(n) => {
                    let _ = ledger.question(To::Lookup(n.to_string()), Kind::Lookup, "a name", now);
                }
                Move::Punch(punching) => ledger.set_punching(punching),
                Move::Changed => ledger.network_changed(),
                Move::Poll => drop(ledger.poll(now)),
                Move::Wait(ms) => now += Duration::from_millis(ms.into()),
            }
            let view = ledger.view(now);
            prop_assert!(view.now <= limits.hard());
            prop_assert_eq!(view.now, view.flows.len());
            prop_assert!(view.waiting.len() <= QUEUE_MAX);
            prop_assert!(gateway.flows(now) <= limits.hard(), "the gateway counts more than the cap");
        }
        // Nothing is kept for ever but what is held.
        let view = ledger.view(now + ANSWERED);
        prop_assert!(view.flows.iter().all(|flow| flow.forgotten_in.is_none()));
        prop_assert!(view.waiting.is_empty() || ANSWERED < FORGOTTEN_AFTER);
    }

    #[test]
    fn equals_are_served_in_the_order_in_which_they_came(urgencies in prop::collection::vec(0..3u8, 2..40)) {
        let (mut ledger, now) = ledger(8, 4);
        for n in 0..8 {
            let _ = ledger.hold(To::Tcp(n.to_string()), Kind::Relay, "a relay", now);
        }
        let urgency = |n: u8| [Urgency::Urgent, Urgency::Cover, Urgency::Spare][usize::from(n)];
        for (n, kind) in urgencies.iter().enumerate() {
            let asked = ledger.ask(ask(n as u8, &[n as u16], urgency(*kind)), now);
            prop_assert_eq!(asked, Answer::Waits);
        }
        for n in 0..8 {
            ledger.release(&To::Tcp(n.to_string()), now);
        }
        let mut served = Vec::new();
        let mut at = now + ANSWERED;
        // Asks are renewed by those who still want them.
        for _ in 0..50 {
            for (n, kind) in urgencies.iter().enumerate() {
                if !served.contains(&device(n as u8))
                    && let Answer::Go(_) = ledger.ask(ask(n as u8, &[n as u16], urgency(*kind)), at)
                {
                    served.push(device(n as u8));
                }
            }
            for (Ask { peer, .. }, _) in ledger.poll(at) {
                served.push(peer);
            }
            at += UNANSWERED;
        }
        prop_assert_eq!(served.len(), urgencies.len(), "everybody is served");
        for kind in 0..3 {
            let of_kind = |peer: &&DeviceId| urgencies[usize::from(peer.0[0])] == kind;
            let order: Vec<u8> = served.iter().filter(of_kind).map(|peer| peer.0[0]).collect();
            prop_assert!(order.is_sorted(), "{order:?}");
        }
    }
}
