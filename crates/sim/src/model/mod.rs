//! The store as etcd's documentation has it, written apart from the code: a list of everything that ever happened.
//!
//! Slow, and simple enough to be right. It is given the log's entries in order and tells what each has to yield, and what
//! the store has to answer at any revision. Nothing is ever thrown away: a compaction only moves a mark.

mod group;
mod hash;
mod range;
mod txn;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use machine::Refusal;
use proto::etcdserverpb as pb;
use proto::mvccpb::KeyValue;

pub use self::group::Group;
pub use self::range::selects;

/// What a request yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Of a put: the former record if asked for.
    Put(Option<KeyValue>),
    /// Of a range.
    Range(Page),
    /// Of a deletion: how many keys, and their former records if asked for.
    Delete(i64, Vec<KeyValue>),
    /// Of a transaction: whether the compares held, and for each operation the revision of its header and its reply.
    Txn(bool, Vec<(i64, Self)>),
    /// Of a grant: id and effective ttl.
    Grant(i64, i64),
    /// Of everything that answers nothing.
    Empty,
}

/// What a range answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Records.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut some off.
    pub more: bool,
    /// How many there are.
    pub count: i64,
}

/// What applying an entry has to yield: `header.revision` and the reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The answer's revision.
    pub revision: i64,
    /// The reply, or why there is none.
    pub result: Result<Reply, Refusal>,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The main revision.
    pub main: i64,
    /// The place among the changes of one revision.
    pub sub: i64,
    /// The record, or for a deletion the key alone.
    pub kv: KeyValue,
    /// Whether it is a deletion.
    pub is_delete: bool,
    /// The key's record before.
    pub before: Option<KeyValue>,
}

/// A lease.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lease {
    /// Seconds.
    pub ttl: i64,
    /// What is attached.
    pub keys: BTreeSet<Bytes>,
}

/// Where the store stood after an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stand {
    /// The current revision.
    pub revision: i64,
    /// The compacted one, or −1.
    pub compacted: i64,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Model {
    changes: Vec<Change>,
    live: BTreeMap<Bytes, KeyValue>,
    leases: BTreeMap<i64, Lease>,
    ttl_min: i64,
    group: Group,
    /// Whether the cluster's version is one before 3.7.
    is_old: bool,
    /// By index of the entry; that of no entry first.
    stands: Vec<Stand>,
}

impl Model {
    /// An empty store of a cluster of `group`; shorter ttls are raised to `ttl_min`.
    pub fn new(group: Group, ttl_min: i64) -> Self {
        Self {
            changes: Vec::new(),
            live: BTreeMap::new(),
            leases: BTreeMap::new(),
            ttl_min,
            group,
            is_old: false,
            stands: vec![Stand { revision: 1, compacted: -1 }],
        }
    }

    /// The index of the last entry applied.
    pub fn applied(&self) -> u64 {
        self.stands.len() as u64 - 1
    }

    /// Where the store stands.
    pub fn stand(&self) -> Stand {
        self.stands[self.stands.len() - 1]
    }

    /// Where the store stood after entry `index`; `None` for one that is not applied.
    pub fn stand_at(&self, index: u64) -> Option<Stand> {
        self.stands.get(usize::try_from(index).ok()?).copied()
    }

    /// All leases.
    pub fn leases(&self) -> &BTreeMap<i64, Lease> {
        &self.leases
    }

    /// Who belongs to the cluster.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// All changes from main revision `from` on.
    pub fn changes_from(&self, from: i64) -> &[Change] {
        &self.changes[self.changes.partition_point(|change| change.main < from)..]
    }

    /// The keys that existed after all changes up to revision `main`.
    pub fn state(&self, main: i64) -> BTreeMap<Bytes, KeyValue> {
        let mut state = BTreeMap::new();
        for change in self.changes.iter().take_while(|change| change.main <= main) {
            if change.is_delete {
                state.remove(&change.kv.key);
            } else {
                state.insert(change.kv.key.clone(), change.kv.clone());
            }
        }
        state
    }

    /// Applies an entry that changes nothing in the store.
    pub fn apply_nothing(&mut self) -> Expected {
        self.finish(0, None, Ok(Reply::Empty))
    }

    /// Applies a change of the membership.
    pub fn apply_change(&mut self, change: &proto::raftpb::ConfChange) -> Expected {
        let result = self.group.apply(change).map(|()| Reply::Empty);
        self.finish(0, None, result)
    }

