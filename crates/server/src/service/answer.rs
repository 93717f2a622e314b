//! Encodes answers that carry stored records, straight from the stored bytes.
//!
//! Field numbers are those of `spec/grpc-api.md` §2.1; a test decodes each with the generated messages.

use bytes::{BufMut, Bytes, BytesMut};
use machine::{RangeReply, Record, Reply, TxnReply};
use proto::etcdserverpb::ResponseHeader;

use super::payload::{
    PIECE_BYTES, Payload, Pieces, field_len, put_field, put_frame, put_varint_field,
    varint_field_len,
};
use crate::room::Held;

const HEADER: u32 = 1;

/// Answers up to this size are built in one buffer.
const WHOLE_BYTES_MAX: usize = PIECE_BYTES;

/// An etcdserverpb response that can be measured and written.
trait Answer {
    fn len(&self, header: &ResponseHeader) -> usize;
    fn put(&self, header: &ResponseHeader, buffer: &mut BytesMut);
}

/// Encodes the answer of a command.
pub fn reply(header: &ResponseHeader, reply: &Reply) -> Payload {
    let len = reply.len(header);
    Payload::build(len, |buffer| reply.put(header, buffer))
}

/// The fields of a `RangeResponse` after its records.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct RangeEnd {
    /// Whether keys beyond the limit exist.
    pub more: bool,
    /// Keys in the range.
    pub count: i64,
}

/// Length of a `RangeResponse` whose records, as fields, take `records_len` bytes.
pub fn range_len(header: &ResponseHeader, records_len: usize, end: RangeEnd) -> usize {
    header_len(header)
        + records_len
        + varint_field_len(3, u64::from(end.more))
        + varint_field_len(4, end.count.cast_unsigned())
}

/// Begins a framed `RangeResponse` of `len` bytes.
pub fn range_head(header: &ResponseHeader, len: usize) -> BytesMut {
    let mut head = BytesMut::with_capacity(PIECE_BYTES + 4096);
    put_frame(&mut head, len);
    put_header(header, &mut head);
    head
}

/// Encodes a `RangeResponse`; a large one leaves in pieces. `held` is what its records hold of the room for answers.
pub fn range(header: &ResponseHeader, reply: RangeReply, held: Option<Held>) -> Payload {
    let len = reply.len(header);
    if len <= WHOLE_BYTES_MAX {
        let mut payload = Payload::build(len, |buffer| reply.put(header, buffer));
        if let Some(held) = held {
            payload.tie(held);
        }
        return payload;
    }
    let pieces = RangePieces {
        begun: Some(range_head(header, len)),
        end: Some(RangeEnd::from(&reply)),
        kvs: reply.kvs.into_iter(),
        held,
    };
    Payload::pieces(len, Box::new(pieces))
}

/// Length of the `RangeResponse` that [`range`] encodes.
pub fn range_reply_len(header: &ResponseHeader, reply: &RangeReply) -> usize {
    reply.len(header)
}

/// Makes a piece of bytes whose records are gone, with what these have held.
pub fn piece(bytes: BytesMut, held: Option<&mut Held>) -> Bytes {
    match held.and_then(|held| held.split(bytes.len())) {
        Some(part) => part.around(bytes.freeze()),
        None => bytes.freeze(),
    }
}

/// Encodes a part of a `RangeResponse` that holds keys only.
pub fn range_part(reply: &RangeReply) -> Payload {
    let len = reply.kvs.iter().map(|record| record_len(2, record)).sum();
    Payload::build(len, |buffer| {
        for record in &reply.kvs {
            put_record(2, record, buffer);
        }
    })
}

/// A `RangeResponse` on its way.
#[derive(Debug)]
struct RangePieces {
    begun: Option<BytesMut>,
    kvs: std::vec::IntoIter<Record>,
    /// Taken with the last piece.
    end: Option<RangeEnd>,
    held: Option<Held>,
}

impl Pieces for RangePieces {
    fn next(&mut self) -> Option<Bytes> {
        self.end?;
        let mut bytes =
            self.begun.take().unwrap_or_else(|| BytesMut::with_capacity(PIECE_BYTES + 4096));
        while bytes.len() < PIECE_BYTES {
            let Some(record) = self.kvs.next() else {
                self.end.take().into_iter().for_each(|end| put_range_end(end, &mut bytes));
                break;
            };
            put_record(2, &record, &mut bytes);
        }
        Some(piece(bytes, self.held.as_mut()))
    }
}

