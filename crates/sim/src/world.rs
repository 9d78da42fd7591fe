//! The world: hosts, network, model and the queue of what happens next. One thread, one queue, ties in the order of scheduling.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use offhook_proto::crypto::KeyPair;
use offhook_proto::history::RoomId;
use offhook_proto::identity::{DeviceId, DeviceKey, PersonId, RootKey};
use offhook_proto::peer::view::{EntryView, LineView, Standing};
use offhook_proto::peer::{Event as PeerEvent, Input, Output, Peer, Secrets};
use offhook_proto::store::StoreError;
use offhook_proto::wire::FRAME_BYTES_MAX;

use crate::Progress;
use crate::clock::{MILLI, Micros, Monotonic, SECOND, WallClock};
use crate::dice::Dice;
use crate::disk::{Disk, Tables};
use crate::faults::Fault;
use crate::host::{Fate, Host};
use crate::hostile::Mischief;
use crate::invariants::{self, Invariant, RoomSights, Sight, Violation};
use crate::model::Model;
use crate::net::{NetEvent, Network};
use crate::plant::Plant;
use crate::scenario::{HostileKind, Scenario};
use crate::trace::Trace;
use crate::workload::{Pending, Wish};

/// How often nodes are told the wall time. Days-long scenarios would otherwise consist of little else.
const WALL_TICK: Micros = 5 * SECOND;
const WALL_TICK_LONG: Micros = 60 * SECOND;
/// The relay, where the network has one.
const RELAY: &str = "https://relay.example";
/// Phases longer than this count as long.
const LONG_S: u64 = 10_000;
/// The most outputs of one input.
const OUTPUTS_PER_INPUT_MAX: usize = 4096;
/// The most time-outs of one node in one simulated second.
const TIMEOUTS_PER_SECOND_MAX: u32 = 500;
/// Violations kept; more of them tell nothing new.
pub(crate) const VIOLATIONS_MAX: usize = 40;

/// What happens at a time.
#[derive(Debug)]
pub(crate) enum Event {
    /// A node works off its inbox.
    Work { node: usize, incarnation: u32 },
    /// A node's deadline may be due.
    Timer { node: usize, incarnation: u32 },
    /// A node is told the wall time.
    WallTick { node: usize, incarnation: u32 },
    /// The network does something.
    Net(NetEvent),
    /// A process starts.
    Start { node: usize },
    /// Somebody does something.
    Act,
    /// A client hands a wish to a node.
    Wish(Box<Wish>),
    /// Something breaks.
    Fault(Fault),
    /// A partition made by a fault ends.
    PartitionEnds,
    /// A hostile node does something.
    Mischief { node: usize },
    /// The numbered step of the script is due.
    Step(usize),
    /// Look who has joined, and at some timeline.
    Look,
    /// The safety phase is over.
    Heal,
    /// Look whether everything has come to rest.
    Check,
}

struct Queued {
    at: Micros,
    number: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Where the run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Rooms are made; nothing fails.
    Setup,
    /// Anything may fail.
    Safety,
    /// Everything is healed.
    Liveness { since: Micros },
    /// Over.
    Done { healed_after: Micros },
}

/// Streams of chance, one a concern.
pub(crate) struct Streams {
    pub(crate) work: Dice,
    pub(crate) faults: Dice,
    pub(crate) timing: Dice,
    pub(crate) seeds: Dice,
    pub(crate) mischief: Dice,
}

/// What is counted, for the report.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    pub(crate) events: u64,
    pub(crate) inputs: u64,
    pub(crate) outputs: u64,
    pub(crate) commits: u64,
    pub(crate) acknowledged: u64,
    pub(crate) checks: u64,
    pub(crate) smuggled: u64,
    pub(crate) forged: u64,
    pub(crate) outputs_of_batch_max: usize,
    pub(crate) frame_bytes_max: usize,
    pub(crate) dials_at_once_max: usize,
    pub(crate) store_bytes_max: u64,
    pub(crate) faults: BTreeMap<&'static str, u64>,
    pub(crate) refusals: BTreeMap<String, u64>,
    pub(crate) notices: BTreeMap<String, u64>,
}

