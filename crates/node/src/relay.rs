//! Relays: machines that pass sealed packets on between nodes that cannot reach each other, and tell a node which address others see it by.
//!
//! A relay is the server of the crate `iroh-relay`, run inside this program: HTTP (a WebSocket a client) on one TCP port, and QUIC address discovery on
//! [`ADDRESS_DISCOVERY_PORT`] of UDP, without which nodes behind NATs would not know where to punch. It needs no certificate: what it carries is sealed between the ends,
//! and clients prove their ids to it by signature. It sees the ids and addresses of its clients, who talks with whom, when and how much; it can refuse or withhold, and
//! read or change nothing.
//!
//! *Limits*: [`CONNECTIONS_PER_CLIENT_MAX`] connections of one client, a number of connections of all, and bytes a second taken from each; beyond that the relay reads more slowly,
//! so that senders back off.
//!
//! *Whom clients believe*: a relay named by a domain must have a certificate for it from a public authority; one named by an IP address cannot have one, and is taken as it is.
//!
//! *Which relays a node uses*: those configured, and the public ones of the iroh project unless they are turned off; beside them up to [`RELAYS_ADOPTED_MAX`] that it
//! learnt from the records of members of its rooms. Nothing waits for a relay: without any the node works as before.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, ready};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use iroh::tls::CaTlsConfig;
use iroh::{EndpointId, RelayConfig, RelayMap, RelayUrl};
use iroh_relay::server::{
    Access, AccessControl, ClientRateLimit, ClientRequest, ConnectionId, QuicConfig, RelayConfig as ServedRelay,
    Server, ServerConfig,
};
use iroh_relay::tls::default_provider;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use thiserror::Error;

/// The TCP port of a relay that was not told otherwise.
pub const PORT: u16 = 3340;
/// The UDP port at which every client of a relay asks for its own address.
pub const ADDRESS_DISCOVERY_PORT: u16 = iroh::defaults::DEFAULT_RELAY_QUIC_PORT;
/// Connections of one client at the same time: its own, and the one that replaces it.
pub const CONNECTIONS_PER_CLIENT_MAX: usize = 2;
/// Relays taken over from members at the same time: each is a connection that a gateway counts.
const RELAYS_ADOPTED_MAX: usize = 2;
/// What a relay may take from one client at once, in seconds of its rate.
const BURST_S: u32 = 2;

/// How to run a relay.
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// Where to listen for clients (TCP).
    pub listen: SocketAddr,
    /// Where to tell clients their addresses (UDP); clients ask port [`ADDRESS_DISCOVERY_PORT`]. Without it nodes behind NATs meet only through the relay.
    pub address_discovery: Option<SocketAddr>,
    /// How others reach it. Without: the address that this machine has towards others.
    pub url: Option<String>,
    /// Bytes a second taken from each client.
    pub client_bytes_per_s: NonZeroU32,
    /// Connections of all clients at the same time.
    pub connections_max: usize,
}

impl Default for RelayOptions {
    /// On every address, for some hundred nodes of which each may carry a few calls.
    fn default() -> Self {
        let anywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            listen: SocketAddr::new(anywhere, PORT),
            address_discovery: Some(SocketAddr::new(anywhere, ADDRESS_DISCOVERY_PORT)),
            url: None,
            client_bytes_per_s: NonZeroU32::MIN.saturating_add(1_000_000 - 1),
            connections_max: 512,
        }
    }
}

/// Why a relay does not run. The text says what to do.
#[derive(Debug, Error)]
pub enum RelayError {
    /// A port cannot be had.
    #[error("the relay cannot listen at {at}: {why}")]
    Listen {
        /// Where.
        at: SocketAddr,
        /// What the system said.
        why: String,
    },
    /// The URL is not one.
    #[error("{0:?} is not a relay URL; it looks like http://192.0.2.1:3340 or https://relay.example.org")]
    BadUrl(String),
    /// This machine has no address that others could use.
    #[error("this machine has no address to be reached at; say which with --url")]
    NoAddress,
}

/// A running relay. Ends when dropped.
#[derive(Debug)]
pub struct Relay {
    server: Server,
    url: RelayUrl,
    door: Arc<Door>,
}

