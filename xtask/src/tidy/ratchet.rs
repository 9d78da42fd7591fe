//! Functions over 70 lines and files over 1000: what exists is listed with its length and may only shrink.
//!
//! `tidy-ratchet.txt` has one line each, `fn PATH NAME LINES...` (several numbers where one name is long several times
//! in a file, longest first) or `file PATH LINES`. A function is measured from `fn` to its closing brace, a file
//! without its inline tests and rounded up to the next 50, so that a line more is no event. A length that is not
//! listed, or greater than listed, fails; one that shrank fails too until the line is lowered, so that the list always
//! says what is true.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use proc_macro2::{Delimiter, TokenTree};

use super::source::{Source, is_word, word};
use super::{Finding, Tree};

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 1000;
const FILE_LINES_STEP: usize = 50;
const LIST: &str = "xtask/tidy-ratchet.txt";
const HEAD: &str = "\
# Functions over 70 lines and files over 1000 (without inline tests): they may only shrink.
# Written by `cargo xtask tidy --bless`.
";

/// Which way `--bless` may move a line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bless {
    /// Lower and remove lines.
    OnlyDown,
    /// Add and raise them too.
    Grow,
}

/// What is long, such as `fn crates/a/src/b.rs run`, and its lengths, greatest first.
type Lengths = BTreeMap<String, Vec<usize>>;

pub(super) fn check(tree: &Tree) -> Result<Vec<Finding>> {
    Ok(compare(&measure(tree), &read(&tree.root)?))
}

/// Rewrites the list.
pub(super) fn bless(tree: &Tree, how: Bless) -> Result<()> {
    let new = blessed(measure(tree), &read(&tree.root)?, how);
    let mut text = String::from(HEAD);
    for (what, lengths) in &new {
        let _ = writeln!(text, "{}", entry(what, lengths));
    }
    std::fs::write(tree.root.join(LIST), text).with_context(|| LIST.to_owned())
}

fn measure(tree: &Tree) -> Lengths {
    let mut lengths = Lengths::new();
    for source in tree.sources.iter().filter(|source| source.is_shipped()) {
        let lines = source.shipped_lines();
        if lines > FILE_LINES_MAX {
            let rounded = lines.next_multiple_of(FILE_LINES_STEP);
            lengths.insert(format!("file {}", source.path), vec![rounded]);
        }
        measure_functions(source, &source.shipped, &mut lengths);
    }
    for list in lengths.values_mut() {
        list.sort_unstable_by(|a, b| b.cmp(a));
    }
    lengths
}

fn measure_functions(source: &Source, tokens: &[TokenTree], lengths: &mut Lengths) {
    for (index, token) in tokens.iter().enumerate() {
        if let TokenTree::Group(group) = token {
            measure_functions(source, &group.stream().into_iter().collect::<Vec<_>>(), lengths);
        }
        if let Some((name, lines)) = function_at(&tokens[index..]).filter(|(_, lines)| *lines > FUNCTION_LINES_MAX) {
            lengths
                .entry(format!("fn {} {name}", source.path))
                .or_default()
                .push(lines);
        }
    }
}

/// The name and the lines of the function that begins with these tokens.
fn function_at(tokens: &[TokenTree]) -> Option<(String, usize)> {
    let first = tokens.first().filter(|token| is_word(token, "fn"))?;
    let name = word(tokens.get(1)?)?;
    let body = tokens.iter().find_map(|token| match token {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => Some(Some(group)),
        TokenTree::Punct(punct) if punct.as_char() == ';' => Some(None),
        _ => None,
    })??;
    Some((name, body.span_close().end().line + 1 - first.span().start().line))
}

fn read(root: &Path) -> Result<Lengths> {
    match std::fs::read_to_string(root.join(LIST)) {
        Ok(text) => parse(&text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Lengths::new()),
        Err(error) => Err(error).with_context(|| LIST.to_owned()),
    }
}

fn parse(text: &str) -> Result<Lengths> {
    let mut lengths = Lengths::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        let named = match words.first() {
            Some(&"fn") => 3,
            Some(&"file") => 2,
            _ => bail!("{LIST}: cannot read `{line}`"),
        };
        let numbers: Result<Vec<usize>, _> = words.iter().skip(named).map(|number| number.parse()).collect();
        match numbers {
            Ok(numbers) if !numbers.is_empty() => lengths.insert(words[..named].join(" "), numbers),
            _ => bail!("{LIST}: cannot read the lengths in `{line}`"),
        };
    }
    Ok(lengths)
}

