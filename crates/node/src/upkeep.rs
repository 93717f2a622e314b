//! What a member does of its own accord: with each tick, and when it starts or begins to lead.

use machine::membership::{Downgrade, Version};
use machine::{Outcome, Refusal};
use proto::etcdserverpb::AlarmType;

use crate::consensus::Position;
#[cfg(feature = "planted-faults")]
use crate::fault_hooks::{Planted, is_planted};
use crate::node::Node;
use crate::own_requests;
use crate::proposals::{Content, Purpose, Waiter};
use crate::snapshots::{Captured, membership_document};
use crate::{Effects, Failure, Now};

/// The cluster version that this release speaks.
const OWN_CLUSTER_VERSION: Version = Version::new(3, 7, 0);

/// The cluster version to begin with while it is not known what the others speak.
const FIRST_CLUSTER_VERSION: Version = Version::new(3, 0, 0);

/// Expired leases taken at once; the lessor has its own bounds.
const EXPIRED_MAX: usize = 500;

/// Checkpoints in one entry.
const CHECKPOINTS_MAX: usize = 1000;

/// Where the things stand that a member does once.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    attributes: Task,
    cluster_version: Task,
    no_space: Task,
    heard: Heard,
}

/// What the others speak; judged once.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// They were not asked since the last time.
    #[default]
    Nothing,
    /// Not all of them have answered.
    Incomplete,
    /// The lowest answer.
    Lowest(Version),
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Task {
    /// Not proposed, or proposed without an outcome.
    #[default]
    Open,
    /// Proposed.
    UnderWay,
    /// Applied.
    Done,
}

impl Upkeep {
    /// Tells whether name and client URLs went through the log.
    pub(crate) fn is_announced(&self) -> bool {
        self.attributes == Task::Done
    }

    /// Takes the lowest release of the others, or that it is not known.
    pub(crate) fn hear_versions(&mut self, lowest: Option<Version>) {
        self.heard = lowest.map_or(Heard::Incomplete, Heard::Lowest);
    }
}

impl Node {
    /// Lets a tick pass.
    pub(crate) fn tick(&mut self, now: Now, effects: &mut Effects) {
        let passed = now.0.saturating_sub(self.now.0);
        self.stalled += passed.saturating_sub(self.own.raft.lease_step());
        self.now = self.now.max(now);
        // From now on: what was asked before does not end the doubt.
        self.doubt_office(passed);
        let (now, lease_now) = (self.now, self.lease_now());
        self.machine.lessor_mut().tick(lease_now);
        self.consensus.tick();
        self.notice_office();
        self.tick_succession();
        self.hold_log();
        let timeout = self.own.raft.request_timeout();
        for (waiter, since) in self.proposals.expire(now) {
            match waiter {
                Waiter::Caller(token) => effects.fail([token], self.timeout_failure(since)),
                Waiter::Own(purpose) => self.own_timeout(purpose),
            }
        }
        effects.fail(self.reads.expire(now, timeout), Failure::TimedOut);
        self.leases.expire(now, timeout, &mut effects.completions);
        effects.fail(self.transfers.expire(now, timeout), Failure::TransferTimedOut);
        self.tick_doubts(effects);
        self.write_lazy_commit(effects);
        let checkpoints = self.machine.lessor_mut().checkpoints(lease_now, CHECKPOINTS_MAX);
        self.propose_checkpoints(&checkpoints);
        self.backend.tick();
        let revision = self.reader.revision();
        let is_leader = self.consensus.status().is_leader();
        if let Some(target) = self.compactor.tick(now, revision, is_leader) {
            self.propose_own(Purpose::Compaction(target), |id| {
                own_requests::compaction(id, target)
            });
        }
    }

    fn notice_office(&mut self) {
        let status = self.consensus.status();
        self.proposals.hold_office(status.is_leader().then_some(status.term));
    }

    /// Proposes what is open; called in each burst, before raft is given the queue.
    pub(crate) fn propose_open_tasks(&mut self) {
        self.notice_office();
        let status = self.consensus.status();
        if status.leader == 0 {
            return;
        }
        let own = self.own.id;
        if self.upkeep.attributes == Task::Open && self.machine.membership().member(own).is_some() {
            self.upkeep.attributes = Task::UnderWay;
            let (name, urls) = (self.own.name.clone(), self.own.client_urls.clone());
            let admitted = self.propose_own(Purpose::Attributes, |id| {
                own_requests::attributes(id, own, &name, &urls)
            });
            self.upkeep.attributes = if admitted { Task::UnderWay } else { Task::Open };
        }
        #[cfg(feature = "planted-faults")]
        if is_planted(Planted::DeposedPrimary) && !status.is_leader() {
            self.propose_expired();
        }
        if status.is_leader() && status.has_committed_in_term {
            self.propose_cluster_version();
            self.propose_expired();
        }
    }

