//! `cargo xtask test`: everything that must pass, in order, cheapest first; stops at the first failure.
//!
//! A step that was meant to run tests and ran none is a failure: a check that cannot fail is a defect.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::{cargo, run as run_command, run_watching};
use crate::{fuzz, lab, prerequisites, sim, tidy, web};

/// One line of the summary: what is run, and how.
struct Step {
    name: &'static str,
    run: fn() -> Result<()>,
}

const STEPS: &[Step] = &[
    Step {
        name: "format",
        run: format,
    },
    Step {
        name: "tidy",
        run: || tidy::run(&[]),
    },
    Step {
        name: "clippy",
        run: clippy,
    },
    Step {
        name: "tests",
        run: tests,
    },
    Step {
        name: "fuzz replay",
        run: fuzz::replay,
    },
    Step {
        name: "simulation",
        run: sim::fresh_and_fixed_seeds,
    },
    Step {
        name: "lab",
        run: lab::short,
    },
    Step {
        name: "browser",
        run: web::check,
    },
];

/// Runs every step.
pub(crate) fn run(args: &[String]) -> Result<()> {
    if let Some(unknown) = args.first() {
        bail!("`cargo xtask test` takes no arguments, and got `{unknown}`; for one crate use `cargo test -p CRATE`");
    }
    prerequisites::for_tests()?;
    prerequisites::for_web()?;
    let summary = run_steps(STEPS)?;
    println!("\nall {} steps passed: {summary}", STEPS.len());
    Ok(())
}

fn run_steps(steps: &[Step]) -> Result<String> {
    let mut done: Vec<String> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        println!("\n==== {}/{} {} ====", index + 1, steps.len(), step.name);
        let start = Instant::now();
        let result = (step.run)();
        let elapsed = seconds(start.elapsed());
        done.push(format!("{} {elapsed}", step.name));
        if let Err(error) = result {
            return Err(error).with_context(|| format!("step {} failed ({})", step.name, done.join(", ")));
        }
        println!("==== {} passed in {elapsed} ====", step.name);
    }
    Ok(done.join(", "))
}

fn seconds(elapsed: Duration) -> String {
    format!("{:.1} s", elapsed.as_secs_f64())
}

fn format() -> Result<()> {
    run_command(&mut cargo(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    run_command(&mut cargo([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))
}

fn tests() -> Result<()> {
    cargo_test(&["--workspace"])
}

/// `cargo test ARGS...`; an error also when no test at all was executed.
pub(crate) fn cargo_test(args: &[&str]) -> Result<()> {
    let mut executed = 0;
    // What proptest tries is new for every change, and the same for the same tree.
    let seed = sim::tree_seed()?;
    eprintln!("PROPTEST_RNG_SEED={seed}");
    let mut test = cargo(["test"]);
    test.args(args).env("PROPTEST_RNG_SEED", seed);
    run_watching(&mut test, |line| executed += tests_passed(line))?;
    require_tests(executed)?;
    println!("{executed} tests passed");
    Ok(())
}

fn require_tests(executed: u64) -> Result<()> {
    if executed == 0 {
        bail!("no test was executed");
    }
    Ok(())
}

/// How many tests a closing line of the test runner reports as passed; 0 for any other line.
fn tests_passed(line: &str) -> u64 {
    line.strip_prefix("test result: ok. ")
        .and_then(|rest| rest.split_once(" passed;"))
        .and_then(|(count, _)| count.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_counted() {
        let line = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s";
        assert_eq!(tests_passed(line), 12);
        assert_eq!(tests_passed("running 12 tests"), 0);
    }

    #[test]
    fn the_first_failing_step_stops_the_run_and_is_named() {
        let steps = [
            Step {
                name: "first",
                run: || Ok(()),
            },
            Step {
                name: "second",
                run: || bail!("planted"),
            },
            Step {
                name: "third",
                run: || panic!("a step after a failure was run"),
            },
        ];
        let error = format!("{:#}", run_steps(&steps).expect_err("the second step fails"));
        assert!(error.contains("step second failed"), "{error}");
        assert!(error.contains("planted"), "{error}");
    }

    #[test]
    fn a_step_that_runs_no_test_fails() {
        let lines = [
            "running 0 tests",
            "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out",
        ];
        let executed = lines.into_iter().map(tests_passed).sum();
        assert!(require_tests(executed).is_err());
        assert!(require_tests(1).is_ok());
    }
}
