//! One simulated machine: a disk, a clock, and the real [`Peer`] over them, driven as the shell drives it.
//!
//! A batch of inputs is one transaction; outputs are released after the commit. A [`Mishap`] kills the process at any
//! point of that; a disk error drops the peer. Both lead to the same recovery: open the peer again from what was committed.

use std::collections::VecDeque;

use offhook_proto::history::{EntryId, RoomId};
use offhook_proto::identity::{DeviceId, PersonId};
use offhook_proto::peer::{Forgery, Input, Output, Peer, Secrets};
use offhook_proto::store::StoreError;

use crate::clock::{Micros, Monotonic, WallClock};
use crate::disk::{Disk, Tables};

/// The most inputs that one transaction takes.
const BATCH_INPUTS_MAX: usize = 64;

/// Where in its next batch a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// After so many inputs, before the commit.
    InBatch(usize),
    /// After the commit, before any output is released.
    AfterCommit,
    /// After so many outputs were released.
    InRelease(usize),
    /// A planted fault: all outputs are released, and the transaction is lost.
    SendThenLose,
}

/// How a batch ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Committed, and all outputs released.
    Committed,
    /// The process died.
    Died,
    /// The store failed, so the peer was dropped.
    StoreFailed(StoreError),
}

/// One machine.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) secrets: Secrets,
    pub(crate) disk: Disk,
    pub(crate) wall: WallClock,
    /// Gone while the process is not running.
    pub(crate) peer: Option<Peer<Disk>>,
    pub(crate) inbox: VecDeque<Input>,
    /// Whether the event that works off the inbox is under way.
    pub(crate) working: bool,
    /// When the event that looks at the peer's deadline is due, if one is under way.
    pub(crate) timer_at: Option<Micros>,
    pub(crate) mishap: Option<Mishap>,
    /// Switched off on purpose: not restarted until switched on again.
    pub(crate) switched_off: bool,
    /// Counts starts, so that events meant for a process that is gone find nobody.
    pub(crate) incarnation: u32,
}

impl Host {
    pub(crate) fn new(index: usize, secrets: Secrets, disk: Disk, wall: WallClock) -> Self {
        Self {
            name: format!("node {index}"),
            secrets,
            disk,
            wall,
            peer: None,
            inbox: VecDeque::new(),
            working: false,
            timer_at: None,
            mishap: None,
            switched_off: false,
            incarnation: 0,
        }
    }

    pub(crate) fn person(&self) -> PersonId {
        self.secrets.root.person()
    }

    pub(crate) fn device(&self) -> DeviceId {
        self.secrets.device.device()
    }

    pub(crate) fn is_up(&self) -> bool {
        self.peer.is_some()
    }

    /// Starts the process.
    pub(crate) fn open(&mut self, seed: [u8; 32], clock: Monotonic, now: Micros) -> Result<(), StoreError> {
        let secrets = self.secrets.clone();
        let opened = Peer::open(self.disk.clone(), secrets, &self.name, seed, clock.at(now));
        let committed = opened.and_then(|peer| self.disk.commit().map(|()| peer));
        match committed {
            Ok(peer) => {
                self.peer = Some(peer);
                self.incarnation += 1;
                Ok(())
            }
            Err(error) => {
                self.disk.rollback();
                Err(error)
            }
        }
    }

    /// Puts an old copy of the home back, as `offhook restore` does: what it opens is told that it was restored.
    pub(crate) fn restore(&mut self, home: &Tables) {
        self.disk.restore(home);
        let marked = Peer::mark_restored(&mut self.disk).and_then(|()| self.disk.commit());
        marked.expect("a disk that was just restored refuses nothing");
    }

    /// Writes something against the rules, and commits it.
    pub(crate) fn forge(&mut self, room: RoomId, forgery: Forgery) -> (Vec<Output>, Vec<EntryId>) {
        let Some(peer) = &mut self.peer else {
            return Default::default();
        };
        match peer.forge(room, forgery) {
            Ok((outputs, ids)) if self.disk.commit().is_ok() => (outputs.0, ids),
            _ => {
                self.kill();
                Default::default()
            }
        }
    }

    /// Ends the process at once; nothing is written any more. What was in the inbox is gone with it.
    pub(crate) fn kill(&mut self) {
        self.peer = None;
        self.inbox.clear();
        self.timer_at = None;
        self.mishap = None;
        self.disk.rollback();
    }

    /// The next inputs for one transaction.
    pub(crate) fn take_batch(&mut self) -> Vec<Input> {
        let count = self.inbox.len().min(BATCH_INPUTS_MAX);
        self.inbox.drain(..count).collect()
    }

    /// Applies a batch in one transaction. The outputs are those that left the machine.
    pub(crate) fn apply(&mut self, batch: Vec<Input>, clock: Monotonic, now: Micros) -> (Vec<Output>, Fate) {
        let mishap = self.mishap.take();
        let (mut outputs, fate) = self.transact(batch, mishap, clock, now);
        if fate != Fate::Committed {
            self.kill();
        }
        match mishap {
            Some(Mishap::AfterCommit) => outputs.clear(),
            Some(Mishap::InRelease(count)) => outputs.truncate(count),
            _ => {}
        }
        (outputs, fate)
    }

    fn transact(
        &mut self,
        batch: Vec<Input>,
        mishap: Option<Mishap>,
        clock: Monotonic,
        now: Micros,
    ) -> (Vec<Output>, Fate) {
        let Some(peer) = &mut self.peer else {
            return (Vec::new(), Fate::Committed);
        };
        let mut outputs = Vec::new();
        for (done, input) in batch.into_iter().enumerate() {
            if mishap == Some(Mishap::InBatch(done)) {
                return (Vec::new(), Fate::Died);
            }
            match peer.handle(input, clock.at(now)) {
                Ok(more) => outputs.extend(more.0),
                Err(error) => return (Vec::new(), Fate::StoreFailed(error)),
            }
        }
        if mishap == Some(Mishap::SendThenLose) {
            return (outputs, Fate::Died);
        }
        match (self.disk.commit(), mishap) {
            (Err(error), _) => (Vec::new(), Fate::StoreFailed(error)),
            (Ok(()), None) => (outputs, Fate::Committed),
            (Ok(()), Some(_)) => (outputs, Fate::Died),
        }
    }
}
