//! Media relaying decided here, done by the shell: which ports, where packets go, and who may send them.
//!
//! Each leg of a call owns one even RTP port (RTCP on the next) for each media section, facing its phone; two
//! ports are paired and packets that enter one leave by the other. A phone behind a translator sends from an address
//! that its description does not name: such a source is learnt ("latched") only from the network address on which
//! the phone authenticated itself, once, until the next description. Anything else is dropped, so a stranger can
//! neither inject nor redirect audio.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// What the shell's forwarder is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayCommand {
    /// Bind this port and the next.
    Open {
        /// RTP port.
        port: u16,
    },
    /// Packets of this port's phone come from and go to here.
    Remote {
        /// RTP port.
        port: u16,
        /// Whom to expect.
        source: MediaSource,
    },
    /// What enters one leaves by the other; replaces earlier pairs of both.
    Pair {
        /// One RTP port.
        a: u16,
        /// The other.
        b: u16,
    },
    /// Unbind.
    Close {
        /// RTP port.
        port: u16,
    },
}

/// Who may send to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaSource {
    /// RTP address of the session description.
    pub rtp: Option<SocketAddr>,
    /// RTCP address of the session description.
    pub rtcp: Option<SocketAddr>,
    /// The address on which the phone proved who it is.
    pub authenticated: IpAddr,
}

/// The rule of latching for one of the two streams of a port.
#[derive(Clone, Copy, Debug)]
pub struct Latch {
    declared: Option<SocketAddr>,
    authenticated: Option<IpAddr>,
    learnt: Option<SocketAddr>,
}

impl Latch {
    /// Accepts nobody.
    pub fn closed() -> Self {
        Self {
            declared: None,
            authenticated: None,
            learnt: None,
        }
    }

    /// Starts anew for a description.
    pub fn new(declared: Option<SocketAddr>, authenticated: IpAddr) -> Self {
        Self {
            declared,
            authenticated: Some(authenticated),
            learnt: None,
        }
    }

    /// Whether a packet from there is to be forwarded; learns its source when the rule allows.
    pub fn accepts(&mut self, source: SocketAddr) -> bool {
        if self.declared.is_none() {
            return false;
        }
        if let Some(learnt) = self.learnt {
            return source == learnt;
        }
        let allowed = self.declared == Some(source) || self.authenticated == Some(source.ip());
        if allowed {
            self.learnt = Some(source);
        }
        allowed
    }

    /// Where packets for the phone go.
    pub fn destination(&self) -> Option<SocketAddr> {
        self.learnt.or(self.declared)
    }
}

/// The range of RTP ports. Freed ports rest at the end of the queue, so late packets hit no new call.
#[derive(Clone, Debug)]
pub struct PortPool {
    free: VecDeque<u16>,
    taken: BTreeSet<u16>,
}

impl PortPool {
    /// Even ports from `first`, two for each.
    pub fn new(first: u16, count: u16) -> Self {
        let first = first + first % 2;
        Self {
            free: (0..count)
                .map(|n| first.saturating_add(n * 2))
                .filter(|port| *port < u16::MAX)
                .collect(),
            taken: BTreeSet::new(),
        }
    }

    /// The next free port.
    pub fn take(&mut self) -> Option<u16> {
        let port = self.free.pop_front()?;
        self.taken.insert(port);
        Some(port)
    }

    /// Takes that very port, for a call restored from a record.
    pub fn claim(&mut self, port: u16) {
        self.free.retain(|free| *free != port);
        self.taken.insert(port);
    }

    /// Gives a port back.
    pub fn give_back(&mut self, port: u16) {
        if self.taken.remove(&port) {
            self.free.push_back(port);
        }
    }

    /// Ports in use.
    pub fn taken_count(&self) -> usize {
        self.taken.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_declared_or_the_authenticated_address_is_heard() {
        let phone = "10.0.0.9:4000".parse().unwrap();
        let translated: SocketAddr = "198.51.100.7:61000".parse().unwrap();
        let stranger = "203.0.113.1:4000".parse().unwrap();
        let mut latch = Latch::new(Some(phone), translated.ip());
        assert!(!latch.accepts(stranger));
        assert_eq!(latch.destination(), Some(phone));
        assert!(latch.accepts(translated));
        assert_eq!(latch.destination(), Some(translated));
        assert!(!latch.accepts("198.51.100.7:61001".parse().unwrap()), "latched once");
        assert!(!Latch::closed().accepts(phone));
    }

    #[test]
    fn ports_rest_before_they_are_used_again() {
        let mut pool = PortPool::new(30_001, 2);
        assert_eq!(pool.take(), Some(30_002));
        pool.give_back(30_002);
        assert_eq!(pool.take(), Some(30_004));
        assert_eq!(pool.take(), Some(30_002));
        assert_eq!(pool.take(), None);
    }
}
