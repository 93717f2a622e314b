//! The files of a log: their names, and the spare that becomes the next one.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, File, OpenMode};
use crate::fault::{Fault, OrFault};

const SUFFIX: &str = ".wal";

/// Digits of each number in a name.
const DIGITS: usize = 16;

/// The name of a segment: `<sequence>-<index>.wal`, sixteen hexadecimal digits each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    /// Counts up by one from 0.
    pub(super) sequence: u64,
    /// One more than the last entry written before; 0 for the first segment.
    pub(super) index: u64,
}

impl Name {
    /// Reads a file name; `None` when it is no segment's.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (sequence, index) = name.strip_suffix(SUFFIX)?.split_once('-')?;
        let number = |text: &str| {
            let digits = text.len() == DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit());
            digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
        };
        Some(Self { sequence: number(sequence)?, index: number(index)? })
    }

    /// The name of the segment after this one, begun when `last_index` was the last entry written.
    pub(super) fn next(self, last_index: u64) -> Option<Self> {
        Some(Self { sequence: self.sequence.checked_add(1)?, index: last_index.checked_add(1)? })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}{SUFFIX}", self.sequence, self.index)
    }
}

/// One open segment; locked when it was opened for writing.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: Name,
    pub(super) path: PathBuf,
    pub(super) file: Box<dyn File>,
}

impl Segment {
    /// Opens a segment for reading, without a lock: its writer may be at work.
    pub(super) fn open(disk: &dyn Disk, dir: &Path, name: Name) -> Result<Self, Fault> {
        let path = dir.join(name.to_string());
        let file = disk.open(&path, OpenMode::Read).or_fault("open", &path)?;
        Ok(Self { name, path, file })
    }

    /// Opens a segment for writing and locks it.
    pub(super) fn open_locked(disk: &dyn Disk, dir: &Path, name: Name) -> Result<Self, Fault> {
        let path = dir.join(name.to_string());
        let file = open_locked(disk, &path, OpenMode::ReadWrite)?;
        Ok(Self { name, path, file })
    }

    /// Returns the length of the file.
    pub(super) fn len(&self) -> Result<u64, Fault> {
        self.file.len().or_fault("measure", &self.path)
    }
}

fn open_locked(disk: &dyn Disk, path: &Path, mode: OpenMode) -> Result<Box<dyn File>, Fault> {
    let file = disk.open(path, mode).or_fault("open", path)?;
    if file.try_lock().or_fault("lock", path)? {
        Ok(file)
    } else {
        Err(Fault::Locked { path: path.to_owned() })
    }
}

/// Lists the segments in `dir` by sequence; none when there is no such directory.
pub(super) fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<Name>, Fault> {
    if !disk.exists(dir).or_fault("look up", dir)? {
        return Ok(Vec::new());
    }
    let files = disk.list(dir).or_fault("list", dir)?;
    let mut names: Vec<Name> = files.iter().filter_map(|name| Name::parse(name)).collect();
    names.sort_unstable();
    Ok(names)
}

/// Picks the segments needed to read on from `index`: from the last that begins at or below it to the end. An earlier
/// one holds only entries below, or entries that were overwritten. Their sequence must have no hole.
pub(super) fn from_index(names: &[Name], dir: &Path, index: u64) -> Result<Vec<Name>, Fault> {
    const REMEDY: &str =
        "put the missing file back, or remove this member and add it again with an empty directory";
    let Some(first) = names.iter().rposition(|name| name.index <= index) else {
        return Err(Fault::unusable(
            dir,
            format!("no log segment begins at or below index {index}"),
            REMEDY,
        ));
    };
    let chosen = &names[first..];
    for pair in chosen.windows(2) {
        if pair[0].sequence.checked_add(1) != Some(pair[1].sequence) {
            let what = format!("segments are missing between {} and {}", pair[0], pair[1]);
            return Err(Fault::unusable(dir, what, REMEDY));
        }
    }
    Ok(chosen.to_vec())
}