/// Length of an encoded header as field 1; empty headers are written too, since etcd sets them.
fn header_len(header: &ResponseHeader) -> usize {
    field_len(HEADER, prost::Message::encoded_len(header))
}

fn put_header(header: &ResponseHeader, buffer: &mut BytesMut) {
    put_field(HEADER, prost::Message::encoded_len(header), buffer);
    prost::Message::encode(header, buffer).expect("a growable buffer takes all");
}

fn record_len(tag: u32, record: &Record) -> usize {
    field_len(tag, record.len())
}

/// Writes a record as field `tag`.
pub fn put_record(tag: u32, record: &Record, buffer: &mut BytesMut) {
    put_field(tag, record.len(), buffer);
    buffer.put_slice(record);
}

/// Writes what follows the records of a `RangeResponse`.
pub fn put_range_end(end: RangeEnd, buffer: &mut BytesMut) {
    put_varint_field(3, u64::from(end.more), buffer);
    put_varint_field(4, end.count.cast_unsigned(), buffer);
}

impl From<&RangeReply> for RangeEnd {
    fn from(reply: &RangeReply) -> Self {
        Self { more: reply.more, count: reply.count }
    }
}

impl Answer for RangeReply {
    fn len(&self, header: &ResponseHeader) -> usize {
        let records_len = self.kvs.iter().map(|record| record_len(2, record)).sum();
        range_len(header, records_len, self.into())
    }

    fn put(&self, header: &ResponseHeader, buffer: &mut BytesMut) {
        put_header(header, buffer);
        for record in &self.kvs {
            put_record(2, record, buffer);
        }
        put_range_end(self.into(), buffer);
    }
}

impl Answer for TxnReply {
    fn len(&self, header: &ResponseHeader) -> usize {
        header_len(header)
            + varint_field_len(2, u64::from(self.succeeded))
            + self.responses.iter().map(|(rev, op)| field_len(3, op_len(*rev, op))).sum::<usize>()
    }

    fn put(&self, header: &ResponseHeader, buffer: &mut BytesMut) {
        put_header(header, buffer);
        put_varint_field(2, u64::from(self.succeeded), buffer);
        for (revision, reply) in &self.responses {
            put_field(3, op_len(*revision, reply), buffer);
            put_field(op_tag(reply), reply.len(&sub_header(*revision)), buffer);
            reply.put(&sub_header(*revision), buffer);
        }
    }
}

/// Field numbers of `ResponseOp`'s oneof.
fn op_tag(reply: &Reply) -> u32 {
    match reply {
        Reply::Range(_) => 1,
        Reply::Put { .. } => 2,
        Reply::DeleteRange { .. } => 3,
        Reply::Txn(_) => 4,
        Reply::Compaction
        | Reply::LeaseGrant { .. }
        | Reply::LeaseRevoke
        | Reply::LeaseCheckpoint
        | Reply::Alarm(_)
        | Reply::Empty => unreachable!("transactions hold key-value operations only"),
    }
}

fn op_len(revision: i64, reply: &Reply) -> usize {
    field_len(op_tag(reply), reply.len(&sub_header(revision)))
}

/// Inside a transaction a header carries the revision only.
fn sub_header(revision: i64) -> ResponseHeader {
    ResponseHeader { revision, ..ResponseHeader::default() }
}

impl Answer for Reply {
    fn len(&self, header: &ResponseHeader) -> usize {
        match self {
            Self::Range(reply) => reply.len(header),
            Self::Txn(reply) => reply.len(header),
            Self::Put { prev } => {
                header_len(header) + prev.as_ref().map_or(0, |record| record_len(2, record))
            }
            Self::DeleteRange { deleted, prev } => {
                header_len(header)
                    + varint_field_len(2, deleted.cast_unsigned())
                    + prev.iter().map(|record| record_len(3, record)).sum::<usize>()
            }
            Self::LeaseGrant { id, ttl } => {
                header_len(header)
                    + varint_field_len(2, id.cast_unsigned())
                    + varint_field_len(3, ttl.cast_unsigned())
            }
            Self::Alarm(alarms) => {
                let alarm_len = |alarm| field_len(2, prost::Message::encoded_len(alarm));
                header_len(header) + alarms.iter().map(alarm_len).sum::<usize>()
            }
            Self::Compaction | Self::LeaseRevoke | Self::LeaseCheckpoint | Self::Empty => {
                header_len(header)
            }
        }
    }

