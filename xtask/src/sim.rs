//! `cargo xtask sim ARGS...`: the simulator, by hand and as a step of the test run.

use anyhow::Result;

use crate::command::{cargo, run as run_command};

/// Passes everything on to the simulator's own command line.
pub(crate) fn run(args: &[String]) -> Result<()> {
    run_command(simulator().args(args))
}

/// Two minutes of fresh seeds, the fixed seeds, and one seed twice with the same trace hash.
pub(crate) fn fresh_and_fixed_seeds() -> Result<()> {
    run_command(simulator().args(["--fixed"]))
}

fn simulator() -> std::process::Command {
    cargo(["run", "--quiet", "--package", "offhook-sim", "--"])
}