impl Relay {
    /// Starts a relay. Must be called within a Tokio runtime.
    pub async fn start(options: RelayOptions) -> Result<Self, RelayError> {
        let door = Arc::new(Door {
            connections_max: options.connections_max,
            open: Mutex::default(),
        });
        // The server's own errors do not tell why.
        let taken = |at: SocketAddr, bound: std::io::Result<()>| {
            bound.map_err(|error| RelayError::Listen {
                at,
                why: error.to_string(),
            })
        };
        taken(options.listen, TcpListener::bind(options.listen).map(drop))?;
        let mut served = ServedRelay::new(options.listen);
        let mut rate = ClientRateLimit::new(options.client_bytes_per_s);
        rate.max_burst_bytes = Some(
            options
                .client_bytes_per_s
                .saturating_mul(NonZeroU32::MIN.saturating_add(BURST_S - 1)),
        );
        served.limits.client_rx = Some(rate);
        served.access = door.clone();
        let mut config = ServerConfig::default();
        config.relay = Some(served);
        if let Some(at) = options.address_discovery {
            taken(at, UdpSocket::bind(at).map(drop))?;
            let mut discovery = QuicConfig::new(at);
            discovery.server_config = Some(own_certificate().map_err(|why| RelayError::Listen { at, why })?);
            config.quic = Some(discovery);
        }
        let server = Server::spawn(config).await.map_err(|error| RelayError::Listen {
            at: options.listen,
            why: error.to_string(),
        })?;
        let port = server.http_addr().map_or(options.listen.port(), |at| at.port());
        let url = match options.url {
            Some(url) => url.parse().map_err(|_| RelayError::BadUrl(url))?,
            None => own_url(options.listen.ip(), port)?,
        };
        Ok(Self { server, url, door })
    }

    /// How others reach it.
    pub fn url(&self) -> String {
        self.url.to_string()
    }

    /// Connections of clients now.
    pub fn connections(&self) -> usize {
        self.door.count()
    }

    /// Ends it.
    pub async fn shutdown(self) {
        if let Err(error) = self.server.shutdown().await {
            tracing::debug!(%error, "the relay did not end well");
        }
    }
}

/// Lets clients in, and counts them.
#[derive(Debug)]
struct Door {
    connections_max: usize,
    open: Mutex<BTreeMap<EndpointId, usize>>,
}

impl Door {
    fn count(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    fn judge(&self, client: EndpointId) -> Access {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let own = open.get(&client).copied().unwrap_or(0);
        if all >= self.connections_max || own >= CONNECTIONS_PER_CLIENT_MAX {
            return Access::Deny {
                reason: Some("this relay is full".to_owned()),
            };
        }
        open.insert(client, own + 1);
        Access::Allow
    }
}

impl AccessControl for Door {
    fn on_connect(&self, request: &ClientRequest) -> impl Future<Output = Access> + Send {
        ready(self.judge(request.endpoint_id()))
    }

    fn on_disconnect(&self, client: EndpointId, _connection: ConnectionId) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let left = open.get(&client).map_or(0, |own| own.saturating_sub(1));
        match left {
            0 => open.remove(&client),
            left => open.insert(client, left),
        };
    }
}

/// QUIC needs a certificate; this one attests nothing.
fn own_certificate() -> Result<rustls::ServerConfig, String> {
    let made =
        rcgen::generate_simple_self_signed(vec!["relay.invalid".to_owned()]).map_err(|error| error.to_string())?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    rustls::ServerConfig::builder_with_provider(default_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|config| {
            config
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key.into())
        })
        .map_err(|error| error.to_string())
}

fn own_url(listen: IpAddr, port: u16) -> Result<RelayUrl, RelayError> {
    let ip = match listen.is_unspecified() {
        true => outward_address().ok_or(RelayError::NoAddress)?,
        false => listen,
    };
    let url = format!("http://{}", SocketAddr::new(ip, port));
    url.parse().map_err(|_| RelayError::BadUrl(url))
}

/// The address that this machine has towards others. Connecting a UDP socket sends nothing.
fn outward_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // An address for documentation (RFC 5737): the route towards it is the default one.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
}

/// What a client needs to know of a relay.
pub(crate) fn config_of(url: RelayUrl) -> RelayConfig {
    // Address discovery at its usual port.
    RelayConfig::from(url)
}

/// The relays that a node begins with.
pub(crate) fn first_relays(configured: &[RelayUrl], with_public: bool) -> RelayMap {
    let relays = RelayMap::from_iter(configured.iter().cloned().map(config_of));
    if with_public {
        relays.extend(&iroh::defaults::prod::default_relay_map());
    }
    relays
}

/// Which relays of peers are used.
#[derive(Debug)]
pub(crate) struct RelayChoice {
    adopted: BTreeSet<RelayUrl>,
    no_public: bool,
}

impl RelayChoice {
    pub(crate) fn new(no_public: bool) -> Self {
        Self {
            adopted: BTreeSet::new(),
            no_public,
        }
    }

    /// The relay that a peer names, where it may be used.
    pub(crate) fn of(&self, url: Option<&str>) -> Option<RelayUrl> {
        named_by_peer(url?, self.no_public)
    }

    /// Whether this relay is to be taken over now.
    pub(crate) fn adopt(&mut self, url: &RelayUrl) -> bool {
        self.adopted.len() < RELAYS_ADOPTED_MAX && self.adopted.insert(url.clone())
    }
}

/// The relay that a peer names, where it may be asked: a bare address that is not this machine itself, so that no record makes a node knock at
/// services of its own; and none of the public ones where those are turned off.
fn named_by_peer(text: &str, no_public: bool) -> Option<RelayUrl> {
    let url: RelayUrl = text.parse().ok()?;
    let is_bare = matches!(url.scheme(), "http" | "https")
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    let host = url.host_str()?.trim_end_matches('.');
    let is_elsewhere = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(ip) => !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast(),
        Err(_) => host != "localhost" && !host.ends_with(".localhost"),
    };
    (is_bare && is_elsewhere && !(no_public && is_public(&url))).then_some(url)
}

