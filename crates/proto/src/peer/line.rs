//! One line: what a peer at the other end of a connection shares with us, holds, and was asked for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use crate::crypto::{Secret, prefix8};
use crate::history::{EpochId, IntervalSet, LogKey};
use crate::identity::DeviceId;
use crate::peer::record::Base;
use crate::store::RoomNo;
use crate::sync::frame::{LogName, LogRanges, RoomTag};

/// Entries asked of one peer in one `Want`.
pub(super) const WANT_ENTRIES_MAX: u64 = 1024;
/// Of those, the newest of each log first.
pub(super) const WANT_NEWEST: u32 = 256;
/// What is missing altogether up to this is asked for by one `WantAll`.
pub(super) const WANT_ALL_MAX: u64 = 4096;
/// Messages in the first page of a room that is far behind.
pub(super) const PAGE: u32 = 50;
/// How often a peer may knock on one connection.
pub(super) const KNOCKS_MAX: u32 = 32;
/// How often a peer may show, on one connection, that somebody is out or how it came in.
pub(super) const SHOWINGS_MAX: u32 = 32;
/// Pieces of one log that a peer may say it holds.
pub(super) const HAS_PIECES_MAX: usize = 8192;
/// Wants that one peer may owe answers to, for one room.
const OUTSTANDING_MAX: usize = 2;
/// The most logs that one peer may name in one room on one connection.
const NAMES_MAX: usize = 64 * 1024;

const TAG: &[u8] = b"tag";
const DIGEST: &[u8] = b"digest";

/// A connection to a peer.
#[derive(Debug)]
pub(super) struct Line {
    pub exporter: Secret,
    pub last_frame: Instant,
    /// Rooms by the tags of either side's hello.
    pub tags: BTreeMap<RoomTag, RoomNo>,
    /// Rooms that both sides are known to share.
    pub rooms: BTreeMap<RoomNo, RoomLine>,
    /// What the own hellos said, by room.
    pub greeted: BTreeMap<RoomNo, Greeting>,
    /// Rooms that were named a second time, by their first epoch.
    pub greeted_again: BTreeSet<RoomNo>,
    /// The other side has said its rooms.
    pub heard: bool,
    /// Tags of the other's hello that meant nothing (yet).
    pub unknown: Vec<([u8; 8], [u8; 8])>,
    /// How often the peer knocked.
    pub knocks: u32,
    /// How often the peer showed entries that settle who is out, or how it came in.
    pub shown: u32,
    /// How often the peer gave back what this person wrote above a fork.
    pub given_back: u32,
    /// Rooms that the peer named and is not served, with the number of control entries known when it was told so.
    pub told_out: BTreeMap<RoomNo, usize>,
    /// Rooms whose admission was shown to the peer.
    pub admission_shown: BTreeSet<RoomNo>,
    /// The age of each address record sent.
    pub addresses_sent: BTreeMap<DeviceId, u64>,
}

/// What the own hello said of a room.
#[derive(Debug)]
pub(super) struct Greeting {
    /// The secret behind its tag.
    pub sync: Secret,
    /// The digest that it stated, unkeyed.
    pub digest: [u8; 32],
}

impl Line {
    pub(super) fn new(exporter: [u8; 32], now: Instant) -> Self {
        Self {
            exporter: Secret(exporter),
            last_frame: now,
            tags: BTreeMap::new(),
            rooms: BTreeMap::new(),
            greeted: BTreeMap::new(),
            greeted_again: BTreeSet::new(),
            heard: false,
            unknown: Vec::new(),
            knocks: 0,
            shown: 0,
            given_back: 0,
            told_out: BTreeMap::new(),
            admission_shown: BTreeSet::new(),
            addresses_sent: BTreeMap::new(),
        }
    }

    /// The tag by which `sender` names the room whose epoch has this sync secret.
    pub(super) fn tag(&self, sync: &Secret, sender: &DeviceId) -> RoomTag {
        prefix8(&sync.mac(&[&self.exporter.0[..], &sender.0, TAG].concat()))
    }

    /// The digest that the peer knows from the own hello, if it can read the tag: both hellos were keyed alike.
    pub(super) fn greeted_as(&self, no: RoomNo, sync: &Secret) -> Option<[u8; 32]> {
        let greeting = self.greeted.get(&no).filter(|greeting| greeting.sync == *sync)?;
        Some(greeting.digest)
    }

    /// A room digest as `sender` says it.
    pub(super) fn digest(&self, sync: &Secret, sender: &DeviceId, digest: &[u8; 32]) -> [u8; 8] {
        prefix8(&sync.mac(&[&self.exporter.0[..], &sender.0, DIGEST, digest].concat()))
    }
}

