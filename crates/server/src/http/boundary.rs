//! Where one JSON document of a stream ends, found without looking at any byte twice: a client may send a large document
//! in tiny pieces.

/// How far a document has been looked at.
#[derive(Debug, Default)]
pub(super) struct Boundary {
    /// Bytes looked at.
    position: usize,
    /// Brackets and braces that are open.
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
}

impl Boundary {
    /// Returns the length of the first document in `buffer`, with the space before it, once it is there as a whole.
    /// `buffer` begins as it did the last time.
    ///
    /// What is not an object or array ends at once, wherever it ends: it is not a message, and decoding says so.
    pub(super) fn find(&mut self, buffer: &[u8]) -> Option<usize> {
        while let Some(&byte) = buffer.get(self.position) {
            self.position += 1;
            if self.ends_with(byte) {
                return Some(self.position);
            }
        }
        None
    }

    fn ends_with(&mut self, byte: u8) -> bool {
        if self.is_escaped {
            self.is_escaped = false;
            return false;
        }
        match byte {
            b'\\' if self.is_in_string => self.is_escaped = true,
            b'"' if self.depth > 0 => self.is_in_string = !self.is_in_string,
            _ if self.is_in_string => {}
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' if self.depth > 1 => self.depth -= 1,
            // Between documents there may be space; anything else ends here, for better or worse.
            _ => {
                return self.depth == 0 && !byte.is_ascii_whitespace()
                    || matches!(byte, b'}' | b']');
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(mut text: &str) -> Vec<&str> {
        let mut found = Vec::new();
        while let Some(len) = Boundary::default().find(text.as_bytes()) {
            let (document, rest) = text.split_at(len);
            found.push(document);
            text = rest;
        }
        found
    }

    #[test]
    fn documents_end_with_their_last_brace() {
        assert_eq!(documents("{} {\"a\":[{}]}\n{"), ["{}", " {\"a\":[{}]}"]);
        assert_eq!(documents(r#"{"a":"}\"}\\"}{"#), [r#"{"a":"}\"}\\"}"#]);
        assert_eq!(documents("[1,[2]]"), ["[1,[2]]"]);
    }

    #[test]
    fn what_is_no_document_ends_at_once() {
        assert_eq!(documents("17"), ["1", "7"]);
        assert_eq!(documents("}"), ["}"]);
        assert_eq!(documents(" \"text\"").first(), Some(&" \""));
        assert!(documents(" \n\t").is_empty());
    }

    #[test]
    fn pieces_make_no_difference() {
        let text = br#" {"key":"a\"b","more":{"x":[1,2]}}{}"#;
        let mut boundary = Boundary::default();
        let found = (0..=text.len()).find_map(|len| boundary.find(&text[..len]));
        assert_eq!(found, Some(text.len() - 2));
    }
}
