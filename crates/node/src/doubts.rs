//! Proposals whose leader is gone: nobody may wait for them longer than it takes to know that they may be lost.
//!
//! What raft was given in an earlier term was, when its leader died, applied before the first entry of the present one, or will
//! never be: when that is applied here, whoever still waits is told that the leader failed. A leader that lives may have kept
//! what came while it handed over, and passes it on to its successor (`consensus::between`): that gets a little more time.
//! Without a leader, nobody waits longer than an election timeout. The outcome is unknown in any case, as after a timeout;
//! etcd lets its callers wait for that (`spec/errors.md`).

use std::time::Duration;

use crate::node::Node;
use crate::proposals::Waiter;
use crate::{Effects, Failure, Now};

/// Ticks in which what a former leader passes on has to arrive.
const PASSING_TICKS: u32 = 3;

/// What was given to raft in earlier terms.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    /// The term that was seen last.
    term: u64,
    /// Requests given to raft before it.
    requests: Vec<u64>,
    /// The leader of the term before.
    former: u64,
    /// Whether that may pass on what it was given.
    passes_on: bool,
    /// When what is in doubt is given up.
    due: Option<Now>,
    /// Since when there is no leader.
    leaderless: Option<Now>,
}

impl Node {
    /// Sees whether the term has changed; called before raft is given anything in it.
    pub(crate) fn notice_term(&mut self) {
        let term = self.consensus.status().term;
        if self.doubts.term != term {
            let former = self.leadership.leader();
            self.doubts.term = term;
            self.doubts.requests = self.proposals.given();
            self.doubts.former = former;
            self.doubts.passes_on = self.leadership.may_live(former, self.now, self.passing_time());
            self.doubts.due = None;
        }
    }

    fn passing_time(&self) -> Duration {
        PASSING_TICKS * self.own.raft.tick
    }

    /// The first entry of `term` is applied.
    pub(crate) fn settle_doubts(&mut self, term: u64, effects: &mut Effects) {
        if term < self.doubts.term {
            return;
        }
        if self.doubts.passes_on {
            self.doubts.due = Some(Now(self.now.0 + self.passing_time()));
        } else {
            self.give_up_doubted(effects);
        }
    }

    /// The process of `peer` is gone: it passes nothing on any more.
    pub(crate) fn doubt_lost(&mut self, peer: u64) {
        if peer == self.doubts.former {
            self.doubts.passes_on = false;
            self.doubts.due = self.doubts.due.map(|_| self.now);
        }
    }

    fn give_up_doubted(&mut self, effects: &mut Effects) {
        self.doubts.due = None;
        let requests = std::mem::take(&mut self.doubts.requests);
        self.give_up(requests, effects);
    }

    /// Gives up what was given to raft when there has been no leader for an election timeout.
    pub(crate) fn tick_doubts(&mut self, effects: &mut Effects) {
        if self.doubts.due.is_some_and(|due| due <= self.now) {
            self.give_up_doubted(effects);
        }
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
        self.doubts.due = None;
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
