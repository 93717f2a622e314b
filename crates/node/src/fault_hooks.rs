//! Faults on purpose, for the simulator to find. Compiled with the feature `planted-faults` only, and then off unless a
//! run switches one on for its thread.

use std::cell::Cell;

/// A fault that can be planted in the member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// Entries count as durable when they are given to the disk.
    EarlyAcknowledgement,
    /// Messages leave before what they promise is durable.
    EarlyMessages,
    /// A leader answers reads without asking whether it still leads.
    UnconfirmedReads,
    /// A vote is forgotten when the next candidate asks.
    SecondVote,
    /// A learner counts as a voter.
    VotingLearner,
    /// A change of the membership takes effect when it is proposed, and again when it is committed.
    ChangeTwice,
    /// A primary goes on ending leases when it does not lead any more.
    DeposedPrimary,
    /// A restart passes over the first entry that is to be applied.
    SkippedEntry,
    /// What a follower passes on to the leader is passed on twice.
    DoubleProposal,
    /// The index of a snapshot is not compared with that of its database.
    UncheckedSnapshot,
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
