//! Lines of a transaction or of an interactive watch, split to words.

use crate::exit::{Failure, INVALID_INPUT};
use crate::go;

/// Splits `line` at white space; `"…"` with escapes and `'…'` without are one word each.
///
/// A quote without its partner is skipped, as etcdctl does.
pub(super) fn split(line: &str) -> Result<Vec<Vec<u8>>, Failure> {
    let mut words = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => double_quoted(rest),
            '\'' => rest[1..].find('\'').map(|end| end + 2),
            c if c.is_ascii_whitespace() => None,
            _ => Some(rest.find(|c: char| c.is_ascii_whitespace()).unwrap_or(rest.len())),
        };
        let Some(length) = length else {
            rest = &rest[first.len_utf8()..];
            continue;
        };
        let (word, behind) = rest.split_at(length);
        words.push(match first {
            '"' => {
                let wrong = || Failure::new(INVALID_INPUT, "invalid syntax");
                go::unquote(word).ok_or_else(wrong)?.0
            }
            '\'' => word.as_bytes()[1..word.len() - 1].to_vec(),
            _ => word.as_bytes().to_vec(),
        });
        rest = behind;
    }
    Ok(words)
}

/// The length of the quoted word at the beginning, if its end is there.
fn double_quoted(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return Some(index + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, words: &[&str]) {
        let split = split(line).unwrap();
        let split: Vec<_> = split.iter().map(|word| String::from_utf8_lossy(word)).collect();
        assert_eq!(split, words, "{line}");
    }

    #[test]
    fn words_quotes_and_escapes() {
        check(r#"put key "a \"b\"\n" --x=1"#, &["put", "key", "a \"b\"\n", "--x=1"]);
        check("get 'a b' c'd e'", &["get", "a b", "c'd", "e'"]);
        check("  a\tb ", &["a", "b"]);
        check(r#"a "b"#, &["a", "b"]);
        check("", &[]);
    }

    #[test]
    fn unknown_escapes_are_invalid_input() {
        assert_eq!(split(r#"put a "\q""#).unwrap_err().code, INVALID_INPUT);
    }
}
