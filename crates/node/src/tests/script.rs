//! The commands of the scripts.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command, Context};
use prost::Message as _;
use proto::etcdserverpb as pb;
use proto::raftpb;
use storage::{Fault, snap, wal};

use super::world::{TICK, World, data_dir, member};
use crate::*;

type Ran = Result<String, Box<dyn Error>>;

impl World {
    /// Lets a tick pass at all members.
    pub(super) fn tick(&mut self) -> Result<(), Box<dyn Error>> {
        let chosen = self.chosen.clone();
        let names: Vec<String> = self.members.keys().cloned().collect();
        for name in names {
            self.chosen = name;
            let Ok(process) = self.process() else { continue };
            process.now += TICK;
            let now = Now(process.now);
            self.give(Event::Tick { now })?;
        }
        self.chosen = chosen;
        Ok(())
    }

    fn propose(&mut self, name: String, fill: impl FnOnce(&mut pb::InternalRaftRequest)) -> Ran {
        let token = self.ask(name);
        let id = self.process()?.node.request_ids().next();
        let header = pb::RequestHeader { id, ..Default::default() };
        let mut request = pb::InternalRaftRequest { header: Some(header), ..Default::default() };
        fill(&mut request);
        let data = Bytes::from(request.encode_to_vec());
        self.give(Event::Propose(vec![Proposal { token, id, data }]))?;
        Ok(String::new())
    }