pub(crate) struct World<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) plant: Option<Plant>,
    /// A fault that happens once has happened.
    pub(crate) planted: bool,
    pub(crate) clock: Monotonic,
    pub(crate) now: Micros,
    queue: BinaryHeap<Reverse<Queued>>,
    queued: u64,
    pub(crate) phase: Phase,
    pub(crate) hosts: Vec<Host>,
    pub(crate) net: Network,
    pub(crate) model: Model,
    pub(crate) trace: Trace,
    pub(crate) dice: Streams,
    pub(crate) counts: Counts,
    pub(crate) violations: Vec<Violation>,
    /// Commands handed over and not answered.
    pub(crate) pending: BTreeMap<u64, Pending>,
    pub(crate) commands: u64,
    pub(crate) mischief: BTreeMap<usize, Mischief>,
    /// Copies of homes, by node.
    pub(crate) copies: BTreeMap<usize, Tables>,
    /// Homes of those who were to be removed, as they were just before.
    pub(crate) homes_when_removed: BTreeMap<usize, Tables>,
    /// All homes as they were when the safety phase began.
    pub(crate) homes_at_start: BTreeMap<usize, Tables>,
    /// Nodes that run a copy of another's home: the copy and the original.
    pub(crate) twins: BTreeMap<usize, usize>,
    dialling: BTreeMap<usize, BTreeSet<DeviceId>>,
    /// For each node, the second that its time-outs are counted in, and their number.
    timeouts: BTreeMap<usize, (u64, u32)>,
    /// Who sees whom on the local network.
    lan: Vec<Vec<usize>>,
    /// What the script expects, checked at the end.
    pub(crate) expected: Vec<crate::scenario::Action>,
    check_gap: Micros,
    pub(crate) progress: Option<Box<dyn FnMut(Progress)>>,
}

impl<'a> World<'a> {
    pub(crate) fn new(scenario: &'a Scenario, seed: u64, plant: Option<Plant>, trace: Trace) -> Self {
        let mut seeds = Dice::new(seed, "seeds");
        let mut clocks = Dice::new(seed, "clocks");
        let mut hosts: Vec<Host> = (0..scenario.peers)
            .map(|index| Host::new(index, secrets(&mut seeds), Disk::default(), wall(scenario, &mut clocks)))
            .collect();
        let twins = twins(scenario, &mut hosts);
        let devices = hosts.iter().map(Host::device).collect();
        let net = Network::new(scenario.network.clone(), devices, Dice::new(seed, "net"));
        let mut world = Self {
            scenario,
            plant,
            planted: false,
            clock: Monotonic::new(),
            now: 0,
            queue: BinaryHeap::new(),
            queued: 0,
            phase: Phase::Setup,
            net,
            model: Model::default(),
            trace,
            dice: Streams {
                work: Dice::new(seed, "work"),
                faults: Dice::new(seed, "faults"),
                timing: Dice::new(seed, "timing"),
                seeds,
                mischief: Dice::new(seed, "mischief"),
            },
            counts: Counts::default(),
            violations: Vec::new(),
            pending: BTreeMap::new(),
            commands: 0,
            mischief: BTreeMap::new(),
            copies: BTreeMap::new(),
            homes_when_removed: BTreeMap::new(),
            homes_at_start: BTreeMap::new(),
            twins,
            dialling: BTreeMap::new(),
            timeouts: BTreeMap::new(),
            lan: lan(scenario, hosts.len(), &mut Dice::new(seed, "lan")),
            expected: Vec::new(),
            check_gap: SECOND,
            progress: None,
            hosts,
        };
        world.set_up();
        world
    }

