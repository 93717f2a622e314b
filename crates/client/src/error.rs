//! The one error of this crate, with the texts that users of etcd know.

use std::path::PathBuf;

use tonic::{Code, Status};

/// Texts of refusals that etcd's members give: a refusal with one of them is shown by its text alone.
const KNOWN: &[&str] = &[
    "etcdserver: key is not provided",
    "etcdserver: key not found",
    "etcdserver: value is provided",
    "etcdserver: lease is provided",
    "etcdserver: too many operations in txn request",
    "etcdserver: duplicate key given in txn request",
    "etcdserver: invalid client api version",
    "etcdserver: invalid sort option",
    "etcdserver: mvcc: required revision has been compacted",
    "etcdserver: mvcc: required revision is a future revision",
    "etcdserver: mvcc: database space exceeded",
    "etcdserver: requested lease not found",
    "etcdserver: lease already exists",
    "etcdserver: too large lease TTL",
    "etcdserver: watch canceled",
    "etcdserver: member ID already exist",
    "etcdserver: Peer URLs already exists",
    "etcdserver: re-configuration failed due to not enough started members",
    "etcdserver: given member URLs are invalid",
    "etcdserver: member not found",
    "etcdserver: can only promote a learner member",
    "etcdserver: can only promote a learner member which is in sync with leader",
    "etcdserver: too many learner members in cluster",
    "etcdserver: cluster ID mismatch",
    "etcdserver: request is too large",
    "etcdserver: too many requests",
    "etcdserver: root user does not exist",
    "etcdserver: root user does not have root role",
    "etcdserver: user name already exists",
    "etcdserver: user name is empty",
    "etcdserver: user name not found",
    "etcdserver: role name already exists",
    "etcdserver: role name not found",
    "etcdserver: role name is empty",
    "etcdserver: authentication failed, invalid user ID or password",
    "etcdserver: permission not given",
    "etcdserver: permission denied",
    "etcdserver: role is not granted to the user",
    "etcdserver: permission is not granted to the role",
    "etcdserver: authentication is not enabled",
    "etcdserver: invalid auth token",
    "etcdserver: invalid auth management",
    "etcdserver: revision of auth store is old",
    "etcdserver: no leader",
    "etcdserver: not leader",
    "etcdserver: leader changed",
    "etcdserver: not capable",
    "etcdserver: server stopped",
    "etcdserver: request timed out",
    "etcdserver: request timed out, possibly due to previous leader failure",
    "etcdserver: request timed out, possibly due to connection lost",
    "etcdserver: request timed out, waiting for the applied index took too long",
    "etcdserver: unhealthy cluster",
    "etcdserver: corrupt cluster",
    "etcdserver: rpc not supported for learner",
    "etcdserver: bad leader transferee",
    "etcdserver: wrong downgrade target version format",
    "etcdserver: invalid downgrade target version",
    "etcdserver: cluster version not found during downgrade",
    "etcdserver: cluster has a downgrade job in progress",
    "etcdserver: no inflight downgrade job",
    "etcdserver: request canceled",
    "etcdserver: context deadline exceeded",
];

pub(crate) const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
pub(crate) const FUTURE_REVISION: &str = "etcdserver: mvcc: required revision is a future revision";
pub(crate) const NO_LEADER: &str = "etcdserver: no leader";
pub(crate) const LEASE_NOT_FOUND: &str = "etcdserver: requested lease not found";
pub(crate) const PERMISSION_DENIED: &str = "etcdserver: permission denied";
const INVALID_TOKEN: &str = "etcdserver: invalid auth token";
const OLD_AUTH_REVISION: &str = "etcdserver: revision of auth store is old";
const USER_EMPTY: &str = "etcdserver: user name is empty";
const AUTH_NOT_ENABLED: &str = "etcdserver: authentication is not enabled";

/// Why a client could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A member, or the transport to it, refused the call.
    #[error("{}", refusal_text(*code, text))]
    Refused {
        /// The status code.
        code: Code,
        /// The status message.
        text: String,
    },
    /// The caller's deadline passed.
    #[error("context deadline exceeded")]
    DeadlineExceeded,
    /// The client was given no endpoint.
    #[error("etcdclient: no available endpoints")]
    NoEndpoint,
    /// An endpoint cannot be understood.
    #[error("invalid endpoint {endpoint:?}: {reason}")]
    Endpoint {
        /// The endpoint as given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A URL for members cannot be used; the text tells which and why.
    #[error("{0}")]
    PeerUrl(String),
    /// The limit of a response is below that of a request.
    #[error(
        "gRPC message recv limit ({response} bytes) must be greater than send limit ({request} bytes)"
    )]
    Limits {
        /// The limit of a request.
        request: usize,
        /// The limit of a response.
        response: usize,
    },
    /// Only one of certificate and key is given.
    #[error("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]")]
    CertificateWithoutKey {
        /// The key's path.
        key: String,
        /// The certificate's path.
        cert: String,
    },
    /// A file of transport security cannot be used.
    #[error("open {}: {reason}", path.display())]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The files of transport security do not go together.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    /// The stream ended without an answer.
    #[error("EOF")]
    StreamEnded,
    /// A watch ended on the reason that the server gave.
    #[error("{0}")]
    WatchCanceled(String),
    /// The lease of the lock's owner ended while it waited.
    #[error("mutex: session is expired")]
    SessionExpired,
    /// The lock is not held.
    #[error("mutex: lock has already been released")]
    LockReleased,
    /// The election is not led by this candidate.
    #[error("election: not leader")]
    NotElected,
    /// A watch for the deletion of an earlier key ended.
    #[error("lost watcher waiting for delete")]
    WatcherLost,
}