/// Picks the last segments that follow each other without a hole. Released segments go together, but a crash may bring
/// some of them back and not others.
pub(super) fn newest_run(names: &[Name]) -> &[Name] {
    let follows = |pair: &[Name]| pair[0].sequence.checked_add(1) == Some(pair[1].sequence);
    let hole = names.windows(2).rposition(|pair| !follows(pair));
    &names[hole.map_or(0, |hole| hole + 1)..]
}

/// Keeps the next segment ready: created, locked and with its space reserved under a temporary name, so that a cut
/// neither waits for that nor finds the disk full.
#[derive(Debug, Default)]
pub(super) struct Spare {
    ready: Option<(PathBuf, Box<dyn File>)>,
    /// Alternates the name, so that a spare never takes the name of the one just put into use.
    count: u64,
}

impl Spare {
    /// Begins without a spare, and removes those that an earlier process left.
    pub(super) fn without_leftovers(disk: &dyn Disk, dir: &Path) -> Result<Self, Fault> {
        for number in 0..2 {
            let path = Self::path(dir, number);
            if disk.exists(&path).or_fault("look up", &path)? {
                disk.remove_file(&path).or_fault("remove", &path)?;
            }
        }
        Ok(Self::default())
    }

    fn path(dir: &Path, number: u64) -> PathBuf {
        dir.join(format!("{number}.tmp"))
    }

    /// Makes the spare if there is none.
    pub(super) fn prepare(&mut self, disk: &dyn Disk, dir: &Path, bytes: u64) -> Result<(), Fault> {
        if self.ready.is_none() {
            let path = Self::path(dir, self.count % 2);
            let file = open_locked(disk, &path, OpenMode::Create)?;
            // One that was left after a failure may hold anything.
            file.set_len(0).or_fault("empty", &path)?;
            file.allocate(bytes).or_fault("reserve space for", &path)?;
            self.count += 1;
            self.ready = Some((path, file));
        }
        Ok(())
    }

    /// Puts the spare into use as segment `name` with `head` as its first bytes. When this returns, file and name are
    /// durable: there is no moment at which a segment without its head could be found.
    pub(super) fn publish(
        &mut self,
        disk: &dyn Disk,
        dir: &Path,
        bytes: u64,
        name: Name,
        head: &[u8],
    ) -> Result<Segment, Fault> {
        self.prepare(disk, dir, bytes)?;
        let Some((spare, file)) = self.ready.take() else {
            unreachable!("prepared above");
        };
        file.write_all_at(0, head).or_fault("write", &spare)?;
        file.sync_data().or_fault("sync", &spare)?;
        let path = dir.join(name.to_string());
        disk.rename(&spare, &path).or_fault("rename", &spare)?;
        disk.sync_dir(dir).or_fault("sync", dir)?;
        Ok(Segment { name, path, file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_written_and_others_refused() {
        let name = Name { sequence: 26, index: 0x2_7b1a };
        assert_eq!(name.to_string(), "000000000000001a-0000000000027b1a.wal");
        assert_eq!(Name::parse(&name.to_string()), Some(name));
        for other in [
            "0.tmp",
            "000000000000001a-0000000000027b1a.wal.broken",
            "1a-27b1a.wal",
            "+00000000000001a-0000000000027b1a.wal",
            "000000000000001a.wal",
        ] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }

    #[test]
    fn segments_before_a_hole_are_left_out() {
        let names = [1, 4, 5].map(|sequence| Name { sequence, index: sequence * 10 });
        assert_eq!(newest_run(&names), &names[1..]);
        assert_eq!(newest_run(&names[1..]), &names[1..]);
        assert_eq!(newest_run(&[]), &[]);
    }

    #[test]
    fn reading_starts_at_the_last_segment_that_can_hold_the_index() {
        let names =
            [(0, 0), (1, 101), (2, 60), (3, 120)].map(|(sequence, index)| Name { sequence, index });
        let dir = Path::new("wal");
        let first = |index| from_index(&names, dir, index).unwrap()[0].sequence;
        assert_eq!([first(0), first(55), first(60), first(119), first(500)], [0, 0, 2, 2, 3]);
        let hole = [names[0], names[2]];
        let fault = from_index(&hole, dir, 5).unwrap_err();
        assert!(fault.to_string().contains("segments are missing between"), "{fault}");
        assert!(from_index(&names[1..2], dir, 100).is_err());
    }
}
