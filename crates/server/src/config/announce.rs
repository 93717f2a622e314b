//! What is logged about a configuration.

use super::settings::Settings;
use super::{AutoCompaction, BUILD, ClusterState, Config, ETCD_VERSION, GoDuration, help, texts};
use crate::logging::{Level, Notice};

const REQUEST_BYTES_RECOMMENDED: u64 = 10 << 20;
const QUOTA_BYTES_RECOMMENDED: u64 = 8 << 30;

/// Warns about flags that will go away.
pub(super) fn warn_deprecated(settings: &Settings, notices: &mut Vec<Notice>) {
    for (flag, text) in [
        (
            "max-snapshots",
            "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.",
        ),
        (
            "v2-deprecation",
            "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is \
             enforced, ignoring user input.",
        ),
    ] {
        if settings.is_given(flag) {
            notices.push(Notice::new(Level::Warn, text));
        }
    }
}

/// Warns about what is valid and yet seldom meant.
pub(super) fn warn_unusual(config: &Config, notices: &mut Vec<Notice>) {
    let bytes = config.limits.request_bytes_max as u64;
    if bytes > REQUEST_BYTES_RECOMMENDED {
        notices.push(
            Notice::new(Level::Warn, "exceeded recommended request limit")
                .with("max-request-bytes", bytes)
                .with("max-request-size", size(bytes))
                .with("recommended-request-bytes", REQUEST_BYTES_RECOMMENDED)
                .with("recommended-request-size", size(REQUEST_BYTES_RECOMMENDED)),
        );
    }
    if config.monitoring.pprof {
        let text = "there are no profiles of a Go runtime here: /debug/pprof is not served";
        notices.push(Notice::new(Level::Warn, text));
    }
    if let Some(quota) = config.store.quota_bytes.filter(|quota| *quota > QUOTA_BYTES_RECOMMENDED) {
        notices.push(
            Notice::new(Level::Warn, "quota exceeds the maximum value")
                .with("quota-name", "v3-applier")
                .with("quota-size-bytes", quota)
                .with("quota-size", size(quota))
                .with("quota-maximum-size-bytes", QUOTA_BYTES_RECOMMENDED)
                .with("quota-maximum-size", size(QUOTA_BYTES_RECOMMENDED)),
        );
    }
}

/// A number of bytes for people: decimal units, one decimal below ten.
fn size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut power = 0;
    let mut unit = 1;
    while power + 1 < units.len() && bytes / unit >= 1000 {
        unit *= 1000;
        power += 1;
    }
    let name = units[power];
    // Rounded to tenths, and those to whole units.
    let tenths = (u128::from(bytes) * 10 + u128::from(unit) / 2) / u128::from(unit);
    if tenths < 100 && power > 0 {
        return format!("{}.{} {name}", tenths / 10, tenths % 10);
    }
    format!("{} {name}", (u128::from(bytes) + u128::from(unit) / 2) / u128::from(unit))
}

impl Config {
    /// The line that has all effective settings.
    pub fn starting_notice(&self, member_initialized: bool) -> Notice {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let notice = Notice::new(Level::Info, "starting an etcd server")
            .with("etcd-version", ETCD_VERSION)
            .with("git-sha", BUILD)
            .with("go-version", help::compiler())
            .with("go-os", std::env::consts::OS)
            .with("go-arch", help::architecture(std::env::consts::ARCH))
            .with("max-cpu-set", self.memory.serving_threads)
            .with("max-cpu-available", cores)
            .with("member-initialized", member_initialized);
        self.with_limits(self.with_cluster(self.with_member(notice)))
    }

