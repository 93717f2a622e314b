//! A disk that fails at some operation: the log repeats the fault, and keeps all that was synced before.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proto::{raftpb, walpb};

use super::super::{Options, Start, Wal, exists};
use super::{IDENTITY, disk, entry};
use crate::disk::{Disk, File, OpenMode};
use crate::fault::{Fault, FullCause};
use crate::length;
use crate::os::OsDisk;

/// Operations that change something are counted down; from zero on they fail.
#[derive(Debug, Clone)]
struct Fuse(Arc<AtomicU64>);

impl Fuse {
    fn burn(&self) -> io::Result<()> {
        let left =
            self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left.is_ok() { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }
}

#[derive(Debug)]
struct FailingDisk(Fuse);

#[derive(Debug)]
struct FailingFile(Fuse, Box<dyn File>);

impl Disk for FailingDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        if mode != OpenMode::Read {
            self.0.burn()?;
        }
        Ok(Box::new(FailingFile(self.0.clone(), OsDisk.open(path, mode)?)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.burn()?;
        OsDisk.create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.burn()?;
        OsDisk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.burn()?;
        OsDisk.remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        OsDisk.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        OsDisk.exists(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.burn()?;
        OsDisk.sync_dir(dir)
    }

    fn available_bytes(&self, path: &Path) -> io::Result<u64> {
        OsDisk.available_bytes(path)
    }
}

impl File for FailingFile {
    fn len(&self) -> io::Result<u64> {
        self.1.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.burn()?;
        self.1.set_len(len)
    }

    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.1.read_exact_at(offset, out)
    }

    /// A write that fails has written its first half, by sectors.
    fn write_all_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let burnt = self.0.burn();
        let half =
            length((offset + data.len() as u64 / 2) / 512 * 512).saturating_sub(length(offset));
        let written = if burnt.is_ok() { data } else { &data[..half] };
        self.1.write_all_at(offset, written)?;
        burnt
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.burn()?;
        self.1.sync_data()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.burn()?;
        self.1.allocate(len)
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.1.try_lock()
    }
}

const TINY: Options = Options { segment_bytes: 3 << 10, segments_max: 1 };

/// Writes entries and marks over several segments; tells through `synced` up to which index it got.
fn work(disk: Arc<dyn Disk>, dir: &Path, synced: &mut u64) -> Result<(), Fault> {
    let mut wal = Wal::create_with(disk, dir, IDENTITY, TINY)?;
    for index in 1..=12 {
        let state = raftpb::HardState { term: 1, vote: 1, commit: index };
        wal.append(&[entry(index, 1, vec![b'a'; 1300])], Some(&state))?;
        wal.sync()?;
        *synced = index;
    }
    let conf_state = Some(raftpb::ConfState::default());
    wal.append_snapshot_mark(&walpb::Snapshot { index: 12, term: 1, conf_state })?;
    // Before the sync, as one batch of jobs does: what goes must not be needed by what is not durable yet.
    wal.release_to(12)?;
    wal.sync()
}

#[test]
fn whatever_operation_fails_what_was_synced_stays() {
    for operations in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("wal");
        let mut synced = 0;
        let failing = Arc::new(FailingDisk(Fuse(Arc::new(AtomicU64::new(operations)))));
        let result = work(failing, &dir, &mut synced);
        if result.is_ok() {
            assert!(operations > 50, "the work takes some operations");
            return;
        }
        let fault = result.unwrap_err();
        assert!(matches!(fault, Fault::Full { cause: FullCause::Space, .. }), "{fault}");

        // The write that failed may be there or not; what was synced before is.
        let recovered = exists(&OsDisk, &dir).unwrap().then(|| {
            let start = Start::default();
            let mark = Start { index: 12, term: 1 };
            Wal::recover_with(disk(), &dir, start, TINY)
                .or_else(|_| Wal::recover_with(disk(), &dir, mark, TINY))
                .unwrap()
        });
        let last = recovered.map_or(0, |(wal, _)| wal.stats().last_index);
        assert!(last == synced || last == synced + 1, "{operations}: {last}, synced {synced}");
    }
}

#[test]
fn after_a_failed_sync_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let fuse = Fuse(Arc::new(AtomicU64::new(u64::MAX)));
    let failing = Arc::new(FailingDisk(fuse.clone()));
    let mut wal = Wal::create_with(failing, dir.path(), IDENTITY, Options::default()).unwrap();
    wal.append(&[entry(1, 1, "a")], None).unwrap();
    wal.flush().unwrap();
    fuse.0.store(0, Ordering::Relaxed);
    let first = wal.sync().unwrap_err().to_string();
    fuse.0.store(u64::MAX, Ordering::Relaxed);
    // The disk would work again, but what it dropped meanwhile is not known.
    let writes = wal.stats().writes;
    assert_eq!(wal.append(&[entry(2, 1, "b")], None).unwrap_err().to_string(), first);
    assert_eq!(wal.flush().unwrap_err().to_string(), first);
    assert_eq!(wal.sync().unwrap_err().to_string(), first);
    assert_eq!(wal.stats().writes, writes);
}
