//! Transactions within transactions, decoded level by level.
//!
//! The protobuf library refuses messages nested 100 deep, which is a transaction at level 50; etcd takes as many levels as
//! `--max-txn-ops` allows operations, 128 by default. A member that could not decode such an entry would have to stop.
//! So each level is decoded by itself, the ones inside it as bytes, and the levels are counted here.

use bytes::Bytes;
use prost::{DecodeError, Message};
use proto::etcdserverpb as pb;

/// Levels of transactions that are decoded: four times what etcd takes by default, and few enough for any thread's stack,
/// because what is nested is also checked, executed, encoded and dropped level by level.
pub const TXN_LEVELS_MAX: usize = 512;

/// Why a transaction cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TxnDecodeError {
    /// It is not the encoding of one.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// It is nested deeper than [`TXN_LEVELS_MAX`].
    #[error("transactions are nested deeper than {TXN_LEVELS_MAX} levels")]
    TooDeep,
}

/// Decodes a transaction with all inside it.
pub fn decode_txn(bytes: Bytes) -> Result<pb::TxnRequest, TxnDecodeError> {
    decode_levels(bytes, TXN_LEVELS_MAX)
}

fn decode_levels(bytes: Bytes, levels_left: usize) -> Result<pb::TxnRequest, TxnDecodeError> {
    let Some(levels_left) = levels_left.checked_sub(1) else { return Err(TxnDecodeError::TooDeep) };
    let level = Level::decode(bytes)?;
    Ok(pb::TxnRequest {
        compare: level.compare,
        success: branch(level.success, levels_left)?,
        failure: branch(level.failure, levels_left)?,
    })
}

fn branch(ops: Vec<LevelOp>, levels_left: usize) -> Result<Vec<pb::RequestOp>, TxnDecodeError> {
    let mut out = Vec::with_capacity(ops.len());
    for op in ops {
        let request = match op.request {
            None => None,
            Some(op::Request::Range(range)) => Some(pb::request_op::Request::RequestRange(range)),
            Some(op::Request::Put(put)) => Some(pb::request_op::Request::RequestPut(put)),
            Some(op::Request::DeleteRange(delete)) => {
                Some(pb::request_op::Request::RequestDeleteRange(delete))
            }
            Some(op::Request::Txn(bytes)) => {
                let txn = decode_levels(bytes, levels_left)?;
                Some(pb::request_op::Request::RequestTxn(txn))
            }
        };
        out.push(pb::RequestOp { request });
    }
    Ok(out)
}

/// `TxnRequest` as its outermost level.
#[derive(Clone, PartialEq, prost::Message)]
struct Level {
    #[prost(message, repeated, tag = "1")]
    compare: Vec<pb::Compare>,
    #[prost(message, repeated, tag = "2")]
    success: Vec<LevelOp>,
    #[prost(message, repeated, tag = "3")]
    failure: Vec<LevelOp>,
}

/// `RequestOp` with a transaction as the bytes it is encoded in.
#[derive(Clone, PartialEq, prost::Message)]
struct LevelOp {
    #[prost(oneof = "op::Request", tags = "1, 2, 3, 4")]
    request: Option<op::Request>,
}

mod op {
    use super::{Bytes, pb};

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Request {
        #[prost(message, tag = "1")]
        Range(pb::RangeRequest),
        #[prost(message, tag = "2")]
        Put(pb::PutRequest),
        #[prost(message, tag = "3")]
        DeleteRange(pb::DeleteRangeRequest),
        #[prost(bytes = "bytes", tag = "4")]
        Txn(Bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(request: pb::request_op::Request) -> pb::RequestOp {
        pb::RequestOp { request: Some(request) }
    }

    fn put(key: &'static str) -> pb::RequestOp {
        let put = pb::PutRequest { key: key.into(), ..pb::PutRequest::default() };
        op(pb::request_op::Request::RequestPut(put))
    }

    fn nested(levels: usize) -> pb::TxnRequest {
        let mut txn = pb::TxnRequest { success: vec![put("a")], ..pb::TxnRequest::default() };
        for _ in 1..levels {
            let inner = op(pb::request_op::Request::RequestTxn(txn));
            txn = pb::TxnRequest { failure: vec![put("b"), inner], ..pb::TxnRequest::default() };
        }
        txn
    }

    #[test]
    fn levels_decode_to_what_was_encoded() {
        for levels in [1, 2, 49, 50, 128, TXN_LEVELS_MAX] {
            let txn = nested(levels);
            assert_eq!(decode_txn(txn.encode_to_vec().into()), Ok(txn));
        }
    }

    #[test]
    fn all_kinds_of_operations_are_kept() {
        let compare = pb::Compare { key: "c".into(), ..pb::Compare::default() };
        let range = pb::RangeRequest { key: "r".into(), ..pb::RangeRequest::default() };
        let delete = pb::DeleteRangeRequest { key: "d".into(), ..Default::default() };
        let txn = pb::TxnRequest {
            compare: vec![compare],
            success: vec![
                op(pb::request_op::Request::RequestRange(range)),
                pb::RequestOp { request: None },
            ],
            failure: vec![op(pb::request_op::Request::RequestDeleteRange(delete)), put("p")],
        };
        assert_eq!(decode_txn(txn.encode_to_vec().into()), Ok(txn));
    }

    #[test]
    fn levels_end_and_garbage_is_refused() {
        let deep = nested(TXN_LEVELS_MAX + 1).encode_to_vec();
        assert_eq!(decode_txn(deep.into()), Err(TxnDecodeError::TooDeep));
        let garbage = Bytes::from_static(&[0x12, 0x7f]);
        assert!(matches!(decode_txn(garbage), Err(TxnDecodeError::Malformed(_))));
    }
}
