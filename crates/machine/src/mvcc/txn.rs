//! Transactions: compare, check, execute.
//!
//! All compares of the tree, and all checks, see the state before the transaction. The compares
//! yield a *path*: for each transaction on the way, in the order of execution, whether its compares
//! held. Checks walk the path and refuse the whole before anything has changed; execution walks it
//! again and cannot be refused any more.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use bytes::Bytes;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request as Op;

use super::range::{self, Item, Keys, Room, decode, unbounded};
use super::record::KeyValue;
use super::shared::Shared;
use super::store::{WriteTxn, cleared};
use super::view::{Chunk, View};
use crate::fault::{Fault, ReadError};
use crate::lease::Lessor;
use crate::outcome::{Reply, TxnReply};
use crate::{Record, Refusal};

/// Which branches are taken, in pre-order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path(Vec<bool>, u64);

impl Path {
    /// Counts the compares that were evaluated.
    pub(crate) fn compares(&self) -> u64 {
        self.1
    }
}

/// How strictly the ranges of a transaction are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RangeChecks {
    /// As since etcd 3.7: a refused range refuses the transaction.
    All,
    /// As members before 3.7 apply the transactions of others: ranges of the outermost level are
    /// not looked at. A cluster with such members must agree with them.
    NestedOnly,
}

/// How much of a reply is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replies {
    /// All of it.
    Full,
    /// Nobody waits for it: what takes reading is left out.
    Bare,
}

/// Tells whether a transaction can be answered by a reader: all operations are ranges.
pub fn is_read_only(txn: &pb::TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| matches!(op.request, Some(Op::RequestRange(_))))
}

/// Evaluates all compares on the way.
pub(crate) fn decide(view: &mut View<'_>, txn: &pb::TxnRequest) -> Result<Path, ReadError> {
    let mut path = Path(Vec::with_capacity(1), 0);
    extend(view, txn, &mut path)?;
    Ok(path)
}

fn extend(view: &mut View<'_>, txn: &pb::TxnRequest, path: &mut Path) -> Result<(), ReadError> {
    let mut holds = true;
    for compare in &txn.compare {
        path.1 += 1;
        if !holds_for_all(view, compare)? {
            holds = false;
            break;
        }
    }
    path.0.push(holds);
    for op in branch(txn, holds) {
        if let Some(Op::RequestTxn(nested)) = &op.request {
            extend(view, nested, path)?;
        }
    }
    Ok(())
}

fn branch(txn: &pb::TxnRequest, holds: bool) -> &[pb::RequestOp] {
    if holds { &txn.success } else { &txn.failure }
}

/// Tells whether a compare holds for every key it names, or for a missing one.
fn holds_for_all(view: &mut View<'_>, compare: &pb::Compare) -> Result<bool, ReadError> {
    let target = CompareTarget::try_from(compare.target).ok();
    let needs_record = matches!(target, Some(CompareTarget::Value | CompareTarget::Lease));
    let keys = Keys::new(&compare.key, &compare.range_end);
    if let Keys::One(key) = keys {
        return match view.lookup(key)? {
            None => Ok(holds_without_keys(compare, target)),
            Some(item) => holds_for(view, compare, target, needs_record, item),
        };
    }
    let mut from = keys.start().to_vec();
    let mut is_empty = true;
    loop {
        let mut items = Vec::new();
        let chunk = view.scan_chunk(keys, &from, &mut |_, found, record| {
            items.push(Item { found, record: record.cloned() });
            ControlFlow::Continue(())
        })?;
        is_empty &= items.is_empty();
        for item in items {
            if !holds_for(view, compare, target, needs_record, item)? {
                return Ok(false);
            }
        }
        match chunk {
            Chunk::Next(next) => from = next,
            Chunk::Done | Chunk::Stopped => {
                return Ok(!is_empty || holds_without_keys(compare, target));
            }
        }
    }
}

/// There is no way to say "missing" by a value, so a value never equals a missing one; numbers
/// compare with 0.
fn holds_without_keys(compare: &pb::Compare, target: Option<CompareTarget>) -> bool {
    target != Some(CompareTarget::Value) && holds(compare, target, &KeyValue::default())
}

fn holds_for(
    view: &mut View<'_>,
    compare: &pb::Compare,
    target: Option<CompareTarget>,
    needs_record: bool,
    item: Item,
) -> Result<bool, ReadError> {
    let found = item.found;
    if needs_record {
        let record = view.record_of(item)?;
        return Ok(holds(compare, target, &decode(&record)?));
    }
    let known = KeyValue {
        create_revision: found.created,
        mod_revision: found.modified.main,
        version: found.version,
        ..KeyValue::default()
    };
    Ok(holds(compare, target, &known))
}

