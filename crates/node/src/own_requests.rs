//! Requests that the node itself puts into the log.

use bytes::Bytes;
use prost::Message as _;
use proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, InternalRaftRequest, LeaseCheckpoint,
    LeaseCheckpointRequest, LeaseRevokeRequest, RequestHeader, alarm_request::AlarmAction,
};
use proto::membershippb::{Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest};

/// Encodes the publication of a member's name and client URLs.
pub(crate) fn attributes(id: u64, member: u64, name: &str, client_urls: &[String]) -> Bytes {
    let attributes = Attributes { name: name.to_owned(), client_urls: client_urls.to_vec() };
    encode(id, |request| {
        request.cluster_member_attr_set = Some(ClusterMemberAttrSetRequest {
            member_id: member,
            member_attributes: Some(attributes),
        });
    })
}

/// Encodes the decision on a cluster version.
pub(crate) fn cluster_version(id: u64, version: &str) -> Bytes {
    encode(id, |request| {
        request.cluster_version_set = Some(ClusterVersionSetRequest { ver: version.to_owned() });
    })
}

/// Encodes the alarm that a member's quota is exceeded.
pub(crate) fn no_space_alarm(id: u64, member: u64) -> Bytes {
    encode(id, |request| {
        request.alarm = Some(AlarmRequest {
            action: AlarmAction::Activate.into(),
            member_id: member,
            alarm: AlarmType::Nospace.into(),
        });
    })
}

/// Encodes the revocation of an expired lease.
pub(crate) fn lease_revoke(id: u64, lease: i64) -> Bytes {
    encode(id, |request| request.lease_revoke = Some(LeaseRevokeRequest { id: lease }))
}

/// Encodes the remaining ttls of leases, in seconds.
pub(crate) fn lease_checkpoint(id: u64, leases: &[(i64, i64)]) -> Bytes {
    let checkpoints =
        leases.iter().map(|&(id, remaining_ttl)| LeaseCheckpoint { id, remaining_ttl }).collect();
    encode(id, |request| request.lease_checkpoint = Some(LeaseCheckpointRequest { checkpoints }))
}

/// Encodes a compaction.
pub(crate) fn compaction(id: u64, revision: i64) -> Bytes {
    encode(id, |request| {
        request.compaction = Some(CompactionRequest { revision, physical: false });
    })
}

fn encode(id: u64, fill: impl FnOnce(&mut InternalRaftRequest)) -> Bytes {
    let header = RequestHeader { id, ..RequestHeader::default() };
    let mut request = InternalRaftRequest { header: Some(header), ..Default::default() };
    fill(&mut request);
    request.encode_to_vec().into()
}
