//! One whole member, synchronous: events in, effects out (`docs/architecture.md`).
//!
//! [`Node::start`] recovers or bootstraps a data directory. From then on [`Node::handle`] takes what happens, and
//! [`Node::end_of_burst`] gives what is to be done. Nothing here awaits, reads a clock, draws a random number or does
//! input and output, but for [`Node::start`], which reads and writes through `storage::Disk`.

pub mod config;
pub mod effects;
pub mod event;
#[cfg(feature = "planted-faults")]
pub mod fault_hooks;

mod apply;
mod backend_pace;
mod backlog;
mod bootstrap;
mod compactor;
mod consensus;
mod doubts;
mod gate;
mod install;
mod leadership;
mod lease_desk;
mod meter;
mod node;
mod office;
mod own_requests;
mod proposals;
mod reads;
mod request_ids;
mod sending;
mod snapshots;
#[cfg(test)]
mod tests;
mod transfer;
mod unsettled;
mod upkeep;

pub use bootstrap::{StartError, Started};
pub use compactor::AutoCompaction;
pub use config::{
    BackendConfig, Bootstrap, Config, Identity, InitialMember, RaftConfig, SnapshotConfig,
};
pub use effects::{Answer, Completion, Effects, Failure, LeaseIds, LogRead, Stop, WalJob};
pub use event::{Event, LeaseRequest, LeaseRequestKind, Now, Prepared, Proposal, Token};
pub use gate::Gate;
pub use meter::Meter;
pub use node::{Node, Stats};
pub use proposals::Limits;
pub use request_ids::RequestIds;
pub use snapshots::membership_document;
