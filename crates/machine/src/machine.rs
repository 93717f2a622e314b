//! The write side: one thread owns it and feeds it committed entries in order.
//!
//! Guarantees: equal entries give equal state and equal outcomes on all members (but for the
//! quota's verdict, which is local and changes nothing but the answer). An effect and the applied
//! index that covers it become durable in one commit. Apply fails only when this member has to
//! stop.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use proto::raftpb;
use storage::backend::{Backend, DefragmentFault, Op, TableId};

use crate::backend_job::{BackendDone, BackendJob, Commit, CompactStep, Defragmentation, Done};
use crate::command;
use crate::fault::{EntryFault, Fault};
use crate::lease::{self, Lessor};
use crate::membership::{self, Membership, MembershipChange, Verdict, Version};
use crate::mvcc::compact::{Compaction, Step};
use crate::mvcc::shared::{CHUNK_KEYS, Shared};
use crate::mvcc::store::Store;
use crate::mvcc::txn::Replies;
use crate::outcome::{Outcome, Reply};
use crate::quota::Quota;
use crate::reader::{Published, Reader};
use crate::recover::{self, Conveyor};
use crate::request_kind::RequestKind;
use crate::schema::{self, ConfState};
use crate::watch::EventBatch;

/// How a machine is set up. What says so must be equal on all members of a cluster.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of the value cache.
    pub cache_bytes: u64,
    /// Bytes from which the write-behind tail is full.
    pub tail_bytes_max: usize,
    /// The space quota as configured ([`Quota::new`]).
    pub quota_bytes: i64,
    /// Records that one step of a compaction visits: few steps cost less, each being a commit, but others wait for one.
    pub compaction_batch: usize,
    /// Learners that a cluster may have. Must be equal on all members.
    pub learners_max: usize,
    /// This release.
    pub server_version: Version,
    /// Leases; the minimum ttl must be equal on all members.
    pub lease: lease::Options,
    /// How a restart reads keys and builds their index; what is built is the same with any.
    pub convey: Conveyor,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 32 << 20,
            tail_bytes_max: 64 << 20,
            quota_bytes: 0,
            compaction_batch: 8192,
            learners_max: 1,
            server_version: Version::new(3, 7, 1),
            lease: lease::Options::default(),
            convey: recover::one_by_one,
        }
    }
}

/// The last applied entry.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

/// What applying an entry yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedEntry {
    /// The request id that a waiting proposer knows; 0 of a no-op.
    pub request_id: u64,
    /// What kind of request it was; [`RequestKind::NoOp`] of a conf change and of an entry that was
    /// covered.
    pub kind: RequestKind,
    /// The result.
    pub outcome: Outcome,
    /// Whether a snapshot must be taken: the cluster version went down, and older members cannot
    /// read what came before.
    pub forces_snapshot: bool,
}

/// The replicated state.
#[derive(Debug)]
pub struct Machine {
    pub(crate) store: Store,
    /// What readers see.
    published: Arc<Published>,
    pub(crate) lessor: Lessor,
    pub(crate) membership: Membership,
    pub(crate) conf_state: ConfState,
    pub(crate) applied: Applied,
    pub(crate) options: Options,
    pub(crate) quota: Quota,
    /// Changes of the small buckets since the last commit was handed out.
    pub(crate) pending: Vec<(TableId, Op)>,
    pub(crate) compactions: VecDeque<Compaction>,
    /// The revision that the newest compaction asked for, and the newest carried out.
    pub(crate) scheduled_compact: Option<i64>,
    pub(crate) finished_compact: Option<i64>,
    pub(crate) lacks_space: bool,
    /// What the last commit handed out covers.
    committed: Applied,
    is_committing: bool,
    is_compacting: bool,
}

impl Machine {
    /// Rebuilds the state that the backend holds. A compaction that was not finished will be done
    /// again.
    pub fn recover(backend: Backend, options: Options) -> Result<Self, Fault> {
        recover::recover(backend, options)
    }

