//! The hotel: a guest with 76 rooms and 625 memberships, and a gateway that blocks whoever has too many connections for 15 minutes.
//!
//! 260 real nodes outside: 20 rooms of ten that share no member with any other room, 41 rooms of ten from a pool of sixty, 15 rooms of two. Each names 3 to 6 addresses as its
//! own, of which one answers. The guest was away while 1,000 entries were said, and joins the Wi-Fi with 40 ms each way; the gateway's connection table is counted. The control
//! is a client that dials every member of every room at every address, against the same nodes, from the next room of the same hotel.
//!
//! The gateway's three tempers (200, 100, 64 connections) are played one after the other with the same guest and the same crowd; after the first the guest is watched until
//! five minutes after the last change.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::crowd::Crowd;
use crate::flows::{self, Look, Recorder, Traffic};
use crate::gateway::{Gateway, Internet, Nat};
use crate::node::{Person, wait_until};
use crate::plot::{self, Level, Series};
use crate::report::{Outcome, seconds};
use crate::site::{Namespace, Site};
use crate::wire::{Faults, Wire};

const GUEST: &str = "10.77.0.11";
const NAIVE: &str = "10.77.0.12";
/// Rooms whose members are in no other one.
const LONE_ROOMS: usize = 20;
const MIXED_ROOMS: usize = 41;
const PAIRS: usize = 15;
const MEMBERS: usize = 10;
/// The members of mixed rooms.
const POOL: usize = 60;
const SAID: usize = 1_000;
const DELAY_MS: u64 = 40;
/// What the gateway lets each guest have, and how long the guest is watched after the last change.
const TEMPERS: [(usize, Duration); 3] = [
    (200, REST_AFTER),
    (100, Duration::from_secs(30)),
    (64, Duration::from_secs(30)),
];
/// How long the client that dials everybody is watched.
const NAIVE_WATCH: Duration = Duration::from_secs(30);
/// How long the guest may take for everything before the lab gives up.
const CATCH_UP_MAX: Duration = Duration::from_secs(120);

const PEAK_GOAL: usize = 60;
const REST_GOAL: usize = 20;
/// After the last change.
const REST_AFTER: Duration = Duration::from_secs(300);
const CATCH_UP_GOAL: Duration = Duration::from_secs(10);
const PAIR_GOAL: Duration = Duration::from_secs(2);
/// What was said in a room without a line is there so long after somebody has opened it.
const OPENED_GOAL: Duration = Duration::from_secs(5);
/// What a line leads to comes within this.
const BY_LINE: Duration = Duration::from_secs(10);

pub(super) fn run(site: &Site) -> Result<Outcome> {
    let mut hotel = Hotel::build(site)?;
    let mut figures = site.figures();
    figures.note("endpoints", hotel.members.len());
    figures.note("rooms", LONE_ROOMS + MIXED_ROOMS + PAIRS);
    figures.note("memberships", (LONE_ROOMS + MIXED_ROOMS) * MEMBERS + PAIRS);
    let addresses: usize = hotel.members.iter().map(|member| member.addresses.len()).sum();
    figures.note("addresses", addresses);
    let joined = hotel.settle()?;
    figures.note("guest_joined_s", seconds(joined));
    let mut wrong = Vec::new();
    let mut series = Vec::new();
    for (limit, rest) in TEMPERS {
        let stay = hotel.stay(limit, rest)?;
        wrong.extend(stay.wrong(limit, rest));
        figures.note(&format!("limit_{limit}"), stay.json());
        if rest >= REST_AFTER {
            let opened = hotel.open_quiet_room()?;
            figures.note("room_opened_s", opened.map_or(Value::Null, seconds));
            if opened.is_none_or(|took| took > OPENED_GOAL) {
                wrong.push(format!(
                    "what was said in a quiet room was there {opened:?} after it was opened"
                ));
            }
        }
        figures.write()?;
        if series.is_empty() {
            series = stay.series();
        }
    }
    let levels = TEMPERS.map(|(limit, _)| Level {
        name: format!("blocked above {limit}"),
        value: plotted(limit),
    });
    let cap = Level {
        name: format!("Offhook's cap {PEAK_GOAL}"),
        value: 60.0,
    };
    let levels: Vec<Level> = levels.into_iter().chain([cap]).collect();
    let title = "Connections that the hotel's gateway counts: 76 rooms, 625 memberships";
    plot::write(&site.result("svg"), title, &series, &levels)?;
    Ok(Outcome::of(wrong))
}

