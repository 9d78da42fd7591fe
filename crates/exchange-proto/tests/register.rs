//! Registration: digest in both algorithms, bindings, expiry, second flows.
#![allow(clippy::unwrap_used)]

mod phones;

use std::sync::Arc;
use std::time::Duration;

use offhook_exchange_proto::Input;
use offhook_exchange_proto::flow::Flow;
use offhook_exchange_proto::sip::digest::Algorithm;
use offhook_exchange_proto::sip::{Message, Method};
use offhook_exchange_proto::time::Moment;
use offhook_exchange_proto::transaction::{Received, TRANSACTIONS_MAX, Transactions};
use phones::{DOMAIN, Lab, Phone, authorize};

#[test]
fn a_phone_registers_with_either_algorithm() {
    for algorithm in [Algorithm::Sha256, Algorithm::Md5] {
        let mut lab = Lab::new();
        let mut bob = Phone::new("bob", "198.51.100.2:5060");
        let uri = format!("sip:{DOMAIN}");
        let first = bob.request(Method::Register, &uri, &format!("sip:bob@{DOMAIN}"), "r");
        lab.send(bob.flow, &first);
        let challenge = lab.expect(&bob, "401 REGISTER");
        let mut again = bob.request(Method::Register, &uri, &format!("sip:bob@{DOMAIN}"), "r");
        again.push(
            "Authorization",
            authorize(&again, &challenge, "bob", "bob-pw", algorithm),
        );
        lab.send(bob.flow, &again);
        let ok = lab.expect(&bob, "200 REGISTER");
        assert!(ok.get("Contact").unwrap().contains("expires=600"));
        assert_eq!(lab.stored_bindings["bob"], 1);
    }
}

#[test]
fn a_wrong_password_and_anothers_address_are_refused() {
    let mut lab = Lab::new();
    let mut bob = Phone::new("bob", "198.51.100.2:5060");
    let uri = format!("sip:{DOMAIN}");
    let first = bob.request(Method::Register, &uri, &format!("sip:bob@{DOMAIN}"), "r");
    lab.send(bob.flow, &first);
    let challenge = lab.expect(&bob, "401 REGISTER");
    let mut wrong = bob.request(Method::Register, &uri, &format!("sip:bob@{DOMAIN}"), "r");
    wrong.push(
        "Authorization",
        authorize(&wrong, &challenge, "bob", "nonsense", Algorithm::Md5),
    );
    lab.send(bob.flow, &wrong);
    lab.expect(&bob, "401 REGISTER");
    let mut hijack = bob.request(Method::Register, &uri, &format!("sip:alice@{DOMAIN}"), "r");
    hijack.push(
        "Authorization",
        authorize(&hijack, &challenge, "bob", "bob-pw", Algorithm::Md5),
    );
    lab.send(bob.flow, &hijack);
    lab.expect(&bob, "403 REGISTER");
    assert_eq!(lab.exchange.bindings().count(), 0);
    assert_eq!(lab.exchange.counters().wrong_passwords, 1);
}

#[test]
fn an_old_nonce_is_called_stale_and_one_from_elsewhere_is_too() {
    let mut lab = Lab::new();
    let mut bob = Phone::new("bob", "198.51.100.2:5060");
    let uri = format!("sip:{DOMAIN}");
    let first = bob.request(Method::Register, &uri, &format!("sip:bob@{DOMAIN}"), "r");
    lab.send(bob.flow, &first);
    let challenge = lab.expect(&bob, "401 REGISTER");
    lab.pass(Duration::from_secs(121));
    let mut late = bob.request(Method::Register, &uri, &format!("sip:bob@{DOMAIN}"), "r");
    late.push(
        "Authorization",
        authorize(&late, &challenge, "bob", "bob-pw", Algorithm::Md5),
    );
    lab.send(bob.flow, &late);
    let again = lab.expect(&bob, "401 REGISTER");
    assert!(again.get("WWW-Authenticate").unwrap().contains("stale=true"));
    // Overheard and sent from another address.
    let mut thief = Phone::new("bob", "203.0.113.66:5060");
    let mut replay = thief.request(Method::Register, &uri, &format!("sip:bob@{DOMAIN}"), "r");
    replay.push(
        "Authorization",
        authorize(&replay, &again, "bob", "bob-pw", Algorithm::Md5),
    );
    lab.send(thief.flow, &replay);
    lab.expect(&thief, "401 REGISTER");
    assert_eq!(lab.exchange.bindings().count(), 0);
}

