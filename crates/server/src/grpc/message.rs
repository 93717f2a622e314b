//! gRPC messages on an HTTP/2 stream: five bytes of frame, then the message (gRPC over HTTP/2 specification).

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use bytes::{Buf, Bytes, BytesMut};
use h2::SendStream;

use super::body::Body;
use super::encoding::Encoding;
use super::error;
use super::status::{Code, Status};
use crate::incomplete::Share;
use crate::service::payload::{FRAME_LEN, Payload};
use crate::service::stream::{Gone, Inbound, Outbound};

/// Reads messages off a request body.
#[derive(Debug)]
pub struct MessageReader {
    body: Body,
    /// What has arrived and is not consumed; at most one message and one DATA frame.
    buffer: BytesMut,
    encoding: Encoding,
    message_bytes_max: usize,
    /// Room for `buffer` while what it begins is not complete.
    share: Share,
    ended: bool,
}

impl MessageReader {
    /// Reads from `body`, whose messages may be compressed with `encoding`, refusing messages above `message_bytes_max`, and those that `share` has no room for.
    pub fn new(body: Body, encoding: Encoding, message_bytes_max: usize, share: Share) -> Self {
        let buffer = BytesMut::new();
        Self { body, buffer, encoding, message_bytes_max, share, ended: false }
    }

    /// Reads the one message of a unary or server-streaming request.
    pub async fn only_message(&mut self) -> Result<Bytes, Status> {
        if let Some(message) = self.whole_frame_message().await? {
            return Ok(message);
        }
        // grpc-go answers a body that ends without a message so.
        self.message().await?.ok_or(Status::fixed(Code::Unknown, "EOF"))
    }

    /// The usual case without a copy: one DATA frame that holds exactly one message.
    async fn whole_frame_message(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(mut data) = self.data().await? else { return Ok(None) };
        if let Some((0, len)) = frame_of(&data)
            && data.len() == FRAME_LEN + len
            && len <= self.message_bytes_max
        {
            data.advance(FRAME_LEN);
            return Ok(Some(data));
        }
        self.buffer.extend_from_slice(&data);
        Ok(None)
    }

    /// Waits for the next DATA frame.
    async fn data(&mut self) -> Result<Option<Bytes>, Status> {
        if self.ended {
            return Ok(None);
        }
        match self.body.data().await {
            Some(Ok(data)) => Ok(Some(data)),
            Some(Err(_reset)) => Err(error::CANCELED),
            None => {
                self.ended = true;
                Ok(None)
            }
        }
    }

    fn take_buffered(&mut self) -> Result<Option<Bytes>, Status> {
        let Some((flag, len)) = frame_of(&self.buffer) else { return Ok(None) };
        let is_compressed = check_frame(flag, len, self.message_bytes_max)?;
        if self.buffer.len() < FRAME_LEN + len {
            return Ok(None);
        }
        self.buffer.advance(FRAME_LEN);
        let message = self.buffer.split_to(len);
        if is_compressed {
            return self.encoding.decode(&message, self.message_bytes_max).map(Some);
        }
        Ok(Some(message.freeze()))
    }
}

impl Inbound for MessageReader {
    async fn message(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            let message = self.take_buffered()?;
            let incomplete = if message.is_some() { 0 } else { self.buffer.capacity() };
            if !self.share.hold(incomplete) {
                return Err(error::TOO_MANY_INCOMPLETE);
            }
            if message.is_some() {
                return Ok(message);
            }
            match self.data().await? {
                Some(data) => self.buffer.extend_from_slice(&data),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Status::fixed(Code::Internal, "unexpected EOF")),
            }
        }
    }
}

/// Returns flag and length of the message that begins `data`, if its frame is complete.
fn frame_of(data: &[u8]) -> Option<(u8, usize)> {
    let (frame, _) = data.split_first_chunk::<FRAME_LEN>()?;
    let [flag, a, b, c, d] = *frame;
    Some((flag, u32::from_be_bytes([a, b, c, d]) as usize))
}

