//! The log as raft reads it when it replicates, applies and votes.
//!
//! Its newer part is in memory: all entries that are not applied yet, and below those as many as fit within a bound on bytes. Of its
//! older part, which followers may want to catch up with, only the terms are here; its entries are in the WAL and are
//! read back when a follower needs them ([`Log::take_wanted`], [`Log::fetched`]). The log begins where the bound on
//! the number of entries lets it begin ([`Log::trim`]). What is durable is the WAL's business; this is filled as soon as
//! entries are handed to the WAL thread.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Range;

use prost::Message as _;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, StorageError};

/// Bytes of entries that are read back at a time. The WAL is read from the beginning of a segment: small pieces cost as much
/// as large ones.
pub(crate) const FETCH_BYTES: usize = 8 << 20;

/// Pieces that are kept for followers to take from; the oldest one goes first.
const PIECES_MAX: usize = 2;

/// Followers that wait for a piece; one beyond asks again with its next heartbeat.
const WANTED_MAX: usize = 8;

/// The log from a starting point on.
///
/// Invariant: `start.index` ≤ `base.index`, `terms` covers what is between them, and `entries` have consecutive indexes from
/// `base.index + 1` on.
#[derive(Debug)]
pub(super) struct Log {
    start: Position,
    /// Where the part in memory begins.
    base: Position,
    /// Terms of the entries behind `start` up to `base`: from which index on, by ascending index.
    terms: VecDeque<Position>,
    entries: VecDeque<Entry>,
    bytes: usize,
    /// What was read back, each without a gap.
    pieces: VecDeque<Vec<Entry>>,
    /// Who waits for what to be read back.
    wanted: RefCell<Vec<Wanted>>,
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

/// An entry that raft needs and that is not in memory.
#[derive(Debug)]
struct Wanted {
    index: u64,
    context: GetEntriesContext,
    is_asked: bool,
}

impl Log {
    /// Makes a log that begins behind `start`, with what raft starts from.
    pub(super) fn new(start: Position, hard_state: HardState, conf_state: ConfState) -> Self {
        let initial = RaftState { hard_state, conf_state };
        Self {
            start,
            base: start,
            terms: VecDeque::new(),
            entries: VecDeque::new(),
            bytes: 0,
            pieces: VecDeque::new(),
            wanted: RefCell::default(),
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
        self.base = position;
        self.terms.clear();
        self.entries.clear();
        self.bytes = 0;
        self.forget_pieces();
    }

    /// Drops what was read back, and who waits for it: there is nobody to send it to.
    pub(super) fn forget_pieces(&mut self) {
        self.pieces.clear();
        self.wanted.get_mut().clear();
    }

    /// Returns the position behind which the log begins.
    pub(super) fn start(&self) -> Position {
        self.start
    }

    /// Returns the index of the last entry.
    pub(super) fn last(&self) -> u64 {
        self.base.index + self.entries.len() as u64
    }

    /// Counts the entries in memory.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the bytes of data held, without what was read back.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends consecutive entries, replacing those from the first one's index on.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            self.base.index < first.index && first.index <= self.last() + 1,
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

    /// Drops entries at or below `applied` from memory, where they are more than `bytes_max`; and lets the log begin later
    /// where there are more than `entries_max` of them. What is held for a follower that is being sent a snapshot stays
    /// readable, but not in memory.
    pub(super) fn trim(&mut self, applied: u64, entries_max: u64, bytes_max: usize) {
        while self.base.index < applied && self.bytes > bytes_max {
            self.let_go();
        }
        let held_from = self.held_from.unwrap_or(u64::MAX);
        let first = applied.saturating_sub(entries_max).min(held_from);
        self.begin_at(first);
    }

    /// Drops the oldest entry from memory; its term stays.
    fn let_go(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.bytes -= cost(&entry);
        self.base = Position { index: entry.index, term: entry.term };
        if self.terms.back().is_none_or(|run| run.term != entry.term) {
            self.terms.push_back(self.base);
        }
    }

    /// Lets the log begin behind `index`, unless it does so later already.
    fn begin_at(&mut self, index: u64) {
        if index <= self.start.index {
            return;
        }
        let Some(term) = self.term_of(index) else { return };
        while self.base.index < index {
            self.let_go();
        }
        self.start = Position { index, term };
        // The run that the next entry belongs to stays.
        while self.terms.get(1).is_some_and(|next| next.index <= index + 1) {
            self.terms.pop_front();
        }
        if self.base.index == index {
            self.terms.clear();
        }
        self.pieces.retain(|piece| piece.last().is_some_and(|entry| entry.index > index));
    }

    /// Returns the term of the entry at `index`, if the log knows it.
    pub(super) fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        if index < self.start.index {
            return None;
        }
        if index <= self.base.index {
            let behind = self.terms.partition_point(|run| run.index <= index);
            return Some(self.terms.get(behind.checked_sub(1)?)?.term);
        }
        self.get(index).map(|entry| entry.term)
    }

