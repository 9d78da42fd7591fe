//! Blind and attended transfer, and taking a call over with Replaces.
#![allow(clippy::unwrap_used)]

mod phones;

use offhook_exchange_proto::sip::{Message, Method};
use phones::{DOMAIN, Lab, Phone, PhoneDialog, Talk, callee_dialog, talk};

struct Three {
    lab: Lab,
    alice: Phone,
    bob: Phone,
    carol: Phone,
}

fn three() -> Three {
    let mut lab = Lab::new();
    let alice = Phone::registered(&mut lab, "alice", "198.51.100.1:5060");
    let bob = Phone::registered(&mut lab, "bob", "198.51.100.2:5060");
    let carol = Phone::registered(&mut lab, "carol", "198.51.100.3:5060");
    Three { lab, alice, bob, carol }
}

fn status_line(notify: &Message) -> String {
    String::from_utf8(notify.body.clone()).unwrap().trim().to_owned()
}

/// Answers the next NOTIFY and gives its status line.
fn next_notify(lab: &mut Lab, phone: &Phone) -> String {
    let notify = lab.expect(phone, "NOTIFY");
    assert_eq!(notify.get("Event"), Some("refer"));
    phone.respond(lab, &notify, 200, None);
    status_line(&notify)
}

fn refer(lab: &mut Lab, phone: &mut Phone, dialog: &PhoneDialog, to: &str) {
    let refer = phone.in_dialog(dialog, Method::Refer).with("Refer-To", to);
    lab.send(phone.flow, &refer);
    lab.expect(phone, "202 REFER");
}

/// Hangs up on `phone` and expects the other to be told.
fn hang_up(lab: &mut Lab, phone: &mut Phone, dialog: &PhoneDialog, other: &Phone) {
    let bye = phone.in_dialog(dialog, Method::Bye);
    lab.send(phone.flow, &bye);
    lab.expect(phone, "200 BYE");
    let bye = lab.expect(other, "BYE");
    other.respond(lab, &bye, 200, None);
}

#[test]
fn blind_transfer_joins_the_remaining_phone_with_the_named_one() {
    let Three {
        mut lab,
        mut alice,
        mut bob,
        mut carol,
    } = three();
    let Talk { caller, callee } = talk(&mut lab, &mut alice, &mut bob, "c1");
    refer(&mut lab, &mut alice, &caller, &format!("<sip:carol@{DOMAIN}>"));
    assert_eq!(next_notify(&mut lab, &alice), "SIP/2.0 100 Trying");
    let rung = lab.expect(&carol, "INVITE");
    assert!(
        String::from_utf8(rung.body.clone()).unwrap().contains("m=audio"),
        "bob's media is offered"
    );
    carol.respond(&mut lab, &rung, 180, None);
    assert_eq!(next_notify(&mut lab, &alice), "SIP/2.0 180 Ringing");
    carol.respond(&mut lab, &rung, 200, Some(carol.sdp()));
    lab.expect(&carol, "ACK");
    assert_eq!(next_notify(&mut lab, &alice), "SIP/2.0 200 OK");
    let bye = lab.expect(&alice, "BYE");
    alice.respond(&mut lab, &bye, 200, None);
    let change = lab.expect(&bob, "INVITE");
    bob.respond(&mut lab, &change, 200, Some(bob.sdp_with("sendrecv", 2)));
    lab.expect(&bob, "ACK");
    assert_eq!(lab.exchange.calls()[0].legs, ["bob", "carol"]);
    assert_eq!(lab.records.len(), 0, "the call goes on");
    hang_up(&mut lab, &mut bob, &callee, &carol);
    let _ = &mut carol;
    assert_eq!(lab.records.len(), 1);
    assert_eq!(lab.records[0].transferred_to.as_deref(), Some("carol"));
    assert_eq!(lab.exchange.ports_in_use(), 0);
}

#[test]
fn a_failed_transfer_leaves_the_call_and_says_why() {
    let Three {
        mut lab,
        mut alice,
        mut bob,
        carol,
    } = three();
    let Talk { caller, callee } = talk(&mut lab, &mut alice, &mut bob, "c1");
    refer(&mut lab, &mut alice, &caller, &format!("<sip:carol@{DOMAIN}>"));
    next_notify(&mut lab, &alice);
    let rung = lab.expect(&carol, "INVITE");
    carol.respond(&mut lab, &rung, 486, None);
    assert_eq!(next_notify(&mut lab, &alice), "SIP/2.0 486 Busy Here");
    hang_up(&mut lab, &mut bob, &callee, &alice);
    assert_eq!(lab.records.len(), 1);
    assert_eq!(lab.records[0].transferred_to, None);
}

#[test]
fn a_referrer_may_hang_up_while_the_named_phone_rings() {
    let Three {
        mut lab,
        mut alice,
        mut bob,
        carol,
    } = three();
    let Talk { caller, .. } = talk(&mut lab, &mut alice, &mut bob, "c1");
    refer(&mut lab, &mut alice, &caller, &format!("<sip:carol@{DOMAIN}>"));
    let rung = lab.expect(&carol, "INVITE");
    let bye = alice.in_dialog(&caller, Method::Bye);
    lab.send(alice.flow, &bye);
    lab.expect(&alice, "200 BYE");
    lab.expect_nothing(&bob);
    carol.respond(&mut lab, &rung, 200, Some(carol.sdp()));
    lab.expect(&carol, "ACK");
    lab.expect(&bob, "INVITE");
    assert_eq!(lab.exchange.calls()[0].legs, ["bob", "carol"]);
}

