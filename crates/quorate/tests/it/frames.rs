//! HTTP/2 by hand (RFC 9113): whatever bytes a test wants to send.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;

use crate::client::in_time;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// The error code that tells a client to behave.
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame with its header.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("small").to_be_bytes();
    let mut bytes = vec![len[1], len[2], len[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block (RFC 7541) of literals without indexing.
pub(crate) fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in headers {
        bytes.push(0);
        for text in [name, value] {
            push_length(&mut bytes, text.len());
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// An integer with a prefix of seven bits.
fn push_length(bytes: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return bytes.push(length as u8);
    }
    bytes.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
}

/// The headers of a gRPC call.
pub(crate) fn call(path: &str) -> Vec<u8> {
    block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ])
}

/// A gRPC message with its five bytes of frame.
pub(crate) fn message(body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(body.len()).expect("small").to_be_bytes());
    bytes.extend(body);
    bytes
}

/// What a server said on a connection.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Error code and debug data of its farewell.
    pub(crate) goaway: Option<(u32, String)>,
    /// Frames by kind.
    pub(crate) frames: [u64; 16],
}

/// A connection whose inbound side is read to its end by a task.
#[derive(Debug)]
pub(crate) struct Connection {
    write: OwnedWriteHalf,
    /// Bytes of DATA that the server has room for.
    window: Arc<AtomicI64>,
    reader: JoinHandle<Heard>,
}

impl Connection {
    /// Connects and sends preface and SETTINGS; answers neither SETTINGS nor PING.
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let (read, mut write) = TcpStream::connect(address).await.expect("it listens").into_split();
        write.write_all(PREFACE).await.expect("open");
        write.write_all(&frame(SETTINGS, 0, 0, &[])).await.expect("open");
        write.write_all(&frame(SETTINGS, ACK, 0, &[])).await.expect("open");
        let window = Arc::new(AtomicI64::new(65_535));
        let reader = tokio::spawn(hear(read, Arc::clone(&window)));
        Self { write, window, reader }
    }

    /// Sends bytes; false when the server has closed.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        in_time("room to send", self.write.write_all(bytes)).await.is_ok()
    }

    /// Waits until the server has room for so many bytes of DATA, and counts them as sent; false when it has closed.
    pub(crate) async fn room(&self, bytes: i64) -> bool {
        in_time("room for DATA", async {
            while self.window.load(Ordering::Relaxed) < bytes && !self.reader.is_finished() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        self.window.fetch_sub(bytes, Ordering::Relaxed) >= bytes
    }

    /// Sends `bytes` up to `count` times; false when the server has closed meanwhile.
    pub(crate) async fn repeat(&mut self, bytes: &[u8], count: usize) -> bool {
        let batch = bytes.repeat(64);
        for _ in 0..count.div_ceil(64) {
            if !self.send(&batch).await {
                return false;
            }
        }
        true
    }

    /// Waits until the server closes.
    pub(crate) async fn closed(self) -> Heard {
        in_time("the connection's end", self.reader).await.expect("no panic")
    }

    /// Closes and gives what was heard.
    pub(crate) async fn close(self) -> Heard {
        let Self { write, reader, .. } = self;
        drop(write);
        in_time("the connection's end", reader).await.expect("no panic")
    }
}

async fn hear(mut read: OwnedReadHalf, window: Arc<AtomicI64>) -> Heard {
    let mut heard = Heard::default();
    let mut header = [0; 9];
    while read.read_exact(&mut header).await.is_ok() {
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let mut payload = vec![0; length];
        if read.read_exact(&mut payload).await.is_err() {
            break;
        }
        let kind = header[3];
        if let (WINDOW_UPDATE, [0, 0, 0, 0], [a, b, c, d]) = (kind, &header[5..], &payload[..]) {
            let more = u32::from_be_bytes([*a, *b, *c, *d]);
            window.fetch_add(i64::from(more), Ordering::Relaxed);
        }
        heard.frames[usize::from(kind.min(15))] += 1;
        if let (GOAWAY, Some((code, text))) =
            (kind, payload.get(4..).and_then(|rest| rest.split_first_chunk()))
        {
            heard.goaway =
                Some((u32::from_be_bytes(*code), String::from_utf8_lossy(text).into_owned()));
        }
    }
    heard
}
