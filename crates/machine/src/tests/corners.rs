//! Corners that random requests do not reach.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::range_request::SortTarget;
use storage::backend::{Op, WriteBatch};
use storage::bolt::Bolt;
use storage::mem::MemDisk;
use storage::{Disk, OpenMode};

use super::lab::{self, Lab};
use crate::mvcc::compact::compact_mark;
use crate::mvcc::record::KeyValue;
use crate::mvcc::view::View;
use crate::{EntryFault, Fault, Machine, Options, ReadError, Refusal, schema};

fn put(key: &str, value: &str) -> pb::InternalRaftRequest {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    lab::put(pb::PutRequest { key, value, ..Default::default() })
}

/// Without a cache, so that values come from tail and engine only.
fn uncached() -> Options {
    Options { cache_bytes: 0, ..Options::default() }
}

#[test]
fn many_alarms_of_unknown_kinds_cost_each_the_same() {
    let mut lab = Lab::new(uncached());
    let mut alarm = |member_id, alarm| {
        let action = pb::alarm_request::AlarmAction::Activate.into();
        let alarm = Some(pb::AlarmRequest { action, member_id, alarm });
        lab.apply(pb::InternalRaftRequest { alarm, ..Default::default() });
    };
    // With a copy of all for each, this takes minutes.
    for member in 0..100_000 {
        alarm(member, 9);
    }
    alarm(7, pb::AlarmType::Corrupt.into());
    let reader = lab.machine.reader();
    assert!(reader.has_alarm(pb::AlarmType::Corrupt) && !reader.has_alarm(pb::AlarmType::Nospace));
    let alarms = reader.alarms();
    assert_eq!((alarms.len(), alarms[0]), (100_001, pb::AlarmMember { member_id: 7, alarm: 2 }));
}

#[test]
fn a_page_of_large_records_ends_early_and_none_is_lost() {
    let mut lab = Lab::new(uncached());
    for number in 0..7 {
        let key = format!("k{number}").into();
        let value = vec![b'v'; 400 << 10].into();
        lab.apply(lab::put(pb::PutRequest { key, value, ..Default::default() }));
    }
    let range =
        pb::RangeRequest { key: "k".into(), range_end: "l".into(), limit: 6, ..Default::default() };
    let mut pager = lab.machine.reader().pager(&range).unwrap();
    let mut keys = vec![];
    loop {
        let collected = pager.collect(1000).unwrap();
        let page = pager.read(collected).unwrap();
        assert!(page.kvs.len() <= 3, "{}", page.kvs.len());
        for record in &page.kvs {
            keys.extend_from_slice(KeyValue::decode(record).unwrap().key);
        }
        if let Some(end) = page.end {
            assert_eq!(end, (true, 7));
            break;
        }
    }
    assert_eq!(keys, b"k0k1k2k3k4k5");
}

#[test]
fn reads_stop_where_their_room_ends() {
    let mut lab = Lab::new(uncached());
    for number in 0..20 {
        lab.apply(put(&format!("k{number}"), &"v".repeat(1000 + number)));
    }
    lab.commit();
    let reader = lab.machine.reader();
    let range = |sort_target: SortTarget| pb::RangeRequest {
        key: "k".into(),
        range_end: "l".into(),
        sort_order: pb::range_request::SortOrder::Descend.into(),
        sort_target: sort_target.into(),
        ..Default::default()
    };
    let held = |target, bytes_max| {
        let mut held = 0;
        let mut room = |bytes| {
            held += bytes;
            held <= bytes_max
        };
        let pager = reader.pager_within(&range(target), &mut room);
        pager.map(|mut pager| {
            let collected = pager.collect(100).unwrap();
            (pager.bytes_held(), pager.read(collected).unwrap().kvs.len())
        })
    };
    // Revisions are in the index; values have to be read.
    for target in [SortTarget::Key, SortTarget::Mod, SortTarget::Create, SortTarget::Version] {
        assert!(matches!(held(target, 5000), Ok((1..5000, 20))), "{target:?}");
        assert!(matches!(held(target, 500), Err(ReadError::NoRoom)), "{target:?}");
    }
    assert!(matches!(held(SortTarget::Value, 50_000), Ok((1..5000, 20))));
    assert!(matches!(held(SortTarget::Value, 15_000), Err(ReadError::NoRoom)));
    let op = pb::request_op::Request::RequestRange(range(SortTarget::Mod));
    let txn =
        pb::TxnRequest { success: vec![pb::RequestOp { request: Some(op) }], ..Default::default() };
    for (bytes_max, is_answered) in [(50_000, true), (15_000, false)] {
        let mut held = 0;
        let result = reader.txn(&txn, &mut |bytes| {
            held += bytes;
            held <= bytes_max
        });
        assert_eq!(result.is_ok(), is_answered, "{bytes_max}");
    }
}

