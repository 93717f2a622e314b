//! A whole gRPC connection: any frames behind the client's preface, in pieces, through the frame guard, the HTTP/2 library,
//! message framing and the services.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use server::grpc::connection::{self, Doors};
use server::service::Remote;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::input::Input;
use crate::world::World;

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;

/// Runs the target.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mode = input.byte();
    let piece_bytes = usize::from(input.byte()) + 1;
    let mut bytes = PREFACE.to_vec();
    match mode {
        0 => bytes.extend_from_slice(input.rest()),
        1 => bytes = input.rest().to_vec(),
        _ => frames(&mut input, &mut bytes),
    }
    let io = Scripted { bytes, at: 0, piece_bytes };
    let world = World::new();
    let services = Rc::clone(&world.services);
    let draining = world.draining.clone();
    let pages = (mode & 2 == 0).then(World::pages);
    let doors = Doors { grpc: mode & 4 == 0, pages, remote: Remote::Local };
    world.run(async move { connection::serve(io, services, doors, draining).await });
}

/// Frames whose lengths are right: type, flags, stream, payload.
fn frames(input: &mut Input<'_>, bytes: &mut Vec<u8>) {
    while !input.is_empty() {
        let (kind, flags, stream) = (input.byte(), input.byte(), input.number());
        let payload = input.piece();
        let [_, len @ ..] = u32::try_from(payload.len()).expect("pieces are short").to_be_bytes();
        let stream = u32::try_from(stream & u64::from(u32::MAX)).expect("masked").to_be_bytes();
        bytes.reserve(FRAME_HEADER_BYTES + payload.len());
        bytes.extend(len);
        bytes.extend([kind, flags]);
        bytes.extend(stream);
        bytes.extend_from_slice(payload);
    }
}

/// A client that sends its script in pieces, ends, and takes whatever comes.
pub(crate) struct Scripted {
    pub(crate) bytes: Vec<u8>,
    pub(crate) at: usize,
    pub(crate) piece_bytes: usize,
}

impl AsyncRead for Scripted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let end = self.bytes.len().min(self.at + self.piece_bytes.min(buf.remaining()));
        buf.put_slice(&self.bytes[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Scripted {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
