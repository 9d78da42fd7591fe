//! Every shipped file begins with a module doc, and the doc of a crate says in its first word what kind it is.

use super::crates::{CRATES, Kind};
use super::source::Source;
use super::{Finding, Tree};

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.sources
        .iter()
        .filter(|source| source.is_shipped())
        .filter_map(judge)
        .collect()
}

fn judge(source: &Source) -> Option<Finding> {
    let Some(doc) = first_doc_line(&source.text) else {
        return Some(Finding::new(
            &source.path,
            "has no `//!` doc at its head: say what it is and what it does not do",
        ));
    };
    let expected = expected_start(source)?;
    if doc.starts_with(expected) {
        return None;
    }
    Some(Finding::new(
        &source.path,
        format!("the crate's doc must begin with `//! {expected}`"),
    ))
}

/// The text of the first line, when it is a module doc; inner attributes may stand before it.
fn first_doc_line(text: &str) -> Option<&str> {
    let line = text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with("#!["))?;
    line.strip_prefix("//!").map(str::trim).filter(|doc| !doc.is_empty())
}

fn expected_start(source: &Source) -> Option<&'static str> {
    let rule = CRATES.iter().find(|rule| source.in_crate(rule.folder))?;
    let inside = source.path.strip_prefix(rule.folder)?;
    if !matches!(inside, "/src/lib.rs" | "/src/main.rs") {
        return None;
    }
    match rule.kind {
        Kind::Pure { .. } => Some("Pure"),
        Kind::Shell => Some("Shell"),
        Kind::Bench => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::Planted;

    fn count(path: &str, text: &str) -> usize {
        check(&Planted::new(&[(path, text)])).len()
    }

    #[test]
    fn a_file_without_a_doc_is_found() {
        assert_eq!(count("crates/proto/src/wire.rs", "use a::b;\n//! too late\n"), 1);
        assert_eq!(count("crates/proto/src/wire.rs", "// Frames.\n"), 1);
        assert_eq!(count("crates/proto/src/wire.rs", "//!\n"), 1);
        assert_eq!(count("crates/proto/src/wire.rs", "#![allow(x)]\n\n//! Frames.\n"), 0);
    }

    #[test]
    fn the_kind_of_a_crate_is_the_first_word_of_its_doc() {
        assert_eq!(count("crates/proto/src/lib.rs", "//! Everything a node decides.\n"), 1);
        assert_eq!(count("crates/proto/src/lib.rs", "//! Shell: x.\n"), 1);
        assert_eq!(count("crates/proto/src/lib.rs", "//! Pure: x.\n"), 0);
        assert_eq!(count("crates/node/src/lib.rs", "//! Shell: x.\n"), 0);
    }
}
