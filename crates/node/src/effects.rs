//! What comes out of a node. The driver carries effects out; order within each list is the order of execution.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use machine::{BackendJob, EventBatch, Outcome};
use proto::{raftpb, walpb};
use storage::Fault;
use storage::wal::Wal;

use crate::Token;

/// All that one [`crate::Node::handle`] or [`crate::Node::end_of_burst`] asks for.
#[derive(Debug, Default)]
pub struct Effects {
    /// For the WAL thread, in order.
    pub wal: Vec<WalJob>,
    /// For the backend thread, in order.
    pub backend: Vec<BackendJob>,
    /// For other members. What a message promises is durable when it appears here (invariant 3).
    pub messages: Vec<raftpb::Message>,
    /// What is to be read back from the WAL for followers that lag behind; a few at most.
    pub log_reads: Vec<LogRead>,
    /// Answers to waiting callers.
    pub completions: Vec<Completion>,
    /// Events of newly applied revisions, for every serving thread, in revision order.
    pub events: Vec<Arc<EventBatch>>,
    /// Whether changes come between the last of `events` and the next that no event tells of: watchers read them from
    /// history.
    pub events_lost: bool,
    /// Set once, when the member has to end.
    pub stop: Option<Stop>,
}

/// One unit of work for the WAL thread. Jobs that queue up are written together and synced once.
#[derive(Debug, Default)]
pub struct WalJob {
    /// Counts up by one from 1; reported back by [`crate::Event::WalDone`].
    pub job: u64,
    /// New entries, which replace any with the same or a higher index.
    pub entries: Vec<raftpb::Entry>,
    /// The hard state after them.
    pub hard_state: Option<raftpb::HardState>,
    /// A raft snapshot's `.snap` file to write before all else, and its WAL record.
    pub snapshot: Option<(raftpb::Snapshot, walpb::Snapshot)>,
    /// Whether a sync must precede [`crate::Event::WalDone`].
    pub must_sync: bool,
    /// Segments that only hold entries at or below this index may go.
    pub release_to: Option<u64>,
}

impl WalJob {
    /// Appends the job to the log; the `.snap` file is written already, and a sync has to follow.
    ///
    /// A crash may leave any part of it that comes first, and each such part has to be a log. So the mark of a leader's
    /// snapshot comes before the hard state by which it counts, and before entries, which would not follow on anything without
    /// it; and the hard state that stands between the two speaks of no entry that is still to come.
    pub fn append_to(&self, wal: &mut Wal) -> Result<(), Fault> {
        if let Some((_, mark)) = &self.snapshot {
            wal.append_snapshot_mark(mark)?;
            if let Some(state) = self.hard_state.filter(|_| !self.entries.is_empty()) {
                let commit = state.commit.min(mark.index);
                wal.append(&[], Some(&raftpb::HardState { commit, ..state }))?;
            }
        }
        wal.append(&self.entries, self.hard_state.as_ref())?;
        self.release_to.map_or(Ok(()), |index| wal.release_to(index))
    }
}

/// Committed entries to be read back, with [`storage::wal::read_entries`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRead {
    /// The first index, and the one behind the last.
    pub range: Range<u64>,
    /// About how many bytes are wanted; one entry in any case.
    pub bytes_max: usize,
}

/// The answer to one waiting caller.
#[derive(Debug)]
pub struct Completion {
    /// Whom it is for.
    pub token: Token,
    /// The answer.
    pub answer: Answer,
}

/// What a caller gets.
#[derive(Debug)]
pub enum Answer {
    /// The proposal was committed and applied here.
    Applied(Outcome),
    /// The read may go ahead: everything acknowledged before it was asked for is applied here.
    ReadReady,
    /// A keep-alive: the granted ttl in seconds, 0 when the lease is unknown; and `header.revision`, taken before.
    KeptAlive {
        /// The granted ttl, or 0.
        ttl: i64,
        /// The store's revision before the renewal.
        revision: i64,
    },
    /// A lease's times in seconds; ttl −1 when unknown.
    TimeToLive {
        /// What remains, or −1.
        ttl: i64,
        /// The granted ttl, or 0.
        granted_ttl: i64,
        /// Attached keys, unordered.
        keys: Vec<Bytes>,
    },
    /// All leases by remaining time.
    Leases(LeaseIds),
    /// The backend's file was rewritten.
    Defragmented,
    /// The other member leads.
    LeaderMoved,
    /// The snapshot's state is that of this member.
    SnapshotInstalled,
    /// There is no answer.
    Failed(Failure),
}

/// A list of leases, shared by all who asked for it at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseIds(Arc<[i64]>);

impl From<Vec<i64>> for LeaseIds {
    fn from(ids: Vec<i64>) -> Self {
        Self(ids.into())
    }
}

impl std::ops::Deref for LeaseIds {
    type Target = [i64];

    fn deref(&self) -> &[i64] {
        &self.0
    }
}

impl IntoIterator for LeaseIds {
    type Item = i64;
    type IntoIter = LeaseIdsIter;

    fn into_iter(self) -> LeaseIdsIter {
        LeaseIdsIter { ids: self, next: 0 }
    }
}

/// Goes through [`LeaseIds`].
#[derive(Debug)]
pub struct LeaseIdsIter {
    ids: LeaseIds,
    next: usize,
}

impl Iterator for LeaseIdsIter {
    type Item = i64;

