//! A disk in memory, for tests and for looking into images: correct, without faults, gone with the process.
//!
//! Names behave as on a file system: an open file outlives its removal or replacement, and parents must exist. The
//! simulator has its own disk; this one never loses or damages anything.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::disk::{Disk, File, OpenMode};

/// What [`MemDisk`] says is free: nobody fills it.
const AVAILABLE_BYTES: u64 = 1 << 40;

/// A tree of files in memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemDisk {
    tree: Arc<Mutex<Tree>>,
}

#[derive(Debug, Default)]
struct Tree {
    files: BTreeMap<PathBuf, Arc<Node>>,
    directories: BTreeSet<PathBuf>,
}

#[derive(Debug, Default)]
struct Node {
    bytes: RwLock<Vec<u8>>,
    is_locked: AtomicBool,
}

impl MemDisk {
    /// Makes an empty disk with the root directory alone.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a file with `bytes` at `path`, replacing one there and creating its directories.
    pub fn insert(&self, path: &Path, bytes: Vec<u8>) {
        let path = normal(path);
        let mut tree = self.tree.lock();
        tree.directories.extend(path.ancestors().skip(1).map(Path::to_owned));
        let node = Node { bytes: RwLock::new(bytes), is_locked: AtomicBool::new(false) };
        tree.files.insert(path, Arc::new(node));
    }

    /// Copies the bytes of the file at `path`.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let tree = self.tree.lock();
        tree.files.get(&normal(path)).map(|node| node.bytes.read().clone())
    }
}

