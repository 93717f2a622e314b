//! `perf-cluster`: what three members take together, etcd and Quorate in turn.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::server::Server;
use super::{median, parse_pairs};
use crate::workspace;

const USAGE: &str =
    "usage: cargo xtask perf-cluster --lab PATH --reference PATH --subject PATH [--rounds N]";
const MEMBERS: u8 = 3;
/// After the start: the leader is elected, and what follows from that is done.
const SETTLE: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(20);
const PUTS: &[&str] =
    &["put", "--clients", "256", "--connections", "32", "--total", "100000", "--max-s", "60"];

/// What is measured, in this order: name and unit.
const ROWS: [(&str, &str); 7] = [
    ("CPU without clients, all members", "ms per s"),
    ("put, 256 in flight, CPU of all members", "µs"),
    ("puts per second", ""),
    ("p99 of a put", "ms"),
    ("resident memory of a member after 100,000 puts of 256 B", "MiB"),
    ("resident memory of a member after 1 M keys × 256 B more", "MiB"),
    ("of that, anonymous", "MiB"),
];

type Figures = [f64; ROWS.len()];

/// Measures all and prints a table.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let mut given = parse_pairs(arguments).context(USAGE)?;
    let mut path = |flag: &str| given.remove(flag).map(PathBuf::from).context(USAGE);
    let (lab, reference, subject) = (path("--lab")?, path("--reference")?, path("--subject")?);
    let rounds: usize = given.remove("--rounds").unwrap_or("3").parse().context(USAGE)?;
    ensure!(given.is_empty() && rounds > 0, "{USAGE}");
    let (mut of_reference, mut of_subject) = (Vec::new(), Vec::new());
    let mut busiest: f64 = 0.0;
    for round in 1..=rounds {
        for (binary, all) in [(&reference, &mut of_reference), (&subject, &mut of_subject)] {
            let (figures, other) = measure(&lab, binary)?;
            workspace::say(&format!(
                "round {round}, {}: {figures:.2?}, other {other:.2}",
                binary.display()
            ));
            all.push(figures);
            busiest = busiest.max(other);
        }
    }
    workspace::say(&format!(
        "Medians of {rounds} rounds; other programs took at most {busiest:.2} CPUs during a run."
    ));
    workspace::say(&table(&of_reference, &of_subject));
    Ok(())
}

/// Measures one cluster; the second part is what other programs took of the CPUs, at most.
fn measure(lab: &Path, binary: &Path) -> Result<(Figures, f64)> {
    let directory = tempfile::tempdir()?;
    let server = Server::start_members(binary, directory.path(), usize::from(MEMBERS))?;
    std::thread::sleep(SETTLE);
    let before = server.cpu_seconds()?;
    std::thread::sleep(IDLE);
    let idle = (server.cpu_seconds()? - before) * 1e3 / IDLE.as_secs_f64();
    let members = f64::from(MEMBERS);
    let puts = checked(server.run(lab, PUTS)?)?;
    let after_puts = server.resident_mib()? / members;
    let load = checked(server.run(lab, super::LOAD)?)?;
    let figure = |line: &Value, name: &str| {
        line[name].as_f64().with_context(|| format!("no {name} in {line}"))
    };
    let figures = [
        idle,
        figure(&puts, "server_cpu_us_per_op")?,
        figure(&puts, "ops_per_s")?,
        figure(&puts, "p99_ms")?,
        after_puts,
        server.resident_mib()? / members,
        server.anonymous_mib()? / members,
    ];
    let other = |line: &Value| line["other_cpus_busy"].as_f64().unwrap_or(0.0);
    Ok((figures, other(&puts).max(other(&load))))
}

fn checked(line: Value) -> Result<Value> {
    let errors = line["errors"].as_u64().unwrap_or(0);
    ensure!(errors == 0, "{errors} errors, the last: {}", line["last_error"]);
    Ok(line)
}

fn table(reference: &[Figures], subject: &[Figures]) -> String {
    let mut lines = vec![
        "| three members | unit | etcd | Quorate | Quorate / etcd |".to_owned(),
        "|---|---|---|---|---|".to_owned(),
    ];
    for (place, (name, unit)) in ROWS.iter().enumerate() {
        let of = |all: &[Figures]| {
            median(&all.iter().map(|figures| figures[place]).collect::<Vec<f64>>())
        };
        let (theirs, ours) = (of(reference), of(subject));
        lines.push(format!("| {name} | {unit} | {theirs:.1} | {ours:.1} | {:.2} |", ours / theirs));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_medians_and_ratios() {
        let figures = |factor: f64| [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0].map(|f| f * factor);
        let table = table(&[figures(1.0), figures(2.0), figures(9.0)], &[figures(0.5)]);
        assert_eq!(table.lines().count(), 2 + ROWS.len());
        assert!(table.contains("| p99 of a put | ms | 80.0 | 20.0 | 0.25 |"), "{table}");
    }
}
