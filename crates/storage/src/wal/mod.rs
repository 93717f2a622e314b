//! The write-ahead log, in etcd's format: `docs/formats/wal.md`.
//!
//! A log is a directory of segments of 64 MB. [`Wal::append`] encodes into a buffer, [`Wal::flush`] writes it with one
//! call, [`Wal::sync`] makes it durable. A segment is cut when an append passes its size; the next one is reserved
//! beforehand. [`Wal::recover`] reads everything back, cuts a torn tail and refuses damage before it.
//!
//! Guarantees: what was appended before a successful `sync` is read back, in order, after any crash; nothing is ever
//! written after a failed write or sync (the log repeats that fault instead). Left to the caller: what has to be
//! durable before which message, and that indexes and terms make sense.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb::Metadata;
use proto::{raftpb, walpb};

use crate::datadir::{create_dir_all, sync_parent};
use crate::disk::Disk;
use crate::fault::{Fault, OrFault};

mod read_back;
mod reader;
mod record;
mod recover;
mod segment;

#[cfg(test)]
mod tests;

pub use read_back::{newest_snapshot_mark, read_entries, snapshot_marks};
pub use recover::{Recovered, Repair};

use record::Encoder;
use segment::{Name, Segment, Spare};

/// Size of a segment, as etcd has it; the last append may pass it.
pub const SEGMENT_BYTES: u64 = 64_000_000;

/// How many segments stay, as etcd's `--max-wals` has it.
pub const SEGMENTS_MAX: usize = 5;

/// Appended bytes that are written early, without waiting for a flush.
const BUFFER_BYTES_MAX: usize = 16 << 20;

/// What the buffer keeps after a write.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

/// A place in the log to read on from: that of a snapshot, or zero for the beginning.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Index of the last entry the snapshot covers.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

impl From<&walpb::Snapshot> for Start {
    fn from(mark: &walpb::Snapshot) -> Self {
        Self { index: mark.index, term: mark.term }
    }
}

/// Sizes of a log. The defaults are etcd's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// See [`SEGMENT_BYTES`]; smaller in simulations and tests.
    pub segment_bytes: u64,
    /// Released segments are removed, oldest first, while there are more than this; 0 keeps all.
    pub segments_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES, segments_max: SEGMENTS_MAX }
    }
}

/// What a log has done since it was opened, and where it stands.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Bytes handed to the disk.
    pub written_bytes: u64,
    /// Write calls.
    pub writes: u64,
    /// Calls that made data durable.
    pub syncs: u64,
    /// Segments begun.
    pub cuts: u64,
    /// Segments removed.
    pub removed: u64,
    /// Sequence number of the segment in use.
    pub sequence: u64,
    /// Bytes of it in use.
    pub segment_used_bytes: u64,
    /// Index of the last entry or, if that is higher, of the last snapshot mark.
    pub last_index: u64,
}

/// A log open for appending, locked against other writers.
#[derive(Debug)]
pub struct Wal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: Options,
    /// The encoded identity, repeated in every segment.
    metadata: Bytes,
    /// Earlier segments that are not released yet, oldest first: they stay locked.
    older: Vec<Segment>,
    /// The segment in use.
    tail: Segment,
    /// Where the pending bytes of `encoder` go.
    tail_offset: u64,
    spare: Spare,
    encoder: Encoder,
    last_index: u64,
    hard_state: Option<raftpb::HardState>,
    /// Written since the last sync.
    unsynced: bool,
    /// The fault after which nothing may be written.
    failed: Option<Fault>,
    stats: Stats,
}

/// Tells whether `dir` holds a log.
pub fn exists(disk: &dyn Disk, dir: &Path) -> Result<bool, Fault> {
    Ok(!segment::list(disk, dir)?.is_empty())
}

impl Wal {
    /// Creates a log in `dir`, which must hold none, with etcd's sizes. Durable when this returns.
    pub fn create(disk: Arc<dyn Disk>, dir: &Path, identity: Metadata) -> Result<Self, Fault> {
        Self::create_with(disk, dir, identity, Options::default())
    }

