//! Acknowledged means durable: a storm of writes, killed at random moments, again and again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proto::etcdserverpb::{CompactionRequest, DefragmentRequest, HashKvRequest, HashKvResponse};
use tempfile::TempDir;

use crate::client::{Client, in_time};
use crate::harness::{Server, Setup};
use crate::random::Random;
use crate::storm::Writer;

const WRITERS: u64 = 24;
const CONNECTIONS: usize = 4;
/// Rounds in the suite; `QUORATE_KILL_ROUNDS` asks for more.
const ROUNDS: u64 = 6;
/// Acknowledgements after which a round is killed, at most.
const ACKNOWLEDGEMENTS_MAX: u64 = 1500;
/// History that compactions leave.
const REVISIONS_KEPT: i64 = 200;

/// What all tasks of a storm share.
#[derive(Debug, Default)]
struct Storm {
    acknowledgements: AtomicU64,
    compacted: AtomicI64,
    is_over: AtomicBool,
}

/// Figures for the report.
#[derive(Debug, Default)]
struct Figures {
    acknowledgements: u64,
    in_flight_kills: u64,
    start_kills: u64,
    slowest_start: Duration,
    compacted: i64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_storm() {
    let rounds = std::env::var("QUORATE_KILL_ROUNDS")
        .map_or(ROUNDS, |text| text.parse().expect("QUORATE_KILL_ROUNDS is a number"));
    let seed = std::env::var("QUORATE_KILL_SEED")
        .map_or_else(|_| Random::fresh_seed(), |text| text.parse().expect("a number"));
    eprintln!("kill storm: {rounds} rounds, seed {seed} (QUORATE_KILL_SEED)");
    let directory = TempDir::new().expect("a temporary directory");
    let data_dir = directory.path().join("data");
    let mut random = Random::new(seed);
    let mut writers: Vec<Writer> = (0..WRITERS).map(|number| Writer::new(number, seed)).collect();
    let mut figures = Figures { compacted: -1, ..Figures::default() };
    for round in 0..rounds {
        let server = check_restarts(&data_dir, &mut writers, &mut random, &mut figures).await;
        let storm = Arc::new(Storm::default());
        storm.compacted.store(figures.compacted, Ordering::Relaxed);
        writers = run_storm(server, writers, &storm, &mut random).await;
        let acknowledged = storm.acknowledgements.load(Ordering::Relaxed);
        figures.acknowledgements += acknowledged;
        figures.compacted = storm.compacted.load(Ordering::Relaxed);
        figures.in_flight_kills += 1;
        if round % 20 == 19 {
            eprintln!("round {}: {figures:?}", round + 1);
        }
    }
    check_restarts(&data_dir, &mut writers, &mut random, &mut figures).await;
    eprintln!("kill storm: {figures:?}");
    assert!(figures.acknowledgements > rounds, "storms that acknowledge nothing show nothing");
}

/// Starts after a crash, perhaps killing that start first; checks everything; crashes without load and checks that the
/// replay gives the same hash.
async fn check_restarts(
    data_dir: &Path,
    writers: &mut [Writer],
    random: &mut Random,
    figures: &mut Figures,
) -> Server {
    let setup = Setup::new().data_dir(data_dir);
    if random.below(3) == 0 {
        let mut server = setup.spawn();
        tokio::time::sleep(Duration::from_micros(random.below(40_000))).await;
        server.kill();
        figures.start_kills += 1;
    }
    let started = Instant::now();
    let mut server = setup.start();
    figures.slowest_start = figures.slowest_start.max(started.elapsed());
    let client = Client::connect(&server).await;
    for writer in &mut *writers {
        let settled = in_time("settle", writer.settle(&client)).await;
        settled.unwrap_or_else(|what| panic!("{what}\n{}", server.log()));
    }
    let before = hash(&client).await;
    let newest = writers.iter().map(|writer| writer.revision).max().expect("some");
    let revision = before.header.expect("always there").revision;
    assert!(revision >= newest, "revision {revision} after {newest} was acknowledged");
    assert!(before.compact_revision >= figures.compacted, "compaction forgotten: {before:?}");
    server.kill();
    let server = setup.start();
    let after = hash(&Client::connect(&server).await).await;
    assert_eq!(
        (before.hash, before.compact_revision, before.hash_revision),
        (after.hash, after.compact_revision, after.hash_revision),
        "replay gives another store"
    );
    server
}

async fn hash(client: &Client) -> HashKvResponse {
    let request = HashKvRequest { revision: 0 };
    let response = client.maintenance().hash_kv(request).await;
    response.expect("a hash").into_inner()
}

/// Writes until `server` is killed at a moment that nobody knows.
async fn run_storm(
    mut server: Server,
    writers: Vec<Writer>,
    storm: &Arc<Storm>,
    random: &mut Random,
) -> Vec<Writer> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(Client::connect(&server).await);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for (number, mut writer) in writers.into_iter().enumerate() {
        let client = clients[number % CONNECTIONS].clone();
        let storm = Arc::clone(storm);
        tasks.spawn(async move {
            while writer.step(&client).await {
                storm.acknowledgements.fetch_add(1, Ordering::Relaxed);
            }
            writer
        });
    }
    let upkeep = tokio::spawn(upkeep(clients[0].clone(), Arc::clone(storm)));
    let enough = 1 + random.below(ACKNOWLEDGEMENTS_MAX);
    in_time("acknowledgements", async {
        while storm.acknowledgements.load(Ordering::Relaxed) < enough {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    })
    .await;
    tokio::time::sleep(Duration::from_micros(random.below(5000))).await;
    server.kill();
    storm.is_over.store(true, Ordering::Relaxed);
    in_time("upkeep", upkeep).await.expect("no panic");
    in_time("writers", tasks.join_all()).await
}

/// Compacts and defragments meanwhile.
async fn upkeep(client: Client, storm: Arc<Storm>) {
    while !storm.is_over.load(Ordering::Relaxed) {
        let Ok(revision) = client.put("upkeep", "").await else { return };
        if revision > storm.compacted.load(Ordering::Relaxed) + 2 * REVISIONS_KEPT {
            let revision = revision - REVISIONS_KEPT;
            let request = CompactionRequest { revision, physical: revision % 2 == 0 };
            if client.kv().compact(request).await.is_err() {
                return;
            }
            storm.compacted.store(revision, Ordering::Relaxed);
        }
        if revision % 10 == 0
            && client.maintenance().defragment(DefragmentRequest {}).await.is_err()
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
