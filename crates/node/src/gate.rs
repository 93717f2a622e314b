//! What the node publishes for threads that do not want to ask it.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};

/// Where the member stands, readable from any thread. Values are published together at the end of each burst but read
/// one by one: a reader may see some of them older than others.
#[derive(Debug)]
pub struct Gate {
    member: u64,
    cluster: u64,
    term: AtomicU64,
    leader: AtomicU64,
    is_learner: AtomicBool,
    committed: AtomicU64,
    applied: AtomicU64,
    applied_term: AtomicU64,
    is_lone_leader: AtomicBool,
    is_announced: AtomicBool,
    alarms: AtomicU8,
    leader_changes: AtomicU64,
    pending_proposals: AtomicU64,
    finished_compaction: AtomicI64,
}

/// What the node publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) term: u64,
    pub(crate) leader: u64,
    pub(crate) is_learner: bool,
    pub(crate) committed: u64,
    pub(crate) applied: u64,
    pub(crate) applied_term: u64,
    pub(crate) is_lone_leader: bool,
    pub(crate) is_announced: bool,
    pub(crate) alarms: Alarms,
    pub(crate) pending_proposals: u64,
    pub(crate) finished_compaction: i64,
}

/// Which alarms are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Alarms {
    pub(crate) has_no_space: bool,
    pub(crate) is_corrupt: bool,
}

const NO_SPACE: u8 = 1;
const CORRUPT: u8 = 2;

impl Gate {
    pub(crate) fn new(member: u64, cluster: u64) -> Self {
        Self {
            member,
            cluster,
            term: AtomicU64::new(0),
            leader: AtomicU64::new(0),
            is_learner: AtomicBool::new(false),
            committed: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            applied_term: AtomicU64::new(0),
            is_lone_leader: AtomicBool::new(false),
            is_announced: AtomicBool::new(false),
            alarms: AtomicU8::new(0),
            leader_changes: AtomicU64::new(0),
            pending_proposals: AtomicU64::new(0),
            finished_compaction: AtomicI64::new(-1),
        }
    }

    pub(crate) fn publish(&self, state: Published) {
        let leader_before = self.leader.swap(state.leader, Ordering::Relaxed);
        if state.leader != 0 && leader_before != state.leader {
            self.leader_changes.fetch_add(1, Ordering::Relaxed);
        }
        self.term.store(state.term, Ordering::Relaxed);
        self.is_learner.store(state.is_learner, Ordering::Relaxed);
        self.committed.store(state.committed, Ordering::Relaxed);
        self.applied_term.store(state.applied_term, Ordering::Relaxed);
        self.applied.store(state.applied, Ordering::Release);
        self.pending_proposals.store(state.pending_proposals, Ordering::Relaxed);
        self.finished_compaction.store(state.finished_compaction, Ordering::Release);
        let alarms = if state.alarms.has_no_space { NO_SPACE } else { 0 }
            | if state.alarms.is_corrupt { CORRUPT } else { 0 };
        self.alarms.store(alarms, Ordering::Relaxed);
        self.is_announced.store(state.is_announced, Ordering::Release);
        // Sequentially consistent: it is false before this node does anything that lets another one lead.
        self.is_lone_leader.store(state.is_lone_leader, Ordering::SeqCst);
    }

    /// Returns this member's id.
    pub fn member(&self) -> u64 {
        self.member
    }

    /// Returns the cluster's id.
    pub fn cluster(&self) -> u64 {
        self.cluster
    }

    /// Returns the term.
    pub fn term(&self) -> u64 {
        self.term.load(Ordering::Relaxed)
    }

    /// Returns the leader's id, 0 when there is none.
    pub fn leader(&self) -> u64 {
        self.leader.load(Ordering::Relaxed)
    }

    /// Tells whether this member leads.
    pub fn is_leader(&self) -> bool {
        self.leader() == self.member
    }

    /// Tells whether this member follows without a vote.
    pub fn is_learner(&self) -> bool {
        self.is_learner.load(Ordering::Relaxed)
    }

    /// Tells whether name and client URLs of this member went through the log since the start: then all that was
    /// acknowledged before the start is applied here.
    pub fn is_announced(&self) -> bool {
        self.is_announced.load(Ordering::Acquire)
    }

    /// Returns the commit index.
    pub fn commit_index(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    /// Returns the applied index: a `Reader` shows at least its effects.
    pub fn applied_index(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Returns the term of the applied entry.
    pub fn applied_term(&self) -> u64 {
        self.applied_term.load(Ordering::Relaxed)
    }

    /// Tells whether a NOSPACE alarm is set.
    pub fn has_no_space(&self) -> bool {
        self.alarms.load(Ordering::Relaxed) & NO_SPACE != 0
    }

    /// Tells whether a CORRUPT alarm is set.
    pub fn is_corrupt(&self) -> bool {
        self.alarms.load(Ordering::Relaxed) & CORRUPT != 0
    }

    /// Counts the leaders seen since the start.
    pub fn leader_changes(&self) -> u64 {
        self.leader_changes.load(Ordering::Relaxed)
    }

    /// Counts the proposals that wait for their outcome.
    pub fn pending_proposals(&self) -> u64 {
        self.pending_proposals.load(Ordering::Relaxed)
    }

    /// Returns the revision up to which compactions have been carried out on the disk, or −1.
    pub fn finished_compaction(&self) -> i64 {
        self.finished_compaction.load(Ordering::Acquire)
    }

    /// Tells whether a read of what is applied here is linearizable without asking anyone: this member is the only voter and
    /// leads, so whatever was acknowledged to anyone was committed here before; and all that is committed is applied.
    pub fn reads_need_no_round(&self) -> bool {
        self.is_lone_leader.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_can_be_read() {
        let gate = Gate::new(7, 8);
        assert_eq!(
            (gate.leader(), gate.is_leader(), gate.reads_need_no_round()),
            (0, false, false)
        );
        let state = Published {
            term: 3,
            leader: 7,
            is_learner: false,
            committed: 12,
            applied: 11,
            applied_term: 2,
            is_lone_leader: true,
            is_announced: true,
            alarms: Alarms { has_no_space: false, is_corrupt: true },
            pending_proposals: 4,
            finished_compaction: 5,
        };
        gate.publish(state);
        assert!(gate.is_leader() && gate.reads_need_no_round() && gate.is_corrupt());
        assert!(gate.is_announced());
        assert!(!gate.has_no_space());
        assert_eq!((gate.term(), gate.commit_index(), gate.applied_index()), (3, 12, 11));
        gate.publish(Published { leader: 0, ..state });
        gate.publish(Published { leader: 9, ..state });
        assert_eq!(gate.leader_changes(), 2);
    }
}
