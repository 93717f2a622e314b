//! Checks of key-value requests before anything else happens to them (`spec/grpc-api.md` §4).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, range_request, request_op,
};

use crate::grpc::error;
use crate::grpc::status::Status;

/// Checks a range.
pub fn range(request: &RangeRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(error::EMPTY_KEY);
    }
    if range_request::SortOrder::try_from(request.sort_order).is_err()
        || range_request::SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(error::INVALID_SORT_OPTION);
    }
    Ok(())
}

/// Checks what `RangeStream` adds: it streams in key order and without filters.
pub fn range_stream(request: &RangeRequest) -> Result<(), Status> {
    range(request)?;
    // Order NONE is natural whatever the target, as in etcd.
    let natural = match request.sort_order() {
        range_request::SortOrder::None => true,
        range_request::SortOrder::Ascend => request.sort_target() == range_request::SortTarget::Key,
        range_request::SortOrder::Descend => false,
    };
    if !natural {
        return Err(error::RANGE_STREAM_SORT);
    }
    let bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if bounds.iter().any(|bound| *bound != 0) {
        return Err(error::RANGE_STREAM_FILTER);
    }
    Ok(())
}

/// Checks a put.
pub fn put(request: &PutRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(error::EMPTY_KEY);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(error::VALUE_PROVIDED);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(error::LEASE_PROVIDED);
    }
    Ok(())
}

/// Checks a deletion.
pub fn delete_range(request: &DeleteRangeRequest) -> Result<(), Status> {
    if request.key.is_empty() { Err(error::EMPTY_KEY) } else { Ok(()) }
}

/// Checks a transaction and all inside it against `ops_max`, then for keys it would change twice.
pub fn txn(request: &TxnRequest, ops_max: usize) -> Result<(), Status> {
    txn_shape(request, ops_max)?;
    overlaps(&request.success)?;
    overlaps(&request.failure)?;
    Ok(())
}

fn txn_shape(request: &TxnRequest, ops_max: usize) -> Result<(), Status> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    if ops > ops_max {
        return Err(error::TOO_MANY_OPS);
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(error::EMPTY_KEY);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            None => return Err(error::KEY_NOT_FOUND),
            Some(request_op::Request::RequestRange(request)) => range(request)?,
            Some(request_op::Request::RequestPut(request)) => put(request)?,
            Some(request_op::Request::RequestDeleteRange(request)) => delete_range(request)?,
            Some(request_op::Request::RequestTxn(request)) => txn_shape(request, ops_max - ops)?,
        }
    }
    Ok(())
}

/// The keys a branch puts and those it deletes.
#[derive(Debug, Default)]
struct Changes {
    puts: BTreeSet<Bytes>,
    deletes: Intervals,
}

/// Keys as disjoint intervals: by the first key, the first one behind.
#[derive(Debug, Default)]
struct Intervals(BTreeMap<Bytes, Bytes>);

impl Intervals {
    /// Adds what a deletion names. A range end of `\0` is taken literally, as etcd does here (§4.5).
    fn add(&mut self, request: &DeleteRangeRequest) {
        let start = request.key.clone();
        if request.range_end.is_empty() {
            let behind = Bytes::from([&start[..], b"\0"].concat());
            self.insert(start, behind);
        } else {
            self.insert(start, request.range_end.clone());
        }
    }

    fn insert(&mut self, mut start: Bytes, mut end: Bytes) {
        if start >= end {
            return;
        }
        if let Some((first, behind)) = self.0.range::<Bytes, _>(..=&start).next_back()
            && *behind >= start
        {
            if *behind >= end {
                return;
            }
            start = first.clone();
        }
        while let Some((first, behind)) = self.0.range::<Bytes, _>(&start..=&end).next() {
            let first = first.clone();
            end = end.max(behind.clone());
            self.0.remove(&first);
        }
        self.0.insert(start, end);
    }

