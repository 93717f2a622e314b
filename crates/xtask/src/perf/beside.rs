//! `perf-beside`: how long a get takes while heavy work goes on beside it.
//!
//! One server with a million keys, each written twice. A writer puts 500 times a second and two readers get random keys
//! one after the other, all the time. The heavy work comes one after another, each with a client of its own whose thread has
//! the least priority: it stands for a client on another machine, which would not take the readers' processors.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use prost::Message;
use proto::etcdserverpb::{
    CompactionRequest, DefragmentRequest, PutRequest, RangeRequest, RangeResponse, SnapshotRequest,
};
use tokio::task::LocalSet;

use super::server::Server;
use super::{median, parse_pairs};
use crate::grpc::Connection;
use crate::random::Random;
use crate::workspace;

const USAGE: &str =
    "usage: cargo xtask perf-beside --lab PATH --subject PATH [--reference PATH] [--rounds N]";
const RANGE: &str = "/etcdserverpb.KV/Range";
const PREFIX: &str = "/registry/lab/";
const KEYS: usize = 1_000_000;
const VALUE_BYTES: usize = 256;
const READERS: u64 = 2;
const PUTS_PER_SECOND: u32 = 500;
const LISTS: usize = 4;
const IDLE: Duration = Duration::from_secs(10);
/// Between two works: what the last one has left behind settles.
const PAUSE: Duration = Duration::from_secs(3);
const MEMORY_SAMPLES: Duration = Duration::from_millis(10);
/// Load with the tool, which writes each key once.
const LOAD: &[&str] =
    &["load", "--batch", "100", "--key-space", "1000000", "--val-size", "256", "--settle", "0"];

/// What goes on beside the gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Nothing,
    Compaction,
    Defragmentation,
    Snapshot,
    Lists,
}

const WORKS: [Work; 5] =
    [Work::Nothing, Work::Compaction, Work::Defragmentation, Work::Snapshot, Work::Lists];

impl Work {
    fn name(self) -> String {
        match self {
            Self::Nothing => "nothing".to_owned(),
            Self::Compaction => format!("compaction of {KEYS} revisions"),
            Self::Defragmentation => "defragmentation".to_owned(),
            Self::Snapshot => "snapshot".to_owned(),
            Self::Lists => format!("{LISTS} full lists of {KEYS} keys"),
        }
    }
}

/// What one work did to the gets.
struct Figures {
    work: Work,
    seconds: f64,
    gets: usize,
    p50_ms: f64,
    p99_ms: f64,
    longest_ms: f64,
    /// Anonymous memory above what it was before, at most.
    grown_mib: f64,
}

/// Latencies of gets since they were last taken.
type Gets = Arc<Mutex<Vec<Duration>>>;

/// Measures all works and prints them as a table.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let mut given = parse_pairs(arguments).context(USAGE)?;
    let mut path = |flag: &str| given.remove(flag).map(PathBuf::from);
    let lab = path("--lab").context(USAGE)?;
    let binaries: Vec<PathBuf> =
        path("--reference").into_iter().chain([path("--subject").context(USAGE)?]).collect();
    let rounds: usize = given.remove("--rounds").unwrap_or("1").parse().context(USAGE)?;
    ensure!(given.is_empty() && rounds > 0, "{USAGE}");
    let mut all: Vec<Vec<Figures>> = binaries.iter().map(|_| Vec::new()).collect();
    for round in 1..=rounds {
        for (binary, all) in binaries.iter().zip(&mut all) {
            workspace::say(&format!("round {round}, {}", binary.display()));
            all.extend(measure(&lab, binary)?);
        }
    }
    for (binary, all) in binaries.iter().zip(&all) {
        workspace::say(&format!("\n{}\n{}", binary.display(), table(all)));
    }
    Ok(())
}

