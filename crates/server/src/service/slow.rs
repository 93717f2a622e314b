//! Lines that tell of slow requests, as etcd writes them: `apply request took too long` for what the store took long
//! to do, `request stats` for what a client waited long for.
//!
//! Nothing here costs a request that is not slow more than a comparison: texts are made when a line is.

use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use machine::{Reply, TxnReply};
use prost::Message as _;
use proto::etcdserverpb::{InternalRaftRequest, RangeRequest, ResponseHeader, TxnRequest};

use super::{Caller, answer};
use crate::config::GoDuration;
use crate::grpc::method::Method;
use crate::redact;

/// A unary call as its client sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) caller: &'a Caller,
    pub(super) started: Instant,
}

/// What `request stats` says of a request and its response; −1 where etcd does not look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    request_count: i64,
    request_size: i64,
    response_count: i64,
    response_size: i64,
    text: String,
}

impl Content {
    /// Of a kind that etcd does not look into.
    pub(super) fn unknown() -> Self {
        Self {
            request_count: -1,
            request_size: -1,
            response_count: -1,
            response_size: -1,
            text: String::new(),
        }
    }

    /// Of a range; `answer` is the response's count and size, if there is one.
    pub(super) fn of_range(request: &RangeRequest, answer: Option<(i64, usize)>) -> Self {
        let (response_count, response_len) = answer.unwrap_or_default();
        Self {
            request_count: 0,
            request_size: size(request.encoded_len()),
            response_count,
            response_size: size(response_len),
            text: redact::range(request),
        }
    }

    /// Of a transaction; of one that was refused etcd says nothing.
    pub(super) fn of_txn(
        request: &TxnRequest,
        succeeded: Option<bool>,
        response_len: usize,
    ) -> Self {
        let Some(succeeded) = succeeded else {
            return Self::nothing();
        };
        let branch = if succeeded { &request.success } else { &request.failure };
        Self {
            request_count: size(branch.len()),
            request_size: size(branch.iter().map(prost::Message::encoded_len).sum()),
            response_count: 0,
            response_size: size(response_len),
            text: redact::txn(request),
        }
    }

    /// Of a request in the log, from its entry.
    pub(super) fn of_entry(entry: &Bytes, reply: Option<&Reply>, response_len: usize) -> Self {
        let request = InternalRaftRequest::decode(entry.clone()).unwrap_or_default();
        let response_size = size(response_len);
        if let Some(put) = &request.put {
            let (request_size, text) = (size(put.encoded_len()), redact::put(put));
            return Self { request_count: 1, request_size, response_size, text, ..Self::nothing() };
        }
        if let Some(delete) = &request.delete_range {
            let response_count = match reply {
                Some(Reply::DeleteRange { deleted, .. }) => *deleted,
                _ => 0,
            };
            let (request_size, text) = (size(delete.encoded_len()), redact::delete_range(delete));
            return Self { request_size, response_count, response_size, text, ..Self::nothing() };
        }
        if let Some(txn) = &request.txn {
            let succeeded = match reply {
                Some(Reply::Txn(reply)) => Some(reply.succeeded),
                _ => None,
            };
            return Self::of_txn(txn, succeeded, response_len);
        }
        Self::unknown()
    }

    fn nothing() -> Self {
        Self {
            request_count: 0,
            request_size: 0,
            response_count: 0,
            response_size: 0,
            text: String::new(),
        }
    }
}

/// Tells of a call that took longer than `patience`, and at debug level of every call.
pub(super) fn tell(
    call: &Call<'_>,
    took: Duration,
    patience: Duration,
    of: impl FnOnce() -> Content,
) {
    let is_slow = took > patience;
    if !is_slow && !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    write_stats(call, took, is_slow, &of());
}

#[cold]
fn write_stats(call: &Call<'_>, took: Duration, is_slow: bool, content: &Content) {
    let start = Timestamp::now().checked_sub(took).unwrap_or(Timestamp::MIN);
    macro_rules! stats {
        ($level:ident) => {
            tracing::$level!(
                "start time" = %start.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"),
                "time spent" = %GoDuration::from(took),
                remote = %call.caller.remote(),
                "response type" = call.method.path(),
                "request count" = content.request_count,
                "request size" = content.request_size,
                "response count" = content.response_count,
                "response size" = content.response_size,
                "request content" = content.text.as_str(),
                "request stats"
            )
        };
    }
    if is_slow { stats!(warn) } else { stats!(debug) }
}

/// An `apply request took too long`.
#[derive(Debug)]
pub struct SlowApply<'a> {
    /// How long it took.
    pub took: Duration,
    /// How long it may take.
    pub expected: Duration,
    /// What was done without the log, with a space behind; empty for what went through it.
    pub prefix: &'a str,
    /// The request, without values.
    pub request: &'a str,
    /// What the response is like; empty without one.
    pub response: &'a str,
    /// Why there is none.
    pub error: Option<&'a str>,
}

impl SlowApply<'_> {
    /// Writes the line.
    #[cold]
    pub fn tell(&self) {
        tracing::warn!(
            took = %GoDuration::from(self.took),
            expected_duration = %GoDuration::from(self.expected),
            prefix = self.prefix,
            request = self.request,
            response = self.response,
            error = self.error,
            "apply request took too long"
        );
    }
}

/// Says how large the response to an entry is, by etcd's measure: with a header that knows the revision only.
pub fn reply_size(revision: i64, reply: &Reply) -> usize {
    let header = ResponseHeader { revision, ..ResponseHeader::default() };
    answer::reply(&header, reply).message_len()
}

/// The size that a response of `len` bytes with the header `full` would have by the same measure.
pub(super) fn response_size(len: usize, full: &ResponseHeader) -> usize {
    let bare = ResponseHeader { revision: full.revision, ..ResponseHeader::default() };
    (len + bare.encoded_len()).saturating_sub(full.encoded_len())
}

/// Describes the answer of a read-only transaction.
pub(super) fn txn_response(revision: i64, reply: &TxnReply) -> String {
    let counts: Vec<String> = reply
        .responses
        .iter()
        .filter_map(|(_, reply)| match reply {
            Reply::Range(range) => Some(format!("range_response_count:{}", range.kvs.len())),
            _ => None,
        })
        .collect();
    let size = reply_size(revision, &Reply::Txn(reply.clone()));
    format!("responses:<{}> size:{size}", counts.join(" "))
}

fn size(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
