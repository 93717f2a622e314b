//! Leases: granting, revoking, looking at, renewing once.

use proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use tonic::Code;

use crate::call::{Method, Retry};
use crate::client::Leader;
use crate::error::LEASE_NOT_FOUND;
use crate::{Client, Error};

impl Client {
    /// Grants a lease for `ttl` seconds with an id that the server chooses.
    pub async fn lease_grant(&self, ttl: i64) -> Result<LeaseGrantResponse, Error> {
        let request = LeaseGrantRequest { ttl, id: 0 };
        let method = Method { retry: Retry::Repeatable, path: "/etcdserverpb.Lease/LeaseGrant" };
        self.call(method, request, |channel, request| {
            let mut lease = self.lease(channel);
            async move { lease.lease_grant(request).await }
        })
        .await
    }

    /// Ends a lease and deletes its keys.
    pub async fn lease_revoke(&self, id: i64) -> Result<LeaseRevokeResponse, Error> {
        let request = LeaseRevokeRequest { id };
        let method = Method { retry: Retry::Repeatable, path: "/etcdserverpb.Lease/LeaseRevoke" };
        self.call(method, request, |channel, request| {
            let mut lease = self.lease(channel);
            async move { lease.lease_revoke(request).await }
        })
        .await
    }

    /// How long a lease still lasts, with its keys if `keys`.
    pub async fn lease_time_to_live(
        &self,
        id: i64,
        keys: bool,
    ) -> Result<LeaseTimeToLiveResponse, Error> {
        let request = LeaseTimeToLiveRequest { id, keys };
        let path = "/etcdserverpb.Lease/LeaseTimeToLive";
        let method = Method { retry: Retry::Repeatable, path };
        self.call(method, request, |channel, request| {
            let mut lease = self.lease(channel);
            async move { lease.lease_time_to_live(request).await }
        })
        .await
    }

    /// All leases.
    pub async fn lease_leases(&self) -> Result<LeaseLeasesResponse, Error> {
        let method = Method { retry: Retry::Repeatable, path: "/etcdserverpb.Lease/LeaseLeases" };
        self.call(method, LeaseLeasesRequest {}, |channel, request| {
            let mut lease = self.lease(channel);
            async move { lease.lease_leases(request).await }
        })
        .await
    }

    /// Renews a lease once; again while members are unavailable.
    pub async fn lease_keep_alive_once(&self, id: i64) -> Result<LeaseKeepAliveResponse, Error> {
        loop {
            match self.in_time(self.renew_lease(id)).await {
                Ok(answer) if answer.ttl <= 0 => {
                    return Err(Error::refused(Code::NotFound, LEASE_NOT_FOUND));
                }
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_final() => return Err(error),
                Err(_unavailable) => {}
            }
        }
    }

    async fn renew_lease(&self, id: i64) -> Result<LeaseKeepAliveResponse, Error> {
        self.renew_token().await?;
        let link = self.pick().await?;
        let mut lease = self.lease(link.channel.clone());
        let requests = tokio_stream::once(LeaseKeepAliveRequest { id });
        let request = self.request(requests, Leader::Optional);
        let answer = lease.lease_keep_alive(request).await;
        let mut answers = answer.map_err(|status| self.failed(&link, &status))?.into_inner();
        answers.message().await?.ok_or(Error::StreamEnded)
    }
}
