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
    /// Open file descriptors.
    pub open_fds: u64,
    /// How many there may be.
    pub max_fds: u64,
    /// When the process started, in seconds since 1970.
    pub start_seconds: f64,
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
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    Figures {
        cpu_seconds: (field(14) + field(15)) as f64 / TICKS_PER_SECOND,
        resident_bytes: field(24) * PAGE_BYTES,
        virtual_bytes: field(23),
        open_fds: std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
        max_fds: limits.current.unwrap_or(u64::MAX),
        start_seconds: boot_seconds() + field(22) as f64 / TICKS_PER_SECOND,
    }
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
    }
}
