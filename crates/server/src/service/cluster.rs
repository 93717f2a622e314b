//! The Cluster service (`spec/grpc-api.md` §7): who belongs to the cluster, and changes of that.
//!
//! A change is judged twice: here by what would endanger the quorum, if `--strict-reconfig-check` is on, and when it is
//! applied, equally on all members, by the membership as of its place in the log.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use machine::membership::{Membership, added_member_id};
use machine::{Outcome, schema};
use prost::Message as _;
use proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse,
};
use proto::raftpb::{self, ConfChangeType};

use super::Services;
use super::forward::Attempt;
use super::payload::Payload;
use crate::config::Url;
use crate::grpc::error;
use crate::grpc::status::Status;
use crate::peer::requests::Asked;

/// Where members ask the leader to give a learner a vote; the id follows, in decimal.
pub const PROMOTE_PATH: &str = "/members/promote/";

impl Services {
    pub(super) async fn member_list(&self, request: MemberListRequest) -> Result<Payload, Status> {
        if request.linearizable {
            self.read_index().await?;
        }
        // Responses of this service carry no revision.
        Ok(Payload::of(&MemberListResponse {
            header: Some(self.header(0)),
            members: self.members(),
        }))
    }

    pub(super) async fn member_add(&self, request: MemberAddRequest) -> Result<Payload, Status> {
        let MemberAddRequest { peer_urls, is_learner } = request;
        let is_usable = peer_urls.iter().all(|url| Url::parse(url).is_ok());
        if peer_urls.is_empty() || !is_usable {
            return Err(error::MEMBER_BAD_URLS);
        }
        let mut peer_urls: Vec<String> = peer_urls
            .iter()
            .filter_map(|url| Url::parse(url).ok())
            .map(|url| url.to_string())
            .collect();
        peer_urls.sort_unstable();
        self.check_addition(is_learner)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let id = added_member_id(&peer_urls, i64::try_from(now).unwrap_or(i64::MAX));
        let added = machine::membership::Member {
            id,
            peer_urls,
            is_learner,
            ..machine::membership::Member::default()
        };
        let kind = if is_learner {
            ConfChangeType::ConfChangeAddLearnerNode
        } else {
            ConfChangeType::ConfChangeAddNode
        };
        self.change(kind, id, schema::conf_change_context(&added, false)).await?;
        Ok(Payload::of(&MemberAddResponse {
            header: Some(self.header(0)),
            member: Some(member(&added)),
            members: self.members(),
        }))
    }

    pub(super) async fn member_remove(
        &self,
        request: MemberRemoveRequest,
    ) -> Result<Payload, Status> {
        self.check_removal(request.id)?;
        self.change(ConfChangeType::ConfChangeRemoveNode, request.id, Bytes::new()).await?;
        Ok(Payload::of(&MemberRemoveResponse {
            header: Some(self.header(0)),
            members: self.members(),
        }))
    }

    pub(super) async fn member_update(
        &self,
        request: MemberUpdateRequest,
    ) -> Result<Payload, Status> {
        let MemberUpdateRequest { id, peer_urls } = request;
        let updated =
            machine::membership::Member { id, peer_urls, ..machine::membership::Member::default() };
        let context = schema::conf_change_context(&updated, false);
        self.change(ConfChangeType::ConfChangeUpdateNode, id, context).await?;
        Ok(Payload::of(&MemberUpdateResponse {
            header: Some(self.header(0)),
            members: self.members(),
        }))
    }

    pub(super) async fn member_promote(
        &self,
        request: MemberPromoteRequest,
    ) -> Result<Payload, Status> {
        let path = format!("{PROMOTE_PATH}{}", request.id);
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        let page = Asked { method: Method::POST, path, headers, body };
        let here = || async {
            match self.promote_here(request.id).await {
                Err(error) if error == error::NOT_LEADER => Attempt::Again,
                answer => Attempt::Done(answer),
            }
        };
        let there = |status, body: Bytes| promoted(status, &String::from_utf8_lossy(&body));
        self.at_leader(here, &page, there).await?;
        Ok(Payload::of(&MemberPromoteResponse {
            header: Some(self.header(0)),
            members: self.members(),
        }))
    }

