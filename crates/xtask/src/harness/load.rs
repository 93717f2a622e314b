//! A load of writes through all members that remembers what was acknowledged, and the check that none of it is lost.

mod ledger;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op;
use proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest,
    PutRequest, RangeRequest, RequestOp, ResponseHeader, TxnRequest,
};
use tokio::task::JoinSet;
use tonic::Status;

pub(crate) use self::ledger::Ledger;
use super::api::Api;
use crate::random::Random;

/// How long a writer waits for an answer before it counts as unknown.
const PATIENCE: Duration = Duration::from_secs(3);
const WRITERS: usize = 12;
/// Keys of its own that a writer writes again and again.
const OWN_KEYS: usize = 20;
/// Keys that all writers count up.
const COUNTERS: usize = 4;
/// Writes after which a writer that went elsewhere is back at its member.
const RETURN_WRITES: u64 = 50;
/// Leases outlive every run.
const LEASE_TTL: i64 = 24 * 3600;
const COMPACT_INTERVAL: Duration = Duration::from_secs(3);
/// Revisions that compactions leave.
const HISTORY_KEPT: i64 = 1500;
/// Keys of one page of the final reading.
const PAGE_KEYS: i64 = 2000;

/// Kinds of writes and how frequent each is.
const KINDS: &[(u64, Kind)] = &[
    (40, Kind::Append),
    (25, Kind::Overwrite),
    (10, Kind::Count),
    (8, Kind::PutAndDelete),
    (10, Kind::Pair),
    (7, Kind::Lease),
];

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A key that is never written again.
    Append,
    /// A key written often.
    Overwrite,
    /// One more on a counter, by a transaction that compares.
    Count,
    PutAndDelete,
    /// Two keys in one transaction.
    Pair,
    /// A key with a lease, which may be revoked.
    Lease,
}

/// Running writers.
pub(crate) struct Load {
    shared: Rc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    ledger: RefCell<Ledger>,
    members: Vec<Api>,
    is_over: Cell<bool>,
    /// What a writer rests between two writes.
    rest: Cell<Duration>,
}

impl Load {
    /// Starts writers, each with a member of its own to go to while that serves.
    pub(crate) fn start(members: &[Api], rest: Duration, seed: u64) -> Self {
        let shared = Rc::new(Shared {
            ledger: RefCell::new(Ledger::new()),
            members: members.iter().map(|api| api.within(PATIENCE)).collect(),
            is_over: Cell::new(false),
            rest: Cell::new(rest),
        });
        let mut tasks = JoinSet::new();
        for number in 0..WRITERS {
            let random = Random::new(seed.wrapping_mul(1000).wrapping_add(number as u64));
            let writer = Writer { shared: Rc::clone(&shared), number, writes: 0, shift: 0, random };
            tasks.spawn_local(writer.work());
        }
        tasks.spawn_local(compact(Rc::clone(&shared)));
        Self { shared, tasks }
    }

    /// What writers rest from now on.
    pub(crate) fn rest(&self, rest: Duration) {
        self.shared.rest.set(rest);
    }

    /// Looks at the ledger, or changes it.
    pub(crate) fn ledger<T>(&self, look: impl FnOnce(&mut Ledger) -> T) -> T {
        look(&mut self.shared.ledger.borrow_mut())
    }

    /// Ends the writers and waits for their last answers.
    pub(crate) async fn stop(&mut self) {
        self.shared.is_over.set(true);
        while self.tasks.join_next().await.is_some() {}
    }

    /// Reads everything through `api` and returns what of the acknowledged is not there.
    pub(crate) async fn verify(&self, api: &Api) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let mut from = "load/".to_owned();
        loop {
            let request = RangeRequest {
                key: from.into(),
                range_end: "load0".into(),
                limit: PAGE_KEYS,
                ..RangeRequest::default()
            };
            let page = api.range(request).await.context("reading all keys")?;
            for kv in page.kvs {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                found.push((text(&kv.key), text(&kv.value), kv.mod_revision));
            }
            let Some((last, ..)) = found.last().filter(|_| page.more) else { break };
            from = format!("{last}\0");
        }
        Ok(self.shared.ledger.borrow().judge(&found))
    }
}

/// Compacts again and again, so that there is history and an end of it.
async fn compact(shared: Rc<Shared>) {
    let mut number = 0;
    while !shared.is_over.get() {
        tokio::time::sleep(COMPACT_INTERVAL).await;
        let revision = shared.ledger.borrow().newest_revision() - HISTORY_KEPT;
        if revision <= 0 {
            continue;
        }
        number += 1;
        let api = &shared.members[number % shared.members.len()];
        let request = CompactionRequest { revision, physical: false };
        // Refused when an earlier one, believed to be lost, came through.
        let compacted = api.call(api.kv().compact(request)).await.is_ok();
        shared.ledger.borrow_mut().compactions += u64::from(compacted);
    }
}

struct Writer {
    shared: Rc<Shared>,
    number: usize,
    writes: u64,
    /// How many members further than its own it is.
    shift: usize,
    random: Random,
}

