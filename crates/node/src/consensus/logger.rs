//! Sends raft's own log records to `tracing`.

use std::fmt::{self, Write as _};

use slog::{Drain, KV, Key, Level, Logger, OwnedKVList, Record, Serializer};

/// Makes the logger that raft writes to.
pub(super) fn logger() -> Logger {
    Logger::root(ToTracing, slog::o!())
}

#[derive(Debug)]
struct ToTracing;

impl Drain for ToTracing {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Self::Err> {
        let mut text = Text(record.msg().to_string());
        // Writing to a string cannot fail; a value that cannot be shown is left out.
        let shown = record
            .kv()
            .serialize(record, &mut text)
            .and_then(|()| values.serialize(record, &mut text));
        let text = text.0;
        match record.level() {
            Level::Critical | Level::Error => {
                tracing::error!(target: "raft", complete = shown.is_ok(), "{text}")
            }
            Level::Warning => tracing::warn!(target: "raft", "{text}"),
            Level::Info => tracing::info!(target: "raft", "{text}"),
            Level::Debug | Level::Trace => tracing::trace!(target: "raft", "{text}"),
        }
        Ok(())
    }

    fn is_enabled(&self, level: Level) -> bool {
        match level {
            Level::Critical | Level::Error | Level::Warning => true,
            Level::Info => tracing::enabled!(target: "raft", tracing::Level::INFO),
            Level::Debug | Level::Trace => tracing::enabled!(target: "raft", tracing::Level::TRACE),
        }
    }
}

struct Text(String);

impl Serializer for Text {
    fn emit_arguments(&mut self, key: Key, val: &fmt::Arguments<'_>) -> slog::Result {
        write!(self.0, "; {key}: {val}")?;
        Ok(())
    }
}
