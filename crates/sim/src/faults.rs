//! What breaks: each kind of fault has its own gap, and all act on the same world. Only in the safety phase.

use offhook_proto::peer::Input;

use crate::clock::{MILLI, Micros, SECOND};
use crate::host::Mishap;
use crate::scenario::Faults;
use crate::world::{Event, Phase, World};

const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;
/// The longest stall of a line.
const STALL_MAX: Micros = 10 * SECOND;
/// The most writes that a disk still takes before it refuses.
const WRITES_BEFORE_ERROR: u64 = 200;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Cut,
    Stall,
    Partition,
    OneWay,
    Crash,
    DiskError,
    Churn,
    Restore,
    ClockStep,
    NetworkChange,
}

impl Fault {
    const ALL: [Self; 10] = [
        Self::Cut,
        Self::Stall,
        Self::Partition,
        Self::OneWay,
        Self::Crash,
        Self::DiskError,
        Self::Churn,
        Self::Restore,
        Self::ClockStep,
        Self::NetworkChange,
    ];

    fn gap_s(self, faults: &Faults) -> u64 {
        match self {
            Self::Cut => faults.cut_s,
            Self::Stall => faults.stall_s,
            Self::Partition => faults.partition_s,
            Self::OneWay => faults.one_way_s,
            Self::Crash => faults.crash_s,
            Self::DiskError => faults.disk_error_s,
            Self::Churn => faults.churn_s,
            Self::Restore => faults.restore_s,
            Self::ClockStep => faults.clock_step_s,
            Self::NetworkChange => faults.network_change_s,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Cut => "lines cut",
            Self::Stall => "lines stalled",
            Self::Partition => "partitions",
            Self::OneWay => "one-way blocks",
            Self::Crash => "crashes",
            Self::DiskError => "disk errors",
            Self::Churn => "switched off",
            Self::Restore => "homes restored",
            Self::ClockStep => "clock steps",
            Self::NetworkChange => "network changes",
        }
    }
}

