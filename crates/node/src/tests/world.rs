//! A world of members: their processes, their disks, and the network between them.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use machine::{BackendJob, Reply};
use proto::raftpb;
use storage::wal::Wal;
use storage::{Disk, Fault, snap};

use super::failing::FailingDisk;
use super::snapshots::Installing;
use crate::*;

pub(super) const TICK: Duration = Duration::from_millis(100);

/// Rounds of work after which a world that does not come to rest is a bug.
const ROUNDS_MAX: usize = 10_000;

/// A member's process and its disk.
pub(super) struct Member {
    pub(super) config: Config,
    pub(super) disk: Arc<FailingDisk>,
    pub(super) process: Option<Process>,
    pub(super) holds_wal: bool,
    pub(super) holds_backend: bool,
    /// How many backend jobs are carried out although they are held.
    pub(super) backend_jobs_left: u32,
    /// Whether its messages, to and fro, get lost.
    pub(super) is_cut: bool,
    starts: u64,
}

/// A running process.
pub(super) struct Process {
    pub(super) node: Node,
    wal: Wal,
    data_dir: storage::datadir::DataDir,
    pub(super) wal_jobs: VecDeque<WalJob>,
    backend_jobs: VecDeque<BackendJob>,
    log_reads: VecDeque<LogRead>,
    pub(super) now: Duration,
}

/// All members, and who waits for what.
#[derive(Default)]
pub(super) struct World {
    pub(super) members: BTreeMap<String, Member>,
    /// Whom commands are for.
    pub(super) chosen: String,
    /// Names of the requests that wait, by token.
    pub(super) asked: BTreeMap<u64, String>,
    tokens: u64,
    messages: VecDeque<raftpb::Message>,
    /// Messages with snapshots that have not left, since what they offer is not durable.
    pub(super) snapshots: Vec<raftpb::Message>,
    /// Snapshots that members were asked to take, by token.
    pub(super) installing: BTreeMap<u64, Installing>,
    /// What became of snapshots, for their senders.
    pub(super) reports: VecDeque<(String, Event)>,
    pub(super) out: String,
}

impl Member {
    fn new(name: &str) -> Self {
        Self {
            config: config(name),
            disk: Arc::default(),
            process: None,
            holds_wal: false,
            holds_backend: false,
            backend_jobs_left: 0,
            is_cut: false,
            starts: 0,
        }
    }

    /// Carries out one job, if one may be carried out; returns what became of it.
    fn work(&mut self) -> Option<Event> {
        let process = self.process.as_mut()?;
        if !self.holds_wal
            && let Some(job) = process.wal_jobs.pop_front()
        {
            let result = write(&*self.disk, process.data_dir.snap(), &mut process.wal, &job);
            return Some(Event::WalDone { job: job.job, result });
        }
        if let Some(LogRead { range, bytes_max }) = process.log_reads.pop_front() {
            let index = range.start;
            let dir = process.data_dir.wal();
            let result = storage::wal::read_entries(&*self.disk, dir, range, bytes_max);
            return Some(Event::LogRead { index, result });
        }
        if self.holds_backend && self.backend_jobs_left == 0 {
            return None;
        }
        let job = process.backend_jobs.pop_front()?;
        self.backend_jobs_left = self.backend_jobs_left.saturating_sub(1);
        Some(Event::BackendDone(job.run()))
    }

    fn id(&self) -> Option<u64> {
        Some(self.process.as_ref()?.node.gate().member())
    }
}

fn config(name: &str) -> Config {
    Config {
        name: name.to_owned(),
        client_urls: vec![format!("http://{name}:2379")],
        data_dir: data_dir(name),
        wal_dir: None,
        wal: storage::wal::Options { segment_bytes: 1 << 16, ..Default::default() },
        bootstrap: Bootstrap {
            members: vec![member(1)],
            cluster_token: "etcd-cluster".into(),
            joins: None,
        },
        forces_new_cluster: false,
        raft: RaftConfig { tick: TICK, seed: 1, ..RaftConfig::default() },
        snapshots: SnapshotConfig::default(),
        renews_at_once: true,
        proposals: Limits::default(),
        auto_compaction: AutoCompaction::Off,
        machine: machine::Options::default(),
        // Steps go back to back, but where a script says otherwise.
        backend: BackendConfig {
            compaction_pause: TICK / 10,
            defragment_pause: Duration::ZERO,
            ..BackendConfig::default()
        },
        unix_ms: 0,
    }
}