    fn put(&self, header: &ResponseHeader, buffer: &mut BytesMut) {
        match self {
            Self::Range(reply) => return reply.put(header, buffer),
            Self::Txn(reply) => return reply.put(header, buffer),
            _ => put_header(header, buffer),
        }
        match self {
            Self::Put { prev } => {
                if let Some(record) = prev {
                    put_record(2, record, buffer);
                }
            }
            Self::DeleteRange { deleted, prev } => {
                put_varint_field(2, deleted.cast_unsigned(), buffer);
                for record in prev {
                    put_record(3, record, buffer);
                }
            }
            Self::LeaseGrant { id, ttl } => {
                put_varint_field(2, id.cast_unsigned(), buffer);
                put_varint_field(3, ttl.cast_unsigned(), buffer);
            }
            Self::Alarm(alarms) => {
                for alarm in alarms {
                    put_field(2, prost::Message::encoded_len(alarm), buffer);
                    prost::Message::encode(alarm, buffer).expect("a growable buffer takes all");
                }
            }
            Self::Range(_)
            | Self::Txn(_)
            | Self::Compaction
            | Self::LeaseRevoke
            | Self::LeaseCheckpoint
            | Self::Empty => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use proto::etcdserverpb as pb;
    use proto::mvccpb::KeyValue;

    use super::*;
    use crate::service::payload::FRAME_LEN;

    fn header() -> ResponseHeader {
        ResponseHeader { cluster_id: 1, member_id: u64::MAX, revision: 7, raft_term: 2 }
    }

    fn record(key: &'static str) -> (KeyValue, Record) {
        let kv = KeyValue {
            key: key.into(),
            value: "value".into(),
            mod_revision: 7,
            create_revision: 3,
            version: 2,
            ..KeyValue::default()
        };
        let record = kv.encode_to_vec().into();
        (kv, record)
    }

    #[test]
    fn ranges_decode_whole_and_in_pieces() {
        for keys in [0, 3, 20_000] {
            let (kv, bytes) = record("key");
            let reply = RangeReply { kvs: vec![bytes; keys], more: keys > 0, count: 99 };
            let message = range(&header(), reply, None).now();
            let expected = pb::RangeResponse {
                header: Some(header()),
                kvs: vec![kv; keys],
                more: keys > 0,
                count: 99,
            };
            assert_eq!(message, expected.encode_to_vec());
        }
    }

    #[test]
    fn transactions_decode_with_nested_ones() {
        let (kv, bytes) = record("key");
        let inner = TxnReply {
            succeeded: false,
            responses: vec![(8, Reply::DeleteRange { deleted: 1, prev: vec![bytes.clone()] })],
        };
        let outer = Reply::Txn(TxnReply {
            succeeded: true,
            responses: vec![
                (8, Reply::Put { prev: Some(bytes) }),
                (0, Reply::Txn(inner)),
                (8, Reply::Range(RangeReply::default())),
            ],
        });
        let decoded =
            pb::TxnResponse::decode(reply(&header(), &outer).now()).expect("a valid message");
        assert!(decoded.succeeded && decoded.header == Some(header()));
        let ops: Vec<_> = decoded.responses.into_iter().filter_map(|op| op.response).collect();
        let [
            pb::response_op::Response::ResponsePut(put),
            pb::response_op::Response::ResponseTxn(txn),
            pb::response_op::Response::ResponseRange(_),
        ] = &ops[..]
        else {
            panic!("kinds are kept in order: {ops:?}");
        };
        assert_eq!(put.prev_kv.as_ref(), Some(&kv));
        assert_eq!(txn.header, Some(ResponseHeader::default()));
        assert_eq!(txn.responses.len(), 1);
    }

    #[test]
    fn grants_and_alarms_decode() {
        let grant = reply(&header(), &Reply::LeaseGrant { id: -5, ttl: 60 });
        let grant = pb::LeaseGrantResponse::decode(grant.now()).expect("valid");
        assert_eq!((grant.id, grant.ttl), (-5, 60));
        let alarm = pb::AlarmMember { member_id: 9, alarm: 1 };
        let alarms = reply(&header(), &Reply::Alarm(vec![alarm]));
        let alarms = pb::AlarmResponse::decode(alarms.now()).expect("valid");
        assert_eq!(alarms.alarms, vec![alarm]);
    }

    #[test]
    fn frames_announce_the_length() {
        let mut payload = reply(&header(), &Reply::Empty);
        let bytes = payload.piece_now().expect("one piece");
        assert_eq!(bytes.len(), FRAME_LEN + usize::from(bytes[4]));
    }
}
