//! One call rings several phones; the first to answer gets it.
#![allow(clippy::unwrap_used)]

mod phones;

use std::time::Duration;

use offhook_exchange_proto::Input;
use offhook_exchange_proto::bridge::Disposition;
use offhook_exchange_proto::sip::Method;
use phones::{DOMAIN, Lab, Phone};

fn three_phones_of_bob(lab: &mut Lab) -> (Phone, [Phone; 3]) {
    let alice = Phone::registered(lab, "alice", "198.51.100.1:5060");
    let bobs = ["198.51.100.2:5060", "198.51.100.3:5060", "198.51.100.4:5060"];
    let bobs = bobs.map(|address| Phone::registered(lab, "bob", address));
    (alice, bobs)
}

#[test]
fn the_first_answer_wins_and_the_others_are_cancelled() {
    let mut lab = Lab::new();
    let (mut alice, bobs) = three_phones_of_bob(&mut lab);
    let invite = alice.invite(&mut lab, "bob", "c1", |invite| invite);
    let rung: Vec<_> = bobs.iter().map(|bob| lab.expect(bob, "INVITE")).collect();
    for (bob, invite) in bobs.iter().zip(&rung) {
        bob.respond(&mut lab, invite, 180, None);
    }
    bobs[1].respond(&mut lab, &rung[1], 200, Some(bobs[1].sdp()));
    lab.expect(&bobs[1], "ACK");
    let ok = lab.expect(&alice, "200 INVITE");
    alice.ack(&mut lab, &invite, &ok);
    for n in [0, 2] {
        let cancel = lab.expect(&bobs[n], "CANCEL");
        assert_eq!(
            cancel.get("Via"),
            rung[n].get("Via"),
            "a CANCEL has the branch of its INVITE"
        );
        bobs[n].respond(&mut lab, &cancel, 200, None);
        bobs[n].respond(&mut lab, &rung[n], 487, None);
        lab.expect(&bobs[n], "ACK");
    }
    assert_eq!(lab.exchange.calls()[0].legs, ["alice", "bob"]);
    assert_eq!(lab.exchange.ports_in_use(), 2, "losers gave their ports back");
}

#[test]
fn two_answers_at_once_leave_one_call() {
    let mut lab = Lab::new();
    let (mut alice, bobs) = three_phones_of_bob(&mut lab);
    alice.invite(&mut lab, "bob", "c1", |invite| invite);
    let rung: Vec<_> = bobs.iter().map(|bob| lab.expect(bob, "INVITE")).collect();
    bobs.iter()
        .zip(&rung)
        .for_each(|(bob, invite)| bob.respond(&mut lab, invite, 180, None));
    bobs[0].respond(&mut lab, &rung[0], 200, Some(bobs[0].sdp()));
    // The CANCEL crosses this answer.
    bobs[1].respond(&mut lab, &rung[1], 200, Some(bobs[1].sdp()));
    lab.expect(&bobs[1], "CANCEL");
    lab.expect(&bobs[1], "ACK");
    lab.expect(&bobs[1], "BYE");
    lab.expect(&alice, "200 INVITE");
    assert_eq!(lab.got(alice.flow).len(), 0, "the caller hears of one answer only");
}

#[test]
fn busy_everywhere_is_said_at_once_and_other_failures_last() {
    let mut lab = Lab::new();
    let (mut alice, bobs) = three_phones_of_bob(&mut lab);
    alice.invite(&mut lab, "bob", "c1", |invite| invite);
    let rung: Vec<_> = bobs.iter().map(|bob| lab.expect(bob, "INVITE")).collect();
    bobs[0].respond(&mut lab, &rung[0], 486, None);
    bobs[1].respond(&mut lab, &rung[1], 180, None);
    lab.expect(&alice, "180 INVITE");
    bobs[2].respond(&mut lab, &rung[2], 603, None);
    lab.expect(&alice, "603 INVITE");
    lab.expect(&bobs[1], "CANCEL");
    assert_eq!(lab.records[0].disposition, Disposition::Busy);

    let mut lab = Lab::new();
    let (mut alice, bobs) = three_phones_of_bob(&mut lab);
    alice.invite(&mut lab, "bob", "c2", |invite| invite);
    let rung: Vec<_> = bobs.iter().map(|bob| lab.expect(bob, "INVITE")).collect();
    for (n, status) in [480, 486, 503].into_iter().enumerate() {
        bobs[n].respond(&mut lab, &rung[n], status, None);
    }
    lab.expect(&alice, "486 INVITE");
}

