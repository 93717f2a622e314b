//! What clients ask for: drawn from the seed, close enough to what the store holds to hit something.

use bytes::Bytes;
use node::LeaseRequestKind;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request as Op;

use crate::model::Model;
use crate::rng::Rng;

const PREFIXES: [&str; 3] = ["a/", "b/", "c/"];
const KEYS_PER_PREFIX: u64 = 5;

/// What one client asks.
#[derive(Debug, Clone)]
pub enum Ask {
    /// Something for the log, without a header.
    Propose(Box<pb::InternalRaftRequest>),
    /// A linearizable range.
    Range(pb::RangeRequest),
    /// A range of what the member happens to have.
    Serializable(pb::RangeRequest),
    /// Something that the primary answers from memory.
    Lease(LeaseRequestKind),
    /// `HashKV` at a revision, 0 for now.
    Hash(i64),
    /// A defragmentation.
    Defragment,
    /// A change of the membership.
    Change,
    /// A move of leadership.
    MoveLeader,
}

/// Makes requests.
#[derive(Debug)]
pub struct Workload {
    rng: Rng,
    /// Makes values and lease ids unique.
    serial: u64,
}

/// The whole key space.
pub fn everything() -> pb::RangeRequest {
    pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() }
}

impl Workload {
    /// Makes requests from `rng`.
    pub fn new(rng: Rng) -> Self {
        Self { rng, serial: 0 }
    }

    /// Draws what a client asks next, given what the store holds.
    pub fn next(&mut self, model: &Model) -> Ask {
        self.serial += 1;
        let propose = |fill: &dyn Fn(&mut pb::InternalRaftRequest)| {
            let mut request = pb::InternalRaftRequest::default();
            fill(&mut request);
            Ask::Propose(Box::new(request))
        };
        match self.rng.below(100) {
            0..36 => {
                let put = self.put(model);
                propose(&|request| request.put = Some(put.clone()))
            }
            36..46 => {
                let delete = self.delete();
                propose(&|request| request.delete_range = Some(delete.clone()))
            }
            46..61 => {
                let txn = self.txn(model, 2);
                propose(&|request| request.txn = Some(txn.clone()))
            }
            61..68 => Ask::Range(self.range(model)),
            68..74 => Ask::Serializable(self.range(model)),
            74..79 => {
                let id = i64::try_from(self.serial).unwrap_or(1);
                let grant = pb::LeaseGrantRequest { id, ttl: self.ttl() };
                propose(&|request| request.lease_grant = Some(grant))
            }
            79..81 => {
                let revoke = pb::LeaseRevokeRequest { id: self.lease(model) };
                propose(&|request| request.lease_revoke = Some(revoke))
            }
            81..89 => {
                let id = self.lease(model);
                Ask::Lease(match self.rng.below(8) {
                    0 => LeaseRequestKind::TimeToLive { id, keys: true },
                    1 => LeaseRequestKind::Leases,
                    _ => LeaseRequestKind::KeepAlive { id },
                })
            }
            89..93 => {
                let revision = self.compaction(model);
                propose(&|request| {
                    request.compaction = Some(pb::CompactionRequest { revision, physical: false });
                })
            }
            93..99 => Ask::Hash(self.revision(model)),
            _ => Ask::Defragment,
        }
    }

    /// Draws a key range: one key, those of a prefix, or all from a key on.
    pub fn span(&mut self) -> (Bytes, Bytes) {
        match self.rng.below(4) {
            0 => {
                let prefix = self.rng.pick(&PREFIXES);
                let end = prefix.replace('/', "0");
                (prefix.into(), end.into())
            }
            1 => (self.key(), Bytes::from_static(b"\0")),
            _ => (self.key(), Bytes::new()),
        }
    }

    /// Draws a revision near those that the store has, refused ones among them.
    pub fn revision(&mut self, model: &Model) -> i64 {
        let stand = model.stand();
        let low = stand.compacted.max(1) - 1;
        let high = stand.revision + 2;
        match self.rng.below(4) {
            0 | 1 => 0,
            2 => stand.compacted.max(0),
            _ => low + i64::try_from(self.rng.below((high - low).cast_unsigned())).unwrap_or(0),
        }
    }

    fn key(&mut self) -> Bytes {
        let prefix = self.rng.pick(&PREFIXES);
        format!("{prefix}{}", self.rng.below(KEYS_PER_PREFIX)).into()
    }

    /// A value that no other request has, without zeros: a lost sector shows.
    fn value(&mut self) -> Bytes {
        let len = match self.rng.below(20) {
            0 => self.rng.within(2000..6000),
            1..6 => self.rng.within(200..900),
            _ => self.rng.within(1..40),
        };
        let name = format!("{}.", self.serial);
        let bytes = name.bytes().cycle().take(usize::try_from(len).unwrap_or(1).max(name.len()));
        bytes.collect::<Vec<u8>>().into()
    }

    fn ttl(&mut self) -> i64 {
        self.rng.pick(&[1, 2, 2, 3, 5, 600])
    }

