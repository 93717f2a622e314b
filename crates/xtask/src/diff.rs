//! `diff`: the same requests to the real etcd and to our binary, and every answer compared.
//!
//! Each seed starts both servers afresh, with the same name, token and advertised URLs so that all ids are equal, and
//! sends both the same random sequence. A difference ends its seed and is printed with all it takes to repeat it.

mod compare;
mod gateway;
mod generate;
mod known;
mod member;
mod method;
mod seed;
mod watches;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::workspace;
use seed::{Plan, Tally};

const USAGE: &str = "\
usage: cargo xtask diff --reference PATH --subject PATH [--seeds A..B] [--steps N] [--gateway-every K] [--jobs J]";

/// What a seed has counted and whether it found a difference, unless it could not be run.
type Outcome = Result<(Tally, Result<()>)>;

/// What the command line asks for.
struct Options {
    seeds: Range<u64>,
    steps: usize,
    reference: PathBuf,
    subject: PathBuf,
    gateway_every: usize,
    jobs: usize,
}

/// Compares, says what it found, and fails when anything differed.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let options = Options::parse(arguments)?;
    let started = Instant::now();
    let (total, differences) = run_seeds(&options)?;
    summarize(&total);
    let seconds = started.elapsed().as_secs_f64();
    let seeds = options.seeds.end - options.seeds.start;
    workspace::say(&format!(
        "{seeds} seeds, {} requests in {seconds:.0} s ({:.0}/s): {differences} seeds differ",
        total.steps,
        f64::from(u32::try_from(total.steps).unwrap_or(u32::MAX)) / seconds
    ));
    if differences > 0 {
        bail!("{differences} of {seeds} seeds differ");
    }
    Ok(())
}

/// Shares the seeds among threads; says every difference when it is found.
fn run_seeds(options: &Options) -> Result<(Tally, usize)> {
    let next = AtomicU64::new(options.seeds.start);
    let (sender, receiver) = mpsc::channel();
    let mut total = Tally::default();
    let mut differences = 0;
    std::thread::scope(|scope| -> Result<()> {
        for _ in 0..options.jobs {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || work(options, next, &sender));
        }
        drop(sender);
        for outcome in receiver {
            let (tally, result) = outcome?;
            total.add(&tally);
            if let Err(difference) = result {
                differences += 1;
                workspace::say(&format!("DIFFERENCE {difference:#}\n"));
            }
        }
        Ok(())
    })?;
    Ok((total, differences))
}

/// Runs one seed after the other until none is left.
fn work(options: &Options, next: &AtomicU64, outcomes: &mpsc::Sender<Outcome>) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        let is_over = seed >= options.seeds.end;
        if is_over || outcomes.send(run_seed(options, seed)).is_err() {
            return;
        }
    }
}

fn run_seed(options: &Options, seed: u64) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let plan = Plan {
        reference: &options.reference,
        subject: &options.subject,
        steps: options.steps,
        gateway_every: options.gateway_every,
    };
    let mut tally = Tally::default();
    let local = tokio::task::LocalSet::new();
    let result = local.block_on(&runtime, seed::run(plan, seed, &mut tally));
    Ok((tally, result))
}

fn summarize(total: &Tally) {
    for ((method, code), count) in &total.answers {
        workspace::say(&format!("{count:>9}  {method}, code {code}"));
    }
    for (known, count) in known::KNOWN.iter().zip(total.known) {
        workspace::say(&format!("{count:>9}  known difference: {}: {}", known.name, known.reason));
    }
}

impl Options {
    fn parse(arguments: &[&str]) -> Result<Self> {
        let (mut reference, mut subject) = (None, None);
        let (mut seeds, mut steps, mut gateway_every, mut jobs) = (0..10, 10_000, 10, 3);
        for pair in arguments.chunks(2) {
            let [name, value] = pair else { bail!("{USAGE}") };
            match *name {
                "--reference" => reference = Some(binary(value)?),
                "--subject" => subject = Some(binary(value)?),
                "--seeds" => {
                    let (first, end) = value.split_once("..").context(USAGE)?;
                    seeds = first.parse()?..end.parse()?;
                }
                "--steps" => steps = value.parse()?,
                "--gateway-every" => gateway_every = value.parse()?,
                "--jobs" => jobs = value.parse()?,
                _ => bail!("{USAGE}"),
            }
        }
        let (Some(reference), Some(subject)) = (reference, subject) else { bail!("{USAGE}") };
        if seeds.is_empty() || jobs == 0 {
            bail!("{USAGE}");
        }
        Ok(Self { seeds, steps, reference, subject, gateway_every, jobs })
    }
}

fn binary(path: &str) -> Result<PathBuf> {
    Path::new(path).canonicalize().with_context(|| format!("binary {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_needs_both_binaries_and_at_least_one_seed() {
        let both = ["--reference", "/bin/sh", "--subject", "/bin/sh"];
        let parse = |more: &[&str]| Options::parse(&[&both[..], more].concat());
        let options = parse(&["--seeds", "3..7", "--steps", "5"]).unwrap();
        assert_eq!((options.seeds, options.steps, options.gateway_every), (3..7, 5, 10));
        assert!(Options::parse(&both[..2]).is_err());
        assert!(parse(&["--seeds", "7..7"]).is_err());
        assert!(parse(&["--jobs", "0"]).is_err());
        assert!(parse(&["--steps"]).is_err());
        assert!(parse(&["--no-such-flag", "1"]).is_err());
    }
}
