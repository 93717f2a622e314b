//! Damaged files: a fault or the right answer, never a panic and never a wrong answer.

use super::*;

fn filled(disk: &MemDisk) -> (Backend, Model) {
    let backend = open(disk.clone()).unwrap();
    let mut model = Model::new();
    for step in 0_u32..6 {
        let key = |i: u32| Bytes::copy_from_slice(&(step * 1000 + i).to_be_bytes());
        let mut ops: Vec<_> = (0..300).map(|i| (KEY, put(key(i), vec![9; 120]))).collect();
        ops.extend((0..50).map(|i| (KEY, Op::Delete(key(i * 3)))));
        ops.push((META, put("step", key(0))));
        let batch = WriteBatch::new(ops);
        backend.commit(&batch).unwrap();
        apply(&mut model, &batch);
    }
    (backend, model)
}

fn assert_right_or_fault(result: Result<Model, Fault>, model: &Model, what: &str) -> bool {
    match result {
        Ok(found) => {
            assert!(found == *model, "{what}");
            false
        }
        Err(Fault::Damaged { .. } | Fault::Unusable { .. } | Fault::Io { .. }) => true,
        Err(other) => panic!("{what}: {other}"),
    }
}

#[test]
fn damage_done_while_the_member_was_down_is_found_by_opening() {
    let disk = MemDisk::new();
    let (backend, model) = filled(&disk);
    drop(backend);
    let whole = disk.contents(path()).unwrap();
    let mut found = 0;
    let mut random = 7_u64;
    for round in 0..600 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round);
        let at = crate::length((random >> 20) % whole.len() as u64);
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (random >> 60 & 7);
        let damaged = MemDisk::new();
        damaged.insert(path(), bytes);
        let result = open(damaged).and_then(|backend| contents(&backend));
        found += u32::from(assert_right_or_fault(result, &model, &format!("byte {at}")));
    }
    assert!(found > 100, "only {found} of 600 flips were found");
}

#[test]
fn damage_done_while_the_member_runs_is_found_by_reading() {
    let whole_file_was_read = |_: &Backend| {};
    assert_damage_is_found(whole_file_was_read);
}

#[test]
fn damage_done_after_a_defragmentation_is_found_by_reading() {
    assert_damage_is_found(|backend| backend.defragment().unwrap());
}

/// Damages one block after the other of a backend that has been made ready.
fn assert_damage_is_found(make_ready: impl Fn(&Backend)) {
    let mut found = 0;
    for block in 1..40 {
        let disk = MemDisk::new();
        let (backend, model) = filled(&disk);
        drop(backend);
        // Nothing is cached, so that every read goes to the disk.
        let options = Options { cache_bytes: 0, ..Options::default() };
        let backend = Backend::open(Arc::new(disk.clone()), path(), TABLES, options).unwrap();
        make_ready(&backend);
        let file = disk.open(path(), OpenMode::ReadWrite).unwrap();
        let offset = block * 4096 + 77;
        if offset >= file.len().unwrap() {
            break;
        }
        let mut byte = [0];
        file.read_exact_at(offset, &mut byte).unwrap();
        file.write_all_at(offset, &[byte[0] ^ 0x40]).unwrap();
        let result = contents(&backend);
        if let Err(Fault::Damaged { offset: at, .. }) = &result {
            assert_eq!(*at, block * 4096);
        }
        found += u32::from(assert_right_or_fault(result, &model, &format!("block {block}")));
    }
    assert!(found > 10, "only {found}");
}

#[test]
fn a_flipped_bit_in_a_value_is_found_without_verification_too() {
    let disk = MemDisk::new();
    let backend = open(disk.clone()).unwrap();
    let value = "a value that can be found in the file";
    commit(&backend, vec![(KEY, put("key", value))]);
    drop(backend);
    let mut bytes = disk.contents(path()).unwrap();
    let places: Vec<_> =
        (0..bytes.len()).filter(|at| bytes[*at..].starts_with(value.as_bytes())).collect();
    assert!(!places.is_empty(), "the value is stored as it is");
    for place in places {
        bytes[place] = b'A';
    }
    disk.insert(path(), bytes);
    let options = Options { verify_on_open: false, ..Options::default() };
    let backend = Backend::open(Arc::new(disk), path(), TABLES, options).unwrap();
    let reader = backend.reader().unwrap();
    let fault = reader.get(KEY, b"key").unwrap_err().to_string();
    assert!(fault.contains("checksum mismatch in table key, key 6b6579"), "{fault}");
    assert!(reader.range(KEY, ..).next().unwrap().is_err());
    assert!(reader.last(KEY).is_err());
    assert!(reader.scan(KEY, .., |_, _| ControlFlow::Continue(())).is_err());
    assert!(backend.defragment().is_err());
    // The file of before stays in use.
    commit(&backend, vec![(META, put("still", "here"))]);
}

#[test]
fn pages_that_would_lie_elsewhere_are_refused_before_the_engine_looks() {
    let disk = MemDisk::new();
    let (backend, _) = filled(&disk);
    drop(backend);
    let whole = disk.contents(path()).unwrap();
    for at in 12..24 {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            disk.insert(path(), bytes);
            let fault = open(disk.clone()).unwrap_err();
            assert!(matches!(fault, Fault::Damaged { offset: 12, .. }), "byte {at}: {fault}");
        }
    }
    disk.insert(path(), whole);
    open(disk).unwrap();
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    for bytes in [b"x".to_vec(), vec![0; 100_000], vec![0xff; 8192], b"redb".repeat(2000)] {
        let disk = MemDisk::new();
        disk.insert(path(), bytes.clone());
        let fault = open(disk.clone()).unwrap_err();
        assert!(
            matches!(fault, Fault::Damaged { .. } | Fault::Unusable { .. } | Fault::Io { .. }),
            "{fault}"
        );
        assert_eq!(disk.contents(path()).unwrap(), bytes, "it is left as it was");
    }
}

#[test]
fn a_database_of_etcd_is_told_by_its_name() {
    let image = include_bytes!("../../../testdata/bolt/etcd-3.7.1.snapshot.db");
    let disk = MemDisk::new();
    disk.insert(path(), image.to_vec());
    let error = open(disk.clone()).unwrap_err();
    assert!(matches!(error, Fault::Unusable { .. }), "{error:?}");
    assert!(error.to_string().contains("it is a database of etcd (bbolt)"), "{error}");
    assert_eq!(disk.contents(path()).unwrap(), image, "it is as it was");
}
