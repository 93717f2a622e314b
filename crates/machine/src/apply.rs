//! What each command does.
//!
//! Around the commands lies a chain, outermost first: while a CORRUPT alarm is set, nearly
//! everything is refused; while a NOSPACE alarm is set, whatever takes space; a request that
//! exceeds this member's quota takes effect, since it does on the others, but answers that there is
//! no space.

use bytes::Bytes;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::alarm_request::AlarmAction;
use proto::etcdserverpb::{AlarmMember, AlarmType};
use storage::backend::Op;

use crate::command::{Command, Request};
use crate::fault::{EntryFault, Fault};
use crate::machine::{AppliedEntry, Machine};
use crate::membership::{Downgrade, Version};
use crate::mvcc::compact::{Compaction, compact_mark};
use crate::mvcc::store::cleared;
use crate::mvcc::txn::{self, Checks, RangeChecks, Replies};
use crate::mvcc::{range, view::View};
use crate::outcome::{Outcome, Reply};
use crate::stats::Operations;
use crate::{Refusal, quota, schema};

/// From this cluster version on, checkpoints of leases are always stored.
const STORES_CHECKPOINTS: Version = Version::new(3, 6, 0);
/// From this cluster version on, all members check the ranges of all transactions.
const CHECKS_RANGES: Version = Version::new(3, 7, 0);

/// `header.revision` and the result.
type Executed = (i64, Result<Reply, Refusal>);

impl Machine {
    /// Executes the request of the entry just noted as applied.
    pub(crate) fn execute(
        &mut self,
        request: Request,
        replies: Replies,
    ) -> Result<AppliedEntry, Fault> {
        let mut forces_snapshot = false;
        let kind = request.command.kind();
        let (revision, result) = match request.command {
            Command::ClusterVersion { version } => {
                forces_snapshot = self.set_cluster_version(version)?;
                self.unchanged(Ok(Reply::Empty))
            }
            command => self.guarded(command, replies)?,
        };
        let outcome = Outcome { revision, result };
        Ok(AppliedEntry { request_id: request.id, kind, outcome, forces_snapshot })
    }

    /// The chain.
    fn guarded(&mut self, command: Command, replies: Replies) -> Result<Executed, Fault> {
        if self.has_alarm(AlarmType::Corrupt) && is_refused_when_corrupt(&command) {
            return Ok(self.unchanged(Err(Refusal::Corrupt)));
        }
        let cost = cost(&command);
        let takes_space = cost > 0;
        if self.has_alarm(AlarmType::Nospace) && takes_space {
            return Ok(self.unchanged(Err(Refusal::NoSpace)));
        }
        let has_room = self.quota.has_room(self.store.shared.live_bytes(), cost);
        let (revision, result) = self.dispatch(command, replies)?;
        if !has_room && result.is_ok() {
            self.lacks_space = true;
            return Ok((revision, Err(Refusal::NoSpace)));
        }
        Ok((revision, result))
    }

    fn dispatch(&mut self, command: Command, replies: Replies) -> Result<Executed, Fault> {
        match command {
            Command::Put(request) => self.put(&request, replies),
            Command::Txn(request) => self.txn(&request, replies),
            Command::DeleteRange(request) => self.delete_range(&request, replies),
            Command::Range(request) => self.range(&request, replies),
            Command::Compaction { revision } => Ok(self.compact(revision)),
            Command::LeaseGrant { id, ttl } => Ok(self.grant(id, ttl)),
            Command::LeaseRevoke { id } => Ok(self.revoke(id)),
            Command::LeaseCheckpoint(checkpoints) => Ok(self.checkpoint(&checkpoints)),
            Command::Alarm(request) => Ok(self.alarm(&request)),
            Command::Attributes { id, name, client_urls } => {
                self.set_attributes(id, name, client_urls)
            }
            Command::Downgrade { is_enabled, version } => {
                Ok(self.set_downgrade(is_enabled, version))
            }
            // The cluster version is set outside the chain.
            Command::ClusterVersion { .. } | Command::NoOp => Ok(self.unchanged(Ok(Reply::Empty))),
        }
    }

    fn unchanged(&self, result: Result<Reply, Refusal>) -> Executed {
        (self.store.shared.current(), result)
    }

    fn put(&mut self, request: &pb::PutRequest, replies: Replies) -> Result<Executed, Fault> {
        let view = View::new(&self.store.shared, self.store.shared.current());
        if let Err(refusal) = txn::check_put(&view, Some(&self.lessor), request) {
            return Ok(self.unchanged(Err(refusal)));
        }
        let mut writer = self.store.write(&mut self.lessor);
        let reply = txn::put(&mut writer, request, replies)?;
        Ok((writer.end(), Ok(reply)))
    }

    fn delete_range(
        &mut self,
        request: &pb::DeleteRangeRequest,
        replies: Replies,
    ) -> Result<Executed, Fault> {
        let mut writer = self.store.write(&mut self.lessor);
        let reply = txn::delete_range(&mut writer, request, replies)?;
        Ok((writer.end(), Ok(reply)))
    }

