//! The snapshot stream: a bbolt image of everything at one moment, then its SHA-256 (`spec/disk-formats.md` §7).

use std::time::Duration;

use bytes::Bytes;
use machine::Snapshot;
use proto::etcdserverpb::SnapshotResponse;
use sha2::{Digest, Sha256};
use storage::Fault;
use storage::bolt::{self, Planner, Writer};
use tokio::sync::mpsc;

use super::Services;
use super::maintenance::storage_version;
use super::payload::Payload;
use super::stream::{Gone, Outbound};
use crate::grpc::error;
use crate::grpc::status::{Code, Status};

/// Bytes of the image per message; etcd's.
const BLOB_BYTES: usize = 32 << 10;
/// Page size of the image; etcd's on most machines.
const PAGE_BYTES: u32 = 4096;
/// How often a snapshot looks whether what was applied when it was asked for is durable.
const DURABLE_POLL: Duration = Duration::from_millis(2);
/// Blobs made ahead of what the client has taken.
const BLOBS_AHEAD_MAX: usize = 16;

/// A piece of the image, with the bytes that follow it.
struct Piece {
    blob: Bytes,
    remaining: u64,
}

impl Services {
    pub(super) async fn snapshot(&self, out: &mut impl Outbound) -> Result<(), Status> {
        let version = storage_version(&self.cluster());
        let version = version.map_or_else(String::new, |version| version.to_string());
        let started = std::time::Instant::now();
        self.applied_is_durable().await?;
        let (sender, mut pieces) = mpsc::channel(BLOBS_AHEAD_MAX);
        let reader = self.handle.reader().clone();
        let maker = tokio::task::spawn_blocking(move || {
            reader.snapshot().map_err(ImageError::from).and_then(|snapshot| make_image(&snapshot, &sender))
        });
        let mut digest = Sha256::new();
        while let Some(Piece { blob, remaining }) = pieces.recv().await {
            digest.update(&blob);
            send(out, blob, remaining, &version).await?;
        }
        match maker.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "failed to make a snapshot");
                self.metrics.read_failed();
                return Err(Status::new(Code::Unknown, error.to_string()));
            }
            Err(_cancelled) => return Err(error::STOPPED),
        }
        send(out, Bytes::copy_from_slice(&digest.finalize()), 0, &version).await?;
        self.metrics.disk.snapshot.observe(started.elapsed());
        Ok(())
    }
}

impl Services {
    /// Waits until the backend holds everything that is applied now.
    async fn applied_is_durable(&self) -> Result<(), Status> {
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

async fn send(
    out: &mut impl Outbound,
    blob: Bytes,
    remaining_bytes: u64,
    version: &str,
) -> Result<(), Status> {
    let response =
        SnapshotResponse { header: None, remaining_bytes, blob, version: version.to_owned() };
    out.send(Payload::of(&response)).await.map_err(|Gone| error::CANCELED)
}

/// Writes the image into `sender`, as fast as the client takes it; ends early when the client is gone.
fn make_image(snapshot: &Snapshot, sender: &mpsc::Sender<Piece>) -> Result<(), ImageError> {
    let mut planner = Planner::new(PAGE_BYTES)?;
    for bucket in snapshot.buckets() {
        planner.bucket(bucket.as_bytes())?;
        for pair in snapshot.pairs(bucket) {
            let (key, value) = pair?;
            planner.pair(key.len(), value.len())?;
        }
    }
    let mut image = Writer::new(planner.finish(), |name: &[u8]| {
        let mut buckets = snapshot.buckets();
        snapshot.pairs(buckets.find(|bucket| bucket.as_bytes() == name).unwrap_or_default())
    });
    let mut remaining = image.image_len();
    let mut piece = Vec::new();
    while image.next_piece(&mut piece)? {
        for blob in piece.chunks(BLOB_BYTES) {
            remaining -= blob.len() as u64;
            let blob = Bytes::copy_from_slice(blob);
            if sender.blocking_send(Piece { blob, remaining }).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Why an image breaks off.
#[derive(Debug, thiserror::Error)]
enum ImageError {
    #[error(transparent)]
    Read(#[from] machine::ReadError),
    #[error(transparent)]
    Storage(#[from] Fault),
    #[error(transparent)]
    Image(#[from] bolt::writer::Error),
}
