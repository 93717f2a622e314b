//! Work for the backend thread: what the machine hands out and takes back.
//!
//! Jobs are run one by one, in the order in which they were handed out. Each knows the backend it is for: when a snapshot of
//! the leader takes the place of the state, some are still for the one before.

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
    DefragmentStep(Backend),
    /// Gives the file of a leader's snapshot the name of the one before.
    TakePlace(Backend),
    /// Removes the file of a snapshot that was not taken.
    Discard(Backend),
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
    Commit { shared: Arc<Shared>, applied: Applied, records: usize, result: Result<(), Fault> },
    CompactStep { shared: Arc<Shared>, compaction: Box<Compaction>, result: Result<Step, Fault> },
    DefragmentStep(Backend, Result<bool, DefragmentFault>),
    TakePlace(Result<(), storage::Fault>),
    Discard(Result<(), storage::Fault>),
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
    /// Puts a snapshot's file in its place, or removes it.
    Install,
}

impl BackendDone {
    /// Tells whether the job was the last step of a compaction.
    pub fn finishes_compaction(&self) -> bool {
        matches!(&self.0, Done::CompactStep { result: Ok(step), .. } if step.finished.is_some())
    }

    /// Tells whether a snapshot's file has got its name, or is removed, as far as that could be done.
    pub fn settles_install(&self) -> bool {
        matches!(self.0, Done::TakePlace(_) | Done::Discard(_))
    }

    /// Tells whether the backend may not be used any more.
    pub fn is_fault(&self) -> bool {
        match &self.0 {
            Done::Commit { result, .. } => result.is_err(),
            Done::CompactStep { result, .. } => result.is_err(),
            Done::DefragmentStep(_, result) => matches!(result, Err(DefragmentFault::Unknown(_))),
            Done::TakePlace(result) => result.is_err(),
            Done::Discard(_) => false,
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
            Self::DefragmentStep(_) => JobKind::Defragment,
            Self::TakePlace(_) | Self::Discard(_) => JobKind::Install,
        }
    }

    /// Does the work. A fault comes back inside [`BackendDone`].
    pub fn run(self) -> BackendDone {
        BackendDone(match self {
            Self::Commit(commit) => commit.run(),
            Self::CompactStep(step) => step.run(),
            Self::DefragmentStep(backend) => {
                let stepped = backend.defragment_step();
                Done::DefragmentStep(backend, stepped)
            }
            Self::TakePlace(backend) => Done::TakePlace(backend.take_place()),
            Self::Discard(backend) => Done::Discard(backend.discard()),
        })
    }
}

impl Commit {
    fn run(self) -> Done {
        let Self { shared, mut ops, entries, applied } = self;
        let backend = &shared.backend;
        #[cfg(feature = "planted-faults")]
        if crate::fault_hooks::is_planted(crate::fault_hooks::Planted::AppliedIndexBeforeData)
            && let Err(fault) = backend.commit(&WriteBatch::new(ops.clone()))
        {
            return Done::Commit {
                shared: Arc::clone(&shared),
                applied,
                records: 0,
                result: Err(fault.into()),
            };
        }
        ops.extend(entries.iter().map(|entry| {
            let key = schema::record_key(entry.revision, entry.is_tombstone);
            (schema::KEY, Op::Put(key, entry.record.clone()))
        }));
        let result = backend.commit(&WriteBatch::new(ops)).map_err(Fault::from);
        let records = entries.len();
        // What is being read stays in memory when it leaves the tail.
        for entry in entries.into_iter().filter(|entry| entry.is_read) {
            shared.cache.insert(entry.revision, entry.record);
        }
        Done::Commit { shared, applied, records, result }
    }
}

impl CompactStep {
    fn run(self) -> Done {
        let Self { shared, mut compaction, batch_max } = self;
        let result = compaction.step(&shared, &shared.backend, batch_max);
        Done::CompactStep { shared, compaction, result }
    }
}
