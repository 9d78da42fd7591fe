//! A second node goes on with the calls of a first one that is gone, from its replica records.
#![allow(clippy::unwrap_used)]

mod phones;

use std::time::Duration;

use offhook_exchange_proto::flow::{Flow, Transport};
use offhook_exchange_proto::relay::RelayCommand;
use offhook_exchange_proto::replica::{Applied, DecodeError, Replicas};
use offhook_exchange_proto::sip::{CSeq, Method};
use offhook_exchange_proto::{Input, Place};
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
        let outputs = second.exchange.adopt(record, Place::Same, second.now).unwrap();
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

/// The old owner's clock was twenty years behind, then twenty ahead: its calls end when they would have, not at once
/// and not never.
#[test]
fn clocks_that_are_years_apart_move_no_deadline() {
    const YEARS_MS: i64 = 20 * 365 * 24 * 3_600 * 1_000;
    for ahead_ms in [YEARS_MS, -YEARS_MS] {
        let (first, second, ..) = taken_over();
        let mut lab = Lab::with(|config| {
            config.node = 3;
            config.epoch = 3;
        });
        let mut replicas = Replicas::default();
        for record in &first.replicas {
            replicas.apply(record.clone());
        }
        for record in replicas.of_owner(1) {
            // As the other clock would have written it, and as the standby reads it.
            let foreign = record.clone().by_clock_ahead(-ahead_ms);
            assert_ne!(&foreign, record);
            let ours = foreign.by_clock_ahead(ahead_ms);
            assert_eq!(&ours, record);
            let outputs = lab.exchange.adopt(&ours, Place::Same, lab.now).unwrap();
            lab.take(outputs);
        }
        assert_eq!(lab.exchange.calls()[0].started, second.exchange.calls()[0].started);
        lab.pass(Duration::from_secs(600));
        assert_eq!(lab.exchange.calls().len(), 1, "not at once");
        lab.pass(Duration::from_secs(1_000));
        assert_eq!(lab.exchange.calls().len(), 0, "not never");
    }
}

/// The control: taken as they are, the other clock's deadlines end every call within minutes.
#[test]
fn deadlines_of_a_clock_years_behind_would_end_calls_long_before_their_time() {
    let (first, ..) = taken_over();
    let mut lab = Lab::new();
    let mut replicas = Replicas::default();
    for record in &first.replicas {
        replicas.apply(record.clone());
    }
    for record in replicas.of_owner(1) {
        let foreign = record.clone().by_clock_ahead(-600_000_000_000);
        let outputs = lab.exchange.adopt(&foreign, Place::Same, lab.now).unwrap();
        lab.take(outputs);
    }
    lab.pass(Duration::from_secs(300));
    assert_eq!(lab.exchange.calls().len(), 0);
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
    assert_eq!(
        lab.exchange.adopt(&record, Place::Same, lab.now).err(),
        Some(DecodeError::Schema(9))
    );
    record.body.as_mut().unwrap()[0] = 1;
    record.body.as_mut().unwrap().pop();
    assert_eq!(
        lab.exchange.adopt(&record, Place::Same, lab.now).err(),
        Some(DecodeError::Damaged)
    );
    assert_eq!(lab.exchange.calls().len(), 0);
}

/// A second node under another address.
fn other_node() -> Lab {
    Lab::with(|config| {
        config.node = 2;
        config.address = "203.0.113.2".parse().unwrap();
        config.replicate = true;
    })
}

/// It takes over what the first one put out.
fn adopt_all(first: &Lab, second: &mut Lab) {
    let mut replicas = Replicas::default();
    for record in &first.replicas {
        replicas.apply(record.clone());
    }
    for record in replicas.live() {
        let outputs = second.exchange.adopt(record, Place::Elsewhere, second.now).unwrap();
        second.take(outputs);
    }
    let outputs = second.exchange.put_out_adopted();
    second.take(outputs);
}

fn elsewhere(first: &Lab) -> Lab {
    let mut second = other_node();
    adopt_all(first, &mut second);
    second
}

