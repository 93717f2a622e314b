//! The command line in Go's syntax: one dash or two, `-flag value` or `-flag=value`, switches only
//! with `=`, and the first argument that is no flag ends the flags.

use super::flag::Kind;
use super::settings::Settings;
use super::table;

/// What the command line said.
#[derive(Debug, Default)]
pub(super) struct CommandLine {
    /// The flags that were given.
    pub(super) settings: Settings,
    /// The first argument that is no flag.
    pub(super) positional: Option<String>,
}

/// Why parsing stopped.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// `-h` or `--help`.
    Help,
    /// Not the syntax of flags, an unknown flag, or not the value of one.
    Syntax(String),
}

/// Parses `arguments`, which do not begin with the program's name.
pub(super) fn parse(arguments: &[String]) -> Result<CommandLine, Stop> {
    let mut parsed = CommandLine::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let name = match argument.strip_prefix('-') {
            None | Some("") => {
                parsed.positional = Some(argument.clone());
                break;
            }
            Some("-") => {
                parsed.positional = rest.next().cloned();
                break;
            }
            Some(one) => one.strip_prefix('-').unwrap_or(one),
        };
        if name.starts_with(['-', '=']) {
            return Err(Stop::Syntax(format!("bad flag syntax: {argument}")));
        }
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (name, None),
        };
        let Some(flag) = table::find(name) else {
            if matches!(name, "h" | "help") {
                return Err(Stop::Help);
            }
            return Err(Stop::Syntax(format!("flag provided but not defined: -{name}")));
        };
        let text = match value {
            Some(value) => value,
            None if flag.kind.is_switch() => "true",
            None => rest
                .next()
                .ok_or_else(|| Stop::Syntax(format!("flag needs an argument: -{name}")))?,
        };
        parsed.settings.set(flag, text).map_err(|error| {
            Stop::Syntax(match flag.kind {
                Kind::Bool => format!("invalid boolean value {text:?} for -{name}: {error}"),
                _ => format!("invalid value {text:?} for flag -{name}: {error}"),
            })
        })?;
    }
    Ok(parsed)
}
