//! The DHT as the last resort: who has moved is found there by those who chose it, whatever hosts say, and within the flows that there are.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod net;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use net::Net;
use offhook_proto::crypto::{KeyPair, Secret};
use offhook_proto::history::RoomId;
use offhook_proto::overlay::dht::krpc::{Item, NodeId, VALUE_BYTES_MAX, signed_text, target};
use offhook_proto::overlay::dht::lookup::{ASKED_MAX, NEAREST, PATHS};
use offhook_proto::overlay::dht::{Dht, End, Input, Job, Outcome, Output};
use offhook_proto::overlay::ledger::{FlowLedger, Kind, Limits, To};
use offhook_proto::peer;
use proptest::prelude::*;

// Two peers, and a DHT that keeps everything.

/// Ada and Bob share a room; Bob has moved, and Ada says something that he is to hear.
fn two(with_dht: [bool; 2]) -> (Net, usize, usize, RoomId) {
    let mut net = Net::new(1);
    let (ada, bob) = (net.add("Ada"), net.add("Bob"));
    for (at, is_on) in [ada, bob].into_iter().zip(with_dht) {
        net.input(at, peer::Input::UseDht(is_on));
    }
    let room = net.room(ada, "kitchen");
    net.join(ada, bob, room);
    net.settle();
    net.forbid(ada, bob);
    net.moves(bob, "203.0.113.99:4433");
    net.hide(ada);
    net.pass(Duration::from_secs(400));
    net.unbar(ada, bob);
    (net, ada, bob, room)
}

#[test]
fn who_has_moved_is_found_in_the_dht() {
    let (mut net, ada, bob, room) = two([true, true]);
    net.say(ada, room, "where are you?");
    net.pass(Duration::from_secs(40));
    assert!(net.texts(bob, room).contains(&"where are you?".to_owned()));
    // At rest there is a put an hour, and no look-up.
    net.dht_jobs.clear();
    net.pass(Duration::from_hours(6));
    assert!(net.dht_jobs.iter().all(|(_, job)| matches!(job, Job::Put(_))));
    let puts = net.dht_jobs.iter().filter(|(at, _)| *at == ada).count();
    assert!((4..=7).contains(&puts), "{puts} puts in six hours");
}

#[test]
fn who_comes_back_to_nobody_looks_for_those_seen_last_and_not_for_ever() {
    let (mut net, ada, bob, _) = two([true, true]);
    net.pass(Duration::from_secs(100));
    assert!(net.lines_of(ada).contains(&bob));
    net.offline(bob);
    net.dht_jobs.clear();
    net.pass(Duration::from_hours(12));
    let gets = net
        .dht_jobs
        .iter()
        .filter(|(at, job)| *at == ada && matches!(job, Job::Get { .. }));
    let gets = gets.count();
    assert!((1..=12).contains(&gets), "{gets} look-ups");
}

#[test]
fn without_it_nobody_is_found() {
    let (mut net, ada, bob, room) = two([false, false]);
    net.say(ada, room, "where are you?");
    net.pass(Duration::from_secs(300));
    assert!(!net.texts(bob, room).contains(&"where are you?".to_owned()));
    assert_eq!(net.dht_jobs, []);
}

#[test]
fn what_the_device_did_not_sign_is_not_believed() {
    let (mut net, ada, bob, room) = two([false, true]);
    let before = net.place_known(ada, bob);
    // Whoever keeps Bob's item has only what Bob signed; here even the item's key is in strangers' hands.
    let items: Vec<Item> = std::mem::take(&mut net.kept).into_values().collect();
    net.input(ada, peer::Input::UseDht(true));
    net.say(ada, room, "where are you?");
    net.pass(Duration::from_secs(20));
    let keys = net.dht_jobs.iter().filter_map(|(_, job)| match job {
        Job::Get { key, .. } => Some(*key),
        _ => None,
    });
    let keys: BTreeSet<[u8; 32]> = keys.collect();
    assert!(!keys.is_empty());
    for key in keys {
        for item in &items {
            let mut changed = item.value.clone();
            changed[20] ^= 1;
            for value in [changed, Vec::new(), vec![7; VALUE_BYTES_MAX]] {
                let item = Item {
                    key,
                    value,
                    ..item.clone()
                };
                net.input(ada, peer::Input::DhtFound(item));
            }
        }
    }
    assert_eq!(net.place_known(ada, bob), before);
    // The true item is believed.
    net.kept = items.into_iter().map(|item| (item.key, item)).collect();
    net.pass(Duration::from_secs(600));
    assert!(net.texts(bob, room).contains(&"where are you?".to_owned()));
}

