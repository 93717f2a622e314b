//! Writes all the time through each member in turn, whether earlier ones were answered or not.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::harness::api::Api;

/// What passes between two attempts.
const INTERVAL: Duration = Duration::from_millis(10);
/// How long an attempt may take; by then others have been answered.
const PATIENCE: Duration = Duration::from_secs(20);
/// Attempts that wait for an answer at the same time; no more are made meanwhile.
const OPEN_MAX: usize = 3000;

/// A running prober.
pub(super) struct Probe {
    state: Rc<State>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    /// Beginning and end of each acknowledged write, by end.
    acknowledged: RefCell<Vec<(Instant, Instant)>>,
    open: Cell<usize>,
    progress: Notify,
}

impl Probe {
    pub(super) fn start(members: &[Api], round: u64) -> Self {
        let state = Rc::new(State::default());
        let members: Vec<Api> = members.iter().map(|api| api.within(PATIENCE)).collect();
        let task = tokio::task::spawn_local(probe(members, round, Rc::clone(&state)));
        Self { state, task }
    }

    /// Waits for the first acknowledged write that began after `moment`; returns how long after that it was acknowledged.
    pub(super) async fn first_after(
        &self,
        moment: Instant,
        patience: Duration,
    ) -> Option<Duration> {
        let found = async {
            loop {
                if let Some(took) = first_after(&self.state.acknowledged.borrow(), moment) {
                    return took;
                }
                self.state.progress.notified().await;
            }
        };
        tokio::time::timeout(patience, found).await.ok()
    }

    /// Ends the prober; returns the longest time without an acknowledged write after `moment`.
    pub(super) fn stop(self, moment: Instant) -> Duration {
        self.task.abort();
        longest_gap(&self.state.acknowledged.borrow(), moment)
    }
}

async fn probe(members: Vec<Api>, round: u64, state: Rc<State>) {
    let mut interval = tokio::time::interval(INTERVAL);
    for number in 0.. {
        interval.tick().await;
        if state.open.get() >= OPEN_MAX {
            continue;
        }
        let api = members[number % members.len()].clone();
        let state = Rc::clone(&state);
        state.open.set(state.open.get() + 1);
        tokio::task::spawn_local(async move {
            let begin = Instant::now();
            let key = format!("probe/{}", number % 100);
            let answer = api.put(&key, &format!("{round} {number}")).await;
            state.open.set(state.open.get() - 1);
            if answer.is_ok() {
                state.acknowledged.borrow_mut().push((begin, Instant::now()));
                state.progress.notify_one();
            }
        });
    }
}

fn first_after(acknowledged: &[(Instant, Instant)], moment: Instant) -> Option<Duration> {
    let after = acknowledged.iter().filter(|(begin, _)| *begin >= moment);
    Some(after.map(|(_, end)| *end).min()?.duration_since(moment))
}

fn longest_gap(acknowledged: &[(Instant, Instant)], moment: Instant) -> Duration {
    let mut last = moment;
    let mut longest = Duration::ZERO;
    for (_, end) in acknowledged.iter().filter(|(_, end)| *end >= moment) {
        longest = longest.max(end.saturating_duration_since(last));
        last = *end;
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_between_acknowledgements_and_the_first_write_begins_after_the_fault() {
        let zero = Instant::now();
        let at = |milliseconds| zero + Duration::from_millis(milliseconds);
        let acknowledged = [(at(0), at(5)), (at(8), at(12)), (at(20), at(40)), (at(30), at(41))];
        assert_eq!(first_after(&acknowledged, at(10)), Some(Duration::from_millis(30)));
        assert_eq!(first_after(&acknowledged, at(50)), None);
        assert_eq!(longest_gap(&acknowledged, at(10)), Duration::from_millis(28));
        assert_eq!(longest_gap(&acknowledged, at(50)), Duration::ZERO);
    }
}
