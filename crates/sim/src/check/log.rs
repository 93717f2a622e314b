//! The log: nothing acknowledged is ever lost, nothing happens in part, twice, or unasked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use machine::{EventBatch, Outcome, Reader};
use prost::Message as _;
use proto::etcdserverpb as pb;
use proto::raftpb;

use super::lease::LeaseClock;
use super::{Violation, answers, check, check_equal};
use crate::model::{Expected, Model};

/// Judges one cluster.
#[derive(Debug)]
pub struct Judge {
    model: Model,
    /// What members gave to their disks; the first entry has index 1.
    log: Vec<raftpb::Entry>,
    /// Where in the log a request is, by its id.
    places: BTreeMap<u64, u64>,
    /// What clients asked for, by request id.
    proposed: BTreeMap<u64, Bytes>,
    /// What applied requests of clients have to yield, with their index.
    expected: BTreeMap<u64, (u64, Expected)>,
    /// Requests that a client was told were not taken.
    refused: BTreeSet<u64>,
    /// The highest index of an entry that a client was told of.
    acknowledged: u64,
    pub(super) leases: LeaseClock,
}

impl Judge {
    /// Judges an empty cluster of `members` that raises shorter ttls to `ttl_min`. The log begins with one entry for each
    /// member, which starting writes without telling.
    pub fn new(members: u64, ttl_min: i64) -> Self {
        let first = (1..=members).map(|index| raftpb::Entry {
            r#type: raftpb::EntryType::EntryConfChange.into(),
            index,
            ..raftpb::Entry::default()
        });
        Self {
            model: Model::new(ttl_min),
            log: first.collect(),
            places: BTreeMap::new(),
            proposed: BTreeMap::new(),
            expected: BTreeMap::new(),
            refused: BTreeSet::new(),
            acknowledged: 0,
            leases: LeaseClock::default(),
        }
    }

    /// What should be.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The index of the last entry.
    pub fn last_index(&self) -> u64 {
        self.log.len() as u64
    }

    /// Notes what a client asks for.
    pub fn propose(&mut self, id: u64, data: Bytes) {
        self.proposed.insert(id, data);
    }

    /// Notes that a client was told that its request was not taken.
    pub fn refuse(&mut self, id: u64) -> Result<(), Violation> {
        self.refused.insert(id);
        check(!self.places.contains_key(&id), || {
            format!("request {id:x} was not taken, but is in the log")
        })
    }

    /// Takes in entries on their way to the disk.
    pub fn write(&mut self, entries: &[raftpb::Entry], now: Duration) -> Result<(), Violation> {
        for entry in entries {
            self.write_one(entry, now)?;
        }
        Ok(())
    }

    fn write_one(&mut self, entry: &raftpb::Entry, now: Duration) -> Result<(), Violation> {
        let index = entry.index;
        check(index > self.acknowledged, || {
            let acknowledged = self.acknowledged;
            format!("entry {index} is written anew, but {acknowledged} was acknowledged")
        })?;
        check(index > self.model.applied(), || {
            format!("entry {index} is written anew, but {} was applied", self.model.applied())
        })?;
        let last = self.log.len() as u64;
        check(index <= last + 1, || format!("entry {index} follows {last}"))?;
        self.log.truncate(usize::try_from(index - 1).unwrap_or(usize::MAX));
        self.places.retain(|_, place| *place < index);
        self.log.push(entry.clone());
        if entry.r#type() != raftpb::EntryType::EntryNormal || entry.data.is_empty() {
            return Ok(());
        }
        let request = decode(index, &entry.data)?;
        let id = request.header.as_ref().map_or(0, |header| header.id);
        let before = self.places.insert(id, index);
        check(before.is_none(), || {
            format!("request {id:x} is in the log twice, again at {index}")
        })?;
        check(!self.refused.contains(&id), || {
            format!("request {id:x} was not taken, but is entry {index}")
        })?;
        match (self.proposed.get(&id), &request.lease_revoke) {
            (Some(asked), _) => check(*asked == entry.data, || {
                format!("entry {index} is not what was asked for by request {id:x}")
            }),
            (None, Some(revoke)) => self.leases.revoke(revoke.id, now, &self.model),
            (None, None) => Ok(()),
        }
    }

    /// Applies what a member has applied.
    pub fn advance(&mut self, applied: u64) -> Result<(), Violation> {
        while self.model.applied() < applied {
            let index = self.model.applied() + 1;
            let place = usize::try_from(index - 1).unwrap_or(usize::MAX);
            let Some(entry) = self.log.get(place) else {
                return Err(Violation(format!("entry {index} is applied, but was never written")));
            };
            if entry.r#type() != raftpb::EntryType::EntryNormal || entry.data.is_empty() {
                self.model.apply_nothing();
                continue;
            }
            let request = decode(index, &entry.data)?;
            let expected = self.model.apply(&request);
            let id = request.header.as_ref().map_or(0, |header| header.id);
            if self.proposed.remove(&id).is_some() {
                self.expected.insert(id, (index, expected));
            }
        }
        Ok(())
    }

    /// Judges the answer to a proposal. Returns the revision that the client was told.
    pub fn answer(&mut self, id: u64, outcome: &Outcome) -> Result<i64, Violation> {
        let Some((index, expected)) = self.expected.remove(&id) else {
            return Err(Violation(format!("request {id:x} is answered, but not applied")));
        };
        self.acknowledged = self.acknowledged.max(index);
        let result = match &outcome.result {
            Ok(reply) => Ok(answers::reply(reply)?),
            Err(refusal) => Err(*refusal),
        };
        let found = Expected { revision: outcome.revision, result };
        check_equal(format!("the answer to entry {index}"), &found, &expected)?;
        Ok(found.revision)
    }

    /// Forgets who waits for what: the process that would have answered is gone.
    pub fn forget_waiting(&mut self) {
        self.expected.clear();
    }

    /// Judges where a member's store stands after entry `applied`.
    pub fn stand(&self, reader: &Reader, applied: u64) -> Result<(), Violation> {
        let Some(stand) = self.model.stand_at(applied) else {
            return Err(Violation(format!("entry {applied} is applied, but was never written")));
        };
        let found = (reader.revision(), reader.compact_revision());
        let expected = (stand.revision, stand.compacted);
        check_equal(format!("revision and compacted one at entry {applied}"), &found, &expected)
    }

    /// Judges the events of what was applied.
    pub fn events(&self, batch: &EventBatch) -> Result<(), Violation> {
        let changes = self.model.changes_from(batch.first());
        let covered = changes.iter().take_while(|change| change.main <= batch.last());
        let mut events = batch.events().iter();
        for change in covered {
            let Some(event) = events.next() else {
                return Err(Violation(format!("the event of {change:?} is missing")));
            };
            let place = (event.revision.main, event.revision.sub);
            check_equal("an event's revision", &place, &(change.main, change.sub))?;
            check_equal("an event's key", &event.key, &change.kv.key)?;
            let is_delete = event.kind == machine::watch::EventKind::Delete;
            check_equal("whether an event deletes", &is_delete, &change.is_delete)?;
            if !is_delete {
                check_equal("an event's record", &answers::record(&event.record)?, &change.kv)?;
            }
        }
        check(events.next().is_none(), || {
            format!("there are more events up to {} than changes", batch.last())
        })
    }
}

fn decode(index: u64, data: &Bytes) -> Result<pb::InternalRaftRequest, Violation> {
    pb::InternalRaftRequest::decode(data.clone())
        .map_err(|error| Violation(format!("entry {index} does not decode: {error}")))
}
