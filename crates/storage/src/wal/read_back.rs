//! Reads a log that a writer may have open: old entries for slow followers, and the marks that start-up chooses from.

use std::ops::Range;
use std::path::Path;

use prost::Message;
use proto::{raftpb, walpb};

use super::reader::{Next, Reader};
use super::record::Record;
use super::segment::{self, Segment};
use crate::disk::Disk;
use crate::fault::Fault;
use crate::length;

/// Reads the marks of all snapshots that can be started from, oldest first: those that the log says are committed.
/// A later mark belongs to a snapshot whose installation did not finish.
pub fn snapshot_marks(disk: &dyn Disk, dir: &Path) -> Result<Vec<walpb::Snapshot>, Fault> {
    let names = segment::list(disk, dir)?;
    let segments = open_all(disk, dir, segment::newest_run(&names))?;
    if segments.is_empty() {
        let remedy = "check the configured log directory, or start with an empty data directory";
        return Err(Fault::unusable(dir, "it holds no log", remedy));
    }
    let mut reader = Reader::new(&segments)?;
    let mut marks = Vec::new();
    let mut commit = 0;
    while let Next::Record(record) = reader.next()? {
        match record {
            Record::Snapshot(mark) => marks.push(mark),
            Record::State(state) => commit = state.commit,
            Record::Metadata(_) | Record::Entry(_) | Record::Checksum(_) => {}
        }
    }
    marks.retain(|mark| mark.index <= commit);
    Ok(marks)
}

/// Reads committed entries with indexes in `range`, at most about `bytes_max` of them by encoded size, but at least one.
///
/// The result begins with `range.start` and has no gaps; it is empty when that entry is not in the log any more. Only
/// what was flushed is seen. Entries that are not yet committed may be missing or be an overwritten version.
pub fn read_entries(
    disk: &dyn Disk,
    dir: &Path,
    range: Range<u64>,
    bytes_max: usize,
) -> Result<Vec<raftpb::Entry>, Fault> {
    let names = segment::list(disk, dir)?;
    if range.is_empty() || names.first().is_none_or(|name| name.index > range.start) {
        return Ok(Vec::new());
    }
    let chosen = segment::from_index(&names, dir, range.start)?;
    let mut wanted = Wanted { range, bytes_max, bytes: 0, entries: Vec::new() };
    for (position, name) in chosen.iter().enumerate() {
        let segments = [Segment::open(disk, dir, *name)?];
        let mut reader = Reader::new(&segments)?;
        let is_last = position + 1 == chosen.len();
        loop {
            let record = match reader.next() {
                Ok(Next::Record(record)) => record,
                Ok(Next::End | Next::Torn) => break,
                // The writer is at work there: what looks damaged is half written.
                Err(_) if is_last => break,
                Err(fault) => return Err(fault),
            };
            if wanted.add(record) {
                return Ok(wanted.entries);
            }
        }
    }
    Ok(wanted.entries)
}

fn open_all(disk: &dyn Disk, dir: &Path, names: &[segment::Name]) -> Result<Vec<Segment>, Fault> {
    names.iter().map(|name| Segment::open(disk, dir, *name)).collect()
}

struct Wanted {
    range: Range<u64>,
    bytes_max: usize,
    bytes: usize,
    /// Invariant: the first has index `range.start`, each next one more.
    entries: Vec<raftpb::Entry>,
}

impl Wanted {
    /// Takes in one record; tells whether nothing later can change the result.
    fn add(&mut self, record: Record) -> bool {
        match record {
            Record::Entry(entry) => {
                self.add_entry(entry);
                false
            }
            // Committed entries are never overwritten.
            Record::State(state) => self.is_full() && state.commit >= self.range.end - 1,
            Record::Metadata(_) | Record::Snapshot(_) | Record::Checksum(_) => false,
        }
    }

    fn is_full(&self) -> bool {
        self.range.start + self.entries.len() as u64 == self.range.end
    }

    fn add_entry(&mut self, entry: raftpb::Entry) {
        let end = self.range.start + self.entries.len() as u64;
        if entry.index < self.range.start {
            // It overwrites all that was read.
            self.entries.clear();
            self.bytes = 0;
        } else if entry.index <= end && entry.index < self.range.end {
            for old in self.entries.drain(length(entry.index - self.range.start)..) {
                self.bytes -= old.encoded_len();
            }
            let bytes = entry.encoded_len();
            if self.bytes + bytes > self.bytes_max && !self.entries.is_empty() {
                // From here on only what fits is wanted.
                self.range.end = entry.index;
            } else {
                self.bytes += bytes;
                self.entries.push(entry);
            }
        }
    }
}
