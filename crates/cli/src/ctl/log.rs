//! Log lines on standard error, in the JSON that etcd's logger writes.

use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::Location;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Shows the client library's events: warnings, or with `is_debug` everything.
pub(super) fn start(is_debug: bool) {
    let max = if is_debug { Level::TRACE } else { Level::WARN };
    // Whoever embeds this crate may have a subscriber of its own already: then that one is told.
    drop(tracing::subscriber::set_global_default(Lines { max }));
}

/// What the user may want to know.
#[track_caller]
pub(super) fn info(message: &str, fields: &[(&str, String)]) {
    own("info", message, fields);
}

/// What the user should know.
#[track_caller]
pub(super) fn warn(message: &str, fields: &[(&str, String)]) {
    own("warn", message, fields);
}

/// Why the command stops.
#[track_caller]
pub(super) fn fatal(message: &str, fields: &[(&str, String)]) {
    own("fatal", message, fields);
}

#[track_caller]
fn own(level: &str, message: &str, fields: &[(&str, String)]) {
    let place = Location::caller();
    let mut line = begin(level, "", place.file(), place.line());
    line.insert("msg".to_owned(), message.into());
    for (name, value) in fields {
        line.insert((*name).to_owned(), value.as_str().into());
    }
    write(line);
}

fn begin(level: &str, logger: &str, file: &str, number: u32) -> Map<String, Value> {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    let mut line = Map::new();
    line.insert("level".to_owned(), level.into());
    line.insert("ts".to_owned(), now.into());
    if !logger.is_empty() {
        line.insert("logger".to_owned(), logger.into());
    }
    // A file and its directory, as etcd's logger shortens them.
    let start = file.rmatch_indices('/').nth(1).map_or(0, |(index, _)| index + 1);
    let mut caller = file.get(start..).unwrap_or(file).to_owned();
    // Writing to a string cannot fail.
    let _infallible = write!(caller, ":{number}");
    line.insert("caller".to_owned(), caller.into());
    line
}

fn write(line: Map<String, Value>) {
    let text = format!("{}\n", Value::Object(line));
    // Standard error is the last place to complain at.
    drop(std::io::stderr().lock().write_all(text.as_bytes()));
}

/// Writes every event as a line. There are no spans.
#[derive(Debug)]
struct Lines {
    max: Level,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.max
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let level = metadata.level().as_str().to_lowercase();
        let (file, number) = (metadata.file().unwrap_or_default(), metadata.line());
        let mut line = begin(&level, metadata.target(), file, number.unwrap_or_default());
        let mut fields = Fields::default();
        event.record(&mut fields);
        line.insert("msg".to_owned(), fields.message.into());
        line.extend(fields.others);
        write(line);
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn push(&mut self, field: &Field, value: Value) {
        match value {
            Value::String(text) if field.name() == "message" => self.message = text,
            value => {
                self.others.insert(field.name().to_owned(), value);
            }
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.push(field, format!("{value:?}").into());
    }
}