    /// A range in the log comes from nobody we know of; it is answered all the same if somebody
    /// waits for it.
    fn range(&mut self, request: &pb::RangeRequest, replies: Replies) -> Result<Executed, Fault> {
        if replies == Replies::Bare {
            return Ok(self.unchanged(Ok(Reply::Empty)));
        }
        self.store.shared.counters.range();
        let shared = &self.store.shared;
        let current = shared.current();
        let result = match View::at(shared, current, request.revision) {
            Ok(mut view) => {
                let reply =
                    range::range(&mut view, request, &mut range::unbounded).map_err(cleared)?;
                Ok(Reply::Range(reply))
            }
            Err(refusal) => Err(refusal),
        };
        Ok((current, result))
    }

    fn txn(&mut self, request: &pb::TxnRequest, replies: Replies) -> Result<Executed, Fault> {
        let shared = &self.store.shared;
        let current = shared.current();
        let mut view = View::new(shared, current);
        let path = txn::decide(&mut view, request).map_err(cleared)?;
        // etcd compares in a transaction of its own.
        let compared = Operations { ranges: path.compares(), ..Operations::default() };
        shared.counters.transaction(compared);
        let is_old = self.membership.cluster_version.is_some_and(|version| version < CHECKS_RANGES);
        let ranges = if is_old { RangeChecks::NestedOnly } else { RangeChecks::All };
        let compacted = shared.compacted();
        let checks = Checks { current, compacted, lessor: Some(&self.lessor), ranges };
        if let Err(refusal) = checks.check(&view, request, &path) {
            return Ok((current, Err(refusal)));
        }
        let mut writer = self.store.write(&mut self.lessor);
        let (reply, refused) = txn::execute(&mut writer, request, &path, replies)?;
        let result = refused.map_or(Ok(Reply::Txn(reply)), Err);
        Ok((writer.end(), result))
    }

    fn compact(&mut self, revision: i64) -> Executed {
        let shared = &self.store.shared;
        let previous = shared.compacted();
        if revision <= previous {
            return self.unchanged(Err(Refusal::Compacted));
        }
        if revision > shared.current() {
            return self.unchanged(Err(Refusal::FutureRevision));
        }
        shared.set_compacted(revision);
        // A hash covers everything since the previous compaction only if that one is done.
        let stores_hash = self.scheduled_compact == self.finished_compact;
        self.scheduled_compact = Some(revision);
        let key = Bytes::from_static(schema::SCHEDULED_COMPACT);
        self.pending.push((schema::META, Op::Put(key, compact_mark(revision))));
        let index = self.applied.index;
        self.compactions.push_back(Compaction::new(revision, previous, index, stores_hash));
        self.unchanged(Ok(Reply::Compaction))
    }

    fn grant(&mut self, id: i64, ttl: i64) -> Executed {
        match self.lessor.grant(id, ttl) {
            Ok(ttl) => {
                self.store_lease(id);
                self.unchanged(Ok(Reply::LeaseGrant { id, ttl }))
            }
            Err(refusal) => self.unchanged(Err(refusal)),
        }
    }

    fn store_lease(&mut self, id: i64) {
        if let Some(lease) = self.lessor.stored(id) {
            let value = schema::lease_value(&lease);
            self.pending.push((schema::LEASE, Op::Put(schema::lease_key(id), value)));
        }
    }

    fn revoke(&mut self, id: i64) -> Executed {
        let keys = match self.lessor.revoke(id) {
            Ok(keys) => keys,
            Err(refusal) => return self.unchanged(Err(refusal)),
        };
        let mut writer = self.store.write(&mut self.lessor);
        for key in keys {
            writer.done.deletes += 1;
            writer.delete(&key);
        }
        let revision = writer.end();
        self.pending.push((schema::LEASE, Op::Delete(schema::lease_key(id))));
        (revision, Ok(Reply::LeaseRevoke))
    }

    fn checkpoint(&mut self, checkpoints: &[pb::LeaseCheckpoint]) -> Executed {
        let stores =
            self.options.lease.checkpoints || self.membership.is_at_least(STORES_CHECKPOINTS);
        for checkpoint in checkpoints {
            let stored = self.lessor.checkpoint(checkpoint.id, checkpoint.remaining_ttl);
            if stores && stored.is_some() {
                self.store_lease(checkpoint.id);
            }
        }
        self.unchanged(Ok(Reply::LeaseCheckpoint))
    }

