//! Members of one cluster as processes, ours and real etcds, with all that is done to them.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use proto::etcdserverpb::StatusResponse;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::api::Api;
use super::network::{Link, Network};
use crate::workspace;

/// How long one call to a member may take.
const CALL_PATIENCE: Duration = Duration::from_secs(10);
/// How long a member may take to say how it is.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(50);

/// Time between two looks whether a killed process is gone.
const END_POLL: Duration = Duration::from_millis(1);
/// How long a healed cluster may take until every member serves.
const HEAL_PATIENCE: Duration = Duration::from_mins(1);
/// How often leadership is asked to move.
const MOVES_MAX: usize = 10;

/// A binary and what it is.
#[derive(Debug)]
pub(crate) struct Software {
    binary: PathBuf,
    /// Major and minor version.
    pub(crate) release: String,
    pub(crate) is_ours: bool,
}

impl Software {
    pub(crate) fn of(binary: &Path) -> Result<Rc<Self>> {
        let text = workspace::output(Command::new(binary).arg("--version"))?;
        let version = text.lines().find_map(|line| line.strip_prefix("etcd Version: "));
        let version = version.with_context(|| format!("{}: no version", binary.display()))?;
        let release: Vec<&str> = version.trim().split('.').take(2).collect();
        let is_ours = text.contains("quorate-");
        Ok(Rc::new(Self { binary: binary.to_path_buf(), release: release.join("."), is_ours }))
    }

    /// How this is called in tables.
    pub(crate) fn name(&self) -> String {
        if self.is_ours { "ours".to_owned() } else { format!("etcd {}", self.release) }
    }

    /// Flags that make a member keep `entries` of its log and no more than about twice as many.
    fn forgetful(&self, entries: u64) -> [String; 2] {
        let experimental = if self.release == "3.5" { "experimental-" } else { "" };
        [
            format!("--snapshot-count={entries}"),
            format!("--{experimental}snapshot-catchup-entries={entries}"),
        ]
    }
}

/// One member, whether it runs or not.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) software: Rc<Software>,
    pub(crate) api: Api,
    pub(crate) log: PathBuf,
    data: PathBuf,
    child: Option<Child>,
}

impl Member {
    /// How this is called in lines for the user.
    pub(crate) fn title(&self) -> String {
        format!("{} ({})", self.name, self.software.name())
    }
}

/// Members of one cluster, their network and their data.
pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    pub(crate) network: Network,
    directory: PathBuf,
    /// How many entries of the log members keep; etcd's own default if none.
    entries: Option<u64>,
}

impl Cluster {
    /// A cluster whose data and logs are in `directory`; nothing runs yet.
    pub(crate) fn new(network: Network, directory: &Path, entries: Option<u64>) -> Self {
        Self { members: Vec::new(), network, directory: directory.to_path_buf(), entries }
    }

    /// Adds a member that does not run yet; returns its number.
    pub(crate) fn add(&mut self, software: &Rc<Software>) -> Result<usize> {
        let number = self.members.len();
        let name = format!("m{}", number + 1);
        self.members.push(Member {
            api: Api::new(self.network.place(number).client, CALL_PATIENCE)?,
            log: self.directory.join(format!("{name}.log")),
            data: self.directory.join(&name),
            software: Rc::clone(software),
            name,
            child: None,
        });
        Ok(number)
    }

    /// Starts all members as a new cluster and waits until they serve.
    pub(crate) async fn start(&mut self) -> Result<()> {
        let all: Vec<usize> = (0..self.members.len()).collect();
        for number in &all {
            self.run(*number, &all, "new")?;
        }
        self.wait_until_healthy().await?;
        Ok(())
    }

