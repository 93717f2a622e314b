//! The member's replies in the model's terms.

use machine::Record;
use prost::Message as _;
use proto::mvccpb::KeyValue;

use super::Violation;
use crate::model::{Page, Reply};

/// Decodes a record.
pub(super) fn record(record: &Record) -> Result<KeyValue, Violation> {
    KeyValue::decode(record.clone())
        .map_err(|error| Violation(format!("a record does not decode: {error}")))
}

fn records(list: &[Record]) -> Result<Vec<KeyValue>, Violation> {
    list.iter().map(record).collect()
}

/// Decodes what a range answers.
pub(super) fn page(reply: &machine::RangeReply) -> Result<Page, Violation> {
    Ok(Page { kvs: records(&reply.kvs)?, more: reply.more, count: reply.count })
}

/// Decodes a reply.
pub(super) fn reply(reply: &machine::Reply) -> Result<Reply, Violation> {
    Ok(match reply {
        machine::Reply::Put { prev } => Reply::Put(prev.as_ref().map(record).transpose()?),
        machine::Reply::Range(range) => Reply::Range(page(range)?),
        machine::Reply::DeleteRange { deleted, prev } => Reply::Delete(*deleted, records(prev)?),
        machine::Reply::Txn(txn) => {
            let replies = txn.responses.iter();
            let replies: Result<_, Violation> =
                replies.map(|(revision, nested)| Ok((*revision, self::reply(nested)?))).collect();
            Reply::Txn(txn.succeeded, replies?)
        }
        machine::Reply::LeaseGrant { id, ttl } => Reply::Grant(*id, *ttl),
        machine::Reply::Compaction
        | machine::Reply::LeaseRevoke
        | machine::Reply::LeaseCheckpoint
        | machine::Reply::Alarm(_)
        | machine::Reply::Empty => Reply::Empty,
    })
}