fn holds(compare: &pb::Compare, target: Option<CompareTarget>, stored: &KeyValue<'_>) -> bool {
    let given = compare.target_union.as_ref();
    // A union of another kind than the target counts as 0 or empty.
    let order = match target {
        Some(CompareTarget::Version) => stored.version.cmp(&match given {
            Some(TargetUnion::Version(given)) => *given,
            _ => 0,
        }),
        Some(CompareTarget::Create) => stored.create_revision.cmp(&match given {
            Some(TargetUnion::CreateRevision(given)) => *given,
            _ => 0,
        }),
        Some(CompareTarget::Mod) => stored.mod_revision.cmp(&match given {
            Some(TargetUnion::ModRevision(given)) => *given,
            _ => 0,
        }),
        Some(CompareTarget::Lease) => stored.lease.cmp(&match given {
            Some(TargetUnion::Lease(given)) => *given,
            _ => 0,
        }),
        Some(CompareTarget::Value) => stored.value.cmp(match given {
            Some(TargetUnion::Value(given)) => given.as_ref(),
            _ => &[],
        }),
        None => Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => order.is_eq(),
        Ok(CompareResult::NotEqual) => order.is_ne(),
        Ok(CompareResult::Greater) => order.is_gt(),
        Ok(CompareResult::Less) => order.is_lt(),
        Err(_) => true,
    }
}

/// What the checks of a transaction look at: the state before it.
#[derive(Debug)]
pub(crate) struct Checks<'a> {
    pub(crate) current: i64,
    pub(crate) compacted: i64,
    /// Absent for a reader, which has no puts to check.
    pub(crate) lessor: Option<&'a Lessor>,
    pub(crate) ranges: RangeChecks,
}

impl Checks<'_> {
    /// Refuses a transaction that could not be executed.
    pub(crate) fn check(
        &self,
        view: &View<'_>,
        txn: &pb::TxnRequest,
        path: &Path,
    ) -> Result<(), Refusal> {
        self.check_level(view, txn, &mut path.0.iter(), true)
    }

    fn check_level(
        &self,
        view: &View<'_>,
        txn: &pb::TxnRequest,
        path: &mut std::slice::Iter<'_, bool>,
        is_outermost: bool,
    ) -> Result<(), Refusal> {
        for op in branch(txn, take(path)) {
            match &op.request {
                Some(Op::RequestRange(range)) => {
                    if !is_outermost || self.ranges == RangeChecks::All {
                        self.check_range(range)?;
                    }
                }
                Some(Op::RequestPut(put)) => check_put(view, self.lessor, put)?,
                Some(Op::RequestTxn(nested)) => self.check_level(view, nested, path, false)?,
                Some(Op::RequestDeleteRange(_)) | None => {}
            }
        }
        Ok(())
    }

    /// The revision is taken literally here: a negative one is below any compacted revision.
    fn check_range(&self, range: &pb::RangeRequest) -> Result<(), Refusal> {
        match range.revision {
            0 => Ok(()),
            revision if revision > self.current => Err(Refusal::FutureRevision),
            revision if revision < self.compacted => Err(Refusal::Compacted),
            _ => Ok(()),
        }
    }
}

/// Refuses a put whose lease, or whose key to take value or lease from, is missing.
pub(crate) fn check_put(
    view: &View<'_>,
    lessor: Option<&Lessor>,
    put: &pb::PutRequest,
) -> Result<(), Refusal> {
    if put.lease != 0 && !lessor.is_some_and(|lessor| lessor.contains(put.lease)) {
        return Err(Refusal::LeaseNotFound);
    }
    if (put.ignore_value || put.ignore_lease) && view.lookup(&put.key)?.is_none() {
        return Err(Refusal::KeyNotFound);
    }
    Ok(())
}

fn take(path: &mut std::slice::Iter<'_, bool>) -> bool {
    *path.next().expect("a path has an entry for each transaction on the way")
}

/// Executes a checked, read-only transaction at revision `current`.
pub(crate) fn read(
    shared: &Shared,
    current: i64,
    txn: &pb::TxnRequest,
    path: &Path,
    room: &mut Room<'_>,
) -> Result<TxnReply, ReadError> {
    let succeeded = take(&mut path.0.iter());
    let mut responses = Vec::new();
    for op in branch(txn, succeeded) {
        let Some(Op::RequestRange(request)) = &op.request else {
            unreachable!("the caller has seen that the transaction is read-only");
        };
        let mut view = View::at(shared, current, request.revision)?;
        responses.push((current, Reply::Range(range::range(&mut view, request, room)?)));
    }
    Ok(TxnReply { succeeded, responses })
}

