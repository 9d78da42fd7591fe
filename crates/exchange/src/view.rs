//! What the exchange shows of itself: live calls, phones, and metrics in Prometheus' text format.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use offhook_exchange_proto::{CallView, Counters, Exchange};
use serde::{Deserialize, Serialize};

use crate::relay::RelayCounters;

/// A live call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LiveCall {
    pub call: String,
    pub from: String,
    pub to: String,
    pub answered_by: Option<String>,
    pub started_ms: u64,
    pub answered_ms: Option<u64>,
    pub legs: Vec<String>,
    pub ports: Vec<u16>,
    /// Whether a standby holds it ready.
    pub protected: bool,
}

impl LiveCall {
    pub(crate) fn new(view: CallView, protected: bool) -> Self {
        Self {
            call: view.key,
            from: view.from,
            to: view.to,
            answered_by: view.answered_by,
            started_ms: view.started.0,
            answered_ms: view.answered.map(|at| at.0),
            legs: view.legs,
            ports: view.ports,
            protected,
        }
    }
}

/// A registered phone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LivePhone {
    pub account: String,
    pub contact: String,
    pub flow: String,
    pub user_agent: String,
    pub expires_ms: u64,
}

/// One instance of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct MemberView {
    pub node: String,
    pub site: String,
    pub address: String,
    pub witness: bool,
    /// Shards that it acts for, with their epochs.
    pub owns: Vec<String>,
    /// Shards whose calls it holds ready.
    pub stands_by: Vec<String>,
    /// Since it was last heard of.
    pub silent_ms: u64,
    /// What it speaks between instances.
    pub version: u8,
    /// Whether the instance that was asked speaks that, too: else it knows no more of it.
    pub understood: bool,
}

/// Registered phones.
pub fn phones(exchange: &Exchange) -> Vec<LivePhone> {
    let view = |(account, binding): (&str, &offhook_exchange_proto::registrar::Binding)| LivePhone {
        account: account.to_owned(),
        contact: binding.contact.clone(),
        flow: binding.flow.to_string(),
        user_agent: binding.user_agent.clone(),
        expires_ms: binding.expires_at.0,
    };
    exchange.bindings().map(view).collect()
}

/// What an instance of a cluster adds to the metrics.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct ClusterFigures {
    pub protected: bool,
    pub backlog: usize,
    pub engine_connected: bool,
}

/// Metrics of several shards as one: values under the same name are added.
pub fn summed(texts: &[String]) -> String {
    let Some((first, rest)) = texts.split_first() else {
        return String::new();
    };
    let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<u64>().ok());
    let mut lines: Vec<String> = first.lines().map(str::to_owned).collect();
    for text in rest {
        for (line, other) in lines.iter_mut().zip(text.lines()) {
            if let (false, Some(a), Some(b)) = (line.starts_with('#'), value(line), value(other)) {
                let name = line.rsplit_once(' ').map_or("", |(name, _)| name);
                *line = format!("{name} {}", a + b);
            }
        }
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

/// A metric: its name, its value, what it means.
type Metric = (&'static str, u64, &'static str);

/// Metrics in Prometheus' text exposition format.
pub fn prometheus(exchange: &Exchange, relay: &RelayCounters, cluster: Option<ClusterFigures>) -> String {
    let mut text = String::new();
    for (name, value, about) in sip_counters(exchange).into_iter().chain(relay_counters(relay)) {
        write_metric(&mut text, &format!("{name}_total"), "counter", value, about);
    }
    let gauges = [
        ("calls_live", exchange.calls().len() as u64, "Calls now."),
        ("phones_registered", exchange.bindings().count() as u64, "Bindings now."),
        (
            "sip_transactions",
            exchange.transaction_count() as u64,
            "Transactions held.",
        ),
        (
            "rtp_ports_in_use",
            exchange.ports_in_use() as u64,
            "Media ports in use.",
        ),
    ];
    for (name, value, about) in gauges.into_iter().chain(cluster_gauges(cluster)) {
        write_metric(&mut text, name, "gauge", value, about);
    }
    text
}

fn write_metric(text: &mut String, name: &str, kind: &str, value: u64, about: &str) {
    let name = format!("offhook_exchange_{name}");
    // Writing to a String cannot fail.
    let _ = write!(text, "# HELP {name} {about}\n# TYPE {name} {kind}\n{name} {value}\n");
}

fn sip_counters(exchange: &Exchange) -> [Metric; 11] {
    let Counters {
        messages_in,
        malformed,
        refused,
        ignored,
        challenges,
        wrong_passwords,
        registrations,
        calls_begun,
        calls_answered,
        calls_ended,
        transfers,
    } = exchange.counters();
    [
        ("sip_messages_received", messages_in, "SIP messages received."),
        ("sip_messages_malformed", malformed, "Messages dropped as no SIP."),
        ("sip_requests_refused", refused, "Requests answered as malformed."),
        (
            "sip_requests_ignored",
            ignored,
            "Requests of strangers left unanswered.",
        ),
        ("sip_challenges", challenges, "Challenges sent."),
        ("sip_wrong_passwords", wrong_passwords, "Wrong passwords."),
        ("sip_registrations", registrations, "Registrations accepted."),
        ("calls_begun", calls_begun, "Calls routed."),
        ("calls_answered", calls_answered, "Ended calls that had been answered."),
        ("calls_ended", calls_ended, "Calls with a record."),
        ("transfers", transfers, "Transfers asked for."),
    ]
}

fn relay_counters(relay: &RelayCounters) -> [Metric; 3] {
    let forwarded = relay.forwarded.load(Ordering::Relaxed);
    let refused = relay.refused.load(Ordering::Relaxed);
    let failed = relay.failed.load(Ordering::Relaxed);
    [
        ("rtp_packets_forwarded", forwarded, "Media packets forwarded."),
        ("rtp_packets_refused", refused, "Media packets of unexpected sources."),
        ("rtp_ports_failed", failed, "Media ports that could not be bound."),
    ]
}

/// One machine has only the last.
fn cluster_gauges(cluster: Option<ClusterFigures>) -> Vec<Metric> {
    let mut gauges = Vec::new();
    if let Some(figures) = cluster {
        let (protected, connected) = (figures.protected.into(), figures.engine_connected.into());
        gauges.push(("calls_protected", protected, "Whether a standby holds the calls ready."));
        gauges.push(("engine_connected", connected, "Whether the engine is reached."));
    }
    let backlog = cluster.map_or(0, |figures| figures.backlog as u64);
    gauges.push(("engine_writes_waiting", backlog, "Durable writes still to be done."));
    gauges
}
