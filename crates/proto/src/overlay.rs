//! What others see of a node on the network, and to whom it holds lines.
//!
//! [`ledger`] counts every flow (a 5-tuple, as a NAT gateway counts them) and keeps their number below a cap; [`plan`] chooses the few peers that cover all
//! rooms; [`dial`] says at which addresses one is called, and how long it is waited for; [`directory`] passes on questions of where a device is; [`dht`] keeps and finds items in the Mainline DHT, for those who chose it. They know nothing of rooms' contents, of frames or of sockets: addresses, devices and numbers come in, choices come out.

pub mod dht;
pub mod dial;
pub mod directory;
pub mod ledger;
pub mod plan;
