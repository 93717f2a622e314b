//! Log entries: any bytes as an entry, any payload in a request's envelope, small requests, and conf changes.
//!
//! Compared: a machine that is recovered from what was made durable, and fed the rest of the log again, has the revision and
//! the hash of the one that never stopped; applying is deterministic.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use machine::membership::{MembershipChange, Verdict};
use machine::{Fault, Machine, Options, schema};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::{compare, request_op};
use proto::raftpb;
use storage::backend::{self, Backend};
use storage::mem::MemDisk;

use crate::input::Input;

const ENTRIES_MAX: usize = 200;
const TXN_OPS_MAX: u8 = 4;
const TXN_DEPTH_MAX: u8 = 3;

/// Fields of `InternalRaftRequest` that hold a payload.
const PAYLOADS: [u32; 31] = [
    2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 1000, 1011, 1012, 1013, 1100, 1101, 1102, 1103, 1104, 1105,
    1106, 1107, 1200, 1201, 1202, 1203, 1204, 1300, 1301, 1302, 9900,
];

#[derive(Debug)]
enum Entry {
    Request(Bytes),
    ConfChange(raftpb::ConfChange),
}

/// Runs the target.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let disk = Arc::new(MemDisk::new());
    let options = backend::Options { cache_bytes: 1 << 20, ..backend::Options::default() };
    let backend = Backend::open(disk, Path::new("db"), schema::BUCKETS, options)
        .expect("an empty file opens");
    let mut machine = recover(&backend);
    let mut log = Vec::new();
    while !input.is_empty() && log.len() < ENTRIES_MAX {
        let entry = match input.byte() % 8 {
            0 => Entry::Request(Bytes::copy_from_slice(input.piece())),
            1 => Entry::Request(enveloped(&mut input, log.len())),
            2 => Entry::ConfChange(conf_change(&mut input)),
            3 => {
                work(&mut machine);
                continue;
            }
            _ => Entry::Request(small(&mut input, log.len())),
        };
        let index = log.len() as u64 + 1;
        // The member stops at such an entry, and so do all others.
        if apply(&mut machine, index, &entry).is_err() {
            break;
        }
        log.push(entry);
    }
    drop(machine.take_events());
    compare_recovered(&mut machine, &backend, &log);
}

fn recover(backend: &Backend) -> Machine {
    Machine::recover(backend.clone(), Options::default()).expect("what we wrote we can read")
}

/// Hands one commit and one step of a compaction to the backend, as its thread would.
fn work(machine: &mut Machine) {
    for job in [machine.take_commit(), machine.take_compact_step()].into_iter().flatten() {
        let done = job.run();
        machine.backend_done(done).expect("a disk in memory");
    }
}

fn apply(machine: &mut Machine, index: u64, entry: &Entry) -> Result<(), Fault> {
    match entry {
        Entry::Request(data) => machine.apply(index, 1, data).map(drop),
        Entry::ConfChange(change) => {
            let verdict = machine.check_conf_change(index, change)?;
            let mut group = machine.conf_state().clone();
            if let Verdict::Accepted(change) = &verdict {
                let id = change.id();
                group.learners.retain(|learner| *learner != id);
                match change {
                    MembershipChange::Add(member) if member.is_learner => group.learners.push(id),
                    MembershipChange::Add(_) | MembershipChange::Promote(_) => {
                        group.voters.push(id)
                    }
                    MembershipChange::Remove(_) => group.voters.retain(|voter| *voter != id),
                    MembershipChange::Update { .. } => {}
                }
            }
            machine.apply_conf_change(index, 1, change.id, verdict, &group).map(drop)
        }
    }
}

fn compare_recovered(machine: &mut Machine, backend: &Backend, log: &[Entry]) {
    let mut second = recover(backend);
    for (position, entry) in log.iter().enumerate() {
        let index = position as u64 + 1;
        if index > second.applied().index {
            apply(&mut second, index, entry).expect("it was applied before");
        }
    }
    let (one, other) = (machine.reader(), second.reader());
    assert_eq!(one.revision(), other.revision());
    assert_eq!(one.compact_revision(), other.compact_revision());
    assert_eq!(machine.membership().members().count(), second.membership().members().count());
    let hash = |reader: &machine::Reader| reader.hash_kv(reader.revision()).map(|(hash, _)| hash);
    let (Ok(one), Ok(other)) = (hash(&one), hash(&other)) else { return };
    // As in etcd, a compaction that was carried out leaves its own hash of a revision, until a restart.
    if one.compact_revision == other.compact_revision {
        assert_eq!(one, other);
    }
}

