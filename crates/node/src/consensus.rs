//! Raft, behind one door: raft-rs is seen in this module and nowhere else.
//!
//! [`Consensus`] turns messages, ticks and proposals into [`Output`]: what to persist, what to send, what to apply. It
//! promises:
//!
//! * Everything is persisted in the order in which it is handed out, and a message that promises durability is handed
//!   out only after [`Consensus::persisted`] has confirmed what it promises. A leader's entries leave for its
//!   followers while its own disk still works on them.
//! * A configuration change is carried as etcd's bytes; raft-rs sees a stand-in ([`convert`]).
//! * Each read index request has a context that was never used before. A context used twice would let a deposed leader
//!   confirm a read with an old round's answers.
//! * No message of a peer reaches raft-rs before [`validate`] has judged it.
//! * Equal inputs give equal outputs: the election timeout comes from a seed.

mod between;
mod convert;
mod forwarded;
mod log;
mod logger;
#[cfg(test)]
mod tests;
mod timeout;
mod validate;

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use proto::raftpb;
use raft::eraftpb::{self, EntryType};
use raft::{RawNode, StateRole};

use between::Held;
pub(crate) use convert::Unusable;
use forwarded::ForwardedReads;
use log::Log;
pub(crate) use log::{FETCH_BYTES, Position};

use crate::Failure;
#[cfg(feature = "planted-faults")]
use crate::fault_hooks::{Planted, is_planted};

/// Bytes of entries in one message, as etcd has it.
const APPEND_BYTES_MAX: u64 = 1 << 20;

/// Messages with entries on their way to one follower, as etcd has it.
const APPENDS_IN_FLIGHT_MAX: usize = 512;

/// Ticks between heartbeats.
const HEARTBEAT_TICKS: usize = 1;

/// How raft runs on this member.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// This member.
    pub(crate) id: u64,
    /// Ticks without a leader before an election; timeouts are drawn from this up to twice as many.
    pub(crate) election_ticks: usize,
    /// Whether to ask before raising the term.
    pub(crate) pre_vote: bool,
    /// What election timeouts are derived from.
    pub(crate) seed: u64,
}

/// What raft starts from.
#[derive(Debug)]
pub(crate) struct Durable {
    /// The last durable term, vote and commit index.
    pub(crate) hard_state: raftpb::HardState,
    /// The configuration at `applied`.
    pub(crate) conf_state: raftpb::ConfState,
    /// Where `entries` begin.
    pub(crate) start: Position,
    /// The durable entries behind `start`.
    pub(crate) entries: Vec<raftpb::Entry>,
    /// What is applied already.
    pub(crate) applied: u64,
}

impl Durable {
    /// What a member begins with that joins others: all comes from them.
    pub(crate) fn empty() -> Self {
        Self {
            hard_state: raftpb::HardState::default(),
            conf_state: raftpb::ConfState::default(),
            start: Position { index: 0, term: 0 },
            entries: Vec::new(),
            applied: 0,
        }
    }
}

/// Raft of one member.
pub(crate) struct Consensus {
    raw: RawNode<Log>,
    options: Options,
    /// Counts elections that timed out in the current term.
    attempt: u64,
    attempt_term: u64,
    /// Handed out and not confirmed, in order.
    persisting: VecDeque<Persisting>,
    /// The last term and vote that were handed out.
    voted: (u64, u64),
    /// A commit index that is not durable; it need not be, and joins the next thing that is written.
    lazy_commit: Option<raftpb::HardState>,
    /// Reads that followers forwarded to this leader.
    forwarded: ForwardedReads,
    /// Set when this member led and was removed, as long as nobody follows it.
    farewell: Option<Farewell>,
    /// Proposals of peers that came while there was no leader to take them.
    held: Held,
    /// The last term in which this member gave leadership away because it is to be removed.
    parting_term: u64,
}

/// What a leader has to say that is no member any more: that its removal is committed, and that another one is to lead.
#[derive(Debug)]
struct Farewell {
    /// The term that it led.
    term: u64,
    /// Those who stay, by what they have of the log, most first.
    others: Vec<(u64, u64)>,
    /// How often it was said.
    turns: usize,
}

/// Turns in which one member is asked to lead, before it is another one's.
const FAREWELL_TURNS: usize = 3;

