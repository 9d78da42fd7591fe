//! Networks that forbid things: UDP blocked, only port 443, a captive portal, guests kept apart, small packets.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::scene::{GUEST, ROOM, Scene};
use crate::gateway::{Gateway, Internet, Nat};
use crate::node::{PATIENCE, Person, wait_until};
use crate::report::{Outcome, seconds};
use crate::site::Site;
use crate::wire::Faults;

/// How long coming online may take in a network that forbids things.
const ONLINE_MAX: Duration = Duration::from_secs(30);

/// No UDP at all: the line goes through the relay, over TCP.
pub(super) fn udp_blocked(site: &Site) -> Result<Outcome> {
    behind_filter(
        site,
        3340,
        "meta l4proto udp udp dport != 53 reject with icmpx admin-prohibited",
    )
}

/// Nothing but TCP to port 443, dropped without a word: the relay listens there.
pub(super) fn only_443(site: &Site) -> Result<Outcome> {
    behind_filter(
        site,
        443,
        "meta l4proto != tcp drop\n    iifname \"lan0\" tcp dport != 443 drop",
    )
}

/// Ada comes online behind a gateway that lets through only what `rule` leaves.
fn behind_filter(site: &Site, relay_port: u16, rule: &str) -> Result<Outcome> {
    let mut scene = Scene::new(site, relay_port)?;
    scene.ada.down()?;
    scene.gateway.forget_flows()?;
    filter(&scene.gateway, rule)?;
    scene.bea_says()?;
    scene.ada_up()?;
    let mut figures = site.figures();
    figures.note("online_after_s", seconds(scene.ada_has_all()?));
    let path = scene.path()?;
    figures.note("path", path.clone());
    let took = Scene::worst(scene.talk(PATIENCE)?);
    figures.note("message_s", seconds(took));
    figures.write()?;
    Ok(Outcome::of(match path.contains("relay") {
        true => Vec::new(),
        false => vec![format!("the line goes {path}: the filter does not filter")],
    }))
}

/// Replaces what the gateway forbids its guests.
fn filter(gateway: &Gateway<'_>, rule: &str) -> Result<()> {
    gateway.namespace.nft(&format!(
        "add table inet guard
delete table inet guard
table inet guard {{
  chain forward {{ type filter hook forward priority filter;
    iifname \"lan0\" {rule}
  }}
}}
"
    ))
}

/// A portal that lets nobody out until they have clicked: nothing hangs, nothing is lost, and it works soon after the click.
pub(super) fn captive(site: &Site) -> Result<Outcome> {
    let mut scene = Scene::new(site, 3340)?;
    scene.ada.down()?;
    scene.gateway.forget_flows()?;
    filter(&scene.gateway, "reject with icmpx admin-prohibited")?;
    scene.bea_says()?;
    let mut figures = site.figures();
    let up = std::time::Instant::now();
    scene.ada_up()?;
    figures.note("up_behind_portal_s", seconds(up.elapsed()));
    let before = scene.ada.texts(ROOM)?.len();
    ensure!(before == 0, "the portal lets things through");
    // What is written meanwhile waits.
    scene.ada.say(ROOM, "written behind the portal")?;
    std::thread::sleep(Duration::from_secs(10));
    filter(&scene.gateway, "accept")?;
    let told = wait_until(PATIENCE, || {
        let texts = scene.bea.texts(ROOM)?;
        Ok(texts.iter().any(|text| text == "written behind the portal"))
    })?;
    figures.note("delivered_after_click_s", seconds(told));
    figures.write()?;
    Ok(within(told, ONLINE_MAX, "delivering after the click"))
}

/// Guests of one network are kept apart: two members in the same Wi-Fi reach each other all the same.
pub(super) fn isolation(site: &Site) -> Result<Outcome> {
    let internet = Internet::new(site)?;
    let relay = super::scene::relay(site, &internet, 3340)?;
    let gateway = Gateway::new(site, "gateway", "192.168.1.1", 24)?;
    internet.attach(&gateway.namespace, "198.18.0.20")?;
    gateway.set_nat(Nat::PortRestricted)?;
    let guest = |name: &str, address: &str| -> Result<Person> {
        let machine = site.namespace(name)?;
        let port = gateway.attach(&machine, address)?;
        let isolate = ["link", "set", "dev", &port, "isolated", "on"];
        gateway.namespace.output("bridge", &isolate)?;
        let mut person = Person::new(site, name, &machine)?;
        person.up(&["--use-relay", &relay.url])?;
        Ok(person)
    };
    let (ada, bea) = (guest("Ada", GUEST)?, guest("Bea", "192.168.1.11")?);
    let apart = ada
        .machine
        .output("ping", &["-c", "1", "-W", "1", "192.168.1.11"])
        .is_err();
    ada.make_room(ROOM)?;
    let mut figures = site.figures();
    let start = std::time::Instant::now();
    ada.let_in(&bea, ROOM)?;
    figures.note("joined_s", seconds(start.elapsed()));
    figures.note("path", ada.path_to("Bea")?.unwrap_or_default());
    let said = vec!["from the next table".to_owned()];
    ada.say(ROOM, &said[0])?;
    figures.note("message_s", seconds(bea.wait_for(ROOM, &said, PATIENCE)?));
    figures.write()?;
    Ok(Outcome::of(match apart {
        true => Vec::new(),
        false => vec!["the guests are not kept apart".to_owned()],
    }))
}

/// A path that takes packets of 1,280 bytes at most, told by ICMP; then one that swallows longer ones without a word.
pub(super) fn mtu(site: &Site) -> Result<Outcome> {
    let mut scene = Scene::new(site, 3340)?;
    // Long enough for several full packets.
    let long = "x".repeat(20_000);
    let mut figures = site.figures();
    let mut carry = |scene: &mut Scene<'_>, name: &str| -> Result<Duration> {
        scene.ada.down()?;
        scene.bea.say(ROOM, &long)?;
        let expected = scene.bea.texts(ROOM)?;
        scene.ada_up()?;
        let took = scene.ada.wait_for(ROOM, &expected, PATIENCE)?;
        figures.note(name, seconds(took));
        Ok(took)
    };
    let plain = carry(&mut scene, "mtu_1500_s")?;
    scene.gateway.namespace.ip("link set wan0 mtu 1280")?;
    let small = carry(&mut scene, "mtu_1280_s")?;
    scene.gateway.namespace.ip("link set wan0 mtu 1500")?;
    scene.wire.set(Faults {
        packet_bytes_max: Some(1_280),
        ..Faults::default()
    });
    let hole = carry(&mut scene, "black_hole_above_1280_s")?;
    figures.write()?;
    Ok(within(plain.max(small).max(hole), ONLINE_MAX, "20 kB"))
}

/// Failed where something took longer than it may.
pub(super) fn within(took: Duration, most: Duration, what: &str) -> Outcome {
    Outcome::of(match took <= most {
        true => Vec::new(),
        false => vec![format!(
            "{what} took {:.1} s, more than {} s",
            took.as_secs_f64(),
            most.as_secs()
        )],
    })
}