    fn holds(&self, key: &Bytes) -> bool {
        self.0.range::<Bytes, _>(..=key).next_back().is_some_and(|(_, behind)| key < behind)
    }

    fn hold_any(&self, keys: &BTreeSet<Bytes>) -> bool {
        if keys.len() <= self.0.len() {
            return keys.iter().any(|key| self.holds(key));
        }
        self.0.iter().any(|(first, behind)| keys.range::<Bytes, _>(first..behind).next().is_some())
    }
}

impl Changes {
    /// Adds a put, unless the branch changes its key already.
    fn put(&mut self, key: Bytes) -> Result<(), Status> {
        if self.deletes.holds(&key) || !self.puts.insert(key) {
            return Err(error::DUPLICATE_KEY);
        }
        Ok(())
    }

    /// Adds the puts of a nested transaction, unless the branch changes one of their keys already.
    fn put_all(&mut self, puts: BTreeSet<Bytes>) -> Result<(), Status> {
        let is_twice = self.deletes.hold_any(&puts) || !self.puts.is_disjoint(&puts);
        if is_twice {
            return Err(error::DUPLICATE_KEY);
        }
        join(&mut self.puts, puts);
        Ok(())
    }

    fn delete_all(&mut self, mut deletes: Intervals) {
        if deletes.0.len() > self.deletes.0.len() {
            std::mem::swap(&mut self.deletes, &mut deletes);
        }
        for (start, end) in deletes.0 {
            self.deletes.insert(start, end);
        }
    }
}

/// Moves the fewer keys: over all levels of a transaction, each moves a few times only.
fn join(keys: &mut BTreeSet<Bytes>, mut others: BTreeSet<Bytes>) {
    if others.len() > keys.len() {
        std::mem::swap(keys, &mut others);
    }
    keys.extend(others);
}