    /// Starts a member; `others` and `state` are what it is told for its first start.
    pub(crate) fn run(&mut self, number: usize, others: &[usize], state: &str) -> Result<()> {
        let list = others
            .iter()
            .map(|other| format!("{}={}", self.members[*other].name, self.peer_url(*other)));
        let list = list.collect::<Vec<_>>().join(",");
        let place = self.network.place(number);
        let (peer, client) = (self.peer_url(number), format!("http://{}", place.client));
        let member = &mut self.members[number];
        ensure!(member.child.is_none(), "{} runs already", member.name);
        let log = OpenOptions::new().create(true).append(true).open(&member.log)?;
        let mut command = self.network.command(number, &member.software.binary);
        command
            .arg(format!("--name={}", member.name))
            .arg(format!("--data-dir={}", member.data.display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster={list}"))
            .arg(format!("--initial-cluster-state={state}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if let Some(entries) = self.entries {
            command.args(member.software.forgetful(entries));
        }
        let child = command.spawn();
        member.child = Some(child.with_context(|| format!("starting {}", member.title()))?);
        Ok(())
    }

    /// Starts a member that was there before.
    pub(crate) fn rerun(&mut self, number: usize) -> Result<()> {
        let all: Vec<usize> = (0..self.members.len()).collect();
        self.run(number, &all, "new")
    }

    pub(crate) fn peer_url(&self, number: usize) -> String {
        format!("http://{}", self.network.place(number).peer)
    }

    /// Kills a member's process, without a chance to say good-bye.
    ///
    /// The load goes on meanwhile: on a busy machine it can take many seconds until all threads of a killed process are gone.
    pub(crate) async fn kill(&mut self, number: usize) -> Result<()> {
        let mut child = self.taken(number)?;
        child.kill()?;
        while child.try_wait()?.is_none() {
            tokio::time::sleep(END_POLL).await;
        }
        Ok(())
    }

    fn taken(&mut self, number: usize) -> Result<Child> {
        let child = self.members[number].child.take();
        child.with_context(|| format!("m{} does not run", number + 1))
    }

    /// Waits until a member has ended by itself.
    pub(crate) async fn wait_for_end(&mut self, number: usize) -> Result<()> {
        let deadline = Instant::now() + HEAL_PATIENCE;
        let member = &mut self.members[number];
        while let Some(child) = &mut member.child {
            if child.try_wait()?.is_some() {
                member.child = None;
                break;
            }
            ensure!(Instant::now() < deadline, "{} does not end", member.name);
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    pub(crate) fn signal(&self, number: usize, signal: Signal) -> Result<()> {
        let child = self.members[number].child.as_ref();
        let child = child.with_context(|| format!("m{} does not run", number + 1))?;
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    /// Cuts a member off from all others, in both directions.
    pub(crate) fn isolate(&self, number: usize) {
        for other in (0..self.members.len()).filter(|other| *other != number) {
            self.network.set(number, other, Link::Cut);
            self.network.set(other, number, Link::Cut);
        }
    }

    /// The numbers of the members that should run.
    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.members.len()).filter(|number| self.members[*number].child.is_some()).collect()
    }

    /// Fails if a member has ended by itself.
    pub(crate) fn check_processes(&mut self) -> Result<()> {
        for member in &mut self.members {
            let Some(child) = &mut member.child else { continue };
            if let Some(status) = child.try_wait()? {
                bail!(
                    "{} has ended by itself: {status}; its log ends:\n{}",
                    member.title(),
                    tail(&member.log)
                );
            }
        }
        Ok(())
    }

    /// What each running member says of itself, if it answers.
    pub(crate) async fn statuses(&self) -> Vec<(usize, StatusResponse)> {
        let mut statuses = Vec::new();
        for number in self.running() {
            let answer = self.members[number].api.within(LOOK_PATIENCE).status().await;
            statuses.extend(answer.ok().map(|status| (number, status)));
        }
        statuses
    }

    /// The member that leads in the greatest term that anyone knows of.
    pub(crate) async fn leader(&self) -> Option<usize> {
        let statuses = self.statuses().await;
        let (_, newest) = statuses.iter().max_by_key(|(_, status)| status.raft_term)?;
        let leader = newest.leader;
        let leads = |status: &StatusResponse| own_id(status) == leader && status.leader == leader;
        statuses.iter().find(|(_, status)| leads(status)).map(|(number, _)| *number)
    }

    /// Waits for a leader and returns its number.
    pub(crate) async fn wait_for_leader(&self) -> Result<usize> {
        let deadline = Instant::now() + HEAL_PATIENCE;
        loop {
            if let Some(leader) = self.leader().await {
                return Ok(leader);
            }
            ensure!(Instant::now() < deadline, "no leader within {HEAL_PATIENCE:?}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Makes the member `number` lead.
    pub(crate) async fn lead(&self, number: usize) -> Result<()> {
        let mut refusal = None;
        for _ in 0..MOVES_MAX {
            let leader = self.wait_for_leader().await?;
            if leader == number {
                return Ok(());
            }
            let own = self.members[number].api.within(LOOK_PATIENCE).status().await;
            if let Ok(own) = own {
                let moved = self.members[leader].api.move_leader(own_id(&own)).await;
                refusal = moved.err().map(|status| status.message().to_owned());
            }
            tokio::time::sleep(PAUSE).await;
        }
        bail!("leadership does not move to {}: {refusal:?}", self.members[number].title());
    }

    /// Waits until every running member serves linearizable reads; returns how long that took.
    pub(crate) async fn wait_until_healthy(&mut self) -> Result<Duration> {
        let started = Instant::now();
        for number in self.running() {
            loop {
                self.check_processes()?;
                let member = &self.members[number];
                let Err(status) = member.api.within(LOOK_PATIENCE).get("any").await else { break };
                ensure!(
                    started.elapsed() < HEAL_PATIENCE,
                    "{} does not serve {HEAL_PATIENCE:?} after the last fault: {status}; its log ends:\n{}",
                    member.title(),
                    tail(&member.log)
                );
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(started.elapsed())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for number in self.running() {
            let ended = self.taken(number).and_then(|mut child| {
                child.kill()?;
                Ok(child.wait()?)
            });
            if let Err(error) = ended {
                workspace::complain(&format!("{error:#}"));
            }
        }
    }
}

/// A member's own id.
pub(crate) fn own_id(status: &StatusResponse) -> u64 {
    status.header.map_or(0, |header| header.member_id)
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    const LINES: usize = 12;
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Where a run keeps its data and logs: removed if all went well, kept for a look otherwise.
pub(crate) struct Directory(TempDir);

impl Directory {
    pub(crate) fn new(purpose: &str) -> Result<Self> {
        let prefix = format!("quorate-{purpose}-");
        Ok(Self(tempfile::Builder::new().prefix(&prefix).tempdir()?))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Leaves everything where it is, and says where.
    pub(crate) fn keep(self) {
        workspace::complain(&format!("data and logs stay in {}", self.0.keep().display()));
    }
}
