//! What the core counts, under etcd's names: read when a scrape asks for it (`spec/metrics.md` §1, §3).

#![expect(
    clippy::cast_precision_loss,
    reason = "Prometheus knows only floats; above 2^53 they are near enough"
)]

use prometheus::{Gauge, GaugeVec, Opts, Registry};

use crate::ETCD_VERSION;
use crate::config::{Config, Feature};
use crate::process;
use crate::service::Services;

/// A figure of the core.
type Read = fn(&Reading<'_>) -> f64;

/// Everything that is read once per scrape.
struct Reading<'a> {
    services: &'a Services,
    stats: machine::Stats,
    sizes: machine::Sizes,
    watch: machine::watch::Stats,
    process: process::Figures,
}

/// Name, help, and where the figure comes from. Counters of the core are exposed as gauges: only they know their value.
const FIGURES: &[(&str, &str, Read)] = &[
    ("etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not.", |r| {
        f64::from(u8::from(r.services.handle().gate().leader() != 0))
    }),
    (
        "etcd_server_is_leader",
        "Whether or not this member is a leader. 1 if is, 0 otherwise.",
        |r| f64::from(u8::from(r.services.handle().gate().is_leader())),
    ),
    (
        "etcd_server_is_learner",
        "Whether or not this member is a learner. 1 if is, 0 otherwise.",
        |r| f64::from(u8::from(r.services.handle().gate().is_learner())),
    ),
    ("etcd_server_leader_changes_seen_total", "The number of leader changes seen.", |r| {
        r.services.handle().gate().leader_changes() as f64
    }),
    (
        "etcd_server_proposals_committed_total",
        "The total number of consensus proposals committed.",
        |r| r.services.handle().gate().commit_index() as f64,
    ),
    (
        "etcd_server_proposals_applied_total",
        "The total number of consensus proposals applied.",
        |r| r.services.handle().gate().applied_index() as f64,
    ),
    ("etcd_server_proposals_pending", "The current number of pending proposals to commit.", |r| {
        r.services.handle().gate().pending_proposals() as f64
    }),
    ("etcd_server_quota_backend_bytes", "Current backend storage quota size in bytes.", |r| {
        r.services.limits().quota_bytes as f64
    }),
    ("etcd_mvcc_put_total", "Total number of puts seen by this member.", |r| r.stats.puts as f64),
    ("etcd_mvcc_delete_total", "Total number of deletes seen by this member.", |r| {
        r.stats.deletes as f64
    }),
    ("etcd_mvcc_range_total", "Total number of ranges seen by this member.", |r| {
        r.stats.ranges as f64
    }),
    ("etcd_mvcc_txn_total", "Total number of txns seen by this member.", |r| r.stats.txns as f64),
    (
        "etcd_mvcc_db_total_size_in_bytes",
        "Total size of the underlying database physically allocated in bytes.",
        |r| r.sizes.physical as f64,
    ),
    (
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "Total size of the underlying database logically in use in bytes.",
        |r| r.sizes.in_use as f64,
    ),
    ("etcd_debugging_mvcc_keys_total", "Total number of keys.", |r| r.stats.keys as f64),
    ("etcd_debugging_mvcc_watch_stream_total", "Total number of watch streams.", |r| {
        r.watch.streams as f64
    }),
    ("etcd_debugging_mvcc_watcher_total", "Total number of watchers.", |r| r.watch.watchers as f64),
    ("etcd_debugging_mvcc_slow_watcher_total", "Total number of unsynced slow watchers.", |r| {
        r.watch.slow_watchers as f64
    }),
    ("etcd_debugging_mvcc_events_total", "Total number of events sent by this member.", |r| {
        r.watch.events_total as f64
    }),
    (
        "etcd_debugging_mvcc_pending_events_total",
        "Total number of pending events to be sent.",
        |r| r.watch.pending_events as f64,
    ),
    ("etcd_debugging_mvcc_db_compaction_keys_total", "Total number of db keys compacted.", |r| {
        r.stats.compacted_records as f64
    }),
    ("etcd_debugging_mvcc_current_revision", "The current revision of store.", |r| {
        r.stats.current_revision as f64
    }),
    (
        "etcd_debugging_mvcc_compact_revision",
        "The revision of the last compaction in store.",
        |r| r.stats.compact_revision as f64,
    ),
    (
        "etcd_debugging_mvcc_total_put_size_in_bytes",
        "The total size of put kv pairs seen by this member.",
        |r| r.stats.put_bytes as f64,
    ),
    (
        "quorate_key_index_keys",
        "Keys in the key index, with deleted ones that have not been compacted.",
        |r| r.stats.index_keys as f64,
    ),
    ("quorate_write_behind_bytes", "Bytes applied and not yet committed to the engine.", |r| {
        r.stats.tail_bytes as f64
    }),
    ("quorate_value_cache_bytes", "Bytes of the records in the value cache.", |r| {
        r.stats.cache_bytes as f64
    }),
    ("quorate_store_live_bytes", "Bytes of live records, which the quota counts.", |r| {
        r.sizes.live as f64
    }),
    ("os_fd_used", "The number of used file descriptors.", |r| r.process.open_fds as f64),
    ("os_fd_limit", "The file descriptor limit.", |r| r.process.max_fds as f64),
    ("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", |r| {
        r.process.cpu_seconds
    }),
    ("process_open_fds", "Number of open file descriptors.", |r| r.process.open_fds as f64),
    ("process_max_fds", "Maximum number of open file descriptors.", |r| r.process.max_fds as f64),
    ("process_resident_memory_bytes", "Resident memory size in bytes.", |r| {
        r.process.resident_bytes as f64
    }),
    ("process_virtual_memory_bytes", "Virtual memory size in bytes.", |r| {
        r.process.virtual_bytes as f64
    }),
    ("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", |r| {
        r.process.start_seconds
    }),
];

