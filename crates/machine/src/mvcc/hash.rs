//! Hashes by which members find out that they have diverged.
//!
//! `hash_by_revision` covers the records up to a revision that a compaction would leave, in
//! revision order, and so agrees between members that compacted at different times or are not done
//! with it. `hash_all` covers the whole database of this member.

use std::ops::ControlFlow;

use super::history::{self, Bounds};
use super::key_index::{KeepCursor, Sweep};
use super::shared::{CHUNK_KEYS, Shared};
use crate::fault::ReadError;
use crate::{Refusal, Revision, schema};

/// Hashes kept of past compactions.
pub(crate) const STORED_MAX: usize = 10;
/// How often a hash starts again because the store was compacted meanwhile.
const ATTEMPTS_MAX: usize = 3;
const PIECE: Bounds = Bounds { records_max: 1000, bytes_max: 1 << 20 };

/// A hash and what it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyValueHash {
    /// CRC-32C over records and their keys.
    pub hash: u32,
    /// The compacted revision that it was computed with.
    pub compact_revision: i64,
    /// The last revision that it covers.
    pub revision: i64,
}

/// The hashes of the newest compactions, by ascending revision.
#[derive(Debug, Default)]
pub(crate) struct StoredHashes(Vec<KeyValueHash>);

impl StoredHashes {
    pub(crate) fn store(&mut self, hash: KeyValueHash) {
        self.0.push(hash);
        self.0.sort_by_key(|hash| hash.revision);
        if self.0.len() > STORED_MAX {
            self.0.remove(0);
        }
    }

    pub(crate) fn get(&self, revision: i64) -> Option<KeyValueHash> {
        self.0.iter().find(|hash| hash.revision == revision).copied()
    }

    pub(crate) fn all(&self) -> &[KeyValueHash] {
        &self.0
    }
}

/// Hashes records given in revision order.
#[derive(Debug)]
pub(crate) struct Hasher {
    hash: u32,
    compact_revision: i64,
    revision: i64,
    keep: KeepCursor,
    keeps_nothing: bool,
}

impl Hasher {
    /// Hashes up to `revision`; of what is at or below `compact_revision` only what is in `keep`,
    /// unless that is empty.
    pub(crate) fn new(
        compact_revision: i64,
        revision: i64,
        keep: KeepCursor,
        keeps_nothing: bool,
    ) -> Self {
        let hash = crc32c::crc32c(schema::BUCKETS[usize::from(schema::KEY.0)].as_bytes());
        Self { hash, compact_revision, revision, keep, keeps_nothing }
    }

    pub(crate) fn write(
        &mut self,
        revision: Revision,
        is_tombstone: bool,
        key: &[u8],
        record: &[u8],
    ) {
        if revision.main > self.revision {
            return;
        }
        let is_old = revision.main <= self.compact_revision;
        if is_old && !self.keeps_nothing && !self.keep.contains(revision) {
            return;
        }
        // Releases before 3.5.16 delete the tombstone at the compacted revision, later ones keep
        // it.
        if is_tombstone && revision.main == self.compact_revision {
            return;
        }
        #[cfg(feature = "planted-faults")]
        if is_tombstone
            && crate::fault_hooks::is_planted(crate::fault_hooks::Planted::HashWithoutTombstone)
        {
            return;
        }
        self.hash = crc32c::crc32c_append(self.hash, key);
        self.hash = crc32c::crc32c_append(self.hash, record);
    }

    pub(crate) fn finish(&self) -> KeyValueHash {
        KeyValueHash {
            hash: self.hash,
            compact_revision: self.compact_revision,
            revision: self.revision,
        }
    }
}

/// Returns the hash at `revision` (0: the current one) and the current revision. A stored hash of a
/// compaction comes with the compacted revision of its time.
pub(crate) fn hash_by_revision(
    shared: &Shared,
    revision: i64,
) -> Result<(KeyValueHash, i64), ReadError> {
    if let Some(stored) = shared.hashes.lock().get(revision) {
        return Ok((stored, shared.current()));
    }
    for _ in 0..ATTEMPTS_MAX {
        let current = shared.current();
        let compacted = shared.compacted();
        if revision > 0 && revision < compacted {
            return Err(Refusal::Compacted.into());
        }
        if revision > current {
            return Err(Refusal::FutureRevision.into());
        }
        let at = if revision == 0 { current } else { revision };
        if let Some(hash) = attempt(shared, compacted, at)? {
            return Ok((hash, current));
        }
    }
    Err(Refusal::Compacted.into())
}

/// Computes a hash; `None` if the store was compacted meanwhile.
fn attempt(
    shared: &Shared,
    compacted: i64,
    revision: i64,
) -> Result<Option<KeyValueHash>, ReadError> {
    let is_unchanged = || shared.compacted() == compacted;
    let mut sweep = Sweep::for_hash(revision).recording_up_to(compacted);
    loop {
        let state = shared.state.read();
        if !is_unchanged() {
            return Ok(None);
        }
        if state.index.survey(&mut sweep, CHUNK_KEYS) {
            break;
        }
    }
    let keep = sweep.finish();
    let mut hasher = Hasher::new(compacted, revision, keep.cursor(), keep.is_empty());
    let mut from = Some(Revision::default());
    while let Some(start) = from {
        let piece = history::piece(shared, start, revision, PIECE)?;
        if !is_unchanged() {
            return Ok(None);
        }
        for entry in piece.entries {
            let key = schema::record_key(entry.revision, entry.is_tombstone);
            hasher.write(entry.revision, entry.is_tombstone, &key, &entry.record);
        }
        from = piece.next;
    }
    Ok(Some(hasher.finish()))
}

/// Hashes everything that this member has made durable, but what differs by nature between members.
pub(crate) fn hash_all(shared: &Shared) -> Result<u32, ReadError> {
    let engine = shared.backend.reader()?;
    let mut hash = crc32c::crc32c(b"");
    for (table, name) in schema::tables() {
        hash = crc32c::crc32c_append(hash, name.as_bytes());
        engine.scan(table, .., |key, value| {
            if table != schema::META || !schema::is_volatile(key) {
                hash = crc32c::crc32c_append(hash, key);
                hash = crc32c::crc32c_append(hash, value);
            }
            ControlFlow::Continue(())
        })?;
    }
    Ok(hash)
}