    fn set_up(&mut self) {
        self.model.persons = self.hosts.iter().map(Host::person).collect();
        for node in 0..self.hosts.len() {
            let hostility = self.hostility(node);
            if let Some(kind) = hostility {
                self.model.hostile.insert(node);
                self.model.insiders |= kind == HostileKind::Insider;
                self.mischief.insert(node, Mischief::new(kind));
            }
            if self.twins.contains_key(&node) {
                self.hosts[node].switched_off = true;
            } else {
                self.schedule(node as u64 * 10 * MILLI, Event::Start { node });
            }
        }
        if self.plant == Some(Plant::Hoard) {
            self.hosts[1].disk.hoard();
        }
        self.make_rooms();
        self.schedule(SECOND, Event::Look);
    }

    /// How a node means harm; a copy as its original does.
    pub(crate) fn hostility(&self, node: usize) -> Option<HostileKind> {
        self.scenario.hostility(*self.twins.get(&node).unwrap_or(&node))
    }

    pub(crate) fn schedule(&mut self, at: Micros, event: Event) {
        self.queued += 1;
        let number = self.queued;
        let at = at.max(self.now);
        self.queue.push(Reverse(Queued { at, number, event }));
    }

    pub(crate) fn after(&mut self, wait: Micros, event: Event) {
        self.schedule(self.now + wait, event);
    }

    pub(crate) fn schedule_net(&mut self, events: impl IntoIterator<Item = (Micros, NetEvent)>) {
        for (at, event) in events {
            self.schedule(at, Event::Net(event));
        }
    }

    pub(crate) fn note(&mut self, node: usize, what: std::fmt::Arguments<'_>) {
        self.trace.note(self.now, node, what);
    }

    pub(crate) fn violate(&mut self, invariant: Invariant, text: String) {
        let known = self
            .violations
            .iter()
            .any(|v| v.invariant == invariant && v.text == text);
        if self.violations.len() < VIOLATIONS_MAX && !known {
            self.note(0, format_args!("VIOLATION {}: {text}", invariant.words()));
            self.violations.push(Violation::new(invariant, text));
        }
    }

    pub(crate) fn count(&mut self, fault: &'static str) {
        *self.counts.faults.entry(fault).or_default() += 1;
    }

