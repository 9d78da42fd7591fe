//! What several labs begin with: a guest behind a gateway, a friend and a relay on the open internet, and a room that both are in.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::gateway::{Gateway, Internet, Nat};
use crate::node::{PATIENCE, Person, RelayProcess};
use crate::site::{Namespace, Site};
use crate::wire::{Faults, Wire};

/// By then a node has found its relay, which takes it a fifth of a second, and has told who it has a line to.
const RELAY_LEARNED: Duration = Duration::from_secs(2);
pub(super) const ROOM: &str = "Kitchen";
/// The guest's address inside.
pub(super) const GUEST: &str = "192.168.1.10";
const RELAY: &str = "198.18.0.9";

/// Guest, friend, relay and what is between them.
pub(super) struct Scene<'s> {
    pub(super) ada: Person,
    pub(super) bea: Person,
    pub(super) relay: RelayProcess,
    pub(super) gateway: Gateway<'s>,
    _internet: Internet<'s>,
    /// The gateway's cable to the internet.
    pub(super) wire: Wire,
    said: Vec<String>,
}

impl<'s> Scene<'s> {
    /// Ada behind a gateway, Bea at a public address, a relay at `port`; both are up, in one room, and see each other.
    pub(super) fn new(site: &'s Site, relay_port: u16) -> Result<Self> {
        let internet = Internet::new(site)?;
        let relay = relay(site, &internet, relay_port)?;
        let gateway = Gateway::new(site, "gateway", "192.168.1.1", 24)?;
        let wire = internet.attach_by_wire(&gateway.namespace, "198.18.0.20", Faults::default())?;
        gateway.set_nat(Nat::PortRestricted)?;
        let guest = site.namespace("Ada")?;
        gateway.attach(&guest, GUEST)?;
        let friend = site.namespace("Bea")?;
        internet.attach(&friend, "198.18.0.12")?;
        let mut scene = Self {
            ada: Person::new(site, "Ada", &guest)?,
            bea: Person::new(site, "Bea", &friend)?,
            relay,
            gateway,
            _internet: internet,
            wire,
            said: Vec::new(),
        };
        scene.bea_up()?;
        scene.ada_up()?;
        scene.bea.make_room(ROOM)?;
        scene.bea.let_in(&scene.ada, ROOM)?;
        std::thread::sleep(RELAY_LEARNED);
        Ok(scene)
    }

    pub(super) fn ada_up(&mut self) -> Result<()> {
        let url = self.relay.url.clone();
        self.ada.up(&["--use-relay", &url]).map(drop)
    }

    pub(super) fn bea_up(&mut self) -> Result<()> {
        let url = self.relay.url.clone();
        self.bea.up(&["--use-relay", &url]).map(drop)
    }

    /// Each says something, and waits until the other has it; returns how long each way took.
    pub(super) fn talk(&mut self, patience: Duration) -> Result<[Duration; 2]> {
        let mut took = [Duration::ZERO; 2];
        for (way, took) in took.iter_mut().enumerate() {
            let (speaker, listener) = match way {
                0 => (&self.ada, &self.bea),
                _ => (&self.bea, &self.ada),
            };
            let text = format!("{} says something, number {}", speaker.name, self.said.len());
            speaker.say(ROOM, &text)?;
            self.said.push(text);
            *took = listener.wait_for(ROOM, &self.said, patience)?;
        }
        Ok(took)
    }

    /// What Bea says without waiting.
    pub(super) fn bea_says(&mut self) -> Result<()> {
        let text = format!("Bea says something, number {}", self.said.len());
        self.bea.say(ROOM, &text)?;
        self.said.push(text);
        Ok(())
    }

    /// Waits until Ada has all that was said.
    pub(super) fn ada_has_all(&self) -> Result<Duration> {
        self.ada.wait_for(ROOM, &self.said, PATIENCE)
    }

    /// How Ada's line to Bea goes.
    pub(super) fn path(&self) -> Result<String> {
        Ok(self.ada.path_to("Bea")?.unwrap_or_else(|| "no line".to_owned()))
    }

    /// The longer of two.
    pub(super) fn worst(took: [Duration; 2]) -> Duration {
        took[0].max(took[1])
    }
}

/// A relay on a machine of its own.
pub(super) fn relay(site: &Site, internet: &Internet<'_>, port: u16) -> Result<RelayProcess> {
    let machine: Namespace = site.namespace("relay")?;
    internet.attach(&machine, RELAY)?;
    RelayProcess::start(site, &machine, &format!("{RELAY}:{port}")).context("starting the relay")
}
