//! HTTP requests to other members: connections, and answers that are bounded in time.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use socket2::TcpKeepalive;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::config::Url;
use crate::http::body::Answer;
use crate::incomplete::Share;

/// When the system asks whether the other side of a silent connection is still there: whoever has lost its power says nothing.
const KEEP_ALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(5));

/// A connection to a member, free for a request.
pub type Connection = SendRequest<Answer>;

/// Connects to a member's peer URL. The connection lives as a task of this thread until the last use of it ends.
pub async fn connect(url: &Url, patience: Duration) -> io::Result<Connection> {
    tokio::time::timeout(patience, connected(url))
        .await
        .unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
}

async fn connected(url: &Url) -> io::Result<Connection> {
    if url.is_secure() {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "TLS between members is not supported by this version of Quorate yet",
        ));
    }
    if url.is_unix() {
        return shake_hands(UnixStream::connect(url.address()).await?).await;
    }
    let stream = TcpStream::connect(url.address()).await?;
    stream.set_nodelay(true)?;
    socket2::SockRef::from(&stream).set_tcp_keepalive(&KEEP_ALIVE)?;
    shake_hands(stream).await
}

/// Speaks HTTP over a connection that is there.
pub async fn shake_hands<T>(stream: T) -> io::Result<Connection>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to a member ended early");
        }
    });
    Ok(sender)
}

/// Makes a request to `url`; `headers` introduce this member.
pub fn request(
    method: Method,
    url: &Url,
    path: &str,
    headers: HeaderMap,
    body: Bytes,
) -> Request<Answer> {
    streamed(method, url, path, headers, Answer::from(body))
}

/// Like [`request`], with a body that may come bit by bit.
pub fn streamed(
    method: Method,
    url: &Url,
    path: &str,
    headers: HeaderMap,
    body: Answer,
) -> Request<Answer> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    // Paths are put together from fixed texts and ids; one that is no path asks for nothing that anybody has.
    *request.uri_mut() = path.parse().unwrap_or_default();
    *request.headers_mut() = headers;
    let host = if url.is_unix() { "localhost".to_owned() } else { url.address() };
    request.headers_mut().insert(http::header::HOST, super::admission::value(&host));
    request
}

/// Sends a request on a connection and waits for the head of the answer.
pub async fn send(
    connection: &mut Connection,
    request: Request<Answer>,
    patience: Duration,
) -> io::Result<Response<Incoming>> {
    let answer = async {
        connection.ready().await?;
        connection.send_request(request).await
    };
    match tokio::time::timeout(patience, answer).await {
        Ok(answer) => answer.map_err(io::Error::other),
        Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Collects a body of at most `bytes_max`. However small the pieces are in which it comes, it takes its bytes and no more.
pub async fn collect(body: Incoming, bytes_max: usize, patience: Duration) -> io::Result<Bytes> {
    collect_if(body, bytes_max, patience, |_capacity| true).await
}

/// Like [`collect`], of bytes that count against what many hold together.
pub async fn collect_shared(
    body: Incoming,
    bytes_max: usize,
    patience: Duration,
    mut share: Share,
) -> io::Result<Bytes> {
    collect_if(body, bytes_max, patience, |capacity| share.hold(capacity)).await
}

async fn collect_if(
    mut body: Incoming,
    bytes_max: usize,
    patience: Duration,
    mut may_hold: impl FnMut(usize) -> bool,
) -> io::Result<Bytes> {
    let collected = async {
        let mut all = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let piece = frame.map_err(io::Error::other)?.into_data().unwrap_or_default();
            if all.len() + piece.len() > bytes_max {
                return Err(io::Error::other("the answer is too long"));
            }
            all.extend_from_slice(&piece);
            if !may_hold(all.capacity()) {
                return Err(io::Error::other("too many long answers at a time"));
            }
        }
        Ok(all.freeze())
    };
    match tokio::time::timeout(patience, collected).await {
        Ok(collected) => collected,
        Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
    }
}
