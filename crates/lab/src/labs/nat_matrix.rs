//! Two people, each behind each kind of NAT: who reaches whom directly, who needs the relay, and how fast.
//!
//! Both come online at the same time with everything the gateways knew forgotten. *First byte* is when a line is up, *direct* when its data goes straight to the other's gateway.
//! Times run from the moment when the second node was started, its start included.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::scene;
use crate::gateway::{Gateway, Internet, Nat};
use crate::node::{PATIENCE, Person, wait_until};
use crate::report::{Outcome, seconds};
use crate::site::Site;

const ROOM: &str = "Kitchen";
/// How long a pair that can punch may take to become direct before the lab gives it up.
const DIRECT_MAX: Duration = Duration::from_secs(20);
/// How long a pair that cannot is watched for a direct path that should not be.
const WATCH: Duration = Duration::from_secs(6);
/// What the issue asks for.
const FIRST_BYTE_GOAL: Duration = Duration::from_secs(3);
const DIRECT_GOAL: Duration = Duration::from_secs(5);

/// One side of a pair.
struct Home<'s> {
    person: Person,
    gateway: Gateway<'s>,
}

pub(super) fn run(site: &Site) -> Result<Outcome> {
    let internet = Internet::new(site)?;
    let relay = scene::relay(site, &internet, 3340)?;
    let home = |name: &str, outside: &str| -> Result<Home<'_>> {
        let gateway = Gateway::new(site, &format!("{name}-nat"), "192.168.1.1", 24)?;
        internet.attach(&gateway.namespace, outside)?;
        gateway.set_nat(Nat::FullCone)?;
        let machine = site.namespace(name)?;
        // The same inside address on both sides, as in real life.
        gateway.attach(&machine, "192.168.1.10")?;
        let person = Person::new(site, name, &machine)?;
        Ok(Home { person, gateway })
    };
    let (mut ada, mut bea) = (home("Ada", "198.18.0.20")?, home("Bea", "198.18.0.30")?);
    let carrier = Gateway::new(site, "carrier", "100.64.0.1", 24)?;
    internet.attach(&carrier.namespace, "198.18.0.40")?;
    carrier.set_nat(Nat::PortRestricted)?;
    let flat = Gateway::new(site, "Cem-nat", "192.168.8.1", 24)?;
    carrier.attach_gateway(&flat, "100.64.0.2")?;
    flat.set_nat(Nat::PortRestricted)?;
    let machine = site.namespace("Cem")?;
    flat.attach(&machine, "192.168.8.10")?;
    let mut cem = Home {
        person: Person::new(site, "Cem", &machine)?,
        gateway: flat,
    };
    for home in [&mut ada, &mut bea, &mut cem] {
        home.person.up(&["--use-relay", &relay.url])?;
    }
    // Ada has a room with each, so that a pair is never helped by the third.
    for friend in [&bea, &cem] {
        let room = format!("{ROOM} with {}", friend.person.name);
        ada.person.make_room(&room)?;
        ada.person.let_in(&friend.person, &room)?;
    }
    for home in [&mut ada, &mut bea, &mut cem] {
        home.person.down()?;
    }

    let mut figures = site.figures();
    let mut rows = Vec::new();
    for a in Nat::ALL {
        for b in Nat::ALL {
            bea.gateway.set_nat(b)?;
            rows.push(meet(&mut ada, &mut bea, (a, b.name()), a.can_punch(b), &relay.url)?);
        }
    }
    for a in Nat::ALL {
        carrier.forget_flows()?;
        let can_punch = a.can_punch(Nat::PortRestricted);
        rows.push(meet(&mut ada, &mut cem, (a, "carrier"), can_punch, &relay.url)?);
    }
    figures.note("pairs", rows.iter().map(Row::json).collect::<Vec<_>>());
    let sixteen = &rows[..16];
    figures.note(
        "connected_of_16",
        sixteen.iter().filter(|row| row.message.is_some()).count(),
    );
    figures.note(
        "direct_of_13",
        sixteen
            .iter()
            .filter(|row| row.can_punch && row.direct.is_some())
            .count(),
    );
    figures.write()?;
    print_matrix(&rows);
    Ok(Outcome::of(rows.iter().flat_map(Row::wrong).collect()))
}