    /// Raises the cluster version to what all members speak, or lowers it to where the cluster is to go
    /// (`spec/peer-protocol.md` §10). With other members, theirs have to be known first.
    fn propose_cluster_version(&mut self) {
        let membership = self.machine.membership();
        if self.upkeep.cluster_version != Task::Open {
            return;
        }
        let is_alone = membership.members().len() == 1;
        let heard = if is_alone {
            Heard::Lowest(OWN_CLUSTER_VERSION)
        } else {
            std::mem::take(&mut self.upkeep.heard)
        };
        let (current, downgrade) = (membership.cluster_version, &membership.downgrade);
        let Some(target) = next_cluster_version(current, heard, downgrade) else {
            return;
        };
        let version = target.to_string();
        let admitted = self
            .propose_own(Purpose::ClusterVersion, |id| own_requests::cluster_version(id, &version));
        self.upkeep.cluster_version = if admitted { Task::UnderWay } else { Task::Open };
    }

    fn propose_expired(&mut self) {
        if self.office.is_doubted() {
            return;
        }
        let now = self.lease_now();
        let expired = self.machine.lessor_mut().expired(now, EXPIRED_MAX);
        let is_refused = |&lease: &i64| {
            !self.propose_own(Purpose::LeaseRevoke, |id| own_requests::lease_revoke(id, lease))
        };
        if let Some(first) = expired.iter().position(is_refused) {
            // There will be no room for the others either.
            self.machine.lessor_mut().put_off(&expired[first..]);
        }
    }

    /// Makes sure that a new primary does not go back to the time these leases had left before.
    pub(crate) fn clear_checkpoints(&mut self, leases: &[i64]) {
        let checkpoints: Vec<(i64, i64)> = leases.iter().map(|&lease| (lease, 0)).collect();
        self.propose_checkpoints(&checkpoints);
    }

    fn propose_checkpoints(&mut self, checkpoints: &[(i64, i64)]) {
        if !checkpoints.is_empty() {
            self.propose_own(Purpose::LeaseCheckpoint, |id| {
                own_requests::lease_checkpoint(id, checkpoints)
            });
        }
    }

    /// Raises the alarm that this member's quota is exceeded, once.
    pub(crate) fn raise_no_space(&mut self) {
        let is_raised = self.reader.has_alarm(AlarmType::Nospace);
        if is_raised || self.upkeep.no_space == Task::UnderWay {
            return;
        }
        let own = self.own.id;
        let admitted =
            self.propose_own(Purpose::NoSpaceAlarm, |id| own_requests::no_space_alarm(id, own));
        self.upkeep.no_space = if admitted { Task::UnderWay } else { Task::Open };
    }

    /// Puts a request of this member's own into the queue. One that finds no room is left out: whatever asked for it
    /// asks again.
    fn propose_own(&mut self, purpose: Purpose, encode: impl FnOnce(u64) -> bytes::Bytes) -> bool {
        let id = self.ids.next();
        let content = Content::Request(encode(id));
        let admitted = self.proposals.admit(id, Waiter::Own(purpose), content, self.now);
        if let Err(failure) = admitted {
            tracing::warn!(?purpose, ?failure, "cannot propose");
        } else if let Some(meter) = &mut self.meter {
            meter.own_proposed(id);
        }
        admitted.is_ok()
    }

    /// Takes the outcome of a request of this member's own.
    pub(crate) fn own_outcome(&mut self, purpose: Purpose, outcome: &Outcome) {
        if let Err(refusal) = &outcome.result {
            tracing::warn!(?purpose, %refusal, "own request refused");
        }
        match purpose {
            Purpose::Attributes => {
                self.upkeep.attributes = Task::Done;
                tracing::info!(name = self.own.name, "published local member to cluster");
            }
            Purpose::ClusterVersion => self.upkeep.cluster_version = Task::Open,
            Purpose::NoSpaceAlarm => self.upkeep.no_space = Task::Open,
            Purpose::Compaction(revision) => match &outcome.result {
                Ok(_) | Err(Refusal::Compacted) => self.compactor.done(self.now, revision),
                Err(_) => {}
            },
            // The lessor asks again for what is still expired.
            Purpose::LeaseRevoke | Purpose::LeaseCheckpoint => {}
        }
    }

    pub(crate) fn own_timeout(&mut self, purpose: Purpose) {
        tracing::warn!(?purpose, "own request timed out");
        match purpose {
            Purpose::Attributes => self.upkeep.attributes = Task::Open,
            Purpose::ClusterVersion => self.upkeep.cluster_version = Task::Open,
            Purpose::NoSpaceAlarm => self.upkeep.no_space = Task::Open,
            Purpose::Compaction(_) | Purpose::LeaseRevoke | Purpose::LeaseCheckpoint => {}
        }
    }

