//! The format for programs: numbers as numbers, bytes in base64, zeros left out.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proto::etcdserverpb::response_op::Response;
use proto::etcdserverpb::{
    AlarmResponse, DeleteRangeResponse, DowngradeResponse, HashKvResponse, LeaseGrantResponse,
    LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseTimeToLiveResponse, Member,
    MemberAddResponse, PutResponse, RangeResponse, ResponseHeader, StatusResponse, TxnResponse,
    WatchResponse,
};
use proto::mvccpb::{Event, KeyValue};
use serde_json::{Map, Value, json};

use super::Health;

/// Writes one line. What could end a script in a web page is escaped, as Go does.
pub(super) fn line(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    let mut text = value.to_string();
    for (c, escaped) in [
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('&', "\\u0026"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ] {
        // These stand only in strings.
        if text.contains(c) {
            text = text.replace(c, escaped);
        }
    }
    writeln!(out, "{text}")
}

/// An object without its empty members.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    /// Adds a member, whatever it is.
    fn always(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a member unless it is zero, empty or null.
    fn with(self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        let is_empty = match &value {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::Number(number) => number.as_i64() == Some(0),
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            // A message that is there is shown, even if all in it is zero.
            Value::Object(_) => false,
        };
        if is_empty { self } else { self.always(name, value) }
    }

    fn value(self) -> Value {
        Value::Object(self.0)
    }
}

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn header_object(header: &ResponseHeader) -> Object {
    Object::default()
        .with("cluster_id", header.cluster_id)
        .with("member_id", header.member_id)
        .with("revision", header.revision)
        .with("raft_term", header.raft_term)
}

fn header(header: Option<&ResponseHeader>) -> Value {
    header.map_or(Value::Null, |header| header_object(header).value())
}

/// The members of a header, to which those of the response are added.
fn flat_header(header: Option<&ResponseHeader>) -> Object {
    header.map(header_object).unwrap_or_default()
}

fn kv(kv: &KeyValue) -> Value {
    Object::default()
        .with("key", base64(&kv.key))
        .with("create_revision", kv.create_revision)
        .with("mod_revision", kv.mod_revision)
        .with("version", kv.version)
        .with("value", base64(&kv.value))
        .with("lease", kv.lease)
        .value()
}

fn kvs(list: &[KeyValue]) -> Value {
    list.iter().map(kv).collect()
}

fn maybe_kv(one: Option<&KeyValue>) -> Value {
    one.map_or(Value::Null, kv)
}

pub(super) fn header_only(one: Option<&ResponseHeader>) -> Value {
    Object::default().with("header", header(one)).value()
}

pub(super) fn range(answer: &RangeResponse) -> Value {
    Object::default()
        .with("header", header(answer.header.as_ref()))
        .with("kvs", kvs(&answer.kvs))
        .with("more", answer.more)
        .with("count", answer.count)
        .value()
}

pub(super) fn put(answer: &PutResponse) -> Value {
    Object::default()
        .with("header", header(answer.header.as_ref()))
        .with("prev_kv", maybe_kv(answer.prev_kv.as_ref()))
        .value()
}

pub(super) fn delete_range(answer: &DeleteRangeResponse) -> Value {
    Object::default()
        .with("header", header(answer.header.as_ref()))
        .with("deleted", answer.deleted)
        .with("prev_kvs", kvs(&answer.prev_kvs))
        .value()
}

pub(super) fn txn(answer: &TxnResponse) -> Value {
    let responses: Vec<Value> = answer
        .responses
        .iter()
        .map(|answer| {
            let response = match &answer.response {
                Some(Response::ResponseRange(answer)) => json!({"response_range": range(answer)}),
                Some(Response::ResponsePut(answer)) => json!({"response_put": put(answer)}),
                Some(Response::ResponseDeleteRange(answer)) => {
                    json!({"response_delete_range": delete_range(answer)})
                }
                Some(Response::ResponseTxn(answer)) => json!({"response_txn": txn(answer)}),
                None => json!({}),
            };
            json!({"Response": response})
        })
        .collect();
    Object::default()
        .with("header", header(answer.header.as_ref()))
        .with("succeeded", answer.succeeded)
        .with("responses", responses)
        .value()
}

fn event(event: &Event) -> Value {
    Object::default()
        .with("type", event.r#type)
        .with("kv", maybe_kv(event.kv.as_ref()))
        .with("prev_kv", maybe_kv(event.prev_kv.as_ref()))
        .value()
}

pub(super) fn watch(answer: &WatchResponse) -> Value {
    let events = if answer.events.is_empty() {
        Value::Null
    } else {
        answer.events.iter().map(event).collect()
    };
    json!({
        "Header": header(answer.header.as_ref()),
        "Events": events,
        "CompactRevision": answer.compact_revision,
        "Canceled": answer.canceled,
        "Created": answer.created,
        "CancelReason": answer.cancel_reason,
    })
}

pub(super) fn lease_grant(answer: &LeaseGrantResponse) -> Value {
    flat_header(answer.header.as_ref())
        .always("ID", answer.id)
        .always("TTL", answer.ttl)
        .always("Error", answer.error.as_str())
        .value()
}

pub(super) fn keep_alive(answer: &LeaseKeepAliveResponse) -> Value {
    flat_header(answer.header.as_ref()).always("ID", answer.id).always("TTL", answer.ttl).value()
}

pub(super) fn time_to_live(answer: &LeaseTimeToLiveResponse) -> Value {
    let keys = if answer.keys.is_empty() {
        Value::Null
    } else {
        answer.keys.iter().map(|key| base64(key)).collect()
    };
    flat_header(answer.header.as_ref())
        .always("id", answer.id)
        .always("ttl", answer.ttl)
        .always("granted-ttl", answer.granted_ttl)
        .always("keys", keys)
        .value()
}

pub(super) fn leases(answer: &LeaseLeasesResponse) -> Value {
    let leases: Vec<Value> = answer.leases.iter().map(|lease| json!({"id": lease.id})).collect();
    flat_header(answer.header.as_ref()).always("leases", leases).value()
}

/// Members with their header: all answers about membership but that to an addition.
pub(super) fn members(one: Option<&ResponseHeader>, list: &[Member], is_hex: bool) -> Value {
    let members: Vec<Value> = list.iter().map(|one| member(one, is_hex)).collect();
    if is_hex {
        return json!({"header": hex_header(one), "members": members});
    }
    Object::default().with("header", header(one)).with("members", members).value()
}

pub(super) fn member_add(answer: &MemberAddResponse, is_hex: bool) -> Value {
    let one = answer.header.as_ref();
    let added = answer.member.as_ref().map(|added| member(added, is_hex));
    let members: Vec<Value> = answer.members.iter().map(|one| member(one, is_hex)).collect();
    if is_hex {
        return json!({"header": hex_header(one), "member": added, "members": members});
    }
    Object::default()
        .with("header", header(one))
        .with("member", added)
        .with("members", members)
        .value()
}

/// A header whose ids are texts, which are there even when they are zero.
fn hex_header(one: Option<&ResponseHeader>) -> Option<Value> {
    one.map(|header| {
        Object::default()
            .always("cluster_id", format!("{:x}", header.cluster_id))
            .always("member_id", format!("{:x}", header.member_id))
            .with("revision", header.revision)
            .with("raft_term", header.raft_term)
            .value()
    })
}

fn member(member: &Member, is_hex: bool) -> Value {
    let id = if is_hex {
        Object::default().always("ID", format!("{:x}", member.id))
    } else {
        Object::default().with("ID", member.id)
    };
    id.with("name", member.name.as_str())
        .with("peerURLs", member.peer_urls.clone())
        .with("clientURLs", member.client_urls.clone())
        .with("isLearner", member.is_learner)
        .value()
}

pub(super) fn downgrade(answer: &DowngradeResponse) -> Value {
    Object::default()
        .with("header", header(answer.header.as_ref()))
        .with("version", answer.version.clone())
        .value()
}

pub(super) fn alarm(answer: &AlarmResponse) -> Value {
    let alarms: Vec<Value> = answer
        .alarms
        .iter()
        .map(|alarm| {
            Object::default().with("memberID", alarm.member_id).with("alarm", alarm.alarm).value()
        })
        .collect();
    Object::default().with("header", header(answer.header.as_ref())).with("alarms", alarms).value()
}

/// A list of one object per endpoint; Go writes an empty one as null.
fn list(items: Vec<Value>) -> Value {
    if items.is_empty() { Value::Null } else { Value::Array(items) }
}

pub(super) fn endpoint_health(health: &[Health]) -> Value {
    let items = health.iter().map(|one| {
        Object::default()
            .always("endpoint", one.endpoint.as_str())
            .always("health", one.is_healthy)
            .always("took", one.took.as_str())
            .with("error", one.error.as_str())
            .value()
    });
    list(items.collect())
}

pub(super) fn endpoint_status(statuses: &[(String, StatusResponse)]) -> Value {
    let items =
        statuses.iter().map(|(endpoint, one)| json!({"Endpoint": endpoint, "Status": status(one)}));
    list(items.collect())
}

fn status(status: &StatusResponse) -> Value {
    let downgrade = status.downgrade_info.as_ref().map(|info| {
        Object::default()
            .with("enabled", info.enabled)
            .with("targetVersion", info.target_version.as_str())
            .value()
    });
    Object::default()
        .with("header", header(status.header.as_ref()))
        .with("version", status.version.as_str())
        .with("dbSize", status.db_size)
        .with("leader", status.leader)
        .with("raftIndex", status.raft_index)
        .with("raftTerm", status.raft_term)
        .with("raftAppliedIndex", status.raft_applied_index)
        .with("errors", status.errors.clone())
        .with("dbSizeInUse", status.db_size_in_use)
        .with("isLearner", status.is_learner)
        .with("storageVersion", status.storage_version.as_str())
        .with("dbSizeQuota", status.db_size_quota)
        .with("downgradeInfo", downgrade)
        .value()
}

pub(super) fn endpoint_hash_kv(hashes: &[(String, HashKvResponse)]) -> Value {
    let items = hashes.iter().map(|(endpoint, one)| {
        let hash = Object::default()
            .with("header", header(one.header.as_ref()))
            .with("hash", one.hash)
            .with("compact_revision", one.compact_revision)
            .with("hash_revision", one.hash_revision)
            .value();
        json!({"Endpoint": endpoint, "HashKV": hash})
    });
    list(items.collect())
}
