//! From flags to what each part has to be told.

use std::sync::Arc;
use std::time::Duration;

use machine::lease;
use machine::membership::Version;
use node::{AutoCompaction, Bootstrap, Identity, InitialMember, RaftConfig, SnapshotConfig};

use crate::config::{self, BootstrapError, Config, Feature, texts};
use crate::incomplete::{Budget, INCOMPLETE_BYTES_MAX};
use crate::peer::corruption;
use crate::restart;
use crate::room::Room;
use crate::service::Limits;

/// A door takes messages this much larger than a log request may be.
const MESSAGE_MARGIN_BYTES: usize = 512 << 10;

/// The release whose interface this is.
const SERVER_VERSION: Version = Version::new(3, 7, 1);

/// What services have to be told.
pub fn limits(config: &Config) -> Limits {
    let given = &config.limits;
    Limits {
        request_bytes_max: given.request_bytes_max,
        message_bytes_max: given.request_bytes_max + MESSAGE_MARGIN_BYTES,
        txn_ops_max: given.txn_ops_max,
        concurrent_streams_max: given.concurrent_streams_max,
        ping_interval_min: given.keepalive_interval_min.unwrap_or_default(),
        keepalive_interval: given.keepalive_interval.unwrap_or_default(),
        keepalive_timeout: given.keepalive_timeout.unwrap_or(Duration::MAX),
        watch_buffer_bytes: config.memory.watch_buffer_bytes,
        watch_progress_interval: given.watch_progress_interval,
        election_timeout: config.raft.election_timeout,
        incomplete: Arc::new(Budget::new(INCOMPLETE_BYTES_MAX)),
        answers: Room::new(config.memory.answer_memory_bytes),
        apply_patience: config.monitoring.warning_apply_duration,
        strict_reconfig_check: config.cluster.strict_reconfig_check,
        request_timeout: config.raft.request_timeout(),
        unary_patience: config.monitoring.warning_unary_request_duration,
        quota_bytes: quota(config),
    }
}

fn quota(config: &Config) -> i64 {
    let Some(bytes) = config.store.quota_bytes else { return -1 };
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// What the node has to be told; `unix_ms` is the time of the start. A member that `joins` others forms nothing. A member that `is_initialized` has a log, and with it
/// knows its cluster: the flags that describe it are passed over.
pub fn node(
    config: &Config,
    is_initialized: bool,
    joins: Option<Identity>,
    unix_ms: u64,
) -> Result<node::Config, BootstrapError> {
    let owned = |urls: &[config::Url]| texts(urls).into_iter().map(str::to_owned).collect();
    let members = if is_initialized {
        // Needed only if the first start ended before it wrote anything: they are not checked again, nor are names
        // looked up.
        config.initial_members().unwrap_or_default()
    } else {
        config.bootstrap_members()?
    };
    let members = members
        .into_iter()
        .map(|(name, urls)| InitialMember { name, peer_urls: owned(&urls) })
        .collect();
    Ok(node::Config {
        name: config.name.clone(),
        client_urls: owned(&config.urls.advertise_client),
        data_dir: config.data_dir.clone(),
        wal_dir: config.wal_dir.clone(),
        wal: storage::wal::Options {
            segments_max: config.raft.wals_max.unwrap_or(0),
            ..Default::default()
        },
        bootstrap: Bootstrap { members, cluster_token: config.cluster.token.clone(), joins },
        forces_new_cluster: config.cluster.force_new,
        raft: RaftConfig {
            tick: config.raft.heartbeat_interval,
            election_ticks: u32::try_from(config.raft.election_ticks()).unwrap_or(u32::MAX),
            pre_vote: config.raft.pre_vote,
            hasten_first_election: config.raft.initial_election_tick_advance,
            seed: unix_ms,
        },
        snapshots: SnapshotConfig {
            count: config.raft.snapshot_count,
            catch_up_entries: config.raft.snapshot_catchup_entries,
            log_bytes_max: config.memory.catchup_memory_bytes,
        },
        renews_at_once: config.features.is_enabled(Feature::FastLeaseKeepAlive),
        proposals: node::Limits {
            count_max: config.memory.proposals_in_flight_max,
            bytes_max: config.memory.proposals_in_flight_bytes_max,
        },
        auto_compaction: match config.store.auto_compaction {
            config::AutoCompaction::Off => AutoCompaction::Off,
            config::AutoCompaction::Periodic(period) => AutoCompaction::Periodic(period),
            config::AutoCompaction::Revisions(kept) => AutoCompaction::Revision(kept),
        },
        machine: machine(config),
        backend: backend(config),
        unix_ms,
    })
}

/// When data is compared with that of other members.
pub fn corruption(config: &Config) -> corruption::Settings {
    let compares_compactions = config.features.is_enabled(Feature::CompactHashCheck);
    corruption::Settings {
        all: config.store.corrupt_check_interval,
        compactions: compares_compactions.then_some(config.store.compact_hash_check_interval),
        patience: config.raft.request_timeout(),
    }
}

/// What the machine has to be told.
pub fn machine(config: &Config) -> machine::Options {
    let heartbeat = config.raft.heartbeat_interval;
    let ticks = u32::try_from(config.raft.election_ticks()).unwrap_or(u32::MAX);
    let ttl_min = (heartbeat * (3 * ticks / 2)).as_millis().div_ceil(1000);
    machine::Options {
        cache_bytes: config.memory.value_cache_bytes as u64,
        tail_bytes_max: config.memory.write_behind_bytes,
        quota_bytes: quota(config),
        compaction_batch: config.store.compaction_batch_limit,
        learners_max: config.cluster.learners_max,
        server_version: SERVER_VERSION,
        lease: lease::Options {
            ttl_min: i64::try_from(ttl_min).unwrap_or(i64::MAX),
            // One tick is due, and one may be late: see `RaftConfig::lease_step`.
            clock_step: 2 * heartbeat,
            revoke_retry: config.raft.request_timeout(),
            checkpoints: config.features.is_enabled(Feature::LeaseCheckpoint),
        },
        convey: restart::side_by_side,
    }
}

/// What the backend has to be told.
pub fn backend(config: &Config) -> node::BackendConfig {
    let defaults = node::BackendConfig::default();
    node::BackendConfig {
        options: storage::backend::Options {
            cache_bytes: config.memory.engine_cache_bytes as u64,
            ..storage::backend::Options::default()
        },
        commit_interval: config.store.batch_interval.unwrap_or(defaults.commit_interval),
        commit_bytes: defaults.commit_bytes.min(config.memory.write_behind_bytes / 2),
        compaction_pause: config.store.compaction_sleep_interval,
        defragment_pause: defaults.defragment_pause,
        defragment_at_start: config.store.bootstrap_defrag_threshold_bytes,
    }
}
