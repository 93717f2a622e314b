//! Upkeep: alarms, status, hashes, defragmentation, handing over leadership, downgrades.
//!
//! All but alarms and downgrades are of the member that answers.

use proto::etcdserverpb::alarm_request::AlarmAction;
use proto::etcdserverpb::downgrade_request::DowngradeAction;
use proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeRequest,
    DowngradeResponse, HashKvRequest, HashKvResponse, MoveLeaderRequest, MoveLeaderResponse,
    StatusRequest, StatusResponse,
};

use crate::call::{Method, Retry};
use crate::{Client, Error};

impl Client {
    /// All alarms of all members.
    pub async fn alarm_list(&self) -> Result<AlarmResponse, Error> {
        self.alarm(AlarmRequest::default()).await
    }

    /// Disarms every alarm that is raised now; the response has no header.
    pub async fn alarm_disarm_all(&self) -> Result<AlarmResponse, Error> {
        let mut disarmed = AlarmResponse::default();
        for alarm in self.alarm_list().await?.alarms {
            let request = AlarmRequest {
                action: AlarmAction::Deactivate.into(),
                member_id: alarm.member_id,
                alarm: alarm.alarm,
            };
            disarmed.alarms.extend(self.alarm(request).await?.alarms);
        }
        Ok(disarmed)
    }

    async fn alarm(&self, request: AlarmRequest) -> Result<AlarmResponse, Error> {
        let method = Method { retry: Retry::Repeatable, path: "/etcdserverpb.Maintenance/Alarm" };
        self.call(method, request, |channel, request| {
            let mut maintenance = self.maintenance(channel);
            async move { maintenance.alarm(request).await }
        })
        .await
    }

    /// The state of a member.
    pub async fn status(&self) -> Result<StatusResponse, Error> {
        let method = Method { retry: Retry::Repeatable, path: "/etcdserverpb.Maintenance/Status" };
        self.call(method, StatusRequest {}, |channel, request| {
            let mut maintenance = self.maintenance(channel);
            async move { maintenance.status(request).await }
        })
        .await
    }

    /// The hash of a member's history up to `revision`; zero is the latest.
    pub async fn hash_kv(&self, revision: i64) -> Result<HashKvResponse, Error> {
        let method = Method { retry: Retry::Repeatable, path: "/etcdserverpb.Maintenance/HashKV" };
        self.call(method, HashKvRequest { revision }, |channel, request| {
            let mut maintenance = self.maintenance(channel);
            async move { maintenance.hash_kv(request).await }
        })
        .await
    }

    /// Defragments a member's storage.
    pub async fn defragment(&self) -> Result<DefragmentResponse, Error> {
        let path = "/etcdserverpb.Maintenance/Defragment";
        let method = Method { retry: Retry::NeverSent, path };
        self.call(method, DefragmentRequest {}, |channel, request| {
            let mut maintenance = self.maintenance(channel);
            async move { maintenance.defragment(request).await }
        })
        .await
    }

    /// Asks whether the cluster may go down to `version`, has it do so, or calls that off.
    pub async fn downgrade(
        &self,
        action: DowngradeAction,
        version: String,
    ) -> Result<DowngradeResponse, Error> {
        let path = "/etcdserverpb.Maintenance/Downgrade";
        let method = Method { retry: Retry::NeverSent, path };
        let request = DowngradeRequest { action: action.into(), version };
        self.call(method, request, |channel, request| {
            let mut maintenance = self.maintenance(channel);
            async move { maintenance.downgrade(request).await }
        })
        .await
    }

    /// Has the leader, which must be the member that is asked, hand over to another voting member.
    pub async fn move_leader(&self, target_id: u64) -> Result<MoveLeaderResponse, Error> {
        let path = "/etcdserverpb.Maintenance/MoveLeader";
        let method = Method { retry: Retry::Repeatable, path };
        self.call(method, MoveLeaderRequest { target_id }, |channel, request| {
            let mut maintenance = self.maintenance(channel);
            async move { maintenance.move_leader(request).await }
        })
        .await
    }
}
