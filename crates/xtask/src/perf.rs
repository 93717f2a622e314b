//! `perf`: the rows of `docs/performance.md`, etcd and Quorate in turn, medians of several rounds.
//!
//! The load comes from the `lab` tool, which prints one line of JSON per run with the server's own CPU time and memory.
//! Figures of a machine that is busy with other things are worth little: `other` tells how many CPUs something else took.

pub(crate) mod beside;
pub(crate) mod cluster;
mod server;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use self::server::Server;
use crate::workspace;

const USAGE: &str =
    "usage: cargo xtask perf --lab PATH --reference PATH --subject PATH [--rounds N] [--rows TEXT]";
const KEYS_LOADED: &str = "1000000";

/// A row: what is measured, by which figure of the tool, with which arguments.
struct Row {
    name: &'static str,
    unit: &'static str,
    figure: &'static str,
    arguments: &'static [&'static str],
}

const fn cpu(name: &'static str, arguments: &'static [&'static str]) -> Row {
    Row { name, unit: "µs CPU", figure: "server_cpu_us_per_op", arguments }
}

/// Rows that share one freshly started server each.
const GROUPS: &[&[Row]] = &[
    &[
        cpu(
            "put, 512 in flight over 32 connections",
            &["put", "--clients", "512", "--connections", "32", "--total", "100000"],
        ),
        cpu(
            "linearizable get, 256 in flight over 32 connections",
            &["range", "--clients", "256", "--connections", "32", "--total", "200000"],
        ),
        cpu(
            "serializable get, 256 in flight over 32 connections",
            &[
                "range",
                "--serializable",
                "--no-fill",
                "--clients",
                "256",
                "--connections",
                "32",
                "--total",
                "200000",
            ],
        ),
        cpu(
            "get, 64 connections with one request each at a time",
            &["range", "--no-fill", "--clients", "64", "--connections", "64", "--total", "100000"],
        ),
        cpu(
            "txn compare-and-put, 64 in flight",
            &["txn-cas", "--clients", "64", "--connections", "8", "--total", "60000"],
        ),
    ],
    &[cpu(
        "list 10,000 × 1 KiB",
        &[
            "range-big",
            "--prefix",
            "/big/",
            "--key-space",
            "10000",
            "--val-size",
            "1024",
            "--connections",
            "4",
            "--clients",
            "1",
            "--total",
            "100",
        ],
    )],
    &[cpu(
        "event to one of 1,000 watchers",
        &[
            "watch-fanout",
            "--connections",
            "10",
            "--streams",
            "10",
            "--watchers",
            "1000",
            "--key-space",
            "1",
            "--total",
            "2000",
            "--max-s",
            "30",
        ],
    )],
    &[cpu(
        "keepalive",
        &[
            "lease",
            "--leases",
            "50000",
            "--keys-per-lease",
            "1",
            "--clients",
            "64",
            "--total",
            "200000",
        ],
    )],
    &[
        Row {
            name: "memory of an idle connection",
            unit: "bytes",
            figure: "rss_bytes_per_connection",
            arguments: IDLE,
        },
        Row {
            name: "memory of an idle watch",
            unit: "bytes",
            figure: "rss_bytes_per_watch",
            arguments: IDLE,
        },
    ],
    &[
        Row {
            name: "anonymous memory after loading 1 M keys × 256 B one by one",
            unit: "MiB",
            figure: "anon_mib_settled",
            arguments: LOAD,
        },
        Row {
            name: "start with 1 M keys, to the first linearizable get",
            unit: "s",
            figure: "wall_s",
            arguments: RESTART,
        },
    ],
];

const IDLE: &[&str] = &[
    "watch-idle",
    "--connections",
    "1000",
    "--streams",
    "100",
    "--watchers",
    "100000",
    "--settle",
    "6",
];
const LOAD: &[&str] = &[
    "load",
    "--batch",
    "1",
    "--key-space",
    KEYS_LOADED,
    "--val-size",
    "256",
    "--connections",
    "32",
    "--clients",
    "512",
    "--settle",
    "8",
    "--max-s",
    "300",
];
/// Not a run of the tool alone: the server is stopped and started first.
const RESTART: &[&str] = &["wait"];

/// What the command line says.
struct Plan {
    lab: PathBuf,
    reference: PathBuf,
    subject: PathBuf,
    rounds: usize,
    /// Measures only where this is in a row's name, and the rows that share its server.
    rows: String,
}

/// Measures all rows and prints them as a table.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let plan = Plan::parse(arguments)?;
    let mut figures: BTreeMap<(&str, bool), Vec<f64>> = BTreeMap::new();
    let mut busiest: f64 = 0.0;
    for round in 1..=plan.rounds {
        let chosen = |rows: &&&[Row]| rows.iter().any(|row| row.name.contains(plan.rows.as_str()));
        for rows in GROUPS.iter().filter(chosen) {
            for is_subject in [false, true] {
                let binary = if is_subject { &plan.subject } else { &plan.reference };
                for (name, figure, other) in measure(&plan.lab, binary, rows)? {
                    workspace::say(&format!(
                        "round {round}, {}: {name}: {figure:.2}, other {other:.2}",
                        binary.display()
                    ));
                    figures.entry((name, is_subject)).or_default().push(figure);
                    busiest = busiest.max(other);
                }
            }
        }
    }
    workspace::say(&table(&figures, plan.rounds, busiest));
    Ok(())
}

