//! The line plan: the fewest peers that cover every room, and a reason for each.
//!
//! Greedy set cover (Chvatal 1979: within ln n of the fewest). A peer gains by each room that it is a member of and that is not covered enough yet: rooms where something
//! is being said want two lines ([`COVER_ACTIVE`]), quiet ones one. Who keeps failing is taken to be away and comes after anybody else. Among equals: a line that is there before one that is not, the oldest of them (who has been there
//! long stays long; Bustamante and Qiao 2003), the local network before the Internet, who was seen last, and the smaller key. About [`LINES`] lines are held.
//!
//! What those do not cover is *visited*: one line to one member until both are in step, then it is closed; every room once after the start or a change of
//! network, then one room every [`VISIT_GAP`], the longest unvisited first. A room of two is visited like a quiet room and gets a line of its own when somebody writes.
//!
//! *Open rooms*: a room that somebody here has open ([`Room::opened`]) gets a line at once, whatever else is held, and keeps it for [`OPEN_FOR`]: its reader waits for what is said there, and behind some gateways nobody can call.
//!
//! *Replacing*: which peers cover best changes with every room that is talked in or falls silent. A line makes place only for another that is up, and only one every [`REPLACE_GAP`]: a line that
//! was closed is seen by the gateway for two minutes more, so that to replace all at once doubles the flows. What somebody waits for is dialled at once.
//!
//! *Mixing*: covering alone would leave the sides of a healed partition apart, each covered by its own. So from time to time a member is called with whom there was no line for longest:
//! first [`MIX_FIRST`] after a change of network, if every room was looked into by then, for it may be that two sides have just come together (not after the start: flows of dials to whoever is away would be in the way of covering); every [`MIX_GAP_FEW`] while fewer than [`MIX_LINES`] lines are up, every [`MIX_GAP_NEW`] in the first time after the start or a change of network, for what covers a room then may be as new to it, every [`MIX_GAP`] later,
//! sooner where the last one did not answer. Two sides with several members meet within a gap or two, and a line is enough.
//!
//! *Spreading*: a line to one member is no line to all: lines of a room may hang together in parts, and what is said in one part reaches the others only with somebody's next call. So those of whom nothing
//! came since something was said (no entry, no receipt, no address: [`Peer::heard`]) are called, one every [`SPREAD_GAP`] and first who was seen last, until [`SPREAD_LINES`] lines lead into the room. Who keeps failing is
//! taken to be away.
//!
//! *Networks*: no more than a third of the lines go to one /24 (IPv4) or /48 (IPv6), and two thirds to the local network, except to a room that has no other
//! way, so that one hostile block cannot surround a node.
//!
//! *Pace*: at most [`DIALS`] dials in flight, and [`DIALS_WAITED_FOR`] beside them that somebody waits for. A dial that is under way for [`SLOW`] goes on, but another member of the same rooms is called beside it (as connections race in RFC 8305): an address may be
//! dead, and a dial that finds out takes ten seconds. Such slow dials leave their place to others, up to [`DIALS_WITH_SLOW`] in all.
//!
//! *Close*: a line that covers nothing of its own and was idle for [`IDLE`] is closed, sooner ([`SURPLUS_STAY`]) while there are more than [`LINES`]; a visit after [`VISIT_STAY`] in step, or after [`SETTLED`] while rooms that were not looked into yet wait for its place. A line that
//! the other side dialled is left to the other side while there are no more than [`LINES`]. Where the other side dials back at once ([`RETURN`]) it has no other way: it is waited twice as long each time, for a
//! handshake costs more than [`IDLE`] of keep-alives.
//!
//! It knows nothing of how peers are reached beyond what it is told, and does not look beyond the rooms of its own node: there is no global topology.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::identity::DeviceId;
use crate::overlay::ledger::Limits;

mod reason;

pub use reason::Reason;

/// Lines held unless the flow cap is small.
pub const LINES: usize = 12;
/// Lines while rooms are visited: those held, and visits.
pub const LINES_WITH_VISITS: usize = 24;
/// Dials in flight.
pub const DIALS: usize = 4;
/// Beside these, of those that somebody waits for.
pub const DIALS_WAITED_FOR: usize = 2;
/// A dial that takes so long is no longer waited for: others are tried beside it.
pub const SLOW: Duration = Duration::from_secs(3);
/// Dials in flight together with slow ones.
pub const DIALS_WITH_SLOW: usize = 12;
/// Lines to a room in which something is being said.
pub const COVER_ACTIVE: usize = 2;
/// A room counts as active for so long after something was said.
pub const ACTIVE: Duration = Duration::from_secs(600);
/// A room of two keeps its line for so long after something was said.
pub const PAIR_ACTIVE: Duration = Duration::from_secs(120);
/// A room that somebody has open keeps a line for so long after that was told last.
pub const OPEN_FOR: Duration = Duration::from_secs(120);
/// A line that covers nothing is closed when nothing was said on it for so long.
pub const IDLE: Duration = Duration::from_secs(90);
/// Who dials back so soon after its line was closed as idle needs it.
pub const RETURN: Duration = Duration::from_secs(10);
/// The most by which [`IDLE`] is doubled for whoever dials back: an hour and a half.
const RETURNS_MAX: u32 = 6;
/// An own line that covers nothing is closed after so long where there are more than are to be held. Less than it takes to find that a line is dead: the other side takes a longer silence for a loss, and calls back.
pub const SURPLUS_STAY: Duration = Duration::from_secs(10);
/// A visit ends when nothing was said on its line for so long.
pub const VISIT_STAY: Duration = Duration::from_secs(2);
/// A line on which nothing came for so long, with both ends having said what they hold and nothing asked for, has its rooms in step.
pub const SETTLED: Duration = Duration::from_secs(1);
/// Between two visits once every room was visited.
pub const VISIT_GAP: Duration = Duration::from_secs(200);
/// A room that was visited is not visited again before.
pub const VISIT_PERIOD: Duration = Duration::from_secs(600);

