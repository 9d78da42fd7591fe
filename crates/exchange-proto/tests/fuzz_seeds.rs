//! Every committed fuzz input of the exchange, and changes to it, go through the decoder that it is for.
//!
//! `OFFHOOK_BLESS=1 cargo test -p offhook-exchange-proto --test fuzz_seeds` writes the samples anew.
#![allow(clippy::unwrap_used)]

mod phones;

use std::path::{Path, PathBuf};
use std::time::Instant;

use offhook_exchange_proto::fuzzing::TARGETS;
use offhook_exchange_proto::locator::{Hello, Role};
use offhook_exchange_proto::sip::Method;
use offhook_exchange_proto::time::Moment;
use offhook_exchange_proto::wire::{Live, Notice, Wire};
use phones::{Lab, Phone, talk};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn base() -> Instant {
    #[allow(clippy::disallowed_methods, reason = "an instant can be had in no other way")]
    Instant::now()
}

/// One of every kind, from a call on a simulated exchange.
fn samples() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut lab = Lab::with(|config| config.replicate = true);
    let mut alice = Phone::registered(&mut lab, "alice", "198.51.100.1:5060");
    let mut bob = Phone::registered(&mut lab, "bob", "198.51.100.2:5060");
    let call = talk(&mut lab, &mut alice, &mut bob, "c1");
    let mut samples = Vec::new();
    for method in [Method::Bye, Method::Info, Method::Refer, Method::Update] {
        let request = alice.in_dialog(&call.caller, method.clone());
        samples.push(("exchange_sip", method.as_str().to_lowercase(), request.to_bytes()));
    }
    let invite = alice.request(Method::Invite, "sip:bob@pbx.test", "sip:bob@pbx.test", "c2");
    let invite = invite.with_body("application/sdp", alice.sdp());
    samples.push(("exchange_sip", "invite".to_owned(), invite.to_bytes()));
    let register = alice.request(Method::Register, "sip:pbx.test", "sip:alice@pbx.test", "r1");
    samples.push(("exchange_sip", "register".to_owned(), register.to_bytes()));
    samples.push(("exchange_sdp", "audio".to_owned(), alice.sdp()));
    samples.push(("exchange_sdp", "hold".to_owned(), alice.sdp_with("sendonly", 2)));
    let bye = alice.in_dialog(&call.caller, Method::Bye);
    let records = lab.exchange.records();
    lab.send(alice.flow, &bye);
    let all: Vec<_> = records
        .into_iter()
        .chain(lab.exchange.records())
        .chain(lab.replicas.clone())
        .collect();
    let mut names = std::collections::BTreeSet::new();
    for record in &all {
        let name = format!("{:?}", record.key)
            .split('(')
            .next()
            .unwrap_or_default()
            .to_lowercase();
        if let Some(body) = record.body.clone().filter(|_| names.insert(name.clone())) {
            samples.push(("exchange_replica", name, body));
        }
    }
    let hello = Hello {
        node: 1,
        started: Moment(2),
        site: "amsterdam".to_owned(),
        network: "10.81.1.0/24".to_owned(),
        detector: "10.81.1.1:5070".parse().unwrap(),
        roles: vec![Role::Calls, Role::Witness],
        owns: Vec::new(),
        holds: vec![3],
        leaving: false,
    };
    samples.push((
        "exchange_instance",
        "hello".to_owned(),
        Wire::default().encode(&Notice::Hello(hello)),
    ));
    let live = Live {
        shard: 1,
        stream: 2,
        number: 3,
        clock: Moment(4),
        whole: None,
        records: all.into_iter().take(4).collect(),
    };
    samples.push((
        "exchange_instance",
        "live".to_owned(),
        Wire::default().encode(&Notice::Live(live)),
    ));
    samples.push((
        "exchange_instance",
        "resync".to_owned(),
        Wire::default().encode(&Notice::Resync { shard: 1, standby: 2 }),
    ));
    samples
}

#[test]
fn every_sample_is_accepted_and_every_target_has_seeds_a_dictionary_and_a_fuzzer() {
    for (target, name, bytes) in samples() {
        let known = TARGETS.iter().find(|known| known.name == target).unwrap();
        assert!((known.run)(&bytes, base()), "{target} does not accept {name}");
        let path = folder().join("seeds").join(target).join(&name);
        if std::env::var_os("OFFHOOK_BLESS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(path.exists(), "{} is missing: run with OFFHOOK_BLESS=1", path.display());
    }
    for target in TARGETS {
        assert!(folder().join(format!("dictionaries/{}.dict", target.name)).exists());
        assert!(folder().join(format!("fuzz_targets/{}.rs", target.name)).exists());
    }
}

#[test]
fn every_seed_and_changes_to_it_are_survived() {
    let mut replayed = 0;
    for target in TARGETS {
        for entry in std::fs::read_dir(folder().join("seeds").join(target.name)).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            (target.run)(&bytes, base());
            let mut changed = bytes.clone();
            for n in 0..200_usize {
                // Truncations, and octets changed one after another at places spread over the whole.
                let at = n * 7_919 % bytes.len().max(1);
                (target.run)(&bytes[..at.min(bytes.len())], base());
                if let Some(octet) = changed.get_mut(at) {
                    *octet = octet.wrapping_add((n as u8).wrapping_mul(37).wrapping_add(1));
                }
                (target.run)(&changed, base());
            }
            replayed += 1;
        }
    }
    assert!(replayed >= TARGETS.len());
}