#[test]
fn a_view_finds_what_has_left_the_tail_since_it_first_read_the_engine() {
    let mut lab = Lab::new(uncached());
    lab.apply(put("a", "1"));
    lab.commit();
    lab.apply(put("b", "2"));
    let reader = lab.machine.reader();
    let shared = reader.shared();
    let mut view = View::new(&shared, reader.revision());
    assert!(view.get(b"a").unwrap().is_some(), "now the view holds the engine's state");
    lab.commit();
    let record = view.get(b"b").unwrap().unwrap();
    assert_eq!(KeyValue::decode(&record).unwrap().value, b"2");
}

#[test]
fn a_view_that_a_compaction_overtakes_is_refused() {
    let mut lab = Lab::new(uncached());
    lab.apply(put("a", "1"));
    let reader = lab.machine.reader();
    let shared = reader.shared();
    let mut view = View::new(&shared, reader.revision());
    let item =
        view.lookup(b"a").unwrap().map(|found| crate::mvcc::range::Item { record: None, ..found });
    lab.apply(put("a", "2"));
    lab.apply(lab::compact(3));
    lab.settle();
    let error = view.record_of(item.unwrap()).unwrap_err();
    assert!(matches!(error, ReadError::Refused(Refusal::Compacted)), "{error}");
}

#[test]
fn the_revision_never_goes_below_what_was_compacted() {
    // As an etcd before 3.5.16 leaves it: the last record was a tombstone, and the compaction at it
    // has removed it.
    let lab = Lab::new(Options::default());
    let mark = |key| (schema::META, Op::Put(Bytes::from_static(key), compact_mark(9)));
    let ops = vec![mark(schema::SCHEDULED_COMPACT), mark(schema::FINISHED_COMPACT)];
    lab.backend.commit(&WriteBatch::new(ops)).unwrap();
    let machine = Machine::recover(lab.backend, lab.options).unwrap();
    assert_eq!(machine.reader().revision(), 9);
    assert_eq!(machine.reader().compact_revision(), 9);
}

/// More changes than are handed over at once, and keys larger than that.
#[test]
fn a_restart_builds_what_was_there_of_many_pieces() {
    let mut lab = Lab::new(Options::default());
    let grant = Some(pb::LeaseGrantRequest { ttl: 100, id: 7 });
    lab.apply(pb::InternalRaftRequest { lease_grant: grant, ..Default::default() });
    for number in 0..7000 {
        let padding = if number % 500 == 0 { 200_000 } else { 0 };
        let key = format!("{:08}{}", number % 5000, "k".repeat(padding)).into();
        let lease = if number % 3 == 0 { 7 } else { 0 };
        lab.apply(lab::put(pb::PutRequest { key, lease, ..Default::default() }));
        if number % 7 == 0 {
            let key = format!("{:08}", number / 2).into();
            lab.apply(lab::delete(pb::DeleteRangeRequest { key, ..Default::default() }));
        }
    }
    lab.commit();
    let state = |machine: &Machine| {
        let reader = machine.reader();
        let all = pb::RangeRequest {
            key: Bytes::from_static(&[0]),
            range_end: Bytes::from_static(&[0]),
            keys_only: true,
            ..Default::default()
        };
        let (_, found) = reader.range(&all).unwrap();
        let attached = machine.lessor().keys(7).map(<[u8]>::to_vec).collect::<Vec<_>>();
        (reader.hash_kv(0).unwrap(), format!("{found:?}"), attached, reader.sizes())
    };
    let before = state(&lab.machine);
    assert!(before.2.len() > 1000);
    let machine = Machine::recover(lab.backend, lab.options).unwrap();
    assert_eq!(state(&machine), before);
}

