//! What all instances have in common, by way of the engine: witnesses, keys, accounts, bindings, call records.

use std::collections::BTreeMap;

use offhook_exchange_proto::Input;
use offhook_exchange_proto::bridge::CallRecord;
use offhook_exchange_proto::detector::NodeId;
use offhook_exchange_proto::locator::Role;
use offhook_exchange_proto::registrar::Binding;
use offhook_exchange_proto::replica::decode;
use offhook_exchange_proto::route::{Account, Tables};
use offhook_exchange_proto::sip::digest::Secret;

use super::detector::Command;
use super::engine::{Bucket, Change, Engine};
use super::{Instance, WITNESSES};
use crate::driver::Order;
use crate::store::Store;
use crate::{Error, Settings};

/// An account as it is kept under its name.
type AccountRow = (String, String, Option<String>);

/// The key of an account's bindings at a shard; names are written in hexadecimal, for keys allow few characters.
pub(crate) fn binding_key(shard: NodeId, account: &str) -> String {
    format!("{shard:x}.{}", hex(account))
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<String> {
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).map(|d| d as u8))
        .collect::<Option<_>>()?;
    let bytes = digits
        .chunks(2)
        .map(|pair| Some(pair[0] << 4 | pair.get(1)?))
        .collect::<Option<_>>()?;
    String::from_utf8(bytes).ok()
}

/// What every instance must have alike before it says anything.
pub(super) struct Agreed {
    /// Key of the digest nonces: any instance takes any other's.
    pub(super) nonces: [u8; 32],
    /// Key of the detectors' datagrams.
    pub(super) secret: [u8; 32],
}

/// Draws the keys, or learns them; an instance of another domain is turned away.
pub(super) async fn agree(engine: &Engine, store: &Store, settings: &Settings) -> Result<Agreed, Error> {
    let nonces = shared_key(engine, "nonces", store.nonce_key()?).await?;
    let secret = shared_key(engine, "secret", crate::random()?).await?;
    let own = settings.domain.clone().into_bytes();
    let domain = engine.create(Bucket::Config, "domain", own).await?;
    let domain = String::from_utf8_lossy(&domain).into_owned();
    if domain != settings.domain {
        return Err(Error::Cluster(format!(
            "this cluster is for the domain {domain}: say --domain {domain}"
        )));
    }
    Ok(Agreed { nonces, secret })
}

/// 32 octets that all instances share: whoever comes first has drawn them.
async fn shared_key(engine: &Engine, name: &str, fresh: [u8; 32]) -> Result<[u8; 32], Error> {
    let held = engine.create(Bucket::Config, name, fresh.to_vec()).await?;
    let wrong = |_| Error::Engine(format!("{name} in the engine is damaged"));
    <[u8; 32]>::try_from(&held[..]).map_err(wrong)
}

impl Instance {
    /// Takes a place among the witnesses while there is one free, and none in this failure domain.
    pub(super) async fn offer_witness(&mut self) -> Result<(), Error> {
        if !self.cluster.roles.contains(&Role::Witness) {
            return Ok(());
        }
        let (node, site) = (self.node, self.cluster.site.clone());
        let add = move |held: Option<&[u8]>| {
            // Those that another version has written are not replaced.
            let mut witnesses: Vec<(NodeId, String)> = held.map_or(Some(Vec::new()), |held| decode(held).ok())?;
            let full = witnesses.len() >= WITNESSES;
            if full || witnesses.iter().any(|(id, at)| *id == node || *at == site) {
                return None;
            }
            witnesses.push((node, site.clone()));
            Some(offhook_exchange_proto::replica::encode(&witnesses))
        };
        self.engine.update(Bucket::Config, "witnesses", add).await
    }

    /// Read once before anything is spoken for: with all witnesses there, only a lease allows that.
    pub(super) async fn read_witnesses(&mut self) -> Result<(), Error> {
        let held = self.engine.get(Bucket::Config, "witnesses").await?;
        let readable = held
            .as_deref()
            .is_none_or(|held| decode::<Vec<(NodeId, String)>>(held).is_ok());
        if !readable {
            let refused = "the witnesses of this cluster were written down by another version: use that one";
            return Err(Error::Cluster(refused.to_owned()));
        }
        self.witnesses_changed(held.as_deref());
        Ok(())
    }

