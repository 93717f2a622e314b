//! Linearizable reads: which index has to be applied before a read may go ahead.
//!
//! Reads that arrive while a round is under way wait for the next one; one round answers all that joined before it
//! began. A round is asked again, with a new context, until it is answered; an answer to any of its questions counts,
//! since all of them were asked after its reads had arrived.

use std::collections::VecDeque;
use std::time::Duration;

use crate::{Now, Token};

/// A question without an answer is asked again after this, as etcd has it.
const RETRY: Duration = Duration::from_millis(500);

/// Reads that wait, at most; what exceeds it is refused.
const READS_MAX: usize = 1 << 16;

/// The reads of this member.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Wait for a round to begin.
    forming: Vec<Reader>,
    round: Option<Round>,
    /// Wait for an index to be applied.
    confirmed: VecDeque<(u64, Vec<Reader>)>,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
struct Reader {
    token: Token,
    since: Now,
}

#[derive(Debug)]
struct Round {
    contexts: Vec<u64>,
    asked: Now,
    readers: Vec<Reader>,
}

impl Reads {
    /// Takes reads; returns those that are too many.
    pub(crate) fn admit(&mut self, tokens: Vec<Token>, now: Now) -> Vec<Token> {
        let mut refused = tokens;
        let room = READS_MAX.saturating_sub(self.len).min(refused.len());
        self.len += room;
        self.forming.extend(refused.drain(..room).map(|token| Reader { token, since: now }));
        refused
    }

    /// Returns the context to ask a read index with, if it is time to ask. `fresh` makes contexts never used before.
    pub(crate) fn ask(&mut self, now: Now, fresh: impl FnOnce() -> u64) -> Option<u64> {
        if let Some(round) = &mut self.round {
            if now.0.saturating_sub(round.asked.0) < RETRY {
                return None;
            }
            let context = fresh();
            round.contexts.push(context);
            round.asked = now;
            return Some(context);
        }
        if self.forming.is_empty() {
            return None;
        }
        let context = fresh();
        let readers = std::mem::take(&mut self.forming);
        self.round = Some(Round { contexts: vec![context], asked: now, readers });
        Some(context)
    }

    /// Makes the next [`Reads::ask`] ask again at once: what was asked so far was dropped.
    pub(crate) fn ask_again(&mut self) {
        if let Some(round) = &mut self.round {
            round.asked = Now::default();
        }
    }

    /// Takes an answer: reads of the round with `context` wait for `index` now.
    pub(crate) fn confirm(&mut self, context: u64, index: u64) {
        if let Some(round) = self.round.take_if(|round| round.contexts.contains(&context)) {
            self.confirmed.push_back((index, round.readers));
        }
    }

    /// Confirms all reads that have not joined a round: this member is the only voter, and what it has applied at the
    /// end of the burst holds everything acknowledged to anyone.
    pub(crate) fn confirm_forming(&mut self, index: u64) {
        let mut readers = self.round.take().map(|round| round.readers).unwrap_or_default();
        readers.append(&mut self.forming);
        if !readers.is_empty() {
            self.confirmed.push_back((index, readers));
        }
    }

    /// Takes the reads that may go ahead, now that `applied` is applied.
    pub(crate) fn ready(&mut self, applied: u64) -> Vec<Token> {
        let mut tokens = Vec::new();
        // Answers come in the order of questions, with indexes that do not fall.
        while let Some((_, readers)) = self.confirmed.pop_front_if(|(index, _)| *index <= applied) {
            tokens.extend(readers.into_iter().map(|reader| reader.token));
        }
        self.len -= tokens.len();
        tokens
    }

    /// Takes the reads whose round the change of leader has made void.
    pub(crate) fn leader_changed(&mut self) -> Vec<Token> {
        let Some(round) = self.round.take() else { return Vec::new() };
        self.len -= round.readers.len();
        round.readers.into_iter().map(|reader| reader.token).collect()
    }

    /// Takes the reads that have waited for `timeout`, wherever they are.
    pub(crate) fn expire(&mut self, now: Now, timeout: Duration) -> Vec<Token> {
        let mut expired = Vec::new();
        let mut sift = |readers: &mut Vec<Reader>| {
            readers.retain(|reader| {
                let is_late = now.0.saturating_sub(reader.since.0) >= timeout;
                if is_late {
                    expired.push(reader.token);
                }
                !is_late
            });
        };
        if let Some(round) = &mut self.round {
            sift(&mut round.readers);
        }
        sift(&mut self.forming);
        for (_, readers) in &mut self.confirmed {
            sift(readers);
        }
        self.round.take_if(|round| round.readers.is_empty());
        self.len -= expired.len();
        expired
    }

    /// Takes all reads.
    pub(crate) fn take_all(&mut self) -> Vec<Token> {
        let mut reads = std::mem::take(self);
        reads.confirm_forming(0);
        let all = reads.confirmed.into_iter().flat_map(|(_, readers)| readers);
        all.map(|reader| reader.token).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now(Duration::from_millis(ms))
    }

    #[test]
    fn one_round_serves_all_that_joined_before_it_began() {
        let mut reads = Reads::default();
        assert_eq!(reads.admit(vec![Token(1), Token(2)], at(0)), []);
        assert_eq!(reads.ask(at(0), || 10), Some(10));
        assert_eq!(reads.admit(vec![Token(3)], at(1)), []);
        assert_eq!(reads.ask(at(1), || 11), None);
        reads.confirm(10, 5);
        assert_eq!(reads.ask(at(2), || 12), Some(12));
        assert_eq!(reads.ready(4), []);
        assert_eq!(reads.ready(5), [Token(1), Token(2)]);
        reads.confirm(12, 5);
        assert_eq!(reads.ready(5), [Token(3)]);
        assert_eq!(reads.len, 0);
    }

    #[test]
    fn a_round_is_asked_again_with_a_new_context_and_any_answer_counts() {
        let mut reads = Reads::default();
        reads.admit(vec![Token(1)], at(0));
        assert_eq!(reads.ask(at(0), || 10), Some(10));
        assert_eq!(reads.ask(at(499), || 11), None);
        assert_eq!(reads.ask(at(500), || 12), Some(12));
        reads.ask_again();
        assert_eq!(reads.ask(at(600), || 13), Some(13));
        reads.confirm(99, 1);
        assert_eq!(reads.ready(9), []);
        reads.confirm(12, 1);
        assert_eq!(reads.ready(9), [Token(1)]);
    }

    #[test]
    fn a_change_of_leader_fails_the_round_but_not_those_that_wait_for_the_next() {
        let mut reads = Reads::default();
        reads.admit(vec![Token(1)], at(0));
        reads.ask(at(0), || 10);
        reads.admit(vec![Token(2)], at(0));
        assert_eq!(reads.leader_changed(), [Token(1)]);
        assert_eq!(reads.ask(at(1), || 11), Some(11));
        assert_eq!(reads.expire(at(7000), Duration::from_secs(7)), [Token(2)]);
        reads.confirm(11, 1);
        assert_eq!(reads.ready(9), []);
    }

    #[test]
    fn reads_beyond_the_bound_are_refused_and_all_can_be_taken() {
        let mut reads = Reads::default();
        let tokens = (0..READS_MAX as u64 + 2).map(Token).collect();
        assert_eq!(reads.admit(tokens, at(0)).len(), 2);
        reads.ask(at(0), || 1);
        assert_eq!(reads.take_all().len(), READS_MAX);
        assert_eq!(reads.admit(vec![Token(1)], at(0)), []);
    }
}
