//! Faults on purpose: the judges have to find each of them.

use machine::fault_hooks as in_machine;
use node::fault_hooks as in_node;
use storage::fault_hooks as in_storage;

use crate::check::Violation;
use crate::runner::run_seed;

/// A fault that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// In the log.
    Storage(in_storage::Planted),
    /// In the store.
    Machine(in_machine::Planted),
    /// In the member.
    Node(in_node::Planted),
    /// A snapshot says that it holds one entry more, and its receiver believes it.
    SnapshotIndex,
}

/// All of them.
pub const ALL: [Fault; 19] = [
    Fault::Node(in_node::Planted::UnconfirmedReads),
    Fault::Node(in_node::Planted::SecondVote),
    Fault::Node(in_node::Planted::EarlyMessages),
    Fault::Node(in_node::Planted::VotingLearner),
    Fault::Node(in_node::Planted::DeposedPrimary),
    Fault::SnapshotIndex,
    Fault::Node(in_node::Planted::ChangeTwice),
    Fault::Machine(in_machine::Planted::EventsOfThePast),
    Fault::Node(in_node::Planted::SkippedEntry),
    Fault::Machine(in_machine::Planted::HashWithoutTombstone),
    Fault::Node(in_node::Planted::DoubleProposal),
    Fault::Storage(in_storage::Planted::SkippedSync),
    Fault::Node(in_node::Planted::EarlyAcknowledgement),
    Fault::Machine(in_machine::Planted::AppliedIndexBeforeData),
    Fault::Machine(in_machine::Planted::LostTombstone),
    Fault::Machine(in_machine::Planted::SkippedEvent),
    Fault::Machine(in_machine::Planted::DuplicateEvent),
    Fault::Machine(in_machine::Planted::ForgottenLease),
    Fault::Storage(in_storage::Planted::TornTailAccepted),
];

/// Runs up to `seeds_max` seeds with `fault`, until one finds it: returns that seed and what was found.
pub fn find(fault: Fault, seeds_max: u64) -> Option<(u64, Violation)> {
    plant(Some(fault));
    let found = (0..seeds_max).find_map(|seed| Some((seed, run_seed(seed, false).result.err()?)));
    plant(None);
    found
}

fn plant(fault: Option<Fault>) {
    in_storage::plant(match fault {
        Some(Fault::Storage(fault)) => Some(fault),
        _ => None,
    });
    in_machine::plant(match fault {
        Some(Fault::Machine(fault)) => Some(fault),
        Some(Fault::SnapshotIndex) => Some(in_machine::Planted::WrongSnapshotIndex),
        _ => None,
    });
    in_node::plant(match fault {
        Some(Fault::Node(fault)) => Some(fault),
        Some(Fault::SnapshotIndex) => Some(in_node::Planted::UncheckedSnapshot),
        _ => None,
    });
}
