//! Rust files as tokens: what a rule looks at.
//!
//! A file is lexed once. Items under `#[cfg(test)]` or `#[test]` are cut out of `shipped`; a `#[cfg(test)] mod x;`
//! makes the whole file of `x` a test file. An item ends at its first brace group or semicolon, which is true of every
//! item that the attribute is put on in practice.

use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr as _;

use anyhow::{Context, Result};
use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};

/// One `.rs` file.
pub(super) struct Source {
    /// From the root, with forward slashes.
    pub(super) path: String,
    /// As it is on disk.
    pub(super) text: String,
    /// Its tokens without those of test items.
    pub(super) shipped: Vec<TokenTree>,
    /// All its tokens.
    pub(super) all: Vec<TokenTree>,
    /// Lines taken by inline test items.
    pub(super) test_lines: usize,
    /// Why it could not be lexed.
    pub(super) lex_error: Option<String>,
    is_test_file: bool,
    test_modules: Vec<String>,
}

/// A path as written, `use` groups taken apart: `a::{b, c::d}` gives `a::b` and `a::c::d`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PathUse {
    /// Its words in order.
    pub(super) segments: Vec<String>,
    /// Where its first word of its own is.
    pub(super) line: usize,
}

/// Folders inside a crate that hold Rust files, and whether their files are tests.
const FOLDERS: &[(&str, bool)] = &[("src", false), ("tests", true), ("benches", true), ("examples", true)];

/// Every Rust file of `crates/*` and `xtask`.
pub(super) fn load(root: &Path) -> Result<Vec<Source>> {
    let mut crate_folders = folders_in(&root.join("crates"))?;
    crate_folders.push(root.join("xtask"));
    let mut sources = Vec::new();
    for folder in crate_folders {
        for (name, is_test) in FOLDERS {
            load_folder(root, &folder.join(name), *is_test, &mut sources)?;
        }
    }
    mark_test_files(&mut sources);
    Ok(sources)
}

