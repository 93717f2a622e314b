//! What applying an entry, or reading, yields: replies that are equal on every member, and
//! refusals.

use bytes::Bytes;
use proto::etcdserverpb::AlarmMember;

/// An encoded `mvccpb.KeyValue`, exactly as stored, hashed and sent.
pub type Record = Bytes;

/// What applying one log entry yields for the client that proposed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// `header.revision` of the answer (`spec/raft-log.md` §6.1).
    pub revision: i64,
    /// The reply, or why there is none. A refused entry has changed nothing.
    pub result: Result<Reply, Refusal>,
}

/// The replies of all commands that go through the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Of a put; the former record if asked for and present.
    Put {
        /// The former record.
        prev: Option<Record>,
    },
    /// Of a range inside the log or a transaction.
    Range(RangeReply),
    /// Of a range deletion; former records in key order if asked for.
    DeleteRange {
        /// How many keys were deleted.
        deleted: i64,
        /// The former records.
        prev: Vec<Record>,
    },
    /// Of a transaction.
    Txn(TxnReply),
    /// Of a compaction that has taken logical effect; the physical pass follows.
    Compaction,
    /// Of a grant: the effective id and ttl in seconds.
    LeaseGrant {
        /// The lease.
        id: i64,
        /// Its ttl.
        ttl: i64,
    },
    /// Of a revocation.
    LeaseRevoke,
    /// Of a checkpoint.
    LeaseCheckpoint,
    /// Of an alarm request: the alarms listed or affected.
    Alarm(Vec<AlarmMember>),
    /// Of entries that answer nothing: attributes, cluster version, downgrade info, no-ops.
    Empty,
}

/// Of a range.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RangeReply {
    /// Records in answer order. With `keys_only` they are encoded without value and lease.
    pub kvs: Vec<Record>,
    /// Whether keys beyond `limit` exist.
    pub more: bool,
    /// Keys in the range, ignoring limit and filters.
    pub count: i64,
}

/// Of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnReply {
    /// Whether the compares held.
    pub succeeded: bool,
    /// One per executed operation: its sub-header's revision (0 for a nested transaction: empty
    /// header) and reply.
    pub responses: Vec<(i64, Reply)>,
}

/// Why a request is not granted: deterministic, equal on all members. Texts and codes are the
/// shell's business (`server/src/grpc/error.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// A revision below the compacted one was asked for.
    #[error("mvcc: required revision has been compacted")]
    Compacted,
    /// A revision above the current one was asked for.
    #[error("mvcc: required revision is a future revision")]
    FutureRevision,
    /// `ignore_value` or `ignore_lease` on a missing key.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// No such lease.
    #[error("lease not found")]
    LeaseNotFound,
    /// The lease id is taken.
    #[error("lease already exists")]
    LeaseExists,
    /// The lease's ttl is above 9,000,000,000 s.
    #[error("too large lease TTL")]
    LeaseTtlTooLarge,
    /// The quota is exceeded, or a NOSPACE alarm is set.
    #[error("etcdserver: no space")]
    NoSpace,
    /// A CORRUPT alarm is set.
    #[error("etcdserver: corrupt cluster")]
    Corrupt,
    /// Membership: the id was removed before.
    #[error("membership: ID removed")]
    MemberIdRemoved,
    /// Membership: the id is known.
    #[error("membership: ID exists")]
    MemberIdExists,
    /// Membership: the id is unknown.
    #[error("membership: ID not found")]
    MemberIdNotFound,
    /// Membership: a peer URL is used by another member.
    #[error("membership: peerURL exists")]
    PeerUrlExists,
    /// Membership: only learners can be promoted.
    #[error("membership: can only promote a learner member")]
    MemberNotLearner,
    /// Membership: too many learners.
    #[error("membership: too many learner members in cluster")]
    TooManyLearners,
}
