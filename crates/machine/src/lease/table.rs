//! The replicated part of the lessor: leases and the keys attached to them. Equal on every member that has applied the same entries.
//!
//! A lease takes about 50 bytes. An attached key takes its own bytes and about 40 more: one node holds the key, its lease and its
//! place in the lease's circular list, and the hash table that finds it holds four bytes.

use std::hash::BuildHasher;

use bytes::Bytes;
use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};
use slab::Slab;

const NIL: u32 = u32::MAX;

/// One lease, as replicated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    pub(super) id: i64,
    /// The granted ttl in seconds.
    pub(super) ttl: i64,
    /// The remaining ttl at the last checkpoint; 0 without one.
    pub(super) remaining_ttl: i64,
    /// Any of its attached keys, or `NIL`.
    keys: u32,
}

impl Lease {
    /// Seconds that a new primary gives it, beside the extension.
    pub(super) fn seconds_left(&self) -> i64 {
        if self.remaining_ttl > 0 { self.remaining_ttl } else { self.ttl }
    }
}

#[derive(Debug)]
struct Attachment {
    key: Box<[u8]>,
    lease: u32,
    previous: u32,
    next: u32,
}

/// See the module's documentation. Leases are named by slots, which are reused after removal.
#[derive(Debug, Default)]
pub(super) struct Table {
    leases: Slab<Lease>,
    /// Looked up by id, never iterated.
    by_id: HashTable<u32>,
    attachments: Slab<Attachment>,
    /// Looked up by key, never iterated.
    by_key: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Table {
    /// Adds a lease whose id is not in use.
    pub(super) fn insert(&mut self, id: i64, ttl: i64, remaining_ttl: i64) -> u32 {
        let slot = slot_of(self.leases.insert(Lease { id, ttl, remaining_ttl, keys: NIL }));
        let Self { leases, by_id, hasher, .. } = self;
        by_id.insert_unique(hasher.hash_one(id), slot, |&slot| {
            hasher.hash_one(leases[slot as usize].id)
        });
        slot
    }

    /// Finds a lease by id.
    pub(super) fn find(&self, id: i64) -> Option<u32> {
        let hash = self.hasher.hash_one(id);
        self.by_id.find(hash, |&slot| self.leases[slot as usize].id == id).copied()
    }

    /// Returns the lease in `slot`, which is in use.
    pub(super) fn lease(&self, slot: u32) -> &Lease {
        &self.leases[slot as usize]
    }

    /// Returns the lease in `slot`, which is in use, for its remaining ttl to be changed.
    pub(super) fn lease_mut(&mut self, slot: u32) -> &mut Lease {
        &mut self.leases[slot as usize]
    }

    /// Iterates over all leases by slot.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Lease)> {
        self.leases.iter().map(|(slot, lease)| (slot_of(slot), lease))
    }

    /// Counts the leases.
    pub(super) fn len(&self) -> usize {
        self.leases.len()
    }

    /// Counts the attached keys of all leases.
    pub(super) fn attached(&self) -> usize {
        self.attachments.len()
    }

    /// Removes a lease and returns its keys in ascending byte order; they are attached no more.
    pub(super) fn remove(&mut self, slot: u32) -> Vec<Bytes> {
        let mut keys = Vec::new();
        while self.lease(slot).keys != NIL {
            keys.push(Bytes::from(self.cut(self.lease(slot).keys)));
        }
        keys.sort_unstable();
        let lease = self.leases.remove(slot as usize);
        let hash = self.hasher.hash_one(lease.id);
        if let Ok(entry) = self.by_id.find_entry(hash, |&other| other == slot) {
            entry.remove();
        }
        keys
    }

    /// Attaches `key`, and detaches it from the lease that has it.
    pub(super) fn attach(&mut self, slot: u32, key: &[u8]) {
        let Self { attachments, by_key, hasher, .. } = self;
        let entry = by_key.entry(
            hasher.hash_one(key),
            |&node| *attachments[node as usize].key == *key,
            |&node| hasher.hash_one(&*attachments[node as usize].key),
        );
        match entry {
            Entry::Occupied(found) => {
                let node = *found.get();
                if self.attachments[node as usize].lease != slot {
                    self.unlink(node);
                    self.link(node, slot);
                }
            }
            Entry::Vacant(gap) => {
                let attachment =
                    Attachment { key: key.into(), lease: slot, previous: NIL, next: NIL };
                let node = slot_of(attachments.insert(attachment));
                gap.insert(node);
                self.link(node, slot);
            }
        }
    }

    /// Detaches `key` and returns the slot of the lease that had it.
    pub(super) fn detach(&mut self, key: &[u8]) -> Option<u32> {
        let node = self.find_key(key)?;
        let lease = self.attachments[node as usize].lease;
        self.cut(node);
        Some(lease)
    }

    /// Returns the slot of the lease that `key` is attached to.
    pub(super) fn lease_of(&self, key: &[u8]) -> Option<u32> {
        self.find_key(key).map(|node| self.attachments[node as usize].lease)
    }

    /// Iterates over the keys of a lease in no order that means anything.
    pub(super) fn keys(&self, slot: u32) -> impl Iterator<Item = &[u8]> {
        let first = self.lease(slot).keys;
        let mut at = first;
        std::iter::from_fn(move || {
            let node = self.attachments.get(at as usize)?;
            at = if node.next == first { NIL } else { node.next };
            Some(&*node.key)
        })
    }

    fn find_key(&self, key: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        self.by_key.find(hash, |&node| *self.attachments[node as usize].key == *key).copied()
    }

    /// Forgets an attachment and returns its key.
    fn cut(&mut self, node: u32) -> Box<[u8]> {
        self.unlink(node);
        let hash = self.hasher.hash_one(&*self.attachments[node as usize].key);
        if let Ok(entry) = self.by_key.find_entry(hash, |&other| other == node) {
            entry.remove();
        }
        self.attachments.remove(node as usize).key
    }

    fn link(&mut self, node: u32, slot: u32) {
        let first = self.leases[slot as usize].keys;
        if first == NIL {
            self.leases[slot as usize].keys = node;
            self.set_links(node, slot, node, node);
            return;
        }
        let last = self.attachments[first as usize].previous;
        self.set_links(node, slot, last, first);
        self.attachments[last as usize].next = node;
        self.attachments[first as usize].previous = node;
    }

    fn set_links(&mut self, node: u32, lease: u32, previous: u32, next: u32) {
        let attachment = &mut self.attachments[node as usize];
        (attachment.lease, attachment.previous, attachment.next) = (lease, previous, next);
    }

    fn unlink(&mut self, node: u32) {
        let Attachment { lease, previous, next, .. } = self.attachments[node as usize];
        let first = &mut self.leases[lease as usize].keys;
        if next == node {
            *first = NIL;
            return;
        }
        if *first == node {
            *first = next;
        }
        self.attachments[previous as usize].next = next;
        self.attachments[next as usize].previous = previous;
    }
}

fn slot_of(index: usize) -> u32 {
    u32::try_from(index).expect("memory ends before 2^32 leases or attachments")
}
