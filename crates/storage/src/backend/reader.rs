//! Reading: one consistent view of all tables.

use std::ops::{ControlFlow, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use redb::{ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition};

use super::engine::{Engine, fault};
use super::{Home, REMEDY, TableId, record};
use crate::fault::Fault;

type Raw = &'static [u8];

/// All tables as one commit left them.
///
/// Opened once per commit and shared by all readers until the next, so that a reader costs no more than a reference.
pub(super) struct View {
    // Invariant: dropped before the engine; tables of a closed engine cannot be read.
    tables: Vec<ReadOnlyTable<Raw, Raw>>,
    names: &'static [&'static str],
    path: PathBuf,
    engine: Arc<Engine>,
    /// Kept to be counted.
    _counted: Arc<()>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("path", &self.path).finish_non_exhaustive()
    }
}

impl View {
    pub(super) fn open(engine: Arc<Engine>, home: &Home) -> Result<Self, Fault> {
        let Home { path, tables: names, views, .. } = home;
        let transaction = engine.database.begin_read().map_err(|e| fault("read", path, e))?;
        let tables = names.iter().map(|name| {
            let table = transaction.open_table(TableDefinition::<Raw, Raw>::new(name));
            table.map_err(|e| fault("read", path, e))
        });
        let tables = tables.collect::<Result<_, _>>()?;
        Ok(Self { tables, names, path: path.clone(), engine, _counted: Arc::clone(views) })
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub(super) fn tables(&self) -> &[ReadOnlyTable<Raw, Raw>] {
        &self.tables
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn fault(&self, error: impl Into<redb::Error>) -> Fault {
        fault("read", &self.path, error)
    }

    /// Takes the value out of its stored form.
    fn value<'a>(&self, table: TableId, key: &[u8], stored: &'a [u8]) -> Result<&'a [u8], Fault> {
        record::decode(key, stored).ok_or_else(|| {
            let name = self.names[usize::from(table.0)];
            Fault::damaged(&self.path, 0, record::mismatch(name, key), REMEDY)
        })
    }
}

/// A consistent view of all tables, at one commit. Any number of threads may use it.
///
/// What is freed after that commit stays in the file while the reader lives: drop it soon.
#[derive(Debug, Clone)]
pub struct Reader {
    view: Arc<View>,
}

impl Reader {
    pub(super) fn new(view: Arc<View>) -> Self {
        Self { view }
    }

    /// Returns the value of `key`, in memory of its own.
    pub fn get(&self, table: TableId, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        let found = self.table(table).get(key).map_err(|e| self.view.fault(e))?;
        let Some(stored) = found else { return Ok(None) };
        let value = self.view.value(table, key, stored.value())?;
        Ok(Some(Bytes::copy_from_slice(value)))
    }

    /// Returns the pair with the least key.
    pub fn first(&self, table: TableId) -> Result<Option<(Bytes, Bytes)>, Fault> {
        self.range(table, ..).next().transpose()
    }

    /// Returns the pair with the greatest key.
    pub fn last(&self, table: TableId) -> Result<Option<(Bytes, Bytes)>, Fault> {
        let found = self.table(table).last().map_err(|e| self.view.fault(e))?;
        let Some((key, stored)) = found else { return Ok(None) };
        let value = self.view.value(table, key.value(), stored.value())?;
        Ok(Some(record::detach(key.value(), value)))
    }

    /// Iterates in key order over the pairs in `range`, in memory of their own. Holds the view while it lives. A fault ends it.
    pub fn range<'k>(&self, table: TableId, range: impl RangeBounds<&'k [u8]>) -> Range {
        let (state, fault) = match self.table(table).range::<&[u8]>(range) {
            Ok(state) => (Some(state), None),
            Err(error) => (None, Some(self.view.fault(error))),
        };
        Range { state, fault, table, view: Arc::clone(&self.view) }
    }

    /// Calls `visit` with each pair in `range`, in key order and without copying, until it breaks.
    pub fn scan<'k>(
        &self,
        table: TableId,
        range: impl RangeBounds<&'k [u8]>,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        let pairs = self.table(table).range::<&[u8]>(range).map_err(|e| self.view.fault(e))?;
        for pair in pairs {
            let (key, stored) = pair.map_err(|e| self.view.fault(e))?;
            let value = self.view.value(table, key.value(), stored.value())?;
            if visit(key.value(), value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn table(&self, table: TableId) -> &ReadOnlyTable<Raw, Raw> {
        &self.view.tables[usize::from(table.0)]
    }
}

/// Pairs in key order; made by [`Reader::range`].
pub struct Range {
    // Invariant: dropped before the view.
    state: Option<redb::Range<'static, Raw, Raw>>,
    fault: Option<Fault>,
    table: TableId,
    view: Arc<View>,
}

impl std::fmt::Debug for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Range").field("table", &self.table).finish_non_exhaustive()
    }
}

impl Iterator for Range {
    type Item = Result<(Bytes, Bytes), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(fault) = self.fault.take() {
            return Some(Err(fault));
        }
        let pair = self.state.as_mut()?.next()?;
        let result = pair.map_err(|e| self.view.fault(e)).and_then(|(key, stored)| {
            let value = self.view.value(self.table, key.value(), stored.value())?;
            Ok(record::detach(key.value(), value))
        });
        if result.is_err() {
            self.state = None;
        }
        Some(result)
    }
}
