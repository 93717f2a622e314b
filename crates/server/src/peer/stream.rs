//! The sending end of a stream: the body of an answer that never ends by itself (`spec/peer-protocol.md` §3).
//!
//! A message is encoded into the stream's buffer as soon as it is given, and the connection takes the buffer whenever it
//! can write: one copy, and one chunk for all that came meanwhile. Bounds: `BUFFER_BYTES_MAX`; a message that finds no
//! room is lost, and raft is told. A connection that takes nothing for [`STALL_MAX`] is cut.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use proto::raftpb;
use tokio::sync::Notify;

use super::codec::{Encoder, Kind};
use crate::metrics::PeerFigures;

/// Bytes that wait for a connection, from which further messages are lost.
const BUFFER_BYTES_MAX: usize = 32 << 20;

/// Bytes that a connection takes at a time.
const FRAME_BYTES: usize = 256 << 10;

/// A buffer that has grown beyond this is not kept for what comes next.
const BUFFER_BYTES_KEPT: usize = 256 << 10;

/// Time in which a connection has to take something, as etcd has it.
pub const STALL_MAX: Duration = Duration::from_secs(5);

/// Time between signs of life.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(5000 / 3);

/// Puts messages on one stream. Dropping it ends the stream in order.
#[derive(Debug)]
pub struct Sender {
    shared: Rc<RefCell<Shared>>,
    /// Cuts the connection.
    cut: Rc<Notify>,
}

/// The body that the connection sends.
#[derive(Debug)]
pub struct Body {
    shared: Rc<RefCell<Shared>>,
}

#[derive(Debug)]
struct Shared {
    figures: Arc<PeerFigures>,
    encoder: Encoder,
    buffer: BytesMut,
    /// Since when something waits.
    waits_since: Option<Instant>,
    waker: Option<Waker>,
    /// Nothing more will come.
    ended: bool,
    /// The connection is gone.
    gone: bool,
}

/// Starts a stream on a connection that `cut` ends at once.
pub fn channel(kind: Kind, cut: Rc<Notify>, figures: Arc<PeerFigures>) -> (Sender, Body) {
    let shared = Rc::new(RefCell::new(Shared {
        figures,
        encoder: Encoder::new(kind),
        buffer: BytesMut::new(),
        waits_since: None,
        waker: None,
        ended: false,
        gone: false,
    }));
    (Sender { shared: Rc::clone(&shared), cut }, Body { shared })
}

impl Sender {
    /// Sends a message; false when it is lost.
    pub fn send(&self, message: &raftpb::Message) -> bool {
        let mut shared = self.shared.borrow_mut();
        if shared.gone || shared.buffer.len() > BUFFER_BYTES_MAX {
            return false;
        }
        shared.put(|encoder, buffer| encoder.encode(message, buffer));
        true
    }

    /// Sends a sign of life. False when the stream is of no use any more.
    pub fn beat(&self, now: Instant) -> bool {
        let mut shared = self.shared.borrow_mut();
        if shared.waits_since.is_some_and(|since| now.duration_since(since) > STALL_MAX) {
            self.cut.notify_one();
            return false;
        }
        if !shared.gone && shared.buffer.is_empty() {
            shared.put(|encoder, buffer| encoder.encode_heartbeat(buffer));
        }
        !shared.gone
    }

    /// Ends the stream in order: what waits for the connection still leaves it, if that is done by [`STALL_MAX`] from now.
    pub fn end(&self, now: Instant) {
        let mut shared = self.shared.borrow_mut();
        shared.ended = true;
        shared.waits_since = Some(now);
        shared.wake();
    }

    /// Cuts a stream that was ended and is not gone in time. False once it is.
    pub fn wind_down(&self, now: Instant) -> bool {
        let shared = self.shared.borrow();
        let is_late = shared.waits_since.is_some_and(|since| now.duration_since(since) > STALL_MAX);
        if is_late && !shared.gone {
            self.cut.notify_one();
        }
        !shared.gone && !is_late
    }

    /// Tells whether the connection is there.
    pub fn is_attached(&self) -> bool {
        !self.shared.borrow().gone
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let mut shared = self.shared.borrow_mut();
        shared.ended = true;
        shared.wake();
    }
}

