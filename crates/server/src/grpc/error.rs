//! etcd's error table: the only place that pairs causes with gRPC codes and texts (`spec/errors.md`).

use machine::Refusal;
use node::Failure;

use super::status::{Code, Status};

macro_rules! table {
    ($($(#[$doc:meta])* $name:ident = $code:ident, $text:literal;)+) => {
        $($(#[$doc])* pub const $name: Status = Status::fixed(Code::$code, $text);)+

        /// Every row, for the test that compares with the specification.
        #[cfg(test)]
        const ROWS: &[(Code, &str)] = &[$((Code::$code, $text)),+];
    };
}

table! {
    /// An empty key.
    EMPTY_KEY = InvalidArgument, "etcdserver: key is not provided";
    /// `ignore_value` or `ignore_lease` on an absent key, or an operation without content.
    KEY_NOT_FOUND = InvalidArgument, "etcdserver: key not found";
    /// `ignore_value` with a value.
    VALUE_PROVIDED = InvalidArgument, "etcdserver: value is provided";
    /// `ignore_lease` with a lease.
    LEASE_PROVIDED = InvalidArgument, "etcdserver: lease is provided";
    /// More operations than `--max-txn-ops`.
    TOO_MANY_OPS = InvalidArgument, "etcdserver: too many operations in txn request";
    /// Put/put or put/delete overlap in one branch.
    DUPLICATE_KEY = InvalidArgument, "etcdserver: duplicate key given in txn request";
    /// `client-api-version` is not UTF-8.
    INVALID_CLIENT_API_VERSION = InvalidArgument, "etcdserver: invalid client api version";
    /// Sort order or target outside the enumeration.
    INVALID_SORT_OPTION = InvalidArgument, "etcdserver: invalid sort option";
    /// A revision below the compacted one.
    COMPACTED = OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    /// A revision above the current one.
    FUTURE_REVISION = OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    /// The quota is used up, or a NOSPACE alarm is set.
    NO_SPACE = ResourceExhausted, "etcdserver: mvcc: database space exceeded";
    /// An unknown lease.
    LEASE_NOT_FOUND = NotFound, "etcdserver: requested lease not found";
    /// A lease id in use.
    LEASE_EXISTS = FailedPrecondition, "etcdserver: lease already exists";
    /// A ttl above 9,000,000,000 s.
    LEASE_TTL_TOO_LARGE = OutOfRange, "etcdserver: too large lease TTL";
    /// A watch stream ended by its context.
    WATCH_CANCELED = Canceled, "etcdserver: watch canceled";
    /// A member id in use.
    MEMBER_EXISTS = FailedPrecondition, "etcdserver: member ID already exist";
    /// A peer URL in use.
    PEER_URL_EXISTS = FailedPrecondition, "etcdserver: Peer URLs already exists";
    /// An unknown or removed member.
    MEMBER_NOT_FOUND = NotFound, "etcdserver: member not found";
    /// Promotion of a voter.
    MEMBER_NOT_LEARNER = FailedPrecondition, "etcdserver: can only promote a learner member";
    /// Peer URLs that are none, or none at all.
    MEMBER_BAD_URLS = InvalidArgument, "etcdserver: given member URLs are invalid";
    /// A change that would leave too few members that have started. etcd declares another code and sends this one.
    MEMBER_NOT_ENOUGH_STARTED = Unknown, "etcdserver: re-configuration failed due to not enough started members";
    /// A change while too few members are connected.
    UNHEALTHY = Unavailable, "etcdserver: unhealthy cluster";
    /// A learner that is too far behind to get a vote.
    LEARNER_NOT_READY = FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader";
    /// More learners than `--max-learners`.
    TOO_MANY_LEARNERS = FailedPrecondition, "etcdserver: too many learner members in cluster";
    /// An encoded request above `--max-request-bytes`.
    REQUEST_TOO_LARGE = InvalidArgument, "etcdserver: request is too large";
    /// Proposals in flight are at their bound. etcd sends this with code Unknown.
    TOO_MANY_REQUESTS = Unknown, "etcdserver: too many requests";
    /// Incomplete messages are at their bound. etcd has none.
    TOO_MANY_INCOMPLETE = ResourceExhausted, "too many incomplete messages";
    /// Answers hold all the memory they may. etcd has no such bound.
    NO_ANSWER_ROOM = ResourceExhausted, "no memory for the answer (--answer-memory-bytes): try again, or ask for less with a limit or a smaller range";
    /// A snapshot stream of which the client takes nothing. etcd waits without end.
    SNAPSHOT_UNREAD = Aborted, "the snapshot was not read for a minute: it is ended, because an open one keeps freed space from being used";
    /// Authentication cannot be switched on without its first user.
    ROOT_USER_NOT_EXIST = FailedPrecondition, "etcdserver: root user does not exist";
    /// A token was asked for where none is needed.
    AUTH_NOT_ENABLED = FailedPrecondition, "etcdserver: authentication is not enabled";
    /// No leader is known.
    NO_LEADER = Unavailable, "etcdserver: no leader";
    /// Only the leader can do this.
    NOT_LEADER = FailedPrecondition, "etcdserver: not leader";
    /// The leader changed during a linearizable read.
    LEADER_CHANGED = Unavailable, "etcdserver: leader changed";
    /// The member is stopping.
    STOPPED = Unavailable, "etcdserver: server stopped";
    /// No result in time.
    TIMEOUT = Unavailable, "etcdserver: request timed out";
    /// No result in time after a leader failure.
    TIMEOUT_LEADER_FAIL = Unavailable, "etcdserver: request timed out, possibly due to previous leader failure";
    /// No result in time without a quorum.
    TIMEOUT_CONNECTION_LOST = Unavailable, "etcdserver: request timed out, possibly due to connection lost";
    /// A CORRUPT alarm is set.
    CORRUPT = DataLoss, "etcdserver: corrupt cluster";
    /// The other member did not begin to lead in time.
    TIMEOUT_LEADER_TRANSFER = Unknown, "etcdserver: request timed out, leader transfer took too long";
    /// Not allowed on a learner.
    NOT_SUPPORTED_FOR_LEARNER = FailedPrecondition, "etcdserver: rpc not supported for learner";
    /// A transferee that cannot lead.
    BAD_LEADER_TRANSFEREE = FailedPrecondition, "etcdserver: bad leader transferee";
    /// Not `X.Y` or `X.Y.Z`.
    WRONG_DOWNGRADE_VERSION_FORMAT = InvalidArgument, "etcdserver: wrong downgrade target version format";
    /// Not one minor below the cluster's version.
    INVALID_DOWNGRADE_TARGET_VERSION = InvalidArgument, "etcdserver: invalid downgrade target version";
    /// The cluster's version is not decided yet.
    CLUSTER_VERSION_UNAVAILABLE = FailedPrecondition, "etcdserver: cluster version not found during downgrade";
    /// A downgrade is under way.
    DOWNGRADE_IN_PROCESS = FailedPrecondition, "etcdserver: cluster has a downgrade job in progress";
    /// There is no downgrade to cancel. etcd logs it and answers that all is well.
    NO_INFLIGHT_DOWNGRADE = FailedPrecondition, "etcdserver: no inflight downgrade job";
    /// A deposed leader was asked to renew a lease.
    NOT_PRIMARY_LESSOR = Unknown, "not a primary lessor";
    /// A rewrite of the backend's file that the disk did not allow. etcd sends the disk's error, also with code Unknown.
    DEFRAGMENT_GIVEN_UP = Unknown, "etcdserver: defragmentation failed; the log of the member tells why";
    /// The caller's deadline passed inside a handler.
    DEADLINE_EXCEEDED = DeadlineExceeded, "context deadline exceeded";
    /// The caller went away.
    CANCELED = Canceled, "context canceled";
    /// A downgrade request without a known action.
    UNKNOWN_METHOD = Unknown, "etcdserver: unknown method";
    /// An unknown health service.
    UNKNOWN_HEALTH_SERVICE = NotFound, "unknown service";
    /// `RangeStream` with an order it cannot stream.
    RANGE_STREAM_SORT = Unimplemented, "RangeStream does not support custom sort orders";
    /// `RangeStream` with revision filters.
    RANGE_STREAM_FILTER = Unimplemented, "RangeStream does not support revision filters";
    /// `Proclaim` by someone who does not lead.
    ELECTION_NOT_LEADER = Unknown, "election: not leader";
    /// `Leader` of an election without one.
    ELECTION_NO_LEADER = Unknown, "election: no leader";
    /// An election request without its leader key.
    ELECTION_LEADER_MISSING = Unknown, "\"leader\" field must be provided";
    /// A waiter whose own key vanished.
    MUTEX_SESSION_EXPIRED = Unknown, "mutex: session is expired";
    /// A wait for a deletion whose watch ended.
    LOST_WATCHER = Unknown, "lost watcher waiting for delete";
}

/// An answer of `len` bytes where at most `max` are sent; grpc-go's texts.
pub fn answer_too_large(len: usize, max: usize) -> Status {
    let text = if u32::try_from(len).is_ok() {
        format!("trying to send message larger than max ({len} vs. {max})")
    } else {
        format!("grpc: message too large ({len} bytes)")
    };
    Status::new(Code::ResourceExhausted, text)
}

/// A request message of `len` bytes where at most `max` are taken.
pub fn message_too_large(len: usize, max: usize) -> Status {
    let text = format!("grpc: received message larger than max ({len} vs. {max})");
    Status::new(Code::ResourceExhausted, text)
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Compacted => COMPACTED,
            Refusal::FutureRevision => FUTURE_REVISION,
            Refusal::KeyNotFound => KEY_NOT_FOUND,
            Refusal::LeaseNotFound => LEASE_NOT_FOUND,
            Refusal::LeaseExists => LEASE_EXISTS,
            Refusal::LeaseTtlTooLarge => LEASE_TTL_TOO_LARGE,
            Refusal::NoSpace => NO_SPACE,
            Refusal::Corrupt => CORRUPT,
            Refusal::MemberIdRemoved | Refusal::MemberIdNotFound => MEMBER_NOT_FOUND,
            Refusal::MemberIdExists => MEMBER_EXISTS,
            Refusal::PeerUrlExists => PEER_URL_EXISTS,
            Refusal::MemberNotLearner => MEMBER_NOT_LEARNER,
            Refusal::TooManyLearners => TOO_MANY_LEARNERS,
        }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::TooManyRequests => TOO_MANY_REQUESTS,
            Failure::TimedOut => TIMEOUT,
            Failure::TimedOutLeaderFail => TIMEOUT_LEADER_FAIL,
            Failure::TimedOutConnectionLost => TIMEOUT_CONNECTION_LOST,
            Failure::LeaderChanged => LEADER_CHANGED,
            Failure::NoLeader => NO_LEADER,
            Failure::NotLeader => NOT_LEADER,
            Failure::NoTransferee => BAD_LEADER_TRANSFEREE,
            Failure::TransferTimedOut => TIMEOUT_LEADER_TRANSFER,
            Failure::LearnerNotReady => LEARNER_NOT_READY,
            Failure::MemberNotFound => MEMBER_NOT_FOUND,
            Failure::NotPrimary => NOT_PRIMARY_LESSOR,
            Failure::DefragmentGivenUp => DEFRAGMENT_GIVEN_UP,
            // The second is never told to a client.
            Failure::Stopped | Failure::SnapshotNotTaken => STOPPED,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn texts_are_unique_and_name_their_origin() {
        let texts: BTreeSet<_> = ROWS.iter().map(|(_, text)| *text).collect();
        assert_eq!(texts.len(), ROWS.len());
        assert_eq!(ROWS.iter().filter(|(_, text)| text.starts_with("etcdserver: ")).count(), 46);
    }
}
