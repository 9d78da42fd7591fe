//! `cargo xtask fuzz`: libFuzzer on one decoder, and the replay of every committed input without it.

use anyhow::{Result, bail};

use crate::command::root;
use crate::suite::cargo_test;

/// Runs the mode that the arguments name.
pub(crate) fn run(args: &[String]) -> Result<()> {
    match args {
        [flag] if flag == "--replay" => replay(),
        _ => bail!("say --replay"),
    }
}

/// Runs every committed input through its decoder.
pub(crate) fn replay() -> Result<()> {
    if !root().join("crates/proto/tests/fuzz_seeds.rs").is_file() {
        println!("skipped: no fuzz inputs in this tree");
        return Ok(());
    }
    cargo_test(&["--package", "offhook-proto", "--test", "fuzz_seeds"])
}
