//! Carries out the line plan: dials with patience, closes, and remembers how devices are reached.
//!
//! Whom to hold a line to is decided in [`crate::overlay::plan`]; here is what it sees of this peer: members' devices, pending joins' doorways, rooms of two that
//! wait for the other. A failed dial is repeated after a delay that doubles up to [`RETRY_MAX`], with full jitter; news of an address begins anew. At which addresses is
//! decided in [`crate::overlay::dial`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_core::Rng;

use crate::crypto;
use crate::identity::{DeviceId, PersonId};
use crate::overlay::dial::addresses;
use crate::overlay::plan::{self, Reason};
use crate::peer::keeping::Session;
use crate::peer::line::{HANDED_ON_MAX, Line, RoomLine};
use crate::peer::record::{self, DeviceRecord};
use crate::peer::room::Room;
use crate::peer::view::LineState;
use crate::peer::{Output, Peer, seeking, table};
use crate::rooms::{Address, Invite, RelayUrl, RoomKind};
use crate::store::{RoomNo, Store, StoreError};
use crate::sync::frame::{AddressRecord, DEVICE_ADDRESSES_MAX, Frame, RECORDS_MAX};
use crate::wire::Wire;

/// The first delay before a dial is repeated.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// The longest delay before a dial is repeated.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// A dial that nothing was heard of counts as failed.
const DIAL_TIMEOUT: Duration = Duration::from_secs(20);
/// A line that held for less counts as a dial that failed: whoever is turned away at once, again and again, comes back with patience.
const SHORT: Duration = Duration::from_secs(2);
/// A line on which nothing was said for so long was closed as idle, whichever end did: it is not dialled again for [`REST`]. Less than [`plan::SETTLED`], for the last frame may have come later here than there.
const QUIET: Duration = Duration::from_millis(500);
/// A line that dies unnoticed is found dead after some 15 to 30 s: that is a loss, not a close. More than [`plan::SURPLUS_STAY`].
const LOST: Duration = Duration::from_secs(12);
/// How long a device that a line was closed to as idle is left alone, unless somebody waits for it; plus up to as much again.
const REST: Duration = Duration::from_secs(120);
/// Addresses kept of one device.
const ADDRESSES_MAX: usize = 8;

/// Addresses that a peer was told are not told again on a new line within this; then they are, for it may have had no use for one and lack it now.
const ADDRESSES_TOLD_FOR: Duration = Duration::from_secs(3_600);

/// Both ends have said by then what they hold; whoever takes longer is not waited for.
const COMPARED: Duration = Duration::from_secs(20);

/// A line of this age is no mere look into a room, and is told where everybody is.
const LOOK: Duration = Duration::from_secs(15);
/// Until then it is told where so many others are, those of the newest records, besides what is learnt meanwhile.
const RECORDS_ON_A_LOOK: usize = 8;
/// A person has so many rooms open: of more those opened last count.
const OPEN_ROOMS_MAX: usize = 4;
/// Between two frames of them, of a line that has more to be told than one holds.
const FRAMES_APART: Duration = Duration::from_secs(1);

/// Numbers from here on stand for what keepers are still to be given, in the plan; rooms are numbered from 1 and never get there.
const FIRST_DEBT: u32 = 1 << 31;
/// The same for invitations of those who are near.
const FIRST_PROPOSAL: u32 = FIRST_DEBT + DEBTS_MAX;
/// Debts that one plan looks at.
const DEBTS_MAX: u32 = 64;

const ADDRESS_RECORD: &str = "offhook 1 address record";

/// What is known of reaching a device.
#[derive(Debug, Clone)]
pub(super) struct Dial {
    pub record: DeviceRecord,
    pub in_flight: Option<Instant>,
    /// Dials that failed in a row, and lines that were lost: how patiently it is tried again.
    pub failures: u32,
    /// Dials in a row that nobody answered: at which addresses it is tried next.
    missed: u32,
    /// As many had failed before the line that is up.
    failures_before: u32,
    pub next: Instant,
    /// The address that worked last.
    pub good: Option<Address>,
    /// Found on the local network.
    pub is_near: bool,
    /// The line that is up was dialled from here.
    pub is_own: bool,
    /// When the line that is up came up.
    pub up_since: Instant,
    /// When something new came that it said, over whatever lines.
    pub heard: Option<Instant>,
    /// When it was looked up last.
    pub sought: Option<Instant>,
    /// What it was told of addresses on the last line.
    told: Option<AddressesSent>,
}

