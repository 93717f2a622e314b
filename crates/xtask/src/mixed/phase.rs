//! What happens to a mixed cluster, one fault at a time.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use rustix::process::Signal;

use super::ENTRIES_KEPT;
use crate::harness::cluster::Cluster;
use crate::harness::load::Load;
use crate::harness::logs;
use crate::random::Random;

/// How often is looked whether enough is written.
const PAUSE: Duration = Duration::from_millis(50);
/// How long writing for a snapshot may take.
const WRITE_PATIENCE: Duration = Duration::from_mins(2);
/// For so long after a snapshot was sent a leader that is an etcd forgets no entries.
const FORGET_PATIENCE: Duration = Duration::from_secs(33);

/// A side of a mixed cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Ours,
    Etcd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    KillLeader,
    KillFollower,
    PauseLeader,
    PauseFollower,
    IsolateLeader,
    IsolateFollower,
    /// A follower is dead until it needs a snapshot, one of the other side if there is one.
    Snapshot,
}

impl Fault {
    pub(super) const ALL: [Self; 7] = [
        Self::KillLeader,
        Self::KillFollower,
        Self::PauseLeader,
        Self::PauseFollower,
        Self::IsolateLeader,
        Self::IsolateFollower,
        Self::Snapshot,
    ];

    pub(super) fn needs_partitions(self) -> bool {
        matches!(self, Self::IsolateLeader | Self::IsolateFollower)
    }

    fn hits_leader(self) -> bool {
        matches!(self, Self::KillLeader | Self::PauseLeader | Self::IsolateLeader)
    }
}

/// A fault while a side leads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phase {
    pub(super) leads: Side,
    pub(super) fault: Fault,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leads = match self.leads {
            Side::Ours => "ours leads",
            Side::Etcd => "etcd leads",
        };
        let fault = match self.fault {
            Fault::KillLeader => "leader killed",
            Fault::KillFollower => "follower killed",
            Fault::PauseLeader => "leader paused",
            Fault::PauseFollower => "follower paused",
            Fault::IsolateLeader => "leader isolated",
            Fault::IsolateFollower => "follower isolated",
            Fault::Snapshot => "follower away until it needs a snapshot",
        };
        write!(f, "{leads}, {fault}")
    }
}

impl Phase {
    /// Moves leadership, lets the fault happen, and ends it, but for partitions. Returns who was hit.
    pub(super) async fn happen(
        self,
        cluster: &mut Cluster,
        load: &Load,
        random: &mut Random,
    ) -> Result<String> {
        let is_leading_side = |cluster: &Cluster, number: usize| {
            cluster.members[number].software.is_ours == (self.leads == Side::Ours)
        };
        let all: Vec<usize> = (0..cluster.members.len()).collect();
        let side: Vec<usize> =
            all.iter().copied().filter(|number| is_leading_side(cluster, *number)).collect();
        let leader = random.pick(&side);
        cluster.lead(leader).await?;
        let others: Vec<usize> = all.into_iter().filter(|number| *number != leader).collect();
        let strangers: Vec<usize> =
            others.iter().copied().filter(|number| !is_leading_side(cluster, *number)).collect();
        let victim = if self.fault.hits_leader() {
            leader
        } else if self.fault == Fault::Snapshot && !strangers.is_empty() {
            random.pick(&strangers)
        } else {
            random.pick(&others)
        };
        let hold = Duration::from_millis(random.next() % 3000 + 1000);
        match self.fault {
            Fault::KillLeader | Fault::KillFollower => {
                cluster.kill(victim).await?;
                tokio::time::sleep(hold).await;
                cluster.rerun(victim)?;
            }
            Fault::PauseLeader | Fault::PauseFollower => {
                cluster.signal(victim, Signal::STOP)?;
                tokio::time::sleep(hold).await;
                cluster.signal(victim, Signal::CONT)?;
            }
            Fault::IsolateLeader | Fault::IsolateFollower => {
                cluster.isolate(victim);
                tokio::time::sleep(hold).await;
            }
            Fault::Snapshot => need_snapshot(cluster, load, victim).await?,
        }
        Ok(cluster.members[victim].title())
    }
}

/// Lets a member be dead until the others have forgotten what it needs, so that it gets a snapshot.
async fn need_snapshot(cluster: &mut Cluster, load: &Load, victim: usize) -> Result<()> {
    let log = cluster.members[victim].log.clone();
    let installed = logs::snapshots_installed(&log);
    for hold in [Duration::ZERO, FORGET_PATIENCE, FORGET_PATIENCE] {
        cluster.kill(victim).await?;
        load.rest(Duration::ZERO);
        let written = write_many(load, hold).await;
        load.rest(super::REST);
        cluster.rerun(victim)?;
        written?;
        cluster.wait_until_healthy().await?;
        if logs::snapshots_installed(&log) > installed {
            return Ok(());
        }
    }
    bail!("{} installs no snapshot", cluster.members[victim].title());
}

/// Waits until more is written than members keep in their logs, and for `hold` at least.
async fn write_many(load: &Load, hold: Duration) -> Result<()> {
    let began = Instant::now();
    let enough = load.ledger(|ledger| ledger.acknowledged) + 3 * ENTRIES_KEPT;
    while load.ledger(|ledger| ledger.acknowledged) < enough || began.elapsed() < hold {
        ensure!(began.elapsed() < WRITE_PATIENCE, "two members do not take enough writes");
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
