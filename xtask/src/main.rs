//! Shell: the project's only task runner. `cargo xtask` alone prints what it can do.

mod bench;
mod command;
mod demo;
mod fuzz;
mod lab;
mod prerequisites;
mod sim;
mod suite;
mod tidy;
mod up;
mod web;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
cargo xtask TASK

  up [ARGS...]             check and install what the build needs, build, run `offhook up ARGS...`
  demo                     the story with three real nodes on loopback, as a timeline with times
  test                     the same for the tests, then all of them, in order; stops at the first failure
  tidy [--bless [--grow]]  the rules about the code that a program can check; --bless lowers the length
                           ratchet to what is measured, --grow lets it rise too
  bench [NAME]             all benches, or one; without building anything: bench --list
  web [--build]            the browser client: types, unit tests, web/dist compared, journeys in a real browser;
                           --build only makes web/dist
  sim ARGS...              the simulator: sim --scenario X --seed N
  lab NAME... | all        real binaries in network namespaces, as root; without running any: lab --list
  fuzz TARGET [--seconds N]  run one fuzz target (60 s)
  fuzz --replay            run every committed fuzz input through its decoder, no fuzzer needed
  fuzz --planted           prove that the fuzzer finds a planted bug";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    let Some((task, rest)) = args.split_first() else {
        bail!("no task named\n\n{USAGE}");
    };
    match task.as_str() {
        "up" => up::run(rest),
        "demo" => demo::run(rest),
        "test" => suite::run(rest),
        "tidy" => tidy::run(rest),
        "bench" => bench::run(rest),
        "sim" => sim::run(rest),
        "lab" => lab::run(rest),
        "web" => web::run(rest),
        "fuzz" => fuzz::run(rest),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        other => bail!("no task `{other}`\n\n{USAGE}"),
    }
}
