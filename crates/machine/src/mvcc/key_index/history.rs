//! The history of one key: its changes since the last compaction, packed.
//!
//! A *generation* is a run of puts, closed by a tombstone. Histories are kept flat: a change after a tombstone opens the
//! next generation, so only the first change has to carry its create revision and version (its predecessors may have
//! been compacted); those of all others follow.
//!
//! Most keys have a few changes, which live inside the leaf (inline). A history that outgrows [`INLINE_BYTES_MAX`] moves
//! to a [`Spilled`] of its own, where appending costs O(1) and a look-up O(log n). The leaf then holds its number.
//!
//! | inline history       | bytes  | present                                             |
//! |----------------------|--------|-----------------------------------------------------|
//! | create revision      | varint | `CARRIED`: the first change is no fresh put         |
//! | version              | varint | `CARRIED`                                           |
//! | first change         | token  | always; main relative to the create revision or 0   |
//! | further changes      | tokens | main relative to the change before                  |
//!
//! A token is a flagged varint (main difference; bit 0 tombstone, bit 1 sub follows) and, if so flagged, a varint sub.

use slab::Slab;

use super::{Found, varint};
use crate::mvcc::revision::Revision;

/// The history is in [`Histories`]; the leaf holds its number.
pub(super) const SPILLED: u8 = 1;
/// Create revision and version of the first change are spelled out.
pub(super) const CARRIED: u8 = 2;
/// The last change is a put.
pub(super) const ALIVE: u8 = 4;

/// Longest history inside a leaf, about 15 changes: beyond, an update of a hot key would move ever more bytes.
const INLINE_BYTES_MAX: usize = 64;
/// A spilled history returns into the leaf when this few bytes of tokens remain. Lower than the maximum, so that a key
/// at the border does not move to and fro.
const RETURN_BYTES_MAX: usize = 32;
/// Changes between two marks of a spilled history.
const MARK_EVERY: usize = 64;

const TOMBSTONE: u8 = 1;
const HAS_SUB: u8 = 2;

/// One put or tombstone of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) revision: Revision,
    /// Main revision of the generation's first put.
    pub(super) created: i64,
    /// Changes of the generation up to and with this one.
    pub(super) version: i64,
    pub(super) tombstone: bool,
}

impl Change {
    /// The first change of a key that has no history.
    pub(super) fn first(revision: Revision, tombstone: bool) -> Self {
        Self { revision, created: revision.main, version: 1, tombstone }
    }

    /// The change that follows `self` in the same key.
    pub(super) fn then(&self, revision: Revision, tombstone: bool) -> Self {
        if self.tombstone {
            return Self::first(revision, tombstone);
        }
        // Wraps because the first version of a history is whatever the disk said.
        Self { revision, created: self.created, version: self.version.wrapping_add(1), tombstone }
    }

    /// What a reader sees when this is the last change it may see.
    pub(super) fn found(&self) -> Option<Found> {
        let Self { revision: modified, created, version, tombstone } = *self;
        (!tombstone).then_some(Found { modified, created, version })
    }
}

/// A history as a leaf holds it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored<'a> {
    pub(super) flags: u8,
    pub(super) bytes: &'a [u8],
}

/// A history with a single change, or one that went through [`Histories::append`], to be put into a leaf.
#[derive(Debug, Default)]
pub(super) struct Packed {
    pub(super) flags: u8,
    pub(super) bytes: Vec<u8>,
}

impl Packed {
    /// Becomes the history that consists of `first` alone.
    pub(super) fn start(&mut self, first: &Change) {
        self.bytes.clear();
        self.flags = write_first(&mut self.bytes, first);
    }
}

/// What a compaction at a revision means to one history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Survey {
    /// The newest change at or below the revision, in the generation that the revision selects.
    pub(super) selected: Option<Change>,
    /// Changes at the revision itself behind a tombstone that was selected: a transaction may delete a key and put it again.
    pub(super) also: Vec<Change>,
    /// What remains of the history.
    pub(super) rest: Rest,
}

/// What a compaction leaves of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Everything.
    All,
    /// This change, which is not the first, and all after it, whose tokens begin at the offset.
    From(Change, usize),
    /// Nothing: the key leaves the index.
    Nothing,
}

/// The spilled histories of an index.
#[derive(Debug, Default)]
pub(super) struct Histories {
    spilled: Slab<Box<Spilled>>,
}

impl Histories {
    /// The newest change of a history.
    pub(super) fn last(&self, stored: Stored<'_>) -> Change {
        if let Some(spilled) = self.spilled(stored) {
            return spilled.last;
        }
        let mut walk = Walk::inline(stored);
        while walk.advance() {}
        walk.change
    }

