//! The Maintenance service (`spec/grpc-api.md` §8), save the snapshot stream.

use std::sync::Arc;
use std::time::{Duration, Instant};

use machine::KeyValueHash;
use machine::membership::{Membership, Version};
use proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, DefragmentResponse, DowngradeInfo, DowngradeRequest,
    DowngradeResponse, HashKvRequest, HashKvResponse, HashResponse, InternalRaftRequest,
    MoveLeaderRequest, MoveLeaderResponse, StatusResponse, alarm_request, downgrade_request,
};
use proto::membershippb::DowngradeInfoSetRequest;

use super::Services;
use super::payload::Payload;
use crate::ETCD_VERSION;
use crate::grpc::error;
use crate::grpc::status::Status;

/// How often a caller that waits for a physical compaction looks again.
const COMPACTION_POLL: Duration = Duration::from_millis(5);

impl Services {
    pub(super) async fn alarm(&self, request: AlarmRequest) -> Result<Payload, Status> {
        self.propose_and_answer(InternalRaftRequest {
            alarm: Some(request),
            ..InternalRaftRequest::default()
        })
        .await
    }

    /// Refuses a request that would exceed the quota, and raises the alarm that says so to the whole cluster.
    pub(super) async fn check_space(&self, cost: u64) -> Result<(), Status> {
        if self.handle.reader().has_room(cost) {
            return Ok(());
        }
        Box::pin(self.raise_alarm(AlarmType::Nospace, self.identity.member_id)).await;
        Err(error::NO_SPACE)
    }

    /// Tells the whole cluster of a member's trouble.
    pub async fn raise_alarm(&self, alarm: AlarmType, member_id: u64) {
        let activate = AlarmRequest {
            action: alarm_request::AlarmAction::Activate.into(),
            member_id,
            alarm: alarm.into(),
        };
        let request =
            InternalRaftRequest { alarm: Some(activate), ..InternalRaftRequest::default() };
        if let Err(status) = self.propose(request).await {
            tracing::warn!(%status, "failed to activate alarm");
        }
    }

    pub(super) fn status(&self) -> Payload {
        let gate = self.handle.gate();
        let reader = self.handle.reader();
        let cluster = self.cluster();
        let sizes = reader.sizes();
        let mut errors = Vec::new();
        if gate.leader() == 0 {
            errors.push(error::NO_LEADER.message.into_owned());
        }
        errors.extend(reader.alarms().iter().map(alarm_text));
        Payload::of(&StatusResponse {
            header: Some(self.header(reader.revision())),
            version: ETCD_VERSION.to_owned(),
            db_size: sizes.physical.cast_signed(),
            db_size_in_use: sizes.in_use.cast_signed(),
            db_size_quota: self.limits.quota_bytes,
            leader: gate.leader(),
            raft_index: gate.commit_index(),
            raft_term: gate.term(),
            raft_applied_index: gate.applied_index(),
            errors,
            is_learner: gate.is_learner(),
            storage_version: storage_version(&cluster).map_or_else(String::new, |v| v.to_string()),
            downgrade_info: Some(DowngradeInfo {
                enabled: cluster.downgrade.is_enabled,
                target_version: cluster.downgrade.target_version.clone(),
            }),
        })
    }

    /// Gives unused space of the backend file back; reads and writes go on meanwhile. The work goes on when the caller goes
    /// away.
    pub(super) async fn defragment(&self) -> Result<Payload, Status> {
        let started = Instant::now();
        tracing::info!("starting defragment");
        self.metrics.disk.defragmenting(self.handle.defragment()).await?;
        let took = started.elapsed();
        tracing::info!(?took, "finished defragment");
        // etcd answers without a header.
        Ok(Payload::of(&DefragmentResponse::default()))
    }

    pub(super) async fn hash(&self) -> Result<Payload, Status> {
        // The hash is of the file: all that is applied has to be there.
        self.applied_is_durable().await?;
        let reader = self.handle.reader().clone();
        let work = Arc::clone(&self.metrics.disk);
        let hash = move || {
            let started = Instant::now();
            let hash = reader.hash();
            work.hash.observe(started.elapsed());
            hash
        };
        let (hash, revision) = self.read_long(hash).await?;
        Ok(Payload::of(&HashResponse { header: Some(self.header(revision)), hash }))
    }

    pub(super) async fn hash_kv(&self, request: HashKvRequest) -> Result<Payload, Status> {
        let (found, revision) = self.hash_at(request.revision).await?;
        Ok(Payload::of(&HashKvResponse {
            header: Some(self.header(revision)),
            hash: found.hash,
            compact_revision: found.compact_revision,
            hash_revision: found.revision,
        }))
    }

    /// Hashes the store at a revision, 0 for the current one; returns the current one, too.
    pub async fn hash_at(&self, revision: i64) -> Result<(KeyValueHash, i64), Status> {
        let reader = self.handle.reader().clone();
        let work = Arc::clone(&self.metrics.disk);
        let hash = move || {
            let started = Instant::now();
            let hash = reader.hash_kv(revision);
            work.hash_kv.observe(started.elapsed());
            hash
        };
        self.read_long(hash).await
    }

    /// Waits until the physical pass of the compaction at `revision` is durable here.
    pub(super) async fn compacted(&self, revision: i64) -> Result<(), Status> {
        while self.handle.reader().finished_compaction() < revision {
            if self.handle.has_ended() {
                return Err(error::STOPPED);
            }
            tokio::time::sleep(COMPACTION_POLL).await;
        }
        Ok(())
    }

