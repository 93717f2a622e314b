//! What the core counts, under etcd's names: read when a scrape asks for it (`spec/metrics.md` §1, §3).

#![expect(
    clippy::cast_precision_loss,
    reason = "Prometheus knows only floats; above 2^53 they are near enough"
)]

use std::collections::BTreeMap;

use machine::membership::Version;

use super::family::{Family, counters, gauges, only};
use super::requests::WatchTotals;
use crate::ETCD_VERSION;
use crate::config::{Config, Feature};
use crate::process;
use crate::service::Services;

use Kind::{Counter, Gauge};

/// A figure of the core.
type Read = fn(&Reading<'_>) -> f64;

/// Everything that is read once per scrape.
struct Reading<'a> {
    services: &'a Services,
    stats: machine::Stats,
    sizes: machine::Sizes,
    watch: WatchTotals,
    process: process::Figures,
}

/// What a figure is to Prometheus.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

/// Kind, name, help, and where the figure comes from.
const FIGURES: &[(Kind, &str, &str, Read)] = &[
    (
        Gauge,
        "etcd_server_has_leader",
        "Whether or not a leader exists. 1 is existence, 0 is not.",
        |r| f64::from(u8::from(r.services.handle().gate().leader() != 0)),
    ),
    (
        Gauge,
        "etcd_server_is_leader",
        "Whether or not this member is a leader. 1 if is, 0 otherwise.",
        |r| f64::from(u8::from(r.services.handle().gate().is_leader())),
    ),
    (
        Gauge,
        "etcd_server_is_learner",
        "Whether or not this member is a learner. 1 if is, 0 otherwise.",
        |r| f64::from(u8::from(r.services.handle().gate().is_learner())),
    ),
    (Counter, "etcd_server_leader_changes_seen_total", "The number of leader changes seen.", |r| {
        r.services.handle().gate().leader_changes() as f64
    }),
    (
        Gauge,
        "etcd_server_proposals_committed_total",
        "The total number of consensus proposals committed.",
        |r| r.services.handle().gate().commit_index() as f64,
    ),
    (
        Gauge,
        "etcd_server_proposals_applied_total",
        "The total number of consensus proposals applied.",
        |r| r.services.handle().gate().applied_index() as f64,
    ),
    (
        Gauge,
        "etcd_server_proposals_pending",
        "The current number of pending proposals to commit.",
        |r| r.services.handle().gate().pending_proposals() as f64,
    ),
    (
        Gauge,
        "etcd_server_quota_backend_bytes",
        "Current backend storage quota size in bytes.",
        |r| r.services.limits().quota_bytes as f64,
    ),
    (Counter, "etcd_mvcc_put_total", "Total number of puts seen by this member.", |r| {
        r.stats.puts as f64
    }),
    (Counter, "etcd_mvcc_delete_total", "Total number of deletes seen by this member.", |r| {
        r.stats.deletes as f64
    }),
    (Counter, "etcd_mvcc_range_total", "Total number of ranges seen by this member.", |r| {
        r.stats.ranges as f64
    }),
    (Counter, "etcd_mvcc_txn_total", "Total number of txns seen by this member.", |r| {
        r.stats.txns as f64
    }),
    (
        Gauge,
        "etcd_mvcc_db_total_size_in_bytes",
        "Total size of the underlying database physically allocated in bytes.",
        |r| r.sizes.physical as f64,
    ),
    (
        Gauge,
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "Total size of the underlying database logically in use in bytes.",
        |r| r.sizes.in_use as f64,
    ),
    (Gauge, "etcd_debugging_mvcc_keys_total", "Total number of keys.", |r| r.stats.keys as f64),
    (Gauge, "etcd_debugging_mvcc_watch_stream_total", "Total number of watch streams.", |r| {
        r.watch.streams as f64
    }),
    (Gauge, "etcd_debugging_mvcc_watcher_total", "Total number of watchers.", |r| {
        r.watch.watchers as f64
    }),
    (
        Gauge,
        "etcd_debugging_mvcc_slow_watcher_total",
        "Total number of unsynced slow watchers.",
        |r| r.watch.slow_watchers as f64,
    ),
    (
        Counter,
        "etcd_debugging_mvcc_events_total",
        "Total number of events sent by this member.",
        |r| r.watch.events_total as f64,
    ),
    (
        Gauge,
        "etcd_debugging_mvcc_pending_events_total",
        "Total number of pending events to be sent.",
        |r| r.watch.pending_events as f64,
    ),
    (
        Counter,
        "etcd_debugging_mvcc_db_compaction_keys_total",
        "Total number of db keys compacted.",
        |r| r.stats.compacted_records as f64,
    ),
    (Gauge, "etcd_debugging_auth_revision", "The current revision of auth store.", |r| {
        r.services.handle().reader().auth().revision as f64
    }),
    (Gauge, "etcd_debugging_mvcc_current_revision", "The current revision of store.", |r| {
        r.stats.current_revision as f64
    }),
    (
        Gauge,
        "etcd_debugging_mvcc_compact_revision",
        "The revision of the last compaction in store.",
        |r| r.stats.compact_revision as f64,
    ),
    (
        Gauge,
        "etcd_debugging_mvcc_total_put_size_in_bytes",
        "The total size of put kv pairs seen by this member.",
        |r| r.stats.put_bytes as f64,
    ),
    (
        Gauge,
        "quorate_key_index_keys",
        "Keys in the key index, with deleted ones that have not been compacted.",
        |r| r.stats.index_keys as f64,
    ),
    (
        Gauge,
        "quorate_write_behind_bytes",
        "Bytes applied and not yet committed to the engine.",
        |r| r.stats.tail_bytes as f64,
    ),
    (Gauge, "quorate_value_cache_bytes", "Bytes of the records in the value cache.", |r| {
        r.stats.cache_bytes as f64
    }),
    (Gauge, "quorate_store_live_bytes", "Bytes of live records, which the quota counts.", |r| {
        r.sizes.live as f64
    }),
    (Gauge, "os_fd_used", "The number of used file descriptors.", |r| r.process.open_fds as f64),
    (Gauge, "os_fd_limit", "The file descriptor limit.", |r| r.process.max_fds as f64),
    (
        Counter,
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        |r| r.process.cpu_seconds,
    ),
    (Gauge, "process_open_fds", "Number of open file descriptors.", |r| r.process.open_fds as f64),
    (Gauge, "process_max_fds", "Maximum number of open file descriptors.", |r| {
        r.process.max_fds as f64
    }),
    (Gauge, "process_resident_memory_bytes", "Resident memory size in bytes.", |r| {
        r.process.resident_bytes as f64
    }),
    (Gauge, "process_virtual_memory_bytes", "Virtual memory size in bytes.", |r| {
        r.process.virtual_bytes as f64
    }),
    (
        Gauge,
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        |r| r.process.start_seconds,
    ),
    (
        Gauge,
        "etcd_mvcc_db_open_read_transactions",
        "The number of currently open read transactions",
        |r| r.stats.open_views as f64,
    ),
    (
        Gauge,
        "process_virtual_memory_max_bytes",
        "Maximum amount of virtual memory available in bytes.",
        |r| r.process.max_virtual_bytes as f64,
    ),
    (
        Counter,
        "process_network_receive_bytes_total",
        "Number of bytes received by the process over the network.",
        |r| r.process.received_bytes as f64,
    ),
    (
        Counter,
        "process_network_transmit_bytes_total",
        "Number of bytes sent by the process over the network.",
        |r| r.process.sent_bytes as f64,
    ),
];

