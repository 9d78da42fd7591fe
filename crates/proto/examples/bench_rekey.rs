//! Rekey: what it costs to seal a new epoch to every device of a room, and to open it on one of them.
//!
//! To reach: 400 devices in at most 36 KB and 100 ms (RFC 9180 costs 80 B a device).

use std::collections::BTreeMap;
use std::time::Instant;

use offhook_proto::crypto::{KeyPair, SealKeyPair, Secret};
use offhook_proto::history::{Class, Clock, Header, LogKey};
use offhook_proto::identity::DeviceId;
use offhook_proto::rooms::epochs::seal_slots;
use offhook_proto::rooms::{Control, ControlPayload, EpochSecret, Op};
use offhook_proto::wire::Wire;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

const ROUNDS: usize = 5;

#[allow(clippy::disallowed_methods, reason = "a bench measures real time")]
fn main() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    println!("devices   payload_B   seal_ms   open_one_ms   (best of {ROUNDS})");
    for devices in [50, 200, 400, 1_000] {
        let keys: Vec<(DeviceId, SealKeyPair)> = (0..devices)
            .map(|_| {
                let device = DeviceId(KeyPair::random(&mut rng).public());
                (device, SealKeyPair::from_seed(Secret::random(&mut rng)))
            })
            .collect();
        let recipients: BTreeMap<_, _> = keys.iter().map(|(device, key)| (*device, key.public())).collect();
        let (mut seal_ms, mut open_ms, mut payload_bytes) = (f64::MAX, f64::MAX, 0);
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let secret = EpochSecret::random(&mut rng);
            let payload = sealed(&secret, &recipients, &mut rng);
            seal_ms = seal_ms.min(start.elapsed().as_secs_f64() * 1e3);
            payload_bytes = payload.to_bytes().len();
            let (device, key) = &keys[devices / 2];
            let start = Instant::now();
            let opened = payload.open_slot(device, std::slice::from_ref(key));
            open_ms = open_ms.min(start.elapsed().as_secs_f64() * 1e3);
            assert_eq!(opened, Some(secret));
        }
        println!("{devices:>7}   {payload_bytes:>9}   {seal_ms:>7.1}   {open_ms:>11.2}");
        assert!(devices != 400 || payload_bytes <= 36_000);
    }
}

fn sealed(secret: &EpochSecret, recipients: &BTreeMap<DeviceId, [u8; 32]>, rng: &mut ChaCha20Rng) -> ControlPayload {
    let log = LogKey([7; 32]);
    let header = Header {
        class: Class::Control,
        seq: 1,
        prev: [0; 32],
        clock: Clock::at_ms(1),
        epoch: secret.id(),
        parents: vec![],
        payload_hash: [0; 32],
        payload_len: 0,
    };
    let control = Control {
        heads: vec![],
        ops: vec![Op::Seal {}],
    };
    let slots = seal_slots(secret, recipients, rng);
    ControlPayload::seal(&header, &log, &secret.keys(), slots, &control).expect("1,000 slots fit")
}
