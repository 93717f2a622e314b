//! What was asked and answered, and the trace of a run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use node::Token;

use crate::workload::Ask;

/// A request without an answer.
#[derive(Debug)]
pub struct Open {
    /// Whom.
    pub member: usize,
    /// Who asks.
    pub client: usize,
    /// What.
    pub ask: Ask,
    /// The request's id in the log, for what goes there.
    pub id: u64,
    /// When.
    pub since: Duration,
    /// The highest revision that anyone had been told by then.
    pub floor: i64,
    /// The highest index of an entry that anyone had been told of by then.
    pub floor_index: u64,
}

/// How requests ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// With an answer.
    pub answered: u64,
    /// With a refusal.
    pub refused: u64,
    /// With a failure: the member said that it could not.
    pub failed: u64,
    /// With the member: nobody knows.
    pub unknown: u64,
}

/// All requests of a run.
#[derive(Debug, Default)]
pub struct History {
    tokens: u64,
    open: BTreeMap<Token, Open>,
    /// How requests ended.
    pub counts: Counts,
    /// The highest revision that anyone was told.
    pub told: i64,
}

impl History {
    /// Notes a request, and returns the token under which its answer comes.
    pub fn ask(&mut self, open: Open) -> Token {
        self.tokens += 1;
        let token = Token(self.tokens);
        self.open.insert(token, open);
        token
    }

    /// Returns the request that is answered; `None` when nobody waits for it.
    pub fn get(&self, token: Token) -> Option<&Open> {
        self.open.get(&token)
    }

    /// Takes the request that is answered; `None` when nobody waits for it.
    pub fn answer(&mut self, token: Token) -> Option<Open> {
        self.open.remove(&token)
    }

    /// Counts the requests without an answer.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Returns the oldest request without an answer.
    pub fn oldest(&self) -> Option<&Open> {
        self.open.values().next()
    }

    /// Leaves all open requests to `member` open for good: the process that would answer is gone. Returns who waits in
    /// vain.
    pub fn leave_open(&mut self, member: usize) -> Vec<usize> {
        let mut clients = Vec::new();
        self.open.retain(|_, open| {
            let is_lost = open.member == member;
            if is_lost {
                clients.push(open.client);
            }
            !is_lost
        });
        self.counts.unknown += clients.len() as u64;
        clients
    }
}

/// What happens in a run, line by line; two runs of a seed have the same.
#[derive(Debug, Default)]
pub struct Trace {
    is_kept: bool,
    text: String,
}

impl Trace {
    /// Makes a trace; one that is not kept costs nothing.
    pub fn new(is_kept: bool) -> Self {
        Self { is_kept, text: String::new() }
    }

    /// Adds a line if the trace is kept.
    pub fn line(&mut self, now: Duration, what: impl FnOnce() -> String) {
        if self.is_kept {
            let written = writeln!(self.text, "{:>12.6} {}", now.as_secs_f64(), what());
            debug_assert!(written.is_ok(), "text in memory takes any line");
        }
    }

    /// Returns the whole trace.
    pub fn into_text(self) -> String {
        self.text
    }
}
