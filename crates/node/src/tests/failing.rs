//! A disk in memory that can be told to fail.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use storage::mem::MemDisk;
use storage::{Disk, File, OpenMode};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct FailingDisk {
    disk: MemDisk,
    /// Whether no file can be created where none may be.
    fails_create: AtomicBool,
    /// Whether changes of names cannot be made durable.
    fails_sync_dir: AtomicBool,
}

impl FailingDisk {
    /// Lets an operation `fail`, or not any more.
    pub(super) fn set(&self, operation: &str, how: &str) -> Result<String, String> {
        let fails = match operation {
            "create" => &self.fails_create,
            "sync_dir" => &self.fails_sync_dir,
            other => return Err(format!("this disk never fails to {other}")),
        };
        fails.store(how == "fail", Ordering::Relaxed);
        Ok(String::new())
    }
}

fn check(fails: &AtomicBool) -> io::Result<()> {
    let fails = fails.load(Ordering::Relaxed);
    if fails { Err(io::Error::other("the disk is on fire")) } else { Ok(()) }
}

impl Disk for FailingDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        if mode == OpenMode::CreateNew {
            check(&self.fails_create)?;
        }
        self.disk.open(path, mode)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        check(&self.fails_sync_dir)?;
        self.disk.sync_dir(dir)
    }

    fn available_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.available_bytes(path)
    }
}
