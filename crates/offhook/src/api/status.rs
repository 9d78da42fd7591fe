//! `GET /status`: this node at a glance.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use axum::Json;
use axum::extract::State;

use super::model::{Peer, Status, Versions, hex};
use super::{Surface, desk, storage_problem};
use crate::problem::Problem;
use crate::proto::peer::view;

#[utoipa::path(
    get,
    path = "/status",
    description = "This node at a glance.",
    responses((status = 200, body = Status), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn status(State(surface): State<Surface>) -> Result<Json<Status>, Problem> {
    let (me, rooms, peers) = surface
        .query(|peer| {
            let rooms = desk::describe_all(peer, peer.rooms().map_err(storage_problem)?)?;
            Ok((peer.me(), rooms, peer.peers()))
        })
        .await?;
    let used = surface.node.paths().into_iter().filter(|path| path.selected);
    let paths: BTreeMap<_, _> = used.map(|path| (path.peer, path)).collect();
    let peer = |view: view::PeerView| {
        let path = paths.get(&view.device).map(super::path_text);
        Peer::new(view, path)
    };
    let addresses = surface.node.addresses();
    let keeper = super::keepers::own(&surface).await?;
    Ok(Json(Status {
        person: hex(&me.person.0),
        device: hex(&me.device.0),
        name: me.name,
        home: surface.home.display().to_string(),
        since: format!("{:.3}", surface.since),
        network: verdict(&addresses),
        addresses: addresses.iter().map(SocketAddr::to_string).collect(),
        relay: surface.node.home_relay(),
        http: surface.http.map(crate::http::base_url),
        rooms,
        peers: peers.into_iter().map(peer).collect(),
        keeper,
        versions: Versions {
            offhook: env!("CARGO_PKG_VERSION").to_owned(),
            api: "v1".to_owned(),
        },
    }))
}

/// One line about the network, from the addresses alone: nothing is asked of anybody.
fn verdict(addresses: &[SocketAddr]) -> String {
    let kind = |wanted: Reach| addresses.iter().find(|address| reach(address.ip()) == wanted);
    if let Some(address) = kind(Reach::Everywhere) {
        return format!("listening at {address}, which others can reach unless a firewall stops them");
    }
    if let Some(address) = kind(Reach::Network) {
        let port = address.port();
        return format!(
            "listening at {address}: reachable on this network; from elsewhere only if the router forwards UDP port {port}"
        );
    }
    match addresses.first() {
        Some(address) => format!("listening at {address}: reachable on this machine only"),
        None => "no network: what you write is kept here and handed on once there is one".to_owned(),
    }
}

/// From where an address can be reached.
#[derive(PartialEq, Eq)]
enum Reach {
    Machine,
    Network,
    Everywhere,
}

fn reach(ip: IpAddr) -> Reach {
    match ip {
        _ if ip.is_loopback() => Reach::Machine,
        IpAddr::V4(v4) if v4.is_private() || v4.is_link_local() || is_shared(v4) => Reach::Network,
        IpAddr::V6(v6) if v6.is_unique_local() || v6.is_unicast_link_local() => Reach::Network,
        _ => Reach::Everywhere,
    }
}

/// Carrier-grade NAT (RFC 6598).
fn is_shared(ip: std::net::Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    a == 100 && (64..128).contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(addresses: &[&str]) -> String {
        let addresses: Vec<SocketAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        verdict(&addresses)
    }

    #[test]
    fn the_verdict_names_the_best_address() {
        assert!(shown(&[]).starts_with("no network"));
        assert!(shown(&["127.0.0.1:9"]).contains("this machine only"));
        assert!(shown(&["127.0.0.1:9", "192.168.1.7:9"]).contains("192.168.1.7:9: reachable on this network"));
        assert!(shown(&["100.64.0.1:9"]).contains("this network"));
        assert!(shown(&["10.0.0.1:9", "[2001:db8::1]:9"]).starts_with("listening at [2001:db8::1]:9, which others"));
    }
}
