//! The KV service (`spec/grpc-api.md` §4).

use std::sync::Arc;
use std::time::{Duration, Instant};

use machine::{RangeReply, ReadError, Reply, TxnReply, quota};
use proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, InternalRaftRequest, PutRequest, RangeRequest,
    TxnRequest, request_op,
};

use super::payload::Payload;
use super::slow::{self, Call, Content, SlowApply};
use super::{Services, answer, check};
use crate::grpc::error;
use crate::grpc::status::Status;
use crate::redact;
use crate::room::{FREE_BYTES, Held};

impl Services {
    /// Serves a client's range.
    pub(super) async fn unary_range(
        &self,
        call: &Call<'_>,
        request: RangeRequest,
    ) -> Result<Payload, Status> {
        check::range(&request)?;
        let (answer, took) = self.timed_range(&request, call.started).await;
        slow::tell(call, took, self.limits.unary_patience, || {
            let answer = answer.as_ref().ok();
            Content::of_range(&request, answer.map(|ranged| ranged.count_and_size()))
        });
        answer.map(|ranged| ranged.payload)
    }

    /// Ranges for the member itself.
    pub(crate) async fn range(&self, request: RangeRequest) -> Result<Payload, Status> {
        check::range(&request)?;
        let (answer, _took) = self.timed_range(&request, Instant::now()).await;
        answer.map(|ranged| ranged.payload)
    }

    async fn timed_range(
        &self,
        request: &RangeRequest,
        started: Instant,
    ) -> (Result<Ranged, Status>, Duration) {
        let mut reading = started;
        if !request.serializable && !self.handle.gate().reads_need_no_round() {
            if let Err(status) = self.read_index().await {
                let took = started.elapsed();
                self.figures().unread_range(took);
                return (Err(status), took);
            }
            reading = Instant::now();
        }
        let answer = self.read_range(request).await;
        let ended = Instant::now();
        let took = ended - started;
        self.figures().ranged(answer.is_ok(), took, ended - reading);
        if took > self.limits.apply_patience {
            self.tell_slow_range(request, &answer, took);
        }
        (answer, took)
    }

    #[cold]
    fn tell_slow_range(
        &self,
        request: &RangeRequest,
        answer: &Result<Ranged, Status>,
        took: Duration,
    ) {
        let response = answer.as_ref().map_or_else(
            |_refused| String::new(),
            |ranged| {
                let size = slow::response_size(
                    ranged.payload.message_len(),
                    &self.header(ranged.revision),
                );
                format!("range_response_count:{} size:{size}", ranged.kvs)
            },
        );
        self.tell_slow_read(
            took,
            "read-only range ",
            &redact::range(request),
            (&response, answer.as_ref().err()),
        );
    }

    /// Tells of a read, and counts it.
    fn tell_slow_read(
        &self,
        took: Duration,
        prefix: &str,
        request: &str,
        (response, status): (&str, Option<&Status>),
    ) {
        self.figures().slow_apply();
        let error = status
            .map(|status| status.message.strip_prefix("etcdserver: ").unwrap_or(&status.message));
        let expected = self.limits.apply_patience;
        SlowApply { took, expected, prefix, request, response, error }.tell();
    }

    async fn read_range(&self, request: &RangeRequest) -> Result<Ranged, Status> {
        if let Some(resident) = self.handle.reader().range_resident(request) {
            let (revision, reply) = resident?;
            if let Some(ranged) = self.resident(revision, reply) {
                return Ok(ranged);
            }
        } else if request.range_end.is_empty() {
            let (revision, reply) = self.read(self.cold.get(request).await?)?;
            if let Some(ranged) = self.resident(revision, reply) {
                return Ok(ranged);
            }
        }
        Box::pin(self.list(request)).await
    }

    /// Encodes an answer that memory gave; `None` when it is large and there is no room to hold it.
    fn resident(&self, revision: i64, reply: RangeReply) -> Option<Ranged> {
        let len = answer::range_reply_len(&self.header(revision), &reply);
        if len <= FREE_BYTES {
            return Some(self.ranged(revision, reply, None));
        }
        let held = self.limits.answers.try_hold(len)?;
        Some(self.ranged(revision, reply, Some(held)))
    }

    pub(super) fn ranged(&self, revision: i64, reply: RangeReply, held: Option<Held>) -> Ranged {
        let (kvs, count) = (reply.kvs.len(), reply.count);
        Ranged { payload: answer::range(&self.header(revision), reply, held), revision, kvs, count }
    }

    /// Waits until a local read is linearizable.
    pub async fn read_index(&self) -> Result<(), Status> {
        self.handle.read_index().await.map_err(|failure| {
            self.figures().read_index_failed(failure);
            failure.into()
        })
    }

    pub(super) async fn put(
        &self,
        call: &Call<'_>,
        request: PutRequest,
    ) -> Result<Payload, Status> {
        self.check_space(quota::put_cost(&request)).await?;
        check::put(&request)?;
        self.propose_told(
            call,
            InternalRaftRequest { put: Some(request), ..InternalRaftRequest::default() },
        )
        .await
    }