impl Shared {
    fn put(&mut self, encode: impl FnOnce(&mut Encoder, &mut BytesMut)) {
        encode(&mut self.encoder, &mut self.buffer);
        self.waits_since.get_or_insert_with(Instant::now);
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Gives the connection time anew, unless the stream has ended: then all has to leave in time.
    fn note_progress(&mut self, waits_since: Option<Instant>) {
        if !self.ended {
            self.waits_since = waits_since;
        }
    }

    /// Takes what the connection is to send next: little enough that it comes back soon if bytes leave at all.
    fn take(&mut self) -> Bytes {
        if self.buffer.len() > FRAME_BYTES {
            self.note_progress(Some(Instant::now()));
            return self.buffer.split_to(FRAME_BYTES).freeze();
        }
        self.note_progress(None);
        if self.buffer.capacity() > BUFFER_BYTES_KEPT {
            return std::mem::take(&mut self.buffer).freeze();
        }
        self.buffer.split().freeze()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut shared = self.shared.borrow_mut();
        if !shared.buffer.is_empty() {
            let taken = shared.take();
            shared.figures.sent(taken.len());
            return Poll::Ready(Some(Ok(Frame::data(taken))));
        }
        if shared.ended {
            return Poll::Ready(None);
        }
        shared.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let mut shared = self.shared.borrow_mut();
        shared.gone = true;
        shared.buffer = BytesMut::new();
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;

    fn message(bytes: usize) -> raftpb::Message {
        let context = vec![0; bytes].into();
        raftpb::Message { from: 1, to: 2, context, ..raftpb::Message::default() }
    }

    fn poll(body: &mut Body) -> Poll<Option<usize>> {
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(body).poll_frame(&mut context).map(|frame| {
            let Ok(frame) = frame?;
            frame.into_data().ok().map(|data| data.len())
        })
    }

    #[test]
    fn what_came_meanwhile_is_one_chunk_and_the_end_follows_it() {
        let (sender, mut body) = channel(Kind::Message, Rc::default(), Arc::default());
        assert_eq!(poll(&mut body), Poll::Pending);
        assert!(sender.send(&message(10)) && sender.send(&message(10)));
        let Poll::Ready(Some(bytes)) = poll(&mut body) else { panic!("two messages") };
        assert!(bytes > 20);
        assert_eq!(poll(&mut body), Poll::Pending);
        assert!(sender.send(&message(10)));
        drop(sender);
        assert_eq!(poll(&mut body), Poll::Ready(Some(bytes / 2)));
        assert_eq!(poll(&mut body), Poll::Ready(None));
    }

    #[test]
    fn a_stream_that_is_full_or_gone_takes_nothing() {
        let (sender, body) = channel(Kind::Message, Rc::default(), Arc::default());
        assert!(sender.send(&message(BUFFER_BYTES_MAX)));
        assert!(!sender.send(&message(1)));
        drop(body);
        assert!(!sender.send(&message(1)) && !sender.beat(Instant::now()));
        assert!(!sender.is_attached());
    }

    #[test]
    fn a_stream_beats_when_it_is_idle_and_is_cut_when_nobody_reads() {
        let (sender, mut body) = channel(Kind::MsgApp, Rc::default(), Arc::default());
        let now = Instant::now();
        assert!(sender.beat(now) && sender.beat(now));
        assert_eq!(poll(&mut body), Poll::Ready(Some(1)), "one is enough");
        assert!(sender.beat(now + 2 * STALL_MAX), "nothing waits");
        assert!(!sender.beat(Instant::now() + 2 * STALL_MAX));
    }

    #[test]
    fn a_stream_that_was_ended_leaves_in_time_or_is_cut() {
        let now = Instant::now();
        let (sender, mut body) = channel(Kind::Message, Rc::default(), Arc::default());
        assert!(sender.send(&message(2 * FRAME_BYTES)));
        sender.end(now);
        assert!(matches!(poll(&mut body), Poll::Ready(Some(FRAME_BYTES))), "a part of it");
        assert!(sender.wind_down(now + STALL_MAX), "the rest has time");
        assert!(!sender.wind_down(now + 2 * STALL_MAX), "it was cut");
        drop(body);
        let (sender, body) = channel(Kind::Message, Rc::default(), Arc::default());
        sender.end(now);
        drop(body);
        assert!(!sender.wind_down(now), "it is gone");
    }
}
