//! Text forms of Go, which etcdctl's users know: quoted strings, numbers, durations.

use std::fmt::Write as _;
use std::time::Duration;

/// `bytes` in double quotes with escapes, as Go's `%q`.
pub(crate) fn quote(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            push_quoted(&mut text, c);
        }
        for byte in chunk.invalid() {
            push(&mut text, format_args!("\\x{byte:02x}"));
        }
    }
    text.push('"');
    text
}

fn push_quoted(text: &mut String, c: char) {
    let short = match c {
        '"' => "\\\"",
        '\\' => "\\\\",
        '\u{7}' => "\\a",
        '\u{8}' => "\\b",
        '\u{c}' => "\\f",
        '\n' => "\\n",
        '\r' => "\\r",
        '\t' => "\\t",
        '\u{b}' => "\\v",
        c if is_printable(c) => return text.push(c),
        c => {
            let code = u32::from(c);
            return match code {
                0..=0x7f => push(text, format_args!("\\x{code:02x}")),
                0x80..=0xffff => push(text, format_args!("\\u{code:04x}")),
                _ => push(text, format_args!("\\U{code:08x}")),
            };
        }
    };
    text.push_str(short);
}

/// Whether Go prints `c` as it is. Behind a letter, because a mark that joins one is printable too.
fn is_printable(c: char) -> bool {
    c == '\'' || {
        let mut escaped = "a".to_owned();
        escaped.push(c);
        escaped.escape_debug().skip(1).eq(std::iter::once(c))
    }
}

/// Appends to a text.
pub(crate) fn push(text: &mut String, piece: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _infallible = text.write_fmt(piece);
}

/// The bytes that a double-quoted or back-quoted text stands for, and what follows it.
///
/// `None` if `text` does not begin with a well-formed one.
pub(crate) fn unquote(text: &str) -> Option<(Vec<u8>, &str)> {
    if let Some(raw) = text.strip_prefix('`') {
        let (inner, rest) = raw.split_once('`')?;
        return Some((inner.replace('\r', "").into_bytes(), rest));
    }
    let mut rest = text.strip_prefix('"')?;
    let mut bytes = Vec::new();
    loop {
        let c = rest.chars().next()?;
        rest = &rest[c.len_utf8()..];
        match c {
            '"' => return Some((bytes, rest)),
            '\n' => return None,
            '\\' => rest = unescape(rest, &mut bytes)?,
            c => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Appends what the escape at the beginning of `text` (behind its backslash) stands for.
fn unescape<'a>(text: &'a str, bytes: &mut Vec<u8>) -> Option<&'a str> {
    let kind = text.chars().next()?;
    let rest = &text[kind.len_utf8()..];
    let plain = match kind {
        'a' => Some(7),
        'b' => Some(8),
        'f' => Some(12),
        'n' => Some(b'\n'),
        'r' => Some(b'\r'),
        't' => Some(b'\t'),
        'v' => Some(11),
        '\\' => Some(b'\\'),
        '"' => Some(b'"'),
        _ => None,
    };
    if let Some(byte) = plain {
        bytes.push(byte);
        return Some(rest);
    }
    let (digits, radix, from) = match kind {
        'x' => (2, 16, rest),
        'u' => (4, 16, rest),
        'U' => (8, 16, rest),
        '0'..='7' => (3, 8, text),
        _ => return None,
    };
    let number = from.get(..digits)?;
    if !number.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let code = u32::from_str_radix(number, radix).ok()?;
    if matches!(kind, 'u' | 'U') {
        bytes.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
    } else {
        bytes.push(u8::try_from(code).ok()?);
    }
    from.get(digits..)
}

/// A decimal number of 64 bits; the error is in Go's words.
pub(crate) fn parse_int(text: &str) -> Result<i64, String> {
    parse_digits(text, 10)
}

/// A hexadecimal number of 64 bits; the error is in Go's words.
pub(crate) fn parse_hex(text: &str) -> Result<i64, String> {
    parse_digits(text, 16)
}

/// A hexadecimal number of 64 bits without a sign; the error is in Go's words.
pub(crate) fn parse_unsigned_hex(text: &str) -> Result<u64, String> {
    // Rust would take a plus.
    let digits = if text.starts_with('+') { "" } else { text };
    u64::from_str_radix(digits, 16).map_err(|error| number_error("ParseUint", text, &error))
}

fn parse_digits(text: &str, radix: u32) -> Result<i64, String> {
    i64::from_str_radix(text, radix).map_err(|error| number_error("ParseInt", text, &error))
}

fn number_error(function: &str, text: &str, error: &std::num::ParseIntError) -> String {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    let what = match error.kind() {
        PosOverflow | NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    format!("strconv.{function}: parsing {}: {what}", quote(text.as_bytes()))
}

/// A number as Go's flags take it: decimal, or with `0x`, `0o`, `0b` and underscores between digits.
pub(crate) fn parse_flag_int(text: &str) -> Result<i64, String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (number, radix) = match flag_digits(digits) {
        Some((plain, radix)) => (format!("{sign}{plain}"), radix),
        None => (text.to_owned(), 10),
    };
    i64::from_str_radix(&number, radix).map_err(|error| number_error("ParseInt", text, &error))
}

/// The same without a sign.
pub(crate) fn parse_flag_uint(text: &str) -> Result<u64, String> {
    // What is no number is none in the end; Rust would take a plus.
    let (number, radix) = flag_digits(text).unwrap_or_else(|| ("-".to_owned(), 10));
    u64::from_str_radix(&number, radix).map_err(|error| number_error("ParseUint", text, &error))
}

/// The digits of a number without its sign, and what they count in.
fn flag_digits(text: &str) -> Option<(String, u32)> {
    let lower = text.to_ascii_lowercase();
    let (radix, digits) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        Some(_) if lower.starts_with('0') => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    let plain = digits.replace('_', "");
    let is_number = plain.chars().all(|c| c.is_digit(radix)) && !plain.is_empty();
    is_number.then_some((plain, radix))
}

/// A boolean as Go's flags take it.
pub(crate) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => {
            let quoted = quote(text.as_bytes());
            Err(format!("strconv.ParseBool: parsing {quoted}: invalid syntax"))
        }
    }
}

