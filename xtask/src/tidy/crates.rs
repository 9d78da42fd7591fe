//! Which of our crates may depend on which. Dev-dependencies count too: a test must not reach around an edge.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Finding, Tree};
use crate::command::{cargo, output};

/// What a crate is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Decides: no socket, file, clock, thread, runtime or ambient randomness.
    Pure {
        /// Whether it must also compile for a machine that has none of those.
        wasm: bool,
    },
    /// Does.
    Shell,
    /// Drives the others in tests; neither decides nor ships.
    Bench,
}

/// One crate of ours.
pub(super) struct CrateRule {
    /// Its package name.
    pub(super) package: &'static str,
    /// Where it is.
    pub(super) folder: &'static str,
    /// What it is.
    pub(super) kind: Kind,
    /// Our crates that it may name in its Cargo.toml.
    may_use: &'static [&'static str],
}

/// Every crate. A new one gets a line here, with its reason in ARCHITECTURE.md.
pub(super) const CRATES: &[CrateRule] = &[
    CrateRule {
        package: "offhook-proto",
        folder: "crates/proto",
        kind: Kind::Pure { wasm: true },
        may_use: &[],
    },
    CrateRule {
        package: "offhook-voice",
        folder: "crates/voice",
        // libopus is C, so it has no build for a bare machine.
        kind: Kind::Pure { wasm: false },
        may_use: &[],
    },
    CrateRule {
        package: "offhook-exchange-proto",
        folder: "crates/exchange-proto",
        kind: Kind::Pure { wasm: true },
        may_use: &["offhook-proto"],
    },
    CrateRule {
        package: "offhook-node",
        folder: "crates/node",
        kind: Kind::Shell,
        may_use: &["offhook-proto", "offhook-voice"],
    },
    CrateRule {
        package: "offhook-exchange",
        folder: "crates/exchange",
        kind: Kind::Shell,
        may_use: &["offhook-exchange-proto", "offhook-voice", "offhook-node"],
    },
    CrateRule {
        package: "offhook",
        folder: "crates/offhook",
        kind: Kind::Shell,
        may_use: &["offhook-node", "offhook-exchange"],
    },
    CrateRule {
        package: "offhook-sim",
        folder: "crates/sim",
        kind: Kind::Bench,
        may_use: &["offhook-proto", "offhook-voice", "offhook-exchange-proto"],
    },
    CrateRule {
        package: "offhook-lab",
        folder: "crates/lab",
        kind: Kind::Bench,
        may_use: &[],
    },
    CrateRule {
        package: "xtask",
        folder: "xtask",
        kind: Kind::Shell,
        may_use: &[],
    },
];

/// The pure crates that exist in this tree.
pub(super) fn pure(root: &Path) -> impl Iterator<Item = &'static CrateRule> {
    CRATES
        .iter()
        .filter(move |rule| matches!(rule.kind, Kind::Pure { .. }) && root.join(rule.folder).is_dir())
}

pub(super) fn check(tree: &Tree) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for package in packages(&tree.root)? {
        findings.extend(lints(tree, &package)?);
        match CRATES.iter().find(|rule| rule.package == package.name) {
            None => findings.push(Finding::new(
                &package.manifest,
                format!(
                    "{} is not in the table of crates (xtask/src/tidy/crates.rs)",
                    package.name
                ),
            )),
            Some(rule) => findings.extend(
                package
                    .ours
                    .iter()
                    .filter(|used| !rule.may_use.contains(&used.as_str()))
                    .map(|used| {
                        let may = rule.may_use.join(", ");
                        Finding::new(
                            &package.manifest,
                            format!("{} may not use {used}, only: [{may}]", rule.package),
                        )
                    }),
            ),
        }
    }
    Ok(findings)
}

/// The workspace's lints hold only where a crate asks for them.
fn lints(tree: &Tree, package: &Package) -> Result<Option<Finding>> {
    let text = std::fs::read_to_string(tree.root.join(&package.manifest))?;
    let asked = text.contains("[lints]\nworkspace = true");
    let what = "must say `[lints]` `workspace = true`";
    Ok((!asked).then(|| Finding::new(&package.manifest, what)))
}

struct Package {
    name: String,
    manifest: String,
    /// The workspace's packages that it names.
    ours: Vec<String>,
}

fn packages(root: &Path) -> Result<Vec<Package>> {
    let mut command = cargo(["metadata", "--no-deps", "--format-version", "1"]);
    let text = output(command.current_dir(root))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata printed something other than JSON")?;
    let list = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?;
    list.iter().map(|package| read_package(package, root)).collect()
}

fn read_package(package: &Value, root: &Path) -> Result<Package> {
    let name = package["name"].as_str().context("a package without a name")?;
    let manifest = package["manifest_path"]
        .as_str()
        .context("a package without a manifest")?;
    let dependencies = package["dependencies"]
        .as_array()
        .context("a package without dependencies")?;
    // A crate of ours is known by its path: only the workspace's own packages have one.
    let ours = dependencies.iter().filter(|dependency| dependency["path"].is_string());
    Ok(Package {
        name: name.to_owned(),
        manifest: Path::new(manifest)
            .strip_prefix(root)
            .unwrap_or(Path::new(manifest))
            .display()
            .to_string(),
        ours: ours
            .filter_map(|dependency| dependency["name"].as_str())
            .map(str::to_owned)
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::Planted;

    fn manifest(name: &str, dependencies: &str) -> String {
        format!("[package]\nname = \"{name}\"\nedition = \"2024\"\n[lints]\nworkspace = true\n{dependencies}")
    }

    fn planted(proto_dependencies: &str, other: &str) -> Vec<Finding> {
        let tree = Planted::new(&[
            (
                "Cargo.toml",
                "[workspace]\nresolver = \"3\"\nmembers = [\"crates/*\"]\n[workspace.lints]\n",
            ),
            (
                "crates/proto/Cargo.toml",
                &manifest("offhook-proto", proto_dependencies),
            ),
            ("crates/proto/src/lib.rs", "//! Pure: x."),
            ("crates/other/Cargo.toml", &manifest(other, "")),
            ("crates/other/src/lib.rs", "//! Shell: x."),
        ]);
        check(&tree).unwrap()
    }

    #[test]
    fn a_clean_tree_passes() {
        assert_eq!(planted("", "offhook-node"), []);
    }

    #[test]
    fn an_edge_upwards_is_found_among_all_kinds_of_dependency() {
        let edge = "offhook-node = { path = \"../other\" }";
        for table in [
            "dependencies",
            "dev-dependencies",
            "build-dependencies",
            "target.'cfg(unix)'.dependencies",
        ] {
            let findings = planted(&format!("[{table}]\n{edge}\n"), "offhook-node");
            assert_eq!(findings.len(), 1, "{table}");
            assert!(
                findings[0].what.contains("offhook-proto may not use offhook-node"),
                "{}",
                findings[0]
            );
        }
    }

    #[test]
    fn a_crate_that_does_not_ask_for_the_lints_is_found() {
        let tree = Planted::new(&[
            ("Cargo.toml", "[package]\nname = \"xtask\"\nedition = \"2024\"\n"),
            ("src/lib.rs", ""),
        ]);
        assert_eq!(check(&tree).unwrap().len(), 1);
    }

    #[test]
    fn a_crate_that_is_not_listed_is_found() {
        let findings = planted("", "offhook-surprise");
        assert_eq!(findings.len(), 1);
        assert!(findings[0].what.contains("not in the table"), "{}", findings[0]);
    }
}