/// Any payload with a header that has an id.
fn enveloped(input: &mut Input<'_>, position: usize) -> Bytes {
    let mut data = header(position).encode_to_vec();
    let field = PAYLOADS[usize::from(input.byte()) % PAYLOADS.len()];
    let payload = input.piece();
    encode_key(field, WireType::LengthDelimited, &mut data);
    encode_varint(payload.len() as u64, &mut data);
    data.extend_from_slice(payload);
    data.into()
}

fn header(position: usize) -> pb::InternalRaftRequest {
    let header = pb::RequestHeader { id: position as u64 + 1, ..Default::default() };
    pb::InternalRaftRequest { header: Some(header), ..Default::default() }
}

/// A request over few keys and leases, so that requests meet.
fn small(input: &mut Input<'_>, position: usize) -> Bytes {
    let mut request = header(position);
    match input.byte() % 8 {
        0..=2 => request.put = Some(put(input)),
        3 => request.delete_range = Some(delete(input)),
        4 => request.txn = Some(txn(input, 0)),
        5 => {
            let (revision, physical) = (input.signed(), false);
            request.compaction = Some(pb::CompactionRequest { revision, physical });
        }
        6 => {
            request.lease_grant =
                Some(pb::LeaseGrantRequest { id: input.signed(), ttl: input.signed() })
        }
        _ => request.lease_revoke = Some(pb::LeaseRevokeRequest { id: input.signed() }),
    }
    request.encode_to_vec().into()
}

fn key(input: &mut Input<'_>) -> Bytes {
    match input.byte() {
        u8::MAX => Bytes::copy_from_slice(input.piece()),
        0 => Bytes::new(),
        small => Bytes::from(vec![b'a' + small % 4; usize::from(small / 64) + 1]),
    }
}

fn put(input: &mut Input<'_>) -> pb::PutRequest {
    let flags = input.byte();
    pb::PutRequest {
        key: key(input),
        value: key(input),
        lease: if flags & 1 == 0 { 0 } else { input.signed() },
        prev_kv: flags & 2 != 0,
        ignore_value: flags & 4 != 0,
        ignore_lease: flags & 8 != 0,
    }
}

fn delete(input: &mut Input<'_>) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest {
        key: key(input),
        range_end: key(input),
        prev_kv: input.byte() & 1 != 0,
    }
}

fn range(input: &mut Input<'_>) -> pb::RangeRequest {
    let flags = input.byte();
    pb::RangeRequest {
        key: key(input),
        range_end: key(input),
        limit: input.signed(),
        revision: input.signed(),
        sort_order: i32::from(flags & 3),
        sort_target: i32::from(flags >> 2 & 7),
        keys_only: flags & 32 != 0,
        count_only: flags & 64 != 0,
        ..Default::default()
    }
}

fn txn(input: &mut Input<'_>, depth: u8) -> pb::TxnRequest {
    let compare = (0..input.byte() % TXN_OPS_MAX).map(|_| comparison(input)).collect();
    let success = (0..input.byte() % TXN_OPS_MAX).map(|_| operation(input, depth)).collect();
    let failure = (0..input.byte() % TXN_OPS_MAX).map(|_| operation(input, depth)).collect();
    pb::TxnRequest { compare, success, failure }
}

fn comparison(input: &mut Input<'_>) -> pb::Compare {
    let target = input.byte();
    let union = match target % 6 {
        0 => compare::TargetUnion::Version(input.signed()),
        1 => compare::TargetUnion::CreateRevision(input.signed()),
        2 => compare::TargetUnion::ModRevision(input.signed()),
        3 => compare::TargetUnion::Value(key(input)),
        _ => compare::TargetUnion::Lease(input.signed()),
    };
    pb::Compare {
        result: i32::from(input.byte() % 5),
        // Mostly the one that belongs to the value.
        target: i32::from(target % 6) + i32::from(target > 250),
        key: key(input),
        range_end: key(input),
        target_union: Some(union),
    }
}

fn operation(input: &mut Input<'_>, depth: u8) -> pb::RequestOp {
    let request = match input.byte() % 6 {
        0 | 1 => Some(request_op::Request::RequestPut(put(input))),
        2 => Some(request_op::Request::RequestDeleteRange(delete(input))),
        3 => Some(request_op::Request::RequestRange(range(input))),
        4 if depth < TXN_DEPTH_MAX => Some(request_op::Request::RequestTxn(txn(input, depth + 1))),
        _ => None,
    };
    pb::RequestOp { request }
}

fn conf_change(input: &mut Input<'_>) -> raftpb::ConfChange {
    raftpb::ConfChange {
        id: input.number(),
        r#type: i32::from(input.byte() % 6),
        node_id: input.number(),
        context: Bytes::copy_from_slice(input.piece()),
    }
}