/// One of raft's `Ready`s on its way to the disk.
#[derive(Debug)]
struct Persisting {
    job: u64,
    number: u64,
    first: u64,
    last: u64,
    /// Whether a snapshot takes the place of the log with it.
    is_restoring: bool,
    /// Whether messages wait for it that do not promise that it is durable.
    keeps_all: bool,
    messages: Vec<raftpb::Message>,
}

/// What [`Consensus::advance`] asks for, each list in order.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// To be made durable.
    pub(crate) persist: Option<Persist>,
    /// To be sent now.
    pub(crate) messages: Vec<raftpb::Message>,
    /// To be applied now.
    pub(crate) committed: Vec<Committed>,
    /// Contexts of [`Consensus::read_index`], with the index that has to be applied before the read.
    pub(crate) reads: Vec<(u64, u64)>,
    /// Set when a snapshot that was stepped takes the place of the log.
    pub(crate) restored: Option<Position>,
}

/// What has to be durable.
#[derive(Debug, Default)]
pub(crate) struct Persist {
    /// Entries; they replace those at their indexes and behind.
    pub(crate) entries: Vec<raftpb::Entry>,
    /// Term, vote and commit index, when one has changed.
    pub(crate) hard_state: Option<raftpb::HardState>,
}

/// A committed entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) payload: Payload,
}

/// What a committed entry holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Payload {
    /// A request; empty in the first entry of a leader's term.
    Request(Bytes),
    /// An encoded `raftpb.ConfChange`.
    ConfChange(Bytes),
}

/// Where this member stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) term: u64,
    /// 0 when there is none.
    pub(crate) leader: u64,
    pub(crate) role: Role,
    pub(crate) commit: u64,
    /// Whether this member is the only voter.
    pub(crate) is_lone: bool,
    /// Whether an entry of the current term is committed, which reads have to wait for.
    pub(crate) has_committed_in_term: bool,
}

/// What this member is in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Leader,
    /// A voter that does not lead.
    Follower,
    /// A member without a vote.
    Learner,
}

impl Status {
    /// Tells whether this member leads.
    pub(crate) fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }
}

/// Why raft could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The log holds what raft cannot use.
    #[error("log entry {index}: {reason}")]
    Entry {
        index: u64,
        #[source]
        reason: Unusable,
    },
    /// A configuration change that cannot be.
    #[error("configuration change cannot be applied: {0}")]
    ConfChange(String),
    /// The durable parts do not fit together.
    #[error("{0}")]
    Inconsistent(String),
}

/// A proposal was not taken: there is no leader, or it is about to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped;

impl Consensus {
    /// Starts from what is durable.
    pub(crate) fn new(options: Options, durable: Durable) -> Result<Self, Error> {
        let Durable { mut hard_state, conf_state, start, entries, applied } = durable;
        let last = start.index + entries.len() as u64;
        if applied < start.index || applied > last {
            return Err(Error::Inconsistent(format!(
                "applied index {applied} is outside of the log ({}..={last})",
                start.index
            )));
        }
        // The commit index is written late; what is applied was committed.
        hard_state.commit = hard_state.commit.max(applied);
        if hard_state.commit > last {
            return Err(Error::Inconsistent(format!(
                "commit index {} is beyond the end of the log, {last}",
                hard_state.commit
            )));
        }
        let mut log = Log::new(
            start,
            convert::hard_state_in(hard_state),
            convert::conf_state_in(&conf_state),
        );
        for (expected, entry) in (start.index + 1..).zip(entries) {
            let index = entry.index;
            if index != expected {
                return Err(Error::Inconsistent(format!(
                    "log entry {index} stands where {expected} belongs"
                )));
            }
            let entry =
                convert::entry_in(entry).map_err(|reason| Error::Entry { index, reason })?;
            log.append(&[entry]);
        }
        let raw = RawNode::new(&config(options, applied), log, &logger::logger())
            .map_err(|error| Error::Inconsistent(error.to_string()))?;
        let mut consensus = Self {
            raw,
            options,
            attempt: 0,
            attempt_term: 0,
            persisting: VecDeque::new(),
            voted: (hard_state.term, hard_state.vote),
            lazy_commit: None,
            forwarded: ForwardedReads::default(),
            farewell: None,
            held: Held::default(),
            parting_term: 0,
        };
        consensus.set_election_timeout();
        Ok(consensus)
    }