/// Between two dials for lines that others are to make place for.
pub const REPLACE_GAP: Duration = Duration::from_secs(90);

/// Below so many lines, members without one are called soon.
pub const MIX_LINES: usize = 6;
/// The first call for mixing after a change of network, once every room was looked into.
pub const MIX_FIRST: Duration = Duration::from_secs(1);
/// Between two calls for mixing while there are fewer than [`MIX_LINES`] lines.
pub const MIX_GAP_FEW: Duration = Duration::from_secs(5);
/// Between two calls for mixing within [`MIX_NEW_FOR`] of the start or a change of network.
pub const MIX_GAP_NEW: Duration = Duration::from_secs(20);
/// How long that is.
pub const MIX_NEW_FOR: Duration = Duration::from_secs(180);
/// Between two calls for mixing otherwise.
pub const MIX_GAP: Duration = Duration::from_secs(300);
/// The same, after one that nobody answered: it costs a third of one that is answered.
pub const MIX_GAP_MISSED: Duration = Duration::from_secs(100);

/// So long after something was said, those of whom nothing came since are called.
pub const SPREAD_AFTER: Duration = Duration::from_secs(6);
/// And until then.
pub const SPREAD_FOR: Duration = Duration::from_secs(60);
/// Between two such calls.
pub const SPREAD_GAP: Duration = Duration::from_secs(2);
/// Whoever has so many lines to members of a room leaves such calls to others.
pub const SPREAD_LINES: usize = 6;
/// Nobody is called so twice within this.
pub const SPREAD_PERIOD: Duration = Duration::from_secs(120);

/// Between two dials to devices that have failed [`FAILURES`] times or more.
pub const RETRY_GAP: Duration = Duration::from_secs(10);
/// So many dials that failed in a row are not held against a device.
pub const FAILURES: u32 = 3;

/// A room's number, as the caller counts them.
pub type RoomNumber = u32;

/// A room, as the plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// When something was said last, own or others', while this node ran.
    pub spoken: Option<Instant>,
    /// A room of two.
    pub is_pair: bool,
    /// Somebody waits for this room: to be let in, or for an own entry to reach anybody.
    pub is_urgent: bool,
    /// When somebody here was last seen to have it open.
    pub opened: Option<Instant>,
}

impl Room {
    fn is_open(&self, now: Instant) -> bool {
        self.opened
            .is_some_and(|at| now.saturating_duration_since(at) < OPEN_FOR)
    }
}

/// A line that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Since when.
    pub since: Instant,
    /// When the last frame came.
    pub last_frame: Instant,
    /// Rooms whose state both ends have said on it.
    pub greeted: BTreeSet<RoomNumber>,
    /// Answers are under way on it.
    pub is_busy: bool,
    /// This node dialled.
    pub is_own: bool,
}

/// A device, as the plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The rooms that both are in.
    pub rooms: BTreeSet<RoomNumber>,
    /// The line to it.
    pub line: Option<Line>,
    /// Since when a dial is under way.
    pub dialling_since: Option<Instant>,
    /// When it may be dialled; none where nothing is known of reaching it.
    pub due: Option<Instant>,
    /// Dials that failed in a row.
    pub failures: u32,
    /// Its best address.
    pub address: Option<SocketAddr>,
    /// It is on the local network.
    pub is_near: bool,
    /// When it was last seen, in milliseconds of the wall clock.
    pub seen_ms: u64,
    /// When something came that it said, over whatever lines.
    pub heard: Option<Instant>,
}

impl Peer {
    fn is_dialling(&self) -> bool {
        self.dialling_since.is_some()
    }

    /// A dial is under way that may soon be answered.
    fn is_awaited(&self, now: Instant) -> bool {
        self.dialling_since
            .is_some_and(|since| now.saturating_duration_since(since) < SLOW)
    }

    /// Taken to be away: anybody else comes first.
    fn keeps_failing(&self) -> bool {
        self.failures >= FAILURES
    }
}

