//! When the backend thread gets work.
//!
//! Commits are gathered: one follows another only after a pause, or when enough has gathered, or when something waits
//! for what it makes durable. Steps of a compaction and of a defragmentation are spaced, so that commits and reads get their
//! turn: back to back, they would take a processor until they are done. A defragmentation has one step under way at a time,
//! and a commit that is due comes before the next.

use std::time::Duration;

use machine::{BackendJob, Defragmentation, Machine};

use crate::config::BackendConfig;
use crate::{Answer, Completion, Failure, Now, Token};

/// Callers that wait for a defragmentation, at most; what exceeds it is refused.
const DEFRAGMENT_WAITING_MAX: usize = 1024;

/// Hands out jobs, and remembers who waits for them.
#[derive(Debug)]
pub(crate) struct BackendPace {
    config: BackendConfig,
    last_commit: Now,
    is_commit_wanted: bool,
    compact_steps: Ration,
    defragment_steps: Ration,
    /// Who waits for the defragmentation under way; nobody while there is none.
    defragmenting: Vec<Token>,
    /// Whether a step of it is under way.
    is_stepping: bool,
    /// Who came later: they wait for the next one, together.
    defragment_next: Vec<Token>,
}

impl BackendPace {
    pub(crate) fn new(config: BackendConfig, tick: Duration) -> Self {
        let compact_steps = Ration::new(tick, config.compaction_pause);
        let defragment_steps = Ration::new(tick, config.defragment_pause);
        Self {
            config,
            last_commit: Now::default(),
            is_commit_wanted: false,
            compact_steps,
            defragment_steps,
            defragmenting: Vec::new(),
            is_stepping: false,
            defragment_next: Vec::new(),
        }
    }

    /// Lets the next commit follow at once.
    pub(crate) fn want_commit(&mut self) {
        self.is_commit_wanted = true;
    }

    /// Asks for a defragmentation that begins from now on. Tells why it is refused if it is.
    pub(crate) fn want_defragment(&mut self, token: Token) -> Result<(), Failure> {
        if self.defragmenting.len() + self.defragment_next.len() >= DEFRAGMENT_WAITING_MAX {
            return Err(Failure::TooManyRequests);
        }
        self.defragment_next.push(token);
        Ok(())
    }

    /// Lets a tick pass.
    pub(crate) fn tick(&mut self) {
        self.compact_steps.refill();
        self.defragment_steps.refill();
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
            jobs.push(commit);
        }
        if self.compact_steps.left > 0
            && let Some(step) = machine.take_compact_step()
        {
            self.compact_steps.left -= 1;
            jobs.push(step);
        }
        if self.defragmenting.is_empty() {
            self.defragmenting = std::mem::take(&mut self.defragment_next);
        }
        if !self.defragmenting.is_empty() && !self.is_stepping && self.defragment_steps.left > 0 {
            self.defragment_steps.left -= 1;
            self.is_stepping = true;
            jobs.push(machine.take_defragment_step());
        }
        jobs
    }

    /// Takes what a step of a defragmentation has led to; answers go to `completions`.
    pub(crate) fn defragment_stepped(
        &mut self,
        step: Defragmentation,
        completions: &mut Vec<Completion>,
    ) {
        self.is_stepping = false;
        let is_done = match step {
            Defragmentation::GoesOn => return,
            Defragmentation::Done => true,
            Defragmentation::GivenUp(fault) => {
                tracing::warn!(%fault, "a defragmentation was given up");
                false
            }
        };
        completions.extend(self.defragmenting.drain(..).map(|token| {
            let failed = Answer::Failed(Failure::DefragmentGivenUp);
            Completion { token, answer: if is_done { Answer::Defragmented } else { failed } }
        }));
    }

    /// Forgets what is under way for a state whose place another one has taken. Who waits for a defragmentation waits for
    /// the other one's.
    pub(crate) fn begin_anew(&mut self) {
        self.is_stepping = false;
        let mut waiting = std::mem::take(&mut self.defragmenting);
        waiting.append(&mut self.defragment_next);
        self.defragment_next = waiting;
    }

    /// Takes everyone who waits for a job.
    pub(crate) fn take_all(&mut self) -> Vec<Token> {
        self.defragmenting.drain(..).chain(self.defragment_next.drain(..)).collect()
    }
}

/// Steps that may go back to back. Time passes in ticks only: each brings as many steps as fit between it and the next,
/// with their pauses. A few are kept while there is nothing to do, so that what is small is done at once.
#[derive(Debug)]
struct Ration {
    per_tick: u32,
    left: u32,
}

/// Steps that are kept at most, if a tick does not bring more.
const STEPS_KEPT_MAX: u32 = 4;

impl Ration {
    fn new(tick: Duration, pause: Duration) -> Self {
        let steps = tick.as_nanos().checked_div(pause.as_nanos());
        let per_tick =
            steps.map_or(u32::MAX, |steps| u32::try_from(steps).unwrap_or(u32::MAX).max(1));
        Self { per_tick, left: per_tick.max(STEPS_KEPT_MAX) }
    }

    fn refill(&mut self) {
        let kept = self.left.saturating_add(self.per_tick);
        self.left = kept.min(self.per_tick.max(STEPS_KEPT_MAX));
    }
}
