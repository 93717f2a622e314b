//! The Lock service: mutual exclusion built on leases, transactions and watches (`spec/grpc-api.md` §10).
//!
//! The owner is the oldest key under `<name>/`; everyone else waits until all older keys are gone.

use bytes::Bytes;
use machine::Reply;
use proto::etcdserverpb::{
    Compare, DeleteRangeRequest, InternalRaftRequest, LeaseGrantRequest, PutRequest, RangeRequest,
    RequestOp, TxnRequest, compare, range_request, request_op,
};
use proto::mvccpb::KeyValue;
use proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};

use super::Services;
use super::payload::Payload;
use crate::grpc::error;
use crate::grpc::status::{Code, Status};

/// Seconds of a lease that is granted for callers that bring none.
const DEFAULT_TTL: i64 = 60;

/// A place in the queue of a lock or an election.
#[derive(Debug)]
pub(super) struct Place {
    /// The waiter's own key, `<name>/<lease in hex>`.
    pub(super) key: Bytes,
    /// Its create revision: the order of waiting.
    pub(super) create_revision: i64,
    /// The lease that keeps it.
    pub(super) lease: i64,
    /// The value it had before, if it was there already.
    pub(super) former: Option<KeyValue>,
    /// The header revision of the transaction.
    pub(super) revision: i64,
}

impl Services {
    pub(super) async fn lock(
        self: &std::rc::Rc<Self>,
        request: LockRequest,
    ) -> Result<Payload, Status> {
        let place = self.queue_up(&request.name, request.lease, Bytes::new()).await?;
        let mut guard = WaiterKey::new(self, place.key.clone());
        let waited = self.wait_for_turn(&request.name, &place).await;
        if waited.is_ok() {
            guard.keep();
        }
        waited?;
        // The key may have vanished with its lease while waiting.
        let (revision, own) = self
            .first_of(RangeRequest { key: place.key.clone(), ..RangeRequest::default() })
            .await?;
        if own.is_none() {
            return Err(error::MUTEX_SESSION_EXPIRED);
        }
        Ok(Payload::of(&LockResponse { header: Some(self.header(revision)), key: place.key }))
    }

    pub(super) async fn unlock(&self, request: UnlockRequest) -> Result<Payload, Status> {
        let (revision, _deleted) = self
            .helper_propose(InternalRaftRequest {
                delete_range: Some(DeleteRangeRequest {
                    key: helper_key(request.key)?,
                    ..DeleteRangeRequest::default()
                }),
                ..InternalRaftRequest::default()
            })
            .await?;
        Ok(Payload::of(&UnlockResponse { header: Some(self.header(revision)) }))
    }

    /// Puts the caller's key under `<name>/` unless it is there, in one transaction.
    pub(super) async fn queue_up(
        &self,
        name: &Bytes,
        lease: i64,
        value: Bytes,
    ) -> Result<Place, Status> {
        let lease = if lease == 0 { self.grant_for_waiter().await? } else { lease };
        let key: Bytes = [name, &b"/"[..], format!("{lease:x}").as_bytes()].concat().into();
        let absent = Compare {
            result: compare::CompareResult::Equal.into(),
            target: compare::CompareTarget::Create.into(),
            key: key.clone(),
            target_union: Some(compare::TargetUnion::CreateRevision(0)),
            range_end: Bytes::new(),
        };
        let put = PutRequest { key: key.clone(), value, lease, ..PutRequest::default() };
        let get = RangeRequest { key: key.clone(), ..RangeRequest::default() };
        let txn = TxnRequest {
            compare: vec![absent],
            success: vec![op(request_op::Request::RequestPut(put))],
            failure: vec![op(request_op::Request::RequestRange(get))],
        };
        let (revision, reply) = self
            .helper_propose(InternalRaftRequest {
                txn: Some(txn),
                ..InternalRaftRequest::default()
            })
            .await?;
        let former = former_value(reply)?;
        let create_revision = former.as_ref().map_or(revision, |kv| kv.create_revision);
        Ok(Place { key, create_revision, lease, former, revision })
    }