    pub(super) fn witnesses_changed(&mut self, value: Option<&[u8]>) {
        match value.map(decode) {
            None => self.witnesses.clear(),
            Some(Ok(witnesses)) => self.witnesses = witnesses,
            Some(Err(error)) => eprintln!("offhook exchange: the witnesses stay as they were known: {error}"),
        }
        if self.witnesses.len() == WITNESSES {
            let nodes = self.witnesses.iter().map(|(node, _)| *node).collect();
            self.tell_detector(Command::Witnesses(nodes));
        }
    }

    pub(super) fn changed(&mut self, changes: impl Iterator<Item = Change>) -> Result<(), Error> {
        self.store.begin()?;
        for change in changes {
            self.change(change)?;
        }
        self.store.end()?;
        self.push_tables();
        Ok(())
    }

    pub(super) fn change(&mut self, change: Change) -> Result<(), Error> {
        match change.bucket {
            Bucket::Config => self.config_changed(&change.key, change.value.as_deref()),
            Bucket::Bindings => {
                self.bindings_changed(&change.key, change.value.as_deref());
                Ok(())
            }
            Bucket::Records => match change.value.and_then(|value| decode::<CallRecord>(&value).ok()) {
                Some(record) => self.store.put_record(&record),
                None => Ok(()),
            },
            Bucket::Calls => Ok(()),
        }
    }

    pub(super) fn config_changed(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), Error> {
        if key == "witnesses" {
            self.witnesses_changed(value);
            return Ok(());
        }
        let Some(name) = key.strip_prefix("account.").and_then(unhex) else {
            return Ok(());
        };
        match value.map(decode::<AccountRow>) {
            Some(Err(error)) => {
                eprintln!("offhook exchange: the account {name} stays as it was known: {error}");
                return Ok(());
            }
            Some(Ok((sha256, md5, extension))) => {
                let account = Account {
                    name: name.clone(),
                    secret: Secret { sha256, md5 },
                    extension,
                };
                self.store.put_account(&account)?;
                self.accounts.insert(name, account);
            }
            None => {
                self.store.remove_account(&name)?;
                self.accounts.remove(&name);
            }
        }
        self.tables_changed = true;
        Ok(())
    }

    pub(super) fn tables(&self) -> Tables {
        Tables::new(self.accounts.values().cloned().collect())
    }

    /// Many accounts may have changed at once: drivers are told of all together.
    pub(super) fn push_tables(&mut self) {
        if std::mem::take(&mut self.tables_changed) {
            let tables = self.tables();
            self.order_all(|| Order::Take(Input::Tables(tables.clone())));
        }
    }

    /// What was added to or removed from this instance's store goes to everybody.
    pub(super) fn offer_accounts(&mut self) -> Result<(), Error> {
        let local: BTreeMap<String, Account> = self
            .store
            .accounts()?
            .into_iter()
            .map(|account| (account.name.clone(), account))
            .collect();
        for (name, account) in &local {
            if self.accounts.get(name) != Some(account) {
                let row: AccountRow = (
                    account.secret.sha256.clone(),
                    account.secret.md5.clone(),
                    account.extension.clone(),
                );
                let value = offhook_exchange_proto::replica::encode(&row);
                self.engine
                    .write(Bucket::Config, format!("account.{}", hex(name)), Some(value));
            }
        }
        for name in self.accounts.keys().filter(|name| !local.contains_key(*name)) {
            self.engine
                .write(Bucket::Config, format!("account.{}", hex(name)), None);
        }
        if local != self.accounts {
            self.accounts = local;
            self.tables_changed = true;
        }
        Ok(())
    }

    pub(super) fn bindings_changed(&mut self, key: &str, value: Option<&[u8]>) {
        let Some((shard, account)) = key.split_once('.') else {
            return;
        };
        let (Ok(node), Some(account)) = (NodeId::from_str_radix(shard, 16), unhex(account)) else {
            return;
        };
        let bindings: Vec<Binding> = value.and_then(|value| decode(value).ok()).unwrap_or_default();
        for own in self.own.values().filter(|own| own.shard.id != node) {
            let news = Input::Elsewhere {
                account: account.clone(),
                node,
                bindings: bindings.clone(),
            };
            let _ = own.orders.send(Order::Take(news));
        }
        if bindings.is_empty() {
            self.elsewhere.remove(&(account, node));
        } else {
            self.elsewhere.insert((account, node), bindings);
        }
    }
}
