//! The backend on a disk in memory: batches, views, damage, power cuts.

mod crash;
mod damage;

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::mem::MemDisk;

const TABLES: &[&str] = &["key", "meta"];
const KEY: TableId = TableId(0);
const META: TableId = TableId(1);

/// What the tables should hold.
type Model = BTreeMap<(TableId, Bytes), Bytes>;

fn path() -> &'static Path {
    Path::new("/db")
}

fn open(disk: impl Disk + 'static) -> Result<Backend, Fault> {
    Backend::open(Arc::new(disk), path(), TABLES, Options::default())
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Op {
    Op::Put(key.into(), value.into())
}

fn commit(backend: &Backend, ops: Vec<(TableId, Op)>) {
    backend.commit(&WriteBatch::new(ops)).unwrap();
}

fn apply(model: &mut Model, batch: &WriteBatch) {
    for (table, op) in batch.ops.clone() {
        match op {
            Op::Put(key, value) => model.insert((table, key), value),
            Op::Delete(key) => model.remove(&(table, key)),
        };
    }
}

/// Reads everything, both ways there are.
fn contents(backend: &Backend) -> Result<Model, Fault> {
    let reader = backend.reader()?;
    let mut model = Model::new();
    for table in [KEY, META] {
        for pair in reader.range(table, ..) {
            let (key, value) = pair?;
            model.insert((table, key), value);
        }
        reader.scan(table, .., |key, value| {
            let expected = model.get(&(table, Bytes::copy_from_slice(key)));
            assert_eq!(expected.map(|bytes| &bytes[..]), Some(value));
            ControlFlow::Continue(())
        })?;
    }
    Ok(model)
}

fn keys(range: Range) -> Vec<Bytes> {
    range.map(|pair| pair.unwrap().0).collect()
}

#[test]
fn batches_apply_in_order_and_survive_reopening() {
    let disk = MemDisk::new();
    let backend = open(disk.clone()).unwrap();
    commit(&backend, vec![(KEY, put("b", "1")), (KEY, put("d", "1")), (META, put("x", "1"))]);
    let delete = Op::Delete("b".into());
    commit(&backend, vec![(KEY, put("e", "2")), (KEY, put("a", "2")), (KEY, delete)]);
    commit(&backend, vec![(META, put("y", "1")), (META, Op::Delete("y".into()))]);
    let size = backend.size();
    drop(backend);
    let backend = open(disk).unwrap();
    assert_eq!(backend.size().in_use, size.in_use);
    let reader = backend.reader().unwrap();
    assert_eq!(keys(reader.range(KEY, ..)), ["a", "d", "e"]);
    assert_eq!(keys(reader.range(META, ..)), ["x"]);
    assert_eq!(reader.get(KEY, b"e").unwrap().unwrap(), "2");
    assert_eq!(reader.get(KEY, b"b").unwrap(), None);
}

#[test]
fn ranges_have_bounds_and_ends() {
    let backend = open(MemDisk::new()).unwrap();
    assert_eq!(backend.reader().unwrap().first(KEY).unwrap(), None);
    assert_eq!(backend.reader().unwrap().last(KEY).unwrap(), None);
    commit(&backend, ["a", "b", "c", "d", "e"].map(|key| (KEY, put(key, key))).to_vec());
    let reader = backend.reader().unwrap();
    let pair = |key: &'static str| Some((Bytes::from(key), Bytes::from(key)));
    assert_eq!(reader.first(KEY).unwrap(), pair("a"));
    assert_eq!(reader.last(KEY).unwrap(), pair("e"));
    assert_eq!(keys(reader.range(KEY, &b"b"[..]..&b"d"[..])), ["b", "c"]);
    let bounds = (Bound::Excluded(&b"b"[..]), Bound::Included(&b"d"[..]));
    assert_eq!(keys(reader.range(KEY, bounds)), ["c", "d"]);
    assert_eq!(keys(reader.range(KEY, (Bound::<&[u8]>::Unbounded, Bound::Unbounded))).len(), 5);
    assert!(keys(reader.range(KEY, &b"d"[..]..&b"b"[..])).is_empty());
    let mut seen = 0;
    let visit = |_: &[u8], _: &[u8]| {
        seen += 1;
        if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    reader.scan(KEY, .., visit).unwrap();
    assert_eq!(seen, 2);
}

#[test]
fn readers_see_one_moment_also_across_a_defragmentation() {
    let backend = open(MemDisk::new()).unwrap();
    commit(&backend, vec![(KEY, put("a", "1"))]);
    let before = backend.reader().unwrap();
    let mut range = before.range(KEY, ..);
    commit(&backend, vec![(KEY, put("a", "2"))]);
    backend.defragment().unwrap();
    commit(&backend, vec![(KEY, put("b", "3"))]);
    assert_eq!(before.get(KEY, b"a").unwrap().unwrap(), "1");
    assert_eq!(before.get(KEY, b"b").unwrap(), None);
    drop((backend, before));
    assert_eq!(range.next().unwrap().unwrap(), ("a".into(), "1".into()));
    assert!(range.next().is_none());
}

#[test]
fn defragmenting_gives_space_back() {
    let disk = MemDisk::new();
    let backend = open(disk.clone()).unwrap();
    let key = |i: u32| Bytes::copy_from_slice(&i.to_be_bytes());
    commit(&backend, (0..9000).map(|i| (KEY, put(key(i), vec![1; 1000]))).collect());
    let full = backend.size();
    assert!(full.in_use > 9_000_000 && full.physical > full.in_use, "{full:?}");
    commit(&backend, (10..9000).map(|i| (KEY, Op::Delete(key(i)))).collect());
    let emptied = backend.size();
    assert!(emptied.in_use < 20_000, "{emptied:?}");
    // Left behind by a crash.
    disk.insert(Path::new("/db.tmp"), b"half a file".to_vec());
    backend.defragment().unwrap();
    let after = backend.size();
    assert!(after.physical < 1 << 20, "{after:?}");
    assert_eq!(after.in_use, emptied.in_use);
    assert_eq!(disk.list(Path::new("/")).unwrap(), ["db"]);
    assert_eq!(disk.contents(path()).unwrap().len() as u64, after.physical);
    commit(&backend, vec![(KEY, put("x", "y"))]);
    drop(backend);
    assert_eq!(contents(&open(disk).unwrap()).unwrap().len(), 11);
}

#[test]
fn readers_on_other_threads_see_whole_commits_only() {
    const COMMITS: u64 = 60;
    let backend = open(MemDisk::new()).unwrap();
    let number = |i: u64| Bytes::copy_from_slice(&i.to_be_bytes());
    commit(&backend, vec![(META, put("last", number(0))), (KEY, put(number(0), "v"))]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut seen = number(0);
                while seen < number(COMMITS) {
                    let reader = backend.reader().unwrap();
                    let last = reader.get(META, b"last").unwrap().unwrap();
                    assert!(last >= seen, "time does not run backwards");
                    assert_eq!(reader.last(KEY).unwrap().unwrap().0, last);
                    seen = last;
                }
            });
        }
        for i in 1..=COMMITS {
            commit(&backend, vec![(META, put("last", number(i))), (KEY, put(number(i), "v"))]);
            if i % 20 == 0 {
                backend.defragment().unwrap();
            }
        }
    });
}

