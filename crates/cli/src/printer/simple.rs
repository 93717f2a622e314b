//! The format for people and shells.

use std::io::{self, Write};

use proto::etcdserverpb::downgrade_request::DowngradeAction;
use proto::etcdserverpb::response_op::Response;
use proto::etcdserverpb::{
    AlarmResponse, DeleteRangeResponse, DowngradeResponse, LeaseGrantResponse,
    LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseTimeToLiveResponse, MemberAddResponse,
    PutResponse, RangeResponse, ResponseHeader, TxnResponse, WatchResponse,
};
use proto::mvccpb::KeyValue;

use super::{Health, Output, Printer};
use crate::go::quote;

fn kv(printer: Printer, out: &mut dyn Write, kv: &KeyValue) -> io::Result<()> {
    if !printer.values_only {
        bytes(printer, out, &kv.key)?;
    }
    bytes(printer, out, &kv.value)
}

fn bytes(printer: Printer, out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    if printer.is_hex {
        for byte in bytes {
            write!(out, "\\x{byte:02x}")?;
        }
    } else {
        out.write_all(bytes)?;
    }
    out.write_all(b"\n")
}

pub(super) fn range(
    printer: Printer,
    out: &mut dyn Write,
    answer: &RangeResponse,
) -> io::Result<()> {
    answer.kvs.iter().try_for_each(|one| kv(printer, out, one))
}

pub(super) fn put(printer: Printer, out: &mut dyn Write, answer: &PutResponse) -> io::Result<()> {
    writeln!(out, "OK")?;
    answer.prev_kv.iter().try_for_each(|one| kv(printer, out, one))
}

pub(super) fn delete_range(
    printer: Printer,
    out: &mut dyn Write,
    answer: &DeleteRangeResponse,
) -> io::Result<()> {
    writeln!(out, "{}", answer.deleted)?;
    answer.prev_kvs.iter().try_for_each(|one| kv(printer, out, one))
}

pub(super) fn txn(printer: Printer, out: &mut dyn Write, answer: &TxnResponse) -> io::Result<()> {
    writeln!(out, "{}", if answer.succeeded { "SUCCESS" } else { "FAILURE" })?;
    for answer in &answer.responses {
        writeln!(out)?;
        match &answer.response {
            Some(Response::ResponseRange(answer)) => range(printer, out, answer)?,
            Some(Response::ResponsePut(answer)) => put(printer, out, answer)?,
            Some(Response::ResponseDeleteRange(answer)) => delete_range(printer, out, answer)?,
            Some(Response::ResponseTxn(answer)) => {
                writeln!(out, "unexpected response {answer:?}")?;
            }
            None => writeln!(out, "unexpected response")?,
        }
    }
    Ok(())
}

