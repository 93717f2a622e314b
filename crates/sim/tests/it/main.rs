//! Smoke seeds, and what seeds have shown before.

use std::path::Path;

use sim::disk::{DiskFault, Loss, SimDisk};
use sim::runner;
use storage::backend::{Backend, DefragmentFault, Op, Options, TableId, WriteBatch};

/// Few enough for an unoptimised build.
const SMOKE_SEEDS: std::ops::Range<u64> = 0..12;

#[test]
fn smoke_seeds_are_good_and_equal_twice() {
    runner::smoke(SMOKE_SEEDS).unwrap_or_else(|violation| panic!("{violation}"));
}

/// Shown by seed 194 of the first 300: the engine refuses a file that a crash left half created, so the member could
/// never start again.
#[test]
fn a_crash_while_the_backend_is_created_leaves_nothing_in_the_way() {
    for after in 0..12 {
        for seed in 0..20 {
            let disk = SimDisk::default();
            disk.arm(DiskFault::CutAtSync(after));
            let created = Backend::open(disk.mount(), Path::new("/db"), &["t"], Options::default());
            if !disk.is_cut() {
                created.expect("no fault has struck");
                continue;
            }
            assert!(created.is_err(), "power was gone");
            disk.crash(Loss { lost_percent: 50, torn_percent: 30, seed });
            Backend::open(disk.mount(), Path::new("/db"), &["t"], Options::default())
                .unwrap_or_else(|fault| panic!("after {after} syncs, seed {seed}: {fault}"));
        }
    }
}

fn put(key: &'static str, value: &'static str) -> WriteBatch {
    WriteBatch::new(vec![(TableId(0), Op::Put(key.into(), value.into()))])
}

/// After a sync that failed, nobody knows which name a crash will leave: then no commit may be acknowledged. As long as the
/// old file is in place for certain, the backend goes on.
#[test]
fn a_failed_defragmentation_leaves_a_backend_that_goes_on_or_one_that_refuses() {
    let open = |disk: &SimDisk| {
        Backend::open(disk.mount(), Path::new("/db"), &["t"], Options::default()).unwrap()
    };
    let (mut given_up, mut unknown) = (0, 0);
    for after in 0.. {
        let disk = SimDisk::default();
        let backend = open(&disk);
        backend.commit(&put("a", "1")).unwrap();
        disk.arm(DiskFault::FailSync(after));
        let result = backend.defragment();
        let has_struck = disk.faults_struck() > 0;
        disk.disarm();
        let committed = backend.commit(&put("b", "2"));
        match result {
            Ok(()) => {}
            Err(DefragmentFault::GivenUp(_)) => {
                committed.as_ref().expect("the old file is the one in use");
                given_up += 1;
            }
            Err(DefragmentFault::Unknown(_)) => {
                committed.as_ref().expect_err("it may be lost");
                backend.defragment().expect_err("which file should it be?");
                unknown += 1;
            }
        }
        disk.crash(Loss { lost_percent: 100, torn_percent: 0, seed: u64::from(after) });
        drop(backend);
        let reader = open(&disk).reader().unwrap();
        let get = |key: &[u8]| reader.get(TableId(0), key).unwrap();
        assert_eq!(get(b"a").unwrap(), "1");
        assert_eq!(get(b"b").is_some(), committed.is_ok(), "after {after} syncs");
        if !has_struck {
            break;
        }
    }
    assert!(given_up > 3 && unknown == 1, "{given_up} given up, {unknown} unknown");
}

#[cfg(feature = "planted-faults")]
#[test]
fn planted_faults_are_found() {
    for fault in sim::planted::ALL {
        assert!(sim::planted::find(fault, 1000).is_some(), "{fault:?}");
    }
}
