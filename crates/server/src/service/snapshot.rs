//! The snapshot stream: a bbolt image of everything at one moment, then its SHA-256 (`spec/disk-formats.md` §7).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use machine::{Image, ReadError};
use proto::etcdserverpb::SnapshotResponse;
use sha2::{Digest, Sha256};

use super::Services;
use super::maintenance::storage_version;
use super::payload::{Payload, framed};
use super::stream::{Gone, Outbound};
use crate::grpc::error;
use crate::grpc::status::{Code, Status};

/// Bytes of the image per message; etcd's.
const BLOB_BYTES: usize = 32 << 10;
/// How often a snapshot looks whether what was applied when it was asked for is durable.
const DURABLE_POLL: Duration = Duration::from_millis(2);
/// Time a client has to take one message; etcd waits without end. An open snapshot holds a read transaction: pages of the
/// engine that are freed meanwhile cannot be used again.
const UNREAD_MAX: Duration = Duration::from_mins(1);
/// Bytes of the image made at a time.
const AHEAD_BYTES: usize = 256 << 10;

impl Services {
    pub(super) async fn snapshot(&self, out: &mut impl Outbound) -> Result<(), Status> {
        let version = storage_version(&self.cluster());
        let version = version.map_or_else(String::new, |version| version.to_string());
        let started = std::time::Instant::now();
        self.applied_is_durable().await?;
        let _held = self.limits.answers.hold(2 * AHEAD_BYTES).await?;
        let reader = self.handle.reader().clone();
        let mut making = self
            .image_work(move || Ok(Box::new(Making::new(reader.snapshot()?.image()?, version))))
            .await?;
        loop {
            // What is made is lent to the threads step by step: a slow client holds no thread.
            let (lent, messages) = self.image_work(move || making.step()).await?;
            making = lent;
            for message in messages {
                send(out, Payload::framed(message), UNREAD_MAX).await?;
                // The serving thread has others to answer.
                tokio::task::yield_now().await;
            }
            if making.is_complete {
                break;
            }
        }
        self.metrics.disk.snapshot.observe(started.elapsed());
        Ok(())
    }
}

impl Services {
    /// Runs a step of making an image on the threads for long work.
    async fn image_work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, Status> {
        self.handle.long_work().run(work).await?.map_err(|error| {
            tracing::error!(%error, "failed to make a snapshot");
            self.metrics.read_failed();
            Status::new(Code::Unknown, error.to_string())
        })
    }

    /// Waits until the backend holds everything that is applied now.
    pub(super) async fn applied_is_durable(&self) -> Result<(), Status> {
        let applied = self.handle.gate().applied_index();
        while self.handle.reader().durable_index() < applied {
            if self.handle.has_ended() {
                return Err(error::STOPPED);
            }
            tokio::time::sleep(DURABLE_POLL).await;
        }
        Ok(())
    }
}

/// Sends one message, which the client has to take within `patience`.
async fn send(out: &mut impl Outbound, message: Payload, patience: Duration) -> Result<(), Status> {
    match tokio::time::timeout(patience, out.send(message)).await {
        Ok(sent) => sent.map_err(|Gone| error::CANCELED),
        Err(_elapsed) => {
            tracing::warn!(?patience, "ended a snapshot that nobody reads");
            Err(error::SNAPSHOT_UNREAD)
        }
    }
}

/// A snapshot's messages on the way of being made, off the serving thread: the image, its sum and their encoding.
#[derive(Debug)]
struct Making {
    image: Image,
    digest: Sha256,
    /// Bytes of the image that are not in a message yet.
    remaining: u64,
    version: String,
    /// Room for a piece of the image.
    piece: Vec<u8>,
    is_complete: bool,
}

impl Making {
    fn new(image: Image, version: String) -> Self {
        let remaining = image.len();
        let (digest, piece) = (Sha256::new(), Vec::new());
        Self { image, digest, remaining, version, piece, is_complete: false }
    }

    /// Makes the messages, framed, of about the next [`AHEAD_BYTES`]; behind the image's end, the last one with the sum.
    fn step(mut self: Box<Self>) -> Result<(Box<Self>, Vec<Bytes>), ImageError> {
        let mut ahead = BytesMut::with_capacity(AHEAD_BYTES * 2);
        while ahead.len() < AHEAD_BYTES && !self.is_complete {
            if self.image.next_piece(&mut self.piece)? {
                ahead.extend_from_slice(&self.piece);
            } else {
                self.is_complete = true;
            }
        }
        self.digest.update(&ahead);
        let mut ahead = ahead.freeze();
        let mut messages = Vec::with_capacity(ahead.len() / BLOB_BYTES + 2);
        while !ahead.is_empty() {
            let blob = ahead.split_to(ahead.len().min(BLOB_BYTES));
            self.remaining -= blob.len() as u64;
            messages.push(self.message(blob));
        }
        if self.is_complete {
            let digest = self.digest.finalize_reset();
            messages.push(self.message(Bytes::copy_from_slice(&digest)));
        }
        Ok((self, messages))
    }

    fn message(&self, blob: Bytes) -> Bytes {
        let version = self.version.clone();
        framed(&SnapshotResponse { header: None, remaining_bytes: self.remaining, blob, version })
    }
}

/// Why an image breaks off.
#[derive(Debug, thiserror::Error)]
enum ImageError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Image(#[from] storage::bolt::writer::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that takes nothing.
    struct Unread;

    impl Outbound for Unread {
        async fn send(&mut self, _payload: Payload) -> Result<(), Gone> {
            std::future::pending().await
        }

        async fn gone(&mut self) {
            std::future::pending().await
        }
    }

    #[test]
    fn a_snapshot_that_nobody_reads_ends() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let patience = Duration::from_millis(20);
        runtime.expect("a runtime").block_on(async {
            let sent =
                send(&mut Unread, Payload::framed(framed(&SnapshotResponse::default())), patience)
                    .await;
            assert_eq!(sent, Err(error::SNAPSHOT_UNREAD));
        });
    }
}