impl World<'_> {
    pub(crate) fn begin_faults(&mut self) {
        for fault in Fault::ALL {
            self.schedule_fault(fault);
        }
    }

    fn schedule_fault(&mut self, fault: Fault) {
        let gap_s = fault.gap_s(&self.scenario.faults);
        if gap_s > 0 {
            let wait = self.dice.faults.around(gap_s * SECOND);
            self.after(wait, Event::Fault(fault));
        }
    }

    /// One fault happens, and the next of its kind is set.
    pub(crate) fn fault(&mut self, fault: Fault) {
        if self.phase != Phase::Safety {
            return;
        }
        self.schedule_fault(fault);
        let node = self.dice.faults.index(self.hosts.len());
        self.note(node, format_args!("fault {fault:?}"));
        self.count(fault.name());
        match fault {
            Fault::Cut => self.cut_some_line(),
            Fault::Stall => self.stall_some_line(),
            Fault::Partition => self.fall_apart(),
            Fault::OneWay => {
                let other = self.dice.faults.index(self.hosts.len());
                let cut = self.net.block_one_way(node, other, self.now);
                self.schedule_net(cut);
            }
            Fault::Crash => self.crash(node),
            Fault::DiskError => {
                let writes = self.dice.faults.below(WRITES_BEFORE_ERROR);
                self.hosts[node].disk.fail_after(writes);
            }
            Fault::Churn if self.scenario.faults.away_share > 0.0 => self.come_and_go(),
            Fault::Churn => self.switch_off_for_a_while(node),
            Fault::Restore => self.restore_or_copy(node),
            Fault::ClockStep => self.step_clock(node),
            Fault::NetworkChange => self.give(node, Input::NetworkChanged),
        }
    }

    fn cut_some_line(&mut self) {
        let lines = self.net.working_lines();
        if let Some(line) = self.dice.faults.pick(&lines).copied() {
            let cut = self.net.cut(line, self.now);
            self.schedule_net(cut);
        }
    }

    fn stall_some_line(&mut self) {
        let lines = self.net.working_lines();
        if let Some(line) = self.dice.faults.pick(&lines).copied() {
            let until = self.now + self.dice.faults.below(STALL_MAX);
            self.net.stall(line, until);
        }
    }

    /// Two or three groups, for a while.
    fn fall_apart(&mut self) {
        let count = self.dice.faults.between(2, 3) as usize;
        let mut groups = vec![Vec::new(); count];
        for node in 0..self.hosts.len() {
            groups[self.dice.faults.index(count)].push(node);
        }
        let cut = self.net.partition(&groups, self.now);
        self.schedule_net(cut);
        let lasts = self.dice.faults.around(self.scenario.faults.partition_for_s * SECOND);
        self.after(lasts, Event::PartitionEnds);
    }

    /// Now, or at a chosen point of the next transaction.
    fn crash(&mut self, node: usize) {
        let mishap = match self.dice.faults.below(4) {
            0 => {
                let down_for = self.down_for();
                self.kill(node, down_for);
                return;
            }
            1 => Mishap::InBatch(self.dice.faults.index(3)),
            2 => Mishap::AfterCommit,
            _ => Mishap::InRelease(self.dice.faults.index(4)),
        };
        if self.hosts[node].is_up() {
            self.hosts[node].mishap = Some(mishap);
        }
    }

    fn switch_off_for_a_while(&mut self, node: usize) {
        if self.hosts[node].is_up() {
            let off_for = self.dice.faults.around(self.scenario.faults.off_for_s * SECOND);
            self.kill(node, off_for);
        }
    }

    /// Switches off those who are away.
    pub(crate) fn send_away(&mut self) {
        let share = self.scenario.faults.away_share;
        if share > 0.0 {
            for node in 0..self.hosts.len() {
                if self.dice.faults.chance(share) {
                    self.switch(node, false);
                }
            }
        }
    }

    /// Somebody goes, and somebody else comes.
    fn come_and_go(&mut self) {
        let (away, here): (Vec<usize>, Vec<usize>) = (0..self.hosts.len()).partition(|n| self.hosts[*n].switched_off);
        for (nodes, on) in [(here, false), (away, true)] {
            if let Some(node) = self.dice.faults.pick(&nodes).copied() {
                self.switch(node, on);
            }
        }
    }

    /// Puts an old copy of the home back where there is one; makes one where there is none.
    fn restore_or_copy(&mut self, node: usize) {
        if self.copies.contains_key(&node) {
            self.restore(node);
        } else {
            self.copy_home(node);
        }
    }

    pub(crate) fn copy_home(&mut self, node: usize) {
        let home = self.hosts[node].disk.snapshot();
        self.copies.insert(node, home);
    }

    /// Stops a node, puts the old copy of its home back, tells it so, and starts it again.
    pub(crate) fn restore(&mut self, node: usize) {
        let Some(home) = self.copies.remove(&node) else { return };
        self.kill(node, SECOND);
        self.hosts[node].restore(&home);
        self.model.restored.insert(node);
        self.start(node);
        self.recount_holders(node);
    }

    /// Stops a node, puts the old copy of its home back, and starts it again as if nothing had happened.
    pub(crate) fn put_copy_back(&mut self, node: usize) {
        let Some(home) = self.copies.remove(&node) else { return };
        self.kill(node, SECOND);
        self.hosts[node].disk.restore(&home);
        self.model.copied.insert(node);
        self.start(node);
        self.recount_holders(node);
    }

    /// What a restored home has lost, it no longer holds; what nobody holds any more is destroyed.
    fn recount_holders(&mut self, node: usize) {
        let Some(peer) = &self.hosts[node].peer else { return };
        for (id, post) in &mut self.model.posts {
            if post.holders.contains(&node) && !matches!(peer.entry(*id), Ok(Some(_))) {
                post.holders.remove(&node);
                post.destroyed |= post.holders.is_empty();
            }
        }
    }

    /// Some machines lose their clocks, and begin in 1970 from now on.
    pub(crate) fn lose_clocks(&mut self) {
        for node in 0..self.hosts.len() {
            if self.dice.faults.chance(self.scenario.clocks.at_1970_share) {
                self.hosts[node].wall.set_to_1970(self.now);
                let unix_ms = self.hosts[node].wall.unix_ms(self.now);
                self.give(node, Input::WallClock { unix_ms });
            }
        }
    }

    fn step_clock(&mut self, node: usize) {
        let reach_ms = self.scenario.clocks.step_years * YEAR_MS;
        let dice = &mut self.dice.faults;
        let wall = &mut self.hosts[node].wall;
        match dice.below(4) {
            0 => wall.set_to_1970(self.now),
            1 => wall.offset_ms = 0,
            _ => wall.offset_ms = dice.below(2 * reach_ms + 1) as i64 - reach_ms as i64,
        }
        let unix_ms = wall.unix_ms(self.now);
        self.give(node, Input::WallClock { unix_ms });
    }

    /// Sets a clock off by so much.
    pub(crate) fn set_clock(&mut self, node: usize, off_by_s: i64) {
        self.hosts[node].wall.offset_ms = off_by_s.saturating_mul((SECOND / MILLI) as i64);
        let unix_ms = self.hosts[node].wall.unix_ms(self.now);
        self.give(node, Input::WallClock { unix_ms });
    }
}
