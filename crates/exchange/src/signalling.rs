//! SIP on the network: octets in, octets out, behind [`SipSignalling`].
//!
//! Sockets and streams are rsipstack's; parsing, framing, transactions and dialogs are not: its receive loops drop
//! what they cannot parse, so a malformed request would get no answer, and queue without bound.
//! Bounds here: [`CONNECTIONS_MAX`] connections, [`CONNECTIONS_PER_SOURCE_MAX`] of one address, [`QUEUE`] messages
//! waiting for one slow reader, [`HALF_MESSAGE_S`] seconds for a message to become whole, [`IDLE_S`] without traffic.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use offhook_exchange_proto::flow::{Flow, Transport};
use offhook_exchange_proto::sip::Framer;
use offhook_exchange_proto::sip::message::{Frame, MESSAGE_BYTES_MAX};
use offhook_exchange_proto::transaction::Transmit;
use rsipstack::sip::transport::Transport as RsipTransport;
use rsipstack::transport::SipAddr;
use rsipstack::transport::stream::StreamConnectionInner;
use rsipstack::transport::udp::{UdpConnection, UdpInner};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use crate::Error;

/// Most stream connections.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Most stream connections from one address.
pub const CONNECTIONS_PER_SOURCE_MAX: usize = 256;
/// Messages waiting for one connection; a reader slower than that is cut off.
pub const QUEUE: usize = 256;
/// How long a begun message may take, and a TLS handshake, seconds.
pub const HALF_MESSAGE_S: u64 = 15;
/// How long a connection may say nothing, seconds.
pub const IDLE_S: u64 = 7_200;
/// How long the receiver sleeps between two looks while datagrams keep coming: one wake takes in many of them.
const NAP: Duration = Duration::from_millis(2);
/// Receive buffer asked of the system, octets: bursts of registrations do not fit the default.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// What comes from the network.
#[derive(Debug)]
pub enum Arrival {
    /// A datagram or one framed message.
    Message(Flow, Vec<u8>),
    /// A connection is gone.
    Closed(Flow),
}

/// The narrow waist between the exchange and a SIP stack.
pub trait SipSignalling: Send + Sync {
    /// Sends one message. Failure of a stream shows later as [`Arrival::Closed`].
    fn send(&self, transmit: Transmit) -> impl Future<Output = ()> + Send;
}

/// Where to listen.
#[derive(Clone, Copy, Debug)]
pub struct Listen {
    /// The address.
    pub address: IpAddr,
    /// Port of UDP and TCP.
    pub port: u16,
    /// Port of TLS.
    pub tls_port: Option<u16>,
}

/// [`SipSignalling`] over rsipstack's transports.
pub struct Rsipstack {
    udp: UdpConnection,
    connections: Arc<Connections>,
    tasks: JoinSet<()>,
    /// Resolves when the receiving thread has let go of its socket.
    received: oneshot::Receiver<()>,
}

#[derive(Default)]
struct Connections {
    queues: Mutex<BTreeMap<u64, Connection>>,
    last: AtomicU64,
}

struct Connection {
    queue: mpsc::Sender<Vec<u8>>,
    source: IpAddr,
}

