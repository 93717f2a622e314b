//! The two ends of a streaming call, as services see them. The gRPC door and the JSON gateway implement them.

use bytes::Bytes;

use super::payload::Payload;
use crate::grpc::status::Status;

/// The peer has gone: nothing can be sent any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// Messages from the client.
pub trait Inbound {
    /// Waits for the next encoded message; `None` after the client has finished sending. Cancel-safe.
    fn message(&mut self) -> impl Future<Output = Result<Option<Bytes>, Status>>;
}

/// Messages to the client.
pub trait Outbound {
    /// Sends one message; waits while the client does not read.
    fn send(&mut self, payload: Payload) -> impl Future<Output = Result<(), Gone>>;

    /// Sends several messages, as few writes as the door can; leaves `payloads` empty.
    fn send_all(&mut self, payloads: &mut Vec<Payload>) -> impl Future<Output = Result<(), Gone>> {
        async move {
            for payload in payloads.drain(..) {
                self.send(payload).await?;
            }
            Ok(())
        }
    }

    /// Waits until the client is gone. Cancel-safe.
    fn gone(&mut self) -> impl Future<Output = ()>;
}