#[test]
fn tables_of_a_newer_list_are_added() {
    let disk = MemDisk::new();
    let open = |tables| Backend::open(Arc::new(disk.clone()), path(), tables, Options::default());
    commit(&open(&["key"]).unwrap(), vec![(KEY, put("a", "1"))]);
    let backend = open(TABLES).unwrap();
    commit(&backend, vec![(META, put("b", "2"))]);
    assert_eq!(contents(&backend).unwrap().len(), 2);
}

#[test]
fn a_file_of_a_newer_layout_is_refused() {
    let disk = MemDisk::new();
    let engine = Engine::open(&disk, path(), OpenMode::Create, TABLES, Options::default()).unwrap();
    let transaction = engine.begin(path()).unwrap();
    let mut stored = Vec::new();
    record::encode(b"format", &2_u32.to_le_bytes(), &mut stored);
    let own = redb::TableDefinition::<&[u8], &[u8]>::new("_backend");
    transaction.open_table(own).unwrap().insert(&b"format"[..], &stored[..]).unwrap();
    transaction.commit().unwrap();
    drop(engine);
    let fault = open(disk).unwrap_err();
    assert!(fault.to_string().contains("newer release"), "{fault}");
}

#[test]
fn commits_go_on_between_the_steps_of_a_defragmentation_and_are_in_the_new_file() {
    let disk = MemDisk::new();
    let options = Options { step_bytes: 20_000, ..Options::default() };
    let open = || Backend::open(Arc::new(disk.clone()), path(), TABLES, options).unwrap();
    let backend = open();
    let key = |i: u32| Bytes::copy_from_slice(&i.to_be_bytes());
    let mut model = Model::new();
    let mut change = |ops: Vec<(TableId, Op)>| {
        let batch = WriteBatch::new(ops);
        backend.commit(&batch).unwrap();
        apply(&mut model, &batch);
    };
    change((0..500).map(|i| (KEY, put(key(i), vec![1; 1000]))).collect());
    change((0..500).filter(|i| i % 3 > 0).map(|i| (KEY, Op::Delete(key(i)))).collect());
    let reader = backend.reader().unwrap();
    let mut steps = 0;
    while !backend.defragment_step().unwrap() {
        steps += 1;
        // Behind the copy and before it, in both tables; more than is recorded at once; and behind the end.
        change(vec![(KEY, put(key(0), key(steps))), (META, put("steps", key(steps)))]);
        change(vec![(KEY, Op::Delete(key(3 * steps))), (KEY, put(key(499 - steps), "late"))]);
        if steps % 7 == 0 {
            change((0..40).map(|i| (KEY, put(key(i), vec![2; 1000]))).collect());
        }
        change(vec![(KEY, put(key(500 + steps), vec![3; 100]))]);
    }
    assert!(steps > 10, "only {steps}");
    assert_eq!(reader.range(KEY, ..).count(), 167, "readers of before see what they saw");
    drop(reader);
    assert_eq!(contents(&backend).unwrap(), model);
    commit(&backend, vec![(META, put("after", "1"))]);
    drop(backend);
    model.insert((META, "after".into()), "1".into());
    assert_eq!(contents(&open()).unwrap(), model);
    assert_eq!(disk.list(Path::new("/")).unwrap(), ["db"]);
}

