//! A `RangeResponse` as JSON, piece by piece: a large list is never whole, neither as a message nor as text.
//!
//! The text is byte for byte what [`super::json::Shape::encode`] makes of the whole message (`spec/http-api.md` §2.1):
//! fields in the order of their numbers, which is how the message has them, no defaults, base64, 64 bits as strings.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};
use proto::etcdserverpb::ResponseHeader;
use proto::mvccpb::KeyValue;

use super::body::Broken;
use crate::service::payload::FRAME_LEN;

/// Takes the bytes of a framed `RangeResponse` as they come.
#[derive(Debug)]
pub(super) struct List {
    /// What has come and is not a complete field yet.
    rest: BytesMut,
    /// Bytes of the frame that are still to come.
    frame_left: usize,
    place: Place,
}

/// Where the text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At its first member.
    Start,
    /// Among the members.
    Members,
    /// Within the list of records.
    Records,
}

/// One field of a `RangeResponse`.
#[derive(Debug)]
enum Field {
    Header(ResponseHeader),
    Record(KeyValue),
    More(bool),
    Count(i64),
}

impl List {
    pub(super) fn new() -> Self {
        Self { rest: BytesMut::new(), frame_left: FRAME_LEN, place: Place::Start }
    }

    /// Returns the text of what `piece` makes complete.
    pub(super) fn push(&mut self, mut piece: Bytes) -> Result<String, Broken> {
        let skipped = self.frame_left.min(piece.len());
        piece.advance(skipped);
        self.frame_left -= skipped;
        // Base64 makes four bytes of three; names and numbers are little beside it.
        let mut text = String::with_capacity(piece.len() / 3 * 4 + 1024);
        self.rest.extend_from_slice(&piece);
        while let Some(field) = take_field(&mut self.rest)? {
            self.put(field, &mut text);
        }
        Ok(text)
    }

    /// Returns the end of the text; what has come must be complete.
    pub(super) fn end(mut self) -> Result<String, Broken> {
        if !self.rest.is_empty() || self.frame_left > 0 {
            return Err(Broken);
        }
        let mut text = String::new();
        self.close_records(&mut text);
        text.push_str(if self.place == Place::Start { "{}" } else { "}" });
        Ok(text)
    }

    fn put(&mut self, field: Field, text: &mut String) {
        match field {
            Field::Header(header) => {
                self.member("header", text);
                put_header(&header, text);
            }
            Field::Record(record) => {
                if self.place == Place::Records {
                    text.push(',');
                } else {
                    self.member("kvs", text);
                    text.push('[');
                    self.place = Place::Records;
                }
                put_record(&record, text);
            }
            Field::More(more) => {
                self.member("more", text);
                text.push_str(if more { "true" } else { "false" });
            }
            Field::Count(count) => {
                self.member("count", text);
                put_number(count, text);
            }
        }
    }

    fn close_records(&mut self, text: &mut String) {
        if self.place == Place::Records {
            text.push(']');
            self.place = Place::Members;
        }
    }

    fn member(&mut self, name: &str, text: &mut String) {
        self.close_records(text);
        text.push(if self.place == Place::Start { '{' } else { ',' });
        self.place = Place::Members;
        put_name(name, text);
    }
}

/// Takes the first field, once it is complete.
fn take_field(rest: &mut BytesMut) -> Result<Option<Field>, Broken> {
    let mut ahead = &rest[..];
    // A number that breaks off goes on in the next piece.
    let Ok((tag, wire_type)) = decode_key(&mut ahead) else { return Ok(None) };
    let Ok(number) = decode_varint(&mut ahead) else { return Ok(None) };
    let head = rest.len() - ahead.len();
    if wire_type != WireType::LengthDelimited {
        rest.advance(head);
        return match tag {
            3 => Ok(Some(Field::More(number != 0))),
            4 => Ok(Some(Field::Count(number.cast_signed()))),
            _ => Err(Broken),
        };
    }
    let len = usize::try_from(number).map_err(|_too_large| Broken)?;
    if ahead.len() < len {
        return Ok(None);
    }
    rest.advance(head);
    let content = rest.split_to(len).freeze();
    match tag {
        1 => ResponseHeader::decode(content).map(Field::Header),
        2 => KeyValue::decode(content).map(Field::Record),
        _ => return Err(Broken),
    }
    .map(Some)
    .map_err(|_damaged| Broken)
}

fn put_header(header: &ResponseHeader, text: &mut String) {
    let mut members = Members::open(text);
    members.number("cluster_id", header.cluster_id);
    members.number("member_id", header.member_id);
    members.number("revision", header.revision);
    members.number("raft_term", header.raft_term);
    members.close();
}

