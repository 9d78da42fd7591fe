//! One peer: composes everything that a node decides. The only module that knows all others.
//!
//! The contract with the shell, in order:
//!
//! 1. [`Peer::open`] with an opened store, the secrets, a seed for randomness, and the time.
//! 2. Open a store transaction. Call [`Peer::handle`] with one input, or with a batch, one after the other.
//! 3. Commit. Only then carry out the outputs: *persist, then send*.
//! 4. When [`Peer::poll_timeout`] is due, call `handle(Input::Timeout, now)`.
//! 5. On a [`StoreError`] roll back, drop the peer, and begin at 1: there is no other recovery.
//!
//! Errors of remote peers are never `Err`: they are handled here and shown as events.

use std::net::SocketAddr;
use std::time::Instant;

use crate::history::{EntryId, RoomId};
use crate::identity::{DeviceId, PersonId};
use crate::store::{Store, StoreError};

pub mod command;
pub mod view;

pub use command::{Command, CommandError, Post, Reply};

/// Something that happened outside.
#[derive(Debug, Clone)]
pub enum Input {
    /// The person wants something. Answered by exactly one [`Output::Reply`] with the same id.
    Command {
        /// Chosen by the caller.
        id: u64,
        /// What.
        command: Command,
    },
    /// The wall clock now, in milliseconds since 1970. Sent first, then at every step of the clock and every few seconds.
    WallClock {
        /// Milliseconds since 1970.
        unix_ms: u64,
    },
    /// An authenticated connection to a device is up, and its stream is ready for frames.
    LineUp {
        /// The device at the other end.
        peer: DeviceId,
        /// The connection's exporter secret (RFC 8446, 7.5), the same at both ends.
        exporter: [u8; 32],
        /// The remote address, where the path is direct.
        address: Option<SocketAddr>,
    },
    /// The connection is gone.
    LineDown {
        /// The device.
        peer: DeviceId,
    },
    /// A dial did not lead to a line.
    DialFailed {
        /// The device.
        peer: DeviceId,
    },
    /// A frame arrived on a line.
    Frame {
        /// From whom.
        peer: DeviceId,
        /// The frame, without its length.
        bytes: Vec<u8>,
    },
    /// A device may be at these addresses (seen on the local network, or told by the person).
    Found {
        /// The device.
        peer: DeviceId,
        /// Where.
        addresses: Vec<SocketAddr>,
    },
    /// This node's own addresses as others may reach it, best first.
    OwnAddresses {
        /// Best first.
        addresses: Vec<SocketAddr>,
        /// The home relay, if there is one.
        relay: Option<String>,
    },
    /// The network changed or the machine woke up: try everybody again, soon.
    NetworkChanged,
    /// The deadline of [`Peer::poll_timeout`] is due.
    Timeout,
}

/// Something to do outside, after the commit.
#[derive(Debug, Clone)]
pub enum Output {
    /// The answer to a command.
    Reply {
        /// The command's id.
        id: u64,
        /// What came of it.
        reply: Result<Reply, CommandError>,
    },
    /// Send a frame on the line to a device; frames to one device stay in order.
    Send {
        /// To whom.
        peer: DeviceId,
        /// The frame, without its length.
        bytes: Vec<u8>,
    },
    /// Try to reach a device at these addresses (at most two are tried) or through the relay.
    Dial {
        /// The device.
        peer: DeviceId,
        /// Best first.
        addresses: Vec<SocketAddr>,
        /// Its relay.
        relay: Option<String>,
    },
    /// Close the line to a device.
    Close {
        /// The device.
        peer: DeviceId,
        /// For the log.
        reason: &'static str,
    },
    /// Something that clients may want to know.
    Event(Event),
}

/// What changed, for those who watch.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An entry is new here, or is shown differently now (decrypted, edited, reacted to, deleted, delivered).
    Entry {
        /// The room.
        room: RoomId,
        /// The entry.
        id: EntryId,
        /// True for the first time it can be shown.
        new: bool,
    },
    /// A room's members, name or standing changed.
    Room {
        /// The room.
        room: RoomId,
    },
    /// A line came up or went down.
    Line {
        /// The device.
        peer: DeviceId,
        /// Up or down.
        up: bool,
    },
    /// A step of a join.
    Join {
        /// The room.
        room: RoomId,
        /// The step.
        step: JoinStep,
    },
    /// Something that a person should look at.
    Notice {
        /// The room, where it is about one.
        room: Option<RoomId>,
        /// In words.
        text: String,
    },
}

