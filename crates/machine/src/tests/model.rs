//! The store as a list of everything that ever happened. Slow, and simple enough to be right.

use std::collections::BTreeMap;

use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request as Op;
use proto::mvccpb::KeyValue;

use crate::{KeyValueHash, Refusal};

/// One change: its main and sub revision, and the key value, or the key deleted.
#[derive(Debug, Clone)]
struct Change {
    main: i64,
    sub: i64,
    kv: KeyValue,
    is_delete: bool,
}

/// What an operation yields: each nested reply flattened to its text-like form.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Yield {
    Put(Option<KeyValue>),
    Range { kvs: Vec<KeyValue>, more: bool, count: i64 },
    Delete { deleted: i64, prev: Vec<KeyValue> },
    Txn(bool, Vec<Self>),
}

#[derive(Debug, Clone)]
pub(super) struct Model {
    changes: Vec<Change>,
    pub(super) current: i64,
    pub(super) compacted: i64,
}

impl Default for Model {
    fn default() -> Self {
        Self { changes: vec![], current: 1, compacted: -1 }
    }
}

fn selects(key: &[u8], range_end: &[u8], candidate: &[u8]) -> bool {
    match range_end {
        [] => candidate == key,
        [0] => candidate >= key,
        end => candidate >= key && candidate < end,
    }
}

impl Model {
    /// The keys that exist after all changes up to `main`, with their newest records.
    pub(super) fn state(&self, main: i64) -> BTreeMap<Vec<u8>, KeyValue> {
        let mut state = BTreeMap::new();
        for change in self.changes.iter().filter(|change| change.main <= main) {
            if change.is_delete {
                state.remove(&change.kv.key[..]);
            } else {
                state.insert(change.kv.key.to_vec(), change.kv.clone());
            }
        }
        state
    }

    fn select(&self, main: i64, key: &[u8], end: &[u8]) -> Vec<KeyValue> {
        let state = self.state(main).into_values();
        state.filter(|kv| selects(key, end, &kv.key)).collect()
    }

    pub(super) fn range(&self, request: &pb::RangeRequest) -> Result<Yield, Refusal> {
        self.range_at(request, self.current)
    }

    fn range_at(&self, request: &pb::RangeRequest, current: i64) -> Result<Yield, Refusal> {
        let at = if request.revision <= 0 { current } else { request.revision };
        if at > current {
            return Err(Refusal::FutureRevision);
        }
        if at < self.compacted {
            return Err(Refusal::Compacted);
        }
        let mut kvs = self.select(at, &request.key, &request.range_end);
        let count = i64::try_from(kvs.len()).unwrap();
        if request.count_only {
            return Ok(Yield::Range { kvs: vec![], more: false, count });
        }
        kvs.retain(|kv| {
            kv.mod_revision >= request.min_mod_revision
                && (request.max_mod_revision == 0 || kv.mod_revision <= request.max_mod_revision)
                && kv.create_revision >= request.min_create_revision
                && (request.max_create_revision == 0
                    || kv.create_revision <= request.max_create_revision)
        });
        let limit = match usize::try_from(request.limit) {
            Ok(0) | Err(_) => usize::MAX,
            Ok(limit) => limit,
        };
        let has_filters = request.min_mod_revision != 0
            || request.max_mod_revision != 0
            || request.min_create_revision != 0
            || request.max_create_revision != 0;
        if request.sort_order == 0 && !has_filters {
            kvs.truncate(limit.saturating_add(1));
        }
        match request.sort_target {
            1 => kvs.sort_by_key(|kv| kv.version),
            2 => kvs.sort_by_key(|kv| kv.create_revision),
            3 => kvs.sort_by_key(|kv| kv.mod_revision),
            4 => kvs.sort_by(|a, b| a.value.cmp(&b.value)),
            _ => {}
        }
        if request.sort_order == 2 {
            kvs.reverse();
        }
        let more = kvs.len() > limit;
        kvs.truncate(limit);
        if request.keys_only {
            for kv in &mut kvs {
                kv.value.clear();
                if request.sort_target != 4 {
                    kv.lease = 0;
                }
            }
        }
        Ok(Yield::Range { kvs, more, count })
    }

