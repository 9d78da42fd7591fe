//! The overlay alone, by the thousand: the real flow ledger and line plan over rooms whose entries are numbers.
//!
//! What stands in: sealing, signatures and stores (an entry is a number, a log a set of them), frames (an entry crosses a line in one latency where it is pushed, in three where it is
//! announced, wanted and sent; two ends of a new line are in step after four), NAT traversal (a share of the pairs reaches each other through a relay only) and the directory (members' addresses
//! are known, a good one among dead ones). What is real: [`Planner`] and [`FlowLedger`], driven as the node drives them, and
//! at the end of a run look-ups in the real directory ([`LookUps`]), which the run itself does without.
//!
//! The gateway of every node counts flows by the rules of a NAT (30 s unanswered, 120 s answered), from what was sent, and knows nothing of the ledger: that count is what is reported.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;

use offhook_proto::identity::DeviceId;
use offhook_proto::overlay::dial;
use offhook_proto::overlay::ledger::{Answer, Ask, FlowLedger, Kind, Limits, To, Urgency};
use offhook_proto::overlay::plan::{Line as PlanLine, Peer, Planner, Reason, Room, Sight};

mod entries;
mod layout;
mod look_up;

pub use layout::{CrowdPlan, drawn_rooms};
pub use look_up::LookUps;

use crate::clock::{MILLI, Micros, Monotonic, SECOND};
use crate::dice::Dice;

/// A dial that waits for a flow is given up after this, as the peer does it; the plan may want it again.
const WAIT_TIMEOUT: Micros = 20 * SECOND;
/// A node's ledger is told of its lines so often at least, where nothing else happens there: a real one is asked before each packet.
const TOUCH_PERIOD_S: u64 = 60;
/// Lines that are accepted.
const ACCEPTED_MAX: usize = 128;
/// How long NATs remember.
const NAT_UNANSWERED: Micros = 30 * SECOND;
const NAT_ANSWERED: Micros = 120 * SECOND;

/// What a run came to.
#[derive(Debug, Clone, Default)]
pub struct CrowdReport {
    /// The most flows at each node's gateway at one time.
    pub peaks: Vec<usize>,
    /// Flows at each node's gateway at the end; none for those offline.
    pub at_end: Vec<usize>,
    /// Lines of each node that is online at the end.
    pub lines: Vec<usize>,
    /// The first arriving node (else node 0), every second: seconds, flows by kind of its ledger in the order of [`Kind::ALL`], and what the gateway counts.
    pub series: Vec<(u64, [u16; 8], usize)>,
    /// Delay of each delivery to a member that was online when it was said and until it came, in milliseconds, ascending.
    pub delays_ms: Vec<u64>,
    /// The same, counted from when a member that had it came online where none was in between, in milliseconds, ascending.
    pub reachable_ms: Vec<u64>,
    /// Deliveries to members online all the time that had not come at the end, though they were said a minute before or longer.
    pub undelivered: usize,
    /// How many deliveries there were of what was said in the run.
    pub deliveries: usize,
    /// When the first arriving node had everything that it had missed, in milliseconds after it arrived.
    pub caught_up_ms: Option<u64>,
    /// Entries that each node online at the end sent on lines.
    pub sent: Vec<u64>,
    /// Dials made, and those that failed.
    pub dials: [u64; 2],
    /// Plans made.
    pub plans: u64,
    /// Nodes online at the end.
    pub online: usize,
    /// Ledgers that counted fewer flows than the gateway, with the greatest difference.
    pub ledger_below: usize,
    /// Look-ups over the lines that there were at the end, for each share of liars that was asked for.
    pub look_ups: Vec<LookUps>,
}

impl CrowdReport {
    /// A share of the deliveries came within so many milliseconds.
    pub fn delay_ms(&self, share: f64) -> u64 {
        percentile(&self.delays_ms, share)
    }
}

/// The value below which the share of an ascending list lies.
pub fn percentile<T: Copy + Default>(ascending: &[T], share: f64) -> T {
    let last = ascending.len().saturating_sub(1);
    let at = (share * ascending.len() as f64) as usize;
    ascending.get(at.min(last)).copied().unwrap_or_default()
}