    /// Gives a learner a vote, if this member leads.
    pub async fn promote_here(&self, id: u64) -> Result<(), Status> {
        let promoted = self.promote_counted(id).await;
        let network = &self.metrics.network;
        match &promoted {
            Ok(()) => network.promoted(),
            // The leader counts it.
            Err(status) if *status == error::NOT_LEADER => {}
            Err(status) if *status == error::MEMBER_NOT_FOUND => {
                network.not_promoted("membership: ID not found");
            }
            Err(status) if *status == error::MEMBER_NOT_LEARNER => {
                network.not_promoted("membership: can only promote a learner member");
            }
            Err(status) => network.not_promoted(&status.message),
        }
        promoted
    }

    async fn promote_counted(&self, id: u64) -> Result<(), Status> {
        let cluster = self.cluster();
        // The learner counts as one that has started and votes.
        let (voters, started) = counted(&cluster, |_| true);
        if self.limits.strict_reconfig_check && started + 1 < quorum(voters + 1) {
            return Err(error::MEMBER_NOT_ENOUGH_STARTED);
        }
        let promoted = machine::membership::Member { id, ..machine::membership::Member::default() };
        let context = schema::conf_change_context(&promoted, true);
        let kind = ConfChangeType::ConfChangeAddNode;
        self.changed(kind, id, context, Some(id)).await
    }

    /// The members as they are known here, by id.
    pub fn members(&self) -> Vec<Member> {
        self.cluster().members().map(member).collect()
    }

    async fn change(&self, kind: ConfChangeType, id: u64, context: Bytes) -> Result<(), Status> {
        self.changed(kind, id, context, None).await
    }

