//! `cargo xtask sim ARGS...`: the simulator, by hand and as a step of the test run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{built, cargo, root, run as run_command};

/// Passes everything on to the simulator's own command line.
pub(crate) fn run(args: &[String]) -> Result<()> {
    run_command(simulator().args(args))
}

/// Folders whose files decide how a run goes.
const SIMULATED: &[&str] = &["crates/proto/src", "crates/sim/src", "crates/sim/scenarios"];

/// Seed 1 of every scenario, one seed twice with the same trace hash, and twenty seeds of each short scenario that follow from what is simulated: every change
/// of it is tried with seeds that none before was, and the same tree gets the same verdict wherever it is tested.
pub(crate) fn fresh_and_fixed_seeds() -> Result<()> {
    run_command(built("offhook-sim").args(["--fixed", "--start", &tree_seed()?]))
}

/// A seed that follows from this tree, for all that is tried by chance in a test run.
pub(crate) fn tree_seed() -> Result<String> {
    Ok(first_seed(&root())?.to_string())
}

/// The first fresh seed: a hash (FNV-1a) over the simulated files by name and content, short enough to type.
fn first_seed(root: &Path) -> Result<u64> {
    let mut files = Vec::new();
    for folder in SIMULATED {
        files_in(&root.join(folder), &mut files)?;
    }
    files.sort();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
        let content = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        for byte in name.bytes().chain([0]).chain(content).chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    Ok(hash % 1_000_000_000_000)
}

fn files_in(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files_in(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn simulator() -> Command {
    cargo(["run", "--quiet", "--package", "offhook-sim", "--"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_follow_from_what_is_simulated_alone() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let first = first_seed(&root).unwrap();
        assert_eq!(first, first_seed(&root).unwrap());
        let copy = std::env::temp_dir().join(format!("offhook-first-seed-{}", std::process::id()));
        for folder in SIMULATED {
            std::fs::create_dir_all(copy.join(folder)).unwrap();
        }
        let before = first_seed(&copy).unwrap();
        std::fs::write(copy.join("crates/sim/scenarios/a.toml"), "a").unwrap();
        let after = first_seed(&copy).unwrap();
        std::fs::remove_dir_all(&copy).unwrap();
        assert_ne!(before, after);
    }
}
