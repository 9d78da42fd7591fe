//! Tracked text must not name folders of the machine that it was written on.

use std::path::Path;

use anyhow::Result;

use super::{Finding, Tree};
use crate::command::output;

/// Put together here so that this file does not name them either.
const MACHINE_FOLDERS: &[&str] = &[concat!("/", "work/"), concat!("/", "root/")];

pub(super) fn check(tree: &Tree) -> Result<Vec<Finding>> {
    let mut command = std::process::Command::new("git");
    command
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(&tree.root);
    let listing = output(&mut command)?;
    let mut findings = Vec::new();
    for name in listing.split('\0').filter(|name| !name.is_empty()) {
        findings.extend(check_file(&tree.root, name)?);
    }
    Ok(findings)
}

fn check_file(root: &Path, name: &str) -> Result<Vec<Finding>> {
    let bytes = match std::fs::read(root.join(name)) {
        Ok(bytes) => bytes,
        // Deleted but still in the index, or a link to nowhere: nothing to read.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return Ok(Vec::new());
    };
    let found = |(index, line): (usize, &str)| {
        let folder = MACHINE_FOLDERS.iter().find(|folder| names_folder(line, folder))?;
        let what = format!("names the folder `{folder}` of one machine");
        Some(Finding::new(format!("{name}:{}", index + 1), what))
    };
    Ok(text.lines().enumerate().filter_map(found).collect())
}

/// Whether `folder` begins a path in `line`: in the middle of a longer path or a URL it means something else.
fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|letter| letter.is_alphanumeric() || "._-/~}".contains(letter))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::Planted;

    #[test]
    fn a_machine_folder_is_found_in_any_text_file() {
        let bad = format!("see {}notes for why\n", MACHINE_FOLDERS[0]);
        let tree = Planted::new(&[("docs/a.md", &bad), ("docs/b.md", "see target/work/notes\n")]);
        assert_eq!(check_file(&tree.root, "docs/a.md").unwrap().len(), 1);
        assert_eq!(check_file(&tree.root, "docs/b.md").unwrap(), []);
    }

    #[test]
    fn the_list_of_files_comes_from_git() {
        let bad = format!("cd {}\n", MACHINE_FOLDERS[1]);
        let tree = Planted::new(&[("a.sh", &bad), ("ignored.sh", &bad), (".gitignore", "ignored.sh\n")]);
        output(
            std::process::Command::new("git")
                .args(["init", "-q"])
                .current_dir(&tree.root),
        )
        .unwrap();
        let found = check(&tree).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].place, "a.sh:1");
    }
}
