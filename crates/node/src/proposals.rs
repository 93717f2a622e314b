//! Proposals on their way: from a caller, through the log, to the outcome.
//!
//! Guarantees: each admitted proposal is answered exactly once, by its outcome or by a failure after the timeout. What
//! has failed may still be applied later: a timeout means that the outcome is unknown. Bounds: [`Limits`], by count
//! and by bytes; what exceeds them is refused at once. The bytes that the log cannot let go of ([`Unsettled`]) are bound
//! likewise, whether somebody still waits for them or not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::unsettled::Unsettled;
use crate::{Failure, Now, Token};

/// How far applying may lag behind committing before proposals are refused, as etcd has it.
pub(crate) const APPLY_LAG_MAX: u64 = 5000;

/// How much may be on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Proposals without an outcome.
    pub count_max: usize,
    /// Their bytes; as many of the log that are not durable or not committed; and as many that are committed and not applied.
    pub bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { count_max: 1 << 16, bytes_max: 256 << 20 }
    }
}

/// Who waits for an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// Somebody outside.
    Caller(Token),
    /// The node itself.
    Own(Purpose),
}

/// What the node itself proposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To publish its name and client URLs.
    Attributes,
    /// To raise the cluster version.
    ClusterVersion,
    /// To raise an alarm because the quota is exceeded.
    NoSpaceAlarm,
    /// To revoke an expired lease.
    LeaseRevoke,
    /// To write the remaining ttls of leases.
    LeaseCheckpoint,
    /// To compact automatically to this revision.
    Compaction(i64),
}

impl Purpose {
    /// Tells whether only a leader may ask for it.
    fn is_for_leaders(self) -> bool {
        #[cfg(feature = "planted-faults")]
        if self == Self::LeaseRevoke
            && crate::fault_hooks::is_planted(crate::fault_hooks::Planted::DeposedPrimary)
        {
            return false;
        }
        match self {
            Self::ClusterVersion
            | Self::LeaseRevoke
            | Self::LeaseCheckpoint
            | Self::Compaction(_) => true,
            Self::Attributes | Self::NoSpaceAlarm => false,
        }
    }
}

/// What the log entry of a proposal holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// An encoded `InternalRaftRequest`.
    Request(Bytes),
    /// An encoded `raftpb.ConfChange`.
    ConfChange(Bytes),
}

impl Content {
    fn len(&self) -> usize {
        match self {
            Self::Request(bytes) | Self::ConfChange(bytes) => bytes.len(),
        }
    }
}

/// One proposal whose outcome is awaited.
#[derive(Debug)]
struct Pending {
    waiter: Waiter,
    since: Now,
    bytes: usize,
}

/// The proposals of this member.
#[derive(Debug)]
pub(crate) struct Proposals {
    limits: Limits,
    timeout: Duration,
    /// By request id.
    pending: BTreeMap<u64, Pending>,
    bytes: usize,
    /// Request ids in the order of admission; those that are answered are passed over.
    order: VecDeque<(Now, u64)>,
    /// Admitted, not given to raft yet.
    queue: VecDeque<(u64, Content)>,
    /// The term in which this member leads, if it does.
    office: Option<u64>,
    /// What became of those that were given to raft, and of other members' entries.
    pub(crate) log: Unsettled,
}

impl Proposals {
    pub(crate) fn new(limits: Limits, timeout: Duration) -> Self {
        Self {
            limits,
            timeout,
            pending: BTreeMap::new(),
            bytes: 0,
            order: VecDeque::new(),
            queue: VecDeque::new(),
            office: None,
            log: Unsettled::default(),
        }
    }

    /// Counts the proposals that wait for their outcome.
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Admits a proposal, or tells why not.
    pub(crate) fn admit(
        &mut self,
        id: u64,
        waiter: Waiter,
        content: Content,
        now: Now,
    ) -> Result<(), Failure> {
        let bytes = content.len();
        let is_full = self.pending.len() >= self.limits.count_max
            || self.is_above(self.bytes, bytes)
            || self.is_above(self.log.bytes(), bytes);
        if is_full || self.pending.contains_key(&id) {
            return Err(Failure::TooManyRequests);
        }
        self.bytes += bytes;
        self.pending.insert(id, Pending { waiter, since: now, bytes });
        self.order.push_back((now, id));
        self.queue.push_back((id, content));
        Ok(())
    }

