//! The overlay alone, by the thousand: the real flow ledger and line plan over rooms whose entries are numbers.
//!
//! What stands in: sealing, signatures and stores (an entry is a number, a log a set of them), frames (an entry crosses a line in one latency where it is pushed, in three where it is
//! announced, wanted and sent; two ends of a new line are in step after four), NAT traversal (a share of the pairs reaches each other through a relay only) and the directory (members' addresses
//! are known, a good one among dead ones). What is real: [`Planner`] and [`FlowLedger`], driven as the node drives them.
//!
//! The gateway of every node counts flows by the rules of a NAT (30 s unanswered, 120 s answered), from what was sent, and knows nothing of the ledger: that count is what is reported.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;

use offhook_proto::identity::DeviceId;
use offhook_proto::overlay::ledger::{Answer, Ask, FlowLedger, Kind, Limits, To};
use offhook_proto::overlay::plan::{Line as PlanLine, Peer, Planner, Reason, Room, Sight};

use crate::clock::{MILLI, Micros, Monotonic, SECOND};
use crate::dice::Dice;

/// How long a dial to nobody takes.
const DIAL_TIMEOUT: Micros = 10 * SECOND;
/// A dial that waits for a flow is given up after this, as the peer does it; the plan may want it again.
const WAIT_TIMEOUT: Micros = 20 * SECOND;
/// What is new is collected for so long before it is announced.
const ANNOUNCE: Micros = 150 * MILLI;
/// Lines that are accepted.
const ACCEPTED_MAX: usize = 128;
/// How long NATs remember.
const NAT_UNANSWERED: Micros = 30 * SECOND;
const NAT_ANSWERED: Micros = 120 * SECOND;

/// What a run consists of.
#[derive(Debug, Clone)]
pub struct CrowdPlan {
    /// Members of each room, by node.
    pub rooms: Vec<Vec<usize>>,
    /// How many nodes there are.
    pub nodes: usize,
    /// The share that is online at the start, and on average.
    pub online: f64,
    /// Nodes that are offline at the start, whatever the share, and come online at `arrive_s`.
    pub arriving: BTreeSet<usize>,
    /// When they do.
    pub arrive_s: u64,
    /// How long a run is.
    pub run_s: u64,
    /// How many entries a minute everybody together says.
    pub says_per_minute: u64,
    /// Nothing is said after this.
    pub quiet_after_s: u64,
    /// Entries that were said before the arriving come online, spread over the rooms of the first of them.
    pub missed: usize,
    /// The mean time that a node stays on (and off, in proportion); 0 for no churn.
    pub session_s: u64,
    /// One-way latency.
    pub latency_ms: [u64; 2],
    /// The share of pairs that reach each other through a relay only.
    pub relayed: f64,
    /// Relays that nodes have as their home.
    pub relays: usize,
    /// Nodes that dial every member of every room at all addresses, without a ledger.
    pub naive: BTreeSet<usize>,
    /// When all nodes are restarted at once; none if 0.
    pub mass_restart_s: u64,
    /// The share of all nodes that fails at `fail_s`: the busiest.
    pub helpers_fail: f64,
    /// When they do.
    pub fail_s: u64,
}

impl CrowdPlan {
    /// A crowd of `nodes` with rooms drawn as [`drawn_rooms`] says.
    pub fn drawn(nodes: usize, seed: u64) -> Self {
        Self {
            rooms: drawn_rooms(nodes, seed),
            nodes,
            online: 0.3,
            arriving: BTreeSet::new(),
            arrive_s: 0,
            run_s: 1_200,
            says_per_minute: nodes as u64 / 20,
            quiet_after_s: u64::MAX / SECOND,
            missed: 0,
            session_s: 0,
            latency_ms: [10, 80],
            relayed: 0.15,
            relays: 4,
            naive: BTreeSet::new(),
            mass_restart_s: 0,
            helpers_fail: 0.0,
            fail_s: 0,
        }
    }