/// A duration such as `1m30s` or `1.5s`; negative ones are taken for zero.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let quoted = || quote(text.as_bytes());
    let invalid = || format!("time: invalid duration {}", quoted());
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned == "0" {
        return Ok(Duration::ZERO);
    }
    if unsigned.is_empty() {
        return Err(invalid());
    }
    let (mut rest, mut seconds) = (unsigned, 0.0);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().map_err(|_bad| invalid())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "" => return Err(format!("time: missing unit in duration {}", quoted())),
            unit => {
                let unit = quote(unit.as_bytes());
                return Err(format!("time: unknown unit {unit} in duration {}", quoted()));
            }
        };
        seconds += number * unit;
        rest = &rest[end..];
    }
    if text.starts_with('-') {
        return Ok(Duration::ZERO);
    }
    Duration::try_from_secs_f64(seconds).map_err(|_too_long| invalid())
}

/// What the system says of a failure to `what` a file.
pub(crate) fn system_text(what: &str, path: &std::path::Path, error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_lowercase());
    let text: String = first.into_iter().chain(letters).collect();
    format!("{what} {}: {text}", path.display())
}

/// A duration as Go prints it: `1.5ms`, `2.000001s`, `1m30s`.
pub(crate) fn duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    for (unit, size) in [("ns", 1), ("µs", 1_000), ("ms", 1_000_000)] {
        if nanos < size * 1_000 {
            return format!("{}{unit}", fraction(nanos, size));
        }
    }
    let second = 1_000_000_000;
    let minutes = nanos / (60 * second);
    let seconds = fraction(nanos % (60 * second), second);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// `value / unit` in decimals without trailing zeros; `unit` is a power of ten.
fn fraction(value: u128, unit: u128) -> String {
    let (whole, part) = (value / unit, value % unit);
    if part == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let decimals = format!("{part:0width$}");
    format!("{whole}.{}", decimals.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_escapes_what_cannot_be_printed() {
        assert_eq!(quote(b"a\"b\\\n\x00\x7f\xff'"), r#""a\"b\\\n\x00\x7f\xff'""#);
        assert_eq!(quote("äe\u{301}\u{200b}\u{a0}".as_bytes()), "\"äe\u{301}\\u200b\\u00a0\"");
    }

    #[test]
    fn unquoting_is_the_way_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unquote(&quote(&all)), Some((all, "")));
        assert_eq!(unquote(r#""a\101\u00e4" x"#), Some((b"aA\xc3\xa4".to_vec(), " x")));
        assert_eq!(unquote("`a\\n`"), Some((b"a\\n".to_vec(), "")));
        assert_eq!(unquote(r#""a\q""#), None);
        assert_eq!(unquote("\"a"), None);
    }

    #[test]
    fn numbers_say_what_is_wrong_in_the_words_of_go() {
        assert_eq!(parse_int("-12"), Ok(-12));
        assert_eq!(parse_hex("694d81417acd4754"), Ok(0x694d_8141_7acd_4754));
        let error = parse_int("x").unwrap_err();
        assert_eq!(error, "strconv.ParseInt: parsing \"x\": invalid syntax");
        let error = parse_hex("ffffffffffffffff").unwrap_err();
        assert_eq!(error, "strconv.ParseInt: parsing \"ffffffffffffffff\": value out of range");
        assert_eq!(parse_unsigned_hex("ffffffffffffffff"), Ok(u64::MAX));
        for text in ["", "+1", "-1", "0x1", "1_0"] {
            let error = format!("strconv.ParseUint: parsing \"{text}\": invalid syntax");
            assert_eq!(parse_unsigned_hex(text), Err(error));
        }
        let error = parse_unsigned_hex("10000000000000000").unwrap_err();
        assert_eq!(error, "strconv.ParseUint: parsing \"10000000000000000\": value out of range");
        assert_eq!(parse_flag_int("0x1_0"), Ok(16));
        assert_eq!(parse_flag_int("10"), Ok(10));
        assert_eq!(parse_flag_int("0"), Ok(0));
    }

    #[test]
    fn durations_read_and_print_as_in_go() {
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("5").unwrap_err(), "time: missing unit in duration \"5\"");
        assert_eq!(
            parse_duration("5x").unwrap_err(),
            "time: unknown unit \"x\" in duration \"5x\""
        );
        for text in ["1.234567ms", "5.003098398s", "1m2.5s", "2h0m1s", "999ns", "1.5µs", "0s"] {
            assert_eq!(duration(parse_duration(text).unwrap()), text);
        }
    }
}
