//! The snapshot stream: a bbolt image of everything at one moment, then its SHA-256 (`spec/disk-formats.md` §7).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use machine::{Image, ReadError};
use proto::etcdserverpb::SnapshotResponse;
use sha2::{Digest, Sha256};

use super::Services;
use super::maintenance::storage_version;
use super::payload::Payload;
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
        let mut image =
            self.image_work(move || reader.snapshot()?.image().map_err(ImageError::from)).await?;
        let mut remaining = image.len();
        let mut digest = Sha256::new();
        loop {
            // The image is lent to the threads piece by piece: a slow client holds no thread.
            let (lent, mut bytes) = self.image_work(move || read_ahead(image)).await?;
            image = lent;
            if bytes.is_empty() {
                break;
            }
            while !bytes.is_empty() {
                let blob = bytes.split_to(bytes.len().min(BLOB_BYTES));
                remaining -= blob.len() as u64;
                digest.update(&blob);
                send(out, blob, remaining, &version, UNREAD_MAX).await?;
            }
        }
        let digest = Bytes::copy_from_slice(&digest.finalize());
        send(out, digest, 0, &version, UNREAD_MAX).await?;
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
async fn send(
    out: &mut impl Outbound,
    blob: Bytes,
    remaining_bytes: u64,
    version: &str,
    patience: Duration,
) -> Result<(), Status> {
    let response =
        SnapshotResponse { header: None, remaining_bytes, blob, version: version.to_owned() };
    match tokio::time::timeout(patience, out.send(Payload::of(&response))).await {
        Ok(sent) => sent.map_err(|Gone| error::CANCELED),
        Err(_elapsed) => {
            tracing::warn!(?patience, remaining_bytes, "ended a snapshot that nobody reads");
            Err(error::SNAPSHOT_UNREAD)
        }
    }
}

/// Makes the next pieces of the image, about [`AHEAD_BYTES`] of them; none at the end.
fn read_ahead(mut image: Image) -> Result<(Image, Bytes), ImageError> {
    let mut ahead = BytesMut::with_capacity(AHEAD_BYTES * 2);
    let mut piece = Vec::new();
    while ahead.len() < AHEAD_BYTES && image.next_piece(&mut piece)? {
        ahead.extend_from_slice(&piece);
    }
    Ok((image, ahead.freeze()))
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
            let sent = send(&mut Unread, Bytes::new(), 9, "3.7.0", patience).await;
            assert_eq!(sent, Err(error::SNAPSHOT_UNREAD));
        });
    }
}
