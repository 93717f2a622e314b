//! Lines: how a message and its fields are written.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::panic::Location;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;
use tracing::field::{Field, Visit};

use super::{Format, Level};

/// Begins the debug text of a field whose value is JSON already. A text from outside that begins
/// like this is only taken for JSON if it is JSON, so it can never break a line.
const JSON_MARK: char = '\u{1}';

/// Bytes of one field; what is longer is cut, so that no request can make lines without bound.
const FIELD_BYTES_MAX: usize = 16 << 10;

/// A line that is not a `tracing` event: made before there is a logger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// How grave it is.
    pub level: Level,
    /// The message.
    pub message: Cow<'static, str>,
    /// Its fields, in order.
    pub fields: Vec<(&'static str, Value)>,
    caller: Option<(Cow<'static, str>, u32)>,
}

impl Notice {
    /// A message of the calling line.
    #[track_caller]
    pub fn new(level: Level, message: impl Into<Cow<'static, str>>) -> Self {
        let place = Location::caller();
        Self::at(level, message, Some((Cow::Borrowed(place.file()), place.line())))
    }

    /// A message of another place.
    pub(super) fn at(
        level: Level,
        message: impl Into<Cow<'static, str>>,
        caller: Option<(Cow<'static, str>, u32)>,
    ) -> Self {
        Self { level, message: message.into(), fields: Vec::new(), caller }
    }

    /// The same with one more field.
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((name, value.into()));
        self
    }
}

/// A list as a field: `urls = ?List(&urls)`.
pub struct List<'a, T>(pub &'a [T]);

impl<T: fmt::Display> fmt::Debug for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.0.iter().map(|item| Value::String(item.to_string())).collect();
        write!(f, "{JSON_MARK}{}", Value::Array(texts))
    }
}

/// Where a line comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) logger: Option<&'a str>,
    pub(super) caller: Option<(&'a str, u32)>,
}

/// Writes lines in one format.
#[derive(Debug, Clone)]
pub(super) struct Encoder {
    format: Format,
    zone: TimeZone,
}

impl Encoder {
    pub(super) fn new(format: Format) -> Self {
        Self { format, zone: TimeZone::system() }
    }

    pub(super) fn notice(&self, notice: &Notice) -> String {
        let caller = notice.caller.as_ref().map(|(file, line)| (file.as_ref(), *line));
        let source = Source { logger: None, caller };
        self.line(notice.level, &source, &notice.message, |fields| {
            for (name, value) in &notice.fields {
                fields.push(name, value);
            }
        })
    }

    pub(super) fn event(
        &self,
        level: Level,
        source: &Source<'_>,
        message: &str,
        record: &dyn Fn(&mut dyn Visit),
    ) -> String {
        self.line(level, source, message, |fields| record(fields))
    }

    fn line(
        &self,
        level: Level,
        source: &Source<'_>,
        message: &str,
        fill: impl FnOnce(&mut Fields),
    ) -> String {
        let mut fields = Fields { text: String::new(), spaced: self.format == Format::Console };
        fill(&mut fields);
        let time = self.time(Timestamp::now());
        let caller = source.caller.map(|(file, line)| format!("{}:{line}", short(file)));
        let mut text = String::with_capacity(160 + message.len() + fields.text.len());
        match self.format {
            Format::Json => {
                put(&mut text, format_args!("{{\"level\":\"{}\",\"ts\":\"{time}\"", level.name()));
                for (key, value) in [("logger", source.logger), ("caller", caller.as_deref())] {
                    if let Some(value) = value {
                        put(&mut text, format_args!(",\"{key}\":{}", Value::from(value)));
                    }
                }
                put(&mut text, format_args!(",\"msg\":{}", Value::from(message)));
                text.push_str(&fields.text);
                text.push('}');
            }
            Format::Console => {
                put(&mut text, format_args!("{time}\t{}", level.name()));
                for value in [source.logger, caller.as_deref(), Some(message)].into_iter().flatten()
                {
                    put(&mut text, format_args!("\t{}", value.replace('\n', "\\n")));
                }
                if !fields.text.is_empty() {
                    put(&mut text, format_args!("\t{{{}}}", fields.text));
                }
            }
        }
        text.push('\n');
        text
    }

    /// RFC 3339 with microseconds, in the local time zone.
    fn time(&self, now: Timestamp) -> String {
        let zoned = now.to_zoned(self.zone.clone());
        let format = if zoned.offset().seconds() == 0 {
            "%Y-%m-%dT%H:%M:%S%.6fZ"
        } else {
            "%Y-%m-%dT%H:%M:%S%.6f%z"
        };
        zoned.strftime(format).to_string()
    }
}

/// The last directory and the file's name.
fn short(file: &str) -> &str {
    let mut slashes = file.rmatch_indices('/').map(|(at, _)| at);
    slashes.next();
    slashes.next().map_or(file, |at| &file[at + 1..])
}

/// Collects fields as JSON text: each with a comma before it, or spaced and separated.
struct Fields {
    text: String,
    spaced: bool,
}

impl Fields {
    fn push(&mut self, name: &str, value: &Value) {
        let name = Value::from(name.replace('_', "-"));
        if !self.spaced {
            put(&mut self.text, format_args!(",{name}:{value}"));
            return;
        }
        let separator = if self.text.is_empty() { "" } else { ", " };
        match value {
            Value::Array(items) => {
                let items: Vec<_> = items.iter().map(ToString::to_string).collect();
                put(&mut self.text, format_args!("{separator}{name}: [{}]", items.join(", ")));
            }
            other => put(&mut self.text, format_args!("{separator}{name}: {other}")),
        }
    }

    fn push_text(&mut self, field: &Field, text: &str) {
        let value = text.strip_prefix(JSON_MARK).and_then(|json| serde_json::from_str(json).ok());
        let value = value.unwrap_or_else(|| Value::from(cut(text).into_owned()));
        self.push(field.name(), &value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() != "message" {
            self.push_text(field, &format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != "message" {
            self.push(field.name(), &Value::from(cut(value).into_owned()));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.push(field.name(), &Value::from(cut(&value.to_string()).into_owned()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field.name(), &Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field.name(), &Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field.name(), &Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field.name(), &Value::from(value));
    }
}

/// Takes the message out of an event.
#[derive(Debug, Default)]
pub(super) struct MessageVisitor {
    pub(super) text: String,
}

impl Visit for MessageVisitor {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.text = cut(&format!("{value:?}")).into_owned();
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.text = cut(value).into_owned();
        }
    }
}

fn cut(text: &str) -> Cow<'_, str> {
    if text.len() <= FIELD_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{}…", &text[..text.floor_char_boundary(FIELD_BYTES_MAX)]))
}

fn put(text: &mut String, piece: fmt::Arguments<'_>) {
    text.write_fmt(piece).expect("writing to a string does not fail");
}
