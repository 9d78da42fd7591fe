//! Two who are never there at the same time, each behind a NAT, and three keepers that are there nine times of ten. What the speaker was told is safe, the reader has to find.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use serde_json::Value;

use super::scene::{ROOM, relay};
use crate::gateway::{Gateway, Internet, Nat};
use crate::node::{PATIENCE, Person, text_of};
use crate::report::{Figures, Outcome, seconds};
use crate::site::Site;
use crate::wire::{Faults, Wire};

const KEEPERS: usize = 3;
/// A keeper is there with this chance, drawn anew before anybody speaks and before anybody reads.
const UP: f64 = 0.9;
/// How often the speaker comes, speaks and goes, and the reader after it.
const ROUNDS: usize = 100;
/// Messages each time.
const MESSAGES: usize = 5;
/// How long the speaker waits to be told that all is safe, and the reader for what is.
const STAY: Duration = Duration::from_secs(30);
const SEED: u64 = 1;

pub(super) fn run(site: &Site) -> Result<Outcome> {
    let internet = Internet::new(site)?;
    let (_nat, _cable, mut ada) = behind_nat(site, &internet, "Ada", "198.18.0.20", Nat::PortRestricted)?;
    let (_other_nat, _other_cable, mut bea) = behind_nat(site, &internet, "Bea", "198.18.0.30", Nat::Symmetric)?;
    let mut keepers = Keepers::new(site, &internet)?;
    open_room(site, &internet, &mut ada, &mut bea, &mut keepers)?;
    bea.down()?;
    ada.down()?;

    let mut story = Story::default();
    for round in 0..ROUNDS {
        story.visit(round, &mut ada, &mut bea, &mut keepers)?;
    }
    keepers.all_up()?;
    bea.up(&[])?;
    // What is still lacking is counted below.
    let _ = bea.wait_until("sees all that is safe", PATIENCE, || {
        Ok(lacking(&bea, &story.safe)? == 0)
    });
    let in_the_end = story.safe.len() - lacking(&bea, &story.safe)?;
    let mut figures = site.figures();
    story.note(&mut figures, in_the_end);
    figures.write()?;
    Ok(Outcome::of(story.wrong(in_the_end)))
}

/// What has happened so far.
#[derive(Default)]
struct Story {
    /// What the speaker was told is safe.
    safe: Vec<String>,
    /// How much was not.
    untold: usize,
    /// How much of what is safe was there when the reader came the first time afterwards.
    at_return: usize,
    /// How often the reader went with something lacking.
    lacking: usize,
    /// How often a keeper was drawn to be away.
    away: usize,
    /// How long the speaker, and the reader, waited.
    told: Vec<Duration>,
    found: Vec<Duration>,
}

impl Story {
    /// The speaker comes, speaks and goes; then the reader comes and goes.
    fn visit(&mut self, round: usize, ada: &mut Person, bea: &mut Person, keepers: &mut Keepers) -> Result<()> {
        let start = Instant::now();
        self.away += keepers.draw()?;
        ada.up(&[])?;
        let said = speak(ada, round)?;
        ada.down()?;
        self.told.extend(said.took);
        self.untold += MESSAGES - said.safe.len();
        let new = said.safe.len();
        self.safe.extend(said.safe);

        self.away += keepers.draw()?;
        bea.up(&[])?;
        match bea.wait_until("sees all that is safe", STAY, || Ok(lacking(bea, &self.safe)? == 0)) {
            Ok(took) => {
                self.found.push(took);
                self.at_return += new;
            }
            Err(_) => {
                self.lacking += 1;
                self.at_return += new.saturating_sub(lacking(bea, &self.safe)?);
            }
        }
        bea.down()?;
        println!(
            "   round {} of {ROUNDS}: {:.1} s",
            round + 1,
            start.elapsed().as_secs_f64()
        );
        Ok(())
    }

    fn note(&self, figures: &mut Figures, in_the_end: usize) {
        figures.note("rounds", ROUNDS);
        figures.note(
            "keepers_away_of_drawn",
            format!("{} of {}", self.away, 2 * ROUNDS * KEEPERS),
        );
        figures.note("told_safe", self.safe.len());
        figures.note("not_told_safe", self.untold);
        figures.note("read_at_return", self.at_return);
        figures.note("returns_with_something_lacking", self.lacking);
        figures.note("read_in_the_end", in_the_end);
        for (name, took) in [("told_safe", &self.told), ("all_read", &self.found)] {
            let mut took = took.clone();
            took.sort();
            let shown = |at: Option<&Duration>| at.map_or(Value::Null, |took| seconds(*took));
            figures.note(&format!("{name}_median_s"), shown(took.get(took.len() / 2)));
            figures.note(&format!("{name}_most_s"), shown(took.last()));
        }
    }

