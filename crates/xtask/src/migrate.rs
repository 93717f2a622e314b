//! `cargo xtask migrate`: real etcd ×3 becomes ours ×3, and etcd ×3 again, one member at a time, while clients write.
//!
//! Clients do what an ordinary one does: another endpoint when one is unavailable. They must not see any other failure, but
//! for one that only a real etcd gives: a member that is being removed answers what it was asked with "raft: stopped" and
//! the code `Unknown`. That counts apart.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use proto::etcdserverpb::{MemberListRequest, MemberRemoveRequest};
use tokio::task::{JoinSet, LocalSet};
use tonic::Code;

use crate::harness::api::{Api, is_unavailable};
use crate::harness::cluster::{Cluster, Directory, Member, Software, own_id};
use crate::harness::hashes::{self, Named};
use crate::harness::logs;
use crate::harness::network::Network;
use crate::harness::options::Options;
use crate::workspace;

const USAGE: &str = "usage: cargo xtask migrate --ours BINARY --etcd BINARY [--entries N]

  --entries N   entries of the log that members keep; etcd's own default without it
";

const MEMBERS: usize = 3;
const WRITERS: usize = 6;
/// What a writer rests between two requests.
const REST: Duration = Duration::from_millis(10);
/// How long an attempt may take until its client gives up.
const ATTEMPT_PATIENCE: Duration = Duration::from_secs(10);
/// What a client rests when an endpoint is unavailable.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Attempts of one request.
const ATTEMPTS_MAX: usize = 100;
/// How long a change of the members may be refused because the cluster is not settled.
const CHANGE_PATIENCE: Duration = Duration::from_mins(1);
/// What passes between two changes.
const CALM: Duration = Duration::from_secs(2);
/// What an etcd says that is being removed.
const STOPPED: &str = "raft: stopped";
const SHOWN_MAX: usize = 20;

pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let options = Options::parse(USAGE, &["--ours", "--etcd", "--entries"], arguments)?;
    let entries = options.number("--entries", 0)?;
    let (ours, etcd) = (options.path("--ours")?, options.path("--etcd")?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, judge(ours, etcd, (entries > 0).then_some(entries)))
}

async fn judge(ours: PathBuf, etcd: PathBuf, entries: Option<u64>) -> Result<()> {
    let directory = Directory::new("migrate")?;
    let result = judge_in(&ours, &etcd, entries, directory.path()).await;
    if result.is_err() {
        directory.keep();
    }
    result
}

async fn judge_in(ours: &Path, etcd: &Path, entries: Option<u64>, directory: &Path) -> Result<()> {
    let (ours, etcd) = (Software::of(ours)?, Software::of(etcd)?);
    // Every member that is ever there has a place of its own.
    let mut cluster = Cluster::new(Network::loopback(3 * MEMBERS), directory, entries);
    for _ in 0..MEMBERS {
        cluster.add(&etcd)?;
    }
    cluster.start().await?;
    let mut clients = Clients::start(&cluster);
    let outcome = there_and_back(&mut cluster, &clients, &ours, &etcd).await;
    clients.stop().await;
    clients.print(&etcd);
    outcome?;
    clients.verify(&cluster).await?;
    complain_of(&cluster)
}

async fn there_and_back(
    cluster: &mut Cluster,
    clients: &Clients,
    ours: &Rc<Software>,
    etcd: &Rc<Software>,
) -> Result<()> {
    let mut oldest = 0;
    for software in [ours, etcd] {
        for _ in 0..MEMBERS {
            tokio::time::sleep(CALM).await;
            let (began, before) = (Instant::now(), clients.log.acknowledged.get());
            clients.log.take_gap();
            let new = replace(cluster, clients, oldest, software).await?;
            compare_all(cluster).await?;
            workspace::say(&format!(
                "{} instead of {}: {:.1} s, {} writes, none for {:.2} s at most; hashes equal",
                cluster.members[new].title(),
                cluster.members[oldest].title(),
                began.elapsed().as_secs_f64(),
                clients.log.acknowledged.get() - before,
                clients.log.take_gap().as_secs_f64(),
            ));
            oldest += 1;
        }
    }
    Ok(())
}

