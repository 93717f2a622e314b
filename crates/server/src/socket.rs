//! One accepted socket: TLS if asked for, then HTTP/2 or HTTP/1.1 by what the client says first.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::drain::Draining;
use crate::grpc;
use crate::http;
use crate::serve::Service;
use crate::service::{Remote, Services};

/// Time a client has, after the TLS handshake if there is one, to send as much as tells HTTP/2 from HTTP/1.1. Generous:
/// clients open connections ahead of need. From then on each protocol has times of its own.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(30);

/// What an HTTP/2 client sends first (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// First byte of a TLS handshake (RFC 8446 §5.1); neither HTTP/2 nor HTTP/1.1 begins with it.
const TLS_HANDSHAKE: u8 = 22;

/// An accepted socket on its way to a serving thread's runtime.
#[derive(Debug)]
pub enum Socket {
    /// TCP, with the client's address.
    Tcp(std::net::TcpStream, SocketAddr),
    /// A Unix domain socket.
    Unix(std::os::unix::net::UnixStream),
}

/// Serves one socket to its end.
pub async fn connection(
    socket: Socket,
    service: Service,
    services: Rc<Services>,
    draining: Draining,
) {
    let served = match socket {
        Socket::Tcp(stream, address) => tcp(stream, address, service, services, draining).await,
        Socket::Unix(stream) => match tokio::net::UnixStream::from_std(stream) {
            Ok(stream) => secured(stream, Remote::Local, service, services, draining).await,
            Err(error) => Err(error),
        },
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn tcp(
    stream: std::net::TcpStream,
    address: SocketAddr,
    service: Service,
    services: Rc<Services>,
    draining: Draining,
) -> io::Result<()> {
    let stream = tokio::net::TcpStream::from_std(stream)?;
    let service = match &service.plain {
        Some(plain) if !speaks_tls_within(FIRST_BYTES_TIMEOUT, &stream, &draining).await? => {
            Service::clone(plain)
        }
        _ => service,
    };
    secured(stream, Remote::Tcp(address), service, services, draining).await
}

/// Tells by the first byte, which stays where it is, whether a client begins a TLS handshake.
async fn speaks_tls_within(
    patience: Duration,
    stream: &tokio::net::TcpStream,
    draining: &Draining,
) -> io::Result<bool> {
    let mut first = [0];
    let read = tokio::select! {
        read = tokio::time::timeout(patience, stream.peek(&mut first)) => read,
        () = draining.clone().wait() => return Err(io::ErrorKind::ConnectionAborted.into()),
    };
    match read {
        Ok(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(Ok(_)) => Ok(first == [TLS_HANDSHAKE]),
        Ok(Err(error)) => Err(error),
        Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn secured<T>(
    stream: T,
    remote: Remote,
    service: Service,
    services: Rc<Services>,
    draining: Draining,
) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let Some(tls) = &service.tls else {
        return negotiated(stream, remote, &service, services, draining).await;
    };
    match tls.accept(stream, &remote).await {
        Some(stream) => negotiated(stream, remote, &service, services, draining).await,
        None => Ok(()),
    }
}

/// Tells HTTP/2 from HTTP/1.1 by the first bytes and serves either, if the listener has it.
async fn negotiated<T>(
    mut stream: T,
    remote: Remote,
    service: &Service,
    services: Rc<Services>,
    draining: Draining,
) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let first = tokio::select! {
        first = first_bytes_within(FIRST_BYTES_TIMEOUT, &mut stream) => first?,
        () = draining.clone().wait() => return Ok(()),
    };
    let is_http2 = first.starts_with(PREFACE);
    let stream = Prefixed { first, stream };
    match &service.pages {
        Some(pages) if !is_http2 => {
            http::serve(stream, remote, services, std::sync::Arc::clone(pages), draining).await
        }
        _ if is_http2 && (service.grpc || service.tls.is_some()) => {
            // In plain text every HTTP/2 connection is gRPC; under TLS pages are reached over it too.
            let pages = service.pages.clone().filter(|_| service.tls.is_some());
            let doors = grpc::connection::Doors { grpc: service.grpc, pages, remote };
            grpc::connection::serve(stream, services, doors, draining).await;
            Ok(())
        }
        _ => Ok(()),
    }
}

async fn first_bytes_within<T: AsyncRead + Unpin>(
    patience: Duration,
    stream: &mut T,
) -> io::Result<Bytes> {
    let first = tokio::time::timeout(patience, first_bytes(stream));
    first.await.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
}

/// Reads until the preface is complete or cannot be one any more.
async fn first_bytes<T: AsyncRead + Unpin>(stream: &mut T) -> io::Result<Bytes> {
    let mut first = BytesMut::with_capacity(PREFACE.len());
    while first.len() < PREFACE.len() && PREFACE.starts_with(&first) {
        let mut rest = (&mut *stream).take((PREFACE.len() - first.len()) as u64);
        if rest.read_buf(&mut first).await? == 0 {
            break;
        }
    }
    Ok(first.freeze())
}

/// A stream whose first bytes were read already.
#[derive(Debug)]
struct Prefixed<T> {
    first: Bytes,
    stream: T,
}

impl<T: AsyncRead + Unpin> AsyncRead for Prefixed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let taken = self.first.len().min(buf.remaining());
            buf.put_slice(&self.first[..taken]);
            self.first.advance(taken);
            if buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            // What else is there joins; what is not there is no reason to wait.
            return match Pin::new(&mut self.stream).poll_read(cx, buf) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
            };
        }
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Prefixed<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(future)
    }

    #[test]
    fn http_1_is_told_from_http_2_and_no_byte_is_lost() {
        block_on(async {
            for text in [
                &b"GET /health HTTP/1.1\r\n"[..],
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nframes",
                b"PRI",
                b"",
            ] {
                let mut stream = text;
                let first = first_bytes(&mut stream).await.expect("in memory");
                assert_eq!(first.starts_with(PREFACE), text.starts_with(PREFACE));
                let mut all = Vec::new();
                Prefixed { first, stream }.read_to_end(&mut all).await.expect("in memory");
                assert_eq!(all, text);
            }
        });
    }

    #[test]
    fn whoever_says_too_little_is_not_waited_for_without_end() {
        block_on(async {
            let patience = Duration::from_millis(20);
            for said in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n"] {
                let (mut client, mut stream) = tokio::io::duplex(64);
                tokio::io::AsyncWriteExt::write_all(&mut client, said).await.expect("room");
                let error =
                    first_bytes_within(patience, &mut stream).await.expect_err("too little");
                assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{said:?}");
                tokio::io::AsyncWriteExt::write_all(&mut client, b"GET").await.expect("room");
                assert!(first_bytes_within(patience, &mut stream).await.is_ok(), "{said:?}");
            }
        });
    }
}