#[test]
fn what_is_recorded_meanwhile_is_bounded() {
    let options = Options { step_bytes: 10_000, ..Options::default() };
    let disk = Arc::new(MemDisk::new());
    let backend = Backend::open(disk, path(), TABLES, options).unwrap();
    let key = |i: u32| Bytes::copy_from_slice(&i.to_be_bytes());
    commit(&backend, (0..100).map(|i| (META, put(key(i), vec![1; 100]))).collect());
    while backend.shared.writer.lock().rewrite.as_ref().is_none_or(|it| it.recorded_bytes() == 0) {
        assert!(!backend.defragment_step().unwrap());
        commit(&backend, vec![(META, put(key(0), "behind the copy"))]);
    }
    for i in 0..200 {
        commit(&backend, vec![(META, put(key(i % 100), vec![2; 1000]))]);
        let recorded = backend.shared.writer.lock().rewrite.as_ref().unwrap().recorded_bytes();
        assert!(recorded <= 12_000, "{recorded} bytes");
    }
    backend.defragment().unwrap();
    let model = contents(&backend).unwrap();
    assert!(model.values().all(|value| *value == vec![2; 1000]));
}

fn any_batch() -> impl Strategy<Value = WriteBatch> {
    let table = prop::sample::select(vec![KEY, META]);
    let key = (0_u16..300).prop_map(|key| Bytes::copy_from_slice(&key.to_be_bytes()));
    let value = vec(any::<u8>(), 0..200).prop_map(Bytes::from);
    let op = prop_oneof![
        3 => (key.clone(), value).prop_map(|(key, value)| Op::Put(key, value)),
        1 => key.prop_map(Op::Delete),
    ];
    let ordered = (0_u16..300, 1_u16..60).prop_map(|(first, count)| {
        let pair = |i: u16| (KEY, put(i.to_be_bytes().to_vec(), vec![7; 30]));
        (first..first + count).map(pair).collect()
    });
    let thinned = (0_u16..300, 1_u16..60, 1_usize..4).prop_map(|(first, count, step)| {
        let delete = |i: u16| (KEY, Op::Delete(Bytes::copy_from_slice(&i.to_be_bytes())));
        (first..first + count).step_by(step).map(delete).collect()
    });
    let ops = prop_oneof![vec((table, op), 0..40), ordered, thinned];
    (ops, any::<bool>()).prop_map(|(ops, is_thinning)| WriteBatch { ops, is_thinning })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_batches_give_what_a_map_gives(
        batches in vec((any_batch(), any::<prop::sample::Index>()), 1..24),
        step_bytes in 1_u64..2_000,
    ) {
        let disk = MemDisk::new();
        let options = Options { step_bytes, ..Options::default() };
        let open = || Backend::open(Arc::new(disk.clone()), path(), TABLES, options);
        let mut backend = open().unwrap();
        let mut model = Model::new();
        for (batch, what) in batches {
            backend.commit(&batch).unwrap();
            apply(&mut model, &batch);
            match what.index(8) {
                0 => backend.defragment().unwrap(),
                1 => {
                    drop(backend);
                    backend = open().unwrap();
                }
                2..6 => {
                    backend.defragment_step().unwrap();
                }
                _ => {}
            }
            prop_assert_eq!(&contents(&backend).unwrap(), &model);
            let bytes = |((_, key), value): (&(_, Bytes), &Bytes)| key.len() + value.len() + 4 + 8;
            let footprint: usize = model.iter().map(bytes).sum();
            prop_assert_eq!(backend.size().in_use, HEADER_BYTES + footprint as u64);
        }
    }
}