/// A translator lets in whom the phone has spoken to: the new owner has a flow of its own, from another port.
#[test]
fn a_phone_with_two_flows_is_reached_over_the_one_that_it_keeps_to_the_new_owner() {
    let mut first = Lab::with(|config| config.replicate = true);
    let mut second = other_node();
    let mut alice = Phone::registered(&mut first, "alice", "198.51.100.1:5060");
    let mut bob = Phone::new("bob", "198.51.100.2:1001");
    let contact = bob.contact();
    bob.register_flow(&mut first, &contact, 1);
    let mut other_flow = Phone::new("bob", "198.51.100.2:2002");
    other_flow.register_flow(&mut second, &contact, 2);
    let talk = talk(&mut first, &mut alice, &mut bob, "c1");
    // And one that rings.
    let mut carol = Phone::registered(&mut first, "carol", "198.51.100.3:5060");
    carol.invite(&mut first, "bob", "c2", |request| request);
    first.expect(&bob, "INVITE");

    adopt_all(&first, &mut second);
    let told = second.expect(&other_flow, "INVITE");
    assert!(
        told.get("To").unwrap().contains("tag="),
        "the call that is up comes first"
    );
    second.expect(&other_flow, "CANCEL");
    second.expect(&other_flow, "INVITE");
    other_flow.respond(&mut second, &told, 200, Some(bob.sdp()));
    second.expect(&other_flow, "ACK");
    second.expect_nothing(&bob);

    let bye = bob.in_dialog(&talk.callee, Method::Bye);
    second.send(other_flow.flow, &bye);
    second.expect(&other_flow, "200 BYE");
    second.expect(&alice, "BYE");
}

/// One flow, to the old owner alone: nothing gets through its translator until the phone registers elsewhere.
#[test]
fn a_phone_that_cannot_be_told_is_told_when_it_has_registered_anew() {
    let mut first = Lab::with(|config| config.replicate = true);
    let mut alice = Phone::registered(&mut first, "alice", "198.51.100.1:5060");
    let mut bob = Phone::registered(&mut first, "bob", "198.51.100.2:1001");
    talk(&mut first, &mut alice, &mut bob, "c1");
    let mut lab = elsewhere(&first);
    let told = lab.expect(&alice, "INVITE");
    alice.respond(&mut lab, &told, 200, Some(alice.sdp()));
    lab.pass(Duration::from_secs(40));
    assert_eq!(lab.exchange.calls().len(), 1, "it is waited for");
    lab.got(bob.flow);

    let mut new_flow = Phone::new("bob", "198.51.100.2:2002");
    new_flow.register_flow(&mut lab, &bob.contact(), 1);
    let told = lab.expect(&new_flow, "INVITE");
    new_flow.respond(&mut lab, &told, 200, Some(bob.sdp()));
    lab.expect(&new_flow, "ACK");
    lab.expect_nothing(&bob);
}

/// TCP: the connection is gone with the old owner, or without any takeover.
#[test]
fn a_call_goes_on_over_the_connection_on_which_its_phone_registers_anew() {
    let connection = |n| Flow {
        transport: Transport::Tcp,
        remote: "198.51.100.2:1001".parse().unwrap(),
        connection: n,
    };
    for taken_over in [true, false] {
        let mut first = Lab::with(|config| config.replicate = true);
        let mut alice = Phone::registered(&mut first, "alice", "198.51.100.1:5060");
        let mut bob = Phone::new("bob", "198.51.100.2:1001");
        bob.flow = connection(7);
        bob.register(&mut first, "600");
        let talk = talk(&mut first, &mut alice, &mut bob, "c1");
        let mut lab = if taken_over {
            let mut second = Lab::with(|config| config.epoch = 2);
            let mut replicas = Replicas::default();
            for record in &first.replicas {
                replicas.apply(record.clone());
            }
            for record in replicas.live() {
                let outputs = second.exchange.adopt(record, Place::Same, second.now).unwrap();
                second.take(outputs);
            }
            second
        } else {
            let closed = Input::FlowClosed(bob.flow);
            let outputs = first.exchange.handle(closed, first.now);
            first.take(outputs);
            first
        };
        bob.flow = connection(8);
        bob.register(&mut lab, "600");
        assert_eq!(
            lab.exchange.bindings().filter(|(account, _)| *account == "bob").count(),
            1
        );
        let bye = alice.in_dialog(&talk.caller, Method::Bye);
        lab.send(alice.flow, &bye);
        lab.expect(&bob, "BYE");
    }
}

