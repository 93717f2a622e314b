//! Defragmentation: a new file with the same records, swapped in by renaming it.
//!
//! A crash leaves either file whole under the name, and perhaps the other as `<name>.tmp`, which the next start or the
//! next defragmentation removes. Readers of before keep the old file, which has no name any more, until they are dropped.

use std::ffi::OsString;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use redb::{ReadOnlyTable, ReadableTable, Table, TableDefinition};

use super::batch::{Change, unordered};
use super::engine::{Engine, fault};
use super::reader::View;
use super::{Options, REMEDY, record};
use crate::datadir::sync_parent;
use crate::disk::{Disk, OpenMode};
use crate::fault::{Fault, OrFault};

/// Writes all records of `before` to a new file and renames it to `path`.
pub(super) fn rewrite(
    disk: &dyn Disk,
    path: &Path,
    tables: &[&str],
    options: Options,
    before: &View,
) -> Result<Engine, Fault> {
    let temporary = temporary_path(path);
    if disk.exists(&temporary).or_fault("look for", &temporary)? {
        disk.remove_file(&temporary).or_fault("remove", &temporary)?;
    }
    let written = write(disk, &temporary, tables, options, before);
    if written.is_err() {
        // The fault that matters is the one at hand; a file left behind is removed by the next start.
        let _ = disk.remove_file(&temporary);
    }
    let engine = written?;
    disk.rename(&temporary, path).or_fault("rename", &temporary)?;
    sync_parent(disk, path)?;
    Ok(engine)
}

fn temporary_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".tmp");
    PathBuf::from(name)
}

fn write(
    disk: &dyn Disk,
    path: &Path,
    tables: &[&str],
    options: Options,
    before: &View,
) -> Result<Engine, Fault> {
    let engine = Engine::open(disk, path, OpenMode::CreateNew, tables, options)?;
    // One transaction: pages that the cache cannot hold go to the file before its commit.
    let transaction = engine.begin(path)?;
    let mut added = 0;
    for (name, source) in tables.iter().zip(before.tables()) {
        let definition = TableDefinition::<&[u8], &[u8]>::new(name);
        let mut table =
            transaction.open_table(definition).map_err(|error| fault("write", path, error))?;
        added += copy(name, before, source, &mut table, path)?;
    }
    engine.commit(transaction, Change { added, removed: 0 }, path)?;
    // The file grew in leaps; closing cuts off what was not needed. Opening it again reads back what was written, before
    // the old file goes.
    engine.database.close().map_err(|error| fault("close", path, error))?;
    Engine::open(disk, path, OpenMode::ReadWrite, tables, options)
}

/// Copies one table to `target` at `path`, verifying each record, and returns what its records take.
fn copy(
    name: &str,
    before: &View,
    source: &ReadOnlyTable<&'static [u8], &'static [u8]>,
    target: &mut Table<'_, &'static [u8], &'static [u8]>,
    path: &Path,
) -> Result<u64, Fault> {
    let failed = |error: redb::Error| fault("write", path, error);
    let mut cursor =
        target.upper_bound_mut(Bound::<&[u8]>::Unbounded).map_err(|error| failed(error.into()))?;
    let mut added = 0;
    for pair in source.iter().map_err(|error| before.fault(error))? {
        let (key, stored) = pair.map_err(|error| before.fault(error))?;
        let (key, stored) = (key.value(), stored.value());
        if record::decode(key, stored).is_none() {
            return Err(Fault::damaged(before.path(), 0, record::mismatch(name, key), REMEDY));
        }
        cursor.insert_before(key, stored).map_err(|error| failed(unordered(error)))?;
        added += record::footprint(key.len(), stored.len());
    }
    cursor.close().map_err(|error| failed(error.into()))?;
    Ok(added)
}