/// All that a plan is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// The rooms.
    pub rooms: BTreeMap<RoomNumber, Room>,
    /// The devices that share any, and those that lead into one.
    pub peers: BTreeMap<DeviceId, Peer>,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Whom to dial now, and why.
    pub dial: Vec<(DeviceId, Reason)>,
    /// Which lines to close now.
    pub close: Vec<DeviceId>,
    /// Why each line that is up is held.
    pub held: BTreeMap<DeviceId, Reason>,
    /// When to plan again, even if nothing happens.
    pub again: Option<Instant>,
}

/// What is remembered from plan to plan.
#[derive(Debug, Clone, Default)]
pub struct Planner {
    limits: Limits,
    visited: BTreeMap<RoomNumber, Instant>,
    next_visit: Option<Instant>,
    /// When a device that keeps failing may be tried again; whatever the room.
    next_retry: Option<Instant>,
    /// When there was a line to a device last; only for those in sight.
    met: BTreeMap<DeviceId, Instant>,
    /// When this node started, or its network changed.
    began: Option<Instant>,
    /// It was the network.
    has_changed: bool,
    /// When a call for mixing was made last, and to whom.
    last_mix: Option<(Instant, DeviceId)>,
    /// When the next member may be called to whom nothing shows that what was said has come.
    next_spread: Option<Instant>,
    /// When such a call was made last; only to those in sight.
    spread: BTreeMap<DeviceId, Instant>,
    /// When the next line may be replaced.
    next_replacement: Option<Instant>,
    /// When the line to a device was closed last, and how often in a row it had dialled back before; only for those in sight.
    closed: BTreeMap<DeviceId, (Instant, u32)>,
}

impl Planner {
    /// For a node with these caps.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// How many lines are held: three tenths of the soft cap, from 2 to [`LINES`].
    pub fn lines(&self) -> usize {
        (self.limits.soft() * 3 / 10).clamp(2, LINES)
    }

    /// Beyond the lines that are held, so many for visits.
    fn lines_with_visits(&self) -> usize {
        (self.limits.soft() * 3 / 5).clamp(self.lines() + 1, LINES_WITH_VISITS)
    }

    /// The network is another one: every room is visited again.
    pub fn network_changed(&mut self) {
        self.visited.clear();
        self.next_visit = None;
        self.began = None;
        self.has_changed = true;
    }

    /// Whether a room was covered or visited since the start or the last change of network.
    pub fn has_visited(&self, room: RoomNumber) -> bool {
        self.visited.contains_key(&room)
    }

    /// Makes a plan.
    pub fn plan(&mut self, sight: &Sight, now: Instant) -> Plan {
        self.note_visits(sight, now);
        let mut choice = Choice::new(sight, self.lines(), now);
        choice.cover();
        choice.keep_steady();
        choice.keep_until_replaced();
        let mut plan = Plan::default();
        self.dial_chosen(&choice, &mut plan);
        self.dial_visits(&choice, &mut plan);
        self.dial_spread(&choice, &mut plan);
        self.dial_mix(&choice, &mut plan);
        self.judge_lines(&choice, &mut plan);
        self.set_again(&choice, &mut plan);
        plan
    }

    /// A room that both ends of a line have spoken of, with no answers under way, is in step.
    fn note_visits(&mut self, sight: &Sight, now: Instant) {
        self.visited.retain(|room, _| sight.rooms.contains_key(room));
        for line in sight.peers.values().filter_map(|peer| peer.line.as_ref()) {
            // A moment of silence: what the hellos led to is over.
            if !line.is_busy && now.saturating_duration_since(line.last_frame) >= SETTLED {
                self.visited.extend(line.greeted.iter().map(|room| (*room, now)));
            }
        }
    }

    /// Dials those of the chosen that have no line, the most useful first.
    fn dial_chosen(&mut self, choice: &Choice<'_>, plan: &mut Plan) {
        for (device, reason) in choice.order.iter().map(|device| (*device, choice.chosen[device])) {
            let peer = &choice.sight.peers[&device];
            let is_due = peer.due.is_some_and(|due| due <= choice.now);
            let is_waited_for = matches!(reason, Reason::Join | Reason::Write | Reason::Open);
            let is_first = peer.rooms.iter().any(|room| !self.visited.contains_key(room));
            let has_place = is_waited_for || is_first || choice.standing + plan.dial.len() < choice.lines_max;
            let has_turn = has_place || self.next_replacement.is_none_or(|at| at <= choice.now);
            let places = if is_waited_for { DIALS + DIALS_WAITED_FOR } else { DIALS };
            let may_dial = choice.may_dial_within(places, peer, plan);
            if !may_dial || !is_due || !has_turn || !self.may_retry(peer, choice.now) {
                continue;
            }
            if !has_place {
                self.next_replacement = Some(choice.now + REPLACE_GAP);
            }
            plan.dial.push((device, reason));
        }
    }

    /// Devices that keep failing are tried one after the other, slowly: each try is a flow or two.
    fn may_retry(&mut self, peer: &Peer, now: Instant) -> bool {
        let may = self.retry_at(peer).is_none_or(|at| at <= now);
        if may && peer.keeps_failing() {
            self.next_retry = Some(now + RETRY_GAP);
        }
        may
    }

