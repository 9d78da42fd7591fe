//! Two who are never there at the same time, each behind a NAT, and three keepers that are there nine times of ten. What the speaker was told is safe, the reader has to find.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

use super::scene::{ROOM, relay};
use crate::gateway::{Gateway, Internet, Nat};
use crate::node::{PATIENCE, Person, text_of};
use crate::report::{Outcome, seconds};
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

    let (mut safe, mut at_return) = (Vec::new(), 0);
    let (mut told, mut found) = (Vec::new(), Vec::new());
    let (mut untold, mut late_rounds, mut down) = (0, 0, 0);
    for round in 0..ROUNDS {
        down += keepers.draw()?;
        ada.up(&[])?;
        let start = Instant::now();
        let said = speak(&ada, round)?;
        told.extend(said.took);
        untold += MESSAGES - said.safe.len();
        ada.down()?;

        down += keepers.draw()?;
        let new = said.safe.len();
        safe.extend(said.safe);
        bea.up(&[])?;
        let start_reading = Instant::now();
        match bea.wait_until("sees all that is safe", STAY, || Ok(lacking(&bea, &safe)? == 0)) {
            Ok(_) => {
                found.push(start_reading.elapsed());
                at_return += new;
            }
            Err(_) => {
                late_rounds += 1;
                at_return += new.saturating_sub(lacking(&bea, &safe)?);
            }
        }
        bea.down()?;
        println!(
            "   round {} of {ROUNDS}: {:.1} s",
            round + 1,
            start.elapsed().as_secs_f64()
        );
    }
    keepers.all_up()?;
    bea.up(&[])?;
    // What is still lacking is counted below.
    let _ = bea.wait_until("sees all that is safe", PATIENCE, || Ok(lacking(&bea, &safe)? == 0));
    let in_the_end = safe.len() - lacking(&bea, &safe)?;

    let mut figures = site.figures();
    figures.note("rounds", ROUNDS);
    figures.note("keepers_down_of_drawn", format!("{down} of {}", 2 * ROUNDS * KEEPERS));
    figures.note("told_safe", safe.len());
    figures.note("not_told_safe", untold);
    figures.note("read_at_return", at_return);
    figures.note("returns_with_something_lacking", late_rounds);
    figures.note("read_in_the_end", in_the_end);
    for (name, mut took) in [("told_safe", told), ("all_read", found)] {
        took.sort();
        figures.note(
            &format!("{name}_median_s"),
            took.get(took.len() / 2)
                .map_or_else(Default::default, |took| seconds(*took)),
        );
        figures.note(
            &format!("{name}_most_s"),
            took.last().map_or_else(Default::default, |took| seconds(*took)),
        );
    }
    figures.write()?;
    let mut wrong = Vec::new();
    if in_the_end != safe.len() {
        wrong.push(format!(
            "{} of {} that were said to be safe are lost",
            safe.len() - in_the_end,
            safe.len()
        ));
    }
    if at_return * 1_000 < safe.len() * 999 {
        wrong.push(format!("{at_return} of {} were there at the return", safe.len()));
    }
    Ok(Outcome::of(wrong))
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
