//! An election: the leader is the owner of the oldest key under the election's name.

use std::collections::VecDeque;

use bytes::Bytes;
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::response_op::Response;
use proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, ResponseHeader, TxnRequest,
    WatchCreateRequest,
};
use proto::mvccpb::KeyValue;
use proto::mvccpb::event::EventType;

use crate::mutex::{created_at, first_created, op};
use crate::wait::wait_deletes;
use crate::{Client, Error, Session, Watcher, prefix_end};

/// A candidate of one election.
#[derive(Debug)]
pub struct Election<'a> {
    session: &'a Session,
    prefix: Bytes,
    key: Bytes,
    /// At which our key was created, while it stands.
    revision: Option<i64>,
}

impl<'a> Election<'a> {
    /// The election `name`.
    pub fn new(session: &'a Session, name: &[u8]) -> Self {
        let prefix = Bytes::from([name, b"/"].concat());
        let key = Bytes::from([&prefix[..], format!("{:x}", session.lease()).as_bytes()].concat());
        Self { session, prefix, key, revision: None }
    }

    /// The key that stands for this candidate.
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// Stands with `value` and returns when elected. Dropped before that, it leaves the candidacy
    /// behind: [`resign`](Self::resign) takes it back.
    pub async fn campaign(&mut self, value: Bytes) -> Result<(), Error> {
        let client = self.session.client();
        let put = self.put(value.clone());
        let get = RangeRequest { key: self.key.clone(), ..RangeRequest::default() };
        let request = TxnRequest {
            compare: vec![created_at(&self.key, 0)],
            success: vec![op(Request::RequestPut(put))],
            failure: vec![op(Request::RequestRange(get))],
        };
        let answer = client.txn(request).await?;
        let mut revision = answer.header.as_ref().map_or(0, |header| header.revision);
        let first = answer.responses.first().and_then(|answer| answer.response.as_ref());
        if let Some(Response::ResponseRange(range)) = first
            && let Some(ours) = range.kvs.first()
        {
            revision = ours.create_revision;
            self.revision = Some(revision);
            if ours.value != value {
                self.proclaim(value).await?;
            }
        }
        self.revision = Some(revision);
        wait_deletes(client, &self.prefix, revision - 1).await
    }

    /// Changes the value that this candidate stands with.
    async fn proclaim(&self, value: Bytes) -> Result<(), Error> {
        let Some(revision) = self.revision else { return Err(Error::NotElected) };
        let request = TxnRequest {
            compare: vec![created_at(&self.key, revision)],
            success: vec![op(Request::RequestPut(self.put(value)))],
            failure: Vec::new(),
        };
        let answer = self.session.client().txn(request).await?;
        if answer.succeeded { Ok(()) } else { Err(Error::NotElected) }
    }

    /// Gives the office, or the candidacy, up.
    pub async fn resign(&mut self) -> Result<(), Error> {
        let Some(revision) = self.revision.take() else { return Ok(()) };
        let delete = DeleteRangeRequest { key: self.key.clone(), ..Default::default() };
        let request = TxnRequest {
            compare: vec![created_at(&self.key, revision)],
            success: vec![op(Request::RequestDeleteRange(delete))],
            failure: Vec::new(),
        };
        self.session.client().txn(request).await?;
        Ok(())
    }

    fn put(&self, value: Bytes) -> PutRequest {
        let lease = self.session.lease();
        PutRequest { key: self.key.clone(), value, lease, ..PutRequest::default() }
    }
}

/// Sees who leads an election, now and after each change.
#[derive(Debug)]
pub struct Observer {
    client: Client,
    prefix: Bytes,
    /// The leader's key, while one is watched.
    leader: Option<Watcher>,
    /// Seen and not yet handed out.
    ready: VecDeque<RangeResponse>,
}

impl Observer {
    /// An observer of the election `name`.
    pub fn new(client: &Client, name: &[u8]) -> Self {
        let prefix = Bytes::from([name, b"/"].concat());
        Self { client: client.clone(), prefix, leader: None, ready: VecDeque::new() }
    }

    /// The next leader, or the next value of the same.
    pub async fn next(&mut self) -> Result<RangeResponse, Error> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Ok(ready);
            }
            let Some(watcher) = &mut self.leader else {
                let (header, kv) = self.find().await?;
                let request = WatchCreateRequest {
                    key: kv.key.clone(),
                    start_revision: header.map_or(0, |header| header.revision) + 1,
                    ..WatchCreateRequest::default()
                };
                self.leader = Some(self.client.watch_stream(false).create(request).await);
                return Ok(leader(header, kv));
            };
            let response = watcher.next().await.ok_or(Error::WatcherLost)??;
            for event in response.events {
                if event.r#type() == EventType::Delete {
                    self.leader = None;
                    break;
                }
                self.ready.extend(event.kv.map(|kv| leader(response.header, kv)));
            }
        }
    }

    /// The leader; waits for the first candidate if there is none.
    async fn find(&self) -> Result<(Option<ResponseHeader>, KeyValue), Error> {
        let found = self.client.range(first_created(&self.prefix)).await?;
        let revision = found.header.as_ref().map_or(0, |header| header.revision);
        if let Some(kv) = found.kvs.into_iter().next() {
            return Ok((found.header, kv));
        }
        let request = WatchCreateRequest {
            key: self.prefix.clone(),
            range_end: prefix_end(&self.prefix),
            start_revision: revision,
            ..WatchCreateRequest::default()
        };
        let mut watcher = self.client.watch_stream(false).create(request).await;
        loop {
            let response = watcher.next().await.ok_or(Error::WatcherLost)??;
            let put = response.events.into_iter().find(|event| event.r#type() == EventType::Put);
            if let Some(kv) = put.and_then(|event| event.kv) {
                let header =
                    response.header.map(|h| ResponseHeader { revision: kv.mod_revision, ..h });
                return Ok((header, kv));
            }
        }
    }
}

fn leader(header: Option<ResponseHeader>, kv: KeyValue) -> RangeResponse {
    RangeResponse { header, kvs: vec![kv], ..RangeResponse::default() }
}
