//! What the write side and all readers share.
//!
//! The key index and the tail sit behind one read-write lock, held for about [`CHUNK_KEYS`] keys
//! at a time and never across I/O. The current revision is raised after everything of that revision
//! is in place, so that a reader at it needs no further coordination; the compacted revision is
//! raised before the index loses anything below it, so that whoever finds it low enough *under the
//! lock* reads a whole index.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use storage::backend::{self, Backend};

use super::cache::ValueCache;
use super::hash::StoredHashes;
use super::key_index::KeyIndex;
use super::tail::Tail;
use crate::alarm::Alarms;
use crate::auth::Auth;
use crate::fault::{Fault, ReadError};
use crate::membership::Membership;
use crate::stats::Counters;
use crate::{Record, Refusal, Revision, schema};

/// Keys that one hold of the lock looks at, but for the rest of a leaf.
pub(crate) const CHUNK_KEYS: usize = 256;

/// Index and tail.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) index: KeyIndex,
    pub(crate) tail: Tail,
}

/// The store's shared part.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) backend: Backend,
    pub(crate) state: RwLock<State>,
    pub(crate) cache: ValueCache,
    pub(crate) hashes: Mutex<StoredHashes>,
    pub(crate) counters: Counters,
    pub(crate) auth: Auth,
    current: AtomicI64,
    compacted: AtomicI64,
    /// Bytes of all records that no compaction has removed, in tail and engine.
    live_bytes: AtomicU64,
    durable_index: AtomicU64,
    /// The newest compaction whose physical pass is durable, or −1.
    finished_compaction: AtomicI64,
    /// Changed by the write side alone.
    pub(crate) alarms: RwLock<Alarms>,
    membership: RwLock<Arc<Membership>>,
}

impl Shared {
    pub(crate) fn new(backend: Backend, state: State, auth: Auth, cache_bytes: u64) -> Self {
        Self {
            backend,
            state: RwLock::new(state),
            cache: ValueCache::new(cache_bytes),
            hashes: Mutex::default(),
            counters: Counters::default(),
            auth,
            current: AtomicI64::new(1),
            compacted: AtomicI64::new(-1),
            live_bytes: AtomicU64::new(0),
            durable_index: AtomicU64::new(0),
            finished_compaction: AtomicI64::new(-1),
            alarms: RwLock::default(),
            membership: RwLock::default(),
        }
    }

    /// Returns the membership that was published last.
    pub(crate) fn membership(&self) -> Arc<Membership> {
        Arc::clone(&self.membership.read())
    }

    /// Replaces what readers see of the membership.
    pub(crate) fn publish(&self, membership: Arc<Membership>) {
        *self.membership.write() = membership;
    }

    /// Returns the bytes of all records that no compaction has removed.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn add_live_bytes(&self, bytes: u64) {
        self.live_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn sub_live_bytes(&self, bytes: u64) {
        self.live_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Returns the index of the last entry whose effects are durable in the engine.
    pub(crate) fn durable_index(&self) -> u64 {
        self.durable_index.load(Ordering::Acquire)
    }

    pub(crate) fn set_durable_index(&self, index: u64) {
        self.durable_index.store(index, Ordering::Release);
    }

    /// Returns the newest compaction whose physical pass is durable, or −1.
    pub(crate) fn finished_compaction(&self) -> i64 {
        self.finished_compaction.load(Ordering::Acquire)
    }

    pub(crate) fn set_finished_compaction(&self, revision: i64) {
        self.finished_compaction.store(revision, Ordering::Release);
    }

    /// Returns the revision of the last applied change.
    pub(crate) fn current(&self) -> i64 {
        self.current.load(Ordering::Acquire)
    }

    /// Makes everything up to `revision` visible.
    pub(crate) fn set_current(&self, revision: i64) {
        self.current.store(revision, Ordering::Release);
    }

    /// Returns the lowest readable revision, or −1.
    pub(crate) fn compacted(&self) -> i64 {
        self.compacted.load(Ordering::Acquire)
    }

    /// Refuses reads below `revision` from now on. Precedes any loss in index and engine.
    pub(crate) fn set_compacted(&self, revision: i64) {
        self.compacted.store(revision, Ordering::Release);
    }

    /// Refuses a read at a revision that has been compacted. Holds as long as the caller holds the
    /// state's lock.
    pub(crate) fn check_compacted(&self, revision: i64) -> Result<(), Refusal> {
        if revision < self.compacted() { Err(Refusal::Compacted) } else { Ok(()) }
    }
}

/// Fetches records that were not in the tail: from the cache, else from the engine.
///
/// A record leaves the tail only after it is durable, so an engine view opened after a miss in the
/// tail holds it. A view opened earlier may not: then a fresh one is asked.
#[derive(Debug)]
pub(crate) struct Values<'a> {
    shared: &'a Shared,
    engine: Option<backend::Reader>,
}

impl<'a> Values<'a> {
    pub(crate) fn new(shared: &'a Shared) -> Self {
        Self { shared, engine: None }
    }

    /// Returns the record of a live `revision` that the index names for a read at `at`, and keeps it in the cache.
    pub(crate) fn fetch(&mut self, revision: Revision, at: i64) -> Result<Record, ReadError> {
        if let Some(record) = self.shared.cache.get(revision) {
            return Ok(record);
        }
        let record = self.fetch_once(revision, at)?;
        self.shared.cache.insert(revision, record.clone());
        Ok(record)
    }

    /// Returns the record of a live `revision` that the index names for a read at `at`, from the engine.
    pub(crate) fn fetch_once(&mut self, revision: Revision, at: i64) -> Result<Record, ReadError> {
        let key = schema::revision_bytes(revision);
        let mut found = match &self.engine {
            Some(engine) => engine.get(schema::KEY, &key)?,
            None => None,
        };
        if found.is_none() {
            let engine = self.engine.insert(self.shared.backend.reader()?);
            found = engine.get(schema::KEY, &key)?;
        }
        let Some(record) = found else {
            // The physical pass of a compaction was faster than this read, or the record is lost.
            self.shared.check_compacted(at)?;
            return Err(missing(revision).into());
        };
        Ok(record)
    }
}

fn missing(revision: Revision) -> Fault {
    Fault::Backend {
        bucket: schema::BUCKETS[usize::from(schema::KEY.0)],
        what: format!("revision {}.{} is missing", revision.main, revision.sub),
    }
}
