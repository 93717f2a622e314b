//! Ranges: which keys a request names, and what it answers.
//!
//! Filters and all sort targets but VALUE need only the key index, so values are fetched for the
//! keys that are answered, no others.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use proto::etcdserverpb::RangeRequest;
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};

use super::key_index::{End, Found};
use super::record::KeyValue;
use super::view::{View, item};
use crate::fault::{Fault, ReadError};
use crate::outcome::RangeReply;
use crate::{Record, schema};

/// What a read asks before it holds as many bytes more; false when it may not.
pub type Room<'a> = dyn FnMut(usize) -> bool + 'a;

/// The room of reads whose memory is bounded elsewhere.
pub(crate) fn unbounded(_bytes: usize) -> bool {
    true
}

fn hold(room: &mut Room<'_>, bytes: usize) -> Result<(), ReadError> {
    if room(bytes) { Ok(()) } else { Err(ReadError::NoRoom) }
}

/// The keys that a request names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys<'a> {
    /// Exactly one.
    One(&'a [u8]),
    /// All from this one on.
    From(&'a [u8]),
    /// From the first on and below the second; none if that is not above.
    Between(&'a [u8], &'a [u8]),
}

impl<'a> Keys<'a> {
    /// Reads `key` and `range_end` as etcd does.
    pub fn new(key: &'a [u8], range_end: &'a [u8]) -> Self {
        match range_end {
            [] => Self::One(key),
            [0] => Self::From(key),
            _ => Self::Between(key, range_end),
        }
    }

    /// Tells whether `key` is one of them.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => key == *one,
            Self::From(start) => key >= *start,
            Self::Between(start, end) => key >= *start && key < *end,
        }
    }

    pub(crate) fn start(&self) -> &'a [u8] {
        match self {
            Self::One(start) | Self::From(start) | Self::Between(start, _) => start,
        }
    }

    /// Returns the first key above those of a real range.
    pub(crate) fn end(&self) -> End<'a> {
        match self {
            Self::One(_) | Self::From(_) => End::Unbounded,
            Self::Between(_, end) => End::Before(end),
        }
    }
}

/// Returns the least key above `key`.
pub(crate) fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

/// A range request whose enums are decoded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query<'a> {
    pub(crate) keys: Keys<'a>,
    request: &'a RangeRequest,
    order: Order,
    target: SortTarget,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// As the index has them.
    Natural,
    Ascending,
    Descending,
}

impl<'a> Query<'a> {
    pub(crate) fn new(request: &'a RangeRequest) -> Self {
        // Unknown values cannot come from a client; in a log they mean the default, as a decoder of
        // proto3 has it.
        let target = SortTarget::try_from(request.sort_target).unwrap_or(SortTarget::Key);
        let order = SortOrder::try_from(request.sort_order).unwrap_or(SortOrder::None);
        let order = match (order, target) {
            (SortOrder::None | SortOrder::Ascend, SortTarget::Key) => Order::Natural,
            (SortOrder::None | SortOrder::Ascend, _) => Order::Ascending,
            (SortOrder::Descend, _) => Order::Descending,
        };
        Self { keys: Keys::new(&request.key, &request.range_end), request, order, target }
    }

    /// How many keys may be answered.
    pub(crate) fn limit(&self) -> usize {
        match usize::try_from(self.request.limit) {
            Ok(0) | Err(_) => usize::MAX,
            Ok(limit) => limit,
        }
    }

    /// How many matching keys are looked at. Without an explicit order the limit cuts before
    /// sorting; one key more tells whether there are more.
    fn scan_limit(&self) -> usize {
        let is_unordered = self.request.sort_order == i32::from(SortOrder::None);
        if self.order == Order::Natural || is_unordered && !self.has_filters() {
            return self.limit().saturating_add(1);
        }
        usize::MAX
    }

    /// How many of the keys that were looked at have to be kept to answer the first ones.
    fn kept_limit(&self) -> usize {
        let is_by_index = self.order != Order::Natural && self.target != SortTarget::Value;
        let limit = self.limit();
        // One key more tells whether there are more.
        if is_by_index && limit <= KEPT_LIMIT_MAX { limit + 1 } else { usize::MAX }
    }

    pub(crate) fn has_filters(&self) -> bool {
        let request = self.request;
        [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ]
        .iter()
        .any(|&bound| bound != 0)
    }

    pub(crate) fn admits(&self, found: &Found) -> bool {
        let within = |revision: i64, min: i64, max: i64| {
            (min == 0 || revision >= min) && (max == 0 || revision <= max)
        };
        let request = self.request;
        within(found.modified.main, request.min_mod_revision, request.max_mod_revision)
            && within(found.created, request.min_create_revision, request.max_create_revision)
    }

    /// Tells whether the index alone answers: no lease either, as etcd does since 3.7.
    pub(crate) fn is_index_only(&self) -> bool {
        self.request.keys_only && self.target != SortTarget::Value
    }

    pub(crate) fn is_count_only(&self) -> bool {
        self.request.count_only
    }

    /// Tells whether keys are answered as the index has them, so that a range can be answered in
    /// pieces.
    pub(crate) fn is_natural(&self) -> bool {
        self.order == Order::Natural
    }

    /// Makes of a stored record what is answered.
    pub(crate) fn answered(&self, record: Record) -> Result<Record, Fault> {
        let strips = self.request.keys_only && !self.is_index_only();
        if strips { without_value(&record) } else { Ok(record) }
    }

    fn compare(&self, a: &Item, b: &Item) -> Ordering {
        let (a, b) = (a.found, b.found);
        match self.target {
            // Items come in key order and values are compared elsewhere.
            SortTarget::Key | SortTarget::Value => Ordering::Equal,
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.created.cmp(&b.created),
            SortTarget::Mod => a.modified.main.cmp(&b.modified.main),
        }
    }
}

