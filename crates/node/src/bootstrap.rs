//! How a member starts: by forming a cluster with the others, or from what it has on disk.
//!
//! Recovery order, and what each part promises the next: the backend says up to where entries are applied; the newest
//! mark in the WAL at or below that says where reading starts; the entries behind it that the backend does not hold are
//! applied again once consensus has them committed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use machine::membership::{cluster_id, initial_member_id};
use machine::{Machine, schema};
use prost::Message as _;
use proto::etcdserverpb::Metadata;
use proto::{raftpb, walpb};
use serde::Serialize;
use storage::backend::{Backend, DefragmentFault, Size};
use storage::datadir::DataDir;
use storage::wal::{self, Wal};
use storage::{Disk, Fault, OrFault as _, snap};

use crate::backend_pace::BackendPace;
use crate::backlog::Backlog;
use crate::compactor::Compactor;
use crate::config::{Bootstrap, Config};
use crate::consensus::{self, Consensus, Durable, Position};
use crate::doubts::Doubts;
use crate::install::Install;
use crate::leadership::Leadership;
use crate::lease_desk::LeaseDesk;
use crate::meter::Meter;
use crate::node::{Node, Own};
use crate::office::Office;
use crate::proposals::Proposals;
use crate::reads::Reads;
use crate::sending::Sending;
use crate::snapshots::Snapshots;
use crate::transfer::Transfers;
use crate::upkeep::Upkeep;
use crate::{Effects, Gate, Identity, Now, RequestIds};

/// The term of the entries that form a cluster.
const BOOTSTRAP_TERM: u64 = 1;

const REMEDY: &str = "restore the data directory from a backup, or remove this member from the cluster and add it \
                      again with an empty one";

/// A member that has started.
#[derive(Debug)]
pub struct Started {
    /// The member.
    pub node: Node,
    /// Its log, for the WAL thread.
    pub wal: Wal,
    /// Its directories; held for their lock.
    pub data_dir: DataDir,
    /// What is to be done first.
    pub effects: Effects,
}

/// Why a member cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The disk failed, or what is on it is damaged.
    #[error(transparent)]
    Fault(#[from] machine::Fault),
    /// The member is not in the cluster that it is to form.
    #[error("couldn't find local name {name:?} in the initial cluster configuration")]
    NotInCluster {
        /// Its name.
        name: String,
    },
    /// Two members of the cluster to be formed are the same.
    #[error("initial cluster has members with equal peer URLs: {peer_urls}")]
    EqualMembers {
        /// Their URLs.
        peer_urls: String,
    },
}

impl From<Fault> for StartError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault.into())
    }
}

/// What the log gives to a start.
struct Log {
    wal: Wal,
    member: u64,
    cluster: u64,
    durable: Durable,
    /// The newest mark in the WAL.
    last_mark: u64,
}

impl Node {
    /// Opens the data directory, forms a cluster in it if it is new, and starts the member. A lone voter leads at once
    /// when its first WAL job is done.
    pub fn start(disk: &Arc<dyn Disk>, config: Config, now: Now) -> Result<Started, StartError> {
        Self::start_heard(disk, config, now, None)
    }

