//! The network paths that lines take, for whoever wants to look at them.

use std::net::SocketAddr;
use std::time::Duration;

use iroh::TransportAddr;
use offhook_proto::identity::DeviceId;

use super::{Lines, locked};

/// One network path of a line.
#[derive(Debug, Clone, PartialEq)]
pub struct PathView {
    /// The device at the other end.
    pub peer: DeviceId,
    /// Where it goes.
    pub address: PathAddress,
    /// Whether data goes this way now.
    pub selected: bool,
    /// The round-trip time.
    pub rtt: Duration,
    /// Bytes of UDP payload sent.
    pub sent_bytes: u64,
    /// Bytes of UDP payload received.
    pub received_bytes: u64,
}

/// The remote end of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathAddress {
    /// Straight to this address.
    Direct(SocketAddr),
    /// Through the relay with this URL.
    Relay(String),
    /// By another carrier.
    Other(String),
}

/// The paths of all lines that are up.
pub(crate) fn paths(lines: &Lines) -> Vec<PathView> {
    let lines = locked(lines).clone();
    let views = lines.iter().flat_map(|(peer, connection)| {
        let paths = connection.paths();
        let view = |path: iroh::endpoint::Path<'_>| {
            let stats = path.stats();
            PathView {
                peer: *peer,
                address: match path.remote_addr() {
                    TransportAddr::Ip(address) => PathAddress::Direct(*address),
                    TransportAddr::Relay(url) => PathAddress::Relay(url.to_string()),
                    other => PathAddress::Other(other.to_string()),
                },
                selected: path.is_selected(),
                rtt: stats.rtt,
                sent_bytes: stats.udp_tx.bytes,
                received_bytes: stats.udp_rx.bytes,
            }
        };
        paths.iter().map(view).collect::<Vec<_>>()
    });
    views.collect()
}