/// Which address records a peer was sent, or sent itself.
#[derive(Debug, Clone)]
pub(super) struct AddressesSent {
    /// When the first was sent.
    since: Instant,
    /// When the last was sent.
    last: Instant,
    /// How new each was.
    of: BTreeMap<DeviceId, u64>,
}

impl AddressesSent {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            last: now,
            of: BTreeMap::new(),
        }
    }
}

impl<S: Store> Peer<S> {
    pub(super) fn dial_state(&mut self, device: DeviceId) -> &mut Dial {
        let now = self.ctx.now;
        if !self.book.contains_key(&device) {
            self.tags.insert(seeking::tag(&device), device);
        }
        self.book.entry(device).or_insert_with(|| Dial {
            record: DeviceRecord::default(),
            in_flight: None,
            failures: 0,
            missed: 0,
            failures_before: 0,
            next: now,
            good: None,
            is_near: false,
            is_own: false,
            up_since: now,
            heard: None,
            sought: None,
            told: None,
        })
    }

    /// Remembers addresses that an invite or a list of keepers names. Of what age they are is not known: behind the one that has worked.
    pub(super) fn note_old_addresses(
        &mut self,
        device: DeviceId,
        addresses: &[Address],
        relay: Option<RelayUrl>,
    ) -> Result<(), StoreError> {
        let known = self.book.get(&device);
        let good = known.and_then(|dial| dial.good);
        let relay = known.and_then(|dial| dial.record.relay.clone()).or(relay);
        let addresses = good.iter().chain(addresses).map(|at| at.0).collect();
        self.note_addresses(device, addresses, relay)
    }

    /// Remembers addresses of a device, newest knowledge first; the one that has worked before the others, for as long as it is among the new ones.
    pub(super) fn note_addresses(
        &mut self,
        device: DeviceId,
        addresses: Vec<SocketAddr>,
        relay: Option<RelayUrl>,
    ) -> Result<(), StoreError> {
        if device == self.ctx.device {
            return Ok(());
        }
        let dial = self.dial_state(device);
        let mut merged: Vec<Address> = addresses.into_iter().map(Address).collect();
        if let Some(at) = dial.good.and_then(|good| merged.iter().position(|at| *at == good)) {
            merged[..=at].rotate_right(1);
        }
        merged.extend(dial.record.addresses.iter().copied());
        let mut seen = BTreeSet::new();
        merged.retain(|address| seen.insert(*address));
        merged.truncate(ADDRESSES_MAX);
        let relay = relay.or_else(|| dial.record.relay.clone());
        if merged != dial.record.addresses || relay != dial.record.relay {
            dial.record.addresses = merged;
            dial.record.relay = relay;
            // A dial under way goes to where the device was: the next one need not wait for its end.
            dial.in_flight = None;
            let bytes = dial.record.to_bytes();
            self.store.put(&table::device(&device), &bytes)?;
            self.plan_due = true;
        }
        Ok(())
    }

    /// Tries a device at the next opportunity.
    pub(super) fn dial_soon(&mut self, device: DeviceId) {
        let now = self.ctx.now;
        let dial = self.dial_state(device);
        (dial.failures, dial.missed) = (0, 0);
        dial.next = now;
        self.plan_due = true;
    }

    /// Dials a device that is known and has no line, whatever the plan.
    pub(super) fn try_peer(&mut self, device: DeviceId) {
        let is_idle = |dial: &Dial| dial.in_flight.is_none();
        if self.lines.contains_key(&device) || !self.book.get(&device).is_some_and(is_idle) {
            return;
        }
        self.dial_soon(device);
        let sight = self.sight();
        if sight.peers.get(&device).is_some_and(|peer| peer.due.is_some()) {
            self.dial(device, Reason::Write, &sight);
        }
    }

    /// When the newest address record was signed, as its signer's clock had it, in milliseconds since 1970; 0 where there is none.
    pub fn newest_record_ms(&self) -> u64 {
        self.book.values().map(|dial| dial.record.made_ms).max().unwrap_or(0)
    }

    /// The wall clock, in milliseconds since 1970.
    pub fn wall_ms(&self) -> u64 {
        self.ctx.wall_ms
    }

    /// A device was seen on the local network.
    pub(super) fn note_near(&mut self, device: DeviceId) {
        self.dial_state(device).is_near = true;
    }

    /// Something new came that a device said.
    pub(super) fn note_heard(&mut self, device: DeviceId) {
        if let Some(dial) = self.book.get_mut(&device) {
            dial.heard = Some(self.ctx.now);
        }
    }