#[test]
fn what_cannot_be_read_back_is_a_fault_that_names_its_bucket() {
    for (table, key, value) in [
        (schema::KEY, &b"short"[..], &b""[..]),
        (schema::KEY, b"12345678_12345678", b"\xff"),
        (schema::LEASE, b"x", b"\xff"),
        (schema::MEMBERS, b"1", b"{"),
        (schema::MEMBERS_REMOVED, b"xyz", b"removed"),
        (schema::ALARM, b"\xff", b""),
        (schema::CLUSTER, b"clusterVersion", b"x"),
        (schema::META, b"consistent_index", b"x"),
        (schema::META, b"confState", b"x"),
    ] {
        let lab = Lab::new(Options::default());
        let op = Op::Put(Bytes::from_static(key), Bytes::from_static(value));
        lab.backend.commit(&WriteBatch::new(vec![(table, op)])).unwrap();
        let fault = Machine::recover(lab.backend, lab.options).unwrap_err();
        let Fault::Backend { bucket, .. } = fault else { panic!("{fault}") };
        assert_eq!(bucket, schema::BUCKETS[usize::from(table.0)]);
    }
}

#[test]
fn a_store_with_authentication_is_not_served_without() {
    let lab = Lab::new(Options::default());
    let op = Op::Put(Bytes::from_static(schema::AUTH_ENABLED), Bytes::from_static(&[1]));
    lab.backend.commit(&WriteBatch::new(vec![(schema::AUTH, op)])).unwrap();
    let fault = Machine::recover(lab.backend, lab.options).unwrap_err();
    assert!(matches!(fault, Fault::AuthUnsupported));
}

#[test]
fn entries_are_applied_once_and_in_order() {
    let mut lab = Lab::new(Options::default());
    let request = |id| {
        let header = Some(pb::RequestHeader { id, ..Default::default() });
        let request = pb::InternalRaftRequest { header, ..put("a", "1") };
        Bytes::from(prost::Message::encode_to_vec(&request))
    };
    let machine = &mut lab.machine;
    assert_eq!(machine.apply(1, 1, &request(1)).unwrap().outcome.revision, 2);
    assert_eq!(machine.apply(1, 1, &request(1)).unwrap().outcome.revision, 2);
    let fault = machine.apply(3, 1, &request(3)).unwrap_err();
    let Fault::Entry { index: 3, reason: EntryFault::OutOfOrder { applied: 1 } } = fault else {
        panic!("{fault}")
    };
    assert_eq!(machine.apply(2, 1, &Bytes::new()).unwrap().request_id, 0);
    assert_eq!(machine.applied().index, 2);
}

#[test]
fn nobody_pays_for_answers_that_nobody_hears() {
    let mut lab = Lab::new(uncached());
    lab.apply(put("a", "1"));
    let range = pb::RangeRequest { key: "a".into(), ..Default::default() };
    let write = pb::PutRequest { key: "b".into(), ..Default::default() };
    let op = |request| pb::RequestOp { request: Some(request) };
    let success = vec![
        op(pb::request_op::Request::RequestRange(range)),
        op(pb::request_op::Request::RequestPut(write)),
    ];
    let header = Some(pb::RequestHeader { id: 2, ..Default::default() });
    let txn = lab::txn(pb::TxnRequest { success, ..Default::default() });
    let request = pb::InternalRaftRequest { header, ..txn };
    let data = Bytes::from(prost::Message::encode_to_vec(&request));
    let applied = lab.machine.apply_heard(2, 1, &data, |id| id != 2).unwrap();
    let Ok(crate::Reply::Txn(reply)) = applied.outcome.result else { panic!("{applied:?}") };
    assert_eq!(reply.responses[0], (2, crate::Reply::Empty));
    assert_eq!(reply.responses[1], (3, crate::Reply::Put { prev: None }));
    assert_eq!(lab.machine.reader().revision(), 3);
}

