//! Where a message came from and where its answer goes (RFC 5626's *flow*).

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A SIP transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
}

impl Transport {
    /// Whether lost messages are the transport's business.
    pub fn is_reliable(self) -> bool {
        self != Self::Udp
    }

    /// The token of Via.
    pub fn token(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }
}

/// A UDP remote address, or one connection of a stream transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Flow {
    /// The transport.
    pub transport: Transport,
    /// The far end.
    pub remote: SocketAddr,
    /// Number of the connection on its node; zero for UDP.
    pub connection: u64,
}

impl Flow {
    /// A UDP flow.
    pub fn udp(remote: SocketAddr) -> Self {
        Self {
            transport: Transport::Udp,
            remote,
            connection: 0,
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transport.token().to_ascii_lowercase(), self.remote)?;
        if self.connection != 0 {
            write!(f, "#{}", self.connection)?;
        }
        Ok(())
    }
}
