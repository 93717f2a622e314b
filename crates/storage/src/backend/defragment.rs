//! Defragmentation: a new file with the same records, swapped in by renaming it.
//!
//! A crash leaves either file whole under the name, and perhaps the other as `<name>.tmp`, which the next start or the
//! next defragmentation removes. Readers of before keep the old file, which has no name any more, until they are dropped.

use std::ffi::OsString;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use redb::{ReadOnlyTable, ReadableTable, TableDefinition};

use super::batch::{Change, unordered};
use super::engine::{Engine, fault};
use super::reader::View;
use super::{Options, REMEDY, record};
use crate::datadir::sync_parent;
use crate::disk::{Disk, OpenMode};
use crate::fault::{Fault, OrFault};

/// How much is copied with one commit.
const COMMIT_BYTES: u64 = 4 << 20;

/// Writes all records of `before` to a new file and renames it to `path`.
pub(super) fn rewrite(
    disk: &dyn Disk,
    path: &Path,
    tables: &[&str],
    options: Options,
    before: &View,
) -> Result<Engine, Fault> {
    put_in_place(disk, path, |temporary| write(disk, temporary, tables, options, before))
}

/// Creates an empty database at `path`. It takes its name when it is whole: the engine refuses a file that a crash left
/// half created.
pub(super) fn create(
    disk: &dyn Disk,
    path: &Path,
    tables: &[&str],
    options: Options,
) -> Result<Engine, Fault> {
    put_in_place(disk, path, |temporary| {
        Engine::open(disk, temporary, OpenMode::CreateNew, tables, options)
    })
}

/// Lets `write` write a new file and renames it to `path`, durably.
fn put_in_place(
    disk: &dyn Disk,
    path: &Path,
    write: impl FnOnce(&Path) -> Result<Engine, Fault>,
) -> Result<Engine, Fault> {
    let temporary = temporary_path(path);
    if disk.exists(&temporary).or_fault("look for", &temporary)? {
        disk.remove_file(&temporary).or_fault("remove", &temporary)?;
    }
    let written = write(&temporary);
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
    for (name, source) in tables.iter().zip(before.tables()) {
        copy(name, source, before, &engine, path)?;
    }
    // The file grew in leaps; closing cuts off what was not needed. Opening it again reads back what was written, before
    // the old file goes.
    engine.database.close().map_err(|error| fault("close", path, error))?;
    Engine::open(disk, path, OpenMode::ReadWrite, tables, options)
}

/// Copies one table to `engine` at `path`, verifying each record.
///
/// In many commits: one transaction that outgrows the cache would write its pages early, and read and write them again
/// for its commit.
fn copy(
    name: &str,
    source: &ReadOnlyTable<&'static [u8], &'static [u8]>,
    before: &View,
    engine: &Engine,
    path: &Path,
) -> Result<(), Fault> {
    let mut pairs = source.iter().map_err(|error| before.fault(error))?.peekable();
    while pairs.peek().is_some() {
        let transaction = engine.begin(path)?;
        let definition = TableDefinition::<&[u8], &[u8]>::new(name);
        let mut table =
            transaction.open_table(definition).map_err(|error| fault("write", path, error))?;
        let end = Bound::<&[u8]>::Unbounded;
        let mut cursor = table.upper_bound_mut(end).map_err(|error| fault("write", path, error))?;
        let mut change = Change::default();
        while change.added < COMMIT_BYTES {
            let Some(pair) = pairs.next() else { break };
            let (key, stored) = pair.map_err(|error| before.fault(error))?;
            let (key, stored) = (key.value(), stored.value());
            if record::decode(key, stored).is_none() {
                let what = record::mismatch(name, key);
                return Err(Fault::damaged(before.path(), 0, what, REMEDY));
            }
            cursor
                .insert_before(key, stored)
                .map_err(|error| fault("write", path, unordered(error)))?;
            change.added += record::footprint(key.len(), stored.len());
        }
        cursor.close().map_err(|error| fault("write", path, error))?;
        drop(table);
        engine.commit(transaction, change, path)?;
    }
    Ok(())
}
