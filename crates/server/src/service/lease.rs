//! The Lease service (`spec/grpc-api.md` §6).

use bytes::Bytes;
use node::{Answer, LeaseRequestKind};
use proto::etcdserverpb::{
    InternalRaftRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};

use super::payload::Payload;
use super::stream::{Gone, Inbound, Outbound};
use super::{Services, decode};
use crate::grpc::error;
use crate::grpc::status::Status;
use machine::quota;

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
        let kind = LeaseRequestKind::TimeToLive { id: request.id, keys: request.keys };
        let answer = self.handle.lease(kind).await?;
        let Answer::TimeToLive { ttl, granted_ttl, keys } = answer else {
            unreachable!("a time-to-live is answered by one, not {answer:?}")
        };
        Ok(Payload::of(&LeaseTimeToLiveResponse {
            header: Some(self.header(self.handle.reader().revision())),
            id: request.id,
            ttl,
            granted_ttl,
            keys,
        }))
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
        let answer = self.handle.lease(LeaseRequestKind::KeepAlive { id: request.id }).await?;
        let Answer::KeptAlive { ttl, revision } = answer else {
            unreachable!("a keep-alive is answered by one, not {answer:?}")
        };
        Ok(Payload::of(&LeaseKeepAliveResponse {
            header: Some(self.header(revision)),
            id: request.id,
            ttl,
        }))
    }
}
