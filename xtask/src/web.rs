//! The browser client: `cargo xtask web` checks its types, runs its unit tests, builds it again and compares with the committed `web/dist`, then plays
//! the journeys with real nodes and Debian's Chromium. `cargo xtask web --build` only builds `web/dist`; `cargo xtask web --measure` measures how soon the page is
//! ready, how soon a sent entry shows and how a long room scrolls.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{cargo, root, run as run_command, run_watching};
use crate::prerequisites;

/// What `web/dist` may hold before something has gone wrong.
const FILES_MAX: usize = 100;

/// `cargo xtask web`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    match args {
        [] => {
            prerequisites::for_web()?;
            // As the tests build it, so that nothing is compiled twice.
            run_command(&mut cargo(["build", "--workspace", "--bin", "offhook"]))?;
            check()
        }
        [flag] if flag == "--build" => {
            install()?;
            run_command(&mut npm(["run", "build"]))
        }
        [flag] if flag == "--measure" => {
            prerequisites::for_web()?;
            run_command(&mut cargo(["build", "--workspace", "--bin", "offhook"]))?;
            install()?;
            run_command(&mut npm(["run", "--silent", "measure"]))
        }
        _ => bail!("`cargo xtask web` takes nothing, --build or --measure"),
    }
}

/// The step of the whole test run, with the program that the tests before were run with.
pub(crate) fn check() -> Result<()> {
    install()?;
    run_command(&mut npm(["run", "check"]))?;
    let mut units = 0;
    run_watching(npm(["run", "--silent", "unit"]).env("NO_COLOR", "1"), |line| {
        units += units_passed(line)
    })?;
    ensure!(units > 0, "no unit test of the browser client was executed");
    compare_dist()?;
    let mut journeys = 0;
    run_watching(&mut npm(["run", "--silent", "journeys"]), |line| {
        journeys += journeys_passed(line)
    })?;
    ensure!(journeys > 0, "no journey was played");
    println!("{units} unit tests and {journeys} journeys passed");
    Ok(())
}

/// What the lock file names, and nothing else.
fn install() -> Result<()> {
    run_command(&mut npm(["ci", "--no-audit", "--no-fund", "--loglevel=error"]))
}

fn npm<const N: usize>(args: [&str; N]) -> Command {
    let mut command = Command::new("npm");
    command.args(args).current_dir(root().join("web"));
    command
}

/// Builds into another folder and compares: what is committed is what the sources make.
fn compare_dist() -> Result<()> {
    let fresh = root().join("target/web-dist");
    let mut build = npm(["run", "--silent", "build", "--", "--emptyOutDir", "--outDir"]);
    run_command(build.arg(&fresh))?;
    let (committed, built) = (files(&root().join("web/dist"))?, files(&fresh)?);
    let differing = differences(&committed, &built);
    if !differing.is_empty() {
        bail!(
            "web/dist is not what the sources make: {}; run `cargo xtask web --build` and commit web/dist",
            differing.join(", ")
        );
    }
    println!("web/dist is what the sources make: {} files", built.len());
    Ok(())
}

fn differences(committed: &BTreeMap<PathBuf, Vec<u8>>, built: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<String> {
    let names = committed
        .keys()
        .chain(built.keys().filter(|name| !committed.contains_key(*name)));
    names
        .filter(|name| committed.get(*name) != built.get(*name))
        .map(|name| name.display().to_string())
        .collect()
}

/// Every file below a folder.
fn files(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        let entries = std::fs::read_dir(&next).with_context(|| format!("reading {}", next.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let content = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            found.insert(path.strip_prefix(folder)?.to_owned(), content);
            ensure!(found.len() <= FILES_MAX, "{} holds too many files", folder.display());
        }
    }
    ensure!(!found.is_empty(), "{} is empty", folder.display());
    Ok(found)
}

/// From the closing line `      Tests  20 passed (20)`.
fn units_passed(line: &str) -> u64 {
    let counts = line.trim().strip_prefix("Tests").unwrap_or_default();
    number_before(counts, " passed")
}

/// From the closing line `journeys: 5 passed, 0 failed`.
fn journeys_passed(line: &str) -> u64 {
    number_before(line.strip_prefix("journeys:").unwrap_or_default(), " passed")
}

fn number_before(text: &str, word: &str) -> u64 {
    let number = text.split(word).next().filter(|_| text.contains(word));
    number
        .and_then(|before| before.split_whitespace().last())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_counted() {
        assert_eq!(units_passed("      Tests  20 passed (20)"), 20);
        assert_eq!(units_passed("      Tests  1 failed | 19 passed (20)"), 19);
        assert_eq!(units_passed(" Test Files  3 passed (3)"), 0);
        assert_eq!(journeys_passed("journeys: 5 passed, 0 failed"), 5);
        assert_eq!(journeys_passed("ok      first (2.0 s)"), 0);
    }

    #[test]
    fn a_file_that_differs_or_is_only_on_one_side_is_named() {
        let side = |files: &[(&str, &str)]| -> BTreeMap<PathBuf, Vec<u8>> {
            let owned = |(name, content): &(&str, &str)| (PathBuf::from(name), content.as_bytes().to_vec());
            files.iter().map(owned).collect()
        };
        let committed = side(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let built = side(&[("a", "1"), ("b", "2"), ("d", "1")]);
        assert_eq!(differences(&committed, &built), ["b", "c", "d"]);
        assert_eq!(differences(&committed, &committed), [""; 0]);
    }
}
