//! A range in pieces, for streams and for lists that are too large to hold.

use std::ops::ControlFlow;
use std::sync::Arc;

use proto::etcdserverpb::RangeRequest;

use super::range::{Item, Query, Room, Sorted, decode, sorted, successor};
use super::shared::Shared;
use super::view::{Chunk, View, item};
use crate::fault::ReadError;
use crate::{Record, Refusal};

/// Bytes of records from which a piece ends, however few keys it has.
const PAGE_BYTES: usize = 1 << 20;

/// Answers a range piece by piece, at the revision at which it was opened. If a compaction passes
/// that revision the next piece is refused.
#[derive(Debug)]
pub struct RangePager {
    shared: Arc<Shared>,
    request: RangeRequest,
    revision: i64,
    header_revision: i64,
    source: Source,
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
    more: bool,
}

/// Sorted keys, and how far they have been answered.
#[derive(Debug)]
struct Listing {
    sorted: Sorted,
    next: usize,
}

/// One piece of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Records in key order.
    pub kvs: Vec<Record>,
    /// Of the last piece: whether keys beyond the limit exist, and how many keys there are.
    pub end: Option<(bool, i64)>,
}

impl Walk {
    fn new(request: &RangeRequest) -> Self {
        let query = Query::new(request);
        let from = (!query.is_count_only()).then(|| request.key.to_vec());
        Self { from, left: query.limit(), more: false }
    }
}

impl RangePager {
    /// Opens a pager in the order of the index.
    pub(crate) fn new(shared: Arc<Shared>, request: &RangeRequest) -> Result<Self, Refusal> {
        let header_revision = shared.current();
        let revision = View::at(&shared, header_revision, request.revision)?.revision();
        let source = Source::Index(Walk::new(request));
        Ok(Self { shared, request: request.clone(), revision, header_revision, source })
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
        Ok(Self { shared, request: request.clone(), revision, header_revision, source })
    }

    /// Returns to the first piece.
    pub fn rewind(&mut self) {
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

    /// Returns the next piece, of at most `keys_max` keys (at least one) and about a mebibyte.
    pub fn next_page(&mut self, keys_max: usize) -> Result<Page, ReadError> {
        let shared = Arc::clone(&self.shared);
        let mut view = View::new(&shared, self.revision);
        let query = Query::new(&self.request);
        match &mut self.source {
            Source::Index(walk) => walk.next_page(&mut view, &query, keys_max),
            Source::Sorted(listing) => listing.next_page(&mut view, &query, keys_max),
        }
    }
}

impl Listing {
    fn next_page(
        &mut self,
        view: &mut View<'_>,
        query: &Query<'_>,
        keys_max: usize,
    ) -> Result<Page, ReadError> {
        let mut kvs = Vec::new();
        let mut bytes = 0;
        while kvs.len() < keys_max.max(1)
            && bytes < PAGE_BYTES
            && let Some(item) = self.sorted.items.get(self.next)
        {
            let record = match &item.record {
                Some(record) => record.clone(),
                None => view.record_at(&item.found)?,
            };
            let record = query.answered(record)?;
            self.next += 1;
            bytes += record.len();
            kvs.push(record);
        }
        let is_last = self.next == self.sorted.items.len();
        Ok(Page { kvs, end: is_last.then_some((self.sorted.more, self.sorted.count)) })
    }
}

impl Walk {
    fn next_page(
        &mut self,
        view: &mut View<'_>,
        query: &Query<'_>,
        keys_max: usize,
    ) -> Result<Page, ReadError> {
        let mut items = Vec::new();
        let page_max = keys_max.clamp(1, self.left.max(1));
        let is_cut = self.collect(view, query, page_max, &mut items)?;
        let mut items = items.into_iter();
        let mut kvs = Vec::with_capacity(items.len());
        let mut bytes = 0;
        while bytes < PAGE_BYTES
            && let Some(item) = items.next()
        {
            let record = view.record_of(item)?;
            bytes += record.len();
            kvs.push(record);
        }
        self.left -= kvs.len();
        if items.len() > 0
            && let Some(last) = kvs.last()
        {
            // The rest is collected again.
            self.from = Some(successor(decode(last)?.key));
            return Ok(Page { kvs, end: None });
        }
        if self.left == 0 {
            self.more |= is_cut;
            self.from = None;
        }
        if self.from.is_some() {
            return Ok(Page { kvs, end: None });
        }
        Ok(Page { kvs, end: Some((self.more, view.count(query.keys)?)) })
    }

    /// Collects up to `page_max` keys; tells whether there is another one, where the next piece
    /// then begins.
    fn collect(
        &mut self,
        view: &View<'_>,
        query: &Query<'_>,
        page_max: usize,
        items: &mut Vec<Item>,
    ) -> Result<bool, Refusal> {
        let is_index_only = query.is_index_only();
        while let Some(from) = self.from.take() {
            let chunk = view.scan_chunk(query.keys, &from, &mut |key, found, record| {
                if !query.admits(&found) {
                    return ControlFlow::Continue(());
                }
                if items.len() == page_max {
                    self.from = Some(key.to_vec());
                    return ControlFlow::Break(());
                }
                items.push(item(key, found, record, is_index_only));
                ControlFlow::Continue(())
            })?;
            match chunk {
                Chunk::Done => return Ok(false),
                Chunk::Stopped => return Ok(true),
                Chunk::Next(next) => self.from = Some(next),
            }
        }
        Ok(false)
    }
}