impl Writer {
    async fn work(mut self) {
        while !self.shared.is_over.get() {
            if self.writes.is_multiple_of(RETURN_WRITES) {
                self.shift = 0;
            }
            let weights: Vec<u64> = KINDS.iter().map(|(weight, _)| *weight).collect();
            let (_, kind) = KINDS[self.random.weighted(&weights)];
            let written = self.write(kind).await;
            if written.is_err() {
                self.shift += 1;
            }
            tokio::time::sleep(self.shared.rest.get()).await;
        }
    }

    async fn write(&mut self, kind: Kind) -> Result<(), Status> {
        self.writes += 1;
        let (own, write) = (self.number, self.writes);
        let value = format!("{own}-{write}-{:-<1$}", "", self.random.below(100));
        match kind {
            Kind::Append => self.put(format!("load/append/{own}/{write}"), value, 0).await,
            Kind::Overwrite => {
                let key = format!("load/own/{own}/{}", self.random.below(OWN_KEYS));
                self.put(key, value, 0).await
            }
            Kind::Count => self.count().await,
            Kind::PutAndDelete => {
                let key = format!("load/deleted/{own}/{write}");
                self.put(key.clone(), value, 0).await?;
                let request =
                    DeleteRangeRequest { key: key.clone().into(), ..DeleteRangeRequest::default() };
                let api = self.api();
                let answer = api.call(api.kv().delete_range(request)).await;
                self.record(&[(key, None)], answer.map(|answer| answer.header))
            }
            Kind::Pair => self.pair(value).await,
            Kind::Lease => self.lease(value).await,
        }
    }

    fn api(&self) -> Api {
        let members = &self.shared.members;
        members[(self.number + self.shift) % members.len()].clone()
    }

    async fn put(&self, key: String, value: String, lease: i64) -> Result<(), Status> {
        let api = self.api();
        let answer = api.call(api.kv().put(put(&key, &value, lease))).await;
        self.record(&[(key, Some(value))], answer.map(|answer| answer.header))
    }

    async fn pair(&self, value: String) -> Result<(), Status> {
        let keys = ["a", "b"].map(|end| format!("load/pair/{}/{}/{end}", self.number, self.writes));
        let puts =
            keys.iter().map(|key| operation(request_op::Request::RequestPut(put(key, &value, 0))));
        let request = TxnRequest { success: puts.collect(), ..TxnRequest::default() };
        let api = self.api();
        let answer = api.call(api.kv().txn(request)).await;
        let writes = keys.map(|key| (key, Some(value.clone())));
        self.record(&writes, answer.map(|answer| answer.header))
    }

    async fn lease(&mut self, value: String) -> Result<(), Status> {
        let api = self.api();
        let grant = LeaseGrantRequest { ttl: LEASE_TTL, id: 0 };
        let id = api.call(api.lease().lease_grant(grant)).await?.id;
        let key = format!("load/leased/{}/{}", self.number, self.writes);
        self.put(key.clone(), value, id).await?;
        if self.random.chance(500) {
            return Ok(());
        }
        let answer = api.call(api.lease().lease_revoke(LeaseRevokeRequest { id })).await;
        self.record(&[(key, None)], answer.map(|answer| answer.header))
    }

    /// Reads a counter, and writes it one higher if nobody else did meanwhile.
    async fn count(&mut self) -> Result<(), Status> {
        let key = format!("load/counter/{}", self.random.below(COUNTERS));
        let api = self.api();
        let present = api.get(&key).await?.kvs.pop();
        let (number, revision) = present.map_or((0, 0), |kv| {
            (String::from_utf8_lossy(&kv.value).parse::<u64>().unwrap_or(0), kv.mod_revision)
        });
        let compare = Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: key.clone().into(),
            target_union: Some(TargetUnion::ModRevision(revision)),
            ..Compare::default()
        };
        let more = put(&key, &(number + 1).to_string(), 0);
        let request = TxnRequest {
            compare: vec![compare],
            success: vec![operation(request_op::Request::RequestPut(more))],
            ..TxnRequest::default()
        };
        let answer = api.call(api.kv().txn(request)).await;
        let mut ledger = self.shared.ledger.borrow_mut();
        match answer {
            Ok(answer) if answer.succeeded => ledger.counted(&key, revision_of(answer.header)),
            // Another writer was faster.
            Ok(_) => {}
            Err(status) => {
                ledger.may_have_counted(&key);
                return Err(status);
            }
        }
        Ok(())
    }

    fn record(
        &self,
        writes: &[(String, Option<String>)],
        answer: Result<Option<ResponseHeader>, Status>,
    ) -> Result<(), Status> {
        let mut ledger = self.shared.ledger.borrow_mut();
        match answer {
            Ok(header) => ledger.acknowledged(writes, revision_of(header)),
            Err(status) => {
                ledger.unknown(writes);
                return Err(status);
            }
        }
        Ok(())
    }
}

fn revision_of(header: Option<ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

fn put(key: &str, value: &str, lease: i64) -> PutRequest {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    PutRequest { key, value, lease, ..PutRequest::default() }
}

fn operation(request: request_op::Request) -> RequestOp {
    RequestOp { request: Some(request) }
}
