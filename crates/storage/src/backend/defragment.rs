//! Defragmentation: a new file with the same records, swapped in by renaming it.
//!
//! It goes on in steps of a few mebibytes, and commits to the old file go on between them. A step copies from the newest
//! commit. What commits change of what has been copied before is recorded, in bounded memory, and carried out on the new
//! file by the next step, or by the commit that makes it too much. So after each step the new file equals the old one as
//! far as the copy has come, and the last step, which alone holds commits back until the new file has its name, finds
//! little left to do.
//!
//! A crash leaves either file whole under the name, and perhaps the other as `<name>.tmp`, which the next start or the
//! next defragmentation removes. Readers of before keep the old file, which has no name any more, until they are dropped.

use std::ffi::OsString;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{ReadOnlyTable, ReadableDatabase, Table, TableDefinition};

use super::batch::{Change, Op, TableId, WriteBatch, unordered};
use super::engine::{Engine, fault};
use super::reader::View;
use super::{Home, REMEDY, record};
use crate::datadir::sync_parent;
use crate::disk::{Disk, OpenMode};
use crate::fault::{Fault, OrFault};

type Raw = &'static [u8];

/// Why a defragmentation has failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DefragmentFault {
    /// The file is the one it was and the backend goes on: only the new file is given up.
    #[error(transparent)]
    GivenUp(Fault),
    /// Nobody knows which of the two files a restart will find: the backend takes no commits any more.
    #[error("which file is in place after a defragmentation is not known: {0}")]
    Unknown(#[source] Fault),
}

impl From<Fault> for DefragmentFault {
    fn from(fault: Fault) -> Self {
        Self::GivenUp(fault)
    }
}

/// A defragmentation under way.
#[derive(Debug)]
pub(super) struct Rewrite {
    temporary: PathBuf,
    /// The new file.
    engine: Engine,
    stage: Stage,
    /// What was committed since the last step, of what had been copied by then.
    record: Vec<(TableId, Op)>,
    record_bytes: u64,
    /// What went wrong when a commit carried out what was recorded: the next step reports it.
    failed: Option<Fault>,
}

/// How far it is.
#[derive(Debug)]
enum Stage {
    /// Records before the place are in the new file.
    Copy(Place),
    /// All are; those before the place were read back.
    Verify(Place),
    /// All that remains is to give the new file its name.
    Swap,
}

/// A place in a walk through all tables, one after the other.
#[derive(Debug, Default)]
struct Place {
    table: usize,
    /// Of this table, the last key behind which the walk goes on.
    after: Option<Vec<u8>>,
}

/// What a step has led to.
#[derive(Debug)]
pub(super) enum Progress {
    GoesOn(Box<Rewrite>),
    /// The new file is in place.
    Done(View),
}

impl Rewrite {
    /// Begins with an empty file beside the one at home.
    pub(super) fn begin(home: &Home) -> Result<Self, Fault> {
        let temporary = temporary_path(&home.path);
        remove_leftover(&*home.disk, &temporary)?;
        let Home { disk, tables, options, .. } = home;
        let engine = Engine::open(&**disk, &temporary, OpenMode::CreateNew, tables, *options)?;
        let stage = Stage::Copy(Place::default());
        Ok(Self { temporary, engine, stage, record: Vec::new(), record_bytes: 0, failed: None })
    }

    /// Notes what was committed to the old file.
    pub(super) fn note(&mut self, home: &Home, batch: &WriteBatch) {
        if self.failed.is_some() {
            return;
        }
        for (table, op) in &batch.ops {
            let is_copied = match &self.stage {
                Stage::Copy(place) => place.is_behind(*table, op.key()),
                Stage::Verify(_) | Stage::Swap => true,
            };
            if is_copied {
                self.record_bytes += op.bytes();
                self.record.push((*table, op.clone()));
            }
        }
        if self.record_bytes > home.options.step_bytes
            && let Err(fault) = self.catch_up(home)
        {
            self.failed = Some(fault);
        }
    }