    /// What a reader at main revision `at` sees.
    #[inline]
    pub(super) fn found(&self, stored: Stored<'_>, at: i64) -> Option<Found> {
        let mut walk = match self.spilled(stored) {
            None => Walk::inline(stored),
            Some(spilled) if spilled.last.revision.main <= at => return spilled.last.found(),
            Some(spilled) => spilled.walk_from(at),
        };
        let mut newest = None;
        while walk.change.revision.main <= at {
            newest = Some(walk.change);
            if !walk.advance() {
                break;
            }
        }
        newest?.found()
    }

    /// Puts `next` behind the history's last change. `out` receives what the leaf has to hold from now on.
    pub(super) fn append(
        &mut self,
        stored: Stored<'_>,
        last: &Change,
        next: &Change,
        out: &mut Packed,
    ) {
        out.bytes.clear();
        out.bytes.extend_from_slice(stored.bytes);
        out.flags = stored.flags & !ALIVE | alive(next);
        if stored.flags & SPILLED != 0 {
            self.spilled[number(stored)].push(*next);
            return;
        }
        write_token(&mut out.bytes, last.revision.main, next);
        if out.bytes.len() > INLINE_BYTES_MAX {
            let mut spilled = Spilled::copy_of(Walk::inline(stored));
            spilled.push(*next);
            self.spill(spilled, out);
        }
    }

    /// Says what a compaction at main revision `at` keeps. The generation selected is the first that ends at or after
    /// `at`, else the open one at the end; in it, everything before the newest change at or below `at` goes. Whatever comes
    /// behind it at `at` itself is kept; etcd deletes these records, and with them what lives.
    pub(super) fn survey(&self, stored: Stored<'_>, at: i64) -> Survey {
        let (mut walk, skipped) = match self.spilled(stored) {
            None => (Walk::inline(stored), false),
            // Changes before a mark strictly below `at` can be neither selected nor remain.
            Some(spilled) => {
                let mark = spilled.mark_before(at.saturating_sub(1));
                (Walk::spilled(spilled, mark), mark > 0)
            }
        };
        let mut is_first = !skipped;
        let mut opens_generation = true;
        let nothing = Survey { selected: None, also: Vec::new(), rest: Rest::Nothing };
        let mut survey = nothing.clone();
        loop {
            let change = walk.change;
            let is_old = change.revision.main <= at;
            if opens_generation || is_old {
                survey.rest = if is_first { Rest::All } else { Rest::From(change, walk.next) };
                survey.selected = is_old.then_some(change);
            }
            let is_closed_at_or_after = change.tombstone && change.revision.main >= at;
            if !is_old {
                return survey;
            }
            if is_closed_at_or_after {
                while walk.advance() && walk.change.revision.main == at {
                    survey.also.push(walk.change);
                }
                return survey;
            }
            opens_generation = change.tombstone;
            if change.tombstone {
                survey = nothing.clone();
            }
            is_first = false;
            if !walk.advance() {
                return survey;
            }
        }
    }

    /// Drops what `rest` does not name. `out` receives what the leaf has to hold from now on.
    pub(super) fn trim(
        &mut self,
        stored: Stored<'_>,
        first: Change,
        next: usize,
        out: &mut Packed,
    ) {
        if stored.flags & SPILLED == 0 {
            out.start(&first);
            out.bytes.extend_from_slice(&stored.bytes[next..]);
            out.flags = out.flags & !ALIVE | stored.flags & ALIVE;
            return;
        }
        let number = number(stored);
        let spilled = &mut self.spilled[number];
        spilled.trim(first, next);
        if spilled.tokens.len() > RETURN_BYTES_MAX {
            out.bytes.clear();
            out.bytes.extend_from_slice(stored.bytes);
            out.flags = stored.flags;
        } else {
            let spilled = self.spilled.remove(number);
            out.start(&first);
            out.bytes.extend_from_slice(&spilled.tokens);
            out.flags = out.flags & !ALIVE | stored.flags & ALIVE;
        }
    }

    /// Forgets a history.
    pub(super) fn remove(&mut self, stored: Stored<'_>) {
        if stored.flags & SPILLED != 0 {
            self.spilled.remove(number(stored));
        }
    }

    /// Gives back what removed histories used.
    pub(super) fn shrink(&mut self) {
        self.spilled.shrink_to_fit();
    }

    /// Bytes on the heap, nearly.
    pub(super) fn memory_bytes(&self) -> usize {
        let table = self.spilled.capacity() * (size_of::<Box<Spilled>>() + size_of::<usize>());
        table + self.spilled.iter().map(|(_, spilled)| spilled.memory_bytes()).sum::<usize>()
    }

    fn spilled(&self, stored: Stored<'_>) -> Option<&Spilled> {
        (stored.flags & SPILLED != 0).then(|| &*self.spilled[number(stored)])
    }

    fn spill(&mut self, spilled: Spilled, out: &mut Packed) {
        out.flags = SPILLED | alive(&spilled.last);
        out.bytes.clear();
        varint::write_len(&mut out.bytes, self.spilled.insert(Box::new(spilled)));
    }
}

