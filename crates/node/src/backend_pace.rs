//! When the backend thread gets work.
//!
//! Commits are gathered: one follows another only after a pause, or when enough has gathered, or when something waits
//! for what it makes durable. Steps of a compaction are spaced, so that commits and reads get their turn.

use std::collections::VecDeque;
use std::time::Duration;

use machine::{BackendJob, Machine};

use crate::config::BackendConfig;
use crate::{Now, Token};

/// Hands out jobs, and remembers them until they are done.
#[derive(Debug)]
pub(crate) struct BackendPace {
    config: BackendConfig,
    last_commit: Now,
    is_commit_wanted: bool,
    steps_per_tick: u32,
    steps_left: u32,
    defragment: VecDeque<Token>,
    /// Whom to answer when each job is done, oldest first.
    under_way: VecDeque<Option<Token>>,
}

impl BackendPace {
    pub(crate) fn new(config: BackendConfig, tick: Duration) -> Self {
        // Time passes in ticks only: so many steps go back to back as would fit between two ticks with their pauses.
        let steps = tick.as_nanos().checked_div(config.compaction_pause.as_nanos());
        let steps_per_tick =
            steps.map_or(u32::MAX, |steps| u32::try_from(steps).unwrap_or(u32::MAX).max(1));
        Self {
            config,
            last_commit: Now::default(),
            is_commit_wanted: false,
            steps_per_tick,
            steps_left: steps_per_tick,
            defragment: VecDeque::new(),
            under_way: VecDeque::new(),
        }
    }

    /// Lets the next commit follow at once.
    pub(crate) fn want_commit(&mut self) {
        self.is_commit_wanted = true;
    }

    /// Puts a defragmentation behind what is under way.
    pub(crate) fn want_defragment(&mut self, token: Token) {
        self.defragment.push_back(token);
    }

    /// Lets a tick pass.
    pub(crate) fn tick(&mut self) {
        self.steps_left = self.steps_per_tick;
    }

    /// Takes the jobs that are due.
    pub(crate) fn jobs(&mut self, machine: &mut Machine, now: Now) -> Vec<BackendJob> {
        let mut jobs = Vec::new();
        let is_due = self.is_commit_wanted
            || now.0.saturating_sub(self.last_commit.0) >= self.config.commit_interval
            || machine.tail_bytes() >= self.config.commit_bytes
            || machine.tail_is_full();
        if is_due && let Some(commit) = machine.take_commit() {
            self.last_commit = now;
            self.is_commit_wanted = false;
            self.under_way.push_back(None);
            jobs.push(commit);
        }
        if self.steps_left > 0
            && let Some(step) = machine.take_compact_step()
        {
            self.steps_left -= 1;
            self.under_way.push_back(None);
            jobs.push(step);
        }
        while let Some(token) = self.defragment.pop_front() {
            self.under_way.push_back(Some(token));
            jobs.push(machine.take_defragment());
        }
        jobs
    }

    /// Notes that the oldest job is done; returns whom to answer.
    pub(crate) fn done(&mut self) -> Option<Token> {
        self.under_way.pop_front().flatten()
    }

    /// Takes everyone who waits for a job.
    pub(crate) fn take_all(&mut self) -> Vec<Token> {
        self.defragment.drain(..).chain(self.under_way.drain(..).flatten()).collect()
    }
}
