//! A call from INVITE to BYE, its media through the relay, its record written once.
#![allow(clippy::unwrap_used)]

mod phones;

use std::time::Duration;

use offhook_exchange_proto::bridge::Disposition;
use offhook_exchange_proto::relay::RelayCommand;
use offhook_exchange_proto::sip::Method;
use phones::{Lab, Phone, talk};

#[test]
fn two_phones_talk_and_hang_up() {
    let mut lab = Lab::new();
    let mut alice = Phone::registered(&mut lab, "alice", "198.51.100.1:5060");
    let mut bob = Phone::registered(&mut lab, "bob", "198.51.100.2:5060");
    let talk = talk(&mut lab, &mut alice, &mut bob, "c1");
    assert_ne!(talk.caller.call_id, talk.callee.call_id, "each leg has its own dialog");
    assert_eq!(lab.exchange.calls().len(), 1);
    assert!(
        lab.relay
            .iter()
            .any(|command| matches!(command, RelayCommand::Pair { .. }))
    );
    assert_eq!(lab.exchange.ports_in_use(), 2);

    lab.pass(Duration::from_secs(10));
    let bye = bob.in_dialog(&talk.callee, Method::Bye);
    lab.send(bob.flow, &bye);
    lab.expect(&bob, "200 BYE");
    let bye = lab.expect(&alice, "BYE");
    alice.respond(&mut lab, &bye, 200, None);

    assert_eq!(lab.records.len(), 1);
    let record = &lab.records[0];
    assert_eq!((record.from.as_str(), record.to.as_str()), ("alice", "bob"));
    assert_eq!(record.disposition, Disposition::Answered);
    assert_eq!(record.ended.since_ms(record.answered.unwrap()), 10_000);
    assert_eq!(lab.exchange.calls().len(), 0);
    assert_eq!(lab.exchange.ports_in_use(), 0);
    lab.pass(Duration::from_secs(120));
    assert_eq!(lab.exchange.transaction_count(), 0, "nothing is left behind");
    assert_eq!(lab.records.len(), 1);
}

#[test]
fn an_extension_reaches_its_account() {
    let mut lab = Lab::new();
    let mut alice = Phone::registered(&mut lab, "alice", "198.51.100.1:5060");
    let bob = Phone::registered(&mut lab, "bob", "198.51.100.2:5060");
    alice.invite(&mut lab, "101", "c1", |invite| invite);
    lab.expect(&bob, "INVITE");
}

#[test]
fn nobody_and_nowhere_are_told_apart() {
    let mut lab = Lab::new();
    let mut alice = Phone::registered(&mut lab, "alice", "198.51.100.1:5060");
    alice.invite(&mut lab, "zoe", "c1", |invite| invite);
    lab.expect(&alice, "404 INVITE");
    alice.invite(&mut lab, "bob", "c2", |invite| invite);
    lab.expect(&alice, "480 INVITE");
    assert_eq!(
        lab.records.len(),
        1,
        "a call that was routed has a record, a wrong number has none"
    );
}

#[test]
fn the_200_is_repeated_until_its_ack_and_the_call_ends_without_one() {
    let mut lab = Lab::new();
    let mut alice = Phone::registered(&mut lab, "alice", "198.51.100.1:5060");
    let bob = Phone::registered(&mut lab, "bob", "198.51.100.2:5060");
    alice.invite(&mut lab, "bob", "c1", |invite| invite);
    let invite = lab.expect(&bob, "INVITE");
    bob.respond(&mut lab, &invite, 200, Some(bob.sdp()));
    lab.expect(&bob, "ACK");
    lab.expect(&alice, "200 INVITE");
    lab.pass(Duration::from_secs(31));
    let repeats = lab.got(alice.flow).len();
    assert!((9..=11).contains(&repeats), "{repeats}");
    lab.pass(Duration::from_secs(2));
    lab.expect(&bob, "BYE");
    assert_eq!(lab.records.len(), 1);
}

#[test]
fn a_stranger_who_knows_the_tags_cannot_hang_up() {
    let mut lab = Lab::new();
    let mut alice = Phone::registered(&mut lab, "alice", "198.51.100.1:5060");
    let mut bob = Phone::registered(&mut lab, "bob", "198.51.100.2:5060");
    let talk = talk(&mut lab, &mut alice, &mut bob, "c1");
    let mut stranger = Phone::new("alice", "203.0.113.9:5060");
    stranger.next_cseq();
    stranger.next_cseq();
    stranger.next_cseq();
    stranger.next_cseq();
    stranger.next_cseq();
    let bye = stranger.in_dialog(&talk.caller, Method::Bye);
    lab.send(stranger.flow, &bye);
    assert_eq!(lab.exchange.calls()[0].legs.len(), 2);
    lab.expect_nothing(&bob);
    assert_eq!(lab.records.len(), 0);
}
