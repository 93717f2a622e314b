//! Lists of all sizes and orders: what they answer, and what they cost while nobody reads them.

use prost::Message;
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::{RangeRequest, RangeResponse, RequestOp, TxnRequest, request_op};
use tonic::{Code, Status};

use crate::bystander::unharmed;
use crate::client::{Client, in_time};
use crate::frames::{Connection, message};
use crate::harness::{PATIENCE, Setup};
use crate::http1;
use crate::slow::{MIB, fill, list_without_window, silent};

/// `list/` to `list0`.
const GATEWAY_LIST: &str = r#"{"key":"bGlzdC8=","range_end":"bGlzdDA="}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_the_gateway_come_as_they_are_read() {
    let server = Setup::new().start();
    let client = Client::connect(&server).await;
    let few = http1::post(server.address(), "/v3/kv/range", GATEWAY_LIST).await;
    assert!(few.header("content-length").is_some() && few.json()["kvs"].is_null(), "{few:?}");
    fill(&client, "list/", 40_000, 500).await;
    // From here on the values are in memory: this is about answers, not about the disk.
    read(&client, list(SortOrder::None, SortTarget::Key)).await.expect("read");
    unharmed(&server, 150 * MIB, async {
        let request = format!(
            "POST /v3/kv/range HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{GATEWAY_LIST}",
            GATEWAY_LIST.len()
        );
        let held = silent(server.address(), 20, request.as_bytes()).await;
        let list = http1::post(server.address(), "/v3/kv/range", GATEWAY_LIST).await;
        assert_eq!(list.header("transfer-encoding"), Some("chunked"));
        let list: serde_json::Value =
            serde_json::from_str(&list.unchunked().expect("to its end")).expect("JSON");
        assert_eq!(list["count"], "40000");
        let kvs = list["kvs"].as_array().expect("a list");
        assert_eq!(kvs.len(), 40_000);
        assert!(kvs.iter().all(|kv| kv["version"] == "1"));
        held
    })
    .await;
}

fn list(order: SortOrder, target: SortTarget) -> RangeRequest {
    RangeRequest {
        key: "list/".into(),
        range_end: "list0".into(),
        sort_order: order.into(),
        sort_target: target.into(),
        ..Default::default()
    }
}

async fn read(client: &Client, request: RangeRequest) -> Result<RangeResponse, Status> {
    let mut kv = client.kv();
    Ok(in_time("a list", kv.range(request)).await?.into_inner())
}

fn keys(response: &RangeResponse) -> Vec<&[u8]> {
    response.kvs.iter().map(|kv| &kv.key[..]).collect()
}

