//! Pure crates decide and do nothing else: no socket, file, clock, thread, runtime, ambient randomness, and no map
//! whose order differs from run to run.
//!
//! Four looks, each catching what the others miss: the names in the shipped code; the methods that clippy resolves by
//! type (every pure crate has the same `clippy.toml`, since the nearest one wins); the crates in the dependency tree,
//! with features as the crate alone would have them; and a build for a target that has none of those things.

use anyhow::Result;

use super::crates::{CRATES, CrateRule, Kind, pure};
use super::source::{PathUse, Source};
use super::{Finding, Tree};
use crate::command::{cargo, output, run, succeeds};

/// A run of path segments that is banned, and what to do instead.
const BANNED: &[(&[&str], &str)] = &[
    (&["TcpStream"], "the shell owns the sockets"),
    (&["TcpListener"], "the shell owns the sockets"),
    (&["UdpSocket"], "the shell owns the sockets"),
    (&["std", "fs"], "the shell owns the files; the store is a trait"),
    (&["std", "env"], "take it as an argument"),
    (&["std", "process"], "the shell starts processes"),
    (&["std", "thread"], "the shell owns the threads"),
    (&["Instant", "now"], "take `now` as an argument"),
    (&["SystemTime", "now"], "take the wall time as an argument"),
    (&["tokio"], "the shell owns the runtime"),
    (&["rand", "rng"], "take the random source as an argument"),
    (&["thread_rng"], "take the random source as an argument"),
    (&["ThreadRng"], "take the random source as an argument"),
    (&["OsRng"], "take the random source as an argument"),
    (&["getrandom"], "take the random source as an argument"),
    (&["HashMap"], "its order differs from run to run: use BTreeMap"),
    (&["HashSet"], "its order differs from run to run: use BTreeSet"),
];

/// Crates that a pure crate must not reach, however indirectly.
const BANNED_CRATES: &[&str] = &["tokio", "mio", "socket2", "rusqlite", "libsqlite3-sys", "getrandom"];

const WASM: &str = "wasm32-unknown-unknown";

pub(super) fn check(tree: &Tree) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for rule in pure(&tree.root) {
        findings.extend(names(tree, rule));
        findings.extend(lints(tree, rule));
        let mut command = cargo([
            "tree",
            "--package",
            rule.package,
            "--edges",
            "normal",
            "--prefix",
            "none",
        ]);
        findings.extend(dependencies(rule, &output(&mut command)?));
    }
    wasm(tree)?;
    Ok(findings)
}

fn names(tree: &Tree, rule: &CrateRule) -> Vec<Finding> {
    tree.shipped(rule.folder).flat_map(names_in).collect()
}

fn names_in(source: &Source) -> Vec<Finding> {
    let finding = |path: &PathUse| {
        let (name, instead) = BANNED.iter().find(|(name, _)| contains(&path.segments, name))?;
        let what = format!("`{}` in a pure crate: {instead}", name.join("::"));
        Some(Finding::at(source, path.line, what))
    };
    source.paths().iter().filter_map(finding).collect()
}

fn contains(segments: &[String], name: &[&str]) -> bool {
    segments.windows(name.len()).any(|window| window == name)
}

/// The bans that clippy checks are one text, in as many places as there are pure crates.
fn lints(tree: &Tree, rule: &CrateRule) -> Option<Finding> {
    let read = |folder: &str| std::fs::read_to_string(tree.root.join(folder).join("clippy.toml")).ok();
    let model = CRATES[0].folder;
    if read(rule.folder).is_some_and(|text| Some(text) == read(model)) {
        return None;
    }
    let what = format!("must be the same as {model}/clippy.toml: copy it");
    Some(Finding::new(format!("{}/clippy.toml", rule.folder), what))
}

/// `listing` is `cargo tree` without indentation: one `name version` a line.
fn dependencies(rule: &CrateRule, listing: &str) -> Vec<Finding> {
    let reached = |banned: &&&str| listing.lines().any(|line| line.split(' ').next() == Some(**banned));
    BANNED_CRATES
        .iter()
        .filter(reached)
        .map(|banned| {
            let how = format!("see `cargo tree -p {} -e normal -i {banned}`", rule.package);
            Finding::new(
                rule.folder,
                format!("pure, yet reaches `{banned}`: turn its feature off; {how}"),
            )
        })
        .collect()
}

fn wasm(tree: &Tree) -> Result<()> {
    if !has_wasm_target() {
        println!("tidy: skipped the {WASM} build of the pure crates: the target is not installed");
        println!("      (rustup target add {WASM})");
        return Ok(());
    }
    for rule in pure(&tree.root).filter(|rule| rule.kind == Kind::Pure { wasm: true }) {
        run(&mut cargo([
            "check",
            "--quiet",
            "--package",
            rule.package,
            "--target",
            WASM,
        ]))?;
    }
    Ok(())
}

/// Asks for it once where rustup can give it: `add` is quick and silent when the target is there already.
fn has_wasm_target() -> bool {
    let mut rustup = std::process::Command::new("rustup");
    succeeds(rustup.args(["target", "add", WASM]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::Planted;

    fn findings(text: &str) -> Vec<Finding> {
        let tree = Planted::new(&[("crates/proto/src/history/log.rs", text)]);
        names(&tree, &CRATES[0])
    }

    #[test]
    fn what_a_pure_crate_needs_passes() {
        let text = "use std::{collections::BTreeMap, time::Instant, net::SocketAddr};\nfn f(now: Instant) {}\n\
                    #[cfg(test)]\nmod tests { use std::collections::HashMap; fn g() { Instant::now(); } }";
        assert_eq!(findings(text), []);
    }

    #[test]
    fn every_banned_name_is_found() {
        for (name, _) in BANNED {
            let written = name.join("::");
            for text in [format!("use {written};"), format!("fn f() {{ g!({written}()) }}")] {
                assert_eq!(findings(&text).len(), 1, "{text}");
            }
        }
        assert_eq!(findings("use std::{fs::File, thread};").len(), 2);
    }

    #[test]
    fn a_pure_crate_without_the_same_lints_is_found() {
        let with = |text: &str| {
            let tree = Planted::new(&[
                ("crates/proto/clippy.toml", "x"),
                ("crates/exchange-proto/clippy.toml", text),
            ]);
            lints(&tree, &CRATES[2]).is_some()
        };
        assert!(!with("x"));
        assert!(with("y"));
        assert!(lints(&Planted::new(&[]), &CRATES[0]).is_some());
    }

    #[test]
    fn a_banned_dependency_is_found_by_its_whole_name() {
        let listing = "offhook-proto v0.1.0 (here)\ntokio-util v0.7.0\ngetrandom v0.4.3\n";
        let found = dependencies(&CRATES[0], listing);
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("`getrandom`"), "{}", found[0]);
    }
}