fn measure(lab: &Path, binary: &Path) -> Result<Vec<Figures>> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(binary, directory.path())?;
    for _twice in 0..2 {
        server.run(lab, LOAD)?;
    }
    std::thread::sleep(PAUSE);
    let gets = Gets::default();
    let port = server.port()?;
    let load = std::thread::Builder::new().name("load".to_owned()).spawn({
        let gets = Arc::clone(&gets);
        move || on_this_thread(load(port, gets))
    })?;
    std::thread::sleep(PAUSE);
    let mut figures = Vec::new();
    for work in WORKS {
        take(&gets);
        let (seconds, grown_mib) = beside(work, &server)?;
        let latencies = take(&gets);
        ensure!(!load.is_finished(), "{:?}", load.join().map_err(|_panic| "the load panicked"));
        ensure!(!latencies.is_empty(), "no get came through");
        let at = |permille: usize| {
            latencies[(latencies.len() * permille / 1000).min(latencies.len() - 1)].as_secs_f64()
                * 1e3
        };
        let measured = Figures {
            work,
            seconds,
            gets: latencies.len(),
            p50_ms: at(500),
            p99_ms: at(990),
            longest_ms: at(1000),
            grown_mib,
        };
        workspace::say(&line(&measured));
        figures.push(measured);
        std::thread::sleep(PAUSE);
    }
    Ok(figures)
}

/// Takes the latencies so far, sorted.
fn take(gets: &Gets) -> Vec<Duration> {
    let mut taken =
        std::mem::take(&mut *gets.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    taken.sort_unstable();
    taken
}

/// Does the work; returns how long it took in seconds, and by how many MiB the server's memory grew at most.
fn beside(work: Work, server: &Server) -> Result<(f64, f64)> {
    let port = server.port()?;
    let before = server.anonymous_mib()?;
    let started = Instant::now();
    let heavy = std::thread::spawn(move || {
        workspace::least_priority()?;
        on_this_thread(carry_out(work, port))
    });
    let mut most = before;
    while !heavy.is_finished() {
        most = most.max(server.anonymous_mib()?);
        std::thread::sleep(MEMORY_SAMPLES);
    }
    match heavy.join() {
        Ok(result) => result.with_context(|| work.name())?,
        Err(_panic) => bail!("the client for {} panicked", work.name()),
    }
    Ok((started.elapsed().as_secs_f64(), most - before))
}

async fn carry_out(work: Work, port: u16) -> Result<()> {
    let connection = Connection::open(port).await?;
    match work {
        Work::Nothing => tokio::time::sleep(IDLE).await,
        Work::Compaction => {
            let probe = RangeRequest { key: "none".into(), ..RangeRequest::default() };
            let answer = connection.call(RANGE, &probe.encode_to_vec(), None).await?;
            let message = answer.messages.first().context("no answer")?;
            let header = RangeResponse::decode(message.clone())?.header.context("no header")?;
            let request = CompactionRequest { revision: header.revision, physical: true };
            drain(&connection, "/etcdserverpb.KV/Compact", &request).await?;
        }
        Work::Defragmentation => {
            let request = DefragmentRequest::default();
            drain(&connection, "/etcdserverpb.Maintenance/Defragment", &request).await?;
        }
        Work::Snapshot => {
            let request = SnapshotRequest::default();
            let bytes = drain(&connection, "/etcdserverpb.Maintenance/Snapshot", &request).await?;
            ensure!(bytes > KEYS * VALUE_BYTES, "a snapshot of {bytes} bytes");
        }
        Work::Lists => {
            let mut lists = tokio::task::JoinSet::new();
            for _ in 0..LISTS {
                lists.spawn_local(list(port));
            }
            while let Some(listed) = lists.join_next().await {
                listed??;
            }
        }
    }
    Ok(())
}

async fn list(port: u16) -> Result<()> {
    let connection = Connection::open(port).await?;
    let mut end = PREFIX.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    let request =
        RangeRequest { key: PREFIX.into(), range_end: end.into(), ..RangeRequest::default() };
    let bytes = drain(&connection, RANGE, &request).await?;
    ensure!(bytes > KEYS * VALUE_BYTES, "a list of {bytes} bytes");
    Ok(())
}

/// Makes a call and lets go of what comes back; returns how many bytes that were.
async fn drain(connection: &Connection, path: &str, request: &impl Message) -> Result<usize> {
    connection.drain(path, &request.encode_to_vec()).await
}

/// The gets and puts that go on all the time. Ends only with an error.
async fn load(port: u16, gets: Gets) -> Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn_local(write(port));
    for seed in 0..READERS {
        tasks.spawn_local(read(port, seed, Arc::clone(&gets)));
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

async fn write(port: u16) -> Result<()> {
    let connection = Connection::open(port).await?;
    let mut random = Random::new(99);
    let mut turns = tokio::time::interval(Duration::from_secs(1) / PUTS_PER_SECOND);
    loop {
        turns.tick().await;
        let put = PutRequest {
            key: key(&mut random),
            value: vec![b'x'; VALUE_BYTES].into(),
            ..PutRequest::default()
        };
        let answer = connection.call("/etcdserverpb.KV/Put", &put.encode_to_vec(), None).await?;
        ensure!(answer.code == "0", "a put failed: {answer:?}");
    }
}

async fn read(port: u16, seed: u64, gets: Gets) -> Result<()> {
    let connection = Connection::open(port).await?;
    let mut random = Random::new(seed);
    loop {
        let get = RangeRequest { key: key(&mut random), ..RangeRequest::default() };
        let get = get.encode_to_vec();
        let started = Instant::now();
        let answer = connection.call(RANGE, &get, None).await?;
        let took = started.elapsed();
        ensure!(answer.code == "0", "a get failed: {answer:?}");
        gets.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(took);
    }
}

fn key(random: &mut Random) -> bytes::Bytes {
    format!("{PREFIX}{:012}", random.below(KEYS)).into()
}

fn on_this_thread<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, work)
}

