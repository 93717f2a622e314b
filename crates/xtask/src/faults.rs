//! `cargo xtask faults`: three members whose network and processes fail, under clients whose answers are judged.
//!
//! Each fault has a round of its own with registers of its own: clients put, get and compare-and-put, the fault comes and
//! goes, and at the end every register's history has to be linearizable and all members equal. Beside them a prober writes
//! all the time through each member in turn, without waiting for earlier answers: what it sees is how long a client is
//! without an acknowledged write that tries every endpoint.

mod client;
mod probe;

use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use tokio::task::LocalSet;

use self::client::Clients;
use self::probe::Probe;
use crate::harness::cluster::{Cluster, Directory, Software};
use crate::harness::hashes::{self, Named};
use crate::harness::network::{Link, Network};
use crate::harness::options::Options;
use crate::harness::registers::Operation;
use crate::harness::{logs, registers};
use crate::random::Random;
use crate::workspace;

const USAGE: &str = "usage: cargo xtask faults --server BINARY [--duration 5m] [--seed N]
       cargo xtask faults --check yes    succeeds if this machine and this user can run it
";

const MEMBERS: usize = 3;
/// What passes before a fault, and after its consequences.
const CALM: Duration = Duration::from_secs(1);
/// How long a fault lasts if no write is acknowledged meanwhile.
const FAULT_PATIENCE: Duration = Duration::from_secs(15);
const JITTER: Duration = Duration::from_millis(200);
const SETTLE_PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let known = ["--server", "--duration", "--seed", "--check"];
    let options = Options::parse(USAGE, &known, arguments)?;
    if options.text("--check").is_some() {
        return crate::harness::network::check();
    }
    let server = options.path("--server")?;
    let duration = options.duration("--duration", Duration::from_mins(5))?;
    let seed = options.number("--seed", 1)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, judge(server, duration, seed))
}

async fn judge(server: PathBuf, duration: Duration, seed: u64) -> Result<()> {
    let directory = Directory::new("faults")?;
    let result = judge_in(&server, duration, seed, directory.path()).await;
    if result.is_err() {
        directory.keep();
    }
    result
}

async fn judge_in(server: &Path, duration: Duration, seed: u64, directory: &Path) -> Result<()> {
    let software = Software::of(server)?;
    let mut cluster = Cluster::new(Network::switched(MEMBERS)?, directory, None);
    for _ in 0..MEMBERS {
        cluster.add(&software)?;
    }
    cluster.start().await?;
    let mut run = Run {
        cluster,
        directory: directory.to_path_buf(),
        random: Random::new(seed),
        figures: Fault::ALL.map(|fault| (fault, Vec::new())).into(),
        rounds: 0,
        operations: 0,
        unknown: 0,
    };
    let started = Instant::now();
    let mut outcome = Ok(());
    while outcome.is_ok() && (run.rounds == 0 || started.elapsed() < duration) {
        outcome = run.cycle(started).await;
    }
    run.print(&software, started.elapsed(), seed);
    outcome?;
    run.check_logs()
}

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    LeaderKilled,
    LeaderPaused,
    LeaderIsolated,
    FollowerIsolated,
    /// What the leader sends is lost.
    LeaderMute,
    /// What is sent to the leader is lost.
    LeaderDeaf,
    /// What the leader sends to one follower is lost.
    FollowerDeaf,
    Jitter,
}

impl Fault {
    const ALL: [Self; 8] = [
        Self::LeaderKilled,
        Self::LeaderPaused,
        Self::LeaderIsolated,
        Self::FollowerIsolated,
        Self::LeaderMute,
        Self::LeaderDeaf,
        Self::FollowerDeaf,
        Self::Jitter,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LeaderKilled => "leader killed",
            Self::LeaderPaused => "leader paused",
            Self::LeaderIsolated => "leader isolated",
            Self::FollowerIsolated => "follower isolated",
            Self::LeaderMute => "all from the leader lost",
            Self::LeaderDeaf => "all to the leader lost",
            Self::FollowerDeaf => "leader to one follower lost",
            Self::Jitter => "200 ms jitter",
        })
    }
}

/// Write gaps of one round: from the fault to the first acknowledged write, and the longest of the round.
#[derive(Clone, Copy, Debug)]
struct Gaps {
    first: Duration,
    longest: Duration,
}

/// One run and its figures.
struct Run {
    cluster: Cluster,
    directory: PathBuf,
    random: Random,
    figures: Vec<(Fault, Vec<Gaps>)>,
    rounds: u64,
    operations: u64,
    unknown: u64,
}

impl Run {
    /// One round of each fault.
    async fn cycle(&mut self, started: Instant) -> Result<()> {
        let mut left: Vec<usize> = (0..self.figures.len()).collect();
        while !left.is_empty() {
            let index = left.swap_remove(self.random.below(left.len()));
            let (fault, _) = self.figures[index];
            let gaps = self.round(fault).await.with_context(|| format!("{fault}"))?;
            self.figures[index].1.push(gaps);
            workspace::say(&format!(
                "{:>6.1} s  {fault}: first write after {:.3} s, longest gap {:.3} s; {} operations so far, {} open",
                started.elapsed().as_secs_f64(),
                gaps.first.as_secs_f64(),
                gaps.longest.as_secs_f64(),
                self.operations,
                self.unknown
            ));
        }
        Ok(())
    }