    /// A device is on the local network no more.
    pub(super) fn note_gone(&mut self, device: DeviceId) {
        if let Some(dial) = self.book.get_mut(&device) {
            dial.is_near = false;
        }
    }

    pub(super) fn dial_everybody_soon(&mut self) {
        let now = self.ctx.now;
        self.planner.network_changed();
        self.plan_due = true;
        for dial in self.book.values_mut() {
            (dial.failures, dial.missed) = (0, 0);
            dial.next = now;
            dial.in_flight = None;
        }
        // Everybody at once would be a herd: spread over the first second.
        let devices: Vec<DeviceId> = self.book.keys().copied().collect();
        for device in devices {
            let jitter = Duration::from_millis(u64::from(self.ctx.rng.next_u32() % 1000));
            self.dial_state(device).next = now + jitter;
        }
    }

    /// Nobody answered at the addresses that were tried.
    pub(super) fn dial_missed(&mut self, device: DeviceId) {
        if let Some(dial) = self.book.get_mut(&device) {
            dial.missed = dial.missed.saturating_add(1);
        }
        self.dial_failed(device);
    }

    fn dial_failed(&mut self, device: DeviceId) {
        let jitter = self.ctx.rng.next_u32();
        let now = self.ctx.now;
        self.plan_due = true;
        let Some(dial) = self.book.get_mut(&device) else { return };
        dial.in_flight = None;
        dial.failures = dial.failures.saturating_add(1);
        let ceiling = RETRY_MIN.saturating_mul(1 << dial.failures.min(7)).min(RETRY_MAX);
        let spread = ceiling.mul_f64(f64::from(jitter) / f64::from(u32::MAX));
        dial.next = now + RETRY_MIN / 2 + spread;
        self.seek_after_failure(device);
    }

    /// Plans again where something has changed that a plan is made from.
    pub(super) fn plan_lines(&mut self) -> Result<(), StoreError> {
        let now = self.ctx.now;
        if !self.plan_due && self.plan_at.is_none_or(|at| now < at) {
            return Ok(());
        }
        self.plan_due = false;
        self.give_up_late_dials();
        let sight = self.sight();
        let unheard = std::mem::take(&mut self.unheard);
        self.unheard = unheard.into_iter().filter(|no| !self.is_carried(*no)).collect();
        let mut plan = self.planner.plan(&sight, now);
        for device in plan.close {
            self.ctx.out.push(Output::Close {
                peer: device,
                reason: "idle",
            });
            self.line_ends(device)?;
            self.drop_line(device);
            self.rest(device);
            plan.again = Some(plan.again.map_or(now, |at| at.min(now + RETRY_MIN)));
        }
        for (device, reason) in plan.dial {
            self.dial(device, reason, &sight);
        }
        self.seek_waited();
        self.held = plan.held;
        let expiry = self.book.values().filter_map(|dial| dial.in_flight).min();
        let expiry = expiry.map(|since| since + DIAL_TIMEOUT + Duration::from_millis(1));
        self.plan_at = plan.again.into_iter().chain(expiry).min();
        Ok(())
    }

    fn give_up_late_dials(&mut self) {
        let now = self.ctx.now;
        let is_late = |since: Instant| now.duration_since(since) > DIAL_TIMEOUT;
        let late = self.book.iter().filter(|(_, dial)| dial.in_flight.is_some_and(is_late));
        let late: Vec<DeviceId> = late.map(|(device, _)| *device).collect();
        for device in late {
            self.dial_failed(device);
        }
    }

    fn dial(&mut self, device: DeviceId, reason: Reason, sight: &plan::Sight) {
        let now = self.ctx.now;
        let rooms = sight.peers.get(&device).map(|peer| &peer.rooms);
        let is_first = rooms.is_some_and(|rooms| rooms.iter().any(|room| !self.planner.has_visited(*room)));
        let Some(dial) = self.book.get_mut(&device) else { return };
        dial.in_flight = Some(now);
        dial.is_own = true;
        let all: Vec<SocketAddr> = dial.record.addresses.iter().map(|address| address.0).collect();
        let was_reached = dial.good.is_some() && dial.record.addresses.first() == dial.good.as_ref();
        let addresses = addresses(&all, was_reached, dial.missed);
        let relay = dial.record.relay.as_ref().map(|url| url.0.clone());
        self.ctx.out.push(Output::Dial {
            peer: device,
            addresses,
            relay,
            urgency: reason.urgency(is_first),
            reason: reason.words(),
        });
    }