// One client, and hosts of every temper.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Temper {
    Honest,
    Silent,
    /// Names accomplices next to every place, and keeps nothing.
    Liar,
    /// Names itself on many ports, and the network that the asker stands in.
    Selfish,
    /// Answers with more than may be said.
    Huge,
    /// Answers with an item that is not the key's, or an old one.
    Forger,
}

struct Host {
    id: NodeId,
    temper: Temper,
    kept: Vec<Item>,
}

struct World {
    now: Instant,
    dht: Dht,
    ledger: FlowLedger,
    hosts: BTreeMap<SocketAddrV4, Host>,
    routers: Vec<SocketAddrV4>,
    /// Every host that something was sent to.
    asked: Vec<SocketAddrV4>,
    found: Vec<Item>,
    done: Vec<Outcome>,
    arriving: VecDeque<(Instant, SocketAddrV4, Vec<u8>)>,
    peak: usize,
    unanswered_at_once: usize,
}

fn random(number: u64) -> NodeId {
    offhook_proto::crypto::sha1(&number.to_be_bytes())
}

fn pair(number: u8) -> KeyPair {
    KeyPair::from_seed(&Secret([number; 32]))
}

fn item(number: u8, seq: u64) -> Item {
    let value = vec![number; 300];
    let (key, signature) = pair(number).sign_blinded(b"day", &signed_text(seq, &value));
    Item {
        key,
        seq,
        value,
        signature,
    }
}

impl World {
    fn new(count: u64, temper: impl Fn(u64) -> Temper, flows: u16) -> Self {
        let at = |n: u64| SocketAddrV4::new([90, 1, (n >> 8) as u8, n as u8].into(), 6881);
        let host = |n: u64| {
            let kept = Vec::new();
            (
                at(n),
                Host {
                    id: random(n),
                    temper: temper(n),
                    kept,
                },
            )
        };
        Self {
            #[allow(clippy::disallowed_methods, reason = "an instant can be had in no other way")]
            now: Instant::now(),
            dht: Dht::new([7; 32]),
            ledger: FlowLedger::new(Limits::new(flows, None).unwrap()),
            hosts: (0..count).map(host).collect(),
            // The first is for newcomers, and honest.
            routers: vec![at(0)],
            asked: Vec::new(),
            found: Vec::new(),
            done: Vec::new(),
            arriving: VecDeque::new(),
            peak: 0,
            unanswered_at_once: 0,
        }
    }

    fn input(&mut self, input: Input) {
        let outputs = self.dht.handle(input, self.now);
        for output in outputs.0 {
            match output {
                Output::Send { to, bytes } => self.send(to, &bytes),
                Output::Resolve => {
                    let routers = self.routers.clone();
                    self.input(Input::Routers(routers));
                }
                Output::Found(item) => self.found.push(item),
                Output::Remember(hosts) => assert!(hosts.len() <= offhook_proto::overlay::dht::KEPT_MAX),
                Output::Done(outcome) => self.done.push(outcome),
            }
        }
    }

    fn send(&mut self, to: SocketAddrV4, bytes: &[u8]) {
        let flow = To::Lookup(to.to_string());
        if !self.ledger.ask_host(flow.clone(), "test", self.now) {
            self.input(Input::NoFlow(to));
            return;
        }
        self.asked.push(to);
        self.peak = self.peak.max(self.ledger.in_use(self.now));
        assert!(is_public(to), "{to} was asked");
        let later = self.now + Duration::from_millis(50);
        if let Some(answer) = self.answer(to, bytes) {
            self.ledger.host_answered(&flow, self.now);
            self.arriving.push_back((later, to, answer));
        }
        let under_way = self.arriving.len();
        self.unanswered_at_once = self.unanswered_at_once.max(under_way);
    }