    /// As [`Node::start`], with a meter that is told of what is applied during the start, too.
    pub fn start_heard(
        disk: &Arc<dyn Disk>,
        config: Config,
        now: Now,
        meter: Option<Box<dyn Meter>>,
    ) -> Result<Started, StartError> {
        let data_dir = DataDir::open(&**disk, &config.data_dir, config.wal_dir.as_deref())?;
        let has_log = wal::exists(&**disk, data_dir.wal())?;
        let database = data_dir.database();
        let mark = if has_log { wal::newest_snapshot_mark(&**disk, data_dir.wal())? } else { None };
        finish_install(disk, data_dir.snap(), mark.as_ref(), &database, config.backend.options)?;
        let backend =
            Backend::open(Arc::clone(disk), &database, schema::BUCKETS, config.backend.options)?;
        if let Some(threshold) = config.backend.defragment_at_start {
            defragment(&backend, threshold)?;
        }
        let mut options = config.machine.clone();
        options.lease.clock_step = config.raft.lease_step();
        let machine = Machine::recover(backend, options)?;
        let log = if has_log {
            let mark = usable_mark(&**disk, data_dir.wal(), mark, machine.applied().index)?;
            recover(disk, data_dir.wal(), &database, &config, &machine, &mark)?
        } else if machine.applied().index == 0 {
            form(disk, data_dir.wal(), &config)?
        } else {
            let what = "it holds applied entries, but there is no log";
            return Err(Fault::unusable(data_dir.wal(), what, REMEDY).into());
        };
        let Log { wal, member, cluster, durable, last_mark } = log;
        let options = consensus::Options {
            id: member,
            election_ticks: config.raft.election_ticks as usize,
            pre_vote: config.raft.pre_vote,
            seed: config.raft.seed,
        };
        let consensus = Consensus::new(options, durable)
            .map_err(|error| Fault::unusable(data_dir.wal(), error.to_string(), REMEDY))?;
        let mut node = assemble(config, (member, cluster), consensus, machine, now);
        node.snapshots = Snapshots::new(node.own.snapshots.count, last_mark);
        node.meter = meter;
        let effects = node.begin();
        Ok(Started { node, wal, data_dir, effects })
    }

    /// Applies what is committed already, and campaigns if nobody else can lead.
    fn begin(&mut self) -> Effects {
        let mut effects = self.end_of_burst();
        let status = self.consensus.status();
        if status.is_lone {
            self.consensus.campaign();
        } else if self.own.raft.hasten_first_election {
            self.consensus.hasten_election(self.own.raft.election_ticks.saturating_sub(1) as usize);
        }
        effects.append(self.end_of_burst());
        effects
    }
}

fn assemble(
    config: Config,
    (member, cluster): (u64, u64),
    consensus: Consensus,
    machine: Machine,
    now: Now,
) -> Node {
    let revision = machine.reader().revision();
    Node {
        own: Own {
            id: member,
            name: config.name,
            client_urls: config.client_urls,
            raft: config.raft,
            snapshots: config.snapshots,
        },
        reader: machine.reader(),
        consensus,
        machine,
        gate: Arc::new(Gate::new(member, cluster)),
        ids: Arc::new(RequestIds::new(member, config.unix_ms)),
        proposals: Proposals::new(config.proposals, config.raft.request_timeout()),
        reads: Reads::default(),
        leases: LeaseDesk::new(config.renews_at_once),
        compactor: Compactor::new(config.auto_compaction, now, revision),
        backend: BackendPace::new(config.backend, config.raft.tick),
        snapshots: Snapshots::new(config.snapshots.count, 0),
        upkeep: Upkeep::default(),
        leadership: Leadership::default(),
        office: Office::default(),
        doubts: Doubts::default(),
        transfers: Transfers::default(),
        sending: Sending::default(),
        install: Install::default(),
        to_apply: Backlog::default(),
        wal_job: 0,
        now,
        stalled: std::time::Duration::ZERO,
        ending: None,
        was_told: false,
        has_stopped: false,
        meter: None,
    }
}

/// Rewrites the backend's file if that frees `threshold` bytes.
fn defragment(backend: &Backend, threshold: u64) -> Result<(), Fault> {
    let Size { physical, in_use } = backend.size();
    let is_worth_it = physical.saturating_sub(in_use) >= threshold;
    let what = if is_worth_it { "defragmenting" } else { "Skipping defragmentation" };
    tracing::info!(
        "current-db-size-bytes" = physical,
        "current-db-size-in-use-bytes" = in_use,
        "bootstrap-defrag-threshold-bytes" = threshold,
        "{what}"
    );
    if !is_worth_it {
        return Ok(());
    }
    match backend.defragment() {
        Ok(()) => Ok(()),
        Err(DefragmentFault::GivenUp(fault)) => {
            tracing::warn!(error = %fault, "the defragmentation was given up; the file is as before");
            Ok(())
        }
        Err(DefragmentFault::Unknown(fault)) => Err(fault),
    }
}