fn folders_in(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    if folder.is_dir() {
        for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn load_folder(root: &Path, folder: &Path, is_test: bool, sources: &mut Vec<Source>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        entries.push(entry?.path());
    }
    entries.sort();
    for path in entries {
        if path.is_dir() {
            load_folder(root, &path, is_test, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let relative = path.strip_prefix(root).expect("the walk started at the root");
            sources.push(Source::new(
                &relative.to_string_lossy().replace('\\', "/"),
                text,
                is_test,
            ));
        }
    }
    Ok(())
}

/// Follows `#[cfg(test)] mod x;` to the files of `x`.
fn mark_test_files(sources: &mut [Source]) {
    let stems: BTreeSet<String> = sources
        .iter()
        .flat_map(|source| {
            source
                .test_modules
                .iter()
                .map(|name| format!("{}/{name}", source.module_folder()))
        })
        .collect();
    for source in sources {
        let stem = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
        source.is_test_file |= stems
            .iter()
            .any(|test| stem == test || stem.starts_with(&format!("{test}/")));
    }
}

impl Source {
    fn new(path: &str, text: String, is_test_file: bool) -> Source {
        let (all, lex_error) = match TokenStream::from_str(&text) {
            Ok(stream) => (stream.into_iter().collect(), None),
            Err(error) => (Vec::new(), Some(format!("cannot be read as Rust: {error}"))),
        };
        let mut source = Source {
            path: path.to_owned(),
            text,
            shipped: Vec::new(),
            all,
            test_lines: 0,
            lex_error,
            is_test_file,
            test_modules: Vec::new(),
        };
        let all = source.all.clone();
        source.shipped = source.cut_test_items(&all);
        source
    }

    /// Whether this is code that ships, at least in part.
    pub(super) fn is_shipped(&self) -> bool {
        !self.is_test_file
    }

    /// Whether it is in the crate at `folder`, such as `crates/proto`.
    pub(super) fn in_crate(&self, folder: &str) -> bool {
        self.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Lines that are not of inline tests.
    pub(super) fn shipped_lines(&self) -> usize {
        self.text.lines().count().saturating_sub(self.test_lines)
    }

    /// Every path in the shipped code, in order.
    pub(super) fn paths(&self) -> Vec<PathUse> {
        let mut paths = Vec::new();
        collect_paths(&self.shipped, &mut paths);
        paths
    }

    /// The module path inside the crate: `src/history/log.rs` gives `history`, `log`; `src/lib.rs` nothing.
    pub(super) fn module_path(&self) -> Vec<&str> {
        let inside = self
            .path
            .split_once("/src/")
            .map_or(self.path.as_str(), |(_, inside)| inside);
        let mut segments: Vec<&str> = inside.trim_end_matches(".rs").split('/').collect();
        if let Some(&("mod" | "lib" | "main")) = segments.last() {
            segments.pop();
        }
        segments
    }

    /// The folder in which the files of this file's modules are.
    fn module_folder(&self) -> String {
        let stem = self.path.trim_end_matches(".rs");
        match stem.rsplit_once('/') {
            Some((folder, "mod" | "lib" | "main")) => folder.to_owned(),
            _ => stem.to_owned(),
        }
    }

    fn cut_test_items(&mut self, tokens: &[TokenTree]) -> Vec<TokenTree> {
        let mut kept = Vec::new();
        let mut index = 0;
        while index < tokens.len() {
            if is_test_attribute(&tokens[index..]) {
                let end = item_end(tokens, index);
                self.note_test_item(&tokens[index..end]);
                index = end;
                continue;
            }
            kept.push(match &tokens[index] {
                TokenTree::Group(group) => TokenTree::Group(self.cut_in_group(group)),
                other => other.clone(),
            });
            index += 1;
        }
        kept
    }

    fn cut_in_group(&mut self, group: &Group) -> Group {
        let inner: Vec<TokenTree> = group.stream().into_iter().collect();
        let mut cut = Group::new(group.delimiter(), self.cut_test_items(&inner).into_iter().collect());
        cut.set_span(group.span());
        cut
    }

    fn note_test_item(&mut self, item: &[TokenTree]) {
        if let (Some(first), Some(last)) = (item.first(), item.last()) {
            self.test_lines += last.span().end().line + 1 - first.span().start().line;
        }
        let out_of_line = matches!(item.last(), Some(TokenTree::Punct(punct)) if punct.as_char() == ';');
        if let (true, Some(name)) = (out_of_line, word_after(item, "mod")) {
            self.test_modules.push(name);
        }
    }
}

/// `# [test]`, `# [cfg(test)]`, `# [cfg(all(test, ...))]`.
fn is_test_attribute(tokens: &[TokenTree]) -> bool {
    let [TokenTree::Punct(hash), TokenTree::Group(group), ..] = tokens else {
        return false;
    };
    if hash.as_char() != '#' || group.delimiter() != Delimiter::Bracket {
        return false;
    }
    let text: String = group
        .stream()
        .to_string()
        .chars()
        .filter(|c| !c.is_whitespace())
        .collect();
    text == "test" || text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

/// One past the last token of the item whose attributes begin at `start`.
fn item_end(tokens: &[TokenTree], start: usize) -> usize {
    for (index, token) in tokens.iter().enumerate().skip(start) {
        let ends = match token {
            TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
            TokenTree::Punct(punct) => punct.as_char() == ';',
            _ => false,
        };
        if ends {
            return index + 1;
        }
    }
    tokens.len()
}

/// The word that follows `keyword`, at the top of `tokens`.
fn word_after(tokens: &[TokenTree], keyword: &str) -> Option<String> {
    let at = tokens.iter().position(|token| is_word(token, keyword))?;
    word(tokens.get(at + 1)?)
}

/// The token's text when it is a word, without `r#`.
pub(super) fn word(token: &TokenTree) -> Option<String> {
    match token {
        TokenTree::Ident(ident) => Some(ident.to_string().trim_start_matches("r#").to_owned()),
        _ => None,
    }
}

/// Whether the token is this word.
pub(super) fn is_word(token: &TokenTree, expected: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == expected)
}

fn collect_paths(tokens: &[TokenTree], paths: &mut Vec<PathUse>) {
    let mut index = 0;
    while index < tokens.len() {
        match &tokens[index] {
            TokenTree::Ident(_) => index += take_path(&tokens[index..], &[], paths),
            TokenTree::Group(group) => {
                collect_paths(&group.stream().into_iter().collect::<Vec<_>>(), paths);
                index += 1;
            }
            _ => index += 1,
        }
    }
}

/// Reads one path that begins at a word; returns how many tokens it took.
fn take_path(tokens: &[TokenTree], prefix: &[String], paths: &mut Vec<PathUse>) -> usize {
    let line = tokens[0].span().start().line;
    let mut segments = prefix.to_vec();
    segments.extend(word(&tokens[0]));
    let mut taken = 1;
    while is_double_colon(&tokens[taken..]) {
        match tokens.get(taken + 2) {
            Some(TokenTree::Ident(ident)) => segments.push(ident.to_string()),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                take_group(group, &segments, paths);
                return taken + 3;
            }
            _ => break,
        }
        taken += 3;
    }
    paths.push(PathUse { segments, line });
    taken
}

/// The members of `prefix::{...}`.
fn take_group(group: &Group, prefix: &[String], paths: &mut Vec<PathUse>) {
    let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
    for member in tokens.split(|token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',')) {
        match member.first() {
            Some(first) if is_word(first, "self") => paths.push(PathUse {
                segments: prefix.to_vec(),
                line: first.span().start().line,
            }),
            Some(TokenTree::Ident(_)) => {
                take_path(member, prefix, paths);
            }
            Some(first) => paths.push(PathUse {
                segments: prefix.to_vec(),
                line: first.span().start().line,
            }),
            None => {}
        }
    }
}

fn is_double_colon(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [TokenTree::Punct(a), TokenTree::Punct(b), ..]
        if a.as_char() == ':' && a.spacing() == Spacing::Joint && b.as_char() == ':')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::Planted;

    fn paths_of(text: &str) -> Vec<String> {
        let source = Source::new("crates/a/src/lib.rs", text.to_owned(), false);
        source
            .paths()
            .into_iter()
            .map(|path| path.segments.join("::"))
            .collect()
    }

    #[test]
    fn groups_are_taken_apart() {
        let text = "use std::{fs, io::{self, Read as _}, net::*};";
        assert_eq!(
            paths_of(text),
            ["use", "std::fs", "std::io", "std::io::Read", "std::net"]
        );
    }

    #[test]
    fn paths_are_found_inside_bodies_and_macros_and_never_in_comments_or_strings() {
        let text = "fn f() { // std::fs\n g!(a::b(\"std::thread\")); }";
        assert_eq!(paths_of(text), ["fn", "f", "g", "a::b"]);
    }

    #[test]
    fn test_items_are_cut_and_counted() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n#[cfg(test)]\nuse std::net;\n";
        let source = Source::new("crates/a/src/lib.rs", text.to_owned(), false);
        assert_eq!(source.test_lines, 6);
        assert_eq!(source.shipped_lines(), 1);
        assert!(source.paths().iter().all(|path| path.segments[0] != "std"));
    }

    #[test]
    fn the_file_of_a_test_module_is_a_test_file() {
        let tree = Planted::new(&[
            ("crates/a/src/lib.rs", "//! Pure: x.\nmod x;"),
            ("crates/a/src/x.rs", "//! X.\n#[cfg(test)]\nmod tests;"),
            ("crates/a/src/x/tests.rs", "use std::fs;"),
        ]);
        let shipped: Vec<&str> = tree.shipped("crates/a").map(|source| source.path.as_str()).collect();
        assert_eq!(shipped, ["crates/a/src/lib.rs", "crates/a/src/x.rs"]);
    }
}
