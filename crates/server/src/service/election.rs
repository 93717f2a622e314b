//! The Election service: a leader is the oldest key under `<name>/` (`spec/grpc-api.md` §10).

use bytes::Bytes;
use machine::Reply;
use proto::etcdserverpb::{
    Compare, DeleteRangeRequest, InternalRaftRequest, PutRequest, RangeRequest, TxnRequest,
    compare, range_request, request_op,
};
use proto::mvccpb::{KeyValue, event::EventType};
use proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};

use super::Services;
use super::lock::{WaiterKey, op, prefix_end};
use super::payload::Payload;
use super::stream::{Gone, Outbound};
use crate::grpc::error;
use crate::grpc::status::Status;

impl Services {
    pub(super) async fn campaign(
        self: &std::rc::Rc<Self>,
        request: CampaignRequest,
    ) -> Result<Payload, Status> {
        let place = self.queue_up(&request.name, request.lease, request.value.clone()).await?;
        let mut guard = WaiterKey::new(self, place.key.clone());
        let leader = LeaderKey {
            name: request.name.clone(),
            key: place.key.clone(),
            rev: place.create_revision,
            lease: place.lease,
        };
        if place.former.as_ref().is_some_and(|kv| kv.value != request.value) {
            self.put_as_leader(&leader, request.value).await?;
        }
        self.wait_for_turn(&request.name, &place).await?;
        guard.keep();
        let header = Some(self.header(place.revision));
        Ok(Payload::of(&CampaignResponse { header, leader: Some(leader) }))
    }

    pub(super) async fn proclaim(&self, request: ProclaimRequest) -> Result<Payload, Status> {
        let leader = request.leader.ok_or(error::ELECTION_LEADER_MISSING)?;
        let revision = self.put_as_leader(&leader, request.value).await?;
        Ok(Payload::of(&ProclaimResponse { header: Some(self.header(revision)) }))
    }

    pub(super) async fn leader(&self, request: LeaderRequest) -> Result<Payload, Status> {
        let (revision, leader) = self.current_leader(&request.name).await?;
        let kv = Some(leader.ok_or(error::ELECTION_NO_LEADER)?);
        Ok(Payload::of(&LeaderResponse { header: Some(self.header(revision)), kv }))
    }

    pub(super) async fn resign(&self, request: ResignRequest) -> Result<Payload, Status> {
        let leader = request.leader.ok_or(error::ELECTION_LEADER_MISSING)?;
        let delete =
            DeleteRangeRequest { key: leader.key.clone(), ..DeleteRangeRequest::default() };
        let delete = request_op::Request::RequestDeleteRange(delete);
        let (revision, _was_leader) = self.if_leader(&leader, delete).await?;
        Ok(Payload::of(&ResignResponse { header: Some(self.header(revision)) }))
    }

    /// Sends the current leader, then every change of it, then the next leader, until the client is gone.
    pub(super) async fn observe(
        self: &std::rc::Rc<Self>,
        request: LeaderRequest,
        out: &mut impl Outbound,
    ) -> Result<(), Status> {
        loop {
            let (revision, leader) = match self.current_leader(&request.name).await? {
                (revision, Some(leader)) => (revision, leader),
                (revision, None) => self.first_leader(&request.name, revision + 1, out).await?,
            };
            let key = leader.key.clone();
            self.send_leader(revision, leader, out).await?;
            self.observe_until_deleted(key, revision + 1, out).await?;
        }
    }

    /// Waits for the first key of an election that has none.
    async fn first_leader(
        self: &std::rc::Rc<Self>,
        name: &Bytes,
        from: i64,
        out: &mut impl Outbound,
    ) -> Result<(i64, KeyValue), Status> {
        let prefix = prefix_of(name);
        let mut subscription = self.subscribe(prefix.clone(), prefix_end(&prefix), from);
        loop {
            let events = tokio::select! {
                events = subscription.next() => events.ok_or(error::LOST_WATCHER)?,
                () = out.gone() => return Err(error::CANCELED),
            };
            for (kind, kv) in events {
                if kind == EventType::Put {
                    return Ok((kv.mod_revision, kv));
                }
            }
        }
    }

    async fn observe_until_deleted(
        self: &std::rc::Rc<Self>,
        key: Bytes,
        from: i64,
        out: &mut impl Outbound,
    ) -> Result<(), Status> {
        let mut subscription = self.subscribe(key, Bytes::new(), from);
        loop {
            let events = tokio::select! {
                events = subscription.next() => events.ok_or(error::LOST_WATCHER)?,
                () = out.gone() => return Err(error::CANCELED),
            };
            for (kind, kv) in events {
                match kind {
                    EventType::Put => self.send_leader(kv.mod_revision, kv, out).await?,
                    EventType::Delete => return Ok(()),
                }
            }
        }
    }

    async fn send_leader(
        &self,
        revision: i64,
        kv: KeyValue,
        out: &mut impl Outbound,
    ) -> Result<(), Status> {
        let response = LeaderResponse { header: Some(self.header(revision)), kv: Some(kv) };
        out.send(Payload::of(&response)).await.map_err(|Gone| error::CANCELED)
    }

    async fn current_leader(&self, name: &Bytes) -> Result<(i64, Option<KeyValue>), Status> {
        let prefix = prefix_of(name);
        self.first_of(RangeRequest {
            range_end: prefix_end(&prefix),
            key: prefix,
            sort_order: range_request::SortOrder::Ascend.into(),
            sort_target: range_request::SortTarget::Create.into(),
            limit: 1,
            ..RangeRequest::default()
        })
        .await
    }

    async fn put_as_leader(&self, leader: &LeaderKey, value: Bytes) -> Result<i64, Status> {
        let put = PutRequest {
            key: leader.key.clone(),
            value,
            lease: leader.lease,
            ..PutRequest::default()
        };
        match self.if_leader(leader, request_op::Request::RequestPut(put)).await? {
            (revision, true) => Ok(revision),
            (_, false) => Err(error::ELECTION_NOT_LEADER),
        }
    }

    /// Does `request` if `leader` still holds its key; returns the revision and whether it did.
    async fn if_leader(
        &self,
        leader: &LeaderKey,
        request: request_op::Request,
    ) -> Result<(i64, bool), Status> {
        let still_there = Compare {
            result: compare::CompareResult::Equal.into(),
            target: compare::CompareTarget::Create.into(),
            key: super::lock::helper_key(leader.key.clone())?,
            target_union: Some(compare::TargetUnion::CreateRevision(leader.rev)),
            range_end: Bytes::new(),
        };
        let txn = TxnRequest {
            compare: vec![still_there],
            success: vec![op(request)],
            failure: Vec::new(),
        };
        let (revision, reply) = self
            .helper_propose(InternalRaftRequest {
                txn: Some(txn),
                ..InternalRaftRequest::default()
            })
            .await?;
        match reply {
            Reply::Txn(txn) => Ok((revision, txn.succeeded)),
            other => unreachable!("a transaction is answered by one, not {other:?}"),
        }
    }
}

fn prefix_of(name: &Bytes) -> Bytes {
    [name, &b"/"[..]].concat().into()
}
