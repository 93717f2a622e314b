//! The peer port in the hands of those who are no members, or bad ones: each is refused as etcd refuses it, with a line in the
//! log; memory is bounded; and the member serves on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use proto::etcdserverpb::{MemberAddRequest, PutRequest};
use proto::raftpb::{self, MessageType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::bystander::unharmed;
use crate::client::{Client, in_time, within};
use crate::harness::{PATIENCE, Server, Setup, eventually, steady_port};
use crate::http1::{self, Response};
use crate::slow::MIB;

/// More than connections may be at the peer port.
const CROWD: usize = 700;
/// In this time the peer port answers who asks properly, whatever else goes on.
const PROMPT: Duration = Duration::from_secs(3);

/// A member with a second one that is known and does not run.
pub(crate) struct Place {
    pub(crate) server: Server,
    peer: SocketAddr,
    cluster: String,
    own: u64,
    /// The member that does not run.
    other: u64,
}

impl Place {
    /// Starts the member; the other one, which has no vote, is said to be at `other`.
    pub(crate) async fn start(other: &str) -> Self {
        let url = format!("http://127.0.0.1:{}", steady_port());
        let server = Setup::new()
            .flag(format!("--listen-peer-urls={url}"))
            .flag(format!("--initial-advertise-peer-urls={url}"))
            .flag(format!("--initial-cluster=default={url}"))
            .start();
        let peer: SocketAddr = url.trim_start_matches("http://").parse().expect("an address");
        let add = MemberAddRequest { peer_urls: vec![other.to_owned()], is_learner: true };
        let added = Client::connect(&server).await.cluster().member_add(add).await;
        let added = added.expect("it may").into_inner();
        let other = added.member.expect("the new one").id;
        let own = added.header.expect("always there").member_id;
        let listed = http1::get(peer, "/members").await;
        let cluster = listed.header("x-etcd-cluster-id").expect("always there").to_owned();
        Self { server, peer, cluster, own, other }
    }

    /// A request with everything by which a member introduces itself.
    fn head(&self, request: &str) -> String {
        format!(
            "{request} HTTP/1.1\r\nHost: a\r\nX-Server-From: {:x}\r\nX-Server-Version: 3.7.1\r\n\
             X-Min-Cluster-Version: 3.0.0\r\nX-Etcd-Cluster-ID: {}\r\nX-Raft-To: {:x}",
            self.other, self.cluster, self.own
        )
    }

    async fn ask(&self, request: &str, body: &[u8]) -> Response {
        self.send(&self.head(request), body).await
    }

    async fn send(&self, head: &str, body: &[u8]) -> Response {
        let length = body.len();
        let mut bytes =
            format!("{head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n").into_bytes();
        bytes.extend_from_slice(body);
        let stream = TcpStream::connect(self.peer).await.expect("it listens");
        let answer = http1::raw(stream, &bytes).await;
        answer.unwrap_or_else(|| panic!("no answer to {head:?}"))
    }

    /// Sends what is no HTTP, or not whole, and reads until the connection is closed.
    async fn raw(&self, bytes: &[u8]) -> Option<Response> {
        let stream = TcpStream::connect(self.peer).await.expect("it listens");
        http1::raw(stream, bytes).await
    }

    fn message(&self, kind: MessageType) -> raftpb::Message {
        let (from, to) = (self.other, self.own);
        raftpb::Message { r#type: kind.into(), from, to, term: 2, ..raftpb::Message::default() }
    }
}

fn framed(message: &raftpb::Message, database: &[u8]) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u64(message.encoded_len() as u64);
    message.encode_raw(&mut body);
    body.put_slice(database);
    body.freeze()
}

/// A URL at which nobody is.
fn nowhere() -> String {
    format!("http://127.0.0.1:{}", steady_port())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_member_sends_is_refused_with_a_line_in_the_log() {
    let place = Place::start(&nowhere()).await;
    let swells = [0x3a, 0].repeat(3 << 20);
    let mut to_other = place.message(MessageType::MsgHeartbeat);
    to_other.to = 99;
    let nested = raftpb::Message {
        responses: vec![raftpb::Message::default()],
        ..place.message(MessageType::MsgHeartbeat)
    };
    let long = vec![b'x'; 1 << 20];
    let mismatch = "{\"message\":\"cannot process message to mismatch member\"}";
    unharmed(&place.server, 64 * MIB, async {
        for (request, body, status, text) in [
            ("POST /raft", &b"\xff\xff"[..], 400, "error unmarshalling raft message\n"),
            ("POST /raft", &swells, 400, "error unmarshalling raft message\n"),
            ("POST /raft", &nested.encode_to_vec(), 400, "error unmarshalling raft message\n"),
            ("POST /raft", &to_other.encode_to_vec(), 403, mismatch),
            ("PUT /raft", b"", 405, "Method Not Allowed\n"),
            ("POST /raft/stream/msgapp/1", b"", 405, "Method Not Allowed\n"),
            ("GET /raft/stream/msgapp/zz", b"", 404, "invalid from\n"),
            ("GET /raft/stream/message/77", b"", 404, "error sender not found\n"),
            ("POST /leases", b"\xff", 400, "error unmarshalling request\n"),
            ("POST /leases", &long, 400, "error reading body\n"),
            ("POST /leases/internal", b"", 400, "error unmarshalling request\n"),
            ("GET /members/hashkv", b"{", 400, "error unmarshalling request\n"),
            ("GET /members/hashkv", &long, 400, "error reading body\n"),
            ("POST /members/promote/x", b"", 404, "failed to parse member ID \"x\"\n"),
            ("POST /members/promote/7", b"", 404, "membership: ID not found\n"),
            ("DELETE /version", b"", 405, "Method Not Allowed\n"),
            ("GET /raft/../etc", b"", 404, "404 page not found\n"),
        ] {
            let refused = place.ask(request, body).await;
            assert_eq!((refused.status, &refused.body[..]), (status, text), "{request}");
        }
        for (from, to, text) in [
            ("3.7.1", "2.3.8", "incompatible version\n"),
            ("3.7.1", "not a version", "incompatible version\n"),
            (place.cluster.as_str(), "1", "cluster ID mismatch\n"),
        ] {
            for request in ["POST /raft", "POST /raft/snapshot"] {
                let refused = place.send(&place.head(request).replace(from, to), b"").await;
                assert_eq!((refused.status, &refused.body[..]), (412, text), "{request}");
            }
        }
        for (bytes, status) in [
            ("BOGUS\r\n\r\n".to_owned(), 400),
            ("\u{16}\u{3}\u{1}\u{0}\r\n\r\n".to_owned(), 400),
            (format!("GET /version HTTP/1.1\r\nX-Long: {}\r\n\r\n", "v".repeat(2 << 20)), 431),
            (format!("GET /version HTTP/1.1\r\n{}\r\n", "X-Many: v\r\n".repeat(5000)), 431),
        ] {
            let answer = place.raw(bytes.as_bytes()).await;
            // It may be closed while it still sends, which loses the answer.
            assert!(answer.as_ref().is_none_or(|answer| answer.status == status), "{answer:?}");
        }
    })
    .await;
    place.server.wait_for_line("error unmarshalling raft message");
    place.server.wait_for_line("mismatch member");
    place.server.wait_for_line("cluster ID mismatch");
    place.server.wait_for_line("incompatible version");
    place.server.wait_for_line("invalid from");
    place.server.wait_for_line("error reading body");
    place.server.wait_for_line("refused a connection to the peer port");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_that_are_none_change_nothing() {
    let place = Place::start(&nowhere()).await;
    let snapshot = raftpb::Snapshot {
        metadata: raftpb::SnapshotMetadata { index: 1000, term: 2, ..Default::default() },
        ..Default::default()
    };
    let offer = raftpb::Message { snapshot: Some(snapshot), ..place.message(MessageType::MsgSnap) };
    let huge = [&u64::MAX.to_be_bytes()[..], b"message"].concat();
    let claimed = [&(1_u64 << 20).to_be_bytes()[..], b"message"].concat();
    unharmed(&place.server, 64 * MIB, async {
        for (body, status, text) in [
            (Bytes::new(), 400, "failed to decode raft message"),
            (huge.into(), 400, "failed to decode raft message"),
            (claimed.into(), 400, "failed to decode raft message"),
            (framed(&place.message(MessageType::MsgApp), b""), 400, "wrong raft message type"),
            (framed(&place.message(MessageType::MsgSnap), b""), 400, "wrong raft message type"),
            (framed(&offer, b""), 500, ""),
            (framed(&offer, b"no database"), 500, ""),
            (framed(&offer, &vec![0; 1 << 20]), 500, ""),
        ] {
            let refused = place.ask("POST /raft/snapshot", &body).await;
            assert_eq!(refused.status, status, "{refused:?}");
            assert!(refused.body.starts_with(text), "{refused:?}");
        }
        // One that breaks off.
        let head = place.head("POST /raft/snapshot");
        let mut bytes = format!("{head}\r\nContent-Length: 1000000\r\n\r\n").into_bytes();
        bytes.extend_from_slice(&framed(&offer, b"a part"));
        let mut stream = TcpStream::connect(place.peer).await.expect("it listens");
        stream.write_all(&bytes).await.expect("it reads");
        drop(stream);
        // The next one has its turn.
        eventually_async(async || {
            let next = place.ask("POST /raft/snapshot", &framed(&offer, b"no database")).await;
            !next.body.contains("another snapshot is being received")
        })
        .await;
    })
    .await;
    place.server.wait_for_line("cannot take a snapshot");
    let left = place.server.data_dir().join("member/snap");
    let left = std::fs::read_dir(left).expect("it is there").filter_map(Result::ok);
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    let is_left = |name: &std::ffi::OsString| name.to_string_lossy().contains("3e8");
    assert!(!left.iter().any(is_left), "{left:?}");
}

async fn eventually_async(mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "it never comes about");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_and_replayed_messages_are_dropped() {
    let place = Place::start(&nowhere()).await;
    let client = Client::connect(&place.server).await;
    client.put("before", "x").await.expect("it serves");
    let proposal = |kind: i32, data: Bytes| raftpb::Message {
        term: 0,
        entries: vec![raftpb::Entry { r#type: kind, data, ..raftpb::Entry::default() }],
        ..place.message(MessageType::MsgProp)
    };
    let unknown = proto::etcdserverpb::InternalRaftRequest { id: 7, ..Default::default() };
    // Any of these in the log would stop every member that has it.
    let fatal = [
        proposal(0, Bytes::from_static(b"garbage")),
        proposal(0, Bytes::from_static(b"\xff\xff\xff")),
        proposal(0, unknown.encode_to_vec().into()),
        proposal(1, Bytes::from_static(b"\xff")),
        proposal(1, Bytes::from_static(b"\x10\x00\x18\x07")),
        proposal(2, Bytes::new()),
    ];
    // What a member of long ago said, and what no member says.
    let entry = raftpb::Entry { term: 1, index: 1, ..raftpb::Entry::default() };
    let append = raftpb::Message {
        term: 1,
        entries: vec![entry],
        commit: 1 << 40,
        ..place.message(MessageType::MsgApp)
    };
    let old = [
        append.clone(),
        raftpb::Message { term: 1, ..place.message(MessageType::MsgHeartbeat) },
        raftpb::Message { term: 1, ..place.message(MessageType::MsgVote) },
        raftpb::Message { term: 1, ..place.message(MessageType::MsgAppResp) },
        raftpb::Message { index: 1 << 61, ..place.message(MessageType::MsgAppResp) },
        raftpb::Message { commit: u64::MAX, ..place.message(MessageType::MsgHeartbeat) },
        place.message(MessageType::MsgHup),
        place.message(MessageType::MsgUnreachable),
        place.message(MessageType::MsgSnap),
        raftpb::Message { from: 0, ..append.clone() },
        raftpb::Message { from: place.own, ..append },
    ];
    unharmed(&place.server, 32 * MIB, async {
        for message in fatal.iter().chain(&old).chain(&old) {
            let taken = place.ask("POST /raft", &message.encode_to_vec()).await;
            assert_eq!((taken.status, &taken.body[..]), (204, ""), "{message:?}");
        }
    })
    .await;
    place.server.wait_for_line("dropped a proposal of a peer that nobody could apply");
    place.server.wait_for_line("dropped a message of a peer");
    // What can be applied is taken: followers forward in the same way.
    let put = PutRequest { key: "forwarded".into(), value: "x".into(), ..PutRequest::default() };
    let honest = proto::etcdserverpb::InternalRaftRequest { id: 7, put: Some(put), ..unknown };
    let honest = proposal(0, honest.encode_to_vec().into());
    place.ask("POST /raft", &honest.encode_to_vec()).await;
    eventually_async(async || client.get("forwarded").await.expect("it serves").is_some()).await;
    assert!(client.get("before").await.expect("it serves").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_is_slow_or_silent_keeps_no_member_out() {
    let place = Place::start(&nowhere()).await;
    let before = place.server.descriptors();
    unharmed(&place.server, 64 * MIB, async {
        let mut crowd = Vec::new();
        for number in 0..CROWD {
            let mut stream = TcpStream::connect(place.peer).await.expect("it listens");
            let begun = match number % 3 {
                0 => String::new(),
                1 => "GET /version HTTP/1.1\r\nX-A".to_owned(),
                _ => format!("{}\r\nContent-Length: 1000\r\n\r\nbegun", place.head("POST /raft")),
            };
            // It may have been cut for others already.
            drop(stream.write_all(begun.as_bytes()).await);
            crowd.push(stream);
        }
        let probe = within(PROMPT, "a probe", http1::get(place.peer, "/raft/probing")).await;
        assert_eq!(probe.status, 200);
        assert!(place.server.descriptors() < before + CROWD, "they are bounded");
        // Those that drip are no better off.
        let drip = crowd.pop().expect("many");
        let drip = tokio::spawn(dripping(drip));
        for mut stream in crowd {
            let mut rest = Vec::new();
            // Closed with or without an answer.
            drop(in_time("an end", stream.read_to_end(&mut rest)).await);
        }
        in_time("an end of what drips", drip).await.expect("no panic");
    })
    .await;
    place.server.wait_for_line("cut a connection of the peer port");
    place.server.wait_for_line("error reading raft message");
    eventually("all are gone", || place.server.descriptors() <= before + 10);
}

/// Sends something every second until it is cut.
async fn dripping(mut stream: TcpStream) {
    // Each piece comes in time, so only others who want the place, or the time for all of it, end this.
    let deadline = Instant::now() + Duration::from_secs(8);
    while Instant::now() < deadline {
        if stream.write_all(b"x").await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Writes most of a message of 100 MiB; tells whether it was refused as one that cannot be read.
async fn begin_and_stop(mut stream: TcpStream) -> bool {
    let piece = vec![0; 1 << 20];
    let mut pieces = 0;
    while pieces < 99 && stream.write_all(&piece).await.is_ok() {
        pieces += 1;
    }
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    String::from_utf8_lossy(&answer).contains("error reading raft message")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_do_not_come_to_an_end_share_little_memory() {
    let place = Place::start(&nowhere()).await;
    // Together four times of what may be held.
    unharmed(&place.server, 600 * MIB, async {
        let mut streams = Vec::new();
        for _ in 0..8 {
            let mut stream = TcpStream::connect(place.peer).await.expect("it listens");
            let head =
                format!("{}\r\nContent-Length: {}\r\n\r\n", place.head("POST /raft"), 100 << 20);
            drop(stream.write_all(head.as_bytes()).await);
            streams.push(tokio::spawn(begin_and_stop(stream)));
        }
        let mut refused = 0;
        for stream in streams {
            refused += usize::from(in_time("an end", stream).await.expect("no panic"));
        }
        assert!(refused > 0, "somebody was told");
    })
    .await;
    // It is given back.
    let small = place.message(MessageType::MsgHeartbeat).encode_to_vec();
    assert_eq!(place.ask("POST /raft", &small).await.status, 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_asked_for_again_takes_the_place_of_the_former() {
    let place = Place::start(&nowhere()).await;
    let path = format!("GET /raft/stream/message/{:x}", place.other);
    let open = async || {
        let mut stream = TcpStream::connect(place.peer).await.expect("it listens");
        let head = format!("{}\r\n\r\n", place.head(&path));
        stream.write_all(head.as_bytes()).await.expect("it reads");
        let mut begin = [0; 15];
        in_time("an answer", stream.read_exact(&mut begin)).await.expect("it answers");
        assert_eq!(&begin, b"HTTP/1.1 200 OK");
        stream
    };
    unharmed(&place.server, 32 * MIB, async {
        let mut former = open().await;
        for _ in 0..20 {
            let next = open().await;
            in_time("the end of the former", to_the_end(&mut former)).await;
            former = next;
        }
        let wrong =
            place.head(&path).replace(&format!("X-Raft-To: {:x}", place.own), "X-Raft-To: 7");
        let refused = place.send(&wrong, b"").await;
        assert_eq!((refused.status, &refused.body[..]), (412, "to field mismatch\n"));
        // The stream that is there goes on.
        let mut more = [0; 1];
        in_time("a sign of life", former.read_exact(&mut more)).await.expect("it goes on");
    })
    .await;
}

/// Reads an answer in chunks to its end, in order.
async fn to_the_end(stream: &mut TcpStream) {
    let mut read = Vec::new();
    while !read.ends_with(b"0\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.expect("it ends in order");
        read.extend(byte);
    }
}
