//! Watches the HTTP/2 frames that a client sends and ends connections that abuse the protocol.
//!
//! The HTTP/2 library answers PING and SETTINGS itself and bounds resets, header lists and empty DATA; what it cannot
//! know is how often a client may ping (`--grpc-keepalive-min-time`). This wrapper reads the nine-byte frame headers that
//! pass by, skips payloads, and counts. It never delays or changes a byte.
//!
//! As in grpc-go, whatever the server sends on a stream forgives earlier pings: clients measure bandwidth with them.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Length of the client connection preface (RFC 9113 §3.4).
const PREFACE_LEN: usize = 24;
const FRAME_HEADER_LEN: usize = 9;
/// Frame types (RFC 9113 §6).
const PING: u8 = 6;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;

/// Pings that come too early before the connection is closed; grpc-go's value.
const PING_STRIKES_MAX: u32 = 2;
/// The GOAWAY frame that tells so, with the code and text that clients of grpc-go answer by pinging more rarely. It
/// takes back no stream: its last one is the highest there is.
const TOO_MANY_PINGS: &[u8; 31] = b"\0\0\x16\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\x0btoo_many_pings";
/// SETTINGS frames a client may send per second; each makes the server answer.
const SETTINGS_PER_SECOND_MAX: u32 = 100;

/// A transport whose inbound frames are counted.
#[derive(Debug)]
pub struct Guarded<T> {
    io: T,
    position: Position,
    rules: Rules,
}

#[derive(Debug)]
enum Position {
    /// This many bytes of the preface or a payload are still to skip.
    Skip(usize),
    /// This many bytes of a frame header have arrived.
    Header([u8; FRAME_HEADER_LEN], usize),
}

#[derive(Debug)]
struct Rules {
    /// Shortest time between pings, `None` for no enforcement.
    ping_interval_min: Option<Duration>,
    last_ping: Option<Instant>,
    strikes: u32,
    /// Set by the door whenever it sends on a stream.
    answered: Rc<Cell<bool>>,
    settings: u32,
    settings_since: Instant,
}

impl<T> Guarded<T> {
    /// Guards `io`; a client may ping once per `ping_interval_min`, or as it likes when that is zero.
    /// `answered` is set by the door whenever it sends headers or data.
    pub fn new(io: T, ping_interval_min: Duration, answered: Rc<Cell<bool>>) -> Self {
        let rules = Rules {
            ping_interval_min: (!ping_interval_min.is_zero()).then_some(ping_interval_min),
            last_ping: None,
            strikes: 0,
            answered,
            settings: 0,
            settings_since: Instant::now(),
        };
        Self { io, position: Position::Skip(PREFACE_LEN), rules }
    }

    /// The last frame for a client whose connection was ended for its pings.
    pub fn farewell(&self) -> Option<&'static [u8]> {
        (self.rules.strikes > PING_STRIKES_MAX).then_some(TOO_MANY_PINGS)
    }

    fn inspect(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match &mut self.position {
                Position::Skip(rest) => {
                    let skipped = bytes.len().min(*rest);
                    bytes = &bytes[skipped..];
                    *rest -= skipped;
                    if *rest == 0 {
                        self.position = Position::Header([0; FRAME_HEADER_LEN], 0);
                    }
                }
                Position::Header(header, filled) => {
                    let taken = bytes.len().min(FRAME_HEADER_LEN - *filled);
                    header[*filled..*filled + taken].copy_from_slice(&bytes[..taken]);
                    *filled += taken;
                    bytes = &bytes[taken..];
                    if *filled == FRAME_HEADER_LEN {
                        let [a, b, c, kind, flags, ..] = *header;
                        let len = u32::from_be_bytes([0, a, b, c]) as usize;
                        self.rules.count(kind, flags)?;
                        self.position = match len {
                            0 => Position::Header([0; FRAME_HEADER_LEN], 0),
                            _ => Position::Skip(len),
                        };
                    }
                }
            }
        }
        Ok(())
    }
}

impl Rules {
    fn count(&mut self, kind: u8, flags: u8) -> io::Result<()> {
        match kind {
            PING if flags & ACK == 0 => self.count_ping(Instant::now()),
            SETTINGS if flags & ACK == 0 => self.count_settings(Instant::now()),
            _ => Ok(()),
        }
    }

    fn count_ping(&mut self, now: Instant) -> io::Result<()> {
        let Some(interval) = self.ping_interval_min else { return Ok(()) };
        let early = self.last_ping.is_some_and(|last| now.duration_since(last) < interval);
        self.last_ping = Some(now);
        if self.answered.take() || !early {
            self.strikes = 0;
            return Ok(());
        }
        self.strikes += 1;
        if self.strikes > PING_STRIKES_MAX {
            return Err(io::Error::other("too many pings"));
        }
        Ok(())
    }

    fn count_settings(&mut self, now: Instant) -> io::Result<()> {
        if now.duration_since(self.settings_since) >= Duration::from_secs(1) {
            self.settings = 0;
            self.settings_since = now;
        }
        self.settings += 1;
        if self.settings > SETTINGS_PER_SECOND_MAX {
            return Err(io::Error::other("too many SETTINGS frames"));
        }
        Ok(())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        Poll::Ready(self.inspect(&buf.filled()[before..]))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(len: usize, kind: u8, flags: u8) -> Vec<u8> {
        let len = u32::try_from(len).expect("small").to_be_bytes();
        let mut bytes = vec![len[1], len[2], len[3], kind, flags, 0, 0, 0, 0];
        bytes.extend(vec![0xff; usize::from(len[3])]);
        bytes
    }

    #[test]
    fn early_pings_strike_out_whatever_way_the_bytes_are_cut() {
        for cut in [1, 2, 7, 1000] {
            let mut guarded = Guarded::new((), Duration::from_secs(5), Rc::default());
            let mut bytes = vec![b'P'; PREFACE_LEN];
            for _ in 0..3 {
                bytes.extend(frame(11, 0, 0));
                bytes.extend(frame(8, PING, 0));
                bytes.extend(frame(8, PING, ACK));
            }
            assert!(bytes.chunks(cut).all(|piece| guarded.inspect(piece).is_ok()));
            assert_eq!(guarded.farewell(), None);
            assert!(guarded.inspect(&frame(8, PING, 0)).is_err());
            assert!(guarded.farewell().is_some_and(|frame| frame.ends_with(b"too_many_pings")));
        }
    }

    #[test]
    fn answers_forgive_pings() {
        let answered = Rc::new(Cell::new(false));
        let mut guarded = Guarded::new((), Duration::from_secs(5), Rc::clone(&answered));
        guarded.inspect(&[0; PREFACE_LEN]).expect("preface");
        for _ in 0..100 {
            answered.set(true);
            guarded.inspect(&frame(8, PING, 0)).expect("forgiven");
        }
    }

    #[test]
    fn without_enforcement_pings_are_free_but_settings_floods_are_not() {
        let mut guarded = Guarded::new((), Duration::ZERO, Rc::default());
        guarded.inspect(&[0; PREFACE_LEN]).expect("preface");
        for _ in 0..1000 {
            guarded.inspect(&frame(8, PING, 0)).expect("pings are free");
        }
        let flood =
            (0..=SETTINGS_PER_SECOND_MAX).any(|_| guarded.inspect(&frame(0, SETTINGS, 0)).is_err());
        assert!(flood);
    }
}
