//! The network between the nodes: dials, and lines that are reliable ordered streams until they break.
//!
//! Lines stand for QUIC connections, so bytes on a line are neither lost singly nor reordered; what goes wrong is what goes wrong
//! with connections: delay and jitter, slow links, stalls, a cut with frames in flight lost and each end noticing at its own
//! time, partitions (whole, or in one direction only), nodes that cannot be dialled. Frames on different lines overtake each other freely.
//! One line for each pair of devices: a new one replaces a broken one, and is refused while a good one is up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use offhook_proto::identity::DeviceId;

use crate::clock::{MILLI, Micros, SECOND};
use crate::dice::Dice;
use crate::scenario::NetworkPlan;

/// Names a line for the length of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LineNo(pub(crate) u64);

/// One of a line's two ends: 0 dialled, 1 was dialled.
pub(crate) type End = usize;

/// What the network does later.
#[derive(Debug)]
pub(crate) enum NetEvent {
    /// A dial has come to its end.
    Dialled {
        from: usize,
        /// The node that answers at the address, if one does.
        to: Option<usize>,
        device: DeviceId,
    },
    /// A frame reaches an end.
    Arrive { line: LineNo, end: End, bytes: Vec<u8> },
    /// An end notices that the line is gone.
    Noticed { line: LineNo, end: End },
}

/// An event and when it happens.
pub(crate) type Scheduled = (Micros, NetEvent);

#[derive(Debug)]
struct Line {
    nodes: [usize; 2],
    /// Which ends still hold it for good.
    held: [bool; 2],
    /// Nothing arrives any more.
    broken: bool,
    latency: Micros,
    bytes_per_second: u64,
    /// For each end that sends: when what was sent so far will have arrived.
    arrived_at: [Micros; 2],
    stalled_until: Micros,
}

/// All lines, and who can reach whom.
#[derive(Debug)]
pub(crate) struct Network {
    plan: NetworkPlan,
    dice: Dice,
    lines: BTreeMap<LineNo, Line>,
    /// The line that a node holds to a device.
    by_device: BTreeMap<(usize, DeviceId), LineNo>,
    devices: Vec<DeviceId>,
    /// Nodes that cannot be dialled except by nodes that can.
    closed: BTreeSet<usize>,
    /// Directed pairs between which nothing passes.
    blocked: BTreeSet<(usize, usize)>,
    up: Vec<bool>,
    lines_made: u64,
    pub(crate) lost_frames: u64,
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    pub(crate) lines_up_max: usize,
}

/// How long an end may take to notice a dead line: QUIC's idle time-out.
const IDLE_TIMEOUT: Micros = 15 * SECOND;

impl Network {
    pub(crate) fn new(plan: NetworkPlan, devices: Vec<DeviceId>, mut dice: Dice) -> Self {
        let nodes = devices.len();
        let closed = (0..nodes).filter(|_| dice.chance(plan.closed_share)).collect();
        Self {
            plan,
            dice,
            lines: BTreeMap::new(),
            by_device: BTreeMap::new(),
            devices,
            closed,
            blocked: BTreeSet::new(),
            up: vec![false; nodes],
            lines_made: 0,
            lost_frames: 0,
            frames: 0,
            bytes: 0,
            lines_up_max: 0,
        }
    }

    /// Where a node listens.
    pub(crate) fn address(node: usize) -> SocketAddr {
        let [_, a, b, c] = (node as u32 + 1).to_be_bytes();
        SocketAddr::from(([10, a, b, c], 4433))
    }

    /// A node has started.
    pub(crate) fn node_up(&mut self, node: usize) {
        self.up[node] = true;
    }

    /// A node is gone: its lines break, and the other ends notice later.
    pub(crate) fn node_down(&mut self, node: usize, now: Micros) -> Vec<Scheduled> {
        self.up[node] = false;
        let mine: Vec<LineNo> = self.lines_of(node).collect();
        let mut events = Vec::new();
        for line in mine {
            self.let_go(line, node);
            events.extend(self.cut(line, now));
        }
        events
    }

