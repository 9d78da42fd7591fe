//! Going on with what another node owned, from its replica records.
//!
//! A confirmed call is taken up whole: dialogs, media ports, session timers. Requests that the old owner sent after its
//! last record are unknown, so CSeq numbers jump by `CSEQ_GAP`; carried requests and transfers that were open are
//! lost, and their phones hear nothing or repeat them. A call in set-up begins anew: what rang is cancelled, and the
//! caller's INVITE is taken as if it came now; the caller hears of it as of one more phone that rings.
//!
//! Under the old address ([`Place::Same`]) phones notice nothing; from another one ([`Place::Elsewhere`]) each gets a
//! re-INVITE with where media and requests go from now on.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Exchange, Outputs, StoreCommand};
use crate::bridge::{Call, CallRecord};
use crate::flow::Flow;
use crate::registrar::Binding;
use crate::relay::RelayCommand;
use crate::replica::{DecodeError, Key, Record, Setup, decode, relay_commands};
use crate::sip::{Message, NameAddr, Uri};
use crate::time::Moment;

/// More requests than the old owner can have sent on a leg since its last record.
const CSEQ_GAP: u32 = 100;

/// Where a call goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Under the address and ports of the old owner, which have moved.
    Same,
    /// Under our own.
    Elsewhere,
}

impl Exchange {
    /// Takes over one record. Only the holder of a higher epoch may do so: see [`crate::detector`]. Bindings come
    /// before calls in set-up, which are taken anew from known phones. After those of [`Place::Elsewhere`] comes
    /// [`Exchange::put_out_adopted`].
    pub fn adopt(&mut self, record: &Record, place: Place, now: Instant) -> Result<Outputs, DecodeError> {
        let now = self.moment(now);
        let Some(body) = &record.body else {
            return Ok(Outputs::default());
        };
        // Its successor counts on from there: what is put out next is newer to everyone.
        self.replicas.insert(record.key.clone(), record.version);
        match &record.key {
            Key::Bindings(account) => self.adopt_bindings(account, decode(body)?),
            Key::Call(key) => self.adopt_call(key, decode(body)?, place, now),
            Key::Setup(key) => {
                let setup = decode(body)?;
                self.withdraw(Key::Setup(key.clone()));
                self.adopt_setup(setup, place, now);
            }
            Key::Ended(_) => self.adopt_ended(decode(body)?),
        }
        self.outputs.send.extend(self.transactions.drain_transmits());
        Ok(std::mem::take(&mut self.outputs))
    }

    /// What is registered here stays: it is newer than what its old owner knew. Connections are gone with their node.
    fn adopt_bindings(&mut self, account: &str, adopted: Vec<Binding>) {
        let mut bindings = self.registrar.bindings_of(account).to_vec();
        let new = adopted.into_iter().filter(|binding| {
            !binding.flow.transport.is_reliable() && !bindings.iter().any(|held| binding.replaces(held))
        });
        let new: Vec<_> = new.collect();
        bindings.extend(new);
        self.registrar.restore(account, bindings.clone());
        self.binding_changed(crate::registrar::Change::Bindings {
            account: account.into(),
            bindings: bindings.into(),
        });
    }

    fn adopt_call(&mut self, key: &str, mut call: Call, place: Place, now: Moment) {
        for leg in call.legs.values_mut() {
            leg.dialog.local_cseq = leg.dialog.local_cseq.saturating_add(CSEQ_GAP);
            if place == Place::Elsewhere {
                leg.ports.clear();
                leg.dialog.flow = self.flow_here(&leg.account, &leg.dialog.target, leg.dialog.flow);
            }
        }
        if let Some(pool) = &mut self.ports {
            let commands = relay_commands(&call);
            for command in &commands {
                if let RelayCommand::Open { port } = command {
                    pool.claim(*port);
                }
            }
            self.outputs.relay.extend(commands);
        }
        self.calls.insert(key.to_owned(), call);
        match place {
            Place::Same => self.settle(key),
            Place::Elsewhere => {
                self.adopted.get_or_insert_default().insert(key.to_owned());
                self.with_call(key, now, |call, ctx| call.move_here(ctx));
            }
        }
    }

