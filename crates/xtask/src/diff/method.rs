//! What can be called: gRPC methods, their routes in the JSON gateway, and whether order matters.

use prost_reflect::{DescriptorPool, MessageDescriptor};

/// One RPC of either server.
#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) service: &'static str,
    pub(crate) name: &'static str,
    /// The path in the gateway.
    pub(crate) route: Option<&'static str>,
    /// Calls that change nothing may run side by side: their order does not show.
    pub(crate) reads: bool,
}

const fn write(service: &'static str, name: &'static str, route: &'static str) -> Method {
    Method { service, name, route: Some(route), reads: false }
}

const fn read(service: &'static str, name: &'static str, route: &'static str) -> Method {
    Method { service, name, route: Some(route), reads: true }
}

const fn hidden(service: &'static str, name: &'static str, reads: bool) -> Method {
    Method { service, name, route: None, reads }
}

const KV: &str = "etcdserverpb.KV";
const LEASE: &str = "etcdserverpb.Lease";
const MAINTENANCE: &str = "etcdserverpb.Maintenance";

pub(crate) static RANGE: Method = read(KV, "Range", "/v3/kv/range");
pub(crate) static RANGE_STREAM: Method = hidden(KV, "RangeStream", true);
pub(crate) static PUT: Method = write(KV, "Put", "/v3/kv/put");
pub(crate) static DELETE: Method = write(KV, "DeleteRange", "/v3/kv/deleterange");
pub(crate) static TXN: Method = write(KV, "Txn", "/v3/kv/txn");
pub(crate) static COMPACT: Method = write(KV, "Compact", "/v3/kv/compaction");
pub(crate) static GRANT: Method = write(LEASE, "LeaseGrant", "/v3/lease/grant");
pub(crate) static REVOKE: Method = write(LEASE, "LeaseRevoke", "/v3/lease/revoke");
pub(crate) static KEEP_ALIVE: Method = write(LEASE, "LeaseKeepAlive", "/v3/lease/keepalive");
pub(crate) static TIME_TO_LIVE: Method = hidden(LEASE, "LeaseTimeToLive", true);
pub(crate) static LEASES: Method = hidden(LEASE, "LeaseLeases", true);
pub(crate) static MEMBER_LIST: Method =
    read("etcdserverpb.Cluster", "MemberList", "/v3/cluster/member/list");
pub(crate) static ALARM: Method = write(MAINTENANCE, "Alarm", "/v3/maintenance/alarm");
pub(crate) static STATUS: Method = hidden(MAINTENANCE, "Status", false);
pub(crate) static DEFRAGMENT: Method =
    write(MAINTENANCE, "Defragment", "/v3/maintenance/defragment");
pub(crate) static HASH_KV: Method = read(MAINTENANCE, "HashKV", "/v3/maintenance/hashkv");
pub(crate) static MOVE_LEADER: Method =
    write(MAINTENANCE, "MoveLeader", "/v3/maintenance/transfer-leadership");
pub(crate) static DOWNGRADE: Method = write(MAINTENANCE, "Downgrade", "/v3/maintenance/downgrade");
pub(crate) static LOCK: Method = write("v3lockpb.Lock", "Lock", "/v3/lock/lock");
pub(crate) static UNLOCK: Method = write("v3lockpb.Lock", "Unlock", "/v3/lock/unlock");
pub(crate) static CAMPAIGN: Method =
    write("v3electionpb.Election", "Campaign", "/v3/election/campaign");
pub(crate) static PROCLAIM: Method =
    write("v3electionpb.Election", "Proclaim", "/v3/election/proclaim");
pub(crate) static LEADER: Method = read("v3electionpb.Election", "Leader", "/v3/election/leader");
pub(crate) static RESIGN: Method = write("v3electionpb.Election", "Resign", "/v3/election/resign");
pub(crate) static HEALTH: Method = hidden("grpc.health.v1.Health", "Check", true);
pub(crate) static NO_METHOD: Method = hidden(KV, "NoSuchMethod", true);
pub(crate) static NO_SERVICE: Method = hidden("etcdserverpb.NoSuchService", "Range", true);

impl Method {
    pub(crate) fn path(&self) -> String {
        format!("/{}/{}", self.service, self.name)
    }
}

/// The descriptors of all messages.
pub(crate) struct Descriptors(DescriptorPool);

impl Descriptors {
    pub(crate) fn load() -> anyhow::Result<Self> {
        Ok(Self(DescriptorPool::decode(proto::DESCRIPTORS)?))
    }

    /// Returns the request and the response type; `None` for methods that do not exist.
    pub(crate) fn of(&self, method: &Method) -> Option<(MessageDescriptor, MessageDescriptor)> {
        let service = self.0.get_service_by_name(method.service)?;
        let found = service.methods().find(|each| each.name() == method.name)?;
        Some((found.input(), found.output()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_but_the_two_unknown_ones_has_descriptors() {
        let descriptors = Descriptors::load().unwrap();
        let all = [
            &RANGE,
            &RANGE_STREAM,
            &PUT,
            &DELETE,
            &TXN,
            &COMPACT,
            &GRANT,
            &REVOKE,
            &KEEP_ALIVE,
            &TIME_TO_LIVE,
            &LEASES,
            &MEMBER_LIST,
            &ALARM,
            &STATUS,
            &DEFRAGMENT,
            &HASH_KV,
            &MOVE_LEADER,
            &DOWNGRADE,
            &LOCK,
            &UNLOCK,
            &CAMPAIGN,
            &PROCLAIM,
            &LEADER,
            &RESIGN,
            &HEALTH,
        ];
        for method in all {
            assert!(descriptors.of(method).is_some(), "{}", method.path());
        }
        assert!(descriptors.of(&NO_METHOD).is_none());
        assert!(descriptors.of(&NO_SERVICE).is_none());
    }
}
