//! `GET /flows`, `GET /flows/history`, `GET /lines`: what a gateway sees of this node, and why each line is held.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use offhook_node::{FlowSample, PathAddress, PathView};
use serde::{Deserialize, Serialize};

use super::Surface;
use super::model::{hex, time};
use crate::problem::Problem;
use crate::proto::overlay::ledger::{FlowView, Kind, LedgerView, To, Urgency, WaitingView};
use crate::proto::peer::view::LineState;

/// `GET /flows`.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Flows {
    /// Flows that a gateway may see now.
    pub(crate) now: usize,
    /// The most at one time since the start.
    pub(crate) peak: usize,
    /// Never more than this.
    pub(crate) cap: usize,
    /// Everyday flows stay within this.
    pub(crate) soft: usize,
    pub(crate) flows: Vec<Flow>,
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) refused: Vec<Refused>,
    /// Packets refused since the start.
    pub(crate) refusals: u64,
}

/// One flow.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Flow {
    /// `path`, `dial`, `punch`, `inbound`, `relay`, `lookup`, `probe` or `lan`.
    pub(crate) kind: String,
    pub(crate) to: String,
    /// `reserved`, `unanswered`, `open` or `closing`.
    pub(crate) state: String,
    pub(crate) age_s: u64,
    /// When the gateway will have forgotten it, unless it is used again.
    pub(crate) forgotten_in_s: Option<u64>,
    pub(crate) device: Option<String>,
    pub(crate) reason: String,
}

/// Somebody who waits for a flow.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Waiting {
    pub(crate) device: String,
    /// `urgent`, `cover` or `spare`.
    pub(crate) urgency: String,
    pub(crate) age_s: u64,
    pub(crate) wants: String,
    pub(crate) reason: String,
}

/// A destination that packets were refused to.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Refused {
    pub(crate) to: String,
    pub(crate) times: u64,
    pub(crate) reason: String,
}

/// One moment of `GET /flows/history` and of a recording.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Sample {
    pub(crate) time: String,
    pub(crate) now: u64,
    pub(crate) cap: usize,
    pub(crate) soft: usize,
    /// Flows by kind; kinds without any are left out.
    pub(crate) kinds: BTreeMap<String, u16>,
    pub(crate) waiting: u16,
}

/// One line of `GET /lines`.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = PeerLine)]
pub(crate) struct Line {
    pub(crate) device: String,
    pub(crate) name: String,
    /// `direct`, `lan`, `relay`, `other` or `unknown`.
    pub(crate) path: String,
    pub(crate) to: Option<String>,
    pub(crate) rtt_ms: Option<f64>,
    pub(crate) rooms: usize,
    pub(crate) up_s: u64,
    pub(crate) idle_s: u64,
    /// This node dialled.
    pub(crate) dialled: bool,
    /// Why it is held, in a sentence.
    pub(crate) reason: String,
    /// The same for programs: `join`, `write`, `only`, `second`, `steady`, `visit`, `mix`, `theirs` or `surplus`.
    pub(crate) reason_code: String,
    /// The rooms that the reason is about; null where it is about none in particular.
    pub(crate) reason_rooms: Option<usize>,
}

/// `GET /lines`.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Lines {
    pub(crate) lines: Vec<Line>,
}

/// `GET /flows/history`.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct History {
    pub(crate) samples: Vec<Sample>,
}

