//! One open file of the engine, and how the engine's errors become faults.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, ReadableTable, TableDefinition, WriteTransaction};

use super::batch::{self, Change, WriteBatch};
use super::checked::{ChangedBlock, CheckedFile, Sums};
use super::{Options, REMEDY, record};
use crate::bolt;
use crate::disk::{Disk, File, OpenMode};
use crate::fault::{Fault, OrFault};

/// The table of what the backend itself has to remember.
const OWN_TABLE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("_backend");
/// Its key for the layout's version, 4 bytes little-endian.
const FORMAT_KEY: &[u8] = b"format";
/// Its key for what all records together take, 8 bytes little-endian.
const RECORD_BYTES_KEY: &[u8] = b"record_bytes";
/// The layout of `docs/formats/backend.md`.
const FORMAT: u32 = 1;

/// How the engine's files begin.
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";
/// Where its header says how pages are laid out, in three numbers of four bytes, little-endian.
const GEOMETRY_OFFSET: usize = 12;
/// Bytes of a page, pages of a region's header, other pages of a region: fixed when a file is made, equal in all of ours.
const GEOMETRY: [u32; 3] = [4096, 0, 1 << 20];

/// An open database file.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) database: Database,
    file_bytes: Arc<AtomicU64>,
    record_bytes: AtomicU64,
    /// What is known of the file's blocks.
    sums: Sums,
}

impl Engine {
    /// Opens the file at `path`; an empty one becomes a database with `tables`.
    pub(super) fn open(
        disk: &dyn Disk,
        path: &Path,
        mode: OpenMode,
        tables: &[&str],
        options: Options,
    ) -> Result<Self, Fault> {
        Self::open_known(disk, path, mode, tables, options, Sums::default())
    }

    /// Closes the file, which cuts off what it grew ahead, and opens it anew, without checking it as a whole: each block
    /// that is read has to be the one that was written.
    pub(super) fn reopen(
        self,
        disk: &dyn Disk,
        path: &Path,
        tables: &[&str],
        options: Options,
    ) -> Result<Self, Fault> {
        let Self { database, sums, .. } = self;
        database.close().map_err(|error| fault("close", path, error))?;
        let options = Options { verify_on_open: false, ..options };
        Self::open_known(disk, path, OpenMode::ReadWrite, tables, options, sums)
    }

    fn open_known(
        disk: &dyn Disk,
        path: &Path,
        mode: OpenMode,
        tables: &[&str],
        options: Options,
        sums: Sums,
    ) -> Result<Self, Fault> {
        let file = disk.open(path, mode).or_fault("open", path)?;
        check_geometry(&*file, path)?;
        let (file, file_bytes) =
            CheckedFile::new(file, Arc::clone(&sums)).or_fault("open", path)?;
        let database = Database::builder()
            .set_cache_size(usize::try_from(options.cache_bytes).unwrap_or(usize::MAX))
            .set_check_integrity_on_open(options.verify_on_open)
            .create_with_backend(file)
            .map_err(|error| fault("open", path, error))?;
        let engine = Self { database, file_bytes, record_bytes: AtomicU64::new(0), sums };
        engine.prepare(path, tables)?;
        Ok(engine)
    }

    /// Creates what is missing and reads what the backend remembers.
    fn prepare(&self, path: &Path, tables: &[&str]) -> Result<(), Fault> {
        let transaction = self.begin(path)?;
        for name in tables {
            let definition = TableDefinition::<&[u8], &[u8]>::new(name);
            transaction.open_table(definition).map_err(|error| fault("open", path, error))?;
        }
        let format = remembered(&transaction, FORMAT_KEY, path)?;
        let record_bytes = remembered(&transaction, RECORD_BYTES_KEY, path)?.unwrap_or(0);
        if format.is_some_and(|format| format > u64::from(FORMAT)) {
            return Err(Fault::unusable(
                path,
                "it was written by a newer release",
                "use that release, or restore the member from a snapshot",
            ));
        }
        self.record_bytes.store(record_bytes, Ordering::Relaxed);
        self.commit(transaction, Change::default(), path)
    }

    /// Begins a write transaction; dropped, it changes nothing.
    pub(super) fn begin(&self, path: &Path) -> Result<WriteTransaction, Fault> {
        let mut transaction =
            self.database.begin_write().map_err(|error| fault("write", path, error))?;
        // Two syncs instead of one, and the allocator's state with each commit; for that, opening after a crash need not
        // read the whole file to know what is free.
        transaction.set_quick_repair(true);
        Ok(transaction)
    }

