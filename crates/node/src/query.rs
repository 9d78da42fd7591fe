//! What a person types into a search box, as an FTS5 expression that is never a syntax error.
//!
//! Words are joined by AND; `"words in quotes"` are a phrase; a word ending in `*` is a prefix. Everything is quoted, so no
//! character has another meaning. What holds no letter or digit is left out, as the tokenizer leaves it out of the index.

/// Terms beyond these are left out.
const TERMS_MAX: usize = 32;
/// Characters beyond these are left out.
const CHARS_MAX: usize = 1_000;

/// The expression, or none where nothing can be looked for.
pub(crate) fn match_expression(typed: &str) -> Option<String> {
    let typed: String = typed.chars().take(CHARS_MAX).collect();
    let mut terms = Vec::new();
    for (i, part) in typed.split('"').enumerate() {
        if i % 2 == 1 {
            // A `*` right behind the closing quote is left to the next part, where it stands for nothing.
            terms.extend(term(part, false));
        } else {
            for word in part.split_whitespace() {
                terms.extend(term(word.trim_end_matches('*'), word.ends_with('*')));
            }
        }
    }
    terms.truncate(TERMS_MAX);
    (!terms.is_empty()).then(|| terms.join(" AND "))
}

/// One quoted string. There is no quote inside: the input was split at them.
fn term(text: &str, is_prefix: bool) -> Option<String> {
    if !text.chars().any(is_word) {
        return None;
    }
    let text = text.replace('\0', " ");
    // A prefix asked for behind a separator (`foo-*`) has no word to begin: then the words before it stand alone.
    let star = if is_prefix && text.chars().next_back().is_some_and(is_word) {
        " *"
    } else {
        ""
    };
    Some(format!("\"{text}\"{star}"))
}

/// Nearly what FTS5 counts as part of a word; where the two differ the term matches nothing, which is no error.
fn is_word(c: char) -> bool {
    c.is_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_phrases_and_prefixes() {
        let shown = |typed| match_expression(typed).unwrap_or_default();
        assert_eq!(shown("hello World"), r#""hello" AND "World""#);
        assert_eq!(
            shown(r#"see "the cat sat" mat*"#),
            r#""see" AND "the cat sat" AND "mat" *"#
        );
        assert_eq!(
            shown("NOT a OR (b NEAR"),
            r#""NOT" AND "a" AND "OR" AND "(b" AND "NEAR""#
        );
        assert_eq!(shown("room:r1 body:x"), r#""room:r1" AND "body:x""#);
        assert_eq!(shown("- ** \"\" \"!\" ^"), "");
        assert_eq!(shown("open \"quote"), r#""open" AND "quote""#);
    }
}