    fn lease(&mut self, model: &Model) -> i64 {
        let leases: Vec<i64> = model.leases().keys().copied().collect();
        if leases.is_empty() || self.rng.chance(10) {
            return 1_000_000;
        }
        self.rng.pick(&leases)
    }

    fn put(&mut self, model: &Model) -> pb::PutRequest {
        let key = self.key();
        let lease = if self.rng.chance(20) { self.lease(model) } else { 0 };
        self.put_to(key, lease)
    }

    fn put_to(&mut self, key: Bytes, lease: i64) -> pb::PutRequest {
        let ignore_value = self.rng.chance(5);
        let ignore_lease = self.rng.chance(5);
        pb::PutRequest {
            key,
            value: if ignore_value { Bytes::new() } else { self.value() },
            lease: if ignore_lease { 0 } else { lease },
            prev_kv: self.rng.chance(25),
            ignore_value,
            ignore_lease,
        }
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        let (key, range_end) =
            if self.rng.chance(75) { (self.key(), Bytes::new()) } else { self.span() };
        pb::DeleteRangeRequest { key, range_end, prev_kv: self.rng.chance(25) }
    }

    fn range(&mut self, model: &Model) -> pb::RangeRequest {
        let (key, range_end) = self.span();
        pb::RangeRequest {
            key,
            range_end,
            limit: self.rng.pick(&[0, 0, 0, 1, 3]),
            revision: self.revision(model),
            count_only: self.rng.chance(10),
            ..Default::default()
        }
    }

    /// A transaction whose operations concern different keys, as the API demands.
    fn txn(&mut self, model: &Model, depth: u32) -> pb::TxnRequest {
        let compare = (0..self.rng.below(3)).map(|_| self.compare(model)).collect();
        let mut branch = || {
            let mut keys: Vec<Bytes> = Vec::new();
            let mut ops = Vec::new();
            for _ in 0..self.rng.below(4) {
                let key = self.key();
                if keys.contains(&key) {
                    continue;
                }
                keys.push(key.clone());
                ops.push(self.op(model, key));
            }
            // Reads may overlap with anything. A nested transaction that only reads keeps keys apart, too.
            if depth > 1 && self.rng.chance(15) {
                let mut nested = self.txn(model, depth - 1);
                for op in nested.success.iter_mut().chain(&mut nested.failure) {
                    op.request = Some(Op::RequestRange(self.range(model)));
                }
                ops.push(pb::RequestOp { request: Some(Op::RequestTxn(nested)) });
            }
            ops
        };
        let success = branch();
        let failure = branch();
        pb::TxnRequest { compare, success, failure }
    }

    fn op(&mut self, model: &Model, key: Bytes) -> pb::RequestOp {
        let request = match self.rng.below(6) {
            0..3 => {
                let lease = if self.rng.chance(10) { self.lease(model) } else { 0 };
                Op::RequestPut(self.put_to(key, lease))
            }
            3 | 4 => Op::RequestDeleteRange(pb::DeleteRangeRequest {
                key,
                range_end: Bytes::new(),
                prev_kv: self.rng.chance(25),
            }),
            _ => {
                let mut range = self.range(model);
                if self.rng.chance(80) {
                    range.revision = 0;
                }
                Op::RequestRange(range)
            }
        };
        pb::RequestOp { request: Some(request) }
    }

    fn compare(&mut self, model: &Model) -> pb::Compare {
        let key = self.key();
        let known = model.state(model.stand().revision).remove(&key).unwrap_or_default();
        let (target, union) = match self.rng.below(5) {
            0 => (CompareTarget::Version, TargetUnion::Version(known.version)),
            1 => (CompareTarget::Create, TargetUnion::CreateRevision(known.create_revision)),
            2 => (CompareTarget::Mod, TargetUnion::ModRevision(known.mod_revision)),
            3 => (CompareTarget::Value, TargetUnion::Value(known.value)),
            _ => (CompareTarget::Lease, TargetUnion::Lease(known.lease)),
        };
        let result = self.rng.pick(&[
            CompareResult::Equal,
            CompareResult::Equal,
            CompareResult::NotEqual,
            CompareResult::Greater,
            CompareResult::Less,
        ]);
        pb::Compare {
            result: result.into(),
            target: target.into(),
            key,
            range_end: Bytes::new(),
            target_union: Some(union),
        }
    }

    /// A revision to compact to; often one that deleted something, where history has its corners.
    fn compaction(&mut self, model: &Model) -> i64 {
        let stand = model.stand();
        let deletions: Vec<i64> = model
            .changes_from(stand.compacted + 1)
            .iter()
            .filter(|change| change.is_delete)
            .map(|change| change.main)
            .collect();
        if !deletions.is_empty() && self.rng.chance(50) {
            return self.rng.pick(&deletions);
        }
        // Not 0: what a hash at 0, which means now, would be after that is etcd's secret.
        let oldest = stand.compacted.max(1);
        let room = (stand.revision - oldest + 2).cast_unsigned();
        oldest + i64::try_from(self.rng.below(room)).unwrap_or(0)
    }
}
