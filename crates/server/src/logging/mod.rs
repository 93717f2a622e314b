//! The process's log: etcd's lines from `tracing` events.
//!
//! A line is JSON, `{"level":"info","ts":"…","caller":"dir/file.rs:12","msg":"…",…fields}`, or a
//! tab-separated form of it. How events become lines:
//!
//! * `warn!(local_member_id = %id, error = %e, "failed …")` has the fields `local-member-id` and
//!   `error`: underscores in field names become dashes, as etcd writes them. Other names are string
//!   literals: `"a.b" = 1`.
//! * Durations are logged as text: `took = %GoDuration::from(elapsed)`. Lists: `urls =
//!   ?logging::List(&urls)`.
//! * `target: logging::FATAL` and `target: logging::PANIC` make an error the level of that name;
//!   `target: logging::RAFT` puts the logger's name into the line.
//! * Crates that are not ours are heard from warnings on.
//!
//! Guarantees: a line is written with one write, in the order of events of one thread. A thread
//! that logs never waits for an output: lines go through a queue that is bounded in lines and
//! bytes, and are dropped and counted when it is full (an output that nobody reads must not stop a
//! member). After 100 equal messages in a second, only each 100th is logged. [`Logger::flush`]
//! waits, for a bounded time, until everything queued is written.

mod event;
mod line;
mod options;
mod queue;
mod rotation;
mod sampling;
mod sink;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

pub use line::{List, Notice};
pub use options::{Format, Options, OptionsError, Output, RawOptions, Rotation};

use line::{Encoder, Source};
use queue::Queue;
use sampling::Sampler;

/// Target of errors that end the process.
pub const FATAL: &str = "fatal";
/// Target of errors that are bugs.
pub const PANIC: &str = "panic";
/// Target of raft's own lines.
pub const RAFT: &str = "raft";

/// How long [`Logger::flush`] waits at most.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// How grave a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For developers.
    Debug,
    /// The normal course of things.
    Info,
    /// Something to look at.
    Warn,
    /// Something failed.
    Error,
    /// A bug that is survived.
    DPanic,
    /// A bug.
    Panic,
    /// The end of the process.
    Fatal,
}

impl Level {
    /// Its name in a line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::DPanic => "dpanic",
            Self::Panic => "panic",
            Self::Fatal => "fatal",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let all = [
            Self::Debug,
            Self::Info,
            Self::Warn,
            Self::Error,
            Self::DPanic,
            Self::Panic,
            Self::Fatal,
        ];
        match text.to_ascii_lowercase().as_str() {
            "" => Some(Self::Info),
            "warning" => Some(Self::Warn),
            name => all.into_iter().find(|level| level.name() == name),
        }
    }
}

/// The running log; clones share it.
#[derive(Clone)]
pub struct Logger {
    shared: Arc<Shared>,
}

struct Shared {
    level: Level,
    encoder: Encoder,
    sampler: Sampler,
    queue: Queue,
}

impl fmt::Debug for Logger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logger").field("level", &self.shared.level).finish_non_exhaustive()
    }
}

/// An output that cannot be opened, or a log thread that cannot be started; the text is what etcd
/// prints.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct StartError {
    text: String,
}

impl Logger {
    /// Opens the outputs and starts the thread that writes to them.
    pub fn start(options: &Options) -> Result<Self, StartError> {
        let sinks = options
            .outputs
            .iter()
            .map(sink::Sink::open)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|text| StartError { text })?;
        let encoder = Encoder::new(options.format);
        let queue = Queue::start(sinks, encoder.clone())
            .map_err(|error| StartError { text: io_text(&error) })?;
        let shared = Shared { level: options.level, encoder, sampler: Sampler::default(), queue };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Makes this the log of all threads, for events and for panics, which end the process with
    /// code 2.
    ///
    /// Does nothing where another log is installed already.
    pub fn install(&self) {
        if tracing::subscriber::set_global_default(self.subscriber()).is_err() {
            return;
        }
        let logger = self.clone();
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            print(panic);
            let caller = panic.location().map(|at| (at.file().to_owned().into(), at.line()));
            logger.notice(&Notice::at(Level::Panic, panic.to_string(), caller));
            logger.flush();
            end_after_panic();
        }));
    }

    /// A subscriber that logs here.
    pub fn subscriber(&self) -> impl tracing::Subscriber + Send + Sync + 'static {
        event::EventLog::new(self.clone())
    }

    /// Logs one notice.
    pub fn notice(&self, notice: &Notice) {
        if notice.level >= self.shared.level {
            let line = self.shared.encoder.notice(notice);
            self.shared.queue.push(notice.level, line);
        }
    }

    /// Logs notices in order.
    pub fn notices(&self, notices: &[Notice]) {
        for notice in notices {
            self.notice(notice);
        }
    }

    /// Waits until what was logged before is written, but not for an output that is stuck.
    pub fn flush(&self) {
        self.shared.queue.flush(FLUSH_MAX);
    }

    /// Encodes and queues one event's line unless there were too many of it.
    fn event(
        &self,
        level: Level,
        source: &Source<'_>,
        record: &dyn Fn(&mut dyn tracing::field::Visit),
    ) {
        let mut message = line::MessageVisitor::default();
        record(&mut message);
        if self.shared.sampler.admits(level, &message.text) {
            let line = self.shared.encoder.event(level, source, &message.text, record);
            self.shared.queue.push(level, line);
        }
    }
}

/// A process whose state is in doubt ends at once: no other thread may answer from it. Go's status
/// for it is 2.
#[expect(clippy::exit, reason = "a bug was met; nothing is left to unwind to")]
fn end_after_panic() {
    std::process::exit(2);
}

/// Writes notices to standard error without any logger, in the default format, from the default
/// level on.
pub fn write_directly(notices: &[Notice]) {
    let encoder = Encoder::new(Format::Json);
    for notice in notices.iter().filter(|notice| notice.level >= Level::Info) {
        // Without standard error there is nowhere left to say it.
        let _closed = std::io::stderr().lock().write_all(encoder.notice(notice).as_bytes());
    }
}

/// An I/O error in the words of the operating system alone: `no such file or directory`.
pub fn io_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}
