//! The format with a line for each field.

use std::io::{self, Write};

use proto::etcdserverpb::response_op::Response;
use proto::etcdserverpb::{
    AlarmResponse, DeleteRangeResponse, HashKvResponse, LeaseGrantResponse, LeaseKeepAliveResponse,
    LeaseLeasesResponse, LeaseTimeToLiveResponse, MemberListResponse, PutResponse, RangeResponse,
    ResponseHeader, StatusResponse, TxnResponse, WatchResponse,
};
use proto::mvccpb::KeyValue;

use super::{Health, Printer};
use crate::go::quote;

/// Writes `"name" : value`.
fn line(out: &mut dyn Write, name: &str, value: impl std::fmt::Display) -> io::Result<()> {
    writeln!(out, "\"{name}\" : {value}")
}

fn text(out: &mut dyn Write, name: &str, value: &str) -> io::Result<()> {
    line(out, name, quote(value.as_bytes()))
}

/// A member's or cluster's id.
fn id(printer: Printer, out: &mut dyn Write, name: &str, id: u64) -> io::Result<()> {
    if printer.is_hex { line(out, name, format!("{id:x}")) } else { line(out, name, id) }
}

/// A lease's id.
fn lease(printer: Printer, out: &mut dyn Write, name: &str, id: i64) -> io::Result<()> {
    if printer.is_hex { line(out, name, format!("{id:016x}")) } else { line(out, name, id) }
}

/// A response that has nothing but its header.
pub(super) fn header_only(
    printer: Printer,
    out: &mut dyn Write,
    header: Option<&ResponseHeader>,
) -> io::Result<()> {
    let header = super::header(header);
    id(printer, out, "ClusterID", header.cluster_id)?;
    id(printer, out, "MemberID", header.member_id)?;
    if header.revision > 0 {
        line(out, "Revision", header.revision)?;
    }
    line(out, "RaftTerm", header.raft_term)
}

fn kv(printer: Printer, out: &mut dyn Write, prefix: &str, kv: &KeyValue) -> io::Result<()> {
    let name = |name: &str| format!("{prefix}{name}");
    line(out, &name("Key"), quote(&kv.key))?;
    line(out, &name("CreateRevision"), kv.create_revision)?;
    line(out, &name("ModRevision"), kv.mod_revision)?;
    line(out, &name("Version"), kv.version)?;
    line(out, &name("Value"), quote(&kv.value))?;
    lease(printer, out, &name("Lease"), kv.lease)
}

pub(super) fn range(
    printer: Printer,
    out: &mut dyn Write,
    answer: &RangeResponse,
) -> io::Result<()> {
    header_only(printer, out, answer.header.as_ref())?;
    answer.kvs.iter().try_for_each(|one| kv(printer, out, "", one))?;
    line(out, "More", answer.more)?;
    line(out, "Count", answer.count)
}

pub(super) fn put(printer: Printer, out: &mut dyn Write, answer: &PutResponse) -> io::Result<()> {
    header_only(printer, out, answer.header.as_ref())?;
    answer.prev_kv.iter().try_for_each(|one| kv(printer, out, "Prev", one))
}

pub(super) fn delete_range(
    printer: Printer,
    out: &mut dyn Write,
    answer: &DeleteRangeResponse,
) -> io::Result<()> {
    header_only(printer, out, answer.header.as_ref())?;
    line(out, "Deleted", answer.deleted)?;
    answer.prev_kvs.iter().try_for_each(|one| kv(printer, out, "Prev", one))
}

pub(super) fn txn(printer: Printer, out: &mut dyn Write, answer: &TxnResponse) -> io::Result<()> {
    header_only(printer, out, answer.header.as_ref())?;
    line(out, "Succeeded", answer.succeeded)?;
    for answer in &answer.responses {
        match &answer.response {
            Some(Response::ResponseRange(answer)) => range(printer, out, answer)?,
            Some(Response::ResponsePut(answer)) => put(printer, out, answer)?,
            Some(Response::ResponseDeleteRange(answer)) => delete_range(printer, out, answer)?,
            other @ (Some(Response::ResponseTxn(_)) | None) => {
                text(out, "Unknown", &format!("{other:?}"))?;
            }
        }
    }
    Ok(())
}