    /// [`Self::create`] with other sizes.
    pub fn create_with(
        disk: Arc<dyn Disk>,
        dir: &Path,
        identity: Metadata,
        options: Options,
    ) -> Result<Self, Fault> {
        if exists(&*disk, dir)? {
            let remedy = "start without bootstrapping, or choose another directory";
            return Err(Fault::unusable(dir, "it holds a log already", remedy));
        }
        create_dir_all(&*disk, dir)?;
        // It may be there since a start that ended before its name was durable.
        sync_parent(&*disk, dir)?;
        let metadata = Bytes::from(identity.encode_to_vec());
        let mut encoder = Encoder::new(0);
        encoder.checksum();
        encoder.metadata(&metadata);
        encoder.snapshot(&walpb::Snapshot::default());

        let mut spare = Spare::without_leftovers(&*disk, dir)?;
        let name = Name { sequence: 0, index: 0 };
        let bytes = options.segment_bytes;
        let tail = spare.publish(&*disk, dir, bytes, name, encoder.pending())?;
        let tail_offset = encoder.pending().len() as u64;
        encoder.clear(BUFFER_BYTES_KEPT);
        let mut wal = Self {
            disk,
            dir: dir.to_owned(),
            options,
            metadata,
            older: Vec::new(),
            tail,
            tail_offset,
            spare,
            encoder,
            last_index: 0,
            hard_state: None,
            unsynced: false,
            failed: None,
            stats: Stats::default(),
        };
        wal.prepare_spare();
        Ok(wal)
    }

    /// Opens the log in `dir` and reads what follows `start`, with etcd's sizes.
    ///
    /// The snapshot mark of `start` must be in the log. A torn tail is cut, after a copy of the segment was kept with
    /// the suffix `.broken`. Everything behind the end of the log is zeroed, durably, so that nothing old can be taken
    /// for new later.
    pub fn recover(
        disk: Arc<dyn Disk>,
        dir: &Path,
        start: Start,
    ) -> Result<(Self, Recovered), Fault> {
        Self::recover_with(disk, dir, start, Options::default())
    }

    /// [`Self::recover`] with other sizes.
    pub fn recover_with(
        disk: Arc<dyn Disk>,
        dir: &Path,
        start: Start,
        options: Options,
    ) -> Result<(Self, Recovered), Fault> {
        recover::recover(disk, dir, start, options)
    }

    /// Appends entries, in order, and then the hard state unless it is empty, to the buffer. An entry replaces any
    /// earlier one with the same or a higher index. Nothing is durable before [`Self::sync`].
    pub fn append(
        &mut self,
        entries: &[raftpb::Entry],
        hard_state: Option<&raftpb::HardState>,
    ) -> Result<(), Fault> {
        self.unless_failed(|wal| {
            for entry in entries {
                wal.encoder.entry(entry);
                wal.last_index = entry.index;
                if wal.encoder.pending().len() >= BUFFER_BYTES_MAX {
                    wal.write_pending()?;
                }
            }
            if let Some(state) = hard_state.filter(|s| **s != raftpb::HardState::default()) {
                wal.encoder.state(state);
                wal.hard_state = Some(*state);
            }
            wal.cut_if_full()
        })
    }

    /// Appends the mark of a snapshot whose `.snap` file is durable. A sync has to follow before anything relies on it.
    pub fn append_snapshot_mark(&mut self, mark: &walpb::Snapshot) -> Result<(), Fault> {
        assert!(
            mark.index == 0 || mark.conf_state.is_some(),
            "the mark of a snapshot above index 0 says who votes"
        );
        self.unless_failed(|wal| {
            wal.encoder.snapshot(mark);
            wal.last_index = wal.last_index.max(mark.index);
            wal.cut_if_full()
        })
    }

    /// Hands everything appended to the disk, with one write.
    pub fn flush(&mut self) -> Result<(), Fault> {
        self.unless_failed(Self::write_pending)
    }

    /// Makes everything appended durable.
    pub fn sync(&mut self) -> Result<(), Fault> {
        self.unless_failed(|wal| {
            wal.write_pending()?;
            wal.sync_tail()
        })
    }

    /// Lets go of segments that are not needed to read on from `index`, and removes the oldest of those while there are
    /// more than [`Options::segments_max`]. What was appended is made durable before anything goes.
    pub fn release_to(&mut self, index: u64) -> Result<(), Fault> {
        // One segment more than needed stays, as in etcd.
        let reaches = |segment: &Segment| segment.name.index >= index;
        let first_above = match self.older.iter().position(reaches) {
            None if !reaches(&self.tail) => self.older.len() + 1,
            None => self.older.len(),
            Some(position) => position,
        };
        self.older.drain(..first_above.saturating_sub(1));
        self.unless_failed(Self::remove_released)
    }

