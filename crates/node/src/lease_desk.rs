//! Lease requests that the leader answers from memory, and those among them that have to wait.
//!
//! A request waits for an index to be applied, or for an expired lease to be revoked, and is not looked at before: a burst
//! costs what became ready in it, however many wait.
//!
//! Lists, of all leases or of a lease's keys, are made at the end of a burst, once for all who ask for the same, and only as
//! many as [`LISTS_BYTES_MAX`] allows: who asks for further ones waits for the next burst.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use machine::lease::{Lessor, Renewal};

use crate::{Answer, Completion, Failure, LeaseIds, LeaseRequest, LeaseRequestKind, Now};

/// Lease requests that wait, at most; what exceeds it is refused.
const WAITING_MAX: usize = 1 << 16;

/// Bytes of lists that are given out in one burst: the last list may pass it. Who gets one writes it out anew, even if it
/// is shared here.
const LISTS_BYTES_MAX: usize = 8 << 20;

/// Requests that wait: for something to be applied, or for their turn.
#[derive(Debug)]
pub(crate) struct LeaseDesk {
    /// Whether leases that are known are renewed before what is committed is applied.
    renews_at_once: bool,
    /// Requests by the index that has to be applied first, and by arrival.
    for_index: BTreeMap<(u64, u64), Waiting>,
    /// Keep-alives by the expired lease that has to be revoked first, and by arrival.
    for_revocation: BTreeMap<(i64, u64), Waiting>,
    /// Requests for lists, by arrival.
    for_list: VecDeque<Waiting>,
    /// Requests by arrival that wait until it is known whether this member is still primary.
    for_office: VecDeque<Waiting>,
    /// Whether that is in doubt.
    is_doubted: bool,
    /// Until when it is not.
    trusted: Now,
    arrivals: u64,
    /// The lessor's reign in which requests began to wait.
    reign: u64,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    request: LeaseRequest,
    since: Now,
    /// What was committed when the request came.
    index: u64,
    /// How many requests came before.
    arrival: u64,
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// The end of a burst in which there is room for a list.
    List,
    /// Its index is applied.
    Applied,
    /// This lease is revoked.
    Revoked(i64),
    /// It is known whether this member is primary.
    Confirmed,
}

/// Lists that were made in this burst.
#[derive(Debug, Default)]
struct Lists {
    leases: Option<LeaseIds>,
    /// Keys of the lease that was asked for last.
    keys: Option<(i64, Vec<Bytes>)>,
    /// Bytes given out.
    bytes: usize,
}

impl Lists {
    fn leases(&mut self, lessor: &Lessor) -> Answer {
        let ids = self.leases.get_or_insert_with(|| lessor.list().into());
        self.bytes += size_of_val::<[i64]>(ids);
        Answer::Leases(ids.clone())
    }

    fn keys(&mut self, lessor: &Lessor, id: i64) -> Vec<Bytes> {
        let is_known = self.keys.as_ref().is_some_and(|(known, _)| *known == id);
        if !is_known {
            self.keys = Some((id, lessor.keys(id).map(Bytes::copy_from_slice).collect()));
        }
        let keys = self.keys.as_ref().map_or_else(Vec::new, |(_, keys)| keys.clone());
        self.bytes += keys.iter().map(|key| size_of::<Bytes>() + key.len()).sum::<usize>();
        keys
    }
}

/// What a request meets.
#[derive(Debug)]
pub(crate) struct Counter<'a> {
    pub(crate) lessor: &'a mut Lessor,
    pub(crate) now: Now,
    /// The time of leases.
    pub(crate) lease_now: machine::lease::Now,
    pub(crate) revision: i64,
    pub(crate) committed: u64,
    pub(crate) applied: u64,
}

impl Counter<'_> {
    /// Tells whether something up to `index` is still to be applied, by a member that answers at all.
    fn is_behind_as_primary(&self, index: u64) -> bool {
        self.lessor.is_primary() && self.applied < index
    }
}

