//! Command lines of `--name value` pairs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// The options of one command line, each at most once.
#[derive(Debug)]
pub(crate) struct Options<'a> {
    usage: &'static str,
    values: BTreeMap<&'a str, &'a str>,
}

impl<'a> Options<'a> {
    /// Takes `arguments` apart; only options in `known` may be there.
    pub(crate) fn parse(
        usage: &'static str,
        known: &[&str],
        arguments: &[&'a str],
    ) -> Result<Self> {
        let mut values = BTreeMap::new();
        for pair in arguments.chunks(2) {
            let [name, value] = *pair else { bail!("{usage}") };
            if !known.contains(&name) || values.insert(name, value).is_some() {
                bail!("{usage}");
            }
        }
        Ok(Self { usage, values })
    }

    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        self.values.get(name).copied()
    }

    pub(crate) fn path(&self, name: &str) -> Result<PathBuf> {
        self.text(name).map(PathBuf::from).with_context(|| self.usage)
    }

    pub(crate) fn number(&self, name: &str, default: u64) -> Result<u64> {
        let Some(text) = self.text(name) else { return Ok(default) };
        text.parse().with_context(|| format!("{name} wants a number"))
    }

    pub(crate) fn duration(&self, name: &str, default: Duration) -> Result<Duration> {
        let Some(text) = self.text(name) else { return Ok(default) };
        duration(text).with_context(|| format!("{name} wants a time like 90s, 10m or 2h"))
    }
}

fn duration(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok()?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_in_pairs_once_each() {
        let parse =
            |arguments: &[&'static str]| Options::parse("usage", &["--a", "--b"], arguments);
        let options = parse(&["--a", "10m", "--b", "7"]).unwrap();
        assert_eq!(options.duration("--a", Duration::ZERO).unwrap(), Duration::from_mins(10));
        assert_eq!(options.number("--b", 1).unwrap(), 7);
        assert_eq!(options.number("--c", 1).unwrap(), 1);
        assert!(options.number("--a", 1).is_err() && options.path("--c").is_err());
        for bad in [&["--a"][..], &["--c", "1"], &["--a", "1", "--a", "2"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(duration("90s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Some(Duration::from_hours(2)));
        for bad in ["", "s", "10", "10d", "-1s", "9999999999999999999h"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