    fn lines_of(&self, node: usize) -> impl Iterator<Item = LineNo> + '_ {
        let touches = move |line: &Line| line.nodes.contains(&node);
        self.lines
            .iter()
            .filter(move |(_, line)| touches(line))
            .map(|(no, _)| *no)
    }

    /// All lines that carry something.
    pub(crate) fn working_lines(&self) -> Vec<LineNo> {
        let working = self.lines.iter().filter(|(_, line)| !line.broken);
        working.map(|(no, _)| *no).collect()
    }

    /// The devices to which a node holds lines.
    pub(crate) fn peers_of(&self, node: usize) -> Vec<DeviceId> {
        let mine = (node, DeviceId([0; 32]))..=(node, DeviceId([255; 32]));
        self.by_device.range(mine).map(|((_, device), _)| *device).collect()
    }

    pub(crate) fn device(&self, node: usize) -> DeviceId {
        self.devices[node]
    }

    fn reaches(&self, from: usize, to: usize) -> bool {
        self.up[to] && !self.is_separated(from, to)
    }

    /// Starts a dial. Where no address answers, the relay carries the line, if the dialler knows one.
    pub(crate) fn dial(
        &mut self,
        from: usize,
        device: DeviceId,
        addresses: &[SocketAddr],
        relay: Option<&str>,
        now: Micros,
    ) -> Scheduled {
        let is_there = |node: &usize| *node != from && self.devices[*node] == device && self.reaches(from, *node);
        let answers = |node: &usize| is_there(node) && !(self.closed.contains(node) && self.closed.contains(&from));
        let relayed = || relay.and_then(|_| (0..self.devices.len()).find(is_there));
        let direct = addresses
            .iter()
            .filter_map(node_at)
            .find(|n| *n < self.devices.len() && answers(n));
        let to = direct.or_else(relayed);
        let takes = match to {
            Some(_) => 2 * self.latency(),
            None => self.dice.between(SECOND / 2, 3 * SECOND),
        };
        (now + takes, NetEvent::Dialled { from, to, device })
    }

    fn latency(&mut self) -> Micros {
        let [low, high] = self.plan.latency_ms;
        self.dice.between(low * MILLI, high * MILLI)
    }

    /// Ends a dial. On success, both ends of the new line and the lines that it replaces; `None` means that the dial failed, or that
    /// there is a line already.
    pub(crate) fn establish(&mut self, from: usize, to: usize, now: Micros) -> Option<(LineNo, Vec<Scheduled>)> {
        if !self.up[from] || !self.reaches(from, to) {
            return None;
        }
        let ends = [(from, self.devices[to]), (to, self.devices[from])];
        let old: BTreeSet<LineNo> = ends.iter().filter_map(|end| self.by_device.get(end)).copied().collect();
        if old.iter().any(|line| self.is_good(*line)) {
            return None;
        }
        let mut events = Vec::new();
        for line in old {
            events.extend(self.notice_now(line, now));
        }
        self.lines_made += 1;
        let no = LineNo(self.lines_made);
        let line = Line {
            nodes: [from, to],
            held: [true; 2],
            broken: false,
            latency: self.latency(),
            bytes_per_second: self.bytes_per_second(),
            arrived_at: [now; 2],
            stalled_until: 0,
        };
        self.lines.insert(no, line);
        for end in ends {
            self.by_device.insert(end, no);
        }
        self.lines_up_max = self.lines_up_max.max(self.lines.len());
        Some((no, events))
    }

    /// Whether there is a line to a device that works, as far as the network knows.
    pub(crate) fn has_good_line(&self, from: usize, device: DeviceId) -> bool {
        self.by_device
            .get(&(from, device))
            .is_some_and(|line| self.is_good(*line))
    }

    fn is_good(&self, line: LineNo) -> bool {
        self.lines
            .get(&line)
            .is_some_and(|line| !line.broken && line.held == [true; 2])
    }

    fn bytes_per_second(&mut self) -> u64 {
        if self.dice.chance(self.plan.slow_share) {
            return self.plan.slow_bytes_per_second;
        }
        self.plan.bytes_per_second
    }

    /// Ends that still hold a line notice at once that it is gone.
    fn notice_now(&mut self, line: LineNo, now: Micros) -> Vec<Scheduled> {
        let Some(state) = self.lines.get_mut(&line) else {
            return Vec::new();
        };
        state.broken = true;
        let held = state.held;
        let ends = (0..2).filter(|end| held[*end]);
        ends.map(|end| (now, NetEvent::Noticed { line, end })).collect()
    }

    /// Sends a frame on the line to a device. Lost where there is none.
    pub(crate) fn send(&mut self, from: usize, device: DeviceId, bytes: Vec<u8>, now: Micros) -> Option<Scheduled> {
        self.frames += 1;
        self.bytes += bytes.len() as u64;
        let Some(no) = self.by_device.get(&(from, device)).copied() else {
            self.lost_frames += 1;
            return None;
        };
        let jitter = self.dice.below(self.plan.jitter_ms * MILLI + 1);
        let line = self.lines.get_mut(&no)?;
        let end = usize::from(line.nodes[0] != from);
        if line.broken || !line.held[end] {
            self.lost_frames += 1;
            return None;
        }
        let sending = bytes.len() as u64 * SECOND / line.bytes_per_second.max(1);
        let start = now.max(line.stalled_until);
        let at = (start + line.latency + jitter).max(line.arrived_at[end]) + sending;
        line.arrived_at[end] = at;
        let arrive = NetEvent::Arrive {
            line: no,
            end: 1 - end,
            bytes,
        };
        Some((at, arrive))
    }

    /// Whether a frame that is due at an end does arrive: where from. A frame that meets a partition breaks the line.
    pub(crate) fn arrives(&mut self, line: LineNo, end: End) -> Option<(usize, DeviceId)> {
        let state = self.lines.get_mut(&line)?;
        let (to, from) = (state.nodes[end], state.nodes[1 - end]);
        if self.blocked.contains(&(from, to)) {
            state.broken = true;
        }
        if state.broken || !state.held[end] {
            self.lost_frames += 1;
            return None;
        }
        Some((to, self.devices[from]))
    }

    /// An end notices that its line is gone, if it still held it: which node, and the peer.
    pub(crate) fn notice(&mut self, line: LineNo, end: End) -> Option<(usize, DeviceId)> {
        let state = self.lines.get(&line)?;
        let node = state.nodes[end];
        let device = self.devices[state.nodes[1 - end]];
        let held = state.held[end];
        self.let_go(line, node);
        held.then_some((node, device))
    }

    /// A node no longer holds a line.
    fn let_go(&mut self, no: LineNo, node: usize) {
        let Some(line) = self.lines.get_mut(&no) else { return };
        let end = usize::from(line.nodes[0] != node);
        let (held, nodes) = (std::mem::take(&mut line.held[end]), line.nodes);
        line.broken = true;
        let empty = line.held == [false; 2];
        let device = self.devices[nodes[1 - end]];
        if held && self.by_device.get(&(node, device)) == Some(&no) {
            self.by_device.remove(&(node, device));
        }
        if empty {
            self.lines.remove(&no);
        }
    }

    /// A node closes its line to a device: it is told at once, the other end a little later. What is in flight is lost, as with QUIC.
    pub(crate) fn close(&mut self, node: usize, device: DeviceId, now: Micros) -> Vec<Scheduled> {
        let Some(no) = self.by_device.get(&(node, device)).copied() else {
            return Vec::new();
        };
        let Some(line) = self.lines.get(&no) else {
            return Vec::new();
        };
        let end = usize::from(line.nodes[0] != node);
        let far = now + line.latency;
        let event = |at, end| (at, NetEvent::Noticed { line: no, end });
        vec![event(now, end), event(far, 1 - end)]
    }

    /// Cuts a line: what is in flight is lost, and each end notices in its own time.
    pub(crate) fn cut(&mut self, line: LineNo, now: Micros) -> Vec<Scheduled> {
        let Some(state) = self.lines.get_mut(&line) else {
            return Vec::new();
        };
        state.broken = true;
        let notice = |end| {
            let at = now + self.dice.between(MILLI, IDLE_TIMEOUT);
            (at, NetEvent::Noticed { line, end })
        };
        (0..2).map(notice).collect()
    }

    /// Holds back everything that is sent on a line from now on, until a time. Nothing is lost.
    pub(crate) fn stall(&mut self, line: LineNo, until: Micros) {
        if let Some(line) = self.lines.get_mut(&line) {
            line.stalled_until = until;
        }
    }

    /// Blocks everything between different groups; a node in no group is a group of its own.
    pub(crate) fn partition(&mut self, groups: &[Vec<usize>], now: Micros) -> Vec<Scheduled> {
        let nodes = self.devices.len();
        let group = |node: usize| {
            groups
                .iter()
                .position(|g| g.contains(&node))
                .unwrap_or(groups.len() + node)
        };
        self.blocked = (0..nodes)
            .flat_map(|a| (0..nodes).map(move |b| (a, b)))
            .filter(|(a, b)| group(*a) != group(*b))
            .collect();
        self.cut_blocked(now)
    }

    /// Blocks one direction only.
    pub(crate) fn block_one_way(&mut self, from: usize, to: usize, now: Micros) -> Vec<Scheduled> {
        self.blocked.insert((from, to));
        self.cut_blocked(now)
    }

    fn cut_blocked(&mut self, now: Micros) -> Vec<Scheduled> {
        let crosses = |line: &Line| {
            let [a, b] = line.nodes;
            self.blocked.contains(&(a, b)) || self.blocked.contains(&(b, a))
        };
        let crossing = self.lines.iter().filter(|(_, line)| crosses(line));
        let crossing: Vec<LineNo> = crossing.map(|(no, _)| *no).collect();
        crossing.into_iter().flat_map(|line| self.cut(line, now)).collect()
    }

    /// Everybody reaches everybody again, except for what no network allows.
    pub(crate) fn heal(&mut self) {
        self.blocked.clear();
        for line in self.lines.values_mut() {
            line.stalled_until = 0;
        }
    }

    /// Whether a partition stands between two nodes, in either direction.
    pub(crate) fn is_separated(&self, a: usize, b: usize) -> bool {
        self.blocked.contains(&(a, b)) || self.blocked.contains(&(b, a))
    }
}

