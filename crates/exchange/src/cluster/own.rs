//! The shards that this instance speaks for: what begins and ends with each turn that the detector tells of.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use offhook_exchange_proto::detector::NodeId;
use offhook_exchange_proto::locator::{Role, Shard, Standing};
use offhook_exchange_proto::{Input, Place};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::detector::{Command, Join};
use super::lease::Lease;
use super::standby::Held;
use super::turn::Turn;
use super::{HELLO_TICKS, Instance, WITNESSES, address};
use crate::Error;
use crate::driver::{self, Opening, Order, Replication};
use crate::relay::Relay;
use crate::store::Store;

/// Heartbeats missed before an instance claims the shard that begins with it.
const MISSES_HOME: u64 = 15;

/// A shard that this instance speaks for.
pub(super) struct Own {
    pub(super) shard: Shard,
    pub(super) orders: mpsc::UnboundedSender<Order>,
    pub(super) task: JoinHandle<Result<(), Error>>,
    pub(super) lease: Arc<Lease>,
    /// While it is held, the address is ours.
    _address: Option<address::Held>,
    /// Since when its first instance could take it back.
    pub(super) returnable: Option<Instant>,
}

impl Instance {
    /// Takes part in the own shard: with a lease once the witnesses are complete, freely before.
    pub(super) async fn begin_home(&mut self) -> Result<(), Error> {
        if !self.cluster.roles.contains(&Role::Calls) {
            return Ok(());
        }
        let complete = self.witnesses.len() == WITNESSES;
        if complete && !self.joined.contains(&self.node) {
            // A driver that ran freely waits for its lease from now on.
            self.home_lease.set(None);
            self.joined.insert(self.node);
            let join = Join {
                shard: self.node,
                home: true,
                misses: MISSES_HOME,
                lease: self.home_lease.clone(),
                progress: self.home_progress.clone(),
            };
            self.tell_detector(Command::Join(join));
        }
        let waited = self.ticks >= HELLO_TICKS;
        if !complete && waited && !self.own.contains_key(&self.node) {
            self.home_lease
                .set(Some(offhook_exchange_proto::time::Moment(u64::MAX)));
            let shard = self.home_shard(0);
            self.start_driver(shard, None, self.home_lease.clone()).await?;
        }
        Ok(())
    }

    pub(super) fn home_shard(&self, epoch: u64) -> Shard {
        let movable = self.cluster.movable.map(IpAddr::V4);
        Shard {
            id: self.node,
            epoch,
            address: movable.unwrap_or(self.settings.listen),
            movable: movable.is_some(),
            absorbed: false,
        }
    }

    /// A driver that failed ends the instance: one way to recover, the one that is always tried.
    pub(super) async fn look_after_drivers(&mut self) -> Result<(), Error> {
        let ended = self
            .own
            .iter()
            .find(|(_, own)| own.task.is_finished())
            .map(|(shard, _)| *shard);
        if let Some(own) = ended.and_then(|shard| self.own.remove(&shard)) {
            own.task.await.unwrap_or(Ok(()))?;
        }
        Ok(())
    }

    pub(super) async fn turned(&mut self, turn: Turn) -> Result<(), Error> {
        match turn {
            Turn::Asking { shard, lacking } => {
                let lacking = match lacking {
                    true => ", though not all is here that phones were told",
                    false => "",
                };
                eprintln!("offhook exchange: nobody speaks for {shard:x}: asking the witnesses{lacking}");
                return Ok(());
            }
            Turn::Owned { shard, epoch } => self.owned(shard, epoch).await?,
            Turn::Lost { shard } => self.lost(shard).await?,
            Turn::Stood { ms } => {
                eprintln!(
                    "offhook exchange: this machine did not let the detector run for {ms} ms: silence is counted anew"
                );
                return Ok(());
            }
        }
        self.say_hello();
        self.place();
        Ok(())
    }

