//! The data directory: etcd's layout, made private, locked against a second process, and cleared of leftovers.
//!
//! | path | content |
//! |---|---|
//! | `<data-dir>/member/wal` | the log, unless it has its own directory |
//! | `<data-dir>/member/snap` | the backend, snapshot files, databases being received |
//! | `<data-dir>/member/lock` | locked while a process uses the directory |

use std::path::{Path, PathBuf};

use crate::disk::{Disk, File, OpenMode};
use crate::fault::{Fault, OrFault};

/// What group and others may do with a directory of ours: nothing.
const FOREIGN_BITS: u32 = 0o077;

/// A data directory that this process alone uses until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    wal: PathBuf,
    snap: PathBuf,
    /// Held, never read.
    _lock: Box<dyn File>,
}

impl DataDir {
    /// Opens the data directory `root`, creating what is missing, and removes what a crash left behind. The log is in
    /// `wal` if given. The log's own directory is created with the log, so that an empty one says nothing.
    pub fn open(disk: &dyn Disk, root: &Path, wal: Option<&Path>) -> Result<Self, Fault> {
        let member = root.join("member");
        let snap = member.join("snap");
        create_dir_all(disk, &snap)?;
        // These may be there since a start that ended before their names were durable.
        for dir in [root, &member, &snap] {
            sync_parent(disk, dir)?;
            warn_if_open_to_others(disk, dir)?;
        }
        let lock = lock(disk, &member)?;
        remove_leftovers(disk, &snap)?;
        let wal = wal.map_or_else(|| member.join("wal"), Path::to_owned);
        Ok(Self { wal, snap, _lock: lock })
    }

    /// The log's directory.
    pub fn wal(&self) -> &Path {
        &self.wal
    }

    /// The directory of backend and snapshots.
    pub fn snap(&self) -> &Path {
        &self.snap
    }

    /// The backend's file.
    pub fn database(&self) -> PathBuf {
        self.snap.join("db")
    }
}

/// Creates `path` and missing parents, and makes the names of all that were missing durable.
pub(crate) fn create_dir_all(disk: &dyn Disk, path: &Path) -> Result<(), Fault> {
    let mut missing = Vec::new();
    for dir in path.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
        if disk.exists(dir).or_fault("look up", dir)? {
            break;
        }
        missing.push(dir);
    }
    disk.create_dir_all(path).or_fault("create", path)?;
    // The outermost first: a name is of no use in a directory that is lost.
    missing.into_iter().rev().try_for_each(|dir| sync_parent(disk, dir))
}

/// Makes the name of `path` durable.
pub(crate) fn sync_parent(disk: &dyn Disk, path: &Path) -> Result<(), Fault> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => {
            disk.sync_dir(Path::new(".")).or_fault("sync", path)
        }
        Some(parent) => disk.sync_dir(parent).or_fault("sync", parent),
        None => Ok(()),
    }
}

fn lock(disk: &dyn Disk, member: &Path) -> Result<Box<dyn File>, Fault> {
    let path = member.join("lock");
    // Creating it also shows whether the directory can be written to.
    let file = disk.open(&path, OpenMode::Create).or_fault("create", &path)?;
    if file.try_lock().or_fault("lock", &path)? { Ok(file) } else { Err(Fault::Locked { path }) }
}

/// Wide permissions are the operator's to decide, as in etcd: they get a warning, not a refusal.
fn warn_if_open_to_others(disk: &dyn Disk, dir: &Path) -> Result<(), Fault> {
    let mode = disk.mode(dir).or_fault("look at", dir)?;
    if mode & FOREIGN_BITS != 0 {
        let (path, mode) = (dir.display(), format!("{mode:04o}"));
        tracing::warn!(%path, mode, "other users can get at this directory; change its mode to 0700");
    }
    Ok(())
}

/// Removes partial downloads (`tmp*`) and partial defragmentations (`db.tmp*`).
fn remove_leftovers(disk: &dyn Disk, snap: &Path) -> Result<(), Fault> {
    let mut removed = false;
    for name in disk.list(snap).or_fault("list", snap)? {
        if name.starts_with("tmp") || name.starts_with("db.tmp") {
            let path = snap.join(name);
            disk.remove_file(&path).or_fault("remove", &path)?;
            removed = true;
        }
    }
    if removed { disk.sync_dir(snap).or_fault("sync", snap) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::os::OsDisk;

    #[test]
    fn a_new_directory_is_private_and_a_second_user_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("default.etcd");
        let data = DataDir::open(&OsDisk, &root, None).unwrap();
        assert_eq!(data.wal(), root.join("member/wal"));
        for part in ["", "member", "member/snap"] {
            let mode = fs::metadata(root.join(part)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{part}");
        }
        let second = DataDir::open(&OsDisk, &root, None).unwrap_err();
        assert!(matches!(second, Fault::Locked { .. }), "{second}");
        drop(data);
        let elsewhere = dir.path().join("log");
        let data = DataDir::open(&OsDisk, &root, Some(&elsewhere)).unwrap();
        assert_eq!(data.wal(), elsewhere);
    }

    #[test]
    fn leftovers_go_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let snap = dir.path().join("member/snap");
        fs::create_dir_all(&snap).unwrap();
        for name in ["tmp123", "db.tmp.4", "db", "0000000000000004.snap.db"] {
            fs::write(snap.join(name), b"").unwrap();
        }
        DataDir::open(&OsDisk, dir.path(), None).unwrap();
        assert_eq!(OsDisk.list(&snap).unwrap(), ["0000000000000004.snap.db", "db"]);
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("member"), b"").unwrap();
        let fault = DataDir::open(&OsDisk, dir.path(), None).unwrap_err();
        assert!(fault.to_string().contains("member/snap"), "{fault}");
    }
}
