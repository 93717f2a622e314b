//! One writer of a write storm and what it knows about its keys and leases.
//!
//! A writer has one request under way at a time and keys of its own. So after a crash there are exactly two states its
//! part of the store may be in: that of its acknowledged requests, or that with the one request in doubt on top. A lost
//! write, a torn transaction or a lease without its keys is neither.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proto::etcdserverpb::{
    DeleteRangeRequest, LeaseGrantRequest, LeaseLeasesRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, PutRequest, RequestOp, TxnRequest, request_op,
};
use tonic::Status;

use crate::client::{Client, is_lost};
use crate::random::Random;

/// Keys of one writer: few, so that they are written over, deleted and made again.
const KEYS: u64 = 12;
/// Leases of one writer at a time.
const LEASES_MAX: usize = 4;
/// Long enough never to expire during a test.
const TTL: i64 = 9000;
/// One write in so many is large, so that segments, commits and the tail are exercised too.
const LARGE_ONE_IN: u64 = 40;
const LARGE_BYTES: usize = 100_000;

/// What a writer may ask for.
#[derive(Debug, Clone)]
enum Op {
    Grant(i64),
    Revoke(i64),
    /// Keys that are put (`Some`) or deleted (`None`), in one transaction if there are several.
    Write(BTreeMap<String, Option<Stored>>),
}

/// What is stored under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    value: Bytes,
    lease: i64,
}

/// The part of the store that one writer owns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    keys: BTreeMap<String, Stored>,
    leases: BTreeSet<i64>,
}

impl State {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Grant(id) => {
                self.leases.insert(*id);
            }
            Op::Revoke(id) => {
                self.leases.remove(id);
                self.keys.retain(|_, stored| stored.lease != *id);
            }
            Op::Write(changes) => {
                for (key, change) in changes {
                    match change {
                        Some(stored) => self.keys.insert(key.clone(), stored.clone()),
                        None => self.keys.remove(key),
                    };
                }
            }
        }
    }
}

/// One writer.
#[derive(Debug)]
pub(crate) struct Writer {
    number: u64,
    random: Random,
    /// Makes values and lease ids unique.
    made: u64,
    acknowledged: State,
    in_doubt: Option<Op>,
    /// The highest revision that an answer has named.
    pub(crate) revision: i64,
    /// The revision of the last acknowledged write of each key.
    modified: BTreeMap<String, i64>,
    pub(crate) acknowledgements: u64,
}

impl Writer {
    pub(crate) fn new(number: u64, seed: u64) -> Self {
        Self {
            number,
            random: Random::new(seed ^ (number << 32)),
            made: 0,
            acknowledged: State::default(),
            in_doubt: None,
            revision: 0,
            modified: BTreeMap::new(),
            acknowledgements: 0,
        }
    }

    fn prefix(&self) -> String {
        format!("writer/{:04}/", self.number)
    }

    /// Sends the next request. False when it remained without an answer; the writer is in doubt then.
    pub(crate) async fn step(&mut self, client: &Client) -> bool {
        assert!(self.in_doubt.is_none(), "settle first");
        let op = self.choose();
        match self.send(client, &op).await {
            Ok(revision) => {
                assert!(revision >= self.revision, "revision {revision} after {}", self.revision);
                self.revision = revision;
                self.acknowledged.apply(&op);
                self.note_modified(&op, revision);
                self.acknowledgements += 1;
                true
            }
            Err(status) => {
                assert!(is_lost(&status), "refused: {status:?} for {op:?}");
                self.in_doubt = Some(op);
                false
            }
        }
    }

    fn note_modified(&mut self, op: &Op, revision: i64) {
        if let Op::Write(changes) = op {
            for key in changes.keys() {
                self.modified.insert(key.clone(), revision);
            }
        }
    }

    fn choose(&mut self) -> Op {
        let leases: Vec<i64> = self.acknowledged.leases.iter().copied().collect();
        match self.random.below(20) {
            0 | 1 if leases.len() < LEASES_MAX => {
                self.made += 1;
                Op::Grant(((self.number + 1) << 32 | self.made).cast_signed())
            }
            2 if !leases.is_empty() => {
                Op::Revoke(leases[self.random.below(leases.len() as u64) as usize])
            }
            3..=9 => {
                let count = 2 + self.random.below(4);
                Op::Write((0..count).map(|_| self.choose_change()).collect())
            }
            _ => Op::Write(BTreeMap::from([self.choose_change()])),
        }
    }

    fn choose_change(&mut self) -> (String, Option<Stored>) {
        let key = format!("{}{}", self.prefix(), self.random.below(KEYS));
        if self.random.below(5) == 0 {
            return (key, None);
        }
        self.made += 1;
        let mut value = format!("{}", self.made).into_bytes();
        if self.random.below(LARGE_ONE_IN) == 0 {
            value.resize(LARGE_BYTES, b'.');
        }
        let leases: Vec<i64> = self.acknowledged.leases.iter().copied().collect();
        let lease = match self.random.below(3) {
            0 if !leases.is_empty() => leases[self.random.below(leases.len() as u64) as usize],
            _ => 0,
        };
        (key, Some(Stored { value: value.into(), lease }))
    }

