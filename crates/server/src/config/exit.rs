//! How the process ends when it does not start: what is printed and logged, and the exit code, all
//! as etcd's.

use std::io::Write;
use std::process::ExitCode;

use crate::logging::{self, Level, Notice};

use super::{Discovery, help};

const NOT_VERIFIED: &str = "failed to verify flags";

/// A start that ends here. Call [`report`](Self::report) from `main` and return what it gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// The exit code: 0 for `--help` and `--version`, 1 for what is not valid, 2 for what is not
    /// even syntax.
    pub code: u8,
    /// Text for standard output.
    pub stdout: String,
    /// Text for standard error.
    pub stderr: String,
    /// Lines for the log, in order.
    pub notices: Vec<Notice>,
}

impl Exit {
    /// An answer to `--version`.
    pub(super) fn version() -> Self {
        Self { code: 0, stdout: help::version(), stderr: String::new(), notices: Vec::new() }
    }

    /// An answer to `--help`.
    pub(super) fn help() -> Self {
        Self { code: 0, stdout: help::flags(), stderr: help::usage(), notices: Vec::new() }
    }

    /// Flags that cannot be parsed: the message and the usage.
    pub(super) fn syntax(message: &str) -> Self {
        let stderr = format!("{message}\n{}", help::usage());
        Self { code: 2, stdout: String::new(), stderr, notices: Vec::new() }
    }

    /// A plain text on standard error.
    pub(super) fn plain(code: u8, message: &str) -> Self {
        Self { code, stdout: String::new(), stderr: format!("{message}\n"), notices: Vec::new() }
    }

    /// A configuration that is not valid.
    #[track_caller]
    pub fn invalid(error: impl Into<String>) -> Self {
        let error = error.into();
        let mut exit =
            Self::fatal(Notice::new(Level::Warn, NOT_VERIFIED).with("error", error.clone()));
        if error == super::validate::ADVERTISE_CLIENT_URLS_UNSET {
            exit.notices.push(
                Notice::new(Level::Warn, "advertise client URLs are not set").with("error", error),
            );
        }
        exit
    }

    /// A valid configuration that nevertheless cannot be started.
    #[track_caller]
    pub fn start_failed(error: impl Into<String>) -> Self {
        Self::fatal(Notice::new(Level::Fatal, "discovery failed").with("error", error.into()))
    }

    /// Another cluster that does not tell who the members are.
    #[track_caller]
    pub fn discovery_refused(discovery: &Discovery, error: String, remedy: String) -> Self {
        let refused =
            Notice::new(Level::Warn, "failed to bootstrap; discovery token was already used")
                .with("discovery-token", discovery.token.clone())
                .with("discovery-endpoints", discovery.endpoints.join(","))
                .with("error", error)
                .with("remedy", remedy);
        let mut exit = Self::fatal(refused);
        exit.notices.push(Notice::new(
            Level::Warn,
            "do not reuse discovery token; generate a new one to bootstrap a cluster",
        ));
        exit
    }

    /// A port or socket that cannot be listened on.
    #[track_caller]
    pub fn listener_failed(error: impl Into<String>) -> Self {
        Self::fatal(Notice::new(Level::Fatal, "listener failed").with("error", error.into()))
    }

    /// A line in the log, and exit code 1.
    pub(super) fn fatal(notice: Notice) -> Self {
        Self { code: 1, stdout: String::new(), stderr: String::new(), notices: vec![notice] }
    }

    /// Whether a configuration was refused, rather than the process ended before it was looked at.
    pub(super) fn is_refusal(&self) -> bool {
        self.notices.first().is_some_and(|notice| notice.message == NOT_VERIFIED)
    }

    /// The same, after what was said before.
    pub(super) fn after(mut self, mut earlier: Vec<Notice>) -> Self {
        earlier.append(&mut self.notices);
        self.notices = earlier;
        self
    }

    /// Prints and logs everything, with the default logger on standard error.
    ///
    /// A closed standard output or error is no reason to fail: the exit code still tells.
    pub fn report(&self) -> ExitCode {
        let mut stdout = std::io::stdout().lock();
        let _closed = stdout.write_all(self.stdout.as_bytes()).and_then(|()| stdout.flush());
        let _closed = std::io::stderr().lock().write_all(self.stderr.as_bytes());
        logging::write_directly(&self.notices);
        ExitCode::from(self.code)
    }
}
