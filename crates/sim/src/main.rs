//! Runs seeds of the simulator.

use std::io::Write as _;
use std::num::NonZero;
use std::ops::Range;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use parking_lot::Mutex;
use sim::runner::{Run, replay, run_seed, run_seeds, smoke};

#[cfg(feature = "planted-faults")]
use sim::planted;

/// Seeds of the smoke run.
const SMOKE_SEEDS: Range<u64> = 0..20;

#[derive(Debug, Parser)]
#[command(about = "Runs whole members in a simulated world")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a few seeds, each twice.
    Smoke,
    /// Runs many seeds.
    Run {
        /// The first one and the one after the last: A..B.
        #[arg(long, value_parser = seeds)]
        seeds: Range<u64>,
        /// Threads.
        #[arg(long, default_value = "2")]
        jobs: NonZero<usize>,
    },
    /// Runs one seed and shows all that happens.
    Replay {
        /// The seed.
        seed: u64,
    },
    /// Runs seeds with each of the planted faults until it is found.
    #[cfg(feature = "planted-faults")]
    Planted {
        /// Seeds for each, at most.
        #[arg(long, default_value = "1000")]
        seeds_max: u64,
    },
}

fn seeds(text: &str) -> Result<Range<u64>> {
    let (start, end) = text.split_once("..").context("a range of seeds looks like 0..1000")?;
    Ok(start.parse()?..end.parse()?)
}

fn main() -> Result<()> {
    let mut out = std::io::stdout();
    match Arguments::parse().command {
        Command::Smoke => {
            smoke(SMOKE_SEEDS)?;
            writeln!(out, "{} seeds, each run twice: equal and good", SMOKE_SEEDS.end)?;
            Ok(())
        }
        Command::Run { seeds, jobs } => run_many(seeds, jobs),
        Command::Replay { seed } => {
            let run = run_seed(seed, true);
            out.write_all(run.trace.as_bytes())?;
            writeln!(out, "{:#?}", run.result)?;
            if run.result.is_err() {
                bail!("seed {seed} fails");
            }
            Ok(())
        }
        #[cfg(feature = "planted-faults")]
        Command::Planted { seeds_max } => run_planted(seeds_max),
    }
}

#[cfg(feature = "planted-faults")]
fn run_planted(seeds_max: u64) -> Result<()> {
    // What a planted fault makes panic is found by its message.
    std::panic::set_hook(Box::new(|_| {}));
    let mut out = std::io::stdout();
    let mut missed = 0;
    for fault in planted::ALL {
        if let Some((seed, violation)) = planted::find(fault, seeds_max) {
            writeln!(out, "{fault:?}: found by seed {seed}: {violation}")?;
        } else {
            missed += 1;
            writeln!(out, "{fault:?}: NOT FOUND by {seeds_max} seeds")?;
        }
    }
    if missed > 0 {
        bail!("{missed} planted faults were not found");
    }
    Ok(())
}

/// What many runs came to.
#[derive(Debug, Default)]
struct Total {
    runs: u64,
    failed: Vec<u64>,
    answered: u64,
    unknown: u64,
    mishaps: u64,
    installed: u64,
    read_back: u64,
    damaged: u64,
    damage_found: u64,
    /// Simulated time.
    hours: f64,
}

impl Total {
    fn add(&mut self, run: Run) -> std::io::Result<()> {
        self.runs += 1;
        match run.result {
            Ok(summary) => {
                self.answered += summary.counts.answered;
                self.unknown += summary.counts.unknown;
                self.mishaps += u64::from(summary.mishaps);
                self.installed += summary.installed;
                self.read_back += summary.read_back;
                self.damaged += u64::from(summary.damage_found.is_some());
                self.damage_found += u64::from(summary.damage_found == Some(true));
                self.hours += summary.time.as_secs_f64() / 3600.0;
                Ok(())
            }
            Err(violation) => {
                self.failed.push(run.seed);
                let mut out = std::io::stdout().lock();
                writeln!(out, "seed {} FAILED: {violation}\n  {}", run.seed, replay(run.seed))
            }
        }
    }
}

fn run_many(seeds: Range<u64>, jobs: NonZero<usize>) -> Result<()> {
    let total = Mutex::new(Total::default());
    // Without a reader of what is written, nothing is worth going on for.
    run_seeds(seeds, jobs, &|run| total.lock().add(run).is_ok());
    let total = total.into_inner();
    writeln!(std::io::stdout(), "{total:#?}")?;
    if total.failed.is_empty() { Ok(()) } else { bail!("{} seeds failed", total.failed.len()) }
}