pub(super) fn watch(
    printer: Printer,
    out: &mut dyn Write,
    answer: &WatchResponse,
) -> io::Result<()> {
    for event in &answer.events {
        writeln!(out, "{}", event.r#type().as_str_name())?;
        event.prev_kv.iter().chain(&event.kv).try_for_each(|one| kv(printer, out, one))?;
    }
    Ok(())
}

pub(super) fn lease_grant(out: &mut dyn Write, answer: &LeaseGrantResponse) -> io::Result<()> {
    writeln!(out, "lease {:016x} granted with TTL({}s)", answer.id, answer.ttl)
}

pub(super) fn lease_revoke(out: &mut dyn Write, id: i64) -> io::Result<()> {
    writeln!(out, "lease {id:016x} revoked")
}

pub(super) fn keep_alive(out: &mut dyn Write, answer: &LeaseKeepAliveResponse) -> io::Result<()> {
    writeln!(out, "lease {:016x} keepalived with TTL({})", answer.id, answer.ttl)
}

pub(super) fn time_to_live(
    out: &mut dyn Write,
    answer: &LeaseTimeToLiveResponse,
    keys: bool,
) -> io::Result<()> {
    let LeaseTimeToLiveResponse { id, ttl, granted_ttl, .. } = answer;
    if *granted_ttl == 0 && *ttl == -1 {
        return writeln!(out, "lease {id:016x} already expired");
    }
    write!(out, "lease {id:016x} granted with TTL({granted_ttl}s), remaining({ttl}s)")?;
    if keys {
        out.write_all(b", attached keys([")?;
        out.write_all(&answer.keys.join(&b' '))?;
        out.write_all(b"])")?;
    }
    writeln!(out)
}

pub(super) fn leases(out: &mut dyn Write, answer: &LeaseLeasesResponse) -> io::Result<()> {
    writeln!(out, "found {} leases", answer.leases.len())?;
    answer.leases.iter().try_for_each(|lease| writeln!(out, "{:016x}", lease.id))
}

/// The lines behind the first are the environment of the member's process.
pub(super) fn member_add(
    out: &mut dyn Write,
    answer: &MemberAddResponse,
    name: &str,
    peer_urls: &str,
) -> io::Result<()> {
    let added = answer.member.as_ref();
    let id = added.map_or(0, |member| member.id);
    let role = if added.is_some_and(|member| member.is_learner) { "as learner " } else { "" };
    let cluster = super::header(answer.header.as_ref()).cluster_id;
    let mut members = Vec::new();
    for member in &answer.members {
        // The cluster does not know the new member's name before it has started.
        let name = if member.id == id { name } else { &member.name };
        members.extend(member.peer_urls.iter().map(|url| format!("{name}={url}")));
    }
    writeln!(out, "Member {id:16x} added {role}to cluster {cluster:16x}\n")?;
    writeln!(out, "ETCD_NAME={}", quote(name.as_bytes()))?;
    writeln!(out, "ETCD_INITIAL_CLUSTER={}", quote(members.join(",").as_bytes()))?;
    writeln!(out, "ETCD_INITIAL_ADVERTISE_PEER_URLS={}", quote(peer_urls.as_bytes()))?;
    writeln!(out, "ETCD_INITIAL_CLUSTER_STATE=\"existing\"")
}

/// Tells what was `done` to a member: `removed from`, `updated in`.
pub(super) fn member_change(
    out: &mut dyn Write,
    id: u64,
    done: &str,
    header: Option<&ResponseHeader>,
) -> io::Result<()> {
    let cluster = super::header(header).cluster_id;
    writeln!(out, "Member {id:16x} {done} cluster {cluster:16x}")
}

pub(super) fn move_leader(out: &mut dyn Write, leader: u64, target: u64) -> io::Result<()> {
    writeln!(out, "Leadership transferred from {leader:x} to {target:x}")
}

pub(super) fn downgrade(
    out: &mut dyn Write,
    action: DowngradeAction,
    answer: &DowngradeResponse,
) -> io::Result<()> {
    let action = action.as_str_name().to_ascii_lowercase();
    writeln!(out, "Downgrade {action} success, cluster version {}", answer.version)
}

pub(super) fn alarm(out: &mut dyn Write, answer: &AlarmResponse) -> io::Result<()> {
    for alarm in &answer.alarms {
        let mut parts = Vec::new();
        if alarm.member_id != 0 {
            parts.push(format!("memberID:{}", alarm.member_id));
        }
        if alarm.alarm != 0 {
            parts.push(format!("alarm:{}", alarm.alarm().as_str_name()));
        }
        writeln!(out, "{}", parts.join(" "))?;
    }
    Ok(())
}

pub(super) fn endpoint_health(to: &mut Output<'_>, list: &[Health]) -> io::Result<()> {
    for Health { endpoint, took, error, .. } in list {
        if error.is_empty() {
            writeln!(
                to.out,
                "{endpoint} is healthy: successfully committed proposal: took = {took}"
            )?;
        } else {
            writeln!(to.err, "{endpoint} is unhealthy: failed to commit proposal: {error}")?;
        }
    }
    Ok(())
}

/// The cells of a table, separated by commas.
pub(super) fn rows(out: &mut dyn Write, rows: &[Vec<String>]) -> io::Result<()> {
    rows.iter().try_for_each(|row| writeln!(out, "{}", row.join(", ")))
}