/// Runs a crowd to its end.
pub fn run_crowd(plan: &CrowdPlan, seed: u64) -> CrowdReport {
    let mut crowd = Crowd::new(plan, seed);
    crowd.run();
    crowd.report()
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Plan {
        node: usize,
        number: u64,
    },
    Turn {
        node: usize,
    },
    Dialled {
        from: usize,
        to: usize,
        number: u64,
        way: Option<Way>,
        /// It holds a connection to the other's relay.
        by_relay: bool,
    },
    InStep {
        a: usize,
        b: usize,
        number: u64,
    },
    Deliver {
        from: usize,
        to: usize,
        room: u32,
        entry: u32,
    },
    Say,
    Heard {
        node: usize,
        room: u32,
    },
    Up {
        node: usize,
    },
    Down {
        node: usize,
        for_good: bool,
    },
    MassRestart,
    HelpersFail,
    Sample,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Direct,
    Relayed,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Queued(Micros, u64);

#[derive(Debug, Clone)]
struct Line {
    number: u64,
    latency: Micros,
    way: Way,
    /// Where the dialler sent to; the other end sees the dialler's own address.
    dialler: usize,
}

#[derive(Debug)]
struct Node {
    up: bool,
    failed: bool,
    up_since: Micros,
    planner: Planner,
    ledger: FlowLedger,
    sight: Sight,
    /// The plan that is due: later ones that were queued before are void.
    plan_number: u64,
    plan_at: Micros,
    waiting: BTreeMap<usize, Micros>,
    turning: bool,
    lines: BTreeSet<usize>,
    gateway: BTreeMap<To, (Micros, bool)>,
    peak: usize,
    sent: u64,
    relays: BTreeMap<usize, usize>,
}

#[derive(Debug, Clone, Copy)]
struct Said {
    at: Micros,
    /// Since when some member that has it is online.
    reachable: Micros,
    in_run: bool,
}

struct Crowd<'a> {
    plan: &'a CrowdPlan,
    dice: Dice,
    clock: Monotonic,
    now: Micros,
    numbers: u64,
    queue: BinaryHeap<Reverse<(Queued, usize)>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    nodes: Vec<Node>,
    rooms_of: Vec<Vec<u32>>,
    lines: BTreeMap<(usize, usize), Line>,
    said: Vec<Vec<Said>>,
    /// Which entries each member of each room holds: `held[room][place]`.
    held: Vec<Vec<Vec<u64>>>,
    report: CrowdReport,
    missing: usize,
}

fn device(node: usize) -> DeviceId {
    // Keys are as good as random, and ties are settled by them: spread the numbers (Knuth's multiplicative hash).
    let node = u32::try_from(node).unwrap_or(u32::MAX);
    let mut id = [0; 32];
    id[..4].copy_from_slice(&node.wrapping_mul(2_654_435_761).to_be_bytes());
    id[4..8].copy_from_slice(&node.to_be_bytes());
    DeviceId(id)
}

fn node_of(device: &DeviceId) -> usize {
    let [_, _, _, _, a, b, c, d, ..] = device.0;
    u32::from_be_bytes([a, b, c, d]) as usize
}

/// The address at which a node answers: networks of about three nodes each.
fn address(node: usize) -> SocketAddr {
    let spread = (node as u32 / 3).wrapping_mul(2_654_435_761).to_be_bytes();
    SocketAddr::from(([20 + spread[0] % 150, spread[1], spread[2], (node % 3) as u8 + 1], 4433))
}

