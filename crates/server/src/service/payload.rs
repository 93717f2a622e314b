//! An encoded response message on its way to a door.
//!
//! A payload begins with the five bytes that frame a gRPC message (flag 0, length in big endian), so that small answers
//! leave as one buffer; the JSON gateway skips them. Large ones are produced piece by piece, only as fast as the client
//! takes them.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::paged::Pages;
use crate::grpc::error;
use crate::grpc::status::Status;
use crate::room::{FREE_BYTES, Held, Room};

/// Bytes of the frame that precedes a message.
pub const FRAME_LEN: usize = 5;

/// Longest message that is sent, as in grpc-go; an answer that would be longer is an error instead.
const MESSAGE_BYTES_MAX: usize = i32::MAX as usize;

/// Pieces of a large answer are about this large.
pub const PIECE_BYTES: usize = 64 << 10;

/// A framed message, whole or in pieces.
#[derive(Debug)]
pub struct Payload {
    source: Source,
    message_len: usize,
}

#[derive(Debug)]
enum Source {
    Whole(Option<Bytes>),
    Pieces(Box<dyn Pieces>),
    Pages(Box<Pages>),
}

/// Produces a framed message bit by bit.
pub trait Pieces: std::fmt::Debug {
    /// Returns the next bytes, about [`PIECE_BYTES`] of them, or `None` at the end.
    fn next(&mut self) -> Option<Bytes>;
}

impl Payload {
    /// Encodes `message`.
    pub fn of(message: &impl Message) -> Self {
        Self::build(message.encoded_len(), |buffer| {
            message.encode(buffer).expect("a growable buffer takes all")
        })
    }

    /// Takes a message that [`framed`] has encoded.
    pub(super) fn framed(message: Bytes) -> Self {
        let message_len = message.len() - FRAME_LEN;
        Self { source: Source::Whole(Some(message)), message_len }
    }

    /// Frames a message of exactly `len` bytes that `encode` writes.
    pub fn build(len: usize, encode: impl FnOnce(&mut BytesMut)) -> Self {
        if len > MESSAGE_BYTES_MAX {
            return Self { source: Source::Whole(None), message_len: len };
        }
        let mut buffer = BytesMut::with_capacity(FRAME_LEN + len);
        put_frame(&mut buffer, len);
        encode(&mut buffer);
        debug_assert_eq!(buffer.len(), FRAME_LEN + len, "the announced length is kept");
        Self { source: Source::Whole(Some(buffer.freeze())), message_len: len }
    }

    /// Takes a framed message of `message_len` bytes that is produced in pieces.
    pub fn pieces(message_len: usize, pieces: Box<dyn Pieces>) -> Self {
        Self { source: Source::Pieces(pieces), message_len }
    }

    /// Counts a large message as held until it is sent, if there is room. For the answers of what has been done and cannot
    /// be refused any more.
    pub fn counted_if_free(mut self, room: &Room) -> Self {
        let len = match &self.source {
            Source::Whole(Some(bytes)) if bytes.len() > FREE_BYTES => bytes.len(),
            Source::Whole(_) | Source::Pieces(_) | Source::Pages(_) => return self,
        };
        if let Some(held) = room.try_hold(len) {
            self.tie(held);
        }
        self
    }

    /// Ties what is held for a whole message to its bytes.
    pub(super) fn tie(&mut self, held: Held) {
        if let Source::Whole(bytes) = &mut self.source {
            *bytes = bytes.take().map(|bytes| held.around(bytes));
        }
    }

    /// Length of the message without its frame.
    pub fn message_len(&self) -> usize {
        self.message_len
    }

    /// Takes a framed message of `message_len` bytes that is read page by page.
    pub(super) fn pages(message_len: usize, pages: Pages) -> Self {
        Self { source: Source::Pages(Box::new(pages)), message_len }
    }