impl Connections {
    /// Room for one more of this source.
    fn admit(&self, source: IpAddr) -> Option<(u64, mpsc::Receiver<Vec<u8>>)> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let of_source = queues.values().filter(|connection| connection.source == source).count();
        if queues.len() >= CONNECTIONS_MAX || of_source >= CONNECTIONS_PER_SOURCE_MAX {
            return None;
        }
        let id = self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let (queue, waiting) = mpsc::channel(QUEUE);
        queues.insert(id, Connection { queue, source });
        Some((id, waiting))
    }

    fn enqueue(&self, id: u64, bytes: Vec<u8>) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let full = queues
            .get(&id)
            .is_some_and(|connection| connection.queue.try_send(bytes).is_err());
        if full {
            queues.remove(&id);
        }
    }

    fn remove(&self, id: u64) {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

impl Rsipstack {
    /// Binds all sockets; what arrives goes to `arrivals`.
    pub async fn open(
        listen: Listen,
        tls: Option<TlsAcceptor>,
        arrivals: mpsc::Sender<Arrival>,
    ) -> Result<Self, Error> {
        let mut tasks = JoinSet::new();
        // Flows outlive this process in records: none of them may ever name a connection of another phone.
        let connections = Arc::new(Connections {
            last: AtomicU64::new(u64::from_le_bytes(crate::random()?)),
            ..Connections::default()
        });
        let address = SocketAddr::new(listen.address, listen.port);
        let receiving = receive_datagrams(address, arrivals.clone()).await;
        let (udp, received) = receiving.map_err(|source| Error::Listen {
            address,
            transport: "UDP",
            source,
        })?;
        let tcp = TcpListener::bind(address).await.map_err(|source| Error::Listen {
            address,
            transport: "TCP",
            source,
        })?;
        tasks.spawn(accept(tcp, None, connections.clone(), arrivals.clone()));
        if let (Some(port), Some(acceptor)) = (listen.tls_port, tls) {
            let address = SocketAddr::new(listen.address, port);
            let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen {
                address,
                transport: "TLS",
                source,
            })?;
            tasks.spawn(accept(listener, Some(acceptor), connections.clone(), arrivals));
        }
        Ok(Self {
            udp,
            connections,
            tasks,
            received,
        })
    }

    /// Returns when the addresses can be listened on again. The receiver of arrivals must be gone.
    pub(crate) async fn close(mut self) {
        self.tasks.shutdown().await;
        drop(self.udp);
        let _ = self.received.await;
    }
}

impl SipSignalling for Rsipstack {
    async fn send(&self, transmit: Transmit) {
        match transmit.flow.transport {
            Transport::Udp => {
                let to = rsip_address(RsipTransport::Udp, transmit.flow.remote);
                // Lost datagrams are the transactions' business.
                let _ = self.udp.send_raw(&transmit.bytes, &to).await;
            }
            Transport::Tcp | Transport::Tls => self.connections.enqueue(transmit.flow.connection, transmit.bytes),
        }
    }
}

async fn open_udp(address: SocketAddr) -> std::io::Result<UdpConnection> {
    let domain = if address.is_ipv4() {
        socket2::Domain::IPV4
    } else {
        socket2::Domain::IPV6
    };
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    // The system may grant less.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    let socket = UdpSocket::from_std(socket.into())?;
    let addr = rsip_address(RsipTransport::Udp, socket.local_addr()?);
    Ok(UdpConnection::attach(
        UdpInner {
            conn: Arc::new(socket),
            addr,
        },
        None,
        None,
    )
    .await)
}

fn rsip_address(transport: RsipTransport, address: SocketAddr) -> SipAddr {
    SipAddr::new(transport, address.into())
}

/// Opens the socket on a thread of its own, with a reactor of its own: while that sleeps, what arrives wakes nobody. It
/// ends with the receiver of `arrivals`.
async fn receive_datagrams(
    address: SocketAddr,
    arrivals: mpsc::Sender<Arrival>,
) -> std::io::Result<(UdpConnection, oneshot::Receiver<()>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (opened, socket) = oneshot::channel();
    let (ended, received) = oneshot::channel();
    let receive = async move {
        let udp = open_udp(address).await;
        let again = udp.as_ref().ok().cloned();
        // Whoever opens it may be gone.
        if let (Ok(()), Some(udp)) = (opened.send(udp), again) {
            tokio::select! {
                () = pass_on(&udp, &arrivals) => {}
                () = arrivals.closed() => {}
            }
        }
    };
    std::thread::Builder::new().name("sip-udp".to_owned()).spawn(move || {
        runtime.block_on(receive);
        drop(runtime);
        // Whoever waits for it may be gone.
        let _ = ended.send(());
    })?;
    let udp = socket
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::BrokenPipe.into()))?;
    Ok((udp, received))
}