impl Error {
    /// A refusal with a text of etcd's.
    pub(crate) fn refused(code: Code, text: &str) -> Self {
        Self::Refused { code, text: text.to_owned() }
    }

    /// The status code, where a member or the transport gave one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The error with its status code, for logs.
    pub fn in_full(&self) -> String {
        match self {
            Self::Refused { code, text } => status_text(*code, text),
            other => other.to_string(),
        }
    }

    /// Whether the user may not do this.
    pub fn is_permission_denied(&self) -> bool {
        self.has_text(PERMISSION_DENIED)
    }

    pub(crate) fn is_auth_not_enabled(&self) -> bool {
        self.has_text(AUTH_NOT_ENABLED)
    }

    /// Whether trying again, perhaps with another member, cannot help.
    pub(crate) fn is_final(&self) -> bool {
        self.has_text(NO_LEADER)
            || !matches!(self.code(), Some(Code::Unavailable | Code::Internal))
                && !matches!(self, Self::StreamEnded)
    }

    fn has_text(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { text, .. } if text == wanted)
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let text = status.message();
        // The codec and the transport of this crate's gRPC library have words of their own.
        if status.code() == Code::OutOfRange
            && let Some(sizes) = text.strip_prefix("Error, decoded message length too large: ")
        {
            let mut numbers =
                sizes.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
            let (found, limit) = (numbers.next(), numbers.next());
            if let (Some(found), Some(limit)) = (found, limit) {
                let text = format!("grpc: received message larger than max ({found} vs. {limit})");
                return Self::Refused { code: Code::ResourceExhausted, text };
            }
        }
        let code = match status.code() {
            // A connection that closes takes its calls along: they are unavailable, not unwanted.
            Code::Cancelled | Code::Unknown if is_transport(&status) => Code::Unavailable,
            code => code,
        };
        Self::Refused { code, text: text.to_owned() }
    }
}

/// Whether the client should fetch a new token and try again.
pub(crate) fn wants_new_token(error: &Error, has_password: bool) -> bool {
    let Error::Refused { text, .. } = error else { return false };
    match text.as_str() {
        USER_EMPTY => has_password,
        INVALID_TOKEN | OLD_AUTH_REVISION => true,
        _ => false,
    }
}

/// Whether the call failed on the way rather than at the member.
fn is_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// Whether no connection was there to send the request on.
pub(crate) fn is_never_sent(status: &Status) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn refusal_text(code: Code, text: &str) -> String {
    if KNOWN.contains(&text) { text.to_owned() } else { status_text(code, text) }
}

/// A status as Go's gRPC writes it.
fn status_text(code: Code, text: &str) -> String {
    let name = match code {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        other => format!("{other:?}"),
    };
    format!("rpc error: code = {name} desc = {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_refusals_show_their_text_alone() {
        let known = Error::from(Status::not_found(LEASE_NOT_FOUND));
        assert_eq!(known.to_string(), "etcdserver: requested lease not found");
        let other = Error::from(Status::cancelled("gone"));
        assert_eq!(other.to_string(), "rpc error: code = Canceled desc = gone");
    }

    #[test]
    fn a_large_response_is_told_in_the_words_of_etcd() {
        let status = Status::out_of_range(
            "Error, decoded message length too large: found 42 bytes, the limit is: 7 bytes",
        );
        assert_eq!(
            Error::from(status).to_string(),
            "rpc error: code = ResourceExhausted desc = \
             grpc: received message larger than max (42 vs. 7)"
        );
    }

    #[test]
    fn a_lost_leader_ends_a_stream_but_a_lost_member_does_not() {
        assert!(Error::from(Status::unavailable(NO_LEADER)).is_final());
        assert!(!Error::from(Status::unavailable("gone")).is_final());
        assert!(Error::from(Status::permission_denied(PERMISSION_DENIED)).is_final());
    }
}