    /// Leaves a device alone for a while, unless somebody waits for it: nothing has failed.
    fn rest(&mut self, device: DeviceId) {
        let jitter = f64::from(self.ctx.rng.next_u32()) / f64::from(u32::MAX);
        let now = self.ctx.now;
        if let Some(dial) = self.book.get_mut(&device) {
            dial.failures = 0;
            dial.next = now + REST + REST.mul_f64(jitter);
        }
    }

    /// A line went down: one that was quiet was closed as idle, any other is sought again soon.
    pub(super) fn redial_after(&mut self, device: DeviceId, last_frame: Option<Instant>) {
        let now = self.ctx.now;
        let was_quiet = last_frame.is_some_and(|last| {
            let up = self.book.get(&device).map_or(last, |dial| dial.up_since);
            let quiet = now.saturating_duration_since(last.max(up));
            quiet >= QUIET && quiet < LOST || quiet >= plan::IDLE
        });
        // Not a failed dial: the first try to come back is soon, the next ones are patient.
        if let Some(dial) = self.book.get_mut(&device)
            && now.saturating_duration_since(dial.up_since) < SHORT
        {
            dial.failures = dial.failures_before;
        }
        self.dial_failed(device);
        let is_awaited = self.proposals.awaited().any(|awaited| *awaited == device);
        if was_quiet && !is_awaited && self.others_cover(&device) {
            self.rest(device);
        }
    }

    /// Whether each room shared with a device has another line. A room of two needs none: whoever writes there calls.
    fn others_cover(&self, device: &DeviceId) -> bool {
        let is_shared = |room: &&Room| room.devices.contains_key(device);
        let shared =
            (self.rooms.values().filter(is_shared)).filter(|room| !matches!(room.roster.kind, RoomKind::Pair { .. }));
        let mut covered = shared.map(|room| self.lines.keys().any(|peer| room.devices.contains_key(peer)));
        covered.all(|covered| covered)
    }

    /// Something was said in a room, here or elsewhere.
    pub(super) fn note_spoken(&mut self, no: RoomNo) {
        let was_active = self.spoken.insert(no, self.ctx.now).is_some_and(|at| {
            let kept = plan::PAIR_ACTIVE.min(plan::ACTIVE);
            self.ctx.now.saturating_duration_since(at) < kept / 2
        });
        self.plan_due |= !was_active;
    }

    /// Whether what is said in a room goes out on a line, to a member or a keeper.
    fn is_carried(&self, no: RoomNo) -> bool {
        self.lines.values().any(|line| line.rooms.contains_key(&no)) || self.has_open_vault(no)
    }

    /// Something was said here, in a room that no line carries: somebody must hear of it.
    pub(super) fn note_unheard(&mut self, no: RoomNo) {
        if self.is_carried(no) || !self.unheard.insert(no) {
            return;
        }
        let now = self.ctx.now;
        self.plan_due = true;
        let Some(room) = self.rooms.get(&no) else { return };
        let is_pair = matches!(room.roster.kind, RoomKind::Pair { .. });
        for device in room.devices.keys() {
            // Whoever rests is woken; whoever keeps failing is still tried with patience.
            let Some(dial) = self.book.get_mut(device).filter(|dial| dial.failures < plan::FAILURES) else {
                continue;
            };
            dial.next = now;
            if is_pair {
                // Nobody else carries it: a dial under way that nobody waited for is none that somebody waits for.
                dial.in_flight = None;
            }
        }
    }

    /// Somebody here has a room open, and is to have what is said there while they have.
    pub(super) fn note_opened(&mut self, no: RoomNo) {
        let now = self.ctx.now;
        self.opened
            .retain(|_, at| now.saturating_duration_since(*at) < plan::OPEN_FOR);
        if self.opened.insert(no, now).is_some() {
            return;
        }
        if self.opened.len() > OPEN_ROOMS_MAX {
            let oldest = self.opened.iter().min_by_key(|(_, at)| **at).map(|(no, _)| *no);
            self.opened.remove(&oldest.unwrap_or(no));
        }
        self.plan_due = true;
        let devices = self.rooms.get(&no).into_iter().flat_map(|room| room.devices.keys());
        for device in devices {
            // Whoever rests is woken; whoever keeps failing is still tried with patience.
            if let Some(dial) = self.book.get_mut(device).filter(|dial| dial.failures < plan::FAILURES) {
                dial.next = dial.next.min(now);
            }
        }
    }

