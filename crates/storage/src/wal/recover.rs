//! Opens a log for appending: reads it through, cuts a torn tail, clears what lies behind the end.
//!
//! Nothing is trusted before it is durable. After a sync that failed, Linux takes the pages for written: the log reads back
//! whole from memory, the disk holds something else, and a later sync does not cover the difference. So the last segment is
//! written back as it stands, and synced, before it is read. Earlier ones need not be: a segment is synced before the next
//! one gets its name, and a log whose sync failed never cuts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb::Metadata;
use proto::{raftpb, walpb};

use super::reader::{Next, Reader};
use super::record::{Encoder, Record};
use super::segment::{self, Segment, Spare};
use super::{Options, Start, Stats, Wal};
use crate::disk::{Disk, OpenMode};
use crate::fault::{Fault, OrFault};
use crate::length;

/// What a log held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Whose log it is.
    pub node_id: u64,
    /// The cluster it belongs to.
    pub cluster_id: u64,
    /// The last hard state.
    pub hard_state: Option<raftpb::HardState>,
    /// The entries after the start, without gaps; those above the commit index may yet be overwritten.
    pub entries: Vec<raftpb::Entry>,
    /// What was cut off.
    pub repaired: Option<Repair>,
}

/// A torn tail that was cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// The segment.
    pub path: PathBuf,
    /// Where it ends now.
    pub offset: u64,
    /// The copy of what it was.
    pub broken: PathBuf,
}

const REMEDY: &str = "restore the file, or remove this member from the cluster and add it again with an empty data \
                      directory";

/// Bytes written back at a time.
const WRITE_BACK_BYTES: u64 = 4 << 20;

/// The unit in which unused space is left out.
const PAGE_BYTES: usize = 4 << 10;

/// Bytes copied at a time.
const PIECE_BYTES: u64 = 256 << 10;

pub(super) fn recover(
    disk: Arc<dyn Disk>,
    dir: &Path,
    start: Start,
    options: Options,
) -> Result<(Wal, Recovered), Fault> {
    let names = segment::list(&*disk, dir)?;
    let mut segments = Vec::new();
    for name in segment::from_index(&names, dir, start.index)? {
        segments.push(Segment::open_locked(&*disk, dir, name)?);
    }
    if let Some(tail) = segments.last() {
        write_back(tail)?;
    }
    // The name of a segment may have been found before it was durable.
    disk.sync_dir(dir).or_fault("sync", dir)?;
    let (log, end) = read(&segments, start)?;
    let tail = segments.pop().expect("at least one segment was chosen");
    let at_end = |what: String| Fault::damaged(&tail.path, end.offset, what, REMEDY);
    let (metadata, identity) = log.identity().map_err(at_end)?;
    log.check_whole().map_err(at_end)?;

    let repaired = if end.torn { Some(repair(&*disk, dir, &tail, end.offset)?) } else { None };
    clear_from(&tail, end.offset)?;
    let spare = Spare::without_leftovers(&*disk, dir)?;
    let mut wal = Wal {
        disk,
        dir: dir.to_owned(),
        options,
        metadata,
        older: segments,
        tail,
        tail_offset: end.offset,
        spare,
        encoder: Encoder::new(end.chain),
        last_index: log.last_index,
        hard_state: log.hard_state,
        unsynced: false,
        failed: None,
        stats: Stats::default(),
    };
    wal.prepare_spare();
    let recovered = Recovered {
        node_id: identity.node_id,
        cluster_id: identity.cluster_id,
        hard_state: log.hard_state,
        entries: log.entries,
        repaired,
    };
    Ok((wal, recovered))
}

/// Makes durable what can be read of a segment.
fn write_back(segment: &Segment) -> Result<(), Fault> {
    let len = segment.len()?;
    let mut piece = vec![0; length(WRITE_BACK_BYTES.min(len))];
    let mut at = 0;
    while at < len {
        let piece = &mut piece[..length(WRITE_BACK_BYTES.min(len - at))];
        segment.file.read_exact_at(at, piece).or_fault("read", &segment.path)?;
        // Most of a segment is reserved zeros.
        let is_used = |page: &[u8]| page.iter().fold(0, |seen, byte| seen | byte) != 0;
        if let Some(last) = piece.chunks(PAGE_BYTES).rposition(is_used) {
            let used = piece.len().min((last + 1) * PAGE_BYTES);
            segment.file.write_all_at(at, &piece[..used]).or_fault("write", &segment.path)?;
        }
        at += piece.len() as u64;
    }
    segment.file.sync_data().or_fault("sync", &segment.path)
}

/// Where a log ends.
struct End {
    offset: u64,
    chain: u32,
    torn: bool,
}

fn read(segments: &[Segment], start: Start) -> Result<(Log, End), Fault> {
    let mut reader = Reader::new(segments)?;
    let mut log = Log { start, ..Log::default() };
    let torn = loop {
        match reader.next()? {
            Next::Record(record) => log.add(record).map_err(|what| reader.damaged(what))?,
            Next::End => break false,
            Next::Torn => break true,
        }
    };
    Ok((log, End { offset: reader.record_offset(), chain: reader.chain(), torn }))
}