    async fn send(&self, client: &Client, op: &Op) -> Result<i64, Status> {
        let header = match op {
            Op::Grant(id) => {
                let request = LeaseGrantRequest { id: *id, ttl: TTL };
                client.lease().lease_grant(request).await?.into_inner().header
            }
            Op::Revoke(id) => {
                let request = LeaseRevokeRequest { id: *id };
                client.lease().lease_revoke(request).await?.into_inner().header
            }
            Op::Write(changes) if changes.len() == 1 => {
                let (key, change) = changes.first_key_value().expect("one");
                if let Some(stored) = change {
                    client.kv().put(put_request(key, stored)).await?.into_inner().header
                } else {
                    client.kv().delete_range(delete_request(key)).await?.into_inner().header
                }
            }
            Op::Write(changes) => {
                let success = changes.iter().map(|(key, change)| RequestOp {
                    request: Some(match change {
                        Some(stored) => request_op::Request::RequestPut(put_request(key, stored)),
                        None => request_op::Request::RequestDeleteRange(delete_request(key)),
                    }),
                });
                let request = TxnRequest { success: success.collect(), ..Default::default() };
                client.kv().txn(request).await?.into_inner().header
            }
        };
        Ok(header.expect("always there").revision)
    }

    /// Compares with what is stored after a restart and settles the request in doubt.
    pub(crate) async fn settle(&mut self, client: &Client) -> Result<(), String> {
        let (actual, revisions) = self.read(client).await.map_err(|status| status.to_string())?;
        let mut settled = self.acknowledged.clone();
        if actual != settled {
            let Some(op) = &self.in_doubt else {
                return Err(format!("lost or torn: {}", difference(&settled, &actual)));
            };
            settled.apply(op);
            if actual != settled {
                return Err(format!(
                    "lost or torn with {op:?} in doubt: {}",
                    difference(&settled, &actual)
                ));
            }
            let op = op.clone();
            self.check_in_doubt_revisions(&op, &revisions)?;
        }
        self.in_doubt = None;
        self.acknowledged = settled;
        for (key, revision) in &revisions {
            let expected = self.modified.get(key);
            if expected != Some(revision) {
                return Err(format!("{key} modified at {revision}, acknowledged {expected:?}"));
            }
        }
        Ok(())
    }

    /// The keys of a transaction have one revision, later than all before.
    fn check_in_doubt_revisions(
        &mut self,
        op: &Op,
        revisions: &BTreeMap<String, i64>,
    ) -> Result<(), String> {
        let Op::Write(changes) = op else { return Ok(()) };
        let put: BTreeSet<i64> =
            changes.keys().filter_map(|key| revisions.get(key).copied()).collect();
        match put.iter().next() {
            Some(revision) if put.len() > 1 || *revision <= self.revision => {
                Err(format!("revisions {put:?} of {op:?} after {}", self.revision))
            }
            Some(revision) => {
                self.note_modified(op, *revision);
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn read(&self, client: &Client) -> Result<(State, BTreeMap<String, i64>), Status> {
        let listed = client.list(&self.prefix()).await?;
        let mut state = State::default();
        let mut revisions = BTreeMap::new();
        for kv in listed.kvs {
            let key = String::from_utf8_lossy(&kv.key).into_owned();
            revisions.insert(key.clone(), kv.mod_revision);
            state.keys.insert(key, Stored { value: kv.value, lease: kv.lease });
        }
        let leases = client.lease().lease_leases(LeaseLeasesRequest {}).await?.into_inner().leases;
        let own =
            leases.iter().map(|lease| lease.id).filter(|id| id >> 32 == self.number as i64 + 1);
        for id in own {
            let request = LeaseTimeToLiveRequest { id, keys: true };
            let lease = client.lease().lease_time_to_live(request).await?.into_inner();
            assert!(lease.granted_ttl == TTL && lease.ttl > 0, "{lease:?}");
            let attached: BTreeSet<Bytes> = lease.keys.into_iter().collect();
            let expected = state.keys.iter().filter(|(_, stored)| stored.lease == id);
            let expected: BTreeSet<Bytes> = expected.map(|(key, _)| key.clone().into()).collect();
            assert_eq!(attached, expected, "keys of lease {id:x}");
            state.leases.insert(id);
        }
        Ok((state, revisions))
    }
}

fn put_request(key: &str, stored: &Stored) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        value: stored.value.clone(),
        lease: stored.lease,
        ..Default::default()
    }
}

fn delete_request(key: &str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() }
}

/// Says where two states differ, without large values.
fn difference(expected: &State, actual: &State) -> String {
    let short = |state: &State| -> BTreeMap<String, String> {
        let short = |stored: &Stored| {
            let value = String::from_utf8_lossy(&stored.value[..stored.value.len().min(12)]);
            format!("{value} lease {:x}", stored.lease)
        };
        let keys = state.keys.iter().map(|(key, stored)| (key.clone(), short(stored)));
        keys.chain(state.leases.iter().map(|id| (format!("lease {id:x}"), String::new()))).collect()
    };
    let (expected, actual) = (short(expected), short(actual));
    let names: BTreeSet<&String> = expected.keys().chain(actual.keys()).collect();
    let differing = names.into_iter().filter(|name| expected.get(*name) != actual.get(*name));
    differing
        .map(|name| {
            format!("{name}: expected {:?}, found {:?}", expected.get(name), actual.get(name))
        })
        .collect::<Vec<_>>()
        .join("; ")
}