    fn wrong(&self, in_the_end: usize) -> Vec<String> {
        let (safe, at_return) = (self.safe.len(), self.at_return);
        let checks = [
            (safe == 0, "nothing was said to be safe".to_owned()),
            (
                in_the_end != safe,
                format!("{} of {safe} that were said to be safe are lost", safe - in_the_end),
            ),
            (
                at_return * 1_000 < safe * 999,
                format!("{at_return} of {safe} were there at the return"),
            ),
        ];
        let wrong = checks.into_iter().filter(|(is_wrong, _)| *is_wrong);
        wrong.map(|(_, what)| what).collect()
    }
}

/// A machine behind a gateway of its own, 20 ms from everybody.
fn behind_nat<'s>(
    site: &'s Site,
    internet: &Internet<'s>,
    name: &str,
    outside: &str,
    nat: Nat,
) -> Result<(Gateway<'s>, Wire, Person)> {
    let gateway = Gateway::new(site, &format!("{name}-nat"), "192.168.1.1", 24)?;
    let cable = internet.attach_by_wire(&gateway.namespace, outside, Faults::delay_ms(20))?;
    gateway.set_nat(nat)?;
    let machine = site.namespace(name)?;
    gateway.attach(&machine, "192.168.1.10")?;
    let person = Person::new(site, name, &machine)?;
    Ok((gateway, cable, person))
}

/// Ada makes the room, lets Bea in by a relay that is there for that alone, and gives the room its keepers.
fn open_room(
    site: &Site,
    internet: &Internet<'_>,
    ada: &mut Person,
    bea: &mut Person,
    keepers: &mut Keepers,
) -> Result<()> {
    let relay = relay(site, internet, 3340)?;
    ada.up(&["--use-relay", &relay.url])?;
    bea.up(&["--use-relay", &relay.url])?;
    ada.make_room(ROOM)?;
    ada.let_in(bea, ROOM)?;
    for address in &keepers.addresses {
        ada.json(&["room", "keepers", ROOM, "add", address])?;
    }
    bea.wait_until("knows the keepers", PATIENCE, || {
        Ok(bea.lines(&["room", "keepers", ROOM])?.len() == KEEPERS)
    })?;
    ada.wait_until("all is safe", PATIENCE, || Ok(exposed(ada)? == 0))?;
    Ok(())
}

/// What was said in one visit.
struct Said {
    /// Those that the speaker was told are safe.
    safe: Vec<String>,
    /// How long it took until all were.
    took: Option<Duration>,
}

fn speak(ada: &Person, round: usize) -> Result<Said> {
    let mut sent = Vec::new();
    for number in 0..MESSAGES {
        let text = format!("round {round}, number {number}");
        let message = ada.json(&["send", ROOM, &text])?;
        sent.push((text_of(&message, "id")?.to_owned(), text));
    }
    let took = ada.wait_until("all is safe", STAY, || Ok(exposed(ada)? == 0)).ok();
    let mut safe = Vec::new();
    for (id, text) in sent {
        if ada.json(&["where", &id])?["safe"] == true {
            safe.push(text);
        }
    }
    Ok(Said { safe, took })
}

/// How many own entries two others have not said they hold.
fn exposed(person: &Person) -> Result<u64> {
    person.json(&["status"])?["rooms"][0]["exposed"]
        .as_u64()
        .context("no count of what is exposed")
}

/// How many of these the reader does not have.
fn lacking(reader: &Person, texts: &[String]) -> Result<usize> {
    let seen = reader.texts(ROOM)?;
    Ok(texts.iter().filter(|text| !seen.contains(text)).count())
}

/// The keepers, and the dice that say which of them are there.
struct Keepers {
    machines: Vec<(Person, String)>,
    addresses: Vec<String>,
    dice: ChaCha8Rng,
}

impl Keepers {
    fn new(site: &Site, internet: &Internet<'_>) -> Result<Self> {
        let mut keepers = Self {
            machines: Vec::new(),
            addresses: Vec::new(),
            dice: ChaCha8Rng::seed_from_u64(SEED),
        };
        for number in 1..=KEEPERS {
            let name = format!("Keeper{number}");
            let machine = site.namespace(&name)?;
            let at = format!("198.18.0.{}", 40 + number);
            internet.attach(&machine, &at)?;
            let mut keeper = Person::new(site, &name, &machine)?;
            let listen = format!("{at}:4000");
            let status = keeper.keep(&listen)?;
            keepers
                .addresses
                .push(text_of(&status["keeper"], "address")?.to_owned());
            keepers.machines.push((keeper, listen));
        }
        Ok(keepers)
    }

    /// Draws who is there; returns how many are not. Who goes loses its power.
    fn draw(&mut self) -> Result<usize> {
        let mut down = 0;
        for (keeper, listen) in &mut self.machines {
            let is_up = f64::from(self.dice.next_u32()) / f64::from(u32::MAX) < UP;
            match (is_up, keeper.is_up()) {
                (true, false) => drop(keeper.keep(listen)?),
                (false, true) => keeper.power_off()?,
                _ => {}
            }
            down += usize::from(!is_up);
        }
        Ok(down)
    }

    fn all_up(&mut self) -> Result<()> {
        for (keeper, listen) in self.machines.iter_mut().filter(|(keeper, _)| !keeper.is_up()) {
            keeper.keep(listen)?;
        }
        Ok(())
    }
}
