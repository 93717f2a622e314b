//! Work for the backend thread: what the machine hands out and takes back.
//!
//! Jobs are run one by one, in the order in which they were handed out.

use std::sync::Arc;

use storage::backend::{Backend, DefragmentFault, Op, TableId, WriteBatch};

use crate::fault::Fault;
use crate::machine::Applied;
use crate::mvcc::compact::{Compaction, Step};
use crate::mvcc::shared::Shared;
use crate::mvcc::tail::Entry;
use crate::schema;

/// One unit of work on the backend.
#[derive(Debug)]
pub enum BackendJob {
    /// Makes what has been applied durable.
    Commit(Commit),
    /// Goes on with a compaction.
    CompactStep(CompactStep),
    /// Goes on with a rewrite of the backend's file without its free space, or begins one.
    DefragmentStep,
}

/// What a step of a defragmentation has led to.
#[derive(Debug, Clone)]
pub enum Defragmentation {
    /// Another step is to follow.
    GoesOn,
    /// The new file is in place.
    Done,
    /// The file is the one it was, because of this fault.
    GivenUp(storage::Fault),
}

/// A batch with everything applied up to an index.
#[derive(Debug)]
pub struct Commit {
    pub(crate) shared: Arc<Shared>,
    /// Changes of the small buckets, with the applied index.
    pub(crate) ops: Vec<(TableId, Op)>,
    /// Changes of the key bucket.
    pub(crate) entries: Vec<Entry>,
    pub(crate) applied: Applied,
}

/// One step of a compaction.
#[derive(Debug)]
pub struct CompactStep {
    pub(crate) shared: Arc<Shared>,
    pub(crate) compaction: Box<Compaction>,
    pub(crate) batch_max: usize,
}

/// What became of a job.
#[derive(Debug)]
pub struct BackendDone(pub(crate) Done);

#[derive(Debug)]
pub(crate) enum Done {
    Commit { applied: Applied, records: usize, result: Result<(), Fault> },
    CompactStep { compaction: Box<Compaction>, result: Result<Step, Fault> },
    DefragmentStep(Result<bool, DefragmentFault>),
}

/// What a job does, for those who time it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Makes what has been applied durable.
    Commit,
    /// Thins out the key index for a compaction.
    CompactIndex,
    /// Deletes records for a compaction.
    CompactRecords,
    /// Goes on with rewriting the backend's file.
    Defragment,
}

impl BackendDone {
    /// Tells whether the job was the last step of a compaction.
    pub fn finishes_compaction(&self) -> bool {
        matches!(&self.0, Done::CompactStep { result: Ok(step), .. } if step.finished.is_some())
    }

    /// Tells whether the backend may not be used any more.
    pub fn is_fault(&self) -> bool {
        match &self.0 {
            Done::Commit { result, .. } => result.is_err(),
            Done::CompactStep { result, .. } => result.is_err(),
            Done::DefragmentStep(result) => matches!(result, Err(DefragmentFault::Unknown(_))),
        }
    }
}

impl BackendJob {
    /// Tells what the work is.
    pub fn kind(&self) -> JobKind {
        match self {
            Self::Commit(_) => JobKind::Commit,
            Self::CompactStep(step) if step.compaction.is_in_index() => JobKind::CompactIndex,
            Self::CompactStep(_) => JobKind::CompactRecords,
            Self::DefragmentStep => JobKind::Defragment,
        }
    }

    /// Does the work. A fault comes back inside [`BackendDone`].
    pub fn run(self, backend: &Backend) -> BackendDone {
        BackendDone(match self {
            Self::Commit(commit) => commit.run(backend),
            Self::CompactStep(step) => step.run(backend),
            Self::DefragmentStep => Done::DefragmentStep(backend.defragment_step()),
        })
    }
}

impl Commit {
    fn run(self, backend: &Backend) -> Done {
        let Self { shared, mut ops, entries, applied } = self;
        #[cfg(feature = "planted-faults")]
        if crate::fault_hooks::is_planted(crate::fault_hooks::Planted::AppliedIndexBeforeData)
            && let Err(fault) = backend.commit(&WriteBatch::new(ops.clone()))
        {
            return Done::Commit { applied, records: 0, result: Err(fault.into()) };
        }
        ops.extend(entries.iter().map(|entry| {
            let key = schema::record_key(entry.revision, entry.is_tombstone);
            (schema::KEY, Op::Put(key, entry.record.clone()))
        }));
        let result = backend.commit(&WriteBatch::new(ops)).map_err(Fault::from);
        let records = entries.len();
        // What was written lately is read soon: it stays in memory when it leaves the tail.
        for entry in entries.into_iter().filter(|entry| !entry.is_tombstone) {
            shared.cache.insert(entry.revision, entry.record);
        }
        Done::Commit { applied, records, result }
    }
}

impl CompactStep {
    fn run(mut self, backend: &Backend) -> Done {
        let result = self.compaction.step(&self.shared, backend, self.batch_max);
        Done::CompactStep { compaction: self.compaction, result }
    }
}
