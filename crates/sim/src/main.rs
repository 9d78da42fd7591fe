//! `offhook-sim`: runs scenarios by name and seed, or fresh seeds for a time, and says how to repeat what failed.

use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use offhook_sim::{Options, Plant, Progress, Report, Scenario, names, run};

const USAGE: &str = "\
offhook-sim [--scenario NAME | --file FILE | --all] [--seed N | --seeds FROM..TO | --for-seconds S [--start N]]
            [--trace FILE] [--check-determinism] [--plant FAULT]
offhook-sim --fixed [--start N] [--rounds K]   seed 1 of every scenario, one seed twice, then K rounds of the short ones from seed N
offhook-sim --list

  --scenario NAME      one scenario (may be given more than once)
  --file FILE          one that is not built in
  --all                all of them
  --seed N             one seed; 1 unless told
  --seeds FROM..TO     FROM up to but without TO
  --rounds K           how many seeds of each scenario after the fixed ones
  --for-seconds S      fresh seeds, counted up from --start or from one of the system's, until S seconds are over
  --trace FILE         writes a line for every input and output
  --check-determinism  runs every seed twice and compares the trace hashes
  --plant FAULT        breaks something on purpose, to see the check that finds it; a wrong name lists them";

/// Fresh seeds of every scenario in a test run: some minutes of one core. A count, not a time, so that the same seeds give the same verdict everywhere.
const FIXED_ROUNDS: u64 = 12;
/// How often a run of one seed says how far it is.
const PROGRESS_PERIOD: Duration = Duration::from_secs(10);
/// Scenarios too long for that: they run once each.
const LONG: &[&str] = &["hundreds", "rejoin-after-days"];
/// Scenarios that take several times as long as the others: they take part in every sixth round.
const SLOW: &[&str] = &["hostile-insider", "hostile-reader"];
const SLOW_EVERY: u64 = 6;

#[derive(Default)]
struct Arguments {
    scenarios: Vec<Scenario>,
    seeds: Option<Range<u64>>,
    for_seconds: Option<u64>,
    start: Option<u64>,
    rounds: Option<u64>,
    trace: Option<String>,
    check_determinism: bool,
    plant: Option<Plant>,
    fixed: bool,
    list: bool,
}

/// What all runs came to.
#[derive(Default)]
struct Tally {
    runs: u64,
    messages: u64,
    failed: Vec<Report>,
}

fn main() -> ExitCode {
    match arguments().and_then(|arguments| simulate(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error:#}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn arguments() -> Result<Arguments> {
    let mut parsed = Arguments::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} wants a value"));
        match word.as_str() {
            "--scenario" => parsed.scenarios.push(Scenario::named(&value()?)?),
            "--file" => {
                let path = value()?;
                let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
                parsed.scenarios.push(Scenario::parse(&text)?);
            }
            "--all" => parsed.scenarios = all()?,
            "--seed" => {
                let seed: u64 = value()?.parse().context("--seed wants a number")?;
                parsed.seeds = Some(seed..seed.saturating_add(1));
            }
            "--seeds" => parsed.seeds = Some(range(&value()?)?),
            "--for-seconds" => parsed.for_seconds = Some(value()?.parse().context("--for-seconds wants a number")?),
            "--start" => parsed.start = Some(value()?.parse().context("--start wants a number")?),
            "--rounds" => parsed.rounds = Some(value()?.parse().context("--rounds wants a number")?),
            "--trace" => parsed.trace = Some(value()?),
            "--plant" => parsed.plant = Some(plant(&value()?)?),
            "--check-determinism" => parsed.check_determinism = true,
            "--fixed" => parsed.fixed = true,
            "--list" => parsed.list = true,
            _ => bail!("there is no option {word}"),
        }
    }
    Ok(parsed)
}

fn all() -> Result<Vec<Scenario>> {
    names().into_iter().map(|name| Ok(Scenario::named(name)?)).collect()
}

fn plant(name: &str) -> Result<Plant> {
    let all = || Plant::ALL.iter().map(|plant| format!("{plant:?}"));
    let at = all().position(|known| known.eq_ignore_ascii_case(name));
    let at = at.with_context(|| format!("there is no fault {name}: {}", all().collect::<Vec<_>>().join(", ")))?;
    Ok(Plant::ALL[at])
}

fn range(text: &str) -> Result<Range<u64>> {
    let (from, to) = text.split_once("..").context("--seeds wants FROM..TO")?;
    Ok(from.parse()?..to.parse()?)
}

/// Whether everything held.
fn simulate(arguments: &Arguments) -> Result<bool> {
    if arguments.list {
        for scenario in all()? {
            println!("{:<18} {}", scenario.name, scenario.about);
        }
        return Ok(true);
    }
    let mut tally = Tally::default();
    if arguments.fixed {
        fixed(arguments, &mut tally)?;
    } else {
        let scenarios = match &arguments.scenarios[..] {
            [] => vec![Scenario::named("rooms-small")?],
            some => some.to_vec(),
        };
        match arguments.for_seconds {
            Some(seconds) => fresh(&scenarios, seconds, arguments.start, &mut tally),
            None => chosen(&scenarios, arguments, &mut tally)?,
        }
    }
    Ok(tally.close())
}

