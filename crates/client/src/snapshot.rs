//! A member's backend as a stream, and the checksum at its end.

use bytes::Bytes;
use proto::etcdserverpb::{SnapshotRequest, SnapshotResponse};
use sha2::{Digest, Sha256};
use tonic::{Code, Streaming};

use crate::client::Leader;
use crate::{Client, Error};

/// The bytes of a SHA-256 digest.
const DIGEST_BYTES: usize = 32;
/// A database file is a whole number of these, so that a digest behind it can be told.
const SECTOR_BYTES: u64 = 512;

/// A snapshot being received.
#[derive(Debug)]
pub struct Snapshot {
    version: String,
    first: Option<Bytes>,
    rest: Streaming<SnapshotResponse>,
}

impl Client {
    /// Asks a member for its backend; tried again while members are unavailable.
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        loop {
            match self.in_time(self.open_snapshot()).await {
                Err(Error::Refused { code: Code::Unavailable, text }) => {
                    tracing::warn!(target: "etcd-client", error = text, "snapshot is retried");
                    tokio::time::sleep(std::time::Duration::from_millis(25)).await;
                }
                other => return other,
            }
        }
    }

    async fn open_snapshot(&self) -> Result<Snapshot, Error> {
        self.renew_token().await?;
        let link = self.pick().await?;
        let mut maintenance = self.maintenance(link.channel.clone());
        let request = self.request(SnapshotRequest {}, Leader::Optional);
        let answer = maintenance.snapshot(request).await;
        let mut rest = answer.map_err(|status| self.failed(&link, &status))?.into_inner();
        let first = rest.message().await?.ok_or(Error::StreamEnded)?;
        Ok(Snapshot { version: first.version, first: Some(first.blob), rest })
    }
}

impl Snapshot {
    /// The version of the member; empty before 3.6.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The next piece; none at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        Ok(self.rest.message().await?.map(|part| part.blob))
    }
}

/// Checks that the last 32 bytes of a snapshot are the digest of what is before them.
#[derive(Debug, Clone, Default)]
pub struct Checksum {
    hasher: Sha256,
    /// The last bytes seen: they are the digest if nothing follows.
    tail: Vec<u8>,
    size: u64,
}

/// What the end of a snapshot says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The digest is there and right.
    Whole,
    /// The size is not that of a database with a digest.
    Missing,
    /// The digest is wrong.
    Wrong,
}

impl Checksum {
    /// Takes the next piece in.
    pub fn update(&mut self, piece: &[u8]) {
        self.size += piece.len() as u64;
        self.tail.extend_from_slice(piece);
        let done = self.tail.len().saturating_sub(DIGEST_BYTES);
        self.hasher.update(&self.tail[..done]);
        self.tail.drain(..done);
    }

    /// Bytes seen.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Judges what was taken in.
    pub fn finish(self) -> Verdict {
        if self.size % SECTOR_BYTES != DIGEST_BYTES as u64 {
            return Verdict::Missing;
        }
        let digest = self.hasher.finalize();
        if digest[..] == self.tail[..] { Verdict::Whole } else { Verdict::Wrong }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(bytes: &[u8]) -> Verdict {
        let mut checksum = Checksum::default();
        for piece in bytes.chunks(7) {
            checksum.update(piece);
        }
        checksum.finish()
    }

    #[test]
    fn the_digest_is_the_last_32_bytes_however_they_arrive() {
        let mut snapshot = vec![7; 1024];
        assert_eq!(judge(&snapshot), Verdict::Missing);
        let digest = Sha256::digest(&snapshot);
        snapshot.extend_from_slice(&digest);
        assert_eq!(judge(&snapshot), Verdict::Whole);
        snapshot[5] ^= 1;
        assert_eq!(judge(&snapshot), Verdict::Wrong);
    }
}
