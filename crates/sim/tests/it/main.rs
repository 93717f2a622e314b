//! Smoke seeds, and what seeds have shown before.

use std::path::Path;

use sim::disk::{DiskFault, Loss, SimDisk};
use sim::runner;
use storage::backend::{Backend, Options};

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

#[cfg(feature = "planted-faults")]
#[test]
fn planted_faults_are_found() {
    for fault in sim::planted::ALL {
        assert!(sim::planted::find(fault, 1000).is_some(), "{fault:?}");
    }
}