/// Connections with calls whose answers nobody reads.
async fn unread(server: &crate::harness::Server, requests: &[RangeRequest]) -> Vec<Connection> {
    let mut held = Vec::new();
    for request in requests {
        let request = message(&request.encode_to_vec());
        let mut connection = Connection::open(server.address()).await;
        let calls = (0..10).flat_map(|number| {
            list_without_window("/etcdserverpb.KV/Range", 1 + 2 * number, &request)
        });
        assert!(connection.send(&calls.collect::<Vec<u8>>()).await);
        held.push(connection);
    }
    held
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_in_any_order_come_as_they_are_read() {
    let server = Setup::new().start();
    let client = Client::connect(&server).await;
    fill(&client, "list/", 40_000, 500).await;
    let natural = read(&client, list(SortOrder::None, SortTarget::Key)).await.expect("read");
    assert_eq!((natural.kvs.len(), natural.count), (40_000, 40_000));
    let orders = [
        list(SortOrder::Descend, SortTarget::Key),
        list(SortOrder::Descend, SortTarget::Mod),
        list(SortOrder::Ascend, SortTarget::Create),
        list(SortOrder::Ascend, SortTarget::Value),
    ];
    unharmed(&server, 300 * MIB, async {
        let held = unread(&server, &orders).await;
        for request in &orders {
            let ordered = read(&client, request.clone()).await.expect("read");
            assert_eq!((ordered.count, ordered.more), (40_000, false));
            let (mut ordered, mut expected) = (keys(&ordered), keys(&natural));
            match (request.sort_order(), request.sort_target()) {
                (SortOrder::Descend, SortTarget::Key) => expected.reverse(),
                // Keys of one transaction have the same revision.
                _ => ordered.sort_unstable(),
            }
            expected.sort_unstable_by(|a, b| match request.sort_target() {
                SortTarget::Key => b.cmp(a),
                _ => a.cmp(b),
            });
            assert!(ordered == expected, "{request:?}");
        }
        held
    })
    .await;
}

/// Gathers a `RangeStream`.
async fn stream(client: &Client, request: RangeRequest) -> RangeResponse {
    let mut kv = client.kv();
    in_time("a stream", async {
        let mut parts = kv.range_stream(request).await?.into_inner();
        let mut whole = RangeResponse::default();
        while let Some(part) = parts.message().await? {
            let part = part.range_response.expect("a response");
            whole.kvs.extend(part.kvs);
            (whole.header, whole.more, whole.count) = (part.header, part.more, part.count);
        }
        Ok::<_, Status>(whole)
    })
    .await
    .expect("streamed")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_without_order_are_sorted_by_their_target() {
    let server = Setup::new().start();
    let client = Client::connect(&server).await;
    // More than one page; neither values nor versions are in the order of keys.
    for number in 0..600_u32 {
        for _ in 0..=number % 3 {
            let value = format!("{:03}", number * 7 % 600);
            client.put(format!("list/{number:03}"), value).await.expect("put");
        }
    }
    let targets = [SortTarget::Value, SortTarget::Version, SortTarget::Create, SortTarget::Mod];
    for target in targets {
        for (limit, keys_only) in [(0, false), (0, true), (6, false), (400, false)] {
            let request = RangeRequest { limit, keys_only, ..list(SortOrder::None, target) };
            let expected = read(&client, request.clone()).await.expect("read");
            let streamed = stream(&client, request.clone()).await;
            assert!(streamed == expected, "{request:?}: {:?}", keys(&streamed));
        }
    }
    let by_value = stream(&client, list(SortOrder::None, SortTarget::Value)).await;
    assert!(by_value.kvs.is_sorted_by(|a, b| a.value <= b.value));
    assert_eq!((by_value.kvs.len(), by_value.more, by_value.count), (600, false, 600));
    let counted = RangeRequest { count_only: true, ..list(SortOrder::None, SortTarget::Value) };
    assert_eq!(stream(&client, counted).await.count, 600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_hold_no_more_than_they_may() {
    let server = Setup::new().flag("--answer-memory-bytes=16777216").start();
    let client = Client::connect(&server).await;
    fill(&client, "list/", 40_000, 500).await;
    let is_refused = |status: &Status| {
        status.code() == Code::ResourceExhausted && status.message().contains("answer-memory-bytes")
    };
    let large = || list(SortOrder::None, SortTarget::Key);
    // 20 MB: what can be read in pages is, what has to be held is not.
    for order in [large(), list(SortOrder::Descend, SortTarget::Mod)] {
        assert_eq!(read(&client, order).await.expect("read").kvs.len(), 40_000);
    }
    let by_value = list(SortOrder::Descend, SortTarget::Value);
    let refused = read(&client, by_value.clone()).await.expect_err("too large");
    assert!(is_refused(&refused), "{refused:?}");
    let txn = |range: RangeRequest| {
        let op = RequestOp { request: Some(request_op::Request::RequestRange(range)) };
        let txn = TxnRequest { success: vec![op], ..Default::default() };
        let mut kv = client.kv();
        async move { in_time("a transaction", kv.txn(txn)).await }
    };
    let refused = txn(large()).await.expect_err("too large");
    assert!(is_refused(&refused), "{refused:?}");
    let few = RangeRequest { limit: 1000, ..large() };
    assert_eq!(txn(few).await.expect("read").into_inner().responses.len(), 1);

    let held = unharmed(&server, 150 * MIB, async {
        // Each of these 250 lists holds a page of 256 records.
        let held = unread(&server, &vec![large(); 25]).await;
        // The room is full: large lists are refused after a while, small ones never.
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let refused = loop {
            match read(&client, large()).await {
                Ok(_) => assert!(tokio::time::Instant::now() < deadline, "the room never fills"),
                Err(status) => break status,
            }
        };
        assert!(is_refused(&refused), "{refused:?}");
        let few = RangeRequest { limit: 10, ..large() };
        assert_eq!(read(&client, few.clone()).await.expect("read").kvs.len(), 10);
        let few = RangeRequest { sort_order: SortOrder::Descend.into(), ..few };
        assert_eq!(read(&client, few).await.expect("read").kvs[9].key, "list/00039990");
        held
    })
    .await;
    for connection in held {
        connection.close().await;
    }
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while let Err(status) = read(&client, large()).await {
        assert!(is_refused(&status) && tokio::time::Instant::now() < deadline, "{status:?}");
    }
}
