//! Committed entries, in order, through the machine.

use bytes::Bytes;
use machine::membership::{MembershipChange, Verdict};
use machine::schema::ConfState;
use machine::{Outcome, Reply};
use prost::Message as _;
use proto::raftpb;

use crate::consensus::{Committed, Payload};
use crate::node::Node;
use crate::proposals::Waiter;
use crate::{Answer, Completion, Effects, Now, Stop};

/// A removed member goes on this long, so that others learn that its removal is committed.
const REMOVED_GRACE: std::time::Duration = std::time::Duration::from_secs(1);

impl Node {
    /// Applies what is committed, as far as the write-behind tail has room. Tells whether anything was applied.
    pub(crate) fn apply(&mut self, effects: &mut Effects) -> Result<bool, machine::Fault> {
        let mut has_applied = false;
        // What is committed here and not applied is a part of a snapshot that takes the state's place: its configuration counts.
        while !self.machine.tail_is_full()
            && !self.install.is_under_way()
            && let Some(entry) = self.to_apply.pop_front()
        {
            let Committed { index, term, payload } = entry;
            match payload {
                Payload::Request(data) => self.apply_request(index, term, &data, effects)?,
                Payload::ConfChange(data) => self.apply_conf_change(index, term, data, effects)?,
            }
            self.consensus.applied_to(index);
            has_applied = true;
        }
        Ok(has_applied)
    }

    fn apply_request(
        &mut self,
        index: u64,
        term: u64,
        data: &Bytes,
        effects: &mut Effects,
    ) -> Result<(), machine::Fault> {
        if let Some(meter) = &mut self.meter {
            meter.begins(index, term, data);
        }
        let applied = self.machine.apply(index, term, data)?;
        if let Some(meter) = &mut self.meter {
            meter.applied(applied.kind, data, &applied.outcome);
        }
        self.snapshots.add(data.len());
        if data.is_empty() {
            self.begin_term(term);
            self.settle_doubts(term, effects);
            return Ok(());
        }
        if applied.forces_snapshot {
            self.snapshots.force();
        }
        if self.machine.needs_nospace_alarm() {
            self.raise_no_space();
        }
        if applied.outcome.result == Ok(Reply::Compaction) {
            // Its physical part waits for its entry to be durable.
            self.backend.want_commit();
        }
        self.answer(applied.request_id, applied.outcome, effects);
        Ok(())
    }

    /// The first entry of a term is applied: whoever leads it holds all former entries now.
    fn begin_term(&mut self, term: u64) {
        let status = self.consensus.status();
        if status.is_leader() && status.term == term {
            let extend = self.own.raft.election_timeout();
            let now = self.lease_now();
            self.machine.lessor_mut().promote(now, extend);
        }
    }

    fn apply_conf_change(
        &mut self,
        index: u64,
        term: u64,
        data: Bytes,
        effects: &mut Effects,
    ) -> Result<(), machine::Fault> {
        if let Some(meter) = &mut self.meter {
            meter.begins(index, term, &data);
        }
        let change = raftpb::ConfChange::decode(data).map_err(|error| machine::Fault::Entry {
            index,
            reason: machine::EntryFault::Undecodable(error),
        })?;
        let verdict = self.machine.check_conf_change(index, &change)?;
        if !matches!(verdict, Verdict::Refused(_))
            && let Err(error) = self.consensus.apply_conf_change(&change)
        {
            tracing::error!(index, %error, "the configuration cannot change so");
            let reason = machine::EntryFault::ConfChangeType(change.r#type);
            return Err(machine::Fault::Entry { index, reason });
        }
        let removes_self = matches!(
            verdict,
            Verdict::Accepted(MembershipChange::Remove(id)) if id == self.own.id
        );
        let raftpb::ConfState { voters, learners, .. } = self.consensus.conf_state();
        let conf_state = ConfState { voters, learners };
        let applied =
            self.machine.apply_conf_change(index, term, change.id, verdict, &conf_state)?;
        if removes_self {
            tracing::warn!("this member was removed from the cluster");
            self.ending = Some((Stop::Removed, Now(self.now.0 + REMOVED_GRACE)));
            self.was_told = false;
        }
        self.answer(change.id, applied.outcome, effects);
        Ok(())
    }

    fn answer(&mut self, request: u64, outcome: Outcome, effects: &mut Effects) {
        match self.proposals.finish(request) {
            Some(Waiter::Caller(token)) => {
                effects.completions.push(Completion { token, answer: Answer::Applied(outcome) });
            }
            Some(Waiter::Own(purpose)) => {
                if let Some(meter) = &mut self.meter {
                    meter.own_answered(request);
                }
                self.own_outcome(purpose, &outcome);
            }
            // Another member's.
            None => {}
        }
    }
}
