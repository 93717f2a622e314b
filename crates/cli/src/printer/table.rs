//! The format with boxes, and the cells that it shares with the simple one.

use std::io::{self, Write};

use proto::etcdserverpb::{HashKvResponse, MemberListResponse, StatusResponse};

use super::{Health, si_bytes};

/// Headings and rows of a table.
#[derive(Debug)]
pub(super) struct Table {
    headings: &'static [&'static str],
    pub(super) rows: Vec<Vec<String>>,
}

/// The corners and lines of one horizontal border.
struct Border {
    left: char,
    middle: char,
    right: char,
}

const TOP: Border = Border { left: '┌', middle: '┬', right: '┐' };
const BETWEEN: Border = Border { left: '├', middle: '┼', right: '┤' };
const BOTTOM: Border = Border { left: '└', middle: '┴', right: '┘' };

impl Table {
    /// Headings are centred, cells are to the right.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let widths: Vec<usize> = (0..self.headings.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or_default();
                widest.max(self.headings[column].len())
            })
            .collect();
        border(out, &widths, &TOP)?;
        for (width, heading) in widths.iter().zip(self.headings) {
            write!(out, "│ {heading:^width$} ")?;
        }
        writeln!(out, "│")?;
        if !self.rows.is_empty() {
            border(out, &widths, &BETWEEN)?;
        }
        for row in &self.rows {
            for (width, cell) in widths.iter().zip(row) {
                write!(out, "│ {cell:>width$} ")?;
            }
            writeln!(out, "│")?;
        }
        border(out, &widths, &BOTTOM)
    }
}

fn border(out: &mut dyn Write, widths: &[usize], border: &Border) -> io::Result<()> {
    let lines: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
    let middle = lines.join(&border.middle.to_string());
    writeln!(out, "{}{middle}{}", border.left, border.right)
}

pub(super) fn members(answer: &MemberListResponse) -> Table {
    let rows = answer.members.iter().map(|member| {
        vec![
            format!("{:x}", member.id),
            if member.name.is_empty() { "unstarted" } else { "started" }.to_owned(),
            member.name.clone(),
            member.peer_urls.join(","),
            member.client_urls.join(","),
            member.is_learner.to_string(),
        ]
    });
    Table {
        headings: &["ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"],
        rows: rows.collect(),
    }
}

pub(super) fn health(list: &[Health]) -> Table {
    let rows = list.iter().map(|one| {
        let is_healthy = one.is_healthy.to_string();
        vec![one.endpoint.clone(), is_healthy, one.took.clone(), one.error.clone()]
    });
    Table { headings: &["ENDPOINT", "HEALTH", "TOOK", "ERROR"], rows: rows.collect() }
}

pub(super) fn status(list: &[(String, StatusResponse)]) -> Table {
    let rows = list.iter().map(|(endpoint, status)| {
        let member = super::header(status.header.as_ref()).member_id;
        let downgrade = status.downgrade_info.clone().unwrap_or_default();
        let size = |size: i64| si_bytes(size.unsigned_abs());
        // A member that reports no size uses all of it.
        let in_use = status.db_size_in_use.saturating_mul(100).checked_div(status.db_size);
        vec![
            endpoint.clone(),
            format!("{member:x}"),
            status.version.clone(),
            status.storage_version.clone(),
            size(status.db_size),
            size(status.db_size_in_use),
            format!("{}%", 100 - in_use.unwrap_or(100)),
            size(status.db_size_quota),
            (status.leader == member).to_string(),
            status.is_learner.to_string(),
            status.raft_term.to_string(),
            status.raft_index.to_string(),
            status.raft_applied_index.to_string(),
            status.errors.join(", "),
            downgrade.target_version,
            downgrade.enabled.to_string(),
        ]
    });
    Table {
        headings: &[
            "ENDPOINT",
            "ID",
            "VERSION",
            "STORAGE VERSION",
            "DB SIZE",
            "IN USE",
            "PERCENTAGE NOT IN USE",
            "QUOTA",
            "IS LEADER",
            "IS LEARNER",
            "RAFT TERM",
            "RAFT INDEX",
            "RAFT APPLIED INDEX",
            "ERRORS",
            "DOWNGRADE TARGET VERSION",
            "DOWNGRADE ENABLED",
        ],
        rows: rows.collect(),
    }
}

pub(super) fn hash_kv(list: &[(String, HashKvResponse)]) -> Table {
    let rows = list.iter().map(|(endpoint, answer)| {
        vec![endpoint.clone(), answer.hash.to_string(), answer.hash_revision.to_string()]
    });
    Table { headings: &["ENDPOINT", "HASH", "HASH REVISION"], rows: rows.collect() }
}
