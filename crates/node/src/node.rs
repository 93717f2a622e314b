//! The member itself: takes events, gives effects.
//!
//! [`Node::handle`] only takes in; [`Node::end_of_burst`] lets consensus and machine work on all that was taken in since
//! the last time, so that a burst of events becomes one proposal, one WAL job and one batch of answers. What needs no
//! log (refusals) is answered by `handle` already.
//!
//! Invariants of what comes out: an outcome is given only for an entry that is committed and applied here; a message
//! that promises durability, only after the WAL has confirmed it; after a fault, nothing but [`Stop::Fault`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use machine::{Machine, Reader};
use proto::etcdserverpb::AlarmType;
use proto::raftpb;

use crate::backend_pace::BackendPace;
use crate::backlog::Backlog;
use crate::compactor::Compactor;
use crate::config::{RaftConfig, SnapshotConfig};
use crate::consensus::{self, Consensus, FETCH_BYTES, Position, Role};
use crate::doubts::Doubts;
#[cfg(feature = "planted-faults")]
use crate::fault_hooks::{Planted, is_planted};
use crate::gate::{Alarms, Published};
use crate::install::Install;
use crate::leadership::Leadership;
use crate::lease_desk::{Counter, LeaseDesk};
use crate::meter::Meter;
use crate::office::Office;
use crate::proposals::{APPLY_LAG_MAX, Content, Proposals, Waiter};
use crate::reads::Reads;
use crate::sending::Sending;
use crate::snapshots::Snapshots;
use crate::transfer::Transfers;
use crate::upkeep::Upkeep;
use crate::{
    Answer, Completion, Effects, Event, Failure, Gate, LeaseRequest, LogRead, Now, Proposal,
    RequestIds, Stop, Token, WalJob,
};

/// Ticks in which a member that is told of its removal may hear of it from its log.
const TOLD_TICKS: u32 = 3;

/// Bytes of requests that are proposed as one message.
const PROPOSAL_BYTES_MAX: usize = 1 << 20;

/// One member. See the module's documentation.
#[derive(Debug)]
pub struct Node {
    pub(crate) own: Own,
    pub(crate) consensus: Consensus,
    pub(crate) machine: Machine,
    pub(crate) reader: Reader,
    pub(crate) gate: Arc<Gate>,
    pub(crate) ids: Arc<RequestIds>,
    pub(crate) proposals: Proposals,
    pub(crate) reads: Reads,
    pub(crate) leases: LeaseDesk,
    pub(crate) compactor: Compactor,
    pub(crate) backend: BackendPace,
    pub(crate) snapshots: Snapshots,
    pub(crate) upkeep: Upkeep,
    pub(crate) leadership: Leadership,
    pub(crate) office: Office,
    pub(crate) doubts: Doubts,
    pub(crate) transfers: Transfers,
    pub(crate) sending: Sending,
    pub(crate) install: Install,
    pub(crate) to_apply: Backlog,
    /// The last WAL job given out.
    pub(crate) wal_job: u64,
    pub(crate) now: Now,
    /// How long lease time has stood still so far: see [`Node::lease_now`].
    pub(crate) stalled: Duration,
    /// Set when the member is to end: why, and when at the latest.
    pub(crate) ending: Option<(Stop, Now)>,
    /// Whether another member has said that this one was removed, and its own log does not say so yet.
    pub(crate) was_told: bool,
    /// Set with [`Effects::stop`]: nothing is taken in or given out any more.
    pub(crate) has_stopped: bool,
    pub(crate) meter: Option<Box<dyn Meter>>,
}

/// What does not change about a member.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) client_urls: Vec<String>,
    pub(crate) raft: RaftConfig,
    pub(crate) snapshots: SnapshotConfig,
}

/// Figures for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Entries of the log in memory.
    pub log_entries: u64,
    /// Their bytes.
    pub log_bytes: usize,
    /// Proposals without an outcome.
    pub pending_proposals: usize,
    /// Committed entries that are not applied yet.
    pub apply_lag: u64,
}