#[utoipa::path(
    get,
    path = "/flows",
    description = "What a gateway sees of this node: every flow, and who waits for one.",
    responses((status = 200, body = Flows), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn flows(State(surface): State<Surface>) -> Json<Flows> {
    Json(surface.node.flows().into())
}

#[utoipa::path(
    get,
    path = "/flows/history",
    description = "Flows over the last hour.",
    responses((status = 200, body = History), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn history(State(surface): State<Surface>) -> Json<History> {
    let limits = surface.node.flows().limits;
    let sample = |sample: FlowSample| {
        let named = Kind::ALL.iter().zip(sample.kinds).filter(|(_, count)| *count > 0);
        Sample {
            time: time(sample.unix_ms),
            now: sample.kinds.iter().copied().map(u64::from).sum(),
            cap: limits.hard(),
            soft: limits.soft(),
            kinds: named.map(|(kind, count)| (kind.word().to_owned(), count)).collect(),
            waiting: sample.waiting,
        }
    };
    let samples = surface.node.flow_history().into_iter().map(sample).collect();
    Json(History { samples })
}

#[utoipa::path(
    get,
    path = "/lines",
    description = "The lines to peers, and why each is held.",
    responses((status = 200, body = Lines), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn lines(State(surface): State<Surface>) -> Result<Json<Lines>, Problem> {
    let states = surface.query(|peer| Ok(peer.lines())).await?;
    let used = surface.node.paths().into_iter().filter(|path| path.selected);
    let paths: BTreeMap<_, _> = used.map(|path| (path.peer, path)).collect();
    let line = |state: LineState| Line::new(&state, paths.get(&state.device));
    let lines = states.into_iter().map(line).collect();
    Ok(Json(Lines { lines }))
}

impl Line {
    fn new(state: &LineState, path: Option<&PathView>) -> Self {
        let to = path.map(|path| match &path.address {
            PathAddress::Direct(at) => at.to_string(),
            PathAddress::Relay(url) => url.clone(),
            PathAddress::Other(carrier) => carrier.clone(),
        });
        Self {
            device: hex(&state.device.0),
            name: state.name.clone(),
            path: path.map_or("unknown", path_kind).to_owned(),
            to,
            rtt_ms: path.map(|path| (path.rtt.as_secs_f64() * 10_000.0).round() / 10.0),
            rooms: state.rooms,
            up_s: state.up_for.as_secs(),
            idle_s: state.idle_for.as_secs(),
            dialled: state.is_own,
            reason: state.reason.sentence(),
            reason_code: state.reason.code().to_owned(),
            reason_rooms: state.reason.rooms(),
        }
    }
}

/// The way a path goes, in a word.
pub(super) fn path_kind(path: &PathView) -> &'static str {
    match &path.address {
        PathAddress::Direct(at) if is_local(at.ip()) => "lan",
        PathAddress::Direct(_) => "direct",
        PathAddress::Relay(_) => "relay",
        PathAddress::Other(_) => "other",
    }
}

/// An address that no gateway carries to the Internet.
pub(super) fn is_local(ip: std::net::IpAddr) -> bool {
    match ip {
        std::net::IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || ip.is_loopback(),
        std::net::IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_loopback(),
    }
}

impl From<LedgerView> for Flows {
    fn from(view: LedgerView) -> Self {
        let refused = view.refused.into_iter().map(|refused| Refused {
            to: refused.to.to_string(),
            times: refused.times,
            reason: refused.reason.to_owned(),
        });
        Self {
            now: view.now,
            peak: view.peak,
            cap: view.limits.hard(),
            soft: view.limits.soft(),
            flows: view.flows.into_iter().map(Flow::from).collect(),
            waiting: view.waiting.into_iter().map(Waiting::from).collect(),
            refused: refused.collect(),
            refusals: view.refusals,
        }
    }
}

impl From<FlowView> for Flow {
    fn from(view: FlowView) -> Self {
        Self {
            kind: view.kind.word().to_owned(),
            to: match view.to {
                To::Udp(at) => at.to_string(),
                To::Tcp(what) | To::Lookup(what) => what,
            },
            state: view.state.word().to_owned(),
            age_s: view.age.as_secs(),
            forgotten_in_s: view.forgotten_in.map(|left| left.as_secs()),
            device: view.peer.map(|peer| hex(&peer.0)),
            reason: view.reason.to_owned(),
        }
    }
}

impl From<WaitingView> for Waiting {
    fn from(view: WaitingView) -> Self {
        let urgency = match view.urgency {
            Urgency::Urgent => "urgent",
            Urgency::Cover => "cover",
            Urgency::Spare => "spare",
        };
        Self {
            device: hex(&view.peer.0),
            urgency: urgency.to_owned(),
            age_s: view.age.as_secs(),
            wants: view.wants.to_owned(),
            reason: view.reason.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::proto::overlay::plan::Reason;
    use crate::proto::peer::view::WhyNot;

    /// What the page's table says for a code: the template, filled in.
    fn in_table(table: &str, name: &str, code: &str, count: usize) -> String {
        let all = table
            .split_once(&format!("  {name}: {{"))
            .expect("the table is there")
            .1;
        let all = all.split_once("} as Record").expect("it ends").0;
        let is_code = |line: &&str| {
            let key = line
                .split_once(": (")
                .map_or("", |(key, _)| key.trim().trim_matches('"'));
            key == code
        };
        let line = all
            .lines()
            .find(is_code)
            .unwrap_or_else(|| panic!("{name} lacks {code}"));
        let text = line.split_once("=> ").expect("a function").1.trim_end_matches(',');
        let text = &text[1..text.len() - 1];
        let unit = |one: &str, many: &str| {
            if count == 1 {
                format!("1 {one}")
            } else {
                format!("{count} {many}")
            }
        };
        text.replace("${n(rooms, \"room\", \"rooms\")}", &unit("room", "rooms"))
            .replace("${n(minutes, \"minute\", \"minutes\")}", &unit("minute", "minutes"))
    }

    #[test]
    fn the_page_says_what_the_node_says() {
        let english = include_str!("../../../../web/src/words/en.ts");
        for n in [1, 7] {
            let reasons = [
                Reason::Join,
                Reason::Write,
                Reason::Open,
                Reason::Only(n),
                Reason::Second(n),
                Reason::Steady,
                Reason::Visit(n),
                Reason::Mix,
                Reason::Spread,
                Reason::Theirs(n),
                Reason::Surplus,
            ];
            for reason in reasons {
                assert_eq!(in_table(english, "lineReason", reason.code(), n), reason.sentence());
            }
            let why = [
                WhyNot::NotSeenYet,
                WhyNot::OnItsWay,
                WhyNot::LastSeen { minutes: n as u64 },
                WhyNot::NeverSeen,
            ];
            for why in why {
                assert_eq!(in_table(english, "whyNot", why.code(), n), why.sentence());
            }
            // One that is new has to be put into the lists above.
            match reasons[0] {
                Reason::Join | Reason::Write | Reason::Open | Reason::Only(_) | Reason::Second(_) | Reason::Steady => {}
                Reason::Visit(_) | Reason::Mix | Reason::Spread | Reason::Theirs(_) | Reason::Surplus => {}
            }
            match why[0] {
                WhyNot::NotSeenYet | WhyNot::OnItsWay | WhyNot::LastSeen { .. } | WhyNot::NeverSeen => {}
            }
        }
    }
}
