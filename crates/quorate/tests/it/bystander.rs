//! Whether well-behaved clients are harmed while others misbehave, and how much memory the process takes meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::client::{Client, within};
use crate::harness::Server;

/// A put and a linearizable get together never take longer. Generous: tests share two cores with each other.
const ROUND_MAX: Duration = Duration::from_secs(5);
/// One connection per serving thread and some more.
const CONNECTIONS: u64 = 4;
/// Rounds of every connection that show something.
const ROUNDS_MIN: u64 = 10;

/// Runs `attack` while well-behaved clients put and get; they are answered in time, and resident memory does not grow by
/// more than `memory_max` bytes.
#[expect(clippy::print_stderr, reason = "figures for whoever asks for them")]
pub(crate) async fn unharmed<T>(
    server: &Server,
    memory_max: u64,
    attack: impl Future<Output = T>,
) -> T {
    let is_over = Arc::new(AtomicBool::new(false));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..CONNECTIONS {
        let client = Client::connect(server).await;
        tasks.spawn(rounds(client, number, Arc::clone(&is_over)));
    }
    let before = server.memory();
    let started = Instant::now();
    let result = attack.await;
    let took = started.elapsed();
    is_over.store(true, Ordering::Relaxed);
    let worst = tasks.join_all().await.into_iter().max().unwrap_or_default();
    let grown = server.memory().highest.saturating_sub(before.resident);
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    eprintln!("{name}: {took:?}, worst round {worst:?}, {} MiB more", grown >> 20);
    assert!(grown < memory_max, "memory grew by {grown} bytes");
    result
}

async fn rounds(client: Client, number: u64, is_over: Arc<AtomicBool>) -> Duration {
    let key = format!("bystander/{number}");
    let mut worst = Duration::ZERO;
    let mut count = 0_u64;
    while count < ROUNDS_MIN || !is_over.load(Ordering::Relaxed) {
        let started = Instant::now();
        let value = count.to_string();
        within(ROUND_MAX, "a bystander's round", async {
            client.put(key.clone(), value.clone()).await.expect("acknowledged");
            let read = client.get(key.clone()).await.expect("readable");
            assert_eq!(read.as_deref(), Some(value.as_bytes()));
        })
        .await;
        worst = worst.max(started.elapsed());
        count += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    worst
}