    fn holds(&self, compare: &pb::Compare) -> bool {
        let target = CompareTarget::try_from(compare.target).unwrap();
        let kvs = self.select(self.current, &compare.key, &compare.range_end);
        if kvs.is_empty() {
            return target != CompareTarget::Value
                && compare_one(compare, target, &KeyValue::default());
        }
        kvs.iter().all(|kv| compare_one(compare, target, kv))
    }

    /// The chosen branch of each transaction in the tree, pre-order, all judged before anything
    /// changes.
    fn decide(&self, txn: &pb::TxnRequest, path: &mut Vec<bool>) {
        let holds = txn.compare.iter().all(|compare| self.holds(compare));
        path.push(holds);
        for op in if holds { &txn.success } else { &txn.failure } {
            if let Some(Op::RequestTxn(nested)) = &op.request {
                self.decide(nested, path);
            }
        }
    }

    fn check(
        &self,
        txn: &pb::TxnRequest,
        path: &mut std::slice::Iter<'_, bool>,
    ) -> Result<(), Refusal> {
        for op in if *path.next().unwrap() { &txn.success } else { &txn.failure } {
            match op.request.as_ref().unwrap() {
                Op::RequestRange(range) => {
                    if range.revision != 0 && range.revision > self.current {
                        return Err(Refusal::FutureRevision);
                    }
                    if range.revision != 0 && range.revision < self.compacted {
                        return Err(Refusal::Compacted);
                    }
                }
                Op::RequestPut(put) => self.check_put(put)?,
                Op::RequestDeleteRange(_) => {}
                Op::RequestTxn(nested) => self.check(nested, path)?,
            }
        }
        Ok(())
    }

    fn check_put(&self, put: &pb::PutRequest) -> Result<(), Refusal> {
        let exists = self.state(self.current).contains_key(&put.key[..]);
        if put.ignore_value && !exists { Err(Refusal::KeyNotFound) } else { Ok(()) }
    }

    pub(super) fn put(&mut self, request: &pb::PutRequest) -> Result<Yield, Refusal> {
        self.check_put(request)?;
        let mut sub = 0;
        let result = self.do_put(request, &mut sub);
        self.current += 1;
        Ok(result)
    }

    pub(super) fn delete(&mut self, request: &pb::DeleteRangeRequest) -> Yield {
        let mut sub = 0;
        let result = self.do_delete(request, &mut sub);
        self.current += i64::from(sub > 0);
        result
    }

    pub(super) fn txn(&mut self, request: &pb::TxnRequest) -> Result<Yield, Refusal> {
        let mut path = vec![];
        self.decide(request, &mut path);
        self.check(request, &mut path.iter())?;
        let mut sub = 0;
        let result = self.do_txn(request, &mut path.iter(), &mut sub);
        self.current += i64::from(sub > 0);
        Ok(result)
    }

    fn do_txn(
        &mut self,
        txn: &pb::TxnRequest,
        path: &mut std::slice::Iter<'_, bool>,
        sub: &mut i64,
    ) -> Yield {
        let holds = *path.next().unwrap();
        let mut out = vec![];
        for op in if holds { &txn.success } else { &txn.failure } {
            out.push(match op.request.as_ref().unwrap() {
                Op::RequestRange(range) => {
                    self.range_at(range, self.current + i64::from(*sub > 0)).unwrap()
                }
                Op::RequestPut(put) => self.do_put(put, sub),
                Op::RequestDeleteRange(delete) => self.do_delete(delete, sub),
                Op::RequestTxn(nested) => self.do_txn(nested, path, sub),
            });
        }
        Yield::Txn(holds, out)
    }

