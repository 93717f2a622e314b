//! History for watchers that lag behind.

use super::history::{self, Bounds};
use super::range::decode;
use super::shared::Values;
use super::tail::Entry;
use super::view::View;
use crate::fault::ReadError;
use crate::reader::Reader;
use crate::watch::{Event, EventBatch, EventKind, History, HistoryBounds};
use crate::{Record, Refusal, Revision};

/// Records in one read of the engine.
const PIECE_RECORDS: usize = 1000;

impl History for Reader {
    fn current(&self) -> i64 {
        self.revision()
    }

    fn compacted(&self) -> i64 {
        self.compact_revision()
    }

    fn read(&self, from: i64, to: i64, bounds: HistoryBounds) -> Result<EventBatch, ReadError> {
        let shared = self.shared();
        if from < shared.compacted() {
            return Err(Refusal::Compacted.into());
        }
        let to = to.min(shared.current());
        let mut batch = EventBatch::new(from);
        let mut revisions = 0;
        let mut start = Some(Revision::new(from, 0));
        while let Some(next) = start {
            let records_max = PIECE_RECORDS;
            // One revision more than allowed tells that the last one is whole.
            let bytes_max = bounds.bytes_max.saturating_sub(batch.bytes()).max(1);
            let piece = history::piece(&shared, next, to, Bounds { records_max, bytes_max })?;
            for entry in &piece.entries {
                let main = entry.revision.main;
                let is_new = batch.events().last().is_none_or(|last| last.revision.main < main);
                let is_full =
                    revisions >= bounds.revisions_max || batch.bytes() >= bounds.bytes_max;
                if is_new && revisions > 0 && is_full {
                    batch.cover(main - 1);
                    return Ok(batch);
                }
                revisions += usize::from(is_new);
                batch.push(event(entry)?);
            }
            start = piece.next;
        }
        batch.cover(to);
        Ok(batch)
    }

    fn before(&self, key: &[u8], main: i64) -> Result<Option<Record>, ReadError> {
        match View::new(&self.shared(), main - 1).get(key) {
            Err(ReadError::Refused(Refusal::Compacted)) => Ok(None),
            result => result,
        }
    }

    fn resident(&self, revision: Revision) -> Option<Record> {
        let shared = self.shared();
        let in_tail = shared.state.read().tail.get(revision).cloned();
        in_tail.or_else(|| shared.cache.get(revision))
    }
}

impl Reader {
    /// Returns the record of a revision of which an event said that it was a key's previous one;
    /// `None` if it is compacted. May touch the disk.
    pub fn record(&self, revision: Revision) -> Result<Option<Record>, ReadError> {
        if let Some(record) = self.resident(revision) {
            return Ok(Some(record));
        }
        match Values::new(&self.shared()).fetch(revision, revision.main) {
            Err(ReadError::Refused(Refusal::Compacted)) => Ok(None),
            result => result.map(Some),
        }
    }
}

fn event(entry: &Entry) -> Result<Event, ReadError> {
    let fields = decode(&entry.record)?;
    let revision = entry.revision;
    if entry.is_tombstone {
        return Ok(Event::deletion(fields.key, revision, None));
    }
    let is_new = fields.create_revision == fields.mod_revision;
    let kind = if is_new { EventKind::Create } else { EventKind::Put };
    let key = entry.record.slice_ref(fields.key);
    Ok(Event { kind, revision, key, record: entry.record.clone(), previous: None })
}
