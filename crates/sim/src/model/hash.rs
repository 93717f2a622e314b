//! HashKV by its definition.

use std::collections::BTreeMap;

use prost::Message as _;

use super::{Change, Model};

impl Model {
    /// The hash of the records up to `revision` with `compacted` as the compacted revision. `None` where nothing is alive
    /// at `revision`: then all that is still there counts, and how much that is depends on how far the compaction got.
    pub fn hash(&self, revision: i64, compacted: i64) -> Option<u32> {
        if compacted > 0 && self.state(revision).is_empty() {
            return None;
        }
        let covered = || self.changes.iter().take_while(|change| change.main <= revision);
        let newest: BTreeMap<_, _> =
            covered().map(|change| (&change.kv.key, (change.main, change.sub))).collect();
        let mut hash = crc32c::crc32c(b"key");
        for change in covered() {
            let is_newest = newest[&change.kv.key] == (change.main, change.sub);
            let is_kept = is_newest && !change.is_delete;
            if change.main <= compacted && !is_kept {
                continue;
            }
            hash = crc32c::crc32c_append(hash, &stored_key(change));
            hash = crc32c::crc32c_append(hash, &change.kv.encode_to_vec());
        }
        Some(hash)
    }
}

/// The key under which a change is stored.
fn stored_key(change: &Change) -> Vec<u8> {
    let mut key = change.main.to_be_bytes().to_vec();
    key.push(b'_');
    key.extend_from_slice(&change.sub.to_be_bytes());
    if change.is_delete {
        key.push(b't');
    }
    key
}