impl Plan {
    fn parse(arguments: &[&str]) -> Result<Self> {
        let mut given = parse_pairs(arguments).context(USAGE)?;
        let mut take = |flag: &str| given.remove(flag);
        let mut path = |flag: &str| take(flag).map(PathBuf::from).context(USAGE);
        let (lab, reference, subject) = (path("--lab")?, path("--reference")?, path("--subject")?);
        let rounds = take("--rounds").unwrap_or("5").parse().context(USAGE)?;
        let rows = take("--rows").unwrap_or_default().to_owned();
        ensure!(given.is_empty() && rounds > 0, "{USAGE}");
        Ok(Self { lab, reference, subject, rounds, rows })
    }
}

/// Reads `--flag value` pairs.
fn parse_pairs<'a>(arguments: &[&'a str]) -> Option<BTreeMap<&'a str, &'a str>> {
    arguments
        .chunks(2)
        .map(|pair| <[&str; 2]>::try_from(pair).ok().map(|[flag, value]| (flag, value)))
        .collect()
}

/// Measures `rows` on a server started for them: name, figure, CPUs that something else took.
fn measure(
    lab: &Path,
    binary: &Path,
    rows: &'static [Row],
) -> Result<Vec<(&'static str, f64, f64)>> {
    let directory = tempfile::tempdir()?;
    let mut server = Server::start(binary, directory.path())?;
    let mut measured = Vec::new();
    let mut last: Option<(&[&str], Value)> = None;
    for row in rows {
        let line = match &last {
            Some((arguments, line)) if *arguments == row.arguments => line.clone(),
            _ if row.arguments == RESTART => {
                drop(server);
                let started = Instant::now();
                server = Server::start(binary, directory.path())?;
                let mut line = server.run(lab, RESTART)?;
                line["wall_s"] = started.elapsed().as_secs_f64().into();
                line
            }
            _ => server.run(lab, row.arguments)?,
        };
        let errors = line["errors"].as_u64().unwrap_or(0);
        ensure!(errors == 0, "{}: {errors} errors, the last: {}", row.name, line["last_error"]);
        let figure = line[row.figure].as_f64();
        let figure = figure.with_context(|| format!("no {} in {line}", row.figure))?;
        measured.push((row.name, figure, line["other_cpus_busy"].as_f64().unwrap_or(0.0)));
        last = Some((row.arguments, line));
    }
    Ok(measured)
}

fn table(figures: &BTreeMap<(&str, bool), Vec<f64>>, rounds: usize, busiest: f64) -> String {
    let mut lines = vec![
        format!(
            "Medians of {rounds} rounds; other programs took at most {busiest:.2} CPUs during a run."
        ),
        String::new(),
        "| work | unit | etcd | Quorate | Quorate / etcd |".to_owned(),
        "|---|---|---|---|---|".to_owned(),
    ];
    for row in GROUPS.iter().copied().flatten() {
        let of = |is_subject| figures.get(&(row.name, is_subject)).map(|all| median(all));
        if let (Some(reference), Some(subject)) = (of(false), of(true)) {
            lines.push(format!(
                "| {} | {} | {reference:.2} | {subject:.2} | {:.2} |",
                row.name,
                row.unit,
                subject / reference
            ));
        }
    }
    lines.join("\n")
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let shown =
            [&[3.0, 1.0, 2.0][..], &[4.0, 1.0]].map(|figures| format!("{:.1}", median(figures)));
        assert_eq!(shown, ["2.0", "2.5"]);
    }

    #[test]
    fn a_table_has_a_row_for_what_was_measured_on_both() {
        let keepalive = GROUPS[3][0].name;
        let figures = BTreeMap::from([
            ((keepalive, false), vec![10.0]),
            ((keepalive, true), vec![2.0]),
            ((GROUPS[0][0].name, true), vec![1.0]),
        ]);
        let table = table(&figures, 1, 0.0);
        assert!(table.ends_with("| keepalive | µs CPU | 10.00 | 2.00 | 0.20 |"), "{table}");
        assert_eq!(table.lines().count(), 5);
    }
}
