//! The KV service (`spec/grpc-api.md` §4).

use std::time::Instant;

use machine::{RangePager, ReadError, quota};
use proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, InternalRaftRequest, PutRequest, RangeRequest,
    TxnRequest, request_op,
};

use super::payload::Payload;
use super::{Services, answer, check};
use crate::grpc::error;
use crate::grpc::status::Status;

impl Services {
    pub(crate) async fn range(&self, request: RangeRequest) -> Result<Payload, Status> {
        check::range(&request)?;
        let started = Instant::now();
        let mut reading = started;
        if !request.serializable && !self.handle.gate().reads_need_no_round() {
            if let Err(status) = self.read_index().await {
                self.figures().unread_range(started.elapsed());
                return Err(status);
            }
            reading = Instant::now();
        }
        let answer = self.read_range(&request).await;
        let ended = Instant::now();
        self.figures().ranged(answer.is_ok(), ended - started, ended - reading);
        answer
    }

    async fn read_range(&self, request: &RangeRequest) -> Result<Payload, Status> {
        if let Some(resident) = self.handle.reader().range_resident(request) {
            let (revision, reply) = resident?;
            return Ok(answer::range(&self.header(revision), reply));
        }
        let request = request.clone();
        if RangePager::can_page(&request) && !request.count_only {
            return Box::pin(self.list(request)).await;
        }
        let reader = self.handle.reader().clone();
        let (revision, reply) = self.blocking(move || reader.range(&request)).await?;
        Ok(answer::range(&self.header(revision), reply))
    }

    /// Waits until a local read is linearizable.
    pub(super) async fn read_index(&self) -> Result<(), Status> {
        self.handle.read_index().await.map_err(|failure| {
            self.figures().read_index_failed(failure);
            failure.into()
        })
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
        let started = Instant::now();
        let answer = self.read_only_txn(request).await;
        self.figures().read_only_txn(answer.is_ok(), started.elapsed());
        answer
    }

    async fn read_only_txn(&self, request: TxnRequest) -> Result<Payload, Status> {
        if !is_serializable(&request) {
            self.read_index().await?;
        }
        let reader = self.handle.reader().clone();
        let (revision, reply) = self.blocking(move || reader.txn(&request)).await?;
        Ok(answer::reply(&self.header(revision), &machine::Reply::Txn(reply)))
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
        })
    }

    /// Runs a read that may touch the disk on the blocking pool.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Status> {
        match tokio::task::spawn_blocking(read).await {
            Ok(result) => self.read(result),
            // The pool refuses work only while the process is ending.
            Err(_cancelled) => Err(error::STOPPED),
        }
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
