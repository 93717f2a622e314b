//! What the operating system says about this process.

#![expect(clippy::cast_precision_loss, reason = "times and sizes of a process are far below 2^53")]

use std::fmt::Write as _;

use serde_json::json;

use crate::service::Services;

/// Figures of the process, for metrics.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Figures {
    /// User and system time.
    pub cpu_seconds: f64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Address space.
    pub virtual_bytes: u64,
    /// How large it may be.
    pub max_virtual_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// How many there may be.
    pub max_fds: u64,
    /// When the process started, in seconds since 1970.
    pub start_seconds: f64,
    /// Bytes received over the network, of all that shares it.
    pub received_bytes: u64,
    /// Bytes sent likewise.
    pub sent_bytes: u64,
}

/// Clock ticks per second in `/proc`; fixed on Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// Bytes of a page as `/proc` counts them.
const PAGE_BYTES: u64 = 4096;

/// Reads the figures; those that the system does not give stay 0.
pub fn figures() -> Figures {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in parentheses may hold anything; what follows is numbers.
    let fields: Vec<u64> = stat
        .rsplit_once(") ")
        .map(|(_, rest)| rest.split(' ').map(|field| field.parse().unwrap_or(0)).collect())
        .unwrap_or_default();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
    let limit = |resource| rustix::process::getrlimit(resource).current.unwrap_or(u64::MAX);
    let (received_bytes, sent_bytes) = network();
    Figures {
        cpu_seconds: (field(14) + field(15)) as f64 / TICKS_PER_SECOND,
        resident_bytes: field(24) * PAGE_BYTES,
        virtual_bytes: field(23),
        open_fds: std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
        max_fds: limit(rustix::process::Resource::Nofile),
        max_virtual_bytes: limit(rustix::process::Resource::As),
        received_bytes,
        sent_bytes,
        start_seconds: boot_seconds() + field(22) as f64 / TICKS_PER_SECOND,
    }
}

/// Bytes of all IP packets in the process's network namespace: received, sent.
fn network() -> (u64, u64) {
    let netstat = std::fs::read_to_string("/proc/self/net/netstat").unwrap_or_default();
    ip_octets(&netstat).unwrap_or_default()
}

/// Finds the figures in a table of two lines per protocol: names, then numbers.
fn ip_octets(netstat: &str) -> Option<(u64, u64)> {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("IpExt: "));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let number = |wanted| {
        let mut columns = names.split(' ').zip(numbers.split(' '));
        columns.find(|(name, _)| *name == wanted)?.1.parse().ok()
    };
    Some((number("InOctets")?, number("OutOctets")?))
}

fn boot_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = stat.lines().find_map(|line| line.strip_prefix("btime "));
    boot.and_then(|seconds| seconds.parse().ok()).unwrap_or(0.0)
}

/// Answers `/debug/vars`.
pub fn vars(services: &Services) -> String {
    let figures = figures();
    let gate = services.handle().gate();
    let variables = json!({
        "cmdline": std::env::args().collect::<Vec<_>>(),
        "file_descriptor_limit": figures.max_fds,
        "memstats": { "Sys": figures.resident_bytes },
        "raft.status": {
            "id": hex(gate.member()),
            "term": gate.term(),
            "lead": hex(gate.leader()),
            "commit": gate.commit_index(),
            "applied": gate.applied_index(),
        },
    });
    format!("{variables:#}\n")
}

fn hex(id: u64) -> String {
    let mut text = String::new();
    write!(text, "{id:x}").expect("a string takes all");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_has_figures() {
        let figures = figures();
        assert!(figures.resident_bytes > 0 && figures.virtual_bytes >= figures.resident_bytes);
        assert!(figures.open_fds > 0 && figures.max_fds >= figures.open_fds);
        assert!(figures.start_seconds > 1e9);
        assert!(figures.max_virtual_bytes >= figures.virtual_bytes);
    }

    #[test]
    fn bytes_of_the_network_are_found_by_name() {
        let netstat = "TcpExt: A InOctets\nTcpExt: 1 2\n\
                       IpExt: InNoRoutes InOctets OutOctets\nIpExt: 0 12 34\n";
        assert_eq!(ip_octets(netstat), Some((12, 34)));
        assert_eq!(ip_octets("TcpExt: A\nTcpExt: 1\n"), None);
    }
}
