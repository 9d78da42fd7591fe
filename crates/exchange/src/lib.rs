//! Shell: sockets, relay and store of the exchange. Partner pure crate: `offhook-exchange-proto`, which decides.
//!
//! * [`driver`] the only event loop: feeds the pure [`offhook_exchange_proto::Exchange`], commits, relays, sends
//! * [`signalling`] SIP over UDP, TCP and TLS, behind one narrow trait
//! * [`relay`] RTP and RTCP from phone to phone
//! * [`store`] accounts, bindings and call records in SQLite
//! * [`account`] making an account and showing it as text and QR code
//! * [`view`] live calls and metrics
//!
//! One machine only: there is no cluster yet. Media keys are never terminated here; SRTP passes through as it is.

pub mod account;
pub mod driver;
pub mod relay;
pub mod signalling;
pub mod store;
pub mod tls;
pub mod view;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;

pub use driver::Node;

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
    /// Whether phones must prove who they are; off for measurements only.
    pub authenticate: bool,
}

impl Settings {
    /// What runs without configuration.
    pub fn new(home: impl Into<PathBuf>) -> Self {
        Self {
            home: home.into(),
            domain: "offhook".to_owned(),
            listen: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            advertise: None,
            port: 5060,
            tls_port: Some(5061),
            media: offhook_exchange_proto::MediaPath::Relayed {
                first_port: 30_000,
                count: 2_000,
            },
            authenticate: true,
        }
    }

    /// The address that phones are told.
    pub fn advertised(&self) -> IpAddr {
        let listened = Some(self.listen).filter(|ip| !ip.is_unspecified());
        self.advertise
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
    /// The account exists: choose another name.
    #[error("there is an account {0} already")]
    AccountExists(String),
    /// Names are 1 to 32 letters, digits, `-`, `_` or `.`.
    #[error("{0:?} cannot be an account name: use 1 to 32 letters, digits, '-', '_' or '.'")]
    AccountName(String),
    /// The certificate cannot be made or read: remove the files and start again.
    #[error("certificate: {0}")]
    Certificate(String),
    /// The system has no randomness.
    #[error("no randomness: {0}")]
    Randomness(String),
    /// The runtime cannot start.
    #[error("runtime: {0}")]
    Runtime(std::io::Error),
}

/// Runs until interrupted. Prints where it listens.
pub fn run(settings: Settings) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    runtime.block_on(async {
        let node = Node::start(settings).await?;
        println!("{}", node.banner());
        tokio::signal::ctrl_c().await.map_err(Error::Runtime)?;
        node.stop().await
    })
}

/// Random octets from the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| Error::Randomness(error.to_string()))?;
    Ok(bytes)
}
