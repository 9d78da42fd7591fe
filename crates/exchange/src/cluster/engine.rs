//! NATS: core messages for discovery and live state, JetStream's key-value store as the durable copy.
//!
//! Nothing that a phone waits for ever waits for JetStream, whose writes stall for seconds when a leader dies: what
//! is to be durable is written behind, newest value of each key first come first served, and retried for ever. Core
//! messages go through one bounded queue that drops when full; numbers in them show the gap to whoever listens.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::kv::{self, CreateErrorKind, Operation, Store};
use async_nats::jetstream::stream::StorageType;
use async_nats::{Client, ConnectOptions};
use bytes::Bytes;
use futures_util::StreamExt;
use offhook_exchange_proto::wire::{Notice, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use crate::Error;

/// Oldest engine that is taken.
const ENGINE_VERSION_MIN: (i64, i64, i64) = (2, 12, 3);
const QUEUE: usize = 4_096;
const PATIENCE: Duration = Duration::from_secs(10);
/// Durable writes under way at one time.
const WRITES_MAX: usize = 32;
/// How long JetStream may take to be ready.
const ELECTION: Duration = Duration::from_secs(20);
/// How often a compare-and-set is tried, 50 ms apart: an engine that has just started answers from servers that lag.
const CHANGE_TRIES: usize = 100;
const RETRY: Duration = Duration::from_millis(500);

/// The buckets. Several, so that their leaders spread over the engine's servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Bucket {
    /// Accounts, witnesses, secrets.
    Config,
    /// Where phones are.
    Bindings,
    /// Calls that are up or in set-up, for the day on which owner and standbys die together.
    Calls,
    /// What calls there were.
    Records,
}

impl Bucket {
    const ALL: [Self; 4] = [Self::Config, Self::Bindings, Self::Calls, Self::Records];

    fn name(self) -> &'static str {
        match self {
            Self::Config => "offhook-config",
            Self::Bindings => "offhook-bindings",
            Self::Calls => "offhook-calls",
            Self::Records => "offhook-records",
        }
    }
}

/// A change of a bucket, as it was watched.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) bucket: Bucket,
    pub(crate) key: String,
    /// `None` when it was removed.
    pub(crate) value: Option<Bytes>,
}

/// The connection to the engine.
#[derive(Clone)]
pub(crate) struct Engine {
    client: Client,
    wire: Wire,
    stores: Arc<BTreeMap<Bucket, Store>>,
    notices: mpsc::Sender<(String, Bytes)>,
    durable: Arc<Durable>,
}

/// What is to be written, by bucket and key; nothing where the key is to go.
type Pending = BTreeMap<(Bucket, String), Option<Vec<u8>>>;

/// What is to be written, newest value of each key.
#[derive(Default)]
struct Durable {
    pending: Mutex<Pending>,
    wake: Notify,
}

