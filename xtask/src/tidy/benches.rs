//! The table of benches and the files agree, so that no bench is forgotten and none is only a name.

use super::{Finding, Tree};
use crate::bench::{BENCHES, Bench};
use crate::tidy::crates::CRATES;

const TABLE: &str = "xtask/src/bench.rs";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    compare(tree, BENCHES)
}

fn compare(tree: &Tree, table: &[Bench]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let listed: Vec<String> = table.iter().filter_map(file_of).collect();
    for bench in table {
        let file = file_of(bench);
        if !file.is_some_and(|file| tree.root.join(file).is_file()) {
            findings.push(Finding::new(TABLE, format!("bench `{}` has no file", bench.name)));
        }
    }
    for source in tree.sources.iter().filter(|source| is_bench_file(&source.path)) {
        if !listed.contains(&source.path) {
            findings.push(Finding::new(
                &source.path,
                format!("is not in the table of benches ({TABLE})"),
            ));
        }
    }
    findings
}

fn file_of(bench: &Bench) -> Option<String> {
    let rule = CRATES.iter().find(|rule| rule.package == bench.package)?;
    Some(format!("{}/{}", rule.folder, bench.file()))
}

/// A file at the top of `benches/`, where folders hold parts, or an example that calls itself a bench.
fn is_bench_file(path: &str) -> bool {
    let at_top = path
        .split_once("/benches/")
        .is_some_and(|(_, inside)| !inside.contains('/'));
    at_top || path.contains("/examples/bench_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Home;
    use crate::tidy::Planted;

    const LISTED: Bench = Bench {
        name: "reconnect",
        package: "offhook-proto",
        home: Home::Examples,
        measures: "x",
    };

    #[test]
    fn table_and_files_must_agree() {
        let tree = Planted::new(&[("crates/proto/examples/bench_reconnect.rs", "")]);
        assert_eq!(compare(&tree, &[LISTED]), []);
        assert_eq!(compare(&tree, &[]).len(), 1, "a file without a line");
        let tree = Planted::new(&[("crates/proto/benches/reconnect.rs", "")]);
        assert_eq!(compare(&tree, &[]).len(), 1, "a file without a line");
        let empty = Planted::new(&[("crates/proto/src/lib.rs", "")]);
        assert_eq!(compare(&empty, &[LISTED]).len(), 1, "a line without a file");
    }
}
