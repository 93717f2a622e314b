//! HTTP/1.1 by hand, over any stream.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::in_time;

/// A whole response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Response {
    /// A header's value; `name` in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    /// The body without the lengths of its chunks, if it came in chunks and to its end.
    pub(crate) fn unchunked(&self) -> Option<String> {
        let mut rest = &self.body[..];
        let mut whole = String::new();
        loop {
            let (length, from) = rest.split_once("\r\n")?;
            let length = usize::from_str_radix(length, 16).ok()?;
            if length == 0 {
                return Some(whole);
            }
            whole.push_str(from.get(..length)?);
            rest = from.get(length + 2..)?;
        }
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Sends `head` (request line and headers, without the empty line) and `body`; reads until the server closes.
pub(crate) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    head: &str,
    body: &str,
) -> Response {
    let request =
        format!("{head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    raw(stream, request.as_bytes()).await.unwrap_or_else(|| panic!("no response to {head:?}"))
}

/// Sends bytes and reads until the server closes; `None` when it says nothing.
pub(crate) async fn raw(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &[u8],
) -> Option<Response> {
    // A server that refuses early may close before it has read all.
    drop(in_time("room to send", stream.write_all(request)).await);
    read(&mut stream).await
}

/// Reads until the server closes; `None` when it says nothing.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Response> {
    let mut answer = Vec::new();
    // What came before an end without farewell counts too.
    drop(in_time("an HTTP response", stream.read_to_end(&mut answer)).await);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Response { status, head: head.to_owned(), body: body.to_owned() })
}

/// One request on a connection of its own.
pub(crate) async fn request(address: SocketAddr, head: &str, body: &str) -> Response {
    let stream = TcpStream::connect(address).await.expect("it listens");
    exchange(stream, head, body).await
}

/// `GET path`.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Response {
    request(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}"), "").await
}

/// `POST path` with a JSON body.
pub(crate) async fn post(address: SocketAddr, path: &str, body: &str) -> Response {
    request(address, &format!("POST {path} HTTP/1.1\r\nHost: {address}"), body).await
}