/// Finds keys that one branch would change twice; order of the checks, and what they miss, as in etcd.
fn overlaps(ops: &[RequestOp]) -> Result<Changes, Status> {
    let mut changes = Changes::default();
    for op in ops {
        if let Some(request_op::Request::RequestDeleteRange(request)) = &op.request {
            changes.deletes.add(request);
        }
    }
    for op in ops {
        if let Some(request_op::Request::RequestTxn(request)) = &op.request {
            // Either branch may be taken: both count, and the same key in both is fine.
            let mut then = overlaps(&request.success)?;
            let otherwise = overlaps(&request.failure)?;
            join(&mut then.puts, otherwise.puts);
            changes.put_all(then.puts)?;
            changes.delete_all(then.deletes);
            changes.delete_all(otherwise.deletes);
        }
    }
    for op in ops {
        if let Some(request_op::Request::RequestPut(request)) = &op.request {
            changes.put(request.key.clone())?;
        }
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_op(key: &'static str) -> RequestOp {
        let put = PutRequest { key: key.into(), ..PutRequest::default() };
        RequestOp { request: Some(request_op::Request::RequestPut(put)) }
    }

    fn delete_op(key: &'static str, range_end: &'static str) -> RequestOp {
        let delete = DeleteRangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            ..DeleteRangeRequest::default()
        };
        RequestOp { request: Some(request_op::Request::RequestDeleteRange(delete)) }
    }

    fn txn_op(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        let txn = TxnRequest { success, failure, ..TxnRequest::default() };
        RequestOp { request: Some(request_op::Request::RequestTxn(txn)) }
    }

    fn checked(success: Vec<RequestOp>) -> Result<(), Status> {
        txn(&TxnRequest { success, ..TxnRequest::default() }, 128)
    }

    #[test]
    fn a_branch_changes_a_key_once() {
        assert_eq!(checked(vec![put_op("a"), put_op("b")]), Ok(()));
        assert_eq!(checked(vec![put_op("a"), put_op("a")]), Err(error::DUPLICATE_KEY));
        assert_eq!(checked(vec![delete_op("a", "c"), put_op("b")]), Err(error::DUPLICATE_KEY));
        assert_eq!(checked(vec![put_op("c"), delete_op("a", "c")]), Ok(()));
        assert_eq!(checked(vec![delete_op("a", ""), delete_op("a", "b")]), Ok(()));
    }

    #[test]
    fn branches_of_a_nested_txn_exclude_each_other() {
        let either = || txn_op(vec![put_op("a")], vec![put_op("a")]);
        assert_eq!(checked(vec![either()]), Ok(()));
        assert_eq!(checked(vec![either(), put_op("a")]), Err(error::DUPLICATE_KEY));
        assert_eq!(checked(vec![either(), either()]), Err(error::DUPLICATE_KEY));
    }

    #[test]
    fn what_etcd_overlooks_is_overlooked() {
        assert_eq!(checked(vec![delete_op("a", "\0"), put_op("b")]), Ok(()));
        let deletes = || txn_op(vec![delete_op("a", "")], vec![]);
        let puts = || txn_op(vec![put_op("a")], vec![]);
        assert_eq!(checked(vec![puts(), deletes()]), Ok(()));
        assert_eq!(checked(vec![deletes(), puts()]), Err(error::DUPLICATE_KEY));
        let one_each = txn_op(vec![put_op("a")], vec![delete_op("a", "")]);
        assert_eq!(checked(vec![one_each]), Ok(()));
    }

    #[test]
    fn intervals_join_where_they_touch_and_hold_what_was_added() {
        let mut intervals = Intervals::default();
        for (start, end) in [("b", "d"), ("f", "h"), ("x", "a"), ("d", "e"), ("a", "g"), ("q", "")]
        {
            intervals.add(&DeleteRangeRequest {
                key: start.into(),
                range_end: end.into(),
                ..DeleteRangeRequest::default()
            });
        }
        let held: String =
            ('a'..='z').filter(|key| intervals.holds(&Bytes::from(key.to_string()))).collect();
        assert_eq!(held, "abcdefgq");
        assert!(!intervals.holds(&Bytes::from_static(b"q\0")));
        assert_eq!(intervals.0.len(), 2);
        let keys = |keys: &[&'static str]| keys.iter().map(|&key| Bytes::from(key)).collect();
        assert!(intervals.hold_any(&keys(&["i", "q"])));
        assert!(intervals.hold_any(&keys(&["aa", "i", "j"])));
        assert!(!intervals.hold_any(&keys(&["h", "i", "j", "qq"])));
    }

    #[test]
    fn the_check_of_a_large_transaction_takes_few_steps_per_operation() {
        // Compared one by one, these are ten billion pairs.
        let inner = |prefix: &str| {
            let numbers = 0..1000;
            let put = |number| {
                let key = format!("{prefix}/p{number}").into();
                let put = PutRequest { key, ..PutRequest::default() };
                RequestOp { request: Some(request_op::Request::RequestPut(put)) }
            };
            let delete = |number| {
                let key = format!("{prefix}/d{number}").into();
                let delete = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
                RequestOp { request: Some(request_op::Request::RequestDeleteRange(delete)) }
            };
            txn_op(numbers.clone().map(put).chain(numbers.map(delete)).collect(), vec![])
        };
        let ops = (0..100).map(|number| inner(&number.to_string())).collect();
        let started = std::time::Instant::now();
        assert_eq!(txn(&TxnRequest { success: ops, ..TxnRequest::default() }, 4000), Ok(()));
        assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
    }

    #[test]
    fn nested_transactions_share_the_allowance_with_their_parents_only() {
        let leaf = || txn_op(vec![put_op("a")], vec![]);
        let request = |ops| TxnRequest { success: ops, ..TxnRequest::default() };
        assert_eq!(txn(&request(vec![leaf()]), 2), Ok(()));
        assert_eq!(txn(&request(vec![leaf()]), 1), Err(error::TOO_MANY_OPS));
        let empty = RequestOp { request: None };
        assert_eq!(txn(&request(vec![empty]), 1), Err(error::KEY_NOT_FOUND));
    }
}
