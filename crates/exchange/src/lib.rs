//! Shell: sockets, relay and store of the exchange. Partner pure crate: `offhook-exchange-proto`, which decides.
//!
//! * [`driver`] the event loop of a shard: feeds the pure [`offhook_exchange_proto::Exchange`], commits, relays, sends
//! * [`cluster`] several instances that keep each other's calls up
//! * [`signalling`] SIP over UDP, TCP and TLS, behind one narrow trait
//! * [`relay`] RTP and RTCP from phone to phone
//! * [`store`] accounts, bindings and call records in SQLite
//! * [`account`] making an account and showing it as text and QR code
//! * [`view`] live calls and metrics; [`control`] asks a running exchange for them
//!
//! Media keys are never terminated here; SRTP passes through as it is.

pub mod account;
pub mod cluster;
pub mod control;
pub mod driver;
mod metrics;
pub mod relay;
pub mod signalling;
pub mod store;
pub mod tls;
pub mod view;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;

pub use driver::Node;
pub use offhook_exchange_proto as proto;

/// The domain where none is chosen.
pub const DOMAIN_DEFAULT: &str = "offhook";

/// Settings of `exchange up`; every one has a default.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder of the store and the certificate.
    pub home: PathBuf,
    /// Domain of addresses and digest realm.
    pub domain: String,
    /// Address to listen on; media ports too.
    pub listen: IpAddr,
    /// Address that phones are told; by default the one that the default route leaves from.
    pub advertise: Option<IpAddr>,
    /// Port for SIP over UDP and TCP.
    pub port: u16,
    /// Port for SIP over TLS; `None` switches it off.
    pub tls_port: Option<u16>,
    /// How media travels.
    pub media: offhook_exchange_proto::MediaPath,
    /// Where Prometheus may ask for metrics; nowhere by default.
    pub metrics: Option<SocketAddr>,
    /// The cluster that this instance is part of; none by default.
    pub cluster: Option<cluster::ClusterSettings>,
    /// Whether phones must prove who they are; off for measurements only.
    pub authenticate: bool,
}

impl Settings {
    /// What runs without configuration.
    pub fn new(home: impl Into<PathBuf>) -> Self {
        Self {
            home: home.into(),
            domain: DOMAIN_DEFAULT.to_owned(),
            listen: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            advertise: None,
            port: 5060,
            tls_port: Some(5061),
            media: offhook_exchange_proto::MediaPath::Relayed {
                first_port: 30_000,
                count: 2_000,
            },
            metrics: None,
            cluster: None,
            authenticate: true,
        }
    }

    /// The address that phones are told.
    pub fn advertised(&self) -> IpAddr {
        let listened = Some(self.listen).filter(|ip| !ip.is_unspecified());
        let movable = self
            .cluster
            .as_ref()
            .and_then(|cluster| cluster.movable)
            .map(IpAddr::V4);
        self.advertise
            .or(movable)
            .or(listened)
            .or_else(outward_address)
            .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

/// The address that the default route leaves from: connecting a UDP socket sends nothing.
fn outward_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)).ok()?;
    socket
        .connect(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9))
        .ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Why the exchange cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port is taken or may not be used: choose another.
    #[error("cannot listen for SIP on {address} ({transport}): {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// How.
        transport: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The folder cannot be written: choose another.
    #[error("cannot use {path}: {source}")]
    Home {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The store is damaged or the disk refuses: nothing more is acknowledged.
    #[error("store: {0}")]
    Store(#[from] rusqlite::Error),
    /// Accounts are bound to the domain: use the one they were made for.
    #[error("the accounts here were made for the domain {0}: leave --domain out, or start in another folder")]
    DomainChange(String),
    /// Another process serves this folder: ask it, or stop it.
    #[error("an exchange is running on {0} already")]
    Running(PathBuf),
    /// No process serves this folder: start one.
    #[error("no exchange is running on {0}; start it with `offhook exchange up`")]
    NotRunning(PathBuf),
    /// The running exchange is of another version: restart it.
    #[error("the running exchange is of another version")]
    OtherBuild,
    /// The engine cannot be used: the text says what to change.
    #[error("engine: {0}")]
    Engine(String),
    /// This instance cannot take its place: the text says what to change.
    #[error("cluster: {0}")]
    Cluster(String),
    /// The account exists: choose another name.
    #[error("there is an account {0} already")]
    AccountExists(String),
    /// No such account.
    #[error("there is no account {0}")]
    NoAccount(String),
    /// Names are 1 to 32 letters, digits, `-`, `_` or `.`.
    #[error("{0:?} cannot be an account name: use 1 to 32 letters, digits, '-', '_' or '.'")]
    AccountName(String),
    /// The certificate cannot be made or read: remove the files and start again.
    #[error("certificate: {0}")]
    Certificate(String),
    /// The system has no randomness.
    #[error("no randomness: {0}")]
    Randomness(String),
}

/// Runs until `end` or until it fails.
pub async fn run(settings: Settings, started: impl FnOnce(&Node), end: impl Future<Output = ()>) -> Result<(), Error> {
    let mut node = Node::start(settings).await?;
    started(&node);
    tokio::select! {
        () = end => {}
        ended = node.stopped() => return ended,
    }
    node.stop().await
}

/// Random octets from the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| Error::Randomness(error.to_string()))?;
    Ok(bytes)
}