impl Node {
    /// Returns the read side of the store, for any thread.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Returns what the node publishes.
    pub fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.gate)
    }

    /// Returns the maker of request ids, for any thread.
    pub fn request_ids(&self) -> Arc<RequestIds> {
        Arc::clone(&self.ids)
    }

    /// Returns figures for metrics.
    pub fn stats(&self) -> Stats {
        let (log_entries, log_bytes) = self.consensus.in_memory();
        Stats {
            log_entries,
            log_bytes,
            pending_proposals: self.proposals.len(),
            apply_lag: self.apply_lag(),
        }
    }

    /// Has `meter` told of everything applied from now on.
    pub fn set_meter(&mut self, meter: Box<dyn Meter>) {
        self.meter = Some(meter);
    }

    /// Returns the machine, for what only its owner may read.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Takes in one event. [`Node::end_of_burst`] has to follow, after this or further events.
    pub fn handle(&mut self, event: Event) -> Effects {
        let mut effects = Effects::default();
        if self.has_stopped {
            refuse(event, &mut effects);
            return effects;
        }
        match event {
            Event::Tick { now } => self.tick(now, &mut effects),
            Event::Propose(proposals) => {
                self.propose(proposals, Content::Request, &mut effects);
            }
            Event::ProposeConfChange { proposal, promotes } => {
                self.propose_conf_change(proposal, promotes, &mut effects);
            }
            Event::MoveLeader { token, to } => self.move_leader(token, to, &mut effects),
            Event::Read(tokens) => {
                let refused = self.reads.admit(tokens, self.now);
                effects.fail(refused, Failure::TooManyRequests);
            }
            Event::Lease(requests) => self.take_lease_requests(requests, &mut effects),
            Event::Step(messages) => self.step(messages),
            Event::PeerUnreachable { peer } => self.consensus.unreachable(peer),
            Event::InstallSnapshot { token, message, prepared } => {
                self.offer_install(token, *message, prepared, &mut effects);
            }
            Event::SnapshotSent { peer, is_done } => self.snapshot_sent(peer, is_done),
            Event::PeerLost { peer } => self.lose_peer(peer),
            Event::PeerVersions { lowest } => self.upkeep.hear_versions(lowest),
            Event::ToldRemoved { by } => self.told_removed(by),
            Event::WalDone { job, result } => match result {
                Ok(()) => {
                    self.proposals.log.persisted(job);
                    effects.messages.extend(self.consensus.persisted(job));
                    if let Some(index) = self.snapshots.saved(job) {
                        tracing::info!("snapshot-index" = index, "saved snapshot to disk");
                    }
                    self.finish_install(job, &mut effects);
                }
                Err(fault) => self.fail(fault.into(), &mut effects),
            },
            Event::LogRead { index, result } => {
                let entries = result.unwrap_or_else(|fault| {
                    tracing::warn!(
                        index,
                        error = %fault,
                        "cannot read the log back for a follower, which gets a snapshot instead"
                    );
                    Vec::new()
                });
                self.consensus.log_read(index, entries);
            }
            Event::BackendDone(done) if done.settles_install() => {
                match self.machine.backend_done(done) {
                    Ok(_) => self.settle_install(&mut effects),
                    Err(fault) => self.fail(fault, &mut effects),
                }
            }
            Event::BackendDone(done) => match self.machine.backend_done(done) {
                Ok(Some(step)) => self.backend.defragment_stepped(step, &mut effects.completions),
                Ok(None) => {}
                Err(fault) => self.fail(fault, &mut effects),
            },
            Event::Defragment(token) => {
                if let Err(failure) = self.backend.want_defragment(token) {
                    effects.fail([token], failure);
                }
            }
            Event::Stop => self.begin_stop(),
        }
        effects
    }

    /// Works on what was taken in: proposes, applies, answers.
    pub fn end_of_burst(&mut self) -> Effects {
        let mut effects = Effects::default();
        if self.has_stopped {
            return effects;
        }
        if let Err(fault) = self.work(&mut effects) {
            // Nothing of this burst is acknowledged.
            effects = Effects::default();
            self.fail(fault, &mut effects);
            return effects;
        }
        self.finish_stop(&mut effects);
        effects
    }

    fn work(&mut self, effects: &mut Effects) -> Result<(), machine::Fault> {
        self.notice_term();
        loop {
            self.propose_open_tasks();
            self.propose_queued();
            self.ask_for_reads();
            self.ask_for_office();
            let output = self.consensus.advance(self.wal_job + 1);
            if let Some(persist) = output.persist {
                self.proposals.log.add(self.wal_job + 1, &persist.entries);
                let mut job = WalJob {
                    job: self.wal_job + 1,
                    entries: persist.entries,
                    hard_state: persist.hard_state,
                    must_sync: true,
                    ..WalJob::default()
                };
                self.judge_install(output.restored, &mut job, effects)?;
                self.push_wal_job(effects, |pushed| *pushed = job);
                #[cfg(feature = "planted-faults")]
                if is_planted(Planted::EarlyAcknowledgement) {
                    effects.messages.extend(self.consensus.persisted(self.wal_job));
                }
            }
            // Raft has said all it has to say of it.
            self.judge_install(None, &mut WalJob::default(), effects)?;
            self.notice_snapshots(&output.messages);
            effects.messages.extend(output.messages);
            for (context, index) in output.reads {
                self.confirm_office(context);
                self.reads.confirm(context, index);
            }
            let has_committed = !output.committed.is_empty();
            self.to_apply.extend(output.committed);
            self.notice_leader(effects);
            let has_applied = self.apply(effects)?;
            if !has_committed && !has_applied {
                break;
            }
        }
        self.give_out(effects);
        Ok(())
    }

    /// Gives out what the burst has made of the machine.
    fn give_out(&mut self, effects: &mut Effects) {
        self.proposals.log.settle(self.consensus.status().commit);
        effects.events.extend(self.machine.take_events());
        self.mark_snapshot(effects);
        effects.backend.extend(self.backend.jobs(&mut self.machine, self.now));
        let applied = self.applied();
        effects.complete(self.reads.ready(applied), || Answer::ReadReady);
        let completions = &mut effects.completions;
        let clear = self.with_counter(|desk, counter| desk.retry(counter, completions));
        self.clear_checkpoints(&clear);
        let machine::Applied { index, term } = self.machine.applied();
        self.consensus.offer_snapshot(Position { index, term });
        let SnapshotConfig { catch_up_entries, log_bytes_max, .. } = self.own.snapshots;
        self.consensus.trim(catch_up_entries, log_bytes_max);
        let reads = self.consensus.take_wanted().into_iter();
        effects.log_reads.extend(reads.map(|range| LogRead { range, bytes_max: FETCH_BYTES }));
        self.publish();
    }

    fn propose(
        &mut self,
        proposals: Vec<Proposal>,
        content: impl Fn(bytes::Bytes) -> Content,
        effects: &mut Effects,
    ) {
        let is_lagging = self.apply_lag() > APPLY_LAG_MAX || self.is_far_behind();
        for Proposal { token, id, data } in proposals {
            let admitted = if is_lagging {
                Err(Failure::TooManyRequests)
            } else {
                self.proposals.admit(id, Waiter::Caller(token), content(data), self.now)
            };
            if let Err(failure) = admitted {
                effects.fail([token], failure);
            }
        }
    }

    fn propose_conf_change(
        &mut self,
        proposal: Proposal,
        promotes: Option<u64>,
        effects: &mut Effects,
    ) {
        let checked = promotes.map_or(Ok(()), |learner| self.consensus.check_ready(learner));
        if let Err(failure) = checked {
            effects.fail([proposal.token], failure);
            return;
        }
        self.propose(vec![proposal], Content::ConfChange, effects);
    }

    /// Gives raft what was admitted: requests as one message, configuration changes one by one. Without a leader, all
    /// waits.
    fn propose_queued(&mut self) {
        if !self.proposals.has_queue() || self.consensus.status().leader == 0 {
            return;
        }
        let is_leader = self.consensus.status().is_leader();
        let mut queue = self.proposals.take_queue(is_leader);
        while let Some((_, content)) = queue.front() {
            let result = if let Content::ConfChange(change) = content {
                #[cfg(feature = "planted-faults")]
                if is_planted(Planted::ChangeTwice)
                    && is_leader
                    && let Ok(change) = prost::Message::decode(change.clone())
                {
                    drop(self.consensus.apply_conf_change(&change));
                }
                self.consensus.propose_conf_change(change.clone()).map(|()| 1)
            } else {
                let requests = first_requests(&queue);
                let count = requests.len();
                #[cfg(feature = "planted-faults")]
                let requests = if is_planted(Planted::DoubleProposal) && !is_leader {
                    [requests.clone(), requests].concat()
                } else {
                    requests
                };
                self.consensus.propose(requests).map(|()| count)
            };
            match result {
                Ok(count) => drop(queue.drain(..count)),
                Err(consensus::Dropped) => break,
            }
        }
        self.proposals.put_back(queue);
    }

    fn ask_for_reads(&mut self) {
        #[cfg(feature = "planted-faults")]
        if is_planted(Planted::UnconfirmedReads) && self.consensus.status().is_leader() {
            self.reads.confirm_forming(self.applied());
        }
        if self.is_lone_leader() {
            // Nobody has acknowledged what is not committed here. What is committed and not applied may have been: a learner, or
            // a member that was removed just now, may be ahead.
            self.reads.confirm_forming(self.consensus.status().commit);
            return;
        }
        let ids = &self.ids;
        if let Some(context) = self.reads.ask(self.now, || ids.next()) {
            self.consensus.read_index(context);
        }
    }

    fn step(&mut self, messages: Vec<raftpb::Message>) {
        for message in messages {
            let from = message.from;
            if self.has_no_room_for(&message) {
                continue;
            }
            if let Err(reason) = self.check_proposed(&message) {
                tracing::warn!(from, %reason, "dropped a proposal of a peer that nobody could apply");
                continue;
            }
            match self.consensus.step(message, self.ids.next()) {
                Ok(()) => {
                    if self.machine.membership().member(from).is_some() {
                        let pause_max = self.own.raft.election_timeout();
                        self.leadership.hear(from, self.now, pause_max);
                    }
                }
                Err(reason) => tracing::warn!(from, %reason, "dropped a message of a peer"),
            }
        }
    }

    /// Tells whether so much is committed and not applied that no more of the log can be taken.
    fn is_far_behind(&self) -> bool {
        self.to_apply.bytes() > self.proposals.bytes_max()
    }

    /// Tells whether there is no room for what a message brings. It is dropped then. Entries of a leader come again, for to raft
    /// they were lost on their way; a proposal times out at its proposer, as one that finds no leader.
    fn has_no_room_for(&self, message: &raftpb::Message) -> bool {
        match message.r#type() {
            raftpb::MessageType::MsgProp => self.proposals.log_is_full() || self.is_far_behind(),
            raftpb::MessageType::MsgApp => !message.entries.is_empty() && self.is_far_behind(),
            _ => false,
        }
    }

    /// Judges what a peer wants to have in the log: an entry that cannot be applied would stop every member.
    fn check_proposed(&self, message: &raftpb::Message) -> Result<(), machine::EntryFault> {
        if message.r#type() != raftpb::MessageType::MsgProp {
            return Ok(());
        }
        message.entries.iter().try_for_each(|entry| self.machine.check_proposed(entry))
    }

    fn take_lease_requests(&mut self, requests: Vec<LeaseRequest>, effects: &mut Effects) {
        let mut completions = Vec::new();
        let clear =
            self.with_counter(|desk, counter| desk.take(requests, counter, &mut completions));
        effects.completions.append(&mut completions);
        self.clear_checkpoints(&clear);
    }

    fn with_counter<T>(&mut self, work: impl FnOnce(&mut LeaseDesk, &mut Counter<'_>) -> T) -> T {
        let revision = self.reader.revision();
        let committed = self.consensus.status().commit;
        let applied = self.applied();
        let (now, lease_now) = (self.now, self.lease_now());
        let lessor = self.machine.lessor_mut();
        let mut counter = Counter { lessor, now, lease_now, revision, committed, applied };
        work(&mut self.leases, &mut counter)
    }

    pub(crate) fn push_wal_job(&mut self, effects: &mut Effects, fill: impl FnOnce(&mut WalJob)) {
        self.wal_job += 1;
        let mut job = WalJob { job: self.wal_job, ..WalJob::default() };
        fill(&mut job);
        effects.wal.push(job);
    }

    /// Returns the time of leases: like [`Node::now`], without the time in which this member could not hear who keeps its
    /// leases alive. A tick that comes later than [`RaftConfig::lease_step`] after the one before was held up by long work
    /// or a pause of the process, and so were the keep-alives that are behind it in the queue.
    pub(crate) fn lease_now(&self) -> machine::lease::Now {
        self.now.0.saturating_sub(self.stalled)
    }

    pub(crate) fn applied(&self) -> u64 {
        self.machine.applied().index
    }

    /// Tells whether all that was ever acknowledged to anyone is committed here: this member is the only voter, leads,
    /// and has applied the first entry of its term, which comes after all former entries.
    fn is_lone_leader(&self) -> bool {
        let status = self.consensus.status();
        status.is_lone && status.is_leader() && self.machine.applied().term == status.term
    }

    fn apply_lag(&self) -> u64 {
        self.consensus.status().commit.saturating_sub(self.applied())
    }

    pub(crate) fn publish(&self) {
        let status = self.consensus.status();
        let applied = self.machine.applied();
        self.gate.publish(Published {
            term: status.term,
            leader: status.leader,
            is_learner: status.role == Role::Learner,
            committed: status.commit,
            applied: applied.index,
            applied_term: applied.term,
            // With what is committed behind what is applied, reads have to wait.
            is_lone_leader: self.is_lone_leader() && self.apply_lag() == 0,
            is_announced: self.upkeep.is_announced(),
            alarms: Alarms {
                has_no_space: self.reader.has_alarm(AlarmType::Nospace),
                is_corrupt: self.reader.has_alarm(AlarmType::Corrupt),
            },
            finished_compaction: self.machine.finished_compaction(),
            pending_proposals: self.proposals.len() as u64,
        });
    }

    fn begin_stop(&mut self) {
        let status = self.consensus.status();
        let grace = if status.is_leader() && !status.is_lone {
            self.consensus.transfer_leadership();
            self.own.raft.election_timeout()
        } else {
            Duration::ZERO
        };
        self.ending = Some((Stop::Asked, Now(self.now.0 + grace)));
    }

    fn told_removed(&mut self, by: u64) {
        tracing::error!(
            told_by = format!("{by:x}"),
            "the member has been permanently removed from the cluster; its data directory is of no use any more"
        );
        if self.ending.is_some() {
            return;
        }
        // Who asked for it here waits for the outcome, which may be on its way on another stream.
        let patience = if self.proposals.len() == 0 { 0 } else { TOLD_TICKS };
        self.ending = Some((Stop::Removed, Now(self.now.0 + patience * self.own.raft.tick)));
        self.was_told = true;
    }

    /// Ends in order once leadership is given away or the time for it is over.
    fn finish_stop(&mut self, effects: &mut Effects) {
        let is_needed = self.consensus.status().is_leader()
            || self.consensus.has_farewell()
            || self.consensus.has_unsent()
            || (self.was_told && self.proposals.len() > 0);
        let now = self.now;
        let Some((stop, _)) = self.ending.take_if(|(_, at)| !is_needed || now >= *at) else {
            return;
        };
        self.write_lazy_commit(effects);
        self.backend.want_commit();
        effects.backend.extend(self.backend.jobs(&mut self.machine, self.now));
        self.end(stop, effects);
    }

    /// Ends because of a fault: no answer, no message leaves any more.
    pub(crate) fn fail(&mut self, fault: machine::Fault, effects: &mut Effects) {
        tracing::error!(error = %fault, "the member stops");
        *effects = Effects::default();
        self.end(Stop::Fault(fault), effects);
    }

    pub(crate) fn end(&mut self, stop: Stop, effects: &mut Effects) {
        for waiter in self.proposals.take_all() {
            if let Waiter::Caller(token) = waiter {
                effects.fail([token], Failure::Stopped);
            }
        }
        effects.fail(self.reads.take_all(), Failure::Stopped);
        self.leases.fail_all(Failure::Stopped, &mut effects.completions);
        effects.fail(self.backend.take_all(), Failure::Stopped);
        effects.fail(self.transfers.take_all(), Failure::Stopped);
        effects.fail(self.install.take_all(), Failure::Stopped);
        effects.stop = Some(stop);
        self.has_stopped = true;
    }
}

