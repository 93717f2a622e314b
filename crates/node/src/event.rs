//! What goes into a node. The shell and the simulator make these; [`crate::Node::handle`] is the only consumer.

use std::time::Duration;

use bytes::Bytes;
use proto::raftpb;

/// Names a waiting caller; opaque to the node. The shell puts its serving thread and slot into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// Time since the process started, from a clock that never goes back.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Now(pub Duration);

/// One thing that happened to the member.
#[derive(Debug)]
pub enum Event {
    /// Time has passed. Due every [`crate::RaftConfig::tick`]; late or missing ticks only delay.
    Tick {
        /// The time.
        now: Now,
    },
    /// Requests to put into the log, one batch per hand-over of a serving thread.
    Propose(Vec<Proposal>),
    /// A change of the membership.
    ProposeConfChange {
        /// `data` is an encoded `raftpb.ConfChange` whose id equals the proposal's.
        proposal: Proposal,
        /// The learner that gets a vote by it: only the leader can tell whether it is ready.
        promotes: Option<u64>,
    },
    /// Asks this member, which leads, to let another one lead; answered by [`crate::Answer::LeaderMoved`].
    MoveLeader {
        /// Who waits.
        token: Token,
        /// The member that is to lead.
        to: u64,
    },
    /// Linearizable reads that wait for a read index, one batch per hand-over.
    Read(Vec<Token>),
    /// Lease requests that the leader answers from memory.
    Lease(Vec<LeaseRequest>),
    /// Messages from other members, already validated by the peer door.
    Step(Vec<raftpb::Message>),
    /// Messages to another member get lost.
    PeerUnreachable {
        /// Its id.
        peer: u64,
    },
    /// A snapshot of the leader, whose database was made a backend beside the present one; answered by
    /// [`crate::Answer::SnapshotInstalled`]. The next one may come when this one is answered.
    InstallSnapshot {
        /// Who waits.
        token: Token,
        /// The leader's message.
        message: Box<raftpb::Message>,
        /// The state it brings.
        prepared: Box<Prepared>,
    },
    /// A snapshot has reached its receiver, or has not. Follows each message with a snapshot.
    SnapshotSent {
        /// The receiver.
        peer: u64,
        /// Whether it has taken it.
        is_done: bool,
    },
    /// Another member's process is gone: its streams broke off, and nobody listens where it did.
    PeerLost {
        /// Its id.
        peer: u64,
    },
    /// All other members were asked for their release; only a leader has them asked.
    PeerVersions {
        /// The lowest answer; `None` if there was not one from each.
        lowest: Option<machine::membership::Version>,
    },
    /// Another member says that this one was removed from the cluster, which is final.
    ToldRemoved {
        /// Its id.
        by: u64,
    },
    /// The WAL thread carried out all jobs up to and including `job`.
    WalDone {
        /// The last job carried out.
        job: u64,
        /// A fault means that nothing since the last report may be durable.
        result: Result<(), storage::Fault>,
    },
    /// Entries were read back ([`crate::Effects::log_reads`]).
    LogRead {
        /// The first index that was asked for.
        index: u64,
        /// What is there; nothing if the log has been cut above it.
        result: Result<Vec<raftpb::Entry>, storage::Fault>,
    },
    /// The backend thread carried out a job.
    BackendDone(machine::BackendDone),
    /// Asks for the backend's file to be rewritten without its free space; answered by [`crate::Answer::Defragmented`].
    Defragment(Token),
    /// Asks for an orderly end: leadership is given away if possible, then [`crate::Effects::stop`] is set.
    Stop,
}

/// One request for the log.
#[derive(Debug)]
pub struct Proposal {
    /// Who waits for the outcome.
    pub token: Token,
    /// The request id, unique in the cluster ([`crate::RequestIds`]), equal to `header.ID` inside `data`.
    pub id: u64,
    /// An encoded `InternalRaftRequest`.
    pub data: Bytes,
}

/// One lease request answered from the primary's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRequest {
    /// Who waits for the answer.
    pub token: Token,
    /// What is asked.
    pub kind: LeaseRequestKind,
}

/// What a [`LeaseRequest`] asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseRequestKind {
    /// Renew the lease.
    KeepAlive {
        /// The lease.
        id: i64,
    },
    /// Tell the remaining time, and the attached keys if asked.
    TimeToLive {
        /// The lease.
        id: i64,
        /// Whether to list its keys.
        keys: bool,
    },
    /// List all leases.
    Leases,
}

/// The state that a snapshot of the leader brings.
#[derive(Debug)]
pub struct Prepared {
    /// What was recovered of it.
    pub machine: machine::Machine,
    /// Its backend, in a file beside the present one.
    pub backend: storage::backend::Backend,
}