    /// Lets one tick pass.
    pub(crate) fn tick(&mut self) {
        if self.may_be_elected() && self.raw.tick() && !self.status().is_leader() {
            self.attempt += 1;
        }
        self.say_farewell();
        // A hand-over that fails takes one election timeout.
        let dropped = self.held.tick(2 * self.options.election_ticks);
        if dropped > 0 {
            tracing::warn!(dropped, "dropped proposals of peers: there is no leader");
        }
        self.set_election_timeout();
    }

    /// Lets `ticks` pass for the election timeout only; used at start, when nobody can know of a leader yet.
    pub(crate) fn hasten_election(&mut self, ticks: usize) {
        if self.raw.raft.state == StateRole::Follower {
            let elapsed = &mut self.raw.raft.election_elapsed;
            *elapsed = (*elapsed).max(ticks.min(self.options.election_ticks));
        }
    }

    /// Ends the time in which nobody else is voted for because of the present leader.
    pub(crate) fn doubt_leader(&mut self) {
        if self.raw.raft.state == StateRole::Follower {
            let elapsed = &mut self.raw.raft.election_elapsed;
            *elapsed = (*elapsed).max(self.options.election_ticks);
        }
    }

    /// Tells whether there is no leader: nothing was heard of one for an election timeout, or since it was doubted, or an
    /// election has begun.
    pub(crate) fn is_leaderless(&self) -> bool {
        let raft = &self.raw.raft;
        match raft.state {
            StateRole::Follower => {
                raft.leader_id == raft::INVALID_ID
                    || raft.election_elapsed >= self.options.election_ticks
            }
            StateRole::PreCandidate | StateRole::Candidate => true,
            StateRole::Leader => false,
        }
    }

    /// Starts an election at once, if this member can win one.
    pub(crate) fn campaign(&mut self) {
        if self.raw.raft.promotable() && self.may_be_elected() {
            // Raft refuses while a committed configuration change is not applied; the election timeout tries again.
            if let Err(error) = self.raw.campaign() {
                tracing::warn!(%error, "cannot campaign");
            }
        }
        self.set_election_timeout();
    }

    /// Proposes requests, as one message.
    pub(crate) fn propose(
        &mut self,
        requests: impl IntoIterator<Item = Bytes>,
    ) -> Result<(), Dropped> {
        let entries = requests
            .into_iter()
            .map(|data| eraftpb::Entry { data, ..Default::default() })
            .collect();
        self.propose_entries(entries)
    }

    /// Proposes an encoded `raftpb.ConfChange`. While another one is not applied, an entry without effect takes its
    /// place in the log. What removes this member while it leads is for the next leader, which is looked for first.
    pub(crate) fn propose_conf_change(&mut self, change: Bytes) -> Result<(), Dropped> {
        let entry = raftpb::Entry {
            r#type: raftpb::EntryType::EntryConfChange.into(),
            data: change,
            ..Default::default()
        };
        if self.begin_parting(std::slice::from_ref(&entry)) || !self.may_change() {
            return Err(Dropped);
        }
        let entry = convert::entry_in(entry).map_err(|_own_mistake| Dropped)?;
        self.propose_entries(vec![entry])
    }

    fn propose_entries(&mut self, entries: Vec<eraftpb::Entry>) -> Result<(), Dropped> {
        if entries.is_empty() {
            return Ok(());
        }
        let message = eraftpb::Message {
            msg_type: eraftpb::MessageType::MsgPropose.into(),
            from: self.options.id,
            entries,
            ..Default::default()
        };
        let result = self.raw.step(message);
        self.set_election_timeout();
        result.map_err(|_no_leader| Dropped)
    }

    /// Asks for a read index. `context` must never have been used before, on any member. There may never be an answer.
    pub(crate) fn read_index(&mut self, context: u64) {
        self.raw.read_index(context.to_be_bytes().to_vec());
        self.set_election_timeout();
    }