    /// What a plan is made from.
    fn sight(&self) -> plan::Sight {
        let mut sight = plan::Sight::default();
        for room in self.rooms.values().filter(|room| room.seeks_lines()) {
            let is_pair = matches!(room.roster.kind, RoomKind::Pair { .. });
            self.see_room(&mut sight, room.no, is_pair);
            for device in room.devices.keys().chain(&room.sponsors) {
                self.see_peer(&mut sight, *device, room.no);
            }
            if let RoomKind::Pair { other } = room.roster.kind
                && !room.roster.members.contains_key(&other)
            {
                for device in self.devices_of(&other) {
                    self.see_peer(&mut sight, device, room.no);
                }
            }
            for place in &room.roster.keepers {
                self.see_peer(&mut sight, place.device, room.no);
            }
        }
        for (no, invite) in &self.joins {
            self.see_room(&mut sight, *no, false);
            for doorway in &invite.doorways {
                self.see_peer(&mut sight, doorway.device, *no);
            }
        }
        self.see_debts(&mut sight);
        self.see_proposals(&mut sight);
        sight
    }

    /// What a keeper is still to be given is to the plan a room that only this keeper covers, until it has been given.
    fn see_debts(&self, sight: &mut plan::Sight) {
        let debts = self.keepers.iter().filter(|(_, keeping)| keeping.owes);
        for (at, ((_, device), keeping)) in (0..DEBTS_MAX).zip(debts) {
            let Some(peer) = sight.peers.get_mut(device) else {
                continue;
            };
            let number = FIRST_DEBT + at;
            peer.rooms.insert(number);
            if let Some(line) = &mut peer.line {
                line.is_busy |= keeping.session.as_ref().is_some_and(Session::is_waiting);
                line.greeted.insert(number);
            }
            let room = plan::Room {
                spoken: Some(self.ctx.now),
                is_pair: false,
                is_urgent: true,
                opened: None,
            };
            sight.rooms.insert(number, room);
        }
    }

    /// Somebody nearby who was invited is to the plan the only one in a room that waits to be joined, until they have answered.
    fn see_proposals(&self, sight: &mut plan::Sight) {
        for (number, device) in (FIRST_PROPOSAL..).zip(self.proposals.awaited()) {
            self.see_peer(sight, *device, RoomNo(number));
            if let Some(line) = sight.peers.get_mut(device).and_then(|peer| peer.line.as_mut()) {
                line.greeted.insert(number);
            }
            let room = plan::Room {
                spoken: None,
                is_pair: false,
                is_urgent: true,
                opened: None,
            };
            sight.rooms.insert(number, room);
        }
    }

    fn see_room(&self, sight: &mut plan::Sight, no: RoomNo, is_pair: bool) {
        let room = plan::Room {
            spoken: self.spoken.get(&no).copied(),
            is_pair,
            is_urgent: self.joins.contains_key(&no) || self.unheard.contains(&no),
            opened: self.opened.get(&no).copied(),
        };
        sight.rooms.insert(no.0, room);
    }

    fn see_peer(&self, sight: &mut plan::Sight, device: DeviceId, no: RoomNo) {
        let (dial, line) = (self.book.get(&device), self.lines.get(&device));
        if device == self.ctx.device || dial.is_none() && line.is_none() {
            return;
        }
        let peer = sight.peers.entry(device).or_insert_with(|| {
            let is_known = |dial: &&Dial| !dial.record.addresses.is_empty() || dial.record.relay.is_some();
            let is_new = dial.is_some_and(|dial| self.ctx.now.saturating_duration_since(dial.up_since) < COMPARED);
            let is_at_work = |room: &RoomLine| room.is_answering() || is_new && !room.is_compared();
            plan::Peer {
                rooms: BTreeSet::new(),
                line: line.map(|line| plan::Line {
                    since: dial.map_or(line.last_frame, |dial| dial.up_since),
                    last_frame: line.last_frame,
                    greeted: (line.rooms.iter().filter(|(_, room)| room.is_compared()))
                        .map(|(no, _)| no.0)
                        .collect(),
                    is_busy: !line.heard || line.rooms.values().any(is_at_work),
                    is_own: dial.is_some_and(|dial| dial.is_own),
                }),
                dialling_since: dial.and_then(|dial| dial.in_flight),
                due: dial.filter(is_known).map(|dial| dial.next),
                failures: dial.map_or(0, |dial| dial.failures),
                address: dial
                    .and_then(|dial| dial.record.addresses.first())
                    .map(|address| address.0),
                is_near: dial.is_some_and(|dial| dial.is_near),
                seen_ms: dial.map_or(0, |dial| dial.record.seen_ms),
                heard: dial.and_then(|dial| dial.heard),
            }
        });
        peer.rooms.insert(no.0);
        if let Some(line) = peer.line.as_mut().filter(|_| self.is_vault_open(no, device)) {
            line.greeted.insert(no.0);
        }
    }