fn line(figures: &Figures) -> String {
    let Figures { work, seconds, gets, p50_ms, p99_ms, longest_ms, grown_mib } = figures;
    format!(
        "| {} | {seconds:.1} | {gets} | {p50_ms:.3} | {p99_ms:.3} | {longest_ms:.1} | {grown_mib:+.0} |",
        work.name()
    )
}

/// The medians, as a table, with the ratio to doing nothing.
fn table(all: &[Figures]) -> String {
    let of = |work: Work, figure: fn(&Figures) -> f64| {
        let figures: Vec<f64> = all.iter().filter(|one| one.work == work).map(figure).collect();
        median(&figures)
    };
    let idle = of(Work::Nothing, |one| one.p99_ms);
    let mut lines = vec![
        "| beside | s | p50 of a get, ms | p99, ms | p99 / p99 beside nothing | longest, ms | memory, MiB |"
            .to_owned(),
        "|---|---|---|---|---|---|---|".to_owned(),
    ];
    for work in WORKS {
        let p99 = of(work, |one| one.p99_ms);
        lines.push(format!(
            "| {} | {:.1} | {:.3} | {p99:.3} | {:.2} | {:.1} | {:+.0} |",
            work.name(),
            of(work, |one| one.seconds),
            of(work, |one| one.p50_ms),
            p99 / idle,
            of(work, |one| one.longest_ms),
            of(work, |one| one.grown_mib),
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_ratios_of_medians() {
        let figures = |work, p99_ms| Figures {
            work,
            seconds: 1.0,
            gets: 10,
            p50_ms: 0.1,
            p99_ms,
            longest_ms: 9.0,
            grown_mib: 3.0,
        };
        let mut all: Vec<Figures> = WORKS.map(|work| figures(work, 0.4)).into();
        all.extend([figures(Work::Nothing, 0.2), figures(Work::Nothing, 0.1)]);
        let table = table(&all);
        assert!(table.contains("| nothing | 1.0 | 0.100 | 0.200 | 1.00 |"), "{table}");
        assert!(table.contains("| snapshot | 1.0 | 0.100 | 0.400 | 2.00 |"), "{table}");
    }
}