/// Returns the mark to begin with: `newest`, unless it is of a leader's snapshot that a crash has kept from being installed. The
/// member has gone on with the entries of the log then, and may not have applied as much durably.
fn usable_mark(
    disk: &dyn Disk,
    dir: &Path,
    newest: Option<walpb::Snapshot>,
    applied: u64,
) -> Result<walpb::Snapshot, Fault> {
    let newest = newest.unwrap_or_default();
    if newest.index <= applied {
        return Ok(newest);
    }
    let marks = wal::snapshot_marks(disk, dir)?;
    Ok(marks.into_iter().rfind(|mark| mark.index <= applied).unwrap_or(newest))
}

/// Reads the log of a member that was there before.
fn recover(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    database: &Path,
    config: &Config,
    machine: &Machine,
    start: &walpb::Snapshot,
) -> Result<Log, StartError> {
    let applied = machine.applied().index;
    let newest = start.index;
    if newest > applied {
        let what = format!("it holds entries up to {applied}, but the log begins at {newest}");
        return Err(Fault::unusable(database, what, REMEDY).into());
    }
    let (mut wal, recovered) =
        Wal::recover_with(Arc::clone(disk), dir, wal::Start::from(start), config.wal)?;
    if let Some(repair) = &recovered.repaired {
        tracing::warn!(?repair, "cut a torn tail off the log");
    }
    let (member, cluster) = (recovered.node_id, recovered.cluster_id);
    if recovered.hard_state.is_none() && start.index == 0 && applied == 0 {
        // The first start ended between creating the log and having written to it: entries without the hard state
        // behind them are a part of what is written again.
        if config.bootstrap.joins.is_some() {
            return Ok(Log { wal, member, cluster, durable: Durable::empty(), last_mark: 0 });
        }
        let formed = Formed::new(&config.bootstrap, &config.name)?;
        if (formed.member, formed.cluster) != (member, cluster) {
            let what = "it is empty and belongs to another member than the one configured";
            return Err(Fault::unusable(dir, what, "remove it, then start again").into());
        }
        let durable = formed.write(&mut wal)?;
        return Ok(Log { wal, member, cluster, durable, last_mark: 0 });
    }
    #[cfg(feature = "planted-faults")]
    let applied = {
        use crate::fault_hooks::{Planted, is_planted};
        let last = recovered.entries.last().map_or(0, |entry| entry.index);
        if is_planted(Planted::SkippedEntry) {
            (applied + 1).min(last.max(applied))
        } else {
            applied
        }
    };
    let mut durable = Durable {
        hard_state: recovered.hard_state.unwrap_or_default(),
        conf_state: conf_state(machine, start),
        start: Position { index: start.index, term: start.term },
        entries: recovered.entries,
        applied,
    };
    if config.forces_new_cluster {
        stand_alone(&mut durable, member, &mut wal)?;
    }
    tracing::info!(
        member = format!("{member:x}"),
        cluster = format!("{cluster:x}"),
        commit_index = durable.hard_state.commit,
        applied,
        "recovered the log"
    );
    Ok(Log { wal, member, cluster, durable, last_mark: newest })
}

/// Puts a snapshot's backend in its place if a crash came between its mark and its name, and removes any other that was
/// not taken. The mark alone does not tell: it may be this member's own, and the file what was left of an attempt.
fn finish_install(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    mark: Option<&walpb::Snapshot>,
    database: &Path,
    options: storage::backend::Options,
) -> Result<(), StartError> {
    snap::remove_imports(&**disk, dir, mark.map(|mark| mark.index))?;
    let Some(mark) = mark else { return Ok(()) };
    let beside = snap::import_path(dir, mark.index);
    if !disk.exists(&beside).or_fault("look for", &beside)? {
        return Ok(());
    }
    let applied = |path: &Path| -> Result<machine::Applied, machine::Fault> {
        machine::applied(&Backend::open(Arc::clone(disk), path, schema::BUCKETS, options)?)
    };
    let is_behind = applied(database)?.index < mark.index;
    if is_behind && applied(&beside)? == (machine::Applied { index: mark.index, term: mark.term }) {
        tracing::info!(path = %beside.display(), "putting a snapshot's file in its place");
        disk.rename(&beside, database).or_fault("rename", &beside)?;
    } else {
        disk.remove_file(&beside).or_fault("remove", &beside)?;
    }
    disk.sync_dir(dir).or_fault("sync", dir)?;
    Ok(())
}