    async fn round(&mut self, fault: Fault) -> Result<Gaps> {
        self.rounds += 1;
        let apis: Vec<_> = self.cluster.members.iter().map(|member| member.api.clone()).collect();
        let mut clients = Clients::start(&apis, self.rounds, self.random.next());
        let probe = Probe::start(&apis, self.rounds);
        tokio::time::sleep(CALM).await;
        let leader = self.cluster.wait_for_leader().await?;
        let others: Vec<usize> = (0..MEMBERS).filter(|number| *number != leader).collect();
        let follower = self.random.pick(&others);
        let began = Instant::now();
        self.begin(fault, leader, follower).await?;
        let first = probe.first_after(began, FAULT_PATIENCE).await;
        let first = first.with_context(|| format!("no write within {FAULT_PATIENCE:?}"))?;
        tokio::time::sleep(CALM.mul_f64(f64::from(u32::try_from(self.random.below(20))?) / 10.0))
            .await;
        self.end(fault, leader)?;
        self.cluster.wait_until_healthy().await?;
        tokio::time::sleep(CALM).await;
        let longest = probe.stop(began);
        let histories = clients.stop().await;
        let is_open = |operation: &&Operation| operation.end.is_none();
        self.unknown += histories.iter().flatten().filter(is_open).count() as u64;
        self.operations += histories.iter().flatten().count() as u64;
        for (key, history) in histories.iter().enumerate() {
            let Err(complaint) = registers::check(history) else { continue };
            let file = self.directory.join(format!("history-{key}"));
            std::fs::write(&file, format!("{history:#?}"))?;
            bail!("register {key} is not linearizable: {complaint}; see {}", file.display());
        }
        self.compare_all().await?;
        Ok(Gaps { first, longest })
    }

    async fn begin(&mut self, fault: Fault, leader: usize, follower: usize) -> Result<()> {
        let others = (0..MEMBERS).filter(|number| *number != leader);
        let network = &self.cluster.network;
        match fault {
            Fault::LeaderKilled => self.cluster.kill(leader).await?,
            Fault::LeaderPaused => self.cluster.signal(leader, Signal::STOP)?,
            Fault::LeaderIsolated => self.cluster.isolate(leader),
            Fault::FollowerIsolated => self.cluster.isolate(follower),
            Fault::LeaderMute => others.for_each(|other| network.set(leader, other, Link::Cut)),
            Fault::LeaderDeaf => others.for_each(|other| network.set(other, leader, Link::Cut)),
            Fault::FollowerDeaf => network.set(leader, follower, Link::Cut),
            Fault::Jitter => {
                for from in 0..MEMBERS {
                    (0..MEMBERS).for_each(|to| network.set(from, to, Link::Late(JITTER)));
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, fault: Fault, leader: usize) -> Result<()> {
        self.cluster.network.heal();
        match fault {
            Fault::LeaderKilled => self.cluster.rerun(leader)?,
            Fault::LeaderPaused => self.cluster.signal(leader, Signal::CONT)?,
            Fault::LeaderIsolated
            | Fault::FollowerIsolated
            | Fault::LeaderMute
            | Fault::LeaderDeaf
            | Fault::FollowerDeaf
            | Fault::Jitter => {}
        }
        Ok(())
    }

    async fn compare_all(&self) -> Result<()> {
        let members = self.cluster.members.iter();
        let named: Vec<Named> =
            members.map(|member| (member.title(), member.api.clone())).collect();
        let deadline = Instant::now() + SETTLE_PATIENCE;
        loop {
            let equal = hashes::compare(&named, None).await?.unwrap_or_default();
            if equal.members == MEMBERS {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "no revision in common");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Fails if a member of ours has panicked; complaints are shown.
    fn check_logs(&self) -> Result<()> {
        let mut panics = 0;
        for member in &self.cluster.members {
            for (complaint, times) in logs::complaints(&member.log)? {
                workspace::say(&format!("{} logs {times} ×: {complaint}", member.title()));
                panics += usize::from(!complaint.starts_with("error:"));
            }
        }
        ensure!(panics == 0, "{panics} kinds of panics in the logs");
        Ok(())
    }

    fn print(&self, software: &Rc<Software>, took: Duration, seed: u64) {
        workspace::say(&format!(
            "\n{} ×3, {} rounds in {} s, seed {seed}: {} operations on registers, {} of them open\n\n\
             | fault | rounds | first write, median | max | longest gap, median | max |\n|---|---|---|---|---|---|",
            software.name(),
            self.rounds,
            took.as_secs(),
            self.operations,
            self.unknown
        ));
        for (fault, gaps) in &self.figures {
            let firsts = Summary::of(gaps.iter().map(|gaps| gaps.first));
            let longest = Summary::of(gaps.iter().map(|gaps| gaps.longest));
            workspace::say(&format!("| {fault} | {} | {firsts} | {longest} |", gaps.len()));
        }
    }
}

/// Median and maximum of some times.
struct Summary {
    median: Duration,
    max: Duration,
}

impl Summary {
    fn of(times: impl Iterator<Item = Duration>) -> Self {
        let mut times: Vec<Duration> = times.collect();
        times.sort_unstable();
        let at = |index: usize| times.get(index).copied().unwrap_or_default();
        Self { median: at(times.len() / 2), max: at(times.len().saturating_sub(1)) }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s | {:.3} s", self.median.as_secs_f64(), self.max.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_of_the_middle_and_the_end() {
        let summary = |seconds: &[u64]| {
            Summary::of(seconds.iter().map(|seconds| Duration::from_secs(*seconds))).to_string()
        };
        assert_eq!(summary(&[3, 1, 2]), "2.000 s | 3.000 s");
        assert_eq!(summary(&[]), "0.000 s | 0.000 s");
    }
}