/// What one pair came to.
struct Row {
    pair: String,
    can_punch: bool,
    first_byte: Option<Duration>,
    direct: Option<Duration>,
    message: Option<Duration>,
    path: String,
}

/// Starts both behind these gateways, waits for their line, and lets them talk.
fn meet(
    ada: &mut Home<'_>,
    friend: &mut Home<'_>,
    (nat, other): (Nat, &str),
    can_punch: bool,
    relay: &str,
) -> Result<Row> {
    ada.gateway.set_nat(nat)?;
    friend.gateway.forget_flows()?;
    let name = friend.person.name.clone();
    ada.person.up(&["--use-relay", relay])?;
    let start = Instant::now();
    friend.person.up(&["--use-relay", relay])?;
    let line = |direct: bool| {
        let path = ada.person.path_to(&name)?;
        Ok(path.is_some_and(|path| !(path.is_empty() || direct && path.contains("relay"))))
    };
    let first_byte = wait_until(PATIENCE, || line(false)).ok().map(|_| start.elapsed());
    let patience = if can_punch { DIRECT_MAX } else { WATCH };
    let direct = wait_until(patience, || line(true)).ok().map(|_| start.elapsed());
    let room = format!("{ROOM} with {name}");
    let mut texts = ada.person.texts(&room)?;
    texts.push(format!("from behind {} to behind {other}", nat.name()));
    ada.person.say(&room, &texts[texts.len() - 1])?;
    let message = friend.person.wait_for(&room, &texts, PATIENCE).ok();
    let path = ada.person.path_to(&name)?.context("no line any more")?;
    ada.person.down()?;
    friend.person.down()?;
    let row = Row {
        pair: format!("{} x {other}", nat.name()),
        can_punch,
        first_byte,
        direct,
        message,
        path,
    };
    Ok(row)
}

impl Row {
    fn json(&self) -> serde_json::Value {
        json!({
            "pair": self.pair,
            "can_be_direct": self.can_punch,
            "first_byte_s": self.first_byte.map(seconds),
            "direct_s": self.direct.map(seconds),
            "message_s": self.message.map(seconds),
            "path": self.path,
        })
    }

    fn wrong(&self) -> Option<String> {
        let slow = |took: Option<Duration>, goal| took.is_some_and(|took| took > goal);
        let what = match self {
            Self { message: None, .. } => "is not connected",
            Self {
                can_punch: true,
                direct: None,
                ..
            } => "is not direct and could be",
            Self {
                can_punch: false,
                direct: Some(_),
                ..
            } => "is direct and cannot be: the gateways are not what they are called",
            _ if slow(self.first_byte, FIRST_BYTE_GOAL) => "took more than 3 s to the first byte",
            _ if self.can_punch && slow(self.direct, DIRECT_GOAL) => "took more than 5 s to be direct",
            _ => return None,
        };
        Some(format!("{} {what}", self.pair))
    }
}

/// The matrix as a table: d direct, r through the relay, - not connected.
fn print_matrix(rows: &[Row]) {
    println!(
        "\n   {:<20} {}",
        "",
        Nat::ALL.map(|nat| format!("{:<20}", nat.name())).concat()
    );
    let shown = |row: &Row| {
        let time = |took: Option<Duration>| took.map_or(f64::NAN, |took| took.as_secs_f64());
        match (row.message, row.direct) {
            (None, _) => "-".to_owned(),
            (_, Some(_)) => format!("direct {:.1} s", time(row.direct)),
            (_, None) => format!("relay {:.1} s", time(row.first_byte)),
        }
    };
    for (nat, row) in Nat::ALL.iter().zip(rows.chunks(4)) {
        println!(
            "   {:<20} {}",
            nat.name(),
            row.iter()
                .map(|cell| format!("{:<20}", shown(cell)))
                .collect::<String>()
        );
    }
    if let Some(carrier) = rows.get(16..) {
        println!(
            "   {:<20} {}",
            "carrier",
            carrier
                .iter()
                .map(|cell| format!("{:<20}", shown(cell)))
                .collect::<String>()
        );
    }
}
