//! The body of a request on an HTTP/2 stream, taken to its end even when the call was answered before it.
//!
//! A stream whose body is not wanted any more has to be reset. What the client had sent by then still arrives, and the
//! HTTP/2 library ends the connection of a client that sends too much on streams that are over, which a client with a
//! few refused calls must not suffer. So the rest of a body is thrown away for a while; honest clients end it themselves.

use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;

use super::connection::start;

/// Bytes of a body that are taken after its call was answered: twice the largest message by default. Beyond them, or when
/// they take longer than [`LEFTOVER_TIME_MAX`], the stream is reset.
const LEFTOVER_BYTES_MAX: usize = 4 << 20;
/// Time for them.
const LEFTOVER_TIME_MAX: Duration = Duration::from_secs(3);

/// A request's body. Dropping it lets the client finish.
#[derive(Debug)]
pub struct Body {
    /// Taken when it is dropped.
    stream: Option<RecvStream>,
}

impl Body {
    /// Takes over a stream.
    pub fn new(stream: RecvStream) -> Self {
        Self { stream: Some(stream) }
    }

    /// Waits for the next DATA frame and opens the window again by its length; `None` at the end. Cancel-safe.
    pub async fn data(&mut self) -> Option<Result<Bytes, h2::Error>> {
        data(self.stream.as_mut()?).await
    }
}

async fn data(stream: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let data = stream.data().await?;
    if let Ok(data) = &data {
        // Fails only on a stream that is closed already, which the next call reports.
        drop(stream.flow_control().release_capacity(data.len()));
    }
    Some(data)
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take().filter(|stream| !stream.is_end_stream()) {
            start(Box::pin(async move {
                // However it ends: there was nobody to take it.
                drop(tokio::time::timeout(LEFTOVER_TIME_MAX, throw_away(stream)).await);
            }));
        }
    }
}

async fn throw_away(mut stream: RecvStream) {
    let mut bytes = 0;
    while bytes < LEFTOVER_BYTES_MAX
        && let Some(Ok(piece)) = data(&mut stream).await
    {
        bytes += piece.len();
    }
}