    /// When a device that keeps failing has its turn; none where it has not failed so often.
    fn retry_at(&self, peer: &Peer) -> Option<Instant> {
        self.next_retry.filter(|_| peer.keeps_failing())
    }

    /// Dials for rooms that no chosen peer covers: all at once at first, then one from time to time.
    fn dial_visits(&mut self, choice: &Choice<'_>, plan: &mut Plan) {
        let mut open: Vec<(Option<Instant>, RoomNumber)> = choice
            .uncovered()
            .filter(|room| self.is_due(*room, choice.now))
            .map(|room| (self.visited.get(&room).copied(), room))
            .collect();
        open.sort_unstable();
        let mut looked_into = BTreeSet::new();
        for (last, room) in open {
            let is_first = last.is_none();
            let is_time = is_first || self.next_visit.is_none_or(|at| at <= choice.now);
            let lines = choice.lines + plan.dial.len();
            if looked_into.contains(&room) || !is_time || lines >= self.lines_with_visits() {
                continue;
            }
            let Some(device) = choice.best_visit(room, plan) else {
                continue;
            };
            let peer = &choice.sight.peers[&device];
            if !self.may_retry(peer, choice.now) {
                continue;
            }
            let shown: BTreeSet<RoomNumber> = choice.uncovered().filter(|room| peer.rooms.contains(room)).collect();
            plan.dial.push((device, Reason::Visit(shown.len())));
            looked_into.extend(shown);
            if !is_first {
                self.next_visit = Some(choice.now + VISIT_GAP);
            }
        }
    }

    /// Dials whom there was no line to for longest, so that no part of a room keeps to itself.
    fn dial_mix(&mut self, choice: &Choice<'_>, plan: &mut Plan) {
        let (sight, now) = (choice.sight, choice.now);
        self.met.retain(|device, _| sight.peers.contains_key(device));
        let lines = sight.peers.iter().filter(|(_, peer)| peer.line.is_some());
        self.met.extend(lines.map(|(device, _)| (*device, now)));
        self.began.get_or_insert(now);
        if now < self.next_mix(choice) || choice.lines + plan.dial.len() >= self.lines_with_visits() {
            return;
        }
        let longest = choice
            .mixable()
            .filter(|(device, peer)| {
                let is_due = peer.due.is_some_and(|due| due <= now);
                // Who keeps failing and has no turn yet does not stand before the others.
                let has_turn = self.retry_at(peer).is_none_or(|at| at <= now);
                let is_planned = plan.dial.iter().any(|(other, _)| other == *device);
                is_due && has_turn && choice.may_dial(peer, plan) && !is_planned
            })
            .min_by_key(|(device, peer)| (self.met.get(device), std::cmp::Reverse(peer.seen_ms), **device));
        let Some((device, peer)) = longest.map(|(device, peer)| (*device, peer)) else {
            return;
        };
        if self.may_retry(peer, now) {
            self.last_mix = Some((now, device));
            plan.dial.push((device, Reason::Mix));
        }
    }

    /// When the next call for mixing may be made. Not in the first moments, which are for covering.
    fn next_mix(&self, choice: &Choice<'_>) -> Instant {
        let began = self.began.unwrap_or(choice.now);
        let is_first = self.last_mix.is_none_or(|(at, _)| at < began);
        if self.has_changed && is_first && choice.sight.rooms.keys().all(|room| self.has_visited(*room)) {
            return began + MIX_FIRST;
        }
        let last = self.last_mix.map_or(began, |(at, _)| at.max(began));
        let was_missed = self
            .last_mix
            .is_some_and(|(at, device)| self.met.get(&device).is_none_or(|met| *met < at));
        last + match choice.lines {
            ..MIX_LINES => MIX_GAP_FEW,
            _ if choice.now < began + MIX_NEW_FOR => MIX_GAP_NEW,
            _ if was_missed => MIX_GAP_MISSED,
            _ => MIX_GAP,
        }
    }

    /// Dials a member of a room in which something was just said, of whom nothing came since: the lines of a room may hang together in parts.
    fn dial_spread(&mut self, choice: &Choice<'_>, plan: &mut Plan) {
        let (sight, now) = (choice.sight, choice.now);
        self.spread.retain(|device, at| {
            sight.peers.contains_key(device) && now.saturating_duration_since(*at) < SPREAD_PERIOD
        });
        let is_time = self.next_spread.is_none_or(|at| at <= now);
        if !is_time || choice.lines + plan.dial.len() >= self.lines_with_visits() {
            return;
        }
        let best = choice
            .unheard(now)
            .filter(|(device, peer)| {
                let is_planned = plan.dial.iter().any(|(other, _)| other == *device);
                let is_due = peer.due.is_some_and(|due| due <= now);
                is_due && choice.may_dial(peer, plan) && !is_planned && !self.spread.contains_key(device)
            })
            .max_by_key(|(device, peer)| {
                (
                    peer.is_near,
                    std::cmp::Reverse(peer.failures),
                    peer.seen_ms,
                    std::cmp::Reverse(**device),
                )
            });
        if let Some((device, _)) = best {
            self.next_spread = Some(now + SPREAD_GAP);
            self.spread.insert(*device, now);
            plan.dial.push((*device, Reason::Spread));
        }
    }

