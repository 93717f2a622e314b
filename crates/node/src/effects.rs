//! What comes out of a node. The driver carries effects out; order within each list is the order of execution.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use machine::{BackendJob, EventBatch, Outcome};
use proto::{raftpb, walpb};

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
    /// Appended first: new entries, which replace any with the same or a higher index.
    pub entries: Vec<raftpb::Entry>,
    /// Appended after the entries.
    pub hard_state: Option<raftpb::HardState>,
    /// A raft snapshot's `.snap` file to write before, and the WAL record to append last.
    pub snapshot: Option<(raftpb::Snapshot, walpb::Snapshot)>,
    /// Whether a sync must precede [`crate::Event::WalDone`].
    pub must_sync: bool,
    /// Segments that only hold entries at or below this index may go.
    pub release_to: Option<u64>,
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
