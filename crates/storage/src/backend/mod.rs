//! The backend: ordered tables in one file, changed by atomic and durable commits.
//!
//! The engine is redb; none of its types leaves this module. It works on a [`crate::File`], so that the simulator can own
//! the disk, and takes no lock of its own: whoever opens it holds the data directory's. Layout: `docs/formats/backend.md`.
//!
//! Commits come one after the other; readers hold up nothing and wait for nothing. A damaged record, block or file is a
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
use redb::TableDefinition;

pub use batch::{Op, TableId, WriteBatch};
pub use reader::{Range, Reader};

use batch::Change;
use engine::{Engine, fault};
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
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: 32 << 20, verify_on_open: true }
    }
}

/// What the file takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// The file's length. The engine extends it ahead; what it has not written takes no space on most file systems.
    pub physical: u64,
    /// What the records take in pages, to a few percent: what is left after [`Backend::defragment`].
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

#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    tables: &'static [&'static str],
    options: Options,
    /// The newest durable state. Written to only under `writer`, for as long as it takes to replace a pointer.
    view: RwLock<Arc<View>>,
    /// Held by the one that commits or defragments.
    writer: Mutex<()>,
    /// Shared by all views, which are counted so.
    views: Arc<()>,
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
        let engine = if is_missing(&*disk, path)? {
            defragment::create(&*disk, path, tables, options)?
        } else {
            Engine::open(&*disk, path, OpenMode::ReadWrite, tables, options)?
        };
        crate::datadir::sync_parent(&*disk, path)?;
        let views = Arc::new(());
        let view = View::open(Arc::new(engine), tables, path.to_owned(), Arc::clone(&views))?;
        let shared = Shared {
            disk,
            path: path.to_owned(),
            tables,
            options,
            view: RwLock::new(Arc::new(view)),
            writer: Mutex::new(()),
            views,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Carries out `batch`: all of it is durable on return, nothing of it after a fault or a crash before. After a
    /// fault the backend may refuse further commits; it has to be opened anew.
    ///
    /// Puts that ascend from behind a table's last key are several times cheaper than others.
    pub fn commit(&self, batch: &WriteBatch) -> Result<(), Fault> {
        if batch.ops.is_empty() {
            return Ok(());
        }
        let Shared { path, tables, .. } = &*self.shared;
        let _writer = self.shared.writer.lock();
        let engine = Arc::clone(self.shared.view.read().engine());
        let transaction = engine.begin(path)?;
        let mut total = Change::default();
        for (name, ops) in tables.iter().zip(batch.by_table(tables.len())) {
            if ops.is_empty() {
                continue;
            }
            let definition = TableDefinition::<&[u8], &[u8]>::new(name);
            let mut table =
                transaction.open_table(definition).map_err(|error| fault("write", path, error))?;
            let change =
                batch::apply(&mut table, &ops).map_err(|error| fault("write", path, error))?;
            total.added += change.added;
            total.removed += change.removed;
        }
        engine.commit(transaction, total, path)?;
        self.publish(engine)
    }

    /// Returns a view of what is durable now, which never fails as long as views are opened by commits.
    pub fn reader(&self) -> Result<Reader, Fault> {
        Ok(Reader::new(Arc::clone(&self.shared.view.read())))
    }

    /// Tells what the file takes. Cheap.
    pub fn size(&self) -> Size {
        let view = self.shared.view.read();
        let engine = view.engine();
        Size { physical: engine.file_bytes(), in_use: engine.record_bytes() }
    }

    /// Counts the states that can be read: the newest one, and older ones that readers still hold.
    pub fn open_views(&self) -> usize {
        Arc::strong_count(&self.shared.views) - 1
    }

    /// Rewrites the file without its free space. Commits wait meanwhile, readers do not. Needs as much space as the
    /// records take, and once more while readers of before live.
    pub fn defragment(&self) -> Result<(), Fault> {
        let Shared { disk, path, tables, options, .. } = &*self.shared;
        let _writer = self.shared.writer.lock();
        let before = Arc::clone(&self.shared.view.read());
        let engine = defragment::rewrite(&**disk, path, tables, *options, &before)?;
        self.publish(Arc::new(engine))
    }

    /// Lets new readers see the newest commit of `engine`.
    fn publish(&self, engine: Arc<Engine>) -> Result<(), Fault> {
        let Shared { tables, path, views, .. } = &*self.shared;
        let view = View::open(engine, tables, path.clone(), Arc::clone(views))?;
        let before = std::mem::replace(&mut *self.shared.view.write(), Arc::new(view));
        // Closing an engine that was replaced writes to its file: not under the readers' lock.
        drop(before);
        Ok(())
    }
}
