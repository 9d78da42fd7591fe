//! The only event loop: arrivals, deadlines and questions in; then store, relay, send, in this order.
//!
//! What has arrived is taken in batches, and a batch is committed once: persist, then send, and group commit for free.
//! A store error is fatal: nothing is acknowledged that the disk refused.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use offhook_exchange_proto::time::Moment;
use offhook_exchange_proto::{Config, Exchange, Input, Outputs, Seeds};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::relay::Relay;
use crate::signalling::{Arrival, Listen, Rsipstack, SipSignalling};
use crate::store::Store;
use crate::view::{self, LiveCall, LivePhone};
use crate::{Error, Settings, tls};

/// Arrivals waiting for the loop; sockets wait when it is full.
const ARRIVALS: usize = 4_096;
/// Most inputs in one batch, hence in one commit.
const BATCH: usize = 256;
/// How often the store is looked at for accounts added by another process.
const ACCOUNTS_POLL: Duration = Duration::from_millis(500);

/// A question to the running exchange.
enum Question {
    Calls(oneshot::Sender<Vec<LiveCall>>),
    Phones(oneshot::Sender<Vec<LivePhone>>),
    Metrics(oneshot::Sender<String>),
    ForwardedByPort(oneshot::Sender<BTreeMap<u16, u64>>),
    Stop,
}

/// A running exchange.
pub struct Node {
    questions: mpsc::Sender<Question>,
    task: JoinHandle<Result<(), Error>>,
    banner: String,
}

impl Node {
    /// Opens the store and the sockets and starts the loop.
    pub async fn start(settings: Settings) -> Result<Self, Error> {
        let store = Store::open(&settings.home)?;
        let (arrivals_in, arrivals) = mpsc::channel(ARRIVALS);
        let listen = Listen {
            address: settings.listen,
            port: settings.port,
            tls_port: settings.tls_port,
        };
        let acceptor = settings
            .tls_port
            .map(|_| tls::acceptor(&settings.home, &settings.domain))
            .transpose()?;
        let signalling = Rsipstack::open(listen, acceptor, arrivals_in).await?;
        let exchange = open_exchange(&settings, &store)?;
        let (questions_in, questions) = mpsc::channel(64);
        let relay = Relay::new(settings.listen);
        let driver = Driver {
            exchange,
            store,
            signalling,
            relay,
        };
        let task = tokio::spawn(driver.run(arrivals, questions));
        Ok(Self {
            questions: questions_in,
            task,
            banner: banner(&settings),
        })
    }

    /// Where it listens, for people.
    pub fn banner(&self) -> &str {
        &self.banner
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.questions.send(question(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Live calls; none when it has stopped.
    pub async fn calls(&self) -> Vec<LiveCall> {
        self.ask(Question::Calls).await.unwrap_or_default()
    }

    /// Registered phones.
    pub async fn phones(&self) -> Vec<LivePhone> {
        self.ask(Question::Phones).await.unwrap_or_default()
    }

    /// Metrics in Prometheus' text format.
    pub async fn metrics(&self) -> String {
        self.ask(Question::Metrics).await.unwrap_or_default()
    }

    /// RTP packets sent to the phone behind each media port.
    pub async fn forwarded_by_port(&self) -> BTreeMap<u16, u64> {
        self.ask(Question::ForwardedByPort).await.unwrap_or_default()
    }

    /// Stops and gives the reason if it had stopped by itself.
    pub async fn stop(self) -> Result<(), Error> {
        let _ = self.questions.send(Question::Stop).await;
        self.task.await.unwrap_or(Ok(()))
    }
}

fn banner(settings: &Settings) -> String {
    let address = settings.advertised();
    let tls = settings
        .tls_port
        .map(|port| format!(", TLS {port}"))
        .unwrap_or_default();
    format!(
        "exchange for {} on {address}: UDP and TCP {}{tls}",
        settings.domain, settings.port
    )
}

fn open_exchange(settings: &Settings, store: &Store) -> Result<Exchange, Error> {
    let mut config = Config::new(&settings.domain, settings.advertised());
    config.port = settings.port;
    config.tls_port = settings.tls_port.unwrap_or(0);
    config.media = settings.media;
    config.authenticate = settings.authenticate;
    let seeds = Seeds {
        tokens: crate::random()?,
        nonces: store.nonce_key()?,
    };
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall = Moment(wall.as_millis() as u64);
    let mut exchange = Exchange::new(config, seeds, store.tables()?, Instant::now(), wall);
    for (account, bindings) in store.bindings()? {
        exchange.restore_bindings(&account, bindings);
    }
    Ok(exchange)
}

struct Driver<S> {
    exchange: Exchange,
    store: Store,
    signalling: S,
    relay: Relay,
}

impl<S: SipSignalling> Driver<S> {
    async fn run(
        mut self,
        mut arrivals: mpsc::Receiver<Arrival>,
        mut questions: mpsc::Receiver<Question>,
    ) -> Result<(), Error> {
        let mut accounts = tokio::time::interval(ACCOUNTS_POLL);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let due = self.exchange.poll_timeout().map(|(at, _)| at);
            let deadline = tokio::time::Instant::from_std(due.unwrap_or_else(|| Instant::now() + ACCOUNTS_POLL));
            let mut inputs = Vec::new();
            tokio::select! {
                count = arrivals.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return Ok(());
                    }
                    inputs.extend(batch.drain(..).map(input));
                }
                () = tokio::time::sleep_until(deadline) => inputs.push(Input::Timeout),
                _ = accounts.tick() => {
                    if self.store.changed_by_others()? {
                        inputs.push(Input::Tables(self.store.tables()?));
                    }
                }
                question = questions.recv() => match question {
                    Some(Question::Stop) | None => return Ok(()),
                    Some(question) => self.answer(question),
                },
            }
            let outputs = inputs
                .into_iter()
                .map(|input| self.exchange.handle(input, Instant::now()))
                .collect();
            self.perform(outputs).await?;
        }
    }

    async fn perform(&mut self, outputs: Vec<Outputs>) -> Result<(), Error> {
        let store: Vec<_> = outputs
            .iter()
            .flat_map(|outputs| outputs.store.iter().cloned())
            .collect();
        self.store.commit(&store)?;
        for command in outputs.iter().flat_map(|outputs| &outputs.relay) {
            self.relay.handle(*command);
        }
        for transmit in outputs.into_iter().flat_map(|outputs| outputs.send) {
            self.signalling.send(transmit).await;
        }
        Ok(())
    }

    /// Whoever asked may be gone; that is no fault.
    fn answer(&self, question: Question) {
        match question {
            Question::Calls(reply) => {
                let _ = reply.send(self.exchange.calls().into_iter().map(LiveCall::from).collect());
            }
            Question::Phones(reply) => {
                let _ = reply.send(view::phones(&self.exchange));
            }
            Question::Metrics(reply) => {
                let _ = reply.send(view::prometheus(&self.exchange, self.relay.counters()));
            }
            Question::ForwardedByPort(reply) => {
                let _ = reply.send(self.relay.forwarded_by_port());
            }
            Question::Stop => {}
        }
    }
}

fn input(arrival: Arrival) -> Input {
    match arrival {
        Arrival::Message(flow, bytes) => Input::Received { flow, bytes },
        Arrival::Closed(flow) => Input::FlowClosed(flow),
    }
}
