//! Membership: looking at it, and changing it by one member at a time.
//!
//! A change is asked for once: whether a lost one took effect, only the list of members can tell.

use proto::etcdserverpb::{
    MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse,
};

use crate::call::{Method, Retry};
use crate::{Client, Error, peer_url};

impl Client {
    /// The members; as the asked one knows them unless `linearizable`.
    pub async fn member_list(&self, linearizable: bool) -> Result<MemberListResponse, Error> {
        let request = MemberListRequest { linearizable };
        let method = Method { retry: Retry::Repeatable, path: "/etcdserverpb.Cluster/MemberList" };
        self.call(method, request, |channel, request| {
            let mut cluster = self.cluster(channel);
            async move { cluster.member_list(request).await }
        })
        .await
    }

    /// Adds a member to be started under `peer_urls`, without a vote if `is_learner`.
    pub async fn member_add(
        &self,
        peer_urls: Vec<String>,
        is_learner: bool,
    ) -> Result<MemberAddResponse, Error> {
        peer_url::check(&peer_urls)?;
        let request = MemberAddRequest { peer_urls, is_learner };
        let method = Method { retry: Retry::NeverSent, path: "/etcdserverpb.Cluster/MemberAdd" };
        self.call(method, request, |channel, request| {
            let mut cluster = self.cluster(channel);
            async move { cluster.member_add(request).await }
        })
        .await
    }

    /// Removes a member for good: its id never comes back.
    pub async fn member_remove(&self, id: u64) -> Result<MemberRemoveResponse, Error> {
        let request = MemberRemoveRequest { id };
        let method = Method { retry: Retry::NeverSent, path: "/etcdserverpb.Cluster/MemberRemove" };
        self.call(method, request, |channel, request| {
            let mut cluster = self.cluster(channel);
            async move { cluster.member_remove(request).await }
        })
        .await
    }

    /// Replaces the URLs under which the other members reach this one.
    pub async fn member_update(
        &self,
        id: u64,
        peer_urls: Vec<String>,
    ) -> Result<MemberUpdateResponse, Error> {
        peer_url::check(&peer_urls)?;
        let request = MemberUpdateRequest { id, peer_urls };
        let method = Method { retry: Retry::NeverSent, path: "/etcdserverpb.Cluster/MemberUpdate" };
        self.call(method, request, |channel, request| {
            let mut cluster = self.cluster(channel);
            async move { cluster.member_update(request).await }
        })
        .await
    }

    /// Gives a learner a vote; refused until it has caught up with the leader.
    pub async fn member_promote(&self, id: u64) -> Result<MemberPromoteResponse, Error> {
        let request = MemberPromoteRequest { id };
        let path = "/etcdserverpb.Cluster/MemberPromote";
        let method = Method { retry: Retry::NeverSent, path };
        self.call(method, request, |channel, request| {
            let mut cluster = self.cluster(channel);
            async move { cluster.member_promote(request).await }
        })
        .await
    }
}