    pub(super) async fn owned(&mut self, id: NodeId, epoch: u64) -> Result<(), Error> {
        if let Some(own) = self.own.get_mut(&id) {
            own.shard.epoch = epoch;
            let _ = own.orders.send(Order::Epoch(epoch));
            return Ok(());
        }
        if let Some(shard) = self.absorbed.get_mut(&id) {
            shard.epoch = epoch;
            return Ok(());
        }
        eprintln!("offhook exchange: speaks for {id:x} from now on, epoch {epoch}");
        self.stop_listening(id);
        match self.held.remove(&id) {
            Some(held) if held.standing == Standing::Near => {
                let shard = Shard { epoch, ..held.shard };
                self.start_driver(shard, Some(held), self.lease_of(id)).await
            }
            Some(held) => {
                self.absorb(Shard { epoch, ..held.shard }, held);
                Ok(())
            }
            None if id == self.node => {
                let shard = self.home_shard(epoch);
                self.start_driver(shard, None, self.home_lease.clone()).await
            }
            None => Ok(()),
        }
    }

    pub(super) fn lease_of(&self, shard: NodeId) -> Arc<Lease> {
        match self.own.get(&shard) {
            Some(own) => own.lease.clone(),
            None => self.home_lease.clone(),
        }
    }

    /// The calls of another shard go on as ours.
    pub(super) fn absorb(&mut self, shard: Shard, held: Held) {
        // Nobody stands by for it any more: its first instance begins anew, and lacks nothing.
        held.progress.set_has(None);
        let (records, _) = held.take_over();
        self.order(self.node, Order::Absorb(records));
        self.absorbed.insert(
            shard.id,
            Shard {
                absorbed: true,
                ..shard
            },
        );
    }

    pub(super) async fn lost(&mut self, shard: NodeId) -> Result<(), Error> {
        self.absorbed.remove(&shard);
        if let Some(own) = self.own.remove(&shard) {
            self.asker.remove(shard);
            drop(own.orders);
            // The sockets close with it.
            own.task.await.unwrap_or(Ok(()))?;
        }
        Ok(())
    }

    pub(super) async fn start_driver(
        &mut self,
        shard: Shard,
        held: Option<Held>,
        lease: Arc<Lease>,
    ) -> Result<(), Error> {
        let lease = held.as_ref().map_or(lease, |held| held.lease.clone());
        let progress = held.as_ref().map(|held| held.progress.clone());
        let progress = progress.unwrap_or_else(|| self.home_progress.clone());
        let address = match shard.address {
            IpAddr::V4(address) if shard.movable => {
                let taken = address::Held::take(address);
                Some(taken.map_err(|error| Error::Cluster(format!("cannot take {address}: {error}")))?)
            }
            _ => None,
        };
        let (records, relay) = held.map(Held::take_over).unwrap_or_default();
        let mut config = driver::config_of(&self.settings, shard.address);
        config.node = shard.id;
        config.epoch = shard.epoch;
        config.replicate = self.cluster.replicate;
        // Zero is none.
        let stream = u64::from_le_bytes(crate::random()?) | 1;
        let (questions_in, questions) = mpsc::channel(64);
        let (orders, orders_out) = mpsc::unbounded_channel();
        let store = Store::open(&self.settings.home)?;
        let opening = Opening {
            settings: &self.settings,
            config,
            listen: shard.address,
            tables: self.tables(),
            nonces: self.nonces,
            relay: relay.unwrap_or_else(|| Relay::new(shard.address, lease.clone())),
            lease: lease.clone(),
            replication: Some(Replication::new(self.engine.clone(), shard.id, stream, progress)),
            store,
        };
        let mut running = driver::open(opening, questions, orders_out).await?;
        if shard.id == self.node && records.is_empty() {
            for (account, bindings) in self.store.bindings()? {
                running.driver.exchange.restore_bindings(&account, bindings);
            }
        }
        for ((account, node), bindings) in self.elsewhere.iter().filter(|((_, node), _)| *node != shard.id) {
            let known = Input::Elsewhere {
                account: account.clone(),
                node: *node,
                bindings: bindings.clone(),
            };
            let _ = running.driver.exchange.handle(known, Instant::now());
        }
        let adopted = driver::adopt(&mut running.driver.exchange, &records, Place::Same);
        self.asker.add(shard.id, questions_in);
        let own = Own {
            shard,
            orders,
            task: tokio::spawn(running.run(adopted)),
            lease,
            _address: address,
            returnable: None,
        };
        self.own.insert(shard.id, own);
        Ok(())
    }
}
