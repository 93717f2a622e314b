//! How a command ends: etcdctl's exit codes, and the text that goes with them.

use std::fmt;
use std::io;

/// A general error, or one of the server's.
pub(crate) const ERROR: u8 = 1;
/// No connection could be made.
pub(crate) const BAD_CONNECTION: u8 = 2;
/// What was read from standard input makes no sense.
pub(crate) const INVALID_INPUT: u8 = 3;
/// A valid option has a value that is not supported.
pub(crate) const BAD_FEATURE: u8 = 4;
/// Interrupted, or ended by the server.
pub(crate) const INTERRUPTED: u8 = 5;
/// The arguments make no sense.
pub(crate) const BAD_ARGUMENTS: u8 = 128;
/// The reader of our output went away: what a shell shows for a process ended by that signal.
const BROKEN_PIPE: u8 = 141;

/// A command that did not succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    /// Shown as `Error: …`; none when all is said already.
    pub(crate) message: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl fmt::Display) -> Self {
        Self { code, message: Some(message.to_string()) }
    }

    /// A failure that was already told.
    pub(crate) fn silent(code: u8) -> Self {
        Self { code, message: None }
    }

    pub(crate) fn bad_arguments(message: impl fmt::Display) -> Self {
        Self::new(BAD_ARGUMENTS, message)
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        Self::new(ERROR, error)
    }
}

/// Failures of our own output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::silent(BROKEN_PIPE);
        }
        Self::new(ERROR, error)
    }
}
