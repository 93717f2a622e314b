//! The Cluster service (`spec/grpc-api.md` §7): listing members. Changing membership is not built yet.

use proto::etcdserverpb::{Member, MemberListRequest, MemberListResponse};

use super::Services;
use super::payload::Payload;
use crate::grpc::status::Status;

impl Services {
    pub(super) async fn member_list(&self, request: MemberListRequest) -> Result<Payload, Status> {
        if request.linearizable {
            self.read_index().await?;
        }
        let cluster = self.cluster();
        // Responses of this service carry no revision.
        Ok(Payload::of(&MemberListResponse {
            header: Some(self.header(0)),
            members: cluster.members().map(member).collect(),
        }))
    }
}

fn member(member: &machine::membership::Member) -> Member {
    Member {
        id: member.id,
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        client_urls: member.client_urls.clone(),
        is_learner: member.is_learner,
    }
}
