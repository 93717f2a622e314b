//! Lease requests that the leader answers from memory, and those among them that have to wait.

use machine::lease::{Lessor, Renewal};

use crate::{Answer, Completion, Failure, LeaseRequest, LeaseRequestKind, Now};

/// Lease requests that wait, at most; what exceeds it is refused.
const WAITING_MAX: usize = 1 << 16;

/// Requests that wait for something to be applied.
#[derive(Debug, Default)]
pub(crate) struct LeaseDesk {
    waiting: Vec<Waiting>,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    request: LeaseRequest,
    since: Now,
    /// What has to be applied first; 0 when the request waits for a revocation.
    index: u64,
}

/// What a request meets.
#[derive(Debug)]
pub(crate) struct Counter<'a> {
    pub(crate) lessor: &'a mut Lessor,
    pub(crate) now: Now,
    pub(crate) revision: i64,
    pub(crate) committed: u64,
    pub(crate) applied: u64,
}

impl LeaseDesk {
    /// Takes requests; answers go to `completions`, at once or later. Returns leases whose checkpoint has to be cleared.
    pub(crate) fn take(
        &mut self,
        requests: Vec<LeaseRequest>,
        counter: &mut Counter<'_>,
        completions: &mut Vec<Completion>,
    ) -> Vec<i64> {
        let index = counter.committed;
        let mut clear = Vec::new();
        for request in requests {
            let waiting = Waiting { request, since: counter.now, index };
            self.serve(waiting, counter, completions, &mut clear);
        }
        clear
    }

    /// Looks at the waiting requests again, after something was applied. Returns as [`LeaseDesk::take`] does.
    pub(crate) fn retry(
        &mut self,
        counter: &mut Counter<'_>,
        completions: &mut Vec<Completion>,
    ) -> Vec<i64> {
        let mut clear = Vec::new();
        for waiting in std::mem::take(&mut self.waiting) {
            self.serve(waiting, counter, completions, &mut clear);
        }
        clear
    }

    /// Tells whether requests wait.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Fails requests that came `timeout` ago.
    pub(crate) fn expire(
        &mut self,
        now: Now,
        timeout: std::time::Duration,
        completions: &mut Vec<Completion>,
    ) {
        self.waiting.retain(|waiting| {
            let is_late = now.0.saturating_sub(waiting.since.0) >= timeout;
            if is_late {
                completions.push(failed(waiting.request, Failure::TimedOut));
            }
            !is_late
        });
    }

    /// Fails all waiting requests.
    pub(crate) fn fail_all(&mut self, failure: Failure, completions: &mut Vec<Completion>) {
        completions.extend(self.waiting.drain(..).map(|waiting| failed(waiting.request, failure)));
    }

    fn serve(
        &mut self,
        waiting: Waiting,
        counter: &mut Counter<'_>,
        completions: &mut Vec<Completion>,
        clear: &mut Vec<i64>,
    ) {
        let answer = match waiting.request.kind {
            LeaseRequestKind::KeepAlive { id } => keep_alive(id, waiting.index, counter, clear),
            LeaseRequestKind::TimeToLive { id, keys } => {
                time_to_live(id, keys, waiting.index, counter)
            }
            // Every member answers for what it knows.
            LeaseRequestKind::Leases => Some(Answer::Leases(counter.lessor.list())),
        };
        match answer {
            Some(answer) => completions.push(Completion { token: waiting.request.token, answer }),
            None if self.waiting.len() < WAITING_MAX => self.waiting.push(waiting),
            None => completions.push(failed(waiting.request, Failure::TooManyRequests)),
        }
    }
}

fn failed(request: LeaseRequest, failure: Failure) -> Completion {
    Completion { token: request.token, answer: Answer::Failed(failure) }
}

/// Renews a lease; `None` when the answer has to wait.
fn keep_alive(
    id: i64,
    index: u64,
    counter: &mut Counter<'_>,
    clear: &mut Vec<i64>,
) -> Option<Answer> {
    let revision = counter.revision;
    match counter.lessor.renew(counter.now.0, id) {
        Renewal::Renewed { ttl, clear_checkpoint } => {
            if clear_checkpoint {
                clear.push(id);
            }
            Some(Answer::KeptAlive { ttl, revision })
        }
        // It may be granted by an entry that is committed and not applied yet.
        Renewal::Unknown if counter.applied < index => None,
        Renewal::Unknown => Some(Answer::KeptAlive { ttl: 0, revision }),
        Renewal::Expired => None,
        Renewal::NotPrimary => Some(Answer::Failed(Failure::NotPrimary)),
    }
}

/// Tells a lease's times; `None` when the answer has to wait.
fn time_to_live(id: i64, keys: bool, index: u64, counter: &mut Counter<'_>) -> Option<Answer> {
    if !counter.lessor.is_primary() {
        return Some(Answer::Failed(Failure::NotPrimary));
    }
    if counter.applied < index {
        return None;
    }
    let Some(times) = counter.lessor.time_to_live(counter.now.0, id) else {
        return Some(Answer::TimeToLive { ttl: -1, granted_ttl: 0, keys: Vec::new() });
    };
    let keys = if keys {
        counter.lessor.keys(id).map(bytes::Bytes::copy_from_slice).collect()
    } else {
        Vec::new()
    };
    let ttl = times.remaining.unwrap_or(times.granted);
    Some(Answer::TimeToLive { ttl, granted_ttl: times.granted, keys })
}
