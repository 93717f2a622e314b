//! The read side of the machine, shared by all threads.
//!
//! Every read sees the store at one revision. A read that asked for no revision and loses a race
//! with a compaction is made again at the revision then current; one that asked for it is refused.

use std::ops::ControlFlow;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use proto::etcdserverpb::{AlarmMember, AlarmType, RangeRequest, TxnRequest};

use crate::auth::Auth;
use crate::fault::ReadError;
use crate::membership::Membership;
use crate::mvcc::hash::{self, KeyValueHash};
use crate::mvcc::pager::RangePager;
use crate::mvcc::range::{self, Keys, Query, Room};
use crate::mvcc::shared::{CHUNK_KEYS, Shared};
use crate::mvcc::txn::{self, Checks, RangeChecks};
use crate::mvcc::view::{Chunk, View, index_record, item};
use crate::outcome::{RangeReply, TxnReply};
use crate::quota::Quota;
use crate::snapshot::Snapshot;
use crate::stats::{Operations, Stats};
use crate::{Record, Refusal};

/// Reads of one request that lost a race with a compaction.
const ATTEMPTS_MAX: usize = 4;

/// The read side. Clones see the same state, also when a snapshot of the leader takes its place.
#[derive(Debug, Clone)]
pub struct Reader {
    pub(crate) state: Arc<Published>,
    pub(crate) quota: Quota,
}

/// The state that is read now. Each read stays with the one it began with.
#[derive(Debug)]
pub(crate) struct Published(ArcSwap<Shared>);

impl Published {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self(ArcSwap::from(Arc::clone(shared)))
    }

    /// Lets reads that begin from now on see `shared`.
    pub(crate) fn replace(&self, shared: &Arc<Shared>) {
        self.0.store(Arc::clone(shared));
    }
}

/// How large the store is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of the backend's file.
    pub physical: u64,
    /// Bytes of it that are in use.
    pub in_use: u64,
    /// Bytes of the records that no compaction has removed: what the quota counts.
    pub live: u64,
}

impl Reader {
    /// Returns the state as it is now.
    pub(crate) fn shared(&self) -> Guard<Arc<Shared>> {
        self.state.0.load()
    }

    /// Returns the revision of the last change.
    pub fn revision(&self) -> i64 {
        self.shared().current()
    }

    /// Returns the lowest readable revision, or −1.
    pub fn compact_revision(&self) -> i64 {
        self.shared().compacted()
    }

    /// Returns the newest compaction whose physical pass is durable here, or −1.
    pub fn finished_compaction(&self) -> i64 {
        self.shared().finished_compaction()
    }

    /// Returns the index of the last entry whose effects are durable in the backend: what
    /// [`Reader::snapshot`] holds at least.
    pub fn durable_index(&self) -> u64 {
        self.shared().durable_index()
    }

    /// Returns the membership as applied here.
    pub fn membership(&self) -> Arc<Membership> {
        self.shared().membership()
    }

    /// Returns what the store holds of authentication.
    pub fn auth(&self) -> Auth {
        self.shared().auth
    }

    /// Copies the alarms that are set: as many as anybody cared to set.
    pub fn alarms(&self) -> Arc<[AlarmMember]> {
        self.shared().alarms.read().of_kind(AlarmType::None.into()).into()
    }

    /// Tells whether any member has an alarm of a kind; the cost does not depend on how many are set.
    pub fn has_alarm(&self, kind: AlarmType) -> bool {
        self.shared().alarms.read().has(kind)
    }

    /// Tells whether a request of `cost` ([`crate::quota`]) fits into this member's store.
    pub fn has_room(&self, cost: u64) -> bool {
        self.quota.has_room(self.shared().live_bytes(), cost)
    }

    /// Answers a range; the first part is `header.revision`. May read the disk, and takes memory
    /// for the whole answer: ranges that may be large go through [`Reader::pager`].
    pub fn range(&self, request: &RangeRequest) -> Result<(i64, RangeReply), ReadError> {
        self.range_within(request, &mut range::unbounded)
    }

