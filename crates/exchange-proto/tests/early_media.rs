//! Early media and reliable provisional responses (RFC 3262), each leg by itself.
#![allow(clippy::unwrap_used)]

mod phones;

use std::time::Duration;

use offhook_exchange_proto::sip::{Message, Method};
use phones::{Lab, Phone, callee_dialog, caller_dialog};

fn ring_with_100rel(lab: &mut Lab, header: &'static str) -> (Phone, Phone, Message, Message) {
    let mut alice = Phone::registered(lab, "alice", "198.51.100.1:5060");
    let bob = Phone::registered(lab, "bob", "198.51.100.2:5060");
    let invite = alice.invite(lab, "bob", "c1", |invite| {
        if header.is_empty() {
            invite
        } else {
            invite.with(header, "100rel")
        }
    });
    let rung = lab.expect(&bob, "INVITE");
    (alice, bob, invite, rung)
}

fn reliable(bob: &Phone, rung: &Message, rseq: u32) -> Message {
    bob.response(rung, 183, Some(bob.sdp()))
        .with("Require", "100rel")
        .with("RSeq", rseq.to_string())
}

#[test]
fn the_exchange_acknowledges_a_reliable_183_and_carries_its_media() {
    let mut lab = Lab::new();
    let (alice, bob, _, rung) = ring_with_100rel(&mut lab, "");
    assert!(rung.has_token("Supported", "100rel"));
    lab.send(bob.flow, &reliable(&bob, &rung, 7));
    let prack = lab.expect(&bob, "PRACK");
    assert_eq!(prack.get("RAck"), Some("7 1 INVITE"));
    let progress = lab.expect(&alice, "183 INVITE");
    assert!(progress.has_sdp());
    assert!(!progress.has_token("Require", "100rel"), "this caller does not know it");
    // The same again is a repetition; one out of order is not acknowledged.
    lab.send(bob.flow, &reliable(&bob, &rung, 7));
    lab.send(bob.flow, &reliable(&bob, &rung, 9));
    assert!(lab.got(bob.flow).is_empty());
    assert!(lab.got(alice.flow).is_empty());
}

#[test]
fn a_caller_that_knows_100rel_gets_it_and_the_answer_waits_for_its_prack() {
    let mut lab = Lab::new();
    let (mut alice, bob, invite, rung) = ring_with_100rel(&mut lab, "Supported");
    lab.send(bob.flow, &bob.response(&rung, 183, Some(bob.sdp())));
    let progress = lab.expect(&alice, "183 INVITE");
    assert!(progress.has_token("Require", "100rel"));
    lab.pass(Duration::from_millis(1_600));
    assert_eq!(lab.got(alice.flow).len(), 2, "repeated after 0.5 and 1.5 s");
    bob.respond(&mut lab, &rung, 200, Some(bob.sdp()));
    lab.expect_nothing(&alice);
    let dialog = caller_dialog(&invite, &progress);
    let rseq = progress.get("RSeq").unwrap();
    let wrong = alice.in_dialog(&dialog, Method::Prack).with("RAck", "999 2 INVITE");
    lab.send(alice.flow, &wrong);
    lab.expect(&alice, "481 PRACK");
    let prack = alice
        .in_dialog(&dialog, Method::Prack)
        .with("RAck", format!("{rseq} 2 INVITE"));
    lab.send(alice.flow, &prack);
    lab.expect(&alice, "200 PRACK");
    lab.expect(&alice, "200 INVITE");
}

#[test]
fn a_caller_that_never_acknowledges_loses_the_call() {
    let mut lab = Lab::new();
    let (alice, bob, _, rung) = ring_with_100rel(&mut lab, "Require");
    bob.respond(&mut lab, &rung, 180, None);
    lab.expect(&alice, "180 INVITE");
    lab.pass(Duration::from_secs(70));
    lab.expect(&alice, "504 INVITE");
    lab.expect(&bob, "CANCEL");
}

#[test]
fn an_offer_in_the_answer_is_answered_in_the_ack() {
    let mut lab = Lab::new();
    let mut alice = Phone::registered(&mut lab, "alice", "198.51.100.1:5060");
    let bob = Phone::registered(&mut lab, "bob", "198.51.100.2:5060");
    let invite = alice.invite(&mut lab, "bob", "c1", |mut invite| {
        invite.body.clear();
        invite.headers.retain(|(name, _)| name != "Content-Type");
        invite
    });
    let rung = lab.expect(&bob, "INVITE");
    assert!(rung.body.is_empty());
    bob.respond(&mut lab, &rung, 200, Some(bob.sdp()));
    lab.expect_nothing(&bob);
    let ok = lab.expect(&alice, "200 INVITE");
    assert!(ok.has_sdp());
    let number = invite.get("CSeq").unwrap().split(' ').next().unwrap().to_owned();
    let sdp = alice.sdp();
    let mut ack = alice
        .in_dialog(&caller_dialog(&invite, &ok), Method::Ack)
        .with_body("application/sdp", sdp);
    ack.replace("CSeq", format!("{number} ACK"));
    lab.send(alice.flow, &ack);
    let ack = lab.expect(&bob, "ACK");
    assert!(ack.has_sdp());
    assert_eq!(callee_dialog(&bob, &rung).call_id, ack.get("Call-ID").unwrap());
}
