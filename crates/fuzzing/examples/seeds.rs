//! Writes the corpora's seeds to `fuzz/corpus/`: what honest writers write. Files that are there already stay.

use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use bytes::{Bytes, BytesMut};
use fuzzing::input::Builder;
use prost::Message;
use proto::etcdserverpb as pb;
use proto::{leasepb, mvccpb, raftpb};
use server::grpc::method::{Kind as CallKind, Method};
use server::peer::codec::{Encoder, Kind};
use storage::Disk;
use storage::bolt::{Planner, Writer};
use storage::mem::MemDisk;
use storage::wal::{Options, Wal};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn main() -> io::Result<()> {
    wal()?;
    snap()?;
    bolt()?;
    backend()?;
    apply()?;
    peer()?;
    stream()?;
    door()?;
    snapshot()?;
    answer()?;
    dns()?;
    grpc()?;
    http2()?;
    gateway()?;
    flags()
}

fn seed(target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let dir = Path::new(ROOT).join("fuzz/corpus").join(target);
    fs::create_dir_all(&dir)?;
    let path = dir.join(name);
    if path.exists() { Ok(()) } else { fs::write(path, bytes) }
}

fn wal() -> io::Result<()> {
    let etcd = fs::read(
        Path::new(ROOT)
            .join("crates/storage/testdata/etcd_3.7.1/0000000000000000-0000000000000000.wal"),
    )?;
    seed("wal_recover", "etcd", &Builder::new(0).byte(0).byte(0).raw(&etcd).build())?;
    let disk = MemDisk::new();
    disk.create_dir_all(Path::new("wal"))?;
    let identity = pb::Metadata { node_id: 1, cluster_id: 2 };
    let options = Options { segment_bytes: 200, segments_max: 5 };
    let mut log = Wal::create_with(Arc::new(disk.clone()), Path::new("wal"), identity, options)
        .map_err(io::Error::other)?;
    for index in 1..=4 {
        let data = Bytes::from(vec![b'd'; 40]);
        let entry = raftpb::Entry { index, term: 1, data, ..Default::default() };
        let state = raftpb::HardState { term: 1, vote: 1, commit: index };
        log.append(&[entry], Some(&state)).and_then(|()| log.sync()).map_err(io::Error::other)?;
    }
    drop(log);
    let mut names = disk.list(Path::new("wal"))?;
    // The spare and leftovers are no part of the log.
    names.retain(|name| Path::new(name).extension().is_some_and(|found| found == "wal"));
    let last = names.len() - 1;
    let mut built = Builder::new(0).byte(u8::try_from(last.min(3)).unwrap_or(3));
    for (position, name) in names.iter().take(4).enumerate() {
        let index = u64::from_str_radix(&name[17..33], 16).map_err(io::Error::other)?;
        let bytes = disk.contents(&Path::new("wal").join(name)).unwrap_or_default();
        built = built.number(index);
        built = if position == last.min(3) { built.raw(&bytes) } else { built.piece(&bytes) };
    }
    seed("wal_recover", "ours", &built.build())?;
    let entry = |built: Builder, index: u64, term: u64| {
        built.byte(0).number(index).number(term).byte(0).piece(b"data")
    };
    let state = |built: Builder, term, commit| built.byte(2).number(term).number(1).number(commit);
    let mut built = Builder::new(1);
    for index in 1..4 {
        built = entry(built, index, 1);
    }
    built = state(built, 1, 3).byte(3).number(2).number(1);
    let cut = entry(built.clone().byte(5).number(4), 4, 2);
    seed("wal_recover", "records", &built.clone().build())?;
    seed("wal_recover", "records_two_segments", &state(cut.clone(), 2, 4).build())?;
    seed(
        "wal_recover",
        "records_overwritten",
        &state(entry(cut, 4, 3), 3, 4).byte(7).byte(3).byte(9).build(),
    )?;
    seed(
        "wal_recover",
        "records_torn",
        &built.byte(6).piece(&[9, 0, 0, 0, 0, 0, 0, 0x87, 8, 2]).build(),
    )
}

