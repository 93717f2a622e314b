//! Faults on purpose, for the simulator to find. Compiled with the feature `planted-faults` only, and then off unless a
//! run switches one on for its thread.

use std::cell::Cell;

/// A fault that can be planted in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// A sync of the log says that it was done, and was not.
    SkippedSync,
    /// A record that does not check is taken for good.
    TornTailAccepted,
}

thread_local! {
    static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
}

/// Switches a fault on for this thread, or all off.
pub fn plant(fault: Option<Planted>) {
    PLANTED.set(fault);
}

/// Tells whether `fault` is on.
pub(crate) fn is_planted(fault: Planted) -> bool {
    PLANTED.get() == Some(fault)
}
