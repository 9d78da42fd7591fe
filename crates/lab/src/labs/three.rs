//! Three people, three machines on one network. C goes away; A and B talk, and leave in turn; C comes back to nobody, then B alone comes back.

use std::time::Instant;

use anyhow::Result;

use crate::gateway::Internet;
use crate::node::{PATIENCE, Person};
use crate::report::{Outcome, seconds};
use crate::site::Site;

const ROOM: &str = "Kitchen";

pub(super) fn run(site: &Site) -> Result<Outcome> {
    let internet = Internet::new(site)?;
    let person = |name: &str, address: &str| -> Result<Person> {
        let machine = site.namespace(name)?;
        internet.attach(&machine, address)?;
        let mut person = Person::new(site, name, &machine)?;
        person.up(&[])?;
        Ok(person)
    };
    let (mut ada, mut bea, mut cem) = (
        person("Ada", "198.18.0.11")?,
        person("Bea", "198.18.0.12")?,
        person("Cem", "198.18.0.13")?,
    );
    let mut figures = site.figures();
    let start = Instant::now();
    ada.make_room(ROOM)?;
    ada.let_in(&bea, ROOM)?;
    ada.let_in(&cem, ROOM)?;
    figures.note("two_joined_s", seconds(start.elapsed()));

    let mut said = vec!["Shall we cook on Friday?".to_owned()];
    ada.say(ROOM, &said[0])?;
    cem.wait_for(ROOM, &said, PATIENCE)?;
    cem.down()?;
    for (speaker, listener, text) in [(&bea, &ada, "Friday is good"), (&ada, &bea, "I bring bread")] {
        speaker.say(ROOM, text)?;
        said.push(text.to_owned());
        listener.wait_for(ROOM, &said, PATIENCE)?;
    }
    ada.down()?;
    said.push("and I bring soup".to_owned());
    bea.say(ROOM, &said[3])?;
    bea.down()?;

    cem.up(&[])?;
    let alone = cem.texts(ROOM)?.len();
    let start = Instant::now();
    bea.up(&[])?;
    cem.wait_for(ROOM, &said, PATIENCE)?;
    let took = start.elapsed();
    figures.note("had_alone_messages", alone);
    figures.note("got_everything_after_s", seconds(took));
    figures.write()?;
    let mut wrong = Vec::new();
    if alone != 1 {
        wrong.push(format!(
            "Cem had {alone} messages before anybody was there, instead of 1"
        ));
    }
    Ok(Outcome::of(wrong))
}
