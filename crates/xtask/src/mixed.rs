//! `cargo xtask mixed`: a cluster of ours and real etcds under load and faults, with equal hashes all the time.
//!
//! Each side leads in turn, and each fault happens under each leader, in an order that a seed gives. At the end nothing
//! acknowledged may be lost, and no etcd may have complained of what its own kind would not cause.

mod phase;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::task::LocalSet;

use self::phase::{Fault, Phase, Side};
use crate::harness::cluster::{Cluster, Directory, Software};
use crate::harness::hashes::{self, Named};
use crate::harness::load::Load;
use crate::harness::logs;
use crate::harness::network::Network;
use crate::harness::options::Options;
use crate::random::Random;
use crate::workspace;

const USAGE: &str = "\
usage: cargo xtask mixed --ours BINARY --etcd BINARY [--ours-count 0..3] [--duration 10m] [--seed N] [--network N]

  --ours-count N   members of the three that are ours, 1 by default
  --duration TIME  how long faults go on; each kind comes at least once
  --seed N         what the order of faults, their victims and the load depend on
  --network NAME   namespaces (can be cut; needs root) or loopback; namespaces where possible by default
";

const MEMBERS: usize = 3;
/// Entries of the log that members keep: few enough to force snapshots, enough for a short absence without one.
const ENTRIES_KEPT: u64 = 400;
/// What writers rest between writes.
const REST: Duration = Duration::from_millis(60);
const HASH_INTERVAL: Duration = Duration::from_millis(1500);
/// How long the hashes of a healed cluster may take to be comparable on all members.
const SETTLE_PATIENCE: Duration = Duration::from_secs(30);
/// Hashes compared at the end, at different revisions.
const LAST_COMPARISONS: usize = 10;
/// Complaints shown.
const SHOWN_MAX: usize = 20;

pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let plan = Plan::parse(arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, judge(&plan))
}

struct Plan {
    ours: PathBuf,
    etcd: PathBuf,
    ours_count: usize,
    duration: Duration,
    seed: u64,
    network: Option<String>,
}

impl Plan {
    fn parse(arguments: &[&str]) -> Result<Self> {
        let known = ["--ours", "--etcd", "--ours-count", "--duration", "--seed", "--network"];
        let options = Options::parse(USAGE, &known, arguments)?;
        let ours_count = usize::try_from(options.number("--ours-count", 1)?)?;
        ensure!(ours_count <= MEMBERS, "{USAGE}");
        Ok(Self {
            ours: options.path("--ours")?,
            etcd: options.path("--etcd")?,
            ours_count,
            duration: options.duration("--duration", Duration::from_mins(10))?,
            seed: options.number("--seed", 1)?,
            network: options.text("--network").map(str::to_owned),
        })
    }

    fn network(&self) -> Result<Network> {
        match self.network.as_deref() {
            Some("namespaces") => Network::switched(MEMBERS),
            Some("loopback") => Ok(Network::loopback(MEMBERS)),
            Some(_) => bail!("{USAGE}"),
            None => Ok(Network::switched(MEMBERS).unwrap_or_else(|error| {
                workspace::say(&format!("no partitions here: {error:#}"));
                Network::loopback(MEMBERS)
            })),
        }
    }
}

async fn judge(plan: &Plan) -> Result<()> {
    let directory = Directory::new("mixed")?;
    let result = judge_in(plan, directory.path()).await;
    if result.is_err() {
        directory.keep();
    }
    result
}

async fn judge_in(plan: &Plan, directory: &Path) -> Result<()> {
    let (ours, etcd) = (Software::of(&plan.ours)?, Software::of(&plan.etcd)?);
    let mut cluster = Cluster::new(plan.network()?, directory, Some(ENTRIES_KEPT));
    for number in 0..MEMBERS {
        cluster.add(if number < plan.ours_count { &ours } else { &etcd })?;
    }
    let count = plan.ours_count;
    let about =
        format!("{count} × ours, {} × {}, seed {}", MEMBERS - count, etcd.name(), plan.seed);
    workspace::say(&about);
    cluster.start().await?;
    let apis: Vec<_> = cluster.members.iter().map(|member| member.api.clone()).collect();
    let mut round = Round {
        load: Load::start(&apis, REST, plan.seed),
        cluster,
        hashes: Rc::new(RefCell::new(Hashes::default())),
        random: Random::new(plan.seed),
        faults: 0,
        started: Instant::now(),
    };
    let comparing = tokio::task::spawn_local(compare_always(
        round.named(),
        Rc::clone(&round.hashes),
        Random::new(plan.seed + 1),
    ));
    let run = round.run(plan).await;
    let end = match run {
        Ok(()) => round.finish().await,
        Err(error) => Err(error),
    };
    comparing.abort();
    round.print(&about);
    let complained = round.complaints();
    end.and(complained)
}

/// Comparisons of hashes so far.
#[derive(Default)]
struct Hashes {
    equal: u64,
    different: Option<anyhow::Error>,
}

/// Compares hashes at random revisions while faults come and go.
async fn compare_always(members: Vec<Named>, hashes: Rc<RefCell<Hashes>>, mut random: Random) {
    loop {
        tokio::time::sleep(HASH_INTERVAL).await;
        let compared = hashes::compare(&members, Some(&mut random)).await;
        let mut hashes = hashes.borrow_mut();
        match compared {
            Ok(equal) => hashes.equal += u64::from(equal.is_some()),
            Err(error) => {
                hashes.different = Some(error);
                return;
            }
        }
    }
}

