//! What a seed stands for: how members are set up, how hard they are driven, and what befalls them.

use std::path::PathBuf;
use std::time::Duration;

use machine::watch;
use node::{
    AutoCompaction, BackendConfig, Bootstrap, Config, Identity, InitialMember, Limits, RaftConfig,
    SnapshotConfig,
};

use crate::disk::Loss;
use crate::rng::Rng;

/// The time between ticks.
pub const TICK: Duration = Duration::from_millis(100);

/// The shortest ttl in seconds.
pub const TTL_MIN: i64 = 1;

/// One thing that befalls members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// A process dies.
    Kill,
    /// Power goes at one member.
    Crash,
    /// Power goes everywhere.
    CrashAll,
    /// Power goes in the middle of work: after so many more syncs.
    CutAtSync(u32),
    /// A sync fails.
    FailSync(u32),
    /// A write fails.
    FailWrite(u32),
    /// The disk fills up when so many more bytes are used.
    Full(u64),
    /// A member is stopped in order.
    Stop,
    /// A process stands still for so long.
    Pause(Duration),
    /// A disk is slow for so long.
    SlowDisk(Duration),
    /// One member hears nobody, or is heard by nobody, or both, for so long.
    Isolate(Isolation, Duration),
    /// Members are split in two groups for so long.
    Split(Duration),
    /// A member gives leadership away.
    MoveLeader,
}

/// Which way nothing passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Both ways.
    Whole,
    /// What others say does not arrive.
    Deaf,
    /// What it says does not arrive.
    Mute,
}

/// How a message fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// The longest it is on its way, in microseconds.
    pub delay_max: u64,
    /// Of a thousand, how many are lost.
    pub lost_permille: u64,
    /// Of a thousand, how many arrive twice.
    pub doubled_permille: u64,
    /// Of a thousand, how many take a hundred times as long.
    pub late_permille: u64,
}

/// The scenario of one seed.
#[derive(Debug)]
pub struct Scenario {
    /// How the members are set up that form the cluster.
    pub configs: Vec<Config>,
    /// How much faster or slower each member's clock goes, in parts of a thousand; for members that join, from the front again.
    pub drifts: Vec<i32>,
    /// The network.
    pub network: Network,
    /// How watch hubs are set up.
    pub hub: watch::Options,
    /// Undelivered event batches of a serving thread; more are dropped and read from history.
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
    /// What befalls members, in order.
    pub mishaps: Vec<Mishap>,
    /// Changes of the membership.
    pub changes: u32,
    /// Of a hundred starts, how many meet another fault.
    pub bad_starts: u64,
    /// Whether bits are flipped in the end.
    pub is_damaged: bool,
}

impl Scenario {
    /// Draws the scenario of `seed`: of one member in one of four, of up to seven otherwise.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed).fork(1);
        let members =
            if seed.is_multiple_of(4) { 1 } else { rng.pick(&[1, 2, 3, 3, 3, 3, 4, 5, 5, 7]) };
        let is_cluster = members > 1;
        let may_change = is_cluster || rng.chance(20);
        let mishaps = (0..rng.within(2..7)).map(|_| mishap(&mut rng, is_cluster)).collect();
        let base = config(seed, &mut rng);
        let asks = if is_cluster { rng.within(100..260) } else { rng.within(120..360) };
        Self {
            configs: (1..=members).map(|number| for_member(&base, number, members)).collect(),
            drifts: (0..7).map(|_| drift(&mut rng)).collect(),
            network: Network {
                delay_max: rng.pick(&[300, 2_000, 20_000, 120_000]),
                lost_permille: rng.pick(&[0, 0, 5, 50, 200]),
                doubled_permille: rng.pick(&[0, 0, 50]),
                late_permille: rng.pick(&[0, 0, 10]),
            },
            hub: hub(&mut rng),
            mail_batches_max: rng.pick(&[2, 8, 4096]),
            clients: rng.index(6) + 2,
            streams: rng.index(3) + 1,
            asks,
            pause_max: rng.pick(&[2_000, 20_000, 100_000]),
            disk_pause_max: rng.pick(&[500, 5_000, 60_000]),
            mishaps,
            changes: if may_change && rng.chance(40) { count(&mut rng, 6) } else { 0 },
            bad_starts: rng.pick(&[0, 20, 40]),
            is_damaged: rng.chance(25),
        }
    }
}