/// A long history.
#[derive(Debug)]
struct Spilled {
    /// Invariant: not empty; the first mark is the first change, the others lie about [`MARK_EVERY`] changes apart.
    marks: Vec<Mark>,
    /// All changes but the first.
    tokens: Vec<u8>,
    last: Change,
    /// Changes after the last mark.
    unmarked: usize,
}

/// A change and where the tokens of its successors begin.
#[derive(Debug, Clone, Copy)]
struct Mark {
    change: Change,
    next: usize,
}

impl Spilled {
    fn copy_of(mut walk: Walk<'_>) -> Self {
        let first = walk.change;
        let mut spilled = Self {
            marks: vec![Mark { change: first, next: 0 }],
            tokens: Vec::new(),
            last: first,
            unmarked: 0,
        };
        while walk.advance() {
            spilled.push(walk.change);
        }
        spilled
    }

    fn push(&mut self, next: Change) {
        write_token(&mut self.tokens, self.last.revision.main, &next);
        self.last = next;
        self.unmarked += 1;
        if self.unmarked == MARK_EVERY {
            self.marks.push(Mark { change: next, next: self.tokens.len() });
            self.unmarked = 0;
        }
    }

    fn trim(&mut self, first: Change, next: usize) {
        self.tokens.drain(..next);
        self.tokens.shrink_to_fit();
        self.marks.retain(|mark| mark.next > next);
        for mark in &mut self.marks {
            mark.next -= next;
        }
        self.marks.insert(0, Mark { change: first, next: 0 });
        self.marks.shrink_to_fit();
    }

    /// The last mark at or below `at`, else the first.
    fn mark_before(&self, at: i64) -> usize {
        self.marks.partition_point(|mark| mark.change.revision.main <= at).saturating_sub(1)
    }

    fn walk_from(&self, at: i64) -> Walk<'_> {
        Walk::spilled(self, self.mark_before(at))
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.tokens.capacity() + self.marks.capacity() * size_of::<Mark>()
    }
}

/// A walk over the changes of a history, oldest first.
#[derive(Debug)]
struct Walk<'a> {
    change: Change,
    bytes: &'a [u8],
    /// Where the tokens of the changes after `change` begin.
    next: usize,
}

impl<'a> Walk<'a> {
    #[inline]
    fn inline(stored: Stored<'a>) -> Self {
        let bytes = stored.bytes;
        let mut next = 0;
        let carried = (stored.flags & CARRIED != 0).then(|| {
            let created = varint::read(bytes, &mut next).cast_signed();
            (created, varint::read(bytes, &mut next).cast_signed())
        });
        let base = carried.map_or(0, |(created, _)| created);
        let (revision, tombstone) = read_token(bytes, &mut next, base);
        let (created, version) = carried.unwrap_or((revision.main, 1));
        Self { change: Change { revision, created, version, tombstone }, bytes, next }
    }

    fn spilled(spilled: &'a Spilled, mark: usize) -> Self {
        let Mark { change, next } = spilled.marks[mark];
        Self { change, bytes: &spilled.tokens, next }
    }

    #[inline]
    fn advance(&mut self) -> bool {
        if self.next == self.bytes.len() {
            return false;
        }
        let (revision, tombstone) =
            read_token(self.bytes, &mut self.next, self.change.revision.main);
        self.change = self.change.then(revision, tombstone);
        true
    }
}

fn number(stored: Stored<'_>) -> usize {
    varint::read_len(stored.bytes, &mut 0)
}

fn alive(change: &Change) -> u8 {
    if change.tombstone { 0 } else { ALIVE }
}

/// Returns the flags of a history of this one change. A tombstone needs no create revision and version: nothing is found
/// there, and what follows is a new generation.
fn write_first(out: &mut Vec<u8>, first: &Change) -> u8 {
    let is_fresh = first.created == first.revision.main && first.version == 1;
    if is_fresh || first.tombstone {
        write_token(out, 0, first);
        return alive(first);
    }
    varint::write(out, first.created.cast_unsigned());
    varint::write(out, first.version.cast_unsigned());
    write_token(out, first.created, first);
    CARRIED | ALIVE
}

fn write_token(out: &mut Vec<u8>, base: i64, change: &Change) {
    let Revision { main, sub } = change.revision;
    let flags = if change.tombstone { TOMBSTONE } else { 0 } | if sub == 0 { 0 } else { HAS_SUB };
    // Wraps because the create revision on the disk may be anything.
    varint::write_flagged(out, flags, main.wrapping_sub(base).cast_unsigned());
    if sub != 0 {
        varint::write(out, sub.cast_unsigned());
    }
}

#[inline]
fn read_token(bytes: &[u8], at: &mut usize, base: i64) -> (Revision, bool) {
    let (flags, main) = varint::read_flagged(bytes, at);
    let sub = if flags & HAS_SUB == 0 { 0 } else { varint::read(bytes, at).cast_signed() };
    (Revision::new(base.wrapping_add(main.cast_signed()), sub), flags & TOMBSTONE != 0)
}