#[test]
fn a_lower_q_is_rung_after_the_higher() {
    let mut lab = Lab::new();
    let mut alice = Phone::registered(&mut lab, "alice", "198.51.100.1:5060");
    let mut desk = Phone::new("bob", "198.51.100.2:5060");
    let mut mobile = Phone::new("bob", "198.51.100.3:5060");
    for (phone, q) in [(&mut desk, "1.0"), (&mut mobile, "0.5")] {
        let mut request = phone.request(
            Method::Register,
            &format!("sip:{DOMAIN}"),
            &format!("sip:bob@{DOMAIN}"),
            &format!("r{q}"),
        );
        request.replace("Contact", format!("{};q={q}", phone.contact()));
        phone.send_authenticated(&mut lab, request);
        lab.expect(phone, "200 REGISTER");
    }
    alice.invite(&mut lab, "bob", "c1", |invite| invite);
    let first = lab.expect(&desk, "INVITE");
    lab.expect_nothing(&mobile);
    desk.respond(&mut lab, &first, 486, None);
    lab.expect(&mobile, "INVITE");
}

#[test]
fn silent_phones_are_given_up() {
    let mut lab = Lab::new();
    let (mut alice, bobs) = three_phones_of_bob(&mut lab);
    alice.invite(&mut lab, "bob", "c1", |invite| invite);
    lab.pass(Duration::from_secs(33));
    // Timer A: 0.5, 1.5, 3.5, 7.5, 15.5, 31.5 s.
    assert_eq!(lab.got(bobs[0].flow).len(), 7);
    lab.expect(&alice, "408 INVITE");
    assert_eq!(lab.records[0].disposition, Disposition::NoAnswer);
    assert_eq!(lab.records.len(), 1);
    assert_eq!(lab.exchange.ports_in_use(), 0);
}

#[test]
fn ringing_ends_after_three_minutes() {
    let mut lab = Lab::new();
    let mut alice = Phone::registered(&mut lab, "alice", "198.51.100.1:5060");
    let bob = Phone::registered(&mut lab, "bob", "198.51.100.2:5060");
    alice.invite(&mut lab, "bob", "c1", |invite| invite);
    let invite = lab.expect(&bob, "INVITE");
    bob.respond(&mut lab, &invite, 180, None);
    lab.pass(Duration::from_secs(181));
    lab.expect(&bob, "CANCEL");
    lab.expect(&alice, "480 INVITE");
    assert_eq!(lab.records[0].disposition, Disposition::NoAnswer);
}

#[test]
fn a_phone_that_is_registered_at_two_nodes_rings_once_and_over_the_other_flow_when_the_first_fails() {
    let (mut lab, mut other) = (Lab::new(), Lab::new());
    let mut alice = Phone::registered(&mut lab, "alice", "198.51.100.1:5060");
    let mut here = Phone::new("bob", "198.51.100.2:1001");
    let mut there = Phone::new("bob", "198.51.100.2:2002");
    let (contact_here, contact_there) = (here.contact(), there.contact());
    there.register_flow(&mut other, &contact_there, 2);
    let bindings = other.exchange.bindings().map(|(_, binding)| binding.clone()).collect();
    let known = Input::Elsewhere {
        account: "bob".to_owned(),
        node: 2,
        bindings,
    };
    let outputs = lab.exchange.handle(known, lab.now);
    lab.take(outputs);
    here.register_flow(&mut lab, &contact_here, 1);
    alice.invite(&mut lab, "bob", "c1", |invite| invite);
    let rung = lab.expect(&here, "INVITE");
    lab.expect_nothing(&there);
    here.respond(&mut lab, &rung, 480, None);
    lab.expect(&there, "INVITE");
}