/// How far a join has come, in the order in which the steps happen.
#[derive(Debug, Clone, PartialEq)]
pub enum JoinStep {
    /// Trying to reach a member that the invite names.
    Knocking {
        /// The member's device.
        peer: DeviceId,
    },
    /// A line to a member is up; asked to be let in.
    Asked {
        /// The member's device.
        peer: DeviceId,
    },
    /// Let in: the keys are here.
    Admitted {
        /// By whom.
        by: PersonId,
    },
    /// The membership is verified.
    RosterVerified {
        /// Persons in the room.
        members: usize,
    },
    /// The newest messages can be read.
    Readable {
        /// Messages here.
        entries: u64,
        /// Messages still to come.
        missing: u64,
    },
    /// A member refused.
    Refused {
        /// Why, in words.
        why: String,
        /// Whether asking others can still help.
        last: bool,
    },
}

/// The outputs of one input. Carry them out after the commit, in order.
#[derive(Debug, Clone, Default)]
#[must_use = "outputs are what the peer decided; dropping them loses messages"]
pub struct Outputs(pub Vec<Output>);

/// The secrets that make a peer who it is. The shell keeps them in files of mode 0600.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// The person's root key.
    pub root: crate::identity::RootKey,
    /// This device's key.
    pub device: crate::identity::DeviceKey,
}

/// One peer.
#[derive(Debug)]
pub struct Peer<S> {
    store: S,
    secrets: Secrets,
}

impl<S: Store> Peer<S> {
    /// Opens a peer over its store. `name` is used when the store is new.
    pub fn open(store: S, secrets: Secrets, name: &str, seed: [u8; 32], now: Instant) -> Result<Self, StoreError> {
        let _ = (name, seed, now);
        Ok(Self { store, secrets })
    }

    /// Applies one input and returns what to do after the commit.
    pub fn handle(&mut self, input: Input, now: Instant) -> Result<Outputs, StoreError> {
        let _ = (input, now);
        Ok(Outputs::default())
    }

    /// When [`Input::Timeout`] is due, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }

    /// The store, for the shell to commit or roll back.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// The own person and device.
    pub fn me(&self) -> view::MeView {
        view::MeView {
            person: self.secrets.root.person(),
            device: self.secrets.device.device(),
            name: String::new(),
        }
    }

    /// All rooms, the most recently active first.
    pub fn rooms(&self) -> Result<Vec<view::RoomView>, StoreError> {
        Ok(Vec::new())
    }

    /// The members of a room, highest rank first.
    pub fn members(&self, room: RoomId) -> Result<Option<Vec<view::MemberView>>, StoreError> {
        let _ = room;
        Ok(None)
    }

    /// Everybody known from any room.
    pub fn contacts(&self) -> Result<Vec<view::ContactView>, StoreError> {
        Ok(Vec::new())
    }

    /// Peers and their lines.
    pub fn peers(&self) -> Vec<view::PeerView> {
        Vec::new()
    }

    /// At most `limit` lines of a room's timeline, ascending: the newest, or those before an entry.
    pub fn timeline(
        &self,
        room: RoomId,
        before: Option<EntryId>,
        limit: usize,
    ) -> Result<Option<Vec<view::LineView>>, StoreError> {
        let _ = (room, before, limit);
        Ok(None)
    }

    /// One entry as it is shown.
    pub fn entry(&self, id: EntryId) -> Result<Option<view::EntryView>, StoreError> {
        let _ = id;
        Ok(None)
    }

    /// Where an entry is, and why not further.
    pub fn where_is(&self, id: EntryId) -> Result<Option<view::WhereView>, StoreError> {
        let _ = id;
        Ok(None)
    }

    /// The newest messages that hold all `words` (a word ending in `*` is a prefix, words in double quotes are a phrase).
    pub fn search(&self, words: &str, room: Option<RoomId>, limit: usize) -> Result<Vec<view::EntryView>, StoreError> {
        let _ = (words, room, limit);
        Ok(Vec::new())
    }
}
