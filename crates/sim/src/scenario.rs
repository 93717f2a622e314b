//! What a seed stands for: how the member is set up, how hard it is driven, and what befalls it.

use std::path::PathBuf;
use std::time::Duration;

use machine::watch;
use node::{
    AutoCompaction, BackendConfig, Bootstrap, Config, InitialMember, Limits, RaftConfig,
    SnapshotConfig,
};

use crate::disk::Loss;
use crate::rng::Rng;

/// The time between ticks.
pub const TICK: Duration = Duration::from_millis(100);

/// The shortest ttl in seconds.
pub const TTL_MIN: i64 = 1;

/// One thing that befalls the member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// The process dies.
    Kill,
    /// Power goes.
    Crash,
    /// Power goes in the middle of work: after so many more syncs.
    CutAtSync(u32),
    /// A sync fails.
    FailSync(u32),
    /// A write fails.
    FailWrite(u32),
    /// The disk fills up when so many more bytes are used.
    Full(u64),
    /// The member is stopped in order.
    Stop,
}

/// The scenario of one seed.
#[derive(Debug)]
pub struct Scenario {
    /// How the member is set up.
    pub config: Config,
    /// How its watch hub is set up.
    pub hub: watch::Options,
    /// Undelivered event batches of the serving thread; more are dropped and read from history.
    pub mail_batches_max: usize,
    /// Clients at work.
    pub clients: usize,
    /// Watch streams.
    pub streams: usize,
    /// Requests in all.
    pub asks: u64,
    /// The longest pause of a client between two requests, in microseconds.
    pub pause_max: u64,
    /// The longest a disk job takes, in microseconds.
    pub disk_pause_max: u64,
    /// What befalls the member, in order.
    pub mishaps: Vec<Mishap>,
    /// Of a hundred starts, how many meet another fault.
    pub bad_starts: u64,
    /// Whether bits are flipped in the end.
    pub is_damaged: bool,
}

impl Scenario {
    /// Draws the scenario of `seed`.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed).fork(1);
        let mishaps = (0..rng.within(2..7)).map(|_| mishap(&mut rng)).collect();
        Self {
            config: config(seed, &mut rng),
            hub: hub(&mut rng),
            mail_batches_max: rng.pick(&[2, 8, 4096]),
            clients: rng.index(6) + 2,
            streams: rng.index(3) + 1,
            asks: rng.within(120..360),
            pause_max: rng.pick(&[2_000, 20_000, 100_000]),
            disk_pause_max: rng.pick(&[500, 5_000, 60_000]),
            mishaps,
            bad_starts: rng.pick(&[0, 20, 40]),
            is_damaged: rng.chance(25),
        }
    }
}

fn mishap(rng: &mut Rng) -> Mishap {
    match rng.below(12) {
        0 => Mishap::Kill,
        1 | 2 => Mishap::Crash,
        3..7 => Mishap::CutAtSync(count(rng, 12)),
        7 => Mishap::FailSync(count(rng, 12)),
        8 => Mishap::FailWrite(count(rng, 30)),
        9 => Mishap::Full(rng.within(0..64 << 10)),
        10 => Mishap::Full(rng.within(0..1 << 20)),
        _ => Mishap::Stop,
    }
}

/// A small number below `end`.
pub fn count(rng: &mut Rng, end: u64) -> u32 {
    u32::try_from(rng.below(end)).unwrap_or(0)
}

/// How much a crash loses.
pub fn loss(rng: &mut Rng) -> Loss {
    Loss {
        lost_percent: rng.pick(&[0, 20, 50, 80, 100]),
        torn_percent: rng.pick(&[0, 30, 80]),
        seed: rng.word(),
    }
}

fn config(seed: u64, rng: &mut Rng) -> Config {
    let member =
        InitialMember { name: "m1".to_owned(), peer_urls: vec!["http://m1:2380".to_owned()] };
    Config {
        name: "m1".to_owned(),
        client_urls: vec!["http://m1:2379".to_owned()],
        data_dir: PathBuf::from("/m1.etcd"),
        wal_dir: None,
        wal: storage::wal::Options {
            segment_bytes: rng.pick(&[1 << 10, 2 << 10, 16 << 10, 64_000_000]),
            segments_max: rng.pick(&[1, 1, 2, 5]),
        },
        bootstrap: Bootstrap {
            members: vec![member],
            cluster_token: "etcd-cluster".to_owned(),
            joins: None,
        },
        forces_new_cluster: false,
        raft: RaftConfig { tick: TICK, seed, ..RaftConfig::default() },
        snapshots: SnapshotConfig {
            count: rng.pick(&[5, 20, 60, 10_000]),
            catch_up_entries: rng.pick(&[0, 10, 5_000]),
            ..SnapshotConfig::default()
        },
        renews_at_once: true,
        proposals: Limits { count_max: rng.pick(&[4, 1 << 16]), ..Limits::default() },
        auto_compaction: AutoCompaction::Off,
        machine: machine::Options {
            cache_bytes: rng.pick(&[4 << 10, 32 << 20]),
            tail_bytes_max: rng.pick(&[2 << 10, 64 << 10, 64 << 20]),
            compaction_batch: rng.pick(&[2, 20, 1000]),
            lease: machine::lease::Options {
                ttl_min: TTL_MIN,
                clock_step: TICK,
                ..machine::lease::Options::default()
            },
            ..machine::Options::default()
        },
        backend: BackendConfig {
            options: storage::backend::Options {
                cache_bytes: 1 << 20,
                verify_on_open: true,
                step_bytes: rng.pick(&[500, 8 << 10, 4 << 20]),
            },
            commit_interval: Duration::from_millis(rng.pick(&[20, 200, 2_000])),
            commit_bytes: rng.pick(&[1 << 10, 4 << 20]),
            // Short, so that crashes come upon steps and not upon pauses.
            compaction_pause: Duration::from_millis(10),
            defragment_pause: Duration::from_millis(10),
            defragment_at_start: None,
        },
        unix_ms: 0,
    }
}

fn hub(rng: &mut Rng) -> watch::Options {
    watch::Options {
        queue_bytes_max: rng.pick(&[300, 4 << 10, 4 << 20]),
        queue_answers_max: rng.pick(&[2, 8, 1 << 15]),
        recent_bytes_max: rng.pick(&[0, 2 << 10, 1 << 20]),
        catch_up_watchers_max: rng.pick(&[1, 512]),
        catch_up_bytes_max: rng.pick(&[200, 2 << 20]),
    }
}