/// Drops `.` and a leading `/`, so that each file has one name.
fn normal(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

impl Tree {
    fn has_directory(&self, path: &Path) -> bool {
        path.as_os_str().is_empty() || self.directories.contains(path)
    }

    fn has_parent(&self, path: &Path) -> bool {
        path.parent().is_some_and(|parent| self.has_directory(parent))
    }
}

impl Disk for MemDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let path = normal(path);
        let mut tree = self.tree.lock();
        let node = match (tree.files.get(&path), mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(node), _) => Arc::clone(node),
            (None, OpenMode::Read | OpenMode::ReadWrite) => {
                return Err(io::ErrorKind::NotFound.into());
            }
            (None, OpenMode::Create | OpenMode::CreateNew) => {
                if tree.has_directory(&path) {
                    return Err(io::ErrorKind::IsADirectory.into());
                }
                if !tree.has_parent(&path) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let node = Arc::new(Node::default());
                tree.files.insert(path, Arc::clone(&node));
                node
            }
        };
        let is_writable = mode != OpenMode::Read;
        Ok(Box::new(MemFile { node, is_writable, has_lock: AtomicBool::new(false) }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = normal(path);
        let mut tree = self.tree.lock();
        if path.ancestors().any(|part| tree.files.contains_key(part)) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        tree.directories.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (normal(from), normal(to));
        let mut tree = self.tree.lock();
        if !tree.has_parent(&to) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if let Some(node) = tree.files.remove(&from) {
            tree.files.insert(to, node);
            return Ok(());
        }
        if !tree.directories.contains(&from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let moved = |path: PathBuf| match path.strip_prefix(&from) {
            Ok(rest) if rest.as_os_str().is_empty() => to.clone(),
            Ok(rest) => to.join(rest),
            Err(_) => path,
        };
        let Tree { files, directories } = std::mem::take(&mut *tree);
        tree.files = files.into_iter().map(|(path, node)| (moved(path), node)).collect();
        tree.directories = directories.into_iter().map(moved).collect();
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let removed = self.tree.lock().files.remove(&normal(path));
        removed.map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let dir = normal(dir);
        let tree = self.tree.lock();
        if !tree.has_directory(&dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let paths = tree.files.keys().chain(&tree.directories);
        let inside = paths.filter(|path| path.parent() == Some(&dir));
        let names: BTreeSet<_> =
            inside.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect();
        Ok(names.into_iter().collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let path = normal(path);
        let tree = self.tree.lock();
        Ok(tree.files.contains_key(&path) || tree.has_directory(&path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let is_there = self.tree.lock().has_directory(&normal(dir));
        if is_there { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn available_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(AVAILABLE_BYTES)
    }
}

/// An open file of a [`MemDisk`].
#[derive(Debug)]
struct MemFile {
    node: Arc<Node>,
    is_writable: bool,
    /// Whether this handle is the one that locked the file.
    has_lock: AtomicBool,
}

impl MemFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.is_writable { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

/// Where `len` bytes at `offset` end in memory.
fn end_of(offset: u64, len: usize) -> io::Result<usize> {
    crate::length(offset).checked_add(len).ok_or_else(|| io::ErrorKind::FileTooLarge.into())
}

impl File for MemFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.node.bytes.read().len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        self.node.bytes.write().resize(crate::length(len), 0);
        Ok(())
    }

    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = end_of(offset, out.len())?;
        let bytes = self.node.bytes.read();
        let found = bytes.get(crate::length(offset)..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn write_all_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        let end = end_of(offset, data.len())?;
        let mut bytes = self.node.bytes.write();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[end - data.len()..end].copy_from_slice(data);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let extended = self.len()?.max(len);
        self.set_len(extended)
    }

    fn try_lock(&self) -> io::Result<bool> {
        if self.has_lock.load(Ordering::Acquire) {
            return Ok(true);
        }
        let is_free = !self.node.is_locked.swap(true, Ordering::AcqRel);
        self.has_lock.store(is_free, Ordering::Release);
        Ok(is_free)
    }
}

impl Drop for MemFile {
    fn drop(&mut self) {
        if self.has_lock.load(Ordering::Acquire) {
            self.node.is_locked.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_outlives_its_replacement() {
        let disk = MemDisk::new();
        disk.create_dir_all(Path::new("/data")).unwrap();
        let old = disk.open(Path::new("/data/db"), OpenMode::CreateNew).unwrap();
        old.write_all_at(0, b"old").unwrap();
        disk.insert(Path::new("data/./tmp"), b"new".to_vec());
        disk.rename(Path::new("/data/tmp"), Path::new("/data/db")).unwrap();
        let mut read = [0; 3];
        old.read_exact_at(0, &mut read).unwrap();
        assert_eq!(&read, b"old");
        assert_eq!(disk.contents(Path::new("/data/db")).unwrap(), b"new");
        disk.rename(Path::new("/data"), Path::new("/moved")).unwrap();
        assert_eq!(disk.list(Path::new("/moved")).unwrap(), ["db"]);
        assert_eq!(disk.list(Path::new("/")).unwrap(), ["moved"]);
    }

    #[test]
    fn modes_parents_and_ends_are_those_of_a_file_system() {
        let disk = MemDisk::new();
        let kind = |path, mode| disk.open(Path::new(path), mode).unwrap_err().kind();
        assert_eq!(kind("/no/f", OpenMode::Create), io::ErrorKind::NotFound);
        assert_eq!(kind("/f", OpenMode::ReadWrite), io::ErrorKind::NotFound);
        let file = disk.open(Path::new("/f"), OpenMode::Create).unwrap();
        assert_eq!(kind("/f", OpenMode::CreateNew), io::ErrorKind::AlreadyExists);
        file.write_all_at(2, b"x").unwrap();
        file.allocate(8).unwrap();
        assert_eq!(disk.contents(Path::new("/f")).unwrap(), b"\0\0x\0\0\0\0\0");
        let end = file.read_exact_at(7, &mut [0; 2]).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        let reader = disk.open(Path::new("/f"), OpenMode::Read).unwrap();
        assert!(reader.write_all_at(0, b"y").is_err());
        assert!(file.try_lock().unwrap() && !reader.try_lock().unwrap());
        drop(file);
        assert!(reader.try_lock().unwrap());
    }
}
