//! Measures the machine without network and log: `cargo run --release -p quorate-machine --example measure [keys] [directory]`.
//!
//! With a directory the backend is a file in it, else it is in memory.
#![expect(clippy::print_stdout, reason = "it is a program for the terminal")]
#![expect(clippy::cast_precision_loss, reason = "figures are for reading")]
#![expect(clippy::disallowed_types, reason = "it measures time")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use machine::{BackendJob, Machine, Options, schema};
use prost::Message;
use proto::etcdserverpb as pb;
use storage::backend::Backend;
use storage::mem::MemDisk;
use storage::{Disk, OpenMode, OsDisk};

/// Entries between two commits.
const COMMIT_EVERY: u64 = 10_000;

fn entry(id: u64, key: u64) -> Bytes {
    let put = pb::PutRequest {
        key: format!("/registry/pods/default/pod-{key:014}").into(),
        value: vec![b'v'; 256].into(),
        ..Default::default()
    };
    let header = Some(pb::RequestHeader { id, ..Default::default() });
    pb::InternalRaftRequest { header, put: Some(put), ..Default::default() }.encode_to_vec().into()
}

fn run(machine: &mut Machine, job: Option<BackendJob>) -> Result<(), Box<dyn Error>> {
    if let Some(job) = job {
        machine.backend_done(job.run())?;
    }
    Ok(())
}

fn per(what: &str, total: Duration, count: u64) {
    println!(
        "{what}: {:.2} us each, {:.3} s for {count}",
        total.as_secs_f64() * 1e6 / count as f64,
        total.as_secs_f64()
    );
}

/// Applies `keys` puts and returns the next index.
fn load(machine: &mut Machine, first: u64, keys: u64) -> Result<u64, Box<dyn Error>> {
    let (mut applying, mut committing) = (Duration::ZERO, Duration::ZERO);
    let mut index = first;
    for chunk in 0..keys.div_ceil(COMMIT_EVERY) {
        let range = chunk * COMMIT_EVERY..keys.min((chunk + 1) * COMMIT_EVERY);
        let entries: Vec<_> = range.map(|key| entry(key + 1, key)).collect();
        let started = Instant::now();
        for entry in &entries {
            machine.apply(index, 1, entry)?;
            index += 1;
            if index.is_multiple_of(64) {
                machine.take_events();
            }
        }
        let job = machine.take_commit();
        applying += started.elapsed();
        let started = Instant::now();
        run(machine, job)?;
        committing += started.elapsed();
    }
    per("apply a put of 256 bytes", applying, keys);
    per("commit it", committing, keys);
    Ok(index)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let keys: u64 = args.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let (disk, path): (Arc<dyn Disk>, _) = match args.next() {
        Some(directory) => (Arc::new(OsDisk), Path::new(&directory).join("db")),
        None => (Arc::new(MemDisk::new()), Path::new("db").to_owned()),
    };
    let open = storage::backend::Options::default();
    let backend = Backend::open(Arc::clone(&disk), &path, schema::BUCKETS, open)?;
    let mut machine = Machine::recover(backend.clone(), Options::default())?;
    println!("new keys");
    let index = load(&mut machine, 1, keys)?;
    println!("the same keys again");
    load(&mut machine, index, keys)?;
    println!("{:?}\n{:?}", machine.reader().sizes(), machine.reader().stats());
    drop(machine);

    let started = Instant::now();
    let machine = Machine::recover(backend, Options::default())?;
    per("recover", started.elapsed(), 2 * keys);

    let reader = machine.reader();
    let request = pb::RangeRequest {
        key: "/".into(),
        range_end: "0".into(),
        limit: 10_000,
        ..Default::default()
    };
    for what in ["list 10,000 cold", "list 10,000 warm"] {
        let started = Instant::now();
        let (_, reply) = reader.range(&request)?;
        per(what, started.elapsed(), reply.kvs.len() as u64);
    }
    let started = Instant::now();
    let gets = 1_000_000.min(keys * 100);
    let mut resident = 0;
    for key in 0..gets {
        let key = format!("/registry/pods/default/pod-{:014}", key % keys.min(10_000));
        let request = pb::RangeRequest { key: key.into(), ..Default::default() };
        resident += u64::from(reader.range_resident(&request).is_some());
    }
    per(&format!("get resident ({resident} were)"), started.elapsed(), gets);
    let started = Instant::now();
    let (hash, _) = reader.hash_kv(0)?;
    println!("hash {} in {:.3} s", hash.hash, started.elapsed().as_secs_f64());
    let started = Instant::now();
    let mut image = reader.snapshot()?.image()?;
    let file = disk.open(&path.with_file_name("image.db"), OpenMode::Create)?;
    let (mut piece, mut offset) = (Vec::new(), 0);
    while image.next_piece(&mut piece)? {
        file.write_all_at(offset, &piece)?;
        offset += piece.len() as u64;
    }
    println!("image of {offset} bytes in {:.3} s", started.elapsed().as_secs_f64());
    Ok(())
}
