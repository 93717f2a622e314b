//! The judges: what a member may not do, whatever befalls it.
//!
//! The judge sees what goes into members' logs on the way to their disks, what they apply, and what comes out of them; it never
//! reads a disk. The first member that applies an entry makes it a part of the one log that all have to apply; from its entries
//! the model tells what each has to yield. Revisions name the states of the store, so that histories are judged as they
//! happen: a read at a revision has to show that state, and no revision below one that anybody had been told before it was
//! asked for; a write comes behind all that were acknowledged before it was asked for.

mod answers;
mod durability;
mod lease;
mod log;
mod reads;
mod watch;

use std::fmt::Display;

pub use self::log::{Heard, Judge};
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