    /// A person's devices, as far as rosters tell.
    fn devices_of(&self, person: &PersonId) -> BTreeSet<DeviceId> {
        let of_person = |(device, owner): (&DeviceId, &PersonId)| (owner == person).then_some(*device);
        self.rooms
            .values()
            .flat_map(|room| room.devices.iter().filter_map(of_person))
            .collect()
    }

    /// Each line, and why it is held.
    pub fn lines(&self) -> Vec<LineState> {
        let state = |(device, line): (&DeviceId, &Line)| {
            let dial = self.book.get(device);
            let person = self.person_of(device);
            LineState {
                device: *device,
                name: person.map_or_else(|| "unknown".to_owned(), |person| self.name_of(&person)),
                rooms: line.rooms.len(),
                up_for: self
                    .ctx
                    .now
                    .saturating_duration_since(dial.map_or(line.last_frame, |dial| dial.up_since)),
                idle_for: self.ctx.now.saturating_duration_since(line.last_frame),
                is_own: dial.is_some_and(|dial| dial.is_own),
                reason: self.held.get(device).copied().unwrap_or(Reason::Surplus),
            }
        };
        self.lines.iter().map(state).collect()
    }

    /// Whether answers are under way, told when it changes.
    pub(super) fn tell_catching_up(&mut self) {
        let owes = |line: &Line| line.rooms.values().any(RoomLine::is_answering);
        let catching_up = self.lines.values().any(owes);
        if self.told_catching_up != Some(catching_up) {
            self.told_catching_up = Some(catching_up);
            self.ctx.out.push(Output::CatchingUp(catching_up));
        }
    }

    /// The own addresses, signed, for others to hand on.
    pub(super) fn state_own_addresses(
        &mut self,
        addresses: &[SocketAddr],
        relay: Option<&str>,
    ) -> Result<(), StoreError> {
        let addresses: Vec<Address> = addresses
            .iter()
            .take(DEVICE_ADDRESSES_MAX)
            .copied()
            .map(Address)
            .collect();
        let relay = relay.map(|url| RelayUrl(url.to_owned()));
        // Peers take a record only if it is newer than the one they have: two of the same millisecond, or of a clock that was set back, must differ.
        let after_last = self.my_addresses.as_ref().map_or(0, |last| last.made_ms + 1);
        let made_ms = self.ctx.wall_ms.max(after_last);
        let body = address_body(&self.ctx.device, made_ms, &addresses, relay.as_ref());
        let signature = self.secrets.device.0.sign(ADDRESS_RECORD, &[&body]);
        let record = AddressRecord {
            device: self.ctx.device,
            made_ms,
            addresses,
            relay,
            signature,
        };
        self.my_addresses = Some(record);
        self.own_addresses_changed();
        let peers: Vec<DeviceId> = self.lines.keys().copied().collect();
        for peer in peers {
            self.send_addresses(peer);
        }
        Ok(())
    }

    /// Tells a peer where this device is, and where other members of shared rooms are: of many, the newest first.
    pub(super) fn send_addresses(&mut self, peer: DeviceId) {
        let mut records = self.addresses_for(peer);
        let up_since = self.book.get(&peer).map_or(self.ctx.now, |dial| dial.up_since);
        let (own, book) = (self.ctx.device, &self.book);
        let Some(line) = self.lines.get_mut(&peer) else { return };
        let (now, all_at) = (self.ctx.now, up_since + LOOK);
        let mut limit = RECORDS_MAX;
        if now < all_at {
            let is_news = |record: &AddressRecord| {
                let heard = book.get(&record.device).and_then(|dial| dial.heard);
                record.device == own || heard.is_some_and(|heard| heard > up_since)
            };
            records.sort_by_key(|record| std::cmp::Reverse((is_news(record), record.made_ms)));
            let news = records.iter().take_while(|record| is_news(record)).count();
            let others = (records.len() - news).min(RECORDS_ON_A_LOOK - line.addresses_shown);
            line.addresses_shown += others;
            limit = limit.min(news + others);
        }
        line.addresses_due = (records.len() > limit).then(|| all_at.max(now + FRAMES_APART));
        records.truncate(limit);
        let sent = &mut line.addresses_sent;
        sent.of
            .extend(records.iter().map(|record| (record.device, record.made_ms)));
        if !records.is_empty() {
            sent.last = self.ctx.now;
            self.send(peer, &Frame::Addresses { records });
        }
    }

