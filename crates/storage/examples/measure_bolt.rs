//! Writes a database image as a snapshot file and measures it:
//! `cargo run --release -p quorate-storage --example measure_bolt -- <file>`. etcd's own tool can judge the file:
//! `etcdutl snapshot status <file>`.

#![expect(clippy::print_stdout, reason = "its output is the figures")]
#![expect(clippy::disallowed_types, reason = "it measures time")]

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use bytes::Bytes;
use prost::Message;
use proto::mvccpb::KeyValue;
use sha2::{Digest, Sha256};
use storage::bolt::writer::PAGE_BYTES;
use storage::bolt::{Bolt, Planner, Writer};
use storage::{Disk, Fault, OpenMode, OsDisk};

const BUCKETS: [&str; 10] = [
    "alarm",
    "auth",
    "authRoles",
    "authUsers",
    "cluster",
    "key",
    "lease",
    "members",
    "members_removed",
    "meta",
];
const RECORDS: u64 = 1_000_000;
const VALUE_BYTES: usize = 256;

type Pair = Result<(Bytes, Bytes), Fault>;

fn main() -> Result<(), Box<dyn Error>> {
    let path = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "snapshot.db".into()));
    let start = Instant::now();
    let mut planner = Planner::new(PAGE_BYTES)?;
    for name in BUCKETS {
        planner.bucket(name.as_bytes())?;
        for pair in pairs(name.as_bytes()) {
            let (key, value) = pair?;
            planner.pair(key.len(), value.len())?;
        }
    }
    let layout = planner.finish();
    println!("plan: {:?} (making the pairs included)", start.elapsed());

    let start = Instant::now();
    let mut writer = Writer::new(layout.clone(), pairs);
    let (mut piece, mut bytes) = (Vec::new(), 0);
    while writer.next_piece(&mut piece)? {
        bytes += piece.len();
    }
    println!("write: {bytes} bytes in {:?} (making the pairs included)", start.elapsed());
    let start = Instant::now();
    println!("making {} pairs alone: {:?}", pairs(b"key").count(), start.elapsed());

    let file = OsDisk.open(&path, OpenMode::Create)?;
    let mut writer = Writer::new(layout, pairs);
    let (mut at, mut hash) = (0, Sha256::new());
    while writer.next_piece(&mut piece)? {
        file.write_all_at(at, &piece)?;
        hash.update(&piece);
        at += piece.len() as u64;
    }
    file.write_all_at(at, &hash.finalize())?;
    file.sync_data()?;

    let bolt = Bolt::open(&OsDisk, &path)?;
    let start = Instant::now();
    let summary = bolt.check()?;
    println!("check: {summary:?} in {:?}", start.elapsed());
    Ok(())
}

fn pairs(bucket: &[u8]) -> Box<dyn Iterator<Item = Pair>> {
    let fixed = |key: &'static [u8], value: &'static [u8]| {
        Ok((Bytes::from_static(key), Bytes::from_static(value)))
    };
    match bucket {
        b"key" => Box::new((2..RECORDS + 2).map(|revision| Ok(record(revision)))),
        b"meta" => Box::new(
            [
                fixed(b"consistent_index", &[0, 0, 0, 0, 0, 0x20, 0, 0]),
                fixed(b"storageVersion", b"3.7.0"),
                fixed(b"term", &[0, 0, 0, 0, 0, 0, 0, 2]),
            ]
            .into_iter(),
        ),
        b"cluster" => Box::new([fixed(b"clusterVersion", b"3.7.0")].into_iter()),
        _ => Box::new(std::iter::empty()),
    }
}

fn record(revision: u64) -> (Bytes, Bytes) {
    let mut key = [0; 17];
    key[..8].copy_from_slice(&revision.to_be_bytes());
    key[8] = b'_';
    let value = KeyValue {
        key: format!("/registry/pods/{revision:010}").into(),
        create_revision: revision.cast_signed(),
        mod_revision: revision.cast_signed(),
        version: 1,
        value: vec![b'v'; VALUE_BYTES].into(),
        lease: 0,
    };
    (Bytes::copy_from_slice(&key), value.encode_to_vec().into())
}
