//! What one commit changes, and how it is brought into a table.

use std::ops::Bound;

use bytes::Bytes;
use redb::{CursorError, ReadableTable, Table};

use super::record;

/// A run of this many ascending puts behind a table's last key goes through a cursor; shorter ones are not worth opening it.
const APPEND_RUN_MIN: usize = 4;

/// Likewise a run of ascending deletes in a batch that thins a table out.
const DELETE_RUN_MIN: usize = 4;

/// Names a table: its place in the list that the backend was opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(pub u8);

/// One change of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets the key's value.
    Put(Bytes, Bytes),
    /// Removes the key; nothing when it is not there.
    Delete(Bytes),
}

impl Op {
    pub(super) fn key(&self) -> &Bytes {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        let value = match self {
            Self::Put(_, value) => value.len(),
            Self::Delete(_) => 0,
        };
        (self.key().len() + value) as u64
    }
}

/// Changes that become durable together. Within a table a later change wins.
#[derive(Debug, Clone, Default)]
pub struct WriteBatch {
    /// The changes in order.
    pub ops: Vec<(TableId, Op)>,
    /// Whether the deletes, ascending, are of most records between the first and the last of them, as those of a compaction
    /// are: they are then carried out together, which visits everything in between, and costs half as much.
    pub is_thinning: bool,
}

/// How much one commit changed what the records take.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Change {
    pub(super) added: u64,
    pub(super) removed: u64,
}

impl WriteBatch {
    /// Changes of any kind.
    pub fn new(ops: Vec<(TableId, Op)>) -> Self {
        Self { ops, is_thinning: false }
    }

    /// Changes whose deletes are of most of what lies between them; else as others, but that is slow.
    pub fn thinning(ops: Vec<(TableId, Op)>) -> Self {
        Self { ops, is_thinning: true }
    }

    /// Sorts the changes by table, keeping their order.
    pub(super) fn by_table(&self, tables: usize) -> Vec<Vec<&Op>> {
        let mut sorted = vec![Vec::new(); tables];
        for (table, op) in &self.ops {
            sorted[usize::from(table.0)].push(op);
        }
        sorted
    }
}

/// Carries out `ops` on `table`. For `is_thinning` see [`WriteBatch`].
pub(super) fn apply(
    table: &mut Table<'_, &'static [u8], &'static [u8]>,
    ops: &[&Op],
    is_thinning: bool,
) -> Result<Change, redb::Error> {
    let mut change = Change::default();
    let mut stored = Vec::new();
    // No key in the table is greater.
    let mut last = table.last()?.map(|(key, _)| Bytes::copy_from_slice(key.value()));
    let mut rest = ops;
    while let Some((op, after)) = rest.split_first() {
        let run = append_run(last.as_deref(), rest);
        if run >= APPEND_RUN_MIN {
            let (appended, after) = rest.split_at(run);
            append(table, appended, &mut stored, &mut change)?;
            if let Some(Op::Put(key, _)) = appended.last() {
                last = Some(key.clone());
            }
            rest = after;
            continue;
        }
        let run = if is_thinning { delete_run(rest) } else { 0 };
        if run >= DELETE_RUN_MIN {
            let (deleted, after) = rest.split_at(run);
            thin_out(table, deleted, &mut change)?;
            rest = after;
            continue;
        }
        match op {
            Op::Put(key, value) => {
                record::encode(key, value, &mut stored);
                change.added += record::footprint(key.len(), stored.len());
                if let Some(old) = table.insert(&key[..], &stored[..])? {
                    change.removed += record::footprint(key.len(), old.value().len());
                }
                if last.as_ref().is_none_or(|last| last < key) {
                    last = Some(key.clone());
                }
            }
            Op::Delete(key) => {
                if let Some(old) = table.remove(&key[..])? {
                    change.removed += record::footprint(key.len(), old.value().len());
                }
            }
        }
        rest = after;
    }
    Ok(change)
}

/// Counts the leading puts of `ops` whose keys ascend from behind `last`.
fn append_run(last: Option<&[u8]>, ops: &[&Op]) -> usize {
    let mut previous = last;
    for (run, op) in ops.iter().enumerate() {
        match op {
            Op::Put(key, _) if previous.is_none_or(|previous| previous < &key[..]) => {
                previous = Some(key);
            }
            Op::Put(..) | Op::Delete(_) => return run,
        }
    }
    ops.len()
}

/// Counts the leading deletes of `ops` whose keys ascend.
fn delete_run(ops: &[&Op]) -> usize {
    let mut previous: Option<&[u8]> = None;
    for (run, op) in ops.iter().enumerate() {
        match op {
            Op::Delete(key) if previous.is_none_or(|previous| previous < &key[..]) => {
                previous = Some(key);
            }
            Op::Put(..) | Op::Delete(_) => return run,
        }
    }
    ops.len()
}

/// Carries out a run that [`delete_run`] counted, with one pass over everything between its first and its last key: each
/// page is rewritten once, instead of once per delete.
fn thin_out(
    table: &mut Table<'_, &'static [u8], &'static [u8]>,
    run: &[&Op],
    change: &mut Change,
) -> Result<(), redb::Error> {
    let [first, .., last] = run else { return Ok(()) };
    let mut deleted = run.iter().map(|op| &op.key()[..]).peekable();
    table.retain_in(&first.key()[..]..=&last.key()[..], |key, stored| {
        while deleted.next_if(|deleted| *deleted < key).is_some() {}
        let is_deleted = deleted.next_if(|deleted| *deleted == key).is_some();
        if is_deleted {
            change.removed += record::footprint(key.len(), stored.len());
        }
        !is_deleted
    })?;
    Ok(())
}

/// Appends a run that [`append_run`] counted.
fn append(
    table: &mut Table<'_, &'static [u8], &'static [u8]>,
    run: &[&Op],
    stored: &mut Vec<u8>,
    change: &mut Change,
) -> Result<(), redb::Error> {
    let mut cursor = table.upper_bound_mut(Bound::<&[u8]>::Unbounded)?;
    for op in run {
        if let Op::Put(key, value) = op {
            record::encode(key, value, stored);
            change.added += record::footprint(key.len(), stored.len());
            cursor.insert_before(&key[..], &stored[..]).map_err(unordered)?;
        }
    }
    Ok(cursor.close()?)
}

/// A key that does not sort behind the table's last one, though it was compared with it: the pages disagree.
pub(super) fn unordered(error: CursorError) -> redb::Error {
    match error {
        CursorError::Storage(error) => error.into(),
        _ => redb::Error::Corrupted("keys are not in order".to_owned()),
    }
}
