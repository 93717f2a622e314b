//! What the sources said, by flag name, with defaults for the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::duration::GoDuration;
use super::features::FeatureGates;
use super::flag::{Flag, Kind, Value};
use super::table;
use super::url::Url;

/// Values by flag name. A name that is not in the table, or a getter of another type than the
/// table's, is a bug; reading the defaults exercises all of them in a test.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    values: BTreeMap<&'static str, Value>,
    given: BTreeSet<&'static str>,
}

impl Settings {
    /// Parses and sets one value.
    pub(super) fn set(&mut self, flag: &'static Flag, text: &str) -> Result<(), String> {
        if let Some(value) = flag.kind.parse(text, self.values.get(flag.name))? {
            self.values.insert(flag.name, value);
        }
        self.given.insert(flag.name);
        Ok(())
    }

    /// Sets a value that was not parsed from text.
    pub(super) fn put(&mut self, name: &'static str, value: Value) {
        self.values.insert(name, value);
    }

    /// Marks a flag as given although it keeps its value.
    pub(super) fn mark(&mut self, name: &'static str) {
        self.given.insert(name);
    }

    /// Whether anyone set `name`.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.given.contains(name)
    }

    fn value(&self, name: &str) -> Value {
        if let Some(value) = self.values.get(name) {
            return value.clone();
        }
        let flag = table::find(name)
            .or_else(|| table::FILE_ONLY.iter().find(|flag| flag.name == name))
            .expect("settings are read by names of the table");
        default_of(flag)
    }

    pub(super) fn text(&self, name: &str) -> String {
        match self.value(name) {
            Value::Text(text) => text,
            other => mistyped(name, &other),
        }
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.text(name)).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    pub(super) fn bool(&self, name: &str) -> bool {
        match self.value(name) {
            Value::Bool(on) => on,
            other => mistyped(name, &other),
        }
    }

    pub(super) fn unsigned(&self, name: &str) -> u64 {
        match self.value(name) {
            Value::Unsigned(number) => number,
            other => mistyped(name, &other),
        }
    }

    /// An unsigned number as a count of things in memory.
    pub(super) fn count(&self, name: &str) -> usize {
        usize::try_from(self.unsigned(name)).unwrap_or(usize::MAX)
    }

    pub(super) fn signed(&self, name: &str) -> i64 {
        match self.value(name) {
            Value::Signed(number) => number,
            other => mistyped(name, &other),
        }
    }

    pub(super) fn duration(&self, name: &str) -> GoDuration {
        match self.value(name) {
            Value::Duration(duration) => duration,
            other => mistyped(name, &other),
        }
    }

    pub(super) fn urls(&self, name: &str) -> Vec<Url> {
        match self.value(name) {
            Value::Urls(urls) => urls,
            other => mistyped(name, &other),
        }
    }

    pub(super) fn words(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Value::Words(words) => words,
            other => mistyped(name, &other),
        }
    }

    pub(super) fn gates(&self, name: &str) -> FeatureGates {
        match self.value(name) {
            Value::Gates(gates) => gates,
            other => mistyped(name, &other),
        }
    }
}

fn mistyped(name: &str, value: &Value) -> ! {
    panic!("the table gives flag {name} a type that its reader does not expect: {value:?}")
}

/// The value of a flag that nobody sets.
pub(super) fn default_of(flag: &Flag) -> Value {
    match flag.kind {
        Kind::Urls if flag.default.is_empty() => Value::Urls(Vec::new()),
        Kind::Words | Kind::UniqueWords if flag.default.is_empty() => Value::Words(Vec::new()),
        _ => flag
            .kind
            .parse(flag.default, None)
            .ok()
            .flatten()
            .expect("the defaults of the table are values of their types"),
    }
}
