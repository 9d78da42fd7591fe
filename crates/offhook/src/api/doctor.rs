//! `GET /doctor` and `GET /doctor/{person}`: what works on this network, what does not, and what to try, in words for people.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use offhook_node::dht::DhtCheck;
use offhook_node::doctor::{Checkup, Multicast, Portal, RelayCheck};
use offhook_node::{PathAddress, PathView};
use serde::{Deserialize, Serialize};

use super::network::{is_local, path_kind};
use super::request::Path;
use super::{Surface, names};
use crate::problem::Problem;
use crate::proto::overlay::ledger::{Kind as FlowKind, LedgerView, State as FlowState};
use crate::proto::peer::view::PeerView;

/// How long a peer that has no line is waited for.
const PEER_WAIT: Duration = Duration::from_secs(4);
/// How often it is looked at meanwhile.
const PEER_LOOK: Duration = Duration::from_millis(200);
/// A clock that differs by more than this from what others have signed is told.
const CLOCK_OFF_MS: u64 = 2 * 60 * 1000;
/// Nobody runs this program before it was written: 2026-01-01.
const EARLIEST_MS: u64 = 1_767_225_600_000;

/// `GET /doctor`.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Doctor {
    pub(crate) checks: Vec<Check>,
}

/// One check.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Check {
    /// `network`, `udp`, `nat`, `relay`, `portal`, `clock`, `multicast`, `dht`, `budget` or `peer`.
    pub(crate) name: String,
    pub(crate) verdict: Verdict,
    /// What was found.
    pub(crate) text: String,
    /// What to try, where there is something.
    pub(crate) advice: Option<String>,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// It works.
    Good,
    /// It works with a limit.
    Limited,
    /// It does not work.
    Bad,
    /// It cannot be told from here.
    Unknown,
}

fn check(name: &str, verdict: Verdict, text: impl Into<String>, advice: &str) -> Check {
    Check {
        name: name.to_owned(),
        verdict,
        text: text.into(),
        advice: (!advice.is_empty()).then(|| advice.to_owned()),
    }
}

