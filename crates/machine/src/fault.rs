//! Why a member has to stop, and why a read has no answer.

use crate::Refusal;
use crate::nesting::TxnDecodeError;

/// The world failed the machine: it applies nothing any more.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Fault {
    /// The disk failed, or what is on it is damaged.
    #[error(transparent)]
    Storage(#[from] storage::Fault),
    /// An entry that this release cannot apply. To skip it would be a silent divergence.
    #[error("log entry {index} cannot be applied: {reason}")]
    Entry {
        /// The entry's index.
        index: u64,
        /// What is wrong with it.
        #[source]
        reason: EntryFault,
    },
    /// The store has authentication enabled, which this release does not enforce.
    #[error(
        "authentication is enabled in this store, which this release does not support; disable it before migrating"
    )]
    AuthUnsupported,
    /// The backend holds what it must not.
    #[error(
        "backend bucket {bucket:?} is damaged: {what}; restore this member from a snapshot or re-add it"
    )]
    Backend {
        /// The bucket's name.
        bucket: &'static str,
        /// What is wrong.
        what: String,
    },
}

/// What is wrong with a log entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryFault {
    /// It is neither a request nor a legacy one.
    #[error("it does not decode")]
    Undecodable(#[from] prost::DecodeError),
    /// Its transaction does not decode.
    #[error("its transaction does not decode")]
    Transaction(#[from] TxnDecodeError),
    /// The request has no payload that this release knows.
    #[error("its request is unknown (field {field})")]
    UnknownRequest {
        /// The field number of the payload; 0 when there is none.
        field: u64,
    },
    /// It belongs to authentication.
    #[error(
        "authentication ({request}) is not supported by this release; disable it before migrating"
    )]
    AuthUnsupported {
        /// The request's name.
        request: &'static str,
    },
    /// A request without an id.
    #[error("its request has no id")]
    NoRequestId,
    /// A legacy entry of another shape than the two known ones.
    #[error(
        "legacy request {method} {path} is not supported; take a snapshot with its writer first"
    )]
    Legacy {
        /// Its method.
        method: String,
        /// Its path.
        path: String,
    },
    /// A cluster version that is none, or above our own.
    #[error("cluster version {version:?} is invalid or newer than this release")]
    ClusterVersion {
        /// The version.
        version: String,
    },
    /// Attributes of a member that never was.
    #[error("member {id:x} is unknown")]
    UnknownMember {
        /// Its id.
        id: u64,
    },
    /// A conf change whose context is no member.
    #[error("its conf change context does not decode")]
    ConfChangeContext,
    /// A conf change of a kind that etcd does not write.
    #[error("its conf change type {0} is unknown")]
    ConfChangeType(i32),
    /// It is not the successor of what was applied.
    #[error("it does not follow the applied entry {applied}")]
    OutOfOrder {
        /// The applied index.
        applied: u64,
    },
}

/// Why a read has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The request cannot be granted.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The disk failed, or what is on it is damaged.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// Its [`crate::Room`] does not give the memory it takes.
    #[error("there is no room for the answer")]
    NoRoom,
}

impl From<storage::Fault> for ReadError {
    fn from(fault: storage::Fault) -> Self {
        Self::Fault(fault.into())
    }
}