fn put_record(record: &KeyValue, text: &mut String) {
    let mut members = Members::open(text);
    members.bytes("key", &record.key);
    members.number("create_revision", record.create_revision);
    members.number("mod_revision", record.mod_revision);
    members.number("version", record.version);
    members.bytes("value", &record.value);
    members.number("lease", record.lease);
    members.close();
}

/// The members of an object; those with default values are left out.
struct Members<'a> {
    text: &'a mut String,
    is_first: bool,
}

impl<'a> Members<'a> {
    fn open(text: &'a mut String) -> Self {
        text.push('{');
        Self { text, is_first: true }
    }

    fn number<T: std::fmt::Display + Default + PartialEq>(&mut self, name: &str, number: T) {
        if number != T::default() {
            self.name(name);
            put_number(number, self.text);
        }
    }

    fn bytes(&mut self, name: &str, bytes: &Bytes) {
        if !bytes.is_empty() {
            self.name(name);
            self.text.push('"');
            STANDARD.encode_string(bytes, self.text);
            self.text.push('"');
        }
    }

    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.is_first) {
            self.text.push(',');
        }
        put_name(name, self.text);
    }

    fn close(self) {
        self.text.push('}');
    }
}

fn put_name(name: &str, text: &mut String) {
    text.push('"');
    text.push_str(name);
    text.push_str("\":");
}

/// Numbers of 64 bits are strings: many readers of JSON keep 53.
fn put_number(number: impl std::fmt::Display, text: &mut String) {
    write!(text, "\"{number}\"").expect("a string takes all");
}

#[cfg(test)]
mod tests {
    use proto::etcdserverpb::RangeResponse;

    use super::*;
    use crate::grpc::method::Method;
    use crate::http::json::Shape;

    fn framed(message: &[u8]) -> Bytes {
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(message.len()).expect("small").to_be_bytes());
        bytes.extend(message);
        bytes.into()
    }

    fn in_pieces(message: &Bytes, piece_len: usize) -> Result<String, Broken> {
        let mut list = List::new();
        let mut text = String::new();
        for piece in message.chunks(piece_len) {
            text.push_str(&list.push(Bytes::copy_from_slice(piece))?);
        }
        text.push_str(&list.end()?);
        Ok(text)
    }

    fn records() -> Vec<KeyValue> {
        let mut records = vec![KeyValue::default()];
        let numbers = [0, 1, -1, 127, 128, i64::MAX, i64::MIN];
        for (step, number) in numbers.into_iter().enumerate() {
            let other = numbers[(step * 3 + 1) % numbers.len()];
            for len in [0_u16, 1, 2, 3, 4, 300] {
                records.push(KeyValue {
                    key: (0..len).map(|byte| byte.to_be_bytes()[1] ^ 0xa5).collect(),
                    create_revision: number,
                    mod_revision: other,
                    version: number,
                    value: (0..len * 5).map(|byte| (byte * 7).to_be_bytes()[1]).collect(),
                    lease: other,
                });
            }
        }
        records
    }

    #[test]
    fn pieces_make_the_text_of_the_whole() {
        let header =
            ResponseHeader { cluster_id: u64::MAX, member_id: 1, revision: -7, raft_term: 0 };
        let mut responses = vec![RangeResponse::default()];
        let headers = [None, Some(ResponseHeader::default()), Some(header)];
        for step in 0..headers.len() * 32 {
            let (header, step) = (headers[step % 3], step / 3);
            let count = [0, 1, i64::MAX, -1][step % 4];
            let keys = [0, 1, 2, usize::MAX][step / 4 % 4];
            let kvs = records().into_iter().take(keys).collect();
            responses.push(RangeResponse { header, kvs, more: step / 16 == 1, count });
        }
        for response in responses {
            let message = Bytes::from(response.encode_to_vec());
            let whole = Shape::of(Method::Range).encode(message.clone()).expect("valid");
            for piece_len in [1, 2, 7, 100, usize::MAX >> 1] {
                let text = in_pieces(&framed(&message), piece_len).expect("valid");
                assert_eq!(text.as_bytes(), whole, "{response:?} in pieces of {piece_len}");
            }
        }
    }

    #[test]
    fn what_breaks_off_has_no_end() {
        let response = RangeResponse { kvs: records(), count: 300, ..Default::default() };
        let message = framed(&response.encode_to_vec());
        for len in [0, 3, 6, 20, message.len() - 1] {
            assert!(in_pieces(&message.slice(..len), 50).is_err(), "{len}");
        }
    }
}
