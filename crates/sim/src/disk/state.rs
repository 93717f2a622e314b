//! What is on a disk: now, and after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use storage::OpenMode;

use super::content::{Content, PAGE_BYTES};
use super::{DiskFault, Loss};
use crate::rng::{Rng, mix};

/// The unit that is written whole or not at all.
const SECTOR_BYTES: u64 = 512;

/// What a disk without a limit says is free.
const AVAILABLE_BYTES: u64 = 1 << 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Directory,
    File(u64),
}

type Names = BTreeMap<PathBuf, Entry>;

/// A change of names that is not durable yet.
#[derive(Debug)]
struct NameChange {
    /// The directory whose sync makes it durable.
    dir: PathBuf,
    removed: Option<PathBuf>,
    added: Option<(PathBuf, Entry)>,
}

/// A change of a file that is not durable yet.
#[derive(Debug)]
enum Change {
    Write { offset: u64, data: Vec<u8> },
    Len(u64),
}

#[derive(Debug, Default)]
struct Inode {
    now: Content,
    durable: Content,
    /// What leads from `durable` to `now`, in order.
    changes: Vec<Change>,
    /// Bytes from the start whose space is reserved.
    reserved: u64,
    /// The handle that holds the lock.
    locked_by: Option<u64>,
    /// A sync has failed: what it was to make durable never will be.
    has_failed: bool,
    /// A sync has failed, and what it was to make durable is taken for durable by the next process.
    has_forgotten: bool,
}