#[test]
fn bindings_expire_and_can_be_removed() {
    let mut lab = Lab::new();
    let mut bob = Phone::registered(&mut lab, "bob", "198.51.100.2:5060");
    assert_eq!(lab.exchange.bindings().count(), 1);
    lab.pass(Duration::from_secs(601));
    assert_eq!(lab.exchange.bindings().count(), 0);
    assert_eq!(lab.stored_bindings["bob"], 0);
    bob.register(&mut lab, "600");
    bob.register(&mut lab, "0");
    assert_eq!(lab.exchange.bindings().count(), 0);
}

#[test]
fn too_brief_an_expiry_is_refused() {
    let mut lab = Lab::new();
    let mut bob = Phone::new("bob", "198.51.100.2:5060");
    let uri = format!("sip:{DOMAIN}");
    let request = bob
        .request(Method::Register, &uri, &format!("sip:bob@{DOMAIN}"), "r")
        .with("Expires", "10");
    bob.send_authenticated(&mut lab, request);
    let refused = lab.expect(&bob, "423 REGISTER");
    assert_eq!(refused.get("Min-Expires"), Some("60"));
}

#[test]
fn outbound_flows_of_one_phone_replace_each_other_by_reg_id_and_go_with_their_connection() {
    let mut lab = Lab::new();
    let uri = format!("sip:{DOMAIN}");
    let mut flows = Vec::new();
    for (port, reg_id) in [(6001, 1), (6002, 2), (6003, 2)] {
        let mut bob = Phone::new("bob", &format!("198.51.100.2:{port}"));
        let mut request = bob.request(
            Method::Register,
            &uri,
            &format!("sip:bob@{DOMAIN}"),
            &format!("r{port}"),
        );
        request.replace(
            "Contact",
            format!("{};reg-id={reg_id};+sip.instance=\"<urn:uuid:1>\"", bob.contact()),
        );
        request.push("Supported", "path, outbound");
        bob.send_authenticated(&mut lab, request);
        let ok = lab.expect(&bob, "200 REGISTER");
        assert_eq!(ok.get("Require"), Some("outbound"));
        flows.push(bob.flow);
    }
    let live: Vec<_> = lab.exchange.bindings().map(|(_, binding)| binding.flow).collect();
    assert_eq!(
        live,
        [flows[0], flows[2]],
        "the second reg-id=2 took the place of the first"
    );
    let outputs = lab.exchange.handle(Input::FlowClosed(flows[0]), lab.now);
    lab.take(outputs);
    assert_eq!(lab.exchange.bindings().count(), 1);
}

#[test]
fn path_comes_back_and_is_used_as_route() {
    let mut lab = Lab::new();
    let mut bob = Phone::new("bob", "198.51.100.2:5060");
    let request = bob
        .request(
            Method::Register,
            &format!("sip:{DOMAIN}"),
            &format!("sip:bob@{DOMAIN}"),
            "r",
        )
        .with("Path", "<sip:edge.test;lr>")
        .with("Supported", "path");
    bob.send_authenticated(&mut lab, request);
    assert_eq!(lab.expect(&bob, "200 REGISTER").get("Path"), Some("<sip:edge.test;lr>"));
    let mut alice = Phone::new("alice", "198.51.100.1:5060");
    alice.invite(&mut lab, "bob", "c", |invite| invite);
    assert_eq!(lab.expect(&bob, "INVITE").get("Route"), Some("<sip:edge.test;lr>"));
}

/// Answers are kept for half a minute, for whoever asks again; in a storm of requests for less, so that the table does
/// not fill and turn calls away.
#[test]
fn a_crowded_table_forgets_what_is_answered_sooner() {
    const CROWDED: usize = TRANSACTIONS_MAX / 2 + 1;
    const MORE: usize = 1_000;
    let mut transactions = Transactions::default();
    let (flow, now) = (Flow::udp("198.51.100.1:5060".parse().unwrap()), Moment(1_000_000));
    for n in 0..CROWDED + MORE {
        let request = Message::request(Method::Register, "sip:pbx.test")
            .with("Via", format!("SIP/2.0/UDP 198.51.100.1;branch=z9hG4bK{n};rport"))
            .with("CSeq", "1 REGISTER");
        let Received::New(server) = transactions.receive_request(&Arc::new(request), flow, now) else {
            panic!("{n} was not taken");
        };
        transactions.respond(server, &Message::response(200), now);
    }
    for (after_ms, held) in [
        (4_999, CROWDED + MORE),
        (5_001, CROWDED - 1),
        (31_999, CROWDED - 1),
        (32_001, 0),
    ] {
        transactions.handle_timeout(now.plus_ms(after_ms));
        assert_eq!(transactions.count(), held, "after {after_ms} ms");
    }
}