    fn own(&self) -> validate::Own {
        let status = self.status();
        validate::Own {
            id: self.options.id,
            term: status.term,
            last: self.last(),
            is_leader: status.is_leader(),
            is_persisting: self.is_persisting(),
            must_not_campaign: self.is_restoring() || (status.is_lone && self.is_persisting()),
        }
    }

    /// Refuses appends that contradict what is committed here: raft would panic. They come from a member that was restored
    /// from an old log, or that is not sound.
    fn check_committed(&self, message: &raftpb::Message) -> Result<(), Unusable> {
        let log = &self.raw.raft.raft_log;
        let committed = message.entries.iter().take_while(|entry| entry.index <= log.committed);
        for entry in committed {
            if log.term(entry.index).is_ok_and(|term| term != 0 && term != entry.term) {
                return Err(Unusable::OutOfRange("term of a committed entry"));
            }
        }
        Ok(())
    }

    /// Takes a message of a peer. `fresh` is a context never used before, for a read that the peer forwards.
    pub(crate) fn step(
        &mut self,
        mut message: raftpb::Message,
        fresh: u64,
    ) -> Result<(), Unusable> {
        let status = self.status();
        let kind = validate::check(&message, self.own())?;
        if kind == raftpb::MessageType::MsgApp {
            self.check_committed(&message)?;
        }
        if kind == raftpb::MessageType::MsgReadIndex && status.is_leader() {
            // Before the term's first commit raft drops reads; the follower asks again.
            self.forwarded.admit(&mut message, fresh, status.term)?;
        }
        #[cfg(feature = "planted-faults")]
        if is_planted(Planted::SecondVote) && kind == raftpb::MessageType::MsgVote {
            self.raw.raft.vote = raft::INVALID_ID;
        }
        if kind == raftpb::MessageType::MsgProp {
            self.begin_parting(&message.entries);
            // Behind what waits already, it waits too.
            if self.must_wait(&message) || !self.held.is_empty() {
                // One that does not fit in times out at its proposer.
                self.held.push(message);
                return Ok(());
            }
        }
        self.step_checked(message)
    }

    fn step_checked(&mut self, message: raftpb::Message) -> Result<(), Unusable> {
        if let Err(error) = self.raw.step(convert::message_in(message)?) {
            // A dropped proposal times out at its proposer, and one from an unknown peer is of no use.
            tracing::debug!(%error, "message dropped by raft");
        }
        self.set_election_timeout();
        Ok(())
    }

    /// Tells whether a proposal would be dropped that came now: the leader hands over, or nobody is known to lead.
    fn is_between_leaders(&self) -> bool {
        let raft = &self.raw.raft;
        match raft.state {
            StateRole::Leader => raft.lead_transferee.is_some(),
            StateRole::Follower => raft.leader_id == raft::INVALID_ID,
            StateRole::PreCandidate | StateRole::Candidate => true,
        }
    }

    /// Tells whether raft would take a change of the membership for what it is. As long as a new leader has not applied an entry
    /// of its own, raft puts an empty entry in its place: one from before might be on its way.
    fn may_change(&self) -> bool {
        let raft = &self.raw.raft;
        raft.state != StateRole::Leader || raft.apply_to_current_term()
    }

    fn must_wait(&self, message: &raftpb::Message) -> bool {
        self.is_between_leaders() || (between::changes(&message.entries) && !self.may_change())
    }

    /// Gives leadership away, once in a term, if this member leads and one of `entries` removes it: else there would be no leader
    /// from the moment in which the removal is applied. Tells whether a hand-over has begun.
    fn begin_parting(&mut self, entries: &[raftpb::Entry]) -> bool {
        let raft = &self.raw.raft;
        let term = raft.term;
        if raft.state != StateRole::Leader
            || self.parting_term == term
            || !between::removes(entries, self.options.id)
        {
            return false;
        }
        if raft.lead_transferee.is_some() {
            // It is being given away already.
            return true;
        }
        self.parting_term = term;
        let Some(heir) = self.furthest_other() else { return false };
        tracing::info!(
            to = format!("{heir:x}"),
            "leadership is given away, because this member is to be removed"
        );
        self.transfer_to(heir);
        true
    }

