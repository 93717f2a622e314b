//! Leases: none ends before its time, none lives on for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use machine::lease::Lessor;
use node::Answer;

use super::log::Judge;
use super::{Violation, check, check_equal};
use crate::model::Model;

/// A lease with a longer ttl is not waited for, in seconds.
const SHORT_TTL_MAX: i64 = 10;

/// How much faster than the true one a member's clock may go.
const DRIFT_PERCENT: u32 = 3;

/// How long after its time a lease may live. A revocation that finds no room among the proposals is proposed again after
/// seven seconds, and where there is room for four only, that may take some turns.
const GRACE: Duration = Duration::from_mins(2);

/// Since when each lease may count, as its holder sees it.
#[derive(Debug, Default)]
pub(super) struct LeaseClock {
    /// The last renewal that was answered, by when it was asked for.
    renewed: BTreeMap<i64, Duration>,
    /// When the leader of a term became primary: every lease counts anew from there.
    promoted: BTreeMap<u64, Duration>,
    /// When the end of a lease by its primary was first applied.
    ended: BTreeMap<i64, Duration>,
}

/// The shortest time, by a true clock, that a member may take for `ttl` seconds: members' clocks drift.
fn shortest(ttl: i64) -> Duration {
    seconds(ttl) * (100 - DRIFT_PERCENT) / 100
}

/// Whole seconds of a ttl.
fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}

impl LeaseClock {
    /// Judges that the leader of `term` revokes a lease of its own accord, as it has decided at `at`.
    pub(super) fn revoke(
        &mut self,
        id: i64,
        at: Duration,
        term: u64,
        model: &Model,
    ) -> Result<(), Violation> {
        // One that is gone was revoked by somebody meanwhile.
        let Some(lease) = model.leases().get(&id) else { return Ok(()) };
        let Some(promoted) = self.promoted.get(&term).copied() else {
            return Err(Violation(format!("lease {id} ends in term {term}, which has no primary")));
        };
        let since = self.renewed.get(&id).copied().unwrap_or_default().max(promoted);
        self.ended.insert(id, at);
        check(at >= since + shortest(lease.ttl), || {
            format!("lease {id} of {} s, held since {since:?}, ends at {at:?}", lease.ttl)
        })
    }
}

impl Judge {
    /// Notes that the leader of `term` has become primary.
    pub fn promote(&mut self, term: u64, now: Duration) {
        self.leases.promoted.entry(term).or_insert(now);
    }

    /// Notes that a lease was granted or renewed, as asked for at `since`.
    pub fn renew(&mut self, id: i64, since: Duration) {
        let renewed = self.leases.renewed.entry(id).or_default();
        *renewed = since.max(*renewed);
    }

    /// Judges what the primary says of lease `id`, asked for at `since`. Unless `is_exact`, entries were applied in the
    /// same turn, and what it says may be of before or after.
    pub fn lease_answer(
        &mut self,
        id: i64,
        since: Duration,
        is_exact: bool,
        answer: &Answer,
    ) -> Result<(), Violation> {
        let lease = self.model().leases().get(&id);
        match answer {
            Answer::KeptAlive { ttl: 0, .. } | Answer::TimeToLive { granted_ttl: 0, .. } => {
                check(lease.is_none() || !is_exact, || format!("lease {id} exists, but is unknown"))
            }
            Answer::KeptAlive { ttl, .. } => {
                if let Some(ended) = self.leases.ended.get(&id) {
                    check(since <= *ended, || {
                        format!("lease {id} is renewed at {since:?}, but ended at {ended:?}")
                    })?;
                }
                match lease {
                    Some(lease) => check_equal(format!("the ttl of lease {id}"), ttl, &lease.ttl)?,
                    None => {
                        check(!is_exact, || format!("lease {id} is renewed, but is not there"))?
                    }
                }
                self.renew(id, since);
                Ok(())
            }
            Answer::TimeToLive { ttl, granted_ttl, keys } => {
                let Some(lease) = lease else {
                    return check(!is_exact, || format!("lease {id} is told of, but is not there"));
                };
                check_equal(format!("the ttl of lease {id}"), granted_ttl, &lease.ttl)?;
                let mut keys = keys.clone();
                keys.sort();
                let expected: Vec<_> = lease.keys.iter().cloned().collect();
                check(!is_exact || keys == expected, || {
                    format!("the keys of lease {id} are {keys:?}, expected {expected:?}")
                })?;
                // A new primary gives an extension, and the clock may lag: both are below two seconds.
                check(*ttl <= lease.ttl + 2, || format!("lease {id} has {ttl} s left"))
            }
            Answer::Leases(ids) => {
                let mut ids = ids.to_vec();
                ids.sort_unstable();
                let expected: Vec<i64> = self.model().leases().keys().copied().collect();
                check(!is_exact || ids == expected, || {
                    format!("the list of leases is {ids:?}, expected {expected:?}")
                })
            }
            Answer::Applied(_)
            | Answer::ReadReady
            | Answer::Defragmented
            | Answer::LeaderMoved
            | Answer::SnapshotInstalled
            | Answer::Failed(_) => Ok(()),
        }
    }

    /// Judges the leases of a member that has applied all.
    pub fn leases(&self, lessor: &Lessor) -> Result<(), Violation> {
        let mut found = lessor.list();
        found.sort_unstable();
        let expected: Vec<i64> = self.model().leases().keys().copied().collect();
        check_equal("the list of leases", &found, &expected)?;
        for (id, lease) in self.model().leases() {
            let ttl = lessor.stored(*id).map(|stored| stored.ttl);
            check_equal(format!("the ttl of lease {id}"), &ttl, &Some(lease.ttl))?;
            let mut keys: Vec<&[u8]> = lessor.keys(*id).collect();
            keys.sort_unstable();
            let expected: Vec<&[u8]> = lease.keys.iter().map(|key| &key[..]).collect();
            check_equal(format!("the keys of lease {id}"), &keys, &expected)?;
        }
        Ok(())
    }

    /// Tells whether no lease is left that ends within a run.
    pub fn has_ended_leases(&self) -> bool {
        self.model().leases().values().all(|lease| lease.ttl > SHORT_TTL_MAX)
    }

    /// Judges that no lease is left whose time is long over, given that nobody has renewed any for `quiet`.
    pub fn no_lease_is_immortal(&self, quiet: Duration) -> Result<(), Violation> {
        for (id, lease) in self.model().leases() {
            check(seconds(lease.ttl) + GRACE > quiet, || {
                format!("lease {id} of {} s lives after {quiet:?} without a renewal", lease.ttl)
            })?;
        }
        Ok(())
    }
}