/// How long the idle guest is left alone before it is watched, and then watched: until then it meets members that it has never met, of whom it knows dead addresses and good ones.
const IDLE_BEFORE: Duration = Duration::from_secs(600);
const IDLE_WATCH: Duration = Duration::from_secs(600);

/// How often it is seen what went over each flow.
const IDLE_LOOK: Duration = Duration::from_secs(5);
/// The gateway counts from the IP header on, the guest's interface from the Ethernet header on.
const ETHERNET_HEADER: u64 = 14;

/// What the same guest costs when nobody says anything.
///
/// Everything is counted at the guest's own interface. The transport's keep-alives are counted by the gateway and stated apart: what went over a flow within five seconds in which there were
/// but a few packets of that size.
pub(super) fn idle(site: &Site) -> Result<Outcome> {
    let mut hotel = Hotel::build(site)?;
    hotel.settle()?;
    std::thread::sleep(IDLE_BEFORE);
    let before = hotel.guest.usage("eth0")?;
    let began = Instant::now();
    let kept = keep_alives(&hotel, began)?;
    let after = hotel.guest.usage("eth0")?;
    let watched_s = began.elapsed().as_secs_f64();
    let per_s = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / watched_s;
    let packets = after.packets - before.packets;
    let bytes = (after.bytes - before.bytes).saturating_sub(packets * ETHERNET_HEADER);
    let beyond = per_s(packets.saturating_sub(kept.packets)) * 60.0;
    let beyond_kilobytes = per_s(bytes.saturating_sub(kept.bytes)) / 1000.0;
    let cpu_percent = (after.cpu - before.cpu).as_secs_f64() / watched_s * 100.0;
    let mut figures = site.figures();
    figures.note("rooms", LONE_ROOMS + MIXED_ROOMS + PAIRS);
    figures.note("lines", hotel.lines()?);
    figures.note("packets_per_minute_to_keep_alive", per_s(kept.packets) * 60.0);
    figures.note("packets_per_minute_beyond", beyond);
    figures.note("kilobytes_per_s_to_keep_alive", per_s(kept.bytes) / 1000.0);
    figures.note("kilobytes_per_s_beyond", beyond_kilobytes);
    figures.note("cpu_percent_of_a_core", cpu_percent);
    figures.write()?;
    let checks = [
        (beyond > 50.0, "more than 50 packets a minute beyond keep-alives"),
        (beyond_kilobytes > 0.2, "more than 0.2 KB/s beyond keep-alives"),
        (cpu_percent > 0.5, "more than 0.5 % of a core"),
    ];
    let wrong = checks.into_iter().filter(|(is_wrong, _)| *is_wrong);
    Ok(Outcome::of(wrong.map(|(_, what)| what.to_owned()).collect()))
}

/// What kept the guest's flows alive from `began` until [`IDLE_WATCH`] later.
fn keep_alives(hotel: &Hotel<'_>, began: Instant) -> Result<Traffic> {
    let look = || Ok::<_, anyhow::Error>((Instant::now(), flows::traffic(&hotel.gateway.namespace, GUEST)?));
    let mut kept = Traffic::default();
    let mut last = look()?;
    while began.elapsed() < IDLE_WATCH {
        std::thread::sleep(IDLE_LOOK);
        let now = look()?;
        let seconds = (now.0 - last.0).as_secs_f64();
        for (place, after) in &now.1 {
            let before = last.1.get(place).copied().unwrap_or_default();
            let of_flow = flows::kept_alive(before, *after, seconds);
            kept.packets += of_flow.packets;
            kept.bytes += of_flow.bytes;
        }
        last = now;
    }
    Ok(kept)
}

