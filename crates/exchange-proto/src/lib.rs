//! Pure: everything the exchange decides. Partner shell: `offhook-exchange`.
//!
//! SIP octets go in, octets, relay commands and records to store come out; there is no socket, file, clock or
//! randomness here. [`Exchange`] composes the parts and is the only one that knows them all:
//! * [`sip`] what is on the wire; [`transaction`] and [`dialog`] after RFC 3261
//! * [`registrar`] where phones are; [`route`] where a number leads; [`guard`] whom not to answer
//! * [`bridge`] the call machine; [`relay`] which media ports and who may use them
//! * [`replica`] versioned records for a standby; [`detector`] who may act, by lease and epoch
//! * [`protection`] which changes standbys have
//! * [`locator`] which instances there are and who stands by for whom; [`wire`] what instances say to each other
//!
//! Not here yet: ring groups, forwarding, voicemail, conferences, trunks, presence, WebSocket.

#![forbid(unsafe_code)]

pub mod bridge;
pub mod detector;
pub mod dialog;
mod exchange;
pub mod flow;
pub mod fuzzing;
pub mod guard;
pub mod locator;
pub mod protection;
pub mod registrar;
pub mod relay;
pub mod replica;
pub mod route;
pub mod sip;
pub mod time;
pub mod token;
pub mod transaction;
pub mod wire;

pub use exchange::{
    CALLS_MAX, CallView, Config, Counters, Exchange, Input, KEEP_ALIVE_MS, MediaPath, Outputs, Place, Seeds,
    StoreCommand,
};
