//! What strangers try: passwords by the thousand, scans, forged sound, bombs, records of another build.
#![allow(clippy::unwrap_used)]

mod phones;

use std::time::Duration;

use offhook_exchange_proto::Place;
use offhook_exchange_proto::guard::{ANSWERS_MAX, FAILURES_FREE};
use offhook_exchange_proto::relay::Latch;
use offhook_exchange_proto::sip::Method;
use offhook_exchange_proto::sip::digest::Algorithm;
use phones::{DOMAIN, Lab, Phone, authorize, talk};

/// Tries one password for bob's account; whether there was an answer.
fn guess(lab: &mut Lab, guesser: &mut Phone, challenge: &offhook_exchange_proto::sip::Message) -> bool {
    let mut request = guesser.request(
        Method::Register,
        &format!("sip:{DOMAIN}"),
        &format!("sip:bob@{DOMAIN}"),
        "r",
    );
    let credentials = authorize(&request, challenge, "bob", "a guess", Algorithm::Md5);
    request.push("Authorization", credentials);
    lab.send(guesser.flow, &request);
    !lab.got(guesser.flow).is_empty()
}

#[test]
fn guessing_passwords_is_met_with_silence_from_the_source_and_for_the_account() {
    let mut lab = Lab::new();
    let mut bob = Phone::registered(&mut lab, "bob", "198.51.100.2:5060");
    let mut guesser = Phone::new("bob", "203.0.113.9:5060");
    let first = guesser.request(
        Method::Register,
        &format!("sip:{DOMAIN}"),
        &format!("sip:bob@{DOMAIN}"),
        "r",
    );
    lab.send(guesser.flow, &first);
    let challenge = lab.expect(&guesser, "401 REGISTER");
    let answered = (0..1_000).filter(|_| guess(&mut lab, &mut guesser, &challenge)).count();
    assert!(answered as u32 <= FAILURES_FREE + 1, "{answered} guesses were answered");
    let mut elsewhere = Phone::new("bob", "203.0.113.10:5060");
    assert!(!guess(&mut lab, &mut elsewhere, &challenge), "nor from another address");
    assert_eq!(
        bob.register(&mut lab, "600").status(),
        Some(200),
        "the phone that is registered is not locked out"
    );
    // An hour of one guess a second buys no more than a dozen answers: each wrong one doubles the wait.
    let mut answered = 0;
    for _ in 0..3_600 {
        lab.pass(Duration::from_secs(1));
        answered += usize::from(guess(&mut lab, &mut guesser, &challenge));
    }
    assert!(answered <= 12, "{answered} guesses were answered in an hour");
}

#[test]
fn a_scanner_hears_nothing_after_a_while() {
    let mut lab = Lab::new();
    let mut scanner = Phone::new("100", "203.0.113.9:5060");
    for n in 0..2_000 {
        let uri = format!("sip:{n}@{DOMAIN}");
        let method = if n % 2 == 0 { Method::Options } else { Method::Register };
        let request = scanner.request(method, &uri, &uri, &format!("scan{n}"));
        lab.send(scanner.flow, &request);
    }
    let answered = lab.got(scanner.flow).len();
    assert!(answered as u32 <= ANSWERS_MAX, "{answered} of 2,000 were answered");
    assert!(lab.exchange.counters().ignored >= 1_700);
}

#[test]
fn forged_sound_is_refused_and_does_not_move_the_stream() {
    let phone = "198.51.100.1:4000".parse().unwrap();
    let behind_a_translator = "198.51.100.1:61000".parse().unwrap();
    let injector = "203.0.113.9:4000".parse().unwrap();
    let mut latch = Latch::new(Some(phone), "198.51.100.1".parse().unwrap());
    assert!(!latch.accepts(injector), "before the phone has spoken");
    assert!(latch.accepts(behind_a_translator));
    assert!(!latch.accepts(injector), "and after it");
    assert!(!latch.accepts("198.51.100.1:61002".parse().unwrap()), "learnt once");
    assert_eq!(latch.destination(), Some(behind_a_translator));
}

#[test]
fn a_description_made_to_burst_is_refused_and_leaves_nothing() {
    let mut lab = Lab::new();
    let mut alice = Phone::registered(&mut lab, "alice", "198.51.100.1:5060");
    let bob = Phone::registered(&mut lab, "bob", "198.51.100.2:5060");
    let mut bomb = alice.sdp();
    for n in 0..600 {
        bomb.extend(format!("m=audio {} RTP/AVP 0\r\n", 4_000 + 2 * n).bytes());
    }
    alice.invite(&mut lab, "bob", "bomb", |mut invite| {
        invite.body = bomb;
        invite
    });
    let got = lab.got(alice.flow);
    assert!(
        got.iter()
            .any(|answer| answer.status().is_some_and(|status| status >= 400)),
        "{got:?}"
    );
    lab.expect_nothing(&bob);
    lab.pass(Duration::from_secs(64));
    assert_eq!((lab.exchange.calls().len(), lab.exchange.ports_in_use()), (0, 0));
}

/// A standby of another build: its owner's records are refused one by one and by name, what it knows stays.
#[test]
fn records_of_another_layout_are_refused_and_the_others_go_on() {
    let mut first = Lab::with(|config| config.replicate = true);
    let mut alice = Phone::registered(&mut first, "alice", "198.51.100.1:5060");
    let mut bob = Phone::registered(&mut first, "bob", "198.51.100.2:5060");
    talk(&mut first, &mut alice, &mut bob, "c1");
    let mut records = first.exchange.records();
    let changed = records.len() / 2;
    let body = records[changed].body.as_mut().unwrap();
    body[0] = 99;
    let mut second = Lab::with(|config| config.node = 2);
    let refused = records
        .iter()
        .filter(|record| second.exchange.adopt(record, Place::Same, second.now).is_err())
        .count();
    assert_eq!(refused, 1);
    let adopted = second.exchange.calls().len() + second.exchange.bindings().count();
    assert_eq!(adopted, records.len() - 1);
}