/// One node of the crowd.
struct Member {
    key: String,
    addresses: Vec<String>,
    /// Which process, and which node there.
    place: (usize, usize),
}

struct Room {
    members: Vec<usize>,
    link: String,
}

/// Everything.
struct Hotel<'s> {
    site: &'s Site,
    gateway: Gateway<'s>,
    wire: Wire,
    guest: Person,
    neighbour: Namespace,
    crowds: Vec<Crowd>,
    members: Vec<Member>,
    rooms: Vec<Room>,
    /// Which members the guest has a room of two with.
    pairs: Vec<usize>,
    said: usize,
    _internet: Internet<'s>,
}

impl<'s> Hotel<'s> {
    fn build(site: &'s Site) -> Result<Self> {
        let internet = Internet::new(site)?;
        let outside = site.namespace("crowd")?;
        internet.attach(&outside, "198.18.16.1")?;
        let gateway = Gateway::new(site, "hotel", "10.77.0.1", 22)?;
        let wire = internet.attach_by_wire(&gateway.namespace, "198.18.0.10", Faults::default())?;
        gateway.set_nat(Nat::PortRestricted)?;
        let (room, neighbour) = (site.namespace("guest")?, site.namespace("naive")?);
        gateway.attach(&room, GUEST)?;
        gateway.attach(&neighbour, NAIVE)?;
        let mut hotel = Self {
            site,
            gateway,
            wire,
            guest: Person::new(site, "Guest", &room)?,
            neighbour,
            crowds: Vec::new(),
            members: Vec::new(),
            rooms: Vec::new(),
            pairs: Vec::new(),
            said: 0,
            _internet: internet,
        };
        let start = Instant::now();
        // Rooms do not cross processes.
        for (process, (nodes, rooms)) in plan().into_iter().enumerate() {
            hotel.gather(&outside, process, nodes)?;
            hotel.furnish(process, &rooms)?;
        }
        println!("   the crowd is there after {:.1} s", start.elapsed().as_secs_f64());
        Ok(hotel)
    }

    /// Starts one process with so many nodes.
    fn gather(&mut self, outside: &Namespace, process: usize, nodes: usize) -> Result<()> {
        let folder = self.site.dir().join(format!("c{process}"));
        std::fs::create_dir_all(&folder)?;
        let folder = folder.to_str().context("a folder's name is not UTF-8")?;
        let mut crowd = Crowd::start(self.site, outside, &format!("c{process}"), &["crowd", folder, "none"])?;
        for node in 0..nodes {
            let own = format!("198.18.{}.{}", 17 + process, 1 + node);
            outside.ip(&format!("addr add {own}/32 dev wan0"))?;
            let addresses = candidates(&own, process, node);
            crowd.tell(&format!("node {own}:4000 {}", addresses[1..].join(" ")))?;
            let key = crowd.answer()?.last().cloned().context("no key")?;
            self.members.push(Member {
                key,
                addresses,
                place: (process, node),
            });
        }
        self.crowds.push(crowd);
        Ok(())
    }

    /// Lets the nodes of one process make their rooms.
    fn furnish(&mut self, process: usize, rooms: &[Vec<usize>]) -> Result<()> {
        let first = self.members.iter().position(|member| member.place.0 == process);
        let first = first.context("a process without nodes")?;
        for members in rooms {
            let name = format!("room-{}", self.rooms.len());
            let words: Vec<String> = members.iter().map(usize::to_string).collect();
            let link = self.crowds[process].ask(&format!("room {name} {}", words.join(" ")))?;
            self.rooms.push(Room {
                members: members.iter().map(|member| first + member).collect(),
                link,
            });
        }
        Ok(())
    }

    /// The guest joins every room, at home as it were: nothing is delayed or counted yet.
    fn settle(&mut self) -> Result<Duration> {
        let start = Instant::now();
        self.guest.up(&[])?;
        for (number, room) in self.rooms.iter().enumerate() {
            let joined = self.guest.lines(&["join", &room.link, "--wait", "120"]);
            joined.with_context(|| format!("joining room {number}"))?;
        }
        for number in 0..PAIRS {
            // One member of each of the last rooms.
            let member = self.rooms[LONE_ROOMS + number].members[number % MEMBERS];
            let (process, node) = self.members[member].place;
            self.guest.json(&["chat", &format!("member-c{process}-{node}")])?;
            self.pairs.push(member);
        }
        Ok(start.elapsed())
    }

