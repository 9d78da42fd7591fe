//! One line: what a peer at the other end of a connection shares with us, holds, and was asked for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::crypto::{Secret, prefix8};
use crate::history::{EpochId, IntervalSet, LogKey, RoomId};
use crate::identity::DeviceId;
use crate::peer::dial::AddressesSent;
use crate::peer::record::Base;
use crate::peer::wants::STRAGGLING;
use crate::store::RoomNo;
use crate::sync::Changes;
use crate::sync::frame::{LogName, LogRanges, RoomName, RoomTag, Side};

/// Entries asked of one peer in one `Want`.
pub(super) const WANT_ENTRIES_MAX: u64 = 1024;
/// Of those, the newest of each log first.
pub(super) const WANT_NEWEST: u32 = 256;
/// What is missing altogether up to this is asked for by one `WantAll`.
pub(super) const WANT_ALL_MAX: u64 = 4096;
/// Entries in the first page of a room that is far behind: a screen shows 50, and some of these are changes to the room that it does not show.
pub(super) const PAGE: u32 = 64;
/// How often a peer may knock on one connection.
pub(super) const KNOCKS_MAX: u32 = 32;
/// How often a peer may invite, and answer invitations, on one connection.
pub(super) const PROPOSALS_MAX: u32 = 64;
/// How many frames of kinds that are not known here a peer may send on one connection.
pub(super) const PASSED_OVER_MAX: u32 = 1024;
/// How often a peer may show, on one connection, that somebody is out or how it came in.
pub(super) const SHOWINGS_MAX: u32 = 32;
/// News of addresses that are handed on at once for one connection; more wait for the next hello.
pub(super) const HANDED_ON_MAX: u32 = 256;
/// How often a peer may say on one line that it does not have the base of a summary: once where bases differ, and where it could not be told of the room before.
pub(super) const NO_BASES_MAX: u32 = 8;
/// Pieces of one log that a peer may say it holds.
pub(super) const HAS_PIECES_MAX: usize = 8192;
/// Wants that one peer may owe answers to, for one room.
const OUTSTANDING_MAX: usize = 2;
/// A want is overdue when nothing new came on its line for this long: what it asked for may be asked of others.
const WANT_QUIET: Duration = Duration::from_secs(10);
/// And this long after it was asked in any case, so that nobody can keep others from being asked by answering a little now and then.
const WANT_ANSWER: Duration = Duration::from_secs(120);
/// An overdue want is forgotten this long after it was asked, and its peer may be asked again.
const WANT_FORGOTTEN: Duration = Duration::from_secs(60);
/// So many entries tell how fast a line is.
const PACE_MIN: u64 = 32;
/// Bytes of `Entries` frames on the way to one peer, at most, before a further answer is begun: what is more urgent never waits behind more than this.
pub(super) const IN_FLIGHT_BYTES_MAX: usize = 256 * 1024;
/// So many bytes are taken in before the sender is told; less than [`IN_FLIGHT_BYTES_MAX`], so that it always hears of some.
pub(super) const TAKEN_BYTES: usize = 64 * 1024;
/// Wants of one room that wait here for their turn. Nobody waits for more than two answers; older ones have been given up.
const WAITING_MAX: usize = 4;
/// The most logs that one peer may name in one room on one connection.
const NAMES_MAX: usize = 64 * 1024;

const TAG: &[u8] = b"tag";
const DIGEST: &[u8] = b"digest";