    /// Like [`Reader::range`], and asks `room` for what it takes.
    pub fn range_within(
        &self,
        request: &RangeRequest,
        room: &mut Room<'_>,
    ) -> Result<(i64, RangeReply), ReadError> {
        let shared = self.shared();
        shared.counters.range();
        retried(request.revision, || {
            let current = shared.current();
            let mut view = View::at(&shared, current, request.revision)?;
            Ok((current, range::range(&mut view, request, room)?))
        })
    }

    /// Answers a small range from memory; `None` if that takes a disk read, an explicit order, or
    /// more than one chunk of keys.
    pub fn range_resident(
        &self,
        request: &RangeRequest,
    ) -> Option<Result<(i64, RangeReply), Refusal>> {
        let shared = self.shared();
        let current = shared.current();
        let view = match View::at(&shared, current, request.revision) {
            Ok(view) => view,
            Err(refusal) => return Some(Err(refusal)),
        };
        let query = Query::new(request);
        let reply = match query.keys {
            _ if !query.is_natural() => None,
            Keys::One(key) if !query.has_filters() => get_resident(&shared, &view, &query, key),
            _ => list_resident(&shared, &view, &query),
        };
        match reply {
            // Refused by a compaction since the view was opened: the slow way tries again.
            Some(Err(Refusal::Compacted)) if request.revision <= 0 => None,
            Some(reply) => {
                shared.counters.range();
                Some(reply.map(|reply| (current, reply)))
            }
            None => None,
        }
    }

    /// Opens a pager, which answers a range in key order in pieces, all at one revision.
    pub fn pager(&self, request: &RangeRequest) -> Result<RangePager, Refusal> {
        let shared = self.shared();
        shared.counters.range();
        RangePager::new(Arc::clone(&shared), request)
    }

    /// Opens a pager for a range of any order. One that is not that of the index is made here; its
    /// keys, without their records, are held as long as the pager, and `room` is asked for that.
    /// Where values have to be compared, it is asked for all records too.
    pub fn pager_within(
        &self,
        request: &RangeRequest,
        room: &mut Room<'_>,
    ) -> Result<RangePager, ReadError> {
        if RangePager::can_page(request) {
            return Ok(self.pager(request)?);
        }
        let shared = self.shared();
        shared.counters.range();
        retried(request.revision, || RangePager::sorted(Arc::clone(&shared), request, room))
    }

    /// Answers a transaction for which [`crate::mvcc::txn::is_read_only`] holds; the first part is
    /// `header.revision`. Takes memory for the whole answer, and asks `room` for it.
    pub fn txn(
        &self,
        request: &TxnRequest,
        room: &mut Room<'_>,
    ) -> Result<(i64, TxnReply), ReadError> {
        assert!(txn::is_read_only(request), "transactions that write go through the log");
        let shared = self.shared();
        retried(0, || {
            let current = shared.current();
            let mut view = View::new(&shared, current);
            let path = txn::decide(&mut view, request)?;
            let compacted = shared.compacted();
            let checks = Checks { current, compacted, lessor: None, ranges: RangeChecks::All };
            checks.check(&view, request, &path)?;
            let reply = txn::read(&shared, current, request, &path, room)?;
            let ranges = path.compares() + reply.responses.len() as u64;
            shared.counters.transaction(Operations { ranges, ..Operations::default() });
            Ok((current, reply))
        })
    }

    /// Returns the hash of the records up to `revision` (0: the current one), and the current
    /// revision.
    pub fn hash_kv(&self, revision: i64) -> Result<(KeyValueHash, i64), ReadError> {
        hash::hash_by_revision(&self.shared(), revision)
    }

    /// Returns the stored hashes of past compactions, by ascending revision.
    pub fn stored_hashes(&self) -> Vec<KeyValueHash> {
        self.shared().hashes.lock().all().to_vec()
    }

    /// Returns the hash of everything durable, and the current revision.
    pub fn hash(&self) -> Result<(u32, i64), ReadError> {
        let shared = self.shared();
        Ok((hash::hash_all(&shared)?, shared.current()))
    }

    /// Opens a snapshot of everything durable: the state after the entry [`Snapshot::index`].
    /// Whoever needs a certain entry in it waits for [`Reader::durable_index`] first.
    pub fn snapshot(&self) -> Result<Snapshot, ReadError> {
        Snapshot::open(&self.shared().backend)
    }

