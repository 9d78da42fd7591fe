//! Which of the own addresses are told to peers.

use std::net::{IpAddr, SocketAddr};

use iroh::EndpointAddr;

use super::{OWN_ADDRESSES_MAX, is_dialable};

/// Best first: public, private, link-local, and loopback only where there is nothing else.
pub(super) fn own_addresses(reported: &EndpointAddr, bound: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut all: Vec<SocketAddr> = reported.ip_addrs().copied().collect();
    all.extend(bound.iter().copied());
    all.retain(is_dialable);
    all.sort_by_key(|at| (distance(at.ip()), at.is_ipv6(), *at));
    all.dedup();
    if all.iter().any(|at| !at.ip().is_loopback()) {
        all.retain(|at| !at.ip().is_loopback());
    }
    all.truncate(OWN_ADDRESSES_MAX);
    all
}

/// How far away others may be who can use an address.
fn distance(ip: IpAddr) -> u8 {
    match ip {
        ip if ip.is_loopback() => 3,
        IpAddr::V4(ip) if ip.is_link_local() => 2,
        IpAddr::V6(ip) if ip.is_unicast_link_local() => 2,
        IpAddr::V4(ip) if ip.is_private() => 1,
        IpAddr::V6(ip) if ip.is_unique_local() => 1,
        _ => 0,
    }
}