    /// Carries out `batch` with one durable commit.
    pub(super) fn carry_out(
        &self,
        tables: &[&str],
        batch: &WriteBatch,
        path: &Path,
    ) -> Result<(), Fault> {
        let transaction = self.begin(path)?;
        let mut total = Change::default();
        for (name, ops) in tables.iter().zip(batch.by_table(tables.len())) {
            if ops.is_empty() {
                continue;
            }
            let definition = TableDefinition::<&[u8], &[u8]>::new(name);
            let mut table =
                transaction.open_table(definition).map_err(|error| fault("write", path, error))?;
            let change = batch::apply(&mut table, &ops, batch.is_thinning)
                .map_err(|error| fault("write", path, error))?;
            total.added += change.added;
            total.removed += change.removed;
        }
        self.commit(transaction, total, path)
    }

    /// Makes `transaction` durable.
    pub(super) fn commit(
        &self,
        transaction: WriteTransaction,
        change: Change,
        path: &Path,
    ) -> Result<(), Fault> {
        let before = self.record_bytes.load(Ordering::Relaxed);
        let record_bytes = before.saturating_add(change.added).saturating_sub(change.removed);
        remember(&transaction, record_bytes).map_err(|error| fault("write", path, error))?;
        transaction.commit().map_err(|error| fault("commit", path, error))?;
        self.record_bytes.store(record_bytes, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.file_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn record_bytes(&self) -> u64 {
        self.record_bytes.load(Ordering::Relaxed)
    }
}

fn remember(transaction: &WriteTransaction, record_bytes: u64) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(OWN_TABLE)?;
    let mut stored = Vec::new();
    record::encode(FORMAT_KEY, &FORMAT.to_le_bytes(), &mut stored);
    table.insert(FORMAT_KEY, &stored[..])?;
    record::encode(RECORD_BYTES_KEY, &record_bytes.to_le_bytes(), &mut stored);
    table.insert(RECORD_BYTES_KEY, &stored[..])?;
    Ok(())
}

const BOLT_REMEDY: &str =
    "let this member join its cluster with an empty data directory, or start etcd here";

/// Refuses a database of etcd's engine by its name, and a file whose pages lie elsewhere than where they were written: the
/// engine has no sum over these numbers and may panic when one is wrong. What is too short or no file of the engine's it
/// refuses itself.
fn check_geometry(file: &dyn File, path: &Path) -> Result<(), Fault> {
    let mut head = [0; GEOMETRY_OFFSET + 12];
    if file.len().or_fault("measure", path)? < head.len() as u64 {
        return Ok(());
    }
    file.read_exact_at(0, &mut head).or_fault("read", path)?;
    if bolt::is_head(&head) {
        return Err(Fault::unusable(path, "it is a database of etcd (bbolt)", BOLT_REMEDY));
    }
    let geometry = GEOMETRY.map(u32::to_le_bytes);
    if head.starts_with(&MAGIC) && head[GEOMETRY_OFFSET..] != *geometry.as_flattened() {
        let what = "the engine's header says that pages lie where none were written";
        return Err(Fault::damaged(path, GEOMETRY_OFFSET as u64, what, REMEDY));
    }
    Ok(())
}

/// Reads a number of the backend's own table.
fn remembered(
    transaction: &WriteTransaction,
    key: &[u8],
    path: &Path,
) -> Result<Option<u64>, Fault> {
    let table = transaction.open_table(OWN_TABLE).map_err(|error| fault("open", path, error))?;
    let found = table.get(key).map_err(|error| fault("open", path, error))?;
    let Some(stored) = found else { return Ok(None) };
    let value = record::decode(key, stored.value());
    let number = value.and_then(|value| {
        let mut bytes = [0; 8];
        bytes.get_mut(..value.len())?.copy_from_slice(value);
        Some(u64::from_le_bytes(bytes))
    });
    match number {
        Some(number) => Ok(Some(number)),
        None => Err(Fault::damaged(path, 0, record::mismatch("_backend", key), REMEDY)),
    }
}

/// Sorts an error of the engine while doing `operation`.
pub(super) fn fault(operation: &'static str, path: &Path, error: impl Into<redb::Error>) -> Fault {
    let error = error.into();
    match error {
        redb::Error::Io(source) => {
            let inner = source.get_ref().and_then(|inner| inner.downcast_ref::<ChangedBlock>());
            match inner {
                Some(block) => Fault::damaged(path, block.offset, block.to_string(), REMEDY),
                None => Fault::io(operation, path, source),
            }
        }
        redb::Error::Corrupted(what) => Fault::damaged(path, 0, what, REMEDY),
        redb::Error::UpgradeRequired(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TableDoesNotExist(_) => Fault::unusable(path, error.to_string(), REMEDY),
        other => Fault::io(operation, path, std::io::Error::other(other)),
    }
}
