//! The write-behind tail: records that have been applied and are not yet known to be durable in the
//! engine.
//!
//! A record is in the tail from its apply until the commit that carries it has been reported done;
//! readers that miss it here find it in the engine. The tail is bounded in bytes: when it is full
//! the node stops applying until a commit is done.

use std::collections::VecDeque;

use crate::{Record, Revision};

/// What an entry costs beside its record's bytes: its slot and the record's shared header.
const ENTRY_BYTES: usize = size_of::<Entry>() + 32;

/// One applied change.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) revision: Revision,
    pub(crate) is_tombstone: bool,
    /// Whether the key's former record was being read, so that this one belongs into the value cache.
    pub(crate) is_read: bool,
    pub(crate) record: Record,
}

/// Applied changes in revision order.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Entries at the front that a commit under way carries.
    handed: usize,
}

impl Tail {
    /// Appends a change; its revision is above all others.
    pub(crate) fn push(&mut self, entry: Entry) {
        debug_assert!(
            self.entries.back().is_none_or(|last| last.revision < entry.revision),
            "changes are pushed in revision order"
        );
        self.bytes += ENTRY_BYTES + entry.record.len();
        self.entries.push_back(entry);
    }

    /// Returns the record of a revision.
    pub(crate) fn get(&self, revision: Revision) -> Option<&Record> {
        self.entry(revision).map(|entry| &entry.record)
    }

    /// Returns the change of a revision.
    pub(crate) fn entry(&self, revision: Revision) -> Option<&Entry> {
        let last = self.entries.back()?;
        if revision > last.revision || revision < self.entries.front()?.revision {
            return None;
        }
        let position = self.entries.binary_search_by_key(&revision, |entry| entry.revision).ok()?;
        self.entries.get(position)
    }

    /// Returns the lowest revision; everything below it is in the engine.
    pub(crate) fn first(&self) -> Option<Revision> {
        self.entries.front().map(|entry| entry.revision)
    }

    /// Returns the changes at and after `from`.
    pub(crate) fn iter_from(&self, from: Revision) -> impl Iterator<Item = &Entry> {
        let position = self.entries.partition_point(|entry| entry.revision < from);
        self.entries.range(position..)
    }

    /// Copies up to `max` changes that no commit carries yet, and marks them as carried; tells
    /// whether some are left.
    pub(crate) fn hand_over(&mut self, max: usize, out: &mut Vec<Entry>) -> bool {
        let from = self.handed;
        self.handed = self.entries.len().min(from + max);
        out.extend(self.entries.range(from..self.handed).cloned());
        self.handed < self.entries.len()
    }

    /// Drops up to `max` changes that the commit done carried; tells whether some of `handed` are
    /// left.
    pub(crate) fn drop_handed(&mut self, max: usize) -> bool {
        for _ in 0..max.min(self.handed) {
            if let Some(entry) = self.entries.pop_front() {
                self.bytes -= ENTRY_BYTES + entry.record.len();
                self.handed -= 1;
            }
        }
        self.handed > 0
    }

    /// Returns the bytes held, with the cost of the bookkeeping.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the number of changes held.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(main: i64) -> Entry {
        Entry {
            revision: Revision::new(main, 0),
            is_tombstone: false,
            is_read: false,
            record: "r".into(),
        }
    }

    #[test]
    fn changes_leave_only_after_their_commit() {
        let mut tail = Tail::default();
        for main in 2..5 {
            tail.push(entry(main));
        }
        let mut handed = vec![];
        assert!(tail.hand_over(2, &mut handed));
        assert!(!tail.hand_over(2, &mut handed));
        assert_eq!(handed.len(), 3);
        tail.push(entry(5));
        assert!(tail.get(Revision::new(2, 0)).is_some());
        assert!(tail.drop_handed(2));
        assert!(!tail.drop_handed(9));
        assert_eq!(tail.first(), Some(Revision::new(5, 0)));
        assert_eq!((tail.len(), tail.get(Revision::new(4, 0))), (1, None));
        assert!(!tail.hand_over(9, &mut handed));
        assert_eq!(handed.last().map(|entry| entry.revision.main), Some(5));
        tail.drop_handed(1);
        assert_eq!(tail.bytes(), 0);
    }
}
