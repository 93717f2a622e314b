//! A store as naive as can be: every revision kept, nothing encoded twice.

use std::cell::Cell;
use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use proto::mvccpb;

use crate::watch::{Event, EventBatch, EventKind, History, HistoryBounds};
use crate::{Fault, ReadError, Record, Refusal, Revision};

/// One version of a key: `None` for a deletion.
type Version = (Revision, Option<mvccpb::KeyValue>);

#[derive(Debug)]
pub(super) struct Store {
    current: i64,
    compacted: Cell<i64>,
    /// A compaction that happens during the next read.
    pub(super) compact_when_read: Cell<Option<i64>>,
    /// How many records before a revision can be looked up before the disk fails, once.
    pub(super) fails_after: Cell<Option<u32>>,
    /// Main revision to its events.
    events: BTreeMap<i64, Vec<Event>>,
    keys: BTreeMap<Bytes, Vec<Version>>,
    /// Whether records have to be read from disk.
    pub(super) is_cold: bool,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            current: 1,
            compacted: Cell::new(-1),
            compact_when_read: Cell::new(None),
            fails_after: Cell::new(None),
            events: BTreeMap::new(),
            keys: BTreeMap::new(),
            is_cold: false,
        }
    }
}

impl Store {
    /// Applies puts (with a value) and deletions in one revision, if they change anything.
    pub(super) fn write<'a>(
        &mut self,
        changes: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Vec<Event> {
        let main = self.current + 1;
        let mut events: Vec<Event> = Vec::new();
        for (key, value) in changes {
            let key = Bytes::copy_from_slice(key.as_bytes());
            let sub = i64::try_from(events.len()).expect("few changes");
            let revision = Revision::new(main, sub);
            let versions = self.keys.entry(key.clone()).or_default();
            let now = versions.last().and_then(|(_, kv)| kv.clone());
            let before = versions.iter().rev().find(|(at, _)| at.main < main);
            let previous = before.and_then(|(at, kv)| kv.is_some().then_some(*at));
            let Some(value) = value else {
                if now.is_some() {
                    versions.push((revision, None));
                    events.push(Event::deletion(&key, revision, previous));
                }
                continue;
            };
            let kv = mvccpb::KeyValue {
                key: key.clone(),
                create_revision: now.as_ref().map_or(main, |kv| kv.create_revision),
                mod_revision: main,
                version: now.as_ref().map_or(1, |kv| kv.version + 1),
                value: Bytes::copy_from_slice(value.as_bytes()),
                lease: 0,
            };
            let is_create = kv.create_revision == main;
            events.push(Event {
                kind: if is_create { EventKind::Create } else { EventKind::Put },
                revision,
                key,
                record: kv.encode_to_vec().into(),
                previous: previous.filter(|_| !is_create),
            });
            versions.push((revision, Some(kv)));
        }
        if !events.is_empty() {
            self.current = main;
            self.events.insert(main, events.clone());
        }
        events
    }

    /// Compacts: nothing below is read any more.
    pub(super) fn compact(&mut self, revision: i64) {
        assert!(revision > self.compacted.get() && revision <= self.current);
        self.compacted.set(revision);
        self.events.retain(|&main, _| main >= revision);
    }
}

impl History for Store {
    fn current(&self) -> i64 {
        self.current
    }

    fn compacted(&self) -> i64 {
        self.compacted.get()
    }

    fn read(&self, from: i64, to: i64, bounds: HistoryBounds) -> Result<EventBatch, ReadError> {
        if from < self.compacted.get() {
            return Err(Refusal::Compacted.into());
        }
        if let Some(revision) = self.compact_when_read.take() {
            self.compacted.set(revision.max(self.compacted.get()));
        }
        let mut batch = EventBatch::new(from);
        for (place, (&main, events)) in self.events.range(from..=to).enumerate() {
            if place > 0 && (place >= bounds.revisions_max || batch.bytes() >= bounds.bytes_max) {
                return Ok(batch);
            }
            for event in events {
                batch.push(event.clone());
            }
            batch.cover(main);
        }
        batch.cover(to);
        Ok(batch)
    }

    fn before(&self, key: &[u8], main: i64) -> Result<Option<Record>, ReadError> {
        match self.fails_after.take() {
            Some(0) => {
                let what = "the disk has failed".to_owned();
                return Err(Fault::Backend { bucket: "key", what }.into());
            }
            Some(more) => self.fails_after.set(Some(more - 1)),
            None => {}
        }
        if main - 1 < self.compacted.get() {
            return Err(Refusal::Compacted.into());
        }
        let Some(versions) = self.keys.get(key) else { return Ok(None) };
        let found = versions.iter().rev().find(|(at, _)| at.main < main);
        Ok(found.and_then(|(_, kv)| kv.as_ref()).map(|kv| kv.encode_to_vec().into()))
    }

    fn resident(&self, revision: Revision) -> Option<Record> {
        if self.is_cold {
            return None;
        }
        self.keys
            .values()
            .flatten()
            .find(|(at, _)| *at == revision)
            .and_then(|(_, kv)| kv.as_ref())
            .map(|kv| kv.encode_to_vec().into())
    }
}
