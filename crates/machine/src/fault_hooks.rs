//! Faults on purpose, for the simulator to find. Compiled with the feature `planted-faults` only, and then off unless a
//! run switches one on for its thread.

use std::cell::Cell;

/// A fault that can be planted in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// The applied index is committed before what was applied.
    AppliedIndexBeforeData,
    /// A compaction removes the deletion that history begins with.
    LostTombstone,
    /// A watcher that reads history is not told all of it.
    SkippedEvent,
    /// A watcher that has read ahead is told again what it has read.
    DuplicateEvent,
    /// A restart forgets a lease.
    ForgottenLease,
    /// The hash passes over deletions.
    HashWithoutTombstone,
    /// Watchers are told what they know already when a snapshot has taken the store's place.
    EventsOfThePast,
    /// A snapshot says that it holds one entry more.
    WrongSnapshotIndex,
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
