//! `cargo xtask sim ARGS...`: the simulator, by hand and as a step of the test run.

use std::process::Command;

use anyhow::Result;

use crate::command::{cargo, run as run_command};

/// Passes everything on to the simulator's own command line.
pub(crate) fn run(args: &[String]) -> Result<()> {
    run_command(simulator().args(args))
}

/// The fixed seeds, one seed twice with the same trace hash, and about two minutes of seeds that are new with every change of the tree.
pub(crate) fn fresh_and_fixed_seeds() -> Result<()> {
    run_command(simulator().args(["--fixed", "--start", &seed_of_this_tree().to_string()]))
}

/// The first seed, out of the hash of the committed tree: every change is tried with seeds that no change before it was, and the same tree gets the same verdict wherever it is tested.
fn seed_of_this_tree() -> u64 {
    let tree = Command::new("git").args(["rev-parse", "HEAD^{tree}"]).output();
    let hash = tree.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    // An unpacked archive has no tree to name: one seed is as good as another.
    hash.and_then(|hash| u64::from_str_radix(hash.get(..9)?, 16).ok())
        .unwrap_or(1_000_000)
}

fn simulator() -> Command {
    cargo(["run", "--quiet", "--package", "offhook-sim", "--"])
}
