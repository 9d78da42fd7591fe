//! Bench: real `offhook` processes in Linux network namespaces of this machine; the pure half of the same stories is `offhook-sim`.
//!
//! [`site`] makes namespaces and clears them away, [`wire`] is a cable with faults, [`gateway`] the routers between, [`prober`] looks at them from outside,
//! [`flows`] counts what a gateway sees, [`node`] runs the binary, [`plot`] draws, [`labs`] are the stories. Nothing here links against the code under test.
//!
//! Every namespace is called `offhook-lab-PID-NAME`, so that several labs run side by side and one that was killed is cleared away by the next. Outside these
//! namespaces nothing is touched, and no packet leaves them: none has a cable to the machine's own network.

mod flows;
mod gateway;
mod labs;
mod node;
mod plot;
mod prober;
mod report;
mod site;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use labs::{LABS, Lab};
use report::Outcome;
use site::Site;

const USAGE: &str = "\
offhook-lab NAME... | all | --short | --list
  --bin DIR    where the programs under test are (target/debug)
  --out DIR    where results go as JSON and SVG (target/lab)
  --keep       leave homes and logs for a look at them";

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    labs: Vec<&'static Lab>,
    list: bool,
    bin: PathBuf,
    out: PathBuf,
    keep: bool,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            labs: Vec::new(),
            list: false,
            bin: "target/debug".into(),
            out: "target/lab".into(),
            keep: false,
        };
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value\n{USAGE}"));
            match arg.as_str() {
                "--list" => options.list = true,
                "--keep" => options.keep = true,
                "--bin" => options.bin = value()?.into(),
                "--out" => options.out = value()?.into(),
                "--short" => options.labs.extend(LABS.iter().filter(|lab| lab.short)),
                "all" => options.labs.extend(LABS),
                name => options.labs.push(
                    LABS.iter()
                        .find(|lab| lab.name == name)
                        .with_context(|| format!("no lab `{name}`; there are:\n{}", labs::list()))?,
                ),
            }
        }
        if options.labs.is_empty() && !options.list {
            bail!("no lab named\n{USAGE}\n{}", labs::list());
        }
        Ok(options)
    }
}

/// Runs the labs one after the other; true where none failed.
fn run(options: &Options) -> Result<bool> {
    if options.list {
        print!("{}", labs::list());
        return Ok(true);
    }
    site::clear_leftovers();
    site::end_on_signals();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for lab in &options.labs {
        println!("\n== lab {}: {}", lab.name, lab.about);
        let outcome = play(lab, options).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
        match &outcome {
            Outcome::Passed => passed += 1,
            Outcome::Skipped(_) => skipped += 1,
            Outcome::Failed(_) => failed += 1,
        }
        println!("== lab {}: {outcome}", lab.name);
    }
    println!("\n{passed} passed, {failed} failed, {skipped} skipped");
    Ok(failed == 0)
}

/// Plays one lab. What it leaves is kept where it failed.
fn play(lab: &Lab, options: &Options) -> Result<Outcome> {
    let mut site = Site::open(lab.name, options.bin.clone(), options.out.clone(), options.keep)?;
    if let Some(why) = site.missing() {
        return Ok(Outcome::Skipped(why));
    }
    let outcome = (lab.run)(&site).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
    if matches!(outcome, Outcome::Failed(_)) {
        site.keep_and_show();
    }
    Ok(outcome)
}
