//! One pass over all keys for a compaction or a hash, in bounded chunks.

use super::history::Change;
use super::keep::{Collector, Keep};

/// The state of a pass at a revision: how far it came and what survives.
///
/// The index may be written to between two chunks, as long as the new changes are above the revision, which the store's
/// clock makes sure of; it must not be compacted by another pass.
#[derive(Debug)]
pub(crate) struct Sweep {
    at: i64,
    record_max: i64,
    keeps_tombstones: bool,
    /// Keys below are done.
    from: Vec<u8>,
    done: bool,
    kept: Collector,
    kept_len: usize,
}

impl Sweep {
    /// A pass for a compaction: a tombstone exactly at `at` survives, as since etcd 3.5.16.
    pub(crate) fn for_compaction(at: i64) -> Self {
        Self {
            at,
            record_max: at,
            keeps_tombstones: true,
            from: Vec::new(),
            done: false,
            kept: Collector::default(),
            kept_len: 0,
        }
    }

    /// A pass for `HashKV` at `at`: tombstones do not survive, so that versions before and after 3.5.16 agree.
    pub(crate) fn for_hash(at: i64) -> Self {
        Self { keeps_tombstones: false, ..Self::for_compaction(at) }
    }

    /// Counts survivors above main revision `max`, but does not record them: a hash asks only for those up to the compact
    /// revision.
    pub(crate) fn recording_up_to(self, max: i64) -> Self {
        Self { record_max: max, ..self }
    }

    /// Whether all keys have been visited.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// The survivors.
    pub(crate) fn finish(self) -> Keep {
        assert!(self.done, "a sweep is finished after it has visited all keys");
        self.kept.finish(self.kept_len)
    }

    pub(super) fn at(&self) -> i64 {
        self.at
    }

    pub(super) fn from(&self) -> &[u8] {
        &self.from
    }

    pub(super) fn keep(&mut self, selected: Change) {
        if selected.tombstone && !self.keeps_tombstones {
            return;
        }
        self.kept_len += 1;
        if selected.revision.main <= self.record_max {
            self.kept.push(selected.revision);
        }
    }

    /// Takes what comes at the same revision behind a tombstone that was selected: a hash has the value at the end only.
    pub(super) fn keep_behind(&mut self, also: &[Change]) {
        let from = if self.keeps_tombstones { 0 } else { also.len().saturating_sub(1) };
        for change in &also[from..] {
            self.keep(*change);
        }
    }

    /// Notes that all keys below `to`, or all there are, have been visited.
    pub(super) fn advance(&mut self, to: Option<Vec<u8>>) {
        match to {
            Some(to) => self.from = to,
            None => self.done = true,
        }
    }
}
