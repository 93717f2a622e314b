//! A range in pieces, for streams and for lists that are too large to hold.

use std::ops::ControlFlow;
use std::sync::Arc;

use proto::etcdserverpb::RangeRequest;

use super::range::{Item, Query, decode, successor};
use super::shared::{CHUNK_KEYS, Shared};
use super::view::{Chunk, View, item};
use crate::fault::ReadError;
use crate::{Record, Refusal};

/// Bytes of records from which a piece ends, however few keys it has.
const PAGE_BYTES: usize = 1 << 20;

/// Bytes of a list from which on its records are no longer kept in the value cache: so long a list would replace what
/// others read.
const CACHED_BYTES_MAX: usize = 8 << 20;

/// Answers a range in key order, piece by piece, at the revision at which it was opened. If a
/// compaction passes that revision the next piece is refused.
///
/// A piece comes in two steps: [`RangePager::collect`] finds keys and what of their records is in memory,
/// [`RangePager::read`] reads the others. Only the first takes the lock that apply takes, too: it belongs on a thread that
/// is not put off for long while it holds it.
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
    answered: i64,
    answered_bytes: usize,
}

/// The keys of a piece.
#[derive(Debug)]
pub struct Collected {
    items: Vec<Item>,
    /// Whether there is another key, with which the next piece then begins.
    is_cut: bool,
}

/// One piece of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Records in key order; there may be none although more follow.
    pub kvs: Vec<Record>,
    /// Of the last piece: whether keys beyond the limit exist, and how many keys there are.
    pub end: Option<(bool, i64)>,
}

impl Collected {
    /// Tells whether all records are in memory: then [`RangePager::read`] reads no disk.
    pub fn is_resident(&self) -> bool {
        self.items.iter().all(|item| item.record.is_some())
    }
}

impl RangePager {
    pub(crate) fn new(shared: Arc<Shared>, request: &RangeRequest) -> Result<Self, Refusal> {
        let header_revision = shared.current();
        let revision = View::at(&shared, header_revision, request.revision)?.revision();
        let query = Query::new(request);
        let left = query.limit();
        let from = (!query.is_count_only()).then(|| request.key.to_vec());
        let request = request.clone();
        Ok(Self {
            shared,
            request,
            revision,
            header_revision,
            from,
            left,
            answered: 0,
            answered_bytes: 0,
        })
    }

    /// Returns the store's revision when the pager was opened: `header.revision`.
    pub fn header_revision(&self) -> i64 {
        self.header_revision
    }

    /// Tells whether a request can be answered in pieces: it asks for no explicit order.
    pub fn can_page(request: &RangeRequest) -> bool {
        Query::new(request).is_natural()
    }

    /// Finds the next keys, at most `keys_max`, after a look at a few hundred at most.
    pub fn collect(&mut self, keys_max: usize) -> Result<Collected, Refusal> {
        let mut items = Vec::new();
        let Some(from) = self.from.take() else { return Ok(Collected { items, is_cut: false }) };
        let query = Query::new(&self.request);
        let is_index_only = query.is_index_only();
        // 0 when only the question is left whether there are more.
        let items_max = keys_max.clamp(1, CHUNK_KEYS).min(self.left);
        let view = View::new(&self.shared, self.revision);
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
        for item in &mut items {
            if item.record.is_none() {
                item.record = self.shared.cache.get(item.found.modified);
            }
        }
        Ok(Collected { items, is_cut })
    }

    /// Reads the records of what was collected last, about a mebibyte of them; the rest is collected again.
    pub fn read(&mut self, collected: Collected) -> Result<Page, ReadError> {
        let shared = Arc::clone(&self.shared);
        let mut view = View::new(&shared, self.revision);
        let Collected { items, is_cut } = collected;
        let mut items = items.into_iter();
        let mut kvs = Vec::with_capacity(items.len());
        let mut bytes = 0;
        while bytes < PAGE_BYTES
            && let Some(item) = items.next()
        {
            let record = if self.answered_bytes < CACHED_BYTES_MAX {
                view.record_of(item)?
            } else {
                view.record_once(item)?
            };
            bytes += record.len();
            kvs.push(record);
        }
        self.left -= kvs.len();
        self.answered += i64::try_from(kvs.len()).expect("a page's length fits");
        self.answered_bytes += bytes;
        if items.len() > 0
            && let Some(last) = kvs.last()
        {
            self.from = Some(successor(decode(last)?.key));
            return Ok(Page { kvs, end: None });
        }
        let more = is_cut && self.left == 0;
        if more {
            self.from = None;
        }
        if self.from.is_some() {
            return Ok(Page { kvs, end: None });
        }
        Ok(Page { kvs, end: Some((more, self.count(&view, more)?)) })
    }

    /// Counts the keys of the whole range.
    fn count(&self, view: &View<'_>, more: bool) -> Result<i64, Refusal> {
        let query = Query::new(&self.request);
        if more || query.has_filters() || query.is_count_only() {
            return view.count(query.keys);
        }
        Ok(self.answered)
    }
}
