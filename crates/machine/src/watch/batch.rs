//! Events as apply makes them and as history gives them back, in revision order.

use bytes::Bytes;
use prost::Message;
use proto::mvccpb;

use crate::{Record, Revision};

/// What an event tells about its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A put of a key that did not exist: create and mod revision are equal. It never has a previous record.
    Create,
    /// A put of a key that existed.
    Put,
    /// A deletion.
    Delete,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// When it happened.
    pub revision: Revision,
    /// The key; best a slice of `record`.
    pub key: Bytes,
    /// The encoded `mvccpb.KeyValue` to send: as stored for a put, key and mod revision only for a deletion.
    pub record: Record,
    /// Where the key's record as of the main revision before is found; `None` if there was none, and in history, where it is looked
    /// up by [`super::History::before`] instead.
    pub previous: Option<Revision>,
}

impl Event {
    /// Makes the event of a deletion.
    pub fn deletion(key: &[u8], revision: Revision, previous: Option<Revision>) -> Self {
        let shown = mvccpb::KeyValue {
            key: Bytes::copy_from_slice(key),
            mod_revision: revision.main,
            ..mvccpb::KeyValue::default()
        };
        let record = Bytes::from(shown.encode_to_vec());
        Self { kind: EventKind::Delete, revision, key: shown.key, record, previous }
    }
}

/// The events of a run of revisions, whole revisions only. Shared by all serving threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventBatch {
    first: i64,
    last: i64,
    bytes: usize,
    /// Invariant: ascending revisions within `first..=last`.
    events: Vec<Event>,
}

impl EventBatch {
    /// Makes a batch that begins with main revision `first` and covers nothing yet.
    pub fn new(first: i64) -> Self {
        Self { first, last: first - 1, bytes: 0, events: Vec::new() }
    }

    /// Adds the next event and covers its main revision and all before.
    pub fn push(&mut self, event: Event) {
        let before_first = || Revision::new(self.first - 1, i64::MAX);
        let after = self.events.last().map_or_else(before_first, |last| last.revision);
        assert!(event.revision > after, "events come in the order of their revisions");
        self.last = self.last.max(event.revision.main);
        self.bytes += event.record.len() + size_of::<Event>();
        self.events.push(event);
    }

    /// Covers all revisions through `last`, whether they have events or, compacted, none any more.
    pub fn cover(&mut self, last: i64) {
        self.last = self.last.max(last);
    }

    /// Returns the first main revision covered.
    pub fn first(&self) -> i64 {
        self.first
    }

    /// Returns the last main revision covered; below the first one if none is.
    pub fn last(&self) -> i64 {
        self.last
    }

    /// Returns about how much memory the batch takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns all events.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Iterates over main revisions that have events, each with all of them.
    pub fn revisions(&self) -> impl Iterator<Item = (i64, &[Event])> {
        self.events
            .chunk_by(|one, other| one.revision.main == other.revision.main)
            .map(|events| (events[0].revision.main, events))
    }
}
