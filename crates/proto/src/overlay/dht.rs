//! A client of the Mainline DHT (BEP 5) that keeps and finds signed items (BEP 44): the directory's last resort, for those who chose it.
//!
//! A client alone: it answers nobody, stands in no routing table (`ro`, BEP 43) and has none of its own, so that nothing is sent while nothing is wanted. A job is one iterative look-up
//! ([`lookup`]): at most [`lookup::PATHS`] hosts at a time, [`lookup::ASKED_MAX`] in all, each once and for [`ANSWER_TIME`]; a put then goes to the nearest of those that
//! answered, which takes no further flow. Jobs run one after the other, [`REST`] apart and at most [`JOBS_MAX`] an hour; [`QUEUE_MAX`] wait.
//!
//! *Flows*: each host asked is one. [`Output::Send`] is carried out where the ledger has a token, else comes back as [`Input::NoFlow`]; the job waits, [`FLOW_WAIT`] at the most, and ends without.
//!
//! *Where it begins*: at hosts that answered before ([`KEPT_MAX`] are remembered), and at those that are there for newcomers where fewer than [`ENTRIES_MIN`] are known or none answers.
//!
//! *Whom it believes*: nobody. An item is handed on where the key asked for signed it; what it says is looked into by whoever asked. Liars can hide an item, and name nobody but liars on their own
//! path. Not done: ids that follow from addresses (BEP 42), IPv6 (BEP 32).

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

pub mod krpc;
pub mod lookup;

use krpc::{Answer, Item, NodeId, Query, Told, Tx};
use lookup::Lookup;

/// How long a host may take to answer.
pub const ANSWER_TIME: Duration = Duration::from_secs(2);
/// How long a job waits for a flow.
pub const FLOW_WAIT: Duration = Duration::from_secs(60);
/// How often a flow is asked for meanwhile.
const FLOW_AGAIN: Duration = Duration::from_secs(2);
/// No job takes longer.
pub const JOB_TIME: Duration = Duration::from_secs(120);
/// Between two jobs.
pub const REST: Duration = Duration::from_secs(5);
/// Jobs begun within [`JOBS_PERIOD`]; the next one waits.
pub const JOBS_MAX: usize = 30;
const JOBS_PERIOD: Duration = Duration::from_hours(1);
/// Jobs that wait; further ones are not taken.
pub const QUEUE_MAX: usize = 16;
/// Hosts remembered for the next job.
pub const KEPT_MAX: usize = 32;
/// Of those, a job begins at so many.
const ENTRIES_MAX: usize = 6;
/// Where fewer are known, those that are there for newcomers are asked, too.
const ENTRIES_MIN: usize = 3;
/// Hosts for newcomers that one job asks.
const ROUTERS_MAX: usize = 4;

/// Something that happened outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Hosts that answered in an earlier run.
    Remembered(Vec<SocketAddrV4>),
    /// Something is wanted.
    Want(Job),
    /// What [`Output::Resolve`] asked for; none where no name has an address.
    Routers(Vec<SocketAddrV4>),
    /// A datagram.
    Datagram {
        /// From whom.
        from: SocketAddrV4,
        /// What it says.
        bytes: Vec<u8>,
    },
    /// There was no flow for [`Output::Send`].
    NoFlow(SocketAddrV4),
    /// The deadline of [`Dht::poll_timeout`] is due.
    Timeout,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Find the item of a key.
    Get {
        /// Whose.
        key: [u8; 32],
        /// Only one with a higher number is news.
        newer_than: u64,
    },
    /// Have an item kept.
    Put(Item),
    /// Find out whether anybody answers.
    Check,
}

/// Something to do outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram, where the ledger has a token for the host.
    Send {
        /// To whom.
        to: SocketAddrV4,
        /// What.
        bytes: Vec<u8>,
    },
    /// Find the addresses of the hosts that are there for newcomers.
    Resolve,
    /// An item that its key signed, and that is news.
    Found(Item),
    /// Remember these for [`Input::Remembered`].
    Remember(Vec<SocketAddrV4>),
    /// A job is over.
    Done(Outcome),
}