/// A connection to a peer.
#[derive(Debug)]
pub(super) struct Line {
    pub exporter: Secret,
    pub last_frame: Instant,
    /// When the last frame was sent.
    pub last_sent: Instant,
    /// When it last brought an entry that was not here.
    pub last_news: Instant,
    /// What the own hellos said at each place: the room, and the sync secret behind its tag; nothing where they were padded.
    pub mine: Vec<Option<(RoomNo, Secret)>>,
    /// Rooms recognised in the other side's hellos, by place.
    pub theirs: BTreeMap<u32, RoomNo>,
    /// Places that the other side's hellos have so far.
    pub places_heard: u32,
    /// Rooms that both sides are known to share.
    pub rooms: BTreeMap<RoomNo, RoomLine>,
    /// What the own hellos said, by room.
    pub greeted: BTreeMap<RoomNo, Greeting>,
    /// Rooms that were named a second time, by their first epoch.
    pub greeted_again: BTreeSet<RoomNo>,
    /// The other side has said its rooms.
    pub heard: bool,
    /// Rooms of the other's hellos that meant nothing (yet).
    pub unknown: Vec<Unrecognised>,
    /// How often the peer knocked.
    pub knocks: u32,
    /// How often the peer invited this person, or answered an invitation.
    pub proposals: u32,
    /// How many frames of the peer were of a kind that is not known here.
    pub passed_over: u32,
    /// Wants of the peer whose answers are not sent yet, oldest first.
    pub waiting: Vec<Waiting>,
    /// Bytes of `Entries` frames that were sent, and that the peer has not said it took in.
    pub in_flight: usize,
    /// Bytes of `Entries` frames that came since the peer was told.
    pub taken: usize,
    /// How often the peer showed entries that settle who is out, or how it came in.
    pub shown: u32,
    /// How often the peer gave back what this person wrote above a fork.
    pub given_back: u32,
    /// Rooms that the peer named and is not served, with the number of control entries known when it was told so.
    pub told_out: BTreeMap<RoomNo, usize>,
    /// Rooms whose admission was shown to the peer.
    pub admission_shown: BTreeSet<RoomNo>,
    /// The age of each address record sent.
    pub addresses_sent: AddressesSent,
    /// How many records of others were sent that were no news, while it may have been a mere look.
    pub addresses_shown: usize,
    /// When it is told the rest of them, if it stands until then.
    pub addresses_due: Option<Instant>,
    /// How often news of addresses that came on this line were handed on at once.
    pub handed_on: u32,
}

/// A room of the other side's hellos that is not known here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unrecognised {
    pub place: u32,
    pub tag: RoomTag,
    pub digest: [u8; 8],
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
    pub(super) fn new(exporter: [u8; 32], addresses_sent: AddressesSent, now: Instant) -> Self {
        Self {
            exporter: Secret(exporter),
            last_frame: now,
            last_sent: now,
            last_news: now,
            mine: Vec::new(),
            theirs: BTreeMap::new(),
            places_heard: 0,
            rooms: BTreeMap::new(),
            greeted: BTreeMap::new(),
            greeted_again: BTreeSet::new(),
            heard: false,
            unknown: Vec::new(),
            knocks: 0,
            proposals: 0,
            passed_over: 0,
            waiting: Vec::new(),
            in_flight: 0,
            taken: 0,
            shown: 0,
            given_back: 0,
            told_out: BTreeMap::new(),
            admission_shown: BTreeSet::new(),
            addresses_sent,
            addresses_shown: 0,
            addresses_due: None,
            handed_on: 0,
        }
    }

    /// Takes a want in. Of too many of one room the oldest is given up: the peer has asked again since.
    pub(super) fn put_off(&mut self, waiting: Waiting) {
        let no = waiting.no;
        self.waiting.push(waiting);
        let of_room = |waiting: &Waiting| waiting.no == no;
        if self.waiting.iter().filter(|waiting| of_room(waiting)).count() > WAITING_MAX
            && let Some(oldest) = self.waiting.iter().position(of_room)
        {
            self.waiting.remove(oldest);
        }
    }

    /// The want whose turn it is, if more may be under way: the most urgent, of these the oldest.
    pub(super) fn next_waiting(&mut self) -> Option<Waiting> {
        if self.in_flight >= IN_FLIGHT_BYTES_MAX {
            return None;
        }
        let (at, _) = self
            .waiting
            .iter()
            .enumerate()
            .min_by_key(|(at, waiting)| (waiting.kind, *at))?;
        Some(self.waiting.remove(at))
    }

    /// The room that the other side names.
    pub(super) fn room_at(&self, name: RoomName) -> Option<RoomNo> {
        match name.side {
            Side::Mine => self.theirs.get(&name.place).copied(),
            Side::Yours => Some(self.mine.get(name.place as usize)?.as_ref()?.0),
        }
    }

    /// The secret behind the tag of the own hellos that the other side names.
    pub(super) fn greeted_by(&self, name: RoomName) -> Option<&Secret> {
        let mine = self
            .mine
            .get(name.place as usize)
            .filter(|_| name.side == Side::Yours)?;
        mine.as_ref().map(|(_, sync)| sync)
    }

    /// The tag by which `sender` names a room one of whose epochs has this sync secret. It is of the room, too: who is in two rooms can bring the keys of one
    /// into the other.
    pub(super) fn tag(&self, room: &RoomId, sync: &Secret, sender: &DeviceId) -> RoomTag {
        prefix8(&sync.mac(&[&self.exporter.0[..], &sender.0, TAG, &room.0].concat()))
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

/// What a want asks for, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WantKind {
    /// Control entries: who is in the room, and its keys.
    Control,
    /// The newest messages, for somebody's screen.
    Page,
    /// All that the peer lacks.
    All,
    /// What it names.
    Entries,
}

