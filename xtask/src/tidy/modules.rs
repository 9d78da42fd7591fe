//! Which modules of `proto` may name which: the layers of ARCHITECTURE.md, kept by reading `crate::` and `super::`.
//!
//! `wire`, `identity` and their like are at the bottom; `history`, `overlay`, `mesh` and `calls` do not know each
//! other; `rooms` may use `history`; only `peer` knows all. Any two of the bottom modules may know each other.

use super::source::{PathUse, Source};
use super::{Finding, Tree};

const FOLDER: &str = "crates/proto";

/// Modules that every other may use.
const BOTTOM: &[&str] = &["crypto", "identity", "ids", "store", "time", "wire"];

/// Modules above the bottom, and which of each other they may use.
const LAYERS: &[(&str, &[&str])] = &[
    ("history", &[]),
    ("overlay", &[]),
    ("mesh", &[]),
    ("calls", &[]),
    ("rooms", &["history"]),
    ("sync", &["history", "rooms"]),
];

/// Modules that may use everything.
const TOP: &[&str] = &["peer", "fuzzing"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in tree.shipped(FOLDER) {
        let Some(&module) = source.module_path().first() else {
            continue;
        };
        if !is_listed(module) {
            let what = format!("module `{module}` has no place in the table of layers (xtask/src/tidy/modules.rs)");
            findings.push(Finding::new(&source.path, what));
            continue;
        }
        findings.extend(source.paths().iter().filter_map(|path| judge(source, module, path)));
    }
    findings
}

fn is_listed(module: &str) -> bool {
    BOTTOM.contains(&module) || TOP.contains(&module) || LAYERS.iter().any(|(name, _)| *name == module)
}

fn judge(source: &Source, module: &str, path: &PathUse) -> Option<Finding> {
    let used = top_module(source, path)?;
    let finding = |what: String| Some(Finding::at(source, path.line, what));
    if !is_listed(used) {
        return finding(format!(
            "`crate::{used}` is no listed module: name the module that `{used}` is in"
        ));
    }
    if may_use(module, used) {
        return None;
    }
    finding(format!("`{module}` may not know `{used}`"))
}

/// The top module that a path leads to, when it leaves its file through the crate's root.
fn top_module<'a>(source: &Source, path: &'a PathUse) -> Option<&'a str> {
    let segments = &path.segments;
    let rest = match segments[0].as_str() {
        "crate" => &segments[1..],
        "super" => {
            let climbed = segments.iter().take_while(|segment| *segment == "super").count();
            // An inline module inside the file can only need fewer steps than this to stay inside.
            if climbed < source.module_path().len() {
                return None;
            }
            &segments[climbed..]
        }
        _ => return None,
    };
    rest.first().map(String::as_str)
}

fn may_use(module: &str, used: &str) -> bool {
    if module == used || TOP.contains(&module) {
        return true;
    }
    if BOTTOM.contains(&used) {
        return true;
    }
    LAYERS.iter().any(|(name, may)| *name == module && may.contains(&used))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::Planted;

    fn findings(path: &str, text: &str) -> Vec<String> {
        let tree = Planted::new(&[(path, text)]);
        check(&tree).into_iter().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn allowed_edges_pass() {
        let text = "use crate::history::Entry; use crate::wire; fn f() { crate::identity::x(); super::log::y() }";
        assert_eq!(findings("crates/proto/src/rooms/roster.rs", text), [""; 0]);
        assert_eq!(
            findings("crates/proto/src/peer.rs", "use crate::{mesh, calls};"),
            [""; 0]
        );
        assert_eq!(
            findings("crates/proto/src/history/mod.rs", "#[cfg(test)] use crate::peer;"),
            [""; 0]
        );
    }

    #[test]
    fn forbidden_edges_are_found_however_they_are_written() {
        for text in [
            "use crate::rooms;",
            "use crate::{wire, rooms::Roster};",
            "fn f() { crate::rooms::roster() }",
            "fn f() { x!(crate::rooms::roster()) }",
            "use super::super::rooms::Roster;",
        ] {
            let found = findings("crates/proto/src/history/log.rs", text);
            assert_eq!(
                found,
                ["crates/proto/src/history/log.rs:1: `history` may not know `rooms`"],
                "{text}"
            );
        }
    }

    #[test]
    fn the_bottom_knows_nothing_above_it() {
        assert_eq!(
            findings("crates/proto/src/wire.rs", "use crate::history::Entry;").len(),
            1
        );
        assert_eq!(findings("crates/proto/src/wire.rs", "use super::peer::Peer;").len(), 1);
    }

    #[test]
    fn a_module_without_a_place_is_found_and_so_is_a_way_around_through_the_root() {
        assert_eq!(findings("crates/proto/src/surprise.rs", "").len(), 1);
        assert_eq!(findings("crates/proto/src/overlay.rs", "use crate::Entry;").len(), 1);
    }
}
