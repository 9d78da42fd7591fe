//! What was said: logs of signed entries, their order, and what of them is here.
//!
//! *Order.* The timeline of a room is sorted by (effective clock, log, sequence number). The effective clock of an entry is the smaller of
//! its own clock and one less than the effective clock of every entry above it (every entry that has it in its causal past).
//! So causes always stand before effects, an author whose clock runs ahead is pulled back as soon as anybody answers, and
//! the order is a function of the set of entries alone: equal at everybody who holds the same entries, whatever the order
//! of arrival. An arriving entry needs nothing below it to be placed, which is what lets the newest page come first.

pub mod body;
pub mod entry;
pub mod file;
pub mod interval;
pub mod run;

pub use body::{Body, Said};
pub use entry::{Class, Clock, Entry, EntryId, EntryRef, EpochId, Header, LogKey, RoomId};
pub use file::{Attachment, ContentId, Picture};
pub use interval::IntervalSet;
