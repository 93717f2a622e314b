//! The replicated state of a member: what the log's entries do to it, and how it is read.
//!
//! [`Machine`] is the write side, owned by one thread: [`Machine::apply`] takes committed entries
//! in order. [`Reader`] is the shared read side. Nothing here knows raft, clocks or status codes;
//! the only input beside the log is the backend's disk.

mod alarm;
mod apply;
mod auth;
mod backend_job;
mod command;
mod fault;
mod import;
mod machine;
mod nesting;
mod outcome;
mod proposed;
mod reader;
mod recover;
mod request_kind;
mod snapshot;
mod stats;

#[cfg(feature = "planted-faults")]
pub mod fault_hooks;
pub mod lease;
pub mod membership;
pub mod mvcc;
pub mod quota;
pub mod schema;
pub mod watch;

#[cfg(test)]
mod tests;

pub use auth::Auth;
pub use backend_job::{BackendDone, BackendJob, Commit, CompactStep, Defragmentation, JobKind};
pub use fault::{EntryFault, Fault, ReadError};
pub use import::import;
pub use machine::{Applied, AppliedEntry, Machine, Options};
pub use mvcc::hash::KeyValueHash;
pub use mvcc::pager::{Collected, Page, RangePager};
pub use mvcc::range::Room;
pub use mvcc::revision::Revision;
pub use mvcc::txn::is_read_only;
pub use nesting::{TXN_LEVELS_MAX, TxnDecodeError, decode_txn};
pub use outcome::{Outcome, RangeReply, Record, Refusal, Reply, TxnReply};
pub use reader::{Reader, Sizes};
pub use recover::{Belt, Changes, Conveyor, applied, one_by_one};
pub use request_kind::RequestKind;
pub use snapshot::{Image, ImageError, Snapshot};
pub use stats::Stats;
pub use watch::{Event, EventBatch};
