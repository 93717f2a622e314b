//! Whether this member still leads, when it cannot know.
//!
//! A leader whose process was paused, or got no processor, goes on as if nothing had happened, until it hears of the leader
//! that the others have elected meanwhile. What it answers for leases by then is void: the other one expires them. So
//! after a late tick it answers for leases only when a majority has confirmed that it leads, as etcd does
//! (`EtcdServer.ensureLeadership`); reads are confirmed in any case.

use std::time::Duration;

use crate::Now;

/// A question without an answer is asked again after this.
const RETRY: Duration = Duration::from_millis(500);

/// What is asked of the others.
#[derive(Debug, Default)]
pub(crate) struct Office {
    question: Option<Question>,
}

#[derive(Debug)]
struct Question {
    /// Contexts of the read indexes that were asked for, the last of them at `asked`.
    contexts: Vec<u64>,
    asked: Option<Now>,
}

impl Office {
    /// Begins to doubt: what was asked before counts no more.
    pub(crate) fn doubt(&mut self) {
        self.question = Some(Question { contexts: Vec::new(), asked: None });
    }

    /// Ends the doubt: this member leads no more.
    pub(crate) fn settle(&mut self) {
        self.question = None;
    }

    /// Returns the context to ask a read index with, if it is time to ask. `fresh` makes contexts never used before.
    pub(crate) fn ask(&mut self, now: Now, fresh: impl FnOnce() -> u64) -> Option<u64> {
        let question = self.question.as_mut()?;
        if question.asked.is_some_and(|asked| now.0.saturating_sub(asked.0) < RETRY) {
            return None;
        }
        let context = fresh();
        question.contexts.push(context);
        question.asked = Some(now);
        Some(context)
    }

    /// Takes an answer; tells whether it ends the doubt.
    pub(crate) fn confirm(&mut self, context: u64) -> bool {
        self.question.take_if(|question| question.contexts.contains(&context)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_since_the_doubt_began_ends_it() {
        let at = |ms| Now(Duration::from_millis(ms));
        let mut office = Office::default();
        assert_eq!(office.ask(at(0), || 1), None, "no doubt");
        office.doubt();
        assert_eq!(office.ask(at(0), || 1), Some(1));
        assert_eq!(office.ask(at(100), || 2), None);
        office.doubt();
        assert_eq!(office.ask(at(100), || 2), Some(2));
        assert!(!office.confirm(1));
        assert_eq!(office.ask(at(600), || 3), Some(3));
        assert!(office.confirm(2) && !office.confirm(3));
        office.doubt();
        office.settle();
        assert_eq!(office.ask(at(700), || 4), None);
    }
}
