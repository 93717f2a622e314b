//! What the machine counts. The core keeps the figures; the shell reads them, under etcd's metric
//! names.

use std::sync::atomic::{AtomicU64, Ordering};

/// Figures since the start, counted by the write side and all readers. None of them guards
/// anything: order does not matter.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    puts: AtomicU64,
    put_bytes: AtomicU64,
    deletes: AtomicU64,
    ranges: AtomicU64,
    txns: AtomicU64,
    events: AtomicU64,
    compactions: AtomicU64,
    compacted_records: AtomicU64,
    compaction_steps: AtomicU64,
    commits: AtomicU64,
    committed_records: AtomicU64,
}

impl Counters {
    /// Adds what one transaction of the store did. As in etcd, where every command is one: it counts as a transaction if
    /// it did more than one thing.
    pub(crate) fn transaction(&self, done: Operations) {
        let Operations { ranges, puts, put_bytes, deletes, events } = done;
        add(&self.ranges, ranges);
        add(&self.puts, puts);
        add(&self.put_bytes, put_bytes);
        add(&self.deletes, deletes);
        add(&self.events, events);
        add(&self.txns, u64::from(ranges + puts + deletes > 1));
    }

    pub(crate) fn range(&self) {
        add(&self.ranges, 1);
    }

    pub(crate) fn compaction_step(&self, removed: u64, is_last: bool) {
        add(&self.compaction_steps, 1);
        add(&self.compacted_records, removed);
        add(&self.compactions, u64::from(is_last));
    }

    pub(crate) fn commit(&self, records: u64) {
        add(&self.commits, 1);
        add(&self.committed_records, records);
    }

    /// Adds what another state has counted, whose place this one takes.
    pub(crate) fn go_on_from(&self, before: &Self) {
        let before = before.snapshot();
        for (counter, amount) in [
            (&self.puts, before.puts),
            (&self.put_bytes, before.put_bytes),
            (&self.deletes, before.deletes),
            (&self.ranges, before.ranges),
            (&self.txns, before.txns),
            (&self.events, before.events),
            (&self.compactions, before.compactions),
            (&self.compacted_records, before.compacted_records),
            (&self.compaction_steps, before.compaction_steps),
            (&self.commits, before.commits),
            (&self.committed_records, before.committed_records),
        ] {
            add(counter, amount);
        }
    }

    /// Reads the counters into a snapshot whose other figures are 0.
    pub(crate) fn snapshot(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            puts: get(&self.puts),
            put_bytes: get(&self.put_bytes),
            deletes: get(&self.deletes),
            ranges: get(&self.ranges),
            txns: get(&self.txns),
            events: get(&self.events),
            compactions: get(&self.compactions),
            compacted_records: get(&self.compacted_records),
            compaction_steps: get(&self.compaction_steps),
            commits: get(&self.commits),
            committed_records: get(&self.committed_records),
            ..Stats::default()
        }
    }
}

fn add(counter: &AtomicU64, amount: u64) {
    if amount > 0 {
        counter.fetch_add(amount, Ordering::Relaxed);
    }
}

/// What one transaction of the store did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operations {
    pub(crate) ranges: u64,
    pub(crate) puts: u64,
    pub(crate) put_bytes: u64,
    pub(crate) deletes: u64,
    pub(crate) events: u64,
}

/// Figures of the machine.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Puts applied.
    pub puts: u64,
    /// Bytes of their keys and values.
    pub put_bytes: u64,
    /// Range deletions applied, whatever they deleted; a revoked lease deletes key by key.
    pub deletes: u64,
    /// Ranges answered, those of compares and former records among them.
    pub ranges: u64,
    /// Commands that did more than one thing.
    pub txns: u64,
    /// Changes made, which are what watchers see.
    pub events: u64,
    /// Compactions carried out to the end.
    pub compactions: u64,
    /// Records that they removed.
    pub compacted_records: u64,
    /// Steps that they took.
    pub compaction_steps: u64,
    /// Commits to the engine.
    pub commits: u64,
    /// Records that they carried.
    pub committed_records: u64,
    /// Keys that exist.
    pub keys: u64,
    /// Keys in the index, with deleted ones that have not been compacted.
    pub index_keys: u64,
    /// Records in the write-behind tail, and what they take.
    pub tail_records: u64,
    /// Bytes that the tail takes.
    pub tail_bytes: u64,
    /// Bytes of the records in the value cache.
    pub cache_bytes: u64,
    /// States of the engine that are open for reading.
    pub open_views: u64,
    /// The revision of the last change.
    pub current_revision: i64,
    /// The lowest readable revision, or −1.
    pub compact_revision: i64,
}
