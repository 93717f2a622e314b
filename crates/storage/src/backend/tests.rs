use std::ops::Bound;

use bytes::Bytes;

use super::*;
use crate::OpenMode;
use crate::mem::MemDisk;

const TABLES: &[&str] = &["key", "meta"];
const KEY: TableId = TableId(0);
const META: TableId = TableId(1);

fn open(disk: &MemDisk) -> Backend {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Backend::open(disk, Path::new("/db"), TABLES, Options::default()).expect("a working disk")
}

fn put(key: &str, value: &str) -> Op {
    Op::Put(Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()))
}

fn commit(backend: &Backend, ops: Vec<(TableId, Op)>) {
    backend.commit(&WriteBatch { ops }).expect("a working disk");
}

fn all(backend: &Backend, table: TableId) -> Vec<(Bytes, Bytes)> {
    let reader = backend.reader().expect("a working disk");
    let entries = reader.range(table, ..).collect::<Result<Vec<_>, _>>();
    entries.expect("nothing is damaged")
}

#[test]
fn batches_apply_in_order_and_survive_reopening() {
    let disk = MemDisk::new();
    let backend = open(&disk);
    commit(&backend, vec![(KEY, put("b", "1")), (KEY, put("d", "1")), (META, put("x", "1"))]);
    let delete = Op::Delete(Bytes::from_static(b"b"));
    commit(&backend, vec![(KEY, put("e", "2")), (KEY, put("a", "2")), (KEY, delete)]);
    drop(backend);
    let backend = open(&disk);
    let keys: Vec<_> = all(&backend, KEY).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["a", "d", "e"]);
    assert_eq!(all(&backend, META).len(), 1);
    let reader = backend.reader().expect("a working disk");
    assert_eq!(reader.last(KEY).expect("fine").map(|(key, _)| key), Some("e".into()));
    let middle = reader.range(KEY, (Bound::Excluded(&b"a"[..]), Bound::Included(&b"d"[..])));
    assert_eq!(middle.count(), 1);
}

#[test]
fn readers_see_one_moment_also_across_a_defragmentation() {
    let backend = open(&MemDisk::new());
    commit(&backend, vec![(KEY, put("a", "1"))]);
    let before = backend.reader().expect("a working disk");
    commit(&backend, vec![(KEY, put("a", "2"))]);
    backend.defragment().expect("a working disk");
    commit(&backend, vec![(KEY, put("b", "3"))]);
    assert_eq!(before.get(KEY, b"a").expect("fine"), Some("1".into()));
    assert_eq!(before.get(KEY, b"b").expect("fine"), None);
    assert_eq!(all(&backend, KEY), [("a".into(), "2".into()), ("b".into(), "3".into())]);
}

#[test]
fn defragmenting_gives_space_back() {
    let disk = MemDisk::new();
    let backend = open(&disk);
    let value = "v".repeat(1000);
    let names: Vec<String> = (0..5000).map(|number| format!("{number:06}")).collect();
    commit(&backend, names.iter().map(|name| (KEY, put(name, &value))).collect());
    let delete = |name: &String| (KEY, Op::Delete(Bytes::copy_from_slice(name.as_bytes())));
    commit(&backend, names[10..].iter().map(delete).collect());
    let before = backend.size();
    backend.defragment().expect("a working disk");
    let after = backend.size();
    assert!(after.physical < before.physical / 2, "{before:?} {after:?}");
    drop(backend);
    assert_eq!(all(&open(&disk), KEY).len(), 10);
    assert!(!disk.exists(Path::new("/db.tmp.defragment")).expect("in memory"));
}

#[test]
fn a_flipped_bit_is_found_when_the_record_is_read() {
    let disk = MemDisk::new();
    let backend = open(&disk);
    commit(&backend, vec![(KEY, put("key", "a value that can be found in the file"))]);
    drop(backend);
    let file = disk.open(Path::new("/db"), OpenMode::ReadWrite).expect("it exists");
    let mut bytes = vec![0; crate::length(file.len().expect("in memory"))];
    file.read_exact_at(0, &mut bytes).expect("in memory");
    let needle = b"a value that can be found";
    let mut damaged = 0;
    for offset in 0..bytes.len() - needle.len() {
        if bytes[offset..].starts_with(needle) {
            file.write_all_at(offset as u64, b"b").expect("in memory");
            damaged += 1;
        }
    }
    assert!(damaged > 0, "the value is stored as it is");
    drop(file);
    let backend = open(&disk);
    let fault = backend.reader().and_then(|reader| reader.get(KEY, b"key"));
    assert!(matches!(fault, Err(Fault::Damaged { .. })), "{fault:?}");
}
