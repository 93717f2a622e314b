//! The machine against the model: random requests, with commits, compaction steps and crashes at
//! random points.

use proptest::collection::vec;
use proptest::prelude::*;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::TargetUnion;
use proto::etcdserverpb::request_op::Request as Op;
use proto::mvccpb::KeyValue;

use super::lab::{self, Lab};
use super::model::{Model, Yield};
use crate::mvcc::record;
use crate::watch::{History, HistoryBounds};
use crate::{Options, RangeReply, Record, Refusal, Reply};

#[derive(Debug, Clone)]
enum Step {
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    /// A range and, in thousandths of the history, its revision.
    Range(pb::RangeRequest, i64),
    Compact(i64),
    Commit,
    Advance,
    Crash,
}

fn key() -> impl Strategy<Value = bytes::Bytes> {
    prop::sample::select(vec!["a", "ab", "b", "ba", "c", "d"]).prop_map(Into::into)
}

fn range_end() -> impl Strategy<Value = bytes::Bytes> {
    prop::sample::select(vec!["", "", "", "b", "c", "z", "\0"]).prop_map(Into::into)
}

fn put() -> impl Strategy<Value = pb::PutRequest> {
    (key(), 0..40_usize, any::<bool>(), prop::bool::weighted(0.2)).prop_map(
        |(key, size, prev_kv, ignore_value)| pb::PutRequest {
            key,
            value: if ignore_value { "".into() } else { vec![b'v'; size].into() },
            prev_kv,
            ignore_value,
            ..Default::default()
        },
    )
}

fn delete() -> impl Strategy<Value = pb::DeleteRangeRequest> {
    (key(), range_end(), any::<bool>())
        .prop_map(|(key, range_end, prev_kv)| pb::DeleteRangeRequest { key, range_end, prev_kv })
}

fn range() -> impl Strategy<Value = pb::RangeRequest> {
    let flags = (prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    let filters = vec(prop::sample::select(vec![0, 0, 0, 0, 2, 5, 9]), 4);
    (key(), range_end(), 0..4_i64, 0..3_i32, 0..5_i32, flags, filters).prop_map(
        |(key, range_end, limit, sort_order, sort_target, (keys_only, count_only), filters)| {
            pb::RangeRequest {
                key,
                range_end,
                limit,
                sort_order,
                sort_target,
                keys_only,
                count_only,
                min_mod_revision: filters[0],
                max_mod_revision: filters[1],
                min_create_revision: filters[2],
                max_create_revision: filters[3],
                ..Default::default()
            }
        },
    )
}

fn compare() -> impl Strategy<Value = pb::Compare> {
    (key(), range_end(), 0..4_i32, 0..5_i32, 0..6_i64).prop_map(
        |(key, range_end, result, target, number)| {
            let target_union = Some(match target {
                0 => TargetUnion::Version(number),
                1 => TargetUnion::CreateRevision(number),
                2 => TargetUnion::ModRevision(number),
                3 => TargetUnion::Value(vec![b'v'; usize::try_from(number).unwrap()].into()),
                _ => TargetUnion::Lease(number - 2),
            });
            pb::Compare { result, target, key, range_end, target_union }
        },
    )
}

const DEPTH: u32 = 2;

/// A transaction tree. The API refuses puts and deletions that overlap, and etcd loses keys that
/// one transaction deletes and puts again: these do not occur.
fn txn(depth: u32) -> BoxedStrategy<pb::TxnRequest> {
    let range = (range(), prop::sample::select(vec![0, 0, 0, -1, 1, 3, 99]))
        .prop_map(|(range, revision)| Op::RequestRange(pb::RangeRequest { revision, ..range }));
    let leaf = prop_oneof![put().prop_map(Op::RequestPut), range];
    let op = if depth == 0 {
        leaf.boxed()
    } else {
        prop_oneof![4 => leaf, 1 => txn(depth - 1).prop_map(Op::RequestTxn)].boxed()
    };
    let op = op.prop_map(|op| pb::RequestOp { request: Some(op) });
    let deletion = prop::option::weighted(0.3, delete())
        .prop_map(move |deletion| deletion.filter(|_| depth == DEPTH));
    (vec(compare(), 0..3), vec(op.clone(), 0..4), vec(op, 0..3), deletion)
        .prop_map(|(compare, mut success, failure, deletion)| {
            // In front, so that it deletes nothing of the transaction itself.
            let is_safe = |delete: &pb::DeleteRangeRequest| !writes_in(&success, delete);
            if let Some(delete) = deletion.filter(is_safe) {
                let op = Op::RequestDeleteRange(delete);
                success.insert(0, pb::RequestOp { request: Some(op) });
            }
            pb::TxnRequest { compare, success: unique(success), failure: unique(failure) }
        })
        .boxed()
}

fn writes_in(ops: &[pb::RequestOp], delete: &pb::DeleteRangeRequest) -> bool {
    ops.iter().any(|op| match op.request.as_ref().unwrap() {
        Op::RequestPut(put) => {
            crate::mvcc::range::Keys::new(&delete.key, &delete.range_end).contains(&put.key)
        }
        Op::RequestTxn(_) => true,
        Op::RequestRange(_) | Op::RequestDeleteRange(_) => false,
    })
}

/// Drops puts of keys that were put before in the same branch.
fn unique(ops: Vec<pb::RequestOp>) -> Vec<pb::RequestOp> {
    let mut keys = std::collections::BTreeSet::new();
    ops.into_iter()
        .filter(|op| match op.request.as_ref().unwrap() {
            Op::RequestPut(put) => keys.insert(put.key.clone()),
            _ => true,
        })
        .collect()
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => put().prop_map(Step::Put),
        3 => delete().prop_map(Step::Delete),
        4 => txn(DEPTH).prop_map(Step::Txn),
        6 => (range(), -10..1100_i64).prop_map(|(range, at)| Step::Range(range, at)),
        1 => (0..1100_i64).prop_map(Step::Compact),
        3 => Just(Step::Commit),
        3 => Just(Step::Advance),
        1 => Just(Step::Crash),
    ]
}

