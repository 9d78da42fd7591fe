//! Networks that go wrong: lossy and shuffling links, an address that changes, a machine that sleeps, a network that falls apart and heals.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::networks::within;
use super::scene::{ROOM, Scene};
use crate::gateway::Internet;
use crate::node::{PATIENCE, Person, send_signal, text_of, wait_until};
use crate::report::{Outcome, seconds};
use crate::site::{Namespace, Site};
use crate::wire::{Faults, Wire};

/// Messages over a bad link.
const MESSAGES: usize = 200;
/// The pause between two of them.
const PACE: Duration = Duration::from_millis(250);

/// 30 % loss each way, 200 ms, reordering: every message arrives; how late?
pub(super) fn rough(site: &Site) -> Result<Outcome> {
    let scene = Scene::new(site, 3340)?;
    scene.wire.set(Faults {
        loss: 0.3,
        delay: Duration::from_millis(200),
        jitter: Duration::from_millis(50),
        reorder: true,
        ..Faults::default()
    });
    let mut waiting: BTreeMap<String, Instant> = BTreeMap::new();
    let mut took: Vec<Duration> = Vec::new();
    let mut seen = |waiting: &mut BTreeMap<String, Instant>| -> Result<()> {
        for text in scene.ada.texts(ROOM)? {
            took.extend(waiting.remove(&text).map(|said| said.elapsed()));
        }
        Ok(())
    };
    for number in 0..MESSAGES {
        let text = format!("message {number}");
        let begun = Instant::now();
        scene.bea.say(ROOM, &text)?;
        waiting.insert(text, Instant::now());
        while begun.elapsed() < PACE {
            seen(&mut waiting)?;
            thread::sleep(Duration::from_millis(20));
        }
    }
    let last = wait_until(PATIENCE, || {
        seen(&mut waiting)?;
        Ok(waiting.is_empty())
    });
    took.sort();
    let mut figures = site.figures();
    figures.note("messages", MESSAGES);
    figures.note("arrived", took.len());
    let at = |share: usize| took.get((took.len() * share / 100).min(took.len().saturating_sub(1)));
    for (name, share) in [("p50_s", 50), ("p95_s", 95), ("p99_s", 99), ("max_s", 100)] {
        figures.note(name, at(share).copied().map_or(Value::Null, seconds));
    }
    figures.write()?;
    let p99 = at(99).copied().unwrap_or(Duration::MAX);
    Ok(match last {
        Err(_) => Outcome::Failed(format!("{} of {MESSAGES} messages did not arrive", waiting.len())),
        Ok(_) => within(p99, Duration::from_secs(5), "99 % of the messages"),
    })
}

/// The guest gets another address, and the gateway another outside address, in the middle of a talk.
pub(super) fn address_change(site: &Site) -> Result<Outcome> {
    let mut scene = Scene::new(site, 3340)?;
    let mut figures = site.figures();
    let before = Scene::worst(scene.talk(PATIENCE)?);
    figures.note("message_before_s", seconds(before));
    let guest = scene.ada.machine.clone();
    guest.ip("addr del 192.168.1.10/24 dev eth0")?;
    guest.ip("addr add 192.168.1.77/24 dev eth0")?;
    guest.ip("route add default via 192.168.1.1")?;
    let inside = Scene::worst(scene.talk(PATIENCE)?);
    figures.note("message_after_inside_change_s", seconds(inside));
    let gateway = scene.gateway.namespace.clone();
    gateway.ip("addr del 198.18.0.20/15 dev wan0")?;
    gateway.ip("addr add 198.18.0.21/15 dev wan0")?;
    gateway.ip("route add default via 198.18.0.1")?;
    scene.gateway.forget_flows()?;
    let outside = Scene::worst(scene.talk(PATIENCE)?);
    figures.note("message_after_outside_change_s", seconds(outside));
    figures.write()?;
    Ok(within(
        inside.max(outside),
        Duration::from_secs(10),
        "a message after a change of address",
    ))
}

/// The lid is closed for longer than any line lives.
const SLEEP: Duration = Duration::from_secs(60);