    /// Returns the bound on bytes of each kind.
    pub(crate) fn bytes_max(&self) -> usize {
        self.limits.bytes_max
    }

    /// Tells whether the log takes so much memory that nothing may be added to it.
    pub(crate) fn log_is_full(&self) -> bool {
        self.log.bytes() > self.limits.bytes_max
    }

    /// Tells whether `more` is too much beside `bytes`. One proposal is always admitted, however large.
    fn is_above(&self, bytes: usize, more: usize) -> bool {
        bytes > 0 && bytes + more > self.limits.bytes_max
    }

    /// Notes in which term this member leads, if it does. What it has admitted as a leader and not given to raft yet ends with
    /// its office: it may lead again, but another leader may have renewed what was to be revoked.
    pub(crate) fn hold_office(&mut self, term: Option<u64>) {
        if std::mem::replace(&mut self.office, term) != term {
            let is_for_leaders = |id: &u64| {
                self.pending.get(id).is_some_and(|pending: &Pending| match pending.waiter {
                    Waiter::Own(purpose) => purpose.is_for_leaders(),
                    Waiter::Caller(_) => false,
                })
            };
            self.queue.retain(|(id, _)| !is_for_leaders(id));
        }
    }

    /// Takes what raft has not been given yet, without what has timed out meanwhile. Unless this member leads, without
    /// what only a leader may ask for: it would be forwarded to a leader that knows better.
    pub(crate) fn take_queue(&mut self, is_leader: bool) -> VecDeque<(u64, Content)> {
        let mut queue = std::mem::take(&mut self.queue);
        queue.retain(|(id, _)| {
            self.pending.get(id).is_some_and(|pending| match pending.waiter {
                Waiter::Own(purpose) => is_leader || !purpose.is_for_leaders(),
                Waiter::Caller(_) => true,
            })
        });
        queue
    }

    /// Lists the requests that wait for their outcome and that raft was given.
    pub(crate) fn given(&self) -> Vec<u64> {
        let queued: BTreeSet<u64> = self.queue.iter().map(|(id, _)| *id).collect();
        self.pending.keys().filter(|id| !queued.contains(id)).copied().collect()
    }

    /// Gives back what raft did not take.
    pub(crate) fn put_back(&mut self, mut queue: VecDeque<(u64, Content)>) {
        queue.append(&mut self.queue);
        self.queue = queue;
    }