fn decoded(record: &Record) -> KeyValue {
    let fields = record::KeyValue::decode(record).unwrap();
    KeyValue {
        key: record.slice_ref(fields.key),
        create_revision: fields.create_revision,
        mod_revision: fields.mod_revision,
        version: fields.version,
        value: record.slice_ref(fields.value),
        lease: fields.lease,
    }
}

fn yielded(reply: Reply) -> Yield {
    match reply {
        Reply::Put { prev } => Yield::Put(prev.as_ref().map(decoded)),
        Reply::Range(reply) => range_yield(&reply),
        Reply::DeleteRange { deleted, prev } => {
            Yield::Delete { deleted, prev: prev.iter().map(decoded).collect() }
        }
        Reply::Txn(reply) => {
            let responses = reply.responses.into_iter().map(|(_, reply)| yielded(reply)).collect();
            Yield::Txn(reply.succeeded, responses)
        }
        other => panic!("not asked for: {other:?}"),
    }
}

fn range_yield(reply: &RangeReply) -> Yield {
    Yield::Range {
        kvs: reply.kvs.iter().map(decoded).collect(),
        more: reply.more,
        count: reply.count,
    }
}

/// Orders of equal elements are unspecified: compares what is sorted by, and the set if it is
/// whole.
fn assert_same(request: &pb::RangeRequest, ours: &Yield, theirs: &Yield) {
    if request.sort_target == 0 || request.count_only {
        assert_eq!(ours, theirs, "{request:?}");
        return;
    }
    let (Yield::Range { kvs, more, count }, Yield::Range { kvs: expected, more: m, count: c }) =
        (ours, theirs)
    else {
        panic!("a range yields a range");
    };
    assert_eq!((more, count, kvs.len()), (m, c, expected.len()), "{request:?}");
    let sort_keys = |kvs: &[KeyValue]| -> Vec<(i64, bytes::Bytes)> {
        kvs.iter()
            .map(|kv| match request.sort_target {
                1 => (kv.version, "".into()),
                2 => (kv.create_revision, "".into()),
                3 => (kv.mod_revision, "".into()),
                _ => (0, kv.value.clone()),
            })
            .collect()
    };
    assert_eq!(sort_keys(kvs), sort_keys(expected), "{request:?}");
    if !more {
        let sorted = |kvs: &[KeyValue]| {
            let mut kvs = kvs.to_vec();
            kvs.sort_by(|a, b| a.key.cmp(&b.key));
            kvs
        };
        assert_eq!(sorted(kvs), sorted(expected), "{request:?}");
    }
}

#[derive(Debug)]
struct Pair {
    lab: Lab,
    model: Model,
}

