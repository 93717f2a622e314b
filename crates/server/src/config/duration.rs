//! Durations as Go writes them: `1h30m`, `250ms`, `2h0m0s`.
//!
//! Flags carry them as text, configuration files as integer nanoseconds. They are kept as signed
//! nanoseconds, because a negative value is legal where it means "off".

use std::fmt;
use std::time::Duration;

/// A signed duration in nanoseconds, parsed from and printed in Go's notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct GoDuration(i64);

/// A text that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The text does not have the form of a duration, or is too large.
    #[error("time: invalid duration {text:?}")]
    Invalid {
        /// What was given.
        text: String,
    },
    /// A number without a unit.
    #[error("time: missing unit in duration {text:?}")]
    MissingUnit {
        /// What was given.
        text: String,
    },
    /// A number with a unit that does not exist.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// What was given.
        text: String,
    },
}

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

impl GoDuration {
    /// Makes one from nanoseconds.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// The nanoseconds, with sign.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// The duration, zero if it is negative.
    pub fn or_zero(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }

    /// The duration, `None` if it is zero or negative: how etcd says "off".
    pub fn positive(self) -> Option<Duration> {
        u64::try_from(self.0).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos)
    }

    /// Parses Go's notation: a sign, then numbers with units (`ns us µs ms s m h`), or a plain `0`.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let invalid = || ParseError::Invalid { text: text.to_owned() };
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if unsigned == "0" {
            return Ok(Self(0));
        }
        if unsigned.is_empty() {
            return Err(invalid());
        }
        let mut total: u64 = 0;
        let mut rest = unsigned;
        while !rest.is_empty() {
            let (nanos, after) = parse_piece(rest, text)?;
            total = total.checked_add(nanos).filter(|sum| *sum <= 1 << 63).ok_or_else(invalid)?;
            rest = after;
        }
        if negative {
            return Ok(Self(0_i64.wrapping_sub_unsigned(total)));
        }
        i64::try_from(total).map(Self).map_err(|_error| invalid())
    }
}

/// Takes one number with its unit from the front of `rest`; gives its nanoseconds and what follows.
fn parse_piece<'a>(rest: &'a str, text: &str) -> Result<(u64, &'a str), ParseError> {
    let invalid = || ParseError::Invalid { text: text.to_owned() };
    let digits_end = |piece: &str| piece.find(|c: char| !c.is_ascii_digit()).unwrap_or(piece.len());
    let whole_end = digits_end(rest);
    let whole = &rest[..whole_end];
    let mut after = &rest[whole_end..];
    let mut fraction = "";
    if let Some(behind) = after.strip_prefix('.') {
        let end = digits_end(behind);
        fraction = &behind[..end];
        after = &behind[end..];
    }
    if whole.is_empty() && fraction.is_empty() {
        return Err(invalid());
    }
    let unit_end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
    let unit = match &after[..unit_end] {
        "" => return Err(ParseError::MissingUnit { text: text.to_owned() }),
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        unit => {
            return Err(ParseError::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() });
        }
    };
    let whole =
        if whole.is_empty() { 0 } else { whole.parse::<u64>().map_err(|_error| invalid())? };
    let nanos = whole.checked_mul(unit).ok_or_else(invalid)?;
    Ok((nanos.checked_add(fraction_of(unit, fraction)).ok_or_else(invalid)?, &after[unit_end..]))
}

/// The nanoseconds that the digits behind the point stand for; digits below a nanosecond are cut.
fn fraction_of(unit: u64, digits: &str) -> u64 {
    let mut scaled: u128 = 0;
    let mut scale: u128 = 1;
    // Eighteen digits are finer than a nanosecond of an hour, and cannot overflow.
    for digit in digits.bytes().take(18) {
        scaled = scaled * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    u64::try_from(u128::from(unit) * scaled / scale).unwrap_or(0)
}

impl From<Duration> for GoDuration {
    fn from(duration: Duration) -> Self {
        Self(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if nanos == 0 {
            return f.write_str("0s");
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let small = [(1, "ns"), (1_000, "\u{b5}s"), (1_000_000, "ms")];
        if nanos < SECOND {
            let (unit, name) =
                small.into_iter().rfind(|(unit, _)| nanos >= *unit).unwrap_or(small[0]);
            return write_decimal(f, nanos, unit).and_then(|()| f.write_str(name));
        }
        if nanos >= HOUR {
            write!(f, "{}h", nanos / HOUR)?;
        }
        if nanos >= MINUTE {
            write!(f, "{}m", nanos % HOUR / MINUTE)?;
        }
        write_decimal(f, nanos % MINUTE, SECOND)?;
        f.write_str("s")
    }
}

/// Writes `nanos` in `unit` with as many decimals as are not zero.
fn write_decimal(f: &mut fmt::Formatter<'_>, nanos: u64, unit: u64) -> fmt::Result {
    write!(f, "{}", nanos / unit)?;
    let mut rest = nanos % unit;
    if rest == 0 {
        return Ok(());
    }
    f.write_str(".")?;
    let mut place = unit;
    while rest > 0 {
        place /= 10;
        write!(f, "{}", rest / place)?;
        rest %= place;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_parse_and_print_as_go_does() {
        for (text, nanos, printed) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("1h30m", 5_400_000_000_000, "1h30m0s"),
            ("2h", 7_200_000_000_000, "2h0m0s"),
            ("100ms", 100_000_000, "100ms"),
            ("1.5s", 1_500_000_000, "1.5s"),
            (".5s", 500_000_000, "500ms"),
            ("1.s", 1_000_000_000, "1s"),
            ("1003071ns", 1_003_071, "1.003071ms"),
            ("-1h", -3_600_000_000_000, "-1h0m0s"),
            ("+5us", 5_000, "5\u{b5}s"),
            ("7\u{b5}s3ns", 7_003, "7.003\u{b5}s"),
            ("1m0.000000001s", 60_000_000_001, "1m0.000000001s"),
            ("-9223372036854775808ns", i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            let duration = GoDuration::parse(text).expect(text);
            assert_eq!(duration.as_nanos(), nanos, "{text}");
            assert_eq!(duration.to_string(), printed, "{text}");
        }
    }

    #[test]
    fn refusals_have_go_texts() {
        for (text, error) in [
            ("foo", "time: invalid duration \"foo\""),
            ("", "time: invalid duration \"\""),
            ("-", "time: invalid duration \"-\""),
            (".s", "time: invalid duration \".s\""),
            ("-1", "time: missing unit in duration \"-1\""),
            ("5", "time: missing unit in duration \"5\""),
            ("1x", "time: unknown unit \"x\" in duration \"1x\""),
            ("9223372036854775808ns", "time: invalid duration \"9223372036854775808ns\""),
            ("99999999999999999999h", "time: invalid duration \"99999999999999999999h\""),
        ] {
            assert_eq!(GoDuration::parse(text).expect_err(text).to_string(), error);
        }
    }
}