impl LeaseDesk {
    pub(crate) fn new(renews_at_once: bool) -> Self {
        Self {
            renews_at_once,
            for_index: BTreeMap::new(),
            for_revocation: BTreeMap::new(),
            for_list: VecDeque::new(),
            for_office: VecDeque::new(),
            is_doubted: false,
            trusted: Now::default(),
            arrivals: 0,
            reign: 0,
        }
    }

    /// Answers nothing that only a primary can tell, until the doubt is over.
    pub(crate) fn doubt(&mut self) {
        self.is_doubted = true;
        let (in_doubt, lists) =
            std::mem::take(&mut self.for_list).into_iter().partition(|waiting| {
                matches!(waiting.request.kind, LeaseRequestKind::TimeToLive { .. })
            });
        self.for_list = lists;
        self.for_office.extend::<VecDeque<_>>(in_doubt);
    }

    /// Answers, at the end of the burst, what came before `asked`; or everything from now on, if the doubt is over.
    pub(crate) fn trust(&mut self, asked: Now, is_over: bool) {
        self.is_doubted &= !is_over;
        self.trusted = self.trusted.max(asked);
    }

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
            self.arrivals += 1;
            let waiting = Waiting { request, since: counter.now, index, arrival: self.arrivals };
            self.serve(waiting, counter, completions, &mut clear);
        }
        clear
    }

    /// Looks again at the requests whose time has come, after something was applied, and gives out lists: the end of a
    /// burst. Returns as [`LeaseDesk::take`] does.
    pub(crate) fn retry(
        &mut self,
        counter: &mut Counter<'_>,
        completions: &mut Vec<Completion>,
    ) -> Vec<i64> {
        let revoked = counter.lessor.take_revoked();
        let reign = counter.lessor.reign();
        let ready = if std::mem::replace(&mut self.reign, reign) == reign {
            let mut ready = self.take_ready(&revoked, counter.applied);
            let (is_doubted, trusted) = (self.is_doubted, self.trusted);
            // They are in the order of their arrival.
            let is_settled = |waiting: &mut Waiting| !is_doubted || waiting.since < trusted;
            while let Some(waiting) = self.for_office.pop_front_if(is_settled) {
                ready.push(waiting);
            }
            ready
        } else {
            // Leases that had expired live on, or nobody here knows.
            self.take_all()
        };
        let mut clear = Vec::new();
        for waiting in ready {
            self.serve(waiting, counter, completions, &mut clear);
        }
        self.give_lists(counter, completions);
        clear
    }

    fn give_lists(&mut self, counter: &mut Counter<'_>, completions: &mut Vec<Completion>) {
        let mut lists = Lists::default();
        while lists.bytes < LISTS_BYTES_MAX
            && let Some(waiting) = self.for_list.pop_front()
        {
            let answer = match waiting.request.kind {
                LeaseRequestKind::TimeToLive { id, .. } => {
                    time_to_live(id, Some(&mut lists), counter)
                }
                // Every member answers for what it knows.
                LeaseRequestKind::Leases => lists.leases(counter.lessor),
                LeaseRequestKind::KeepAlive { .. } => unreachable!("it asks for no list"),
            };
            completions.push(Completion { token: waiting.request.token, answer });
        }
    }

    fn take_ready(&mut self, revoked: &[i64], applied: u64) -> Vec<Waiting> {
        let applied = self.for_index.extract_if(..=(applied, u64::MAX), |_, _| true);
        let mut ready: Vec<Waiting> = applied.map(|(_, waiting)| waiting).collect();
        for &lease in revoked {
            let keys = (lease, 0)..=(lease, u64::MAX);
            ready.extend(
                self.for_revocation.extract_if(keys, |_, _| true).map(|(_, waiting)| waiting),
            );
        }
        ready
    }

    /// Takes all waiting requests, in the order in which they came.
    fn take_all(&mut self) -> Vec<Waiting> {
        let for_index = std::mem::take(&mut self.for_index).into_values();
        let for_revocation = std::mem::take(&mut self.for_revocation).into_values();
        let lists = std::mem::take(&mut self.for_list).into_iter();
        let for_office = std::mem::take(&mut self.for_office);
        let others = lists.chain(for_office);
        let mut all: Vec<Waiting> = for_index.chain(for_revocation).chain(others).collect();
        all.sort_unstable_by_key(|waiting| waiting.arrival);
        all
    }

    /// Fails requests that came `timeout` ago.
    pub(crate) fn expire(
        &mut self,
        now: Now,
        timeout: std::time::Duration,
        completions: &mut Vec<Completion>,
    ) {
        let mut is_in_time = |waiting: &Waiting| {
            let is_late = now.0.saturating_sub(waiting.since.0) >= timeout;
            if is_late {
                completions.push(failed(waiting.request, Failure::TimedOut));
            }
            !is_late
        };
        self.for_index.retain(|_, waiting| is_in_time(waiting));
        self.for_revocation.retain(|_, waiting| is_in_time(waiting));
        self.for_list.retain(&mut is_in_time);
        self.for_office.retain(is_in_time);
    }

    /// Fails all waiting requests.
    pub(crate) fn fail_all(&mut self, failure: Failure, completions: &mut Vec<Completion>) {
        let all = self.take_all().into_iter();
        completions.extend(all.map(|waiting| failed(waiting.request, failure)));
    }

    fn serve(
        &mut self,
        waiting: Waiting,
        counter: &mut Counter<'_>,
        completions: &mut Vec<Completion>,
        clear: &mut Vec<i64>,
    ) {
        let answer = match waiting.request.kind {
            LeaseRequestKind::KeepAlive { .. } | LeaseRequestKind::TimeToLive { .. }
                if self.is_doubted
                    && waiting.since >= self.trusted
                    && counter.lessor.is_primary() =>
            {
                // It came in time, whatever it is told; if this member leads no more, that has no effect.
                if let LeaseRequestKind::KeepAlive { id } = waiting.request.kind
                    && let Renewal::Renewed { clear_checkpoint: true, .. } =
                        counter.lessor.renew(counter.lease_now, id)
                {
                    clear.push(id);
                }
                Err(Until::Confirmed)
            }
            LeaseRequestKind::KeepAlive { .. }
                if !self.renews_at_once && counter.is_behind_as_primary(waiting.index) =>
            {
                Err(Until::Applied)
            }
            LeaseRequestKind::KeepAlive { id } => keep_alive(id, waiting.index, counter, clear),
            LeaseRequestKind::TimeToLive { id, keys } => {
                if !counter.lessor.is_primary() {
                    Ok(Answer::Failed(Failure::NotPrimary))
                } else if counter.applied < waiting.index {
                    Err(Until::Applied)
                } else if keys {
                    Err(Until::List)
                } else {
                    Ok(time_to_live(id, None, counter))
                }
            }
            LeaseRequestKind::Leases => Err(Until::List),
        };
        match answer {
            Ok(answer) => completions.push(Completion { token: waiting.request.token, answer }),
            Err(_) if self.waiting() >= WAITING_MAX => {
                completions.push(failed(waiting.request, Failure::TooManyRequests));
            }
            Err(Until::List) => self.for_list.push_back(waiting),
            Err(Until::Confirmed) => self.for_office.push_back(waiting),
            Err(Until::Applied) => {
                self.for_index.insert((waiting.index, waiting.arrival), waiting);
            }
            Err(Until::Revoked(lease)) => {
                self.for_revocation.insert((lease, waiting.arrival), waiting);
            }
        }
    }

    fn waiting(&self) -> usize {
        let (lists, office) = (self.for_list.len(), self.for_office.len());
        self.for_index.len() + self.for_revocation.len() + lists + office
    }
}