/// The outputs of one input, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "outputs are what was decided; dropping them loses questions"]
pub struct Outputs(pub Vec<Output>);

/// What came of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Which.
    pub job: Job,
    /// How it ended.
    pub end: End,
    /// Hosts asked: so many flows, at the most.
    pub asked: usize,
    /// Hosts that answered, those for newcomers left out.
    pub answered: usize,
    /// Anybody answered at all.
    pub is_answered: bool,
    /// Hosts that keep the item now.
    pub stored: usize,
    /// News was found.
    pub is_found: bool,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All was asked that was to be asked.
    Complete,
    /// There was no flow below the soft cap for [`FLOW_WAIT`].
    NoFlow,
    /// It took [`JOB_TIME`].
    Late,
}

/// The client.
#[derive(Debug)]
pub struct Dht {
    rng: ChaCha20Rng,
    queue: VecDeque<Job>,
    running: Option<Run>,
    /// Hosts that answered, the last first.
    kept: Vec<SocketAddrV4>,
    /// When each job of the last hour began.
    begun: VecDeque<Instant>,
    /// The next job does not begin sooner.
    rests_until: Option<Instant>,
    out: Vec<Output>,
}

/// A job under way.
#[derive(Debug)]
struct Run {
    job: Job,
    /// Of this job alone, so that hosts cannot tell by it that two are of one client.
    own: NodeId,
    lookup: Lookup,
    until: Instant,
    routers: Routers,
    under_way: BTreeMap<Tx, Question>,
    /// Since when there was no flow, and when one is asked for again.
    without_flow: Option<(Instant, Instant)>,
    /// Hosts were asked to keep the item.
    is_storing: bool,
    stored: usize,
    is_found: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Routers {
    NotAsked,
    Awaited,
    Had,
}

#[derive(Debug, Clone, Copy)]
struct Question {
    to: SocketAddrV4,
    until: Instant,
}

impl Dht {
    /// A client that knows nobody. The seed must be fresh and random.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            rng: ChaCha20Rng::from_seed(seed),
            queue: VecDeque::new(),
            running: None,
            kept: Vec::new(),
            begun: VecDeque::new(),
            rests_until: None,
            out: Vec::new(),
        }
    }

    /// Hosts that are remembered.
    pub fn kept(&self) -> &[SocketAddrV4] {
        &self.kept
    }

    /// Takes in what happened and says what to do.
    pub fn handle(&mut self, input: Input, now: Instant) -> Outputs {
        match input {
            Input::Remembered(mut hosts) => {
                hosts.truncate(KEPT_MAX);
                self.kept = hosts;
            }
            Input::Want(job) => self.want(job),
            Input::Routers(hosts) => self.routers_known(&hosts),
            Input::Datagram { from, bytes } => self.datagram(from, &bytes),
            Input::NoFlow(to) => self.no_flow(to, now),
            Input::Timeout => {}
        }
        self.go_on(now);
        Outputs(std::mem::take(&mut self.out))
    }

    /// When [`Input::Timeout`] is due, and why: never while nothing is wanted.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let Some(run) = &self.running else {
            let next = self.may_begin_at()?;
            return (!self.queue.is_empty()).then_some((next, "begin the next job"));
        };
        let answers = run.under_way.values().map(|question| question.until).min();
        let due = [
            Some((run.until, "give a job up")),
            answers.map(|at| (at, "stop waiting for a host")),
            run.without_flow.map(|(_, again)| (again, "ask for a flow again")),
        ];
        due.into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// When a job may begin; none where it may at once.
    fn may_begin_at(&self) -> Option<Instant> {
        let hour = (self.begun.len() >= JOBS_MAX).then(|| self.begun.front().map(|at| *at + JOBS_PERIOD));
        self.rests_until.max(hour.flatten())
    }

    fn want(&mut self, job: Job) {
        let is_same = |other: &Job| match (&job, other) {
            (Job::Get { key, .. }, Job::Get { key: other, .. }) => key == other,
            (Job::Put(_), Job::Put(_)) | (Job::Check, Job::Check) => true,
            _ => false,
        };
        // A newer put takes the place of an older one.
        self.queue.retain(|other| !is_same(other));
        if self.queue.len() < QUEUE_MAX {
            self.queue.push_back(job);
        }
    }

    fn begin(&mut self, job: Job, now: Instant) {
        let mut own: NodeId = [0; 20];
        self.rng.fill_bytes(&mut own);
        let place = match &job {
            Job::Get { key, .. } => krpc::target(key),
            Job::Put(item) => krpc::target(&item.key),
            // Anywhere.
            Job::Check => own,
        };
        let mut lookup = Lookup::new(place);
        let mut entries = self.kept.clone();
        for at in 0..entries.len().min(ENTRIES_MAX) {
            let left = u32::try_from(entries.len() - at).unwrap_or(u32::MAX);
            let other = at + (self.rng.next_u32() % left) as usize;
            entries.swap(at, other);
            lookup.begin_at(entries[at]);
        }
        let is_poor = self.kept.len() < ENTRIES_MIN;
        if is_poor {
            self.out.push(Output::Resolve);
        }
        self.begun.push_back(now);
        self.running = Some(Run {
            job,
            own,
            lookup,
            until: now + JOB_TIME,
            routers: if is_poor { Routers::Awaited } else { Routers::NotAsked },
            under_way: BTreeMap::new(),
            without_flow: None,
            is_storing: false,
            stored: 0,
            is_found: false,
        });
    }

    fn routers_known(&mut self, hosts: &[SocketAddrV4]) {
        let Some(run) = self.running.as_mut().filter(|run| run.routers == Routers::Awaited) else {
            return;
        };
        run.routers = Routers::Had;
        for host in hosts.iter().take(ROUTERS_MAX) {
            run.lookup.begin_at_router(*host);
        }
    }

    fn datagram(&mut self, from: SocketAddrV4, bytes: &[u8]) {
        let Some(run) = &mut self.running else { return };
        let Ok(Answer { tx, told }) = krpc::decode(bytes) else {
            return;
        };
        // Whoever guesses the name of a question must answer from where it was sent to as well.
        if run.under_way.get(&tx).is_none_or(|question| question.to != from) {
            return;
        }
        run.under_way.remove(&tx);
        run.without_flow = None;
        match told {
            Some(_) if run.is_storing => run.stored += 1,
            None if run.is_storing => {}
            Some(told) => run.heard(from, told, &mut self.out),
            None => run.lookup.silent(&from),
        }
    }

    fn no_flow(&mut self, to: SocketAddrV4, now: Instant) {
        let Some(run) = &mut self.running else { return };
        let tx = run
            .under_way
            .iter()
            .find(|(_, question)| question.to == to)
            .map(|(tx, _)| *tx);
        let Some(tx) = tx else { return };
        run.under_way.remove(&tx);
        run.lookup.not_asked(&to);
        let since = run.without_flow.map_or(now, |(since, _)| since);
        run.without_flow = Some((since, now + FLOW_AGAIN));
    }

    fn go_on(&mut self, now: Instant) {
        self.begun.retain(|at| now.saturating_duration_since(*at) < JOBS_PERIOD);
        if self.running.is_none()
            && self.may_begin_at().is_none_or(|at| at <= now)
            && let Some(job) = self.queue.pop_front()
        {
            self.begin(job, now);
        }
        let Some(run) = &mut self.running else { return };
        run.give_up_silent(now);
        let end = if now >= run.until {
            Some(End::Late)
        } else {
            run.ask(&mut self.rng, &mut self.out, now)
        };
        if let Some(end) = end {
            self.finish(end, now);
        }
    }

    fn finish(&mut self, end: End, now: Instant) {
        let Some(run) = self.running.take() else { return };
        self.rests_until = Some(now + REST);
        let answerers = run.lookup.answerers();
        let before = self.kept.clone();
        // Those that did not answer are forgotten only where others did: without a network nobody does.
        if run.lookup.has_answer() {
            let silent: Vec<&SocketAddrV4> = run.lookup.silent_ones().collect();
            self.kept
                .retain(|host| !silent.contains(&host) && !answerers.contains(host));
            self.kept.splice(0..0, answerers.iter().copied());
            self.kept.truncate(KEPT_MAX);
        }
        if self.kept != before {
            self.out.push(Output::Remember(self.kept.clone()));
        }
        self.out.push(Output::Done(Outcome {
            job: run.job,
            end,
            asked: run.lookup.asked(),
            answered: answerers.len(),
            is_answered: run.lookup.has_answer(),
            stored: run.stored,
            is_found: run.is_found,
        }));
    }
}

