//! Watches over reconnects, slow readers and compactions: ordered, complete, unique.

use proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse, watch_request};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::client::{Client, in_time};

/// A watch stream.
#[derive(Debug)]
pub(crate) struct Watch {
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
}

impl Watch {
    pub(crate) async fn send(&self, request: WatchRequest) {
        in_time("room for a request", self.requests.send(request)).await.expect("the stream is open");
    }

    pub(crate) async fn create(&self, request: WatchCreateRequest) {
        let request_union = Some(watch_request::RequestUnion::CreateRequest(request));
        self.send(WatchRequest { request_union }).await;
    }

    pub(crate) async fn message(&mut self) -> Result<Option<WatchResponse>, Status> {
        self.responses.message().await
    }
}

/// Opens a stream with one watcher and waits until that is created.
pub(crate) async fn open_watch(client: &Client, request: WatchCreateRequest) -> Watch {
    let (requests, receiver) = mpsc::channel(64);
    let request_union = Some(watch_request::RequestUnion::CreateRequest(request));
    requests.send(WatchRequest { request_union }).await.expect("room");
    let mut service = client.watch();
    let opened = service.watch(ReceiverStream::new(receiver));
    let responses = in_time("a watch stream", opened).await.expect("it opens").into_inner();
    let mut watch = Watch { requests, responses };
    let first = in_time("created", watch.message()).await.expect("open").expect("open");
    assert!(first.created, "{first:?}");
    watch
}
