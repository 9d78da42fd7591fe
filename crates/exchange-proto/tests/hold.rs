//! Changing a session: hold by re-INVITE, UPDATE, INFO, glare.
#![allow(clippy::unwrap_used)]

mod phones;

use offhook_exchange_proto::sip::Method;
use phones::{Lab, Phone, Talk, talk};

fn talking() -> (Lab, Phone, Phone, Talk) {
    let mut lab = Lab::new();
    let mut alice = Phone::registered(&mut lab, "alice", "198.51.100.1:5060");
    let mut bob = Phone::registered(&mut lab, "bob", "198.51.100.2:5060");
    let talk = talk(&mut lab, &mut alice, &mut bob, "c1");
    (lab, alice, bob, talk)
}

#[test]
fn hold_and_resume_reach_the_other_phone() {
    let (mut lab, mut alice, bob, talk) = talking();
    let mut versions = Vec::new();
    for (direction, answer, version) in [("sendonly", "recvonly", 2), ("sendrecv", "sendrecv", 3)] {
        let sdp = alice.sdp_with(direction, version);
        let hold = alice
            .in_dialog(&talk.caller, Method::Invite)
            .with_body("application/sdp", sdp);
        lab.send(alice.flow, &hold);
        let carried = lab.expect(&bob, "INVITE");
        let body = String::from_utf8(carried.body.clone()).unwrap();
        assert!(body.contains(&format!("a={direction}")), "{body}");
        assert!(body.contains("192.0.2.1"), "still through the relay");
        versions.push(body.lines().find(|line| line.starts_with("o=")).unwrap().to_owned());
        bob.respond(&mut lab, &carried, 200, Some(bob.sdp_with(answer, version)));
        lab.expect(&bob, "ACK");
        let ok = lab.expect(&alice, "200 INVITE");
        assert!(
            String::from_utf8(ok.body.clone())
                .unwrap()
                .contains(&format!("a={answer}"))
        );
        alice.ack(&mut lab, &hold, &ok);
    }
    assert_ne!(versions[0], versions[1], "the version rises");
    let session = |line: &str| line.split(' ').nth(1).unwrap().to_owned();
    assert_eq!(session(&versions[0]), session(&versions[1]), "the session id stays");
}

#[test]
fn a_refused_change_leaves_the_call_as_it_was() {
    let (mut lab, mut alice, bob, talk) = talking();
    let sdp = alice.sdp_with("inactive", 2);
    let hold = alice
        .in_dialog(&talk.caller, Method::Invite)
        .with_body("application/sdp", sdp);
    lab.send(alice.flow, &hold);
    let carried = lab.expect(&bob, "INVITE");
    bob.respond(&mut lab, &carried, 488, None);
    lab.expect(&alice, "488 INVITE");
    assert_eq!(lab.exchange.calls().len(), 1);
}

#[test]
fn two_changes_at_once_are_glare() {
    let (mut lab, mut alice, mut bob, talk) = talking();
    let sdp = alice.sdp_with("sendonly", 2);
    let from_alice = alice
        .in_dialog(&talk.caller, Method::Invite)
        .with_body("application/sdp", sdp);
    lab.send(alice.flow, &from_alice);
    let sdp = bob.sdp_with("sendonly", 2);
    let from_bob = bob
        .in_dialog(&talk.callee, Method::Invite)
        .with_body("application/sdp", sdp);
    lab.send(bob.flow, &from_bob);
    lab.expect(&bob, "491 INVITE");
}

#[test]
fn update_becomes_a_reinvite_for_a_phone_that_does_not_take_it() {
    let (mut lab, mut alice, bob, talk) = talking();
    let sdp = alice.sdp_with("sendonly", 2);
    let update = alice
        .in_dialog(&talk.caller, Method::Update)
        .with_body("application/sdp", sdp);
    lab.send(alice.flow, &update);
    let carried = lab.expect(&bob, "INVITE");
    bob.respond(&mut lab, &carried, 200, Some(bob.sdp_with("recvonly", 2)));
    lab.expect(&bob, "ACK");
    assert!(lab.expect(&alice, "200 UPDATE").has_sdp());
}

#[test]
fn dtmf_by_info_is_carried_and_answered_by_the_phone() {
    let (mut lab, mut alice, bob, talk) = talking();
    let info = alice
        .in_dialog(&talk.caller, Method::Info)
        .with_body("application/dtmf-relay", b"Signal=5\r\nDuration=160\r\n".to_vec());
    lab.send(alice.flow, &info);
    let carried = lab.expect(&bob, "INFO");
    assert_eq!(carried.get("Content-Type"), Some("application/dtmf-relay"));
    assert_eq!(carried.body, b"Signal=5\r\nDuration=160\r\n");
    bob.respond(&mut lab, &carried, 200, None);
    lab.expect(&alice, "200 INFO");
}

#[test]
fn requests_out_of_order_are_refused() {
    let (mut lab, mut alice, bob, talk) = talking();
    let mut old = alice.in_dialog(&talk.caller, Method::Info);
    old.replace("CSeq", "1 INFO");
    lab.send(alice.flow, &old);
    lab.expect(&alice, "500 INFO");
    lab.expect_nothing(&bob);
}