    fn is_due(&self, room: RoomNumber, now: Instant) -> bool {
        let last = self.visited.get(&room);
        last.is_none_or(|at| now.saturating_duration_since(*at) >= VISIT_PERIOD)
    }

    /// How often in a row a device has dialled back at once after its line was closed.
    fn returns(&self, device: &DeviceId, line: &Line) -> u32 {
        let closed = self
            .closed
            .get(device)
            .filter(|(at, _)| !line.is_own && line.since < *at + RETURN);
        closed.map_or(0, |(_, before)| (before + 1).min(RETURNS_MAX))
    }

    /// Says why each line is held, and closes those that are for nothing.
    fn judge_lines(&mut self, choice: &Choice<'_>, plan: &mut Plan) {
        self.closed.retain(|device, _| choice.sight.peers.contains_key(device));
        let mut lines = choice.lines;
        // In the first round others wait for the places of visits.
        let is_first_round = choice.uncovered().any(|room| !self.visited.contains_key(&room));
        let stay = if is_first_round && lines >= self.lines_with_visits() {
            SETTLED
        } else {
            VISIT_STAY
        };
        for (device, peer) in &choice.sight.peers {
            let Some(line) = &peer.line else { continue };
            let idle = choice.now.saturating_duration_since(line.last_frame.max(line.since));
            let visiting = choice.uncovered().filter(|room| peer.rooms.contains(room)).count();
            let reason = match choice.reason_of(device) {
                Some(reason) => reason,
                None if !line.is_own && lines <= self.lines() => Reason::Theirs(peer.rooms.len()),
                None if line.is_own && visiting > 0 => Reason::Visit(visiting),
                None => Reason::Surplus,
            };
            let returns = self.returns(device, line);
            let patience = match reason {
                Reason::Visit(_) => stay,
                Reason::Surplus if lines > self.lines_with_visits() => VISIT_STAY,
                Reason::Surplus if line.is_own && lines > self.lines() => SURPLUS_STAY,
                Reason::Surplus => IDLE * (1 << returns),
                _ => Duration::MAX,
            };
            if idle >= patience && !line.is_busy {
                plan.close.push(*device);
                self.closed.insert(*device, (choice.now, returns));
                lines -= 1;
                continue;
            }
            plan.held.insert(*device, reason);
            if patience < Duration::MAX {
                // One on which answers are under way is looked at again.
                let end = (line.last_frame.max(line.since) + patience).max(choice.now + SETTLED);
                plan.again = Some(plan.again.map_or(end, |at| at.min(end)));
            }
        }
    }

    fn set_again(&self, choice: &Choice<'_>, plan: &mut Plan) {
        let (now, sight) = (choice.now, choice.sight);
        let slow = sight
            .peers
            .values()
            .filter_map(|peer| Some(peer.dialling_since? + SLOW));
        let wanted = choice.chosen.keys().chain(choice.visitable.iter());
        let dials = wanted.filter_map(|device| {
            let peer = &sight.peers[device];
            let is_open = peer.line.is_none() && !peer.is_dialling();
            peer.due.filter(|due| is_open && *due > now)
        });
        let visits = choice.uncovered().filter_map(|room| {
            let last = *self.visited.get(&room)?;
            Some((last + VISIT_PERIOD).max(self.next_visit.unwrap_or(now)))
        });
        let quiet = sight.rooms.values().filter_map(|room| {
            let kept = if room.is_pair { PAIR_ACTIVE } else { ACTIVE };
            Some(room.spoken? + kept)
        });
        let opened = sight.rooms.values().filter_map(|room| Some(room.opened? + OPEN_FOR));
        // The first round goes on as soon as there is room for the next dial.
        let is_open = |peer: &Peer| peer.line.is_none() && peer.due.is_some_and(|due| due <= now);
        let rest = choice.visitable.iter().any(|device| is_open(&sight.peers[device]));
        let unvisited = choice.uncovered().any(|room| !self.visited.contains_key(&room));
        let round = (rest && unvisited).then_some(now + SETTLED);
        let retry = self.next_retry;
        let may_mix = self.next_mix(choice).max(now + SETTLED);
        let mix = choice
            .mixable()
            .filter_map(|(_, peer)| Some(peer.due?.max(may_mix).max(self.retry_at(peer).unwrap_or(now))))
            .min();
        let fresh = sight
            .rooms
            .values()
            .filter(|room| !room.is_pair)
            .filter_map(|room| room.spoken);
        let starts = fresh.map(|said| said + SPREAD_AFTER).filter(|at| *at > now);
        let goes_on = choice
            .unheard(now)
            .filter(|(device, _)| !self.spread.contains_key(device))
            .filter_map(|(_, peer)| Some(peer.due?.max(self.next_spread.unwrap_or(now)).max(now + SETTLED)));
        let spread = starts.chain(goes_on).min();
        let times = (plan.again.into_iter())
            .chain(slow)
            .chain(dials)
            .chain(visits)
            .chain(quiet)
            .chain(opened)
            .chain(round)
            .chain(retry)
            .chain(self.next_replacement)
            .chain(mix)
            .chain(spread);
        plan.again = times.filter(|at| *at > now).min();
    }
}