    /// Bytes that are recorded.
    #[cfg(test)]
    pub(super) fn recorded_bytes(&self) -> u64 {
        self.record_bytes
    }

    /// Goes on, with `before` as the newest commit to the old file.
    pub(super) fn step(
        mut self: Box<Self>,
        home: &Home,
        before: &View,
    ) -> Result<Progress, DefragmentFault> {
        if let Some(fault) = self.failed.take() {
            return Err(fault.into());
        }
        self.catch_up(home)?;
        match &mut self.stage {
            Stage::Copy(place) => {
                if copy(&self.engine, &self.temporary, home, place, before)? {
                    // Opened anew, it reads back what is on the disk.
                    self.engine = home.reopen(self.engine, &self.temporary)?;
                    self.stage = Stage::Verify(Place::default());
                }
            }
            Stage::Verify(place) => {
                if verify(&self.engine, &self.temporary, home, place)? {
                    self.stage = Stage::Swap;
                }
            }
            Stage::Swap => return self.swap(home).map(Progress::Done),
        }
        Ok(Progress::GoesOn(self))
    }

    /// Carries out on the new file what was recorded.
    fn catch_up(&mut self, home: &Home) -> Result<(), Fault> {
        let ops = std::mem::take(&mut self.record);
        self.record_bytes = 0;
        if ops.is_empty() {
            return Ok(());
        }
        self.engine.carry_out(home.tables, &WriteBatch::new(ops), &self.temporary)
    }

    fn swap(self, home: &Home) -> Result<View, DefragmentFault> {
        let Self { temporary, engine, .. } = self;
        let engine = home.reopen(engine, &temporary)?;
        let view = View::open(Arc::new(engine), home)?;
        // From here on a fault may leave either file under the name. Also a rename that failed: part of it may have
        // reached the disk.
        let renamed = home.disk.rename(&temporary, &home.path).or_fault("rename", &temporary);
        let placed = renamed.and_then(|()| sync_parent(&*home.disk, &home.path));
        placed.map_err(DefragmentFault::Unknown)?;
        Ok(view)
    }
}

impl Place {
    /// Tells whether a walk that has come here has passed `key`.
    fn is_behind(&self, table: TableId, key: &[u8]) -> bool {
        match usize::from(table.0).cmp(&self.table) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => self.after.as_deref().is_some_and(|after| key <= after),
            std::cmp::Ordering::Greater => false,
        }
    }

    fn rest(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let start = self.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        (start, Bound::Unbounded)
    }

    /// Goes behind `last` in the same table, or to the next table if that was all.
    fn advance(&mut self, last: Option<Vec<u8>>) {
        self.table += usize::from(last.is_none());
        self.after = last;
    }
}

/// Removes what is left of a defragmentation.
pub(super) fn remove_leftover(disk: &dyn Disk, temporary: &Path) -> Result<(), Fault> {
    if disk.exists(temporary).or_fault("look for", temporary)? {
        disk.remove_file(temporary).or_fault("remove", temporary)?;
    }
    Ok(())
}

/// The name of the new file while it is not whole.
pub(super) fn temporary_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".tmp");
    PathBuf::from(name)
}

/// Creates an empty database. It takes its name when it is whole: the engine refuses a file that a crash left half
/// created.
pub(super) fn create(home: &Home) -> Result<Engine, Fault> {
    let Home { disk, path, tables, options, .. } = home;
    let temporary = temporary_path(path);
    remove_leftover(&**disk, &temporary)?;
    let created = Engine::open(&**disk, &temporary, OpenMode::CreateNew, tables, *options);
    if created.is_err() {
        // The fault that matters is the one at hand; a file left behind is removed by the next start.
        let _ = disk.remove_file(&temporary);
    }
    let engine = created?;
    disk.rename(&temporary, path).or_fault("rename", &temporary)?;
    sync_parent(&**disk, path)?;
    Ok(engine)
}

