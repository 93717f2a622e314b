//! A snapshot: everything durable, at the state after one entry.

use bytes::Bytes;
use storage::backend::{self, Backend};

use crate::fault::{Fault, ReadError};
use crate::schema::{self, ConfState};

/// A consistent view of all ten buckets. While it is held the engine keeps pages that were freed since: drop it soon.
#[derive(Debug)]
pub struct Snapshot {
    engine: backend::Reader,
    index: u64,
    term: u64,
    conf_state: ConfState,
    storage_version: String,
}

impl Snapshot {
    pub(crate) fn open(backend: &Backend) -> Result<Self, ReadError> {
        let engine = backend.reader()?;
        let meta = |key: &[u8]| engine.get(schema::META, key);
        let number = |key: &'static [u8]| match meta(key)? {
            None => Ok(0),
            Some(value) => schema::decode_number(&value)
                .ok_or_else(|| ReadError::from(damaged("a number in meta is not 8 bytes long"))),
        };
        let index = number(schema::CONSISTENT_INDEX)?;
        let term = number(schema::TERM)?;
        let conf_state = match meta(schema::CONF_STATE)? {
            None => ConfState::default(),
            Some(value) => schema::decode_conf_state(&value)
                .ok_or_else(|| damaged("confState is no membership"))?,
        };
        let storage_version = meta(schema::STORAGE_VERSION)?
            .map(|value| String::from_utf8_lossy(&value).into_owned())
            .unwrap_or_default();
        Ok(Self { engine, index, term, conf_state, storage_version })
    }

    /// Returns the index of the last entry in it.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Returns that entry's term.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Returns the consensus group after that entry.
    pub fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    /// Returns the version of the layout; empty when unknown.
    pub fn storage_version(&self) -> &str {
        &self.storage_version
    }

    /// Returns the names of the buckets in byte order.
    pub fn buckets(&self) -> impl Iterator<Item = &'static str> {
        schema::BUCKETS.iter().copied()
    }

    /// Iterates over a bucket's pairs in key order; nothing for an unknown name. Each call begins anew, so that a writer can pass twice.
    pub fn pairs(
        &self,
        bucket: &str,
    ) -> impl Iterator<Item = Result<(Bytes, Bytes), storage::Fault>> + '_ {
        schema::tables()
            .find(|(_, name)| *name == bucket)
            .into_iter()
            .flat_map(|(table, _)| self.engine.range(table, ..))
    }
}

fn damaged(what: &str) -> Fault {
    Fault::Backend { bucket: schema::BUCKETS[usize::from(schema::META.0)], what: what.into() }
}