/// The set cover under way.
struct Choice<'a> {
    sight: &'a Sight,
    now: Instant,
    lines_max: usize,
    /// Lines that are up or being dialled.
    lines: usize,
    dials: usize,
    /// How many of the chosen cover each room.
    covered: BTreeMap<RoomNumber, usize>,
    chosen: BTreeMap<DeviceId, Reason>,
    /// The chosen, as they were chosen: the most useful first.
    order: Vec<DeviceId>,
    networks: BTreeMap<Network, usize>,
    /// Lines that stay until those of the chosen that have none yet are up.
    kept: BTreeSet<DeviceId>,
    /// The chosen and the kept that are up, and the chosen that will be soon.
    standing: usize,
    /// Peers that could look into a room that nobody covers.
    visitable: BTreeSet<DeviceId>,
}

/// A block of addresses that one operator is likely to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Network {
    Near,
    V4([u8; 3]),
    V6([u16; 3]),
    Unknown,
}

fn network_of(peer: &Peer) -> Network {
    match peer.address.map(|at| at.ip().to_canonical()) {
        _ if peer.is_near => Network::Near,
        Some(IpAddr::V4(ip)) => {
            let [a, b, c, _] = ip.octets();
            Network::V4([a, b, c])
        }
        Some(IpAddr::V6(ip)) => {
            let [a, b, c, ..] = ip.segments();
            Network::V6([a, b, c])
        }
        None => Network::Unknown,
    }
}

impl<'a> Choice<'a> {
    fn new(sight: &'a Sight, lines_max: usize, now: Instant) -> Self {
        let count = |is_so: &dyn Fn(&Peer) -> bool| sight.peers.values().filter(|peer| is_so(peer)).count();
        let dialling = count(&Peer::is_dialling);
        // Slow ones give up their places, until there are too many of them.
        let dials = count(&|peer| peer.is_awaited(now)).max((dialling + DIALS).saturating_sub(DIALS_WITH_SLOW));
        let lines = dialling + count(&|peer| peer.line.is_some());
        Self {
            sight,
            now,
            lines_max,
            lines,
            dials,
            covered: BTreeMap::new(),
            chosen: BTreeMap::new(),
            order: Vec::new(),
            networks: BTreeMap::new(),
            kept: BTreeSet::new(),
            standing: 0,
            visitable: BTreeSet::new(),
        }
    }

    /// How many lines a room wants.
    fn wants(&self, room: &Room) -> usize {
        let said = room.spoken.map(|at| self.now.saturating_duration_since(at));
        match (room.is_pair, said) {
            _ if room.is_urgent => COVER_ACTIVE,
            (true, said) => usize::from(said.is_some_and(|said| said < PAIR_ACTIVE) || room.is_open(self.now)),
            (false, Some(said)) if said < ACTIVE => COVER_ACTIVE,
            (false, _) => 1,
        }
    }

    /// Usable: there is a line, or it can be dialled at some time.
    fn is_usable(peer: &Peer, now: Instant) -> bool {
        peer.line.is_some() || peer.is_awaited(now) || !peer.is_dialling() && peer.due.is_some_and(|due| due <= now)
    }

    /// Chooses until every room has what it wants, or there are enough lines; urgent rooms go beyond.
    fn cover(&mut self) {
        let usable = |(_, peer): &(&DeviceId, &Peer)| Self::is_usable(peer, self.now);
        let mut open: BTreeMap<DeviceId, &Peer> = (self.sight.peers.iter().filter(usable))
            .map(|(device, peer)| (*device, peer))
            .collect();
        loop {
            let is_full = self.chosen.len() >= self.lines_max;
            let best = open
                .iter()
                .filter_map(|(device, peer)| Some((self.worth(peer, is_full)?, std::cmp::Reverse(*device))))
                .max();
            let Some((_, std::cmp::Reverse(device))) = best else {
                break;
            };
            let Some(peer) = open.remove(&device) else { break };
            let reason = self.reason_for(peer);
            self.choose(device, peer, reason);
        }
        let uncovered: BTreeSet<RoomNumber> = self.uncovered().collect();
        let helps = |peer: &&Peer| peer.rooms.iter().any(|room| uncovered.contains(room));
        self.visitable = (self.sight.peers.iter().filter(|(_, peer)| helps(peer)))
            .map(|(device, _)| *device)
            .collect();
    }