    /// Tells whether raft has not been given everything yet.
    pub(crate) fn has_queue(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Takes the waiter of request `id`; `None` if nobody here waits for it.
    pub(crate) fn finish(&mut self, id: u64) -> Option<Waiter> {
        let pending = self.remove(id)?;
        while let Some((_, id)) = self.order.front()
            && !self.pending.contains_key(id)
        {
            self.order.pop_front();
        }
        Some(pending.waiter)
    }

    /// Takes the waiters whose time is over at `now`, with the time they started at.
    pub(crate) fn expire(&mut self, now: Now) -> Vec<(Waiter, Now)> {
        let mut expired = Vec::new();
        while let Some(&(since, id)) = self.order.front() {
            let is_pending = self.pending.contains_key(&id);
            if is_pending && now.0.saturating_sub(since.0) < self.timeout {
                break;
            }
            self.order.pop_front();
            if let Some(pending) = self.remove(id) {
                expired.push((pending.waiter, pending.since));
            }
        }
        expired
    }

    /// Takes all waiters, in the order of admission.
    pub(crate) fn take_all(&mut self) -> Vec<Waiter> {
        let order = std::mem::take(&mut self.order);
        self.queue.clear();
        order.into_iter().filter_map(|(_, id)| Some(self.remove(id)?.waiter)).collect()
    }

    fn remove(&mut self, id: u64) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        self.bytes -= pending.bytes;
        Some(pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposals(count_max: usize, bytes_max: usize) -> Proposals {
        Proposals::new(Limits { count_max, bytes_max }, Duration::from_secs(7))
    }

    fn request(bytes: usize) -> Content {
        Content::Request(vec![0; bytes].into())
    }

    fn at(seconds: u64) -> Now {
        Now(Duration::from_secs(seconds))
    }

    fn caller(id: u64) -> Waiter {
        Waiter::Caller(Token(id))
    }

    #[test]
    fn bounds_by_count_and_bytes_free_up_with_outcomes() {
        let mut proposals = proposals(2, 100);
        assert_eq!(proposals.admit(1, caller(1), request(200), at(0)), Ok(()));
        let full = Err(Failure::TooManyRequests);
        assert_eq!(proposals.admit(2, caller(2), request(1), at(0)), full);
        assert_eq!(proposals.finish(1), Some(caller(1)));
        assert_eq!(proposals.finish(1), None);
        assert_eq!(proposals.admit(2, caller(2), request(50), at(0)), Ok(()));
        assert_eq!(proposals.admit(2, caller(2), request(0), at(0)), full, "an id twice");
        assert_eq!(proposals.admit(3, caller(3), request(50), at(0)), Ok(()));
        assert_eq!(proposals.admit(4, caller(4), request(0), at(0)), full);
    }

    #[test]
    fn what_has_no_outcome_in_time_expires_in_order_and_is_not_proposed_any_more() {
        let mut proposals = proposals(10, 1000);
        for id in 1..=4 {
            assert_eq!(proposals.admit(id, caller(id), request(1), at(id)), Ok(()));
        }
        assert_eq!(proposals.finish(2), Some(caller(2)));
        assert_eq!(proposals.expire(at(7)), []);
        assert_eq!(proposals.expire(at(10)), [(caller(1), at(1)), (caller(3), at(3))]);
        let queue = proposals.take_queue(false);
        assert_eq!(queue, [(4, request(1))]);
        proposals.put_back(queue);
        assert!(proposals.has_queue());
        assert_eq!(proposals.take_all(), [caller(4)]);
        assert_eq!((proposals.len(), proposals.bytes, proposals.order.len()), (0, 0, 0));
    }

    #[test]
    fn what_only_a_leader_may_ask_for_is_not_forwarded() {
        let mut proposals = proposals(10, 1000);
        let revoke = Waiter::Own(Purpose::LeaseRevoke);
        assert_eq!(proposals.admit(1, revoke, request(1), at(0)), Ok(()));
        assert_eq!(proposals.admit(2, Waiter::Own(Purpose::Attributes), request(1), at(0)), Ok(()));
        assert_eq!(proposals.take_queue(false), [(2, request(1))]);
    }

    #[test]
    fn what_a_leader_has_not_proposed_ends_with_its_office() {
        let mut proposals = proposals(10, 1000);
        let revoke = Waiter::Own(Purpose::LeaseRevoke);
        proposals.hold_office(Some(2));
        assert_eq!(proposals.admit(1, revoke, request(1), at(0)), Ok(()));
        assert_eq!(proposals.admit(2, caller(2), request(1), at(0)), Ok(()));
        proposals.hold_office(Some(2));
        let queue = proposals.take_queue(true);
        assert_eq!(queue, [(1, request(1)), (2, request(1))]);
        proposals.put_back(queue);
        // No leader is known meanwhile, so that nothing is proposed.
        proposals.hold_office(None);
        proposals.hold_office(Some(4));
        assert_eq!(proposals.take_queue(true), [(2, request(1))]);
    }

    #[test]
    fn the_order_does_not_grow_with_answered_proposals() {
        let mut proposals = proposals(10, 1000);
        for id in 1..=1000 {
            assert_eq!(proposals.admit(id, caller(id), request(1), at(0)), Ok(()));
            proposals.take_queue(false);
            proposals.finish(id);
        }
        assert!(proposals.order.is_empty());
    }
}