/// Reads everything anew.
pub(super) fn families(services: &Services) -> Vec<Family> {
    let reader = services.handle().reader();
    let reading = Reading {
        services,
        stats: reader.stats(),
        sizes: reader.sizes(),
        watch: services.metrics().watch_totals(),
        process: process::figures(),
    };
    let figures = FIGURES.iter().map(|(kind, name, help, read)| match kind {
        Counter => counters(name, help, only(read(&reading))),
        Gauge => gauges(name, help, only(read(&reading))),
    });
    let mut families: Vec<Family> = figures.collect();
    families.push(alarms(services));
    families.extend(membership(services));
    families
}

fn alarms(services: &Services) -> Family {
    let alarms = services.handle().reader().alarms();
    let named: Vec<_> = alarms
        .iter()
        .map(|alarm| (format!("{:x}", alarm.member_id), alarm.alarm().as_str_name()))
        .collect();
    gauges(
        "etcd_debugging_server_alarms",
        "Alarms for every member in cluster. 1 for 'server_id' label with current ID. 2 for 'alarm_type' label with type of this alarm",
        named.iter().map(|(member, kind)| {
            (vec![("alarm_type", *kind), ("server_id", member.as_str())], 1.0)
        }),
    )
}

/// What the member knows of itself and its cluster.
fn membership(services: &Services) -> [Family; 3] {
    let own = format!("{:x}", services.handle().gate().member());
    let cluster = services.cluster();
    let version = cluster.cluster_version.map(Version::series);
    let mut versions = services.metrics().cluster_versions.lock();
    versions.extend(version);
    let versions = versions.iter().map(|series @ (major, minor)| {
        (format!("{major}.{minor}"), f64::from(u8::from(Some(*series) == version)))
    });
    let versions: Vec<_> = versions.collect();
    let here = cluster.members().map(|member| (member.id, 1.0));
    // Those that have left stay, at zero.
    let mut peers: BTreeMap<u64, f64> =
        services.metrics().network.ids().into_iter().map(|id| (id, 0.0)).collect();
    peers.extend(here);
    let peers: Vec<_> =
        peers.into_iter().map(|(id, is_here)| (format!("{id:x}"), is_here)).collect();
    [
        gauges(
            "etcd_server_id",
            "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.",
            [(vec![("server_id", own.as_str())], 1.0)],
        ),
        gauges(
            "etcd_cluster_version",
            "Which version is running. 1 for 'cluster_version' label with current cluster version",
            versions.iter().map(|(version, is_current)| {
                (vec![("cluster_version", version.as_str())], *is_current)
            }),
        ),
        gauges(
            "etcd_network_known_peers",
            "The current number of known peers.",
            peers.iter().map(|(peer, is_here)| {
                (vec![("Local", own.as_str()), ("Remote", peer.as_str())], *is_here)
            }),
        ),
    ]
}

/// What does not change while the process runs.
pub(super) fn fixed(config: &Config) -> [Family; 2] {
    let features = Feature::ALL.map(|feature| {
        let labels = vec![("name", feature.name()), ("stage", feature.stage().name())];
        (labels, f64::from(u8::from(config.features.is_enabled(feature))))
    });
    [
        gauges(
            "etcd_server_version",
            "Which version is running. 1 for 'server_version' label with current version.",
            [(vec![("server_version", ETCD_VERSION)], 1.0)],
        ),
        gauges(
            "etcd_server_feature_enabled",
            "Whether or not a feature is enabled. 1 is enabled, 0 is not.",
            features,
        ),
    ]
}
