//! The engine's file, with a checksum in memory for every block that was read or written.
//!
//! The engine verifies its own page checksums only when it checks the whole file, and walks a damaged page at its peril:
//! it may panic. So [`super::Options::verify_on_open`] has it check the file once, through here, and from then on each
//! block that comes back from the disk must be the one that was seen or written before. A block that is not becomes an
//! error that carries its offset, before the engine looks at it. Costs four bytes per 4 KiB of file.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::RwLock;
use redb::StorageBackend;

use crate::disk::File;

/// The unit that is summed: the engine's page size, so that it reads and writes whole blocks (but for its header).
const BLOCK_BYTES: usize = 4096;
/// Stands for "not seen yet".
const UNKNOWN: u32 = 0;

/// A block that is not what was written; travels inside an [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("the block at {offset} is not what was written there")]
pub(super) struct ChangedBlock {
    pub(super) offset: u64,
}

/// One sum per block of a file. Grows under the write lock; the engine never reads and writes one block at the same time.
pub(super) type Sums = Arc<RwLock<Vec<AtomicU32>>>;

/// A [`File`] as the engine wants it.
#[derive(Debug)]
pub(super) struct CheckedFile {
    file: Box<dyn File>,
    /// The file's length, shared with who reports sizes.
    len: Arc<AtomicU64>,
    sums: Sums,
}

impl CheckedFile {
    /// Wraps `file`, of which `sums` are known already: none, or what was written before it was opened anew.
    pub(super) fn new(file: Box<dyn File>, sums: Sums) -> io::Result<(Self, Arc<AtomicU64>)> {
        let bytes = file.len()?;
        let len = Arc::new(AtomicU64::new(bytes));
        let checked = Self { file, len: Arc::clone(&len), sums };
        checked.resize(bytes)?;
        Ok((checked, len))
    }

    fn resize(&self, len: u64) -> io::Result<()> {
        let blocks = usize::try_from(len.div_ceil(BLOCK_BYTES as u64)).map_err(io::Error::other)?;
        let mut sums = self.sums.write();
        // The last block of a file cut short has changed.
        if let Some(last) = sums.get(blocks.wrapping_sub(1)) {
            last.store(UNKNOWN, Ordering::Relaxed);
        }
        sums.resize_with(blocks, AtomicU32::default);
        self.len.store(len, Ordering::Relaxed);
        Ok(())
    }

    /// Calls `visit` with sum, offset and bytes of each block that `data` at `offset` covers whole; the others become
    /// unknown if `is_write`.
    fn for_each_block(
        &self,
        offset: u64,
        data: &[u8],
        is_write: bool,
        mut visit: impl FnMut(&AtomicU32, u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let sums = self.sums.read();
        let mut at = usize::try_from(offset).map_err(io::Error::other)?;
        let mut rest = data;
        while !rest.is_empty() {
            let block_left = BLOCK_BYTES - at % BLOCK_BYTES;
            let (part, after) = rest.split_at(block_left.min(rest.len()));
            if let Some(sum) = sums.get(at / BLOCK_BYTES) {
                if part.len() == BLOCK_BYTES {
                    visit(sum, at as u64, part)?;
                } else if is_write {
                    sum.store(UNKNOWN, Ordering::Relaxed);
                }
            }
            at += part.len();
            rest = after;
        }
        Ok(())
    }
}

fn sum_of(block: &[u8]) -> u32 {
    crc32c::crc32c(block).max(UNKNOWN + 1)
}

impl StorageBackend for CheckedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(offset, out)?;
        self.for_each_block(offset, out, false, |known, offset, block| {
            let sum = sum_of(block);
            match known.compare_exchange(UNKNOWN, sum, Ordering::Relaxed, Ordering::Relaxed) {
                Err(known) if known != sum => {
                    Err(io::Error::new(io::ErrorKind::InvalidData, ChangedBlock { offset }))
                }
                Ok(_) | Err(_) => Ok(()),
            }
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.resize(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.for_each_block(offset, data, true, |known, _, block| {
            known.store(sum_of(block), Ordering::Relaxed);
            Ok(())
        })?;
        self.file.write_all_at(offset, data)
    }
}
