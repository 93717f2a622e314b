//! Compaction: history below a revision goes.
//!
//! Applying one takes logical effect at once. The physical pass follows in steps on the backend
//! thread: first the key index is thinned out in chunks, which yields what is to be kept; then the
//! engine's records up to the revision are visited in batches and those not kept deleted, each
//! batch in a commit of its own. The last one also notes that the compaction is finished; until
//! then a restart does it again.
//!
//! A pass begins only when the commit that carries its entry is durable. Else, after a crash, the
//! log would be replayed on a store that has already lost what the replayed entries build on.

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use storage::backend::{Backend, Op, WriteBatch};

use super::hash::{Hasher, KeyValueHash};
use super::history::decode_key;
use super::key_index::{KeepCursor, Sweep};
use super::shared::{CHUNK_KEYS, Shared};
use super::store::stored_bytes;
use crate::fault::Fault;
use crate::{Revision, schema};

/// Holds of the index's lock in one step.
const HOLDS_PER_STEP: usize = 64;

/// Bytes of records visited in one step, from which on it ends: a step of large records is no longer than one of many.
const STEP_BYTES_MAX: usize = 16 << 20;

/// A compaction under way.
#[derive(Debug)]
pub(crate) struct Compaction {
    pub(crate) revision: i64,
    /// The compacted revision before.
    previous: i64,
    /// The applied entry that asked for it; 0 for one that a restart found unfinished.
    pub(crate) index: u64,
    /// Whether the hash covers everything since the previous compaction.
    stores_hash: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The index is being thinned out.
    Index(Sweep),
    /// Records are being deleted.
    Records { keep: KeepCursor, hasher: Hasher, from: Revision },
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) removed: u64,
    pub(crate) removed_bytes: u64,
    /// Set by the last step.
    pub(crate) finished: Option<KeyValueHash>,
}

impl Step {
    const NOTHING: Self = Self { removed: 0, removed_bytes: 0, finished: None };
}

impl Compaction {
    pub(crate) fn new(revision: i64, previous: i64, index: u64, stores_hash: bool) -> Self {
        let stage = Stage::Index(Sweep::for_compaction(revision));
        Self { revision, previous, index, stores_hash, stage }
    }

    /// Tells whether the next step is one in the index.
    pub(crate) fn is_in_index(&self) -> bool {
        matches!(self.stage, Stage::Index(_))
    }

    /// Does the next piece of work, of at most `batch_max` records.
    pub(crate) fn step(
        &mut self,
        shared: &Shared,
        backend: &Backend,
        batch_max: usize,
    ) -> Result<Step, Fault> {
        match &mut self.stage {
            Stage::Index(sweep) => {
                if thin_out(shared, sweep) {
                    let done = Sweep::for_compaction(self.revision);
                    let kept = std::mem::replace(sweep, done).finish();
                    let (keep, is_empty) = (kept.cursor(), kept.is_empty());
                    let hasher = Hasher::new(self.previous, self.revision, keep.clone(), is_empty);
                    self.stage = Stage::Records { keep, hasher, from: Revision::default() };
                }
                Ok(Step::NOTHING)
            }
            Stage::Records { keep, hasher, from } => {
                let batch = read_batch(backend, keep, hasher, *from, self.revision, batch_max)?;
                *from = batch.next;
                let step = commit(backend, batch, self.revision, hasher)?;
                if let (true, Some(hash)) = (self.stores_hash, step.finished) {
                    shared.hashes.lock().store(hash);
                }
                Ok(step)
            }
        }
    }
}

/// Goes on thinning out the index; tells whether that is done.
fn thin_out(shared: &Shared, sweep: &mut Sweep) -> bool {
    for _ in 0..HOLDS_PER_STEP {
        if shared.state.write().index.compact(sweep, CHUNK_KEYS) {
            return true;
        }
    }
    false
}

/// Records visited in one step.
#[derive(Debug)]
struct Batch {
    deletes: Vec<Bytes>,
    deleted_bytes: u64,
    next: Revision,
    is_last: bool,
}

fn read_batch(
    backend: &Backend,
    keep: &mut KeepCursor,
    hasher: &mut Hasher,
    from: Revision,
    revision: i64,
    batch_max: usize,
) -> Result<Batch, Fault> {
    let start = schema::revision_bytes(from);
    let end = schema::revision_bytes(Revision::new(revision.saturating_add(1), 0));
    let mut batch = Batch { deletes: vec![], deleted_bytes: 0, next: from, is_last: true };
    let (mut visited, mut visited_bytes) = (0, 0);
    let mut result = Ok(());
    let range = (Bound::Included(&start[..]), Bound::Excluded(&end[..]));
    backend.reader()?.scan(schema::KEY, range, |key, record| {
        let (revision, is_tombstone) = match decode_key(key) {
            Ok(decoded) => decoded,
            Err(fault) => {
                result = Err(fault);
                return ControlFlow::Break(());
            }
        };
        hasher.write(revision, is_tombstone, key, record);
        let is_kept = keep.contains(revision);
        #[cfg(feature = "planted-faults")]
        let is_kept = is_kept
            && !(is_tombstone
                && crate::fault_hooks::is_planted(crate::fault_hooks::Planted::LostTombstone));
        if !is_kept {
            batch.deleted_bytes += stored_bytes(record, is_tombstone);
            batch.deletes.push(Bytes::copy_from_slice(key));
        }
        batch.next = Revision::new(revision.main, revision.sub + 1);
        visited += 1;
        visited_bytes += record.len();
        batch.is_last = visited < batch_max && visited_bytes < STEP_BYTES_MAX;
        if batch.is_last { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result.map(|()| batch)
}

fn commit(backend: &Backend, batch: Batch, revision: i64, hasher: &Hasher) -> Result<Step, Fault> {
    let removed = batch.deletes.len() as u64;
    let mut ops: Vec<_> =
        batch.deletes.into_iter().map(|key| (schema::KEY, Op::Delete(key))).collect();
    if batch.is_last {
        let key = Bytes::from_static(schema::FINISHED_COMPACT);
        ops.push((schema::META, Op::Put(key, compact_mark(revision))));
    }
    if !ops.is_empty() {
        backend.commit(&WriteBatch::thinning(ops))?;
    }
    let finished = batch.is_last.then(|| hasher.finish());
    Ok(Step { removed, removed_bytes: batch.deleted_bytes, finished })
}

/// Encodes the revision of a compaction for the meta bucket.
pub(crate) fn compact_mark(revision: i64) -> Bytes {
    Bytes::copy_from_slice(&schema::revision_bytes(Revision::new(revision, 0)))
}