/// What is read for the answer is checked wherever the entry is applied. etcd left ranges out where nobody waited for them, and
/// with them the check: the same transaction was refused by one member and applied by the others.
#[test]
fn a_range_that_is_refused_refuses_its_transaction_also_where_nobody_hears_it() {
    let op = |request| pb::RequestOp { request: Some(request) };
    let range = |revision| {
        let range = pb::RangeRequest { key: "a".into(), revision, ..Default::default() };
        op(pb::request_op::Request::RequestRange(range))
    };
    let write = || {
        op(pb::request_op::Request::RequestPut(pb::PutRequest {
            key: "b".into(),
            ..Default::default()
        }))
    };
    let nested = |inner: Vec<pb::RequestOp>| {
        op(pb::request_op::Request::RequestTxn(pb::TxnRequest {
            success: inner,
            ..Default::default()
        }))
    };
    for (success, refusal) in [
        (vec![write(), range(2)], Some(Refusal::Compacted)),
        (vec![write(), range(99)], Some(Refusal::FutureRevision)),
        (vec![write(), nested(vec![range(2)])], Some(Refusal::Compacted)),
        (vec![write(), range(3)], None),
    ] {
        let members = [true, false].map(|is_heard| {
            let mut lab = Lab::new(uncached());
            lab.apply(put("a", "1"));
            lab.apply(put("a", "2"));
            lab.apply(lab::compact(3));
            let header = Some(pb::RequestHeader { id: 9, ..Default::default() });
            let txn = lab::txn(pb::TxnRequest { success: success.clone(), ..Default::default() });
            let request = pb::InternalRaftRequest { header, ..txn };
            let data = Bytes::from(prost::Message::encode_to_vec(&request));
            let index = lab.machine.applied().index + 1;
            let applied = lab.machine.apply_heard(index, 1, &data, |_| is_heard).unwrap();
            assert_eq!(applied.outcome.result.err(), refusal, "{success:?}");
            lab.machine.reader().hash_kv(0).unwrap()
        });
        assert_eq!(members[0], members[1], "{success:?}");
    }
}

#[test]
fn a_snapshot_is_an_image_of_what_was_durable() {
    let mut lab = Lab::new(Options::default());
    lab.apply(put("a", "1"));
    lab.commit();
    let snapshot = lab.machine.reader().snapshot().unwrap();
    lab.apply(put("b", "2"));
    lab.commit();
    assert_eq!((snapshot.index(), snapshot.term()), (1, 1));
    let mut image = snapshot.image().unwrap();
    let mut file = Vec::new();
    let mut piece = Vec::new();
    while image.next_piece(&mut piece).unwrap() {
        file.extend_from_slice(&piece);
    }
    assert_eq!(file.len() as u64, image.len());
    let disk = Arc::new(MemDisk::new());
    let path = Path::new("image");
    disk.open(path, OpenMode::CreateNew).unwrap().write_all_at(0, &file).unwrap();
    let bolt = Bolt::open(&*disk, path).unwrap();
    for name in schema::BUCKETS {
        let bucket = bolt.bucket(name.as_bytes()).unwrap().unwrap();
        let stored: Vec<_> = bucket.pairs().map(Result::unwrap).collect();
        let expected: Vec<_> = snapshot.pairs(name).map(Result::unwrap).collect();
        assert_eq!(stored, expected, "{name}");
    }
    assert_eq!(snapshot.pairs("key").count(), 1);
}
