//! Work for the backend thread: what the machine hands out and takes back.
//!
//! Jobs are run one by one, in the order in which they were handed out.

use std::sync::Arc;

use storage::backend::{Backend, WriteBatch};

use crate::fault::Fault;
use crate::machine::Applied;
use crate::mvcc::compact::{Compaction, Step};
use crate::mvcc::shared::Shared;
use crate::{Record, Revision};

/// One unit of work on the backend.
#[derive(Debug)]
pub enum BackendJob {
    /// Makes what has been applied durable.
    Commit(Commit),
    /// Goes on with a compaction.
    CompactStep(CompactStep),
    /// Rewrites the backend's file without its free space.
    Defragment,
}

/// A batch with everything applied up to an index.
#[derive(Debug)]
pub struct Commit {
    pub(crate) shared: Arc<Shared>,
    pub(crate) batch: WriteBatch,
    /// The puts in it, offered to the value cache once they are durable.
    pub(crate) puts: Vec<(Revision, Record)>,
    pub(crate) applied: Applied,
    pub(crate) records: usize,
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
    Defragment(Result<(), Fault>),
}

impl BackendJob {
    /// Does the work. A fault comes back inside [`BackendDone`].
    pub fn run(self, backend: &Backend) -> BackendDone {
        BackendDone(match self {
            Self::Commit(commit) => commit.run(backend),
            Self::CompactStep(step) => step.run(backend),
            Self::Defragment => Done::Defragment(backend.defragment().map_err(Fault::from)),
        })
    }
}

impl Commit {
    fn run(self, backend: &Backend) -> Done {
        let Self { shared, batch, puts, applied, records } = self;
        let result = backend.commit(&batch).map_err(Fault::from);
        for (revision, record) in puts {
            shared.cache.insert(revision, record);
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