    fn answer(&mut self, to: SocketAddrV4, bytes: &[u8]) -> Option<Vec<u8>> {
        let after = |text: &[u8], length: usize| {
            let at = bytes.windows(text.len()).position(|window| window == text)?;
            bytes.get(at + text.len()..at + text.len() + length)
        };
        let tx: [u8; 4] = after(b"1:t4:", 4)?.try_into().ok()?;
        let place: NodeId = after(b"6:target20:", 20)?.try_into().ok()?;
        assert!(after(b"2:roi1e", 0).is_some(), "a client that answers nobody says so");
        let name = to.ip().octets();
        let Some(host) = self.hosts.get(&to) else {
            // Accomplices are made up as they are asked.
            return (name[0] == 66).then(|| said(tx, &near(&place, name[3]), &accomplices(&place, name[3]), None));
        };
        let id = host.id;
        match host.temper {
            Temper::Silent => None,
            Temper::Liar => Some(said(tx, &near(&place, 1), &accomplices(&place, name[3]), None)),
            Temper::Selfish => {
                let own = (1..=60u16).map(|n| (near(&place, n as u8), SocketAddrV4::new(*to.ip(), 2_000 + n)));
                let here = [
                    "127.0.0.1:6881",
                    "192.168.0.1:6881",
                    "10.0.0.1:80",
                    "255.255.255.255:6881",
                    "94.1.1.1:53",
                ];
                let here = here.iter().map(|at| (place, at.parse().unwrap()));
                Some(said(tx, &id, &own.chain(here).collect::<Vec<_>>(), None))
            }
            Temper::Huge => Some(vec![b'd'; 60_000]),
            Temper::Forger => {
                let known = self.known_to(to, &place);
                let true_item = item(1, 5);
                let forged = Item {
                    seq: 9,
                    ..true_item.clone()
                };
                let old = item(1, 2);
                let other = item(2, 9);
                let which = [forged, old, other, true_item.clone()];
                let lie = which.into_iter().nth(usize::from(name[3]) % 3).unwrap();
                Some(said(tx, &id, &known, Some(&lie)))
            }
            Temper::Honest if after(b"1:q3:put", 0).is_some() => {
                let value = after(b"1:v300:", 300).unwrap().to_vec();
                let seq_text = &bytes[bytes.windows(6).position(|w| w == b"3:seqi").unwrap() + 6..];
                let digits = seq_text.iter().take_while(|byte| byte.is_ascii_digit());
                let seq = digits.fold(0, |seq, digit| seq * 10 + u64::from(digit - b'0'));
                let item = Item {
                    key: after(b"1:k32:", 32)?.try_into().ok()?,
                    seq,
                    value,
                    signature: after(b"3:sig64:", 64)?.try_into().ok()?,
                };
                assert!(item.is_authentic() && after(b"5:token4:", 4) == Some(b"toke"));
                self.hosts.get_mut(&to).unwrap().kept.push(item);
                Some(said(tx, &id, &[], None))
            }
            Temper::Honest => {
                let known = self.known_to(to, &place);
                let kept = self.hosts[&to].kept.iter().filter(|item| target(&item.key) == place);
                Some(said(tx, &id, &known, kept.max_by_key(|item| item.seq)))
            }
        }
    }

    /// The nearest eight of a half of all hosts that this one knows, with most of those near it.
    fn known_to(&self, asked: SocketAddrV4, place: &NodeId) -> Vec<(NodeId, SocketAddrV4)> {
        let own = self.hosts[&asked].id;
        let mut known: Vec<(NodeId, NodeId, SocketAddrV4)> = Vec::new();
        for (at, host) in &self.hosts {
            let is_near = distance(&own, &host.id)[0] < 32;
            let is_known = u32::from(at.ip().octets()[3]) + u32::from(asked.ip().octets()[3]) * 7;
            if *at != asked && (is_near || is_known % 2 == 0) {
                known.push((distance(place, &host.id), host.id, *at));
            }
        }
        known.sort_unstable();
        known.into_iter().take(8).map(|(_, id, at)| (id, at)).collect()
    }

    fn run(&mut self, job: Job) -> Outcome {
        let before = self.done.len();
        self.input(Input::Want(job));
        for _ in 0..100_000 {
            if self.done.len() > before {
                return self.done.last().unwrap().clone();
            }
            let due = self.dht.poll_timeout().unwrap().0;
            match self.arriving.front() {
                Some((at, ..)) if *at <= due => {
                    let (at, from, bytes) = self.arriving.pop_front().unwrap();
                    self.now = self.now.max(at);
                    self.input(Input::Datagram { from, bytes });
                }
                _ => {
                    assert!(due >= self.now, "a deadline that has passed stays due");
                    self.now = due + Duration::from_millis(1);
                    self.input(Input::Timeout);
                }
            }
        }
        panic!("it never ends");
    }