    /// Applies the request of the next entry.
    pub fn apply(&mut self, request: &pb::InternalRaftRequest) -> Expected {
        let mut sub = 0;
        let mut compacted = None;
        let result = if let Some(put) = &request.put {
            self.check_put(put).map(|()| self.put(put, &mut sub))
        } else if let Some(delete) = &request.delete_range {
            Ok(self.delete(delete, &mut sub))
        } else if let Some(txn) = &request.txn {
            self.txn(txn, &mut sub)
        } else if let Some(compaction) = &request.compaction {
            let result = self.check_compaction(compaction.revision);
            compacted = result.is_ok().then_some(compaction.revision);
            result
        } else if let Some(grant) = &request.lease_grant {
            self.grant(grant.id, grant.ttl)
        } else if let Some(revoke) = &request.lease_revoke {
            self.revoke(revoke.id, &mut sub)
        } else {
            if let Some(set) = &request.cluster_version_set {
                self.is_old = set.ver != "3.7.0";
            }
            Ok(Reply::Empty)
        };
        self.finish(sub, compacted, result)
    }

    fn finish(
        &mut self,
        changed: i64,
        compacted: Option<i64>,
        result: Result<Reply, Refusal>,
    ) -> Expected {
        let before = self.stand();
        let revision = before.revision + i64::from(changed > 0);
        self.stands.push(Stand { revision, compacted: compacted.unwrap_or(before.compacted) });
        Expected { revision, result }
    }

    fn check_put(&self, put: &pb::PutRequest) -> Result<(), Refusal> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err(Refusal::LeaseNotFound);
        }
        if (put.ignore_value || put.ignore_lease) && !self.live.contains_key(&put.key) {
            return Err(Refusal::KeyNotFound);
        }
        Ok(())
    }

    fn put(&mut self, put: &pb::PutRequest, sub: &mut i64) -> Reply {
        let main = self.stand().revision + 1;
        let before = self.live.get(&put.key).cloned();
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: before.as_ref().map_or(main, |kv| kv.create_revision),
            mod_revision: main,
            version: before.as_ref().map_or(0, |kv| kv.version) + 1,
            value: match &before {
                Some(kv) if put.ignore_value => kv.value.clone(),
                _ => put.value.clone(),
            },
            lease: match &before {
                Some(kv) if put.ignore_lease => kv.lease,
                _ => put.lease,
            },
        };
        self.detach(&put.key);
        if let Some(lease) = self.leases.get_mut(&kv.lease) {
            lease.keys.insert(put.key.clone());
        }
        self.live.insert(put.key.clone(), kv.clone());
        let reply = Reply::Put(before.clone().filter(|_| put.prev_kv));
        self.changes.push(Change { main, sub: *sub, kv, is_delete: false, before });
        *sub += 1;
        reply
    }

    fn delete(&mut self, delete: &pb::DeleteRangeRequest, sub: &mut i64) -> Reply {
        let keys: Vec<Bytes> = self
            .live
            .keys()
            .filter(|key| selects(&delete.key, &delete.range_end, key))
            .cloned()
            .collect();
        let former: Vec<KeyValue> =
            keys.iter().filter_map(|key| self.delete_one(key, sub)).collect();
        let deleted = count(former.len());
        Reply::Delete(deleted, if delete.prev_kv { former } else { Vec::new() })
    }

    fn delete_one(&mut self, key: &Bytes, sub: &mut i64) -> Option<KeyValue> {
        let former = self.live.remove(key)?;
        self.detach(key);
        let main = self.stand().revision + 1;
        let kv = KeyValue { key: key.clone(), ..KeyValue::default() };
        let before = Some(former.clone());
        self.changes.push(Change { main, sub: *sub, kv, is_delete: true, before });
        *sub += 1;
        Some(former)
    }

    fn detach(&mut self, key: &Bytes) {
        for lease in self.leases.values_mut() {
            lease.keys.remove(key);
        }
    }

    fn check_compaction(&self, revision: i64) -> Result<Reply, Refusal> {
        let stand = self.stand();
        if revision <= stand.compacted {
            Err(Refusal::Compacted)
        } else if revision > stand.revision {
            Err(Refusal::FutureRevision)
        } else {
            Ok(Reply::Empty)
        }
    }

    fn grant(&mut self, id: i64, ttl: i64) -> Result<Reply, Refusal> {
        if self.leases.contains_key(&id) {
            return Err(Refusal::LeaseExists);
        }
        let ttl = ttl.max(self.ttl_min);
        self.leases.insert(id, Lease { ttl, keys: BTreeSet::new() });
        Ok(Reply::Grant(id, ttl))
    }

    fn revoke(&mut self, id: i64, sub: &mut i64) -> Result<Reply, Refusal> {
        let lease = self.leases.remove(&id).ok_or(Refusal::LeaseNotFound)?;
        for key in &lease.keys {
            self.delete_one(key, sub);
        }
        Ok(Reply::Empty)
    }
}

fn count(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