#[test]
fn nobody_to_transfer_to_is_refused_at_once() {
    let Three {
        mut lab,
        mut alice,
        mut bob,
        ..
    } = three();
    let Talk { caller, .. } = talk(&mut lab, &mut alice, &mut bob, "c1");
    let refer = alice
        .in_dialog(&caller, Method::Refer)
        .with("Refer-To", format!("<sip:zoe@{DOMAIN}>"));
    lab.send(alice.flow, &refer);
    lab.expect(&alice, "404 REFER");
}

/// alice talks with bob in one call and with carol in another, and brings the two together.
fn attended(swap_tags: bool) {
    let Three {
        mut lab,
        mut alice,
        mut bob,
        mut carol,
    } = three();
    let first = talk(&mut lab, &mut alice, &mut bob, "c1");
    let second = talk(&mut lab, &mut alice, &mut carol, "c2");
    let tag = |value: &str| value.split("tag=").nth(1).unwrap().to_owned();
    let (remote, local) = (tag(&second.caller.remote), tag(&second.caller.local));
    let (to_tag, from_tag) = if swap_tags { (local, remote) } else { (remote, local) };
    let replaces = format!("c2%3Bto-tag%3D{to_tag}%3Bfrom-tag%3D{from_tag}");
    let to = format!("<sip:carol@{DOMAIN}?Replaces={replaces}>");
    let refer = alice.in_dialog(&first.caller, Method::Refer).with("Refer-To", to);
    lab.send(alice.flow, &refer);
    // Her leg with carol ends, then the one with bob.
    let bye = lab.expect(&alice, "BYE");
    assert_eq!(bye.get("Call-ID"), Some("c2"));
    lab.expect(&alice, "202 REFER");
    alice.respond(&mut lab, &bye, 200, None);
    assert_eq!(next_notify(&mut lab, &alice), "SIP/2.0 200 OK");
    let bye = lab.expect(&alice, "BYE");
    assert_eq!(bye.get("Call-ID"), Some("c1"));
    alice.respond(&mut lab, &bye, 200, None);
    let change = lab.expect(&carol, "INVITE");
    carol.respond(&mut lab, &change, 200, Some(carol.sdp_with("sendrecv", 2)));
    lab.expect(&carol, "ACK");
    let change = lab.expect(&bob, "INVITE");
    bob.respond(&mut lab, &change, 200, Some(bob.sdp_with("sendrecv", 2)));
    lab.expect(&bob, "ACK");
    assert_eq!(lab.exchange.calls().len(), 1);
    assert_eq!(lab.records.len(), 1, "the call with carol ended as such");
    hang_up(&mut lab, &mut carol, &second.callee, &bob);
    assert_eq!(lab.records.len(), 2);
    assert_eq!(lab.exchange.calls().len(), 0);
    assert_eq!(lab.exchange.ports_in_use(), 0);
}

#[test]
fn attended_transfer_joins_two_calls() {
    attended(false);
}

#[test]
fn attended_transfer_works_with_swapped_tags() {
    attended(true);
}

#[test]
fn anothers_call_cannot_be_taken() {
    let Three {
        mut lab,
        mut alice,
        mut bob,
        mut carol,
    } = three();
    let mut dave = Phone::registered(&mut lab, "dave", "198.51.100.4:5060");
    let victim = talk(&mut lab, &mut alice, &mut bob, "c1");
    let own = talk(&mut lab, &mut dave, &mut carol, "c2");
    let tag = |value: &str| value.split("tag=").nth(1).unwrap().to_owned();
    let (to_tag, from_tag) = (tag(&victim.caller.remote), tag(&victim.caller.local));
    let to = format!("<sip:bob@{DOMAIN}?Replaces=c1%3Bto-tag%3D{to_tag}%3Bfrom-tag%3D{from_tag}>");
    let refer = dave.in_dialog(&own.caller, Method::Refer).with("Refer-To", to);
    lab.send(dave.flow, &refer);
    lab.expect(&dave, "481 REFER");
    let replaces = format!("c1;to-tag={to_tag};from-tag={from_tag}");
    dave.invite(&mut lab, "bob", "c3", |invite| {
        invite.with("Replaces", replaces).with("Require", "replaces")
    });
    lab.expect(&dave, "403 INVITE");
    assert_eq!(lab.exchange.calls().len(), 2);
}

#[test]
fn a_second_phone_of_an_account_takes_its_call_over() {
    let Three {
        mut lab,
        mut alice,
        mut bob,
        ..
    } = three();
    let victim = talk(&mut lab, &mut alice, &mut bob, "c1");
    let mut mobile = Phone::new("alice", "198.51.100.9:5060");
    let tag = |value: &str| value.split("tag=").nth(1).unwrap().to_owned();
    let replaces = format!(
        "c1;to-tag={};from-tag={}",
        tag(&victim.caller.remote),
        tag(&victim.caller.local)
    );
    let invite = mobile.invite(&mut lab, "bob", "c9", |invite| invite.with("Replaces", replaces));
    let change = lab.expect(&bob, "INVITE");
    bob.respond(&mut lab, &change, 200, Some(bob.sdp_with("sendrecv", 2)));
    lab.expect(&bob, "ACK");
    let ok = lab.expect(&mobile, "200 INVITE");
    mobile.ack(&mut lab, &invite, &ok);
    let bye = lab.expect(&alice, "BYE");
    alice.respond(&mut lab, &bye, 200, None);
    assert_eq!(lab.exchange.calls()[0].legs, ["bob", "alice"]);
    let _ = callee_dialog(&bob, &change);
    hang_up(&mut lab, &mut bob, &victim.callee, &mobile);
    assert_eq!(lab.records.len(), 1);
}
