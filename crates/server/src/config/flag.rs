//! What a flag is, and how its text becomes a value: the syntax of Go's `flag` and `strconv`, which
//! etcd's users rely on (`0x10`, `1_000`, `T`).

use super::duration::GoDuration;
use super::features::FeatureGates;
use super::url::Url;

/// One flag: also one environment variable, and mostly one key of the configuration file.
#[derive(Debug)]
pub(super) struct Flag {
    /// Its name, without dashes.
    pub(super) name: &'static str,
    /// The type of its value.
    pub(super) kind: Kind,
    /// The text its default is parsed from.
    pub(super) default: &'static str,
    /// Where the configuration file has it.
    pub(super) place: Place,
    /// One sentence for `--help`.
    pub(super) help: &'static str,
}

/// The type of a flag's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any text.
    Text,
    /// `--flag`, `--flag=false`.
    Bool,
    /// Go's `uint`.
    Uint,
    /// Go's `uint64`.
    Uint64,
    /// Go's `uint32`, whose parse errors differ from the other numbers'.
    Uint32,
    /// Go's `int`.
    Int,
    /// Go's `int64`.
    Int64,
    /// `1h30m`; integer nanoseconds in a file.
    Duration,
    /// A list of URLs; an empty text leaves the default.
    Urls,
    /// `*` or a list of URLs.
    Origins,
    /// A comma-separated list.
    Words,
    /// A comma-separated list without order and duplicates.
    UniqueWords,
    /// The same, which a file writes as one text.
    Hosts,
    /// One of these.
    Choice(&'static [&'static str]),
    /// A list of these.
    Choices(&'static [&'static str]),
    /// Feature gates.
    Gates,
    /// Once a flag, now ignored.
    Ignored,
}

/// Where the configuration file has a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: flag and variable only.
    Nowhere,
    /// At the top, under the flag's name; the Go type that etcd names in its errors.
    Top(&'static str),
    /// Deeper, with the Go type.
    Under(&'static [&'static str], &'static str),
}

/// A parsed value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Duration(GoDuration),
    Urls(Vec<Url>),
    Words(Vec<String>),
    Gates(FeatureGates),
    Nothing,
}

impl Kind {
    /// Whether the flag may stand without a value.
    pub(super) fn is_switch(self) -> bool {
        matches!(self, Self::Bool | Self::Ignored)
    }

    /// Parses `text`; `current` is what was set before. `None` keeps that.
    pub(super) fn parse(
        self,
        text: &str,
        current: Option<&Value>,
    ) -> Result<Option<Value>, String> {
        let value = match self {
            Self::Text => Value::Text(text.to_owned()),
            Self::Bool => Value::Bool(parse_bool(text).ok_or("parse error")?),
            Self::Uint | Self::Uint64 => Value::Unsigned(parse_unsigned(text)?),
            Self::Uint32 => Value::Unsigned(parse_uint32(text)?),
            Self::Int | Self::Int64 => Value::Signed(parse_signed(text)?),
            Self::Duration => {
                Value::Duration(GoDuration::parse(text).map_err(|_error| "parse error")?)
            }
            Self::Urls if text.is_empty() => return Ok(None),
            Self::Urls => Value::Urls(unique(Url::parse_list(text).map_err(|e| e.to_string())?)),
            Self::Origins if text == "*" => Value::Words(vec![text.to_owned()]),
            Self::Origins => {
                let urls = unique(Url::parse_list(text).map_err(|e| e.to_string())?);
                Value::Words(urls.iter().map(ToString::to_string).collect())
            }
            Self::Words => Value::Words(text.split(',').map(str::to_owned).collect()),
            Self::UniqueWords | Self::Hosts => {
                let mut words: Vec<_> = text.split(',').map(str::to_owned).collect();
                words.sort();
                Value::Words(unique(words))
            }
            Self::Choice(allowed) if allowed.contains(&text) => Value::Text(text.to_owned()),
            Self::Choice(_) => return Err("invalid value".to_owned()),
            Self::Choices(allowed) => {
                if let Some(bad) = text.split(',').find(|word| !allowed.contains(word)) {
                    return Err(format!("invalid value {bad:?}"));
                }
                Value::Text(text.to_owned())
            }
            Self::Gates => {
                let mut gates = match current {
                    Some(Value::Gates(gates)) => gates.clone(),
                    _ => FeatureGates::default(),
                };
                gates.apply(text)?;
                Value::Gates(gates)
            }
            Self::Ignored => Value::Nothing,
        };
        Ok(Some(value))
    }
}