    /// The crowd says so much.
    fn speak(&mut self, count: usize) -> Result<()> {
        let each = count / self.crowds.len();
        for number in 0..self.crowds.len() {
            let count = if number == 0 {
                count - each * (self.crowds.len() - 1)
            } else {
                each
            };
            self.crowds[number].ask(&format!("say {count}"))?;
        }
        self.said += count;
        Ok(())
    }

    /// How many of the crowd's messages the guest has.
    fn held(&self) -> Result<usize> {
        let rooms = self.guest.lines(&["room", "list"])?;
        let shared = rooms.iter().filter(|room| room["pair"].is_null());
        let counts = shared.map(|room| room["entries"].as_u64().unwrap_or(0));
        Ok(usize::try_from(counts.sum::<u64>())?)
    }

    /// One stay with a gateway of this temper.
    fn stay(&mut self, limit: usize, rest: Duration) -> Result<Stay> {
        self.guest.down()?;
        self.speak(SAID)?;
        self.wire.set(Faults::delay_ms(DELAY_MS));
        self.gateway.namespace.nft(&policy(limit))?;
        self.gateway.forget_flows()?;
        ensure!(
            flows::count(&self.gateway.namespace)?.is_empty(),
            "flows were not forgotten"
        );

        let recorder = Recorder::start(&self.gateway.namespace);
        let start = Instant::now();
        self.guest.up(&[])?;
        let up = start.elapsed();
        let caught_up = wait_until(CATCH_UP_MAX, || Ok(self.held()? >= self.said))
            .ok()
            .map(|_| start.elapsed());
        let held = self.held()?;
        let naive = self.naive(&recorder, start)?;
        let pairs = self.write_to_pairs()?;
        std::thread::sleep(rest);
        let looks = recorder.looks();
        let trips = self
            .gateway
            .namespace
            .output("nft", &["list", "set", "inet", "hotel", "blocked"])?;
        let lines = self.lines()?;
        Ok(Stay {
            up,
            caught_up,
            missing: self.said.saturating_sub(held),
            naive,
            pairs,
            lines,
            blocked: trips.contains(GUEST),
            looks,
        })
    }

    /// Something is said in a room to which no line leads, and the guest, whom nobody can call, opens it: how long until it is there?
    fn open_quiet_room(&mut self) -> Result<Option<Duration>> {
        for number in 0..LONE_ROOMS {
            let name = format!("room-{number}");
            let (process, _) = self.members[self.rooms[number].members[0]].place;
            let before = self.held()?;
            self.crowds[process].ask(&format!("one {name}"))?;
            self.said += 1;
            if wait_until(BY_LINE, || Ok(self.held()? > before)).is_ok() {
                continue;
            }
            let _reading = self.guest.follow(&name)?;
            return Ok(wait_until(CATCH_UP_MAX, || Ok(self.held()? > before)).ok());
        }
        bail!("lines lead to all rooms");
    }