impl Pair {
    fn new() -> Self {
        let options = Options { compaction_batch: 3, cache_bytes: 1 << 12, ..Options::default() };
        Self { lab: Lab::new(options), model: Model::default() }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put(request) => {
                let outcome = self.lab.apply(lab::put(request.clone()));
                assert_eq!(outcome.result.map(yielded), self.model.put(&request));
            }
            Step::Delete(request) => {
                let outcome = self.lab.apply(lab::delete(request.clone()));
                assert_eq!(outcome.result.map(yielded), Ok(self.model.delete(&request)));
            }
            Step::Txn(request) => self.txn(&request),
            Step::Range(request, at) => self.range(&request, at),
            Step::Compact(at) => {
                let revision = self.model.current * at / 1000;
                let outcome = self.lab.apply(lab::compact(revision));
                let expected = self.model.compact(revision).map(|()| Reply::Compaction);
                assert_eq!(outcome.result, expected);
            }
            Step::Commit => self.lab.commit(),
            Step::Advance => {
                self.lab.compact_step();
            }
            Step::Crash => self.lab.crash(),
        }
        let reader = self.lab.machine.reader();
        assert_eq!(reader.revision(), self.model.current);
        assert_eq!(reader.compact_revision(), self.model.compacted);
    }

    fn txn(&mut self, request: &pb::TxnRequest) {
        if crate::is_read_only(request) {
            let ours = self.lab.machine.reader().txn(request, &mut |_| true);
            let ours = ours.map(|(_, reply)| yielded(Reply::Txn(reply)));
            assert_txn(request, refused(ours), self.model.txn(request));
            return;
        }
        let ours = self.lab.apply(lab::txn(request.clone())).result.map(yielded);
        assert_txn(request, ours, self.model.txn(request));
    }

    fn range(&mut self, request: &pb::RangeRequest, at: i64) {
        let request =
            pb::RangeRequest { revision: self.model.current * at / 1000, ..request.clone() };
        let reader = self.lab.machine.reader();
        let expected = self.model.range(&request);
        let check = |ours: Result<RangeReply, Refusal>| match (&ours, &expected) {
            (Ok(ours), Ok(theirs)) => assert_same(&request, &range_yield(ours), theirs),
            (ours, theirs) => {
                assert_eq!(ours.as_ref().err(), theirs.as_ref().err(), "{request:?}");
            }
        };
        if let Some(resident) = reader.range_resident(&request) {
            check(resident.map(|(_, reply)| reply));
        }
        check(refused(reader.range(&request).map(|(_, reply)| reply)));
        check(paged(&reader, &request));
    }

    /// Hashes at all readable revisions, and history from the compacted one.
    fn check_history(&mut self) {
        let reader = self.lab.machine.reader();
        for revision in self.model.compacted.max(1)..=self.model.current {
            let Some(expected) = self.model.hash(revision) else { continue };
            let (hash, current) = reader.hash_kv(revision).unwrap();
            assert_eq!(current, self.model.current);
            // A compaction's hash was computed with the compacted revision before.
            if reader.stored_hashes().iter().all(|stored| stored.revision != revision) {
                assert_eq!(hash, expected);
            }
        }
        let from = self.model.compacted + 1;
        let expected = self.model.events(from);
        let mut events = vec![];
        let mut next = from.max(1);
        while next <= self.model.current {
            let bounds = HistoryBounds { revisions_max: 2, bytes_max: 50 };
            let batch = reader.read(next, self.model.current, bounds).unwrap();
            assert_eq!(batch.first(), next);
            assert!(batch.last() >= next, "a read makes progress");
            for event in batch.events() {
                let is_delete = event.kind == crate::watch::EventKind::Delete;
                events.push((event.revision.main, event.key.to_vec(), is_delete));
            }
            next = batch.last() + 1;
        }
        assert_eq!(events, expected);
    }
}

fn refused<T>(result: Result<T, crate::ReadError>) -> Result<T, Refusal> {
    result.map_err(|error| match error {
        crate::ReadError::Refused(refusal) => refusal,
        error @ (crate::ReadError::Fault(_) | crate::ReadError::NoRoom) => panic!("{error}"),
    })
}

/// Reads all pages, twice: a pager may begin again.
fn paged(reader: &crate::Reader, request: &pb::RangeRequest) -> Result<RangeReply, Refusal> {
    let mut pager = refused(reader.pager_within(request, &mut |_| true))?;
    let first = all_pages(&mut pager)?;
    pager.rewind();
    assert_eq!(all_pages(&mut pager), Ok(first.clone()));
    Ok(first)
}

fn all_pages(pager: &mut crate::RangePager) -> Result<RangeReply, Refusal> {
    let mut kvs = vec![];
    loop {
        let collected = pager.collect(2)?;
        let page = refused(pager.read(collected))?;
        kvs.extend(page.kvs);
        if let Some((more, count)) = page.end {
            return Ok(RangeReply { kvs, more, count });
        }
    }
}

/// As [`assert_same`] for each range in the tree.
fn assert_txn(
    request: &pb::TxnRequest,
    ours: Result<Yield, Refusal>,
    theirs: Result<Yield, Refusal>,
) {
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => assert_tree(request, &ours, &theirs),
        (ours, theirs) => assert_eq!(ours, theirs),
    }
}

fn assert_tree(request: &pb::TxnRequest, ours: &Yield, theirs: &Yield) {
    let (Yield::Txn(succeeded, ours), Yield::Txn(expected, theirs)) = (ours, theirs) else {
        panic!("a transaction yields one");
    };
    assert_eq!(succeeded, expected);
    assert_eq!(ours.len(), theirs.len());
    let ops = if *succeeded { &request.success } else { &request.failure };
    for ((op, ours), theirs) in ops.iter().zip(ours).zip(theirs) {
        match op.request.as_ref().unwrap() {
            Op::RequestRange(range) => assert_same(range, ours, theirs),
            Op::RequestTxn(nested) => assert_tree(nested, ours, theirs),
            Op::RequestPut(_) | Op::RequestDeleteRange(_) => assert_eq!(ours, theirs),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_machine_does_what_the_model_does(steps in vec(step(), 1..60)) {
        let mut pair = Pair::new();
        for step in steps {
            pair.step(step);
        }
        pair.check_history();
        pair.lab.settle();
        pair.check_history();
        pair.lab.crash();
        pair.check_history();
    }
}