fn snap() -> io::Result<()> {
    let content = raftpb::Snapshot {
        data: Bytes::from_static(br#"{"root":{}}"#),
        metadata: raftpb::SnapshotMetadata {
            conf_state: raftpb::ConfState { voters: vec![1, 2], ..Default::default() },
            index: 11,
            term: 2,
        },
    };
    seed("snap_load", "content", &Builder::new(1).raw(&content.encode_to_vec()).build())?;
    let disk = MemDisk::new();
    disk.create_dir_all(Path::new("s"))?;
    storage::snap::save(&disk, Path::new("s"), &content).map_err(io::Error::other)?;
    let bytes = disk.contents(&storage::snap::path(Path::new("s"), 2, 11)).unwrap_or_default();
    seed("snap_load", "file", &Builder::new(0).raw(&bytes).build())
}

type Pairs = Vec<(Bytes, Bytes)>;

fn bolt() -> io::Result<()> {
    let many: Pairs = (0..60_u32)
        .map(|i| (Bytes::from(i.to_be_bytes().to_vec()), Bytes::from(vec![7; 50])))
        .collect();
    let few: Pairs = vec![(Bytes::from_static(b"k"), Bytes::from_static(b"v"))];
    let large: Pairs = vec![(Bytes::from_static(b"k"), Bytes::from(vec![1; 3000]))];
    for (name, buckets) in [
        ("small", vec![(b"key", few.clone())]),
        ("branches", vec![(b"key", many), (b"lea", few)]),
        ("overflow", vec![(b"key", large)]),
    ] {
        seed("bolt_image", name, &Builder::new(7).raw(&image(&buckets)?).build())?;
    }
    Ok(())
}

/// Mode 7 of the target keeps 1 KiB pages.
fn image(buckets: &[(&[u8; 3], Pairs)]) -> io::Result<Vec<u8>> {
    let mut planner = Planner::new(1024).map_err(io::Error::other)?;
    for (name, pairs) in buckets {
        planner.bucket(*name).map_err(io::Error::other)?;
        for (key, value) in pairs {
            planner.pair(key.len(), value.len()).map_err(io::Error::other)?;
        }
    }
    let mut writer = Writer::new(planner.finish(), |name: &[u8]| {
        let found = buckets.iter().find(|(known, _)| known.as_slice() == name);
        found.map(|(_, pairs)| pairs.clone()).unwrap_or_default().into_iter().map(Ok)
    });
    let (mut all, mut piece) = (Vec::new(), Vec::new());
    while writer.next_piece(&mut piece).map_err(io::Error::other)? {
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

fn backend() -> io::Result<()> {
    seed("backend_open", "whole", &[1])?;
    seed("backend_open", "cut", &Builder::new(2).raw(&[9, 0]).build())?;
    seed("backend_open", "header", &Builder::new(1).byte(0).raw(&[9, 0]).piece(&[3]).build())?;
    seed("backend_open", "regions", &Builder::new(1).byte(0).raw(&[20, 0]).piece(&[0; 8]).build())?;
    seed("backend_open", "page", &Builder::new(1).byte(2).raw(&[100, 0]).piece(&[1; 30]).build())?;
    seed("backend_open", "nothing", &[0])?;
    let record = |table: u8, key: &[u8], value: &[u8]| {
        Builder::default().byte(table).piece(key).piece(value).build()
    };
    let revision =
        |main: u64, sub: u64| [&main.to_be_bytes()[..], b"_", &sub.to_be_bytes()].concat();
    let value = mvccpb::KeyValue {
        key: "a".into(),
        create_revision: 2,
        mod_revision: 2,
        version: 1,
        value: "v".into(),
        lease: 5,
    };
    let lease = leasepb::Lease { id: 5, ttl: 60, remaining_ttl: 30 };
    let member = br#"{"id":9372538179322589801,"peerURLs":["http://localhost:2380"],"name":"default","clientURLs":["http://localhost:2379"]}"#;
    let group = br#"{"voters":[9372538179322589801],"auto_leave":false}"#;
    let all = [
        record(5, &revision(2, 0), &value.encode_to_vec()),
        record(
            5,
            &[&revision(3, 0)[..], b"t"].concat(),
            &mvccpb::KeyValue { key: "a".into(), ..Default::default() }.encode_to_vec(),
        ),
        record(6, &5_u64.to_be_bytes(), &lease.encode_to_vec()),
        record(7, b"8211f1d0f64f3269", member),
        record(8, b"8211f1d0f64f326a", b"removed"),
        record(9, b"consistent_index", &7_u64.to_be_bytes()),
        record(9, b"term", &2_u64.to_be_bytes()),
        record(9, b"confState", group),
        record(9, b"scheduledCompactRev", &revision(2, 0)),
        record(4, b"clusterVersion", b"3.7.0"),
        record(4, b"downgrade", br#"{"target-version":"3.6.0","enabled":true}"#),
        record(1, b"authEnabled", &[0]),
        record(0, &pb::AlarmMember { member_id: 1, alarm: 1 }.encode_to_vec(), b""),
    ];
    seed("backend_records", "all", &all.concat())?;
    seed("backend_records", "put", &all[0])
}

fn apply() -> io::Result<()> {
    // Put with a lease, delete, txn, compaction, grant, revoke, with work of the backend between.
    let puts = [4, 0, 0, 1, 2, 4, 0, 2, 65, 3, 4, 6, 7, 10, 4, 0, 1, 1, 2, 7];
    seed("apply_entry", "puts", &[&puts[..], &[3, 4, 3, 1, 2, 1, 3, 4, 5, 3, 3]].concat())?;
    seed(
        "apply_entry",
        "txn",
        &[&puts[..], &[4, 4, 1, 1, 0, 0, 1, 0, 2, 0, 0, 2, 2, 2, 0, 1, 1]].concat(),
    )?;
    let context = br#"{"id":9,"peerURLs":["http://localhost:2380"],"name":"m","clientURLs":[],"isLearner":true}"#;
    let change = Builder::new(2).number(1).byte(3).number(9).piece(context);
    let promote = br#"{"id":9,"peerURLs":["http://localhost:2380"],"isPromote":true}"#;
    let change = change.byte(2).number(2).byte(0).number(9).piece(promote);
    seed(
        "apply_entry",
        "conf_change",
        &change.byte(2).number(3).byte(1).number(9).piece(b"").build(),
    )?;
    let request = pb::InternalRaftRequest {
        header: Some(pb::RequestHeader { id: 7, ..Default::default() }),
        put: Some(pb::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() }),
        ..Default::default()
    };
    seed("apply_entry", "entry", &Builder::new(0).piece(&request.encode_to_vec()).build())?;
    let alarm = pb::AlarmRequest { action: 1, member_id: 1, alarm: 1 };
    seed("apply_entry", "alarm", &Builder::new(1).byte(8).piece(&alarm.encode_to_vec()).build())
}

fn peer() -> io::Result<()> {
    let tick = Builder::new(1);
    let ticks = (0..20).fold(tick, |built, _| built.byte(1));
    // Ticks until it asks for votes, twice granted, and a proposal that both acknowledge.
    let led =
        ticks.byte(4).byte(0).byte(4).byte(0).byte(4).byte(0).byte(2).piece(b"").byte(4).byte(0);
    seed("peer_step", "leads", &led.build())?;
    let message = raftpb::Message {
        r#type: raftpb::MessageType::MsgHeartbeat.into(),
        to: 1,
        from: 2,
        term: 3,
        ..Default::default()
    };
    seed("peer_step", "message", &Builder::new(0).piece(&message.encode_to_vec()).build())?;
    // An append from the first peer with one entry.
    let append = [5, 3, 0, 1, 0, 229, 229, 1, b'x', 1, 229, 228, 228, 228, 0, 0];
    seed("peer_step", "append", &[&append[..], &append[..]].concat())?;
    // A snapshot of another group.
    seed("peer_step", "snapshot", &[5, 7, 1, 0, 0, 1, 0, 0, 240, 229, 1, 229, 228, 228, 228, 0, 0])
}

fn position(method: Method) -> u8 {
    let found = Method::ALL.iter().position(|known| *known == method);
    found.and_then(|found| u8::try_from(found).ok()).unwrap_or(0)
}

/// A leader's life on both streams: signs of life, appends that join and that do not, answers.
fn stream() -> io::Result<()> {
    for (number, kind) in (0..).zip(Kind::ALL) {
        let mut encoder = Encoder::new(kind);
        let mut bytes = BytesMut::new();
        for (index, count) in [(7, 0), (7, 2), (9, 1), (9, 3)] {
            let entry = |index| raftpb::Entry {
                r#type: 0,
                term: 3,
                index,
                data: Bytes::from_static(b"data"),
            };
            let message = raftpb::Message {
                r#type: raftpb::MessageType::MsgApp.into(),
                from: 2,
                to: 1,
                term: 3,
                log_term: if index == 7 { 2 } else { 3 },
                index,
                entries: (index + 1..=index + count).map(entry).collect(),
                commit: index,
                ..raftpb::Message::default()
            };
            encoder.encode_heartbeat(&mut bytes);
            encoder.encode(&message, &mut bytes);
        }
        let seed_bytes = Builder::new(number).byte(6).raw(&bytes).build();
        seed("peer_stream", kind.path(), &seed_bytes)?;
    }
    Ok(())
}

fn door() -> io::Result<()> {
    let request = |built: Builder, path: u8, suffix: &[u8], body: &[u8]| {
        built.byte(path).byte(0).piece(suffix).piece(body)
    };
    let heartbeat = raftpb::Message {
        r#type: raftpb::MessageType::MsgHeartbeat.into(),
        to: 1,
        from: 2,
        term: 3,
        ..Default::default()
    };
    let begin = || Builder::new(1).byte(99);
    seed("peer_door", "message", &request(begin(), 0, b"", &heartbeat.encode_to_vec()).build())?;
    seed("peer_door", "stream", &request(begin(), 2, b"2", b"").build())?;
    let keep = pb::LeaseKeepAliveRequest { id: 7 }.encode_to_vec();
    let times = leasepb::LeaseInternalRequest {
        lease_time_to_live_request: Some(pb::LeaseTimeToLiveRequest { id: 7, keys: true }),
    };
    let asked = request(begin(), 8, b"", &keep);
    let asked = request(asked, 9, b"", &times.encode_to_vec());
    let asked = request(asked, 6, b"", br#"{"revision":1}"#);
    let asked = request(asked, 7, b"7", b"");
    let asked = (4..6).chain(10..14).fold(asked, |built, path| request(built, path, b"", b""));
    seed("peer_door", "questions", &asked.build())?;
    let chunked = begin().byte(0).byte(4).piece(b"").piece(&heartbeat.encode_to_vec());
    seed("peer_door", "chunked", &chunked.build())?;
    let raw = b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n";
    seed("peer_door", "raw", &Builder::new(0).byte(9).raw(raw).build())
}

fn snapshot() -> io::Result<()> {
    let member = fuzzing::world::Member::start(1);
    let view = member.node.reader().snapshot().map_err(io::Error::other)?;
    let mut image = view.image().map_err(io::Error::other)?;
    let (mut database, mut piece) = (Vec::new(), Vec::new());
    while image.next_piece(&mut piece).map_err(io::Error::other)? {
        database.extend_from_slice(&piece);
    }
    let begin = || Builder::new(1).byte(200).byte(0).number(view.index()).number(1);
    seed("peer_snapshot", "whole", &begin().number(1).raw(&database).build())?;
    seed("peer_snapshot", "later", &begin().number(9).raw(&database).build())?;
    let cut = database.len() / 2;
    seed("peer_snapshot", "cut", &begin().number(1).raw(&database[..cut]).build())?;
    let message = raftpb::Message {
        r#type: raftpb::MessageType::MsgSnap.into(),
        snapshot: Some(raftpb::Snapshot::default()),
        ..Default::default()
    }
    .encode_to_vec();
    let length = (message.len() as u64).to_be_bytes();
    let raw = Builder::new(0).byte(3).raw(&length).raw(&message).raw(b"no database");
    seed("peer_snapshot", "raw", &raw.build())
}

fn answer() -> io::Result<()> {
    let members = br#"[{"id":7,"peerURLs":["http://127.0.0.1:2380"],"name":"m0"}]"#;
    let version = br#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#;
    seed("peer_answer", "members", &Builder::new(0).raw(members).build())?;
    seed("peer_answer", "version", &Builder::new(0).raw(version).build())?;
    let times = leasepb::LeaseInternalResponse {
        lease_time_to_live_response: Some(pb::LeaseTimeToLiveResponse {
            id: 7,
            ttl: 3,
            granted_ttl: 5,
            keys: vec!["k".into()],
            ..Default::default()
        }),
    };
    seed("peer_answer", "times", &Builder::new(0).raw(&times.encode_to_vec()).build())?;
    let head = b"HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: 7\r\nContent-Length: 59\r\n\r\n";
    seed("peer_answer", "http", &Builder::new(1).byte(9).raw(head).raw(members).build())?;
    let chunked = b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nno\n\r\n0\r\n\r\n";
    seed("peer_answer", "chunked", &Builder::new(1).byte(2).raw(chunked).build())
}

fn dns() -> io::Result<()> {
    // The name again, SRV, IN, a minute, their length: priority, weight, port, target.
    let record = b"\xc0\x0c\0\x21\0\x01\0\0\0\x3c\0\x11\0\x01\0\0\x09\x4c\x09localhost\0";
    let pointed = b"\xc0\x0c\0\x21\0\x01\0\0\0\x3c\0\x0a\0\x01\0\0\x09\x4c\x01a\xc0\x1e";
    let two = Builder::new(1).byte(1).byte(0x80).byte(2).raw(record).raw(pointed);
    seed("dns_answer", "records", &two.build())?;
    seed("dns_answer", "absent", &Builder::new(1).byte(1).byte(0x83).byte(0).build())
}

fn grpc() -> io::Result<()> {
    let call = |built: Builder, method: Method, message: Vec<u8>| {
        let built = built.byte(position(method));
        let built = if method.kind() == CallKind::BidiStream { built.byte(1) } else { built };
        built.piece(&message)
    };
    let put = pb::PutRequest { key: "k".into(), value: "v".into(), lease: 0, ..Default::default() };
    let all = pb::RangeRequest { key: "a".into(), range_end: "z".into(), ..Default::default() };
    let watch = pb::WatchCreateRequest { key: "k".into(), start_revision: 1, ..Default::default() };
    let watch = pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::CreateRequest(watch)),
    };
    let op = |request| pb::RequestOp { request: Some(request) };
    let txn = pb::TxnRequest {
        success: vec![
            op(pb::request_op::Request::RequestPut(put.clone())),
            op(pb::request_op::Request::RequestRange(all.clone())),
        ],
        ..Default::default()
    };
    let grant = pb::LeaseGrantRequest { id: 5, ttl: 60 };
    let mut built = Builder::default();
    for (method, message) in [
        (Method::Watch, watch.encode_to_vec()),
        (Method::Put, put.encode_to_vec()),
        (Method::Txn, txn.encode_to_vec()),
        (Method::Range, all.encode_to_vec()),
        (Method::RangeStream, all.encode_to_vec()),
        (Method::LeaseGrant, grant.encode_to_vec()),
        (Method::LeaseKeepAlive, pb::LeaseKeepAliveRequest { id: 5 }.encode_to_vec()),
        (Method::Compact, pb::CompactionRequest { revision: 2, physical: false }.encode_to_vec()),
    ] {
        built = call(built, method, message.clone());
        seed("grpc_payload", method.name(), &call(Builder::default(), method, message).build())?;
    }
    seed("grpc_payload", "session", &built.build())?;
    let every = Method::ALL
        .iter()
        .take(16)
        .fold(Builder::default(), |built, method| call(built, *method, vec![]));
    seed("grpc_payload", "empty_first", &every.build())?;
    let every = Method::ALL
        .iter()
        .skip(16)
        .take(16)
        .fold(Builder::default(), |built, method| call(built, *method, vec![]));
    seed("grpc_payload", "empty_second", &every.build())?;
    let every = Method::ALL
        .iter()
        .skip(32)
        .fold(Builder::default(), |built, method| call(built, *method, vec![]));
    seed("grpc_payload", "empty_last", &every.build())
}

fn http2() -> io::Result<()> {
    // A literal header field without indexing: POST, http, path, content type.
    let field = |name: &str, value: &str| {
        let lengths =
            [u8::try_from(name.len()), u8::try_from(value.len())].map(|len| len.unwrap_or(0));
        [&[0, lengths[0]], name.as_bytes(), &[lengths[1]], value.as_bytes()].concat()
    };
    let headers = [
        field(":method", "POST"),
        field(":scheme", "http"),
        field(":path", "/etcdserverpb.KV/Range"),
        field(":authority", "localhost"),
        field("content-type", "application/grpc"),
        field("te", "trailers"),
    ]
    .concat();
    let range = pb::RangeRequest { key: "k".into(), ..Default::default() }.encode_to_vec();
    let message = [&[0, 0, 0, 0, u8::try_from(range.len()).unwrap_or(0)], &range[..]].concat();
    let frame = |built: Builder, kind: u8, flags: u8, stream: u64, payload: &[u8]| {
        built.byte(kind).byte(flags).number(stream.swap_bytes() >> 32).piece(payload)
    };
    let begun = frame(Builder::new(2).byte(255), 4, 0, 0, &[]);
    let called = frame(frame(begun, 1, 4, 1, &headers), 0, 1, 1, &message);
    seed("http2_frames", "call", &called.clone().build())?;
    let more = frame(frame(called, 6, 0, 0, &[0; 8]), 8, 0, 0, &[0, 0, 1, 0]);
    seed("http2_frames", "more", &frame(more, 3, 0, 1, &[0, 0, 0, 8]).build())
}

fn gateway() -> io::Result<()> {
    let json = |method: Method, text: &str| {
        Builder::new(3).byte(position(method)).raw(text.as_bytes()).build()
    };
    seed(
        "gateway_json",
        "put",
        &json(Method::Put, r#"{"key":"Zm9v","value":"YmFy","lease":"7","prev_kv":true}"#),
    )?;
    seed(
        "gateway_json",
        "range",
        &json(
            Method::Range,
            r#"{"key":"Zm9v","rangeEnd":"Zm9w","sort_order":"DESCEND","limit":5}"#,
        ),
    )?;
    seed(
        "gateway_json",
        "txn",
        &json(
            Method::Txn,
            r#"{"compare":[{"result":"EQUAL","target":"VERSION","key":"Zm9v","version":"1"}],"success":[{"requestPut":{"key":"Zm9v"}}],"failure":[{"request_txn":{}}]}"#,
        ),
    )?;
    seed(
        "gateway_json",
        "watch",
        &json(Method::Watch, r#"{"create_request":{"key":"Zm9v","filters":["NOPUT"]}}"#),
    )?;
    let post =
        |path: u8, text: &str| Builder::new(1).byte(0).byte(path).raw(text.as_bytes()).build();
    seed("gateway_json", "posted_put", &post(1, r#"{"key":"Zm9v","value":"YmFy"}"#))?;
    seed(
        "gateway_json",
        "posted_watch",
        &post(
            3,
            r#"{"create_request":{"key":"Zm9v"}} {"progress_request":{}} {"cancel_request":{"watch_id":0}}"#,
        ),
    )?;
    seed("gateway_json", "posted_broken", &post(3, r#"{"create_request":{"key":"Zm"#))?;
    let head = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    seed("gateway_json", "pages", &Builder::new(0).byte(0).raw(head).build())?;
    let chunked = b"POST /v3/kv/range HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    seed("gateway_json", "chunked", &Builder::new(0).byte(0).raw(chunked).build())?;
    let answer = pb::RangeResponse {
        count: 5,
        kvs: vec![mvccpb::KeyValue::default()],
        ..Default::default()
    };
    seed(
        "gateway_json",
        "answer",
        &Builder::new(2).byte(position(Method::Range)).raw(&answer.encode_to_vec()).build(),
    )
}

fn flags() -> io::Result<()> {
    seed("flags", "line", b"--name=m0\n--listen-client-urls=http://127.0.0.1:2379,unix://a\n--advertise-client-urls\nhttp://localhost:2379\n--quota-backend-bytes=0x10\n--auto-compaction-retention=1h\n")?;
    seed("flags", "cluster", b"--initial-cluster=default=http://localhost:2380\n--initial-cluster-state=new\n--feature-gates=InitialCorruptCheck=true\n--cors=*\n--max-wals=3\n")?;
    seed("flags", "environment", b"ETCD_NAME=m\nETCD_ELECTION_TIMEOUT=900\nETCD_HEARTBEAT_INTERVAL=90\nETCD_LOG_LEVEL=debug\n")?;
    seed("flags", "file", b"%\nname: m\ndata-dir: d\nlisten-client-urls: http://localhost:2379\nadvertise-client-urls: http://localhost:2379\nquota-backend-bytes: 5\nclient-transport-security:\n  cert-file: a\n  auto-tls: true\nlog-outputs: [stderr]\n")?;
    seed("flags", "json", br#"%
{"name": "m", "watch-progress-notify-interval": 5, "self-signed-cert-validity": 3, "cors": "a,b", "experimental-x": null}"#)
}
