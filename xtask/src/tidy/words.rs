//! Words that say nothing, in the names of files, modules and types; and code that was left for later.

use proc_macro2::TokenTree;

use super::source::{Source, word};
use super::{Finding, Tree};

/// Say what the thing does or holds instead.
const EMPTY_WORDS: &[&str] = &[
    "manager", "handler", "util", "utils", "common", "helper", "helpers", "misc",
];

const UNFINISHED: &[&str] = &["todo", "unimplemented"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        findings.extend(file_name(source));
        walk(source, &source.all, &mut findings);
    }
    findings
}

fn file_name(source: &Source) -> Option<Finding> {
    let parts = source.path.trim_end_matches(".rs").split('/');
    let bad = parts.filter_map(empty_word).next()?;
    Some(Finding::new(
        &source.path,
        format!("`{bad}` in the name of a file says nothing"),
    ))
}

fn walk(source: &Source, tokens: &[TokenTree], findings: &mut Vec<Finding>) {
    for (index, token) in tokens.iter().enumerate() {
        if let TokenTree::Group(group) = token {
            walk(source, &group.stream().into_iter().collect::<Vec<_>>(), findings);
            continue;
        }
        let Some(text) = word(token) else { continue };
        let line = token.span().start().line;
        match (text.as_str(), tokens.get(index + 1)) {
            ("struct" | "enum" | "trait" | "type" | "union" | "mod", Some(next)) => {
                if let Some(bad) = word(next).and_then(|name| empty_word(&name)) {
                    findings.push(Finding::at(
                        source,
                        line,
                        format!("`{bad}` in the name of a type or module says nothing"),
                    ));
                }
            }
            (macro_name, Some(TokenTree::Punct(punct)))
                if UNFINISHED.contains(&macro_name) && punct.as_char() == '!' =>
            {
                findings.push(Finding::at(source, line, format!("`{macro_name}!` must not land")));
            }
            _ => {}
        }
    }
}

/// The empty word that `name` contains as one of its words, in snake or camel case.
fn empty_word(name: &str) -> Option<&'static str> {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    let words: Vec<&str> = snake.split(['_', '-']).collect();
    EMPTY_WORDS.iter().find(|empty| words.contains(empty)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::Planted;

    fn count(path: &str, text: &str) -> usize {
        check(&Planted::new(&[(path, text)])).len()
    }

    #[test]
    fn names_that_only_contain_the_letters_pass() {
        let text = "struct Handle; fn handle() {} struct Utility; mod commonplace {}";
        assert_eq!(count("crates/a/src/lib.rs", text), 0);
    }

    #[test]
    fn empty_words_are_found_in_files_types_and_modules() {
        assert_eq!(count("crates/a/src/peer_manager.rs", ""), 1);
        assert_eq!(count("crates/a/src/utils/x.rs", ""), 1);
        assert_eq!(count("crates/a/tests/common/mod.rs", ""), 1);
        assert_eq!(count("crates/a/src/x.rs", "mod y { pub struct FrameHandler {} }"), 1);
        assert_eq!(count("crates/a/src/x.rs", "trait PeerHelper {}"), 1);
    }

    #[test]
    fn unfinished_code_is_found_in_tests_too() {
        for name in UNFINISHED {
            assert_eq!(
                count("crates/a/src/x.rs", &format!("#[cfg(test)] fn f() {{ {name}!() }}")),
                1
            );
        }
    }
}