impl Scenario {
    /// Says what it is, the same in every process.
    pub fn description(&self) -> String {
        let Self { configs, drifts, network, clients, streams, asks, mishaps, changes, .. } = self;
        let settings = configs.first().map(|config| (&config.wal, config.snapshots));
        format!(
            "{} members, {settings:?}, clocks {drifts:?}, {network:?}, {clients} clients, {streams} streams, {asks} requests, \
             {changes} changes, {mishaps:?}",
            configs.len()
        )
    }
}

fn drift(rng: &mut Rng) -> i32 {
    rng.pick(&[-25, -3, 0, 0, 3, 25])
}

/// The setting of member `number` of `members`.
fn for_member(base: &Config, number: u64, members: u64) -> Config {
    let members = (1..=members).map(|each| {
        let (name, peer_urls) = (name_of(each), vec![url_of(each)]);
        InitialMember { name, peer_urls }
    });
    let bootstrap = Bootstrap { members: members.collect(), ..base.bootstrap.clone() };
    Config { bootstrap, ..named(base, number) }
}

/// The setting of a member that joins a cluster as `identity`.
pub fn for_joining(base: &Config, number: u64, identity: Identity) -> Config {
    let bootstrap = Bootstrap { joins: Some(identity), ..base.bootstrap.clone() };
    Config { bootstrap, ..named(base, number) }
}

/// The URL at which member `number` listens for its peers.
pub fn url_of(number: u64) -> String {
    format!("http://m{number}:2380")
}

fn name_of(number: u64) -> String {
    format!("m{number}")
}

fn named(base: &Config, number: u64) -> Config {
    Config {
        name: name_of(number),
        client_urls: vec![format!("http://m{number}:2379")],
        data_dir: PathBuf::from(format!("/m{number}.etcd")),
        raft: RaftConfig { seed: base.raft.seed.wrapping_add(number), ..base.raft },
        ..base.clone()
    }
}

fn mishap(rng: &mut Rng, is_cluster: bool) -> Mishap {
    if is_cluster && rng.chance(60) {
        let time = rng.micros(50_000..6_000_000);
        return match rng.below(12) {
            0..3 => Mishap::Pause(time),
            3 => Mishap::SlowDisk(time),
            4 | 5 => Mishap::Isolate(Isolation::Whole, time),
            6 => Mishap::Isolate(Isolation::Deaf, time),
            7 => Mishap::Isolate(Isolation::Mute, time),
            8 | 9 => Mishap::Split(time),
            10 => Mishap::MoveLeader,
            _ => Mishap::CrashAll,
        };
    }
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

/// What all members have in common.
fn config(seed: u64, rng: &mut Rng) -> Config {
    Config {
        name: String::new(),
        client_urls: Vec::new(),
        data_dir: PathBuf::new(),
        wal_dir: None,
        wal: storage::wal::Options {
            segment_bytes: rng.pick(&[1 << 10, 2 << 10, 16 << 10, 64_000_000]),
            segments_max: rng.pick(&[1, 1, 2, 5]),
        },
        bootstrap: Bootstrap {
            members: Vec::new(),
            cluster_token: "etcd-cluster".to_owned(),
            joins: None,
        },
        forces_new_cluster: false,
        raft: RaftConfig { tick: TICK, seed, ..RaftConfig::default() },
        snapshots: SnapshotConfig {
            count: rng.pick(&[5, 20, 60, 10_000]),
            catch_up_entries: rng.pick(&[0, 10, 40, 5_000]),
            log_bytes_max: rng.pick(&[0, 4 << 10, 32 << 20]),
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
