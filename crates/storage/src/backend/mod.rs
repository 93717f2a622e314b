//! The backend: ordered tables in one file, changed by atomic and durable commits.
//!
//! The engine is redb; none of its types leaves this module. It works on a [`crate::File`], so that the simulator can own
//! the disk, and takes no lock of its own: whoever opens it holds the data directory's. Layout: `docs/formats/backend.md`.
//!
//! Commits come one after the other, also between the steps of a defragmentation; readers hold up nothing and wait for
//! nothing. A damaged record, block or file is a
//! [`Fault`]; `checked.rs` says how far that goes.

mod batch;
mod checked;
mod defragment;
mod engine;
mod reader;
mod record;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

pub use batch::{Op, TableId, WriteBatch};
pub use defragment::DefragmentFault;
pub use reader::{Range, Reader};

use defragment::{Progress, Rewrite, remove_leftover, temporary_path};
use engine::Engine;
use reader::View;

use crate::disk::{Disk, OpenMode};
use crate::fault::{Fault, OrFault};

/// What an operator does about a damaged backend.
const REMEDY: &str = "remove this member and add it anew, or restore it from a snapshot";

/// How a backend works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How much memory pages may take, read and written ones together.
    pub cache_bytes: u64,
    /// Whether opening reads and verifies the whole file. Without it, damage done while the process was down is found
    /// only by the records' checksums, and damage to the engine's own pages may end the process.
    pub verify_on_open: bool,
    /// How much one step of a defragmentation copies or reads back, and how much of what is committed meanwhile it keeps
    /// in memory.
    pub step_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: 4 << 20, verify_on_open: true, step_bytes: 4 << 20 }
    }
}

/// The page at the beginning of the file, which is in use while there is no record yet.
const HEADER_BYTES: u64 = 4096;

/// What the file takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// The file's length. The engine extends it ahead; what it has not written takes no space on most file systems.
    pub physical: u64,
    /// What the engine's header and the records take in pages, to a few percent: what is left after [`Backend::defragment`].
    pub in_use: u64,
}

/// Tells whether there is no database at `path`: no file, or an empty one.
fn is_missing(disk: &dyn Disk, path: &Path) -> Result<bool, Fault> {
    if !disk.exists(path).or_fault("look for", path)? {
        return Ok(true);
    }
    let file = disk.open(path, OpenMode::Read).or_fault("open", path)?;
    file.is_empty().or_fault("measure", path)
}

/// An open backend. Clones share it.
#[derive(Debug, Clone)]
pub struct Backend {
    shared: Arc<Shared>,
}

/// Where the file is, and how it is opened.
#[derive(Debug)]
struct Home {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    tables: &'static [&'static str],
    options: Options,
    /// Shared by all views, which are counted so.
    views: Arc<()>,
}

impl Home {
    /// Opens the file of `engine`, at `path`, anew.
    fn reopen(&self, engine: Engine, path: &Path) -> Result<Engine, Fault> {
        engine.reopen(&*self.disk, path, self.tables, self.options)
    }
}

#[derive(Debug)]
struct Shared {
    home: Home,
    /// The newest durable state. Written to only under `writer`, for as long as it takes to replace a pointer.
    view: RwLock<Arc<View>>,
    /// Held by the one that commits, or that goes on with a defragmentation.
    writer: Mutex<Writer>,
}

/// What whoever writes has to know.
#[derive(Debug, Default)]
struct Writer {
    /// The defragmentation under way.
    rewrite: Option<Box<Rewrite>>,
    /// The fault since which nobody knows which file a restart will find.
    failed: Option<Fault>,
    /// The name of the file while it has not taken its place.
    beside: Option<PathBuf>,
}

