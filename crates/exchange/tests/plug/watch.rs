//! Who speaks from the movable address: the frames on a data centre's network, in order.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use pnet_datalink::{Channel, Config};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::say;

/// A time in which one machine alone spoke.
#[derive(Clone, Copy, Debug)]
struct Turn {
    mac: [u8; 6],
    packets: u64,
}

/// Listens on the bridge of a network, and answers each line with the packets of each turn.
pub async fn run(bridge: &str, address: std::net::Ipv4Addr) {
    let interface = pnet_datalink::interfaces()
        .into_iter()
        .find(|interface| interface.name == bridge);
    let interface = interface.unwrap_or_else(|| panic!("no interface {bridge}"));
    let turns: Arc<Mutex<Vec<Turn>>> = Arc::default();
    let seen = turns.clone();
    let config = Config {
        promiscuous: false,
        read_buffer_size: 1 << 22,
        ..Config::default()
    };
    let Ok(Channel::Ethernet(_, mut frames)) = pnet_datalink::channel(&interface, config) else {
        panic!("cannot listen on {bridge}");
    };
    let begun = Instant::now();
    std::thread::spawn(move || {
        loop {
            let Ok(frame) = frames.next() else { continue };
            if !is_udp_from(frame, address) {
                continue;
            }
            let mac: [u8; 6] = frame[6..12].try_into().unwrap();
            let mut turns = seen.lock().unwrap();
            match turns.last_mut() {
                Some(turn) if turn.mac == mac => turn.packets += 1,
                _ => {
                    eprintln!("{:8.3} s {mac:02x?} speaks", begun.elapsed().as_secs_f64());
                    turns.push(Turn { mac, packets: 1 });
                }
            }
        }
    });
    say("watching");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(_)) = lines.next_line().await {
        let packets: Vec<String> = turns
            .lock()
            .unwrap()
            .iter()
            .map(|turn| turn.packets.to_string())
            .collect();
        say(&format!("turns {}", packets.join(" ")));
    }
}

/// Ethernet, IPv4, UDP.
fn is_udp_from(frame: &[u8], address: std::net::Ipv4Addr) -> bool {
    frame.len() >= 34 && frame[12..14] == [8, 0] && frame[23] == 17 && frame[26..30] == address.octets()
}