/// Makes the log go on with the removal of all other members, as if they had agreed. The whole log counts as committed, unlike
/// in etcd, which drops what the commit index on the disk does not cover: that index lags behind, and what it does not cover
/// may be acknowledged. Nobody is left who could have agreed on something else.
fn stand_alone(durable: &mut Durable, own: u64, wal: &mut Wal) -> Result<(), Fault> {
    let Durable { hard_state, conf_state, start, entries, applied } = durable;
    let mut learners: BTreeSet<u64> = conf_state.learners.iter().copied().collect();
    let mut others: BTreeSet<u64> = conf_state.voters.iter().copied().collect();
    others.extend(&learners);
    for entry in entries.iter().filter(|entry| entry.index > *applied) {
        let is_change = entry.r#type() == raftpb::EntryType::EntryConfChange;
        let change = raftpb::ConfChange::decode(entry.data.clone()).ok();
        let Some(change) = change.filter(|_| is_change) else { continue };
        let id = change.node_id;
        match change.r#type() {
            raftpb::ConfChangeType::ConfChangeRemoveNode => {
                others.remove(&id);
                learners.remove(&id);
            }
            raftpb::ConfChangeType::ConfChangeAddNode => {
                others.insert(id);
                learners.remove(&id);
            }
            raftpb::ConfChangeType::ConfChangeAddLearnerNode => {
                others.insert(id);
                learners.insert(id);
            }
            raftpb::ConfChangeType::ConfChangeUpdateNode => {}
        }
    }
    others.remove(&own);
    // A learner gets its vote first: the last voter cannot be removed.
    let promoted = machine::membership::Member { id: own, ..Default::default() };
    let promotion = learners.contains(&own).then(|| {
        let kind = raftpb::ConfChangeType::ConfChangeAddNode;
        (kind, own, schema::conf_change_context(&promoted, true))
    });
    let removals = others
        .iter()
        .map(|other| (raftpb::ConfChangeType::ConfChangeRemoveNode, *other, Bytes::new()));
    let first = entries.last().map_or(start.index, |entry| entry.index) + 1;
    let changes: Vec<_> = (first..)
        .zip(promotion.into_iter().chain(removals))
        .map(|(index, (kind, node, context))| {
            change_entry(kind, (index, hard_state.term), node, context)
        })
        .collect();
    tracing::warn!(
        removed = others.iter().map(|id| format!("{id:x}")).collect::<Vec<_>>().join(","),
        "forcing a new cluster: all other members are removed"
    );
    hard_state.commit = first + changes.len() as u64 - 1;
    wal.append(&changes, Some(hard_state))?;
    wal.sync()?;
    entries.extend(changes);
    Ok(())
}

/// Returns the consensus group as of the applied entry: what the backend says, and for one that does not say (before
/// etcd 3.5), what the mark says.
fn conf_state(machine: &Machine, start: &walpb::Snapshot) -> raftpb::ConfState {
    let stored = machine.conf_state();
    if stored.voters.is_empty() {
        return start.conf_state.clone().unwrap_or_default();
    }
    raftpb::ConfState {
        voters: stored.voters.clone(),
        learners: stored.learners.clone(),
        ..Default::default()
    }
}