#[test]
fn from_another_address_each_phone_is_told_where_the_call_goes_on() {
    let mut first = Lab::with(|config| config.replicate = true);
    let mut alice = Phone::registered(&mut first, "alice", "198.51.100.1:5060");
    let mut bob = Phone::registered(&mut first, "bob", "198.51.100.2:5060");
    let talk = talk(&mut first, &mut alice, &mut bob, "c1");
    let mut lab = elsewhere(&first);
    for phone in [&alice, &bob] {
        let told = lab.expect(phone, "INVITE");
        let body = String::from_utf8_lossy(&told.body).into_owned();
        assert!(body.contains("c=IN IP4 203.0.113.2"), "{body}");
        assert!(told.get("Contact").unwrap().contains("203.0.113.2"));
        phone.respond(&mut lab, &told, 200, Some(phone.sdp()));
        lab.expect(phone, "ACK");
    }
    let pairs = lab
        .relay
        .iter()
        .filter(|command| matches!(command, RelayCommand::Pair { .. }));
    assert!(pairs.count() > 0);

    let bye = bob.in_dialog(&talk.callee, Method::Bye);
    lab.send(bob.flow, &bye);
    lab.expect(&bob, "200 BYE");
    let bye = lab.expect(&alice, "BYE");
    alice.respond(&mut lab, &bye, 200, None);
    assert_eq!(lab.records.len(), 1);
    assert_eq!(lab.exchange.ports_in_use(), 0);
}

#[test]
fn a_phone_that_is_offering_something_itself_is_told_again() {
    let mut first = Lab::with(|config| config.replicate = true);
    let mut alice = Phone::registered(&mut first, "alice", "198.51.100.1:5060");
    let mut bob = Phone::registered(&mut first, "bob", "198.51.100.2:5060");
    talk(&mut first, &mut alice, &mut bob, "c1");
    let mut lab = elsewhere(&first);
    let told = lab.expect(&alice, "INVITE");
    alice.respond(&mut lab, &told, 491, None);
    lab.pass(Duration::from_secs(3));
    let again = lab.expect(&alice, "INVITE");
    alice.respond(&mut lab, &again, 200, Some(alice.sdp()));
    lab.expect(&alice, "ACK");
    assert_eq!(lab.exchange.calls().len(), 1);
}

#[test]
fn a_call_that_was_ringing_rings_again_and_is_answered() {
    let mut first = Lab::with(|config| config.replicate = true);
    let mut alice = Phone::registered(&mut first, "alice", "198.51.100.1:5060");
    let bob = Phone::registered(&mut first, "bob", "198.51.100.2:5060");
    let invite = alice.invite(&mut first, "bob", "c1", |request| request);
    let rung = first.expect(&bob, "INVITE");
    bob.respond(&mut first, &rung, 180, None);
    first.expect(&alice, "180 INVITE");

    let mut lab = elsewhere(&first);
    let cancel = lab.expect(&bob, "CANCEL");
    assert_eq!(cancel.get("Call-ID"), rung.get("Call-ID"));
    let again = lab.expect(&bob, "INVITE");
    assert_ne!(again.get("Call-ID"), rung.get("Call-ID"));
    bob.respond(&mut lab, &again, 200, Some(bob.sdp()));
    let ok = lab.expect(&alice, "200 INVITE");
    alice.ack(&mut lab, &invite, &ok);
    lab.expect(&bob, "ACK");
    assert_eq!(lab.exchange.calls()[0].answered_by.as_deref(), Some("bob"));
}

#[test]
fn the_record_of_a_call_that_just_ended_is_not_lost_with_its_node() {
    let mut first = Lab::with(|config| config.replicate = true);
    let mut alice = Phone::registered(&mut first, "alice", "198.51.100.1:5060");
    let mut bob = Phone::registered(&mut first, "bob", "198.51.100.2:5060");
    let talk = talk(&mut first, &mut alice, &mut bob, "c1");
    let bye = alice.in_dialog(&talk.caller, Method::Bye);
    first.send(alice.flow, &bye);
    let bye = first.expect(&bob, "BYE");
    bob.respond(&mut first, &bye, 200, None);
    let mut lab = elsewhere(&first);
    assert_eq!(lab.records, first.records);
    let call = lab.records[0].call.clone();
    let outputs = lab.exchange.handle(Input::Recorded(call), lab.now);
    lab.take(outputs);
    assert!(
        lab.replicas.last().unwrap().body.is_none(),
        "stored for good: standbys forget it"
    );
    assert!(
        lab.exchange
            .records()
            .iter()
            .all(|record| !matches!(record.key, offhook_exchange_proto::replica::Key::Ended(_)))
    );
}
