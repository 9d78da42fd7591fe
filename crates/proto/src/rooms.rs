//! Rooms: who is in them, who may do what, and with which keys they speak.

pub mod epochs;
pub mod invite;
pub mod keepers;
pub mod op;
pub mod proposal;
pub mod role;
pub mod roster;
pub mod spoken;

pub use epochs::{ControlPayload, EpochBook, EpochKeys, EpochSecret, Sending, Slot};
pub use invite::{Address, BadInvite, Doorway, Invite, RelayUrl};
pub use keepers::{KeeperPlace, VaultId};
pub use op::{Control, Cutoff, Equivocation, InviteUse, LogCertificate, Op, RoomKind};
pub use role::{HistoryPolicy, Role};
pub use roster::{ControlEntry, ControlGraph, Roster};
