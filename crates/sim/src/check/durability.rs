//! What is durable where: an entry is applied only when a majority has it on disk.
//!
//! Kept apart from the members: from what their log threads wrote and synced. A process that starts may find more than was
//! synced, and makes that durable before it counts; so everything it ever wrote and did not overwrite is taken for durable then.

use std::collections::{BTreeMap, BTreeSet};

use proto::raftpb;

use super::{Violation, check};
use crate::model::Group;

/// The disk of one member.
#[derive(Debug, Default)]
struct Log {
    /// Index and term of what was synced and is not overwritten.
    synced: BTreeSet<(u64, u64)>,
    /// What was written and not synced.
    unsynced: Vec<(u64, u64)>,
    /// A snapshot holds everything up to here.
    snapshot: u64,
    /// One that was written and not synced.
    unsynced_snapshot: u64,
}

impl Log {
    fn sync(&mut self) {
        self.synced.extend(self.unsynced.drain(..));
        self.snapshot = self.snapshot.max(self.unsynced_snapshot);
    }

    fn has(&self, index: u64, term: u64) -> bool {
        index <= self.snapshot || self.synced.contains(&(index, term))
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Durability {
    logs: BTreeMap<u64, Log>,
    /// Who votes; and who voted before the last change, under which an entry behind it may have been committed.
    voters: BTreeSet<u64>,
    voters_before: BTreeSet<u64>,
}

impl Durability {
    pub(super) fn new(group: &Group) -> Self {
        let voters: BTreeSet<u64> = group.voters().collect();
        Self { logs: BTreeMap::new(), voters_before: voters.clone(), voters }
    }

    pub(super) fn start(&mut self, member: u64) {
        self.logs.entry(member).or_default().sync();
    }

    pub(super) fn reconfigure(&mut self, group: &Group) {
        let voters: BTreeSet<u64> = group.voters().collect();
        self.voters_before = std::mem::replace(&mut self.voters, voters);
    }

    /// The log thread of `member` has written entries, and the mark of a leader's snapshot if there is one.
    pub fn write(&mut self, member: u64, entries: &[raftpb::Entry], snapshot: Option<u64>) {
        let log = self.logs.entry(member).or_default();
        if let Some(first) = entries.first() {
            // From now on they may be gone.
            let is_before = |&(index, _): &(u64, u64)| index < first.index;
            log.synced.retain(is_before);
            log.unsynced.retain(is_before);
        }
        log.unsynced.extend(entries.iter().map(|entry| (entry.index, entry.term)));
        log.unsynced_snapshot = log.unsynced_snapshot.max(snapshot.unwrap_or_default());
    }

    /// The log thread of `member` has synced.
    pub fn sync(&mut self, member: u64) {
        self.logs.entry(member).or_default().sync();
    }

    /// Judges that a majority has an entry.
    pub(super) fn check(&self, index: u64, term: u64) -> Result<(), Violation> {
        let has = |member: &u64| self.logs.get(member).is_some_and(|log| log.has(index, term));
        let is_majority = |voters: &BTreeSet<u64>| {
            voters.iter().filter(|member| has(member)).count() > voters.len() / 2
        };
        check(is_majority(&self.voters) || is_majority(&self.voters_before), || {
            let holders: Vec<&u64> = self.voters.iter().filter(|member| has(member)).collect();
            format!("entry {index} of term {term} is applied, but durable at {holders:x?} only")
        })
    }
}
