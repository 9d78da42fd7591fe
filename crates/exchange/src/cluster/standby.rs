//! A shard that this instance holds ready for another one: its records, and next to its owner its relay, too.
//!
//! The relay of a near standby is open on the same ports before it is needed, on an address that is still the
//! owner's: when the address moves, sound goes on with the next packet, before signalling does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use offhook_exchange_proto::detector::NodeId;
use offhook_exchange_proto::locator::{Shard, Standing};
use offhook_exchange_proto::protection::{Follow, Follower};
use offhook_exchange_proto::relay::RelayCommand;
use offhook_exchange_proto::replica::{Applied, Key, Record, Replicas};
use offhook_exchange_proto::wire::Live;

use super::lease::{Lease, Progress, clock};
use crate::driver;
use crate::relay::Relay;

/// Records of things gone that are kept, so that late news of them is known as late.
const GONE_MAX: usize = 10_000;
/// How far apart two clocks may be before deadlines are set by the other, ms: timers are in seconds.
const CLOCKS_APART_MS: u64 = 1_000;

/// A shard held ready.
pub(crate) struct Held {
    pub(crate) shard: Shard,
    pub(crate) owner: NodeId,
    pub(crate) standing: Standing,
    pub(crate) lease: Arc<Lease>,
    pub(crate) progress: Arc<Progress>,
    replicas: Replicas,
    follower: Follower,
    /// By how much our clock is ahead of the owner's: the least that was seen, for messages take time.
    ahead_ms: Option<i64>,
    relay: Option<Relay>,
    ports: BTreeMap<Key, BTreeSet<u16>>,
}

impl Held {
    pub(crate) fn new(shard: Shard, owner: NodeId, standing: Standing, lease: Arc<Lease>) -> Self {
        let relay = (standing == Standing::Near).then(|| Relay::new(shard.address, lease.clone()));
        Self {
            shard,
            owner,
            standing,
            lease,
            progress: Arc::default(),
            replicas: Replicas::default(),
            follower: Follower::default(),
            ahead_ms: None,
            relay,
            ports: BTreeMap::new(),
        }
    }

    /// Takes changes; what to tell the owner.
    pub(crate) fn live(&mut self, own: NodeId, live: Live) -> Follow {
        let (begins, follow) = self.follower.follow(own, &live);
        let ahead_ms = (driver::wall_clock().0 as i64).saturating_sub(live.clock.0 as i64);
        if begins {
            self.replicas.clear();
            self.ahead_ms = None;
        }
        self.ahead_ms = Some(self.ahead_ms.unwrap_or(ahead_ms).min(ahead_ms));
        for record in live.records {
            self.apply(record);
        }
        self.replicas.forget_gone(GONE_MAX);
        self.progress.set_has(self.follower.has());
        follow
    }

    fn apply(&mut self, record: Record) {
        let key = record.key.clone();
        if self.replicas.apply(record) == Applied::Stale || !matches!(key, Key::Call(_)) {
            return;
        }
        let Some(relay) = &mut self.relay else { return };
        let commands = self.replicas.get(&key).map(Record::media).unwrap_or_default();
        let open = |command: &RelayCommand| match command {
            RelayCommand::Open { port } => Some(*port),
            _ => None,
        };
        let wanted: BTreeSet<u16> = commands.iter().filter_map(open).collect();
        let before = self.ports.remove(&key).unwrap_or_default();
        for &port in before.difference(&wanted) {
            relay.handle(RelayCommand::Close { port });
        }
        commands.into_iter().for_each(|command| relay.handle(command));
        if !wanted.is_empty() {
            self.ports.insert(key, wanted);
        }
    }

    /// Whether it has everything that its owner has told of.
    pub(crate) fn is_complete(&self) -> bool {
        self.follower.is_complete()
    }

    /// Whether it lacks something, and nothing comes: looked at now and then.
    pub(crate) fn is_stuck(&mut self) -> bool {
        self.follower.is_stuck(self.progress.told())
    }

    /// Whether to ask the owner for everything, now.
    pub(crate) fn may_ask(&mut self) -> bool {
        self.follower.may_ask(clock())
    }

    /// What there is to go on with, and the relay that is open for it. Bindings first: calls in set-up are taken
    /// anew from known phones.
    pub(crate) fn take_over(self) -> (Vec<Record>, Option<Relay>) {
        let ahead_ms = self.ahead_ms.unwrap_or(0);
        let records = self.replicas.live().cloned();
        let records = match ahead_ms.unsigned_abs() > CLOCKS_APART_MS {
            true => records.map(|record| record.by_clock_ahead(ahead_ms)).collect(),
            false => records.collect(),
        };
        (records, self.relay)
    }
}