    /// The control: everybody is dialled at every address.
    fn naive(&mut self, recorder: &Recorder, start: Instant) -> Result<Naive> {
        let begun = start.elapsed();
        let mut client = Crowd::start(self.site, &self.neighbour, "naive", &["naive"])?;
        let memberships = self.rooms.iter().flat_map(|room| &room.members).chain(&self.pairs);
        for member in memberships {
            let member = &self.members[*member];
            client.tell(&format!("peer {} {}", member.key, member.addresses.join(" ")))?;
        }
        client.tell("go")?;
        let mut blocked = None;
        while start.elapsed() < begun + NAIVE_WATCH {
            let set = self
                .gateway
                .namespace
                .output("nft", &["list", "set", "inet", "hotel", "blocked"])?;
            if blocked.is_none() && set.contains(NAIVE) {
                blocked = Some(start.elapsed() - begun);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        let looks = recorder.looks();
        Ok(Naive {
            begun,
            blocked,
            peak: peak(&looks, NAIVE),
            last: client.newest().unwrap_or_default(),
        })
    }

    /// How many lines the guest holds.
    fn lines(&self) -> Result<usize> {
        let status = self.guest.json(&["status"])?;
        let peers = status["peers"].as_array().context("no peers in the status")?;
        Ok(peers.iter().filter(|peer| peer["up"] == true).count())
    }

    /// The guest writes in rooms of two; how long until the other has it?
    fn write_to_pairs(&mut self) -> Result<Vec<Option<Duration>>> {
        let mut took = Vec::new();
        for member in self.pairs.iter().take(5) {
            let (process, node) = self.members[*member].place;
            let crowd = &mut self.crowds[process];
            let before = crowd.ask(&format!("texts {node} Guest"))?;
            self.guest.say(&format!("member-c{process}-{node}"), "good evening")?;
            let arrived = wait_until(Duration::from_secs(20), || {
                Ok(crowd.ask(&format!("texts {node} Guest"))? != before)
            });
            took.push(arrived.ok());
        }
        Ok(took)
    }
}

/// Nodes and rooms of each process.
fn plan() -> Vec<(usize, Vec<Vec<usize>>)> {
    let lone = |rooms: usize| {
        let rooms = (0..rooms).map(|room| (room * MEMBERS..(room + 1) * MEMBERS).collect());
        rooms.collect::<Vec<Vec<usize>>>()
    };
    // Steps that have no factor in common with the pool: ten different members, differently for each room.
    let steps = [7, 11, 13, 17, 19, 23, 29];
    let mixed = (0..MIXED_ROOMS).map(|room| {
        let step = steps[room % steps.len()];
        (0..MEMBERS).map(|member| (room * 3 + member * step) % POOL).collect()
    });
    let half = LONE_ROOMS / 2;
    vec![
        (half * MEMBERS, lone(half)),
        (half * MEMBERS, lone(half)),
        (POOL, mixed.collect()),
    ]
}

/// Three to six addresses of which the first answers: the others are of a container bridge, a VPN, a flat, and an earlier provider, which for some sorts before the good one.
fn candidates(own: &str, process: usize, node: usize) -> Vec<String> {
    let dead = [
        format!("172.17.{process}.{}:4000", 1 + node),
        format!("10.8.{process}.{}:4000", 1 + node),
        format!("198.17.{process}.{}:4000", 1 + node),
        format!("192.168.{process}.{}:4000", 1 + node),
        format!("198.19.{process}.{}:4000", 1 + node),
    ];
    let mut addresses = vec![format!("{own}:4000")];
    addresses.extend(dead.into_iter().take(2 + node % 4));
    addresses
}

/// Blocks whoever opens more than so many connections for 15 minutes.
fn policy(limit: usize) -> String {
    format!(
        "add table inet hotel
delete table inet hotel
table inet hotel {{
  set blocked {{ type ipv4_addr; flags dynamic,timeout; size 65535; }}
  set conns {{ type ipv4_addr; flags dynamic; size 65535; }}
  chain guard {{ type filter hook forward priority filter;
    iifname \"lan0\" ip saddr @blocked counter drop
    oifname \"lan0\" ip daddr @blocked counter drop
    iifname \"lan0\" ct state new add @conns {{ ip saddr ct count over {limit} }} add @blocked {{ ip saddr timeout 15m }} counter drop
  }}
}}
"
    )
}

struct Naive {
    begun: Duration,
    blocked: Option<Duration>,
    peak: usize,
    last: String,
}

/// What one stay came to.
struct Stay {
    up: Duration,
    caught_up: Option<Duration>,
    missing: usize,
    naive: Naive,
    pairs: Vec<Option<Duration>>,
    lines: usize,
    blocked: bool,
    looks: Vec<Look>,
}

impl Stay {
    fn at_rest(&self) -> usize {
        self.looks
            .last()
            .and_then(|look| look.flows.get(GUEST))
            .copied()
            .unwrap_or(0)
    }

    fn json(&self) -> Value {
        json!({
            "guest": {
                "up_s": seconds(self.up),
                "all_1000_after_s": self.caught_up.map(seconds),
                "missing": self.missing,
                "peak_flows": peak(&self.looks, GUEST),
                "flows_at_rest": self.at_rest(),
                "lines_at_rest": self.lines,
                "blocked": self.blocked,
                "rooms_of_two_s": self.pairs.iter().map(|took| took.map(seconds)).collect::<Vec<_>>(),
            },
            "naive": {
                "peak_flows": self.naive.peak,
                "blocked_after_s": self.naive.blocked.map(seconds),
                "says_at_the_end": self.naive.last,
            },
        })
    }

    fn wrong(&self, limit: usize, watched: Duration) -> Vec<String> {
        let peak = peak(&self.looks, GUEST);
        let late = self.caught_up.is_none_or(|took| took > CATCH_UP_GOAL);
        let pairs_late = self
            .pairs
            .iter()
            .filter(|took| took.is_none_or(|took| took > PAIR_GOAL))
            .count();
        let checks = [
            (self.blocked, "the guest was blocked".to_owned()),
            (self.naive.blocked.is_none(), "the control was not blocked".to_owned()),
            (
                peak > PEAK_GOAL,
                format!("the guest had {peak} flows at its peak, more than {PEAK_GOAL}"),
            ),
            (
                watched >= REST_AFTER && self.at_rest() > REST_GOAL,
                format!("the guest had {} flows at rest, more than {REST_GOAL}", self.at_rest()),
            ),
            (
                late,
                format!(
                    "the guest had everything after {:?}, {} missing",
                    self.caught_up, self.missing
                ),
            ),
            (
                pairs_late > 0,
                format!(
                    "{pairs_late} of {} messages to rooms of two took more than 2 s",
                    self.pairs.len()
                ),
            ),
        ];
        let wrong = checks.into_iter().filter(|(is_wrong, _)| *is_wrong);
        wrong.map(|(_, what)| format!("limit {limit}: {what}")).collect()
    }

    fn series(&self) -> Vec<Series> {
        let line = |name: &str, address: &str, colour, from: Duration| Series {
            name: name.to_owned(),
            colour,
            points: self
                .looks
                .iter()
                .filter(|look| look.at >= from)
                .map(|look| {
                    let flows = look.flows.get(address).copied().unwrap_or(0);
                    ((look.at - from).as_secs_f64(), plotted(flows))
                })
                .collect(),
        };
        vec![
            line("a client that dials every member", NAIVE, "#c0392b", self.naive.begun),
            line("Offhook", GUEST, "#1f6fb2", Duration::ZERO),
        ]
    }
}

fn plotted(flows: usize) -> f64 {
    f64::from(u32::try_from(flows).unwrap_or(u32::MAX))
}

fn peak(looks: &[Look], guest: &str) -> usize {
    looks
        .iter()
        .filter_map(|look| look.flows.get(guest))
        .max()
        .copied()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_guest_has_76_rooms_625_memberships_and_260_peers() {
        let plan = plan();
        let rooms: Vec<&Vec<usize>> = plan.iter().flat_map(|(_, rooms)| rooms).collect();
        assert_eq!(rooms.len() + PAIRS, 76);
        assert_eq!(rooms.iter().map(|room| room.len()).sum::<usize>() + PAIRS, 625);
        assert_eq!(plan.iter().map(|(nodes, _)| nodes).sum::<usize>(), 260);
        for room in &rooms {
            assert_eq!(room.iter().collect::<BTreeSet<_>>().len(), MEMBERS);
        }
        let mixed: BTreeSet<usize> = plan[2].1.iter().flatten().copied().collect();
        assert_eq!(mixed.len(), POOL);
    }

    #[test]
    fn every_peer_names_three_to_six_addresses() {
        let counts: BTreeSet<usize> = (0..POOL).map(|node| candidates("198.18.17.1", 0, node).len()).collect();
        assert_eq!(counts, BTreeSet::from([3, 4, 5, 6]));
    }
}
