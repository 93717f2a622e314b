//! The part of the log that is in memory: what raft reads when it replicates, applies and votes.
//!
//! Holds all entries that are not applied yet, and below those as many as followers may want to catch up with, bounded
//! by count and by bytes ([`Log::trim`]). What is durable is the WAL's business; this is filled as soon as entries are
//! handed to the WAL thread.

use std::cell::Cell;
use std::collections::VecDeque;

use prost::Message as _;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, StorageError};

/// How much more than usual the log may hold for a follower that is being sent a snapshot.
const HELD_FACTOR: usize = 4;

/// The log from a starting point on.
///
/// Invariant: `entries` have consecutive indexes from `start.index + 1` on.
#[derive(Debug)]
pub(super) struct Log {
    start: Position,
    entries: VecDeque<Entry>,
    bytes: usize,
    initial: RaftState,
    /// What a follower is offered that needs entries from before `start`: applied here, and not before `start`.
    offer: Snapshot,
    /// Set when such a follower was there and the offer was too old.
    wants_offer: Cell<bool>,
    /// An index from which on entries stay for a follower that is being sent a snapshot.
    held_from: Option<u64>,
}

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// The entry's index.
    pub(crate) index: u64,
    /// Its term.
    pub(crate) term: u64,
}

impl Log {
    /// Makes a log that begins behind `start`, with what raft starts from.
    pub(super) fn new(start: Position, hard_state: HardState, conf_state: ConfState) -> Self {
        let initial = RaftState { hard_state, conf_state };
        Self {
            start,
            entries: VecDeque::new(),
            bytes: 0,
            initial,
            offer: Snapshot::default(),
            wants_offer: Cell::new(false),
            held_from: None,
        }
    }

    /// Tells whether a follower needs a snapshot, and there is none to offer. Asks once.
    pub(super) fn takes_offer(&self) -> bool {
        self.wants_offer.take()
    }

    /// Offers a snapshot at `position`, which is applied, with the configuration as of there.
    pub(super) fn offer(&mut self, position: Position, conf_state: ConfState) {
        let metadata = self.offer.mut_metadata();
        metadata.index = position.index;
        metadata.term = position.term;
        metadata.conf_state = Some(conf_state);
    }

    /// Keeps entries behind `index` for a follower, or none especially.
    pub(super) fn hold(&mut self, index: Option<u64>) {
        self.held_from = index;
    }

    /// Forgets all entries: a snapshot at `position` has taken their place.
    pub(super) fn restart_at(&mut self, position: Position) {
        self.start = position;
        self.entries.clear();
        self.bytes = 0;
    }

    /// Returns the position behind which the log begins.
    pub(super) fn start(&self) -> Position {
        self.start
    }

    /// Returns the index of the last entry.
    pub(super) fn last(&self) -> u64 {
        self.start.index + self.entries.len() as u64
    }

    /// Returns the bytes of data held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends consecutive entries, replacing those from the first one's index on.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            self.start.index < first.index && first.index <= self.last() + 1,
            "raft hands out entries that join the log"
        );
        while self.last() >= first.index {
            let dropped = self.entries.pop_back();
            self.bytes -= dropped.map_or(0, |entry| cost(&entry));
        }
        for entry in entries {
            self.bytes += cost(entry);
            self.entries.push_back(entry.clone());
        }
    }

    /// Drops entries at or below `applied` from the front while there are more than `entries_max` of them, or the log
    /// holds more than `bytes_max`. For a follower that is being sent a snapshot entries are held, up to
    /// [`HELD_FACTOR`] times `bytes_max`: one that takes longer needs another snapshot.
    pub(super) fn trim(&mut self, applied: u64, entries_max: u64, bytes_max: usize) {
        let held_from = self.held_from.unwrap_or(u64::MAX);
        while self.start.index < applied
            && (applied - self.start.index > entries_max || self.bytes > bytes_max)
            && (self.start.index < held_from || self.bytes > bytes_max.saturating_mul(HELD_FACTOR))
        {
            let Some(entry) = self.entries.pop_front() else { return };
            self.bytes -= cost(&entry);
            self.start = Position { index: entry.index, term: entry.term };
        }
    }

    /// Returns the term of the entry at `index`, if the log knows it.
    pub(super) fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        self.get(index).map(|entry| entry.term)
    }

    fn get(&self, index: u64) -> Option<&Entry> {
        let offset = index.checked_sub(self.start.index + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }
}