#[derive(Debug, Default)]
struct Armed {
    cut_at_sync: Option<u32>,
    fail_sync: Option<u32>,
    forget_sync: Option<u32>,
    fail_write: Option<u32>,
    fail_read: Option<u32>,
    space_left: Option<u64>,
    struck: u32,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct State {
    generation: u64,
    is_cut: bool,
    names: Names,
    durable_names: Names,
    name_changes: Vec<NameChange>,
    /// By number; one without a name lives until the next crash.
    inodes: BTreeMap<u64, Inode>,
    serial: u64,
    armed: Armed,
}

/// Counts down to a fault's moment; tells whether it has come.
fn strikes(countdown: &mut Option<u32>) -> bool {
    match countdown {
        None => false,
        Some(0) => {
            *countdown = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
    }
}

fn no_power() -> io::Error {
    io::Error::other("the disk has no power")
}

fn failed() -> io::Error {
    io::Error::other("an input/output error, armed by the world")
}

fn parent(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}

impl State {
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    pub(super) fn faults_struck(&self) -> u32 {
        self.armed.struck
    }

    pub(super) fn check_power(&self, generation: u64) -> io::Result<()> {
        if self.is_cut || generation != self.generation { Err(no_power()) } else { Ok(()) }
    }

    pub(super) fn arm(&mut self, fault: DiskFault) {
        match fault {
            DiskFault::CutAtSync(after) => self.armed.cut_at_sync = Some(after),
            DiskFault::FailSync(after) => self.armed.fail_sync = Some(after),
            DiskFault::ForgetSync(after) => self.armed.forget_sync = Some(after),
            DiskFault::FailWrite(after) => self.armed.fail_write = Some(after),
            DiskFault::FailRead(after) => self.armed.fail_read = Some(after),
            DiskFault::Full(after) => self.armed.space_left = Some(after),
        }
    }

    pub(super) fn disarm(&mut self) {
        self.armed = Armed::default();
    }

    pub(super) fn ease(&mut self) {
        self.armed = Armed { struck: self.armed.struck, ..Armed::default() };
    }

    pub(super) fn kill(&mut self) {
        self.generation += 1;
        for inode in self.inodes.values_mut() {
            inode.locked_by = None;
            inode.has_forgotten = false;
            if std::mem::take(&mut inode.has_failed) {
                // What the operating system could not write it does not keep for ever.
                inode.changes.clear();
                inode.now = inode.durable.clone();
            }
        }
    }

    pub(super) fn crash(&mut self, loss: Loss) {
        self.kill();
        self.is_cut = false;
        for (number, change) in (0..).zip(self.name_changes.drain(..)) {
            if loss.keeps(mix(number)) {
                change.carry_out(&mut self.durable_names);
            }
        }
        // What was in a directory whose own name was lost is lost with it.
        let names = std::mem::take(&mut self.durable_names);
        let has_parents = |path: &Path| {
            path.ancestors()
                .skip(1)
                .all(|dir| dir.as_os_str().is_empty() || names.get(dir) == Some(&Entry::Directory))
        };
        let kept: Names = names
            .iter()
            .filter(|(path, _)| has_parents(path))
            .map(|(path, entry)| (path.clone(), *entry))
            .collect();
        let named: BTreeSet<u64> = kept
            .values()
            .filter_map(|entry| match entry {
                Entry::File(inode) => Some(*inode),
                Entry::Directory => None,
            })
            .collect();
        self.inodes.retain(|number, _| named.contains(number));
        for (number, inode) in &mut self.inodes {
            inode.crash(Loss { seed: mix(loss.seed ^ mix(*number)), ..loss });
        }
        self.names.clone_from(&kept);
        self.durable_names = kept;
    }

    fn inode(&mut self, number: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&number).ok_or_else(no_power)
    }

    fn is_directory(&self, path: &Path) -> bool {
        path.as_os_str().is_empty() || self.names.get(path) == Some(&Entry::Directory)
    }

    fn change_name(&mut self, change: NameChange) {
        change.carry_out(&mut self.names);
        self.name_changes.push(change);
    }

    fn add_name(&mut self, path: &Path, entry: Entry) {
        let added = Some((path.to_owned(), entry));
        self.change_name(NameChange { dir: parent(path), removed: None, added });
    }

    pub(super) fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<(u64, u64)> {
        self.serial += 1;
        let handle = self.serial;
        match (self.names.get(path).copied(), mode) {
            (Some(_), OpenMode::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(Entry::Directory), _) => Err(io::ErrorKind::IsADirectory.into()),
            (Some(Entry::File(inode)), _) => Ok((inode, handle)),
            (None, OpenMode::Read | OpenMode::ReadWrite) => Err(io::ErrorKind::NotFound.into()),
            (None, OpenMode::Create | OpenMode::CreateNew) => {
                if !self.is_directory(&parent(path)) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                self.serial += 1;
                let inode = self.serial;
                self.inodes.insert(inode, Inode::default());
                self.add_name(path, Entry::File(inode));
                Ok((inode, handle))
            }
        }
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let missing: Vec<PathBuf> =
            path.ancestors().filter(|dir| !self.is_directory(dir)).map(Path::to_owned).collect();
        for dir in missing.into_iter().rev() {
            if self.names.contains_key(&dir) {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            self.add_name(&dir, Entry::Directory);
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let Some(entry @ Entry::File(_)) = self.names.get(from).copied() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if !self.is_directory(&parent(to)) || self.names.get(to) == Some(&Entry::Directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let added = Some((to.to_owned(), entry));
        self.change_name(NameChange { dir: parent(to), removed: Some(from.to_owned()), added });
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let Some(Entry::File(_)) = self.names.get(path) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let removed = Some(path.to_owned());
        self.change_name(NameChange { dir: parent(path), removed, added: None });
        Ok(())
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        if !self.is_directory(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = self.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        self.is_directory(path) || self.names.contains_key(path)
    }

    pub(super) fn available_bytes(&self) -> u64 {
        self.armed.space_left.unwrap_or(AVAILABLE_BYTES)
    }

    /// Lets a sync happen, or a fault instead.
    fn begin_sync(&mut self) -> io::Result<()> {
        if strikes(&mut self.armed.cut_at_sync) {
            self.armed.struck += 1;
            self.is_cut = true;
            return Err(no_power());
        }
        if strikes(&mut self.armed.fail_sync) {
            self.armed.struck += 1;
            return Err(failed());
        }
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        if !self.is_directory(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.begin_sync()?;
        let (synced, rest) =
            std::mem::take(&mut self.name_changes).into_iter().partition(|c| c.dir == dir);
        self.name_changes = rest;
        let synced: Vec<NameChange> = synced;
        for change in synced {
            change.carry_out(&mut self.durable_names);
        }
        Ok(())
    }

    pub(super) fn sync_data(&mut self, number: u64) -> io::Result<()> {
        let begun = self.begin_sync();
        let is_cut = self.is_cut;
        let inode = self.inode(number)?;
        if begun.is_err() && !is_cut {
            inode.has_failed = true;
        }
        begun?;
        if strikes(&mut self.armed.forget_sync) {
            self.armed.struck += 1;
            let inode = self.inode(number)?;
            inode.changes.clear();
            inode.has_forgotten = true;
        }
        let inode = self.inode(number)?;
        if inode.has_failed || inode.has_forgotten {
            return Err(failed());
        }
        for change in std::mem::take(&mut inode.changes) {
            change.carry_out(&mut inode.durable)?;
        }
        Ok(())
    }

    pub(super) fn len(&mut self, number: u64) -> io::Result<u64> {
        Ok(self.inode(number)?.now.len())
    }

    pub(super) fn set_len(&mut self, number: u64, len: u64) -> io::Result<()> {
        let inode = self.inode(number)?;
        inode.reserved = inode.reserved.min(len);
        inode.change(Change::Len(len))
    }

    pub(super) fn allocate(&mut self, number: u64, len: u64) -> io::Result<()> {
        let reserved = self.inode(number)?.reserved;
        self.use_space(len.saturating_sub(reserved))?;
        let inode = self.inode(number)?;
        inode.reserved = reserved.max(len);
        let extended = inode.now.len().max(len);
        inode.change(Change::Len(extended))
    }

    pub(super) fn read(&mut self, number: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if strikes(&mut self.armed.fail_read) {
            self.armed.struck += 1;
            return Err(failed());
        }
        self.inode(number)?.now.read(offset, out)
    }

    pub(super) fn write(&mut self, number: u64, offset: u64, data: &[u8]) -> io::Result<()> {
        if strikes(&mut self.armed.fail_write) {
            self.armed.struck += 1;
            // Whole pages in front may have been taken in before it failed.
            let written = data.len() / 2 / PAGE_BYTES * PAGE_BYTES;
            let data = data[..written].to_vec();
            self.inode(number)?.change(Change::Write { offset, data })?;
            return Err(failed());
        }
        let inode = self.inode(number)?;
        let needs_space = |page: &usize| {
            !inode.now.has_page(*page) && (*page as u64) * PAGE_BYTES as u64 >= inode.reserved
        };
        let new = Content::pages_of(offset, data.len())?.filter(needs_space).count();
        self.use_space(new as u64 * PAGE_BYTES as u64)?;
        self.inode(number)?.change(Change::Write { offset, data: data.to_vec() })
    }

    fn use_space(&mut self, bytes: u64) -> io::Result<()> {
        let Some(left) = &mut self.armed.space_left else { return Ok(()) };
        if let Some(rest) = left.checked_sub(bytes) {
            *left = rest;
            return Ok(());
        }
        self.armed.struck += 1;
        Err(io::ErrorKind::StorageFull.into())
    }

    pub(super) fn try_lock(&mut self, number: u64, handle: u64) -> io::Result<bool> {
        let inode = self.inode(number)?;
        Ok(*inode.locked_by.get_or_insert(handle) == handle)
    }

    pub(super) fn unlock(&mut self, number: u64, handle: u64) {
        if let Some(inode) = self.inodes.get_mut(&number) {
            inode.locked_by.take_if(|by| *by == handle);
        }
    }

    pub(super) fn flip_bit(&mut self, seed: u64) -> Option<String> {
        let mut rng = Rng::new(seed);
        let files: Vec<(&PathBuf, u64)> = self
            .durable_names
            .iter()
            .filter_map(|(path, entry)| match entry {
                Entry::File(inode) => Some((path, *inode)),
                Entry::Directory => None,
            })
            .filter(|(_, inode)| self.inodes.get(inode).is_some_and(|i| i.durable.len() > 0))
            .collect();
        if files.is_empty() {
            return None;
        }
        let (path, number) = files[rng.index(files.len())];
        let inode = self.inodes.get_mut(&number)?;
        let used = inode.durable.used();
        if used.is_empty() {
            return None;
        }
        let offset = used[rng.index(used.len())];
        let bit = rng.below(8);
        for content in [&mut inode.durable, &mut inode.now] {
            let mut byte = [0];
            content.read(offset, &mut byte).ok()?;
            byte[0] ^= 1 << bit;
            content.write(offset, &byte).ok()?;
        }
        Some(format!("bit {bit} of byte {offset} of {}", path.display()))
    }
}

impl NameChange {
    fn carry_out(&self, names: &mut Names) {
        if let Some(path) = &self.removed {
            names.remove(path);
        }
        if let Some((path, entry)) = &self.added {
            names.insert(path.clone(), *entry);
        }
    }
}

impl Change {
    fn carry_out(&self, content: &mut Content) -> io::Result<()> {
        match self {
            Self::Write { offset, data } => content.write(*offset, data),
            Self::Len(len) => content.set_len(*len),
        }
    }
}

impl Inode {
    fn change(&mut self, change: Change) -> io::Result<()> {
        change.carry_out(&mut self.now)?;
        self.changes.push(change);
        Ok(())
    }

    fn crash(&mut self, loss: Loss) {
        // How often each place was written to: together they name a write.
        let mut turns: BTreeMap<u64, u64> = BTreeMap::new();
        for change in self.changes.drain(..) {
            let place = match &change {
                Change::Write { offset, .. } => offset + 1,
                Change::Len(_) => 0,
            };
            let turn = turns.entry(place).or_default();
            *turn += 1;
            let name = mix(place ^ mix(*turn));
            let left = loss.left_of(change, name);
            for change in left {
                // What was possible before is possible again.
                let carried_out = change.carry_out(&mut self.durable);
                debug_assert!(carried_out.is_ok(), "a change that was made once can be repeated");
            }
        }
        self.now = self.durable.clone();
        self.reserved = self.now.len();
        self.locked_by = None;
        self.has_failed = false;
    }
}

impl Loss {
    fn keeps(&self, name: u64) -> bool {
        Rng::new(self.seed ^ name).below(100) >= self.lost_percent
    }

    /// What is left of a change that was not synced.
    fn left_of(&self, change: Change, name: u64) -> Vec<Change> {
        if !self.keeps(name) {
            return Vec::new();
        }
        let mut rng = Rng::new(self.seed ^ mix(name));
        match change {
            Change::Write { offset, data } if rng.chance(self.torn_percent) => {
                let mut left = Vec::new();
                let mut at = offset;
                let mut rest = &data[..];
                while !rest.is_empty() {
                    let room = SECTOR_BYTES - at % SECTOR_BYTES;
                    let len = rest.len().min(usize::try_from(room).unwrap_or(rest.len()));
                    let (sector, later) = rest.split_at(len);
                    if rng.chance(50) {
                        left.push(Change::Write { offset: at, data: sector.to_vec() });
                    }
                    at += len as u64;
                    rest = later;
                }
                left
            }
            whole => vec![whole],
        }
    }
}
