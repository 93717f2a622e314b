//! The write side of the store, owned by the thread that applies.
//!
//! A [`WriteTxn`] makes changes under one main revision. They enter index and tail at once, but no
//! reader asks for that revision before [`WriteTxn::end`] has made it current.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::key_index::Put;
use super::range::Keys;
use super::record::{self, KeyValue};
use super::shared::Shared;
use super::tail::Entry;
use super::view::{Chunk, View};
use crate::fault::{Fault, ReadError};
use crate::lease::Lessor;
use crate::stats::Operations;
use crate::watch::{Event, EventBatch, EventKind};
use crate::{Refusal, Revision, schema};

/// The write side.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) shared: Arc<Shared>,
    /// Changes since they were last taken for the watchers.
    events: EventBatch,
}

impl Store {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let events = EventBatch::new(shared.current() + 1);
        Self { shared, events }
    }

    /// Begins a write transaction.
    pub(crate) fn write<'a>(&'a mut self, lessor: &'a mut Lessor) -> WriteTxn<'a> {
        let begin = self.shared.current();
        WriteTxn { store: self, lessor, begin, changes: 0, done: Operations::default() }
    }

    /// Takes the events of all revisions since they were last taken; `None` if there were none.
    pub(crate) fn take_events(&mut self) -> Option<EventBatch> {
        if self.events.events().is_empty() {
            return None;
        }
        let next = EventBatch::new(self.events.last() + 1);
        Some(std::mem::replace(&mut self.events, next))
    }
}

/// Returns what a record costs in the store.
pub(crate) fn stored_bytes(record: &[u8], is_tombstone: bool) -> u64 {
    let key = if is_tombstone { schema::TOMBSTONE_BYTES } else { schema::REVISION_BYTES };
    (key + record.len()) as u64
}

/// Changes under one main revision.
#[derive(Debug)]
pub(crate) struct WriteTxn<'a> {
    store: &'a mut Store,
    pub(crate) lessor: &'a mut Lessor,
    begin: i64,
    changes: i64,
    pub(crate) done: Operations,
}

impl WriteTxn<'_> {
    /// Returns the revision that reads inside the transaction see: its own once it has changed
    /// something.
    pub(crate) fn revision(&self) -> i64 {
        self.begin + i64::from(self.changes > 0)
    }

    /// Opens a view that sees the changes made so far.
    pub(crate) fn view(&self) -> View<'_> {
        View::new(&self.store.shared, self.revision())
    }

    /// Opens the view that a range inside the transaction asks for.
    pub(crate) fn view_at(&self, revision: i64) -> Result<View<'_>, Refusal> {
        View::at(&self.store.shared, self.revision(), revision)
    }

    fn next_revision(&self) -> Revision {
        Revision::new(self.begin + 1, self.changes)
    }

    /// Puts `value` under `key` and attaches it to `lease` if that is not 0.
    pub(crate) fn put(&mut self, key: &Bytes, value: &[u8], lease: i64) {
        let revision = self.next_revision();
        let (record, previous) = {
            let mut state = self.store.shared.state.write();
            let Put { created, version, previous } = state.index.put(key, revision);
            let mod_revision = revision.main;
            let fields =
                KeyValue { key, create_revision: created, mod_revision, version, value, lease };
            let record = fields.encode();
            let is_read = previous.is_some_and(|former| match state.tail.entry(former) {
                Some(entry) => entry.is_read,
                None => self.store.shared.cache.contains(former),
            });
            state.tail.push(Entry {
                revision,
                is_tombstone: false,
                is_read,
                record: record.clone(),
            });
            (record, previous)
        };
        self.done.puts += 1;
        self.done.put_bytes += (key.len() + value.len()) as u64;
        let kind = if previous.is_some() { EventKind::Put } else { EventKind::Create };
        let previous = self.before(key, previous);
        let bytes = stored_bytes(&record, false);
        let key_copy = record.slice(record::key_span(key));
        self.changed(Event { kind, revision, key: key_copy, record, previous }, bytes);
        if lease != 0 {
            self.lessor.attach(lease, key).expect("a put whose lease is missing is refused before");
        } else if self.lessor.attached() > 0 {
            self.lessor.detach(key);
        }
    }

    /// Deletes the named keys that exist; returns how many did.
    pub(crate) fn delete_range(&mut self, keys: Keys<'_>) -> Result<i64, Refusal> {
        self.done.deletes += 1;
        if let Keys::One(key) = keys {
            return Ok(i64::from(self.delete(key)));
        }
        let at = self.revision();
        let mut from = keys.start().to_vec();
        let mut deleted = 0;
        loop {
            let mut names = Vec::new();
            let view = View::new(&self.store.shared, at);
            let chunk = view.scan_chunk(keys, &from, &mut |key, _, _| {
                names.push(key.to_vec());
                ControlFlow::Continue(())
            })?;
            deleted += names.iter().map(|key| i64::from(self.delete(key))).sum::<i64>();
            match chunk {
                Chunk::Next(next) => from = next,
                Chunk::Done | Chunk::Stopped => return Ok(deleted),
            }
        }
    }

    /// Deletes a key; tells whether it existed.
    pub(crate) fn delete(&mut self, key: &[u8]) -> bool {
        let revision = self.next_revision();
        let record = KeyValue { key, ..KeyValue::default() }.encode();
        let bytes = stored_bytes(&record, true);
        let previous = {
            let mut state = self.store.shared.state.write();
            let Some(previous) = state.index.tombstone(key, revision) else {
                return false;
            };
            state.tail.push(Entry { revision, is_tombstone: true, is_read: false, record });
            previous
        };
        let previous = self.before(key, Some(previous));
        self.changed(Event::deletion(key, revision, previous), bytes);
        if self.lessor.attached() > 0 {
            self.lessor.detach(key);
        }
        true
    }

    fn changed(&mut self, event: Event, record_bytes: u64) {
        self.changes += 1;
        self.done.events += 1;
        self.store.shared.add_live_bytes(record_bytes);
        self.store.events.push(event);
    }

    /// Returns where watchers find the record before this transaction, given the key's change
    /// before.
    fn before(&self, key: &[u8], previous: Option<Revision>) -> Option<Revision> {
        match previous {
            // Changed twice in one transaction.
            Some(previous) if previous.main > self.begin => {
                let state = self.store.shared.state.read();
                state.index.get(key, self.begin).map(|found| found.modified)
            }
            previous => previous,
        }
    }

    /// Makes the changes visible; returns the revision of the answer.
    pub(crate) fn end(self) -> i64 {
        let revision = self.revision();
        self.store.shared.counters.transaction(self.done);
        if self.changes > 0 {
            self.store.shared.set_current(revision);
        }
        revision
    }
}

/// What went wrong in a transaction that its checks had cleared.
pub(crate) fn cleared(error: impl Into<ReadError>) -> Fault {
    match error.into() {
        ReadError::Fault(fault) => fault,
        ReadError::Refused(refusal) => Fault::Backend {
            bucket: schema::BUCKETS[usize::from(schema::KEY.0)],
            what: format!("a checked read was refused: {refusal}"),
        },
        ReadError::NoRoom => unreachable!("the reads of a transaction in the log are not bounded"),
    }
}
