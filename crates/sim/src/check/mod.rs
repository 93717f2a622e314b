//! The judges: what a member may not do, whatever befalls it.
//!
//! The judge sees what goes into the log on its way to the disk, and what comes out of the member; it never reads the disk.
//! From the log's entries the model tells what each has to yield. So there is one truth for everything that was applied,
//! and what becomes of an unanswered request is told by the first entry that the next process writes: what lies before has
//! survived, the rest never happened.

mod answers;
mod lease;
mod log;
mod reads;
mod watch;

use std::fmt::Display;

pub use self::log::Judge;
pub use self::reads::Found;
pub use self::watch::{Fate, Watched};

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

impl Violation {
    /// Makes a violation that says `what`.
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// Judges that `holds`.
pub(crate) fn check(holds: bool, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation(what())) }
}

/// Judges that two things are equal.
pub(crate) fn check_equal<T: PartialEq + std::fmt::Debug>(
    what: impl Display,
    found: &T,
    expected: &T,
) -> Result<(), Violation> {
    check(found == expected, || format!("{what} is {found:?}, expected {expected:?}"))
}
