//! `cargo xtask sim ARGS...`: the simulator, by hand and as a step of the test run.

use anyhow::{Result, bail};

use crate::command::{cargo, root, run as run_command};

const PACKAGE: &str = "offhook-sim";

/// Passes everything on to the simulator's own command line.
pub(crate) fn run(args: &[String]) -> Result<()> {
    if !exists() {
        bail!("this tree has no simulator (crates/sim)");
    }
    run_command(simulator().args(args))
}

/// Two minutes of fresh seeds, the fixed seeds, and one seed twice with the same trace hash.
pub(crate) fn fresh_and_fixed_seeds() -> Result<()> {
    if !exists() {
        println!("skipped: this tree has no simulator (crates/sim)");
        return Ok(());
    }
    run_command(simulator().args(["--fixed"]))
}

fn simulator() -> std::process::Command {
    cargo(["run", "--quiet", "--package", PACKAGE, "--"])
}

fn exists() -> bool {
    root().join("crates/sim/Cargo.toml").is_file()
}