/// What an entry counts against the bound on bytes.
fn cost(entry: &Entry) -> usize {
    size_of::<Entry>() + entry.data.len() + entry.context.len()
}

impl raft::Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.start.index {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let mut size = 0;
        let mut found = Vec::new();
        for entry in (low..high).map_while(|index| self.get(index)) {
            size += entry.encoded_len() as u64;
            if size > max_size && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn term(&self, idx: u64) -> raft::Result<u64> {
        if idx < self.start.index {
            return Err(StorageError::Compacted.into());
        }
        self.term_of(idx).ok_or_else(|| StorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.start.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// Offers the newest snapshot that joins the log. Its database is made when it is sent, at this index or a later one.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let index = self.offer.get_metadata().index;
        if index == 0 || index < self.start.index || index < request_index {
            self.wants_offer.set(true);
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        Ok(self.offer.clone())
    }
}

#[cfg(test)]
mod tests {
    use raft::Storage as _;

    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: "0123456789".into(), ..Entry::default() }
    }

    fn log(last: u64) -> Log {
        let mut log =
            Log::new(Position { index: 0, term: 0 }, HardState::default(), ConfState::default());
        log.append(&(1..=last).map(|index| entry(index, 1)).collect::<Vec<_>>());
        log
    }

    #[test]
    fn appending_replaces_from_the_first_index_on() {
        let mut log = log(5);
        log.append(&[entry(3, 2)]);
        assert_eq!(log.last(), 3);
        assert_eq!(log.term_of(3), Some(2));
        assert_eq!(log.bytes(), 3 * cost(&entry(1, 1)));
    }

    #[test]
    fn trimming_keeps_what_is_not_applied() {
        let mut log = log(10);
        log.trim(6, 2, usize::MAX);
        assert_eq!(log.start(), Position { index: 4, term: 1 });
        log.trim(6, 2, 0);
        assert_eq!(log.start(), Position { index: 6, term: 1 });
        assert_eq!(log.last(), 10);
        assert_eq!(log.term(6).ok(), Some(1));
        assert!(log.term(5).is_err());
        assert_eq!(log.bytes(), 4 * cost(&entry(1, 1)));
    }

    #[test]
    fn a_follower_that_needs_a_snapshot_is_offered_one_that_joins_the_log() {
        let mut log = log(10);
        assert!(!log.takes_offer());
        assert!(log.snapshot(0, 2).is_err());
        assert!(log.takes_offer() && !log.takes_offer());
        log.offer(Position { index: 6, term: 1 }, ConfState::default());
        assert_eq!(log.snapshot(0, 2).map(|offer| offer.get_metadata().index).ok(), Some(6));
        assert!(log.snapshot(7, 2).is_err() && log.takes_offer());
        log.hold(Some(6));
        log.trim(9, 1, usize::MAX);
        assert_eq!(log.start().index, 6, "held");
        assert!(log.snapshot(0, 2).is_ok());
        log.trim(9, 1, 0);
        assert_eq!(log.start().index, 9, "not at any price");
        assert!(log.snapshot(0, 2).is_err(), "it does not join any more");
    }

    #[test]
    fn reads_are_limited_by_size_but_never_empty() {
        let log = log(10);
        let read = |max| log.entries(2, 9, max, GetEntriesContext::empty(false)).map(|e| e.len());
        assert_eq!(read(None).ok(), Some(7));
        assert_eq!(read(Some(0)).ok(), Some(1));
        assert_eq!(read(Some(2 * entry(2, 1).encoded_len() as u64)).ok(), Some(2));
        assert!(log.entries(2, 12, None, GetEntriesContext::empty(false)).is_err());
    }
}