    pub(super) async fn delete_range(
        &self,
        call: &Call<'_>,
        request: DeleteRangeRequest,
    ) -> Result<Payload, Status> {
        check::delete_range(&request)?;
        self.propose_told(
            call,
            InternalRaftRequest { delete_range: Some(request), ..InternalRaftRequest::default() },
        )
        .await
    }

    pub(super) async fn txn(
        &self,
        call: &Call<'_>,
        request: TxnRequest,
    ) -> Result<Payload, Status> {
        self.check_space(quota::txn_cost(&request)).await?;
        check::txn(&request, self.limits.txn_ops_max)?;
        if !is_read_only(&request) {
            let request =
                InternalRaftRequest { txn: Some(request), ..InternalRaftRequest::default() };
            return self.propose_told(call, request).await;
        }
        let request = Arc::new(request);
        let started = Instant::now();
        let answer = self.read_only_txn(&request).await;
        let took = started.elapsed();
        self.figures().read_only_txn(answer.is_ok(), took);
        if took > self.limits.apply_patience {
            let response = answer.as_ref().map_or_else(
                |_refused| String::new(),
                |(revision, reply, _held)| slow::txn_response(*revision, reply),
            );
            let status = answer.as_ref().err();
            self.tell_slow_read(
                took,
                "read-only txn ",
                &redact::txn(&request),
                (&response, status),
            );
        }
        let succeeded = answer.as_ref().ok().map(|(_, reply, _)| reply.succeeded);
        let answer = answer.map(|(revision, reply, held)| {
            let mut payload = answer::reply(&self.header(revision), &Reply::Txn(reply));
            if let Some(mut held) = held {
                held.shrink_to(payload.message_len());
                payload.tie(held);
            }
            payload
        });
        self.tell(call, || {
            let len = answer.as_ref().map_or(0, Payload::message_len);
            Content::of_txn(&request, succeeded, len)
        });
        answer
    }

    async fn read_only_txn(
        &self,
        request: &Arc<TxnRequest>,
    ) -> Result<(i64, TxnReply, Option<Held>), Status> {
        if !is_serializable(request) {
            self.read_index().await?;
        }
        let reader = self.handle.reader().clone();
        let mut account = self.limits.answers.account();
        let request = Arc::clone(request);
        self.blocking(move || {
            // Twice: as records, and as the message.
            let (revision, reply) = reader.txn(&request, &mut |bytes| account.take(2 * bytes))?;
            Ok((revision, reply, account.close()))
        })
        .await
    }

    pub(super) async fn compact(&self, request: CompactionRequest) -> Result<Payload, Status> {
        let physical = request.physical.then_some(request.revision);
        let payload = self
            .propose_and_answer(InternalRaftRequest {
                compaction: Some(request),
                ..InternalRaftRequest::default()
            })
            .await?;
        if let Some(revision) = physical {
            self.compacted(revision).await?;
        }
        Ok(payload)
    }

    /// Unwraps a read; a fault of the disk is the member's, not the client's.
    pub(super) fn read<T>(&self, result: Result<T, ReadError>) -> Result<T, Status> {
        result.map_err(|error| match error {
            ReadError::Refused(refusal) => refusal.into(),
            ReadError::Fault(fault) => self.read_fault(&fault),
            ReadError::NoRoom => error::NO_ANSWER_ROOM,
        })
    }

    /// Runs a read that takes long on the threads for that.
    pub(super) async fn read_long<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Status> {
        let result = self.handle.long_work().run(read).await?;
        self.read(result)
    }

    /// Runs a short read that may touch the disk on the thread's own pool.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Status> {
        let result = self.short_work.run(read).await?;
        self.read(result)
    }
}

/// The answer of a range, and what a line about it says.
#[derive(Debug)]
pub(super) struct Ranged {
    pub(super) payload: Payload,
    pub(super) revision: i64,
    /// Keys in the answer.
    pub(super) kvs: usize,
    /// Keys in the range.
    pub(super) count: i64,
}

impl Ranged {
    fn count_and_size(&self) -> (i64, usize) {
        (self.count, self.payload.message_len())
    }
}

/// Whether a transaction holds ranges only; a nested one, even an empty one, counts as a write.
fn is_read_only(request: &TxnRequest) -> bool {
    let mut ops = request.success.iter().chain(&request.failure);
    ops.all(|op| matches!(op.request, Some(request_op::Request::RequestRange(_))))
}

/// Whether a read-only transaction may answer from local state: when all its ranges may.
fn is_serializable(request: &TxnRequest) -> bool {
    let mut ops = request.success.iter().chain(&request.failure);
    ops.all(|op| match &op.request {
        Some(request_op::Request::RequestRange(range)) => range.serializable,
        _ => false,
    })
}
