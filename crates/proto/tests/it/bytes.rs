//! Bytes that etcd's own encoders gave, and what our types make of them.

use std::fmt::Debug;

use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request as Operation;
use proto::etcdserverpb::{
    AlarmMember, AlarmType, Compare, InternalRaftRequest, Metadata, PutRequest, Request,
    RequestHeader, RequestOp, TxnRequest,
};
use proto::membershippb::{Attributes, ClusterMemberAttrSetRequest};
use proto::mvccpb::KeyValue;
use proto::raftpb::{
    self, ConfChange, ConfChangeType, ConfState, Entry, EntryType, HardState, MessageType,
    SnapshotMetadata,
};
use proto::{snappb, walpb};

fn hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Both directions: etcd's bytes decode to `message`, and `message` encodes to etcd's bytes.
#[track_caller]
fn same<M: Message + PartialEq + Default + Debug>(message: &M, text: &str) {
    let bytes = hex(text);
    assert_eq!(Bytes::from(message.encode_to_vec()), bytes, "encoding of {message:?}");
    assert_eq!(&M::decode(bytes).unwrap(), message);
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn a_stored_value_is_canonical() {
    let mut value = KeyValue {
        key: bytes("a"),
        create_revision: 2,
        mod_revision: 2,
        version: 1,
        value: bytes("1"),
        lease: 0,
    };
    same(&value, "0a0161 1002 1802 2001 2a0131");
    value = KeyValue {
        create_revision: 300,
        mod_revision: 1 << 40,
        version: 7,
        value: Bytes::new(),
        lease: -1,
        ..value
    };
    same(&value, "0a0161 10ac02 18808080808020 2007 30ffffffffffffffffff01");
    same(&KeyValue { key: bytes("a"), ..KeyValue::default() }, "0a0161");
    same(&KeyValue::default(), "");
}

#[test]
fn raft_requests_are_written_in_ascending_order() {
    let put = InternalRaftRequest {
        header: Some(RequestHeader {
            id: 0x0102_0304_0506_0708,
            username: "root".to_owned(),
            auth_revision: 3,
        }),
        put: Some(PutRequest {
            key: bytes("k"),
            value: bytes("v"),
            lease: 5,
            prev_kv: true,
            ..PutRequest::default()
        }),
        ..InternalRaftRequest::default()
    };
    same(&put, "220a 0a016b 120176 1805 2001 a206 12 08888e98a8c0e0808101 1204726f6f74 1803");
    let attributes = InternalRaftRequest {
        header: Some(RequestHeader { id: 1, ..RequestHeader::default() }),
        cluster_member_attr_set: Some(ClusterMemberAttrSetRequest {
            member_id: 2,
            member_attributes: Some(Attributes {
                name: "m".to_owned(),
                client_urls: vec!["http://a".to_owned(), "http://b".to_owned()],
            }),
        }),
        ..InternalRaftRequest::default()
    };
    same(
        &attributes,
        "a206 02 0801 aa51 1b 0802 1217 0a016d 1208687474703a2f2f61 1208687474703a2f2f62",
    );
}

#[test]
fn a_zero_inside_a_oneof_is_written() {
    let transaction = TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Greater.into(),
            target: CompareTarget::Mod.into(),
            key: bytes("k"),
            range_end: bytes("l"),
            target_union: Some(TargetUnion::ModRevision(0)),
        }],
        success: vec![RequestOp { request: Some(Operation::RequestTxn(TxnRequest::default())) }],
        failure: Vec::new(),
    };
    same(&transaction, "0a0d 0801 1002 1a016b 3000 8204016c 1202 2200");
}

#[test]
fn an_alarm_is_its_own_key() {
    same(&AlarmMember { member_id: 1, alarm: AlarmType::Corrupt.into() }, "08011002");
}

#[test]
fn zeros_of_the_log_are_written() {
    let normal = EntryType::EntryNormal.into();
    let entry = Entry { r#type: normal, term: 1, index: 2, data: bytes("x") };
    same(&entry, "0800 1001 1802 220178");
    same(&HardState { term: 3, vote: 0, commit: 9 }, "0803 1000 1809");
    same(&walpb::Snapshot { index: 0, term: 0, conf_state: None }, "0800 1000");
    same(&walpb::Record { r#type: 4, crc: 0, data: Bytes::new() }, "0804 1000");
    let record = walpb::Record { r#type: 1, crc: 0xdead_beef, data: bytes("m") };
    same(&record, "0801 10effdb6f50d 1a016d");
    same(&snappb::Snapshot { crc: 0xdead_beef, data: bytes("m") }, "08effdb6f50d 12016d");
    same(&Metadata { node_id: 1, cluster_id: 2 }, "0801 1002");
    let change = ConfChange {
        id: 0,
        r#type: ConfChangeType::ConfChangeRemoveNode.into(),
        node_id: 9,
        context: Bytes::new(),
    };
    same(&change, "0800 1001 1809");
}

#[test]
fn voters_are_written_unpacked_and_read_either_way() {
    let metadata = SnapshotMetadata {
        conf_state: ConfState { voters: vec![1, 300], ..ConfState::default() },
        index: 5,
        term: 2,
    };
    let snapshot = raftpb::Snapshot { data: Bytes::new(), metadata };
    same(&snapshot, "120d 0a07 0801 08ac02 2800 1005 1802");
    let packed = ConfState::decode(hex("0a0301ac02 2800")).unwrap();
    assert_eq!(packed, snapshot.metadata.conf_state);
}

#[test]
fn absent_fields_of_the_log_are_zero() {
    // etcd 3.7 leaves out what its code did not set.
    let entry = Entry::decode(hex("1001 1802")).unwrap();
    assert_eq!(entry, Entry { term: 1, index: 2, ..Entry::default() });
    assert_eq!(raftpb::Message::decode(Bytes::new()).unwrap(), raftpb::Message::default());
}

#[test]
fn a_heartbeat_is_read_from_every_version() {
    let heartbeat = raftpb::Message {
        r#type: MessageType::MsgHeartbeat.into(),
        to: 2,
        from: 1,
        term: 7,
        context: Bytes::from_static(&[1, 0, 0, 0, 0, 0, 0, 0]),
        ..raftpb::Message::default()
    };
    // etcd 3.7: what its code set.
    let sparse = hex("0808 1002 1801 2007 4000 62080100000000000000");
    assert_eq!(raftpb::Message::decode(sparse).unwrap(), heartbeat);
    // etcd 3.5 and ours: all scalars. etcd 3.6 adds `vote`.
    let full = "0808 1002 1801 2007 2800 3000 4000 5000 5800 62080100000000000000";
    same(&heartbeat, full);
    assert_eq!(raftpb::Message::decode(hex(&format!("{full} 6800"))).unwrap(), heartbeat);
    // etcd 3.5 sends an empty snapshot with everything.
    let with_snapshot =
        "0808 1002 1801 2007 2800 3000 4000 4a0a 1208 0a02 2800 1000 1800 5000 5800";
    let message = raftpb::Message::decode(hex(with_snapshot)).unwrap();
    assert_eq!(message.snapshot.unwrap().metadata.index, 0);
}

#[test]
fn a_bare_v2_request_does_not_decode_as_a_v3_one() {
    let request = Request {
        id: 7,
        method: "PUT".to_owned(),
        path: "/0/version".to_owned(),
        val: "3.5.0".to_owned(),
        ..Request::default()
    };
    let bytes = Bytes::from(request.encode_to_vec());
    assert!(InternalRaftRequest::decode(bytes.clone()).is_err());
    assert_eq!(Request::decode(bytes).unwrap(), request);
}
