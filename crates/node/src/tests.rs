//! Whole members over a disk in memory, driven by the scripts in `testdata/member/`.
//!
//! The runner does what the driver does: it carries out WAL and backend jobs, at once or when a script says so, and gives
//! their results back. `hold wal` and `hold backend` leave jobs lying; `crash` loses
//! what was not carried out.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command, Context};
use machine::{BackendJob, Reply};
use prost::Message as _;
use proto::etcdserverpb as pb;
use proto::raftpb;
use storage::backend::Backend;
use storage::mem::MemDisk;
use storage::wal::{self, Wal};
use storage::{Disk, Fault, snap};

use crate::*;

type Ran = Result<String, Box<dyn Error>>;

const TICK: Duration = Duration::from_millis(100);

/// A running process.
struct Process {
    node: Node,
    wal: Wal,
    backend: Backend,
    data_dir: storage::datadir::DataDir,
    wal_jobs: VecDeque<WalJob>,
    backend_jobs: VecDeque<BackendJob>,
    now: Duration,
}

struct World {
    disk: Arc<MemDisk>,
    config: Config,
    process: Option<Process>,
    holds_wal: bool,
    holds_backend: bool,
    /// How many backend jobs are carried out although they are held.
    backend_jobs_left: u32,
    /// Names of the requests that wait, by token.
    asked: BTreeMap<u64, String>,
    tokens: u64,
    starts: u64,
    out: String,
}

fn config() -> Config {
    Config {
        name: "m1".into(),
        client_urls: vec!["http://127.0.0.1:2379".into()],
        data_dir: PathBuf::from("/m1.etcd"),
        wal_dir: None,
        bootstrap: Bootstrap {
            members: vec![InitialMember {
                name: "m1".into(),
                peer_urls: vec!["http://127.0.0.1:2380".into()],
            }],
            cluster_token: "etcd-cluster".into(),
        },
        raft: RaftConfig { tick: TICK, seed: 1, ..RaftConfig::default() },
        snapshots: SnapshotConfig::default(),
        proposals: Limits::default(),
        auto_compaction: AutoCompaction::Off,
        machine: machine::Options::default(),
        backend: BackendConfig::default(),
        unix_ms: 1_000_000,
    }
}

impl World {
    fn new() -> Self {
        Self {
            disk: Arc::new(MemDisk::new()),
            config: config(),
            process: None,
            holds_wal: false,
            holds_backend: false,
            backend_jobs_left: 0,
            asked: BTreeMap::new(),
            tokens: 0,
            starts: 0,
            out: String::new(),
        }
    }

    fn process(&mut self) -> Result<&mut Process, Box<dyn Error>> {
        self.process.as_mut().ok_or_else(|| "no process runs".into())
    }

    fn start(&mut self) -> Result<(), Box<dyn Error>> {
        self.starts += 1;
        let disk: Arc<dyn Disk> = self.disk.clone();
        let config = Config { unix_ms: 1_000_000 * self.starts, ..self.config.clone() };
        let Started { node, wal, backend, data_dir, effects } =
            Node::start(&disk, config, Now::default())?;
        self.process = Some(Process {
            node,
            wal,
            backend,
            data_dir,
            wal_jobs: VecDeque::new(),
            backend_jobs: VecDeque::new(),
            now: Duration::ZERO,
        });
        self.carry_out(effects)?;
        self.settle()
    }

    fn give(&mut self, event: Event) -> Result<(), Box<dyn Error>> {
        let process = self.process()?;
        let mut effects = process.node.handle(event);
        effects.append(process.node.end_of_burst());
        self.carry_out(effects)
    }