/// The environment variable of a flag.
pub(super) fn variable(name: &str) -> String {
    format!("ETCD_{}", name.replace('-', "_").to_uppercase())
}

/// What Go takes for a bool.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn unique<T: PartialEq>(mut sorted: Vec<T>) -> Vec<T> {
    sorted.dedup();
    sorted
}

/// Digits without sign, in the base their prefix names; underscores separate digits.
fn parse_unsigned(text: &str) -> Result<u64, String> {
    let syntax = || "parse error".to_owned();
    let lower = text.to_ascii_lowercase();
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    // One underscore may stand between digits, and between the prefix and the first of them.
    let may_lead = base != 10;
    let digits = match digits.strip_prefix('_') {
        Some(behind) if may_lead => behind,
        _ => digits,
    };
    let misplaced = digits.starts_with('_') || digits.ends_with('_') || digits.contains("__");
    let plain = digits.replace('_', "");
    if plain.is_empty() || misplaced || !plain.chars().all(|c| c.is_digit(base)) {
        return Err(syntax());
    }
    u64::from_str_radix(&plain, base).map_err(|_error| "value out of range".to_owned())
}

fn parse_signed(text: &str) -> Result<i64, String> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = parse_unsigned(digits)?;
    let limit = i64::MAX.unsigned_abs() + u64::from(negative);
    if magnitude > limit {
        return Err("value out of range".to_owned());
    }
    let signed = 0_i64.wrapping_add_unsigned(magnitude);
    Ok(if negative { signed.wrapping_neg() } else { signed })
}

/// As the other numbers, with the errors of the type etcd wrote itself.
fn parse_uint32(text: &str) -> Result<u64, String> {
    let tell = |what: &str| format!("strconv.ParseUint: parsing {text:?}: {what}");
    let number = parse_unsigned(text).map_err(|error| {
        tell(if error == "parse error" { "invalid syntax" } else { "value out of range" })
    })?;
    if number > u64::from(u32::MAX) {
        return Err(tell("value out of range"));
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_go() {
        for (text, value) in [
            ("0", Ok(0)),
            ("10", Ok(10)),
            ("0x10", Ok(16)),
            ("0X1F", Ok(31)),
            ("0b101", Ok(5)),
            ("0o17", Ok(15)),
            ("017", Ok(15)),
            ("1_000", Ok(1000)),
            ("0x_ff", Ok(255)),
            ("_1", Err("parse error")),
            ("1__0", Err("parse error")),
            ("09", Err("parse error")),
            ("", Err("parse error")),
            ("-1", Err("parse error")),
            ("+1", Err("parse error")),
            ("1.5", Err("parse error")),
            ("18446744073709551615", Ok(u64::MAX)),
            ("18446744073709551616", Err("value out of range")),
        ] {
            assert_eq!(parse_unsigned(text), value.map_err(str::to_owned), "{text}");
        }
        assert_eq!(parse_signed("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(parse_signed("9223372036854775808"), Err("value out of range".to_owned()));
        assert_eq!(parse_signed("+0x10"), Ok(16));
        assert_eq!(parse_signed("--1"), Err("parse error".to_owned()));
    }

    #[test]
    fn variables_are_named_after_flags() {
        assert_eq!(variable("listen-client-urls"), "ETCD_LISTEN_CLIENT_URLS");
    }
}
