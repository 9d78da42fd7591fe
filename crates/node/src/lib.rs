//! Shell: runs one Offhook peer. Its pure partner is `offhook-proto`, which decides everything; here is what does.
//!
//! [`node`] starts the parts and hands out a [`NodeHandle`]; `driver` is the only event loop, on a thread of its own, because SQLite
//! blocks; [`store`] keeps the data, [`home`] the directory around it; `endpoint` makes lines (one iroh connection to a peer); `lan`
//! finds peers on the local network and other homes on this machine; [`files`] keeps, fetches and serves the files of messages; [`relay`] passes packets on for others; [`dht`] asks the Mainline DHT where it may; `flows` keeps what a gateway sees of all this below a cap;
//! [`journal`] keeps the numbered events and what the surfaces note for themselves.
//!
//! No decision is made here: what the network says becomes an input, what the peer answers is carried out after the commit.

pub mod dht;
pub mod doctor;
mod driver;
mod endpoint;
pub mod files;
mod flows;
pub mod home;
pub mod journal;
mod lan;
pub mod node;
mod query;
pub mod relay;
pub mod store;

pub use endpoint::{PathAddress, PathView};
pub use flows::FlowSample;
pub use lan::{Near, Where};
pub use node::{Config, EventStream, Happening, Node, NodeError, NodeHandle, StartError};
/// The pure partner, for the program around the node.
pub use offhook_proto as proto;
pub use store::SqliteStore;