/// A room that both ends of a line share.
#[derive(Debug)]
pub(super) struct RoomLine {
    /// How to name the room to the peer.
    pub tag: RoomTag,
    /// The sync secret behind that tag: digests on this line are keyed by it.
    pub sync: Secret,
    /// The last state that both agreed on.
    pub base: Option<Base>,
    /// The peer used the same base: places in it name logs.
    pub base_confirmed: bool,
    /// What the peer holds, as far as it said; `None` until it said anything.
    pub has: Option<BTreeMap<LogKey, IntervalSet>>,
    /// Numbers that we gave to logs on this line.
    names_out: BTreeMap<LogKey, u32>,
    /// Logs that the peer numbered.
    names_in: Vec<LogKey>,
    pub summary_sent: bool,
    /// The peer wants everything, and what it has is not known yet: its summary had a base that is not known here.
    pub all_wanted: bool,
    /// Wants that the peer owes answers to, oldest first.
    pub asked: VecDeque<Asked>,
    pub control_asked: bool,
    pub page_asked: bool,
    /// The digest in the peer's hello, keyed.
    pub heard: Option<[u8; 8]>,
    /// The digest of the last `InStep` sent, or what the hello said in its stead; unkeyed.
    pub in_step_sent: Option<[u8; 32]>,
    /// The peer's last `InStep` was this state.
    pub agreed: Option<[u8; 32]>,
    /// How often digests differed although nothing was missing: logs fork.
    pub disagreements: u32,
    /// To be announced or acknowledged: durable here since the last `Have`.
    pub announce: BTreeMap<LogKey, IntervalSet>,
    pub receipts_sent: BTreeMap<LogKey, u64>,
    /// Epochs that the peer was asked for on this line.
    pub epochs_asked: BTreeSet<EpochId>,
    /// Up to where the peer was given back what it wrote above a fork, by log.
    pub given_back: BTreeMap<LogKey, u32>,
}

/// One want.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub ranges: BTreeMap<LogKey, IntervalSet>,
    /// Only control entries of the ranges, or a page: what does not come may still be held.
    pub partial: bool,
}

impl RoomLine {
    pub(super) fn new(tag: RoomTag, sync: Secret, base: Option<Base>) -> Self {
        Self {
            tag,
            sync,
            base,
            base_confirmed: false,
            has: None,
            names_out: BTreeMap::new(),
            names_in: Vec::new(),
            summary_sent: false,
            all_wanted: false,
            asked: VecDeque::new(),
            control_asked: false,
            page_asked: false,
            heard: None,
            in_step_sent: None,
            agreed: None,
            disagreements: 0,
            announce: BTreeMap::new(),
            receipts_sent: BTreeMap::new(),
            epochs_asked: BTreeSet::new(),
            given_back: BTreeMap::new(),
        }
    }

    pub(super) fn may_ask(&self) -> bool {
        self.asked.len() < OUTSTANDING_MAX
    }

    /// Whether this peer was asked for an entry and has not answered yet.
    pub(super) fn was_asked(&self, log: &LogKey) -> IntervalSet {
        let mut all = IntervalSet::default();
        for asked in &self.asked {
            if let Some(ranges) = asked.ranges.get(log) {
                all.union(ranges);
            }
        }
        all
    }

    /// How to name a log to the peer.
    pub(super) fn name(&mut self, log: &LogKey) -> LogName {
        if let Some(number) = self.names_out.get(log) {
            return LogName::Known(*number);
        }
        let place = |base: &Base| base.vector.0.keys().position(|key| key == log);
        if let Some(place) = self.base.as_ref().filter(|_| self.base_confirmed).and_then(place) {
            return LogName::Known(2 * u32::try_from(place).unwrap_or(u32::MAX / 2));
        }
        let number = 2 * u32::try_from(self.names_out.len()).unwrap_or(u32::MAX / 2) + 1;
        self.names_out.insert(*log, number);
        LogName::New(*log)
    }

    /// Which log the peer means. Even numbers are places in the base, odd ones logs named on this line.
    pub(super) fn resolve(&mut self, name: LogName) -> Option<LogKey> {
        match name {
            LogName::New(log) if self.names_in.len() < NAMES_MAX => {
                self.names_in.push(log);
                Some(log)
            }
            LogName::New(_) => None,
            LogName::Known(n) if n % 2 == 1 => self.names_in.get(n as usize / 2).copied(),
            LogName::Known(n) => self.base.as_ref()?.vector.0.keys().nth(n as usize / 2).copied(),
        }
    }

    /// Names ranges for a frame.
    pub(super) fn name_ranges(&mut self, ranges: BTreeMap<LogKey, IntervalSet>) -> Vec<LogRanges> {
        ranges
            .into_iter()
            .map(|(log, seqs)| LogRanges {
                log: self.name(&log),
                seqs,
            })
            .collect()
    }

    /// The peer holds these.
    pub(super) fn note_has(&mut self, log: &LogKey, seqs: &IntervalSet) {
        if let Some(has) = &mut self.has {
            has.entry(*log).or_default().union(seqs);
        }
    }
}
