//! The media relay: one pair of UDP sockets for each leg and media section, forwarding packets to the paired port.
//!
//! What is forwarded and to where is decided by [`Latch`]; here it only happens. Packets are not looked into beyond
//! their first octet, which tells RTP, RTCP, STUN and DTLS from noise (RFC 7983), so SRTP passes through.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use offhook_exchange_proto::relay::{Latch, RelayCommand};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use crate::cluster::lease::Lease;

/// Longest packet forwarded, octets.
const PACKET_BYTES_MAX: usize = 2_048;
/// Packets of one stream forwarded before others have their turn.
const FORWARDED_AT_ONCE: usize = 16;

/// What the relay has done.
#[derive(Debug, Default)]
pub struct RelayCounters {
    /// Packets forwarded.
    pub forwarded: AtomicU64,
    /// Packets of unexpected sources, or that are no media.
    pub refused: AtomicU64,
    /// Ports that could not be bound.
    pub failed: AtomicU64,
}

/// RTP or RTCP of one port.
struct Stream {
    socket: UdpSocket,
    latch: Mutex<Latch>,
    partner: Mutex<Option<Arc<Stream>>>,
    forwarded: AtomicU64,
}

struct Port {
    streams: [Arc<Stream>; 2],
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Port {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        // Partners hold each other; let go of both.
        for stream in &self.streams {
            lock(&stream.partner).take();
        }
    }
}

/// All open ports.
pub struct Relay {
    address: IpAddr,
    lease: Arc<Lease>,
    ports: BTreeMap<u16, Port>,
    counters: Arc<RelayCounters>,
}

impl Relay {
    /// No ports yet; they will be bound on this address, also while it is another machine's. Nothing is forwarded
    /// without the lease.
    pub(crate) fn new(address: IpAddr, lease: Arc<Lease>) -> Self {
        Self {
            address,
            lease,
            ports: BTreeMap::new(),
            counters: Arc::default(),
        }
    }

    /// Of a single machine, where nobody else could act.
    pub fn alone(address: IpAddr) -> Self {
        Self::new(address, Arc::new(Lease::unlimited()))
    }

    /// What it has done.
    pub fn counters(&self) -> &Arc<RelayCounters> {
        &self.counters
    }

    /// RTP packets forwarded out of each open port.
    pub fn forwarded_by_port(&self) -> BTreeMap<u16, u64> {
        self.ports
            .iter()
            .map(|(port, open)| (*port, open.streams[0].forwarded.load(Ordering::Relaxed)))
            .collect()
    }

    /// Does one command.
    pub fn handle(&mut self, command: RelayCommand) {
        match command {
            // A standby has opened it already.
            RelayCommand::Open { port } if self.ports.contains_key(&port) => {}
            RelayCommand::Open { port } => match self.open(port) {
                Ok(open) => drop(self.ports.insert(port, open)),
                Err(_) => drop(self.counters.failed.fetch_add(1, Ordering::Relaxed)),
            },
            RelayCommand::Remote { port, source } => {
                if let Some(open) = self.ports.get(&port) {
                    *lock(&open.streams[0].latch) = Latch::new(source.rtp, source.authenticated);
                    *lock(&open.streams[1].latch) = Latch::new(source.rtcp, source.authenticated);
                }
            }
            RelayCommand::Pair { a, b } => self.pair(a, b),
            RelayCommand::Close { port } => drop(self.ports.remove(&port)),
        }
    }

    fn pair(&mut self, a: u16, b: u16) {
        let (Some(a), Some(b)) = (self.ports.get(&a), self.ports.get(&b)) else {
            return;
        };
        for (a, b) in a.streams.iter().zip(&b.streams) {
            *lock(&a.partner) = Some(b.clone());
            *lock(&b.partner) = Some(a.clone());
        }
    }

    fn open(&self, port: u16) -> std::io::Result<Port> {
        let rtcp = port.checked_add(1).ok_or(std::io::ErrorKind::InvalidInput)?;
        let streams = [self.stream(port)?, self.stream(rtcp)?];
        let task =
            |stream: &Arc<Stream>| tokio::spawn(forward(stream.clone(), self.counters.clone(), self.lease.clone()));
        let tasks = [task(&streams[0]), task(&streams[1])];
        Ok(Port { streams, tasks })
    }

    fn stream(&self, port: u16) -> std::io::Result<Arc<Stream>> {
        let socket = bind_ahead(SocketAddr::new(self.address, port))?;
        Ok(Arc::new(Stream {
            socket: UdpSocket::from_std(socket.into())?,
            latch: Mutex::new(Latch::closed()),
            partner: Mutex::new(None),
            forwarded: AtomicU64::new(0),
        }))
    }
}

/// No buffer is kept while it waits: there are four of these for each call, and most of them wait.
async fn forward(stream: Arc<Stream>, counters: Arc<RelayCounters>, lease: Arc<Lease>) {
    loop {
        if stream.socket.readable().await.is_ok() {
            forward_what_is_there(&stream, &counters, &lease);
        }
    }
}

fn forward_what_is_there(stream: &Stream, counters: &RelayCounters, lease: &Lease) {
    let mut buffer = [0; PACKET_BYTES_MAX];
    for _ in 0..FORWARDED_AT_ONCE {
        let (length, source) = match stream.socket.try_recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            // It belongs to an earlier packet (port unreachable), not to the socket.
            Err(_) => continue,
        };
        let packet = &buffer[..length];
        if !lease.holds() {
            continue;
        }
        let accepted = is_media(packet) && lock(&stream.latch).accepts(source);
        if !accepted {
            counters.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let Some(partner) = lock(&stream.partner).clone() else {
            continue;
        };
        let Some(destination) = lock(&partner.latch).destination() else {
            continue;
        };
        // Where the system has no room, sound that comes late is worth less than none.
        if partner.socket.try_send_to(packet, destination).is_ok() {
            partner.forwarded.fetch_add(1, Ordering::Relaxed);
            counters.forwarded.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Binds to an address that may still be another machine's.
fn bind_ahead(address: SocketAddr) -> std::io::Result<socket2::Socket> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    if address.is_ipv4() {
        socket.set_freebind_v4(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// STUN 0-3, ZRTP 16-19, DTLS 20-63, RTP and RTCP 128-191 (RFC 7983).
fn is_media(packet: &[u8]) -> bool {
    packet
        .first()
        .is_some_and(|first| matches!(first, 0..=3 | 16..=63 | 128..=191))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