    fn asked_since(&self, before: usize) -> BTreeSet<SocketAddrV4> {
        self.asked[before..].iter().copied().collect()
    }
}

fn is_public(at: SocketAddrV4) -> bool {
    matches!(at.ip().octets()[0], 66 | 90) && at.port() >= 1_024
}

fn distance(a: &NodeId, b: &NodeId) -> NodeId {
    std::array::from_fn(|at| a[at] ^ b[at])
}

/// An id next to a place.
fn near(place: &NodeId, number: u8) -> NodeId {
    let mut id = *place;
    id[19] ^= number;
    id
}

fn accomplices(place: &NodeId, of: u8) -> Vec<(NodeId, SocketAddrV4)> {
    let one = |n: u8| {
        (
            near(place, n),
            SocketAddrV4::new([66, of, n, n.wrapping_mul(of)].into(), 6881),
        )
    };
    (1..=20).map(one).collect()
}

fn said(tx: [u8; 4], id: &NodeId, nodes: &[(NodeId, SocketAddrV4)], item: Option<&Item>) -> Vec<u8> {
    let mut out = b"d1:rd2:id20:".to_vec();
    out.extend_from_slice(id);
    if let Some(item) = item {
        out.extend_from_slice(b"1:k32:");
        out.extend_from_slice(&item.key);
    }
    out.extend_from_slice(format!("5:nodes{}:", nodes.len() * 26).as_bytes());
    for (id, at) in nodes {
        out.extend_from_slice(id);
        out.extend_from_slice(&at.ip().octets());
        out.extend_from_slice(&at.port().to_be_bytes());
    }
    if let Some(item) = item {
        out.extend_from_slice(format!("3:seqi{}e3:sig64:", item.seq).as_bytes());
        out.extend_from_slice(&item.signature);
    }
    out.extend_from_slice(b"5:token4:toke");
    if let Some(item) = item {
        out.extend_from_slice(format!("1:v{}:", item.value.len()).as_bytes());
        out.extend_from_slice(&item.value);
    }
    out.extend_from_slice(b"e1:t4:");
    out.extend_from_slice(&tx);
    out.extend_from_slice(b"1:y1:re");
    out
}

fn get(newer_than: u64) -> Job {
    Job::Get {
        key: item(1, 5).key,
        newer_than,
    }
}

/// One puts, another that begins afresh gets.
fn put_then_get(world: &mut World, newer_than: u64) -> (Outcome, Outcome) {
    let put = world.run(Job::Put(item(1, 5)));
    world.dht = Dht::new([8; 32]);
    // What the gateway remembers of the other one is of no concern here.
    world.now += Duration::from_secs(200);
    let got = world.run(get(newer_than));
    (put, got)
}

#[test]
fn what_was_put_is_found_within_few_flows() {
    let mut world = World::new(200, |_| Temper::Honest, 60);
    let (put, got) = put_then_get(&mut world, 4);
    assert!(
        put.end == End::Complete && put.stored >= 6 && put.stored <= PATHS * NEAREST,
        "{put:?}"
    );
    assert!(
        got.is_found && world.found.iter().all(|found| *found == item(1, 5)),
        "{got:?}"
    );
    assert!(put.asked <= ASKED_MAX && got.asked <= 12, "{put:?} {got:?}");
    assert!(world.peak <= ASKED_MAX, "{} flows", world.peak);
    // Those who hold nothing newer are no news.
    world.found.clear();
    assert!(!world.run(get(5)).is_found && world.found.is_empty());
}

#[test]
fn hosts_that_answered_are_asked_first_and_nothing_is_due_at_rest() {
    let mut world = World::new(200, |_| Temper::Honest, 60);
    world.run(Job::Put(item(1, 5)));
    assert!(!world.dht.kept().is_empty());
    assert_eq!(world.dht.poll_timeout(), None);
    let (before, router) = (world.asked.len(), world.routers[0]);
    world.routers.clear();
    assert!(world.run(get(0)).is_found);
    let asked = world.asked_since(before);
    assert!(!asked.contains(&router) || world.dht.kept().contains(&router));
    assert_eq!(world.dht.poll_timeout(), None);
}

