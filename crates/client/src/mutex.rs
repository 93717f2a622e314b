//! A lock: the holder is the owner of the oldest key under the lock's name.

use bytes::Bytes;
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::response_op::Response;
use proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
    compare,
};

use crate::wait::wait_deletes;
use crate::{Error, Session, prefix_end};

/// A lock under a name, in the name of a session.
#[derive(Debug)]
pub struct Mutex<'a> {
    session: &'a Session,
    prefix: Bytes,
    key: Bytes,
    held: bool,
    revision: i64,
}

/// A comparison with the revision at which `key` was created; 0 is never.
pub(crate) fn created_at(key: &Bytes, revision: i64) -> Compare {
    Compare {
        result: compare::CompareResult::Equal.into(),
        target: compare::CompareTarget::Create.into(),
        key: key.clone(),
        range_end: Bytes::new(),
        target_union: Some(compare::TargetUnion::CreateRevision(revision)),
    }
}

/// An operation of a transaction.
pub(crate) fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// Reads the oldest key under `prefix`.
pub(crate) fn first_created(prefix: &Bytes) -> RangeRequest {
    RangeRequest {
        key: prefix.clone(),
        range_end: prefix_end(prefix),
        sort_target: SortTarget::Create.into(),
        sort_order: SortOrder::Ascend.into(),
        limit: 1,
        ..RangeRequest::default()
    }
}

/// The revision at which the first key that the `index`-th operation read was created.
pub(crate) fn created_by(answer: &TxnResponse, index: usize) -> Option<i64> {
    match answer.responses.get(index)?.response.as_ref()? {
        Response::ResponseRange(range) => range.kvs.first().map(|kv| kv.create_revision),
        Response::ResponsePut(_) | Response::ResponseDeleteRange(_) | Response::ResponseTxn(_) => {
            None
        }
    }
}

impl<'a> Mutex<'a> {
    /// The lock `name`, not yet asked for.
    pub fn new(session: &'a Session, name: &[u8]) -> Self {
        let prefix = Bytes::from([name, b"/"].concat());
        let key = Bytes::from([&prefix[..], format!("{:x}", session.lease()).as_bytes()].concat());
        Self { session, prefix, key, held: false, revision: 0 }
    }

    /// The key that stands for the holder.
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// The store's revision when the lock was taken.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Waits for the lock. Dropped before it is done, it leaves its place in the queue behind:
    /// [`unlock`](Self::unlock) gives that up too.
    pub async fn lock(&mut self) -> Result<(), Error> {
        let client = self.session.client();
        let answer = self.enqueue().await?;
        let revision = answer.header.as_ref().map_or(0, |header| header.revision);
        self.held = true;
        let own =
            if answer.succeeded { revision } else { created_by(&answer, 0).unwrap_or(revision) };
        let owner = created_by(&answer, 1);
        if owner.is_none_or(|owner| owner == own) {
            self.revision = revision;
            return Ok(());
        }
        wait_deletes(client, &self.prefix, own - 1).await?;
        let still = RangeRequest { key: self.key.clone(), ..RangeRequest::default() };
        let still = client.range(still).await?;
        if still.kvs.is_empty() {
            self.held = false;
            return Err(Error::SessionExpired);
        }
        self.revision = still.header.map_or(0, |header| header.revision);
        Ok(())
    }

    /// Gives the lock, or the place in its queue, up.
    pub async fn unlock(&mut self) -> Result<(), Error> {
        if !std::mem::take(&mut self.held) {
            return Err(Error::LockReleased);
        }
        let request = DeleteRangeRequest { key: self.key.clone(), ..Default::default() };
        self.session.client().delete_range(request).await?;
        Ok(())
    }

    /// Puts our key unless it is there, and reads who is first: one round trip when nobody waits.
    async fn enqueue(&self) -> Result<TxnResponse, Error> {
        let put = PutRequest {
            key: self.key.clone(),
            lease: self.session.lease(),
            ..PutRequest::default()
        };
        let get = RangeRequest { key: self.key.clone(), ..RangeRequest::default() };
        let owner = || op(Request::RequestRange(first_created(&self.prefix)));
        let request = TxnRequest {
            compare: vec![created_at(&self.key, 0)],
            success: vec![op(Request::RequestPut(put)), owner()],
            failure: vec![op(Request::RequestRange(get)), owner()],
        };
        self.session.client().txn(request).await
    }
}
