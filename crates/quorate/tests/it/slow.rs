//! Clients that are slow, on purpose or not: they wait, nobody else does, and what waits for them is bounded.

use std::net::SocketAddr;

use prost::Message;
use proto::etcdserverpb::{
    CompactionRequest, DefragmentRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    WatchCreateRequest, request_op,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bystander::unharmed;
use crate::client::{Client, in_time, within};
use crate::frames::{
    Connection, DATA, END_HEADERS, END_STREAM, HEADERS, WINDOW_UPDATE, call, frame, message,
};
use crate::harness::{PATIENCE, Setup, eventually};
use crate::http1;
use crate::listeners::Authority;
use crate::watch::open_watch;

pub(crate) const MIB: u64 = 1 << 20;

/// Puts `count` keys of `bytes` each below `prefix`, many at a time.
pub(crate) async fn fill(client: &Client, prefix: &str, count: usize, bytes: usize) {
    let per_txn = (1_000_000 / bytes).clamp(1, 120);
    let numbers: Vec<usize> = (0..count).collect();
    for chunk in numbers.chunks(per_txn) {
        let put = |number: &usize| RequestOp {
            request: Some(request_op::Request::RequestPut(PutRequest {
                key: format!("{prefix}{number:08}").into(),
                value: vec![b'v'; bytes].into(),
                ..Default::default()
            })),
        };
        let txn = TxnRequest { success: chunk.iter().map(put).collect(), ..Default::default() };
        client.kv().txn(txn).await.expect("acknowledged");
    }
}

fn range(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().expect("not empty") += 1;
    let request =
        RangeRequest { key: prefix.to_owned().into(), range_end: end.into(), ..Default::default() };
    message(&request.encode_to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_that_nobody_reads_are_bounded() {
    let server = Setup::new().start();
    fill(&Client::connect(&server).await, "list/", 40_000, 500).await;
    let request = range("list/");
    unharmed(&server, 200 * MIB, async {
        let mut connections = Vec::new();
        for path in ["/etcdserverpb.KV/Range", "/etcdserverpb.KV/RangeStream"] {
            for _ in 0..3 {
                let mut connection = Connection::open(server.address()).await;
                let calls =
                    (0..15).flat_map(|number| list_without_window(path, 1 + 2 * number, &request));
                assert!(connection.send(&calls.collect::<Vec<u8>>()).await);
                connections.push(connection);
            }
        }
        // All of them have begun when others have been served after them for a while.
        let client = Client::connect(&server).await;
        for _ in 0..300 {
            client.get("list/00000000").await.expect("readable");
        }
        connections
    })
    .await;
}

/// A call whose answer is given room for its first pieces, and no more.
pub(crate) fn list_without_window(path: &str, stream: u32, request: &[u8]) -> Vec<u8> {
    let mut bytes = frame(HEADERS, END_HEADERS, stream, &call(path));
    bytes.extend(frame(DATA, END_STREAM, stream, request));
    bytes.extend(frame(WINDOW_UPDATE, 0, stream, &1000_u32.to_be_bytes()));
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_does_not_read_is_bounded_and_misses_nothing() {
    let server = Setup::new().start();
    let client = Client::connect(&server).await;
    let reader = Client::connect(&server).await;
    let create = WatchCreateRequest {
        key: "slow/".into(),
        range_end: "slow0".into(),
        start_revision: 1,
        ..Default::default()
    };
    let count = 100_000;
    let mut watch = unharmed(&server, 300 * MIB, async {
        let mut watches = Vec::new();
        for _ in 0..20 {
            watches.push(open_watch(&reader, create.clone()).await);
        }
        fill(&client, "slow/", count, 900).await;
        watches
    })
    .await
    .swap_remove(0);
    let mut seen = 0;
    while seen < count {
        let response = in_time("events", watch.message()).await.expect("open").expect("open");
        assert!(!response.canceled, "{response:?}");
        for event in response.events {
            let key = event.kv.expect("always there").key;
            assert_eq!(key, format!("slow/{seen:08}"));
            seen += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_watchers_on_one_stream_are_served() {
    const WATCHERS: usize = 100_000;
    let server = Setup::new().start();
    let client = Client::connect(&server).await;
    unharmed(&server, 300 * MIB, async {
        let create = |number: usize| WatchCreateRequest {
            key: format!("many/{number:08}").into(),
            ..Default::default()
        };
        let mut watch = open_watch(&client, create(0)).await;
        let mut created = 1;
        for number in 1..WATCHERS {
            watch.create(create(number)).await;
            while number - created > 1000 {
                let response =
                    in_time("created", watch.message()).await.expect("open").expect("open");
                assert!(response.created && !response.canceled, "{response:?}");
                created += 1;
            }
        }
        while created < WATCHERS {
            let response = in_time("created", watch.message()).await.expect("open").expect("open");
            assert!(response.created && !response.canceled, "{response:?}");
            created += 1;
        }
        for number in [0, WATCHERS / 2, WATCHERS - 1] {
            client.put(format!("many/{number:08}"), "1").await.expect("acknowledged");
            let response = in_time("an event", watch.message()).await.expect("open").expect("open");
            assert_eq!(response.events.len(), 1);
            let kv = response.events[0].kv.as_ref().expect("always there");
            assert_eq!(kv.key, format!("many/{number:08}"));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_that_nobody_reads_hold_up_nobody() {
    let server = Setup::new().start();
    let client = Client::connect(&server).await;
    fill(&client, "snap/", 20_000, 500).await;
    unharmed(&server, 200 * MIB, async {
        let mut held = Vec::new();
        for _ in 0..4 {
            let mut connection = Connection::open(server.address()).await;
            for stream in (0..8).map(|number| 1 + 2 * number) {
                let mut bytes = frame(
                    HEADERS,
                    END_HEADERS,
                    stream,
                    &call("/etcdserverpb.Maintenance/Snapshot"),
                );
                bytes.extend(frame(DATA, END_STREAM, stream, &message(&[])));
                assert!(connection.send(&bytes).await);
            }
            held.push(connection);
        }
        // What else needs the disk goes on: history, deletions, compaction, defragmentation.
        let create = WatchCreateRequest {
            key: "snap/".into(),
            range_end: "snap0".into(),
            start_revision: 1,
            ..Default::default()
        };
        let mut watch = open_watch(&client, create).await;
        let mut seen = 0;
        while seen < 20_000 {
            seen += in_time("history", watch.message())
                .await
                .expect("open")
                .expect("open")
                .events
                .len();
        }
        let revision = client.put("snap/00000000", "new").await.expect("acknowledged");
        let compact = CompactionRequest { revision, physical: true };
        in_time("a compaction", client.kv().compact(compact)).await.expect("compacted");
        let mut maintenance = client.maintenance();
        let defragment = maintenance.defragment(DefragmentRequest {});
        in_time("a defragmentation", defragment).await.expect("defragmented");
        assert_eq!(client.list("snap/").await.expect("readable").kvs.len(), 20_000);
        held
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_of_the_gateway_that_nobody_reads_are_bounded() {
    let server = Setup::new().start();
    let client = Client::connect(&server).await;
    unharmed(&server, 300 * MIB, async {
        let body = r#"{"create_request":{"key":"anNvbi8=","range_end":"anNvbjA="}}"#;
        let request = format!(
            "POST /v3/watch HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let held = silent(server.address(), 20, request.as_bytes()).await;
        fill(&client, "json/", 30_000, 900).await;
        held
    })
    .await;
}

/// Opens `count` connections that send `bytes` and then nothing.
pub(crate) async fn silent(address: SocketAddr, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(bytes).await.expect("open");
        streams.push(stream);
    }
    streams
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_never_end_hold_up_nobody() {
    let server = Setup::new().start();
    let beginnings = [
        "",
        "P",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a\r\nX-Slow: ",
        "POST /v3/kv/put HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n{\"key\":",
        "POST /v3/kv/put HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"key",
        "POST /v3/watch HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n{\"create_request\":{\"key\":\"YQ==\"}}",
    ];
    unharmed(&server, 100 * MIB, async {
        let mut held = Vec::new();
        for beginning in beginnings {
            held.push(silent(server.address(), 200, beginning.as_bytes()).await);
        }
        for _ in 0..20 {
            assert_eq!(http1::get(server.address(), "/health").await.status, 200);
        }
        held
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_that_never_end_are_bounded() {
    let server = Setup::new().start();
    // The server's bound on incomplete messages, and room for what the attack itself costs.
    unharmed(&server, 450 * MIB, async {
        let text = "A".repeat(3 << 20);
        let mut held = Vec::new();
        for path in ["/v3/kv/put", "/v3/watch"] {
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n{{\"key\":\""
            );
            for _ in 0..100 {
                let mut stream = TcpStream::connect(server.address()).await.expect("it listens");
                stream.write_all(head.as_bytes()).await.expect("open");
                // Refused beyond the bound, which may close the connection.
                drop(within(PATIENCE, "room", stream.write_all(text.as_bytes())).await);
                held.push(stream);
            }
        }
        held
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_in_tiny_pieces_costs_no_more_than_its_bytes() {
    let server = Setup::new().start();
    unharmed(&server, 100 * MIB, async {
        let mut stream = TcpStream::connect(server.address()).await.expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        let head = "POST /v3/watch HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("open");
        let text = format!("{{\"create_request\":{{\"key\":\"{}", "A".repeat(2 << 20));
        stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await.expect("open");
        // If each piece made the server look at all of it again, this would take minutes.
        for _ in 0..20_000 {
            stream.write_all(b"1\r\nA\r\n").await.expect("open");
        }
        let end = "\"}}";
        stream
            .write_all(format!("{:x}\r\n{end}\r\n0\r\n\r\n", end.len()).as_bytes())
            .await
            .expect("open");
        let mut first = [0; 12];
        in_time("an answer", stream.read_exact(&mut first)).await.expect("an answer");
        assert!(first.starts_with(b"HTTP/1.1 "), "{first:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_never_end_hold_up_nobody_and_are_ended() {
    let authority = Authority::new();
    let server = authority.setup(false).start();
    let before = server.descriptors();
    let mut held = Vec::new();
    // Nothing, the beginning of a record, a record that lies about its length.
    for beginning in [&[][..], &[0x16, 3, 1], &[0x16, 3, 1, 0x3f, 0xff, 1, 0]] {
        held.extend(silent(server.address(), 150, beginning).await);
    }
    for _ in 0..10 {
        let stream = authority.connect(server.address(), None, &["http/1.1"]).await;
        let head = "GET /health HTTP/1.1\r\nHost: localhost";
        let health = http1::exchange(stream.expect("a handshake"), head, "").await;
        assert_eq!(health.status, 200);
    }
    assert!(server.memory().highest < 200 * MIB);
    eventually("handshakes time out", || server.descriptors() < before + 20);
    drop(held);
}
