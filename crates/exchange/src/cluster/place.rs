//! Who stands by for whom, decided alike by every instance; and handing over, back and away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use offhook_exchange_proto::Input;
use offhook_exchange_proto::detector::{NodeId, Timing};
use offhook_exchange_proto::locator::{Role, Shard, Standing};

use super::detector::{Command, Join};
use super::lease::{Lease, clock};
use super::standby::Held;
use super::{Instance, TICK, listen_to, live_subject};
use crate::Error;
use crate::driver::Order;

/// Heartbeats missed before a claim by one that has just spoken itself.
const MISSES_OWNER: u64 = 150;
/// How long the first instance of a shard must hold it completely before it gets it back.
const RETURN_AFTER: Duration = Duration::from_secs(10);
/// How long a stopping instance waits for its calls when nobody stands by.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// How long it stays after it has handed over, so that what is under way gets out.
const LINGER: Duration = Duration::from_millis(500);

impl Instance {
    /// Decides for whom to stand by, and tells owners and detector who is who.
    pub(super) fn place(&mut self) {
        let now = clock();
        let addresses = self
            .locator
            .all(now)
            .map(|(hello, _)| (hello.node, hello.detector))
            .collect();
        self.tell_detector(Command::Addresses(addresses));
        let mut shards = self.locator.shards();
        for own in self.own.values() {
            shards.insert(own.shard.id, (own.shard, self.node));
        }
        for (id, (shard, owner)) in &shards {
            if *owner == self.node || self.absorbed.contains_key(id) {
                continue;
            }
            let alive = self.locator.alive(now).any(|hello| hello.node == *owner);
            let standing = self
                .standbys(shard, *owner)
                .into_iter()
                .find(|(node, _)| *node == self.node);
            match standing {
                // Lost before we had it: begin anew.
                _ if *id == self.node && !alive && self.held.get(id).is_some_and(|held| !held.is_complete()) => {
                    self.let_go(*id);
                }
                Some((_, standing)) => self.hold(*shard, *owner, standing),
                None if alive => self.let_go(*id),
                // Gone without a successor so far: whoever held it still does.
                None => {}
            }
        }
        self.place_own();
        self.place_held();
    }

    /// We know ourselves without hearing ourselves.
    pub(super) fn standbys(&self, shard: &Shard, owner: NodeId) -> Vec<(NodeId, Standing)> {
        let mut locator = self.locator.clone();
        locator.heard(self.hello(), clock());
        locator.standbys(shard, owner, clock())
    }

    pub(super) fn hold(&mut self, shard: Shard, owner: NodeId, standing: Standing) {
        if !self.cluster.roles.contains(&Role::Standby) || self.leaving || self.own.contains_key(&shard.id) {
            return;
        }
        let same = self.held.get(&shard.id).is_some_and(|held| held.standing == standing);
        if !same {
            let lease = if shard.id == self.node {
                self.home_lease.clone()
            } else {
                Arc::new(Lease::none())
            };
            let held = Held::new(shard, owner, standing, lease.clone());
            let progress = held.progress.clone();
            self.held.insert(shard.id, held);
            let listener = listen_to(self.engine.clone(), live_subject(shard.id), self.messages_in.clone());
            if let Some(old) = self.listeners.insert(shard.id, tokio::spawn(listener)) {
                old.abort();
            }
            self.joined.insert(shard.id);
            self.tell_detector(Command::Join(Join {
                shard: shard.id,
                home: false,
                misses: misses_of(standing == Standing::Near),
                lease,
                progress,
            }));
        }
        if let Some(held) = self.held.get_mut(&shard.id) {
            held.owner = owner;
            held.shard = shard;
        }
    }

    pub(super) fn let_go(&mut self, shard: NodeId) {
        if self.held.remove(&shard).is_some() {
            self.stop_listening(shard);
            self.joined.remove(&shard);
            self.tell_detector(Command::Leave(shard));
        }
    }

    pub(super) fn stop_listening(&mut self, shard: NodeId) {
        if let Some(listener) = self.listeners.remove(&shard) {
            listener.abort();
        }
    }

