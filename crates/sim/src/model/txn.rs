//! Transactions: all compares and all checks look at the store before; then all operations happen, or none.

use std::cmp::Ordering;

use machine::Refusal;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request as Op;
use proto::mvccpb::KeyValue;

use super::{Model, Reply, selects};

/// Which way each transaction of a tree goes, in the order of execution.
type Ways<'a> = std::slice::Iter<'a, bool>;

impl Model {
    pub(super) fn txn(&mut self, txn: &pb::TxnRequest, sub: &mut i64) -> Result<Reply, Refusal> {
        let mut ways = Vec::new();
        self.decide(txn, &mut ways);
        self.check(txn, &mut ways.iter(), self.is_old)?;
        let mut refused = None;
        let reply = self.execute(txn, &mut ways.iter(), sub, &mut refused);
        refused.map_or(Ok(reply), Err)
    }

    fn decide(&self, txn: &pb::TxnRequest, ways: &mut Vec<bool>) {
        let holds = txn.compare.iter().all(|compare| self.holds(compare));
        ways.push(holds);
        for op in branch(txn, holds) {
            if let Some(Op::RequestTxn(nested)) = &op.request {
                self.decide(nested, ways);
            }
        }
    }

    fn holds(&self, compare: &pb::Compare) -> bool {
        let named = |kv: &&KeyValue| selects(&compare.key, &compare.range_end, &kv.key);
        let mut kvs = self.live.values().filter(named).peekable();
        if kvs.peek().is_some() {
            return kvs.all(|kv| holds_for(compare, kv));
        }
        compare.target() != CompareTarget::Value && holds_for(compare, &KeyValue::default())
    }

    /// With `passes_ranges`, as before etcd 3.7, those of the outermost level are not looked at.
    fn check(
        &self,
        txn: &pb::TxnRequest,
        ways: &mut Ways<'_>,
        passes_ranges: bool,
    ) -> Result<(), Refusal> {
        for op in branch(txn, next(ways)) {
            match &op.request {
                Some(Op::RequestRange(_)) if passes_ranges => {}
                Some(Op::RequestRange(range)) => {
                    self.range(range)?;
                }
                Some(Op::RequestPut(put)) => self.check_put(put)?,
                Some(Op::RequestTxn(nested)) => self.check(nested, ways, false)?,
                Some(Op::RequestDeleteRange(_)) | None => {}
            }
        }
        Ok(())
    }

    /// Executes; a range that was not looked at may be `refused`, when writes have been made.
    fn execute(
        &mut self,
        txn: &pb::TxnRequest,
        ways: &mut Ways<'_>,
        sub: &mut i64,
        refused: &mut Option<Refusal>,
    ) -> Reply {
        let holds = next(ways);
        let mut replies = Vec::new();
        for op in branch(txn, holds) {
            let reply = match &op.request {
                Some(Op::RequestRange(range)) => {
                    let current = self.stand().revision + i64::from(*sub > 0);
                    match self.range_in(range, current) {
                        Ok(page) => Reply::Range(page),
                        Err(refusal) => {
                            refused.get_or_insert(refusal);
                            Reply::Empty
                        }
                    }
                }
                Some(Op::RequestPut(put)) => self.put(put, sub),
                Some(Op::RequestDeleteRange(delete)) => self.delete(delete, sub),
                Some(Op::RequestTxn(nested)) => {
                    replies.push((0, self.execute(nested, ways, sub, refused)));
                    continue;
                }
                None => Reply::Empty,
            };
            replies.push((self.stand().revision + i64::from(*sub > 0), reply));
        }
        Reply::Txn(holds, replies)
    }
}

fn next(ways: &mut Ways<'_>) -> bool {
    ways.next().copied().unwrap_or(false)
}

fn branch(txn: &pb::TxnRequest, holds: bool) -> &[pb::RequestOp] {
    if holds { &txn.success } else { &txn.failure }
}

fn holds_for(compare: &pb::Compare, kv: &KeyValue) -> bool {
    let order = match &compare.target_union {
        Some(TargetUnion::Version(given)) => kv.version.cmp(given),
        Some(TargetUnion::CreateRevision(given)) => kv.create_revision.cmp(given),
        Some(TargetUnion::ModRevision(given)) => kv.mod_revision.cmp(given),
        Some(TargetUnion::Value(given)) => kv.value.cmp(given),
        Some(TargetUnion::Lease(given)) => kv.lease.cmp(given),
        // The workload gives each target its union.
        None => Ordering::Equal,
    };
    match compare.result() {
        CompareResult::Equal => order.is_eq(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
    }
}
