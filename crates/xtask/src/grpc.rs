//! The least of a gRPC client: frames over HTTP/2, nothing hidden.
//!
//! Built on h2 alone, so that malformed bytes can be sent and every byte of an answer can be seen.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use tokio::net::TcpStream;

/// How long an answer may take before it counts as none.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const DEADLINE_EXCEEDED: &str = "4";
const WINDOW_BYTES: u32 = 1 << 24;

/// What a server said to one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) code: String,
    pub(crate) text: String,
    /// The messages, still encoded.
    pub(crate) messages: Vec<Bytes>,
}

impl Answer {
    /// Whether the call ran out of time. At the deadline etcd resets the stream or cancels the call's context.
    pub(crate) fn is_late(&self) -> bool {
        const CANCELED: &str = "1";
        self.code == DEADLINE_EXCEEDED || (self.code == CANCELED && self.text == "context canceled")
    }
}

/// One connection to one server. Cloning shares the connection.
#[derive(Clone)]
pub(crate) struct Connection {
    sender: SendRequest<Bytes>,
    authority: String,
}

impl Connection {
    pub(crate) async fn open(port: u16) -> Result<Self> {
        let socket = TcpStream::connect(("127.0.0.1", port)).await?;
        socket.set_nodelay(true)?;
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(socket)
            .await?;
        // Ends when the server or the last sender goes; who still waits for an answer gets the error.
        tokio::task::spawn_local(connection);
        Ok(Self { sender, authority: format!("127.0.0.1:{port}") })
    }

    async fn start(
        &self,
        path: &str,
        timeout: Option<&str>,
    ) -> Result<(ResponseFuture, SendStream<Bytes>)> {
        let mut request = Request::post(format!("http://{}{path}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", timeout);
        }
        let mut sender = self.sender.clone().ready().await?;
        Ok(sender.send_request(request.body(())?, false)?)
    }

    /// Sends one message, closes the sending side, and returns all that comes back.
    pub(crate) async fn call(
        &self,
        path: &str,
        message: &[u8],
        timeout: Option<&str>,
    ) -> Result<Answer> {
        let answer = tokio::time::timeout(PATIENCE, self.exchange(path, message, timeout))
            .await
            .with_context(|| format!("no answer within {PATIENCE:?}"))?;
        match answer {
            // The client knows by itself what to say.
            Err(error) if timeout.is_some() && is_canceled(&error) => Ok(Answer {
                code: DEADLINE_EXCEEDED.to_owned(),
                text: error.to_string(),
                messages: Vec::new(),
            }),
            answer => answer,
        }
    }

    /// Sends one message, and lets go of what comes back; returns how many bytes that were. An error unless the call
    /// succeeds.
    pub(crate) async fn drain(&self, path: &str, message: &[u8]) -> Result<usize> {
        let (response, mut stream) = self.start(path, None).await?;
        stream.send_data(frame(message), true)?;
        let mut body = response.await?.into_body();
        let mut bytes = 0;
        while let Some(data) = body.data().await {
            let data = data?;
            bytes += data.len();
            body.flow_control().release_capacity(data.len())?;
        }
        let trailers = body.trailers().await?.context("no trailers")?;
        let answer = status(&trailers, Vec::new())?;
        ensure!(answer.code == "0", "{path}: {answer:?}");
        Ok(bytes)
    }

    async fn exchange(&self, path: &str, message: &[u8], timeout: Option<&str>) -> Result<Answer> {
        let (response, mut stream) = self.start(path, timeout).await?;
        // A server that refuses early resets the stream before all is sent: its answer counts.
        let sent = stream.send_data(frame(message), true);
        let response = response.await?;
        let (parts, body) = response.into_parts();
        let kind = parts.headers.get("content-type").map(|kind| kind.as_bytes().to_vec());
        if parts.status != 200 || kind.as_deref() != Some(b"application/grpc") {
            bail!("HTTP status {}, content-type {kind:?}", parts.status);
        }
        if parts.headers.contains_key("grpc-status") {
            return status(&parts.headers, Vec::new());
        }
        let mut frames = Frames { body, buffer: BytesMut::new() };
        let mut messages = Vec::new();
        while let Some(message) = frames.next().await? {
            messages.push(message);
        }
        let trailers = frames.body.trailers().await?.context("no trailers")?;
        sent?;
        status(&trailers, messages)
    }

    /// Opens a stream in both directions.
    pub(crate) async fn stream(&self, path: &str) -> Result<(Sender, ResponseFuture)> {
        let (response, stream) = self.start(path, None).await?;
        Ok((Sender(stream), response))
    }
}

/// The sending side of a stream.
pub(crate) struct Sender(SendStream<Bytes>);

impl Sender {
    pub(crate) fn send(&mut self, message: &[u8]) -> Result<()> {
        Ok(self.0.send_data(frame(message), false)?)
    }
}

/// The receiving side of a stream, message by message.
pub(crate) struct Frames {
    body: RecvStream,
    buffer: BytesMut,
}

impl Frames {
    pub(crate) fn new(body: RecvStream) -> Self {
        Self { body, buffer: BytesMut::new() }
    }

    /// Returns the next message, `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            let Some(data) = self.body.data().await else {
                if !self.buffer.is_empty() {
                    bail!("the stream ended inside a message");
                }
                return Ok(None);
            };
            let data = data?;
            self.body.flow_control().release_capacity(data.len())?;
            self.buffer.extend_from_slice(&data);
        }
    }

    /// Returns the status that ended the stream.
    pub(crate) async fn status(mut self) -> Result<Answer> {
        let trailers = self.body.trailers().await?.context("no trailers")?;
        status(&trailers, Vec::new())
    }

    fn take(&mut self) -> Result<Option<Bytes>> {
        let Some(head) = self.buffer.first_chunk::<5>() else { return Ok(None) };
        if head[0] != 0 {
            bail!("a compressed message");
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let length = usize::try_from(length)?;
        if self.buffer.len() < length + 5 {
            return Ok(None);
        }
        self.buffer.advance(5);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

fn is_canceled(error: &anyhow::Error) -> bool {
    let reason = error.downcast_ref::<h2::Error>().and_then(h2::Error::reason);
    reason == Some(h2::Reason::CANCEL)
}

fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

fn status(headers: &HeaderMap, messages: Vec<Bytes>) -> Result<Answer> {
    let code = headers.get("grpc-status").context("no grpc-status")?.to_str()?.to_owned();
    let text = headers.get("grpc-message").map_or(&b""[..], |text| text.as_bytes());
    Ok(Answer { code, text: String::from_utf8_lossy(&unescape(text)).into_owned(), messages })
}

/// Undoes the percent-encoding of `grpc-message`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let (b'%', Some(value)) = (*first, value) {
            plain.push(value);
            rest = &tail[2..];
        } else {
            plain.push(*first);
            rest = tail;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_text_is_unescaped_and_broken_escapes_stay() {
        assert_eq!(unescape(b"a%20b%"), b"a b%");
        assert_eq!(unescape(b"%zz%41"), b"%zzA");
    }
}