/// Tells whether the message is compressed.
fn check_frame(flag: u8, len: usize, max: usize) -> Result<bool, Status> {
    if flag > 1 {
        let text = format!("grpc: received unexpected payload format {flag}");
        return Err(Status::new(Code::Internal, text));
    }
    if len > max {
        return Err(error::message_too_large(len, max));
    }
    Ok(flag == 1)
}

/// Why a message was not sent to its end.
#[derive(Debug)]
pub enum Ended {
    /// The client is gone.
    Gone,
    /// The rest could not be produced.
    Unfinished(Status),
}

/// Writes messages to a response body.
#[derive(Debug)]
pub struct MessageWriter {
    stream: SendStream<Bytes>,
    /// Set with each DATA frame: it forgives the pings by which clients measure bandwidth meanwhile.
    answered: Rc<Cell<bool>>,
}

/// A message up to this size is handed over without waiting for window: it fits the windows that clients open with,
/// and at most one such message per stream can be in the connection's send buffer.
const UNPACED_BYTES_MAX: usize = 16 << 10;

impl MessageWriter {
    /// Writes to `stream`, whose headers are sent; sets `answered` with all that it sends.
    pub fn new(stream: SendStream<Bytes>, answered: Rc<Cell<bool>>) -> Self {
        Self { stream, answered }
    }

    fn send_data(&mut self, data: Bytes) -> Result<(), Gone> {
        self.answered.set(true);
        self.stream.send_data(data, false).map_err(|_closed| Gone)
    }

    /// Sends the one message of a unary response.
    pub async fn send_only(&mut self, mut payload: Payload) -> Result<(), Ended> {
        while let Some(piece) = payload.next_piece().await.map_err(Ended::Unfinished)? {
            if piece.len() <= UNPACED_BYTES_MAX {
                self.send_data(piece).map_err(|Gone| Ended::Gone)?;
            } else {
                self.send_paced(piece).await.map_err(|Gone| Ended::Gone)?;
            }
        }
        Ok(())
    }

    /// Sends `piece` as fast as the client opens its window.
    async fn send_paced(&mut self, mut piece: Bytes) -> Result<(), Gone> {
        while !piece.is_empty() {
            self.stream.reserve_capacity(piece.len());
            let capacity = match poll_fn(|context| self.stream.poll_capacity(context)).await {
                Some(Ok(capacity)) => capacity.min(piece.len()),
                Some(Err(_)) | None => return Err(Gone),
            };
            if capacity > 0 {
                self.send_data(piece.split_to(capacity))?;
            }
        }
        Ok(())
    }

    /// Ends the call.
    pub fn finish(mut self, trailers: http::HeaderMap) {
        // A client that is gone needs no trailers.
        drop(self.stream.send_trailers(trailers));
    }
}

impl Outbound for MessageWriter {
    async fn send(&mut self, mut payload: Payload) -> Result<(), Gone> {
        // Messages of streams are whole; one that cannot be sent ends the stream, lest it be missed.
        while let Some(piece) = payload.next_piece().await.map_err(|_status| Gone)? {
            self.send_paced(piece).await?;
        }
        Ok(())
    }

    async fn send_all(&mut self, payloads: &mut Vec<Payload>) -> Result<(), Gone> {
        if let [_only] = &payloads[..]
            && let Some(payload) = payloads.pop()
        {
            return self.send(payload).await;
        }
        let mut joined = BytesMut::new();
        for mut payload in payloads.drain(..) {
            while let Some(piece) = payload.next_piece().await.map_err(|_status| Gone)? {
                joined.extend_from_slice(&piece);
            }
        }
        self.send_paced(joined.freeze()).await
    }

    async fn gone(&mut self) {
        poll_fn(|context| match self.stream.poll_reset(context) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_refused_as_grpc_go_does() {
        assert_eq!(check_frame(0, 10, 10), Ok(false));
        let status = check_frame(0, 11, 10).expect_err("too large");
        assert_eq!(status.code, Code::ResourceExhausted);
        assert_eq!(status.message, "grpc: received message larger than max (11 vs. 10)");
        assert_eq!(check_frame(1, 10, 10), Ok(true));
        assert_eq!(check_frame(7, 1, 10).expect_err("unknown flag").code, Code::Internal);
    }
}