    fn with_member(&self, notice: Notice) -> Notice {
        let wal_dir = self.wal_dir.as_deref().map(|dir| dir.display().to_string());
        let wal_dir = wal_dir.unwrap_or_default();
        notice
            .with("name", self.name.clone())
            .with("data-dir", self.data_dir.display().to_string())
            .with("wal-dir", wal_dir.clone())
            .with("wal-dir-dedicated", wal_dir)
            .with("member-dir", self.data_dir.join("member").display().to_string())
            .with("force-new-cluster", self.cluster.force_new)
            .with("heartbeat-interval", go(self.raft.heartbeat_interval))
            .with("election-timeout", go(self.raft.election_timeout))
            .with("initial-election-tick-advance", self.raft.initial_election_tick_advance)
            .with("snapshot-count", self.raft.snapshot_count)
            .with("max-wals", self.raft.wals_max.unwrap_or(0))
            .with("max-snapshots", self.raft.snapshots_max.unwrap_or(0))
            .with("snapshot-catchup-entries", self.raft.snapshot_catchup_entries)
            .with("initial-advertise-peer-urls", texts(&self.urls.advertise_peer))
            .with("listen-peer-urls", texts(&self.urls.listen_peer))
            .with("advertise-client-urls", texts(&self.urls.advertise_client))
            .with("listen-client-urls", texts(&self.urls.listen_client))
            .with("listen-metrics-urls", texts(&self.urls.listen_metrics))
    }

    fn with_cluster(&self, notice: Notice) -> Notice {
        let state = match self.cluster.state {
            ClusterState::New => "new",
            ClusterState::Existing => "existing",
        };
        let discovery = self.cluster.discovery.as_ref();
        notice
            .with("cors", self.http.cors.texts())
            .with("host-whitelist", self.http.host_whitelist.texts())
            .with("initial-cluster", self.cluster.initial.clone())
            .with("initial-cluster-state", state)
            .with("initial-cluster-token", self.cluster.token.clone())
            .with("discovery-token", discovery.map_or("", |found| found.token.as_str()))
            .with(
                "discovery-endpoints",
                discovery.map_or_else(String::new, |found| found.endpoints.join(",")),
            )
            .with("downgrade-check-interval", go(self.cluster.downgrade_check_interval))
            .with("max-learners", self.cluster.learners_max)
            // The only position that is left, whatever the flag says.
            .with("v2-deprecation", "write-only")
    }

    fn with_limits(&self, notice: Notice) -> Notice {
        let (mode, retention) = match self.store.auto_compaction {
            AutoCompaction::Off => ("periodic", "0s".to_owned()),
            AutoCompaction::Periodic(period) => ("periodic", go(period)),
            AutoCompaction::Revisions(count) => ("revision", count.to_string()),
        };
        let quota = self.store.quota_bytes.and_then(|quota| i64::try_from(quota).ok());
        notice
            .with("quota-backend-bytes", quota.unwrap_or(-1))
            .with("max-request-bytes", self.limits.request_bytes_max)
            .with("max-concurrent-streams", self.limits.concurrent_streams_max)
            .with("pre-vote", self.raft.pre_vote)
            .with("feature-gates", self.features.to_string())
            .with(
                "corrupt-check-time-interval",
                go(self.store.corrupt_check_interval.unwrap_or_default()),
            )
            .with("compact-check-time-interval", go(self.store.compact_hash_check_interval))
            .with("auto-compaction-mode", mode)
            .with("auto-compaction-retention", retention.clone())
            .with("auto-compaction-interval", retention)
            .with("value-cache-bytes", self.memory.value_cache_bytes)
            .with("engine-cache-bytes", self.memory.engine_cache_bytes)
            .with("write-behind-bytes", self.memory.write_behind_bytes)
            .with("catchup-memory-bytes", self.memory.catchup_memory_bytes)
            .with("watch-buffer-bytes", self.memory.watch_buffer_bytes)
            .with("answer-memory-bytes", self.memory.answer_memory_bytes)
            .with("serving-threads", self.memory.serving_threads)
            .with("proposals-in-flight-max", self.memory.proposals_in_flight_max)
            .with("proposals-in-flight-bytes-max", self.memory.proposals_in_flight_bytes_max)
    }
}

fn go(duration: std::time::Duration) -> String {
    GoDuration::from(duration).to_string()
}