    /// Returns the next bytes to send, or `None` when all are taken. A failure leaves the message unfinished: the call
    /// has to end with it.
    pub async fn next_piece(&mut self) -> Result<Option<Bytes>, Status> {
        if self.message_len > MESSAGE_BYTES_MAX {
            return Err(error::answer_too_large(self.message_len, MESSAGE_BYTES_MAX));
        }
        match &mut self.source {
            Source::Whole(bytes) => Ok(bytes.take()),
            Source::Pieces(pieces) => Ok(pieces.next()),
            Source::Pages(pages) => pages.next().await,
        }
    }

    /// Collects the message without its frame, for doors that cannot stream.
    pub async fn into_message(mut self) -> Result<Bytes, Status> {
        if let Source::Whole(Some(bytes)) = &self.source {
            return Ok(bytes.slice(FRAME_LEN..));
        }
        let first = self.next_piece().await?;
        let mut all = BytesMut::with_capacity(FRAME_LEN + self.message_len);
        if let Some(piece) = first {
            all.extend_from_slice(&piece);
        }
        while let Some(piece) = self.next_piece().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze().slice(FRAME_LEN..))
    }
}

/// Encodes `message`, which is far below the longest that may be sent, with its frame.
pub(super) fn framed(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut buffer = BytesMut::with_capacity(FRAME_LEN + len);
    put_frame(&mut buffer, len);
    message.encode(&mut buffer).expect("a growable buffer takes all");
    buffer.freeze()
}

/// Writes the frame of a message of `len` bytes; a longer one than may be sent is never sent.
pub fn put_frame(buffer: &mut BytesMut, len: usize) {
    buffer.put_u8(0);
    buffer.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
}

/// Length of a length-delimited field.
pub fn field_len(tag: u32, len: usize) -> usize {
    key_len(tag) + encoded_len_varint(len as u64) + len
}

/// Writes the key and length of a length-delimited field whose content follows.
pub fn put_field(tag: u32, len: usize, buffer: &mut BytesMut) {
    encode_key(tag, WireType::LengthDelimited, buffer);
    encode_varint(len as u64, buffer);
}

/// Length of a varint field; 0 when it has the default value.
pub fn varint_field_len(tag: u32, value: u64) -> usize {
    if value == 0 { 0 } else { key_len(tag) + encoded_len_varint(value) }
}

/// Writes a varint field unless it has the default value.
pub fn put_varint_field(tag: u32, value: u64, buffer: &mut BytesMut) {
    if value != 0 {
        encode_key(tag, WireType::Varint, buffer);
        encode_varint(value, buffer);
    }
}

#[cfg(test)]
impl Payload {
    /// The whole message, of a payload that waits for nothing.
    pub(super) fn now(self) -> Bytes {
        ready(self.into_message())
    }

    /// The next piece, of a payload that waits for nothing.
    pub(super) fn piece_now(&mut self) -> Option<Bytes> {
        ready(self.next_piece())
    }
}

#[cfg(test)]
fn ready<T>(future: impl Future<Output = Result<T, Status>>) -> T {
    use std::task::{Context, Poll, Waker};
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(value)) => value,
        Poll::Ready(Err(status)) => panic!("unexpected {status}"),
        Poll::Pending => panic!("it waits"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_too_long_to_be_sent_is_an_error_and_is_not_built() {
        let mut payload = Payload::build(MESSAGE_BYTES_MAX + 1, |_| unreachable!("not built"));
        let mut next = std::pin::pin!(payload.next_piece());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let std::task::Poll::Ready(Err(status)) = next.as_mut().poll(&mut context) else {
            panic!("it fails at once");
        };
        assert_eq!(
            status.message,
            "trying to send message larger than max (2147483648 vs. 2147483647)"
        );
        let status = error::answer_too_large(4_529_949_630, MESSAGE_BYTES_MAX);
        assert_eq!(status.message, "grpc: message too large (4529949630 bytes)");
    }
}
