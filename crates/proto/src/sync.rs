//! How two peers that share rooms get the same entries: one stream, all rooms.
//!
//! 1. `Hello`: for each room an 8-byte tag and an 8-byte digest of what is held, both keyed by a room secret, the connection's exporter secret and
//!    the sender, padded to a multiple of [`PADDING`] rooms with random bytes. A stranger learns nothing; two members learn which rooms they share and which of them differ.
//! 2. `Summary`, for rooms that differ: what is held of each log that changed since the last state that both agreed on (the *base*, named by
//!    its digest), a byte or two for a log that merely grew.
//! 3. `Want`, to whom it suits: ranges of entries; control entries first, then the newest page, then the rest. What was asked of one peer is not asked of another.
//! 4. `Entries`: runs of entries. What is new and durable is acknowledged and announced by `Have`.
//! 5. `InStep`: the digest once nothing is missing; when both said the same, that state is the next base.
//!
//! New entries are pushed at once to the peers that have a line. This module holds the frames and the vectors; [`crate::peer`] acts on them.

pub mod frame;
pub mod vector;

pub use frame::Frame;
pub use vector::{Changes, Vector};

/// Hellos are padded to a multiple of this many rooms.
pub const PADDING: usize = 16;