    fn adopt_setup(&mut self, setup: Setup, place: Place, now: Moment) {
        let user = |value: Option<&str>| {
            value
                .and_then(|value| NameAddr::parse(value).ok()?.uri)
                .map(|uri| uri.user.into_owned())
        };
        let here = |exchange: &Self, account: Option<String>, contact: Option<&str>, flow| match place {
            Place::Same => flow,
            Place::Elsewhere => exchange.flow_here(&account.unwrap_or_default(), contact.unwrap_or_default(), flow),
        };
        for (flow, bytes) in &setup.rung {
            if let Ok(invite) = Message::parse(bytes) {
                let flow = here(self, user(invite.get("To")), invite.uri(), *flow);
                self.transactions.request(super::effects::cancel_of(&invite), flow, now);
            }
        }
        let mut flow = setup.flow;
        if let Ok(invite) = Message::parse(&setup.invite) {
            let contact = invite.get("Contact").and_then(|contact| NameAddr::parse(contact).ok());
            let contact = contact.as_ref().map(|contact| contact.raw_uri);
            flow = here(self, user(invite.get("From")), contact, flow);
        }
        self.received(flow, &setup.invite, now);
    }

    /// The flow on which a phone is registered with us, of one that its old node reached over `old` at `contact`: the
    /// same Contact, or another flow of the same phone (RFC 5626). A translator lets us in there, and nowhere else.
    fn flow_here(&self, account: &str, contact: &str, old: Flow) -> Flow {
        let at = Uri::parse(contact).ok();
        let same = |binding: &Binding| match (&at, Uri::parse(&binding.contact)) {
            (Some(at), Ok(uri)) => at.same_address(&uri),
            _ => binding.contact == contact,
        };
        let elsewhere = self
            .elsewhere
            .get(account)
            .into_iter()
            .flat_map(BTreeMap::values)
            .flatten();
        let mut known = elsewhere.filter(|binding| binding.flow == old || same(binding));
        let instance = known.find_map(|binding| binding.instance.as_deref());
        let of_phone = |binding: &&Binding| {
            let flows = binding.instance.is_some() && binding.instance.as_deref() == instance;
            flows || same(binding)
        };
        let here = self.registrar.bindings_of(account).iter().filter(of_phone);
        // The old flow is among them once its binding has been adopted.
        let best = here.max_by_key(|binding| (binding.flow != old, binding.refreshed_at));
        best.map_or(old, |binding| binding.flow)
    }

    /// The records of calls adopted from another address, to be called when all are: phones are told first, for
    /// should this node end meanwhile the calls are no more lost than without.
    pub fn put_out_adopted(&mut self) -> Outputs {
        for key in self.adopted.take().unwrap_or_default() {
            self.replicate_call(&key);
        }
        std::mem::take(&mut self.outputs)
    }

    fn adopt_ended(&mut self, record: CallRecord) {
        self.outputs.store.push(StoreCommand::Record(record.clone()));
        self.ended.insert(record.call.clone(), record);
    }

    /// A call record is stored where it outlives this node: standbys may forget it.
    pub(super) fn recorded(&mut self, call: &str) {
        if self.ended.remove(call).is_some() {
            self.withdraw(Key::Ended(call.to_owned()));
        }
    }

    /// All that a new standby must know, as it is now; nothing with replication off.
    pub fn records(&self) -> Vec<Record> {
        if !self.config.replicate {
            return Vec::new();
        }
        let (owner, epoch) = (self.config.node, self.config.epoch);
        let calls = self.calls.values().filter(|call| call.is_confirmed());
        let calls = calls.map(|call| Record::call(call, owner, epoch));
        let accounts: std::collections::BTreeSet<&str> = self.registrar.iter().map(|(account, _)| account).collect();
        let bindings = accounts
            .into_iter()
            .map(|account| Record::bindings(account, self.registrar.bindings_of(account), owner, epoch));
        let setups = self
            .setups
            .iter()
            .map(|(key, setup)| Record::setup(key, setup, owner, epoch));
        let ended = self.ended.values().map(|record| Record::ended(record, owner, epoch));
        let all = calls.chain(bindings).chain(setups).chain(ended);
        all.map(|mut record| {
            record.version = self.replicas.get(&record.key).copied().unwrap_or(0);
            record
        })
        .collect()
    }

    /// From now on under this epoch.
    pub fn set_epoch(&mut self, epoch: u64) {
        self.config.epoch = epoch;
    }
}
