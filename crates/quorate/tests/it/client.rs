//! A gRPC client for the tests: plain calls that are answered within a time, or fail the test.

use std::time::Duration;

use bytes::Bytes;
use proto::etcdserverpb::cluster_client::ClusterClient;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::{PutRequest, RangeRequest, RangeResponse};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::harness::{PATIENCE, Server};

/// Answers may be as large as the server makes them.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// One connection.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    channel: Channel,
}

impl Client {
    pub(crate) async fn connect(server: &Server) -> Self {
        Self::connect_to(server.url()).await
    }

    pub(crate) async fn connect_to(url: &str) -> Self {
        Self::try_connect(url).await.expect("it serves")
    }

    /// Connects to a process that may have ended.
    pub(crate) async fn try_connect(url: &str) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL").timeout(PATIENCE);
        endpoint.connect().await.map(Self::over)
    }

    pub(crate) fn over(channel: Channel) -> Self {
        Self { channel }
    }

    pub(crate) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    pub(crate) fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone())
    }

    pub(crate) fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }

    pub(crate) fn watch(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Puts and gives the revision.
    pub(crate) async fn put(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<i64, Status> {
        let request = PutRequest { key: key.into(), value: value.into(), ..Default::default() };
        let response = self.kv().put(request).await?.into_inner();
        Ok(response.header.expect("always there").revision)
    }

    /// Reads one key.
    pub(crate) async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Bytes>, Status> {
        let request = RangeRequest { key: key.into(), ..Default::default() };
        let response = self.kv().range(request).await?.into_inner();
        Ok(response.kvs.into_iter().next().map(|kv| kv.value))
    }

    /// Reads all keys below `prefix`.
    pub(crate) async fn list(&self, prefix: &str) -> Result<RangeResponse, Status> {
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().expect("not empty") += 1;
        let request = RangeRequest {
            key: prefix.to_owned().into(),
            range_end: end.into(),
            ..Default::default()
        };
        Ok(self.kv().range(request).await?.into_inner())
    }
}

/// Whether a call failed because its connection or the member ended, not because it was refused.
pub(crate) fn is_lost(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal)
}

/// Waits for `future` no longer than anything may take.
pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    within(PATIENCE, what, future).await
}

/// Waits for `future` no longer than `patience`.
pub(crate) async fn within<T>(
    patience: Duration,
    what: &str,
    future: impl Future<Output = T>,
) -> T {
    tokio::time::timeout(patience, future).await.unwrap_or_else(|_| panic!("took too long: {what}"))
}
