//! Proposals whose leader is gone: nobody may wait for them longer than it takes to know that they may be lost.
//!
//! What raft was given in an earlier term is applied, if ever, before the first entry of the present one: when that is applied
//! here, whoever still waits is told that the leader failed. Without a leader, nobody waits longer than an election timeout.
//! The outcome is unknown in any case, as after a timeout; etcd lets its callers wait for that (`spec/errors.md`).

use crate::node::Node;
use crate::proposals::Waiter;
use crate::{Effects, Failure, Now};

/// What was given to raft in earlier terms.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    /// The term that was seen last.
    term: u64,
    /// Requests given to raft before it.
    requests: Vec<u64>,
    /// Since when there is no leader.
    leaderless: Option<Now>,
}

impl Node {
    /// Sees whether the term has changed; called before raft is given anything in it.
    pub(crate) fn notice_term(&mut self) {
        let term = self.consensus.status().term;
        if self.doubts.term != term {
            self.doubts.term = term;
            self.doubts.requests = self.proposals.given();
        }
    }

    /// The first entry of `term` is applied.
    pub(crate) fn settle_doubts(&mut self, term: u64, effects: &mut Effects) {
        if term >= self.doubts.term {
            let requests = std::mem::take(&mut self.doubts.requests);
            self.give_up(requests, effects);
        }
    }

    /// Gives up what was given to raft when there has been no leader for an election timeout.
    pub(crate) fn tick_doubts(&mut self, effects: &mut Effects) {
        if self.consensus.status().leader != 0 {
            self.doubts.leaderless = None;
            return;
        }
        let since = *self.doubts.leaderless.get_or_insert(self.now);
        if self.now.0.saturating_sub(since.0) >= self.own.raft.election_timeout() {
            self.give_up_all(effects);
        }
    }

    /// Gives up all that raft was given: what became of it cannot be told.
    pub(crate) fn give_up_all(&mut self, effects: &mut Effects) {
        self.doubts.requests.clear();
        let requests = self.proposals.given();
        self.give_up(requests, effects);
    }

    fn give_up(&mut self, requests: Vec<u64>, effects: &mut Effects) {
        for request in requests {
            match self.proposals.finish(request) {
                Some(Waiter::Caller(token)) => {
                    effects.fail([token], Failure::TimedOutLeaderFail);
                }
                Some(Waiter::Own(purpose)) => self.own_timeout(purpose),
                None => {}
            }
        }
    }
}