/// Where a relay that goes by an address tells nodes their own.
pub(crate) fn address_discovery(url: &str) -> Option<SocketAddr> {
    let url: RelayUrl = url.parse().ok()?;
    let host = url.host_str()?.trim_matches(['[', ']']);
    Some(SocketAddr::new(host.parse().ok()?, ADDRESS_DISCOVERY_PORT))
}

/// The iroh project's relays.
pub(crate) fn public() -> Vec<RelayUrl> {
    iroh::defaults::prod::default_relay_map().urls()
}

/// Whether this is one of the iroh project's relays.
pub(crate) fn is_public(url: &RelayUrl) -> bool {
    iroh::defaults::prod::default_relay_map().contains(url)
}

/// Whom a node believes to be the relay it asked for.
pub(crate) fn trust() -> CaTlsConfig {
    CaTlsConfig::custom_server_cert_verifier(Arc::new(|provider| {
        let by_authority = CaTlsConfig::embedded().server_cert_verifier(provider)?;
        Ok(Arc::new(Trust { by_authority }))
    }))
}

/// Names by authority, addresses as they are.
#[derive(Debug)]
struct Trust {
    by_authority: Arc<dyn ServerCertVerifier>,
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match name {
            ServerName::IpAddress(_) => Ok(ServerCertVerified::assertion()),
            name => self
                .by_authority
                .verify_server_cert(end_entity, intermediates, name, ocsp, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.by_authority
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.by_authority
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_authority.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use iroh::endpoint::presets;
    use iroh::{Endpoint, EndpointAddr, RelayMode};
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn on_loopback() -> RelayOptions {
        RelayOptions {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            address_discovery: None,
            ..RelayOptions::default()
        }
    }

    async fn client(relay: &Relay) -> Endpoint {
        let relays = RelayMap::from(RelayConfig::new(relay.url.clone(), None));
        Endpoint::builder(presets::Minimal)
            .clear_ip_transports()
            .alpns(vec![b"test".to_vec()])
            .relay_mode(RelayMode::Custom(relays))
            .ca_tls_config(trust())
            .bind()
            .await
            .unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_nodes_meet_through_a_relay_alone() {
        let relay = Relay::start(on_loopback()).await.unwrap();
        let (a, b) = (client(&relay).await, client(&relay).await);
        timeout(PATIENCE, b.online()).await.unwrap();
        let to_b = EndpointAddr::new(b.id()).with_relay_url(relay.url.clone());
        let (dialled, accepted) = timeout(PATIENCE, async {
            tokio::join!(a.connect(to_b, b"test"), async {
                b.accept().await.unwrap().accept().unwrap().await
            })
        })
        .await
        .unwrap();
        let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
        assert_eq!(accepted.remote_id(), a.id());
        assert_eq!(relay.connections(), 2);
        drop((dialled, accepted));
        a.close().await;
        b.close().await;
        relay.shutdown().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_full_relay_lets_nobody_in() {
        let options = RelayOptions {
            connections_max: 1,
            ..on_loopback()
        };
        let relay = Relay::start(options).await.unwrap();
        let first = client(&relay).await;
        timeout(PATIENCE, first.online()).await.unwrap();
        let second = client(&relay).await;
        assert!(timeout(Duration::from_secs(2), second.online()).await.is_err());
        assert_eq!(relay.connections(), 1);
        first.close().await;
        second.close().await;
        relay.shutdown().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_taken_port_is_named() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let options = RelayOptions {
            address_discovery: taken.local_addr().ok(),
            ..on_loopback()
        };
        let error = Relay::start(options).await.unwrap_err().to_string();
        assert!(error.contains(&taken.local_addr().unwrap().to_string()), "{error}");
    }

    #[test]
    fn a_peer_cannot_name_services_of_this_machine() {
        for good in [
            "http://192.0.2.1:3340",
            "https://relay.example.org/",
            "http://[2001:db8::1]:80",
        ] {
            assert!(named_by_peer(good, true).is_some(), "{good}");
        }
        for bad in [
            "http://127.0.0.1:631",
            "http://[::1]:8080/",
            "http://0.0.0.0:1",
            "http://localhost:8080",
            "http://a.localhost",
            "http://192.0.2.1/admin",
            "http://192.0.2.1/?q",
            "http://user@192.0.2.1/",
            "ftp://192.0.2.1/",
            "relay",
            "",
        ] {
            assert!(named_by_peer(bad, true).is_none(), "{bad}");
        }
    }

    #[test]
    fn public_relays_can_be_turned_off() {
        let public = "https://use1-1.relay.n0.iroh.link.";
        assert!(named_by_peer(public, false).is_some());
        assert!(named_by_peer(public, true).is_none());
        assert!(first_relays(&[], false).is_empty());
        assert!(!first_relays(&[], true).is_empty());
    }
}