    /// Runs to the end.
    pub(crate) fn run(&mut self) {
        while !matches!(self.phase, Phase::Done { .. }) {
            let Some(Reverse(next)) = self.queue.pop() else {
                self.violate(Invariant::Progress, "nothing is left to happen".to_owned());
                break;
            };
            self.now = next.at;
            self.counts.events += 1;
            self.happen(next.event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Work { node, incarnation } => self.work(node, incarnation),
            Event::Timer { node, incarnation } => self.timer(node, incarnation),
            Event::WallTick { node, incarnation } => self.wall_tick(node, incarnation),
            Event::Net(event) => self.net_event(event),
            Event::Start { node } => self.start(node),
            Event::Act => self.act(),
            Event::Wish(wish) => self.hand_over(*wish),
            Event::Fault(fault) => self.fault(fault),
            Event::PartitionEnds => self.net.heal(),
            Event::Mischief { node } => self.make_mischief(node),
            Event::Step(number) => self.step(number),
            Event::Look => self.look(),
            Event::Heal => self.heal(),
            Event::Check => self.check(),
        }
    }

    // Processes.

    /// Starts a process, if the machine is on.
    pub(crate) fn start(&mut self, node: usize) {
        let seed = self.dice.seeds.bytes();
        let (clock, now) = (self.clock, self.now);
        let host = &mut self.hosts[node];
        if host.switched_off || host.is_up() {
            return;
        }
        match host.open(seed, clock, now) {
            Ok(()) => self.started(node),
            Err(StoreError::Io(_)) => self.after(SECOND, Event::Start { node }),
            Err(error @ StoreError::Damaged(_)) => {
                self.violate(Invariant::Sound, format!("n{node} cannot open its store: {error}"));
            }
        }
    }

    fn started(&mut self, node: usize) {
        self.note(node, format_args!("starts"));
        self.net.node_up(node);
        let incarnation = self.hosts[node].incarnation;
        self.give(
            node,
            Input::WallClock {
                unix_ms: self.hosts[node].wall.unix_ms(self.now),
            },
        );
        let addresses = vec![Network::address(node)];
        let relay = self.scenario.network.relay.then(|| RELAY.to_owned());
        self.give(node, Input::OwnAddresses { addresses, relay });
        self.announce(node);
        self.after(WALL_TICK, Event::WallTick { node, incarnation });
    }

    /// Finds those on the local network that are up, and is found by them.
    pub(crate) fn announce(&mut self, node: usize) {
        for other in self.lan[node].clone() {
            if self.hosts[other].is_up() && !self.net.is_separated(node, other) {
                self.find(node, other);
                self.find(other, node);
            }
        }
    }

    fn find(&mut self, node: usize, found: usize) {
        let peer = self.hosts[found].device();
        let addresses = vec![Network::address(found)];
        self.give(node, Input::Found { peer, addresses });
    }

    /// Ends a process; it starts again after a while, unless it is switched off.
    pub(crate) fn kill(&mut self, node: usize, down_for: Micros) {
        if self.hosts[node].is_up() {
            self.hosts[node].kill();
        }
        self.stopped(node, down_for);
    }

    fn stopped(&mut self, node: usize, down_for: Micros) {
        self.note(node, format_args!("stops"));
        self.dialling.remove(&node);
        let notices = self.net.node_down(node, self.now);
        self.schedule_net(notices);
        self.retry_pending(node, down_for);
        self.after(down_for, Event::Start { node });
    }

    // Inputs and outputs.

    /// Puts an input into a node's inbox; the transaction that takes it up begins a little later.
    pub(crate) fn give(&mut self, node: usize, input: Input) {
        let host = &mut self.hosts[node];
        if !host.is_up() {
            return;
        }
        host.inbox.push_back(input);
        if !host.working {
            host.working = true;
            let incarnation = host.incarnation;
            let commit = self.dice.timing.between(200, 3_000);
            self.after(commit, Event::Work { node, incarnation });
        }
    }

    fn work(&mut self, node: usize, incarnation: u32) {
        let (clock, now) = (self.clock, self.now);
        let host = &mut self.hosts[node];
        host.working = false;
        if !host.is_up() || host.incarnation != incarnation {
            self.work_again(node);
            return;
        }
        let batch = host.take_batch();
        for input in &batch {
            self.trace.input(now, node, input);
        }
        let inputs = batch.len();
        self.counts.inputs += inputs as u64;
        let (outputs, fate) = self.hosts[node].apply(batch, clock, now);
        self.counts.commits += u64::from(fate == Fate::Committed);
        self.check_outputs(node, inputs, &outputs);
        for output in outputs {
            self.release(node, output);
        }
        match fate {
            Fate::Committed => {
                self.work_again(node);
                self.set_timer(node);
            }
            Fate::Died => self.died(node),
            Fate::StoreFailed(StoreError::Io(_)) => {
                self.count("disk refused");
                self.died(node);
            }
            Fate::StoreFailed(error) => {
                self.violate(Invariant::Sound, format!("n{node}: {error}"));
                self.died(node);
            }
        }
    }

    fn died(&mut self, node: usize) {
        let down_for = self.down_for();
        self.stopped(node, down_for);
    }

    pub(crate) fn down_for(&mut self) -> Micros {
        let mean = self.scenario.faults.down_for_s.max(1);
        self.dice.faults.around(mean * SECOND)
    }

    /// More may have come in while a transaction was under way.
    fn work_again(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        if host.is_up() && !host.inbox.is_empty() && !host.working {
            host.working = true;
            let incarnation = host.incarnation;
            let commit = self.dice.timing.between(200, 3_000);
            self.after(commit, Event::Work { node, incarnation });
        }
    }

    fn check_outputs(&mut self, node: usize, inputs: usize, outputs: &[Output]) {
        self.counts.outputs += outputs.len() as u64;
        self.counts.outputs_of_batch_max = self.counts.outputs_of_batch_max.max(outputs.len());
        if outputs.len() > OUTPUTS_PER_INPUT_MAX * inputs {
            let count = outputs.len();
            self.violate(
                Invariant::Bounded,
                format!("n{node}: {count} outputs of {inputs} inputs"),
            );
        }
        let frames = outputs.iter().filter_map(|output| match output {
            Output::Send { bytes, .. } => Some(bytes.len()),
            _ => None,
        });
        let longest = frames.max().unwrap_or(0);
        self.counts.frame_bytes_max = self.counts.frame_bytes_max.max(longest);
        if longest > FRAME_BYTES_MAX {
            self.violate(Invariant::Bounded, format!("n{node}: a frame of {longest} bytes"));
        }
    }

    pub(crate) fn release(&mut self, node: usize, output: Output) {
        self.trace.output(self.now, node, &output);
        match output {
            Output::Reply { id, reply } => self.answered(node, id, reply),
            Output::Send { peer, bytes } => self.send(node, peer, bytes),
            Output::CatchingUp(_) | Output::Announce(_) | Output::Dht(_) => {}
            Output::Dial {
                peer, addresses, relay, ..
            } => {
                let dialling = self.dialling.entry(node).or_default();
                dialling.insert(peer);
                self.counts.dials_at_once_max = self.counts.dials_at_once_max.max(dialling.len());
                let dial = self.net.dial(node, peer, &addresses, relay.as_deref(), self.now);
                self.schedule_net([dial]);
            }
            Output::Close { peer, .. } => {
                let closed = self.net.close(node, peer, self.now);
                self.schedule_net(closed);
            }
            Output::Event(event) => self.peer_event(node, event),
        }
    }

    fn send(&mut self, node: usize, peer: DeviceId, bytes: Vec<u8>) {
        for bytes in self.bend(node, peer, bytes) {
            let sent = self.net.send(node, peer, bytes, self.now);
            self.schedule_net(sent);
        }
    }

    fn peer_event(&mut self, node: usize, event: PeerEvent) {
        match event {
            PeerEvent::Entry { id, new, .. } if new => self.model.holds(node, id),
            PeerEvent::Room { room } => {
                if let Some(room) = self.model.room_of(room) {
                    self.members(node, room);
                }
            }
            PeerEvent::Notice { text, .. } => *self.counts.notices.entry(text).or_default() += 1,
            _ => {}
        }
    }

    /// The members that a node shows, noted as shown.
    pub(crate) fn members(&mut self, node: usize, room: usize) -> BTreeSet<PersonId> {
        let id = self.model.rooms[room].id;
        let peer = self.hosts[node].peer.as_ref();
        let shown = peer.zip(id).and_then(|(peer, id)| peer.members(id).ok().flatten());
        let members = shown.unwrap_or_default().into_iter().map(|m| m.person).collect();
        self.model.members_shown(node, room, &members);
        members
    }

    fn net_event(&mut self, event: NetEvent) {
        match event {
            NetEvent::Arrive { line, end, bytes } => {
                if let Some((node, peer)) = self.net.arrives(line, end) {
                    self.hear(node, peer, &bytes);
                    self.give(node, Input::Frame { peer, bytes });
                }
            }
            NetEvent::Noticed { line, end } => {
                if let Some((node, peer)) = self.net.notice(line, end) {
                    self.give(node, Input::LineDown { peer });
                }
            }
            NetEvent::Dialled { from, to, device } => self.dialled(from, to, device),
        }
    }

    fn dialled(&mut self, from: usize, to: Option<usize>, device: DeviceId) {
        if let Some(dialling) = self.dialling.get_mut(&from) {
            dialling.remove(&device);
        }
        let made = to.and_then(|to| self.net.establish(from, to, self.now).map(|made| (to, made)));
        let Some((to, (_, replaced))) = made else {
            if !self.net.has_good_line(from, device) {
                self.give(from, Input::DialFailed { peer: device });
            }
            return;
        };
        for (_, event) in replaced {
            self.net_event(event);
        }
        let exporter = self.dice.timing.bytes();
        for (node, other) in [(from, to), (to, from)] {
            let address = Some(Network::address(other));
            let peer = self.hosts[other].device();
            self.give(
                node,
                Input::LineUp {
                    peer,
                    exporter,
                    address,
                },
            );
        }
    }

    // Time.

    fn set_timer(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        let Some((deadline, _)) = host.peer.as_ref().and_then(|peer| peer.poll_timeout()) else {
            return;
        };
        let at = self.clock.offset(deadline).max(self.now);
        if host.timer_at.is_none_or(|set| at < set) {
            host.timer_at = Some(at);
            let incarnation = host.incarnation;
            self.schedule(at, Event::Timer { node, incarnation });
        }
    }

    fn timer(&mut self, node: usize, incarnation: u32) {
        let host = &mut self.hosts[node];
        if !host.is_up() || host.incarnation != incarnation || host.timer_at != Some(self.now) {
            return;
        }
        host.timer_at = None;
        let due = host.peer.as_ref().and_then(|peer| peer.poll_timeout());
        match due {
            Some((deadline, reason)) if self.clock.offset(deadline) <= self.now => {
                self.count_timeout(node, reason);
                self.give(node, Input::Timeout);
            }
            _ => self.set_timer(node),
        }
    }

    fn count_timeout(&mut self, node: usize, reason: &'static str) {
        let second = self.now / SECOND;
        let counted = self.timeouts.entry(node).or_default();
        if counted.0 != second {
            *counted = (second, 0);
        }
        counted.1 += 1;
        if counted.1 == TIMEOUTS_PER_SECOND_MAX {
            let most = TIMEOUTS_PER_SECOND_MAX;
            self.violate(
                Invariant::Bounded,
                format!("n{node} times out {most} times in a second: {reason}"),
            );
        }
    }

    fn wall_tick(&mut self, node: usize, incarnation: u32) {
        let host = &self.hosts[node];
        if !host.is_up() || host.incarnation != incarnation {
            return;
        }
        let unix_ms = host.wall.unix_ms(self.now);
        self.give(node, Input::WallClock { unix_ms });
        let long = self.scenario.phases.safety_s > LONG_S && self.phase == Phase::Safety;
        let gap = if long { WALL_TICK_LONG } else { WALL_TICK };
        self.after(gap, Event::WallTick { node, incarnation });
    }

    // Phases and checks.

    /// Looks who has joined; begins the safety phase when all have.
    fn look(&mut self) {
        self.see_who_joined();
        self.tell_progress();
        let all_in = self
            .model
            .rooms
            .iter()
            .all(|room| room.id.is_some() && room.knocking.is_empty());
        let patience = self.scenario.phases.setup_s_max * SECOND;
        match self.phase {
            Phase::Setup if all_in => self.begin_safety(),
            Phase::Setup if self.now > patience => {
                let waiting: Vec<_> = self.model.rooms.iter().map(|room| &room.knocking).collect();
                self.violate(
                    Invariant::Progress,
                    format!("set-up took too long; waiting for {waiting:?}"),
                );
                self.finish(0);
            }
            Phase::Safety => self.check_some_timeline(),
            _ => {}
        }
        let gap = match self.phase {
            Phase::Setup => SECOND / 2,
            _ if self.scenario.phases.safety_s > LONG_S => 600 * SECOND,
            _ => 4 * SECOND,
        };
        self.after(gap, Event::Look);
    }

    fn tell_progress(&mut self) {
        let Some(tell) = &mut self.progress else { return };
        tell(Progress {
            seconds: self.now / SECOND,
            knocking: self.model.rooms.iter().map(|room| room.knocking.len()).sum(),
            events: self.counts.events,
        });
    }

    fn begin_safety(&mut self) {
        self.note(0, format_args!("the safety phase begins"));
        self.phase = Phase::Safety;
        self.lose_clocks();
        self.keep_all_homes();
        self.send_away();
        self.begin_faults();
        self.begin_mischief();
        self.begin_work();
        for (number, step) in self.scenario.step.iter().enumerate() {
            self.after(step.at_s * SECOND, Event::Step(number));
        }
        self.after(self.scenario.phases.safety_s * SECOND, Event::Heal);
    }

    /// Looks at one timeline while everything goes on.
    fn check_some_timeline(&mut self) {
        let node = self.dice.work.index(self.hosts.len());
        let room = self.dice.work.index(self.model.rooms.len());
        if self.model.hostile.contains(&node) {
            return;
        }
        if let Some(sight) = self.sight(node, room) {
            self.counts.checks += 1;
            let found = invariants::check_timeline(room, &sight, &self.model);
            self.take(found);
        }
    }

    fn take(&mut self, found: Vec<Violation>) {
        for violation in found {
            self.violate(violation.invariant, violation.text);
        }
    }

    /// Ends the safety phase: everything works again, and nobody does anything any more.
    fn heal(&mut self) {
        self.note(0, format_args!("everything heals"));
        self.phase = Phase::Liveness { since: self.now };
        self.net.heal();
        for node in 0..self.hosts.len() {
            self.hosts[node].mishap = None;
            self.hosts[node].disk.recover();
            self.hosts[node].switched_off = false;
            if !self.hosts[node].is_up() {
                self.after(MILLI, Event::Start { node });
            } else if !self.scenario.phases.heals_unnoticed {
                self.give(node, Input::NetworkChanged);
                self.announce(node);
            }
        }
        self.plant_at_heal();
        self.after(SECOND, Event::Check);
    }

    /// Ends the run once all have agreed, or when the time for that is over.
    fn check(&mut self) {
        let Phase::Liveness { since } = self.phase else { return };
        let healing = self.now - since;
        self.counts.checks += 1;
        let mut sights = self.sights();
        self.plant_in_sights(&mut sights);
        let history = self.scenario.history;
        let mut open = invariants::check_at_rest(&sights, &self.model, history);
        open.extend(self.check_expected(&sights));
        let have_agreed = open.is_empty() && self.pending.is_empty();
        let most = self.scenario.phases.liveness_s_max * SECOND;
        if have_agreed || healing >= most {
            if !have_agreed {
                let (count, waiting) = (open.len(), self.pending.len());
                let text = format!(
                    "{count} differences and {waiting} unanswered commands after {} s",
                    healing / SECOND
                );
                self.violate(Invariant::Progress, text);
            }
            let mut found = invariants::check_all(&sights, &self.model, history);
            found.extend(self.check_expected(&sights));
            found.extend(self.check_confederates(&sights));
            self.take(found);
            self.check_stores();
            self.finish(healing);
            return;
        }
        self.check_gap += self.check_gap / 2;
        self.after(self.check_gap.min(most - healing), Event::Check);
    }

    /// How every node stands to every room, for the reader of a trace.
    fn note_states(&mut self) {
        for node in 0..self.hosts.len() {
            let peer = self.hosts[node].peer.as_ref();
            let rooms = peer.and_then(|peer| peer.rooms().ok()).unwrap_or_default();
            let lines = self.net.peers_of(node);
            self.note(node, format_args!("ends with lines to {lines:?}"));
            for view in rooms {
                let room = self.model.room_of(view.room);
                self.note(
                    node,
                    format_args!(
                        "ends in room {room:?} {:?} as {:?}: {} members, {} online, {} messages, {} missing, {} sealed",
                        view.standing,
                        view.role,
                        view.members,
                        view.members_online,
                        view.entries,
                        view.missing,
                        view.sealed
                    ),
                );
            }
        }
    }

    fn finish(&mut self, healed_after: Micros) {
        self.note_states();
        self.phase = Phase::Done { healed_after };
    }

    /// Stores grow with what was said, not with what was thrown at them.
    fn check_stores(&mut self) {
        for node in 0..self.hosts.len() {
            let bytes = self.hosts[node].disk.bytes();
            self.counts.store_bytes_max = self.counts.store_bytes_max.max(bytes);
            let bound = self.store_bytes_bound();
            if bytes > bound && !self.model.hostile.contains(&node) {
                self.violate(
                    Invariant::Bounded,
                    format!("n{node} stores {bytes} bytes, more than {bound}"),
                );
            }
        }
    }

    /// A base for each room and member, and so much for each thing said.
    fn store_bytes_bound(&self) -> u64 {
        let rooms = self.model.rooms.len() as u64;
        let peers = self.hosts.len() as u64;
        let said = self.counts.acknowledged + self.counts.forged;
        256 * 1024 + rooms * (64 * 1024 + peers * peers * 512) + said * 4 * 1024
    }

    /// What all nodes show.
    pub(crate) fn sights(&self) -> Vec<RoomSights> {
        let sights = |room| {
            (0..self.hosts.len())
                .filter_map(|node| self.sight(node, room))
                .collect()
        };
        (0..self.model.rooms.len())
            .map(|room| RoomSights {
                room,
                sights: sights(room),
            })
            .collect()
    }

    /// What a node shows of a room, if it is up and has it.
    pub(crate) fn sight(&self, node: usize, room: usize) -> Option<Sight> {
        let host = &self.hosts[node];
        let (peer, id) = (host.peer.as_ref()?, self.model.rooms[room].id?);
        let standing = self.standing(node, room)?;
        let members = peer.members(id).ok()??;
        let shown = peer.room(id).ok()??;
        let mut sight = Sight {
            node,
            person: host.person(),
            standing,
            members: members.into_iter().map(|m| (m.person, m.role)).collect(),
            settings: (shown.name, shown.file_bytes_max),
            lines: Vec::new(),
            places: BTreeMap::new(),
        };
        sight.show(whole_timeline(peer, id)?);
        Some(sight)
    }

    /// How a node stands to a room.
    pub(crate) fn standing(&self, node: usize, room: usize) -> Option<Standing> {
        let id = self.model.rooms[room].id?;
        let view = self.hosts[node].peer.as_ref()?.room(id).ok()??;
        Some(view.standing)
    }
}

/// All entries of a timeline, page by page.
pub(crate) fn whole_timeline(peer: &Peer<Disk>, room: RoomId) -> Option<Vec<EntryView>> {
    let mut pages: Vec<Vec<EntryView>> = Vec::new();
    loop {
        let before = pages.last().map(|page| page[0].id);
        let page = peer.timeline(room, before, usize::MAX).ok()??;
        let entries = page.into_iter().filter_map(|line| match line {
            LineView::Entry(entry) => Some(*entry),
            LineView::Gap { .. } => None,
        });
        let entries: Vec<EntryView> = entries.collect();
        if entries.is_empty() {
            break;
        }
        pages.push(entries);
    }
    Some(pages.into_iter().rev().flatten().collect())
}

fn secrets(dice: &mut Dice) -> Secrets {
    Secrets {
        root: RootKey::random(dice.source()),
        device: DeviceKey(KeyPair::random(dice.source())),
    }
}

fn wall(scenario: &Scenario, dice: &mut Dice) -> WallClock {
    let plan = &scenario.clocks;
    let either_way = |dice: &mut Dice, most: u64| dice.below(2 * most + 1) as i64 - most as i64;
    WallClock {
        offset_ms: either_way(dice, plan.skew_ms),
        drift_ppm: either_way(dice, plan.drift_ppm),
    }
}

/// A host for the second copy of every equivocator's home, behind all others: the copy and the original.
fn twins(scenario: &Scenario, hosts: &mut Vec<Host>) -> BTreeMap<usize, usize> {
    let equivocators = scenario.hostile.iter().filter(|h| h.kind == HostileKind::Equivocate);
    let mut twins = BTreeMap::new();
    for hostile in equivocators {
        let index = hosts.len();
        let original = &hosts[hostile.node];
        let twin = Host::new(index, original.secrets.clone(), Disk::default(), original.wall.clone());
        hosts.push(twin);
        twins.insert(index, hostile.node);
    }
    twins
}

/// Each node and those with the numbers next to it.
fn lan(scenario: &Scenario, nodes: usize, dice: &mut Dice) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..nodes).collect();
    dice.shuffle(&mut order);
    let mut lan = vec![Vec::new(); nodes];
    for (place, node) in order.iter().enumerate() {
        let reach = scenario.network.lan_peers.min(nodes - 1);
        lan[*node] = (1..=reach).map(|step| order[(place + step) % nodes]).collect();
    }
    lan
}