/// One key that a scan found.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) found: Found,
    /// The record if it was at hand.
    pub(crate) record: Option<Record>,
}

impl Item {
    /// Bytes that an item takes while it is kept; a record that it does not own is held elsewhere too.
    pub(crate) fn bytes_held(&self, owns_record: bool) -> usize {
        let record = self.record.as_ref().filter(|_| owns_record);
        size_of::<Self>() + record.map_or(0, Record::len)
    }
}

/// Answers a range at the view's revision.
pub(crate) fn range(
    view: &mut View<'_>,
    request: &RangeRequest,
    room: &mut Room<'_>,
) -> Result<RangeReply, ReadError> {
    let query = Query::new(request);
    if query.is_count_only() {
        return Ok(RangeReply { kvs: vec![], more: false, count: view.count(query.keys)? });
    }
    let Sorted { items, more, count } = sorted(view, &query, room)?;
    let mut kvs = Vec::with_capacity(items.len());
    for item in items {
        let record = view.record_of(item)?;
        hold(room, record.len())?;
        kvs.push(query.answered(record)?);
    }
    Ok(RangeReply { kvs, more, count })
}

/// The keys that a range answers, in their order, and the rest of the answer.
#[derive(Debug)]
pub(crate) struct Sorted {
    pub(crate) items: Vec<Item>,
    pub(crate) more: bool,
    pub(crate) count: i64,
}

/// Finds and sorts the keys that are answered.
pub(crate) fn sorted(
    view: &mut View<'_>,
    query: &Query<'_>,
    room: &mut Room<'_>,
) -> Result<Sorted, ReadError> {
    let (mut items, visited) = scan(view, query, room)?;
    let count = match visited {
        Some(visited) => visited,
        None => view.count(query.keys)?,
    };
    let more = items.len() > query.limit();
    if query.order != Order::Natural && query.target == SortTarget::Value {
        sort_by_value(view, query, &mut items, room)?;
    } else {
        sort(query, &mut items);
    }
    items.truncate(query.limit());
    Ok(Sorted { items, more, count })
}

/// A limit up to which a scan keeps only the keys that may be answered. Sorting more of them would
/// take long for the lock under which a scan runs.
const KEPT_LIMIT_MAX: usize = 1000;

/// Collects the keys that pass the filters, and how many keys there are if all were visited.
fn scan(
    view: &mut View<'_>,
    query: &Query<'_>,
    room: &mut Room<'_>,
) -> Result<(Vec<Item>, Option<i64>), ReadError> {
    let scan_max = query.scan_limit();
    let kept_max = query.kept_limit();
    let mut items = Vec::new();
    let mut held_max = 0;
    let mut visited: i64 = 0;
    let mut has_room = true;
    let is_index_only = query.is_index_only();
    let is_stopped = view.scan(query.keys, &mut |key, found, record| {
        visited += 1;
        if query.admits(&found) {
            let item = item(key, found, record, is_index_only);
            // Those that were dropped have left their room to others.
            has_room = items.len() < held_max || room(item.bytes_held(is_index_only));
            items.push(item);
            held_max = held_max.max(items.len());
            if items.len() / 2 >= kept_max {
                keep_first(query, &mut items, kept_max);
            }
        }
        if has_room && items.len() < scan_max {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    if !has_room {
        return Err(ReadError::NoRoom);
    }
    Ok((items, (!is_stopped).then_some(visited)))
}

/// Drops the keys that `kept` others precede in the order of the answer. Which of those that are
/// equal in it come first stays as it is.
fn keep_first(query: &Query<'_>, items: &mut Vec<Item>, kept: usize) {
    match query.order {
        Order::Descending if query.target == SortTarget::Key => {
            drop(items.drain(..items.len() - kept))
        }
        Order::Natural | Order::Ascending | Order::Descending => {
            sort(query, items);
            items.truncate(kept);
        }
    }
}

fn sort(query: &Query<'_>, items: &mut [Item]) {
    match query.order {
        Order::Natural => {}
        Order::Ascending => items.sort_by(|a, b| query.compare(a, b)),
        Order::Descending if query.target == SortTarget::Key => items.reverse(),
        Order::Descending => items.sort_by(|a, b| query.compare(b, a)),
    }
}

fn sort_by_value(
    view: &mut View<'_>,
    query: &Query<'_>,
    items: &mut Vec<Item>,
    room: &mut Room<'_>,
) -> Result<(), ReadError> {
    let mut keyed = Vec::with_capacity(items.len());
    for item in items.drain(..) {
        let found = item.found;
        let record = view.record_of(item)?;
        hold(room, record.len() + size_of::<(Record, Item)>())?;
        let value = record.slice_ref(decode(&record)?.value);
        keyed.push((value, Item { found, record: Some(record) }));
    }
    match query.order {
        Order::Natural | Order::Ascending => keyed.sort_by(|a, b| a.0.cmp(&b.0)),
        Order::Descending => keyed.sort_by(|a, b| b.0.cmp(&a.0)),
    }
    items.extend(keyed.into_iter().map(|(_, item)| item));
    Ok(())
}

fn without_value(record: &Record) -> Result<Record, Fault> {
    Ok(KeyValue { value: &[], ..decode(record)? }.encode())
}

/// Decodes a stored record.
pub(crate) fn decode(record: &[u8]) -> Result<KeyValue<'_>, Fault> {
    KeyValue::decode(record).ok_or_else(|| Fault::Backend {
        bucket: schema::BUCKETS[usize::from(schema::KEY.0)],
        what: "a record is no KeyValue".into(),
    })
}
