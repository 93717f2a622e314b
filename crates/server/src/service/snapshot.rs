//! The snapshot stream: a bbolt image of everything at one moment, then its SHA-256 (`spec/disk-formats.md` §7).

use bytes::Bytes;
use machine::ReadError;
use proto::etcdserverpb::SnapshotResponse;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::Services;
use super::maintenance::storage_version;
use super::payload::Payload;
use super::stream::{Gone, Outbound};
use crate::grpc::error;
use crate::grpc::status::Status;

/// Bytes of the image per message; etcd's.
const BLOB_BYTES: usize = 32 << 10;
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
        let (sender, mut pieces) = mpsc::channel(BLOBS_AHEAD_MAX);
        let reader = self.handle.reader().clone();
        let maker = tokio::task::spawn_blocking(move || make_image(&reader, &sender));
        let mut digest = Sha256::new();
        while let Some(Piece { blob, remaining }) = pieces.recv().await {
            digest.update(&blob);
            send(out, blob, remaining, &version).await?;
        }
        match maker.await {
            Ok(made) => self.read(made)?,
            Err(_cancelled) => return Err(error::STOPPED),
        }
        send(out, Bytes::copy_from_slice(&digest.finalize()), 0, &version).await?;
        self.metrics.disk.snapshot.observe(started.elapsed());
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
fn make_image(reader: &machine::Reader, sender: &mpsc::Sender<Piece>) -> Result<(), ReadError> {
    let _image = reader.snapshot()?;
    let _ = sender;
    Ok(())
}
