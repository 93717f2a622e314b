//! The log: all members apply the same entries, each of them durable at a majority before; nothing that was acknowledged is
//! ever lost, nothing happens in part, twice, or unasked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use machine::{EventBatch, Outcome, Reader};
use prost::Message as _;
use proto::etcdserverpb as pb;
use proto::raftpb;

use super::durability::Durability;
use super::lease::LeaseClock;
use super::{Violation, answers, check, check_equal};
use crate::model::{Expected, Group, Model};

/// An entry as a member has applied it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// What it holds.
    pub content: Bytes,
}

/// An entry that somebody has given to a disk.
#[derive(Debug)]
struct Written {
    content: Bytes,
    is_change: bool,
    /// When that happened for the first time.
    at: Duration,
    /// Who has written it, unless several have.
    sole: Option<u64>,
}

/// Judges one cluster.
#[derive(Debug)]
pub struct Judge {
    model: Model,
    /// What was applied anywhere: term and content; the first entry has index 1.
    log: Vec<(u64, Bytes)>,
    /// What members gave to their disks, by index and term.
    written: BTreeMap<(u64, u64), Written>,
    durability: Durability,
    /// By member: the last index that it has applied in its present life.
    applied: BTreeMap<u64, u64>,
    /// Entries that starting writes without telling: one for each member of the beginning.
    first_entries: u64,
    /// Requests in the log by id.
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
    /// Judges an empty cluster of `members` that raises shorter ttls to `ttl_min`.
    pub fn new(members: &[u64], ttl_min: i64) -> Self {
        let group = Group::new(members.iter().copied());
        Self {
            durability: Durability::new(&group),
            model: Model::new(group, ttl_min),
            log: Vec::new(),
            written: BTreeMap::new(),
            applied: BTreeMap::new(),
            first_entries: members.len() as u64,
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

    /// The index of the last entry that was applied anywhere.
    pub fn last_index(&self) -> u64 {
        self.log.len() as u64
    }

    /// The highest index of an entry that a client was told of.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
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

    /// Notes that a process of `member` starts, and what it has applied before.
    pub fn start(&mut self, member: u64) {
        self.applied.remove(&member);
        self.durability.start(member);
    }

    /// Takes in entries on the way to the disk of `member`.
    pub fn write(
        &mut self,
        member: u64,
        entries: &[raftpb::Entry],
        now: Duration,
    ) -> Result<(), Violation> {
        let applied = self.applied.get(&member).copied().unwrap_or_default();
        for entry in entries {
            let index = entry.index;
            check(index > applied, || {
                format!("{member:x} writes entry {index} anew, but has applied {applied}")
            })?;
            let is_change = entry.r#type() != raftpb::EntryType::EntryNormal;
            let key = (index, entry.term);
            let content = entry.data.clone();
            let first = self.written.entry(key).or_insert_with(|| Written {
                content: content.clone(),
                is_change,
                at: now,
                sole: Some(member),
            });
            if first.sole != Some(member) {
                first.sole = None;
            } else if first.content != content || first.is_change != is_change {
                // A lone voter may begin a term again that it had lost with all of its entries, as long as nobody has heard of
                // them. Whether it is one, it judges by what it has applied itself, which may be less than the model has.
                *first = Written { content, is_change, at: now, sole: Some(member) };
            }
            check(first.content == entry.data && first.is_change == is_change, || {
                format!("there are two entries {index} of term {}", entry.term)
            })?;
        }
        Ok(())
    }

    /// What is durable where.
    pub fn durability(&mut self) -> &mut Durability {
        &mut self.durability
    }

    /// Takes in what `member` has applied, in order; with `is_installed`, a snapshot may have come in between or last, and
    /// `applied` is where it stands now.
    pub fn apply(
        &mut self,
        member: u64,
        heard: &[Heard],
        applied: u64,
        is_installed: bool,
    ) -> Result<(), Violation> {
        for entry in heard {
            let index = entry.index;
            let before = self.applied.insert(member, index);
            check(is_installed || before.is_none_or(|before| index == before + 1), || {
                format!("{member:x} applies entry {index} after {before:?}")
            })?;
            self.take(member, entry)?;
        }
        let last = self.applied.insert(member, applied);
        check(is_installed || last.is_none_or(|last| last == applied), || {
            format!("{member:x} stands at {applied}, but has applied {last:?}")
        })?;
        check(applied <= self.last_index(), || {
            format!("{member:x} stands at {applied}, which nobody has applied")
        })
    }

    fn take(&mut self, member: u64, entry: &Heard) -> Result<(), Violation> {
        let Heard { index, term, content } = entry;
        let place = usize::try_from(*index).unwrap_or(usize::MAX).wrapping_sub(1);
        if let Some(known) = self.log.get(place) {
            return check((known.0, &known.1) == (*term, content), || {
                format!(
                    "{member:x} applies another entry {index}, of term {term}: {content:?}, not {known:?}"
                )
            });
        }
        check(*index == self.last_index() + 1, || {
            format!("{member:x} applies entry {index} after {}", self.last_index())
        })?;
        self.commit(entry)
    }

    /// Takes in an entry that is applied for the first time.
    fn commit(&mut self, entry: &Heard) -> Result<(), Violation> {
        let Heard { index, term, content } = entry;
        let (index, term) = (*index, *term);
        self.log.push((term, content.clone()));
        if index <= self.first_entries {
            self.model.apply_nothing();
            return Ok(());
        }
        let Some(written) = self.written.get(&(index, term)) else {
            return Err(Violation(format!("entry {index} is applied, but was never written")));
        };
        check(written.content == *content, || format!("entry {index} is not what was written"))?;
        self.durability.check(index, term)?;
        if written.is_change {
            let change = raftpb::ConfChange::decode(content.clone())
                .map_err(|error| Violation(format!("entry {index} does not decode: {error}")))?;
            let expected = self.model.apply_change(&change);
            self.durability.reconfigure(self.model.group());
            return self.expect(change.id, index, content, expected).map(|_is_asked| ());
        }
        if content.is_empty() {
            self.model.apply_nothing();
            return Ok(());
        }
        let at = written.at;
        let request = pb::InternalRaftRequest::decode(content.clone())
            .map_err(|error| Violation(format!("entry {index} does not decode: {error}")))?;
        let id = request.header.as_ref().map_or(0, |header| header.id);
        let is_asked = self.proposed.contains_key(&id);
        if let (false, Some(revoke)) = (is_asked, &request.lease_revoke) {
            self.leases.revoke(revoke.id, at, term, &self.model)?;
        }
        let expected = self.model.apply(&request);
        self.expect(id, index, content, expected)
    }

    fn expect(
        &mut self,
        id: u64,
        index: u64,
        content: &Bytes,
        expected: Expected,
    ) -> Result<(), Violation> {
        let before = self.places.insert(id, index);
        check(before.is_none(), || {
            format!("request {id:x} is in the log twice: {before:?} and {index}")
        })?;
        check(!self.refused.contains(&id), || {
            format!("request {id:x} was not taken, but is entry {index}")
        })?;
        if let Some(asked) = self.proposed.remove(&id) {
            check(asked == *content, || {
                format!("entry {index} is not what was asked for by request {id:x}")
            })?;
            self.expected.insert(id, (index, expected));
        }
        Ok(())
    }

    /// Judges the answer to a proposal that was asked for when `floor` was acknowledged. Returns the revision that the client
    /// was told.
    pub fn answer(&mut self, id: u64, floor: u64, outcome: &Outcome) -> Result<i64, Violation> {
        let Some((index, expected)) = self.expected.remove(&id) else {
            return Err(Violation(format!("request {id:x} is answered, but not applied")));
        };
        check(index > floor, || {
            format!("request {id:x} was asked for after entry {floor} was told, but is {index}")
        })?;
        self.acknowledged = self.acknowledged.max(index);
        let result = match &outcome.result {
            Ok(reply) => Ok(answers::reply(reply)?),
            Err(refusal) => Err(*refusal),
        };
        let found = Expected { revision: outcome.revision, result };
        check_equal(format!("the answer to entry {index}"), &found, &expected)?;
        Ok(found.revision)
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

    /// Judges the membership of a member that has applied all.
    pub fn group(&self, reader: &Reader) -> Result<(), Violation> {
        let membership = reader.membership();
        let found: BTreeMap<u64, bool> =
            membership.members().map(|member| (member.id, member.is_learner)).collect();
        check_equal("the membership", &found, self.model.group().members())
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