    fn carry_out(&mut self, effects: Effects) -> Result<(), Box<dyn Error>> {
        let Effects { wal, backend, messages, completions, stop, .. } = effects;
        for Completion { token, answer } in completions {
            let name = self.asked.remove(&token.0).unwrap_or_else(|| "nobody".to_owned());
            let text = describe(&answer);
            // Scripts that fill the store only want to know what is not as expected.
            if name != "fill" || !text.starts_with("ok") {
                writeln!(self.out, "{name}: {text}")?;
            }
        }
        for message in messages {
            writeln!(self.out, "message to {:x}: {:?}", message.to, message.r#type())?;
        }
        let process = self.process()?;
        process.wal_jobs.extend(wal);
        process.backend_jobs.extend(backend);
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

    /// Carries jobs out, and gives their results back, until nothing is left to do.
    fn settle(&mut self) -> Result<(), Box<dyn Error>> {
        loop {
            let (holds_wal, holds_backend) = (self.holds_wal, self.holds_backend);
            let disk = Arc::clone(&self.disk);
            let Some(process) = &mut self.process else { return Ok(()) };
            let event = if !holds_wal && let Some(job) = process.wal_jobs.pop_front() {
                let result = write(&*disk, process.data_dir.snap(), &mut process.wal, &job);
                Event::WalDone { job: job.job, result }
            } else if (!holds_backend || self.backend_jobs_left > 0)
                && let Some(job) = process.backend_jobs.pop_front()
            {
                self.backend_jobs_left = self.backend_jobs_left.saturating_sub(1);
                Event::BackendDone(job.run(&process.backend))
            } else {
                return Ok(());
            };
            self.give(event)?;
        }
    }

    fn propose(&mut self, name: String, fill: impl FnOnce(&mut pb::InternalRaftRequest)) -> Ran {
        let token = self.ask(name);
        let id = self.process()?.node.request_ids().next();
        let header = pb::RequestHeader { id, ..Default::default() };
        let mut request = pb::InternalRaftRequest { header: Some(header), ..Default::default() };
        fill(&mut request);
        let data = Bytes::from(request.encode_to_vec());
        self.give(Event::Propose(vec![Proposal { token, id, data }]))?;
        self.settle()?;
        Ok(String::new())
    }

    fn ask(&mut self, name: String) -> Token {
        self.tokens += 1;
        self.asked.insert(self.tokens, name);
        Token(self.tokens)
    }

    fn lease(&mut self, name: String, kind: LeaseRequestKind) -> Ran {
        let token = self.ask(name);
        self.give(Event::Lease(vec![LeaseRequest { token, kind }]))?;
        self.settle()?;
        Ok(String::new())
    }

    fn run_process_command(&mut self, command: &Command) -> Result<Option<String>, Box<dyn Error>> {
        let mut args = command.consume_args();
        let out = match command.name.as_str() {
            "config" => self.configure(&mut args)?,
            "start" => {
                self.start()?;
                String::new()
            }
            "stop" => {
                self.give(Event::Stop)?;
                self.settle()?;
                self.process = None;
                String::new()
            }
            "crash" => {
                self.process = None;
                self.asked.clear();
                String::new()
            }
            "hold" => {
                match position(&mut args)? {
                    "wal" => self.holds_wal = true,
                    _ => self.holds_backend = true,
                }
                String::new()
            }
            "release" => {
                self.holds_wal = false;
                self.holds_backend = false;
                self.settle()?;
                String::new()
            }
            "backend" => {
                self.backend_jobs_left = position(&mut args)?.parse()?;
                self.settle()?;
                self.backend_jobs_left = 0;
                String::new()
            }
            "fail_wal" => {
                let process = self.process()?;
                let job = process.wal_jobs.pop_front().ok_or("no job waits")?;
                let source = std::io::Error::other("the disk is on fire");
                let result = Err(Fault::io("sync", Path::new("0.wal"), source));
                self.give(Event::WalDone { job: job.job, result })?;
                String::new()
            }
            "tick" => {
                for _ in 0..position(&mut args)?.parse::<u32>()? {
                    let process = self.process()?;
                    process.now += TICK;
                    let now = Now(process.now);
                    self.give(Event::Tick { now })?;
                    self.settle()?;
                }
                String::new()
            }
            _ => return Ok(None),
        };
        args.reject_next()?;
        Ok(Some(out))
    }

    fn configure(&mut self, args: &mut ArgumentConsumer<'_>) -> Ran {
        while let Some((key, value)) = args.next_key() {
            match key {
                "snapshot_count" => self.config.snapshots.count = value.parse()?,
                "catch_up_entries" => self.config.snapshots.catch_up_entries = value.parse()?,
                "quota" => self.config.machine.quota_bytes = value.parse()?,
                "proposals" => self.config.proposals.count_max = value.parse()?,
                "compaction_batch" => self.config.machine.compaction_batch = value.parse()?,
                "keep_revisions" => {
                    self.config.auto_compaction = AutoCompaction::Revision(value.parse()?);
                }
                "members" => {
                    let member = |index: usize| InitialMember {
                        name: format!("m{index}"),
                        peer_urls: vec![format!("http://127.0.0.{index}:2380")],
                    };
                    self.config.bootstrap.members = (1..=value.parse()?).map(member).collect();
                }
                _ => return Err(format!("unknown setting {key}").into()),
            }
        }
        Ok(String::new())
    }

    fn run_request(&mut self, command: &Command) -> Result<Option<String>, Box<dyn Error>> {
        let name = command.to_string();
        let mut args = command.consume_args();
        let number = |args: &mut ArgumentConsumer<'_>| -> Result<i64, Box<dyn Error>> {
            Ok(position(args)?.parse()?)
        };
        let out = match command.name.as_str() {
            "put" => {
                let lease = args.take_key("lease").map_or(Ok(0), str::parse)?;
                let (key, value) = (bytes(&mut args)?, bytes(&mut args)?);
                let put = pb::PutRequest { key, value, lease, ..Default::default() };
                self.propose(name, |request| request.put = Some(put))?
            }
            "fill" => {
                for index in 0..number(&mut args)? {
                    let key = Bytes::from(format!("fill{index}"));
                    let put = pb::PutRequest { key, value: "v".into(), ..Default::default() };
                    self.propose("fill".into(), |request| request.put = Some(put))?;
                }
                String::new()
            }
            "delete" => {
                let delete =
                    pb::DeleteRangeRequest { key: bytes(&mut args)?, ..Default::default() };
                self.propose(name, |request| request.delete_range = Some(delete))?
            }
            "compact" => {
                let compaction =
                    pb::CompactionRequest { revision: number(&mut args)?, physical: false };
                self.propose(name, |request| request.compaction = Some(compaction))?
            }
            "grant" => {
                let grant =
                    pb::LeaseGrantRequest { id: number(&mut args)?, ttl: number(&mut args)? };
                self.propose(name, |request| request.lease_grant = Some(grant))?
            }
            "revoke" => {
                let revoke = pb::LeaseRevokeRequest { id: number(&mut args)? };
                self.propose(name, |request| request.lease_revoke = Some(revoke))?
            }
            "keepalive" => {
                let id = number(&mut args)?;
                self.lease(name, LeaseRequestKind::KeepAlive { id })?
            }
            "ttl" => {
                let id = number(&mut args)?;
                self.lease(name, LeaseRequestKind::TimeToLive { id, keys: true })?
            }
            "leases" => self.lease(name, LeaseRequestKind::Leases)?,
            "read" => {
                let token = self.ask(name);
                self.give(Event::Read(vec![token]))?;
                self.settle()?;
                String::new()
            }
            "defragment" => {
                let token = self.ask(name);
                self.give(Event::Defragment(token))?;
                self.settle()?;
                String::new()
            }
            "member_update" => self.update_member(name, position(&mut args)?)?,
            _ => return Ok(None),
        };
        args.reject_next()?;
        Ok(Some(out))
    }

    fn update_member(&mut self, name: String, url: &str) -> Ran {
        let token = self.ask(name);
        let node = &self.process()?.node;
        let (id, member) = (node.request_ids().next(), node.gate().member());
        let change = raftpb::ConfChange {
            id,
            r#type: raftpb::ConfChangeType::ConfChangeUpdateNode.into(),
            node_id: member,
            context: format!(r#"{{"id":{member},"peerURLs":["{url}"]}}"#).into(),
        };
        let data = change.encode_to_vec().into();
        self.give(Event::ProposeConfChange(Proposal { token, id, data }))?;
        self.settle()?;
        Ok(String::new())
    }

    fn run_look(&mut self, command: &Command) -> Ran {
        let mut args = command.consume_args();
        let out = match command.name.as_str() {
            "get" => self.get(bytes(&mut args)?)?,
            "status" => self.status()?,
            "log" => self.log()?,
            "marks" => self.marks()?,
            "members" => self.members()?,
            other => return Err(format!("unknown command {other}").into()),
        };
        args.reject_next()?;
        Ok(out)
    }

    fn get(&mut self, key: Bytes) -> Ran {
        let reader = self.process()?.node.reader();
        let request = pb::RangeRequest { key, ..Default::default() };
        Ok(match reader.range(&request) {
            Err(error) => error.to_string(),
            Ok((revision, reply)) => {
                let values = reply.kvs.iter().map(|record| {
                    let record = proto::mvccpb::KeyValue::decode(record.clone())?;
                    Ok(String::from_utf8_lossy(&record.value).into_owned())
                });
                let values: Result<Vec<String>, prost::DecodeError> = values.collect();
                format!("{} at revision {revision}", values?.join(","))
            }
        })
    }

    fn status(&mut self) -> Ran {
        let process = self.process()?;
        let gate = process.node.gate();
        let stats = process.node.stats();
        let reader = process.node.reader();
        Ok(format!(
            "leads: {}, term {}, committed {}, applied {}, durable {}\n\
             in memory: {} entries, compacted {} (done {}), no space: {}, lone: {}, waiting: {}",
            gate.is_leader(),
            gate.term(),
            gate.commit_index(),
            gate.applied_index(),
            reader.durable_index(),
            stats.log_entries,
            reader.compact_revision(),
            gate.finished_compaction(),
            gate.has_no_space(),
            gate.reads_need_no_round(),
            gate.pending_proposals(),
        ))
    }

    /// Shows the log on the disk.
    fn log(&mut self) -> Ran {
        let marks = wal::snapshot_marks(&*self.disk, Path::new("/m1.etcd/member/wal"))?;
        let start = marks.iter().map(|mark| mark.index).max().unwrap_or(0);
        let dir = Path::new("/m1.etcd/member/wal");
        let entries = wal::read_entries(&*self.disk, dir, start + 1..u64::MAX, usize::MAX)?;
        let mut out = String::new();
        for entry in entries {
            let what = match entry.r#type() {
                raftpb::EntryType::EntryConfChange => {
                    let change = raftpb::ConfChange::decode(entry.data)?;
                    format!("{:?} {}", change.r#type(), String::from_utf8_lossy(&change.context))
                }
                _ if entry.data.is_empty() => "empty".to_owned(),
                _ => request_name(&pb::InternalRaftRequest::decode(entry.data)?),
            };
            writeln!(out, "{} term {}: {what}", entry.index, entry.term)?;
        }
        Ok(out)
    }

    /// Shows the marks in the WAL and what is in the newest snapshot file.
    fn marks(&mut self) -> Ran {
        let marks = wal::snapshot_marks(&*self.disk, Path::new("/m1.etcd/member/wal"))?;
        let mut out = String::new();
        for mark in &marks {
            let voters = mark.conf_state.as_ref().map_or(0, |state| state.voters.len());
            writeln!(out, "mark at {} term {}, voters: {voters}", mark.index, mark.term)?;
        }
        let dir = Path::new("/m1.etcd/member/snap");
        if let Some(snapshot) = snap::load_newest(&*self.disk, dir, &marks)? {
            let text = String::from_utf8_lossy(&snapshot.data).replace(&"null,".repeat(999), "…");
            writeln!(out, "{}: {text}", snapshot.metadata.index)?;
        }
        Ok(out)
    }

    fn members(&mut self) -> Ran {
        let membership = self.process()?.node.reader().membership();
        let mut out = String::new();
        for member in membership.members() {
            writeln!(
                out,
                "{:x} {:?} {:?} {:?}",
                member.id, member.name, member.peer_urls, member.client_urls
            )?;
        }
        writeln!(out, "cluster version {:?}", membership.cluster_version.map(|v| v.to_string()))?;
        Ok(out)
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

fn position<'a>(args: &mut ArgumentConsumer<'a>) -> Result<&'a str, Box<dyn Error>> {
    args.next_pos().ok_or_else(|| "an argument is missing".into())
}

fn bytes(args: &mut ArgumentConsumer<'_>) -> Result<Bytes, Box<dyn Error>> {
    Ok(Bytes::from(position(args)?.to_owned()))
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
        Answer::ReadReady | Answer::Leases(_) | Answer::Defragmented | Answer::Failed(_) => {
            format!("{answer:?}")
        }
    }
}

fn request_name(request: &pb::InternalRaftRequest) -> String {
    if let Some(put) = &request.put {
        return format!("put {}", String::from_utf8_lossy(&put.key));
    }
    if let Some(attributes) = &request.cluster_member_attr_set {
        let attributes = attributes.member_attributes.clone().unwrap_or_default();
        return format!("attributes {} {:?}", attributes.name, attributes.client_urls);
    }
    if let Some(version) = &request.cluster_version_set {
        return format!("cluster version {}", version.ver);
    }
    if let Some(revoke) = &request.lease_revoke {
        return format!("revoke {}", revoke.id);
    }
    if let Some(compaction) = &request.compaction {
        return format!("compact {}", compaction.revision);
    }
    if let Some(alarm) = &request.alarm {
        return format!("alarm {:?} {:?} of {:x}", alarm.action(), alarm.alarm(), alarm.member_id);
    }
    "other".to_owned()
}

impl goldenscript::Runner for World {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Ran {
        self.out.clear();
        let result = match self.run_process_command(command)? {
            Some(result) => result,
            None => match self.run_request(command)? {
                Some(result) => result,
                None => self.run_look(command)?,
            },
        };
        Ok(std::mem::take(&mut self.out) + &result)
    }
}

#[test]
fn scripts_tell_the_life_of_a_member() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/member");
    for entry in std::fs::read_dir(directory).expect("the scripts are there") {
        let path = entry.expect("readable").path();
        goldenscript::run(&mut World::new(), &path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