    fn choose(&mut self, device: DeviceId, peer: &Peer, reason: Reason) {
        for room in &peer.rooms {
            *self.covered.entry(*room).or_insert(0) += 1;
        }
        *self.networks.entry(network_of(peer)).or_insert(0) += 1;
        self.chosen.insert(device, reason);
        self.order.push(device);
    }

    /// What choosing a peer brings; none where it brings nothing.
    fn worth(&self, peer: &Peer, is_full: bool) -> Option<Worth> {
        let (mut gain, mut covers_first, mut covers_urgent) = (0, false, false);
        for number in &peer.rooms {
            let Some(room) = self.sight.rooms.get(number) else {
                continue;
            };
            let has = self.covered.get(number).copied().unwrap_or(0);
            let wants = self.wants(room);
            if has >= wants {
                continue;
            }
            covers_first |= has == 0;
            covers_urgent |= has == 0 && (room.is_urgent || room.is_open(self.now));
            gain += match (has, wants) {
                (0, COVER_ACTIVE) => 8,
                (0, _) => 4,
                _ => 3,
            };
        }
        let is_spread = {
            let network = network_of(peer);
            let share = match network {
                Network::Near | Network::Unknown => self.lines_max * 2 / 3,
                _ => self.lines_max / 3,
            };
            self.networks.get(&network).copied().unwrap_or(0) < share.max(1)
        };
        if gain == 0 || is_full && !covers_urgent || !is_spread && !covers_first {
            return None;
        }
        let age = peer
            .line
            .as_ref()
            .map(|line| self.now.saturating_duration_since(line.since));
        let has_line = peer.line.is_some() || peer.is_awaited(self.now);
        Some(Worth {
            covers_urgent,
            is_likely_there: peer.line.is_some() || !peer.keeps_failing(),
            // A new line must bring a quarter more than one that is there, and one to a device that was never reached more than one to a device that was:
            // its addresses may all be dead, and a dial that finds out takes ten seconds.
            gain: match (has_line, peer.is_near || peer.seen_ms > 0) {
                (true, _) => 5 * gain,
                (false, true) => 4 * gain,
                (false, false) => 3 * gain,
            },
            has_line,
            minutes_up: age.map_or(0, |age| age.as_secs() / 60),
            is_near: peer.is_near,
            seen_ms: peer.seen_ms,
        })
    }

    fn reason_for(&self, peer: &Peer) -> Reason {
        let has = |number: &RoomNumber| self.covered.get(number).copied().unwrap_or(0);
        let room = |number: &RoomNumber| self.sight.rooms.get(number);
        let first: Vec<&RoomNumber> = (peer.rooms.iter())
            .filter(|number| has(number) == 0 && room(number).is_some_and(|room| self.wants(room) > 0))
            .collect();
        let is_urgent = first
            .iter()
            .any(|number| room(number).is_some_and(|room| room.is_urgent));
        let is_join = first
            .iter()
            .any(|number| room(number).is_some_and(|room| room.is_urgent && room.spoken.is_none()));
        let is_open = (first.iter()).any(|number| room(number).is_some_and(|room| room.is_open(self.now)));
        match (is_join, is_urgent, first.len()) {
            (true, ..) => Reason::Join,
            (_, true, _) => Reason::Write,
            _ if is_open => Reason::Open,
            (_, _, 0) => {
                let second = |number: &&RoomNumber| room(number).is_some_and(|room| has(number) < self.wants(room));
                Reason::Second(peer.rooms.iter().filter(second).count())
            }
            (_, _, n) => Reason::Only(n),
        }
    }

    /// Fills up with the lines that have been there longest, so that the network does not turn over with every word.
    fn keep_steady(&mut self) {
        let places = self.lines_max.saturating_sub(self.chosen.len());
        for device in self.best_others(places, |_| true) {
            let peer = &self.sight.peers[&device];
            self.choose(device, peer, Reason::Steady);
        }
    }

    /// Lines that were not chosen stay while there are chosen ones that are not up.
    fn keep_until_replaced(&mut self) {
        let chosen = || self.chosen.keys().map(|device| &self.sight.peers[device]);
        let up = chosen().filter(|peer| peer.line.is_some()).count();
        let soon = chosen().filter(|peer| peer.is_awaited(self.now)).count();
        let places = self.lines_max.saturating_sub(up);
        // Who called is left to the other side: else whoever calls often would keep this node from calling anybody.
        self.kept = self.best_others(places, |line| line.is_own);
        self.standing = up + self.kept.len() + soon;
    }

