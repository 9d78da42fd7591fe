//! What the fuzzers call: one function for each decoder of bytes from outside. Not for anything else.
//!
//! `fuzz/fuzz_targets/exchange_*.rs` call them with libFuzzer; `tests/fuzz_seeds.rs` with what is in `fuzz/seeds` and
//! changes to it. Each checks more than that nothing panics.

use std::net::IpAddr;
use std::time::Instant;

use crate::bridge::{Call, CallRecord};
use crate::flow::Flow;
use crate::registrar::Binding;
use crate::replica::{Key, Record, Setup, decode};
use crate::route::Tables;
use crate::sip::sdp::{Origin, Sdp};
use crate::sip::{Framer, Message};
use crate::time::Moment;
use crate::wire::{Announcement, Wire};
use crate::{Config, Exchange, Input, Place, Seeds};

/// One decoder under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name of the fuzz target, of its folder of seeds and of its dictionary.
    pub name: &'static str,
    /// Takes anything; whether it was accepted; panics on a broken promise.
    pub run: fn(&[u8], Instant) -> bool,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target {
        name: "exchange_sip",
        run: sip,
    },
    Target {
        name: "exchange_sdp",
        run: |data, _| sdp(data),
    },
    Target {
        name: "exchange_replica",
        run: replica,
    },
    Target {
        name: "exchange_instance",
        run: |data, _| instance(data),
    },
];

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn exchange(now: Instant) -> Exchange {
    let seeds = Seeds {
        tokens: [1; 32],
        nonces: [2; 32],
    };
    let config = Config::new("fuzz.test", ADDRESS);
    Exchange::new(config, seeds, Tables::default(), now, Moment(1_800_000_000_000))
}

/// One datagram, or a stream, of SIP: what is written again says the same, and an exchange answers a stranger with no
/// more octets than it got.
pub fn sip(data: &[u8], now: Instant) -> bool {
    let mut framer = Framer::default();
    framer.push(data);
    while let Ok(Some(_)) = framer.next_frame() {}
    let mut exchange = exchange(now);
    let flow = Flow::udp(std::net::SocketAddr::new(
        IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1)),
        5060,
    ));
    let received = Input::Received {
        flow,
        bytes: data.to_vec(),
    };
    let outputs = exchange.handle(received, now);
    let answered: usize = outputs.send.iter().map(|transmit| transmit.bytes.len()).sum();
    assert!(answered <= data.len(), "{answered} octets for {}", data.len());
    let Ok(message) = Message::parse(data) else {
        return false;
    };
    if message.flaw.is_none() {
        let again = Message::parse(&message.to_bytes());
        assert!(again.is_ok(), "what was read can be written and read");
    }
    true
}

/// A session description: what is carried on has one line of origin, ours.
pub fn sdp(data: &[u8]) -> bool {
    let Ok(sdp) = Sdp::parse(data) else { return false };
    assert!(sdp.media_count() <= 4);
    let origin = Origin {
        session: 1,
        version: 2,
        address: ADDRESS,
    };
    let ports: Vec<u16> = (0..sdp.media_count() as u16).map(|n| 30_000 + 2 * n).collect();
    let carried = sdp.rewrite(origin, Some((ADDRESS, &ports)));
    let again = Sdp::parse(&carried);
    assert!(again.is_ok(), "what was carried can be carried on");
    true
}

/// The body of a replica record, as each kind of thing: one that is taken is gone on with, until it is gone.
pub fn replica(data: &[u8], now: Instant) -> bool {
    let keys: [Key; 4] = [
        Key::Call("c".to_owned()),
        Key::Bindings("a".to_owned()),
        Key::Setup("s".to_owned()),
        Key::Ended("e".to_owned()),
    ];
    let known = [
        decode::<Call>(data).is_ok(),
        decode::<Vec<Binding>>(data).is_ok(),
        decode::<Setup>(data).is_ok(),
        decode::<CallRecord>(data).is_ok(),
    ];
    for place in [Place::Same, Place::Elsewhere] {
        for (key, known) in keys.iter().zip(known) {
            let mut exchange = exchange(now);
            let record = Record {
                key: key.clone(),
                owner: 1,
                epoch: 1,
                version: 1,
                body: Some(data.to_vec()),
            };
            let _ = record.media();
            let adopted = exchange.adopt(&record, place, now);
            assert_eq!(adopted.is_ok(), known, "{key:?}");
            for _ in 0..4 {
                let Some((due, _)) = exchange.poll_timeout() else { break };
                let _ = exchange.handle(Input::Timeout, due);
            }
        }
    }
    known.contains(&true)
}

/// What instances say to each other.
pub fn instance(data: &[u8]) -> bool {
    // Nobody who lacks the key finds a datagram that is believed.
    assert!(Wire::default().unseal(data, &[7; 32]).is_err());
    if let Some(announcement) = Announcement::parse(data) {
        assert!(Announcement::parse(announcement.to_string().as_bytes()).is_some());
        return true;
    }
    match Wire::default().decode(data) {
        Ok(notice) => {
            assert_eq!(Wire::default().decode(&Wire::default().encode(&notice)), Ok(notice));
            true
        }
        Err(_) => false,
    }
}