    pub(crate) fn new(
        shared: Arc<Shared>,
        recovered: recover::Recovered,
        options: Options,
    ) -> Self {
        let quota = Quota::new(options.quota_bytes);
        shared.set_durable_index(recovered.applied.index);
        *shared.alarms.write() = recovered.alarms;
        let machine = Self {
            published: Arc::new(Published::new(&shared)),
            store: Store::new(shared),
            lessor: recovered.lessor,
            membership: recovered.membership,
            conf_state: recovered.conf_state,
            applied: recovered.applied,
            quota,
            options,
            pending: recovered.pending,
            compactions: recovered.compactions,
            scheduled_compact: recovered.scheduled_compact,
            finished_compact: recovered.finished_compact,
            lacks_space: false,
            committed: recovered.applied,
            is_committing: false,
            is_compacting: false,
        };
        machine.publish();
        machine
    }

    /// Returns the shared read side.
    pub fn reader(&self) -> Reader {
        Reader { state: Arc::clone(&self.published), quota: self.quota }
    }

    /// Takes the place of `before`, whose readers see this machine's state from now on. It comes from a snapshot that holds
    /// everything `before` has applied; jobs of `before` that are still under way are of no use any more.
    pub fn succeed(&mut self, before: &Self) {
        assert!(
            before.applied.index <= self.applied.index,
            "a state is not replaced by an older one"
        );
        let shared = &self.store.shared;
        shared.counters.go_on_from(&before.store.shared.counters);
        before.published.replace(shared);
        self.published = Arc::clone(&before.published);
    }

    /// Returns the last applied entry.
    pub fn applied(&self) -> Applied {
        self.applied
    }

    /// Returns the consensus group as of the applied entry.
    pub fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    /// Returns the membership as of the applied entry.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Returns the leases, for reading.
    pub fn lessor(&self) -> &Lessor {
        &self.lessor
    }

    /// Returns the leases, for what a primary does beside the log: promotion, renewal, expiry.
    /// Grants and revocations go through [`Machine::apply`] only.
    pub fn lessor_mut(&mut self) -> &mut Lessor {
        &mut self.lessor
    }

    /// Applies the entry at `index`. One that the backend already covers has no effect and an empty
    /// outcome. After a fault the machine is of no more use: the entry may have been applied in
    /// part.
    pub fn apply(&mut self, index: u64, term: u64, data: &Bytes) -> Result<AppliedEntry, Fault> {
        self.apply_heard(index, term, data, |_| true)
    }

    /// As [`Machine::apply`], but leaves out of the reply what takes reading when `is_heard` says
    /// of the request id that nobody here waits for it: what ranges answer, and former records.
    pub fn apply_heard(
        &mut self,
        index: u64,
        term: u64,
        data: &Bytes,
        is_heard: impl FnOnce(u64) -> bool,
    ) -> Result<AppliedEntry, Fault> {
        let request = command::decode(data).map_err(|reason| Fault::Entry { index, reason })?;
        if !self.is_next(index)? {
            return Ok(self.answer(request.id, Ok(Reply::Empty)));
        }
        let before = std::mem::replace(&mut self.applied, Applied { index, term });
        let replies = if is_heard(request.id) { Replies::Full } else { Replies::Bare };
        let result = self.execute(request, replies);
        if result.is_err() {
            self.applied = before;
        }
        result
    }

    /// Tells whether `index` is to be applied; false for one that is covered.
    fn is_next(&self, index: u64) -> Result<bool, Fault> {
        let applied = self.applied.index;
        if index > applied + 1 {
            return Err(Fault::Entry { index, reason: EntryFault::OutOfOrder { applied } });
        }
        Ok(index == applied + 1)
    }

    pub(crate) fn answer(
        &self,
        request_id: u64,
        result: Result<Reply, crate::Refusal>,
    ) -> AppliedEntry {
        let outcome = Outcome { revision: self.store.shared.current(), result };
        AppliedEntry { request_id, kind: RequestKind::NoOp, outcome, forces_snapshot: false }
    }