    /// Has another member lead; only the leader takes this.
    pub(super) async fn move_leader(&self, request: MoveLeaderRequest) -> Result<Payload, Status> {
        if !self.handle.gate().is_leader() {
            return Err(error::NOT_LEADER);
        }
        let cluster = self.cluster();
        let is_voter = cluster.member(request.target_id).is_some_and(|member| !member.is_learner);
        if !is_voter {
            return Err(error::BAD_LEADER_TRANSFEREE);
        }
        self.handle.move_leader(request.target_id).await?;
        Ok(Payload::of(&MoveLeaderResponse::default()))
    }

    pub(super) async fn downgrade(&self, request: DowngradeRequest) -> Result<Payload, Status> {
        use downgrade_request::DowngradeAction;
        let action =
            DowngradeAction::try_from(request.action).map_err(|_unknown| error::UNKNOWN_METHOD)?;
        let version = match action {
            DowngradeAction::Validate => self.downgrade_validate(&request.version).await?.0,
            DowngradeAction::Enable => self.downgrade_enable(&request.version).await.inspect_err(
                |status| tracing::warn!(error = %status.message, "reject downgrade request"),
            )?,
            DowngradeAction::Cancel => {
                if let Err(status) = self.downgrade_cancel().await {
                    tracing::warn!(error = %status.message, "failed to cancel downgrade");
                }
                self.cluster_version()?
            }
        };
        Ok(Payload::of(&DowngradeResponse {
            header: Some(self.header(self.handle.reader().revision())),
            version: format!("{}.{}", version.major, version.minor),
        }))
    }

    /// Checks that the cluster may go to `text`; returns its version, and the target.
    async fn downgrade_validate(&self, text: &str) -> Result<(Version, Version), Status> {
        let target = parse_target(text).ok_or(error::WRONG_DOWNGRADE_VERSION_FORMAT)?;
        self.cluster_version()?;
        // What others have been told counts here, too.
        self.read_index().await?;
        let version = self.cluster_version()?;
        if version.one_minor_below() != Some(target) {
            return Err(error::INVALID_DOWNGRADE_TARGET_VERSION);
        }
        if self.cluster().downgrade.is_enabled {
            return Err(error::DOWNGRADE_IN_PROCESS);
        }
        Ok((version, target))
    }

    /// Begins a downgrade; returns the version from which it goes.
    async fn downgrade_enable(&self, text: &str) -> Result<Version, Status> {
        let (version, target) = self.downgrade_validate(text).await?;
        self.set_downgrade(true, target.to_string()).await?;
        Ok(version)
    }

    async fn downgrade_cancel(&self) -> Result<(), Status> {
        self.read_index().await?;
        if !self.cluster().downgrade.is_enabled {
            return Err(error::NO_INFLIGHT_DOWNGRADE);
        }
        self.end_downgrade().await
    }

    /// Ends the downgrade job, whether the cluster has gone down or not.
    pub async fn end_downgrade(&self) -> Result<(), Status> {
        self.set_downgrade(false, String::new()).await
    }

    async fn set_downgrade(&self, enabled: bool, ver: String) -> Result<(), Status> {
        let set = DowngradeInfoSetRequest { enabled, ver };
        let request =
            InternalRaftRequest { downgrade_info_set: Some(set), ..InternalRaftRequest::default() };
        self.propose(request).await.map(drop)
    }

    fn cluster_version(&self) -> Result<Version, Status> {
        self.cluster().cluster_version.ok_or(error::CLUSTER_VERSION_UNAVAILABLE)
    }
}

/// Writes an alarm as protobuf's text form has it: without fields that are zero.
fn alarm_text(alarm: &AlarmMember) -> String {
    let member = (alarm.member_id != 0).then(|| format!("memberID:{}", alarm.member_id));
    let kind = match AlarmType::try_from(alarm.alarm) {
        Ok(AlarmType::None) => None,
        Ok(kind) => Some(format!("alarm:{}", kind.as_str_name())),
        Err(_unknown) => Some(format!("alarm:{}", alarm.alarm)),
    };
    member.into_iter().chain(kind).collect::<Vec<_>>().join(" ")
}

/// The version of the store's layout: the cluster's, once it is decided.
pub fn storage_version(cluster: &Membership) -> Option<Version> {
    cluster.cluster_version
}

/// Parses `X.Y` or `X.Y.Z` and returns `X.Y.0`.
fn parse_target(text: &str) -> Option<Version> {
    let version = text.parse().or_else(|_short| format!("{text}.0").parse::<Version>()).ok()?;
    Some(Version { patch: 0, ..version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_of_downgrades_have_two_or_three_numbers() {
        let target = Some(Version::new(3, 6, 0));
        for text in ["3.6", "3.6.0", "3.6.17", "3.6.0-rc.1"] {
            assert_eq!(parse_target(text), target, "{text}");
        }
        for text in ["", "3", "x", "3.x", "3.6.0.0", "v3.6", "-3.6", "3.6-rc"] {
            assert_eq!(parse_target(text), None, "{text}");
        }
    }

    #[test]
    fn an_alarm_is_written_without_what_is_zero() {
        let text = |member_id, alarm| alarm_text(&AlarmMember { member_id, alarm });
        assert_eq!(text(7, 1), "memberID:7 alarm:NOSPACE");
        assert_eq!(text(0, 2), "alarm:CORRUPT");
        assert_eq!(text(7, 0), "memberID:7");
        assert_eq!(text(0, 9), "alarm:9");
    }
}