    fn do_put(&mut self, request: &pb::PutRequest, sub: &mut i64) -> Yield {
        let main = self.current + 1;
        let prev = self.state(main).remove(&request.key[..]);
        let value = match &prev {
            Some(prev) if request.ignore_value => prev.value.clone(),
            _ => request.value.clone(),
        };
        let kv = KeyValue {
            key: request.key.clone(),
            create_revision: prev.as_ref().map_or(main, |prev| prev.create_revision),
            mod_revision: main,
            version: prev.as_ref().map_or(0, |prev| prev.version) + 1,
            value,
            lease: 0,
        };
        self.changes.push(Change { main, sub: *sub, kv, is_delete: false });
        *sub += 1;
        Yield::Put(prev.filter(|_| request.prev_kv))
    }

    fn do_delete(&mut self, request: &pb::DeleteRangeRequest, sub: &mut i64) -> Yield {
        let main = self.current + 1;
        let mut prev = self.select(main, &request.key, &request.range_end);
        for old in &prev {
            let kv = KeyValue { key: old.key.clone(), ..Default::default() };
            self.changes.push(Change { main, sub: *sub, kv, is_delete: true });
            *sub += 1;
        }
        let deleted = i64::try_from(prev.len()).unwrap();
        if !request.prev_kv {
            prev.clear();
        }
        Yield::Delete { deleted, prev }
    }

    pub(super) fn compact(&mut self, revision: i64) -> Result<(), Refusal> {
        if revision <= self.compacted {
            return Err(Refusal::Compacted);
        }
        if revision > self.current {
            return Err(Refusal::FutureRevision);
        }
        self.compacted = revision;
        Ok(())
    }

    /// The hash by its definition; `None` where it is not a function of the history alone: nothing
    /// is alive at `revision`, and then what counts is what is still there.
    pub(super) fn hash(&self, revision: i64) -> Option<KeyValueHash> {
        let keep = self.state(revision);
        if keep.is_empty() && self.compacted > 0 {
            return None;
        }
        let mut hash = crc32c::crc32c(b"key");
        let covered = self.changes.iter().filter(|change| change.main <= revision);
        let newest: BTreeMap<_, _> =
            covered.clone().map(|change| (&change.kv.key, (change.main, change.sub))).collect();
        for change in covered {
            let is_newest = newest[&change.kv.key] == (change.main, change.sub);
            let is_kept = is_newest && !change.is_delete;
            let is_boundary_tombstone = change.is_delete && change.main == self.compacted;
            if change.main <= self.compacted && !is_kept || is_boundary_tombstone {
                continue;
            }
            let revision = crate::Revision::new(change.main, change.sub);
            hash =
                crc32c::crc32c_append(hash, &crate::schema::record_key(revision, change.is_delete));
            hash = crc32c::crc32c_append(hash, &prost::Message::encode_to_vec(&change.kv));
        }
        Some(KeyValueHash { hash, compact_revision: self.compacted, revision })
    }

    /// The changes from a revision on, as watchers see them: main revision, key, whether deleted.
    pub(super) fn events(&self, from: i64) -> Vec<(i64, Vec<u8>, bool)> {
        self.changes
            .iter()
            .filter(|change| change.main >= from)
            .map(|change| (change.main, change.kv.key.to_vec(), change.is_delete))
            .collect()
    }
}

fn compare_one(compare: &pb::Compare, target: CompareTarget, kv: &KeyValue) -> bool {
    let order = match (target, &compare.target_union) {
        (CompareTarget::Version, Some(TargetUnion::Version(given))) => kv.version.cmp(given),
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(given))) => {
            kv.create_revision.cmp(given)
        }
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(given))) => kv.mod_revision.cmp(given),
        (CompareTarget::Value, Some(TargetUnion::Value(given))) => kv.value.cmp(given),
        (CompareTarget::Lease, Some(TargetUnion::Lease(given))) => kv.lease.cmp(given),
        _ => panic!("the test gives each target its union"),
    };
    match CompareResult::try_from(compare.result).unwrap() {
        CompareResult::Equal => order.is_eq(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
    }
}