    async fn grant_for_waiter(&self) -> Result<i64, Status> {
        let id = (self.handle.request_id() & !(1 << 63)).cast_signed();
        let request = LeaseGrantRequest { ttl: DEFAULT_TTL, id };
        let (_revision, reply) = self
            .helper_propose(InternalRaftRequest {
                lease_grant: Some(request),
                ..InternalRaftRequest::default()
            })
            .await?;
        match reply {
            Reply::LeaseGrant { id, .. } => Ok(id),
            other => unreachable!("a grant is answered by one, not {other:?}"),
        }
    }

    /// Waits until no key under `<name>/` is older than `place`.
    pub(super) async fn wait_for_turn(
        self: &std::rc::Rc<Self>,
        name: &Bytes,
        place: &Place,
    ) -> Result<(), Status> {
        let prefix: Bytes = [name, &b"/"[..]].concat().into();
        loop {
            let (revision, older) = self
                .first_of(RangeRequest {
                    range_end: prefix_end(&prefix),
                    key: prefix.clone(),
                    sort_order: range_request::SortOrder::Descend.into(),
                    sort_target: range_request::SortTarget::Create.into(),
                    max_create_revision: place.create_revision - 1,
                    limit: 1,
                    ..RangeRequest::default()
                })
                .await?;
            let Some(older) = older else { return Ok(()) };
            self.wait_for_delete(older.key, revision + 1).await?;
        }
    }

    /// Reads linearizably and returns the revision and the first key.
    pub(super) async fn first_of(
        &self,
        request: RangeRequest,
    ) -> Result<(i64, Option<KeyValue>), Status> {
        self.read_index().await.map_err(as_helper)?;
        let reader = self.handle.reader().clone();
        let read = self.blocking(move || reader.range(&request)).await;
        let (revision, reply) = read.map_err(as_helper)?;
        Ok((revision, reply.kvs.into_iter().next().map(|record| record_of(&record)).transpose()?))
    }

    /// Errors of helpers keep their text, but travel with code Unknown as in etcd.
    pub(super) async fn helper_propose(
        &self,
        request: InternalRaftRequest,
    ) -> Result<(i64, Reply), Status> {
        self.propose(request).await.map_err(as_helper)
    }
}

/// Deletes a waiter's key when its caller goes away before it got what it waited for.
pub(super) struct WaiterKey {
    services: std::rc::Rc<Services>,
    key: Option<Bytes>,
}

impl WaiterKey {
    pub(super) fn new(services: &std::rc::Rc<Services>, key: Bytes) -> Self {
        Self { services: std::rc::Rc::clone(services), key: Some(key) }
    }

    pub(super) fn keep(&mut self) {
        self.key = None;
    }
}

impl Drop for WaiterKey {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let services = std::rc::Rc::clone(&self.services);
        tokio::task::spawn_local(async move {
            let delete = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
            let request = InternalRaftRequest {
                delete_range: Some(delete),
                ..InternalRaftRequest::default()
            };
            if let Err(status) = services.propose(request).await {
                tracing::warn!(%status, "could not delete the key of a waiter that went away");
            }
        });
    }
}

pub(super) fn as_helper(status: Status) -> Status {
    Status { code: Code::Unknown, ..status }
}

pub(super) fn op(request: request_op::Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// An empty key is refused before it reaches the log.
pub(super) fn helper_key(key: Bytes) -> Result<Bytes, Status> {
    if key.is_empty() { Err(as_helper(error::EMPTY_KEY)) } else { Ok(key) }
}

/// The end of the range of all keys that begin with `prefix`.
pub(super) fn prefix_end(prefix: &Bytes) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}

pub(super) fn record_of(record: &Bytes) -> Result<KeyValue, Status> {
    prost::Message::decode(record.clone()).map_err(|error| {
        Status::new(Code::Internal, format!("a stored record is damaged: {error}"))
    })
}

fn former_value(reply: Reply) -> Result<Option<KeyValue>, Status> {
    let Reply::Txn(txn) = reply else { unreachable!("a transaction is answered by one") };
    match txn.responses.into_iter().next() {
        Some((_, Reply::Range(range))) => range.kvs.first().map(record_of).transpose(),
        _ => Ok(None),
    }
}