    /// The hotel: node 0 is a guest with 76 rooms and 625 memberships of 255 others. 15 rooms of two, 20 rooms of which no member is in another, 41 whose
    /// members come from the same 120. Everybody is online; the guest comes online after 60 s, when 1,000 entries were said.
    pub fn hotel(seed: u64) -> Self {
        let mut dice = Dice::new(seed, "hotel");
        let mut rooms: Vec<Vec<usize>> = (0..15).map(|n| vec![0, 1 + n]).collect();
        rooms.extend((0..20).map(|n| (0..=6).map(|m| if m == 0 { 0 } else { 15 + 6 * n + m }).collect()));
        for n in 0..41 {
            let others = if n < 39 { 12 } else { 11 };
            let mut members = BTreeSet::from([0]);
            while members.len() < 1 + others {
                members.insert(136 + dice.index(120));
            }
            rooms.push(members.into_iter().collect());
        }
        Self {
            rooms,
            online: 1.0,
            arriving: BTreeSet::from([0]),
            arrive_s: 60,
            run_s: 60 + 900,
            says_per_minute: 30,
            quiet_after_s: 60 + 300,
            missed: 1_000,
            latency_ms: [40, 40],
            relayed: 0.0,
            relays: 0,
            ..Self::drawn(256, seed)
        }
    }
}