    /// Judges a conf change entry, before consensus is given it.
    pub fn check_conf_change(
        &self,
        index: u64,
        change: &raftpb::ConfChange,
    ) -> Result<Verdict, Fault> {
        if !self.is_next(index)? {
            return Ok(Verdict::AlreadyApplied);
        }
        membership::judge(&self.membership, change, index, self.options.learners_max)
    }

    /// Applies a conf change entry as judged by [`Machine::check_conf_change`]. `conf_state` is the
    /// consensus group after it.
    pub fn apply_conf_change(
        &mut self,
        index: u64,
        term: u64,
        request_id: u64,
        verdict: Verdict,
        conf_state: &ConfState,
    ) -> Result<AppliedEntry, Fault> {
        if !self.is_next(index)? {
            return Ok(self.answer(request_id, Ok(Reply::Empty)));
        }
        self.applied = Applied { index, term };
        let result = match verdict {
            Verdict::AlreadyApplied => Ok(Reply::Empty),
            Verdict::Refused(refusal) => Err(refusal),
            Verdict::Accepted(change) => {
                self.conf_state = conf_state.clone();
                self.change_membership(change);
                Ok(Reply::Empty)
            }
        };
        Ok(self.answer(request_id, result))
    }

    fn change_membership(&mut self, change: MembershipChange) {
        let id = change.id();
        let stored = self.membership.apply(change).map(schema::member_value);
        let key = schema::member_key(id);
        if let Some(value) = stored {
            self.pending.push((schema::MEMBERS, Op::Put(key, value)));
        } else {
            let removed = Bytes::from_static(schema::REMOVED);
            self.pending.push((schema::MEMBERS, Op::Delete(key.clone())));
            self.pending.push((schema::MEMBERS_REMOVED, Op::Put(key, removed)));
        }
        self.publish();
    }

    pub(crate) fn publish(&self) {
        self.store.shared.publish(Arc::new(self.membership.clone()));
    }

    /// Tells, once each time it was exceeded, that this member's quota is: it then proposes a
    /// NOSPACE alarm for itself.
    pub fn needs_nospace_alarm(&mut self) -> bool {
        std::mem::take(&mut self.lacks_space)
    }

    /// Tells whether the write-behind tail is full: the caller applies no more until a commit is
    /// done.
    pub fn tail_is_full(&self) -> bool {
        self.tail_bytes() >= self.options.tail_bytes_max
    }

    /// Returns the bytes in the write-behind tail.
    pub fn tail_bytes(&self) -> usize {
        self.store.shared.state.read().tail.bytes()
    }

    /// Tells whether something was applied that no commit has been handed out for.
    pub fn has_commit(&self) -> bool {
        self.committed != self.applied || !self.pending.is_empty()
    }

    /// Takes a commit of everything applied; `None` while another one is under way, or without
    /// news. The caller decides when: every so often, when the tail has grown, and at once when
    /// something waits for durability.
    pub fn take_commit(&mut self) -> Option<BackendJob> {
        if self.is_committing || !self.has_commit() {
            return None;
        }
        self.is_committing = true;
        self.committed = self.applied;
        let mut ops = std::mem::take(&mut self.pending);
        let meta = |key, value| (schema::META, Op::Put(Bytes::from_static(key), value));
        ops.push(meta(schema::CONSISTENT_INDEX, schema::number_value(self.applied.index)));
        if self.applied.term > 0 {
            ops.push(meta(schema::TERM, schema::number_value(self.applied.term)));
        }
        ops.push(meta(schema::CONF_STATE, schema::conf_state_value(&self.conf_state)));
        let mut entries = Vec::new();
        while self.store.shared.state.write().tail.hand_over(CHUNK_KEYS, &mut entries) {}
        let shared = Arc::clone(&self.store.shared);
        Some(BackendJob::Commit(Commit { shared, ops, entries, applied: self.applied }))
    }

