//! What watchers that lag behind read.

use super::EventBatch;
use crate::{ReadError, Record, Revision};

/// How much one read of history may bring. At least one whole revision is brought in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryBounds {
    /// Distinct main revisions with events.
    pub revisions_max: usize,
    /// About so many bytes of records.
    pub bytes_max: usize,
}

/// The store, as far as the watch hub needs it. [`crate::Reader`] is one; tests have a naive one.
pub trait History {
    /// Returns the store's revision.
    fn current(&self) -> i64;

    /// Returns the compacted revision; −1 before the first compaction.
    fn compacted(&self) -> i64;

    /// Reads the events of main revisions `from..=to`, as far as the bounds allow: the batch begins with `from` and covers what was read.
    /// May touch the disk. Refused as compacted if `from` is below the compacted revision; that a compaction overtook the read is
    /// noticed by the caller.
    fn read(&self, from: i64, to: i64, bounds: HistoryBounds) -> Result<EventBatch, ReadError>;

    /// Reads the record that `key` had as of main revision `main − 1`. `None` if it had none then, or that is compacted. May touch the
    /// disk.
    fn before(&self, key: &[u8], main: i64) -> Result<Option<Record>, ReadError>;

    /// Returns the record at `revision` if it is in memory. Never touches the disk.
    fn resident(&self, revision: Revision) -> Option<Record>;
}
