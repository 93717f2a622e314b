//! The part of the log that takes memory and cannot be let go: not durable here, or not committed.
//!
//! Whoever proposed it may have given up waiting long ago: after the timeout, entries stay in raft and in the queue of the
//! WAL thread. While the disk hangs or a majority does not answer, only what is counted here bounds them.

use std::collections::VecDeque;

use proto::raftpb;

/// Bytes that an entry takes besides its data, in raft and in the queue of the WAL thread.
const ENTRY_BYTES: usize = 256;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Unsettled {
    /// In the order in which they were handed out.
    parts: VecDeque<Part>,
    /// Of all parts.
    bytes: usize,
    /// The last WAL job that is confirmed.
    durable: u64,
}

/// The entries of one WAL job.
#[derive(Debug)]
struct Part {
    job: u64,
    /// The last of its entries that is not replaced.
    last: u64,
    bytes: usize,
}

impl Unsettled {
    /// Counts entries that are handed to the WAL thread. They replace those at their indexes and behind, which raft
    /// forgets, while the queue of the WAL thread does not.
    pub(crate) fn add(&mut self, job: u64, entries: &[raftpb::Entry]) {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
        for part in &mut self.parts {
            part.last = part.last.min(first.index.saturating_sub(1));
        }
        let bytes = entries.iter().map(|entry| ENTRY_BYTES + entry.data.len()).sum();
        self.parts.push_back(Part { job, last: last.index, bytes });
        self.bytes += bytes;
    }

    /// Notes that all up to `job` is durable.
    pub(crate) fn persisted(&mut self, job: u64) {
        self.durable = self.durable.max(job);
    }

    /// Forgets what is durable, and committed now that `committed` is.
    pub(crate) fn settle(&mut self, committed: u64) {
        let durable = self.durable;
        let is_settled = |part: &mut Part| part.job <= durable && part.last <= committed;
        while let Some(part) = self.parts.pop_front_if(is_settled) {
            self.bytes -= part.bytes;
        }
    }

    /// Returns the bytes that are counted.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(indexes: std::ops::RangeInclusive<u64>) -> Vec<raftpb::Entry> {
        let data = bytes::Bytes::from_static(&[0; 44]);
        indexes
            .map(|index| raftpb::Entry { r#type: 0, term: 1, index, data: data.clone() })
            .collect()
    }

    #[test]
    fn what_is_durable_and_committed_is_not_counted() {
        let mut log = Unsettled::default();
        log.add(1, &entries(1..=2));
        log.add(2, &entries(3..=3));
        log.add(3, &[]);
        assert_eq!(log.bytes(), 900);
        log.settle(3);
        assert_eq!(log.bytes(), 900, "committed by others, not durable here");
        log.persisted(1);
        log.settle(1);
        assert_eq!(log.bytes(), 900, "durable, not committed");
        log.settle(2);
        assert_eq!(log.bytes(), 300);
        log.persisted(3);
        log.settle(3);
        assert_eq!(log.bytes(), 0);
    }

    #[test]
    fn entries_that_are_replaced_count_until_they_have_left_the_queue() {
        let mut log = Unsettled::default();
        log.add(1, &entries(1..=5));
        log.add(2, &entries(3..=3));
        log.settle(3);
        assert_eq!(log.bytes(), 1800);
        log.persisted(1);
        log.settle(2);
        assert_eq!(log.bytes(), 300, "entries 4 and 5 will never be committed");
        log.persisted(2);
        log.settle(3);
        assert_eq!(log.bytes(), 0);
    }
}