/// Takes requests from the front, as many as fit into a message to the leader, at least one.
fn first_requests(queue: &VecDeque<(u64, Content)>) -> Vec<bytes::Bytes> {
    let mut bytes = 0;
    let requests = queue.iter().map_while(|(_, content)| match content {
        Content::Request(request) => {
            bytes += request.len();
            (bytes == request.len() || bytes <= PROPOSAL_BYTES_MAX).then(|| request.clone())
        }
        Content::ConfChange(_) => None,
    });
    requests.collect()
}

/// Answers the requests of an event that comes after the end.
fn refuse(event: Event, effects: &mut Effects) {
    let tokens: Vec<Token> = match event {
        Event::Propose(proposals) => proposals.iter().map(|proposal| proposal.token).collect(),
        Event::ProposeConfChange { proposal, .. } => vec![proposal.token],
        Event::Read(tokens) => tokens,
        Event::Lease(requests) => requests.iter().map(|request| request.token).collect(),
        Event::MoveLeader { token, .. }
        | Event::Defragment(token)
        | Event::InstallSnapshot { token, .. } => vec![token],
        Event::Tick { .. }
        | Event::Step(_)
        | Event::PeerUnreachable { .. }
        | Event::SnapshotSent { .. }
        | Event::PeerLost { .. }
        | Event::PeerVersions { .. }
        | Event::ToldRemoved { .. }
        | Event::WalDone { .. }
        | Event::LogRead { .. }
        | Event::BackendDone(_)
        | Event::Stop => Vec::new(),
    };
    effects.fail(tokens, Failure::Stopped);
}

impl Effects {
    /// Adds the effects of a later call, in order.
    pub fn append(&mut self, mut later: Self) {
        self.wal.append(&mut later.wal);
        self.backend.append(&mut later.backend);
        self.log_reads.append(&mut later.log_reads);
        self.messages.append(&mut later.messages);
        self.completions.append(&mut later.completions);
        self.events.append(&mut later.events);
        self.events_lost |= later.events_lost;
        self.stop = self.stop.take().or(later.stop);
    }

    pub(crate) fn fail(&mut self, tokens: impl IntoIterator<Item = Token>, failure: Failure) {
        self.complete(tokens, || Answer::Failed(failure));
    }

    pub(crate) fn complete(
        &mut self,
        tokens: impl IntoIterator<Item = Token>,
        answer: impl Fn() -> Answer,
    ) {
        let completions = tokens.into_iter().map(|token| Completion { token, answer: answer() });
        self.completions.extend(completions);
    }
}
