//! Transactions, nested up to three deep, some of them invalid.

use bytes::Bytes;
use proto::etcdserverpb::compare::TargetUnion;
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{Compare, PutRequest, RequestOp, TxnRequest};

use super::{Generator, View, keys};

/// etcd's `--max-txn-ops`, which both servers keep.
const OPS_MAX: usize = 128;

impl Generator {
    pub(super) fn txn(&mut self, view: View) -> TxnRequest {
        if self.random.chance(10) {
            return self.crowded_txn();
        }
        // Most transactions put no key twice.
        let mut next_key = self.random.chance(850).then(|| self.random.below(40));
        self.branchy_txn(view, 1, &mut next_key)
    }

    fn branchy_txn(
        &mut self,
        view: View,
        depth: usize,
        next_key: &mut Option<usize>,
    ) -> TxnRequest {
        let compares = self.random.pick(&[0, 1, 1, 2, 3]);
        let compare = (0..compares).map(|_| self.compare(view)).collect();
        // Branches are checked apart: both may use the same keys.
        let first = *next_key;
        let success = self.branch(view, depth, next_key);
        let mut other = first;
        let failure = self.branch(view, depth, &mut other);
        *next_key = (*next_key).max(other);
        TxnRequest { compare, success, failure }
    }

    fn branch(&mut self, view: View, depth: usize, next_key: &mut Option<usize>) -> Vec<RequestOp> {
        let length = self.random.pick(&[0, 1, 1, 2, 2, 3, 4]);
        (0..length).map(|_| self.op(view, depth, next_key)).collect()
    }

    fn op(&mut self, view: View, depth: usize, next_key: &mut Option<usize>) -> RequestOp {
        let nested = if depth < 3 { 120 } else { 0 };
        let request = match self.random.weighted(&[300, 420, 120, nested, 8]) {
            0 => {
                let mut range = self.range(view);
                // Equal elements have no order, and inside a transaction the comparison cannot tell.
                if range.sort_target > 0 && range.sort_target < 5 {
                    range.sort_target = 0;
                }
                if self.random.chance(700) {
                    range.revision = 0;
                }
                Some(Request::RequestRange(range))
            }
            1 => {
                let mut put = self.put();
                if let Some(next) = next_key {
                    put.key = format!("k{:02}", *next % 40).into();
                    *next += 1;
                }
                if self.random.chance(700) {
                    (put.lease, put.ignore_lease, put.ignore_value) = (0, false, false);
                }
                Some(Request::RequestPut(put))
            }
            2 => {
                let mut delete = self.delete();
                if next_key.is_some() && self.random.chance(800) {
                    delete.key = format!("p/a/{}", self.random.below(8)).into();
                    delete.range_end = Bytes::new();
                }
                Some(Request::RequestDeleteRange(delete))
            }
            3 => Some(Request::RequestTxn(self.branchy_txn(view, depth + 1, next_key))),
            _ => None,
        };
        RequestOp { request }
    }

    fn compare(&mut self, view: View) -> Compare {
        let random = &mut self.random;
        let key = keys::key(random);
        let range_end =
            if random.chance(200) { keys::range_end(random, &key) } else { Bytes::new() };
        let target = random.pick(&[0, 1, 2, 3, 4]);
        // Now and then the value is another one than the target asks for, or none.
        let union = if random.chance(20) { random.pick(&[0, 1, 2, 3, 4, 5]) } else { target };
        let revision = random.pick(&[0, 1, view.revision, view.revision - 1, view.revision / 2]);
        let target_union = match union {
            0 => Some(TargetUnion::Version(random.within(-1, 6))),
            1 => Some(TargetUnion::CreateRevision(revision)),
            2 => Some(TargetUnion::ModRevision(revision)),
            3 => {
                let values = [&b""[..], b"v1", b"v2", b"v3"];
                Some(TargetUnion::Value(Bytes::from_static(random.pick(&values))))
            }
            4 => Some(TargetUnion::Lease(random.within(-1, 4))),
            _ => None,
        };
        let result =
            if random.chance(10) { random.pick(&[4, -1, 99]) } else { random.pick(&[0, 1, 2, 3]) };
        let target = if random.chance(5) { random.pick(&[5, -1, 99]) } else { target };
        Compare { result, target, key, range_end, target_union }
    }

    /// As many operations as allowed, or one more.
    fn crowded_txn(&mut self) -> TxnRequest {
        let length = OPS_MAX + self.random.below(2);
        let put = |index: usize| PutRequest {
            key: format!("k{index:03}").into(),
            value: Bytes::from_static(b"crowd"),
            ..PutRequest::default()
        };
        let op = |index| RequestOp { request: Some(Request::RequestPut(put(index))) };
        let mut txn = TxnRequest::default();
        match self.random.below(3) {
            0 => txn.success = (0..length).map(op).collect(),
            1 => txn.failure = (0..length).map(op).collect(),
            _ => {
                let compare = Compare { key: Bytes::from_static(b"k01"), ..Compare::default() };
                txn.compare = vec![compare; length];
            }
        }
        txn
    }
}
