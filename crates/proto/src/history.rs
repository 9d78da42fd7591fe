//! What was said: logs of signed entries, their order, and what of them is here.

pub mod entry;

pub use entry::{Class, Clock, Entry, EntryId, EntryRef, EpochId, Header, LogKey, RoomId};
