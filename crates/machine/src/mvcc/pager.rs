//! A range in pieces, for streams and for lists that are too large to hold.

use std::ops::ControlFlow;
use std::sync::Arc;

use proto::etcdserverpb::RangeRequest;

use super::range::{Item, Query, decode, successor};
use super::shared::Shared;
use super::view::{Chunk, View, item};
use crate::fault::ReadError;
use crate::{Record, Refusal};

/// Bytes of records from which a piece ends, however few keys it has.
const PAGE_BYTES: usize = 1 << 20;

/// Answers a range in key order, piece by piece, at the revision at which it was opened. If a
/// compaction passes that revision the next piece is refused.
#[derive(Debug)]
pub struct RangePager {
    shared: Arc<Shared>,
    request: RangeRequest,
    revision: i64,
    header_revision: i64,
    /// Where the next piece begins; `None` when all has been answered.
    from: Option<Vec<u8>>,
    /// How many keys may still be answered.
    left: usize,
    more: bool,
}

/// One piece of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Records in key order.
    pub kvs: Vec<Record>,
    /// Of the last piece: whether keys beyond the limit exist, and how many keys there are.
    pub end: Option<(bool, i64)>,
}

impl RangePager {
    pub(crate) fn new(shared: Arc<Shared>, request: &RangeRequest) -> Result<Self, Refusal> {
        let header_revision = shared.current();
        let revision = View::at(&shared, header_revision, request.revision)?.revision();
        let query = Query::new(request);
        let left = query.limit();
        let from = (!query.is_count_only()).then(|| request.key.to_vec());
        let request = request.clone();
        Ok(Self { shared, request, revision, header_revision, from, left, more: false })
    }

    /// Returns the store's revision when the pager was opened: `header.revision`.
    pub fn header_revision(&self) -> i64 {
        self.header_revision
    }

    /// Tells whether a request can be answered in pieces: it asks for no explicit order.
    pub fn can_page(request: &RangeRequest) -> bool {
        Query::new(request).is_natural()
    }

    /// Returns the next piece, of at most `keys_max` keys (at least one) and about a mebibyte.
    pub fn next_page(&mut self, keys_max: usize) -> Result<Page, ReadError> {
        let shared = Arc::clone(&self.shared);
        let mut view = View::new(&shared, self.revision);
        let mut items = Vec::new();
        let page_max = keys_max.clamp(1, self.left.max(1));
        let is_cut = self.collect(&view, page_max, &mut items)?;
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
        let query = Query::new(&self.request);
        Ok(Page { kvs, end: Some((self.more, view.count(query.keys)?)) })
    }

    /// Collects up to `page_max` keys; tells whether there is another one, where the next piece
    /// then begins.
    fn collect(
        &mut self,
        view: &View<'_>,
        page_max: usize,
        items: &mut Vec<Item>,
    ) -> Result<bool, Refusal> {
        let query = Query::new(&self.request);
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
