//! The KV service (`spec/grpc-api.md` §4).

use machine::{RangeReply, ReadError, quota};
use proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, InternalRaftRequest, PutRequest, RangeRequest,
    TxnRequest, request_op,
};

use super::payload::Payload;
use super::{Services, answer, check};
use crate::grpc::error;
use crate::grpc::status::Status;
use crate::room::FREE_BYTES;

impl Services {
    pub(crate) async fn range(&self, request: RangeRequest) -> Result<Payload, Status> {
        check::range(&request)?;
        if !request.serializable {
            self.handle.read_index().await?;
        }
        if let Some(resident) = self.handle.reader().range_resident(&request) {
            let (revision, reply) = resident?;
            if let Some(payload) = self.resident(revision, reply) {
                return Ok(payload);
            }
        }
        Box::pin(self.list(request)).await
    }

    /// Encodes an answer that memory gave; `None` when it is large and there is no room to hold it.
    fn resident(&self, revision: i64, reply: RangeReply) -> Option<Payload> {
        let header = self.header(revision);
        let len = answer::range_reply_len(&header, &reply);
        if len <= FREE_BYTES {
            return Some(answer::range(&header, reply, None));
        }
        let held = self.limits.answers.try_hold(len)?;
        Some(answer::range(&header, reply, Some(held)))
    }

    pub(super) async fn put(&self, request: PutRequest) -> Result<Payload, Status> {
        self.check_space(quota::put_cost(&request)).await?;
        check::put(&request)?;
        self.propose_and_answer(InternalRaftRequest {
            put: Some(request),
            ..InternalRaftRequest::default()
        })
        .await
    }

    pub(super) async fn delete_range(
        &self,
        request: DeleteRangeRequest,
    ) -> Result<Payload, Status> {
        check::delete_range(&request)?;
        self.propose_and_answer(InternalRaftRequest {
            delete_range: Some(request),
            ..InternalRaftRequest::default()
        })
        .await
    }

    pub(super) async fn txn(&self, request: TxnRequest) -> Result<Payload, Status> {
        self.check_space(quota::txn_cost(&request)).await?;
        check::txn(&request, self.limits.txn_ops_max)?;
        if !is_read_only(&request) {
            return self
                .propose_and_answer(InternalRaftRequest {
                    txn: Some(request),
                    ..InternalRaftRequest::default()
                })
                .await;
        }
        if !is_serializable(&request) {
            self.handle.read_index().await?;
        }
        let reader = self.handle.reader().clone();
        let mut account = self.limits.answers.account();
        let (revision, reply, held) = self
            .blocking(move || {
                // Twice: as records, and as the message.
                let (revision, reply) =
                    reader.txn(&request, &mut |bytes| account.take(2 * bytes))?;
                Ok((revision, reply, account.close()))
            })
            .await?;
        let mut payload = answer::reply(&self.header(revision), &machine::Reply::Txn(reply));
        if let Some(mut held) = held {
            held.shrink_to(payload.message_len());
            payload.tie(held);
        }
        Ok(payload)
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
