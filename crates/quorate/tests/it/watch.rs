//! Watches over reconnects, slow readers and compactions: ordered, complete, unique.

use std::time::Duration;

use proto::etcdserverpb::{
    CompactionRequest, WatchCreateRequest, WatchRequest, WatchResponse, watch_request,
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::client::{Client, in_time};
use crate::harness::Setup;
use crate::random::Random;

/// A watch stream.
#[derive(Debug)]
pub(crate) struct Watch {
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
}

impl Watch {
    pub(crate) async fn send(&self, request: WatchRequest) {
        in_time("room for a request", self.requests.send(request))
            .await
            .expect("the stream is open");
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

/// Keys that are written again and again.
const KEYS: usize = 50;
/// Writes in all.
const WRITES: usize = 6000;
/// Writes between two compactions, each of which leaves some history.
const COMPACT_EVERY: usize = 300;
const REVISIONS_KEPT: i64 = 20;

/// What a watcher has seen, checked against the writer's order.
#[derive(Debug, Default)]
struct Seen {
    /// The last revision seen.
    revision: i64,
    /// Values in order; a gap only where history was compacted before the watcher could read it.
    numbers: Vec<usize>,
    gaps: usize,
}

impl Seen {
    fn take(&mut self, response: &WatchResponse) {
        for event in &response.events {
            let kv = event.kv.as_ref().expect("always there");
            assert!(kv.mod_revision > self.revision, "{} after {}", kv.mod_revision, self.revision);
            self.revision = kv.mod_revision;
            let number: usize = String::from_utf8_lossy(&kv.value[..8]).parse().expect("ours");
            self.numbers.push(number);
        }
    }
}

/// Writes numbered values, compacting on the way; the revision of number `n` is that of number 0 plus `n`.
async fn write(client: Client) -> i64 {
    let mut first = 0;
    for number in 0..WRITES {
        let mut value = format!("{number:08}").into_bytes();
        value.resize(500, b' ');
        let revision =
            client.put(format!("watched/{:04}", number % KEYS), value).await.expect("acknowledged");
        if number == 0 {
            first = revision;
        }
        assert_eq!(revision, first + number as i64, "only this writer writes");
        if number % COMPACT_EVERY == COMPACT_EVERY - 1 {
            let revision = revision - REVISIONS_KEPT;
            let request = CompactionRequest { revision, physical: false };
            client.kv().compact(request).await.expect("compacted");
        }
    }
    first
}

/// Watches from the beginning to the last number, breaking the connection off now and then, reading slowly if told so.
async fn follow(server: String, number: usize) -> Seen {
    let mut random = Random::new(number as u64);
    let mut seen = Seen { revision: 1, ..Seen::default() };
    loop {
        let client = Client::connect_to(&server).await;
        let request = WatchCreateRequest {
            key: "watched/".into(),
            range_end: "watched0".into(),
            start_revision: seen.revision + 1,
            fragment: number.is_multiple_of(2),
            ..Default::default()
        };
        let mut watch = open_watch(&client, request).await;
        let mut left = 1 + random.below(200);
        while left > 0 {
            let response = in_time("events", watch.message()).await.expect("open").expect("open");
            if response.canceled {
                // Compacted before it could be read: go on with what is left, as clients do.
                assert!(response.compact_revision > seen.revision, "{response:?}");
                seen.revision = response.compact_revision - 1;
                seen.gaps += 1;
                break;
            }
            seen.take(&response);
            if seen.numbers.last() == Some(&(WRITES - 1)) {
                return seen;
            }
            left -= 1;
            if left == 0 && number % 4 == 1 {
                // Away for a while, so that history may be gone.
                tokio::time::sleep(Duration::from_millis(random.below(300))).await;
            }
            if number.is_multiple_of(3) {
                tokio::time::sleep(Duration::from_millis(random.below(4))).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_see_all_in_order_once_over_reconnects_and_compactions() {
    let server = Setup::new().start();
    let mut watchers = tokio::task::JoinSet::new();
    for number in 0..24 {
        watchers.spawn(follow(server.url().to_owned(), number));
    }
    let first = write(Client::connect(&server).await).await;
    let all = in_time("watchers", watchers.join_all()).await;
    let mut gaps = 0;
    for seen in all {
        assert_eq!(seen.revision, first + WRITES as i64 - 1);
        let jumps = seen.numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
        let late = usize::from(seen.numbers[0] != 0);
        assert!(seen.numbers.is_sorted_by(|left, right| left < right), "out of order");
        assert!(jumps + late <= seen.gaps, "{jumps} jumps, {late} late, {} compactions", seen.gaps);
        gaps += seen.gaps;
    }
    eprintln!("{gaps} gaps by compaction");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_resumes_after_a_crash_without_loss() {
    let directory = TempDir::new().expect("a directory");
    let setup = Setup::new().data_dir(&directory.path().join("data"));
    let mut server = setup.start();
    let mut seen = Seen { revision: 1, ..Seen::default() };
    let mut written = 0;
    let mut random = Random::new(7);
    for _ in 0..4 {
        let client = Client::connect(&server).await;
        let request = WatchCreateRequest {
            key: "watched/".into(),
            range_end: "watched0".into(),
            start_revision: seen.revision + 1,
            ..Default::default()
        };
        let mut watch = open_watch(&client, request).await;
        let end = written + 100 + random.below(200) as usize;
        while written < end {
            client.put("watched/1", format!("{written:08}")).await.expect("acknowledged");
            written += 1;
        }
        // The watcher has seen some of it when the member crashes.
        let enough = seen.numbers.len() + 50;
        while seen.numbers.len() < enough {
            seen.take(&in_time("events", watch.message()).await.expect("open").expect("open"));
        }
        server.kill();
        server = setup.start();
    }
    let client = Client::connect(&server).await;
    let request = WatchCreateRequest {
        key: "watched/1".into(),
        start_revision: seen.revision + 1,
        ..Default::default()
    };
    let mut watch = open_watch(&client, request).await;
    while seen.numbers.len() < written {
        seen.take(&in_time("events", watch.message()).await.expect("open").expect("open"));
    }
    assert_eq!(seen.numbers, (0..written).collect::<Vec<_>>());
}