pub(super) fn data_dir(name: &str) -> PathBuf {
    PathBuf::from(format!("/{name}.etcd"))
}

pub(super) fn member(index: usize) -> InitialMember {
    InitialMember { name: format!("m{index}"), peer_urls: vec![format!("http://m{index}:2380")] }
}

impl World {
    /// Returns the member that commands are for.
    pub(super) fn member(&mut self) -> &mut Member {
        let name = self.chosen.clone();
        self.members.entry(name).or_insert_with_key(|name| Member::new(name))
    }

    pub(super) fn process(&mut self) -> Result<&mut Process, Box<dyn Error>> {
        self.member().process.as_mut().ok_or_else(|| "no process runs".into())
    }

    pub(super) fn start(&mut self) -> Result<(), Box<dyn Error>> {
        let member = self.member();
        member.starts += 1;
        let disk: Arc<dyn Disk> = member.disk.clone();
        let config = Config { unix_ms: 1_000_000 * member.starts, ..member.config.clone() };
        let Started { node, wal, data_dir, effects } = Node::start(&disk, config, Now::default())?;
        member.process = Some(Process {
            node,
            wal,
            data_dir,
            wal_jobs: VecDeque::new(),
            backend_jobs: VecDeque::new(),
            log_reads: VecDeque::new(),
            now: Duration::ZERO,
        });
        let name = self.chosen.clone();
        self.carry_out(&name, effects)?;
        self.settle()
    }

    /// Gives the chosen member an event, and lets the world come to rest.
    pub(super) fn give(&mut self, event: Event) -> Result<(), Box<dyn Error>> {
        self.process()?;
        let name = self.chosen.clone();
        self.give_to(&name, event)?;
        self.settle()
    }

    pub(super) fn give_to(&mut self, name: &str, event: Event) -> Result<(), Box<dyn Error>> {
        let Some(member) = self.members.get_mut(name) else { return Ok(()) };
        let Some(process) = &mut member.process else { return Ok(()) };
        let mut effects = process.node.handle(event);
        effects.append(process.node.end_of_burst());
        self.carry_out(name, effects)
    }

    fn carry_out(&mut self, name: &str, effects: Effects) -> Result<(), Box<dyn Error>> {
        let Effects { wal, backend, log_reads, messages, completions, stop, .. } = effects;
        for Completion { token, answer } in completions {
            self.note_install(token, &answer);
            let asked = self.asked.remove(&token.0).unwrap_or_else(|| "nobody".to_owned());
            let text = describe(&answer);
            // Scripts that fill the store only want to know what is not as expected.
            if asked != "fill" || !text.starts_with("ok") {
                writeln!(self.out, "{asked}: {text}")?;
            }
        }
        self.messages.extend(messages);
        let Some(member) = self.members.get_mut(name) else { return Ok(()) };
        if let Some(process) = &mut member.process {
            process.wal_jobs.extend(wal);
            process.log_reads.extend(log_reads);
            process.backend_jobs.extend(backend);
        }
        if let Some(stop) = stop {
            let text = match stop {
                Stop::Asked => "asked".to_owned(),
                Stop::Removed => "removed".to_owned(),
                Stop::Fault(fault) => fault.to_string(),
            };
            writeln!(self.out, "stop: {text}")?;
        }
        Ok(())
    }

