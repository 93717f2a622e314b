//! The store at one revision.
//!
//! A view belongs to one request: it is opened, read and dropped. Index and tail are read in chunks
//! of about [`CHUNK_KEYS`] keys per hold of the lock, whether they exist at the revision or not;
//! values that are not in the tail are fetched afterwards, without any lock.

use std::ops::ControlFlow;

use super::key_index::Found;
use super::range::{Item, Keys};
use super::record::KeyValue;
use super::shared::{CHUNK_KEYS, Shared, Values};
use crate::fault::ReadError;
use crate::{Record, Refusal};

/// How a chunk of a scan ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// There are no more keys.
    Done,
    /// The visitor stopped it.
    Stopped,
    /// The next chunk begins here.
    Next(Vec<u8>),
}

/// What a scan calls for each key, under the lock, with the record if it is in the tail.
pub(crate) type Visitor<'a> = dyn FnMut(&[u8], Found, Option<&Record>) -> ControlFlow<()> + 'a;

/// The store at one revision.
#[derive(Debug)]
pub(crate) struct View<'a> {
    shared: &'a Shared,
    revision: i64,
    values: Values<'a>,
}

impl<'a> View<'a> {
    pub(crate) fn new(shared: &'a Shared, revision: i64) -> Self {
        Self { shared, revision, values: Values::new(shared) }
    }

    /// Opens the view that a range asks for by `revision`: 0 or less is the current one, which
    /// `current` says.
    pub(crate) fn at(shared: &'a Shared, current: i64, revision: i64) -> Result<Self, Refusal> {
        if revision > current {
            return Err(Refusal::FutureRevision);
        }
        let revision = if revision <= 0 { current } else { revision };
        shared.check_compacted(revision)?;
        Ok(Self::new(shared, revision))
    }

    /// Returns the revision.
    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }

    /// Returns what the index knows of a key, and its record if it is in the tail.
    pub(crate) fn lookup(&self, key: &[u8]) -> Result<Option<Item>, Refusal> {
        let state = self.shared.state.read();
        self.shared.check_compacted(self.revision)?;
        let found = state.index.get(key, self.revision);
        Ok(found.map(|found| Item { found, record: state.tail.get(found.modified).cloned() }))
    }

    /// Returns the record of a key.
    pub(crate) fn get(&mut self, key: &[u8]) -> Result<Option<Record>, ReadError> {
        match self.lookup(key)? {
            None => Ok(None),
            Some(item) => self.record_of(item).map(Some),
        }
    }

    /// Returns the record of a key that a scan or look-up found.
    pub(crate) fn record_of(&mut self, item: Item) -> Result<Record, ReadError> {
        match item.record {
            Some(record) => Ok(record),
            None => self.values.fetch(item.found.modified, self.revision),
        }
    }

    /// Gives items that were found earlier the records that are in the tail.
    pub(crate) fn fill_from_tail(&self, items: &mut [Item]) {
        let state = self.shared.state.read();
        for item in items.iter_mut().filter(|item| item.record.is_none()) {
            item.record = state.tail.get(item.found.modified).cloned();
        }
    }

    /// Returns the record like [`Self::record_of`], without keeping it for other readers.
    pub(crate) fn record_once(&mut self, item: Item) -> Result<Record, ReadError> {
        match item.record {
            Some(record) => Ok(record),
            None => self.values.fetch_once(item.found.modified, self.revision),
        }
    }

    /// Counts keys.
    pub(crate) fn count(&self, keys: Keys<'_>) -> Result<i64, Refusal> {
        let mut from = keys.start().to_vec();
        let mut total = 0;
        loop {
            let (count, next) = self.count_chunk(keys, &from)?;
            total += count;
            let Some(next) = next else { return Ok(total) };
            from = next;
        }
    }

    /// Counts keys from `from` on until the chunk is full; the second part then tells where the next
    /// one begins.
    pub(crate) fn count_chunk(
        &self,
        keys: Keys<'_>,
        from: &[u8],
    ) -> Result<(i64, Option<Vec<u8>>), Refusal> {
        let state = self.shared.state.read();
        self.shared.check_compacted(self.revision)?;
        let (count, next) = match keys {
            Keys::One(key) => (usize::from(state.index.get(key, self.revision).is_some()), None),
            Keys::From(_) | Keys::Between(..) => {
                state.index.count(from, keys.end(), self.revision, CHUNK_KEYS)
            }
        };
        Ok((i64::try_from(count).unwrap_or(i64::MAX), next))
    }

    /// Visits keys in order until `visit` breaks; tells whether it did.
    pub(crate) fn scan(&self, keys: Keys<'_>, visit: &mut Visitor<'_>) -> Result<bool, Refusal> {
        let mut from = keys.start().to_vec();
        loop {
            match self.scan_chunk(keys, &from, visit)? {
                Chunk::Done => return Ok(false),
                Chunk::Stopped => return Ok(true),
                Chunk::Next(next) => from = next,
            }
        }
    }

    /// Visits keys in order from `from` on until `visit` breaks, or the chunk is full.
    pub(crate) fn scan_chunk(
        &self,
        keys: Keys<'_>,
        from: &[u8],
        visit: &mut Visitor<'_>,
    ) -> Result<Chunk, Refusal> {
        let state = self.shared.state.read();
        self.shared.check_compacted(self.revision)?;
        let mut is_stopped = false;
        let mut visit_one = |key: &[u8], found: Found| {
            let flow = visit(key, found, state.tail.get(found.modified));
            is_stopped = flow.is_break();
            flow
        };
        let next = match keys {
            Keys::One(key) => {
                if let Some(found) = state.index.get(key, self.revision) {
                    let _is_last = visit_one(key, found);
                }
                None
            }
            Keys::From(_) | Keys::Between(..) => {
                state.index.range(from, keys.end(), self.revision, CHUNK_KEYS, visit_one)
            }
        };
        Ok(match next {
            _ if is_stopped => Chunk::Stopped,
            Some(next) => Chunk::Next(next),
            None => Chunk::Done,
        })
    }
}

/// Makes the record that a range of keys only answers: without value and lease, as the index knows
/// neither.
pub(crate) fn index_record(key: &[u8], found: &Found) -> Record {
    KeyValue {
        key,
        create_revision: found.created,
        mod_revision: found.modified.main,
        version: found.version,
        ..KeyValue::default()
    }
    .encode()
}

/// Makes an item of what a visitor is given.
pub(crate) fn item(key: &[u8], found: Found, record: Option<&Record>, is_index_only: bool) -> Item {
    let record = if is_index_only { Some(index_record(key, &found)) } else { record.cloned() };
    Item { found, record }
}
