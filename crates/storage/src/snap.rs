//! Raft's snapshot files, in etcd's format: `docs/formats/snap.md`.
//!
//! A snapshot file says up to which index and with which voters the backend's content replaces the log. It is durable
//! before the log gets its mark; start-up uses a file only together with its mark. Beside them lie databases received
//! from a leader that are not installed yet (`.snap.db`).

use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;
use proto::{raftpb, snappb, walpb};

use crate::disk::{Disk, OpenMode};
use crate::fault::{Fault, OrFault};
use crate::length;

const SUFFIX: &str = ".snap";
const DATABASE_SUFFIX: &str = ".snap.db";
const IMPORT_SUFFIX: &str = ".import";
const BROKEN_SUFFIX: &str = ".broken";

/// No writer makes a larger file: it holds the membership, not the data.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// The path of the snapshot file of `term` and `index`.
pub fn path(dir: &Path, term: u64, index: u64) -> PathBuf {
    dir.join(format!("{term:016x}-{index:016x}{SUFFIX}"))
}

/// The path of the received database whose content is that of `index`.
pub fn database_path(dir: &Path, index: u64) -> PathBuf {
    dir.join(format!("{index:016x}{DATABASE_SUFFIX}"))
}

/// The path of a backend that was made of the received database of `index`, and has not taken its place yet.
pub fn import_path(dir: &Path, index: u64) -> PathBuf {
    dir.join(format!("{index:016x}{IMPORT_SUFFIX}"))
}

/// Removes all backends that were made of received databases, but the one of `index`.
pub fn remove_imports(disk: &dyn Disk, dir: &Path, index: Option<u64>) -> Result<(), Fault> {
    let kept = index.map(|index| import_path(dir, index));
    let all = names(disk, dir, IMPORT_SUFFIX)?.into_iter().map(|name| dir.join(name));
    let removed: Vec<_> = all.filter(|path| kept.as_ref() != Some(path)).collect();
    remove_all(disk, dir, &removed)
}

/// Writes the file of `snapshot`. Durable when this returns; after a crash the file is there whole or not at all.
pub fn save(disk: &dyn Disk, dir: &Path, snapshot: &raftpb::Snapshot) -> Result<(), Fault> {
    write(disk, &path(dir, snapshot.metadata.term, snapshot.metadata.index), &encode(snapshot))
}

/// Encodes the file of `snapshot`: with [`write()`], what [`save`] does, for those who time the parts.
pub fn encode(snapshot: &raftpb::Snapshot) -> Vec<u8> {
    let data = Bytes::from(snapshot.encode_to_vec());
    snappb::Snapshot { crc: crc32c::crc32c(&data), data }.encode_to_vec()
}

/// Writes an encoded snapshot to the file `path`, as [`save`] does.
pub fn write(disk: &dyn Disk, path: &Path, encoded: &[u8]) -> Result<(), Fault> {
    let dir = path.parent().unwrap_or_else(|| Path::new(""));
    // A leftover of this name is removed at start-up with all others that begin with `tmp`.
    let temporary = dir.join("tmp.snap");
    let file = disk.open(&temporary, OpenMode::Create).or_fault("create", &temporary)?;
    file.set_len(0).or_fault("empty", &temporary)?;
    file.write_all_at(0, encoded).or_fault("write", &temporary)?;
    file.sync_data().or_fault("sync", &temporary)?;
    disk.rename(&temporary, path).or_fault("rename", &temporary)?;
    disk.sync_dir(dir).or_fault("sync", dir)
}

/// Reads one file.
pub fn load(disk: &dyn Disk, path: &Path) -> Result<raftpb::Snapshot, Fault> {
    let damaged = |what: String| {
        let remedy = "the next older snapshot file is used if there is one; otherwise remove this member and add it \
                      again with an empty data directory";
        Fault::damaged(path, 0, what, remedy)
    };
    let file = disk.open(path, OpenMode::Read).or_fault("open", path)?;
    let len = file.len().or_fault("measure", path)?;
    if len > FILE_BYTES_MAX {
        return Err(damaged(format!("{len} bytes are too many for a snapshot file")));
    }
    let mut encoded = vec![0; length(len)];
    file.read_exact_at(0, &mut encoded).or_fault("read", path)?;
    let envelope = snappb::Snapshot::decode(Bytes::from(encoded))
        .map_err(|error| damaged(format!("it does not decode: {error}")))?;
    // etcd takes a checksum of zero for a missing one.
    if envelope.data.is_empty() || envelope.crc == 0 {
        return Err(damaged("it is empty".to_owned()));
    }
    let computed = crc32c::crc32c(&envelope.data);
    if computed != envelope.crc {
        let what = format!("checksum {:08x} does not match {computed:08x}", envelope.crc);
        return Err(damaged(what));
    }
    raftpb::Snapshot::decode(envelope.data)
        .map_err(|error| damaged(format!("its content does not decode: {error}")))
}