/// Creates the log of a new member.
fn form(disk: &Arc<dyn Disk>, dir: &Path, config: &Config) -> Result<Log, StartError> {
    if let Some(Identity { member, cluster }) = config.bootstrap.joins {
        let identity = Metadata { node_id: member, cluster_id: cluster };
        let mut wal = Wal::create_with(Arc::clone(disk), dir, identity, config.wal)?;
        wal.sync()?;
        tracing::info!(
            member = format!("{member:x}"),
            cluster = format!("{cluster:x}"),
            "joining an existing cluster"
        );
        return Ok(Log { wal, member, cluster, durable: Durable::empty(), last_mark: 0 });
    }
    let formed = Formed::new(&config.bootstrap, &config.name)?;
    let (member, cluster) = (formed.member, formed.cluster);
    let identity = Metadata { node_id: member, cluster_id: cluster };
    let mut wal = Wal::create_with(Arc::clone(disk), dir, identity, config.wal)?;
    let durable = formed.write(&mut wal)?;
    tracing::info!(
        member = format!("{member:x}"),
        cluster = format!("{cluster:x}"),
        "formed a new cluster"
    );
    Ok(Log { wal, member, cluster, durable, last_mark: 0 })
}

/// A cluster that is being formed; every member of it comes to the same one.
#[derive(Debug, PartialEq, Eq)]
struct Formed {
    member: u64,
    cluster: u64,
    entries: Vec<raftpb::Entry>,
}

/// A member as the first entries have it.
#[derive(Serialize)]
struct Context<'a> {
    id: u64,
    #[serde(rename = "peerURLs")]
    peer_urls: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
}

impl Formed {
    fn new(bootstrap: &Bootstrap, name: &str) -> Result<Self, StartError> {
        let mut members: Vec<(u64, &str, Vec<String>)> = bootstrap
            .members
            .iter()
            .map(|member| {
                let mut urls = member.peer_urls.clone();
                urls.sort_unstable();
                (initial_member_id(&urls, &bootstrap.cluster_token), member.name.as_str(), urls)
            })
            .collect();
        members.sort_unstable();
        if let Some(pair) = members.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(StartError::EqualMembers { peer_urls: pair[0].2.join(",") });
        }
        let ids: Vec<u64> = members.iter().map(|(id, ..)| *id).collect();
        let own = members.iter().find(|(_, other, _)| *other == name);
        let Some((member, ..)) = own else {
            return Err(StartError::NotInCluster { name: name.to_owned() });
        };
        let entries = (1..).zip(&members).map(|(index, (id, name, urls))| {
            let context = Context { id: *id, peer_urls: urls, name };
            let kind = raftpb::ConfChangeType::ConfChangeAddNode;
            let context = crate::snapshots::go_json(&context).into();
            change_entry(kind, (index, BOOTSTRAP_TERM), *id, context)
        });
        Ok(Self { member: *member, cluster: cluster_id(&ids), entries: entries.collect() })
    }

    /// Writes the first entries, durably.
    fn write(self, wal: &mut Wal) -> Result<Durable, StartError> {
        let hard_state =
            raftpb::HardState { term: BOOTSTRAP_TERM, vote: 0, commit: self.entries.len() as u64 };
        wal.append(&self.entries, Some(&hard_state))?;
        wal.sync()?;
        Ok(Durable {
            hard_state,
            conf_state: raftpb::ConfState::default(),
            start: Position { index: 0, term: 0 },
            entries: self.entries,
            applied: 0,
        })
    }
}

