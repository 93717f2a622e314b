//! Auto-compaction: which revision to compact to, and when. The node proposes what this asks for.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Now;

/// Revisions sampled per compaction interval.
const SAMPLES_PER_INTERVAL: u32 = 10;
const HOUR: Duration = Duration::from_hours(1);
const REVISION_MODE_INTERVAL: Duration = Duration::from_mins(5);

/// How history is compacted without anyone asking.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Not at all.
    #[default]
    Off,
    /// History is kept for this long.
    Periodic(Duration),
    /// This many revisions are kept.
    Revision(i64),
}

/// Keeps the time for [`AutoCompaction`]. Works on all members, and asks for something on the leader only.
#[derive(Debug)]
pub(crate) struct Compactor {
    mode: AutoCompaction,
    next: Duration,
    /// Periodic mode: revisions sampled, oldest first, over one period.
    samples: VecDeque<i64>,
    /// When the last compaction took place, and what has to pass until the next.
    last_success: Duration,
    interval: Duration,
    last_revision: i64,
}

impl Compactor {
    /// Starts at `now`, with the store at `revision`.
    pub(crate) fn new(mode: AutoCompaction, now: Now, revision: i64) -> Self {
        let (period, samples) = match mode {
            AutoCompaction::Periodic(period) => (period, VecDeque::from([revision])),
            AutoCompaction::Off | AutoCompaction::Revision(_) => (Duration::ZERO, VecDeque::new()),
        };
        let mut compactor = Self {
            mode,
            next: now.0,
            samples,
            last_success: now.0,
            interval: period,
            last_revision: 0,
        };
        compactor.next = now.0.saturating_add(compactor.pause());
        compactor
    }

    /// Returns the revision to compact to, if it is time. [`Compactor::done`] tells what became of it.
    pub(crate) fn tick(&mut self, now: Now, revision: i64, is_leader: bool) -> Option<i64> {
        if now.0 < self.next {
            return None;
        }
        self.next = now.0.saturating_add(self.pause());
        let asked = match self.mode {
            AutoCompaction::Off => None,
            AutoCompaction::Periodic(period) => self.periodic(period, now, revision, is_leader),
            AutoCompaction::Revision(keep) => {
                let target = revision.saturating_sub(keep);
                (is_leader && target > 0 && target != self.last_revision).then_some(target)
            }
        };
        if let Some(revision) = asked {
            tracing::info!(revision, mode = ?self.mode, "starting auto compaction");
        }
        asked
    }

    fn periodic(
        &mut self,
        period: Duration,
        now: Now,
        revision: i64,
        is_leader: bool,
    ) -> Option<i64> {
        // As in etcd, the oldest sample is a period and one pause old once the window is full: never too young.
        let oldest = self.samples.front().copied();
        self.samples.push_back(revision);
        if self.samples.len() > self.window(period) {
            self.samples.pop_front();
        }
        let is_due = now.0.saturating_sub(self.last_success) >= self.interval;
        let target =
            oldest.filter(|&oldest| is_leader && is_due && oldest != self.last_revision)?;
        self.interval = period.min(HOUR);
        Some(target)
    }

    /// Reports that the compaction to `revision` took place, or that it had taken place before.
    pub(crate) fn done(&mut self, now: Now, revision: i64) {
        self.last_success = now.0;
        self.last_revision = revision;
    }

    fn pause(&self) -> Duration {
        match self.mode {
            AutoCompaction::Off => Duration::MAX,
            AutoCompaction::Periodic(period) => {
                (period.min(HOUR) / SAMPLES_PER_INTERVAL).max(Duration::from_millis(1))
            }
            AutoCompaction::Revision(_) => REVISION_MODE_INTERVAL,
        }
    }

    fn window(&self, period: Duration) -> usize {
        let samples = period.as_nanos() / self.pause().as_nanos().max(1);
        // A period of 100 years has some nine million samples; nobody configures more.
        usize::try_from(samples).unwrap_or(usize::MAX).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets time pass in steps; one revision per second; returns (second, compacted to).
    fn run(mode: AutoCompaction, seconds: u64, step: u64) -> Vec<(u64, i64)> {
        let mut compactor = Compactor::new(mode, Now::default(), 1);
        let mut asked = Vec::new();
        for second in (step..=seconds).step_by(usize::try_from(step).expect("small")) {
            let now = Now(Duration::from_secs(second));
            let revision = i64::try_from(second).expect("small") + 1;
            if let Some(target) = compactor.tick(now, revision, true) {
                asked.push((second, target));
                compactor.done(now, target);
            }
        }
        asked
    }

    #[test]
    fn a_short_period_compacts_once_per_period_and_keeps_at_least_one_period() {
        let asked = run(AutoCompaction::Periodic(Duration::from_mins(10)), 2000, 1);
        assert_eq!(asked, [(600, 1), (1200, 541), (1800, 1141)]);
    }

    #[test]
    fn a_long_period_compacts_every_hour_after_the_first_period() {
        let asked = run(AutoCompaction::Periodic(Duration::from_hours(2)), 7200 + 2 * 3600, 60);
        assert_eq!(asked, [(7200, 1), (10800, 3241), (14400, 6841)]);
    }

    #[test]
    fn revision_mode_keeps_so_many_revisions() {
        let asked = run(AutoCompaction::Revision(100), 900, 10);
        assert_eq!(asked, [(300, 201), (600, 501), (900, 801)]);
        assert_eq!(run(AutoCompaction::Revision(1000), 900, 10), []);
        assert_eq!(run(AutoCompaction::Off, 900, 10), []);
    }

    #[test]
    fn followers_sample_but_do_not_compact_and_failures_are_tried_again() {
        let mode = AutoCompaction::Periodic(Duration::from_secs(100));
        let mut compactor = Compactor::new(mode, Now::default(), 1);
        for second in 1..=150 {
            let now = Now(Duration::from_secs(second));
            assert_eq!(compactor.tick(now, 50, false), None);
        }
        assert_eq!(compactor.tick(Now(Duration::from_secs(160)), 60, true), Some(50));
        assert_eq!(compactor.tick(Now(Duration::from_secs(170)), 60, true), Some(50));
        compactor.done(Now(Duration::from_secs(170)), 50);
        assert_eq!(compactor.tick(Now(Duration::from_mins(3)), 60, true), None);
    }
}
