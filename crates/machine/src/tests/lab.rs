//! A machine on a disk in memory, with its log, which can crash.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb as pb;
use proto::raftpb;
use storage::backend::Backend;
use storage::mem::MemDisk;

use crate::membership::{MembershipChange, Verdict};
use crate::{AppliedEntry, BackendJob, Fault, Machine, Options, Outcome, schema};

/// Opens an empty backend in memory.
pub(crate) fn backend() -> Backend {
    let disk = Arc::new(MemDisk::default());
    let options = storage::backend::Options::default();
    Backend::open(disk, Path::new("db"), schema::BUCKETS, options).unwrap()
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) backend: Backend,
    pub(crate) machine: Machine,
    pub(crate) options: Options,
    log: Vec<Entry>,
}

#[derive(Debug, Clone)]
enum Entry {
    Request(Bytes),
    ConfChange(raftpb::ConfChange),
}

impl Lab {
    pub(crate) fn new(options: Options) -> Self {
        let backend = backend();
        let machine = Machine::recover(backend.clone(), options.clone()).unwrap();
        Self { backend, machine, options, log: vec![] }
    }

    /// Puts a request into the log and applies it.
    pub(crate) fn apply(&mut self, request: pb::InternalRaftRequest) -> Outcome {
        self.apply_entry(request).unwrap().outcome
    }

    pub(crate) fn apply_entry(
        &mut self,
        request: pb::InternalRaftRequest,
    ) -> Result<AppliedEntry, Fault> {
        let id = self.log.len() as u64 + 1;
        let header = Some(pb::RequestHeader { id, ..Default::default() });
        let data = Bytes::from(pb::InternalRaftRequest { header, ..request }.encode_to_vec());
        let applied = self.machine.apply(id, 1, &data)?;
        self.log.push(Entry::Request(data));
        assert_eq!(applied.request_id, id);
        Ok(applied)
    }

    /// Makes everything applied durable.
    pub(crate) fn commit(&mut self) {
        if let Some(job) = self.machine.take_commit() {
            self.run(job);
        }
    }

    /// Does one step of a compaction; tells whether there was one.
    pub(crate) fn compact_step(&mut self) -> bool {
        let Some(job) = self.machine.take_compact_step() else { return false };
        self.run(job);
        true
    }

    fn run(&mut self, job: BackendJob) {
        let done = job.run();
        self.machine.backend_done(done).unwrap();
    }

    /// Commits and carries out all compactions.
    pub(crate) fn settle(&mut self) {
        self.commit();
        while self.compact_step() {}
    }

    /// Loses everything that is not durable, recovers, and replays the log.
    pub(crate) fn crash(&mut self) {
        let options = self.options.clone();
        self.machine = Machine::recover(self.backend.clone(), options).unwrap();
        for (position, entry) in self.log.iter().enumerate() {
            let index = position as u64 + 1;
            match entry {
                Entry::Request(data) => {
                    self.machine.apply(index, 1, data).unwrap();
                }
                Entry::ConfChange(change) => {
                    conf_change(&mut self.machine, index, change).unwrap();
                }
            }
        }
    }

    /// Puts a conf change into the log and applies it.
    pub(crate) fn apply_conf_change(
        &mut self,
        change: &raftpb::ConfChange,
    ) -> Result<(Verdict, AppliedEntry), Fault> {
        let index = self.log.len() as u64 + 1;
        let result = conf_change(&mut self.machine, index, change)?;
        self.log.push(Entry::ConfChange(change.clone()));
        Ok(result)
    }
}

/// What a node does with a conf change; the group is the voters and learners among the members.
fn conf_change(
    machine: &mut Machine,
    index: u64,
    change: &raftpb::ConfChange,
) -> Result<(Verdict, AppliedEntry), Fault> {
    let verdict = machine.check_conf_change(index, change)?;
    let mut group = machine.conf_state().clone();
    if let Verdict::Accepted(change) = &verdict {
        let id = change.id();
        group.learners.retain(|learner| *learner != id);
        match change {
            MembershipChange::Add(member) if member.is_learner => group.learners.push(id),
            MembershipChange::Add(_) | MembershipChange::Promote(_) => group.voters.push(id),
            MembershipChange::Remove(_) => group.voters.retain(|voter| *voter != id),
            MembershipChange::Update { .. } => {}
        }
    }
    let applied = machine.apply_conf_change(index, 1, change.id, verdict.clone(), &group)?;
    Ok((verdict, applied))
}

pub(crate) fn put(request: pb::PutRequest) -> pb::InternalRaftRequest {
    pb::InternalRaftRequest { put: Some(request), ..Default::default() }
}

pub(crate) fn delete(request: pb::DeleteRangeRequest) -> pb::InternalRaftRequest {
    pb::InternalRaftRequest { delete_range: Some(request), ..Default::default() }
}

pub(crate) fn txn(request: pb::TxnRequest) -> pb::InternalRaftRequest {
    pb::InternalRaftRequest { txn: Some(request), ..Default::default() }
}

pub(crate) fn compact(revision: i64) -> pb::InternalRaftRequest {
    let compaction = Some(pb::CompactionRequest { revision, physical: false });
    pb::InternalRaftRequest { compaction, ..Default::default() }
}