pub(super) fn watch(
    printer: Printer,
    out: &mut dyn Write,
    answer: &WatchResponse,
) -> io::Result<()> {
    header_only(printer, out, answer.header.as_ref())?;
    for event in &answer.events {
        line(out, "Type", event.r#type().as_str_name())?;
        event.prev_kv.iter().try_for_each(|one| kv(printer, out, "Prev", one))?;
        event.kv.iter().try_for_each(|one| kv(printer, out, "", one))?;
    }
    Ok(())
}

pub(super) fn lease_grant(
    printer: Printer,
    out: &mut dyn Write,
    answer: &LeaseGrantResponse,
) -> io::Result<()> {
    header_only(printer, out, answer.header.as_ref())?;
    lease(printer, out, "ID", answer.id)?;
    line(out, "TTL", answer.ttl)
}

pub(super) fn keep_alive(
    printer: Printer,
    out: &mut dyn Write,
    answer: &LeaseKeepAliveResponse,
) -> io::Result<()> {
    header_only(printer, out, answer.header.as_ref())?;
    lease(printer, out, "ID", answer.id)?;
    line(out, "TTL", answer.ttl)
}

pub(super) fn time_to_live(
    printer: Printer,
    out: &mut dyn Write,
    answer: &LeaseTimeToLiveResponse,
) -> io::Result<()> {
    header_only(printer, out, answer.header.as_ref())?;
    lease(printer, out, "ID", answer.id)?;
    line(out, "TTL", answer.ttl)?;
    line(out, "GrantedTTL", answer.granted_ttl)?;
    answer.keys.iter().try_for_each(|key| line(out, "Key", quote(key)))
}

pub(super) fn leases(
    printer: Printer,
    out: &mut dyn Write,
    answer: &LeaseLeasesResponse,
) -> io::Result<()> {
    header_only(printer, out, answer.header.as_ref())?;
    answer.leases.iter().try_for_each(|one| lease(printer, out, "ID", one.id))
}

pub(super) fn member_list(
    printer: Printer,
    out: &mut dyn Write,
    answer: &MemberListResponse,
) -> io::Result<()> {
    header_only(printer, out, answer.header.as_ref())?;
    for member in &answer.members {
        id(printer, out, "ID", member.id)?;
        text(out, "Name", &member.name)?;
        member.peer_urls.iter().try_for_each(|url| text(out, "PeerURL", url))?;
        member.client_urls.iter().try_for_each(|url| text(out, "ClientURL", url))?;
        line(out, "IsLearner", member.is_learner)?;
        writeln!(out)?;
    }
    Ok(())
}

pub(super) fn alarm(
    printer: Printer,
    out: &mut dyn Write,
    answer: &AlarmResponse,
) -> io::Result<()> {
    header_only(printer, out, answer.header.as_ref())?;
    for alarm in &answer.alarms {
        id(printer, out, "MemberID", alarm.member_id)?;
        line(out, "AlarmType", alarm.alarm().as_str_name())?;
        writeln!(out)?;
    }
    Ok(())
}

pub(super) fn endpoint_health(out: &mut dyn Write, list: &[Health]) -> io::Result<()> {
    for Health { endpoint, is_healthy, took, error } in list {
        text(out, "Endpoint", endpoint)?;
        line(out, "Health", is_healthy)?;
        line(out, "Took", took)?;
        line(out, "Error", error)?;
        writeln!(out)?;
    }
    Ok(())
}

pub(super) fn endpoint_status(
    printer: Printer,
    out: &mut dyn Write,
    list: &[(String, StatusResponse)],
) -> io::Result<()> {
    for (endpoint, status) in list {
        let downgrade = status.downgrade_info.clone().unwrap_or_default();
        header_only(printer, out, status.header.as_ref())?;
        text(out, "Version", &status.version)?;
        text(out, "StorageVersion", &status.storage_version)?;
        line(out, "DBSize", status.db_size)?;
        line(out, "DBSizeInUse", status.db_size_in_use)?;
        line(out, "DBSizeQuota", status.db_size_quota)?;
        line(out, "Leader", status.leader)?;
        line(out, "IsLearner", status.is_learner)?;
        line(out, "RaftIndex", status.raft_index)?;
        line(out, "RaftTerm", status.raft_term)?;
        line(out, "RaftAppliedIndex", status.raft_applied_index)?;
        line(out, "Errors", format_args!("[{}]", status.errors.join(" ")))?;
        text(out, "Endpoint", endpoint)?;
        text(out, "DowngradeTargetVersion", &downgrade.target_version)?;
        line(out, "DowngradeEnabled", downgrade.enabled)?;
        writeln!(out)?;
    }
    Ok(())
}

pub(super) fn endpoint_hash_kv(
    printer: Printer,
    out: &mut dyn Write,
    list: &[(String, HashKvResponse)],
) -> io::Result<()> {
    for (endpoint, answer) in list {
        header_only(printer, out, answer.header.as_ref())?;
        text(out, "Endpoint", endpoint)?;
        line(out, "Hash", answer.hash)?;
        line(out, "HashRevision", answer.hash_revision)?;
        writeln!(out)?;
    }
    Ok(())
}
