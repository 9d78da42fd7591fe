//! Keepers: nodes that hold a room's sealed entries while its members are away, and learn as little as that takes.
//!
//! A keeper has one *vault* for each room that showed it a ticket. It checks what it is given as a member would, by the signatures and chains of the logs, but
//! has no key that opens anything. Who may read is a list of blinded device ids; who may write proves to have the room's *write key*, which follows from
//! the sync key of the epoch in use and so changes with every removal. Both stand in one signed record, [`Access`], which
//! each holder of the write key may replace by the next one.
//!
//! * [`address`]: where a keeper is, and the ticket that opens vaults there.
//! * [`access`]: who may read and write a vault.
//! * [`frame`]: what is said between a member and a keeper.
//! * [`vault`]: what a keeper keeps, and every answer that it gives.
//! * [`audit`]: what a member can find out about a keeper that lies or forgets.
//!
//! What a keeper does *not* do: it lets nobody in, gives nobody keys, and decides nothing about a room. `docs/protocol/keepers.md` says what it sees.

pub mod access;
pub mod address;
pub mod audit;
pub mod frame;
pub mod vault;

pub use access::{Access, ReaderTag};
pub use address::KeeperAddress;
pub use frame::{Answer, Ask, Refusal};
pub use vault::{Caller, Limits, Vaults};
