//! The disk as the core sees it: a directory tree of byte files.
//!
//! Everything at or below `node` does its input and output through [`Disk`], so that the same code runs on the
//! operating system ([`crate::os::OsDisk`]) and on the simulator's disk, which loses unsynced writes, tears and
//! reorders them, flips bits and fills up.
//!
//! Contract shared by all implementations: a write is durable once [`File::sync_data`] on that file returned; a created,
//! renamed or removed name is durable once [`Disk::sync_dir`] on its directory returned. Nothing else is promised after
//! a crash. After a failed `sync_data` the unsynced data must be considered lost: callers stop, they never retry.

use std::fmt::Debug;
use std::io;
use std::path::Path;

/// How [`Disk::open`] opens a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; the file must exist.
    Read,
    /// For reading and writing; the file must exist.
    ReadWrite,
    /// For reading and writing; created empty when missing.
    Create,
    /// For reading and writing; fails with `AlreadyExists` when there is one.
    CreateNew,
}

/// A tree of files.
pub trait Disk: Send + Sync + Debug {
    /// Opens `path` by `mode`. New files get mode 0600.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>>;
    /// Creates `path` and missing parents with mode 0700; fine when it exists.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Renames `from` to `to`, replacing a file there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes one file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Lists the names (not paths) in `dir`, ascending.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Tells whether `path` is there.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Tells how many bytes can still be written to the file system that holds `path`.
    fn available_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Tells the permission bits of `path`. A disk without permissions says 0700.
    fn mode(&self, path: &Path) -> io::Result<u32> {
        self.exists(path)?.then_some(0o700).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// One open file. Methods take `&self`: callers order their own reads and writes.
pub trait File: Send + Sync + Debug {
    /// Returns the length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Tells whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or zero-extends the file to `len` bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Fills `out` from `offset`; `UnexpectedEof` when the file ends before.
    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    /// Writes all of `data` at `offset`.
    fn write_all_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Makes written data and the length durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Reserves space for `len` bytes and extends the file to it with zeros.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Takes an exclusive lock held until the file is dropped; false when another process or handle holds it.
    fn try_lock(&self) -> io::Result<bool>;
}
