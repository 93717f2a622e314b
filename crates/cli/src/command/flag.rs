//! Options: how they are declared, read and turned to values.

use std::ffi::OsString;
use std::time::Duration;

use crate::go;

/// What kind of value an option has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Int,
    Uint,
    Duration,
    String,
    /// A list, separated by commas or given more than once.
    Strings,
}

/// One option.
#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) kind: Kind,
    pub(crate) default: &'static str,
    pub(crate) usage: &'static str,
}

impl Flag {
    /// A switch that is off.
    pub(crate) const fn switch(name: &'static str, usage: &'static str) -> Self {
        Self { name, short: None, kind: Kind::Bool, default: "false", usage }
    }

    /// An option with a value.
    pub(crate) const fn with(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        usage: &'static str,
    ) -> Self {
        Self { name, short: None, kind, default, usage }
    }

    /// The same with a one-letter name.
    pub(crate) const fn short(self, letter: char) -> Self {
        Self { short: Some(letter), ..self }
    }

    /// Whether it may stand without a value.
    pub(crate) fn is_switch(&self) -> bool {
        self.kind == Kind::Bool
    }

    /// Whether `text` is a value that this option can have.
    pub(crate) fn check(&self, text: &str) -> Result<(), String> {
        match self.kind {
            Kind::Bool => go::parse_bool(text).map(drop),
            Kind::Int => go::parse_flag_int(text).map(drop),
            Kind::Uint => go::parse_flag_uint(text).map(drop),
            Kind::Duration => go::parse_duration(text).map(drop),
            Kind::String | Kind::Strings => Ok(()),
        }
    }

    fn set(&self, text: &str, values: &mut Values) -> Result<(), String> {
        self.check(text).map_err(|error| {
            let shown = match self.short {
                Some(letter) => format!("-{letter}, --{}", self.name),
                None => format!("--{}", self.name),
            };
            format!("invalid argument {} for \"{shown}\" flag: {error}", go::quote(text.as_bytes()))
        })?;
        values.set(self, text);
        Ok(())
    }
}

/// The options that were given, checked; the others have their defaults.
#[derive(Debug, Clone, Default)]
pub(crate) struct Values(Vec<(&'static str, String)>);

impl Values {
    /// Sets `flag`, whose value `text` is known to be one.
    pub(crate) fn set(&mut self, flag: &Flag, text: &str) {
        if flag.kind == Kind::Strings
            && let Some((_, before)) = self.0.iter_mut().find(|(name, _)| *name == flag.name)
        {
            before.push(',');
            before.push_str(text);
            return;
        }
        self.0.retain(|(name, _)| *name != flag.name);
        self.0.push((flag.name, text.to_owned()));
    }

    /// Whether an option was given.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.0.iter().any(|(given, _)| *given == name)
    }

    /// The value as it was given.
    pub(crate) fn given(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn bool(&self, flag: &Flag) -> bool {
        go::parse_bool(self.text(flag)).unwrap_or_default()
    }

    pub(crate) fn int(&self, flag: &Flag) -> i64 {
        go::parse_flag_int(self.text(flag)).unwrap_or_default()
    }

    pub(crate) fn unsigned(&self, flag: &Flag) -> u64 {
        go::parse_flag_uint(self.text(flag)).unwrap_or_default()
    }

    pub(crate) fn duration(&self, flag: &Flag) -> Duration {
        go::parse_duration(self.text(flag)).unwrap_or_default()
    }

    /// The value, or the default.
    pub(crate) fn text<'a>(&'a self, flag: &'a Flag) -> &'a str {
        self.given(flag.name).unwrap_or(flag.default)
    }
}

/// A command line, read.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) values: Values,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) before_separator: Option<usize>,
}

/// Reads options and arguments; `None` when help is asked for.
pub(crate) fn parse(flags: &[&Flag], arguments: &[OsString]) -> Result<Option<Parsed>, String> {
    let mut parsed =
        Parsed { values: Values::default(), arguments: Vec::new(), before_separator: None };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let text = argument.to_string_lossy();
        let is_help = if text == "--" {
            parsed.before_separator = Some(parsed.arguments.len());
            parsed.arguments.extend(rest.cloned());
            return Ok(Some(parsed));
        } else if let Some(long) = text.strip_prefix("--") {
            read_long(flags, long, &mut rest, &mut parsed.values)?
        } else if let Some(letters) = text.strip_prefix('-').filter(|l| !l.is_empty()) {
            read_short(flags, letters, &mut rest, &mut parsed.values)?
        } else {
            parsed.arguments.push(argument.clone());
            false
        };
        if is_help {
            return Ok(None);
        }
    }
    Ok(Some(parsed))
}