/// The registered gauges.
#[derive(Debug)]
pub(super) struct CoreMetrics {
    gauges: Vec<Gauge>,
    alarms: GaugeVec,
    cluster_version: GaugeVec,
    id: GaugeVec,
}

impl CoreMetrics {
    pub(super) fn new(registry: &Registry, config: &Config) -> Result<Self, prometheus::Error> {
        let mut gauges = Vec::with_capacity(FIGURES.len());
        for (name, help, _) in FIGURES {
            let gauge = Gauge::new(*name, *help)?;
            registry.register(Box::new(gauge.clone()))?;
            gauges.push(gauge);
        }
        let labelled = |name: &str, help: &str, labels: &[&str]| {
            let gauges = GaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let version = labelled(
            "etcd_server_version",
            "Which version is running. 1 for 'server_version' label with current version.",
            &["server_version"],
        )?;
        version.with_label_values(&[ETCD_VERSION]).set(1.0);
        let features = labelled(
            "etcd_server_feature_enabled",
            "Whether or not a feature is enabled. 1 is enabled, 0 is not.",
            &["name", "stage"],
        )?;
        for feature in Feature::ALL {
            let enabled = f64::from(u8::from(config.features.is_enabled(feature)));
            features.with_label_values(&[feature.name(), feature.stage().name()]).set(enabled);
        }
        Ok(Self {
            gauges,
            alarms: labelled(
                "etcd_debugging_server_alarms",
                "Alarms for every member in cluster. 1 for 'server_id' label with current ID. 2 for 'alarm_type' label with type of this alarm",
                &["server_id", "alarm_type"],
            )?,
            cluster_version: labelled(
                "etcd_cluster_version",
                "Which version is running. 1 for 'cluster_version' label with current cluster version",
                &["cluster_version"],
            )?,
            id: labelled(
                "etcd_server_id",
                "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.",
                &["server_id"],
            )?,
        })
    }

    /// Reads everything anew.
    pub(super) fn refresh(&self, services: &Services) {
        let reader = services.handle().reader();
        let reading = Reading {
            services,
            stats: reader.stats(),
            sizes: reader.sizes(),
            watch: services.watch_stats(),
            process: process::figures(),
        };
        for (gauge, (_, _, read)) in self.gauges.iter().zip(FIGURES) {
            gauge.set(read(&reading));
        }
        let member = format!("{:x}", services.handle().gate().member());
        self.id.with_label_values(&[&member]).set(1.0);
        self.alarms.reset();
        for alarm in reader.alarms().iter() {
            let member = format!("{:x}", alarm.member_id);
            self.alarms.with_label_values(&[&member, alarm.alarm().as_str_name()]).set(1.0);
        }
        if let Some(version) = services.cluster().cluster_version {
            let version = format!("{}.{}", version.major, version.minor);
            self.cluster_version.with_label_values(&[&version]).set(1.0);
        }
    }
}