impl Engine {
    /// Connects, and checks what the engine must be: its version, and that it writes before it acknowledges.
    pub(crate) async fn connect(
        urls: &[String],
        monitor_port: u16,
        replicas: usize,
        wire: Wire,
    ) -> Result<Self, Error> {
        let options = ConnectOptions::new()
            .name("offhook-exchange")
            .ping_interval(Duration::from_secs(2))
            .connection_timeout(Duration::from_secs(2))
            .request_timeout(Some(Duration::from_secs(5)))
            .reconnect_delay_callback(|attempt| Duration::from_millis(if attempt < 2 { 20 } else { 250 }));
        let reach = |error: &dyn std::fmt::Display| Error::Engine(format!("cannot reach {}: {error}", urls.join(", ")));
        let client = timeout(PATIENCE, options.connect(urls)).await;
        let client = client.map_err(|error| reach(&error))?.map_err(|error| reach(&error))?;
        check_version(&client)?;
        check_settings(&client, urls, monitor_port).await?;
        // Servers that have just started elect a leader first.
        let until = tokio::time::Instant::now() + ELECTION;
        let stores = loop {
            match open_buckets(&client, replicas).await {
                Ok(stores) => break stores,
                Err(error) if tokio::time::Instant::now() > until => return Err(error),
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        };
        let (notices, queue) = mpsc::channel(QUEUE);
        tokio::spawn(publish(client.clone(), queue));
        Ok(Self {
            client,
            wire,
            stores: Arc::new(stores),
            notices,
            durable: Arc::default(),
        })
    }

    /// Whether messages get through now, as far as is known.
    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Sends a message to whoever listens; never waits.
    pub(crate) fn publish(&self, subject: String, notice: &Notice) {
        self.publish_bytes(subject, self.wire.encode(notice));
    }

    /// The same with words of our own.
    pub(crate) fn publish_bytes(&self, subject: String, bytes: Vec<u8>) {
        if self.is_connected() {
            let _ = self.notices.try_send((subject, bytes.into()));
        }
    }

    /// Listens to a subject; listens again after every reconnection.
    pub(crate) async fn subscribe(&self, subject: String) -> Result<async_nats::Subscriber, Error> {
        let subscribed = self.client.subscribe(subject).await;
        subscribed.map_err(|error| Error::Engine(error.to_string()))
    }

    /// Writes behind; `None` removes.
    pub(crate) fn write(&self, bucket: Bucket, key: String, value: Option<Vec<u8>>) {
        let mut pending = self.durable.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.insert((bucket, key), value);
        drop(pending);
        self.durable.wake.notify_one();
    }

    /// Writes still to be done.
    pub(crate) fn backlog(&self) -> usize {
        self.durable
            .pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Writes what is to be durable, for ever; tells the key of each call record that is safe.
    pub(crate) async fn keep_writing(self, recorded: mpsc::UnboundedSender<String>) {
        loop {
            let batch: Vec<_> = {
                let mut pending = self.durable.pending.lock().unwrap_or_else(PoisonError::into_inner);
                let keys: Vec<_> = pending.keys().take(WRITES_MAX).cloned().collect();
                keys.into_iter().filter_map(|key| pending.remove_entry(&key)).collect()
            };
            if batch.is_empty() {
                self.durable.wake.notified().await;
                continue;
            }
            let writes = batch
                .into_iter()
                .map(|((bucket, key), value)| self.write_one(bucket, key, value));
            let written: Vec<_> = futures_util::future::join_all(writes)
                .await
                .into_iter()
                .flatten()
                .collect();
            if self.settle(written, &recorded) {
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Tells of call records that are safe, and puts back what failed; whether anything did.
    fn settle(&self, written: Vec<(Bucket, Unwritten)>, recorded: &mpsc::UnboundedSender<String>) -> bool {
        let mut pending = self.durable.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let mut again = false;
        for (bucket, outcome) in written {
            match outcome {
                Ok((key, value)) => {
                    again = true;
                    // A newer value has come meanwhile: that one counts.
                    pending.entry((bucket, key)).or_insert(value);
                }
                Err(key) if bucket == Bucket::Records => drop(recorded.send(key)),
                Err(_) => {}
            }
        }
        again
    }

    /// What is still to be written, or the key that is safe now.
    async fn write_one(&self, bucket: Bucket, key: String, value: Option<Vec<u8>>) -> Option<(Bucket, Unwritten)> {
        let store = self.stores.get(&bucket)?;
        let write = async {
            match (&value, bucket) {
                // Written once: a second node that took the call over may come second.
                (Some(value), Bucket::Records) => match store.create(&key, value.clone().into()).await {
                    Ok(_) => true,
                    Err(error) => error.kind() == CreateErrorKind::AlreadyExists,
                },
                (Some(value), _) => store.put(&key, value.clone().into()).await.is_ok(),
                (None, _) => store.purge(&key).await.is_ok(),
            }
        };
        match timeout(PATIENCE, write).await {
            Ok(true) => Some((bucket, Err(key))),
            _ => Some((bucket, Ok((key, value)))),
        }
    }

    /// Puts a value where there is none, else gives the one that is there. Somebody else's that was put just now may
    /// not be readable yet on the server that is asked, so both are tried again for a while.
    pub(crate) async fn create(&self, bucket: Bucket, key: &str, value: Vec<u8>) -> Result<Bytes, Error> {
        let store = self.store(bucket)?;
        let until = tokio::time::Instant::now() + ELECTION;
        loop {
            let refused = match store.create(key, value.clone().into()).await {
                Ok(_) => return Ok(value.into()),
                Err(error) => error.to_string(),
            };
            if let Ok(Some(held)) = store.get(key).await {
                return Ok(held);
            }
            if tokio::time::Instant::now() > until {
                return Err(Error::Engine(format!("{key} cannot be written: {refused}")));
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// A value as it is.
    pub(crate) async fn get(&self, bucket: Bucket, key: &str) -> Result<Option<Bytes>, Error> {
        let held = self.store(bucket)?.get(key).await;
        held.map_err(|error| Error::Engine(error.to_string()))
    }

    /// Changes a value by compare-and-set; `change` gives nothing when all is well as it is.
    pub(crate) async fn update(
        &self,
        bucket: Bucket,
        key: &str,
        change: impl Fn(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<(), Error> {
        let store = self.store(bucket)?;
        for _ in 0..CHANGE_TRIES {
            let held = store
                .entry(key)
                .await
                .map_err(|error| Error::Engine(error.to_string()))?;
            let held = held.filter(|entry| entry.operation == Operation::Put);
            let Some(value) = change(held.as_ref().map(|entry| &entry.value[..])) else {
                return Ok(());
            };
            let done = match held {
                Some(entry) => store.update(key, value.into(), entry.revision).await.is_ok(),
                None => store.create(key, value.into()).await.is_ok(),
            };
            if done {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(Error::Engine(format!("{key} changes too often")))
    }

    fn store(&self, bucket: Bucket) -> Result<&Store, Error> {
        self.stores
            .get(&bucket)
            .ok_or_else(|| Error::Engine("no such bucket".to_owned()))
    }

    /// Watches a bucket for ever: everything that is in it, then every change.
    pub(crate) async fn watch(self, bucket: Bucket, changes: mpsc::Sender<Change>) {
        loop {
            let Some(store) = self.stores.get(&bucket) else { return };
            if let Ok(mut watch) = store.watch_with_history(">").await {
                while let Some(Ok(entry)) = watch.next().await {
                    let value = (entry.operation == Operation::Put).then_some(entry.value);
                    let change = Change {
                        bucket,
                        key: entry.key,
                        value,
                    };
                    if changes.send(change).await.is_err() {
                        return;
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Safe under its key, or still to be written.
type Unwritten = Result<(String, Option<Vec<u8>>), String>;

async fn publish(client: Client, mut queue: mpsc::Receiver<(String, Bytes)>) {
    while let Some((subject, bytes)) = queue.recv().await {
        // Disconnected: dropped, and whoever misses it asks anew.
        if client.connection_state() == State::Connected {
            let _ = timeout(Duration::from_secs(1), client.publish(subject, bytes)).await;
        }
    }
}

fn check_version(client: &Client) -> Result<(), Error> {
    let (major, minor, patch) = ENGINE_VERSION_MIN;
    if client.is_server_compatible(major, minor, patch) {
        return Ok(());
    }
    Err(Error::Engine(format!(
        "the engine is nats-server {}, and {major}.{minor}.{patch} or newer is needed",
        client.server_info().version
    )))
}

/// `sync_interval: always` shows only on the monitoring port of each server.
async fn check_settings(client: &Client, urls: &[String], port: u16) -> Result<(), Error> {
    let mut hosts: Vec<String> = urls.iter().filter_map(|url| host_of(url)).collect();
    hosts.push(client.server_info().host);
    let mut seen = 0;
    for host in hosts.iter().filter(|host| host.as_str() != "0.0.0.0") {
        let Ok(Ok(text)) = timeout(Duration::from_secs(3), monitor(host, port)).await else {
            continue;
        };
        seen += 1;
        let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        if !compact.contains("\"jetstream\":{\"config\"") && !compact.contains("\"max_storage\"") {
            return Err(Error::Engine(format!(
                "JetStream is off on {host}: add `jetstream {{}}` to its configuration"
            )));
        }
        if !compact.contains("\"sync_always\":true") {
            return Err(Error::Engine(format!(
                "the engine on {host} acknowledges before it has written: add `sync_interval: always` to `jetstream {{}}`"
            )));
        }
    }
    if seen == 0 {
        return Err(Error::Engine(format!(
            "cannot see the engine's settings: no server of {} answers on its monitoring port {port}; add `http_port: {port}`",
            urls.join(", ")
        )));
    }
    Ok(())
}

fn host_of(url: &str) -> Option<String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    (!host.is_empty()).then(|| host.to_owned())
}

/// `/varz` of one server.
async fn monitor(host: &str, port: u16) -> std::io::Result<String> {
    const ANSWER_BYTES_MAX: u64 = 1 << 20;
    let mut stream = TcpStream::connect((host, port)).await?;
    let request = format!("GET /varz HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

async fn open_buckets(client: &Client, replicas: usize) -> Result<BTreeMap<Bucket, Store>, Error> {
    let jetstream = async_nats::jetstream::new(client.clone());
    let mut stores = BTreeMap::new();
    for bucket in Bucket::ALL {
        let config = kv::Config {
            bucket: bucket.name().to_owned(),
            history: 1,
            num_replicas: replicas,
            storage: StorageType::File,
            ..kv::Config::default()
        };
        let store = match jetstream.get_key_value(bucket.name()).await {
            Ok(store) => store,
            Err(_) => jetstream.create_key_value(config).await.map_err(|error| {
                Error::Engine(format!(
                    "cannot make {} on {replicas} of the engine's servers: {error}",
                    bucket.name()
                ))
            })?,
        };
        let status = store.status().await.map_err(|error| Error::Engine(error.to_string()))?;
        let held = status.info.config.num_replicas;
        if held < replicas {
            return Err(Error::Engine(format!(
                "{} is kept {held} times, and {replicas} are needed",
                bucket.name()
            )));
        }
        stores.insert(bucket, store);
    }
    Ok(stores)
}

#[cfg(test)]
mod tests {
    use super::host_of;

    #[test]
    fn the_host_of_an_address() {
        assert_eq!(host_of("nats://10.0.0.1:4222").as_deref(), Some("10.0.0.1"));
        assert_eq!(
            host_of("tls://user:pass@nats.example:4222").as_deref(),
            Some("nats.example")
        );
        assert_eq!(host_of("nats.example").as_deref(), Some("nats.example"));
        assert_eq!(host_of(""), None);
    }
}