    fn lease(&mut self, name: String, kind: LeaseRequestKind) -> Ran {
        let token = self.ask(name);
        self.give(Event::Lease(vec![LeaseRequest { token, kind }]))?;
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
                self.member().process = None;
                String::new()
            }
            "crash" => {
                self.member().process = None;
                let name = self.chosen.clone();
                self.cut_transfers(&name);
                String::new()
            }
            "send_snapshot" => {
                self.send_snapshot_to(position(&mut args)?)?;
                String::new()
            }
            "all_speak" => {
                let lowest = position(&mut args)?.parse().ok();
                self.give(Event::PeerVersions { lowest })?;
                String::new()
            }
            "tick" => {
                for _ in 0..position(&mut args)?.parse::<u32>()? {
                    self.tick()?;
                }
                String::new()
            }
            "pause" => {
                let pause = std::time::Duration::from_millis(position(&mut args)?.parse()?);
                self.process()?.now += pause;
                String::new()
            }
            "cut" => {
                self.member().is_cut = true;
                String::new()
            }
            "heal" => {
                self.member().is_cut = false;
                String::new()
            }
            _ => return Ok(None),
        };
        args.reject_next()?;
        Ok(Some(out))
    }

    /// Runs a command that is about the work of a member's disk.
    fn run_disk_command(&mut self, command: &Command) -> Result<Option<String>, Box<dyn Error>> {
        let mut args = command.consume_args();
        let out = match command.name.as_str() {
            "hold" => {
                match position(&mut args)? {
                    "wal" => self.member().holds_wal = true,
                    _ => self.member().holds_backend = true,
                }
                String::new()
            }
            "release" => {
                self.member().holds_wal = false;
                self.member().holds_backend = false;
                self.settle()?;
                String::new()
            }
            "backend" => {
                self.member().backend_jobs_left = position(&mut args)?.parse()?;
                self.settle()?;
                self.member().backend_jobs_left = 0;
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
            "fail" | "mend" => self.member().disk.set(position(&mut args)?, &command.name)?,
            _ => return Ok(None),
        };
        args.reject_next()?;
        Ok(Some(out))
    }

    fn configure(&mut self, args: &mut ArgumentConsumer<'_>) -> Ran {
        while let Some((key, value)) = args.next_key() {
            match key {
                "snapshot_count" => self.member().config.snapshots.count = value.parse()?,
                "catch_up_entries" => {
                    self.member().config.snapshots.catch_up_entries = value.parse()?
                }
                "tail_bytes" => self.member().config.machine.tail_bytes_max = value.parse()?,
                "log_bytes" => self.member().config.snapshots.log_bytes_max = value.parse()?,
                "quota" => self.member().config.machine.quota_bytes = value.parse()?,
                "proposals" => self.member().config.proposals.count_max = value.parse()?,
                "proposal_bytes" => self.member().config.proposals.bytes_max = value.parse()?,
                "step_bytes" => self.member().config.backend.options.step_bytes = value.parse()?,
                "defragment_pause_ms" => {
                    let pause = std::time::Duration::from_millis(value.parse()?);
                    self.member().config.backend.defragment_pause = pause;
                }
                "compaction_pause_ms" => {
                    let pause = std::time::Duration::from_millis(value.parse()?);
                    self.member().config.backend.compaction_pause = pause;
                }
                "force_new_cluster" => {
                    self.member().config.forces_new_cluster = value.parse()?;
                }
                "lease_checkpoints" => {
                    self.member().config.machine.lease.checkpoints = value.parse()?;
                }
                "segment_bytes" => self.member().config.wal.segment_bytes = value.parse()?,
                "compaction_batch" => {
                    self.member().config.machine.compaction_batch = value.parse()?
                }
                "keep_revisions" => {
                    self.member().config.auto_compaction = AutoCompaction::Revision(value.parse()?);
                }
                "joins" => {
                    let member = u64::from_str_radix(value, 16)?;
                    let running = self.members.values().find_map(|member| member.process.as_ref());
                    let cluster = running.ok_or("no cluster runs")?.node.gate().cluster();
                    self.member().config.bootstrap.joins = Some(Identity { member, cluster });
                }
                "members" => {
                    let members = (1..=value.parse()?).map(member).collect();
                    self.member().config.bootstrap.members = members;
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
                String::new()
            }
            "defragment" => {
                let token = self.ask(name);
                self.give(Event::Defragment(token))?;
                String::new()
            }
            "alarms" => {
                let alarms = pb::AlarmRequest::default();
                self.propose(name, |request| request.alarm = Some(alarms))?
            }
            "member_update" | "member_remove" | "member_promote" | "member_add_learner" => {
                self.change_member(&name, &mut args)?
            }
            _ => return Ok(None),
        };
        args.reject_next()?;
        Ok(Some(out))
    }

    /// Proposes a change of the membership: `member_<what> <id in hex> [url] [if_ready=true]`.
    fn change_member(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Ran {
        let token = self.ask(name.to_owned());
        let is_checked = args.take_key("if_ready") == Some("true");
        let member = u64::from_str_radix(position(args)?, 16)?;
        let (kind, context) = match name.split_whitespace().next() {
            Some("member_remove") => (raftpb::ConfChangeType::ConfChangeRemoveNode, String::new()),
            Some("member_promote") => (
                raftpb::ConfChangeType::ConfChangeAddNode,
                format!(r#"{{"id":{member},"peerURLs":null,"isPromote":true}}"#),
            ),
            Some("member_add_learner") => (
                raftpb::ConfChangeType::ConfChangeAddLearnerNode,
                format!(r#"{{"id":{member},"peerURLs":["{}"],"isLearner":true}}"#, position(args)?),
            ),
            _ => (
                raftpb::ConfChangeType::ConfChangeUpdateNode,
                format!(r#"{{"id":{member},"peerURLs":["{}"]}}"#, position(args)?),
            ),
        };
        let id = self.process()?.node.request_ids().next();
        let change = raftpb::ConfChange {
            id,
            r#type: kind.into(),
            node_id: member,
            context: context.into(),
        };
        let data = change.encode_to_vec().into();
        let proposal = Proposal { token, id, data };
        let promotes = is_checked.then_some(member);
        self.give(Event::ProposeConfChange { proposal, promotes })?;
        Ok(String::new())
    }

    fn run_look(&mut self, command: &Command) -> Ran {
        let mut args = command.consume_args();
        let out = match command.name.as_str() {
            "leader" => self.leader(),
            "hash" => self.hash()?,
            "get" => self.get(bytes(&mut args)?)?,
            "status" => self.status()?,
            "log" => self.log()?,
            "marks" => self.marks()?,
            "files" => self.snapshot_files()?,
            "members" => self.members()?,
            other => return Err(format!("unknown command {other}").into()),
        };
        args.reject_next()?;
        Ok(out)
    }

    /// Tells who leads according to each member that runs.
    fn leader(&mut self) -> String {
        let mut lines = Vec::new();
        let names: std::collections::BTreeMap<u64, String> = self
            .members
            .iter()
            .filter_map(|(name, member)| {
                Some((member.process.as_ref()?.node.gate().member(), name.clone()))
            })
            .collect();
        for (name, member) in &self.members {
            let Some(process) = &member.process else { continue };
            let gate = process.node.gate();
            let leader = match gate.leader() {
                0 => "nobody",
                leader => names.get(&leader).map_or("one that is gone", String::as_str),
            };
            lines.push(format!("{name}: {leader} leads in term {}", gate.term()));
        }
        lines.join("\n")
    }

    /// Tells applied index and hash of each member that runs.
    fn hash(&mut self) -> Ran {
        let mut out = String::new();
        for (name, member) in &self.members {
            let Some(process) = &member.process else { continue };
            let applied = process.node.gate().applied_index();
            let (hash, revision) = process.node.reader().hash_kv(0)?;
            writeln!(
                out,
                "{name}: applied {applied}, hash {:08x} at revision {revision}",
                hash.hash
            )?;
        }
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
        let (disk, dir) =
            (Arc::clone(&self.member().disk), data_dir(&self.chosen).join("member/wal"));
        let marks = wal::snapshot_marks(&*disk, &dir)?;
        let start = marks.iter().map(|mark| mark.index).max().unwrap_or(0);
        let entries = wal::read_entries(&*disk, &dir, start + 1..u64::MAX, usize::MAX)?;
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
        let (disk, dir) = (Arc::clone(&self.member().disk), data_dir(&self.chosen).join("member"));
        let marks = wal::snapshot_marks(&*disk, &dir.join("wal"))?;
        let mut out = String::new();
        for mark in &marks {
            let voters = mark.conf_state.as_ref().map_or(0, |state| state.voters.len());
            writeln!(out, "mark at {} term {}, voters: {voters}", mark.index, mark.term)?;
        }
        if let Some(snapshot) = snap::load_newest(&*disk, &dir.join("snap"), &marks)? {
            let text = String::from_utf8_lossy(&snapshot.data).replace(&"null,".repeat(999), "…");
            writeln!(out, "{}: {text}", snapshot.metadata.index)?;
        }
        Ok(out)
    }

    fn members(&mut self) -> Ran {
        let membership = self.process()?.node.reader().membership();
        let mut out = String::new();
        for member in membership.members() {
            let learner = if member.is_learner { " learner" } else { "" };
            writeln!(
                out,
                "{:x} {:?} {:?} {:?}{learner}",
                member.id, member.name, member.peer_urls, member.client_urls
            )?;
        }
        writeln!(out, "cluster version {:?}", membership.cluster_version.map(|v| v.to_string()))?;
        Ok(out)
    }
}

fn position<'a>(args: &mut ArgumentConsumer<'a>) -> Result<&'a str, Box<dyn Error>> {
    args.next_pos().ok_or_else(|| "an argument is missing".into())
}

fn bytes(args: &mut ArgumentConsumer<'_>) -> Result<Bytes, Box<dyn Error>> {
    Ok(Bytes::from(position(args)?.to_owned()))
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

    fn run(&mut self, command: &Command, context: &Context) -> Ran {
        self.out.clear();
        self.chosen = context.prefix.clone().unwrap_or_else(|| "m1".to_owned());
        let mut result = self.run_process_command(command)?;
        if result.is_none() {
            result = self.run_disk_command(command)?;
        }
        if result.is_none() {
            result = self.run_request(command)?;
        }
        let result = result.map_or_else(|| self.run_look(command), Ok)?;
        Ok(std::mem::take(&mut self.out) + &result)
    }
}
