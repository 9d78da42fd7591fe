//! A shard that this instance holds ready for another one: its records, and next to its owner its relay, too.
//!
//! The relay of a near standby is open on the same ports before it is needed, on an address that is still the
//! owner's: when the address moves, sound goes on with the next packet, before signalling does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use offhook_exchange_proto::detector::NodeId;
use offhook_exchange_proto::locator::{Shard, Standing};
use offhook_exchange_proto::protection::{Follow, Follower};
use offhook_exchange_proto::relay::RelayCommand;
use offhook_exchange_proto::replica::{Applied, Key, Record, Replicas};
use offhook_exchange_proto::wire::Live;

use super::lease::Lease;
use crate::relay::Relay;

/// How often an owner is asked for everything, at most.
const ASK_AGAIN: Duration = Duration::from_millis(300);
/// Records of things gone that are kept, so that late news of them is known as late.
const GONE_MAX: usize = 10_000;

/// A shard held ready.
pub(crate) struct Held {
    pub(crate) shard: Shard,
    pub(crate) owner: NodeId,
    pub(crate) standing: Standing,
    pub(crate) lease: Arc<Lease>,
    replicas: Replicas,
    follower: Follower,
    relay: Option<Relay>,
    ports: BTreeMap<Key, BTreeSet<u16>>,
    asked: Option<Instant>,
}

impl Held {
    pub(crate) fn new(shard: Shard, owner: NodeId, standing: Standing, lease: Arc<Lease>) -> Self {
        let relay = (standing == Standing::Near).then(|| Relay::new(shard.address, lease.clone()));
        Self {
            shard,
            owner,
            standing,
            lease,
            replicas: Replicas::default(),
            follower: Follower::default(),
            relay,
            ports: BTreeMap::new(),
            asked: None,
        }
    }

    /// Takes changes; what to tell the owner.
    pub(crate) fn live(&mut self, own: NodeId, live: Live) -> Follow {
        let (begins, follow) = self.follower.follow(own, &live);
        if begins {
            self.replicas.clear();
        }
        for record in live.records {
            self.apply(record);
        }
        self.replicas.forget_gone(GONE_MAX);
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

    /// Whether to ask the owner for everything, now.
    pub(crate) fn may_ask(&mut self) -> bool {
        let now = Instant::now();
        let may = self.asked.is_none_or(|at| now.duration_since(at) >= ASK_AGAIN);
        if may {
            self.asked = Some(now);
        }
        may
    }

    /// What there is to go on with, and the relay that is open for it. Bindings first: calls in set-up are taken
    /// anew from known phones.
    pub(crate) fn take_over(self) -> (Vec<Record>, Option<Relay>) {
        (self.replicas.live().cloned().collect(), self.relay)
    }
}