fn failed(request: LeaseRequest, failure: Failure) -> Completion {
    Completion { token: request.token, answer: Answer::Failed(failure) }
}

/// Renews a lease; or tells what the answer waits for.
fn keep_alive(
    id: i64,
    index: u64,
    counter: &mut Counter<'_>,
    clear: &mut Vec<i64>,
) -> Result<Answer, Until> {
    let revision = counter.revision;
    match counter.lessor.renew(counter.lease_now, id) {
        Renewal::Renewed { ttl, clear_checkpoint } => {
            if clear_checkpoint {
                clear.push(id);
            }
            Ok(Answer::KeptAlive { ttl, revision })
        }
        // It may be granted by an entry that is committed and not applied yet.
        Renewal::Unknown if counter.applied < index => Err(Until::Applied),
        Renewal::Unknown => Ok(Answer::KeptAlive { ttl: 0, revision }),
        Renewal::Expired => Err(Until::Revoked(id)),
        Renewal::NotPrimary => Ok(Answer::Failed(Failure::NotPrimary)),
    }
}

/// Tells a lease's times; and its keys if there are lists to take them from.
fn time_to_live(id: i64, lists: Option<&mut Lists>, counter: &mut Counter<'_>) -> Answer {
    let Some(times) = counter.lessor.time_to_live(counter.lease_now, id) else {
        return Answer::TimeToLive { ttl: -1, granted_ttl: 0, keys: Vec::new() };
    };
    let keys = lists.map_or_else(Vec::new, |lists| lists.keys(counter.lessor, id));
    let ttl = times.remaining.unwrap_or(times.granted);
    Answer::TimeToLive { ttl, granted_ttl: times.granted, keys }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use machine::lease::Options;

    use super::*;
    use crate::Token;

    struct Bench {
        desk: LeaseDesk,
        lessor: Lessor,
        committed: u64,
        applied: u64,
    }

    impl Bench {
        /// A desk whose primary has leases 1 and 2, of five seconds.
        fn new() -> Self {
            let mut lessor = Lessor::new(Options::default());
            lessor.promote(Duration::ZERO, Duration::ZERO);
            for id in [1, 2] {
                lessor.grant(id, 5).expect("it is new");
            }
            Self { desk: LeaseDesk::new(true), lessor, committed: 0, applied: 0 }
        }

        fn with_desk(
            &mut self,
            work: impl FnOnce(&mut LeaseDesk, &mut Counter<'_>, &mut Vec<Completion>) -> Vec<i64>,
        ) -> Vec<(u64, String)> {
            let mut completions = Vec::new();
            let mut counter = Counter {
                lessor: &mut self.lessor,
                now: Now::default(),
                lease_now: Duration::ZERO,
                revision: 7,
                committed: self.committed,
                applied: self.applied,
            };
            work(&mut self.desk, &mut counter, &mut completions);
            completions
                .into_iter()
                .map(|done| (done.token.0, format!("{:?}", done.answer)))
                .collect()
        }

        fn ask(&mut self, token: u64, kind: LeaseRequestKind) -> Vec<(u64, String)> {
            let request = LeaseRequest { token: Token(token), kind };
            self.with_desk(|desk, counter, out| desk.take(vec![request], counter, out))
        }

        fn keep_alive(&mut self, token: u64, id: i64) -> Vec<(u64, String)> {
            self.ask(token, LeaseRequestKind::KeepAlive { id })
        }

        fn retry(&mut self) -> Vec<(u64, String)> {
            self.with_desk(LeaseDesk::retry)
        }
    }

    fn kept(ttl: i64) -> String {
        format!("{:?}", Answer::KeptAlive { ttl, revision: 7 })
    }

    #[test]
    fn a_request_is_not_looked_at_before_its_index_is_applied() {
        let mut bench = Bench::new();
        bench.retry();
        (bench.committed, bench.applied) = (10, 8);
        assert_eq!(bench.keep_alive(1, 30), []);
        bench.committed = 11;
        assert_eq!(bench.keep_alive(2, 40), []);
        // It would find its lease, had it been looked at.
        bench.lessor.grant(30, 5).expect("it is new");
        bench.applied = 9;
        assert_eq!(bench.retry(), []);
        bench.applied = 10;
        assert_eq!(bench.retry(), [(1, kept(5))]);
        bench.applied = 11;
        assert_eq!(bench.retry(), [(2, kept(0))]);
        assert_eq!(bench.desk.waiting(), 0);
    }

    #[test]
    fn renewals_of_known_leases_wait_only_where_they_are_asked_to() {
        for renews_at_once in [true, false] {
            let mut bench = Bench::new();
            bench.desk = LeaseDesk::new(renews_at_once);
            bench.retry();
            (bench.committed, bench.applied) = (10, 9);
            let at_once = bench.keep_alive(1, 1);
            bench.applied = 10;
            let later = bench.retry();
            let answer = vec![(1, kept(5))];
            let expected = if renews_at_once { (answer, vec![]) } else { (vec![], answer) };
            assert_eq!((at_once, later), expected);
        }
    }

    #[test]
    fn who_renews_an_expired_lease_waits_for_its_revocation_alone() {
        let mut bench = Bench::new();
        bench.retry();
        bench.lessor.tick(Duration::from_secs(6));
        assert_eq!(bench.keep_alive(1, 1), []);
        assert_eq!(bench.keep_alive(2, 2), []);
        assert_eq!(bench.keep_alive(3, 1), []);
        assert_eq!(bench.retry(), []);
        bench.lessor.revoke(1).expect("it is there");
        assert_eq!(bench.retry(), [(1, kept(0)), (3, kept(0))]);
        bench.lessor.revoke(2).expect("it is there");
        assert_eq!(bench.retry(), [(2, kept(0))]);
        assert_eq!(bench.desk.waiting(), 0);
    }

    #[test]
    fn lists_are_made_once_and_given_out_as_far_as_there_is_room() {
        let mut bench = Bench::new();
        bench.retry();
        bench.lessor.attach(1, &vec![b'k'; 3 << 20]).expect("it is there");
        let mut completions = Vec::new();
        let mut counter = Counter {
            lessor: &mut bench.lessor,
            now: Now::default(),
            lease_now: Duration::ZERO,
            revision: 7,
            committed: 0,
            applied: 0,
        };
        let keys = LeaseRequestKind::TimeToLive { id: 1, keys: true };
        let kinds = [LeaseRequestKind::Leases, LeaseRequestKind::Leases, keys, keys, keys, keys];
        let requests =
            (1..).zip(kinds).map(|(token, kind)| LeaseRequest { token: Token(token), kind });
        bench.desk.take(requests.collect(), &mut counter, &mut completions);
        assert!(completions.is_empty(), "lists come at the end of the burst");
        bench.desk.retry(&mut counter, &mut completions);
        let answers: Vec<Answer> = completions.drain(..).map(|done| done.answer).collect();
        let [
            Answer::Leases(first),
            Answer::Leases(second),
            Answer::TimeToLive { keys: one, .. },
            Answer::TimeToLive { keys: other, .. },
            Answer::TimeToLive { .. },
        ] = &answers[..]
        else {
            panic!("too few or too many lists");
        };
        assert_eq!((&first[..], first.as_ptr()), (&[1, 2][..], second.as_ptr()));
        assert_eq!(one[0].as_ptr(), other[0].as_ptr(), "copied once");
        assert_eq!(bench.desk.waiting(), 1);
        bench.desk.retry(&mut counter, &mut completions);
        assert_eq!((completions.len(), bench.desk.waiting()), (1, 0));
    }

    #[test]
    fn all_who_wait_are_looked_at_when_the_lessor_begins_or_ends_to_be_primary() {
        let mut bench = Bench::new();
        bench.retry();
        bench.lessor.tick(Duration::from_secs(6));
        assert_eq!(bench.keep_alive(1, 1), []);
        bench.lessor.promote(Duration::from_secs(6), Duration::ZERO);
        assert_eq!(bench.retry(), [(1, kept(5))]);
        bench.committed = 1;
        assert_eq!(bench.keep_alive(2, 9), []);
        assert_eq!(bench.ask(3, LeaseRequestKind::TimeToLive { id: 1, keys: false }), []);
        bench.lessor.demote();
        let failed = || format!("{:?}", Answer::Failed(Failure::NotPrimary));
        assert_eq!(bench.retry(), [(2, failed()), (3, failed())]);
    }
}