/// What was read so far.
#[derive(Default)]
struct Log {
    start: Start,
    start_seen: bool,
    /// The term of the entry at the start's index, as far as one was read.
    at_start: Option<u64>,
    metadata: Option<Bytes>,
    hard_state: Option<raftpb::HardState>,
    /// Invariant: the first has index `start.index + 1`, each next one more.
    entries: Vec<raftpb::Entry>,
    last_index: u64,
}

impl Log {
    /// Takes in one record; the error says why it cannot be.
    fn add(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::Entry(entry) => self.add_entry(entry),
            Record::State(state) => {
                self.hard_state = Some(state);
                Ok(())
            }
            Record::Metadata(metadata) => match &self.metadata {
                Some(known) if *known != metadata => Err("the log changes its owner".to_owned()),
                _ => {
                    self.metadata = Some(metadata);
                    Ok(())
                }
            },
            Record::Snapshot(mark) => self.add_mark(&mark),
            Record::Checksum(_) => Ok(()),
        }
    }

    fn add_entry(&mut self, entry: raftpb::Entry) -> Result<(), String> {
        self.last_index = entry.index;
        if entry.index <= self.start.index {
            self.at_start = (entry.index == self.start.index).then_some(entry.term);
            // It replaces whatever was there from its index on, behind the start, too. (etcd keeps that: its log goes on with
            // entries of an older term then, by which it may vote for somebody who lacks what is committed.)
            self.entries.clear();
        } else {
            let position = entry.index - self.start.index - 1;
            if position > self.entries.len() as u64 {
                return Err(format!("entry {} follows entry {}", entry.index, self.last()));
            }
            // Not longer than the entries, so it fits.
            self.entries.truncate(length(position));
            self.entries.push(entry);
        }
        Ok(())
    }

    fn add_mark(&mut self, mark: &walpb::Snapshot) -> Result<(), String> {
        if mark.index == self.start.index {
            if mark.term != self.start.term {
                return Err(format!(
                    "the snapshot at index {} has term {} here, but {} in its file",
                    mark.index, mark.term, self.start.term
                ));
            }
            // A leader's snapshot took the place of a log that had gone another way: what it had behind is no part of it.
            if self.at_start.is_some_and(|term| term != mark.term) {
                self.entries.clear();
            }
            self.start_seen = true;
        }
        self.last_index = self.last_index.max(mark.index);
        Ok(())
    }

    fn identity(&self) -> Result<(Bytes, Metadata), String> {
        let Some(encoded) = self.metadata.clone() else {
            return Err("the log does not say whose it is".to_owned());
        };
        match Metadata::decode(encoded.clone()) {
            Ok(identity) => Ok((encoded, identity)),
            Err(error) => Err(format!("the log's owner does not decode: {error}")),
        }
    }

    /// Checks that the log begins where it was asked to, and holds all that it says is committed.
    fn check_whole(&self) -> Result<(), String> {
        let Start { index, term } = self.start;
        if !self.start_seen {
            return Err(format!("the log has no mark of a snapshot at index {index}, term {term}"));
        }
        match self.hard_state {
            Some(state) if state.commit > self.last() => Err(format!(
                "the log ends with entry {}, but {} is committed",
                self.last(),
                state.commit
            )),
            _ => Ok(()),
        }
    }

    fn last(&self) -> u64 {
        self.entries.last().map_or(self.start.index, |entry| entry.index)
    }
}

/// Keeps a copy of a segment whose tail is torn.
fn repair(disk: &dyn Disk, dir: &Path, tail: &Segment, offset: u64) -> Result<Repair, Fault> {
    let mut broken = tail.path.clone().into_os_string();
    broken.push(".broken");
    let broken = PathBuf::from(broken);
    tracing::warn!(path = %tail.path.display(), offset, copy = %broken.display(), "cutting a torn log tail");
    let copy = disk.open(&broken, OpenMode::Create).or_fault("create", &broken)?;
    let len = tail.len()?;
    copy.set_len(0).or_fault("empty", &broken)?;
    copy.set_len(len).or_fault("extend", &broken)?;
    let mut piece = vec![0; length(PIECE_BYTES)];
    let mut at = 0;
    while at < len {
        let piece = &mut piece[..length(PIECE_BYTES.min(len - at))];
        tail.file.read_exact_at(at, piece).or_fault("read", &tail.path)?;
        // Most of a segment is reserved zeros, which the copy has already.
        if piece.iter().any(|byte| *byte != 0) {
            copy.write_all_at(at, piece).or_fault("write", &broken)?;
        }
        at += piece.len() as u64;
    }
    copy.sync_data().or_fault("sync", &broken)?;
    disk.sync_dir(dir).or_fault("sync", dir)?;
    Ok(Repair { path: tail.path.clone(), offset, broken })
}

/// Zeroes `tail` from `offset` on, at the same length. A write that was torn before a record's length word leaves
/// bytes there which a later record could otherwise run into.
fn clear_from(tail: &Segment, offset: u64) -> Result<(), Fault> {
    let len = tail.len()?;
    if offset < len {
        tail.file.set_len(offset).or_fault("shorten", &tail.path)?;
        tail.file.allocate(len).or_fault("reserve space for", &tail.path)?;
        tail.file.sync_data().or_fault("sync", &tail.path)?;
    }
    Ok(())
}