#[utoipa::path(
    get,
    path = "/doctor",
    description = "What works on this network, what does not, and what to try.",
    responses((status = 200, body = Doctor), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn doctor(State(surface): State<Surface>) -> Result<Json<Doctor>, Problem> {
    Ok(Json(Doctor {
        checks: examine(&surface).await?,
    }))
}

#[utoipa::path(
    get,
    path = "/doctor/{person}",
    description = "The same, and whether a person can be reached.",
    params(("person" = String, Path, description = "A person's id, a name, or the beginning of an id")),
    responses((status = 200, body = Doctor), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn doctor_of(
    State(surface): State<Surface>,
    Path(wanted): Path<String>,
) -> Result<Json<Doctor>, Problem> {
    let person = surface.query(move |peer| names::person(peer, &wanted)).await?;
    let of_person = move |peer: &crate::proto::peer::Peer<offhook_node::SqliteStore>| {
        let all = peer.peers().into_iter();
        Ok(all.filter(|view| view.person == Some(person)).collect::<Vec<_>>())
    };
    let views = surface.query(of_person).await?;
    for view in views.iter().filter(|view| !view.up) {
        surface.node.try_peer(view.device).await.map_err(super::node_problem)?;
    }
    let is_up = |views: &[PeerView]| views.iter().any(|view| view.up);
    let mut views = views;
    let waited = async {
        while !views.is_empty() && !is_up(&views) {
            tokio::time::sleep(PEER_LOOK).await;
            views = surface.query(of_person).await?;
        }
        Ok::<_, Problem>(())
    };
    // Not reached within the time is what the check then says.
    if let Ok(failed) = tokio::time::timeout(PEER_WAIT, waited).await {
        failed?;
    }
    let mut checks = examine(&surface).await?;
    let (paths, flows) = (surface.node.paths(), surface.node.flows());
    checks.extend(views.iter().map(|view| peer(view, &paths, &flows)));
    if views.is_empty() {
        let text = "no device of this person is known: they share no room with you, or are not let in yet";
        checks.push(check("peer", Verdict::Unknown, text, ""));
    }
    Ok(Json(Doctor { checks }))
}

async fn examine(surface: &Surface) -> Result<Vec<Check>, Problem> {
    let found = surface.node.checkup().await;
    let (now_ms, newest_ms) = surface
        .query(|peer| Ok((peer.wall_ms(), peer.newest_record_ms())))
        .await?;
    let mut checks = vec![network(&found), udp(&found), nat(&found)];
    checks.extend(relay(found.relay.as_ref()));
    checks.extend([clock(now_ms, newest_ms), multicast(&found.multicast)]);
    checks.extend([dht(found.dht.as_ref()), budget(&found.flows)]);
    Ok(checks)
}

fn is_public(ip: IpAddr) -> bool {
    let is_shared = matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 100 && (64..128).contains(&ip.octets()[1]));
    !is_local(ip) && !is_shared
}

fn network(found: &Checkup) -> Check {
    let usable: Vec<String> = (found.addresses.iter())
        .filter(|at| !at.ip().is_loopback())
        .map(ToString::to_string)
        .collect();
    if usable.is_empty() {
        let text = "no network: this machine has no address that others can reach";
        return check(
            "network",
            Verdict::Bad,
            text,
            "connect to a network; what you write is kept and handed on then",
        );
    }
    check(
        "network",
        Verdict::Good,
        format!("connected; own addresses {}", usable.join(", ")),
        "",
    )
}

fn udp(found: &Checkup) -> Check {
    let far = |path: &&PathView| matches!(&path.address, PathAddress::Direct(at) if is_public(at.ip()));
    let relayed = |path: &&PathView| matches!(path.address, PathAddress::Relay(_));
    let count = found
        .paths
        .iter()
        .filter(|path| matches!(path.address, PathAddress::Direct(_)))
        .count();
    let unanswered = |state: FlowState| {
        let flows = found.flows.flows.iter();
        flows
            .filter(|flow| flow.kind == FlowKind::Dial && flow.state == state)
            .count()
    };
    let silent = unanswered(FlowState::Unanswered);
    if found.paths.iter().any(|path| far(&path)) {
        return check(
            "udp",
            Verdict::Good,
            "UDP to the Internet works: lines go straight to peers outside",
            "",
        );
    }
    if count > 0 {
        let text = "UDP works on this network; no line goes beyond it now, so nothing can be said of the Internet";
        return check("udp", Verdict::Good, text, "");
    }
    if found.paths.iter().any(|path| relayed(&path)) {
        let text = "UDP seems to be blocked: every line goes through a relay";
        return check(
            "udp",
            Verdict::Limited,
            text,
            "messages get through; for calls try another network",
        );
    }
    if silent > 0 {
        let text = format!(
            "no line is up, and {silent} addresses that were tried did not answer: those peers are offline, or UDP is blocked here"
        );
        return check(
            "udp",
            Verdict::Unknown,
            text,
            "configure a relay: it also works where UDP is blocked",
        );
    }
    check(
        "udp",
        Verdict::Unknown,
        "nobody was tried yet, so it cannot be told whether UDP works",
        "",
    )
}

/// RFC 4787 names what a NAT does by its mapping and filtering; telling them apart takes two hosts outside.
fn nat(found: &Checkup) -> Check {
    let public = found.addresses.iter().find(|at| is_public(at.ip()));
    if let Some(at) = public {
        let text = format!("no NAT: {at} is a public address");
        return check("nat", Verdict::Good, text, "");
    }
    let called = found.flows.flows.iter().any(|flow| flow.kind == FlowKind::Inbound);
    let far = |path: &PathView| matches!(&path.address, PathAddress::Direct(at) if is_public(at.ip()));
    if called && found.paths.iter().any(far) {
        let text = "behind a NAT that lets callers in (endpoint-independent filtering in the terms of RFC 4787, or a forwarded port)";
        return check("nat", Verdict::Good, text, "");
    }
    if found.paths.iter().any(far) {
        let text = "behind a NAT that keeps flows to peers open; its kind (mapping and filtering, RFC 4787) takes two hosts outside to tell, and nobody is asked who is not configured";
        return check(
            "nat",
            Verdict::Limited,
            text,
            "peers that are behind one too may need a relay to reach you",
        );
    }
    let text =
        "behind a NAT, or on a network of its own; its kind (RFC 4787) cannot be told without a line to the Internet";
    check(
        "nat",
        Verdict::Unknown,
        text,
        "forward the UDP port at the router, or configure a relay",
    )
}

fn relay(relay: Option<&RelayCheck>) -> Vec<Check> {
    let Some(relay) = relay else {
        let text = "none is configured; peers behind strict NATs cannot be reached from each other without one";
        return vec![
            check("relay", Verdict::Unknown, text, ""),
            check(
                "portal",
                Verdict::Unknown,
                "not looked for: nobody is configured who could be asked",
                "",
            ),
        ];
    };
    let mut checks = Vec::new();
    checks.push(match (&relay.error, relay.is_connected) {
        (_, true) => check("relay", Verdict::Good, format!("connected to {}", relay.url), ""),
        (None, false) if relay.is_public => check(
            "relay",
            Verdict::Limited,
            "none of the iroh project's relays has answered yet; they are used unless another is configured",
            "without the Internet they are not needed; to name another: offhook up --use-relay URL",
        ),
        (Some(error), false) => check(
            "relay",
            Verdict::Bad,
            format!("{} cannot be reached: {error}", relay.url),
            "is its address right, and is it up?",
        ),
        (None, false) => check(
            "relay",
            Verdict::Limited,
            format!("still connecting to {}", relay.url),
            "",
        ),
    });
    checks.push(match relay.portal {
        Portal::None => check(
            "portal",
            Verdict::Good,
            "no captive portal stands between here and the relay",
            "",
        ),
        Portal::Captive => {
            let advice = "open any page in a browser and log in to the network; Offhook goes on by itself";
            check(
                "portal",
                Verdict::Bad,
                "a captive portal answers in the relay's stead",
                advice,
            )
        }
        Portal::Unknown => check(
            "portal",
            Verdict::Unknown,
            "the relay did not answer on port 80, so it cannot be told",
            "",
        ),
    });
    checks
}

fn clock(now_ms: u64, newest_ms: u64) -> Check {
    let advice = "let the system set its clock from the network";
    if now_ms < EARLIEST_MS {
        return check("clock", Verdict::Bad, "the clock of this machine is years slow", advice);
    }
    if newest_ms > now_ms + CLOCK_OFF_MS {
        let minutes = (newest_ms - now_ms) / 60_000;
        let text =
            format!("a peer has signed something {minutes} minutes from now: this clock is slow, or theirs is fast");
        return check("clock", Verdict::Limited, text, advice);
    }
    check(
        "clock",
        Verdict::Good,
        "nothing that peers have signed lies in the future of this clock",
        "",
    )
}

fn multicast(found: &Multicast) -> Check {
    match found {
        Multicast::Off => check(
            "multicast",
            Verdict::Unknown,
            "looking for peers on the local network is switched off",
            "",
        ),
        Multicast::Works => check(
            "multicast",
            Verdict::Good,
            "multicast works on this machine: peers on the local network can be found",
            "",
        ),
        Multicast::Fails(why) => {
            let advice = "exchange an invite with addresses in it; some guest networks keep their guests apart";
            let text =
                format!("multicast does not work here ({why}): peers on the local network are not found by themselves");
            check("multicast", Verdict::Limited, text, advice)
        }
    }
}

fn dht(found: Option<&DhtCheck>) -> Check {
    let Some(found) = found else {
        let text =
            "not used; those who are found neither where they were nor by asking around are not looked for in public";
        return check("dht", Verdict::Good, text, "");
    };
    let put = match found.put {
        Some((ago, hosts)) => format!(
            "{hosts} hosts have kept the own addresses, sealed, for {} minutes",
            ago.as_secs() / 60
        ),
        None => "nobody keeps the own addresses yet".to_owned(),
    };
    match found.answers {
        Some(true) => {
            let text = format!("the Mainline DHT answers ({} hosts known); {put}", found.hosts);
            check("dht", Verdict::Good, text, "")
        }
        Some(false) => check(
            "dht",
            Verdict::Bad,
            "nobody in the Mainline DHT answers",
            "some networks block it; everything else works without, but who has moved and whom nobody knows is not found",
        ),
        None => check(
            "dht",
            Verdict::Unknown,
            format!("whether the Mainline DHT answers is not known: there was no flow or no time to ask; {put}"),
            "it goes on by itself once the gateway has forgotten a flow; `offhook flows` lists them",
        ),
    }
}

fn budget(flows: &LedgerView) -> Check {
    let (now, cap, peak) = (flows.now, flows.limits.hard(), flows.peak);
    let text = format!("{now} of {cap} flows in use, {peak} at the most so far");
    if flows.waiting.is_empty() {
        return check("budget", Verdict::Good, text, "");
    }
    let text = format!("{text}; {} dials wait for one", flows.waiting.len());
    let advice = "it goes on by itself, more slowly; `offhook up --flows N` allows more where the network does";
    check("budget", Verdict::Limited, text, advice)
}

fn peer(view: &PeerView, paths: &[PathView], flows: &LedgerView) -> Check {
    let name = crate::render::clean_line(&view.name);
    let device: String = super::model::hex(&view.device.0).chars().take(8).collect();
    let who = format!("{name} (device {device})");
    if view.up {
        let path = paths.iter().find(|path| path.peer == view.device && path.selected);
        let way = path.map_or_else(|| "by a line".to_owned(), super::path_text);
        let verdict = if path.is_some_and(|path| path_kind(path) == "relay") {
            Verdict::Limited
        } else {
            Verdict::Good
        };
        return check("peer", verdict, format!("{who} is reached {way}"), "");
    }
    if let Some(waiting) = flows.waiting.iter().find(|waiting| waiting.peer == view.device) {
        return check(
            "peer",
            Verdict::Limited,
            format!("{who}: the dial waits, since {}", waiting.reason),
            "it goes on by itself",
        );
    }
    if view.addresses.is_empty() {
        let advice = "ask them for a new invite, or meet on one local network once";
        return check(
            "peer",
            Verdict::Bad,
            format!("{who} cannot be reached: no address of theirs is known"),
            advice,
        );
    }
    let tried: BTreeSet<String> = view.addresses.iter().map(ToString::to_string).collect();
    let tried: Vec<String> = tried.into_iter().collect();
    let text = format!("{who} does not answer at {}", tried.join(", "));
    check(
        "peer",
        Verdict::Bad,
        text,
        "they are offline, or a NAT stands between you: what you write is kept and handed on through other members",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::overlay::ledger::{FlowLedger, Limits};

    fn found(addresses: &[&str]) -> Checkup {
        let mut ledger = FlowLedger::new(Limits::default());
        Checkup {
            addresses: addresses.iter().map(|at| at.parse().unwrap()).collect(),
            paths: Vec::new(),
            flows: ledger.view(std::time::Instant::now()),
            relay: None,
            multicast: Multicast::Works,
            dht: None,
        }
    }

    #[test]
    fn each_trouble_is_told_with_what_to_try() {
        let none = network(&found(&["127.0.0.1:1"]));
        assert_eq!(none.verdict, Verdict::Bad);
        assert!(none.advice.unwrap().contains("connect to a network"));
        assert_eq!(nat(&found(&["203.0.114.5:1"])).verdict, Verdict::Good);
        assert_eq!(nat(&found(&["192.168.0.5:1"])).verdict, Verdict::Unknown);
        assert_eq!(nat(&found(&["100.64.0.5:1"])).verdict, Verdict::Unknown);
        assert_eq!(clock(0, 0).verdict, Verdict::Bad);
        assert!(clock(EARLIEST_MS, EARLIEST_MS + 600_000).text.contains("10 minutes"));
        let fails = multicast(&Multicast::Fails("no such device".to_owned()));
        assert!(fails.text.contains("no such device"));
        let captive = RelayCheck {
            url: "https://relay.example".to_owned(),
            is_public: false,
            is_connected: false,
            error: None,
            portal: Portal::Captive,
        };
        assert!(relay(Some(&captive))[1].advice.as_ref().unwrap().contains("log in"));
        assert_eq!(relay(None).len(), 2);
        let public = RelayCheck {
            is_public: true,
            portal: Portal::Unknown,
            ..captive
        };
        assert!(relay(Some(&public))[0].text.contains("has answered yet"));
        assert!(dht(None).text.contains("not used"));
        let with = |answers| DhtCheck {
            answers,
            hosts: 7,
            put: Some((Duration::from_secs(180), 9)),
        };
        let answers = dht(Some(&with(Some(true))));
        assert!(
            answers.text.contains("7 hosts known")
                && answers.text.contains("9 hosts have kept")
                && answers.text.contains("3 minutes")
        );
        assert_eq!(dht(Some(&with(Some(false)))).verdict, Verdict::Bad);
        assert_eq!(dht(Some(&with(None))).verdict, Verdict::Unknown);
        assert_eq!(budget(&found(&[]).flows).verdict, Verdict::Good);
    }
}