impl Run {
    fn heard(&mut self, from: SocketAddrV4, told: Told, out: &mut Vec<Output>) {
        if let (Job::Get { key, newer_than }, Some(item)) = (&self.job, told.item)
            && item.key == *key
            && item.seq > *newer_than
            && item.is_authentic()
        {
            self.is_found = true;
            out.push(Output::Found(item));
            self.lookup.close();
        }
        self.lookup.answered(from, told.id, told.nodes, told.token);
        if self.job == Job::Check {
            self.lookup.close();
        }
    }

    fn give_up_silent(&mut self, now: Instant) {
        let lookup = &mut self.lookup;
        self.under_way.retain(|_, question| {
            let is_waited_for = now < question.until;
            if !is_waited_for {
                lookup.silent(&question.to);
                // It was asked, so there was a flow.
                self.without_flow = None;
            }
            is_waited_for
        });
    }

    /// Asks whoever is to be asked now. Tells how the job ended, once it has.
    fn ask(&mut self, rng: &mut ChaCha20Rng, out: &mut Vec<Output>, now: Instant) -> Option<End> {
        if let Some((since, again)) = self.without_flow {
            if now.saturating_duration_since(since) >= FLOW_WAIT {
                return Some(End::NoFlow);
            }
            if now < again {
                return None;
            }
            self.without_flow = Some((since, now + FLOW_AGAIN));
        }
        if self.is_storing {
            return self.under_way.is_empty().then_some(End::Complete);
        }
        // One at a time while flows are short: the others would only be refused as well.
        let is_short = self.without_flow.is_some();
        while !is_short || self.under_way.is_empty() {
            let Some((to, is_router)) = self.lookup.ask_next() else {
                break;
            };
            let place = *self.lookup.place();
            let query = match is_router {
                true => Query::FindNode(&place),
                false => Query::Get(&place),
            };
            let tx = tx(rng, &self.under_way);
            out.push(Output::Send {
                to,
                bytes: query.encode(tx, &self.own),
            });
            let until = now + ANSWER_TIME;
            self.under_way.insert(tx, Question { to, until });
        }
        if !self.lookup.is_over() || self.routers == Routers::Awaited {
            return None;
        }
        if !self.lookup.has_answer() && self.routers == Routers::NotAsked {
            self.routers = Routers::Awaited;
            out.push(Output::Resolve);
            return None;
        }
        match self.job {
            Job::Put(_) => self.store(rng, out, now),
            _ => Some(End::Complete),
        }
    }

    /// Asks those nearest that answered to keep the item.
    fn store(&mut self, rng: &mut ChaCha20Rng, out: &mut Vec<Output>, now: Instant) -> Option<End> {
        let Job::Put(item) = &self.job else {
            return Some(End::Complete);
        };
        self.is_storing = true;
        for (to, token) in self.lookup.stores() {
            let tx = tx(rng, &self.under_way);
            out.push(Output::Send {
                to,
                bytes: Query::Put(item, &token).encode(tx, &self.own),
            });
            let until = now + ANSWER_TIME;
            self.under_way.insert(tx, Question { to, until });
        }
        self.under_way.is_empty().then_some(End::Complete)
    }
}

/// A name that no question under way has.
fn tx(rng: &mut ChaCha20Rng, under_way: &BTreeMap<Tx, Question>) -> Tx {
    loop {
        let tx = rng.next_u32().to_be_bytes();
        if !under_way.contains_key(&tx) {
            return tx;
        }
    }
}