#[test]
fn nobody_is_asked_twice_or_with_many_at_once() {
    let mut world = World::new(300, |n| if n % 3 == 1 { Temper::Silent } else { Temper::Honest }, 60);
    let outcome = world.run(get(0));
    assert_eq!(world.asked.len(), world.asked_since(0).len());
    assert_eq!(world.asked.len(), outcome.asked);
    assert!(world.unanswered_at_once <= PATHS);
}

#[test]
fn a_full_ledger_is_waited_for_and_then_given_up() {
    // Six below the soft cap, of which four are in use by something else.
    let mut world = World::new(200, |_| Temper::Honest, 9);
    for n in 0..4 {
        world
            .ledger
            .hold(To::Tcp(n.to_string()), Kind::Relay, "test", world.now);
    }
    let started = world.now;
    let outcome = world.run(get(0));
    assert_eq!((outcome.end, outcome.asked), (End::NoFlow, 2));
    assert!(world.now - started < Duration::from_secs(120));
    assert!(world.peak <= 6);
    // With all of them in use nobody is asked.
    for n in 4..6 {
        world.now += Duration::from_secs(200);
        world
            .ledger
            .hold(To::Tcp(n.to_string()), Kind::Relay, "test", world.now);
    }
    let before = world.asked.len();
    let outcome = world.run(get(0));
    assert_eq!(
        (outcome.end, outcome.asked, world.asked.len()),
        (End::NoFlow, 0, before)
    );
    assert_eq!(world.dht.poll_timeout(), None);
}

#[test]
fn with_no_network_it_ends() {
    let mut world = World::new(1, |_| Temper::Silent, 60);
    let outcome = world.run(get(0));
    assert!(!outcome.is_answered && outcome.end == End::Complete);
    world.routers.clear();
    let outcome = world.run(Job::Check);
    assert!(!outcome.is_answered && outcome.asked == 0);
}

#[test]
fn jobs_are_few_an_hour() {
    let mut world = World::new(50, |_| Temper::Honest, 60);
    let begun = world.now;
    for _ in 0..31 {
        world.run(Job::Check);
    }
    assert!(world.now - begun > Duration::from_secs(3_000));
}

/// Of a hundred look-ups with hosts of this temper in so many of ten places: how many found the item.
fn found_among(temper: Temper, of_ten: u64) -> usize {
    let mut found = 0;
    for round in 0..20u64 {
        let pick = move |n: u64| match n > 0 && random(n * 1_000 + round)[0] % 10 < of_ten as u8 {
            true => temper,
            false => Temper::Honest,
        };
        let mut world = World::new(200, pick, 60);
        let (put, got) = put_then_get(&mut world, 4);
        assert!(put.asked <= ASKED_MAX && got.asked <= ASKED_MAX);
        assert!(world.peak <= Limits::new(60, None).unwrap().soft());
        assert!(world.found.iter().all(|found| *found == item(1, 5)), "never misled");
        assert_eq!(got.is_found, !world.found.is_empty());
        found += usize::from(got.is_found);
    }
    found
}

#[test]
fn hosts_of_ill_will_hide_things_and_mislead_nobody() {
    for (temper, of_ten, least) in [
        (Temper::Silent, 3, 18),
        (Temper::Liar, 3, 14),
        (Temper::Selfish, 3, 18),
        (Temper::Huge, 3, 18),
        (Temper::Forger, 3, 18),
        (Temper::Silent, 10, 0),
        (Temper::Liar, 9, 0),
        (Temper::Selfish, 9, 0),
        (Temper::Huge, 9, 0),
        (Temper::Forger, 9, 0),
    ] {
        let found = found_among(temper, of_ten);
        println!("{temper:?} in {of_ten} of ten places: found {found} times of 20");
        assert!(found >= least, "{temper:?}, {of_ten} of ten: {found} of 20");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// Whatever arrives, from whomever and whenever: the client ends, asks nobody too many, and believes nothing.
    #[test]
    fn any_datagrams_do_no_harm(
        datagrams in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..100), 0u64..3_000), 0..60),
    ) {
        let mut world = World::new(30, |_| Temper::Honest, 60);
        world.input(Input::Want(get(0)));
        for (from, bytes, passed_ms) in datagrams {
            world.now += Duration::from_millis(passed_ms);
            let from = SocketAddrV4::new([90, 1, 0, from].into(), 6881);
            world.input(Input::Datagram { from, bytes });
        }
        prop_assert!(world.asked_since(0).len() <= ASKED_MAX && world.found.is_empty());
    }
}