/// Reads `--name`, `--name=value` or `--name value`; true if it asks for help.
fn read_long<'a>(
    flags: &[&Flag],
    text: &str,
    rest: &mut impl Iterator<Item = &'a OsString>,
    values: &mut Values,
) -> Result<bool, String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    if name.is_empty() || name.starts_with('-') {
        return Err(format!("bad flag syntax: --{text}"));
    }
    let Some(flag) = flags.iter().find(|flag| flag.name == name) else {
        return if name == "help" { Ok(true) } else { Err(format!("unknown flag: --{name}")) };
    };
    let value = match value {
        Some(value) => value,
        None if flag.is_switch() => "true".to_owned(),
        None => {
            let next = rest.next().ok_or_else(|| format!("flag needs an argument: --{name}"))?;
            next.to_string_lossy().into_owned()
        }
    };
    flag.set(&value, values)?;
    Ok(false)
}

/// Reads letters behind one dash; true if one asks for help.
fn read_short<'a>(
    flags: &[&Flag],
    letters: &str,
    rest: &mut impl Iterator<Item = &'a OsString>,
    values: &mut Values,
) -> Result<bool, String> {
    let mut letters_left = letters;
    while let Some(letter) = letters_left.chars().next() {
        let behind = &letters_left[letter.len_utf8()..];
        let Some(flag) = flags.iter().find(|flag| flag.short == Some(letter)) else {
            if letter == 'h' {
                return Ok(true);
            }
            return Err(format!("unknown shorthand flag: '{letter}' in -{letters_left}"));
        };
        if let Some(value) = behind.strip_prefix('=') {
            flag.set(value, values)?;
            return Ok(false);
        }
        if flag.is_switch() {
            flag.set("true", values)?;
            letters_left = behind;
            continue;
        }
        if behind.is_empty() {
            let missing = || format!("flag needs an argument: '{letter}' in -{letters_left}");
            let next = rest.next().ok_or_else(missing)?;
            flag.set(&next.to_string_lossy(), values)?;
        } else {
            flag.set(behind, values)?;
        }
        return Ok(false);
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Flag = Flag::with("limit", Kind::Int, "0", "");
    const PREFIX: Flag = Flag::switch("prefix", "");
    const WRITE: Flag = Flag::with("write-out", Kind::String, "simple", "").short('w');
    const LIST: Flag = Flag::with("endpoints", Kind::Strings, "x", "");

    fn read(line: &str) -> Result<Option<Parsed>, String> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        parse(&[&LIMIT, &PREFIX, &WRITE, &LIST], &words)
    }

    #[test]
    fn options_and_arguments_mix_until_two_dashes() {
        let parsed = read("a --limit 3 b -wjson --prefix=false -- --c").unwrap().unwrap();
        assert_eq!(parsed.arguments, ["a", "b", "--c"]);
        assert_eq!(parsed.before_separator, Some(2));
        assert_eq!(parsed.values.int(&LIMIT), 3);
        assert_eq!(parsed.values.text(&WRITE), "json");
        assert!(parsed.values.is_set("prefix") && !parsed.values.bool(&PREFIX));
        assert_eq!(parsed.values.text(&LIST), "x");
        let parsed = read("--endpoints a,b --endpoints=c").unwrap().unwrap();
        assert_eq!(parsed.values.text(&LIST), "a,b,c");
    }

    #[test]
    fn mistakes_are_told_in_the_words_of_etcdctl() {
        let cases = [
            ("--bogus", "unknown flag: --bogus"),
            ("-x", "unknown shorthand flag: 'x' in -x"),
            ("--limit", "flag needs an argument: --limit"),
            ("-w", "flag needs an argument: 'w' in -w"),
            (
                "--limit x",
                "invalid argument \"x\" for \"--limit\" flag: strconv.ParseInt: parsing \"x\": \
                 invalid syntax",
            ),
            ("--=x", "bad flag syntax: --=x"),
        ];
        for (line, error) in cases {
            assert_eq!(read(line).unwrap_err(), error, "{line}");
        }
    }

    #[test]
    fn help_is_asked_for_in_two_ways() {
        assert!(read("a --help").unwrap().is_none());
        assert!(read("-h").unwrap().is_none());
    }
}