async fn pass_on(udp: &UdpConnection, arrivals: &mpsc::Sender<Arrival>) {
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    let mut looked = Instant::now();
    loop {
        let mut received = Some(udp.recv_raw(&mut buffer).await);
        let begun = Instant::now();
        while let Some(datagram) = received {
            // An error belongs to an earlier send (port unreachable), not to the socket.
            if let Ok((length, from)) = datagram
                && let Ok(remote) = from.get_socketaddr()
            {
                let arrival = Arrival::Message(Flow::udp(remote), buffer[..length].to_vec());
                if arrivals.send(arrival).await.is_err() {
                    return;
                }
            }
            received = udp.recv_raw(&mut buffer).now_or_never();
        }
        if begun.duration_since(looked) < 2 * NAP {
            std::thread::sleep(NAP);
        }
        looked = begun;
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    connections: Arc<Connections>,
    arrivals: mpsc::Sender<Arrival>,
) {
    loop {
        let Ok((stream, remote)) = listener.accept().await else {
            // Out of descriptors: wait for some to close.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Some((id, queue)) = connections.admit(remote.ip()) else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (connections, arrivals, tls) = (connections.clone(), arrivals.clone(), tls.clone());
        tokio::spawn(async move {
            let transport = if tls.is_some() { Transport::Tls } else { Transport::Tcp };
            let flow = Flow {
                transport,
                remote,
                connection: id,
            };
            serve(stream, tls, flow, queue, &arrivals).await;
            connections.remove(id);
            let _ = arrivals.send(Arrival::Closed(flow)).await;
        });
    }
}

async fn serve(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    flow: Flow,
    queue: mpsc::Receiver<Vec<u8>>,
    arrivals: &mpsc::Sender<Arrival>,
) {
    match tls {
        None => carry(tokio::io::split(stream), flow, queue, arrivals).await,
        Some(acceptor) => {
            if let Ok(Ok(stream)) = timeout(Duration::from_secs(HALF_MESSAGE_S), acceptor.accept(stream)).await {
                carry(tokio::io::split(stream), flow, queue, arrivals).await;
            }
        }
    }
}

/// Reads and writes one stream until either side is done.
async fn carry<S>(
    halves: (ReadHalf<S>, WriteHalf<S>),
    flow: Flow,
    mut queue: mpsc::Receiver<Vec<u8>>,
    arrivals: &mpsc::Sender<Arrival>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let transport = if flow.transport == Transport::Tls {
        RsipTransport::Tls
    } else {
        RsipTransport::Tcp
    };
    let remote = rsip_address(transport, flow.remote);
    let stream = StreamConnectionInner::new(remote.clone(), remote, halves.0, halves.1);
    let Some(reader) = stream.read_half.lock().await.take() else {
        return;
    };
    let write = async {
        while let Some(bytes) = queue.recv().await {
            let sent = timeout(Duration::from_secs(HALF_MESSAGE_S), stream.send_raw(&bytes)).await;
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
    };
    tokio::select! {
        () = read(reader, flow, &stream, arrivals) => {}
        () = write => {}
    }
    let _ = stream.close().await;
}

async fn read<S>(
    mut reader: ReadHalf<S>,
    flow: Flow,
    stream: &StreamConnectionInner<ReadHalf<S>, WriteHalf<S>>,
    arrivals: &mpsc::Sender<Arrival>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut framer = Framer::default();
    let mut buffer = vec![0; 8_192];
    let mut until = Instant::now() + Duration::from_secs(IDLE_S);
    loop {
        let Ok(Ok(length @ 1..)) = timeout_at(until.into(), reader.read(&mut buffer)).await else {
            return;
        };
        // Whether what is left over in the end begins with these octets.
        let mut begins_here = framer.is_empty();
        framer.push(&buffer[..length]);
        loop {
            match framer.next_frame() {
                Ok(None) => break,
                Ok(Some(Frame::Ping)) => {
                    if stream.send_raw(b"\r\n").await.is_err() {
                        return;
                    }
                }
                Ok(Some(Frame::Message(bytes))) => {
                    begins_here = true;
                    if arrivals.send(Arrival::Message(flow, bytes)).await.is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
        // A begun message has so long in all, however slowly its octets come.
        let now = Instant::now();
        if framer.is_empty() {
            until = now + Duration::from_secs(IDLE_S);
        } else if begins_here {
            until = now + Duration::from_secs(HALF_MESSAGE_S);
        }
    }
}
