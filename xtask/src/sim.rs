//! `cargo xtask sim ARGS...`: the simulator, by hand and as a step of the test run.

use std::process::Command;

use anyhow::Result;

use crate::command::{built, cargo, run as run_command};

/// Passes everything on to the simulator's own command line.
pub(crate) fn run(args: &[String]) -> Result<()> {
    run_command(simulator().args(args))
}

/// The first of the seeds that every test run takes. Seeds of the system's choosing are for `cargo xtask sim --all --for-seconds S`, until the rare failures
/// that `docs/simulation.md` lists are settled: a test run must give the same tree the same verdict.
const FIRST_SEED: u64 = 62_276_145_761;

/// Seed 1 of every scenario, one seed twice with the same trace hash, and twenty seeds of each short scenario.
pub(crate) fn fixed_seeds() -> Result<()> {
    run_command(built("offhook-sim").args(["--fixed", "--start", &FIRST_SEED.to_string()]))
}

fn simulator() -> Command {
    cargo(["run", "--quiet", "--package", "offhook-sim", "--"])
}