/// One run.
struct Round {
    cluster: Cluster,
    load: Load,
    hashes: Rc<RefCell<Hashes>>,
    random: Random,
    faults: u64,
    started: Instant,
}

impl Round {
    fn named(&self) -> Vec<Named> {
        let members = self.cluster.members.iter();
        members.map(|member| (member.title(), member.api.clone())).collect()
    }

    /// Goes through all phases, again and again until the time is over.
    async fn run(&mut self, plan: &Plan) -> Result<()> {
        let sides = [(plan.ours_count > 0, Side::Ours), (plan.ours_count < MEMBERS, Side::Etcd)];
        let phases: Vec<Phase> = sides
            .iter()
            .filter(|(is_there, _)| *is_there)
            .flat_map(|(_, side)| Fault::ALL.map(|fault| Phase { leads: *side, fault }))
            .filter(|phase| self.cluster.network.can_fail() || !phase.fault.needs_partitions())
            .collect();
        loop {
            let mut left = phases.clone();
            while !left.is_empty() {
                let phase = left.swap_remove(self.random.below(left.len()));
                self.go_through(phase).await.with_context(|| format!("{phase}"))?;
            }
            if self.started.elapsed() >= plan.duration {
                return Ok(());
            }
        }
    }

    async fn go_through(&mut self, phase: Phase) -> Result<()> {
        let (began, acknowledged) =
            (Instant::now(), self.load.ledger(|ledger| ledger.acknowledged));
        self.load.ledger(|ledger| ledger.take_gap());
        let victim = phase.happen(&mut self.cluster, &self.load, &mut self.random).await?;
        self.faults += 1;
        self.cluster.network.heal();
        self.cluster.wait_until_healthy().await?;
        let equal = self.compare_all().await?;
        let written = self.load.ledger(|ledger| ledger.acknowledged) - acknowledged;
        let gap = self.load.ledger(|ledger| ledger.take_gap());
        workspace::say(&format!(
            "{:>6.1} s  {phase}: {victim}; {written} writes in {:.1} s, none for {:.2} s at most; hashes equal at {}",
            self.started.elapsed().as_secs_f64(),
            began.elapsed().as_secs_f64(),
            gap.as_secs_f64(),
            equal.revision,
        ));
        Ok(())
    }

    /// Compares the hashes of all members, which has to become possible.
    async fn compare_all(&mut self) -> Result<hashes::Equal> {
        let (named, deadline) = (self.named(), Instant::now() + SETTLE_PATIENCE);
        loop {
            if let Some(error) = self.hashes.borrow_mut().different.take() {
                return Err(error);
            }
            let equal = hashes::compare(&named, None).await?.unwrap_or_default();
            if equal.members == named.len() {
                self.hashes.borrow_mut().equal += 1;
                return Ok(equal);
            }
            ensure!(Instant::now() < deadline, "no revision in common: {equal:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Ends the load and looks whether everything is there.
    async fn finish(&mut self) -> Result<()> {
        self.load.stop().await;
        self.cluster.wait_until_healthy().await?;
        for _ in 0..LAST_COMPARISONS {
            self.compare_all().await?;
            let equal = hashes::compare(&self.named(), Some(&mut self.random)).await?;
            self.hashes.borrow_mut().equal += u64::from(equal.is_some());
        }
        for member in &self.cluster.members {
            let lost = self.load.verify(&member.api).await?;
            for line in lost.iter().take(SHOWN_MAX) {
                workspace::say(&format!("lost, read through {}: {line}", member.title()));
            }
            ensure!(lost.is_empty(), "{} acknowledged writes are not there", lost.len());
        }
        Ok(())
    }

    /// An error if a member's log has what it should not have.
    fn complaints(&self) -> Result<()> {
        let mut kinds = 0;
        for member in &self.cluster.members {
            for (complaint, times) in logs::complaints(&member.log)? {
                workspace::say(&format!("{} logs {times} ×: {complaint}", member.title()));
                // What our own members think worth an error is for who reads it; a panic is not.
                let is_bad = !member.software.is_ours || !complaint.starts_with("error:");
                kinds += usize::from(is_bad);
            }
        }
        ensure!(kinds == 0, "{kinds} kinds of complaints in the logs");
        Ok(())
    }

    fn print(&self, about: &str) {
        let installed = |is_ours: bool| -> usize {
            let members = self.cluster.members.iter();
            let side = members.filter(|member| member.software.is_ours == is_ours);
            side.map(|member| logs::snapshots_installed(&member.log)).sum()
        };
        let seconds = self.started.elapsed().as_secs();
        let (faults, equal) = (self.faults, self.hashes.borrow().equal);
        let row = self.load.ledger(|ledger| {
            format!(
                "| {} | {} | {} | {faults} | {} | {} | {equal} | {:.2} s |",
                ledger.acknowledged,
                ledger.failed,
                ledger.compactions,
                installed(true),
                installed(false),
                ledger.longest_gap().as_secs_f64()
            )
        });
        workspace::say(&format!(
            "\n{about}, {seconds} s\n\n\
             | writes acknowledged | unknown | compactions | faults | snapshots installed by ours | by etcd | hashes compared | longest write gap |\n\
             |---|---|---|---|---|---|---|---|\n{row}\n"
        ));
    }
}
