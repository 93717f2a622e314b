//! Changes in revision order, read in bounded pieces from engine and tail.
//!
//! The tail holds everything at and above its first revision, the engine everything below. A record
//! leaves the tail only when it is durable, so an engine view opened after looking at the tail has
//! all that the tail did not have.

use std::ops::Bound;

use super::shared::Shared;
use super::tail::Entry;
use crate::fault::{Fault, ReadError};
use crate::{Revision, schema};

/// How much one piece may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) records_max: usize,
    pub(crate) bytes_max: usize,
}

/// Some changes.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) entries: Vec<Entry>,
    /// Where the next piece begins; `None` when there is nothing more up to the revision asked for.
    pub(crate) next: Option<Revision>,
}

/// Collects until a bound is reached. A piece holds at least one change.
#[derive(Debug)]
struct Collector {
    bounds: Bounds,
    entries: Vec<Entry>,
    bytes: usize,
}

impl Collector {
    /// Takes a change; tells whether the piece is full.
    fn push(&mut self, entry: Entry) -> bool {
        self.bytes += entry.record.len();
        self.entries.push(entry);
        self.entries.len() >= self.bounds.records_max || self.bytes >= self.bounds.bytes_max
    }

    /// Returns the piece; `rest` is where the next one begins if this one is not full.
    fn finish(self, is_full: bool, rest: Option<Revision>) -> Piece {
        let after = self.entries.last().map(|last| after(last.revision));
        Piece { entries: self.entries, next: if is_full { after } else { rest } }
    }
}

fn after(revision: Revision) -> Revision {
    Revision::new(revision.main, revision.sub + 1)
}

/// Reads changes from `from` on, up to and with main revision `until`. Does not look at compaction:
/// records that a compaction drops may be missing.
pub(crate) fn piece(
    shared: &Shared,
    from: Revision,
    until: i64,
    bounds: Bounds,
) -> Result<Piece, ReadError> {
    let mut collector = Collector { bounds, entries: Vec::new(), bytes: 0 };
    let boundary = {
        let state = shared.state.read();
        match state.tail.first() {
            Some(first) if first <= from => {
                let mut is_full = false;
                for entry in state.tail.iter_from(from) {
                    if entry.revision.main > until || is_full {
                        break;
                    }
                    is_full = collector.push(entry.clone());
                }
                return Ok(collector.finish(is_full, None));
            }
            first => first.filter(|first| first.main <= until),
        }
    };
    let is_full = read_engine(shared, from, until, boundary, &mut collector)?;
    Ok(collector.finish(is_full, boundary))
}

fn read_engine(
    shared: &Shared,
    from: Revision,
    until: i64,
    boundary: Option<Revision>,
    collector: &mut Collector,
) -> Result<bool, ReadError> {
    let start = schema::revision_bytes(from);
    let end = boundary.unwrap_or_else(|| Revision::new(until.saturating_add(1), 0));
    let end = schema::revision_bytes(end);
    let engine = shared.backend.reader()?;
    let range = (Bound::Included(&start[..]), Bound::Excluded(&end[..]));
    for pair in engine.range(schema::KEY, range) {
        let (key, value) = pair?;
        let (revision, is_tombstone) = decode_key(&key)?;
        let record = value;
        if collector.push(Entry { revision, is_tombstone, is_read: false, record }) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Decodes the key of a stored record.
pub(crate) fn decode_key(key: &[u8]) -> Result<(Revision, bool), Fault> {
    schema::decode_record_key(key).ok_or_else(|| Fault::Backend {
        bucket: schema::BUCKETS[usize::from(schema::KEY.0)],
        what: format!("key {key:02x?} is no revision"),
    })
}