/// A machine sleeps and wakes.
pub(super) fn sleep_wake(site: &Site) -> Result<Outcome> {
    let mut scene = Scene::new(site, 3340)?;
    let process = scene.ada.process()?;
    send_signal(process, "STOP")?;
    thread::sleep(SLEEP / 2);
    scene.bea_says()?;
    thread::sleep(SLEEP / 2);
    send_signal(process, "CONT")?;
    let mut figures = site.figures();
    figures.note("asleep_s", SLEEP.as_secs());
    let caught_up = scene.ada_has_all()?;
    figures.note("caught_up_after_s", seconds(caught_up));
    figures.note("message_s", seconds(Scene::worst(scene.talk(PATIENCE)?)));
    figures.write()?;
    Ok(within(caught_up, Duration::from_secs(10), "catching up after waking"))
}

/// Members on each side.
const SIDE: usize = 4;
/// Messages on each side while it lasts.
const SIDE_MESSAGES: usize = 1_000;

/// Eight members fall into two halves that write on; the network heals: how long until all show the same?
pub(super) fn partition(site: &Site) -> Result<Outcome> {
    let internet = Internet::new(site)?;
    let far = site.namespace("far")?;
    far.ip("link add far type bridge")?;
    far.ip("link set far up")?;
    let bridge = Wire::new(
        (&internet.namespace, "tofar"),
        (&far, "tonear"),
        Faults::delay_ms(20),
        11,
    )?;
    internet.namespace.ip("link set tofar master internet")?;
    far.ip("link set tonear master far")?;

    let people = gather(site, &internet, &far)?;
    bridge.set(Faults {
        down: true,
        ..Faults::default()
    });
    // Lines across have to notice.
    thread::sleep(Duration::from_secs(35));
    for (side, people) in people.chunks(SIDE).enumerate() {
        for number in 0..SIDE_MESSAGES {
            people[number % SIDE].say(ROOM, &format!("{side} says {number}"))?;
        }
    }
    bridge.set(Faults::delay_ms(20));
    let start = Instant::now();
    let count = |person: &Person| -> Result<u64> {
        let rooms = person.lines(&["room", "list"])?;
        let room = rooms.iter().find(|room| room["name"] == ROOM).context("no room")?;
        room["entries"].as_u64().context("no count")
    };
    let all = u64::try_from(2 * SIDE_MESSAGES)?;
    let mut each = Vec::new();
    for person in &people {
        wait_until(Duration::from_secs(120), || Ok(count(person)? >= all))
            .with_context(|| format!("{} has {:?} of {all}", person.name, count(person)))?;
        each.push(start.elapsed());
    }
    let differing = differing(&people)?;
    let mut figures = site.figures();
    figures.note("members", people.len());
    figures.note("missed_by_each", SIDE_MESSAGES);
    figures.note(
        "all_have_all_after_s",
        seconds(each.iter().max().copied().unwrap_or_default()),
    );
    figures.note("show_another_order", differing);
    figures.write()?;
    Ok(Outcome::of(match differing {
        0 => Vec::new(),
        n => vec![format!("{n} of {} show another order", people.len())],
    }))
}

/// Half of them near, half far, all in one room.
fn gather(site: &Site, internet: &Internet<'_>, far: &Namespace) -> Result<Vec<Person>> {
    let mut people = Vec::new();
    for number in 0..2 * SIDE {
        let name = format!("P{number}");
        let machine = site.namespace(&name)?;
        let address = format!("198.18.1.{}", 10 + number);
        match number < SIDE {
            true => internet.attach(&machine, &address)?,
            false => attach_far(site, far, &machine, &address)?,
        }
        let mut person = Person::new(site, &name, &machine)?;
        person.up(&[])?;
        people.push(person);
    }
    people[0].make_room(ROOM)?;
    for friend in &people[1..] {
        people[0].let_in(friend, ROOM)?;
    }
    Ok(people)
}

/// How many show the messages in another order than the first.
fn differing(people: &[Person]) -> Result<usize> {
    let order = |person: &Person| -> Result<Vec<String>> {
        let lines = person.lines(&["export", ROOM])?;
        let messages = lines.iter().filter(|line| line["kind"] == "message");
        messages.map(|line| text_of(line, "text").map(str::to_owned)).collect()
    };
    let first = order(&people[0])?;
    let mut differing = 0;
    for person in people {
        differing += usize::from(order(person)? != first);
    }
    Ok(differing)
}

fn attach_far(site: &Site, far: &Namespace, machine: &Namespace, address: &str) -> Result<()> {
    let port = site.fresh_interface();
    crate::site::cable(far, &port, machine, "wan0")?;
    far.ip(&format!("link set {port} master far"))?;
    machine.ip(&format!("addr add {address}/15 dev wan0"))?;
    machine.ip("route add default via 198.18.0.1")
}
