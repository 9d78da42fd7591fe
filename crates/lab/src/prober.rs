//! What kind of NAT is between two namespaces, found out as RFC 5780 does: by asking from different places. Independent of the code under test.
//!
//! The server answers on two addresses with two ports each. A client learns which outside port it has towards each place (mapping), and whether an answer from
//! a place that it never spoke to gets through (filtering).

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::site::Namespace;

/// Where the server is; the internet's machine needs these addresses.
pub(crate) const SERVERS: [&str; 2] = ["198.18.0.100", "198.18.0.101"];
const PORTS: [u16; 2] = [3478, 3479];
/// How long an answer may take on a local cable; asked [`TRIES`] times.
const PATIENCE: Duration = Duration::from_millis(400);
const TRIES: usize = 3;

/// From where a client wants its answer.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Via {
    Same = 0,
    OtherPort = 1,
    OtherAddress = 2,
}

/// How a NAT treats one of the two questions (RFC 4787, sections 4.1 and 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dependence {
    EndpointIndependent,
    AddressDependent,
    AddressAndPortDependent,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) mapping: Dependence,
    pub(crate) filtering: Dependence,
}

/// The answering side. Ends when dropped.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(namespace: &Namespace) -> Result<Self> {
        let sockets = namespace.within(|| {
            let places = SERVERS.iter().flat_map(|address| PORTS.map(|port| (*address, port)));
            places
                .map(|place| {
                    let socket = UdpSocket::bind(place).with_context(|| format!("binding {place:?}"))?;
                    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
                    Ok(socket)
                })
                .collect::<Result<Vec<_>>>()
        })?;
        let sockets = Arc::new(sockets);
        let stop = Arc::new(AtomicBool::new(false));
        let serve = |own: usize| {
            let (sockets, stop) = (sockets.clone(), stop.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    answer_one(&sockets, own);
                }
            })
        };
        let threads = (0..sockets.len()).map(serve).collect();
        Ok(Self { stop, threads })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // They end with the process otherwise.
            let _ = thread.join();
        }
    }
}

/// A question is its number and from where the answer is wanted; the answer is the number and the port that was seen.
fn answer_one(sockets: &[UdpSocket], own: usize) {
    let mut question = [0; 16];
    let Ok((5, asker)) = sockets[own].recv_from(&mut question) else {
        return;
    };
    let other = match question[4] {
        via if via == Via::OtherPort as u8 => own ^ 1,
        via if via == Via::OtherAddress as u8 => own ^ 2,
        _ => own,
    };
    let mut answer = question[..4].to_vec();
    answer.extend(asker.port().to_be_bytes());
    // What cannot be sent shows as no answer.
    let _ = sockets[other].send_to(&answer, asker);
}

/// Looks at what is between this namespace and the server.
pub(crate) fn classify(from: &Namespace) -> Result<Observed> {
    from.within(|| {
        let place = |address: usize, port: usize| -> Result<SocketAddr> {
            Ok(SocketAddr::new(SERVERS[address].parse()?, PORTS[port]))
        };
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let seen = [(0, 0), (0, 1), (1, 0)].map(|(address, port)| ask(&socket, place(address, port)?, Via::Same));
        let [first, second, third] = seen;
        let first = first?.context("the server does not answer")?;
        let mapping = match (second? == Some(first), third? == Some(first)) {
            (true, true) => Dependence::EndpointIndependent,
            (true, false) => Dependence::AddressDependent,
            _ => Dependence::AddressAndPortDependent,
        };
        // A fresh socket, which has spoken to one place only.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        ask(&socket, place(0, 0)?, Via::Same)?.context("the server does not answer")?;
        let filtering = if ask(&socket, place(0, 0)?, Via::OtherAddress)?.is_some() {
            Dependence::EndpointIndependent
        } else if ask(&socket, place(0, 0)?, Via::OtherPort)?.is_some() {
            Dependence::AddressDependent
        } else {
            Dependence::AddressAndPortDependent
        };
        Ok(Observed { mapping, filtering })
    })
}

/// The port that the server sees, or none where no answer comes.
fn ask(socket: &UdpSocket, server: SocketAddr, via: Via) -> Result<Option<u16>> {
    socket.set_read_timeout(Some(PATIENCE))?;
    for _ in 0..TRIES {
        // Unlike any question before: a late answer to another one is not taken for this one's.
        let number = std::time::UNIX_EPOCH.elapsed()?.subsec_nanos().to_be_bytes();
        let mut question = number.to_vec();
        question.push(via as u8);
        if socket.send_to(&question, server).is_err() {
            return Ok(None);
        }
        let mut answer = [0; 16];
        while let Ok((length, _)) = socket.recv_from(&mut answer) {
            if length == 6 && answer[..4] == number {
                return Ok(Some(u16::from_be_bytes([answer[4], answer[5]])));
            }
        }
    }
    Ok(None)
}