    async fn changed(
        &self,
        kind: ConfChangeType,
        node_id: u64,
        context: Bytes,
        promotes: Option<u64>,
    ) -> Result<(), Status> {
        let id = self.handle.request_id();
        let change = raftpb::ConfChange { id, r#type: kind.into(), node_id, context };
        let data = change.encode_to_vec().into();
        let Outcome { result, .. } = self.handle.propose_conf_change(id, data, promotes).await?;
        result.map(|_reply| ()).map_err(Status::from)
    }

    /// Refuses a further member while the quorum with it would not be there.
    fn check_addition(&self, is_learner: bool) -> Result<(), Status> {
        if !self.limits.strict_reconfig_check {
            return Ok(());
        }
        let cluster = self.cluster();
        let (voters, started) = counted(&cluster, |_| true);
        let answer = may_grow(is_learner, (voters, started), || self.settled(&cluster));
        if let Err(refusal) = &answer {
            let why = if *refusal == error::UNHEALTHY {
                "local member has not been connected to enough peers"
            } else {
                "not enough healthy members"
            };
            tracing::warn!("rejecting member add request; {why}");
        }
        answer
    }

    /// Refuses to remove a voter without which the quorum would not be there.
    fn check_removal(&self, id: u64) -> Result<(), Status> {
        let cluster = self.cluster();
        let is_learner = cluster.member(id).is_some_and(|member| member.is_learner);
        if !self.limits.strict_reconfig_check || is_learner {
            return Ok(());
        }
        let (voters, started) = counted(&cluster, |other| other != id);
        if started < quorum(voters) {
            tracing::warn!("rejecting member remove request; not enough healthy members");
            return Err(error::MEMBER_NOT_ENOUGH_STARTED);
        }
        // One that is down is no part of the quorum that is there.
        if id != self.identity.member_id && !self.handle.activity().is_up(id) {
            return Ok(());
        }
        let (all, _) = counted(&cluster, |_| true);
        if self.settled(&cluster).saturating_sub(1) < 1 + all.saturating_sub(1) / 2 {
            tracing::warn!(
                "rejecting member remove request; local member has not been connected to all peers"
            );
            return Err(error::UNHEALTHY);
        }
        Ok(())
    }

    /// Counts the voters that have been connected for a while; this member is.
    fn settled(&self, cluster: &Membership) -> usize {
        let own = self.identity.member_id;
        let voters = cluster.members().filter(|member| !member.is_learner).map(|member| member.id);
        let (own, others): (Vec<u64>, Vec<u64>) = voters.partition(|id| *id == own);
        own.len() + self.handle.activity().settled(others, Instant::now())
    }
}

/// Tells whether a cluster with so many voters, of which so many have `started`, may get another member: the new one counts as
/// down, and the others have to be enough without it. It is not asked that all of them are there.
fn may_grow(
    is_learner: bool,
    (voters, started): (usize, usize),
    settled: impl FnOnce() -> usize,
) -> Result<(), Status> {
    let is_second = started == 1 && voters == 1;
    if !is_learner && !is_second && started < quorum(voters + 1) {
        return Err(error::MEMBER_NOT_ENOUGH_STARTED);
    }
    if voters > 1 && settled() < quorum(voters + 1) {
        return Err(error::UNHEALTHY);
    }
    Ok(())
}

/// Counts voters, and those among them that have started.
fn counted(cluster: &Membership, is_counted: impl Fn(u64) -> bool) -> (usize, usize) {
    let voters = cluster.members().filter(|member| !member.is_learner && is_counted(member.id));
    voters.fold((0, 0), |(voters, started), member| {
        (voters + 1, started + usize::from(!member.name.is_empty()))
    })
}

fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// Reads what a leader answers to a promotion.
fn promoted(status: StatusCode, text: &str) -> Attempt<()> {
    match status {
        StatusCode::OK => Attempt::Done(Ok(())),
        StatusCode::NOT_FOUND => Attempt::Done(Err(error::MEMBER_NOT_FOUND)),
        // The longer text holds the other one.
        StatusCode::PRECONDITION_FAILED if text.contains(&*error::LEARNER_NOT_READY.message) => {
            Attempt::Done(Err(error::LEARNER_NOT_READY))
        }
        StatusCode::PRECONDITION_FAILED if text.contains("can only promote a learner member") => {
            Attempt::Done(Err(error::MEMBER_NOT_LEARNER))
        }
        _ => Attempt::Again,
    }
}

fn member(member: &machine::membership::Member) -> Member {
    Member {
        id: member.id,
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        client_urls: member.client_urls.clone(),
        is_learner: member.is_learner,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// etcd refused every further member while one was down.
    #[test]
    fn a_cluster_grows_while_those_who_are_there_are_enough_for_the_larger_one() {
        let answer = |is_learner, voters, started, settled| {
            may_grow(is_learner, (voters, started), || settled).map_err(|status| status.message)
        };
        let unhealthy = Err(error::UNHEALTHY.message);
        let too_few = Err(error::MEMBER_NOT_ENOUGH_STARTED.message);
        for is_learner in [true, false] {
            assert_eq!(answer(is_learner, 1, 1, 1), Ok(()), "the second one");
            assert_eq!(answer(is_learner, 4, 4, 3), Ok(()), "one of four is down");
            assert_eq!(answer(is_learner, 5, 5, 4), Ok(()), "one of five is down");
            assert_eq!(answer(is_learner, 5, 5, 3), unhealthy, "two of five are down");
            assert_eq!(answer(is_learner, 3, 3, 2), unhealthy, "four need three");
            assert_eq!(answer(is_learner, 2, 2, 2), Ok(()));
        }
        assert_eq!(answer(false, 2, 1, 2), too_few, "the last one has not begun yet");
        assert_eq!(answer(true, 2, 1, 2), Ok(()), "a learner needs no majority");
    }
}