    pub(super) fn place_own(&mut self) {
        // Also who has not been heard of lately: that may be the engine's fault, and heartbeats do not need it.
        let everyone: Vec<NodeId> = self.locator.all(clock()).map(|(hello, _)| hello.node).collect();
        for own in self.own.values() {
            let standbys = self.standbys(&own.shard, self.node);
            let nodes: Vec<NodeId> = standbys.iter().map(|(node, _)| *node).collect();
            let _ = own
                .orders
                .send(Order::Standbys(if self.cluster.replicate { nodes } else { Vec::new() }));
            self.tell_detector(Command::Adjust {
                shard: own.shard.id,
                misses: MISSES_OWNER,
                peers: everyone.clone(),
            });
        }
        for shard in self.absorbed.keys() {
            self.tell_detector(Command::Adjust {
                shard: *shard,
                misses: MISSES_OWNER,
                peers: everyone.clone(),
            });
        }
    }

    /// Asks for everything where something lacks and nothing comes.
    pub(super) fn ask_where_stuck(&mut self) {
        let stuck = self
            .held
            .iter_mut()
            .filter_map(|(id, held)| held.is_stuck().then_some(*id));
        for shard in stuck.collect::<Vec<_>>() {
            self.ask_whole(shard);
        }
    }

    fn place_held(&mut self) {
        for (id, held) in &self.held {
            let first = self.standbys(&held.shard, held.owner).first().map(|(node, _)| *node) == Some(self.node);
            self.tell_detector(Command::Adjust {
                shard: *id,
                misses: misses_of(first),
                peers: Vec::new(),
            });
        }
    }

    /// Gives shards back to the instances that they began with, once these are there again.
    pub(super) fn give_back(&mut self) {
        let now = clock();
        let returned: Vec<NodeId> = self
            .absorbed
            .keys()
            .copied()
            .filter(|id| self.locator.alive(now).any(|hello| hello.node == *id && !hello.leaving))
            .collect();
        for shard in returned {
            self.absorbed.remove(&shard);
            self.tell_detector(Command::Release {
                shard,
                successor: shard,
            });
        }
        let mut ripe = Vec::new();
        for (id, own) in self.own.iter_mut().filter(|(id, _)| **id != self.node) {
            let back = self
                .locator
                .alive(now)
                .any(|hello| hello.node == *id && hello.holds.contains(id));
            own.returnable = own.returnable.filter(|_| back).or(back.then(Instant::now));
            if own.returnable.is_some_and(|since| since.elapsed() >= RETURN_AFTER) {
                ripe.push(*id);
            }
        }
        for shard in ripe {
            self.hand_over(shard, shard);
        }
    }

    /// Another instance goes on with a shard, at once.
    pub(super) fn hand_over(&mut self, shard: NodeId, successor: NodeId) {
        self.tell_detector(Command::Release { shard, successor });
    }

    /// Hands every shard to a standby that has everything, or waits for the calls to end where there is none.
    pub(super) async fn leave(&mut self) -> Result<(), Error> {
        self.leaving = true;
        self.say_hello();
        let shards: Vec<NodeId> = self.own.keys().copied().collect();
        let mut alone = false;
        for shard in shards {
            let holder = |node: &NodeId| {
                self.locator
                    .get(*node)
                    .is_some_and(|hello| hello.holds.contains(&shard))
            };
            let standbys = self.own.get(&shard).map(|own| self.standbys(&own.shard, self.node));
            let mut standbys = standbys.unwrap_or_default().into_iter().map(|(node, _)| node);
            match standbys.find(holder) {
                Some(successor) => self.hand_over(shard, successor),
                None => {
                    alone = true;
                    self.order(shard, Order::Take(Input::Drain));
                }
            }
        }
        let absorbed: Vec<NodeId> = self.absorbed.keys().copied().collect();
        absorbed.into_iter().for_each(|shard| self.hand_over(shard, shard));
        let until = Instant::now() + DRAIN_MAX;
        while alone && Instant::now() < until && !self.asker.calls().await.is_empty() {
            tokio::time::sleep(TICK).await;
        }
        tokio::time::sleep(LINGER).await;
        let shards: Vec<NodeId> = self.own.keys().copied().collect();
        for shard in shards {
            self.lost(shard).await?;
        }
        // Call records that the engine has not confirmed are with the standbys; what is left gets a last chance.
        let until = Instant::now() + Duration::from_secs(2);
        while self.engine.backlog() > 0 && Instant::now() < until {
            tokio::time::sleep(TICK).await;
        }
        Ok(())
    }
}

fn misses_of(first: bool) -> u64 {
    if first {
        Timing::MISSES_FIRST
    } else {
        Timing::default().misses_second()
    }
}