    /// What a peer has not been told of this device and of the other members of shared rooms.
    fn addresses_for(&self, peer: DeviceId) -> Vec<AddressRecord> {
        let Some(line) = self.lines.get(&peer) else {
            return Vec::new();
        };
        let mut records: Vec<AddressRecord> = self.my_addresses.iter().cloned().collect();
        let rooms = line.rooms.keys().filter_map(|no| self.rooms.get(no));
        for room in rooms.filter(|room| room.devices.contains_key(&peer)) {
            let others = room.devices.keys().filter(|device| **device != peer);
            let signed = others.filter_map(|device| Some(self.book.get(device)?.record.signed.as_slice()));
            records.extend(signed.filter_map(|signed| AddressRecord::from_bytes(signed).ok()));
        }
        let sent = &line.addresses_sent.of;
        records.retain(|record| sent.get(&record.device).is_none_or(|sent| *sent < record.made_ms));
        // Of several rooms' members the same comes several times.
        records.sort_by_key(|record| record.device);
        records.dedup_by_key(|record| record.device);
        records
    }

    /// When a line is old enough to be told where everybody is.
    pub(super) fn next_addresses(&self) -> Option<Instant> {
        self.lines.values().filter_map(|line| line.addresses_due).min()
    }

    /// Tells the rest to the lines that have stood for long enough.
    pub(super) fn send_due_addresses(&mut self) {
        let now = self.ctx.now;
        let is_due = |line: &Line| line.addresses_due.is_some_and(|at| at <= now);
        let due: Vec<DeviceId> = (self.lines.iter())
            .filter_map(|(peer, line)| is_due(line).then_some(*peer))
            .collect();
        for peer in due {
            self.send_addresses(peer);
        }
    }

    /// What a peer was told of addresses on its last line, where that has arrived.
    pub(super) fn addresses_told(&self, peer: &DeviceId) -> AddressesSent {
        let now = self.ctx.now;
        let told = self.book.get(peer).and_then(|dial| dial.told.clone());
        let is_fresh = |told: &AddressesSent| now.saturating_duration_since(told.since) < ADDRESSES_TOLD_FOR;
        told.filter(is_fresh).unwrap_or_else(|| AddressesSent::new(now))
    }

    /// A line is closed, here or by the other side: what was told on it is remembered, where it has arrived.
    pub(super) fn line_ends(&mut self, peer: DeviceId) -> Result<(), StoreError> {
        let now = self.ctx.now;
        let Some(line) = self.lines.get(&peer) else {
            return Ok(());
        };
        let quiet = now.saturating_duration_since(line.last_frame.max(line.last_sent));
        // One that is found dead has been quiet for as long as that takes, or its last word is old.
        let has_arrived = quiet >= plan::VISIT_STAY && quiet < LOST || quiet >= plan::IDLE;
        let answered = line.last_frame > line.addresses_sent.last;
        let told = (answered || has_arrived).then(|| line.addresses_sent.clone());
        if let Some(dial) = self.book.get_mut(&peer) {
            dial.told = told;
        }
        match has_arrived {
            true => self.note_all_receipts_given(peer),
            false => Ok(()),
        }
    }

    pub(super) fn on_addresses(&mut self, peer: DeviceId, records: Vec<AddressRecord>) -> Result<(), StoreError> {
        let mut has_news = false;
        for record in records {
            has_news |= self.take_record(&record)?;
            if let Some(line) = self.lines.get_mut(&peer) {
                let held = line.addresses_sent.of.entry(record.device).or_insert(0);
                *held = record.made_ms.max(*held);
            }
        }
        if has_news {
            self.hand_on_addresses(peer);
        }
        Ok(())
    }

