//! Response and request bodies that do not depend on the HTTP version.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::incomplete::Share;

use crate::grpc::body;

/// What a page or a gateway call answers with.
#[derive(Debug)]
pub enum Answer {
    /// Known whole; `None` once it is taken.
    Whole(Option<Bytes>),
    /// Comes bit by bit; ends when the sender is dropped.
    Stream(mpsc::Receiver<Result<Bytes, Broken>>),
}

/// The rest of an answer cannot be produced: the client must not take what it has for the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer broke off")]
pub struct Broken;

impl From<Bytes> for Answer {
    fn from(bytes: Bytes) -> Self {
        Self::Whole((!bytes.is_empty()).then_some(bytes))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let next = match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(Ok)),
            Self::Stream(receiver) => receiver.poll_recv(cx),
        };
        next.map(|bytes| bytes.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// A request body: chunks as they arrive.
#[derive(Debug)]
pub enum Chunks {
    /// Of an HTTP/1.1 request.
    Http1(hyper::body::Incoming),
    /// Of an HTTP/2 stream.
    Http2(body::Body),
}

impl Chunks {
    /// Waits for the next chunk; `None` at the end. Cancel-safe.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        match self {
            Self::Http1(body) => loop {
                match http_body_util::BodyExt::frame(body).await? {
                    Ok(frame) => {
                        // Trailers say nothing to us.
                        if let Ok(data) = frame.into_data() {
                            return Some(Ok(data));
                        }
                    }
                    Err(error) => return Some(Err(io::Error::other(error))),
                }
            },
            Self::Http2(body) => Some(body.data().await?.map_err(io::Error::other)),
        }
    }

    /// Collects all of it, or refuses above `bytes_max`, or when `share` has no room for it.
    pub async fn collect(mut self, bytes_max: usize, mut share: Share) -> io::Result<Bytes> {
        let Some(first) = self.next().await.transpose()? else { return Ok(Bytes::new()) };
        let mut all = bytes::BytesMut::from(first);
        while all.len() <= bytes_max {
            let Some(chunk) = self.next().await.transpose()? else { return Ok(all.freeze()) };
            all.extend_from_slice(&chunk);
            if !share.hold(all.capacity()) {
                return Err(io::ErrorKind::QuotaExceeded.into());
            }
        }
        Err(io::ErrorKind::FileTooLarge.into())
    }
}
