//! A range in pieces, for streams and for lists that are too large to hold.

use std::ops::ControlFlow;
use std::sync::Arc;

use proto::etcdserverpb::RangeRequest;

use super::range::{Item, Query, Room, Sorted, decode, sorted, successor};
use super::shared::{CHUNK_KEYS, Shared};
use super::view::{Chunk, View, item};
use crate::fault::ReadError;
use crate::{Record, Refusal};

/// Bytes of records from which a piece ends, however few keys it has.
const PAGE_BYTES: usize = 1 << 20;

/// Bytes of a list from which on its records are kept in the value cache only where there is room: so
/// long a list would replace what others read.
const CACHED_BYTES_MAX: usize = 8 << 20;

/// Answers a range piece by piece, at the revision at which it was opened. If a compaction passes
/// that revision the next piece is refused.
///
/// A piece comes in two steps: [`RangePager::collect`] finds keys and what of their records is in
/// memory, [`RangePager::read`] reads the others. Only the first takes the lock that apply takes,
/// too: it belongs on a thread that is not put off for long while it holds it.
#[derive(Debug)]
pub struct RangePager {
    shared: Arc<Shared>,
    request: RangeRequest,
    revision: i64,
    header_revision: i64,
    source: Source,
    /// Bytes of records answered so far.
    bytes: usize,
}

/// Where the keys come from.
#[derive(Debug)]
enum Source {
    /// From the index, in its order.
    Index(Walk),
    /// From a list, in another order.
    Sorted(Listing),
}

/// How far the index has been read.
#[derive(Debug)]
struct Walk {
    /// Where the next piece begins; `None` when all has been answered.
    from: Option<Vec<u8>>,
    /// How many keys may still be answered.
    left: usize,
    answered: i64,
}

/// Sorted keys, and how far they have been answered.
#[derive(Debug)]
struct Listing {
    sorted: Sorted,
    next: usize,
}

/// The keys of a piece.
#[derive(Debug)]
pub struct Collected {
    items: Vec<Item>,
    /// Whether the index has another key, with which the next piece then begins.
    is_cut: bool,
}

impl Collected {
    /// Tells whether all records are in memory: then [`RangePager::read`] reads no disk.
    pub fn is_resident(&self) -> bool {
        self.items.iter().all(|item| item.record.is_some())
    }
}

/// One piece of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Records in the order asked for; there may be none although more follow.
    pub kvs: Vec<Record>,
    /// Of the last piece: whether keys beyond the limit exist, and how many keys there are.
    pub end: Option<(bool, i64)>,
}

impl Walk {
    fn new(request: &RangeRequest) -> Self {
        let query = Query::new(request);
        let from = (!query.is_count_only()).then(|| request.key.to_vec());
        Self { from, left: query.limit(), answered: 0 }
    }
}

impl RangePager {
    /// Opens a pager in the order of the index.
    pub(crate) fn new(shared: Arc<Shared>, request: &RangeRequest) -> Result<Self, Refusal> {
        let header_revision = shared.current();
        let revision = View::at(&shared, header_revision, request.revision)?.revision();
        let source = Source::Index(Walk::new(request));
        Ok(Self { shared, request: request.clone(), revision, header_revision, source, bytes: 0 })
    }

    /// Opens a pager in the request's order, which is made here.
    pub(crate) fn sorted(
        shared: Arc<Shared>,
        request: &RangeRequest,
        room: &mut Room<'_>,
    ) -> Result<Self, ReadError> {
        let header_revision = shared.current();
        let mut view = View::at(&shared, header_revision, request.revision)?;
        let revision = view.revision();
        let query = Query::new(request);
        let mut sorted = if query.is_count_only() {
            Sorted { items: vec![], more: false, count: view.count(query.keys)? }
        } else {
            sorted(&mut view, &query, room)?
        };
        if !query.is_index_only() {
            // Records are fetched again when they are answered.
            sorted.items.iter_mut().for_each(|item| item.record = None);
        }
        drop(view);
        let source = Source::Sorted(Listing { sorted, next: 0 });
        Ok(Self { shared, request: request.clone(), revision, header_revision, source, bytes: 0 })
    }

    /// Returns to the first piece.
    pub fn rewind(&mut self) {
        self.bytes = 0;
        match &mut self.source {
            Source::Index(walk) => *walk = Walk::new(&self.request),
            Source::Sorted(listing) => listing.next = 0,
        }
    }

    /// Returns how many bytes a list of sorted keys takes while the pager lives.
    pub fn bytes_held(&self) -> usize {
        match &self.source {
            Source::Index(_) => 0,
            Source::Sorted(listing) => {
                listing.sorted.items.iter().map(|item| item.bytes_held(true)).sum()
            }
        }
    }

