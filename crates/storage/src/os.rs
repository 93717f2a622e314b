//! The operating system's disk: the only file of the project, at or below `node`, that opens files.

#![expect(clippy::disallowed_types, reason = "the one place that opens files")]

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;

use crate::disk::{Disk, File, OpenMode};

const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// The file systems of this machine.
#[derive(Debug, Default, Clone, Copy)]
pub struct OsDisk;

impl Disk for OsDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(FILE_MODE);
        match mode {
            OpenMode::Read => &mut options,
            OpenMode::ReadWrite => options.write(true),
            OpenMode::Create => options.write(true).create(true),
            OpenMode::CreateNew => options.write(true).create_new(true),
        };
        Ok(Box::new(OsFile(options.open(path)?)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            // A name that is not UTF-8 is none of ours: whoever lists looks for names of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn available_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn mode(&self, path: &Path) -> io::Result<u32> {
        Ok(fs::metadata(path)?.permissions().mode() & 0o777)
    }
}

#[derive(Debug)]
struct OsFile(fs::File);

impl File for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn write_all_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        loop {
            match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, len) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                // Not every file system can reserve; a sparse file is the next best.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                    let extended = self.len()?.max(len);
                    return self.set_len(extended);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Takes both kinds of lock. The flock is ours and lives as long as the handle. The record lock makes etcd, which
    /// uses record locks for its log, and us see each other; it ends early when any handle of this process on the file
    /// is closed, so nothing but that courtesy may depend on it.
    fn try_lock(&self) -> io::Result<bool> {
        match rustix::fs::flock(&self.0, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
        match rustix::fs::fcntl_lock(&self.0, FlockOperation::NonBlockingLockExclusive) {
            // Opened for reading only, or a file system without record locks.
            Ok(()) | Err(Errno::BADF | Errno::NOLCK | Errno::OPNOTSUPP) => Ok(true),
            Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Removes the file of a Unix socket that nobody serves any more.
pub fn remove_socket(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_files_and_directories_belong_to_the_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let nested = dir.path().join("a/b");
        OsDisk.create_dir_all(&nested).unwrap();
        OsDisk.create_dir_all(&nested).unwrap();
        OsDisk.open(&nested.join("f"), OpenMode::CreateNew).unwrap();
        assert_eq!(OsDisk.mode(&dir.path().join("a")).unwrap(), 0o700);
        assert_eq!(OsDisk.mode(&nested.join("f")).unwrap(), 0o600);
        let again = OsDisk.open(&nested.join("f"), OpenMode::CreateNew).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn allocated_space_reads_as_zeros_and_never_shrinks_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = OsDisk.open(&dir.path().join("f"), OpenMode::Create).unwrap();
        file.write_all_at(0, b"head").unwrap();
        file.allocate(4096).unwrap();
        let mut read = [1; 8];
        file.read_exact_at(0, &mut read).unwrap();
        assert_eq!(&read, b"head\0\0\0\0");
        file.allocate(10).unwrap();
        assert_eq!(file.len().unwrap(), 4096);
        let end = file.read_exact_at(4092, &mut read).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_lock_excludes_a_second_handle_until_the_first_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let first = OsDisk.open(&path, OpenMode::Create).unwrap();
        let second = OsDisk.open(&path, OpenMode::ReadWrite).unwrap();
        assert!(first.try_lock().unwrap());
        assert!(!second.try_lock().unwrap());
        drop(first);
        assert!(second.try_lock().unwrap());
    }

    #[test]
    fn names_are_listed_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b", "a", "c"] {
            OsDisk.open(&dir.path().join(name), OpenMode::Create).unwrap();
        }
        OsDisk.rename(&dir.path().join("c"), &dir.path().join("0")).unwrap();
        OsDisk.remove_file(&dir.path().join("b")).unwrap();
        OsDisk.sync_dir(dir.path()).unwrap();
        assert_eq!(OsDisk.list(dir.path()).unwrap(), ["0", "a"]);
        assert!(OsDisk.available_bytes(dir.path()).unwrap() > 0);
    }
}