/// Copies some records from `place` on to `engine` at `path`, verifying each. Tells whether that was all.
///
/// With one commit a step: one transaction that outgrows the cache would write its pages early, and read and write them
/// again for its commit.
fn copy(
    engine: &Engine,
    path: &Path,
    home: &Home,
    place: &mut Place,
    before: &View,
) -> Result<bool, Fault> {
    let transaction = engine.begin(path)?;
    let mut change = Change::default();
    while let Some(source) = before.tables().get(place.table)
        && change.added < home.options.step_bytes
    {
        let name = home.tables[place.table];
        let definition = TableDefinition::<&[u8], &[u8]>::new(name);
        let mut table =
            transaction.open_table(definition).map_err(|error| fault("write", path, error))?;
        let budget = home.options.step_bytes - change.added;
        let source = Source { name, table: source, view: before };
        let last = source.copy(place.rest(), budget, &mut table, path, &mut change)?;
        place.advance(last);
    }
    engine.commit(transaction, change, path)?;
    Ok(place.table == home.tables.len())
}

/// A table to copy from.
struct Source<'a> {
    name: &'a str,
    table: &'a ReadOnlyTable<Raw, Raw>,
    view: &'a View,
}

impl Source<'_> {
    /// Appends the records in `range` to `target` until they take `budget` bytes. Returns the last key if there may be
    /// more.
    fn copy(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        budget: u64,
        target: &mut Table<'_, Raw, Raw>,
        path: &Path,
        change: &mut Change,
    ) -> Result<Option<Vec<u8>>, Fault> {
        let written = |error: redb::Error| fault("write", path, error);
        let pairs = self.table.range::<&[u8]>(range).map_err(|error| self.view.fault(error))?;
        let end = Bound::<&[u8]>::Unbounded;
        let mut cursor = target.upper_bound_mut(end).map_err(|error| written(error.into()))?;
        let until = change.added + budget;
        let mut last = None;
        for pair in pairs {
            let (key, stored) = pair.map_err(|error| self.view.fault(error))?;
            let (key, stored) = (key.value(), stored.value());
            if record::decode(key, stored).is_none() {
                let what = record::mismatch(self.name, key);
                return Err(Fault::damaged(self.view.path(), 0, what, REMEDY));
            }
            cursor.insert_before(key, stored).map_err(|error| written(unordered(error)))?;
            change.added += record::footprint(key.len(), stored.len());
            if change.added >= until {
                last = Some(key.to_vec());
                break;
            }
        }
        cursor.close().map_err(|error| written(error.into()))?;
        Ok(last)
    }
}

/// Reads some records of the new file back from `place` on, verifying each. Tells whether that was all.
fn verify(engine: &Engine, path: &Path, home: &Home, place: &mut Place) -> Result<bool, Fault> {
    let transaction = engine.database.begin_read().map_err(|error| fault("read", path, error))?;
    let mut bytes = 0;
    while let Some(name) = home.tables.get(place.table)
        && bytes < home.options.step_bytes
    {
        let definition = TableDefinition::<&[u8], &[u8]>::new(name);
        let table =
            transaction.open_table(definition).map_err(|error| fault("read", path, error))?;
        let pairs =
            table.range::<&[u8]>(place.rest()).map_err(|error| fault("read", path, error))?;
        let mut last = None;
        for pair in pairs {
            let (key, stored) = pair.map_err(|error| fault("read", path, error))?;
            let (key, stored) = (key.value(), stored.value());
            if record::decode(key, stored).is_none() {
                return Err(Fault::damaged(path, 0, record::mismatch(name, key), REMEDY));
            }
            bytes += record::footprint(key.len(), stored.len());
            if bytes >= home.options.step_bytes {
                last = Some(key.to_vec());
                break;
            }
        }
        place.advance(last);
    }
    Ok(place.table == home.tables.len())
}
