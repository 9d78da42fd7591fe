//! Session timers (RFC 4028) and the end of calls whose phones are gone.
#![allow(clippy::unwrap_used)]

mod phones;

use std::time::Duration;

use offhook_exchange_proto::sip::Method;
use phones::{Lab, Phone, talk};

#[test]
fn a_phone_that_answers_refreshes_keeps_its_call() {
    let mut lab = Lab::with(|config| config.session_s = 200);
    let mut alice = Phone::registered(&mut lab, "alice", "198.51.100.1:5060");
    let mut bob = Phone::registered(&mut lab, "bob", "198.51.100.2:5060");
    talk(&mut lab, &mut alice, &mut bob, "c1");
    for _ in 0..3 {
        lab.pass(Duration::from_secs(101));
        // One takes UPDATE, the other needs a re-INVITE.
        let update = lab.expect(&alice, "UPDATE");
        assert!(update.body.is_empty());
        alice.respond(&mut lab, &update, 200, None);
        let invite = lab.expect(&bob, "INVITE");
        bob.respond(&mut lab, &invite, 200, Some(bob.sdp()));
        lab.expect(&bob, "ACK");
        // Repetitions of what was answered a second late.
        lab.got(alice.flow);
        lab.got(bob.flow);
    }
    assert_eq!(lab.exchange.calls().len(), 1);
}

#[test]
fn a_phone_that_is_gone_ends_its_call() {
    let mut lab = Lab::with(|config| config.session_s = 200);
    let mut alice = Phone::registered(&mut lab, "alice", "198.51.100.1:5060");
    let mut bob = Phone::registered(&mut lab, "bob", "198.51.100.2:5060");
    talk(&mut lab, &mut alice, &mut bob, "c1");
    lab.pass(Duration::from_secs(101));
    let refresh = lab.expect(&alice, "UPDATE");
    alice.respond(&mut lab, &refresh, 200, None);
    lab.pass(Duration::from_secs(33));
    lab.expect(&alice, "BYE");
    assert_eq!(lab.records.len(), 1);
    lab.pass(Duration::from_secs(64));
    assert_eq!(lab.exchange.calls().len(), 0, "no ghost is left");
    assert_eq!(lab.exchange.ports_in_use(), 0);
}

#[test]
fn a_phone_that_wants_to_refresh_must_do_so() {
    let mut lab = Lab::new();
    let mut alice = Phone::registered(&mut lab, "alice", "198.51.100.1:5060");
    let bob = Phone::registered(&mut lab, "bob", "198.51.100.2:5060");
    let invite = alice.invite(&mut lab, "bob", "c1", |invite| {
        invite
            .with("Supported", "timer")
            .with("Session-Expires", "90;refresher=uac")
    });
    let rung = lab.expect(&bob, "INVITE");
    assert!(
        rung.get("Session-Expires").unwrap().starts_with("1800"),
        "each leg has its own timer"
    );
    bob.respond(&mut lab, &rung, 200, Some(bob.sdp()));
    lab.expect(&bob, "ACK");
    let ok = lab.expect(&alice, "200 INVITE");
    assert_eq!(ok.get("Session-Expires"), Some("90;refresher=uac"));
    assert!(ok.has_token("Require", "timer"));
    alice.ack(&mut lab, &invite, &ok);
    lab.pass(Duration::from_secs(40));
    let refresh = alice
        .in_dialog(&phones::caller_dialog(&invite, &ok), Method::Update)
        .with("Supported", "timer")
        .with("Session-Expires", "90;refresher=uac");
    lab.send(alice.flow, &refresh);
    assert_eq!(
        lab.expect(&alice, "200 UPDATE").get("Session-Expires"),
        Some("90;refresher=uac")
    );
    lab.pass(Duration::from_secs(59));
    assert_eq!(lab.exchange.calls().len(), 1);
    lab.pass(Duration::from_secs(2));
    lab.expect(&bob, "BYE");
}

#[test]
fn too_small_an_interval_is_refused_and_a_phones_minimum_is_met() {
    let mut lab = Lab::new();
    let mut alice = Phone::registered(&mut lab, "alice", "198.51.100.1:5060");
    let bob = Phone::registered(&mut lab, "bob", "198.51.100.2:5060");
    alice.invite(&mut lab, "bob", "c1", |invite| {
        invite.with("Supported", "timer").with("Session-Expires", "30")
    });
    assert_eq!(lab.expect(&alice, "422 INVITE").get("Min-SE"), Some("90"));
    alice.invite(&mut lab, "bob", "c2", |invite| invite);
    let rung = lab.expect(&bob, "INVITE");
    let small = bob.response(&rung, 422, None).with("Min-SE", "3600");
    lab.send(bob.flow, &small);
    lab.expect(&bob, "ACK");
    let again = lab.expect(&bob, "INVITE");
    assert!(again.get("Session-Expires").unwrap().starts_with("3600"));
    assert_eq!(again.get("CSeq"), Some("2 INVITE"));
}