/// Lets a new member of `software` join, and the `old` one leave; returns the new one's number.
async fn replace(
    cluster: &mut Cluster,
    clients: &Clients,
    old: usize,
    software: &Rc<Software>,
) -> Result<usize> {
    let old_id = own_id(&cluster.members[old].api.status().await?);
    let mut present = cluster.running();
    let through = cluster.members[old].api.clone();
    let new = cluster.add(software)?;
    let url = cluster.peer_url(new);
    change("adding a member", async || through.add_member(&url).await.map(drop)).await?;
    present.push(new);
    cluster.run(new, &present, "existing")?;
    cluster.wait_until_healthy().await?;
    let new_api = cluster.members[new].api.clone();
    clients.open(&cluster.members[new]);
    change("removing a member", async || {
        let request = MemberRemoveRequest { id: old_id };
        match new_api.call(new_api.cluster().member_remove(request)).await {
            // An attempt that seemed lost came through.
            Err(status) if status.code() == Code::NotFound => Ok(()),
            answer => answer.map(drop),
        }
    })
    .await?;
    cluster.wait_for_end(old).await.context("the removed member")?;
    clients.doors.borrow_mut().remove(0);
    cluster.wait_until_healthy().await?;
    check_members(cluster, &new_api).await?;
    Ok(new)
}