    /// Carries jobs out, delivers messages, and gives results back, until nothing is left to do.
    pub(super) fn settle(&mut self) -> Result<(), Box<dyn Error>> {
        let names: Vec<String> = self.members.keys().cloned().collect();
        for _ in 0..ROUNDS_MAX {
            let mut is_idle = true;
            for name in &names {
                while let Some(event) = self.members.get_mut(name).and_then(Member::work) {
                    is_idle = false;
                    self.give_to(name, event)?;
                }
            }
            while let Some(message) = self.messages.pop_front() {
                is_idle = false;
                self.deliver(message)?;
            }
            while let Some((sender, report)) = self.reports.pop_front() {
                is_idle = false;
                self.give_to(&sender, report)?;
            }
            is_idle &= !self.send_snapshots()?;
            if is_idle {
                return Ok(());
            }
        }
        Err("the world does not come to rest".into())
    }

    fn deliver(&mut self, message: raftpb::Message) -> Result<(), Box<dyn Error>> {
        let is_cut = |member: &Member| member.is_cut && member.id().is_some();
        let from = self.members.values().find(|member| member.id() == Some(message.from));
        let to = self.members.iter().find(|(_, member)| member.id() == Some(message.to));
        let Some((name, to)) = to else {
            if let Some(sender) = self.name_of(message.from) {
                let peer = message.to;
                self.give_to(&sender, Event::PeerUnreachable { peer })?;
                if message.snapshot.is_some() {
                    self.give_to(&sender, Event::SnapshotSent { peer, is_done: false })?;
                }
            }
            return Ok(());
        };
        if is_cut(to) || from.is_some_and(is_cut) {
            if message.snapshot.is_some()
                && let Some(sender) = self.name_of(message.from)
            {
                let report = Event::SnapshotSent { peer: message.to, is_done: false };
                self.reports.push_back((sender, report));
            }
            return Ok(());
        }
        if message.snapshot.is_some() {
            self.snapshots.push(message);
            return Ok(());
        }
        let name = name.clone();
        self.give_to(&name, Event::Step(vec![message]))
    }

    /// Returns the name of the running member with this id.
    pub(super) fn name_of(&self, id: u64) -> Option<String> {
        let member = self.members.iter().find(|(_, member)| member.id() == Some(id));
        member.map(|(name, _)| name.clone())
    }

    /// Notes that a request named `name` waits for its answer.
    pub(super) fn ask(&mut self, name: String) -> Token {
        self.tokens += 1;
        self.asked.insert(self.tokens, name);
        Token(self.tokens)
    }
}

/// Does what the WAL thread does with one job.
fn write(disk: &dyn Disk, snap_dir: &Path, wal: &mut Wal, job: &WalJob) -> Result<(), Fault> {
    if let Some((snapshot, _)) = &job.snapshot {
        snap::save(disk, snap_dir, snapshot)?;
    }
    wal.append(&job.entries, job.hard_state.as_ref())?;
    if let Some((_, mark)) = &job.snapshot {
        wal.append_snapshot_mark(mark)?;
    }
    if job.must_sync {
        wal.sync()?;
    } else {
        wal.flush()?;
    }
    job.release_to.map_or(Ok(()), |index| wal.release_to(index))
}

fn describe(answer: &Answer) -> String {
    match answer {
        Answer::Applied(outcome) => {
            let result = match &outcome.result {
                Err(refusal) => refusal.to_string(),
                Ok(Reply::DeleteRange { deleted, .. }) => format!("deleted {deleted}"),
                Ok(Reply::LeaseGrant { id, ttl }) => format!("granted {id} for {ttl} s"),
                Ok(_) => "ok".to_owned(),
            };
            format!("{result}, revision {}", outcome.revision)
        }
        Answer::KeptAlive { ttl, revision } => {
            format!("kept alive for {ttl} s, revision {revision}")
        }
        Answer::TimeToLive { ttl, granted_ttl, keys } => {
            format!("{ttl} s of {granted_ttl} s, keys {keys:?}")
        }
        Answer::Leases(ids) => format!("Leases({:?})", &ids[..]),
        Answer::ReadReady
        | Answer::Defragmented
        | Answer::LeaderMoved
        | Answer::SnapshotInstalled
        | Answer::Failed(_) => {
            format!("{answer:?}")
        }
    }
}
