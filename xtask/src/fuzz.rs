//! `cargo xtask fuzz`: libFuzzer on one decoder, and the replay of every committed input without it.
//!
//! New inputs go to `fuzz/corpus` (not committed); what is worth keeping, above all every input that once crashed, is
//! copied to `fuzz/seeds/TARGET/` under a name that says what it is, and is replayed by every test run from then on.
//! No sanitizer is used: there is no unsafe code of ours, and without one a stable compiler suffices.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{cargo, in_root, output, root, run as run_command, succeeds};
use crate::suite::cargo_test;

const SECONDS_USUAL: u32 = 60;
const PLANTED_SECONDS_MAX: u32 = 180;
const PLANTED: &str = "planted";
/// Inputs are small values; a longer one only slows the search.
const INPUT_BYTES_MAX: u32 = 64 * 1024;

/// Runs the mode that the arguments name.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["--replay"] => replay(),
        ["--planted"] => find_planted_bug(),
        [target] if !target.starts_with('-') => search(target, SECONDS_USUAL),
        [target, "--seconds", seconds] => search(target, seconds.parse().context("--seconds takes a number")?),
        _ => bail!(
            "say a target, --replay or --planted; the targets are: {}",
            targets()?.join(" ")
        ),
    }
}

/// Runs every committed input, and changes to it, through its decoder.
pub(crate) fn replay() -> Result<()> {
    cargo_test(&["--workspace", "--test", "fuzz_seeds"])
}

fn search(target: &str, seconds: u32) -> Result<()> {
    if !targets()?.iter().any(|known| known == target) {
        bail!("no fuzz target `{target}`; there are: {}", targets()?.join(" "));
    }
    need_cargo_fuzz()?;
    run_command(&mut fuzzer(target, seconds)?).context("a crash is a finding: copy the input named above to fuzz/seeds")
}

/// The fuzzer must find the bug that `fuzz_targets/planted.rs` has on purpose, from nothing but its dictionary.
fn find_planted_bug() -> Result<()> {
    need_cargo_fuzz()?;
    // What an earlier run learned would make this one prove nothing.
    let corpus = root().join("fuzz/corpus").join(PLANTED);
    if corpus.exists() {
        std::fs::remove_dir_all(&corpus)?;
    }
    run_command(&mut cargo_fuzz(&["build", "--sanitizer", "none", PLANTED]))?;
    let mut command = fuzzer(PLANTED, PLANTED_SECONDS_MAX)?;
    let start = std::time::Instant::now();
    let run = command.output().context("cannot start the fuzzer")?;
    let said = String::from_utf8_lossy(&run.stderr);
    if run.status.success() || !said.contains("planted bug reached") {
        bail!("the fuzzer did not find the planted bug in {PLANTED_SECONDS_MAX} s:\n{said}");
    }
    println!(
        "the fuzzer found the planted bug in {:.1} s",
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root().join("fuzz/fuzz_targets"))? {
        names.extend(
            entry?
                .path()
                .file_stem()
                .and_then(|stem| stem.to_str())
                .map(str::to_owned),
        );
    }
    names.sort();
    Ok(names)
}

fn fuzzer(target: &str, seconds: u32) -> Result<Command> {
    let corpus = Path::new("fuzz/corpus").join(target);
    std::fs::create_dir_all(root().join(&corpus))?;
    let mut command = cargo_fuzz(&["run", "--sanitizer", "none", target]);
    // The first folder takes what is new.
    command.arg(corpus);
    let seeds = Path::new("fuzz/seeds").join(target);
    if root().join(&seeds).is_dir() {
        command.arg(seeds);
    }
    command.arg("--");
    command.arg(format!("-dict=fuzz/dictionaries/{target}.dict"));
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-max_len={INPUT_BYTES_MAX}"));
    Ok(command)
}

/// `cargo fuzz`, found by the cargo on the path: it is no part of the toolchain.
fn cargo_fuzz(args: &[&str]) -> Command {
    let mut command = in_root("cargo", ["fuzz"]);
    command.args(args);
    command
}

fn need_cargo_fuzz() -> Result<()> {
    if succeeds(&mut cargo_fuzz(&["--version"])) {
        return Ok(());
    }
    eprintln!("installing cargo-fuzz (once, a few minutes)");
    run_command(&mut cargo(["install", "cargo-fuzz", "--locked"]))?;
    output(&mut cargo_fuzz(&["--version"])).map(drop)
}