    /// Where the log stands.
    pub fn stats(&self) -> Stats {
        Stats {
            sequence: self.tail.name.sequence,
            segment_used_bytes: self.end(),
            last_index: self.last_index,
            ..self.stats
        }
    }

    fn unless_failed(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if let Some(fault) = &self.failed {
            return Err(fault.clone());
        }
        let result = work(self);
        if let Err(fault) = &result {
            self.failed = Some(fault.clone());
        }
        result
    }

    /// Where the next record will begin.
    fn end(&self) -> u64 {
        self.tail_offset + self.encoder.pending().len() as u64
    }

    fn write_pending(&mut self) -> Result<(), Fault> {
        let pending = self.encoder.pending();
        if pending.is_empty() {
            return Ok(());
        }
        self.tail
            .file
            .write_all_at(self.tail_offset, pending)
            .or_fault("write", &self.tail.path)?;
        let written = pending.len() as u64;
        self.tail_offset += written;
        self.stats.written_bytes += written;
        self.stats.writes += 1;
        self.unsynced = true;
        self.encoder.clear(BUFFER_BYTES_KEPT);
        Ok(())
    }

    fn sync_tail(&mut self) -> Result<(), Fault> {
        #[cfg(feature = "planted-faults")]
        if crate::fault_hooks::is_planted(crate::fault_hooks::Planted::SkippedSync) {
            self.unsynced = false;
        }
        if self.unsynced {
            self.tail.file.sync_data().or_fault("sync", &self.tail.path)?;
            self.stats.syncs += 1;
            self.unsynced = false;
        }
        Ok(())
    }

    fn cut_if_full(&mut self) -> Result<(), Fault> {
        if self.end() >= self.options.segment_bytes { self.cut() } else { Ok(()) }
    }

    /// Ends the segment in use and begins the next. The old one is durable before the new one has its name.
    fn cut(&mut self) -> Result<(), Fault> {
        self.write_pending()?;
        let used = self.tail_offset;
        self.tail.file.set_len(used).or_fault("shorten", &self.tail.path)?;
        self.unsynced = true;
        self.sync_tail()?;

        self.encoder.checksum();
        self.encoder.metadata(&self.metadata);
        if let Some(state) = &self.hard_state {
            self.encoder.state(state);
        }
        let head = self.encoder.pending();
        let Some(name) = self.tail.name.next(self.last_index) else {
            let remedy = "remove this member and add it again with an empty data directory";
            return Err(Fault::unusable(&self.tail.path, "its number has no successor", remedy));
        };
        let bytes = self.options.segment_bytes;
        let next = self.spare.publish(&*self.disk, &self.dir, bytes, name, head)?;
        self.older.push(std::mem::replace(&mut self.tail, next));
        self.tail_offset = head.len() as u64;
        self.stats.written_bytes += self.tail_offset;
        self.stats.writes += 1;
        self.stats.syncs += 1;
        self.stats.cuts += 1;
        self.encoder.clear(BUFFER_BYTES_KEPT);
        self.prepare_spare();
        Ok(())
    }

    /// Without a spare the log still works: the next cut tries again, and only then it is a fault.
    fn prepare_spare(&mut self) {
        let prepared = self.spare.prepare(&*self.disk, &self.dir, self.options.segment_bytes);
        if let Err(fault) = prepared {
            tracing::warn!(%fault, "no space is reserved for the next log segment");
        }
    }

    fn remove_released(&mut self) -> Result<(), Fault> {
        let max = self.options.segments_max;
        if max == 0 {
            return Ok(());
        }
        let names = segment::list(&*self.disk, &self.dir)?;
        let held = self.older.first().unwrap_or(&self.tail).name.sequence;
        let surplus = names.len().saturating_sub(max);
        let released: Vec<_> =
            names.iter().take(surplus).filter(|name| name.sequence < held).collect();
        if !released.is_empty() {
            // The mark that makes them superfluous may be among what is not durable yet.
            self.write_pending()?;
            self.sync_tail()?;
        }
        let mut removed = 0;
        for name in released {
            let path = self.dir.join(name.to_string());
            self.disk.remove_file(&path).or_fault("remove", &path)?;
            removed += 1;
        }
        if removed > 0 {
            self.disk.sync_dir(&self.dir).or_fault("sync", &self.dir)?;
        }
        self.stats.removed += removed;
        Ok(())
    }
}
