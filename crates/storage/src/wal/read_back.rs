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

const NO_LOG_REMEDY: &str =
    "check the configured log directory, or start with an empty data directory";

/// Reads the marks of all snapshots that can be started from, oldest first: those that the log says are committed.
/// A later mark belongs to a snapshot whose installation did not finish.
pub fn snapshot_marks(disk: &dyn Disk, dir: &Path) -> Result<Vec<walpb::Snapshot>, Fault> {
    let segments = newest_segments(disk, dir)?;
    Ok(Marks::read(&segments)?.committed())
}

/// Reads the newest of [`snapshot_marks`], and no more of the log than it takes to find it.
///
/// A start needs nothing of what lies before, so nothing of that is read or judged: a log of five segments takes as
/// long to look through as a log of one.
pub fn newest_snapshot_mark(disk: &dyn Disk, dir: &Path) -> Result<Option<walpb::Snapshot>, Fault> {
    let segments = newest_segments(disk, dir)?;
    for first in (0..segments.len()).rev() {
        let found = Marks::read(&segments[first..])?;
        // Marks go up. Each segment begins with the hard state; without one nothing is known to be committed.
        let knows_commit = found.commit.is_some() || first == 0;
        if let (true, Some(newest)) = (knows_commit, found.committed().pop()) {
            return Ok(Some(newest));
        }
    }
    Ok(None)
}

/// What a part of a log says of snapshots.
#[derive(Default)]
struct Marks {
    marks: Vec<walpb::Snapshot>,
    commit: Option<u64>,
}

impl Marks {
    fn read(segments: &[Segment]) -> Result<Self, Fault> {
        let mut reader = Reader::new(segments)?;
        let mut found = Self::default();
        while let Next::Record(record) = reader.next()? {
            match record {
                Record::Snapshot(mark) => found.marks.push(mark),
                Record::State(state) => found.commit = Some(state.commit),
                Record::Metadata(_) | Record::Entry(_) | Record::Checksum(_) => {}
            }
        }
        Ok(found)
    }

    fn committed(self) -> Vec<walpb::Snapshot> {
        let Self { mut marks, commit } = self;
        marks.retain(|mark| mark.index <= commit.unwrap_or(0));
        marks
    }
}

fn newest_segments(disk: &dyn Disk, dir: &Path) -> Result<Vec<Segment>, Fault> {
    let names = segment::list(disk, dir)?;
    let run = segment::newest_run(&names).iter();
    let segments =
        run.map(|name| Segment::open(disk, dir, *name)).collect::<Result<Vec<_>, _>>()?;
    if segments.is_empty() {
        return Err(Fault::unusable(dir, "it holds no log", NO_LOG_REMEDY));
    }
    Ok(segments)
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