    fn get(&self, index: u64) -> Option<&Entry> {
        let offset = index.checked_sub(self.base.index + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// Takes what is to be read back, each once: from which index on, and up to where.
    pub(super) fn take_wanted(&mut self) -> Vec<Range<u64>> {
        let end = self.base.index + 1;
        let mut wanted = Vec::new();
        for each in self.wanted.get_mut().iter_mut().filter(|each| !each.is_asked) {
            each.is_asked = true;
            wanted.push(each.index..end);
        }
        wanted
    }

    /// Takes what was read back from `index` on; none, if the WAL does not have it any more, and then the log begins where its
    /// part in memory does. Returns who has waited for it.
    pub(super) fn fetched(&mut self, index: u64, entries: Vec<Entry>) -> Vec<GetEntriesContext> {
        let waiting = self.wanted.get_mut().extract_if(.., |each| each.index == index);
        let waiting: Vec<GetEntriesContext> = waiting.map(|each| each.context).collect();
        let joins = (index..).zip(&entries).all(|(expected, entry)| {
            entry.index == expected && self.term_of(entry.index) == Some(entry.term)
        });
        if entries.is_empty() || !joins {
            if index > self.start.index {
                self.begin_at(self.base.index);
            }
        } else if !waiting.is_empty() {
            if self.pieces.len() >= PIECES_MAX {
                self.pieces.pop_front();
            }
            self.pieces.push_back(entries);
        }
        waiting
    }

    /// Returns entries that were read back, from `low` on.
    fn piece(&self, low: u64) -> Option<&[Entry]> {
        self.pieces.iter().rev().find_map(|piece| {
            let offset = low.checked_sub(piece.first()?.index)?;
            piece.get(usize::try_from(offset).ok()?..).filter(|rest| !rest.is_empty())
        })
    }

    /// Notes that `index` has to be read back for `context`.
    fn want(&self, index: u64, context: GetEntriesContext) {
        let mut wanted = self.wanted.borrow_mut();
        if wanted.len() < WANTED_MAX && wanted.iter().all(|each| each.index != index) {
            wanted.push(Wanted { index, context, is_asked: false });
        }
    }
}

/// What an entry counts against the bound on bytes.
fn cost(entry: &Entry) -> usize {
    size_of::<Entry>() + entry.data.len() + entry.context.len()
}

/// Takes entries while they are not more than `max_size` bytes, but at least one.
fn limited<'a>(entries: impl Iterator<Item = &'a Entry>, max_size: u64) -> Vec<Entry> {
    let mut size = 0;
    let mut found = Vec::new();
    for entry in entries {
        size += entry.encoded_len() as u64;
        if size > max_size && !found.is_empty() {
            break;
        }
        found.push(entry.clone());
    }
    found
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
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.start.index {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let max_size = max_size.into().unwrap_or(u64::MAX);
        if low > self.base.index {
            return Ok(limited((low..high).map_while(|index| self.get(index)), max_size));
        }
        if let Some(piece) = self.piece(low) {
            return Ok(limited(piece.iter().take_while(|entry| entry.index < high), max_size));
        }
        if !context.can_async() {
            // Only what is sent to followers is looked for so far back.
            return Err(StorageError::Unavailable.into());
        }
        self.want(low, context);
        Err(StorageError::LogTemporarilyUnavailable.into())
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

    fn read(log: &Log, low: u64, can_async: bool) -> Result<Vec<u64>, raft::Error> {
        let entries = log.entries(low, 9, None, GetEntriesContext::empty(can_async))?;
        Ok(entries.iter().map(|entry| entry.index).collect())
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
        assert_eq!(log.start(), Position { index: 4, term: 1 }, "the rest is in the WAL");
        assert_eq!((log.last(), log.len()), (10, 4));
        assert_eq!(log.bytes(), 4 * cost(&entry(1, 1)));
        log.trim(6, 0, 0);
        assert_eq!(log.start(), Position { index: 6, term: 1 });
        assert_eq!(log.term(6).ok(), Some(1));
        assert!(log.term(5).is_err());
    }

    #[test]
    fn terms_are_known_of_what_is_not_in_memory() {
        let mut log = log(2);
        let terms = [1, 1, 3, 3, 3, 4, 7, 7];
        log.append(&(3..).zip(&terms[2..]).map(|(i, term)| entry(i, *term)).collect::<Vec<_>>());
        for first in 0..8 {
            log.trim(7, 7 - first.min(7), 0);
            let known: Vec<_> = (0..=9).map(|index| log.term_of(index)).collect();
            let expected: Vec<_> = (0..=9_u64)
                .map(|index| match index {
                    _ if index < first.min(7) => None,
                    0 => Some(0),
                    _ => {
                        usize::try_from(index - 1).ok().and_then(|place| terms.get(place).copied())
                    }
                })
                .collect();
            assert_eq!(known, expected, "from {first} on");
        }
        assert_eq!(log.len(), 1);
        assert!(log.terms.is_empty());
    }

    #[test]
    fn what_is_not_in_memory_is_read_back_once_for_all_who_wait() {
        let mut log = log(10);
        log.trim(6, 6, 0);
        assert_eq!(read(&log, 7, true).ok(), Some(vec![7, 8]));
        assert!(read(&log, 2, false).is_err() && log.take_wanted().is_empty());
        for _ in 0..2 {
            let refused = read(&log, 2, true).expect_err("it is not here");
            assert_eq!(refused, StorageError::LogTemporarilyUnavailable.into());
        }
        assert!(log.take_wanted().into_iter().eq([2_u64].map(|low| low..7)));
        assert!(log.take_wanted().is_empty(), "it is being read");
        assert_eq!(log.fetched(2, vec![entry(2, 1), entry(3, 1)]).len(), 1);
        assert_eq!(read(&log, 2, true).ok(), Some(vec![2, 3]));
        assert_eq!(read(&log, 3, false).ok(), Some(vec![3]));
        assert!(read(&log, 4, true).is_err());
        assert!(log.take_wanted().into_iter().eq([4_u64].map(|low| low..7)));
        log.forget_pieces();
        assert_eq!(log.fetched(4, vec![entry(4, 1)]).len(), 0, "nobody waits any more");
        assert!(read(&log, 4, true).is_err());
    }

    #[test]
    fn what_the_wal_does_not_have_any_more_is_before_the_log() {
        for answer in [vec![], vec![entry(3, 1)], vec![entry(2, 9)]] {
            let mut log = log(10);
            log.trim(6, 6, 0);
            assert!(read(&log, 2, true).is_err());
            assert_eq!(log.fetched(2, answer).len(), 1);
            assert_eq!(log.start(), Position { index: 6, term: 1 });
            let refused = read(&log, 2, true).expect_err("it is before the log");
            assert_eq!(refused, StorageError::Compacted.into());
        }
    }

    #[test]
    fn only_so_much_is_read_back_at_a_time() {
        let mut log = log(20);
        log.trim(15, 15, 0);
        for index in 1..=15 {
            assert!(read(&log, index, true).is_err());
        }
        let wanted = log.take_wanted();
        assert_eq!(wanted.len(), WANTED_MAX);
        for range in wanted {
            log.fetched(range.start, vec![entry(range.start, 1)]);
        }
        assert_eq!(log.pieces.len(), PIECES_MAX);
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
        log.trim(9, 1, 0);
        assert_eq!((log.start().index, log.len()), (6, 1), "not in memory");
        assert!(log.snapshot(0, 2).is_ok());
        log.hold(None);
        log.trim(9, 1, 0);
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
