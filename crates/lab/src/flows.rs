//! What a gateway sees: its connection table, counted again and again while a story plays.
//!
//! The table is read with `conntrack`, so the count owes nothing to what the node believes of itself. A flow stays in the table for 10 s at the very least, so one look
//! every quarter second misses none.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::site::Namespace;

/// How often the table is read.
const LOOK: Duration = Duration::from_millis(250);

/// One look: when, and how many flows each guest had.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    pub(crate) at: Duration,
    pub(crate) flows: BTreeMap<String, usize>,
}

/// Flows of each guest now, by the address that opened them.
pub(crate) fn count(gateway: &Namespace) -> Result<BTreeMap<String, usize>> {
    Ok(counted(&gateway.output("conntrack", &["-L"])?))
}

/// Counts lines of `conntrack -L` by the first `src=`.
fn counted(table: &str) -> BTreeMap<String, usize> {
    let mut flows = BTreeMap::new();
    for line in table.lines() {
        let source = line.split_whitespace().find_map(|word| word.strip_prefix("src="));
        if let Some(source) = source {
            *flows.entry(source.to_owned()).or_default() += 1;
        }
    }
    flows
}

/// What went over a flow, both ways.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) packets: u64,
    /// With IP headers.
    pub(crate) bytes: u64,
}

/// What went over each flow of a guest, by where it leads.
pub(crate) fn traffic(gateway: &Namespace, guest: &str) -> Result<BTreeMap<String, Traffic>> {
    Ok(traffic_in(&gateway.output("conntrack", &["-L"])?, guest))
}

fn traffic_in(table: &str, guest: &str) -> BTreeMap<String, Traffic> {
    let mut flows: BTreeMap<String, Traffic> = BTreeMap::new();
    for line in table.lines() {
        let all = |name: &'static str| line.split_whitespace().filter_map(move |word| word.strip_prefix(name));
        if all("src=").next() != Some(guest) {
            continue;
        }
        let place = ["dst=", "dport=", "sport="].map(|name| all(name).next().unwrap_or_default());
        let sum = |name| all(name).filter_map(|count| count.parse::<u64>().ok()).sum::<u64>();
        let flow = flows.entry(place.join(" ")).or_default();
        flow.packets += sum("packets=");
        flow.bytes += sum("bytes=");
    }
    flows
}

/// A packet of the transport's keep-alive with its IP header, bytes: a PING or an ACK, one of each at the most.
const KEEP_ALIVE_BYTES: u64 = 68;
/// A flow that says no more than this in a second is but kept alive: each of two ends pings every five seconds, and answers; twice within five seconds at the most.
const KEEP_ALIVES_PER_S: f64 = 1.6;

/// What of a flow's traffic within so many seconds kept it alive, if that was all: else nothing did.
pub(crate) fn kept_alive(before: Traffic, after: Traffic, seconds: f64) -> Traffic {
    let said = Traffic {
        packets: after.packets.saturating_sub(before.packets),
        bytes: after.bytes.saturating_sub(before.bytes),
    };
    let packets = f64::from(u32::try_from(said.packets).unwrap_or(u32::MAX));
    match said.bytes <= said.packets * KEEP_ALIVE_BYTES && packets <= seconds * KEEP_ALIVES_PER_S {
        true => said,
        false => Traffic::default(),
    }
}

/// Counts until it is stopped.
pub(crate) struct Recorder {
    looks: Arc<Mutex<Vec<Look>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    pub(crate) fn start(gateway: &Namespace) -> Self {
        let looks: Arc<Mutex<Vec<Look>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (gateway, written, ended) = (gateway.clone(), looks.clone(), stop.clone());
        let thread = thread::spawn(move || {
            let start = Instant::now();
            while !ended.load(Ordering::Relaxed) {
                let at = start.elapsed();
                if let Ok(flows) = count(&gateway) {
                    written
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(Look { at, flows });
                }
                thread::sleep(LOOK.saturating_sub(start.elapsed().saturating_sub(at)));
            }
        });
        Self {
            looks,
            stop,
            thread: Some(thread),
        }
    }

    /// What was seen so far.
    pub(crate) fn looks(&self) -> Vec<Look> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It only counts.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_counted_by_who_opened_them() {
        let table = "udp      17 27 src=10.77.0.11 dst=198.18.0.100 sport=40000 dport=3478 packets=1 bytes=30 [UNREPLIED] src=198.18.0.100 dst=198.18.0.10 sport=3478 dport=40000 mark=0 use=1
tcp      6 431999 ESTABLISHED src=10.77.0.11 dst=198.18.0.9 sport=5 dport=443 packets=9 bytes=9 src=198.18.0.9 dst=198.18.0.10 sport=443 dport=5 packets=7 bytes=70 [ASSURED] mark=0 use=1
udp      17 20 src=10.77.0.12 dst=198.18.0.100 sport=1 dport=2 packets=1 bytes=30 src=198.18.0.100 dst=198.18.0.10 sport=2 dport=1 mark=0 use=1
";
        let traffic = traffic_in(table, "10.77.0.11");
        assert_eq!(traffic["198.18.0.9 443 5"], Traffic { packets: 16, bytes: 79 });
        assert_eq!(traffic.len(), 2);
        let flows = counted(table);
        assert_eq!(flows["10.77.0.11"], 2);
        assert_eq!(flows["10.77.0.12"], 1);
    }

    #[test]
    fn what_is_larger_or_more_than_keep_alives_is_none() {
        let before = Traffic {
            packets: 100,
            bytes: 9_000,
        };
        let kept_by = |packets, bytes| {
            let after = Traffic {
                packets: before.packets + packets,
                bytes: before.bytes + bytes,
            };
            kept_alive(before, after, 5.0).packets
        };
        assert_eq!(kept_by(4, 4 * 62), 4);
        assert_eq!(kept_by(4, 3 * 62 + 1_480), 0, "one of them carried something");
        assert_eq!(kept_by(9, 9 * 62), 0, "too many");
    }
}