    /// Gives what waited for a leader to the one that there is.
    fn release_held(&mut self) {
        while self.held.first().is_some_and(|message| !self.must_wait(message)) {
            let Some(mut message) = self.held.pop() else { return };
            // It may go back to where it came from.
            message.from = self.options.id;
            if let Err(reason) = self.step_checked(message) {
                tracing::warn!(%reason, "dropped a proposal of a peer");
            }
        }
    }

    /// Tells whether proposals of peers wait for a leader, or anything else waits for the disk before it is sent.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.held.is_empty() || self.persisting.iter().any(|ready| !ready.messages.is_empty())
    }

    /// Takes a snapshot whose database is at hand. It counts if [`Output::restored`] tells so.
    pub(crate) fn step_snapshot(&mut self, message: raftpb::Message) -> Result<(), Unusable> {
        validate::check_snapshot(&message, self.own())?;
        if let Err(error) = self.raw.step(convert::message_in(message)?) {
            tracing::debug!(%error, "snapshot dropped by raft");
        }
        self.set_election_timeout();
        Ok(())
    }

    /// Reports that messages to a peer get lost.
    pub(crate) fn unreachable(&mut self, peer: u64) {
        self.raw.report_unreachable(peer);
        self.set_election_timeout();
    }

    /// Gives leadership to the voter that is furthest, if there is one besides this member.
    pub(crate) fn transfer_leadership(&mut self) {
        if let Some(id) = self.furthest_other() {
            self.raw.transfer_leader(id);
        }
        self.set_election_timeout();
    }

    /// Gives leadership to `to`, a voter.
    pub(crate) fn transfer_to(&mut self, to: u64) {
        self.raw.transfer_leader(to);
        self.set_election_timeout();
    }

    /// Tells whether a learner is so far that it may get a vote, which only a leader knows.
    pub(crate) fn check_ready(&self, learner: u64) -> Result<(), Failure> {
        if !self.status().is_leader() {
            return Err(Failure::NotLeader);
        }
        let progress = self.raw.raft.prs();
        let matched = |id| progress.get(id).map(|progress| progress.matched);
        let theirs = matched(learner).ok_or(Failure::MemberNotFound)?;
        let ours = matched(self.options.id).unwrap_or_default();
        // Nine tenths, as etcd has it.
        if u128::from(theirs) * 10 < u128::from(ours) * 9 {
            return Err(Failure::LearnerNotReady);
        }
        Ok(())
    }

    /// Reports what became of a snapshot that was on its way to a peer.
    pub(crate) fn snapshot_sent(&mut self, peer: u64, is_done: bool) {
        let status =
            if is_done { raft::SnapshotStatus::Finish } else { raft::SnapshotStatus::Failure };
        self.raw.report_snapshot(peer, status);
        self.set_election_timeout();
    }

    /// Offers a snapshot at `applied` to followers that need one, if there are any. Their next answer makes it leave.
    pub(crate) fn offer_snapshot(&mut self, applied: Position) {
        if self.raw.store().takes_offer() {
            let conf_state = self.raw.raft.prs().conf().to_conf_state();
            self.raw.mut_store().offer(applied, conf_state);
        }
    }

    /// Keeps entries behind `index` in memory for a follower that is being sent a snapshot, or none especially.
    pub(crate) fn hold_log(&mut self, index: Option<u64>) {
        self.raw.mut_store().hold(index);
    }

    /// Takes what has to be read back from the WAL for followers: from which index on, and up to where.
    pub(crate) fn take_wanted(&mut self) -> Vec<Range<u64>> {
        if self.raw.raft.state != StateRole::Leader {
            self.raw.mut_store().forget_pieces();
        }
        self.raw.mut_store().take_wanted()
    }

    /// Takes what was read back from `index` on. If that is nothing, or not the log's, who needs it gets a snapshot.
    pub(crate) fn log_read(&mut self, index: u64, entries: Vec<raftpb::Entry>) {
        let entries = entries.into_iter().map(convert::entry_in).collect::<Result<_, _>>();
        let entries = entries.unwrap_or_else(|reason| {
            tracing::warn!(index, %reason, "the log holds what cannot be sent to followers");
            Vec::new()
        });
        for context in self.raw.mut_store().fetched(index, entries) {
            self.raw.on_entries_fetched(context);
        }
        self.set_election_timeout();
    }

    /// Collects all that is to be done. `job` names what has to be persisted, if anything has.
    pub(crate) fn advance(&mut self, job: u64) -> Output {
        let mut output = Output::default();
        self.release_held();
        while self.raw.has_ready() {
            self.take_ready(job, &mut output);
        }
        self.set_election_timeout();
        output
    }

    fn take_ready(&mut self, job: u64, output: &mut Output) {
        let mut ready = self.raw.ready();
        if let Some(position) = position_of(ready.snapshot()) {
            self.raw.mut_store().restart_at(position);
            output.restored = Some(position);
            output.persist.get_or_insert_default();
        }
        let mut messages = self.forwarded.answer(ready.take_messages());
        output.committed.extend(ready.take_committed_entries().into_iter().map(committed));
        for read in ready.take_read_states() {
            if let Ok(context) = <[u8; 8]>::try_from(read.request_ctx.as_slice()) {
                output.reads.push((u64::from_be_bytes(context), read.index));
            }
        }
        let must_persist = ready.must_sync() || output.restored.is_some();
        let mut is_vote = false;
        if let Some(hard_state) = ready.hs() {
            let hard_state = convert::hard_state_out(hard_state);
            let voted = (hard_state.term, hard_state.vote);
            is_vote = std::mem::replace(&mut self.voted, voted) != voted;
            self.lazy_commit = Some(hard_state);
        }
        // Raft reads entries back from the log from now on, durable or not.
        self.raw.mut_store().append(ready.entries());
        let first = ready.entries().first().map_or(u64::MAX, |entry| entry.index);
        let last = ready.entries().last().map_or(0, |entry| entry.index);
        if must_persist {
            let persist = output.persist.get_or_insert_default();
            persist.entries.extend(ready.take_entries().into_iter().map(convert::entry_out));
            persist.hard_state = self.lazy_commit.take().or(persist.hard_state);
        }
        // What a leader sends does not wait for its disk: others have voted for it, and asked to was only when term and vote
        // were durable. But a lone voter elects itself; its learners must not hear of a term that a crash would make it
        // begin again, with other entries.
        let keeps_all = is_vote || self.persisting.iter().any(|ready| ready.keeps_all);
        if !keeps_all {
            output.messages.append(&mut messages);
        }
        messages.extend(self.forwarded.answer(ready.take_persisted_messages()));
        #[cfg(feature = "planted-faults")]
        let messages = if is_planted(Planted::EarlyMessages) {
            output.messages.extend(messages);
            Vec::new()
        } else {
            messages
        };
        let number = ready.number();
        self.raw.advance_append_async(ready);
        let job = match self.persisting.back() {
            _ if must_persist => job,
            Some(before) => before.job,
            None => {
                self.raw.on_persist_ready(number);
                output.messages.extend(messages);
                return;
            }
        };
        let is_restoring = output.restored.is_some();
        let persisting = Persisting { job, number, first, last, is_restoring, keeps_all, messages };
        self.persisting.push_back(persisting);
    }

    /// Returns a commit index that has not been handed out for persisting; it need not be synced.
    pub(crate) fn take_lazy_commit(&mut self) -> Option<raftpb::HardState> {
        self.lazy_commit.take()
    }

    /// Returns term, vote and commit index as they are now, if term and vote are on their way to the disk or there.
    pub(crate) fn hard_state(&self) -> Option<raftpb::HardState> {
        let state = convert::hard_state_out(&self.raw.raft.hard_state());
        (!self.raw.has_ready()).then_some(state)
    }

    /// Confirms that all up to `job` is durable; returns the messages that waited for it.
    pub(crate) fn persisted(&mut self, job: u64) -> Vec<raftpb::Message> {
        let mut messages = Vec::new();
        let mut number = None;
        let mut last = 0;
        let mut restored = None;
        while let Some(mut ready) = self.persisting.pop_front_if(|ready| ready.job <= job) {
            messages.append(&mut ready.messages);
            number = Some(ready.number);
            if ready.is_restoring {
                // What came before it is no part of the log any more.
                restored = number;
                last = 0;
            }
            last = if ready.last == 0 { last } else { ready.last };
        }
        // Entries that are being replaced must not count: after a crash between the two writes they could be gone. The
        // replacement's confirmation counts for both.
        let is_replaced = self.persisting.iter().any(|ready| ready.first <= last);
        // A snapshot counts in any case: nothing replaces it.
        if let Some(number) = if is_replaced { restored } else { number } {
            self.raw.on_persist_ready(number);
        }
        self.set_election_timeout();
        messages
    }

    /// Reports that everything up to `index` is applied.
    pub(crate) fn applied_to(&mut self, index: u64) {
        self.raw.advance_apply_to(index);
    }

    /// Puts a committed and accepted configuration change into effect.
    pub(crate) fn apply_conf_change(&mut self, change: &raftpb::ConfChange) -> Result<(), Error> {
        let translated = convert::conf_change_in(change)
            .map_err(|error| Error::ConfChange(error.to_string()))?;
        #[cfg(feature = "planted-faults")]
        let translated = translated.map(|mut change| {
            let is_learner =
                change.change_type == i32::from(eraftpb::ConfChangeType::AddLearnerNode);
            if is_learner && is_planted(Planted::VotingLearner) {
                change.change_type = eraftpb::ConfChangeType::AddNode.into();
            }
            change
        });
        if let Some(translated) = translated {
            self.raw
                .apply_conf_change(&translated)
                .map_err(|error| Error::ConfChange(error.to_string()))?;
        }
        if self.raw.raft.state == StateRole::Leader
            && self.raw.raft.prs().get(self.options.id).is_none()
        {
            self.resign();
        }
        self.set_election_timeout();
        Ok(())
    }

    /// Ends the office of a leader that is no member any more: raft looks for its own progress while it leads.
    fn resign(&mut self) {
        let progress = self.raw.raft.prs();
        let voters = progress.conf().voters().ids();
        let matched = |id| progress.get(id).map(|progress| (progress.matched, id));
        let mut others: Vec<(u64, u64)> = voters.iter().filter_map(matched).collect();
        others.sort_unstable_by(|one, other| other.cmp(one));
        let term = self.raw.raft.term;
        self.farewell = Some(Farewell { term, others, turns: 0 });
        self.raw.raft.become_follower(term, raft::INVALID_ID);
        self.say_farewell();
    }

    /// Tells whether this member led, was removed, and nobody has followed it yet.
    pub(crate) fn has_farewell(&self) -> bool {
        self.farewell.is_some()
    }

    /// Tells the others, until one of them leads, what is committed, and asks one of them to lead: without that, they would
    /// wait for the election timeout, and the last one of two could never know that it is alone.
    fn say_farewell(&mut self) {
        let Some(farewell) = &mut self.farewell else { return };
        let raft = &mut self.raw.raft;
        if raft.term != farewell.term || farewell.others.is_empty() {
            self.farewell = None;
            return;
        }
        let heir = farewell.turns / FAREWELL_TURNS % farewell.others.len();
        farewell.turns += 1;
        for (place, &(matched, to)) in farewell.others.iter().enumerate() {
            let message = |kind: eraftpb::MessageType| eraftpb::Message {
                msg_type: kind.into(),
                to,
                from: raft.id,
                term: raft.term,
                commit: matched.min(raft.raft_log.committed),
                ..Default::default()
            };
            let heartbeat = message(eraftpb::MessageType::MsgHeartbeat);
            let campaign = message(eraftpb::MessageType::MsgTimeoutNow);
            raft.msgs.push(heartbeat);
            if place == heir {
                raft.msgs.push(campaign);
            }
        }
    }

    /// Returns the voter that has most of the log, besides this member; one that was heard of lately, if there is any.
    fn furthest_other(&self) -> Option<u64> {
        let own = self.options.id;
        let progress = self.raw.raft.prs();
        let voters = progress.conf().voters().ids();
        let rank =
            |id| progress.get(id).map(|progress| (progress.recent_active, progress.matched, id));
        voters.iter().filter(|&id| id != own).filter_map(rank).max().map(|(_, _, id)| id)
    }

    /// Returns the configuration in effect.
    pub(crate) fn conf_state(&self) -> raftpb::ConfState {
        let mut state = convert::conf_state_out(&self.raw.raft.prs().conf().to_conf_state());
        state.voters.sort_unstable();
        state.learners.sort_unstable();
        state
    }

    /// Lets the log begin later where more than `entries_max` are applied, and keeps at most `bytes_max` of those in memory.
    pub(crate) fn trim(&mut self, entries_max: u64, bytes_max: usize) {
        let applied = self.raw.raft.raft_log.applied();
        let durable = self.raw.raft.raft_log.persisted;
        self.raw.mut_store().trim(applied.min(durable), entries_max, bytes_max);
    }

    /// Returns where this member stands.
    pub(crate) fn status(&self) -> Status {
        let raft = &self.raw.raft;
        let is_learner = raft.prs().conf().learners().contains(&self.options.id);
        let role = match raft.state {
            StateRole::Leader => Role::Leader,
            _ if is_learner => Role::Learner,
            StateRole::Follower | StateRole::Candidate | StateRole::PreCandidate => Role::Follower,
        };
        Status {
            term: raft.term,
            leader: raft.leader_id,
            role,
            commit: raft.raft_log.committed,
            is_lone: raft.prs().is_singleton() && raft.promotable(),
            has_committed_in_term: raft.commit_to_current_term(),
        }
    }

    /// Returns the index of the last entry, durable or not.
    pub(crate) fn last(&self) -> u64 {
        self.raw.raft.raft_log.last_index()
    }

    /// Returns entries and bytes of the log in memory.
    pub(crate) fn in_memory(&self) -> (u64, usize) {
        let log = self.raw.raft.store();
        (log.len() as u64, log.bytes())
    }

    /// Tells whether a snapshot has taken the place of the log, and its state is not in place yet.
    fn is_restoring(&self) -> bool {
        self.raw.raft.raft_log.applied < self.raw.raft.store().start().index
    }

    /// Tells whether the log has entries that are not durable: handed out or not.
    fn is_persisting(&self) -> bool {
        let log = &self.raw.raft.raft_log;
        log.persisted != log.last_index() || self.persisting.iter().any(|ready| ready.last != 0)
    }

    /// A lone voter wins an election in the same call, which raft bears only when its log is durable. And nobody may be
    /// elected whose state is still the one before a snapshot: raft looks for the entries in between, which are gone.
    fn may_be_elected(&self) -> bool {
        if self.is_restoring() {
            return false;
        }
        let is_leader = self.raw.raft.state == StateRole::Leader;
        let is_settled = self.persisting.is_empty() && !self.is_persisting();
        is_leader || !self.raw.raft.prs().is_singleton() || is_settled
    }

    /// Replaces the timeout that raft may have drawn from the operating system's randomness.
    fn set_election_timeout(&mut self) {
        let term = self.raw.raft.term;
        if self.attempt_term != term {
            self.attempt_term = term;
            self.attempt = 0;
        }
        let Options { seed, id, election_ticks, .. } = self.options;
        let timeout = timeout::election_timeout(seed ^ id, term, self.attempt, election_ticks);
        self.raw.raft.set_randomized_election_timeout(timeout);
    }
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus")
            .field("status", &self.status())
            .field("persisting", &self.persisting.len())
            .finish_non_exhaustive()
    }
}

fn config(options: Options, applied: u64) -> raft::Config {
    raft::Config {
        id: options.id,
        election_tick: options.election_ticks,
        heartbeat_tick: HEARTBEAT_TICKS,
        applied,
        max_size_per_msg: APPEND_BYTES_MAX,
        max_inflight_msgs: APPENDS_IN_FLIGHT_MAX,
        check_quorum: true,
        pre_vote: options.pre_vote,
        ..raft::Config::default()
    }
}

/// Where a snapshot stands, unless it is none.
fn position_of(snapshot: &eraftpb::Snapshot) -> Option<Position> {
    let metadata = snapshot.get_metadata();
    (metadata.index != 0).then_some(Position { index: metadata.index, term: metadata.term })
}

fn committed(entry: eraftpb::Entry) -> Committed {
    let payload = match entry.entry_type() {
        EntryType::EntryConfChange => Payload::ConfChange(entry.context),
        EntryType::EntryNormal | EntryType::EntryConfChangeV2 => Payload::Request(entry.data),
    };
    Committed { index: entry.index, term: entry.term, payload }
}
