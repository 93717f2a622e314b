//! `check perf`: a minute of writes, and whether the cluster kept up.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::{Client, prefix_end};
use proto::etcdserverpb::{CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::context::Context;
use super::signal::Interruption;
use super::{UTILITY, complain, print};
use crate::command::{Command, Flag, Invocation, Kind};
use crate::exit::{BAD_FEATURE, ERROR, Failure, INVALID_INPUT};
use crate::go::quote;

const AUTO_COMPACT: Flag =
    Flag::switch("auto-compact", "Compact storage with last revision after test is finished.");
const AUTO_DEFRAG: Flag = Flag::switch("auto-defrag", "Defragment storage after test is finished.");
const LOAD: Flag = Flag::with(
    "load",
    Kind::String,
    "s",
    "The performance check's workload model. Accepted workloads: s(small), m(medium), l(large), \
     xl(xLarge). Different workload models use different configurations in terms of number of \
     clients and expected throughput.",
);
const PREFIX: Flag = Flag::with(
    "prefix",
    Kind::String,
    "/etcdctl-check-perf/",
    "The prefix for writing the performance check's keys.",
);

/// The command.
pub(super) const CHECK: Command = Command {
    usage: "check <subcommand>",
    short: "commands for checking properties of the etcd cluster. Use `etcdctl check --help` to \
            see subcommands",
    long: Some("commands for checking properties of the etcd cluster"),
    group: UTILITY,
    children: &[Command {
        usage: "perf [options]",
        short: "Check the performance of the etcd cluster",
        flags: &[AUTO_COMPACT, AUTO_DEFRAG, LOAD, PREFIX],
        run: Some(|invocation| Box::pin(run(invocation))),
        ..Command::NONE
    }],
    ..Command::NONE
};

/// How long writes are made.
const SECONDS: u64 = 60;
/// Bounds each step of cleaning up.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks at how many writes are due.
const TICK: Duration = Duration::from_millis(1);
const KEY_BYTES: usize = 256;
const VALUE_BYTES: usize = 1024;
/// What passes: the part of the wanted rate, the slowest write, the deviation.
const RATE_MIN: f64 = 0.9;
const SLOWEST_MAX: f64 = 0.5;
const DEVIATION_MAX: f64 = 0.1;

/// A model of load.
#[derive(Debug, Clone, Copy)]
struct Load {
    /// Writes per second.
    rate: u32,
    clients: usize,
}

impl Load {
    fn named(name: &str) -> Option<Self> {
        let (rate, clients) = match name {
            "s" | "small" => (150, 50),
            "m" | "medium" => (1000, 200),
            "l" | "large" => (8000, 500),
            "xl" | "xLarge" => (15000, 1000),
            _ => return None,
        };
        Some(Self { rate, clients })
    }
}

/// What the writes came to.
#[derive(Debug, Default)]
struct Report {
    seconds: Vec<f64>,
    errors: BTreeMap<String, usize>,
    total: Duration,
}

async fn run(invocation: Invocation) -> Result<(), Failure> {
    let values = &invocation.values;
    let name = values.text(&LOAD);
    let load = Load::named(name)
        .ok_or_else(|| Failure::new(BAD_FEATURE, format!("unknown load option {name}")))?;
    let context = Context::new(&invocation)?;
    let mut clients = Vec::with_capacity(load.clients);
    for _ in 0..load.clients {
        clients.push(context.client().await?);
    }
    let first = clients[0].clone();
    let prefix = Bytes::copy_from_slice(values.text(&PREFIX).as_bytes());
    refuse_used_prefix(&first, &prefix).await?;

    let mut interruption = Interruption::catch()?;
    let report = tokio::select! {
        report = write(load, clients, &prefix) => report,
        () = interruption.wait() => {
            clean_up(&first, &prefix, false).await?;
            return Err(Failure::silent(ERROR));
        }
    };
    clean_up(&first, &prefix, values.bool(&AUTO_COMPACT)).await?;
    if values.bool(&AUTO_DEFRAG) {
        for endpoint in first.endpoints() {
            let shown = quote(endpoint.as_bytes());
            print(&format!("Defragmenting {shown}\n"))?;
            first.at(endpoint).await?.with_timeout(CLEANUP_TIMEOUT).defragment().await?;
            print(&format!("Defragmented {shown}\n"))?;
        }
    }
    judge(load, &report)
}

async fn refuse_used_prefix(client: &Client, prefix: &Bytes) -> Result<(), Failure> {
    let request = RangeRequest {
        key: prefix.clone(),
        range_end: prefix_end(prefix),
        limit: 1,
        ..RangeRequest::default()
    };
    let found = client.with_timeout(Duration::from_secs(SECONDS)).range(request).await?;
    if found.kvs.is_empty() {
        return Ok(());
    }
    let (quoted, plain) = (quote(prefix), String::from_utf8_lossy(prefix));
    let text =
        format!("prefix {quoted} has keys. Delete with 'etcdctl del --prefix {plain}' first");
    Err(Failure::new(INVALID_INPUT, text))
}

/// Writes at the load's rate for a minute, and waits for the last answer.
async fn write(load: Load, clients: Vec<Client>, prefix: &Bytes) -> Report {
    let (keys, queue) = mpsc::channel::<Bytes>(load.clients);
    let queue = Arc::new(Mutex::new(queue));
    let mut workers = JoinSet::new();
    let start = Instant::now();
    for client in clients {
        let queue = Arc::clone(&queue);
        workers.spawn(async move {
            let value = Bytes::from(vec![0; VALUE_BYTES]);
            let mut answers = Vec::new();
            loop {
                let Some(key) = queue.lock().await.recv().await else { return answers };
                let request = PutRequest { key, value: value.clone(), ..PutRequest::default() };
                let begun = Instant::now();
                let outcome = client.put(request).await.map(drop);
                answers.push((begun.elapsed(), outcome.map_err(|error| error.to_string())));
            }
        });
    }
    pace(load, prefix, &keys).await;
    drop(keys);
    let mut report = Report::default();
    for (took, outcome) in workers.join_all().await.into_iter().flatten() {
        match outcome {
            Ok(()) => report.seconds.push(took.as_secs_f64()),
            Err(error) => *report.errors.entry(error).or_default() += 1,
        }
    }
    report.total = start.elapsed();
    report
}

/// Gives keys to the writers as they are due; those that could not be given in time are not made up.
async fn pace(load: Load, prefix: &Bytes, keys: &mpsc::Sender<Bytes>) {
    let start = Instant::now();
    let end = start + Duration::from_secs(SECONDS);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let random = RandomState::new();
    let (mut count, mut shown) = (0_u64, 0);
    let mut credit = 0.0;
    let mut last = start;
    loop {
        let now = ticks.tick().await;
        if now >= end {
            show_progress(SECONDS);
            return;
        }
        credit += (now - last).as_secs_f64() * f64::from(load.rate);
        last = now;
        while credit >= 1.0 {
            credit -= 1.0;
            count += 1;
            let mut key = prefix.to_vec();
            key.extend_from_slice(&random.hash_one(count).to_be_bytes());
            key.resize(prefix.len() + KEY_BYTES, 0);
            match keys.try_send(key.into()) {
                Ok(()) => {}
                Err(_full) => credit = 0.0,
            }
        }
        let second = (now - start).as_secs();
        if second > shown {
            shown = second;
            show_progress(second);
        }
    }
}

/// A bar on standard error.
fn show_progress(second: u64) {
    const WIDTH: u64 = 40;
    let done = usize::try_from(second * WIDTH / SECONDS).unwrap_or_default();
    let left = usize::try_from(WIDTH).unwrap_or_default() - done;
    let (done, left) = ("=".repeat(done), "_".repeat(left));
    let end = if second == SECONDS { "\n" } else { "" };
    let percent = second * 100 / SECONDS;
    let line = format!("\r {second} / {SECONDS} [{done}{left}] {percent}%{end}");
    // A bar that cannot be seen is no reason to stop.
    drop(complain(&line));
    drop(std::io::stderr().flush());
}

async fn clean_up(client: &Client, prefix: &Bytes, compact: bool) -> Result<(), Failure> {
    let request = DeleteRangeRequest {
        key: prefix.clone(),
        range_end: prefix_end(prefix),
        ..DeleteRangeRequest::default()
    };
    let deleted = match client.with_timeout(CLEANUP_TIMEOUT).delete_range(request).await {
        Ok(deleted) => deleted,
        Err(error) => {
            return print(&format!("FAIL: Cleanup failed during key deletion: ERROR({error})\n"));
        }
    };
    if compact {
        let revision = deleted.header.map_or(0, |header| header.revision);
        print(&format!("Compacting with revision {revision}\n"))?;
        let request = CompactionRequest { revision, physical: true };
        client.with_timeout(CLEANUP_TIMEOUT).compact(request).await?;
        print(&format!("Compacted with revision {revision}\n"))?;
    }
    Ok(())
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "counts and rates of one minute are far below 2^52"
)]
fn judge(load: Load, report: &Report) -> Result<(), Failure> {
    let mut passed = report.errors.is_empty();
    if !passed {
        print("FAIL: too many errors\n")?;
        for (error, count) in &report.errors {
            print(&format!("FAIL: ERROR({error}) -> {count}\n"))?;
        }
    }
    let count = report.seconds.len() as f64;
    let rate = count / report.total.as_secs_f64();
    let shown = rate as i64 + 1;
    if rate / f64::from(load.rate) <= RATE_MIN {
        print(&format!("FAIL: Throughput too low: {shown} writes/s\n"))?;
        passed = false;
    } else {
        print(&format!("PASS: Throughput is {shown} writes/s\n"))?;
    }
    let slowest = report.seconds.iter().copied().fold(0.0, f64::max);
    if slowest > SLOWEST_MAX {
        print(&format!("Slowest request took too long: {slowest:.6}s\n"))?;
        passed = false;
    } else {
        print(&format!("PASS: Slowest request took {slowest:.6}s\n"))?;
    }
    let mean = report.seconds.iter().sum::<f64>() / count;
    let squares: f64 = report.seconds.iter().map(|seconds| (seconds - mean).powi(2)).sum();
    let deviation = (squares / count).sqrt();
    if deviation > DEVIATION_MAX {
        print(&format!("Stddev too high: {deviation:.6}s\n"))?;
        passed = false;
    } else {
        print(&format!("PASS: Stddev is {deviation:.6}s\n"))?;
    }
    print(if passed { "PASS\n" } else { "FAIL\n" })?;
    if passed { Ok(()) } else { Err(Failure::silent(ERROR)) }
}