/// Rooms of 2 to 200 members: a third of them rooms of two, the others with sizes of which the share above `s` falls with `s` to the power of -1.2. One node of a hundred is in 76 rooms, the others in 2 and a
/// geometric number with mean 5 more.
pub fn drawn_rooms(nodes: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut dice = Dice::new(seed, "rooms");
    let mut seats = Vec::new();
    for node in 0..nodes {
        let mut wanted = 2;
        while dice.chance(5.0 / 6.0) && wanted < 40 {
            wanted += 1;
        }
        let wanted = if dice.chance(0.01) { 76 } else { wanted };
        seats.extend(std::iter::repeat_n(node, wanted));
    }
    dice.shuffle(&mut seats);
    let mut rooms = Vec::new();
    let mut rest = &seats[..];
    while rest.len() >= 2 {
        let size = match dice.chance(0.33) {
            true => 2,
            false => {
                let share = (dice.below(1_000_000) + 1) as f64 / 1_000_000.0;
                (3.0 * share.powf(-1.0 / 1.2)).clamp(3.0, 200.0) as usize
            }
        };
        let (taken, left) = rest.split_at(size.min(rest.len()).min(nodes));
        let members: BTreeSet<usize> = taken.iter().copied().collect();
        if members.len() >= 2 {
            rooms.push(members.into_iter().collect());
        }
        rest = left;
    }
    rooms
}

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
            Event::Dialled { from, to, number, way } => self.dialled(from, to, number, way),
            Event::InStep { a, b, number } => self.in_step(a, b, number),
            Event::Deliver { from, to, room, entry } => self.deliver(from, to, room, entry),
            Event::Say => self.say(),
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
        let state = &mut self.nodes[node];
        (state.up, state.up_since) = (true, self.now);
        state.planner = Planner::new(Limits::default());
        // What the gateway remembers of the time before is not known to a new process: it is counted all the same.
        state.ledger = FlowLedger::new(Limits::default());
        state.sight = sight;
        state.waiting.clear();
        state.relays.clear();
        if self.plan.relays > 0 {
            let home = To::Tcp(format!("relay {}", node % self.plan.relays));
            state.ledger.hold(home.clone(), Kind::Relay, "the home relay", now);
            state.gateway.insert(home, (Micros::MAX / 2, true));
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
            };
            sight.rooms.insert(number, room);
            for member in members.iter().filter(|member| **member != node) {
                let peer = sight.peers.entry(device(*member)).or_insert_with(|| Peer {
                    rooms: BTreeSet::new(),
                    line: None,
                    is_dialling: false,
                    due: Some(now),
                    failures: 0,
                    address: Some(address(*member)),
                    is_near: false,
                    seen_ms: 0,
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
        self.nodes[node].up = false;
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
        let ask = Ask {
            peer: device(to),
            to: tried,
            urgency: reason.urgency(is_first),
            reason: reason.words(),
        };
        if let Some(peer) = state.sight.peers.get_mut(&device(to)) {
            peer.is_dialling = true;
        }
        match state.ledger.ask(ask, now) {
            Answer::Go(granted) => self.start_dial(from, to, granted),
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

    /// As the peer does it: the one that worked, else the next two.
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
        let mut tried: Vec<To> = match peer.seen_ms > 0 && peer.failures == 0 {
            true => vec![To::Udp(all[0])],
            false => {
                let skip = 2 * peer.failures as usize % all.len();
                all.into_iter().cycle().skip(skip).take(2).map(To::Udp).collect()
            }
        };
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

    fn start_dial(&mut self, from: usize, to: usize, granted: Vec<To>) {
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
        let takes = if way.is_some() { 3 * latency } else { DIAL_TIMEOUT };
        self.numbers += 1;
        let number = self.nodes[from].up_since;
        self.after(takes, Event::Dialled { from, to, number, way });
    }

    fn latency(&mut self) -> Micros {
        let [low, high] = self.plan.latency_ms;
        self.dice.between(low * MILLI, high * MILLI)
    }

    fn dial_failed(&mut self, from: usize, to: usize) {
        let now = self.clock.at(self.now);
        let spread = self.dice.below(1_000_000) as f64 / 1_000_000.0;
        if let Some(peer) = self.nodes[from].sight.peers.get_mut(&device(to)) {
            peer.is_dialling = false;
            peer.failures += 1;
            let ceiling_ms = (500u64 << peer.failures.min(7)).min(60_000);
            let wait_ms = 250 + (ceiling_ms as f64 * spread) as u64;
            peer.due = Some(now + std::time::Duration::from_millis(wait_ms));
        }
        self.want_plan(from, 20 * MILLI);
    }

    fn dialled(&mut self, from: usize, to: usize, number: u64, way: Option<Way>) {
        let now = self.clock.at(self.now);
        if !self.nodes[from].up || self.nodes[from].up_since != number {
            return;
        }
        self.touch(from);
        self.touch(to);
        self.nodes[from].ledger.dial_ended(device(to));
        if self.lines.contains_key(&pair(from, to)) {
            if let Some(peer) = self.nodes[from].sight.peers.get_mut(&device(to)) {
                peer.is_dialling = false;
            }
            self.let_relay_go(from, to);
            return;
        }
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
            self.let_relay_go(from, to);
            self.dial_failed(from, to);
            return;
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
                (peer.is_dialling, peer.failures, peer.seen_ms) = (false, 0, peer.seen_ms.max(1) + self.now / MILLI);
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
        self.let_relay_go(line.dialler, if line.dialler == here { there } else { here });
    }

    /// A peer's relay is let go of when no line or dial of this node uses it.
    fn let_relay_go(&mut self, from: usize, to: usize) {
        if self.plan.relays == 0 || !self.is_relayed(from, to) {
            return;
        }
        let relay = to % self.plan.relays;
        let now = self.clock.at(self.now);
        let state = &mut self.nodes[from];
        let Some(uses) = state.relays.get_mut(&relay) else {
            return;
        };
        *uses = uses.saturating_sub(1);
        if *uses == 0 && relay != from % self.plan.relays {
            let at = To::Tcp(format!("relay {relay}"));
            state.ledger.release(&at, now);
            state.gateway.insert(at, (self.now, true));
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
        for (peer, granted) in state.ledger.poll(now) {
            let to = node_of(&peer);
            if self.nodes[node].waiting.remove(&to).is_some() {
                self.start_dial(node, to, granted);
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

    // Entries.

    fn place(&self, room: u32, node: usize) -> Option<usize> {
        self.plan.rooms[room as usize].binary_search(&node).ok()
    }

    fn holds(&self, room: u32, node: usize, entry: u32) -> bool {
        let Some(place) = self.place(room, node) else {
            return true;
        };
        let words = &self.held[room as usize][place];
        words
            .get(entry as usize / 64)
            .is_some_and(|word| word >> (entry % 64) & 1 == 1)
    }

    fn take(&mut self, room: u32, node: usize, entry: u32) {
        let Some(place) = self.place(room, node) else { return };
        let words = &mut self.held[room as usize][place];
        let word = entry as usize / 64;
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        words[word] |= 1 << (entry % 64);
    }

    fn say(&mut self) {
        let gap = 60 * SECOND / self.plan.says_per_minute.max(1);
        if self.now < self.plan.quiet_after_s * SECOND {
            let wait = self.dice.around(gap);
            self.after(wait, Event::Say);
        } else {
            return;
        }
        let node = self.dice.index(self.plan.nodes);
        if !self.nodes[node].up || self.rooms_of[node].is_empty() || self.plan.naive.contains(&node) {
            return;
        }
        let room = self.rooms_of[node][self.dice.index(self.rooms_of[node].len())];
        let entry = self.said[room as usize].len() as u32;
        self.said[room as usize].push(Said {
            at: self.now,
            in_run: true,
        });
        self.take(room, node, entry);
        self.spoken(node, room);
        let carried = self.neighbours(node, room);
        let now = self.clock.at(self.now);
        if carried.is_empty() {
            let state = &mut self.nodes[node];
            if let Some(room) = state.sight.rooms.get_mut(&room) {
                room.is_urgent = true;
            }
            for peer in state.sight.peers.values_mut() {
                if peer.rooms.contains(&room) && peer.failures == 0 {
                    peer.due = Some(now);
                }
            }
        }
        for other in carried {
            let latency = self.lines[&pair(node, other)].latency;
            self.after(
                latency,
                Event::Deliver {
                    from: node,
                    to: other,
                    room,
                    entry,
                },
            );
        }
        self.want_plan(node, MILLI);
    }

    /// Entries that the others have said among themselves, and all hold.
    fn say_what_was_missed(&mut self, node: usize) {
        let rooms = self.rooms_of[node].clone();
        for number in 0..self.plan.missed {
            let room = rooms[number % rooms.len()];
            let entry = self.said[room as usize].len() as u32;
            self.said[room as usize].push(Said {
                at: self.now,
                in_run: false,
            });
            for member in self.plan.rooms[room as usize].clone() {
                if member != node {
                    self.take(room, member, entry);
                }
            }
        }
        self.missing = rooms
            .iter()
            .map(|room| {
                (0..self.said[*room as usize].len() as u32)
                    .filter(|entry| !self.holds(*room, node, *entry))
                    .count()
            })
            .sum();
    }

    /// Lines of a node to members of a room.
    fn neighbours(&self, node: usize, room: u32) -> Vec<usize> {
        let lines = self.nodes[node].lines.iter().copied();
        lines.filter(|other| self.place(room, *other).is_some()).collect()
    }

    fn spoken(&mut self, node: usize, room: u32) {
        let now = self.clock.at(self.now);
        let state = &mut self.nodes[node];
        if !state.planner.has_visited(room) {
            return;
        }
        let said = state.sight.rooms.get_mut(&room).map(|room| room.spoken.replace(now));
        let was_active = said
            .flatten()
            .is_some_and(|at| now.saturating_duration_since(at).as_secs() < 60);
        if !was_active {
            self.want_plan(node, 50 * MILLI);
        }
    }

    fn frame(&mut self, node: usize, other: usize) {
        let now = self.clock.at(self.now);
        let peer = self.nodes[node].sight.peers.get_mut(&device(other));
        if let Some(line) = peer.and_then(|peer| peer.line.as_mut()) {
            line.last_frame = now;
        }
    }

    fn deliver(&mut self, from: usize, to: usize, room: u32, entry: u32) {
        if !self.lines.contains_key(&pair(from, to)) {
            return;
        }
        self.frame(from, to);
        self.frame(to, from);
        self.nodes[from].sent += 1;
        if self.holds(room, to, entry) {
            return;
        }
        self.receive(to, room, entry);
        self.spoken(to, room);
        self.hand_on(to, from, room, entry);
    }

    fn receive(&mut self, node: usize, room: u32, entry: u32) {
        self.take(room, node, entry);
        let said = self.said[room as usize][entry as usize];
        let state = &self.nodes[node];
        if said.in_run && state.up_since <= said.at {
            self.report.delays_ms.push((self.now - said.at) / MILLI);
        }
        self.report.deliveries += usize::from(said.in_run);
        if self.plan.arriving.iter().next() == Some(&node) && said.at <= state.up_since {
            self.missing = self.missing.saturating_sub(1);
            if self.missing == 0 {
                self.report.caught_up_ms = Some((self.now - state.up_since) / MILLI);
            }
        }
    }

    /// Announced, wanted, sent.
    fn hand_on(&mut self, node: usize, from: usize, room: u32, entry: u32) {
        for other in self.neighbours(node, room) {
            if other != from && !self.holds(room, other, entry) {
                let latency = self.lines[&pair(node, other)].latency;
                self.after(
                    ANNOUNCE + 3 * latency,
                    Event::Deliver {
                        from: node,
                        to: other,
                        room,
                        entry,
                    },
                );
            }
        }
    }

    /// Both ends have said what they hold, and sent what the other lacks.
    fn in_step(&mut self, a: usize, b: usize, number: u64) {
        if self.lines.get(&pair(a, b)).is_none_or(|line| line.number != number) {
            return;
        }
        let now = self.clock.at(self.now);
        for (here, there) in [(a, b), (b, a)] {
            let Some(peer) = self.nodes[here].sight.peers.get_mut(&device(there)) else {
                continue;
            };
            if let Some(line) = &mut peer.line {
                (line.is_busy, line.last_frame) = (false, now);
            }
            for room in peer.rooms.clone() {
                for entry in 0..self.said[room as usize].len() as u32 {
                    if self.holds(room, there, entry) && !self.holds(room, here, entry) {
                        self.nodes[there].sent += 1;
                        self.receive(here, room, entry);
                        self.hand_on(here, there, room, entry);
                    }
                }
            }
            self.want_plan(here, SECOND + 10 * MILLI);
        }
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
        let flows = self.flows(node);
        let now = self.clock.at(self.now);
        let state = &mut self.nodes[node];
        state.peak = state.peak.max(flows);
        if !self.plan.naive.contains(&node) && state.up {
            let counted = state.ledger.in_use(now);
            // Lines keep their flows in use; those are told to the ledger when it is asked next.
            self.report.ledger_below = self
                .report
                .ledger_below
                .max(flows.saturating_sub(counted + state.lines.len()));
        }
    }

    fn sample(&mut self) {
        let watched = self.plan.arriving.iter().next().copied().unwrap_or(0);
        self.touch(watched);
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
mod tests {
    use super::*;

    #[test]
    fn the_hotel_guest_stays_below_the_cap_and_has_everything() {
        let plan = CrowdPlan::hotel(1);
        let others: usize = plan.rooms.iter().map(|members| members.len() - 1).sum();
        assert_eq!((plan.rooms.len(), others), (76, 625));
        let report = run_crowd(&plan, 1);
        assert!(
            report.peaks[0] <= 60,
            "{} flows at the guest's gateway",
            report.peaks[0]
        );
        // The goal is 10 s; a dial to dead addresses takes as long as that alone. `docs/scale.md` has the figure.
        assert!(
            report.caught_up_ms.is_some_and(|ms| ms <= 20_000),
            "{:?}",
            report.caught_up_ms
        );
        let rest: Vec<usize> = report
            .series
            .iter()
            .filter(|(at, ..)| *at >= 60 + 300 + 300)
            .map(|(.., flows)| *flows)
            .collect();
        let most = rest.iter().max().copied().unwrap_or(usize::MAX);
        assert!(most <= 20, "{most} flows five minutes after the last word");
        assert_eq!(report.undelivered, 0);
        assert_eq!(report.ledger_below, 0);
    }

    #[test]
    fn a_client_that_knows_of_no_flows_is_the_control() {
        let mut plan = CrowdPlan::hotel(1);
        plan.naive.insert(0);
        plan.run_s = 90;
        let report = run_crowd(&plan, 1);
        assert!(
            report.peaks[0] > 200,
            "the check must be able to fail: {}",
            report.peaks[0]
        );
    }

    #[test]
    fn the_same_seed_gives_the_same_run() {
        let mut plan = CrowdPlan::drawn(200, 3);
        plan.run_s = 180;
        let (a, b) = (run_crowd(&plan, 5), run_crowd(&plan, 5));
        assert_eq!((a.peaks, a.delays_ms, a.plans), (b.peaks, b.delays_ms, b.plans));
    }

    #[test]
    fn a_crowd_with_churn_stays_below_the_cap_and_delivers() {
        let mut plan = CrowdPlan::drawn(300, 2);
        plan.session_s = 1_800;
        plan.run_s = 900;
        let report = run_crowd(&plan, 2);
        assert!(
            report.peaks.iter().all(|peak| *peak <= 60),
            "{:?}",
            report.peaks.iter().max()
        );
        assert!(!report.delays_ms.is_empty());
    }
}
