//! The space quota: how much a member's store may hold.
//!
//! It counts live bytes: the records that no compaction has removed. Compacting therefore gives
//! room at once, without defragmentation.

use proto::etcdserverpb as pb;
use proto::etcdserverpb::request_op::Request as Op;

/// What a stored key costs beside key and value.
const PUT_OVERHEAD: u64 = 256;
/// What a lease costs.
pub const LEASE_COST: u64 = 64;
/// The quota when none is configured.
pub const DEFAULT_BYTES: u64 = 2 << 30;

/// How much the store may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    bytes_max: Option<u64>,
}

impl Quota {
    /// Reads the configured number of bytes: 0 is the default, a negative number disables.
    pub fn new(configured: i64) -> Self {
        let bytes_max = match configured {
            0 => Some(DEFAULT_BYTES),
            _ => u64::try_from(configured).ok(),
        };
        Self { bytes_max }
    }

    /// Tells whether a request of `cost` fits into a store of `live` bytes. One without cost always
    /// does.
    pub fn has_room(&self, live: u64, cost: u64) -> bool {
        cost == 0 || self.bytes_max.is_none_or(|max| live.saturating_add(cost) < max)
    }
}

/// Returns what a put costs.
pub fn put_cost(put: &pb::PutRequest) -> u64 {
    PUT_OVERHEAD + (put.key.len() + put.value.len()) as u64
}

/// Returns what a transaction costs: the dearer branch, nested ones included.
pub fn txn_cost(txn: &pb::TxnRequest) -> u64 {
    branch_cost(&txn.success).max(branch_cost(&txn.failure))
}

fn branch_cost(ops: &[pb::RequestOp]) -> u64 {
    ops.iter()
        .map(|op| match &op.request {
            Some(Op::RequestPut(put)) => put_cost(put),
            Some(Op::RequestTxn(nested)) => txn_cost(nested),
            Some(Op::RequestRange(_) | Op::RequestDeleteRange(_)) | None => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(value: &'static str) -> pb::RequestOp {
        let put = pb::PutRequest { key: "k".into(), value: value.into(), ..Default::default() };
        pb::RequestOp { request: Some(Op::RequestPut(put)) }
    }

    #[test]
    fn a_txn_costs_its_dearer_branch_with_nested_ones() {
        let nested = pb::TxnRequest { success: vec![put("123")], ..Default::default() };
        let txn = pb::TxnRequest {
            success: vec![put(""), pb::RequestOp { request: Some(Op::RequestTxn(nested)) }],
            failure: vec![put("1")],
            ..Default::default()
        };
        assert_eq!(txn_cost(&txn), 257 + 260);
    }

    #[test]
    fn the_quota_is_exclusive_and_free_requests_pass() {
        let quota = Quota::new(1000);
        assert!(quota.has_room(899, 100));
        assert!(!quota.has_room(900, 100));
        assert!(quota.has_room(5000, 0));
        assert!(Quota::new(-1).has_room(u64::MAX, 100));
        assert!(!Quota::new(0).has_room(DEFAULT_BYTES, 1));
    }
}