/// Executes a checked transaction. The refusal of a range that [`RangeChecks::NestedOnly`] let pass
/// is returned beside the reply: the writes have been made.
pub(crate) fn execute(
    writer: &mut WriteTxn<'_>,
    txn: &pb::TxnRequest,
    path: &Path,
    replies: Replies,
) -> Result<(TxnReply, Option<Refusal>), Fault> {
    let mut execution = Execution { writer, replies, refused: None };
    let reply = execution.level(txn, &mut path.0.iter())?;
    Ok((reply, execution.refused))
}

#[derive(Debug)]
struct Execution<'a, 'w> {
    writer: &'a mut WriteTxn<'w>,
    replies: Replies,
    refused: Option<Refusal>,
}

impl Execution<'_, '_> {
    fn level(
        &mut self,
        txn: &pb::TxnRequest,
        path: &mut std::slice::Iter<'_, bool>,
    ) -> Result<TxnReply, Fault> {
        let succeeded = take(path);
        let ops = branch(txn, succeeded);
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            let reply = match &op.request {
                Some(Op::RequestRange(request)) => self.range(request)?,
                Some(Op::RequestPut(request)) => put(self.writer, request, self.replies)?,
                Some(Op::RequestDeleteRange(request)) => {
                    delete_range(self.writer, request, self.replies)?
                }
                Some(Op::RequestTxn(nested)) => {
                    let reply = self.level(nested, path)?;
                    // The header of a nested answer is empty.
                    responses.push((0, Reply::Txn(reply)));
                    continue;
                }
                None => Reply::Empty,
            };
            responses.push((self.writer.revision(), reply));
        }
        Ok(TxnReply { succeeded, responses })
    }

    fn range(&mut self, request: &pb::RangeRequest) -> Result<Reply, Fault> {
        self.writer.done.ranges += 1;
        if self.replies == Replies::Bare {
            return Ok(Reply::Empty);
        }
        match self.writer.view_at(request.revision) {
            Ok(mut view) => {
                let reply = range::range(&mut view, request, &mut unbounded).map_err(cleared)?;
                Ok(Reply::Range(reply))
            }
            Err(refusal) => {
                self.refused.get_or_insert(refusal);
                Ok(Reply::Empty)
            }
        }
    }
}

/// Executes a checked put.
pub(crate) fn put(
    writer: &mut WriteTxn<'_>,
    request: &pb::PutRequest,
    replies: Replies,
) -> Result<Reply, Fault> {
    let shows_former = request.prev_kv && replies == Replies::Full;
    let reads = request.prev_kv || request.ignore_value || request.ignore_lease;
    writer.done.ranges += u64::from(reads);
    if !(shows_former || request.ignore_value || request.ignore_lease) {
        writer.put(&request.key, &request.value, request.lease);
        return Ok(Reply::Put { prev: None });
    }
    let former = writer.view().get(&request.key).map_err(cleared)?;
    let (value, lease) = match &former {
        None => (Bytes::new(), 0),
        Some(record) => {
            let fields = decode(record)?;
            (record.slice_ref(fields.value), fields.lease)
        }
    };
    let value = if request.ignore_value { &value } else { &request.value };
    let lease = if request.ignore_lease { lease } else { request.lease };
    writer.put(&request.key, value, lease);
    Ok(Reply::Put { prev: former.filter(|_| shows_former) })
}

/// Executes a range deletion.
pub(crate) fn delete_range(
    writer: &mut WriteTxn<'_>,
    request: &pb::DeleteRangeRequest,
    replies: Replies,
) -> Result<Reply, Fault> {
    let shows_former = request.prev_kv && replies == Replies::Full;
    writer.done.ranges += u64::from(request.prev_kv);
    let prev = if shows_former { former_records(writer, request)? } else { vec![] };
    let keys = Keys::new(&request.key, &request.range_end);
    let deleted = writer.delete_range(keys).map_err(cleared)?;
    Ok(Reply::DeleteRange { deleted, prev })
}

fn former_records(
    writer: &WriteTxn<'_>,
    request: &pb::DeleteRangeRequest,
) -> Result<Vec<Record>, Fault> {
    let range = pb::RangeRequest {
        key: request.key.clone(),
        range_end: request.range_end.clone(),
        ..Default::default()
    };
    Ok(range::range(&mut writer.view(), &range, &mut unbounded).map_err(cleared)?.kvs)
}
