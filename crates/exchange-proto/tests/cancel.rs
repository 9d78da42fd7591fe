//! The caller gives up before anyone answers.
#![allow(clippy::unwrap_used)]

mod phones;

use std::time::Duration;

use offhook_exchange_proto::bridge::Disposition;
use offhook_exchange_proto::sip::{Message, Method};
use phones::{Lab, Phone};

fn cancel_of(invite: &Message) -> Message {
    let mut cancel = Message::request(Method::Cancel, invite.uri().unwrap());
    for name in ["Via", "From", "To", "Call-ID"] {
        cancel.push(name, invite.get(name).unwrap());
    }
    let number = invite.get("CSeq").unwrap().split(' ').next().unwrap();
    cancel
        .with("CSeq", format!("{number} CANCEL"))
        .with("Max-Forwards", "70")
}

#[test]
fn cancel_reaches_the_ringing_phone() {
    let mut lab = Lab::new();
    let mut alice = Phone::registered(&mut lab, "alice", "198.51.100.1:5060");
    let bob = Phone::registered(&mut lab, "bob", "198.51.100.2:5060");
    let invite = alice.invite(&mut lab, "bob", "c1", |invite| invite);
    let rung = lab.expect(&bob, "INVITE");
    bob.respond(&mut lab, &rung, 180, None);
    lab.send(alice.flow, &cancel_of(&invite));
    lab.expect(&alice, "200 CANCEL");
    lab.expect(&alice, "487 INVITE");
    let cancel = lab.expect(&bob, "CANCEL");
    bob.respond(&mut lab, &cancel, 200, None);
    bob.respond(&mut lab, &rung, 487, None);
    lab.expect(&bob, "ACK");
    assert_eq!(lab.records.len(), 1);
    assert_eq!(lab.records[0].disposition, Disposition::Cancelled);
    assert_eq!(lab.exchange.calls().len(), 0);
}

#[test]
fn cancel_waits_for_a_provisional_response() {
    let mut lab = Lab::new();
    let mut alice = Phone::registered(&mut lab, "alice", "198.51.100.1:5060");
    let bob = Phone::registered(&mut lab, "bob", "198.51.100.2:5060");
    let invite = alice.invite(&mut lab, "bob", "c1", |invite| invite);
    let rung = lab.expect(&bob, "INVITE");
    lab.send(alice.flow, &cancel_of(&invite));
    lab.expect_nothing(&bob);
    bob.respond(&mut lab, &rung, 180, None);
    lab.expect(&bob, "CANCEL");
    // It never says how that ended: the leg goes after 64 x T1.
    lab.pass(Duration::from_secs(40));
    assert_eq!(lab.exchange.calls().len(), 0);
    assert_eq!(lab.exchange.ports_in_use(), 0);
}

#[test]
fn a_cancel_from_elsewhere_is_not_believed() {
    let mut lab = Lab::new();
    let mut alice = Phone::registered(&mut lab, "alice", "198.51.100.1:5060");
    let bob = Phone::registered(&mut lab, "bob", "198.51.100.2:5060");
    let invite = alice.invite(&mut lab, "bob", "c1", |invite| invite);
    let rung = lab.expect(&bob, "INVITE");
    bob.respond(&mut lab, &rung, 180, None);
    let stranger = Phone::new("x", "203.0.113.5:5060");
    lab.send(stranger.flow, &cancel_of(&invite));
    lab.expect_nothing(&bob);
}