    /// Believes a record if it is signed, newer than the one that is here, and of somebody who matters; tells whether it was.
    pub(super) fn take_record(&mut self, record: &AddressRecord) -> Result<bool, StoreError> {
        let is_doorway = |invite: &Invite| invite.doorways.iter().any(|door| door.device == record.device);
        let known = self.joins.values().any(is_doorway)
            || (self.rooms.values())
                .any(|room| room.devices.contains_key(&record.device) || self.is_keeper(room.no, &record.device));
        let body = address_body(&record.device, record.made_ms, &record.addresses, record.relay.as_ref());
        let authentic = || crypto::verify(&record.device.0, ADDRESS_RECORD, &[&body], &record.signature).is_ok();
        let newer = self
            .book
            .get(&record.device)
            .is_none_or(|dial| dial.record.made_ms < record.made_ms);
        if !known || !newer || record.device == self.ctx.device || !authentic() {
            return Ok(false);
        }
        if let Some(dial) = self.book.get_mut(&record.device) {
            dial.good = dial.good.filter(|good| record.addresses.contains(good));
        }
        let addresses = record.addresses.iter().map(|a| a.0).collect();
        self.note_addresses(record.device, addresses, record.relay.clone())?;
        self.note_heard(record.device);
        let dial = self.dial_state(record.device);
        dial.record.made_ms = record.made_ms;
        dial.record.signed = record.to_bytes();
        let bytes = dial.record.to_bytes();
        self.store.put(&table::device(&record.device), &bytes)?;
        if !self.lines.contains_key(&record.device) {
            self.dial_soon(record.device);
        }
        Ok(true)
    }

    /// Tells the others at once where a member is now: two that hold no line yet must learn of each other's relay from somebody.
    fn hand_on_addresses(&mut self, from: DeviceId) {
        let Some(line) = self.lines.get_mut(&from) else { return };
        if line.handed_on >= HANDED_ON_MAX {
            return;
        }
        line.handed_on += 1;
        let others: Vec<DeviceId> = self.lines.keys().copied().filter(|peer| *peer != from).collect();
        for peer in others {
            self.send_addresses(peer);
        }
    }

    /// A line came up: what is known of reaching the device is up to date.
    pub(super) fn note_seen(&mut self, device: DeviceId, address: Option<SocketAddr>) -> Result<(), StoreError> {
        let wall_ms = self.ctx.wall_ms;
        if let Some(address) = address.filter(|_| self.book.get(&device).is_none_or(|d| d.record.addresses.is_empty()))
        {
            self.note_addresses(device, vec![address], None)?;
        }
        let now = self.ctx.now;
        let dial = self.dial_state(device);
        // A line that comes up while a dial is under way may be either end's; it is taken for the own.
        dial.is_own = dial.in_flight.take().is_some();
        dial.up_since = now;
        dial.failures_before = std::mem::take(&mut dial.failures);
        dial.missed = 0;
        dial.record.seen_ms = wall_ms;
        if let Some(at) = address.and_then(|at| dial.record.addresses.iter().position(|known| known.0 == at)) {
            // What has worked is tried first.
            let good = dial.record.addresses.remove(at);
            dial.record.addresses.insert(0, good);
            dial.good = Some(good);
        }
        self.plan_due = true;
        let dial = self.dial_state(device);
        let bytes = dial.record.to_bytes();
        self.store.put(&table::device(&device), &bytes)
    }

    pub(super) fn load_book(&mut self) -> Result<(), StoreError> {
        let from = table::key(table::DEVICES, &[]);
        let to = crate::store::after_prefix(&from);
        for (key, value) in self
            .store
            .scan(&from, &to, crate::store::Direction::Ascending, usize::MAX)?
        {
            let Some(device) = key.get(1..33).and_then(|b| b.try_into().ok()).map(DeviceId) else {
                continue;
            };
            let record: DeviceRecord = record::decode(&value, "device")?;
            let dial = self.dial_state(device);
            // The first has worked, unless the device has named others since.
            dial.good = record
                .addresses
                .first()
                .copied()
                .filter(|_| record.seen_ms > record.made_ms);
            dial.record = record;
        }
        Ok(())
    }

    /// The person behind a device, as far as rosters tell.
    pub(super) fn person_of(&self, device: &DeviceId) -> Option<PersonId> {
        self.rooms.values().find_map(|room| room.devices.get(device)).copied()
    }
}

fn address_body(device: &DeviceId, made_ms: u64, addresses: &[Address], relay: Option<&RelayUrl>) -> Vec<u8> {
    let mut body = device.to_bytes();
    made_ms.encode(&mut body);
    crate::wire::put_list(&mut body, addresses);
    relay.cloned().encode(&mut body);
    body
}

/// The first digits of a device's id: enough to name it.
pub(super) fn short(device: &DeviceId) -> String {
    device.0[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}