    fn alarm(&mut self, request: &pb::AlarmRequest) -> Executed {
        let alarm = AlarmMember { member_id: request.member_id, alarm: request.alarm };
        let is_none = request.alarm == i32::from(AlarmType::None);
        let mut alarms = self.store.shared.alarms.write();
        let affected = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => alarms.of_kind(request.alarm),
            Ok(AlarmAction::Activate) if is_none => vec![],
            Ok(AlarmAction::Activate) => {
                if alarms.activate(&alarm) {
                    let key = schema::alarm_key(&alarm);
                    self.pending.push((schema::ALARM, Op::Put(key, Bytes::new())));
                }
                vec![alarm]
            }
            Ok(AlarmAction::Deactivate) if alarms.deactivate(&alarm) => {
                self.pending.push((schema::ALARM, Op::Delete(schema::alarm_key(&alarm))));
                vec![alarm]
            }
            Ok(AlarmAction::Deactivate) | Err(_) => vec![],
        };
        drop(alarms);
        self.unchanged(Ok(Reply::Alarm(affected)))
    }

    fn has_alarm(&self, kind: AlarmType) -> bool {
        self.store.shared.alarms.read().has(kind)
    }

    fn set_attributes(
        &mut self,
        id: u64,
        name: String,
        client_urls: Vec<String>,
    ) -> Result<Executed, Fault> {
        if self.membership.is_removed(id) {
            return Ok(self.unchanged(Ok(Reply::Empty)));
        }
        let Some(member) = self.membership.set_attributes(id, name, client_urls) else {
            return Err(self.entry_fault(EntryFault::UnknownMember { id }));
        };
        let value = schema::member_value(member);
        self.pending.push((schema::MEMBERS, Op::Put(schema::member_key(id), value)));
        self.publish();
        Ok(self.unchanged(Ok(Reply::Empty)))
    }

    /// Tells whether the version went down.
    fn set_cluster_version(&mut self, text: String) -> Result<bool, Fault> {
        let ours = self.options.server_version;
        let version = text.parse::<Version>().ok().filter(|version| *version <= ours);
        let Some(version) = version else {
            return Err(self.entry_fault(EntryFault::ClusterVersion { version: text }));
        };
        let former = self.membership.cluster_version.replace(version);
        let key = Bytes::from_static(schema::CLUSTER_VERSION);
        self.pending.push((schema::CLUSTER, Op::Put(key, text.into())));
        self.store_storage_version(version);
        self.publish();
        let is_downgrade = former.is_some_and(|former| version < former);
        self.tell_cluster_version(former, version, is_downgrade);
        Ok(is_downgrade)
    }

    fn tell_cluster_version(&self, former: Option<Version>, version: Version, is_downgrade: bool) {
        let Some(former) = former else {
            tracing::info!(cluster_version = %version, "set initial cluster version");
            return;
        };
        tracing::info!(from = %former, to = %version, "updated cluster version");
        if is_downgrade && self.membership.downgrade.is_enabled {
            // Another release takes this data over only through a snapshot.
            tracing::info!(
                target_version = self.membership.downgrade.target_version,
                server_version = %self.options.server_version,
                "The server is ready to downgrade"
            );
        }
    }

    /// The layout follows the cluster version. Releases before 3.6 do not know the key.
    fn store_storage_version(&mut self, version: Version) {
        let key = Bytes::from_static(schema::STORAGE_VERSION);
        let op = if version < STORES_CHECKPOINTS {
            Op::Delete(key)
        } else {
            let text = Version { patch: 0, ..version }.to_string();
            Op::Put(key, text.into())
        };
        self.pending.push((schema::META, op));
    }

    fn set_downgrade(&mut self, is_enabled: bool, version: String) -> Executed {
        let target_version = if is_enabled { version } else { String::new() };
        self.membership.downgrade = Downgrade { target_version, is_enabled };
        let value = schema::downgrade_value(&self.membership.downgrade);
        let key = Bytes::from_static(schema::DOWNGRADE);
        self.pending.push((schema::CLUSTER, Op::Put(key, value)));
        self.publish();
        self.unchanged(Ok(Reply::Empty))
    }

    fn entry_fault(&self, reason: EntryFault) -> Fault {
        Fault::Entry { index: self.applied.index, reason }
    }
}

fn is_refused_when_corrupt(command: &Command) -> bool {
    match command {
        Command::Range(_)
        | Command::Put(_)
        | Command::DeleteRange(_)
        | Command::Txn(_)
        | Command::Compaction { .. }
        | Command::LeaseGrant { .. }
        | Command::LeaseRevoke { .. } => true,
        Command::NoOp
        | Command::ClusterVersion { .. }
        | Command::Attributes { .. }
        | Command::Downgrade { .. }
        | Command::LeaseCheckpoint(_)
        | Command::Alarm(_) => false,
    }
}

fn cost(command: &Command) -> u64 {
    match command {
        Command::Put(put) => quota::put_cost(put),
        Command::Txn(txn) => quota::txn_cost(txn),
        Command::LeaseGrant { .. } => quota::LEASE_COST,
        Command::NoOp
        | Command::ClusterVersion { .. }
        | Command::Attributes { .. }
        | Command::Downgrade { .. }
        | Command::Range(_)
        | Command::DeleteRange(_)
        | Command::Compaction { .. }
        | Command::LeaseRevoke { .. }
        | Command::LeaseCheckpoint(_)
        | Command::Alarm(_) => 0,
    }
}
