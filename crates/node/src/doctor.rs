//! Looking at the network from inside: what can be found out without asking a host that is not configured.
//!
//! Each look has a time limit and a token of the flow ledger. Nothing is asked of anybody but the configured relay, and of the DHT where it is used; the rest is read off the lines that are up, and one datagram is sent to a multicast group
//! of the local network and must come back.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use iroh::{Endpoint, RelayUrl, Watcher};
use offhook_proto::overlay::ledger::{Kind, LedgerView, To};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::dht::DhtCheck;
use crate::endpoint::PathView;
use crate::flows::Flows;
use crate::relay;

/// No single look takes longer.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);
/// A multicast datagram comes back within this or not at all.
const MULTICAST_TIMEOUT: Duration = Duration::from_secs(1);
/// In the block for local use (RFC 2365), not used by anybody known.
const MULTICAST_GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 79, 72);
/// The head of an answer that is read of a relay.
const ANSWER_BYTES_MAX: usize = 512;

/// What was found.
#[derive(Debug, Clone)]
pub struct Checkup {
    /// Where this node can be reached, best first.
    pub addresses: Vec<SocketAddr>,
    /// The paths of all lines.
    pub paths: Vec<PathView>,
    /// The flow ledger.
    pub flows: LedgerView,
    /// The home relay; while none is chosen, the first of those that may be.
    pub relay: Option<RelayCheck>,
    /// Whether multicast comes back from the local network.
    pub multicast: Multicast,
    /// How it stands with the DHT, where it is used.
    pub dht: Option<DhtCheck>,
}

/// A relay that is configured, or one of the iroh project's.
#[derive(Debug, Clone)]
pub struct RelayCheck {
    /// Its URL.
    pub url: String,
    /// It is one of the iroh project's, which are used unless that is turned off.
    pub is_public: bool,
    /// The connection to it is up.
    pub is_connected: bool,
    /// What was wrong the last time, in the system's words.
    pub error: Option<String>,
    /// Whether something between here and the relay answers in its stead.
    pub portal: Portal,
}

/// What answers where the relay should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Portal {
    /// The relay itself.
    None,
    /// Somebody else: most likely a page to log in at.
    Captive,
    /// Nobody answered, or there was no flow to ask with.
    Unknown,
}

/// Multicast on the local network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Multicast {
    /// It was switched off.
    Off,
    /// It comes back.
    Works,
    /// It does not, for this reason.
    Fails(String),
}

/// Looks at everything; takes as long as the slowest look.
pub(crate) async fn look(
    endpoint: &Endpoint,
    flows: &Flows,
    first_relay: Option<&RelayUrl>,
    is_lan_on: bool,
) -> (Option<RelayCheck>, Multicast) {
    let multicast = async {
        match is_lan_on {
            true => multicast(flows).await,
            false => Multicast::Off,
        }
    };
    tokio::join!(relay(endpoint, flows, first_relay), multicast)
}

/// A node behind a portal has no home relay, for none answers: then the first of those that may be is looked for.
async fn relay(endpoint: &Endpoint, flows: &Flows, first: Option<&RelayUrl>) -> Option<RelayCheck> {
    let status = endpoint.home_relay_status().get();
    let home = status.first();
    let url = home.map_or(first, |status| Some(status.url()))?;
    let portal = timeout(LOOK_TIMEOUT, portal(url, flows)).await;
    Some(RelayCheck {
        url: url.to_string(),
        is_public: relay::is_public(url),
        is_connected: home.is_some_and(|status| status.is_connected()),
        error: home.and_then(|status| Some(format!("{:#}", status.last_error()?))),
        portal: portal.unwrap_or(Portal::Unknown),
    })
}

/// A relay answers `/generate_204` with 204 and nothing else; a portal answers with its own page.
async fn portal(url: &RelayUrl, flows: &Flows) -> Portal {
    let Some(host) = url.host_str() else {
        return Portal::Unknown;
    };
    let port = if url.scheme() == "http" {
        url.port().unwrap_or(80)
    } else {
        80
    };
    let to = To::Tcp(format!("{host}:{port} (captive portal)"));
    let has_flow =
        flows.with(|ledger, now| ledger.question(to, Kind::Probe, "the doctor looks for a captive portal", now));
    if !has_flow {
        return Portal::Unknown;
    }
    let Ok(mut stream) = TcpStream::connect((host, port)).await else {
        return Portal::Unknown;
    };
    let request = format!("GET /generate_204 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    let asked = stream.write_all(request.as_bytes()).await;
    let read = match asked {
        Ok(()) => stream.read(&mut answer).await.unwrap_or(0),
        Err(_) => 0,
    };
    match answer[..read].get(9..12) {
        Some(b"204") => Portal::None,
        Some(_) => Portal::Captive,
        None => Portal::Unknown,
    }
}

async fn multicast(flows: &Flows) -> Multicast {
    match timeout(MULTICAST_TIMEOUT, echo(flows)).await {
        Ok(Ok(())) => Multicast::Works,
        Ok(Err(error)) => Multicast::Fails(error.to_string()),
        Err(_) => Multicast::Fails("nothing came back".to_owned()),
    }
}

/// Sends one datagram to a group that this socket is in.
async fn echo(flows: &Flows) -> std::io::Result<()> {
    let socket = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)).await?;
    let group = SocketAddrV4::new(MULTICAST_GROUP, socket.local_addr()?.port());
    let to = To::Udp(group.into());
    if !flows.with(|ledger, now| ledger.question(to, Kind::Lan, "the doctor tries multicast", now)) {
        return Err(std::io::Error::other("no flow is free to try it with"));
    }
    socket.join_multicast_v4(MULTICAST_GROUP, Ipv4Addr::UNSPECIFIED)?;
    socket.set_multicast_loop_v4(true)?;
    socket.set_multicast_ttl_v4(1)?;
    let word = *b"offhook doctor";
    socket.send_to(&word, group).await?;
    let mut heard = [0; 32];
    loop {
        let (length, _) = socket.recv_from(&mut heard).await?;
        if heard[..length] == word {
            return Ok(());
        }
    }
}
