//! Measures the backend: `cargo run --release -p quorate-storage --example measure_backend -- <directory>`.

#![expect(clippy::print_stdout, reason = "its output is the figures")]
#![expect(clippy::disallowed_types, reason = "it measures time")]

use std::error::Error;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use storage::backend::{Backend, Op, Options, TableId, WriteBatch};
use storage::{Disk, OsDisk};

const TABLES: &[&str] = &["key", "meta"];
const KEY: TableId = TableId(0);
const META: TableId = TableId(1);
const COMMITS: u64 = 100;
const RECORDS_PER_COMMIT: u64 = 10_000;
const RECORDS: u64 = COMMITS * RECORDS_PER_COMMIT;
const RECORD_BYTES: usize = 300;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| ".".into()));
    let path = dir.join("measured.redb");
    let options = Options::default();
    let backend = Backend::open(Arc::new(OsDisk), &path, TABLES, options)?;
    let mut times = Vec::new();
    for commit in 0..COMMITS {
        let batch = batch(commit);
        let start = Instant::now();
        backend.commit(&batch)?;
        times.push(start.elapsed());
    }
    let total: Duration = times.iter().sum();
    times.sort_unstable();
    println!("commit: {:.2} us per record", total.as_secs_f64() * 1e6 / as_f64(RECORDS));
    println!("commit: median {:?}, longest {:?}", times[times.len() / 2], times[times.len() - 1]);
    println!("size: {:?}", backend.size());
    reads(&backend)?;
    let start = Instant::now();
    backend.defragment()?;
    println!("defragment: {:?}, then {:?}", start.elapsed(), backend.size());
    drop(backend);
    for verify_on_open in [true, false] {
        let start = Instant::now();
        let options = Options { verify_on_open, ..options };
        let backend = Backend::open(Arc::new(OsDisk), &path, TABLES, options)?;
        println!("open with verify {verify_on_open}: {:?}", start.elapsed());
        scan(&backend)?;
    }
    OsDisk.remove_file(&path)?;
    Ok(())
}

fn revision(main: u64) -> [u8; 17] {
    let mut key = [0; 17];
    key[..8].copy_from_slice(&main.to_be_bytes());
    key[8] = b'_';
    key
}

fn batch(commit: u64) -> WriteBatch {
    let mut ops: Vec<_> = (0..RECORDS_PER_COMMIT)
        .map(|i| {
            let key = revision(commit * RECORDS_PER_COMMIT + i);
            let value = vec![u8::try_from(i % 256).unwrap_or(0); RECORD_BYTES];
            (KEY, Op::Put(Bytes::copy_from_slice(&key), value.into()))
        })
        .collect();
    let index = Bytes::copy_from_slice(&commit.to_be_bytes());
    ops.push((META, Op::Put(Bytes::from_static(b"consistent_index"), index)));
    WriteBatch::new(ops)
}

fn reads(backend: &Backend) -> Result<(), Box<dyn Error>> {
    const READS: u64 = 1_000_000;
    let start = Instant::now();
    for _ in 0..READS {
        std::hint::black_box(backend.reader()?);
    }
    println!("reader: {:.0} ns", start.elapsed().as_secs_f64() * 1e9 / as_f64(READS));
    for (what, span) in [("hot", 10_000), ("over all", RECORDS)] {
        let mut random = 1_u64;
        let start = Instant::now();
        for _ in 0..READS {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = revision((random >> 33) % span);
            backend.reader()?.get(KEY, &key)?.ok_or("a record is missing")?;
        }
        println!("get {what}: {:.0} ns", start.elapsed().as_secs_f64() * 1e9 / as_f64(READS));
    }
    scan(backend)
}

fn scan(backend: &Backend) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let mut bytes = 0;
    backend.reader()?.scan(KEY, .., |key, value| {
        bytes += key.len() + value.len();
        ControlFlow::Continue(())
    })?;
    println!("scan: {bytes} bytes in {:?}", start.elapsed());
    let start = Instant::now();
    let count = backend.reader()?.range(KEY, ..).count();
    println!("range: {count} pairs in {:?}", start.elapsed());
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "counts of a measurement")]
fn as_f64(count: u64) -> f64 {
    count as f64
}
