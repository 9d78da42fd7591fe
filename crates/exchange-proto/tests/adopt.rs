//! A second node goes on with the calls of a first one that is gone, from its replica records.
#![allow(clippy::unwrap_used)]

mod phones;

use std::time::Duration;

use offhook_exchange_proto::relay::RelayCommand;
use offhook_exchange_proto::replica::{Applied, DecodeError, Replicas};
use offhook_exchange_proto::sip::{CSeq, Method};
use phones::{Lab, Phone, Talk, talk};

/// A call set up on one node, and another node that has adopted it.
fn taken_over() -> (Lab, Lab, Phone, Phone, Talk) {
    let mut first = Lab::with(|config| config.replicate = true);
    let mut alice = Phone::registered(&mut first, "alice", "198.51.100.1:5060");
    let mut bob = Phone::registered(&mut first, "bob", "198.51.100.2:5060");
    let talk = talk(&mut first, &mut alice, &mut bob, "c1");
    let mut replicas = Replicas::default();
    // Late and twice: the newest counts.
    for record in first.replicas.iter().chain(first.replicas.iter().rev()) {
        replicas.apply(record.clone());
    }
    let mut second = Lab::with(|config| {
        config.node = 2;
        config.epoch = 2;
        config.replicate = true;
    });
    for record in replicas.of_owner(1) {
        let outputs = second.exchange.adopt(record).unwrap();
        second.take(outputs);
    }
    (first, second, alice, bob, talk)
}

#[test]
fn media_hold_and_hanging_up_work_on_the_new_owner() {
    let (_, mut lab, mut alice, mut bob, talk) = taken_over();
    assert_eq!(lab.exchange.calls().len(), 1);
    assert_eq!(lab.exchange.bindings().count(), 2);
    assert_eq!(lab.exchange.ports_in_use(), 2);
    assert!(
        lab.relay
            .iter()
            .any(|command| matches!(command, RelayCommand::Pair { .. }))
    );

    let sdp = bob.sdp_with("sendonly", 2);
    let hold = bob
        .in_dialog(&talk.callee, Method::Invite)
        .with_body("application/sdp", sdp);
    lab.send(bob.flow, &hold);
    let carried = lab.expect(&alice, "INVITE");
    assert!(
        CSeq::parse(carried.get("CSeq").unwrap()).unwrap().number > 100,
        "above all that the old owner used"
    );
    alice.respond(&mut lab, &carried, 200, Some(alice.sdp_with("recvonly", 2)));
    lab.expect(&alice, "ACK");
    let ok = lab.expect(&bob, "200 INVITE");
    bob.ack(&mut lab, &hold, &ok);

    let bye = alice.in_dialog(&talk.caller, Method::Bye);
    lab.send(alice.flow, &bye);
    lab.expect(&alice, "200 BYE");
    let bye = lab.expect(&bob, "BYE");
    bob.respond(&mut lab, &bye, 200, None);
    assert_eq!(lab.records.len(), 1);
    assert_eq!(lab.exchange.ports_in_use(), 0);
    assert!(
        lab.replicas.last().unwrap().body.is_none(),
        "the standby is told that it is over"
    );
}

#[test]
fn a_call_whose_phones_are_gone_too_is_found_by_its_session_timer() {
    let (_, mut lab, ..) = taken_over();
    lab.pass(Duration::from_secs(1_000));
    assert_eq!(lab.exchange.calls().len(), 0);
    assert_eq!(lab.records.len(), 1);
}

#[test]
fn what_the_old_owner_writes_late_is_refused() {
    let (first, second, ..) = taken_over();
    let mut replicas = Replicas::default();
    for record in &second.replicas {
        assert_eq!(replicas.apply(record.clone()), Applied::Taken);
    }
    for record in first
        .replicas
        .iter()
        .filter(|record| second.replicas.iter().any(|newer| newer.key == record.key))
    {
        assert_eq!(replicas.apply(record.clone()), Applied::Stale);
    }
}

#[test]
fn records_of_another_build_and_damaged_ones_are_refused() {
    let (first, ..) = taken_over();
    let mut record = first.replicas.last().unwrap().clone();
    let mut lab = Lab::new();
    record.body.as_mut().unwrap()[0] = 9;
    assert_eq!(lab.exchange.adopt(&record).err(), Some(DecodeError::Schema(9)));
    record.body.as_mut().unwrap()[0] = 1;
    record.body.as_mut().unwrap().pop();
    assert_eq!(lab.exchange.adopt(&record).err(), Some(DecodeError::Damaged));
    assert_eq!(lab.exchange.calls().len(), 0);
}
