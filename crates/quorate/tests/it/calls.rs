//! Calls that no client library makes, and how they are answered: as etcd does, without harm.

use std::io::Write as _;
use std::net::SocketAddr;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, Request};
use prost::Message;
use proto::etcdserverpb::{AuthenticateRequest, PutRequest, RequestOp, TxnRequest, request_op};
use tokio::net::TcpStream;

use crate::bystander::unharmed;
use crate::client::{Client, in_time};
use crate::frames::{
    Connection, DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, call, frame, message,
};
use crate::harness::Setup;
use crate::http1;

/// How a call ended.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    http: u16,
    /// `grpc-status`.
    code: Option<String>,
    /// `grpc-message`.
    text: String,
}

impl Ended {
    fn is(&self, code: u32, text: &str) -> bool {
        self.http == 200 && self.code == Some(code.to_string()) && self.text == text
    }
}

/// A call of `path` with these headers and this body.
async fn ask(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Ended {
    let mut request = Request::builder().method("POST").uri(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(()).expect("valid");
    let body = Bytes::copy_from_slice(body);
    in_time("an answer", async {
        let stream = TcpStream::connect(address).await.expect("it listens");
        let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        let connection = tokio::spawn(connection);
        let mut client = client.ready().await.expect("open");
        let (response, mut send) = client.send_request(request, false).expect("open");
        // A call that is refused early does not take its body.
        drop(send.send_data(body, true));
        let (head, mut data) = response.await.expect("a response").into_parts();
        while let Some(Ok(piece)) = data.data().await {
            drop(data.flow_control().release_capacity(piece.len()));
        }
        let trailers = data.trailers().await.ok().flatten().unwrap_or_default();
        connection.abort();
        ended(head.status.as_u16(), &head.headers, &trailers)
    })
    .await
}

fn ended(http: u16, headers: &HeaderMap, trailers: &HeaderMap) -> Ended {
    let find = |name: &str| {
        let value = trailers.get(name).or_else(|| headers.get(name));
        value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    Ended { http, code: find("grpc-status"), text: find("grpc-message").unwrap_or_default() }
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");
const PUT: &str = "/etcdserverpb.KV/Put";

fn put() -> Vec<u8> {
    message(&PutRequest { key: "a".into(), ..Default::default() }.encode_to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_a_known_call_is_refused_by_name() {
    let server = Setup::new().start();
    let address = server.address();
    let unknown = ask(address, "/etcdserverpb.KV/Nope", &[GRPC], &put()).await;
    assert!(unknown.is(12, "unknown method Nope for service etcdserverpb.KV"), "{unknown:?}");
    let unknown = ask(address, "/no.Such/Put", &[GRPC], &put()).await;
    assert!(unknown.is(12, "unknown service no.Such"), "{unknown:?}");
    let malformed = ask(address, "/nope", &[GRPC], &put()).await;
    assert!(malformed.is(12, "malformed method name: \"/nope\""), "{malformed:?}");
    for content_type in ["text/plain", "application/json", "application/grpc-web", ""] {
        let refused = ask(address, PUT, &[("content-type", content_type)], &put()).await;
        assert_eq!(refused.http, 415, "{content_type:?}: {refused:?}");
    }
    for content_type in ["application/grpc+proto", "application/grpc;charset=utf-8"] {
        let taken = ask(address, PUT, &[("content-type", content_type)], &put()).await;
        assert!(taken.is(0, ""), "{taken:?}");
    }
    let encoded = ask(address, PUT, &[GRPC, ("grpc-encoding", "snappy")], &put()).await;
    assert!(
        encoded.is(12, "grpc: Decompressor is not installed for grpc-encoding \"snappy\""),
        "{encoded:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_may_be_compressed_with_gzip() {
    let server = Setup::new().start();
    let request = PutRequest { key: "a".into(), value: "b".into(), ..Default::default() };
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&request.encode_to_vec()).expect("a vector takes all");
    let mut compressed = message(&encoder.finish().expect("a vector takes all"));
    compressed[0] = 1;
    let gzip = ("grpc-encoding", "gzip");
    let taken = ask(server.address(), PUT, &[GRPC, gzip], &compressed).await;
    assert!(taken.is(0, ""), "{taken:?}");
    let client = Client::connect(&server).await;
    assert_eq!(client.get("a").await.expect("readable").as_deref(), Some(&b"b"[..]));
    let unannounced = ask(server.address(), PUT, &[GRPC], &compressed).await;
    let text = "grpc: compressed flag set with identity or empty encoding";
    assert!(unannounced.is(13, text), "{unannounced:?}");
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..16 {
        bomb.write_all(&vec![0; 1 << 20]).expect("a vector takes all");
    }
    let mut bomb = message(&bomb.finish().expect("a vector takes all"));
    bomb[0] = 1;
    let refused = ask(server.address(), PUT, &[GRPC, gzip], &bomb).await;
    let text = "grpc: received message after decompression larger than max 2097152";
    assert!(refused.is(8, text), "{refused:?}");
}

/// Clients that are given a user and a password ask for a token first, and go on without when this is the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authentication_is_off_and_says_so() {
    let server = Setup::new().start();
    let ask = async |method: &str, body: &[u8]| {
        let path = format!("/etcdserverpb.Auth/{method}");
        ask(server.address(), &path, &[GRPC], &message(body)).await
    };
    let credentials = AuthenticateRequest { name: "u".into(), password: "p".into() };
    let refused = ask("Authenticate", &credentials.encode_to_vec()).await;
    assert!(refused.is(9, "etcdserver: authentication is not enabled"), "{refused:?}");
    let refused = ask("AuthEnable", b"").await;
    assert!(refused.is(9, "etcdserver: root user does not exist"), "{refused:?}");
    assert!(ask("AuthDisable", b"").await.is(0, ""));
    assert!(ask("AuthStatus", b"").await.is(0, ""));
    let body = http1::post(server.address(), "/v3/auth/status", "{}").await;
    let status = body.json();
    assert_eq!((&status["authRevision"], status.get("enabled")), (&"1".into(), None), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timeouts_are_taken_by_the_protocol() {
    let server = Setup::new().start();
    let with = async |value: &str| {
        ask(server.address(), PUT, &[GRPC, ("grpc-timeout", value)], &put()).await
    };
    for fine in ["5S", "99999999H", "99999999n", "00000005S", "10000000u"] {
        let taken = with(fine).await;
        assert!(taken.is(0, ""), "{fine}: {taken:?}");
    }
    for late in ["0S", "1n", "0n"] {
        let ended = with(late).await;
        assert!(ended.code == Some("4".to_owned()) || ended.is(0, ""), "{late}: {ended:?}");
    }
    for malformed in
        ["", "5", "S", "-1S", "1s", "123456789S", "1.5S", "\u{b5}", "9999999999999999999999H"]
    {
        let refused = with(malformed).await;
        let is_refused = refused.code == Some("13".to_owned())
            && refused.text.contains("malformed grpc-timeout");
        assert!(is_refused, "{malformed:?}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_no_message_are_refused() {
    let server = Setup::new().start();
    let send = async |body: &[u8]| ask(server.address(), PUT, &[GRPC], body).await;
    let large = vec![0; 2_097_153];
    let refused = send(&message(&large)).await;
    assert!(
        refused.is(8, "grpc: received message larger than max (2097153 vs. 2097152)"),
        "{refused:?}"
    );
    // Only its length is there.
    let refused = send(&[0, 0xff, 0xff, 0xff, 0xff]).await;
    assert!(
        refused.is(8, "grpc: received message larger than max (4294967295 vs. 2097152)"),
        "{refused:?}"
    );
    let key =
        PutRequest { key: "a".into(), value: vec![0; 1_600_000].into(), ..Default::default() };
    let refused = send(&message(&key.encode_to_vec())).await;
    assert!(refused.is(3, "etcdserver: request is too large"), "{refused:?}");
    for garbage in [&[0xff; 10][..], &[0x0a, 0x7f, 1], &[0x08, 0x80], &[0x0c]] {
        let refused = send(&message(garbage)).await;
        assert_eq!(refused.code.as_deref(), Some("13"), "{garbage:?}: {refused:?}");
        assert!(refused.text.contains("unmarshal"), "{refused:?}");
    }
    let empty = send(&[]).await;
    assert!(empty.is(2, "EOF"), "{empty:?}");
    for broken in [&[0][..], &[0, 0, 0, 0, 9, 1], &[1, 0, 0, 0, 0], &[7, 0, 0, 0, 0]] {
        let refused = send(broken).await;
        assert!(
            matches!(refused.code.as_deref(), Some("13" | "12" | "2")),
            "{broken:?}: {refused:?}"
        );
    }
    let fine = send(&put()).await;
    assert!(fine.is(0, ""), "{fine:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_calls_do_not_cost_the_connection() {
    let server = Setup::new().start();
    let mut connection = Connection::open(server.address()).await;
    // Of 100,000 bytes, which comes whole, and of 4 GiB, which does not.
    let part = vec![0; 10_000];
    let beginnings = [("/no.Such/Put", [0, 0, 1, 0x86, 0xa0]), (PUT, [0, 0xff, 0xff, 0xff, 0xff])];
    let mut stream = 1;
    for (path, beginning) in beginnings {
        let headers = call(path);
        for _ in 0..1000 {
            let mut bytes = frame(HEADERS, END_HEADERS, stream, &headers);
            bytes.extend(frame(DATA, 0, stream, &beginning));
            bytes.extend(frame(DATA, 0, stream, &part).repeat(9));
            bytes.extend(frame(DATA, END_STREAM, stream, &part));
            assert!(connection.room(100_005).await, "closed at stream {stream}");
            assert!(connection.send(&bytes).await, "closed at stream {stream}");
            stream += 2;
        }
    }
    let mut bytes = frame(HEADERS, END_HEADERS, stream, &call(PUT));
    bytes.extend(frame(DATA, END_STREAM, stream, &put()));
    assert!(connection.room(put().len() as i64).await);
    assert!(connection.send(&bytes).await);
    let client = Client::connect(&server).await;
    in_time("the put", async {
        while client.get("a").await.expect("readable").is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    })
    .await;
    let heard = connection.close().await;
    assert_eq!((heard.goaway, heard.frames[usize::from(RST_STREAM)]), (None, 0));
}

/// Transactions within transactions.
fn nested(depth: usize) -> Vec<u8> {
    let put =
        PutRequest { key: "nested".into(), value: depth.to_string().into(), ..Default::default() };
    let leaf = RequestOp { request: Some(request_op::Request::RequestPut(put)) };
    let mut bytes = TxnRequest { success: vec![leaf], ..Default::default() }.encode_to_vec();
    for _ in 0..depth {
        // TxnRequest.success { request_txn { … } }
        for tag in [4 << 3 | 2, 2 << 3 | 2] {
            let mut outer = vec![tag];
            prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
            outer.extend(&bytes);
            bytes = outer;
        }
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_nest_but_not_without_end() {
    let mut server = Setup::new().start();
    unharmed(&server, 64 << 20, async {
        for depth in [1, 10, 100, 126] {
            let body = message(&nested(depth));
            let taken = ask(server.address(), "/etcdserverpb.KV/Txn", &[GRPC], &body).await;
            assert!(taken.is(0, ""), "{depth}: {taken:?}");
        }
        for depth in [200, 1000] {
            let body = message(&nested(depth));
            let refused = ask(server.address(), "/etcdserverpb.KV/Txn", &[GRPC], &body).await;
            assert!(refused.is(3, "etcdserver: too many operations in txn request"), "{refused:?}");
        }
        for depth in [6000, 20_000] {
            let body = message(&nested(depth));
            let refused = ask(server.address(), "/etcdserverpb.KV/Txn", &[GRPC], &body).await;
            assert!(
                refused.code.as_deref().is_some_and(|code| code != "0"),
                "{depth}: {refused:?}"
            );
        }
        let body =
            format!("{}{{}}{}", "{\"success\":[{\"requestTxn\":".repeat(40), "}]}".repeat(40));
        let taken = http1::post(server.address(), "/v3/kv/txn", &body).await;
        assert_eq!(taken.status, 200, "{taken:?}");
        for (open, close) in [("[", "]"), ("{\"success\":[{\"requestTxn\":", "}]}")] {
            for depth in [200, 20_000] {
                let body = format!("{}{{}}{}", open.repeat(depth), close.repeat(depth));
                let refused = http1::post(server.address(), "/v3/kv/txn", &body).await;
                assert_eq!(refused.status, 400, "{depth}");
            }
        }
    })
    .await;
    // The log can be read again.
    server.kill();
    let server = Setup::new().data_dir(server.data_dir()).start();
    let value = Client::connect(&server).await.get("nested").await.expect("readable");
    assert_eq!(value.as_deref(), Some(&b"126"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_at_the_gateway_is_refused() {
    let server = Setup::new().start();
    let garbage = [
        "{",
        "}",
        "[]",
        "null",
        "\"text\"",
        "17",
        "{\"key\":17}",
        "{\"key\":\"not base64!\"}",
        "{\"key\":\"Zm9v\",}",
        "{\"lease\":\"many\"}",
        "{\"lease\":1e400}",
        "{\"lease\":99999999999999999999}",
        "{\"key\":{\"key\":\"Zm9v\"}}",
        "\u{0}",
        "{\"key\":\"\\ud800\"}",
    ];
    unharmed(&server, 64 << 20, async {
        for body in garbage {
            let refused = http1::post(server.address(), "/v3/kv/put", body).await;
            assert_eq!(refused.status, 400, "{body:?}: {refused:?}");
            assert_eq!(refused.json()["code"], 3, "{body:?}: {refused:?}");
        }
        let empty = http1::post(server.address(), "/v3/kv/put", "").await;
        assert_eq!(empty.json()["message"], "etcdserver: key is not provided");
        let large = format!("{{\"key\":\"Zm9v\",\"value\":\"{}\"}}", "A".repeat(6 << 20));
        let refused = http1::post(server.address(), "/v3/kv/put", &large).await;
        assert_eq!(refused.status, 429, "{refused:?}");
        for head in [
            "POST /v3/kv/put HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
            "POST /v3/kv/put HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "POST /v3/kv/put HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            "BOGUS\r\n\r\n",
            "GET / HTTP/9.9\r\n\r\n",
            "\u{16}\u{3}\u{1}\u{0}",
            "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        ] {
            let stream = TcpStream::connect(server.address()).await.expect("it listens");
            let answer = half_closed(stream, head.as_bytes()).await;
            assert!(answer.as_ref().is_none_or(|answer| answer.status >= 400), "{head:?}: {answer:?}");
        }
        let head = format!("GET /health HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "v".repeat(2 << 20));
        let stream = TcpStream::connect(server.address()).await.expect("it listens");
        let answer = half_closed(stream, head.as_bytes()).await;
        assert!(answer.as_ref().is_none_or(|answer| answer.status == 431), "{answer:?}");
    })
    .await;
}

/// Sends `bytes`, says that no more will come, and reads what is answered.
async fn half_closed(stream: TcpStream, bytes: &[u8]) -> Option<http1::Response> {
    let (mut read, mut write) = stream.into_split();
    let sent = bytes.to_vec();
    let sender = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        // A server that refuses early may close before it has read all.
        drop(write.write_all(&sent).await);
        drop(write.shutdown().await);
        write
    });
    let answer = http1::read(&mut read).await;
    drop(in_time("the sender", sender).await);
    answer
}
