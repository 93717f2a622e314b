//! Whether this member still leads, when it cannot know.
//!
//! A leader whose process was paused, or got no processor, goes on as if nothing had happened, until it hears of the leader
//! that the others have elected meanwhile. What it answers for leases by then is void: the other one expires them. So
//! after a late tick it answers for leases only when a majority has confirmed that it leads, as etcd does
//! (`EtcdServer.ensureLeadership`); reads are confirmed in any case.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Now;

/// A question without an answer is asked again after this.
const RETRY: Duration = Duration::from_millis(500);

/// Questions without an answer that are remembered.
const QUESTIONS_MAX: usize = 16;

/// What is asked of the others.
#[derive(Debug, Default)]
pub(crate) struct Office {
    doubt: Option<Doubt>,
}

#[derive(Debug)]
struct Doubt {
    since: Now,
    /// Contexts of the read indexes that were asked for, and when.
    questions: VecDeque<(u64, Now)>,
    asks_at_once: bool,
}

/// What an answer tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Confirmed {
    /// This member led at this time.
    pub(crate) asked: Now,
    /// Nothing has been in doubt since.
    pub(crate) is_over: bool,
}

impl Office {
    /// Begins to doubt at `now`.
    pub(crate) fn doubt(&mut self, now: Now) {
        let doubt = self.doubt.get_or_insert(Doubt {
            since: now,
            questions: VecDeque::new(),
            asks_at_once: true,
        });
        doubt.since = now;
        doubt.asks_at_once = true;
    }

    /// Ends the doubt: this member leads no more.
    pub(crate) fn settle(&mut self) {
        self.doubt = None;
    }

    /// Tells whether it is in doubt that this member leads.
    pub(crate) fn is_doubted(&self) -> bool {
        self.doubt.is_some()
    }

    /// Makes the next [`Office::ask`] ask at once: what was asked so far was dropped.
    pub(crate) fn ask_again(&mut self) {
        if let Some(doubt) = &mut self.doubt {
            doubt.asks_at_once = true;
        }
    }

    /// Returns the context to ask a read index with, if it is time to ask. `fresh` makes contexts never used before.
    pub(crate) fn ask(&mut self, now: Now, fresh: impl FnOnce() -> u64) -> Option<u64> {
        let doubt = self.doubt.as_mut()?;
        let last = doubt.questions.back().map(|(_, asked)| *asked);
        let is_early = last.is_some_and(|asked| now.0.saturating_sub(asked.0) < RETRY);
        if is_early && !doubt.asks_at_once {
            return None;
        }
        doubt.asks_at_once = false;
        let context = fresh();
        if doubt.questions.len() == QUESTIONS_MAX {
            doubt.questions.pop_front();
        }
        doubt.questions.push_back((context, now));
        Some(context)
    }

    /// Takes an answer; `None` if it is to something else.
    pub(crate) fn confirm(&mut self, context: u64) -> Option<Confirmed> {
        let doubt = self.doubt.as_mut()?;
        let place = doubt.questions.iter().position(|(asked_with, _)| *asked_with == context)?;
        let (_, asked) = doubt.questions.drain(..=place).next_back()?;
        let is_over = asked >= doubt.since;
        if is_over {
            self.doubt = None;
        }
        Some(Confirmed { asked, is_over })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now(Duration::from_millis(ms))
    }

    #[test]
    fn what_was_asked_since_the_doubt_began_ends_it() {
        let mut office = Office::default();
        assert_eq!(office.ask(at(0), || 1), None, "no doubt");
        office.doubt(at(0));
        assert_eq!(office.ask(at(0), || 1), Some(1));
        assert_eq!(office.ask(at(100), || 2), None);
        office.ask_again();
        assert_eq!(office.ask(at(100), || 2), Some(2));
        assert_eq!(office.ask(at(600), || 3), Some(3));
        assert_eq!(office.confirm(9), None);
        assert_eq!(office.confirm(2), Some(Confirmed { asked: at(100), is_over: true }));
        assert_eq!(office.confirm(3), None);
        office.doubt(at(700));
        office.settle();
        assert!(!office.is_doubted() && office.ask(at(700), || 4).is_none());
    }

    #[test]
    fn an_older_answer_tells_of_its_time_only() {
        let mut office = Office::default();
        office.doubt(at(0));
        assert_eq!(office.ask(at(0), || 1), Some(1));
        office.doubt(at(400));
        assert_eq!(office.ask(at(400), || 2), Some(2), "at once");
        assert_eq!(office.confirm(1), Some(Confirmed { asked: at(0), is_over: false }));
        assert!(office.is_doubted());
        assert_eq!(office.confirm(2), Some(Confirmed { asked: at(400), is_over: true }));
        assert!(!office.is_doubted());
    }

    #[test]
    fn only_so_many_questions_are_remembered() {
        let mut office = Office::default();
        for second in 0..100 {
            office.doubt(at(1000 * second));
            assert!(office.ask(at(1000 * second), || second).is_some());
        }
        assert_eq!(office.confirm(83), None);
        assert_eq!(office.confirm(84), Some(Confirmed { asked: at(84_000), is_over: false }));
    }
}