/// Seed 1 of every scenario, one of them twice, and fresh seeds.
fn fixed(arguments: &Arguments, tally: &mut Tally) -> Result<()> {
    let scenarios = all()?;
    for scenario in &scenarios {
        tally.take(run(scenario, 1, Options::default()));
    }
    twice(&Scenario::named("rooms-small")?, 2, tally);
    let short: Vec<Scenario> = scenarios
        .into_iter()
        .filter(|s| !LONG.contains(&s.name.as_str()))
        .collect();
    let start = arguments.start.unwrap_or_else(any_start);
    let rounds = arguments.rounds.unwrap_or(FIXED_ROUNDS);
    println!("{rounds} rounds of fresh seeds from {start}");
    for (round, seed) in (0..rounds).zip(start..) {
        let slow = round % SLOW_EVERY == 0;
        for scenario in short.iter().filter(|s| slow || !SLOW.contains(&s.name.as_str())) {
            tally.take(run(scenario, seed, Options::default()));
        }
    }
    Ok(())
}

fn chosen(scenarios: &[Scenario], arguments: &Arguments, tally: &mut Tally) -> Result<()> {
    let seeds = arguments.seeds.clone().unwrap_or(1..2);
    let single = scenarios.len() == 1 && seeds.end - seeds.start == 1;
    for scenario in scenarios {
        for seed in seeds.clone() {
            if arguments.check_determinism {
                twice(scenario, seed, tally);
                continue;
            }
            let trace = arguments.trace.as_ref().map(|path| trace_file(path)).transpose()?;
            let report = run(
                scenario,
                seed,
                Options {
                    trace,
                    plant: arguments.plant,
                    progress: single.then(|| Box::new(said_now_and_then()) as Box<dyn FnMut(Progress)>),
                },
            );
            if single && report.passed() {
                println!("{report}");
            }
            tally.take(report);
        }
    }
    Ok(())
}

fn trace_file(path: &str) -> Result<Box<dyn Write>> {
    let file = File::create(path).with_context(|| format!("cannot write {path}"))?;
    Ok(Box::new(BufWriter::new(file)))
}

/// Says how far a long run is.
fn said_now_and_then() -> impl FnMut(Progress) {
    #[allow(
        clippy::disallowed_methods,
        reason = "a person waits, whatever the run's own time is"
    )]
    let mut last = Instant::now();
    move |progress| {
        if last.elapsed() < PROGRESS_PERIOD {
            return;
        }
        last += last.elapsed();
        let Progress {
            seconds,
            knocking,
            events,
        } = progress;
        eprintln!("   {seconds} s simulated, {knocking} wait to be let in, {events} events");
    }
}

/// The same seed twice must give the same trace.
fn twice(scenario: &Scenario, seed: u64, tally: &mut Tally) {
    let first = run(scenario, seed, Options::default());
    let mut second = run(scenario, seed, Options::default());
    if first.trace_hash != second.trace_hash {
        let text = format!("trace {} at first, {} again", first.trace_hash, second.trace_hash);
        second.violations.push(offhook_sim::Violation {
            invariant: offhook_sim::Invariant::Sound,
            text: format!("the same seed gave two different runs: {text}"),
        });
    }
    tally.take(first);
    tally.take(second);
}

/// The only chance that is not seeded: which seeds to try. It is printed with every run. Kept short, for people to type.
fn any_start() -> u64 {
    RandomState::new().build_hasher().finish() % 1_000_000_000_000
}

fn fresh(scenarios: &[Scenario], seconds: u64, start: Option<u64>, tally: &mut Tally) {
    let start = start.unwrap_or_else(any_start);
    #[allow(
        clippy::disallowed_methods,
        reason = "how long to go on is the person's wish, not the run's"
    )]
    let began = Instant::now();
    println!("fresh seeds from {start} for {seconds} s");
    for seed in start.. {
        for scenario in scenarios {
            if began.elapsed() >= Duration::from_secs(seconds) {
                return;
            }
            tally.take(run(scenario, seed, Options::default()));
        }
    }
}

impl Tally {
    fn take(&mut self, report: Report) {
        println!("{}", report.line());
        self.runs += 1;
        self.messages += report.messages;
        if !report.passed() {
            println!("{report}\n");
            self.failed.push(report);
        }
    }

    /// The last words: trials, failures, and what they are worth.
    fn close(&self) -> bool {
        let (runs, failed, messages) = (self.runs, self.failed.len(), self.messages);
        println!("{failed} of {runs} runs failed; {messages} messages acknowledged");
        if failed == 0 && runs > 0 {
            // The rule of three: no failure in n trials bounds the rate below 3/n at 95 % confidence.
            let bound = 3.0 / runs as f64;
            println!(
                "95 % upper bounds: {bound:.2e} failing runs, {:.2e} lost messages",
                3.0 / messages.max(1) as f64
            );
        }
        for report in &self.failed {
            println!("to repeat: {}", report.command());
        }
        failed == 0
    }
}
