//! The backend: a damaged file, and a whole file with any records.
//!
//! Compared: a file that opens can be read, written, and opened again.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use machine::{Machine, schema};
use proto::etcdserverpb::RangeRequest;
use storage::Fault;
use storage::backend::{Backend, Op, Options, TableId, WriteBatch};
use storage::mem::MemDisk;

use crate::input::Input;

const PATH: &str = "db";
const TABLES: &[&str] = &["key", "meta"];
const KEY: TableId = TableId(0);
const META: TableId = TableId(1);

fn open_in(disk: &MemDisk, tables: &'static [&'static str]) -> Result<Backend, Fault> {
    // Without the verification of the whole file the engine may panic on damaged pages: never without.
    let options = Options { cache_bytes: 1 << 20, ..Options::default() };
    Backend::open(Arc::new(disk.clone()), Path::new(PATH), tables, options)
}

/// A file as three commits leave it.
fn whole() -> &'static [u8] {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let disk = MemDisk::new();
        let backend = open_in(&disk, TABLES).expect("an empty file opens");
        for step in 0..3_u8 {
            let key = |i: u8| Bytes::copy_from_slice(&[step, i]);
            let mut ops: Vec<_> =
                (0..60).map(|i| (KEY, Op::Put(key(i), Bytes::from(vec![i; 90])))).collect();
            ops.push((KEY, Op::Delete(key(7))));
            ops.push((META, Op::Put(Bytes::from_static(b"step"), key(0))));
            backend.commit(&WriteBatch::new(ops)).expect("a disk in memory");
        }
        drop(backend);
        disk.contents(Path::new(PATH)).expect("it was written")
    })
}

/// Opens a whole file in which pieces are replaced, or any bytes as a file.
pub fn open(data: &[u8]) {
    let mut input = Input::new(data);
    let bytes = match input.byte() {
        0 => input.rest().to_vec(),
        mode => damaged(mode, &mut input),
    };
    let disk = MemDisk::new();
    disk.insert(Path::new(PATH), bytes);
    let Ok(backend) = open_in(&disk, TABLES) else { return };
    let Ok(reader) = backend.reader() else { return };
    for table in [KEY, META] {
        let pairs: Result<Vec<_>, _> = reader.range(table, ..).collect();
        let Ok(pairs) = pairs else { return };
        for (key, value) in &pairs {
            assert_eq!(reader.get(table, key).ok().flatten().as_ref(), Some(value));
        }
        if reader.first(table).is_err() || reader.last(table).is_err() {
            return;
        }
    }
    drop(reader);
    let put = Op::Put(Bytes::from_static(b"more"), Bytes::from_static(b"value"));
    let written = backend.commit(&WriteBatch::new(vec![(KEY, put)]));
    drop(backend);
    if written.is_ok() {
        let backend = open_in(&disk, TABLES).expect("a file that was written to opens again");
        let found = backend.reader().and_then(|reader| reader.get(KEY, b"more"));
        assert_eq!(found.ok().flatten().as_deref(), Some(&b"value"[..]));
    }
}

/// Replaces pieces of the whole file; odd modes cut its end first.
fn damaged(mode: u8, input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = whole().to_vec();
    if mode.is_multiple_of(2) {
        let kept = usize::from(input.short()) * 64;
        bytes.truncate(kept);
    }
    while !input.is_empty() && !bytes.is_empty() {
        let page = usize::from(input.byte());
        let at = usize::from(input.short()) % 4096;
        let piece = input.piece();
        let start = (page * 4096 + at) % bytes.len();
        let end = (start + piece.len()).min(bytes.len());
        bytes[start..end].copy_from_slice(&piece[..end - start]);
    }
    bytes
}

/// Recovers a machine from a whole file with any records, and reads from it in every way.
pub fn records(data: &[u8]) {
    let mut input = Input::new(data);
    let disk = MemDisk::new();
    let backend = open_in(&disk, schema::BUCKETS).expect("an empty file opens");
    let mut ops = Vec::new();
    while !input.is_empty() {
        let tables = u8::try_from(schema::BUCKETS.len()).expect("ten buckets");
        let table = TableId(input.byte() % tables);
        let key = Bytes::copy_from_slice(input.piece());
        ops.push((table, Op::Put(key, Bytes::copy_from_slice(input.piece()))));
    }
    backend.commit(&WriteBatch::new(ops)).expect("a disk in memory");
    let Ok(mut machine) = Machine::recover(backend, machine::Options::default()) else {
        return;
    };
    let reader = machine.reader();
    let all = RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    // Damaged values are faults, which is all that is asked.
    drop(reader.range(&all));
    for revision in [0, 1, reader.compact_revision(), reader.revision()] {
        drop(reader.range(&RangeRequest { revision, ..all.clone() }));
        drop(reader.hash_kv(revision));
    }
    drop(reader.hash());
    drop(reader.membership());
    if let Ok(snapshot) = reader.snapshot()
        && let Ok(mut image) = snapshot.image()
    {
        let mut piece = Vec::new();
        while image.next_piece(&mut piece).is_ok_and(|more| more) {}
    }
    for _ in 0..8 {
        let Some(job) = machine.take_compact_step().or_else(|| machine.take_commit()) else {
            break;
        };
        let done = job.run();
        if machine.backend_done(done).is_err() {
            break;
        }
    }
}
