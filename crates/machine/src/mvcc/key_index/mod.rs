//! The key index: which keys there are, and the revisions at which each changed.
//!
//! An ordered map from key to history, made for memory: keys lie prefix-compressed in blocks of bytes with their
//! histories (`leaf.rs`, `history.rs`), below a B+tree that counts (`tree.rs`). A key that was written once costs its
//! own bytes, less what it shares with its neighbour, and about eight.
//!
//! Guarantees: the semantics of etcd's index, compaction included (see [`Sweep`]); `put`, `tombstone`, `get` and the count
//! of live keys in a range are O(log n), whatever the length of the histories; memory goes back as keys go.
//!
//! Left to others: locks, the store's clock, the records themselves. Revisions must be written in ascending order.

mod history;
mod keep;
mod leaf;
mod sweep;
mod tree;
mod varint;

#[cfg(test)]
mod scripts;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

pub(crate) use keep::KeepCursor;
pub(crate) use sweep::Sweep;

use crate::mvcc::revision::Revision;
use history::{Change, Histories};
use leaf::{Write, Written};
use tree::Child;

/// An ordered map from key to history.
#[derive(Debug, Default)]
pub(crate) struct KeyIndex {
    root: Child,
    histories: Histories,
    /// The newest revision written.
    newest: Revision,
    /// All keys, also dead ones that have not been compacted.
    keys: usize,
}

/// A key as a reader at a revision sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// The last put.
    pub(crate) modified: Revision,
    /// Main revision of the put that created the key.
    pub(crate) created: i64,
    /// Puts since then, that one included.
    pub(crate) version: i64,
}

/// What a put did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Put {
    /// Main revision of the put that created the key: this one's if `previous` is `None`.
    pub(crate) created: i64,
    /// Puts since then, this one included.
    pub(crate) version: i64,
    /// The key's last put before, if it was alive.
    pub(crate) previous: Option<Revision>,
}

/// The end of a range of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End<'a> {
    /// No end.
    Unbounded,
    /// The first key that is not in the range.
    Before(&'a [u8]),
}

/// A change of a key as read back from the backend.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Restored<'a> {
    /// The key.
    pub(crate) key: &'a [u8],
    /// When it changed.
    pub(crate) revision: Revision,
    /// The record's create revision; of a tombstone, anything.
    pub(crate) created: i64,
    /// The record's version; of a tombstone, anything.
    pub(crate) version: i64,
    /// Whether this is a tombstone.
    pub(crate) tombstone: bool,
}

/// Records were not read back in ascending order of revision, or with a negative one: the backend is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("revision {}_{} after {}_{}", revision.main, revision.sub, newest.main, newest.sub)]
pub(crate) struct OutOfOrder {
    revision: Revision,
    newest: Revision,
}

/// How far a read of a range goes at once.
#[derive(Debug)]
struct Walk {
    /// How many keys may still be looked at.
    left: usize,
    /// Where to go on, if they did not suffice.
    next: Option<Vec<u8>>,
}

impl Walk {
    fn of(keys: usize) -> Self {
        Self { left: keys, next: None }
    }

    fn look_at(&mut self, keys: usize) {
        self.left = self.left.saturating_sub(keys);
    }

    /// Goes on with the child at `place` of those that the range touches, unless the walk is over: then the next one
    /// begins at its `low`.
    fn enter(&mut self, place: usize, low: &[u8]) -> ControlFlow<()> {
        if place == 0 || self.left > 0 {
            return ControlFlow::Continue(());
        }
        self.next = Some(low.to_vec());
        ControlFlow::Break(())
    }
}

/// A range read in progress.
struct Visit<'a> {
    at: i64,
    histories: &'a Histories,
    walk: Walk,
    visitor: &'a mut dyn FnMut(&[u8], Found) -> ControlFlow<()>,
    key: Vec<u8>,
}

/// A count in progress.
#[derive(Debug)]
struct Count<'a> {
    at: i64,
    histories: &'a Histories,
    walk: Walk,
    /// How many have been found.
    keys: usize,
}

impl KeyIndex {
    /// Writes a put. `revision` must be above all written before.
    pub(crate) fn put(&mut self, key: &[u8], revision: Revision) -> Put {
        self.check(revision);
        self.newest = revision;
        let written = self.write(key, revision, Write::Live { tombstone: false });
        let before = written.before.and_then(|change| change.found());
        let after = written.after.unwrap_or_else(|| Change::first(revision, false));
        Put {
            created: after.created,
            version: after.version,
            previous: before.map(|found| found.modified),
        }
    }

    /// Writes a tombstone and returns the key's last put; `None`, with nothing written, if the key is not alive.
    /// `revision` must be above all written before.
    pub(crate) fn tombstone(&mut self, key: &[u8], revision: Revision) -> Option<Revision> {
        self.check(revision);
        let written = self.write(key, revision, Write::Live { tombstone: true });
        let before = written.before?.found()?;
        self.newest = revision;
        Some(before.modified)
    }