impl Backend {
    /// Opens the file at `path`, creating it with `tables` when it is missing or empty. Tables that an older release did
    /// not have are added.
    pub fn open(
        disk: Arc<dyn Disk>,
        path: &Path,
        tables: &'static [&'static str],
        options: Options,
    ) -> Result<Self, Fault> {
        let home = Home { disk, path: path.to_owned(), tables, options, views: Arc::new(()) };
        let engine = if is_missing(&*home.disk, path)? {
            defragment::create(&home)?
        } else {
            Engine::open(&*home.disk, path, OpenMode::ReadWrite, tables, options)?
        };
        crate::datadir::sync_parent(&*home.disk, path)?;
        Self::with_engine(home, engine, Writer::default())
    }

    /// Creates an empty file at `beside`, in place of any that is there, which is to take the place of the one at `path`:
    /// [`Backend::take_place`] does that. Until then this backend works, and a restart finds the file of before.
    pub fn create_beside(
        disk: Arc<dyn Disk>,
        beside: &Path,
        path: &Path,
        tables: &'static [&'static str],
        options: Options,
    ) -> Result<Self, Fault> {
        remove_leftover(&*disk, beside)?;
        let home = Home { disk, path: path.to_owned(), tables, options, views: Arc::new(()) };
        let engine = Engine::open(&*home.disk, beside, OpenMode::CreateNew, tables, options)?;
        let writer = Writer { beside: Some(beside.to_owned()), ..Writer::default() };
        Self::with_engine(home, engine, writer)
    }

    fn with_engine(home: Home, engine: Engine, writer: Writer) -> Result<Self, Fault> {
        let view = View::open(Arc::new(engine), &home)?;
        let view = RwLock::new(Arc::new(view));
        let shared = Shared { home, view, writer: Mutex::new(writer) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Gives a file that was created beside another one that one's name. After a fault nobody knows which of the two a
    /// restart will find, and the backend takes no commits any more.
    pub fn take_place(&self) -> Result<(), Fault> {
        let Home { disk, path, .. } = &self.shared.home;
        let mut writer = self.shared.writer.lock();
        let Some(beside) = writer.beside.take() else { return Ok(()) };
        let renamed = disk.rename(&beside, path).or_fault("rename", &beside);
        let placed = renamed.and_then(|()| crate::datadir::sync_parent(&**disk, path));
        placed.inspect_err(|fault| writer.failed = Some(fault.clone()))
    }

    /// Tells whether both are the same backend.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Removes the file of a backend that does not take its place.
    pub fn discard(self) -> Result<(), Fault> {
        let beside = self.shared.writer.lock().beside.take();
        beside.map_or(Ok(()), |beside| remove_leftover(&*self.shared.home.disk, &beside))
    }

    /// Carries out `batch`: all of it is durable on return, nothing of it after a fault or a crash before. After a
    /// fault the backend may refuse further commits; it has to be opened anew.
    ///
    /// Puts that ascend from behind a table's last key are several times cheaper than others.
    pub fn commit(&self, batch: &WriteBatch) -> Result<(), Fault> {
        if batch.ops.is_empty() {
            return Ok(());
        }
        let home = &self.shared.home;
        let mut writer = self.shared.writer.lock();
        if let Some(fault) = &writer.failed {
            return Err(fault.clone());
        }
        // What a commit that failed has changed nobody notes: a defragmentation ends with it.
        let rewrite = writer.rewrite.take();
        let engine = Arc::clone(self.shared.view.read().engine());
        engine.carry_out(home.tables, batch, &home.path)?;
        self.replace(View::open(engine, home)?);
        writer.rewrite = rewrite;
        if let Some(rewrite) = &mut writer.rewrite {
            rewrite.note(home, batch);
        }
        Ok(())
    }

    /// Returns a view of what is durable now, which never fails as long as views are opened by commits.
    pub fn reader(&self) -> Result<Reader, Fault> {
        Ok(Reader::new(Arc::clone(&self.shared.view.read())))
    }

    /// Tells what the file takes. Cheap.
    pub fn size(&self) -> Size {
        let view = self.shared.view.read();
        let engine = view.engine();
        Size { physical: engine.file_bytes(), in_use: HEADER_BYTES + engine.record_bytes() }
    }

    /// Counts the states that can be read: the newest one, and older ones that readers still hold.
    pub fn open_views(&self) -> usize {
        Arc::strong_count(&self.shared.home.views) - 1
    }

    /// Rewrites the file without its free space, in one go. Needs as much space as the records take, and once more while
    /// readers of before live.
    pub fn defragment(&self) -> Result<(), DefragmentFault> {
        while !self.defragment_step()? {}
        Ok(())
    }

    /// Goes on with a defragmentation, or begins one; tells whether it is done. Commits have their turn between steps:
    /// what they change is in the new file when it takes the old one's place. Readers never wait.
    pub fn defragment_step(&self) -> Result<bool, DefragmentFault> {
        let home = &self.shared.home;
        let mut writer = self.shared.writer.lock();
        if let Some(fault) = &writer.failed {
            return Err(DefragmentFault::Unknown(fault.clone()));
        }
        if writer.beside.is_some() {
            // It has no place yet that another file could take.
            return Ok(false);
        }
        let before = Arc::clone(&self.shared.view.read());
        let begun = match writer.rewrite.take() {
            Some(rewrite) => Ok(rewrite),
            None => Rewrite::begin(home).map(Box::new),
        };
        let stepped = begun.map_err(DefragmentFault::from).and_then(|it| it.step(home, &before));
        match stepped {
            Ok(Progress::GoesOn(rewrite)) => {
                writer.rewrite = Some(rewrite);
                Ok(false)
            }
            Ok(Progress::Done(view)) => {
                self.replace(view);
                Ok(true)
            }
            Err(error) => {
                match &error {
                    DefragmentFault::GivenUp(_) => {
                        // The fault that matters is the one at hand; a file left behind is removed by the next start.
                        let _ = remove_leftover(&*home.disk, &temporary_path(&home.path));
                    }
                    DefragmentFault::Unknown(fault) => writer.failed = Some(fault.clone()),
                }
                Err(error)
            }
        }
    }

    /// Lets new readers see `view`.
    fn replace(&self, view: View) {
        let before = std::mem::replace(&mut *self.shared.view.write(), Arc::new(view));
        // Closing an engine that was replaced writes to its file: not under the readers' lock.
        drop(before);
    }
}
