//! A snapshot: everything durable, at the state after one entry.

use std::fmt;
use std::ops::ControlFlow;

use bytes::Bytes;
use storage::backend::{self, Backend};
pub use storage::bolt::writer::Error as ImageError;
use storage::bolt::writer::PAGE_BYTES;
use storage::bolt::{Planner, Writer};

use crate::fault::{Fault, ReadError};
use crate::membership::Membership;
use crate::recover;
use crate::schema::{self, ConfState};

/// A consistent view of all ten buckets. While it is held the engine keeps pages that were freed
/// since: drop it soon.
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
        #[cfg(feature = "planted-faults")]
        if crate::fault_hooks::is_planted(crate::fault_hooks::Planted::WrongSnapshotIndex) {
            return self.index + 1;
        }
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

    /// Reads the membership after that entry.
    pub fn membership(&self) -> Result<Membership, Fault> {
        recover::membership(&self.engine)
    }

    /// Begins the database file: reads all lengths once to plan it. The image keeps the view alive.
    pub fn image(&self) -> Result<Image, ImageError> {
        let mut planner = Planner::new(PAGE_BYTES)?;
        for (table, name) in schema::tables() {
            planner.bucket(name.as_bytes())?;
            let mut result = Ok(());
            self.engine.scan(table, .., |key, value| {
                result = planner.pair(key.len(), value.len());
                if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            result?;
        }
        let engine = self.engine.clone();
        let source: Source = Box::new(move |bucket| {
            let (table, _) = schema::tables()
                .find(|(_, name)| name.as_bytes() == bucket)
                .expect("the plan has our buckets");
            engine.range(table, ..)
        });
        Ok(Image { writer: Writer::new(planner.finish(), source) })
    }

    /// Returns the names of the buckets in byte order.
    pub fn buckets(&self) -> impl Iterator<Item = &'static str> {
        schema::BUCKETS.iter().copied()
    }

    /// Iterates over a bucket's pairs in key order; nothing for an unknown name. Each call begins
    /// anew, so that a writer can pass twice.
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

/// An etcd database file with everything in a snapshot, made piece by piece.
pub struct Image {
    writer: Writer<Source, backend::Range>,
}

type Source = Box<dyn FnMut(&[u8]) -> backend::Range + Send>;

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Image {
    /// Returns the length of the whole file.
    pub fn len(&self) -> u64 {
        self.writer.image_len()
    }

    /// Tells whether the file is empty. It never is: the format has a head.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Replaces what is in `piece` by the file's next part; false when there is nothing more.
    pub fn next_piece(&mut self, piece: &mut Vec<u8>) -> Result<bool, ImageError> {
        self.writer.next_piece(piece)
    }
}

fn damaged(what: &str) -> Fault {
    Fault::Backend { bucket: schema::BUCKETS[usize::from(schema::META.0)], what: what.into() }
}
