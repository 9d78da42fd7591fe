//! Two members behind symmetric NATs cannot reach each other. A third, at a public address, serves as relay; its members learn that from its invite.

use anyhow::Result;

use crate::gateway::{Gateway, Internet, Nat};
use crate::node::{PATIENCE, Person};
use crate::report::{Outcome, seconds};
use crate::site::Site;

const ROOM: &str = "Kitchen";

pub(super) fn run(site: &Site) -> Result<Outcome> {
    let internet = Internet::new(site)?;
    let public = site.namespace("Cem")?;
    internet.attach(&public, "198.18.0.13")?;
    let mut cem = Person::new(site, "Cem", &public)?;
    cem.up(&["--relay"])?;
    cem.make_room(ROOM)?;

    let behind = |name: &str, outside: &str| -> Result<(Gateway<'_>, Person)> {
        let gateway = Gateway::new(site, &format!("{name}-nat"), "192.168.1.1", 24)?;
        internet.attach(&gateway.namespace, outside)?;
        gateway.set_nat(Nat::Symmetric)?;
        let machine = site.namespace(name)?;
        gateway.attach(&machine, "192.168.1.10")?;
        let mut person = Person::new(site, name, &machine)?;
        person.up(&[])?;
        Ok((gateway, person))
    };
    let (_left, ada) = behind("Ada", "198.18.0.20")?;
    let (_right, bea) = behind("Bea", "198.18.0.30")?;
    cem.let_in(&ada, ROOM)?;
    cem.let_in(&bea, ROOM)?;

    let mut figures = site.figures();
    let mut path = None;
    let took = ada.wait_until("has a line to Bea", PATIENCE, || {
        path = ada.path_to("Bea")?.filter(|path| !path.is_empty());
        Ok(path.is_some())
    })?;
    let path = path.unwrap_or_default();
    figures.note("line_after_s", seconds(took));
    figures.note("path", path.clone());
    let said = vec!["across two symmetric NATs".to_owned()];
    ada.say(ROOM, &said[0])?;
    figures.note("message_s", seconds(bea.wait_for(ROOM, &said, PATIENCE)?));
    figures.write()?;
    Ok(Outcome::of(match path.contains("relay") {
        true => Vec::new(),
        false => vec![format!("Ada's line to Bea goes {path}, not through Cem's relay")],
    }))
}