/// The node that listens at an address.
fn node_at(address: &SocketAddr) -> Option<usize> {
    let SocketAddr::V4(address) = address else { return None };
    let number = u32::from_be_bytes(address.ip().octets()) & 0x00ff_ffff;
    (number as usize).checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        let devices = (1..=3).map(|n| DeviceId([n; 32])).collect();
        let mut net = Network::new(NetworkPlan::default(), devices, Dice::new(1, "net"));
        (0..3).for_each(|node| net.node_up(node));
        net
    }

    fn dial(net: &mut Network, from: usize, to: usize) -> Option<LineNo> {
        let device = net.device(to);
        let (_, event) = net.dial(from, device, &[Network::address(to)], None, 0);
        let NetEvent::Dialled { to, .. } = event else {
            unreachable!()
        };
        to.and_then(|to| net.establish(from, to, 0)).map(|(line, _)| line)
    }

    #[test]
    fn frames_on_a_line_stay_in_order() {
        let mut net = network();
        let line = dial(&mut net, 0, 1).unwrap();
        let device = net.device(1);
        let mut times = Vec::new();
        for i in 0..100 {
            times.push(net.send(0, device, vec![0; 10], i * 10).unwrap().0);
        }
        assert!(times.is_sorted());
        assert_eq!(net.arrives(line, 1), Some((1, net.device(0))));
    }

    #[test]
    fn one_good_line_for_each_pair() {
        let mut net = network();
        let line = dial(&mut net, 0, 1).unwrap();
        assert_eq!(dial(&mut net, 1, 0), None);
        let notices = net.cut(line, 0);
        assert_eq!(notices.len(), 2);
        let newer = dial(&mut net, 1, 0).unwrap();
        assert_ne!(line, newer);
        assert_eq!(net.notice(line, 0).map(|(node, _)| node), Some(0));
        assert!(
            net.has_good_line(0, net.device(1)),
            "the old line's end must not take the new line with it"
        );
    }

    #[test]
    fn partitions_cut_lines_and_stop_dials() {
        let mut net = network();
        let line = dial(&mut net, 0, 1).unwrap();
        let _ = net.partition(&[vec![0, 2], vec![1]], 0);
        assert_eq!(net.arrives(line, 1), None);
        assert_eq!(dial(&mut net, 0, 1), None);
        assert!(dial(&mut net, 0, 2).is_some());
        net.heal();
        assert!(dial(&mut net, 1, 0).is_some());
    }

    #[test]
    fn a_node_that_went_down_holds_no_lines() {
        let mut net = network();
        let line = dial(&mut net, 0, 1).unwrap();
        let events = net.node_down(0, 0);
        assert!(!events.is_empty());
        assert_eq!(net.peers_of(0), []);
        assert_eq!(net.notice(line, 1), Some((1, net.device(0))));
        assert!(net.lines.is_empty());
        assert_eq!(dial(&mut net, 1, 0), None);
    }
}
