//! Runs seeds, one or many, and says what came of them.

use std::any::Any;
use std::num::NonZero;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::check::Violation;
use crate::world::{Summary, World};

/// One run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its seed.
    pub seed: u64,
    /// What it came to.
    pub result: Result<Summary, Violation>,
    /// What happened, if it was to be kept.
    pub trace: String,
}

/// Runs one seed. A panic of the member is a violation, too (where panics unwind: not in the `release` profile).
pub fn run_seed(seed: u64, keeps_trace: bool) -> Run {
    let mut world = World::new(seed, keeps_trace);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()))
        .unwrap_or_else(|panic| Err(Violation(format!("panic: {}", message(&*panic)))));
    Run { seed, result, trace: std::mem::take(&mut world.trace).into_text() }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

/// Runs `seeds` on `jobs` threads until all are run or `report` has had enough, which it says by false. Runs come as they
/// end; each one is a function of its seed alone.
pub fn run_seeds(seeds: Range<u64>, jobs: NonZero<usize>, report: &(impl Fn(Run) -> bool + Sync)) {
    let next = AtomicU64::new(seeds.start);
    // The threads share nothing but the next seed.
    thread::scope(|scope| {
        for _ in 0..jobs.get() {
            scope.spawn(|| run_from(&next, seeds.end, report));
        }
    });
}

fn run_from(next: &AtomicU64, end: u64, report: &impl Fn(Run) -> bool) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        if !report(run_seed(seed, false)) {
            next.store(end, Ordering::Relaxed);
        }
    }
}

/// Runs each of `seeds` twice: both runs have to be good, and equal to the last byte of their traces.
pub fn smoke(seeds: Range<u64>) -> Result<(), Violation> {
    for seed in seeds {
        let [first, second] = [run_seed(seed, true), run_seed(seed, true)];
        let broken = |what: String| Violation(format!("seed {seed}: {what}; {}", replay(seed)));
        if let Err(violation) = first.result {
            return Err(broken(violation.0));
        }
        let mut lines = first.trace.lines().zip(second.trace.lines());
        if let Some((one, other)) = lines.find(|(one, other)| one != other) {
            return Err(broken(format!("two runs differ:\n{one}\n{other}")));
        }
        if first.trace != second.trace {
            return Err(broken("one of two runs ends earlier".to_owned()));
        }
    }
    Ok(())
}

/// How to see the run of a seed again.
pub fn replay(seed: u64) -> String {
    format!("replay it with: cargo run --profile sim -p quorate-sim -- replay {seed}")
}
