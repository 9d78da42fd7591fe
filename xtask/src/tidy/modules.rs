//! Which modules of `proto` may name which: the layers of ARCHITECTURE.md, kept by reading `crate::` and `super::`.
//!
//! `wire`, `identity` and their like are at the bottom; `history`, `overlay`, `mesh` and `calls` do not know each
//! other; `rooms` may use `history`; only `peer` knows all. Any two of the bottom modules may know each other.

use std::collections::BTreeMap;

use super::source::{PathUse, Source, is_word, word};
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
    ("files", &["history"]),
    ("keeper", &["history", "rooms"]),
    ("sync", &["history", "keeper", "rooms"]),
];

/// Modules that may use everything.
const TOP: &[&str] = &["peer", "fuzzing"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let macros = exported_macros(tree);
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
        let paths = source.paths();
        findings.extend(paths.iter().filter_map(|path| judge(source, module, path, &macros)));
    }
    findings
}

/// Each `macro_rules!` name with the top module that defines it: an exported macro is named at the crate's root,
/// wherever it is.
fn exported_macros(tree: &Tree) -> BTreeMap<String, String> {
    let mut macros = BTreeMap::new();
    for source in tree.shipped(FOLDER) {
        let Some(&module) = source.module_path().first() else {
            continue;
        };
        for window in source.shipped.windows(3) {
            if let (true, Some(name)) = (is_word(&window[0], "macro_rules"), word(&window[2])) {
                macros.insert(name, module.to_owned());
            }
        }
    }
    macros
}

fn is_listed(module: &str) -> bool {
    BOTTOM.contains(&module) || TOP.contains(&module) || LAYERS.iter().any(|(name, _)| *name == module)
}

fn judge(source: &Source, module: &str, path: &PathUse, macros: &BTreeMap<String, String>) -> Option<Finding> {
    let named = top_name(source, path)?;
    let used = macros.get(named).map_or(named, String::as_str);
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

/// What a path names at the crate's root, when it goes through there.
fn top_name<'a>(source: &Source, path: &'a PathUse) -> Option<&'a str> {
    let segments = &path.segments;
    match segments[0].as_str() {
        "crate" => segments.get(1).map(String::as_str),
        "super" => {
            let climbed = segments.iter().take_while(|segment| *segment == "super").count();
            // From an inline module the same climb ends lower, at an item of this file: that is no module's name.
            let name = segments.get(climbed).filter(|name| is_listed(name))?;
            (climbed >= source.module_path().len()).then_some(name)
        }
        _ => None,
    }
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
    fn a_macro_belongs_to_the_module_that_defines_it() {
        let defines = "macro_rules! entry { () => {} }";
        let uses = "use crate::entry;";
        let edge = |definer: &str, user: &str| {
            check(&Planted::new(&[
                (&format!("crates/proto/src/{definer}.rs"), defines),
                (&format!("crates/proto/src/{user}.rs"), uses),
            ]))
            .len()
        };
        assert_eq!(edge("wire", "rooms"), 0);
        assert_eq!(edge("mesh", "rooms"), 1);
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