    /// Writes a change read back from the backend. The first one of a key tells create revision and version, as those
    /// before may have been compacted. A tombstone of a key already dead is passed over.
    pub(crate) fn restore(&mut self, record: Restored<'_>) -> Result<(), OutOfOrder> {
        let Restored { key, revision, created, version, tombstone } = record;
        if revision <= self.newest && self.newest != Revision::default()
            || revision.main < 0
            || revision.sub < 0
        {
            return Err(OutOfOrder { revision, newest: self.newest });
        }
        self.newest = revision;
        let first = Change { revision, created, version, tombstone };
        self.write(key, revision, Write::Restored { first });
        Ok(())
    }

    /// What a reader of `key` at main revision `at` sees; `i64::MAX` is the current one.
    pub(crate) fn get(&self, key: &[u8], at: i64) -> Option<Found> {
        self.root.get(key, at, &self.histories)
    }

    /// Visits the keys of a range that exist at main revision `at`, in order, until told to stop or until `keys_max` keys,
    /// seen or not, and the rest of a leaf have been looked at. Returns where to go on in the latter case; when told to
    /// stop, go on at the last key with a zero byte appended.
    pub(crate) fn range(
        &self,
        start: &[u8],
        end: End<'_>,
        at: i64,
        keys_max: usize,
        mut visitor: impl FnMut(&[u8], Found) -> ControlFlow<()>,
    ) -> Option<Vec<u8>> {
        let bounds = bounds(start, end)?;
        let (walk, visitor) = (Walk::of(keys_max), &mut visitor);
        let mut visit = Visit { at, histories: &self.histories, walk, visitor, key: Vec::new() };
        // Whether the visitor or the end of the range stopped the walk is of no interest.
        let _stopped = self.root.visit(bounds, &mut visit);
        visit.walk.next
    }

    /// Counts the keys of a range that exist at main revision `at`, until `keys_max` keys and the rest of a leaf have been
    /// looked at; the second part then tells where to go on. Takes O(log n) for the current revision; for an older one it
    /// looks at the leaves that have changed since.
    pub(crate) fn count(
        &self,
        start: &[u8],
        end: End<'_>,
        at: i64,
        keys_max: usize,
    ) -> (usize, Option<Vec<u8>>) {
        let Some(bounds) = bounds(start, end) else { return (0, None) };
        let walk = Walk::of(keys_max);
        let mut count = Count { at, histories: &self.histories, walk, keys: 0 };
        let _over = self.root.count(bounds, &mut count);
        (count.keys, count.walk.next)
    }

    /// The key with `skip` keys from `start` on before it, of those that exist at main revision `at`: where an offset, or the
    /// last keys of a range, begin. As fast as [`Self::count`] of all keys at once.
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "for descending reads with a limit, which still read all of the range"
        )
    )]
    pub(crate) fn nth(&self, start: &[u8], skip: usize, at: i64) -> Option<Vec<u8>> {
        let (before, _) = self.count(b"", End::Before(start), at, usize::MAX);
        self.root.nth(before.checked_add(skip)?, at, &self.histories)
    }

    /// Keys that exist at the current revision.
    pub(crate) fn live_keys(&self) -> usize {
        self.root.live()
    }

    /// All keys, with the dead ones that have not been compacted.
    pub(crate) fn keys(&self) -> usize {
        self.keys
    }

    /// Bytes used, in all but the allocator's own book-keeping. Walks all nodes, but not the keys.
    #[cfg_attr(not(test), expect(dead_code, reason = "for a metric that is not yet exported"))]
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.root.memory_bytes() + self.histories.memory_bytes()
    }

    /// Goes on with a pass over at least `keys` keys, without changing anything. Returns whether the pass is done.
    pub(crate) fn survey(&self, sweep: &mut Sweep, keys: usize) -> bool {
        let mut seen = 0;
        while seen < keys && !sweep.is_done() {
            seen += self.root.survey(None, sweep, &self.histories).max(1);
        }
        sweep.is_done()
    }

    /// Goes on with a pass over at least `keys` keys and drops what compaction drops. Returns whether the pass is done.
    ///
    /// Until then, reads below the pass's revision see keys that were compacted and keys that were not.
    pub(crate) fn compact(&mut self, sweep: &mut Sweep, keys: usize) -> bool {
        let mut seen = 0;
        while seen < keys && !sweep.is_done() {
            let (of_leaf, removed) = self.root.compact(None, sweep, &mut self.histories);
            seen += of_leaf.max(1);
            self.keys -= removed;
        }
        if sweep.is_done() {
            self.root.collapse();
            self.histories.shrink();
        }
        sweep.is_done()
    }

    fn check(&self, revision: Revision) {
        assert!(revision > self.newest, "the store's clock gives ascending revisions");
    }

    fn write(&mut self, key: &[u8], revision: Revision, write: Write) -> Written {
        let (written, split) = self.root.write(key, revision, write, &mut self.histories);
        self.keys += usize::from(written.inserted.is_some());
        if let Some(sibling) = split {
            self.root.grow(sibling);
        }
        written
    }
}

/// `None` for an empty range.
fn bounds<'a>(start: &'a [u8], end: End<'a>) -> Option<tree::Bounds<'a>> {
    let start = (!start.is_empty()).then_some(start);
    match end {
        End::Unbounded => Some((start, None)),
        End::Before(end) if end > start.unwrap_or_default() => Some((start, Some(end))),
        End::Before(_) => None,
    }
}