/// An address of a node at which nobody answers.
fn dead_address(node: usize, number: usize) -> SocketAddr {
    let [_, a, b, c] = (node as u32).to_be_bytes();
    SocketAddr::from(([10, a, b, c], 5000 + number as u16))
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl<'a> Crowd<'a> {
    fn new(plan: &'a CrowdPlan, seed: u64) -> Self {
        let mut rooms_of = vec![Vec::new(); plan.nodes];
        for (number, members) in plan.rooms.iter().enumerate() {
            for member in members {
                rooms_of[*member].push(number as u32);
            }
        }
        let node = || Node {
            up: false,
            failed: false,
            up_since: 0,
            planner: Planner::default(),
            ledger: FlowLedger::new(Limits::default()),
            sight: Sight::default(),
            plan_number: 0,
            plan_at: Micros::MAX,
            waiting: BTreeMap::new(),
            turning: false,
            lines: BTreeSet::new(),
            gateway: BTreeMap::new(),
            peak: 0,
            sent: 0,
            relays: BTreeMap::new(),
        };
        let mut crowd = Self {
            dice: Dice::new(seed, "crowd"),
            clock: Monotonic::new(),
            now: 0,
            numbers: 0,
            queue: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            nodes: (0..plan.nodes).map(|_| node()).collect(),
            rooms_of,
            lines: BTreeMap::new(),
            said: vec![Vec::new(); plan.rooms.len()],
            held: plan
                .rooms
                .iter()
                .map(|members| vec![Vec::new(); members.len()])
                .collect(),
            report: CrowdReport::default(),
            missing: 0,
            plan,
        };
        crowd.begin();
        crowd
    }

    fn begin(&mut self) {
        for node in 0..self.plan.nodes {
            let online = self.dice.chance(self.plan.online);
            if self.plan.arriving.contains(&node) {
                self.after(self.plan.arrive_s * SECOND, Event::Up { node });
            } else if online {
                // Not all in one moment: nodes that were there before came one after the other.
                let at = self.dice.below(30 * SECOND);
                self.after(at, Event::Up { node });
            } else if self.plan.session_s > 0 {
                let at = self.off_time();
                self.after(at, Event::Up { node });
            }
        }
        if self.plan.says_per_minute > 0 {
            self.after(60 * SECOND, Event::Say);
        }
        if self.plan.mass_restart_s > 0 {
            self.after(self.plan.mass_restart_s * SECOND, Event::MassRestart);
        }
        if self.plan.helpers_fail > 0.0 {
            self.after(self.plan.fail_s * SECOND, Event::HelpersFail);
        }
        self.after(SECOND, Event::Sample);
    }

    fn off_time(&mut self) -> Micros {
        let on = self.plan.session_s as f64;
        let off = on * (1.0 - self.plan.online) / self.plan.online.max(0.01);
        self.dice.around((off * SECOND as f64) as u64)
    }

    fn after(&mut self, wait: Micros, event: Event) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[slot] = Some(event);
        self.numbers += 1;
        self.queue.push(Reverse((Queued(self.now + wait, self.numbers), slot)));
    }

    fn run(&mut self) {
        let end = self.plan.run_s * SECOND;
        while let Some(Reverse((Queued(at, _), slot))) = self.queue.pop() {
            if at > end {
                break;
            }
            self.now = at;
            self.free.push(slot);
            if let Some(event) = self.events[slot].take() {
                self.happen(event);
            }
        }
        self.now = end;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Plan { node, number } if self.nodes[node].plan_number == number => self.make_plan(node),
            Event::Plan { .. } => {}
            Event::Turn { node } => self.turn(node),
            Event::Dialled {
                from,
                to,
                number,
                way,
                by_relay,
            } => {
                let is_of_this_run = self.nodes[from].up && self.nodes[from].up_since == number;
                if is_of_this_run && !self.dialled(from, to, way) && by_relay {
                    self.let_relay_go(from, to);
                }
            }
            Event::InStep { a, b, number } => self.in_step(a, b, number),
            Event::Deliver { from, to, room, entry } => self.deliver(from, to, room, entry),
            Event::Say => self.say(),
            Event::Heard { node, room } => self.heard(node, room),
            Event::Up { node } => self.come_up(node),
            Event::Down { node, for_good } => self.go_down(node, for_good),
            Event::MassRestart => {
                let up: Vec<usize> = (0..self.nodes.len()).filter(|n| self.nodes[*n].up).collect();
                for node in up {
                    self.go_down(node, true);
                    let at = self.dice.below(5 * SECOND);
                    self.after(at, Event::Up { node });
                }
            }
            Event::HelpersFail => self.fail_helpers(),
            Event::Sample => self.sample(),
        }
    }

    fn fail_helpers(&mut self) {
        let mut busy: Vec<(usize, usize)> = (self.nodes.iter().enumerate())
            .filter(|(_, node)| node.up)
            .map(|(number, node)| (node.lines.len(), number))
            .collect();
        busy.sort_unstable_by(|a, b| b.cmp(a));
        let count = (busy.len() as f64 * self.plan.helpers_fail) as usize;
        for (_, node) in busy.into_iter().take(count) {
            self.nodes[node].failed = true;
            self.go_down(node, true);
        }
    }

    // Nodes.

    fn come_up(&mut self, node: usize) {
        if self.nodes[node].up || self.nodes[node].failed {
            return;
        }
        let now = self.clock.at(self.now);
        let sight = self.first_sight(node);
        self.in_reach(node);
        let state = &mut self.nodes[node];
        (state.up, state.up_since) = (true, self.now);
        state.planner = Planner::new(Limits::default());
        // The gateway forgets nothing because a program ended; the new one reads what the old one had noted.
        let remembered = state.ledger.remembered(now);
        state.ledger = FlowLedger::new(Limits::default());
        state.ledger.take_up(remembered, true, now);
        state.sight = sight;
        state.waiting.clear();
        state.relays.clear();
        if self.plan.relays > 0 {
            let home = To::Tcp(format!("relay {}", node % self.plan.relays));
            if state.ledger.hold(home.clone(), Kind::Relay, "the home relay", now) {
                state.gateway.insert(home, (Micros::MAX / 2, true));
            }
        }
        if self.plan.arriving.iter().next() == Some(&node) {
            self.say_what_was_missed(node);
        }
        if self.plan.naive.contains(&node) {
            self.dial_everybody(node);
        } else {
            self.want_plan(node, 10 * MILLI);
        }
        if self.plan.session_s > 0 && !self.plan.arriving.contains(&node) {
            let stay = self.dice.around(self.plan.session_s * SECOND);
            self.after(stay, Event::Down { node, for_good: false });
        }
    }

    fn first_sight(&mut self, node: usize) -> Sight {
        let mut sight = Sight::default();
        let now = self.clock.at(self.now);
        for number in self.rooms_of[node].clone() {
            let members = &self.plan.rooms[number as usize];
            let room = Room {
                spoken: None,
                is_pair: members.len() == 2,
                is_urgent: false,
                opened: None,
            };
            sight.rooms.insert(number, room);
            for member in members.iter().filter(|member| **member != node) {
                let peer = sight.peers.entry(device(*member)).or_insert_with(|| Peer {
                    rooms: BTreeSet::new(),
                    line: None,
                    dialling_since: None,
                    due: Some(now),
                    failures: 0,
                    address: Some(address(*member)),
                    is_near: false,
                    seen_ms: 0,
                    heard: None,
                });
                peer.rooms.insert(number);
            }
        }
        let rooms = &sight.rooms;
        for peer in sight.peers.values_mut() {
            // Four of five were reached before, and the address that worked is known; a room of two was made over a line, so its other member was.
            let is_pair = peer.rooms.iter().any(|room| rooms[room].is_pair);
            let seen_ms = 1 + self.dice.below(1_000_000);
            peer.seen_ms = if self.dice.chance(0.8) || is_pair { seen_ms } else { 0 };
        }
        sight
    }

    fn go_down(&mut self, node: usize, for_good: bool) {
        if !self.nodes[node].up {
            return;
        }
        for other in self.nodes[node].lines.clone() {
            self.end_line(node, other);
        }
        // Of dials under way.
        for (relay, uses) in std::mem::take(&mut self.nodes[node].relays) {
            if uses > 0 {
                self.close_relay(node, relay);
            }
        }
        if self.plan.relays > 0 {
            let home = To::Tcp(format!("relay {}", node % self.plan.relays));
            self.nodes[node].gateway.insert(home, (self.now, true));
        }
        self.nodes[node].up = false;
        self.out_of_reach(node);
        self.nodes[node].plan_number += 1;
        if !for_good {
            let off = self.off_time();
            self.after(off, Event::Up { node });
        }
    }

    // Plans and dials.

    fn want_plan(&mut self, node: usize, wait: Micros) {
        let at = self.now + wait;
        let state = &mut self.nodes[node];
        if !state.up || self.plan.naive.contains(&node) || state.plan_at <= at && state.plan_at > self.now {
            return;
        }
        state.plan_at = at;
        state.plan_number += 1;
        let number = state.plan_number;
        self.after(wait, Event::Plan { node, number });
    }

    fn make_plan(&mut self, node: usize) {
        let now = self.clock.at(self.now);
        self.touch(node);
        let state = &mut self.nodes[node];
        state.plan_at = Micros::MAX;
        if !state.up {
            return;
        }
        self.report.plans += 1;
        let plan = state.planner.plan(&state.sight, now);
        for peer in plan.close {
            self.end_line(node, node_of(&peer));
        }
        for (peer, reason) in plan.dial {
            self.dial(node, node_of(&peer), reason);
        }
        if let Some(again) = plan.again {
            let wait = self.clock.offset(again).saturating_sub(self.now);
            self.want_plan(node, wait.max(100 * MILLI));
        }
    }

    /// Lines say something every five seconds: their flows are in use now.
    fn touch(&mut self, node: usize) {
        let now = self.clock.at(self.now);
        let lines: Vec<SocketAddr> = (self.nodes[node].lines.iter())
            .filter(|other| self.lines[&pair(node, **other)].way == Way::Direct)
            .map(|other| address(*other))
            .collect();
        let state = &mut self.nodes[node];
        for at in lines {
            state.ledger.may_send(at, now);
            state.ledger.heard(at, now);
        }
    }

    fn dial(&mut self, from: usize, to: usize, reason: Reason) {
        let now = self.clock.at(self.now);
        let tried = self.addresses_tried(from, to);
        let state = &mut self.nodes[from];
        let is_first = state.sight.peers[&device(to)]
            .rooms
            .iter()
            .any(|room| !state.planner.has_visited(*room));
        let urgency = reason.urgency(is_first);
        let ask = Ask {
            peer: device(to),
            to: tried,
            urgency,
            reason: reason.words(),
        };
        if let Some(peer) = state.sight.peers.get_mut(&device(to)) {
            peer.dialling_since = Some(now);
        }
        match state.ledger.ask(ask, now) {
            Answer::Go(granted) => self.start_dial(from, to, granted, urgency),
            Answer::Waits => {
                state.waiting.insert(to, self.now);
                if !state.turning {
                    state.turning = true;
                    self.after(SECOND, Event::Turn { node: from });
                }
            }
            Answer::Refused => self.dial_failed(from, to),
        }
    }

    /// Where a good one is known it is the first.
    fn addresses_tried(&mut self, from: usize, to: usize) -> Vec<To> {
        let peer = &self.nodes[from].sight.peers[&device(to)];
        let dead = 2 + to % 4;
        let mut all: Vec<SocketAddr> = (0..dead).map(|number| dead_address(to, number)).collect();
        let place = if peer.seen_ms > 0 {
            0
        } else {
            (from * 31 + to * 17) % (dead + 1)
        };
        all.insert(place, address(to));
        let tried = dial::addresses(&all, peer.seen_ms > 0, peer.failures);
        let mut tried: Vec<To> = tried.into_iter().map(To::Udp).collect();
        if self.plan.relays > 0 && self.is_relayed(from, to) {
            tried.push(To::Tcp(format!("relay {}", to % self.plan.relays)));
        }
        tried
    }

    fn is_relayed(&self, a: usize, b: usize) -> bool {
        let (a, b) = pair(a, b);
        let mixed = ((a as u32).wrapping_mul(2_654_435_761) ^ (b as u32).wrapping_mul(2_246_822_519))
            .wrapping_mul(3_266_489_917);
        f64::from(mixed) < self.plan.relayed * f64::from(u32::MAX)
    }

    fn start_dial(&mut self, from: usize, to: usize, granted: Vec<To>, urgency: Urgency) {
        let now = self.clock.at(self.now);
        self.report.dials[0] += 1;
        let state = &mut self.nodes[from];
        let mut way = None;
        for at in &granted {
            match at {
                To::Udp(at) => {
                    state.ledger.may_send(*at, now);
                    let known = state.gateway.entry(To::Udp(*at)).or_insert((self.now, false));
                    known.0 = known.0.max(self.now);
                }
                To::Tcp(_) => {
                    state.ledger.hold(at.clone(), Kind::Relay, "a peer's relay", now);
                    state.gateway.insert(at.clone(), (Micros::MAX / 2, true));
                    way = Some(Way::Relayed);
                }
                To::Lookup(_) => {}
            }
        }
        if way.is_some() {
            *self.nodes[from].relays.entry(to % self.plan.relays).or_insert(0) += 1;
        }
        if granted.contains(&To::Udp(address(to))) && !self.is_relayed(from, to) {
            way = Some(Way::Direct);
        }
        self.note_peak(from);
        let latency = self.latency();
        let way = way.filter(|_| self.nodes[to].up);
        let by_relay = granted.iter().any(|at| matches!(at, To::Tcp(_)));
        let patience = dial::patience(urgency, by_relay).as_micros() as Micros;
        let takes = if way.is_some() { 3 * latency } else { patience };
        self.numbers += 1;
        let number = self.nodes[from].up_since;
        self.after(
            takes,
            Event::Dialled {
                from,
                to,
                number,
                way,
                by_relay,
            },
        );
    }

    fn latency(&mut self) -> Micros {
        let [low, high] = self.plan.latency_ms;
        self.dice.between(low * MILLI, high * MILLI)
    }

    fn dial_failed(&mut self, from: usize, to: usize) {
        let now = self.clock.at(self.now);
        let spread = self.dice.below(1_000_000) as f64 / 1_000_000.0;
        if let Some(peer) = self.nodes[from].sight.peers.get_mut(&device(to)) {
            peer.dialling_since = None;
            peer.failures += 1;
            let ceiling_ms = (500u64 << peer.failures.min(7)).min(60_000);
            let wait_ms = 250 + (ceiling_ms as f64 * spread) as u64;
            peer.due = Some(now + std::time::Duration::from_millis(wait_ms));
        }
        self.want_plan(from, 20 * MILLI);
    }

    /// A dial has ended. True if there is a line now that was not there before.
    fn dialled(&mut self, from: usize, to: usize, way: Option<Way>) -> bool {
        let now = self.clock.at(self.now);
        self.touch(from);
        self.touch(to);
        self.nodes[from].ledger.dial_ended(device(to));
        if self.lines.contains_key(&pair(from, to)) {
            if let Some(peer) = self.nodes[from].sight.peers.get_mut(&device(to)) {
                peer.dialling_since = None;
            }
            return false;
        }
        let is_let_in = !self.plan.closed.contains(&to) || self.remembers(to, from);
        let way = way.filter(|way| is_let_in || *way == Way::Relayed);
        let callee = &mut self.nodes[to];
        let answers = callee.up
            && callee.lines.len() < ACCEPTED_MAX
            && match way {
                Some(Way::Relayed) => true,
                None => false,
                Some(Way::Direct) if self.plan.naive.contains(&to) => true,
                Some(Way::Direct) => {
                    callee.ledger.heard(address(from), now);
                    callee.ledger.may_answer(address(from), now) && callee.ledger.may_send(address(from), now)
                }
            };
        let Some(way) = way.filter(|_| answers) else {
            self.report.dials[1] += 1;
            self.dial_failed(from, to);
            return false;
        };
        if way == Way::Direct {
            for (here, there) in [(from, to), (to, from)] {
                self.nodes[here]
                    .gateway
                    .insert(To::Udp(address(there)), (Micros::MAX / 2, true));
                self.nodes[here].ledger.heard(address(there), now);
            }
        }
        self.begin_line(from, to, way);
        true
    }

    /// Whether a node's gateway remembers that it sent to another.
    fn remembers(&mut self, node: usize, other: usize) -> bool {
        // What is forgotten is thrown away by the count.
        self.flows(node);
        self.nodes[node].gateway.contains_key(&To::Udp(address(other)))
    }

    fn begin_line(&mut self, from: usize, to: usize, way: Way) {
        let now = self.clock.at(self.now);
        let latency = self.latency();
        self.numbers += 1;
        let number = self.numbers;
        let line = Line {
            number,
            latency,
            way,
            dialler: from,
        };
        self.lines.insert(pair(from, to), line);
        for (here, there) in [(from, to), (to, from)] {
            let state = &mut self.nodes[here];
            state.lines.insert(there);
            if let Some(peer) = state.sight.peers.get_mut(&device(there)) {
                let greeted = peer.rooms.clone();
                for room in &greeted {
                    if let Some(room) = state.sight.rooms.get_mut(room) {
                        room.is_urgent = false;
                    }
                }
                (peer.dialling_since, peer.failures, peer.seen_ms) = (None, 0, peer.seen_ms.max(1) + self.now / MILLI);
                peer.line = Some(PlanLine {
                    since: now,
                    last_frame: now,
                    greeted,
                    is_busy: true,
                    is_own: here == from,
                });
            }
            self.note_peak(here);
            self.want_plan(here, 20 * MILLI);
        }
        self.after(4 * latency, Event::InStep { a: from, b: to, number });
    }

    fn end_line(&mut self, here: usize, there: usize) {
        let Some(line) = self.lines.remove(&pair(here, there)) else {
            return;
        };
        let now = self.clock.at(self.now);
        for (node, other) in [(here, there), (there, here)] {
            let rest = self.dice.between(120_000, 240_000);
            let state = &mut self.nodes[node];
            state.lines.remove(&other);
            if line.way == Way::Direct {
                state.gateway.insert(To::Udp(address(other)), (self.now, true));
                state.ledger.may_send(address(other), now);
            }
            if let Some(peer) = state.sight.peers.get_mut(&device(other)) {
                let last = peer.line.take().map_or(now, |line| line.last_frame);
                let quiet = now.saturating_duration_since(last);
                // A node that went away is tried again soon; one that closed a quiet line is not.
                let wait_ms = if quiet.as_secs() >= 2 { rest } else { 1_000 + rest / 100 };
                peer.due = Some(now + std::time::Duration::from_millis(wait_ms));
            }
            self.want_plan(node, 20 * MILLI);
        }
        if line.way == Way::Relayed {
            self.let_relay_go(line.dialler, if line.dialler == here { there } else { here });
        }
    }

    /// A line or dial needs a peer's relay no more, which is let go of when no other does.
    fn let_relay_go(&mut self, from: usize, to: usize) {
        let relay = to % self.plan.relays;
        let Some(uses) = self.nodes[from].relays.get_mut(&relay) else {
            return;
        };
        *uses = uses.saturating_sub(1);
        if *uses == 0 {
            self.close_relay(from, relay);
        }
    }

    fn close_relay(&mut self, node: usize, relay: usize) {
        if relay != node % self.plan.relays {
            let now = self.clock.at(self.now);
            let at = To::Tcp(format!("relay {relay}"));
            self.nodes[node].ledger.release(&at, now);
            self.nodes[node].gateway.insert(at, (self.now, true));
        }
    }

    fn turn(&mut self, node: usize) {
        let now = self.clock.at(self.now);
        self.touch(node);
        let state = &mut self.nodes[node];
        state.turning = false;
        if !state.up {
            return;
        }
        for (ask, granted) in state.ledger.poll(now) {
            let to = node_of(&ask.peer);
            if self.nodes[node].waiting.remove(&to).is_some() {
                self.start_dial(node, to, granted, ask.urgency);
            }
        }
        let late = |(_, since): &(&usize, &Micros)| **since + WAIT_TIMEOUT <= self.now;
        let late: Vec<usize> = self.nodes[node]
            .waiting
            .iter()
            .filter(late)
            .map(|(to, _)| *to)
            .collect();
        for to in late {
            self.nodes[node].waiting.remove(&to);
            self.dial_failed(node, to);
        }
        let state = &mut self.nodes[node];
        if !state.waiting.is_empty() {
            state.turning = true;
            self.after(SECOND, Event::Turn { node });
        }
    }

    /// What a client does that knows of no flows: everybody, at every address, at once.
    fn dial_everybody(&mut self, node: usize) {
        let mut others = BTreeSet::new();
        for room in &self.rooms_of[node] {
            // One connection for each membership, as clients do that open a topic at a time; the gateway counts places, not connections.
            others.extend(
                self.plan.rooms[*room as usize]
                    .iter()
                    .copied()
                    .filter(|other| *other != node),
            );
        }
        for other in others {
            let state = &mut self.nodes[node];
            for number in 0..2 + other % 4 {
                state
                    .gateway
                    .insert(To::Udp(dead_address(other, number)), (self.now, false));
            }
            let answered = self.nodes[other].up;
            self.nodes[node]
                .gateway
                .insert(To::Udp(address(other)), (self.now, answered));
            if answered && !self.lines.contains_key(&pair(node, other)) {
                self.nodes[node]
                    .gateway
                    .insert(To::Udp(address(other)), (Micros::MAX / 2, true));
                self.begin_line(node, other, Way::Direct);
            }
        }
        self.note_peak(node);
    }

    // Counting.

    fn flows(&mut self, node: usize) -> usize {
        let now = self.now;
        let gateway = &mut self.nodes[node].gateway;
        gateway.retain(|_, (last, answered)| {
            let kept = if *answered { NAT_ANSWERED } else { NAT_UNANSWERED };
            *last > now || now - *last < kept
        });
        gateway.len()
    }

    fn note_peak(&mut self, node: usize) {
        self.touch(node);
        let flows = self.flows(node);
        let now = self.clock.at(self.now);
        let state = &mut self.nodes[node];
        state.peak = state.peak.max(flows);
        if !self.plan.naive.contains(&node) && state.up {
            let counted = state.ledger.in_use(now);
            self.report.ledger_below = self.report.ledger_below.max(flows.saturating_sub(counted));
        }
    }

    fn sample(&mut self) {
        let watched = self.plan.arriving.iter().next().copied().unwrap_or(0);
        self.touch(watched);
        if (self.now / SECOND).is_multiple_of(TOUCH_PERIOD_S) {
            for node in 0..self.nodes.len() {
                self.touch(node);
            }
        }
        let now = self.clock.at(self.now);
        let flows = self.flows(watched);
        self.note_peak(watched);
        let view = self.nodes[watched].ledger.view(now);
        let count = |kind| view.flows.iter().filter(|flow| flow.kind == kind).count() as u16;
        self.report
            .series
            .push((self.now / SECOND, Kind::ALL.map(count), flows));
        self.after(SECOND, Event::Sample);
    }

    fn report(mut self) -> CrowdReport {
        let mut report = std::mem::take(&mut self.report);
        report.delays_ms.sort_unstable();
        report.reachable_ms.sort_unstable();
        let shares = &self.plan.liars;
        report.look_ups = shares.iter().map(|liars| self.look_ups(*liars)).collect();
        for node in 0..self.nodes.len() {
            report.peaks.push(self.nodes[node].peak);
            if self.nodes[node].up {
                report.at_end.push(self.flows(node));
                report.lines.push(self.nodes[node].lines.len());
                report.sent.push(self.nodes[node].sent);
                report.online += 1;
            }
        }
        report.lines.sort_unstable();
        report.sent.sort_unstable();
        report.undelivered = self.undelivered();
        report
    }

    fn undelivered(&self) -> usize {
        let mut count = 0;
        for (number, members) in self.plan.rooms.iter().enumerate() {
            for (entry, said) in self.said[number].iter().enumerate() {
                if !said.in_run || said.at + 60 * SECOND > self.now {
                    continue;
                }
                let room = number as u32;
                // Only what somebody who is online holds can be had.
                let online = || members.iter().filter(|member| self.nodes[**member].up);
                if !online().any(|member| self.holds(room, *member, entry as u32)) {
                    continue;
                }
                let waits = |member: &&usize| {
                    self.nodes[**member].up_since <= said.at
                        && !self.plan.naive.contains(*member)
                        && !self.holds(room, **member, entry as u32)
                };
                count += online().filter(waits).count();
            }
        }
        count
    }
}

#[cfg(test)]
mod tests;
