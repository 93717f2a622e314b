//! Requests on their way into the log.

use std::time::Instant;

use bytes::Bytes;
use machine::{Outcome, Reply, RequestKind};
use node::Failure;
use prost::Message;
use proto::etcdserverpb::{InternalRaftRequest, RequestHeader};

use super::payload::Payload;
use super::slow::{Call, Content};
use super::{Services, answer};
use crate::grpc::error;
use crate::grpc::status::Status;
use crate::metrics::RequestFigures;

impl Services {
    /// Puts `request` into the log under a new request id and waits until it is applied here.
    ///
    /// It is encoded at once: what waits is a few words, not the request.
    pub(super) fn propose(
        &self,
        request: InternalRaftRequest,
    ) -> impl Future<Output = Result<(i64, Reply), Status>> {
        let kind = kind(&request);
        let encoded = self.encode(request);
        async move {
            let (id, data) = encoded?;
            self.propose_encoded(kind, id, data).await
        }
    }

    /// Like [`Self::propose`], and encodes the answer.
    pub(super) fn propose_and_answer(
        &self,
        request: InternalRaftRequest,
    ) -> impl Future<Output = Result<Payload, Status>> {
        let proposed = self.propose(request);
        async move {
            let (revision, reply) = proposed.await?;
            let payload = answer::reply(&self.header(revision), &reply);
            Ok(payload.counted_if_free(&self.limits.answers))
        }
    }

    /// Like [`Self::propose_and_answer`] for a client's call, which is told of if it was slow.
    pub(super) fn propose_told(
        &self,
        call: &Call<'_>,
        request: InternalRaftRequest,
    ) -> impl Future<Output = Result<Payload, Status>> {
        let kind = kind(&request);
        let encoded = self.encode(request);
        async move {
            let (id, data) = encoded?;
            // Shares its bytes with the log.
            let entry = data.clone();
            let proposed = self.propose_encoded(kind, id, data).await;
            let answer = proposed
                .as_ref()
                .map(|(revision, reply)| answer::reply(&self.header(*revision), reply));
            self.tell(call, || {
                let len = answer.as_ref().map_or(0, |payload| payload.message_len());
                Content::of_entry(&entry, proposed.as_ref().ok().map(|(_, reply)| reply), len)
            });
            answer.map_err(Clone::clone)
        }
    }

    async fn propose_encoded(
        &self,
        kind: RequestKind,
        id: u64,
        data: Bytes,
    ) -> Result<(i64, Reply), Status> {
        let under_way = UnderWay::new(self.figures(), kind);
        let proposed = self.handle.propose(id, data).await;
        under_way.end(proposed.as_ref().err().copied());
        let Outcome { revision, result } = proposed?;
        Ok((revision, result?))
    }

    fn encode(&self, mut request: InternalRaftRequest) -> Result<(u64, Bytes), Status> {
        let id = self.handle.request_id();
        request.header = Some(RequestHeader { id, ..RequestHeader::default() });
        let len = request.encoded_len();
        if len > self.limits.request_bytes_max {
            return Err(error::REQUEST_TOO_LARGE);
        }
        Ok((id, request.encode_to_vec().into()))
    }
}

/// Times a request on its way. Dropped before its end, it has failed: nobody waits for it any more.
struct UnderWay<'a> {
    figures: &'a RequestFigures,
    kind: RequestKind,
    started: Instant,
    has_ended: bool,
}

impl<'a> UnderWay<'a> {
    fn new(figures: &'a RequestFigures, kind: RequestKind) -> Self {
        Self { figures, kind, started: Instant::now(), has_ended: false }
    }

    fn end(mut self, failure: Option<Failure>) {
        self.has_ended = true;
        self.figures.proposed(self.kind, failure.is_none(), self.started.elapsed());
        match failure {
            // As in etcd, what was not even proposed is no failed proposal.
            None | Some(Failure::TooManyRequests | Failure::Stopped) => {}
            Some(
                Failure::TimedOut
                | Failure::TimedOutLeaderFail
                | Failure::TimedOutConnectionLost
                | Failure::LeaderChanged
                | Failure::NoLeader
                | Failure::NotLeader
                | Failure::NoTransferee
                | Failure::TransferTimedOut
                | Failure::SnapshotNotTaken
                | Failure::LearnerNotReady
                | Failure::MemberNotFound
                | Failure::NotPrimary
                | Failure::DefragmentGivenUp,
            ) => self.figures.proposal_failed(),
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.figures.proposed(self.kind, false, self.started.elapsed());
            self.figures.proposal_failed();
        }
    }
}

/// What kind of request a client's is.
fn kind(request: &InternalRaftRequest) -> RequestKind {
    let kinds = [
        (request.put.is_some(), RequestKind::Put),
        (request.txn.is_some(), RequestKind::Txn),
        (request.delete_range.is_some(), RequestKind::DeleteRange),
        (request.lease_grant.is_some(), RequestKind::LeaseGrant),
        (request.lease_revoke.is_some(), RequestKind::LeaseRevoke),
        (request.compaction.is_some(), RequestKind::Compaction),
        (request.alarm.is_some(), RequestKind::Alarm),
        (request.downgrade_info_set.is_some(), RequestKind::DowngradeInfoSet),
    ];
    kinds.into_iter().find_map(|(is_it, kind)| is_it.then_some(kind)).unwrap_or(RequestKind::NoOp)
}