    /// So many lines to peers that were not chosen: first those that carry rooms that none of the chosen carries yet, then the oldest.
    fn best_others(&self, places: usize, may_be: impl Fn(&Line) -> bool) -> BTreeSet<DeviceId> {
        let mut others: Vec<(Instant, DeviceId, &Peer)> = (self.sight.peers.iter())
            .filter(|(device, peer)| !self.chosen.contains_key(device) && self.shares_wanted(peer))
            .filter_map(|(device, peer)| {
                let line = peer.line.as_ref().filter(|line| may_be(line))?;
                Some((line.since, *device, peer))
            })
            .collect();
        others.sort_unstable_by_key(|(since, device, _)| (*since, *device));
        let chosen = self.chosen.keys().map(|device| &self.sight.peers[device]);
        let up = chosen.filter(|peer| peer.line.is_some());
        let mut carried: BTreeSet<RoomNumber> = up.flat_map(|peer| peer.rooms.iter().copied()).collect();
        let mut best = BTreeSet::new();
        while best.len() < places && !others.is_empty() {
            let carries = |peer: &Peer| peer.rooms.difference(&carried).count();
            let at = (0..others.len()).max_by_key(|at| (carries(others[*at].2), std::cmp::Reverse(*at)));
            let (_, device, peer) = others.remove(at.unwrap_or_default());
            carried.extend(&peer.rooms);
            best.insert(device);
        }
        best
    }

    /// A peer with which only rooms of two are shared is not worth a standing line.
    fn shares_wanted(&self, peer: &Peer) -> bool {
        let room = |number: &RoomNumber| self.sight.rooms.get(number);
        (peer.rooms.iter().filter_map(room)).any(|room| self.wants(room) > 0)
    }

    /// Members without a line, in a room where something was said, of whom nothing came since. Those who keep failing are taken to be away.
    fn unheard(&self, now: Instant) -> impl Iterator<Item = (&'a DeviceId, &'a Peer)> + '_ {
        let fresh = |(number, room): (&RoomNumber, &Room)| {
            let said = room.spoken.filter(|_| !room.is_pair)?;
            let since = now.saturating_duration_since(said);
            let is_fresh = since >= SPREAD_AFTER && since < SPREAD_FOR;
            let has_line = |peer: &&Peer| peer.line.is_some() && peer.rooms.contains(number);
            let lines = || self.sight.peers.values().filter(has_line).count();
            (is_fresh && lines() < SPREAD_LINES).then_some((*number, said))
        };
        let fresh: BTreeMap<RoomNumber, Instant> = self.sight.rooms.iter().filter_map(fresh).collect();
        let peers = self.sight.peers.iter();
        peers.filter(move |(_, peer)| {
            let is_open = peer.line.is_none() && !peer.is_dialling() && !peer.keeps_failing();
            is_open
                && fresh
                    .iter()
                    .any(|(room, said)| peer.rooms.contains(room) && peer.heard.is_none_or(|at| at < *said))
        })
    }

    /// Members of rooms that others cover, to whom there is no line. Rooms that nobody covers are visited.
    fn mixable(&self) -> impl Iterator<Item = (&'a DeviceId, &'a Peer)> + '_ {
        let covered = |room: &RoomNumber| self.covered.get(room).is_some_and(|lines| *lines > 0);
        let peers = self.sight.peers.iter();
        peers.filter(move |(_, peer)| peer.line.is_none() && !peer.is_dialling() && peer.rooms.iter().any(covered))
    }

    /// Rooms that none of the chosen covers.
    fn uncovered(&self) -> impl Iterator<Item = RoomNumber> + '_ {
        let covered = |room: &&RoomNumber| self.covered.get(*room).copied().unwrap_or(0) == 0;
        self.sight.rooms.keys().filter(covered).copied()
    }

    fn may_dial(&self, peer: &Peer, plan: &Plan) -> bool {
        self.may_dial_within(DIALS, peer, plan)
    }

    fn may_dial_within(&self, places: usize, peer: &Peer, plan: &Plan) -> bool {
        peer.line.is_none() && !peer.is_dialling() && self.dials + plan.dial.len() < places
    }

    /// Whom to visit for a room: of those that are likely to be there, who shows most uncovered rooms. None while somebody is being visited for it already.
    fn best_visit(&self, room: RoomNumber, plan: &Plan) -> Option<DeviceId> {
        let members = || (self.sight.peers.iter()).filter(|(_, peer)| peer.rooms.contains(&room));
        if members().any(|(_, peer)| peer.line.is_some() || peer.is_awaited(self.now)) {
            return None;
        }
        let is_due = |peer: &Peer| peer.due.is_some_and(|due| due <= self.now);
        let shown = |peer: &Peer| self.uncovered().filter(|room| peer.rooms.contains(room)).count();
        members()
            .filter(|(_, peer)| self.may_dial(peer, plan) && is_due(peer))
            .max_by_key(|(device, peer)| {
                let is_likely_there = !peer.keeps_failing();
                (
                    is_likely_there,
                    shown(peer),
                    peer.is_near,
                    peer.seen_ms,
                    std::cmp::Reverse(**device),
                )
            })
            .map(|(device, _)| *device)
    }

    fn reason_of(&self, device: &DeviceId) -> Option<Reason> {
        let kept = || self.kept.contains(device).then_some(Reason::Steady);
        self.chosen.get(device).copied().or_else(kept)
    }
}

/// What a peer is worth, the weightiest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Worth {
    covers_urgent: bool,
    is_likely_there: bool,
    gain: usize,
    has_line: bool,
    minutes_up: u64,
    is_near: bool,
    seen_ms: u64,
}

#[cfg(test)]
mod tests;