    /// Returns how large the store is.
    pub fn sizes(&self) -> Sizes {
        let shared = self.shared();
        let size = shared.backend.size();
        Sizes { physical: size.physical, in_use: size.in_use, live: shared.live_bytes() }
    }

    /// Returns the figures since the start.
    pub fn stats(&self) -> Stats {
        let shared = self.shared();
        let mut stats = shared.counters.snapshot();
        stats.cache_bytes = shared.cache.bytes();
        stats.open_views = shared.backend.open_views() as u64;
        stats.current_revision = shared.current();
        stats.compact_revision = shared.compacted();
        let state = shared.state.read();
        stats.keys = state.index.live_keys() as u64;
        stats.index_keys = state.index.keys() as u64;
        stats.tail_records = state.tail.len() as u64;
        stats.tail_bytes = state.tail.bytes() as u64;
        stats
    }
}

fn get_resident(
    shared: &Shared,
    view: &View<'_>,
    query: &Query<'_>,
    key: &[u8],
) -> Option<Result<RangeReply, Refusal>> {
    let found = match view.lookup(key) {
        Ok(found) => found,
        Err(refusal) => return Some(Err(refusal)),
    };
    let Some(found) = found else { return Some(Ok(RangeReply::default())) };
    if query.is_count_only() {
        return Some(Ok(RangeReply { count: 1, ..RangeReply::default() }));
    }
    let record = if query.is_index_only() {
        index_record(key, &found.found)
    } else {
        resident(shared, &found)?
    };
    Some(Ok(RangeReply { kvs: vec![record], more: false, count: 1 }))
}

fn list_resident(
    shared: &Shared,
    view: &View<'_>,
    query: &Query<'_>,
) -> Option<Result<RangeReply, Refusal>> {
    let limit = query.limit();
    let mut items = Vec::new();
    let mut more = false;
    if query.is_count_only() {
        let count = count_resident(view, query)?;
        return Some(count.map(|count| RangeReply { kvs: vec![], more, count }));
    }
    let is_index_only = query.is_index_only();
    let mut visited = 0;
    let chunk = view.scan_chunk(query.keys, query.keys.start(), &mut |key, found, record| {
        visited += 1;
        if !query.admits(&found) {
            return ControlFlow::Continue(());
        }
        if items.len() == limit {
            more = true;
            return ControlFlow::Break(());
        }
        items.push(item(key, found, record, is_index_only));
        if items.len() == CHUNK_KEYS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let count = match chunk {
        Err(refusal) => return Some(Err(refusal)),
        Ok(Chunk::Done) => visited,
        Ok(_) if !more => return None,
        Ok(_) => match count_resident(view, query)? {
            Ok(count) => count,
            Err(refusal) => return Some(Err(refusal)),
        },
    };
    let kvs = items.iter().map(|item| resident(shared, item)).collect::<Option<Vec<_>>>()?;
    Some(Ok(RangeReply { kvs, more, count }))
}

fn resident(shared: &Shared, item: &range::Item) -> Option<Record> {
    match &item.record {
        Some(record) => Some(record.clone()),
        None => shared.cache.get(item.found.modified),
    }
}

/// Counts keys; `None` if that takes more than one chunk, as it may in the past.
fn count_resident(view: &View<'_>, query: &Query<'_>) -> Option<Result<i64, Refusal>> {
    match view.count_chunk(query.keys, query.keys.start()) {
        Ok((count, None)) => Some(Ok(count)),
        Ok((_, Some(_))) => None,
        Err(refusal) => Some(Err(refusal)),
    }
}

/// Makes a read again that asked for the current revision and lost it to a compaction.
fn retried<T>(
    revision: i64,
    mut read: impl FnMut() -> Result<T, ReadError>,
) -> Result<T, ReadError> {
    let mut attempts = 1;
    loop {
        match read() {
            Err(ReadError::Refused(Refusal::Compacted))
                if revision <= 0 && attempts < ATTEMPTS_MAX =>
            {
                attempts += 1;
            }
            result => return result,
        }
    }
}
