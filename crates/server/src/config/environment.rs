//! Environment variables: `ETCD_` and a flag's name. Empty ones count as unset; one that a flag
//! shadows stops the process, because nobody can tell which was meant.

use std::collections::{BTreeMap, BTreeSet};

use super::exit::Exit;
use super::flag::variable;
use super::load::Environment;
use super::settings::Settings;
use super::table;
use crate::logging::{Level, Notice};

const PREFIX: &str = "ETCD_";

/// Takes the variables that no flag shadows into `settings`.
///
/// A value that cannot be parsed is an error only after all variables have been looked at, so that
/// a shadowed one is reported first; of several, the last by flag name is reported.
pub(super) fn apply(
    settings: &mut Settings,
    environment: &Environment,
    notices: &mut Vec<Notice>,
) -> Result<(), Exit> {
    let mut variables = environment.clone();
    if let Some(value) = variables.remove("ETCD_VERSION").filter(|value| !value.is_empty()) {
        notices.push(
            Notice::new(Level::Warn, "cannot set special environment variable")
                .with("key", "ETCD_VERSION")
                .with("value", value),
        );
    }
    let mut flags: BTreeMap<_, _> = table::all().map(|flag| (flag.name, flag)).collect();
    let shadowed: BTreeSet<_> =
        flags.keys().filter(|name| settings.is_given(name)).map(|name| variable(name)).collect();
    flags.retain(|name, _flag| !settings.is_given(name));
    let mut used = BTreeSet::new();
    let mut failure = None;
    for (name, flag) in flags {
        let key = variable(name);
        let Some(value) = variables.get(&key).filter(|value| !value.is_empty()) else { continue };
        used.insert(key.clone());
        match settings.set(flag, value) {
            Ok(()) => notices.push(
                Notice::new(Level::Info, "recognized and used environment variable")
                    .with("variable-name", key)
                    .with("variable-value", value.clone()),
            ),
            Err(error) => failure = Some(format!("invalid value {value:?} for {key}: {error}")),
        }
    }
    for (key, value) in variables.iter().filter(|(key, _value)| !used.contains(*key)) {
        if shadowed.contains(key) {
            return Err(Exit::fatal(
                Notice::new(
                    Level::Fatal,
                    "conflicting environment variable is shadowed by corresponding command-line flag \
                     (either unset environment variable or disable flag))",
                )
                .with("environment-variable", key.clone()),
            ));
        }
        if key.starts_with(PREFIX) {
            notices.push(
                Notice::new(Level::Warn, "unrecognized environment variable")
                    .with("environment-variable", format!("{key}={value}")),
            );
        }
    }
    failure.map_or(Ok(()), |error| Err(Exit::invalid(error)))
}