fn change_entry(
    kind: raftpb::ConfChangeType,
    (index, term): (u64, u64),
    node_id: u64,
    context: Bytes,
) -> raftpb::Entry {
    let change = raftpb::ConfChange { id: 0, r#type: kind.into(), node_id, context };
    raftpb::Entry {
        r#type: raftpb::EntryType::EntryConfChange.into(),
        term,
        index,
        data: change.encode_to_vec().into(),
    }
}

#[cfg(test)]
mod tests {
    use storage::mem::MemDisk;

    use super::*;
    use crate::InitialMember;

    #[test]
    fn a_mark_that_was_never_installed_is_passed_over_until_its_entries_are_applied() {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let dir = Path::new("wal");
        let identity = Metadata { node_id: 1, cluster_id: 2 };
        let options = wal::Options { segment_bytes: 1 << 16, ..wal::Options::default() };
        let mut log =
            Wal::create_with(Arc::clone(&disk), dir, identity, options).expect("a new log");
        let entries = |range: std::ops::Range<u64>| -> Vec<raftpb::Entry> {
            let entry = |index| raftpb::Entry { index, term: 1, ..Default::default() };
            range.map(entry).collect()
        };
        let state = |commit| raftpb::HardState { term: 1, vote: 1, commit };
        log.append(&entries(1..6), Some(&state(5))).expect("room");
        let conf_state = Some(raftpb::ConfState { voters: vec![1], ..Default::default() });
        log.append_snapshot_mark(&walpb::Snapshot { index: 8, term: 1, conf_state }).expect("room");
        // A crash kept it from being installed; the entries came one by one then.
        log.append(&entries(6..10), Some(&state(9))).expect("room");
        log.sync().expect("a disk");
        drop(log);
        let newest = wal::newest_snapshot_mark(&*disk, dir).expect("a log");
        assert_eq!(newest.as_ref().map(|mark| mark.index), Some(8));
        for (applied, begins, count) in [(7, 0, 9), (8, 8, 1)] {
            let mark = usable_mark(&*disk, dir, newest.clone(), applied).expect("a log");
            assert_eq!(mark.index, begins, "{applied} applied");
            let recovered = Wal::recover_with(
                Arc::clone(&disk),
                dir,
                wal::Start::from(&mark),
                wal::Options { segment_bytes: 1 << 16, ..wal::Options::default() },
            );
            assert_eq!(recovered.expect("a log").1.entries.len(), count, "{applied} applied");
        }
    }

    fn bootstrap(members: &[(&str, &str)]) -> Bootstrap {
        let members = members
            .iter()
            .map(|(name, url)| InitialMember {
                name: (*name).to_owned(),
                peer_urls: vec![(*url).to_owned()],
            })
            .collect();
        Bootstrap { members, cluster_token: "etcd-cluster".to_owned(), joins: None }
    }

    #[test]
    fn all_members_form_the_same_cluster_in_any_order() {
        let a = bootstrap(&[("a", "http://10.0.0.1:2380"), ("b", "http://10.0.0.2:2380")]);
        let b = bootstrap(&[("b", "http://10.0.0.2:2380"), ("a", "http://10.0.0.1:2380")]);
        let (a, b) = (Formed::new(&a, "a").expect("in"), Formed::new(&b, "b").expect("in"));
        assert_eq!((a.cluster, &a.entries), (b.cluster, &b.entries));
        assert_ne!(a.member, b.member);
        assert_eq!(a.entries.iter().map(|entry| entry.index).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn the_first_entry_is_the_one_that_etcd_writes() {
        let formed = bootstrap(&[("default", "http://localhost:2380")]);
        let formed = Formed::new(&formed, "default").expect("in");
        assert_eq!(format!("{:x}", formed.member), "8e9e05c52164694d");
        assert_eq!(format!("{:x}", formed.cluster), "cdf818194e3a8c32");
        let change = raftpb::ConfChange::decode(formed.entries[0].data.clone()).expect("decodes");
        assert_eq!(
            String::from_utf8_lossy(&change.context),
            r#"{"id":10276657743932975437,"peerURLs":["http://localhost:2380"],"name":"default"}"#
        );
    }

    #[test]
    fn impossible_clusters_are_refused() {
        let cluster = bootstrap(&[("a", "http://10.0.0.1:2380"), ("b", "http://10.0.0.1:2380")]);
        assert!(matches!(Formed::new(&cluster, "a"), Err(StartError::EqualMembers { .. })));
        let cluster = bootstrap(&[("a", "http://10.0.0.1:2380")]);
        assert!(matches!(Formed::new(&cluster, "b"), Err(StartError::NotInCluster { .. })));
    }
}
