//! A member's disk: keeps what was synced, and of the rest what a crash happens to leave.
//!
//! | what happens | what is left |
//! |---|---|
//! | the process dies ([`SimDisk::kill`]) | everything written, but what was not synced is still not durable |
//! | power goes ([`SimDisk::crash`]) | what was synced; each write after that whole, torn at sectors of 512 bytes, or not at all, in any combination; each name that was not synced, or not |
//! | a fault that was armed ([`SimDisk::arm`]) | as the operating system has it: a failed write may have written whole pages before |
//!
//! What becomes of a write is decided by its place, not by its turn: the engine issues the writes of one commit in no
//! particular order, and a run has to be repeatable.

mod content;
mod state;

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use storage::{Disk, File, OpenMode};

use self::state::State;

/// A disk, as the world sees it.
#[derive(Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// A fault that waits for its moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFault {
    /// Power goes when so many more syncs were done, before the next one takes effect.
    CutAtSync(u32),
    /// The sync after so many more fails; what it should have made durable never is.
    FailSync(u32),
    /// The sync of a file after so many more fails, and the process does not learn what that means: what the sync should have
    /// made durable can be read until power goes, but no later sync makes it durable, unless it is written again.
    ForgetSync(u32),
    /// The write after so many more fails.
    FailWrite(u32),
    /// The read after so many more fails.
    FailRead(u32),
    /// There is no space left when so many more bytes are in use.
    Full(u64),
}

/// How much of what was not synced a crash leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// Writes and names that are lost, of a hundred.
    pub lost_percent: u64,
    /// Writes that are torn, of a hundred that are not lost.
    pub torn_percent: u64,
    /// Which ones.
    pub seed: u64,
}

impl SimDisk {
    /// Returns the disk as a process has it that starts now. It ends with the process: after the next [`Self::kill`] or
    /// [`Self::crash`] neither it nor a file opened through it does anything any more.
    pub fn mount(&self) -> Arc<dyn Disk> {
        let generation = self.state.lock().generation();
        Arc::new(Mount { state: Arc::clone(&self.state), generation })
    }

    /// Ends the process that has the disk mounted.
    pub fn kill(&self) {
        self.state.lock().kill();
    }

    /// Takes away power and gives it back. The process has ended.
    pub fn crash(&self, loss: Loss) {
        self.state.lock().crash(loss);
    }

    /// Arms a fault; one of each kind at a time.
    pub fn arm(&self, fault: DiskFault) {
        self.state.lock().arm(fault);
    }

    /// Disarms all faults; there is space again.
    pub fn disarm(&self) {
        self.state.lock().disarm();
    }

    /// As [`Self::disarm`], but what has struck still counts.
    pub fn ease(&self) {
        self.state.lock().ease();
    }

    /// Tells whether an armed fault has taken power away: nothing works until a [`Self::crash`].
    pub fn is_cut(&self) -> bool {
        self.state.lock().is_cut()
    }

    /// Counts the faults that have struck since they were last disarmed.
    pub fn faults_struck(&self) -> u32 {
        self.state.lock().faults_struck()
    }

    /// Flips one bit of what is durable, at a place chosen by `seed`; returns where. `None` when there is nothing.
    pub fn flip_bit(&self, seed: u64) -> Option<String> {
        self.state.lock().flip_bit(seed)
    }
}

/// Drops `.` and a leading `/`, so that each file has one name.
fn normal(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

/// The disk as one process has it.
#[derive(Debug)]
struct Mount {
    state: Arc<Mutex<State>>,
    generation: u64,
}

impl Mount {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock();
        state.check_power(self.generation)?;
        work(&mut state)
    }
}

impl Disk for Mount {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let (inode, handle) = self.with(|state| state.open(&normal(path), mode))?;
        let is_writable = mode != OpenMode::Read;
        let mount = Self { state: Arc::clone(&self.state), generation: self.generation };
        Ok(Box::new(OpenFile { mount, inode, handle, is_writable }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.with(|state| state.create_dir_all(&normal(path)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.with(|state| state.rename(&normal(from), &normal(to)))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.with(|state| state.remove_file(&normal(path)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.with(|state| state.list(&normal(dir)))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.with(|state| Ok(state.exists(&normal(path))))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.with(|state| state.sync_dir(&normal(dir)))
    }

    fn available_bytes(&self, _path: &Path) -> io::Result<u64> {
        self.with(|state| Ok(state.available_bytes()))
    }
}

/// An open file.
#[derive(Debug)]
struct OpenFile {
    mount: Mount,
    inode: u64,
    /// Tells this handle from others on the same file.
    handle: u64,
    is_writable: bool,
}

impl OpenFile {
    fn change<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        if self.is_writable {
            self.mount.with(work)
        } else {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
}

impl File for OpenFile {
    fn len(&self) -> io::Result<u64> {
        self.mount.with(|state| state.len(self.inode))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|state| state.set_len(self.inode, len))
    }

    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.mount.with(|state| state.read(self.inode, offset, out))
    }

    fn write_all_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(|state| state.write(self.inode, offset, data))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.mount.with(|state| state.sync_data(self.inode))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.change(|state| state.allocate(self.inode, len))
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.mount.with(|state| state.try_lock(self.inode, self.handle))
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let mut state = self.mount.state.lock();
        if state.generation() == self.mount.generation {
            state.unlock(self.inode, self.handle);
        }
    }
}

#[cfg(test)]
mod tests;