/// A want of the peer whose answer is not sent, or not wholly.
#[derive(Debug)]
pub(super) struct Waiting {
    pub no: RoomNo,
    pub want: u32,
    pub kind: WantKind,
    /// What is still to be sent, in order; control entries first, each by itself.
    pub control: VecDeque<(LogKey, u32)>,
    pub ranges: BTreeMap<LogKey, IntervalSet>,
    /// Bytes of it that were sent.
    pub sent: usize,
}

/// A room that both ends of a line share.
#[derive(Debug)]
pub(super) struct RoomLine {
    /// How to name the room to the peer.
    pub name: RoomName,
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
    /// How many we gave.
    named_out: u32,
    /// Logs that the peer numbered.
    names_in: Vec<LogKey>,
    pub summary_sent: bool,
    /// How often the peer said that it does not have the base of a summary.
    pub no_bases: u32,
    /// A summary came on this line: numbers of logs count from it.
    pub summary_heard: bool,
    /// The peer wants everything (the number of its want), and what it has is not known yet: its summary had a base that is not known here.
    pub all_wanted: Option<u32>,
    /// Wants that the peer owes answers to, oldest first.
    pub asked: VecDeque<Asked>,
    /// How fast they come.
    pub pace: Pace,
    /// The number of the next want.
    pub next_want: u32,
    pub control_asked: bool,
    pub page_asked: bool,
    /// The peer left a want unanswered: it is asked for nothing that another holds, until it answers one.
    pub let_down: bool,
    /// Entries that came on it were left for later: the peer believes them to be held here. Which, as far as they were not asked for since.
    pub left_for_later: Option<BTreeMap<LogKey, IntervalSet>>,
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
    /// Receipts that the peer has, by the prefix of their log and with their counter.
    pub receipts_sent: BTreeMap<[u8; 8], u64>,
    /// What that was at the last comparison of states, and what of it is stored: what was sent a minute ago on a line that still stands has arrived.
    pub receipts_before: BTreeMap<[u8; 8], u64>,
    pub receipts_stored: BTreeMap<[u8; 8], u64>,
    /// Epochs that the peer was asked for on this line.
    pub epochs_asked: BTreeSet<EpochId>,
    /// Epochs that the peer asked for and could not be given yet, up to as many as are asked for in one frame.
    pub epochs_owed: BTreeSet<EpochId>,
    /// By forked log of the peer: the last number that counted, and up to where it was given back what it wrote above that.
    pub given_back: BTreeMap<LogKey, (u32, u32)>,
}

/// One want.
#[derive(Debug)]
pub(super) struct Asked {
    pub want: u32,
    pub ranges: BTreeMap<LogKey, IntervalSet>,
    /// Only control entries of the ranges, or a page: what does not come may still be held.
    pub partial: bool,
    /// When it was asked.
    pub at: Instant,
    /// The answer is late, and others are asked in its stead.
    pub overdue: bool,
}

/// A pace is in entries per so many seconds.
pub(super) const PER: u64 = 1000;

/// How fast answers come.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Since when answers are owed without a break.
    since: Option<Instant>,
    /// Entries that came since then.
    came: u64,
    /// What it was before.
    last: Option<u64>,
}

impl Pace {
    /// The first answer is owed.
    pub(super) fn begin(&mut self, now: Instant) {
        (self.since, self.came) = (Some(now), 0);
    }

    /// Entries came.
    pub(super) fn count(&mut self, entries: usize) {
        self.came = self.came.saturating_add(entries as u64);
    }

    /// The last answer has come. Of a few entries it says nothing about the pace.
    pub(super) fn end(&mut self, now: Instant) {
        if self.came >= PACE_MIN {
            self.last = self.so_far(now);
        }
        self.since = None;
    }

    /// Entries in [`PER`] seconds, where it is known.
    pub(super) fn rate(&self, now: Instant) -> Option<u64> {
        let is_telling = |since: Instant| now.saturating_duration_since(since) >= STRAGGLING;
        match self.since {
            Some(since) if is_telling(since) => self.so_far(now),
            _ => self.last,
        }
    }

    /// When whoever owes answers is looked at next: as soon as it may be a straggler, and again and again from then on.
    pub(super) fn next_look(&self, now: Instant) -> Instant {
        let first = self.since.map(|since| since + STRAGGLING);
        first.filter(|at| *at > now).unwrap_or(now + STRAGGLING)
    }

    fn so_far(&self, now: Instant) -> Option<u64> {
        let took = now.saturating_duration_since(self.since?).as_millis().max(1);
        let took = u64::try_from(took).unwrap_or(u64::MAX);
        Some(self.came.saturating_mul(1000 * PER) / took)
    }
}