    fn next(&mut self) -> Option<i64> {
        let id = self.ids.get(self.next).copied()?;
        self.next += 1;
        Some(id)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.ids.len() - self.next;
        (left, Some(left))
    }
}

/// Why a caller gets no answer. Texts and codes are the shell's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Proposals in flight are at their bound by count or bytes, as many bytes of the log are not durable or not
    /// committed, or applying lags by more than 5,000 entries.
    TooManyRequests,
    /// No result in time.
    TimedOut,
    /// No result in time, and the leader failed meanwhile.
    TimedOutLeaderFail,
    /// No result in time, and the quorum was out of reach.
    TimedOutConnectionLost,
    /// The leader changed during a read.
    LeaderChanged,
    /// There is no leader.
    NoLeader,
    /// Only the leader can do this, and this member does not lead.
    NotLeader,
    /// The member that was to lead is no voter of the cluster.
    NoTransferee,
    /// The other member did not begin to lead in time.
    TransferTimedOut,
    /// The snapshot brings nothing new, or is none for this member.
    SnapshotNotTaken,
    /// The learner that was to get a vote is too far behind.
    LearnerNotReady,
    /// The learner that was to get a vote is no member.
    MemberNotFound,
    /// The lease is not ours to answer for any more.
    NotPrimary,
    /// The disk did not let the backend's file be rewritten: it is as it was, and the log says why.
    DefragmentGivenUp,
    /// The member is stopping.
    Stopped,
}

/// Why a member ends.
#[derive(Debug)]
pub enum Stop {
    /// It was asked to.
    Asked,
    /// The cluster removed it.
    Removed,
    /// Its own disk or data failed: nothing more is acknowledged.
    Fault(machine::Fault),
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use storage::mem::MemDisk;
    use storage::{Disk, wal};

    use super::*;

    const DIR: &str = "wal";
    const SEGMENT: &str = "wal/0000000000000000-0000000000000000.wal";
    const OPTIONS: wal::Options = wal::Options { segment_bytes: 1 << 16, segments_max: 5 };

    fn entries(range: Range<u64>, term: u64) -> Vec<raftpb::Entry> {
        let entry = |index| raftpb::Entry { index, term, ..Default::default() };
        range.map(entry).collect()
    }

    /// Where each record ends between two offsets of a segment.
    fn ends(bytes: &[u8], from: u64, to: u64) -> Vec<u64> {
        let mut ends = vec![from];
        while let Some(at) = ends.last().copied().filter(|at| *at < to) {
            let head = usize::try_from(at).expect("a short segment");
            let length = bytes[head..head + 8].try_into().expect("eight bytes");
            let length = u64::from_le_bytes(length);
            let padding = if length >> 63 == 1 { length >> 56 & 7 } else { 0 };
            ends.push(at + 8 + (length & ((1 << 56) - 1)) + padding);
        }
        assert_eq!(ends.last(), Some(&to));
        ends
    }

    #[test]
    fn each_beginning_of_an_install_is_a_log() {
        // Ahead of the log, and in the place of an entry of another term.
        for index in [8, 5] {
            let disk = MemDisk::new();
            let identity = proto::etcdserverpb::Metadata { node_id: 1, cluster_id: 2 };
            let shared: Arc<dyn Disk> = Arc::new(disk.clone());
            let mut log = Wal::create_with(shared, Path::new(DIR), identity, OPTIONS).expect("new");
            let state = raftpb::HardState { term: 1, vote: 1, commit: 3 };
            log.append(&entries(1..6, 1), Some(&state)).expect("room");
            log.sync().expect("a disk");
            let from = log.stats().segment_used_bytes;
            let conf_state = Some(raftpb::ConfState { voters: vec![1], ..Default::default() });
            let mark = walpb::Snapshot { index, term: 2, conf_state };
            let job = WalJob {
                entries: entries(index + 1..index + 3, 2),
                hard_state: Some(raftpb::HardState { term: 2, vote: 0, commit: index + 1 }),
                snapshot: Some((raftpb::Snapshot::default(), mark.clone())),
                ..WalJob::default()
            };
            job.append_to(&mut log).expect("room");
            log.sync().expect("a disk");
            let whole = disk.contents(Path::new(SEGMENT)).expect("it was written");
            let ends = ends(&whole, from, log.stats().segment_used_bytes);
            assert_eq!(ends.len(), 6, "a mark, a state, two entries, a state");
            for (written, end) in ends.into_iter().enumerate() {
                let mut bytes = whole.clone();
                bytes[usize::try_from(end).expect("short")..].fill(0);
                let disk = MemDisk::new();
                disk.insert(Path::new(SEGMENT), bytes);
                let newest = wal::newest_snapshot_mark(&disk, Path::new(DIR)).expect("marks");
                let start = newest.unwrap_or_default();
                let counts = written >= 2;
                assert_eq!(start.index, if counts { index } else { 0 }, "{written} records");
                let disk = Arc::new(disk);
                let recovered =
                    Wal::recover_with(disk, Path::new(DIR), wal::Start::from(&start), OPTIONS);
                let (_, recovered) = recovered.unwrap_or_else(|fault| panic!("{written}: {fault}"));
                let last = recovered.entries.last().map_or(start.index, |entry| entry.index);
                let expected = [5, 5, index, index + 1, index + 2, index + 2][written];
                assert_eq!(last, expected, "{written} records of an install at {index}");
            }
        }
    }
}
