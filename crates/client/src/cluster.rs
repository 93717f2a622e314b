//! Membership, as far as it is only looked at.

use proto::etcdserverpb::{MemberListRequest, MemberListResponse};

use crate::call::{Method, Retry};
use crate::{Client, Error};

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
}