fn compare(measured: &Lengths, listed: &Lengths) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (what, now) in measured {
        let then = listed.get(what).map_or(&[][..], Vec::as_slice);
        if grew(now, then) {
            findings.push(Finding::new(
                what,
                format!("{} lines, may be {}: make it shorter", shown(now), allowed(what, then)),
            ));
        } else if now != then {
            findings.push(Finding::new(
                LIST,
                format!("lower the line to `{}` (tidy --bless does)", entry(what, now)),
            ));
        }
    }
    let gone = listed.keys().filter(|what| !measured.contains_key(*what));
    findings
        .extend(gone.map(|what| Finding::new(LIST, format!("remove `{what}`, no longer long (tidy --bless does)"))));
    findings
}

/// Whether any of the lengths, longest first, exceeds its counterpart.
fn grew(now: &[usize], then: &[usize]) -> bool {
    now.len() > then.len() || now.iter().zip(then).any(|(now, then)| now > then)
}

fn blessed(measured: Lengths, listed: &Lengths, how: Bless) -> Lengths {
    let mut new = Lengths::new();
    for (what, now) in measured {
        let then = listed.get(&what).map_or(&[][..], Vec::as_slice);
        if how == Bless::Grow || !grew(&now, then) {
            new.insert(what, now);
        } else if !then.is_empty() {
            new.insert(what, then.to_vec());
        }
    }
    new
}

fn allowed(what: &str, then: &[usize]) -> String {
    match then {
        [] if what.starts_with("fn") => FUNCTION_LINES_MAX.to_string(),
        [] => FILE_LINES_MAX.to_string(),
        then => shown(then),
    }
}

fn shown(lengths: &[usize]) -> String {
    lengths.iter().map(usize::to_string).collect::<Vec<_>>().join(" ")
}

fn entry(what: &str, lengths: &[usize]) -> String {
    format!("{what} {}", shown(lengths))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::Planted;

    const PATH: &str = "crates/a/src/x.rs";

    fn function(name: &str, lines: usize) -> String {
        format!("fn {name}() {{\n{}}}\n", "    x();\n".repeat(lines - 2))
    }

    fn tree(source: &str, list: &str) -> Planted {
        Planted::new(&[(PATH, source), (LIST, list)])
    }

    #[test]
    fn seventy_lines_pass_and_one_more_does_not() {
        assert_eq!(check(&tree(&function("f", 70), "")).unwrap(), []);
        let found = check(&tree(&function("f", 71), "")).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].what, "71 lines, may be 70: make it shorter");
    }

    #[test]
    fn test_code_is_not_measured() {
        let source = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function("f", 1200));
        assert_eq!(check(&tree(&source, "")).unwrap(), []);
    }

    #[test]
    fn a_long_file_is_found() {
        let found = check(&tree(&"// x\n".repeat(1001), "")).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].place, format!("file {PATH}"));
        let list = format!("file {PATH} 1050\n");
        assert_eq!(check(&tree(&"// x\n".repeat(1050), &list)).unwrap(), []);
        assert_eq!(check(&tree(&"// x\n".repeat(1051), &list)).unwrap().len(), 1);
    }

    #[test]
    fn what_is_listed_may_not_grow_and_must_be_lowered() {
        let list = format!("fn {PATH} f 80\n");
        assert_eq!(check(&tree(&function("f", 80), &list)).unwrap(), []);
        assert!(
            check(&tree(&function("f", 81), &list)).unwrap()[0]
                .what
                .contains("81 lines, may be 80")
        );
        assert!(
            check(&tree(&function("f", 75), &list)).unwrap()[0]
                .what
                .contains("lower the line to")
        );
        assert!(
            check(&tree(&function("f", 70), &list)).unwrap()[0]
                .what
                .contains("remove")
        );
    }

    #[test]
    fn a_second_long_function_cannot_hide_behind_a_name_that_is_listed() {
        let twice = format!("{}mod y {{\n{}}}\n", function("f", 80), function("f", 75));
        assert_eq!(check(&tree(&twice, &format!("fn {PATH} f 80\n"))).unwrap().len(), 1);
        assert_eq!(check(&tree(&twice, &format!("fn {PATH} f 80 75\n"))).unwrap(), []);
    }

    #[test]
    fn bless_goes_down_only_unless_told_to_grow() {
        let planted = tree(
            &format!("{}{}", function("f", 75), function("g", 90)),
            &format!("fn {PATH} f 80\n"),
        );
        bless(&planted, Bless::OnlyDown).unwrap();
        assert!(
            check(&planted).unwrap()[0].what.contains("90 lines"),
            "g was not listed and stays a finding"
        );
        assert!(read(&planted.root).unwrap().contains_key(&format!("fn {PATH} f")));
        bless(&planted, Bless::Grow).unwrap();
        assert_eq!(check(&planted).unwrap(), []);
    }

    #[test]
    fn a_list_that_cannot_be_read_is_an_error() {
        assert!(parse("fn a b").is_err());
        assert!(parse("function a b 3").is_err());
    }
}
