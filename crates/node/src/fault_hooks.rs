//! Faults on purpose, for the simulator to find. Compiled with the feature `planted-faults` only, and then off unless a
//! run switches one on for its thread.

use std::cell::Cell;

/// A fault that can be planted in the member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// Entries count as durable when they are given to the disk.
    EarlyAcknowledgement,
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
