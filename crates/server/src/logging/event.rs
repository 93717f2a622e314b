//! The `tracing` subscriber: which events are heard, and at which level.

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

use super::line::Source;
use super::{FATAL, Level, Logger, PANIC, RAFT};

/// Crates whose events are heard at every level.
const OURS: &[&str] =
    &["cli", "client", "machine", "node", "quorate", "server", "storage", FATAL, PANIC, RAFT];

/// Spans are not followed: a line stands for itself.
const NO_SPAN: u64 = 1;

pub(super) struct EventLog {
    logger: Logger,
}

impl EventLog {
    pub(super) fn new(logger: Logger) -> Self {
        Self { logger }
    }
}

/// The level of an event's line; `None` for what is never logged.
fn level_of(metadata: &Metadata<'_>) -> Option<Level> {
    let level = match (*metadata.level(), metadata.target()) {
        (tracing::Level::ERROR, FATAL) => Level::Fatal,
        (tracing::Level::ERROR, PANIC) => Level::Panic,
        (tracing::Level::ERROR, _) => Level::Error,
        (tracing::Level::WARN, _) => Level::Warn,
        (tracing::Level::INFO, _) => Level::Info,
        (tracing::Level::DEBUG, _) => Level::Debug,
        _ => return None,
    };
    let root = metadata.target().split("::").next().unwrap_or_default();
    (level >= Level::Warn || OURS.contains(&root)).then_some(level)
}

impl Subscriber for EventLog {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && level_of(metadata) >= Some(self.logger.shared.level)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.logger.shared.level {
            Level::Debug => LevelFilter::DEBUG,
            Level::Info => LevelFilter::INFO,
            Level::Warn => LevelFilter::WARN,
            Level::Error | Level::DPanic | Level::Panic | Level::Fatal => LevelFilter::ERROR,
        })
    }

    fn new_span(&self, _attributes: &Attributes<'_>) -> Id {
        Id::from_u64(NO_SPAN)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let Some(level) = level_of(metadata) else { return };
        let source = Source {
            logger: (metadata.target() == RAFT).then_some(RAFT),
            caller: metadata.file().zip(metadata.line()),
        };
        self.logger.event(level, &source, &|visitor| event.record(visitor));
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}