/// Reads the newest snapshot that is one of `marks`. A damaged file is set aside with the suffix `.broken`, and the
/// next older one tried; a file that cannot be read at all is a fault.
pub fn load_newest(
    disk: &dyn Disk,
    dir: &Path,
    marks: &[walpb::Snapshot],
) -> Result<Option<raftpb::Snapshot>, Fault> {
    for name in names(disk, dir, SUFFIX)?.into_iter().rev() {
        let path = dir.join(&name);
        match load(disk, &path) {
            Ok(snapshot) => {
                let metadata = &snapshot.metadata;
                let is_it = |mark: &walpb::Snapshot| {
                    (mark.term, mark.index) == (metadata.term, metadata.index)
                };
                if marks.iter().any(is_it) {
                    return Ok(Some(snapshot));
                }
            }
            Err(fault @ Fault::Damaged { .. }) => {
                let broken = dir.join(format!("{name}{BROKEN_SUFFIX}"));
                tracing::warn!(%fault, broken = %broken.display(), "setting a damaged snapshot file aside");
                disk.rename(&path, &broken).or_fault("rename", &path)?;
                disk.sync_dir(dir).or_fault("sync", dir)?;
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(None)
}

/// Removes the oldest snapshot files, and likewise received databases, while there are more than `max` of each; 0 keeps
/// all. Returns what was removed.
pub fn purge(disk: &dyn Disk, dir: &Path, max: usize) -> Result<Vec<PathBuf>, Fault> {
    let mut removed = Vec::new();
    if max == 0 {
        return Ok(removed);
    }
    for suffix in [SUFFIX, DATABASE_SUFFIX] {
        let names = names(disk, dir, suffix)?;
        let surplus = names.len().saturating_sub(max);
        removed.extend(names[..surplus].iter().map(|name| dir.join(name)));
    }
    remove_all(disk, dir, &removed)?;
    Ok(removed)
}

/// Removes received databases older than `index`: they were installed or overtaken.
pub fn release_databases(disk: &dyn Disk, dir: &Path, index: u64) -> Result<(), Fault> {
    let mut released = Vec::new();
    for name in names(disk, dir, DATABASE_SUFFIX)? {
        let digits = name.strip_suffix(DATABASE_SUFFIX).unwrap_or_default();
        if u64::from_str_radix(digits, 16).is_ok_and(|of| of < index) {
            released.push(dir.join(name));
        }
    }
    remove_all(disk, dir, &released)
}

/// Lists names by `suffix`, oldest first.
fn names(disk: &dyn Disk, dir: &Path, suffix: &str) -> Result<Vec<String>, Fault> {
    let mut names = disk.list(dir).or_fault("list", dir)?;
    names.retain(|name| name.ends_with(suffix) && !name.starts_with("tmp"));
    Ok(names)
}

fn remove_all(disk: &dyn Disk, dir: &Path, paths: &[PathBuf]) -> Result<(), Fault> {
    for path in paths {
        disk.remove_file(path).or_fault("remove", path)?;
    }
    if paths.is_empty() { Ok(()) } else { disk.sync_dir(dir).or_fault("sync", dir) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::OsDisk;

    fn snapshot(term: u64, index: u64) -> raftpb::Snapshot {
        let conf_state = raftpb::ConfState { voters: vec![7], ..raftpb::ConfState::default() };
        raftpb::Snapshot {
            data: Bytes::from_static(b"{}"),
            metadata: raftpb::SnapshotMetadata { conf_state, index, term },
        }
    }

    fn mark(term: u64, index: u64) -> walpb::Snapshot {
        walpb::Snapshot { index, term, conf_state: None }
    }

    #[test]
    fn the_newest_file_with_a_mark_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        for index in [10, 0x20, 30] {
            save(&OsDisk, dir, &snapshot(2, index)).unwrap();
        }
        assert!(path(dir, 2, 0x20).ends_with("0000000000000002-0000000000000020.snap"));
        let loaded = load_newest(&OsDisk, dir, &[mark(2, 10), mark(2, 0x20), mark(3, 30)]).unwrap();
        assert_eq!(loaded, Some(snapshot(2, 0x20)));
        assert_eq!(load_newest(&OsDisk, dir, &[mark(1, 10)]).unwrap(), None);
        assert!(!dir.join("tmp.snap").exists());
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        save(&OsDisk, dir, &snapshot(1, 10)).unwrap();
        save(&OsDisk, dir, &snapshot(1, 20)).unwrap();
        let newest = path(dir, 1, 20);
        let good = std::fs::read(&newest).unwrap();
        let marks = [mark(1, 10), mark(1, 20)];
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 0x01;
            std::fs::write(&newest, &bad).unwrap();
            assert_eq!(
                load_newest(&OsDisk, dir, &marks).unwrap(),
                Some(snapshot(1, 10)),
                "{position}"
            );
            assert!(!newest.exists());
            assert_eq!(
                std::fs::read(dir.join("0000000000000001-0000000000000014.snap.broken")).unwrap(),
                bad
            );
        }
        std::fs::write(&newest, b"").unwrap();
        assert_eq!(load_newest(&OsDisk, dir, &marks).unwrap(), Some(snapshot(1, 10)));
    }

    #[test]
    fn purging_keeps_the_newest_files_and_databases() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        for index in 1..=4 {
            save(&OsDisk, dir, &snapshot(1, index)).unwrap();
            std::fs::write(database_path(dir, index), b"db").unwrap();
        }
        std::fs::write(dir.join("db"), b"db").unwrap();
        assert_eq!(purge(&OsDisk, dir, 0).unwrap(), Vec::<PathBuf>::new());
        let removed = purge(&OsDisk, dir, 3).unwrap();
        assert_eq!(removed, [path(dir, 1, 1), database_path(dir, 1)]);
        release_databases(&OsDisk, dir, 4).unwrap();
        let left = OsDisk.list(dir).unwrap();
        assert_eq!(
            left,
            [
                "0000000000000001-0000000000000002.snap",
                "0000000000000001-0000000000000003.snap",
                "0000000000000001-0000000000000004.snap",
                "0000000000000004.snap.db",
                "db"
            ]
        );
    }
}
