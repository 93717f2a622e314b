//! One member's API, with a bound on how long a call may take.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use proto::etcdserverpb::cluster_client::ClusterClient;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::{
    HashKvRequest, HashKvResponse, MemberAddRequest, MemberAddResponse, MoveLeaderRequest,
    PutRequest, RangeRequest, RangeResponse, StatusRequest, StatusResponse,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
const LIST_BYTES_MAX: usize = 64 << 20;

/// Calls to one member. Clones share the connection, which is made anew whenever it is lost.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    channel: Channel,
    patience: Duration,
}

impl Api {
    pub(crate) fn new(address: SocketAddr, patience: Duration) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
        let channel = endpoint.connect_timeout(CONNECT_PATIENCE).tcp_nodelay(true).connect_lazy();
        Ok(Self { channel, patience })
    }

    /// The same member, with another bound.
    pub(crate) fn within(&self, patience: Duration) -> Self {
        Self { channel: self.channel.clone(), patience }
    }

    pub(crate) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(LIST_BYTES_MAX)
    }

    pub(crate) fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    pub(crate) fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone())
    }

    fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }

    /// Awaits `call` for as long as a call may take.
    pub(crate) async fn call<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Status> {
        match tokio::time::timeout(self.patience, call).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_elapsed) => Err(Status::deadline_exceeded("the client's deadline")),
        }
    }

    /// Puts and returns the revision.
    pub(crate) async fn put(&self, key: &str, value: &str) -> Result<i64, Status> {
        let request = PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..PutRequest::default()
        };
        let answer = self.call(self.kv().put(request)).await?;
        Ok(answer.header.map_or(0, |header| header.revision))
    }

    pub(crate) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.call(self.kv().range(request)).await
    }

    /// A linearizable read of `key`.
    pub(crate) async fn get(&self, key: &str) -> Result<RangeResponse, Status> {
        self.range(RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() }).await
    }

    pub(crate) async fn status(&self) -> Result<StatusResponse, Status> {
        self.call(self.maintenance().status(StatusRequest {})).await
    }

    pub(crate) async fn hash(&self, revision: i64) -> Result<HashKvResponse, Status> {
        self.call(self.maintenance().hash_kv(HashKvRequest { revision })).await
    }

    pub(crate) async fn move_leader(&self, target_id: u64) -> Result<(), Status> {
        self.call(self.maintenance().move_leader(MoveLeaderRequest { target_id })).await?;
        Ok(())
    }

    pub(crate) async fn add_member(&self, peer_url: &str) -> Result<MemberAddResponse, Status> {
        let request = MemberAddRequest { peer_urls: vec![peer_url.to_owned()], is_learner: false };
        self.call(self.cluster().member_add(request)).await
    }
}

/// Whether a client tries another endpoint after this: the member said so, or the connection was lost.
pub(crate) fn is_unavailable(status: &Status) -> bool {
    let lost = std::error::Error::source(status).is_some();
    status.code() == Code::Unavailable || lost
}