    /// Takes the next step of a compaction; `None` while one is under way, while its entry is not
    /// durable, or when there is none. The caller spaces the steps, so that other work gets its
    /// turn.
    pub fn take_compact_step(&mut self) -> Option<BackendJob> {
        let is_due = !self.is_compacting
            && self
                .compactions
                .front()
                .is_some_and(|next| next.index <= self.store.shared.durable_index());
        if !is_due {
            return None;
        }
        let compaction = Box::new(self.compactions.pop_front()?);
        self.is_compacting = true;
        let shared = Arc::clone(&self.store.shared);
        let batch_max = self.options.compaction_batch.max(1);
        Some(BackendJob::CompactStep(CompactStep { shared, compaction, batch_max }))
    }

    /// Takes the next step of a defragmentation, or the first of a new one. Commits and steps of a compaction may have their
    /// turn before the next.
    pub fn take_defragment_step(&self) -> BackendJob {
        BackendJob::DefragmentStep(self.store.shared.backend.clone())
    }

    /// Returns the revision up to which compactions have been carried out, or −1: who asked for a
    /// physical one waits for it.
    pub fn finished_compaction(&self) -> i64 {
        self.finished_compact.unwrap_or(-1)
    }

    /// Takes a finished job back, and tells where a defragmentation stands if it was a step of one. A
    /// fault means that the member has to stop: what was applied may not be durable, or not be found
    /// by a restart.
    pub fn backend_done(&mut self, done: BackendDone) -> Result<Option<Defragmentation>, Fault> {
        match done.0 {
            Done::Commit { shared, applied, records, result } => {
                result?;
                if !self.is_own(&shared) {
                    return Ok(None);
                }
                self.is_committing = false;
                self.store.shared.counters.commit(records as u64);
                // First the index, then the records: whoever waits for the index finds them in the
                // engine.
                self.store.shared.set_durable_index(applied.index);
                while self.store.shared.state.write().tail.drop_handed(CHUNK_KEYS) {}
                Ok(None)
            }
            Done::CompactStep { shared, compaction, result } => {
                let step = result?;
                if self.is_own(&shared) {
                    self.is_compacting = false;
                    self.compact_step_done(*compaction, step);
                }
                Ok(None)
            }
            Done::TakePlace(result) => {
                result?;
                tracing::info!("the snapshot's file is in its place");
                Ok(None)
            }
            Done::Discard(result) => {
                if let Err(fault) = result {
                    // The next start removes it.
                    tracing::warn!(%fault, "could not remove the file of a snapshot");
                }
                Ok(None)
            }
            Done::DefragmentStep(backend, Ok(_) | Err(DefragmentFault::GivenUp(_)))
                if !self.store.shared.backend.is(&backend) =>
            {
                Ok(None)
            }
            Done::DefragmentStep(_, result) => match result {
                Ok(false) => Ok(Some(Defragmentation::GoesOn)),
                Ok(true) => Ok(Some(Defragmentation::Done)),
                Err(DefragmentFault::GivenUp(fault)) => Ok(Some(Defragmentation::GivenUp(fault))),
                Err(DefragmentFault::Unknown(fault)) => Err(fault.into()),
            },
        }
    }

    /// Tells whether a job was for this state, and not for one whose place this one has taken.
    fn is_own(&self, shared: &Arc<Shared>) -> bool {
        Arc::ptr_eq(shared, &self.store.shared)
    }

    fn compact_step_done(&mut self, compaction: Compaction, step: Step) {
        let is_last = step.finished.is_some();
        self.store.shared.counters.compaction_step(step.removed, is_last);
        self.store.shared.sub_live_bytes(step.removed_bytes);
        if is_last {
            tracing::info!(
                "compact-revision" = compaction.revision,
                "finished scheduled compaction"
            );
            self.finished_compact = Some(compaction.revision);
            self.store.shared.set_finished_compaction(compaction.revision);
        } else {
            self.compactions.push_front(compaction);
        }
    }

    /// Takes the events of everything applied since they were last taken; `None` if nothing has
    /// changed.
    pub fn take_events(&mut self) -> Option<Arc<EventBatch>> {
        self.store.take_events().map(Arc::new)
    }
}