impl Asked {
    /// When it is overdue, on a line that last brought something new at `last_news`.
    pub(super) fn due(&self, last_news: Instant) -> Instant {
        (self.at.max(last_news) + WANT_QUIET).min(self.at + WANT_ANSWER)
    }
}

impl RoomLine {
    pub(super) fn new(name: RoomName, sync: Secret, base: Option<Base>, receipts: BTreeMap<[u8; 8], u64>) -> Self {
        Self {
            name,
            sync,
            base,
            base_confirmed: false,
            has: None,
            names_out: BTreeMap::new(),
            named_out: 0,
            names_in: Vec::new(),
            summary_sent: false,
            no_bases: 0,
            summary_heard: false,
            all_wanted: None,
            asked: VecDeque::new(),
            pace: Pace::default(),
            next_want: 0,
            control_asked: false,
            page_asked: false,
            let_down: false,
            left_for_later: None,
            heard: None,
            in_step_sent: None,
            agreed: None,
            disagreements: 0,
            announce: BTreeMap::new(),
            receipts_sent: receipts.clone(),
            receipts_before: receipts.clone(),
            receipts_stored: receipts,
            epochs_asked: BTreeSet::new(),
            epochs_owed: BTreeSet::new(),
            given_back: BTreeMap::new(),
        }
    }

    /// Whether the peer holds something that is not in `held`.
    pub(super) fn has_more(&self, held: &BTreeMap<LogKey, IntervalSet>) -> bool {
        let more = |(log, seqs): (&LogKey, &IntervalSet)| match held.get(log) {
            Some(held) => !seqs.minus(held).is_empty(),
            None => !seqs.is_empty(),
        };
        self.has.as_ref().is_some_and(|has| has.iter().any(more))
    }

    pub(super) fn may_ask(&self) -> bool {
        self.asked.len() < OUTSTANDING_MAX && !self.asked.iter().any(|asked| asked.overdue)
    }

    /// Takes the want that an answer ends.
    pub(super) fn answered(&mut self, want: u32, now: Instant) -> Option<Asked> {
        let at = self.asked.iter().position(|asked| asked.want == want)?;
        let asked = self.asked.remove(at);
        if !self.is_answering() {
            self.pace.end(now);
        }
        asked
    }

    /// Whether the peer has said what it holds.
    pub(super) fn is_compared(&self) -> bool {
        self.has.is_some()
    }

    /// Whether an answer is under way that is not late.
    pub(super) fn is_answering(&self) -> bool {
        self.asked.iter().any(|asked| !asked.overdue)
    }

    /// Gives up on answers that are late for long.
    pub(super) fn forget_overdue(&mut self, now: Instant) {
        self.asked
            .retain(|asked| !asked.overdue || now < asked.at + WANT_FORGOTTEN);
    }

    /// Whether this peer was asked for an entry, and its answer is not late yet.
    pub(super) fn was_asked(&self, log: &LogKey) -> IntervalSet {
        let mut all = IntervalSet::default();
        for asked in self.asked.iter().filter(|asked| !asked.overdue) {
            if let Some(ranges) = asked.ranges.get(log) {
                all.union(ranges);
            }
        }
        all
    }

    /// How to name a log to the peer.
    pub(super) fn log_name(&mut self, log: &LogKey) -> LogName {
        if let Some(number) = self.names_out.get(log) {
            return LogName::Known(*number);
        }
        let place = |base: &Base| base.vector.0.keys().position(|key| key == log);
        if let Some(place) = self.base.as_ref().filter(|_| self.base_confirmed).and_then(place) {
            return LogName::Known(2 * u32::try_from(place).unwrap_or(u32::MAX / 2));
        }
        self.give_number(log);
        LogName::New(*log)
    }

    /// Gives a log the next odd number.
    fn give_number(&mut self, log: &LogKey) {
        let number = self.named_out.saturating_mul(2).saturating_add(1);
        self.named_out = self.named_out.saturating_add(1);
        self.names_out.insert(*log, number);
    }

    /// A summary was sent: numbers begin anew, with the logs that it named by their keys. An earlier summary may not have been heard.
    pub(super) fn numbered(&mut self, changes: &Changes) {
        self.names_out.clear();
        self.named_out = 0;
        for log in changes.added() {
            self.give_number(log);
        }
    }

    /// A summary came: numbers begin anew, with those that it names. False if they are too many.
    pub(super) fn number(&mut self, changes: &Changes) -> bool {
        self.summary_heard = true;
        self.names_in.clear();
        self.names_in.extend(changes.added());
        self.names_in.len() <= NAMES_MAX
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
                log: self.log_name(&log),
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