    /// Returns the store's revision when the pager was opened: `header.revision`.
    pub fn header_revision(&self) -> i64 {
        self.header_revision
    }

    /// Tells whether a request is answered in the order of the index: its pager holds nothing.
    pub fn can_page(request: &RangeRequest) -> bool {
        Query::new(request).is_natural()
    }

    /// Finds the next keys, at most `keys_max`, after a look at a few hundred at most.
    pub fn collect(&mut self, keys_max: usize) -> Result<Collected, Refusal> {
        let view = View::new(&self.shared, self.revision);
        let keys_max = keys_max.clamp(1, CHUNK_KEYS);
        let mut collected = match &mut self.source {
            Source::Index(walk) => walk.collect(&view, &Query::new(&self.request), keys_max)?,
            Source::Sorted(listing) => listing.collect(&view, keys_max),
        };
        for item in &mut collected.items {
            if item.record.is_none() {
                item.record = self.shared.cache.get(item.found.modified);
            }
        }
        Ok(collected)
    }

    /// Reads the records of what was collected last, about a mebibyte of them; the rest is collected
    /// again.
    pub fn read(&mut self, collected: Collected) -> Result<Page, ReadError> {
        let shared = Arc::clone(&self.shared);
        let mut view = View::new(&shared, self.revision);
        let query = Query::new(&self.request);
        let Collected { items, is_cut } = collected;
        let mut items = items.into_iter();
        let mut kvs = Vec::with_capacity(items.len());
        let mut bytes = 0;
        let keeps = self.bytes < CACHED_BYTES_MAX || shared.cache.has_room(PAGE_BYTES);
        while bytes < PAGE_BYTES
            && let Some(item) = items.next()
        {
            let record = if keeps { view.record_of(item)? } else { view.record_once(item)? };
            let record = query.answered(record)?;
            bytes += record.len();
            kvs.push(record);
        }
        self.bytes += bytes;
        let is_whole = items.len() == 0;
        let end = match &mut self.source {
            Source::Index(walk) => walk.advance(&kvs, is_whole, is_cut, (&view, &query))?,
            Source::Sorted(listing) => listing.advance(kvs.len()),
        };
        Ok(Page { kvs, end })
    }
}

impl Listing {
    fn collect(&self, view: &View<'_>, keys_max: usize) -> Collected {
        let rest = &self.sorted.items[self.next..];
        let mut items = rest[..keys_max.min(rest.len())].to_vec();
        view.fill_from_tail(&mut items);
        Collected { items, is_cut: false }
    }

    fn advance(&mut self, answered: usize) -> Option<(bool, i64)> {
        self.next += answered;
        let is_last = self.next == self.sorted.items.len();
        is_last.then_some((self.sorted.more, self.sorted.count))
    }
}

impl Walk {
    /// Looks for keys in one hold of the lock.
    fn collect(
        &mut self,
        view: &View<'_>,
        query: &Query<'_>,
        keys_max: usize,
    ) -> Result<Collected, Refusal> {
        let mut items = Vec::new();
        let Some(from) = self.from.take() else { return Ok(Collected { items, is_cut: false }) };
        let is_index_only = query.is_index_only();
        // 0 when only the question is left whether there are more.
        let items_max = keys_max.min(self.left);
        let mut next = None;
        let chunk = view.scan_chunk(query.keys, &from, &mut |key, found, record| {
            if !query.admits(&found) {
                return ControlFlow::Continue(());
            }
            if items.len() == items_max {
                next = Some(key.to_vec());
                return ControlFlow::Break(());
            }
            items.push(item(key, found, record, is_index_only));
            ControlFlow::Continue(())
        })?;
        let is_cut = match chunk {
            Chunk::Done => false,
            Chunk::Stopped => true,
            Chunk::Next(following) => {
                next = Some(following);
                false
            }
        };
        self.from = next;
        Ok(Collected { items, is_cut })
    }

    /// Notes what was answered; returns what the last piece says.
    fn advance(
        &mut self,
        kvs: &[Record],
        is_whole: bool,
        is_cut: bool,
        (view, query): (&View<'_>, &Query<'_>),
    ) -> Result<Option<(bool, i64)>, ReadError> {
        self.left -= kvs.len();
        self.answered += i64::try_from(kvs.len()).expect("a page's length fits");
        if !is_whole && let Some(last) = kvs.last() {
            self.from = Some(successor(decode(last)?.key));
            return Ok(None);
        }
        let more = is_cut && self.left == 0;
        if self.from.is_some() && !more {
            return Ok(None);
        }
        self.from = None;
        let is_counted = !more && !query.has_filters() && !query.is_count_only();
        let count = if is_counted { self.answered } else { view.count(query.keys)? };
        Ok(Some((more, count)))
    }
}
