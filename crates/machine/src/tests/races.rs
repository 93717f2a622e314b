//! Readers on threads of their own, while revisions are applied, committed and compacted: they see
//! a whole state, or are refused.

use std::sync::atomic::{AtomicBool, Ordering};

use proto::etcdserverpb as pb;

use super::lab::{self, Lab};
use crate::mvcc::record::KeyValue;
use crate::watch::{History, HistoryBounds};
use crate::{Options, ReadError, Reader, Refusal};

const KEYS: i64 = 700;
const ROUNDS: i64 = 40;

/// Each round is one transaction that gives all keys the value of the round.
fn round(round: i64) -> pb::InternalRaftRequest {
    let put = |key: i64| {
        let (key, value) = (format!("k{key:04}").into(), round.to_string().into());
        let put = pb::PutRequest { key, value, ..Default::default() };
        pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
    };
    lab::txn(pb::TxnRequest { success: (0..KEYS).map(put).collect(), ..Default::default() })
}

fn check(kvs: &[crate::Record], count: i64, revision: i64) {
    let expected = if revision == 1 { 0 } else { KEYS };
    assert_eq!((count, kvs.len() as u64), (expected, expected.cast_unsigned()));
    for record in kvs {
        let kv = KeyValue::decode(record).unwrap();
        assert_eq!((kv.mod_revision, kv.version), (revision, revision - 1));
        assert_eq!(kv.value, (revision - 1).to_string().as_bytes());
    }
}

fn read(reader: &Reader, behind: i64) {
    let request = |revision| pb::RangeRequest {
        key: "k".into(),
        range_end: "l".into(),
        revision,
        ..Default::default()
    };
    let (revision, reply) = reader.range(&request(0)).unwrap();
    check(&reply.kvs, reply.count, revision);
    let past = (revision - behind).max(1);
    match reader.range(&request(past)) {
        Ok((_, reply)) => check(&reply.kvs, reply.count, past),
        Err(ReadError::Refused(Refusal::Compacted)) => {
            assert!(past < reader.compact_revision());
        }
        Err(error) => panic!("{error}"),
    }
    match reader.range(&pb::RangeRequest { count_only: true, ..request(past) }) {
        Ok((_, reply)) => assert_eq!(reply.count, if past == 1 { 0 } else { KEYS }),
        Err(ReadError::Refused(Refusal::Compacted)) => {
            assert!(past < reader.compact_revision());
        }
        Err(error) => panic!("{error}"),
    }
    let from = reader.compact_revision() + 1;
    let bounds = HistoryBounds { revisions_max: 2, bytes_max: 1 << 20 };
    let batch = match reader.read(from.max(2), i64::MAX, bounds) {
        Ok(batch) => batch,
        Err(error) => panic!("{error}"),
    };
    if reader.compact_revision() < from {
        for (revision, events) in batch.revisions() {
            let records: Vec<_> = events.iter().map(|event| event.record.clone()).collect();
            check(&records, KEYS, revision);
        }
    }
    reader.hash_kv(0).unwrap();
}

#[test]
fn readers_see_whole_states_or_are_refused() {
    let options = Options { cache_bytes: 1 << 14, compaction_batch: 100, ..Options::default() };
    let mut lab = Lab::new(options);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for behind in [0, 3] {
            let (reader, is_done) = (lab.machine.reader(), &is_done);
            scope.spawn(move || {
                while !is_done.load(Ordering::Relaxed) {
                    read(&reader, behind);
                }
            });
        }
        for number in 1..=ROUNDS {
            lab.apply(round(number));
            if number % 2 == 0 {
                lab.commit();
            }
            if number % 5 == 0 {
                lab.apply(lab::compact(number - 2));
                lab.settle();
            }
        }
        is_done.store(true, Ordering::Relaxed);
    });
    let (hash, _) = lab.machine.reader().hash_kv(0).unwrap();
    lab.commit();
    lab.crash();
    assert_eq!(lab.machine.reader().hash_kv(0).unwrap().0, hash);
}
