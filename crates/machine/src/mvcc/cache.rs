//! The value cache: records by revision, bounded in bytes. It decides what needs no disk, never
//! what is true.

use std::fmt;
use std::hash::{BuildHasher, Hasher};

use quick_cache::sync::Cache;
use quick_cache::sync::DefaultLifecycle;
use quick_cache::{OptionsBuilder, Weighter};

use crate::{Record, Revision};

/// What an entry costs beside its record's bytes.
const ENTRY_BYTES: u64 = 96;
/// What an average entry is taken to weigh when the number of slots is estimated.
const ENTRY_BYTES_TYPICAL: u64 = 512;

/// Locks that readers spread over; fixed, so that behaviour does not depend on the machine.
const SHARDS: usize = 16;

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Revision, Record> for ByBytes {
    fn weight(&self, _key: &Revision, val: &Record) -> u64 {
        ENTRY_BYTES + val.len() as u64
    }
}

/// Hashes revisions without a random seed: a member's behaviour is a function of its inputs.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct RevisionHasher(u64);

impl Hasher for RevisionHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_i64(&mut self, i: i64) {
        self.write_u64(i.cast_unsigned());
    }

    fn write_u64(&mut self, i: u64) {
        // The odd constant spreads successive revisions; the shift brings the well-mixed high half
        // down.
        let mixed = (self.0 ^ i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct RevisionHashes;

impl BuildHasher for RevisionHashes {
    type Hasher = RevisionHasher;

    fn build_hasher(&self) -> RevisionHasher {
        RevisionHasher::default()
    }
}

/// Records that were read lately, and newer ones of keys that had been read.
///
/// What is only written is not kept: it would take all of the room, and the file's pages are in the system's memory anyway.
pub(crate) struct ValueCache {
    records: Cache<Revision, Record, ByBytes, RevisionHashes>,
    bytes_max: u64,
}

impl fmt::Debug for ValueCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValueCache").field("bytes", &self.records.weight()).finish_non_exhaustive()
    }
}

impl ValueCache {
    /// Makes a cache of at most `bytes_max`.
    pub(crate) fn new(bytes_max: u64) -> Self {
        let slots = usize::try_from(bytes_max / ENTRY_BYTES_TYPICAL).unwrap_or(usize::MAX).max(16);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(slots)
            .weight_capacity(bytes_max)
            .shards(SHARDS)
            .build()
            .expect("both capacities are given");
        let lifecycle = DefaultLifecycle::default();
        let records = Cache::with_options(options, ByBytes, RevisionHashes, lifecycle);
        Self { records, bytes_max }
    }

    /// Returns the record of a revision if it is here.
    pub(crate) fn get(&self, revision: Revision) -> Option<Record> {
        self.records.get(&revision)
    }

    /// Returns the bytes held.
    pub(crate) fn bytes(&self) -> u64 {
        self.records.weight()
    }

    /// Tells whether there is room for `bytes` more, so that nothing would have to go for them.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.records.weight() + bytes as u64 <= self.bytes_max
    }

    /// Tells whether the record of a revision is here, which does not count as a use of it.
    pub(crate) fn contains(&self, revision: Revision) -> bool {
        self.records.contains_key(&revision)
    }

    /// Offers a record; one that is too large is not kept.
    pub(crate) fn insert(&self, revision: Revision, record: Record) {
        self.records.insert(revision, record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_ends_with_the_bound() {
        let cache = ValueCache::new(1 << 20);
        assert!(cache.has_room(1 << 20) && !cache.has_room((1 << 20) + 1));
        let revision = Revision::new(2, 0);
        cache.insert(revision, vec![0; 1 << 10].into());
        assert!(cache.contains(revision) && !cache.contains(Revision::new(3, 0)));
        assert_eq!(cache.get(revision).map(|record| record.len()), Some(1 << 10));
        assert_eq!(cache.bytes(), ENTRY_BYTES + (1 << 10));
        assert!(cache.has_room((1 << 20) - 2048) && !cache.has_room(1 << 20));
    }
}