    /// Writes a commit index that nothing else has taken along, without a sync.
    pub(crate) fn write_lazy_commit(&mut self, effects: &mut Effects) {
        if let Some(hard_state) = self.consensus.take_lazy_commit() {
            self.push_wal_job(effects, |job| job.hard_state = Some(hard_state));
        }
    }

    /// Takes a raft snapshot when one is due, and marks it in the WAL when the backend holds what it stands for.
    pub(crate) fn mark_snapshot(&mut self, effects: &mut Effects) {
        if self.install.is_under_way() {
            // Its mark is further than any that this state could have.
            return;
        }
        let applied = self.machine.applied();
        if self.snapshots.is_due(applied.index) {
            self.snapshots.capture(Captured {
                position: Position { index: applied.index, term: applied.term },
                conf_state: self.consensus.conf_state(),
                data: membership_document(self.machine.membership()),
            });
            self.backend.want_commit();
        }
        let durable = self.reader.durable_index();
        let Some(captured) = self.snapshots.ready(durable) else { return };
        let index = captured.position.index;
        let files = captured.into_files();
        // A mark counts only below the commit index in the WAL.
        let hard_state = self.consensus.take_lazy_commit().or_else(|| self.consensus.hard_state());
        let release_to = self.sending.held_at_mark(self.now).map_or(index, |held| held.min(index));
        self.push_wal_job(effects, |job| {
            job.hard_state = hard_state;
            job.snapshot = Some(files);
            job.must_sync = true;
            job.release_to = Some(release_to);
        });
        self.snapshots.save(self.wal_job, index);
    }
}

/// Returns the version to which the cluster should go from `current`, if it should.
fn next_cluster_version(
    current: Option<Version>,
    heard: Heard,
    downgrade: &Downgrade,
) -> Option<Version> {
    let common = match heard {
        Heard::Nothing => return None,
        Heard::Incomplete => return current.is_none().then_some(FIRST_CLUSTER_VERSION),
        Heard::Lowest(Version { major, minor, .. }) => {
            OWN_CLUSTER_VERSION.min(Version { major, minor, patch: 0 })
        }
    };
    let Some(current) = current else { return Some(common) };
    if downgrade.is_enabled {
        let target = downgrade.target_version.parse().ok()?;
        let is_above = |version: Version| version.one_minor_below() == Some(target);
        // All have to speak the version that is left.
        return (is_above(current) && is_above(common)).then_some(target);
    }
    (common > current && common.major == current.major).then_some(common)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_version_rises_to_what_all_speak() {
        let (old, new) = (Version::new(3, 5, 0), Version::new(3, 7, 0));
        let lowest = Heard::Lowest;
        for (current, heard, next) in [
            (None, Heard::Nothing, None),
            (None, Heard::Incomplete, Some(FIRST_CLUSTER_VERSION)),
            (None, lowest(Version::new(3, 5, 30)), Some(old)),
            (None, lowest(Version::new(3, 9, 1)), Some(new)),
            (Some(old), lowest(Version::new(3, 7, 1)), Some(new)),
            (Some(old), lowest(Version::new(3, 5, 33)), None),
            (Some(old), Heard::Incomplete, None),
            (Some(new), lowest(Version::new(3, 6, 0)), None),
            (Some(Version::new(2, 3, 0)), lowest(new), None),
        ] {
            let decided = next_cluster_version(current, heard, &Downgrade::default());
            assert_eq!(decided, next, "{current:?} {heard:?}");
        }
    }

    #[test]
    fn the_cluster_version_goes_down_by_one_when_it_is_told_to_and_all_can() {
        let version = |minor| Version::new(3, minor, 0);
        for (target, current, lowest, next) in [
            ("3.6.0", 7, 7, Some(6)),
            ("3.6.0", 7, 9, Some(6)),
            // There already, and not up again while the job is under way.
            ("3.6.0", 6, 7, None),
            ("3.6.0", 6, 6, None),
            // Too far at once.
            ("3.5.0", 7, 7, None),
            // Some member is there already.
            ("3.6.0", 7, 6, None),
            ("new", 7, 7, None),
        ] {
            let downgrade = Downgrade { target_version: target.to_owned(), is_enabled: true };
            let heard = Heard::Lowest(version(lowest));
            let decided = next_cluster_version(Some(version(current)), heard, &downgrade);
            assert_eq!(decided, next.map(version), "{target} {current} {lowest}");
            let unknown = next_cluster_version(Some(version(7)), Heard::Incomplete, &downgrade);
            assert_eq!(unknown, None);
        }
    }
}