/// Asks for a change of the members until the cluster is settled enough for it.
async fn change(what: &str, ask: impl AsyncFn() -> Result<(), tonic::Status>) -> Result<()> {
    let deadline = Instant::now() + CHANGE_PATIENCE;
    loop {
        match ask().await {
            Ok(()) => return Ok(()),
            Err(status) if is_unavailable(&status) && Instant::now() < deadline => {}
            Err(status) => bail!("{what}: {status}"),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// All members know the same members: those that run.
async fn check_members(cluster: &Cluster, through: &Api) -> Result<()> {
    let request = MemberListRequest { linearizable: true };
    let listed = through.call(through.cluster().member_list(request)).await?.members;
    let mut listed: Vec<&str> = listed.iter().map(|member| member.name.as_str()).collect();
    let running = cluster.running();
    let mut names: Vec<&str> =
        running.iter().map(|number| cluster.members[*number].name.as_str()).collect();
    listed.sort_unstable();
    names.sort_unstable();
    ensure!(listed == names, "members are {listed:?}, but {names:?} run");
    Ok(())
}

async fn compare_all(cluster: &Cluster) -> Result<()> {
    let named: Vec<Named> = cluster
        .running()
        .into_iter()
        .map(|number| &cluster.members[number])
        .map(|member| (member.title(), member.api.clone()))
        .collect();
    let deadline = Instant::now() + CHANGE_PATIENCE;
    loop {
        let equal = hashes::compare(&named, None).await?.unwrap_or_default();
        if equal.members == named.len() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "no revision in common");
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

fn complain_of(cluster: &Cluster) -> Result<()> {
    let mut kinds = 0;
    for member in &cluster.members {
        for (complaint, times) in logs::complaints(&member.log)? {
            workspace::say(&format!("{} logs {times} ×: {complaint}", member.title()));
            kinds += usize::from(!member.software.is_ours || !complaint.starts_with("error:"));
        }
    }
    ensure!(kinds == 0, "{kinds} kinds of complaints in the logs");
    Ok(())
}

/// Where clients can go.
#[derive(Clone)]
struct Door {
    api: Api,
    is_ours: bool,
}

/// Clients that write unique keys, each request again and again until it is acknowledged.
struct Clients {
    log: Rc<Log>,
    doors: Rc<RefCell<Vec<Door>>>,
    tasks: JoinSet<()>,
}

/// What clients saw.
struct Log {
    is_over: Cell<bool>,
    acknowledged: Cell<u64>,
    retries: Cell<u64>,
    /// Answers of etcds that were being removed.
    stopped: Cell<u64>,
    keys: RefCell<Vec<String>>,
    failures: RefCell<Vec<String>>,
    last: Cell<Instant>,
    gap: Cell<Duration>,
    longest_gap: Cell<Duration>,
}

impl Log {
    fn acknowledge(&self, key: String) {
        self.acknowledged.set(self.acknowledged.get() + 1);
        self.keys.borrow_mut().push(key);
        self.gap.set(self.gap.get().max(self.last.get().elapsed()));
        self.longest_gap.set(self.longest_gap.get().max(self.gap.get()));
        self.last.set(Instant::now());
    }

    /// Returns the longest time without an acknowledged write since this was last asked.
    fn take_gap(&self) -> Duration {
        self.gap.take().max(self.last.get().elapsed())
    }
}

impl Clients {
    fn start(cluster: &Cluster) -> Self {
        let log = Rc::new(Log {
            is_over: Cell::new(false),
            acknowledged: Cell::new(0),
            retries: Cell::new(0),
            stopped: Cell::new(0),
            keys: RefCell::default(),
            failures: RefCell::default(),
            last: Cell::new(Instant::now()),
            gap: Cell::default(),
            longest_gap: Cell::default(),
        });
        let doors = Rc::new(RefCell::new(Vec::new()));
        let mut tasks = JoinSet::new();
        for number in 0..WRITERS {
            tasks.spawn_local(write(number, Rc::clone(&log), Rc::clone(&doors)));
        }
        let clients = Self { log, doors, tasks };
        cluster.members.iter().for_each(|member| clients.open(member));
        clients
    }

    fn open(&self, member: &Member) {
        let api = member.api.within(ATTEMPT_PATIENCE);
        self.doors.borrow_mut().push(Door { api, is_ours: member.software.is_ours });
    }

    async fn stop(&mut self) {
        self.log.is_over.set(true);
        while self.tasks.join_next().await.is_some() {}
    }

    fn print(&self, etcd: &Software) {
        let failures = self.log.failures.borrow();
        for failure in failures.iter().take(SHOWN_MAX) {
            workspace::say(&format!("failed: {failure}"));
        }
        workspace::say(&format!(
            "\n{} ×3 → ours ×3 → {0} ×3\n\n\
             | writes acknowledged | attempts tried again elsewhere | stopped etcds | failed requests | longest write gap |\n\
             |---|---|---|---|---|\n| {} | {} | {} | {} | {:.2} s |\n",
            etcd.name(),
            self.log.acknowledged.get(),
            self.log.retries.get(),
            self.log.stopped.get(),
            failures.len(),
            self.log.longest_gap.get().as_secs_f64()
        ));
    }

    /// Every acknowledged write is there, and no request failed.
    async fn verify(&self, cluster: &Cluster) -> Result<()> {
        let number = cluster.running().pop().context("nobody is left")?;
        let api = &cluster.members[number].api;
        for key in self.log.keys.take() {
            let found = api.get(&key).await.context("reading at the end")?.kvs;
            let is_there = found.first().is_some_and(|kv| kv.value == key.as_bytes());
            ensure!(is_there, "{key} was acknowledged and is lost");
        }
        let failures = self.log.failures.borrow().len();
        ensure!(failures == 0, "{failures} requests failed");
        Ok(())
    }
}

/// One client.
async fn write(own: usize, log: Rc<Log>, doors: Rc<RefCell<Vec<Door>>>) {
    // Where it is, until that is unavailable.
    let mut at = own;
    for number in 0.. {
        if log.is_over.get() {
            return;
        }
        let key = format!("migrate/{own}/{number}");
        match insist(&key, &mut at, &log, &doors).await {
            Ok(()) => log.acknowledge(key),
            Err(failure) => log.failures.borrow_mut().push(failure),
        }
        tokio::time::sleep(REST).await;
    }
}

/// Puts `key` until that is acknowledged: at another endpoint whenever one is unavailable.
async fn insist(
    key: &str,
    at: &mut usize,
    log: &Log,
    doors: &RefCell<Vec<Door>>,
) -> Result<(), String> {
    let mut last = String::new();
    for _ in 0..ATTEMPTS_MAX {
        let door = {
            let doors = doors.borrow();
            doors[*at % doors.len()].clone()
        };
        match door.api.put(key, key).await {
            Ok(_) => return Ok(()),
            Err(status) if is_unavailable(&status) => last = status.to_string(),
            Err(status) if !door.is_ours && status.message() == STOPPED => {
                log.stopped.set(log.stopped.get() + 1);
                last = status.to_string();
            }
            Err(status) => return Err(format!("{key}: {status}")),
        }
        *at += 1;
        log.retries.set(log.retries.get() + 1);
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    Err(format!("{key}: {ATTEMPTS_MAX} attempts; the last: {last}"))
}
