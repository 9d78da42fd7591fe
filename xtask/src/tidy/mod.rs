//! `cargo xtask tidy`: the rules of STYLE.md and ARCHITECTURE.md that a program can check.
//!
//! Sources are read as tokens with line numbers (`source`), not as text, so comments and strings never count; code
//! under `#[cfg(test)]` is set aside. Each rule is one file here with a table of what is allowed and tests that plant
//! a violation. Names are compared as written: a rule can be evaded by renaming on import, which review must see.

mod benches;
mod crates;
mod docs;
mod modules;
mod purity;
mod ratchet;
mod source;
mod text;
mod words;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use source::Source;

/// One broken rule, at one place.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// `path:line`, or a path alone.
    place: String,
    /// What is wrong, and what to do.
    what: String,
}

/// The tree under check.
struct Tree {
    root: PathBuf,
    sources: Vec<Source>,
}

/// Checks everything; with `--bless` rewrites the ratchet first.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let bless = match args.as_slice() {
        [] => None,
        ["--bless"] => Some(ratchet::Bless::OnlyDown),
        ["--bless", "--grow"] => Some(ratchet::Bless::Grow),
        _ => bail!("tidy takes --bless, or --bless --grow"),
    };
    let tree = Tree::load(&crate::command::root())?;
    if let Some(bless) = bless {
        ratchet::bless(&tree, bless)?;
    }
    report(check(&tree)?, &tree)
}

fn check(tree: &Tree) -> Result<Vec<Finding>> {
    let mut findings = tree.unreadable();
    findings.extend(crates::check(tree)?);
    findings.extend(modules::check(tree));
    findings.extend(purity::check(tree)?);
    findings.extend(docs::check(tree));
    findings.extend(ratchet::check(tree)?);
    findings.extend(words::check(tree));
    findings.extend(text::check(tree)?);
    findings.extend(benches::check(tree));
    findings.sort();
    findings.dedup();
    Ok(findings)
}

fn report(findings: Vec<Finding>, tree: &Tree) -> Result<()> {
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => {
            println!("tidy: {} source files, nothing to report", tree.sources.len());
            Ok(())
        }
        count => bail!("tidy found {count} broken rules"),
    }
}

impl Tree {
    fn load(root: &Path) -> Result<Tree> {
        Ok(Tree {
            root: root.to_path_buf(),
            sources: source::load(root)?,
        })
    }

    /// The non-test sources of one crate folder, such as `crates/proto`.
    fn shipped<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a Source> {
        self.sources
            .iter()
            .filter(move |source| source.is_shipped() && source.in_crate(folder))
    }

    fn unreadable(&self) -> Vec<Finding> {
        self.sources
            .iter()
            .filter_map(|source| source.lex_error.as_ref().map(|error| Finding::new(&source.path, error)))
            .collect()
    }
}

impl Finding {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Finding {
        Finding {
            place: place.into(),
            what: what.into(),
        }
    }

    fn at(source: &Source, line: usize, what: impl Into<String>) -> Finding {
        Finding::new(format!("{}:{line}", source.path), what)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// A tree of planted files, for the rules' own tests; removed when dropped.
#[cfg(test)]
struct Planted(Tree);

#[cfg(test)]
impl Planted {
    fn new(files: &[(&str, &str)]) -> Planted {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("offhook-tidy-{}-{number}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Planted(Tree::load(&root).unwrap())
    }
}

#[cfg(test)]
impl std::ops::Deref for Planted {
    type Target = Tree;
    fn deref(&self) -> &Tree {
        &self.0
    }
}

#[cfg(test)]
impl Drop for Planted {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0.root);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_rust_is_reported() {
        let tree = Planted::new(&[("crates/proto/src/lib.rs", "//! Pure: x.\nfn f() { ) }")]);
        assert_eq!(tree.unreadable().len(), 1);
    }

    #[test]
    fn findings_fail_the_run() {
        let tree = Planted::new(&[("crates/proto/src/lib.rs", "//! Pure: x.")]);
        assert!(report(vec![Finding::new("a", "b")], &tree).is_err());
        assert!(report(vec![], &tree).is_ok());
    }
}
