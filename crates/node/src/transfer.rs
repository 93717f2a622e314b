//! Moves of leadership that somebody waits for.

use std::time::Duration;

use crate::node::Node;
use crate::{Answer, Effects, Failure, Now, Token, consensus};

/// Callers that wait for moves, at most; what exceeds it is refused.
const WAITING_MAX: usize = 256;

/// Who waits for which member to lead.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    waiting: Vec<Waiting>,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    token: Token,
    to: u64,
    since: Now,
}

impl Transfers {
    /// Takes those who wait for `leader` to lead.
    fn arrived(&mut self, leader: u64) -> Vec<Token> {
        self.take(|waiting| waiting.to == leader)
    }

    /// Takes those who have waited for `timeout`.
    pub(crate) fn expire(&mut self, now: Now, timeout: Duration) -> Vec<Token> {
        self.take(|waiting| now.0.saturating_sub(waiting.since.0) >= timeout)
    }

    /// Takes all.
    pub(crate) fn take_all(&mut self) -> Vec<Token> {
        self.take(|_| true)
    }

    fn take(&mut self, is_over: impl Fn(&Waiting) -> bool) -> Vec<Token> {
        self.waiting.extract_if(.., |waiting| is_over(waiting)).map(|over| over.token).collect()
    }
}

impl Node {
    /// Begins to let `to` lead.
    pub(crate) fn move_leader(&mut self, token: Token, to: u64, effects: &mut Effects) {
        let status = self.consensus.status();
        let failure = if !status.is_leader() {
            Some(Failure::NotLeader)
        } else if !self.consensus.conf_state().voters.contains(&to) {
            Some(Failure::NoTransferee)
        } else if self.transfers.waiting.len() >= WAITING_MAX {
            Some(Failure::TooManyRequests)
        } else {
            None
        };
        if let Some(failure) = failure {
            effects.fail([token], failure);
            return;
        }
        tracing::info!(to = format!("{to:x}"), "leadership transfer starting");
        self.transfers.waiting.push(Waiting { token, to, since: self.now });
        if to != self.own.id {
            self.consensus.transfer_to(to);
        }
    }

    /// Tells those whose transferee leads now.
    pub(crate) fn notice_transfers(&mut self, status: &consensus::Status, effects: &mut Effects) {
        effects.complete(self.transfers.arrived(status.leader), || Answer::LeaderMoved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_is_told_once() {
        let at = |seconds| Now(Duration::from_secs(seconds));
        let wait = |token, to, since| Waiting { token: Token(token), to, since: at(since) };
        let mut transfers =
            Transfers { waiting: vec![wait(1, 7, 0), wait(2, 8, 0), wait(3, 7, 5), wait(4, 9, 9)] };
        assert_eq!(transfers.arrived(7), [Token(1), Token(3)]);
        assert_eq!(transfers.expire(at(10), Duration::from_secs(7)), [Token(2)]);
        assert_eq!(transfers.take_all(), [Token(4)]);
        assert_eq!(transfers.take_all(), []);
    }
}
