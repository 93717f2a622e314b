//! All frames of one turn of a connection leave in one write (design §3).
//!
//! The HTTP/2 library flushes after nearly every DATA frame, which costs a system call and a TCP segment each. Here its
//! writes are collected, and the connection's task sends them when the library has nothing more to say: a turn that
//! answers eight requests makes one write.
//!
//! A turn that has collected `TURN_WRITE_BYTES_MAX` ends there: a connection that has a long list to send lets the others of
//! its thread have their turns, and the runtime look after sockets, before it goes on.
//!
//! Reading is bounded per turn too: the library parses all that it can read before a call sees any of it, and keeps the
//! room that its queue of frames once took, which for a burst of small messages is many times their length.
//!
//! Bound: the buffer takes `TURN_WRITE_BYTES_MAX` and what one write brings beyond.

use std::cell::{Ref, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes collected after which the library has to wait for the next turn: a socket takes them in about 50 µs.
const TURN_WRITE_BYTES_MAX: usize = 64 << 10;
/// Bytes after which reading waits for the next turn: calls take theirs first. The library reads 8 KiB at a time or more,
/// less what begins a frame: one such read is enough for a turn.
const TURN_READ_BYTES_MAX: usize = 4 << 10;
/// A buffer larger than this is given back when it is empty: idle connections hold little.
const BUFFER_BYTES_KEPT: usize = 16 << 10;

/// The library's end: collects writes.
#[derive(Debug)]
pub struct Coalesced<T> {
    shared: Rc<RefCell<Shared<T>>>,
}

/// The connection task's end: sends what was collected.
#[derive(Debug)]
pub struct Flusher<T> {
    shared: Rc<RefCell<Shared<T>>>,
}

#[derive(Debug)]
struct Shared<T> {
    io: T,
    out: BytesMut,
    /// Bytes read in this turn.
    read: usize,
}

/// Splits `io` into the two ends.
pub fn coalesce<T>(io: T) -> (Coalesced<T>, Flusher<T>) {
    let shared = Rc::new(RefCell::new(Shared { io, out: BytesMut::new(), read: 0 }));
    (Coalesced { shared: Rc::clone(&shared) }, Flusher { shared })
}

impl<T> Flusher<T> {
    /// What the frames go to.
    pub fn io(&self) -> Ref<'_, T> {
        Ref::map(self.shared.borrow(), |shared| &shared.io)
    }

    /// Adds a frame behind those of the library.
    pub fn push(&self, frame: &[u8]) {
        self.shared.borrow_mut().out.extend_from_slice(frame);
    }
}

impl<T: AsyncWrite + Unpin> Flusher<T> {
    /// Ends the turn: writes what was collected; pending while the socket takes no more.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.shared.borrow_mut();
        shared.read = 0;
        shared.poll_send(cx)
    }
}

impl<T: AsyncWrite + Unpin> Shared<T> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
        }
        if self.out.capacity() > BUFFER_BYTES_KEPT {
            self.out = BytesMut::new();
        } else {
            // Everything is written: the buffer begins at its start again.
            self.out.clear();
        }
        Poll::Ready(Ok(()))
    }

    /// Ready if there is room; if not, there is after the end of the turn.
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.len() < TURN_WRITE_BYTES_MAX {
            return Poll::Ready(Ok(()));
        }
        // Wakes the connection only after the runtime has looked at all sockets.
        let yielded = std::pin::pin!(tokio::task::yield_now());
        yielded.poll(cx).map(Ok)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Coalesced<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut shared = self.shared.borrow_mut();
        if shared.read >= TURN_READ_BYTES_MAX {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut shared.io).poll_read(cx, buf);
        shared.read += buf.filled().len() - before;
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Coalesced<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut shared = self.shared.borrow_mut();
        ready!(shared.poll_room(cx))?;
        shared.out.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut shared = self.shared.borrow_mut();
        ready!(shared.poll_room(cx))?;
        for slice in bufs {
            shared.out.extend_from_slice(slice);
        }
        Poll::Ready(Ok(bufs.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Does nothing: the connection's task flushes at the end of its turn.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.shared.borrow_mut();
        ready!(shared.poll_send(cx))?;
        Pin::new(&mut shared.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    #[derive(Debug, Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Takes what it is given, up to a bound, and counts the calls. There is always something to read.
    #[derive(Debug, Default)]
    struct Socket {
        written: Vec<u8>,
        calls: usize,
        room: usize,
    }

    impl AsyncWrite for Socket {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = buf.len().min(self.room);
            if taken == 0 {
                return Poll::Pending;
            }
            self.calls += 1;
            self.room -= taken;
            self.written.extend_from_slice(&buf[..taken]);
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncRead for Socket {
        fn poll_read(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            buf.put_slice(&vec![7; buf.remaining()]);
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_turn_reads_little_and_the_next_goes_on() {
        let (mut ours, flusher) = coalesce(Socket::default());
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let mut room = [0; TURN_READ_BYTES_MAX / 2];
        for _turn in 0..3 {
            let mut reads = 0;
            let mut buf = ReadBuf::new(&mut room);
            while Pin::new(&mut ours).poll_read(&mut cx, &mut buf).is_ready() {
                buf.clear();
                reads += 1;
            }
            assert_eq!(reads, 2);
            assert!(woken.0.swap(false, Ordering::Relaxed), "nobody else would");
            assert!(flusher.poll_flush(&mut cx).is_ready());
        }
    }

    #[test]
    fn a_turn_is_one_write() {
        let (mut ours, flusher) = coalesce(Socket { room: usize::MAX, ..Socket::default() });
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..8 {
            assert!(Pin::new(&mut ours).poll_write(&mut cx, b"frame").is_ready());
            assert!(Pin::new(&mut ours).poll_flush(&mut cx).is_ready());
        }
        assert!(flusher.poll_flush(&mut cx).is_ready());
        let shared = flusher.shared.borrow();
        assert_eq!((shared.io.calls, shared.io.written.len()), (1, 40));
    }

    #[test]
    fn a_turn_writes_little_and_the_next_goes_on() {
        let (mut ours, flusher) = coalesce(Socket { room: usize::MAX, ..Socket::default() });
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        for turn in 1..4 {
            while Pin::new(&mut ours).poll_write(&mut cx, &[0; 4096]).is_ready() {}
            assert!(woken.0.swap(false, Ordering::Relaxed), "nobody else would");
            assert!(flusher.poll_flush(&mut cx).is_ready());
            let shared = flusher.shared.borrow();
            assert_eq!(shared.io.calls, turn);
            assert_eq!(shared.io.written.len(), turn * TURN_WRITE_BYTES_MAX);
        }
    }

    #[test]
    fn a_socket_that_takes_nothing_holds_the_library_back() {
        let (mut ours, flusher) = coalesce(Socket::default());
        let mut cx = Context::from_waker(Waker::noop());
        let data = [0; 4096];
        let mut accepted = 0;
        while Pin::new(&mut ours).poll_write(&mut cx, &data).is_ready() {
            accepted += data.len();
        }
        assert_eq!(accepted, TURN_WRITE_BYTES_MAX);
        assert!(flusher.poll_flush(&mut cx).is_pending());
        flusher.shared.borrow_mut().io.room = usize::MAX;
        assert!(flusher.poll_flush(&mut cx).is_ready());
        assert_eq!(flusher.shared.borrow().io.written.len(), accepted);
    }
}
