//! Sets of revisions that a compaction keeps, small enough to hold one for millions of keys: about two bytes each.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::varint;
use crate::mvcc::revision::Revision;

/// Revisions sorted and packed at a time. Packing one run takes about 0.2 ms, under the caller's lock.
const RUN_MAX: usize = 8 * 1024;
const HAS_SUB: u8 = 1;

/// The revisions that survive a compaction, immutable and cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Keep {
    /// Ascending; main as difference to the one before with flag `HAS_SUB`, then sub if flagged.
    packed: Arc<Vec<u8>>,
    len: usize,
}

impl Keep {
    /// How many revisions survive, also those above the recorded maximum (see [`super::Sweep::recording_up_to`]).
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing survives. `HashKV` then hashes everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A cursor for look-ups in ascending order.
    pub(crate) fn cursor(&self) -> KeepCursor {
        let mut cursor = KeepCursor { keep: self.clone(), at: 0, current: None };
        cursor.current = cursor.read(Revision::default());
        cursor
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(crate) fn memory_bytes(&self) -> usize {
        self.packed.capacity()
    }
}

/// Answers look-ups in ascending order in O(1) each; owns its part of the set, so that a pass may hold it across threads.
#[derive(Debug, Clone)]
pub(crate) struct KeepCursor {
    keep: Keep,
    at: usize,
    current: Option<Revision>,
}

impl KeepCursor {
    /// Whether `revision` survives. Revisions must be asked for in ascending order; one may be asked for again.
    pub(crate) fn contains(&mut self, revision: Revision) -> bool {
        while let Some(current) = self.current {
            if current >= revision {
                return current == revision;
            }
            self.current = self.read(current);
        }
        false
    }

    fn read(&mut self, before: Revision) -> Option<Revision> {
        read(&self.keep.packed, &mut self.at, before)
    }
}

impl Iterator for KeepCursor {
    type Item = Revision;

    fn next(&mut self) -> Option<Revision> {
        let current = self.current?;
        self.current = self.read(current);
        Some(current)
    }
}

/// Collects revisions in any order.
#[derive(Debug, Default)]
pub(super) struct Collector {
    run: Vec<Revision>,
    packed: Vec<Vec<u8>>,
}

impl Collector {
    pub(super) fn push(&mut self, revision: Revision) {
        self.run.push(revision);
        if self.run.len() == RUN_MAX {
            self.pack();
        }
    }

    /// Makes the set. `len` counts also what was not collected.
    pub(super) fn finish(mut self, len: usize) -> Keep {
        self.pack();
        let mut packed = match self.packed.len() {
            0 | 1 => self.packed.pop().unwrap_or_default(),
            _ => merge(&self.packed),
        };
        packed.shrink_to_fit();
        Keep { packed: Arc::new(packed), len }
    }

    fn pack(&mut self) {
        if self.run.is_empty() {
            return;
        }
        self.run.sort_unstable();
        let mut out = Vec::with_capacity(self.run.len() * 2);
        let mut before = Revision::default();
        for revision in self.run.drain(..) {
            write(&mut out, before, revision);
            before = revision;
        }
        out.shrink_to_fit();
        self.packed.push(out);
    }
}

fn merge(runs: &[Vec<u8>]) -> Vec<u8> {
    let mut positions = vec![0; runs.len()];
    let mut heads = BinaryHeap::with_capacity(runs.len());
    for (run, packed) in runs.iter().enumerate() {
        heads.extend(
            read(packed, &mut positions[run], Revision::default()).map(|r| Reverse((r, run))),
        );
    }
    let mut out = Vec::with_capacity(runs.iter().map(Vec::len).sum());
    let mut before = Revision::default();
    while let Some(Reverse((revision, run))) = heads.pop() {
        write(&mut out, before, revision);
        before = revision;
        heads.extend(read(&runs[run], &mut positions[run], revision).map(|r| Reverse((r, run))));
    }
    out
}

fn write(out: &mut Vec<u8>, before: Revision, revision: Revision) {
    let flags = if revision.sub == 0 { 0 } else { HAS_SUB };
    varint::write_flagged(out, flags, revision.main.wrapping_sub(before.main).cast_unsigned());
    if revision.sub != 0 {
        varint::write(out, revision.sub.cast_unsigned());
    }
}

fn read(packed: &[u8], at: &mut usize, before: Revision) -> Option<Revision> {
    if *at == packed.len() {
        return None;
    }
    let (flags, main) = varint::read_flagged(packed, at);
    let sub = if flags & HAS_SUB == 0 { 0 } else { varint::read(packed, at).cast_signed() };
    Some(Revision::new(before.main.wrapping_add(main.cast_signed()), sub))
}
