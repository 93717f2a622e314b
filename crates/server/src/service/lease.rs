//! The Lease service (`spec/grpc-api.md` §6).

use bytes::Bytes;
use http::StatusCode;
use node::{Answer, LeaseRequestKind};
use prost::Message as _;
use proto::etcdserverpb::{
    InternalRaftRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use proto::leasepb::{LeaseInternalRequest, LeaseInternalResponse};

use super::forward::{Attempt, question};
use super::payload::Payload;
use super::stream::{Gone, Inbound, Outbound};
use super::{Services, decode};
use crate::grpc::error;
use crate::grpc::status::Status;
use machine::quota;

/// Where members renew leases at the leader.
pub const PATH: &str = "/leases";

/// Where they ask for a lease's times.
pub const INTERNAL_PATH: &str = "/leases/internal";

impl Services {
    pub(super) async fn lease_grant(
        &self,
        mut request: LeaseGrantRequest,
    ) -> Result<Payload, Status> {
        self.check_space(quota::LEASE_COST).await?;
        while request.id == 0 {
            // A request id without its sign bit is unique enough; the log refuses one that is taken.
            request.id = (self.handle.request_id() & !(1 << 63)).cast_signed();
        }
        self.propose_and_answer(InternalRaftRequest {
            lease_grant: Some(request),
            ..InternalRaftRequest::default()
        })
        .await
    }

    pub(super) async fn lease_revoke(
        &self,
        request: LeaseRevokeRequest,
    ) -> Result<Payload, Status> {
        self.propose_and_answer(InternalRaftRequest {
            lease_revoke: Some(request),
            ..InternalRaftRequest::default()
        })
        .await
    }

    pub(super) async fn lease_time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<Payload, Status> {
        let asked = LeaseInternalRequest { lease_time_to_live_request: Some(request) };
        let page = question(INTERNAL_PATH, asked.encode_to_vec().into());
        let here = || async {
            match self.times_here(request).await {
                Err(error) if error == error::NOT_PRIMARY_LESSOR => Attempt::Again,
                answer => Attempt::Done(answer),
            }
        };
        let there = |status, body| match status {
            StatusCode::OK => match read_times(body) {
                Some(times) => Attempt::Done(Ok(times)),
                None => Attempt::Again,
            },
            StatusCode::NOT_FOUND => Attempt::Done(Ok(unknown(request.id))),
            _ => Attempt::Again,
        };
        let times = self.at_leader(here, &page, there).await?;
        let header = Some(self.header(self.handle.reader().revision()));
        Ok(Payload::of(&LeaseTimeToLiveResponse { header, ..times }))
    }

    /// Tells a lease's times as this member knows them, if it leads; without a header.
    pub async fn times_here(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, Status> {
        let kind = LeaseRequestKind::TimeToLive { id: request.id, keys: request.keys };
        let answer = self.handle.lease(kind).await?;
        let Answer::TimeToLive { ttl, granted_ttl, keys } = answer else {
            unreachable!("a time-to-live is answered by one, not {answer:?}")
        };
        Ok(LeaseTimeToLiveResponse { header: None, id: request.id, ttl, granted_ttl, keys })
    }

    pub(super) async fn lease_leases(&self) -> Result<Payload, Status> {
        let answer = self.handle.lease(LeaseRequestKind::Leases).await?;
        let Answer::Leases(ids) = answer else {
            unreachable!("a list of leases is answered by one, not {answer:?}")
        };
        Ok(Payload::of(&LeaseLeasesResponse {
            header: Some(self.header(self.handle.reader().revision())),
            leases: ids.into_iter().map(|id| LeaseStatus { id }).collect(),
        }))
    }

    /// Answers each keep-alive in order until the client has finished or is gone.
    pub(super) async fn lease_keep_alive(
        &self,
        mut inbound: impl Inbound,
        out: &mut impl Outbound,
    ) -> Result<(), Status> {
        loop {
            let message = tokio::select! {
                message = inbound.message() => {
                    message.inspect_err(|status| self.figures().keep_alive_broken(status))?
                }
                () = out.gone() => return Err(error::CANCELED),
            };
            let Some(message) = message else { return Ok(()) };
            let payload = self.keep_alive(message).await?;
            if out.send(payload).await == Err(Gone) {
                return Err(error::CANCELED);
            }
        }
    }

    async fn keep_alive(&self, message: Bytes) -> Result<Payload, Status> {
        let request: LeaseKeepAliveRequest =
            decode(message).inspect_err(|status| self.figures().keep_alive_broken(status))?;
        let revision = self.handle.reader().revision();
        let here = if self.handle.gate().is_leader() {
            self.renew_here(request.id).await
        } else {
            Err(error::NOT_PRIMARY_LESSOR)
        };
        let (ttl, revision) = match here {
            // Streams are many, and few of them ever get here: its future is not a part of theirs.
            Err(error) if error == error::NOT_PRIMARY_LESSOR => {
                Box::pin(self.renew_at_leader(request, revision)).await?
            }
            renewed => renewed?,
        };
        Ok(Payload::of(&LeaseKeepAliveResponse {
            header: Some(self.header(revision)),
            id: request.id,
            ttl,
        }))
    }

    async fn renew_at_leader(
        &self,
        request: LeaseKeepAliveRequest,
        revision: i64,
    ) -> Result<(i64, i64), Status> {
        let page = question(PATH, request.encode_to_vec().into());
        let here = || async {
            match self.renew_here(request.id).await {
                Err(error) if error == error::NOT_PRIMARY_LESSOR => Attempt::Again,
                answer => Attempt::Done(answer),
            }
        };
        let there = |status, body| match status {
            StatusCode::OK => match read_renewed(body) {
                Some(ttl) => Attempt::Done(Ok((ttl, revision))),
                None => Attempt::Again,
            },
            StatusCode::NOT_FOUND => Attempt::Done(Ok((0, revision))),
            _ => Attempt::Again,
        };
        self.at_leader(here, &page, there).await
    }

    /// Renews a lease, if this member leads. Returns its ttl, 0 for one that is not there, and the revision before.
    pub async fn renew_here(&self, id: i64) -> Result<(i64, i64), Status> {
        let answer = self.handle.lease(LeaseRequestKind::KeepAlive { id }).await?;
        let Answer::KeptAlive { ttl, revision } = answer else {
            unreachable!("a keep-alive is answered by one, not {answer:?}")
        };
        Ok((ttl, revision))
    }
}

/// Reads a leader's answer about a lease's times.
pub fn read_times(body: Bytes) -> Option<LeaseTimeToLiveResponse> {
    LeaseInternalResponse::decode(body).ok()?.lease_time_to_live_response
}

/// Reads a leader's answer to a renewal: the ttl.
pub fn read_renewed(body: Bytes) -> Option<i64> {
    LeaseKeepAliveResponse::decode(body).ok().map(|kept| kept.ttl)
}

/// What is told of a lease that is not there.
fn unknown(id: i64) -> LeaseTimeToLiveResponse {
    LeaseTimeToLiveResponse { id, ttl: -1, ..LeaseTimeToLiveResponse::default() }
}
