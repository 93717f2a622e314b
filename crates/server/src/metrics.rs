//! etcd's metrics (`spec/metrics.md`): what the shell counts itself, and what it reads from the core when asked.
//!
//! Counters on the path of a request are resolved once per method, so that counting is one relaxed addition.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry, TextEncoder,
    exponential_buckets,
};

use self::core::CoreMetrics;
use crate::config::Config;
use crate::grpc::method::Kind;
use crate::service::Services;

mod core;
mod grpc;

pub use grpc::GrpcMetrics;

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Calls and messages by method.
    pub grpc: GrpcMetrics,
    /// Durations of disk work.
    pub disk: Arc<DiskTimes>,
    client_requests: IntCounterVec,
    client_versions: ClientVersions,
    /// The two series that nearly all calls count in.
    client_requests_unary: IntCounter,
    core: CoreMetrics,
    health: HealthMetrics,
    read_faults: IntCounter,
}

/// Outcomes of health endpoints.
#[derive(Debug)]
struct HealthMetrics {
    success: IntCounter,
    failures: IntCounter,
    last: GaugeVec,
    runs: IntCounterVec,
}

impl Metrics {
    /// Makes and registers all metrics of a member configured so.
    pub fn new(config: &Config) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let client_requests = IntCounterVec::new(
            Opts::new(
                "etcd_server_client_requests_total",
                "The total number of client requests per client version.",
            ),
            &["type", "client_api_version"],
        )?;
        registry.register(Box::new(client_requests.clone()))?;
        let client_requests_unary =
            client_requests.get_metric_with_label_values(&["unary", "unknown"])?;
        Ok(Self {
            grpc: GrpcMetrics::new(&registry, config.monitoring.extensive_metrics)?,
            disk: Arc::new(DiskTimes::new(&registry)?),
            client_requests,
            client_versions: ClientVersions::default(),
            client_requests_unary,
            core: CoreMetrics::new(&registry, config)?,
            health: HealthMetrics::new(&registry)?,
            read_faults: counter(
                &registry,
                "quorate_read_faults_total",
                "Reads of the backend that failed because of the disk or damaged data.",
            )?,
            registry,
        })
    }

    /// Encodes everything as it is now, in the text format 0.0.4.
    pub fn encode(&self, services: &Services) -> Result<String, prometheus::Error> {
        self.core.refresh(services);
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// Counts a read that failed for a reason of our own.
    pub fn read_failed(&self) {
        self.read_faults.inc();
    }

    /// Counts a `/health`.
    pub fn health_checked(&self, is_healthy: bool) {
        if is_healthy { self.health.success.inc() } else { self.health.failures.inc() }
    }

    /// Counts one check of `/livez` or `/readyz`.
    pub fn check_ran(&self, endpoint: &str, check: &str, is_ok: bool) {
        let status = if is_ok { "success" } else { "error" };
        self.health.runs.with_label_values(&[endpoint, check, status]).inc();
        self.health.last.with_label_values(&[endpoint, check]).set(f64::from(u8::from(is_ok)));
    }

    /// Counts a call by the client's version.
    pub fn client_requests(&self, kind: Kind, api_version: &str) {
        if kind == Kind::Unary && api_version == "unknown" {
            self.client_requests_unary.inc();
            return;
        }
        let kind = if kind == Kind::Unary { "unary" } else { "stream" };
        let label = self.client_versions.label(api_version);
        self.client_requests.with_label_values(&[kind, label]).inc();
    }
}

/// Versions that clients have named. Each is a series of its own for the life of the process, and a client may name
/// anything: after [`Self::COUNT_MAX`] of them, and for texts that are too long, all others share one.
#[derive(Debug, Default)]
struct ClientVersions(RwLock<BTreeSet<Box<str>>>);

impl ClientVersions {
    const COUNT_MAX: usize = 64;
    const BYTES_MAX: usize = 32;
    const OTHER: &str = "other";

    fn label<'a>(&self, version: &'a str) -> &'a str {
        if self.0.read().contains(version) {
            return version;
        }
        let mut known = self.0.write();
        if version.len() > Self::BYTES_MAX || known.len() >= Self::COUNT_MAX {
            return Self::OTHER;
        }
        known.insert(version.into());
        version
    }
}

/// Durations of what the WAL and backend threads do.
#[derive(Debug)]
pub struct DiskTimes {
    /// `write` calls on the log.
    pub wal_write: Time,
    /// `fdatasync` calls on the log.
    pub wal_fsync: Time,
    /// Commits of the backend.
    pub backend_commit: Time,
    /// Defragmentations.
    pub defragment: Time,
    /// Snapshots streamed to clients.
    pub snapshot: Time,
}

/// A histogram of durations in seconds.
#[derive(Debug, Clone)]
pub struct Time(Histogram);

impl Time {
    /// Registers `name` with `count` buckets that double from `first` seconds.
    pub fn register(
        registry: &Registry,
        name: &str,
        help: &str,
        (first, count): (f64, usize),
    ) -> Result<Self, prometheus::Error> {
        let buckets = exponential_buckets(first, 2.0, count)?;
        let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
        registry.register(Box::new(histogram.clone()))?;
        Ok(Self(histogram))
    }

    /// Adds one duration.
    pub fn observe(&self, duration: Duration) {
        self.0.observe(duration.as_secs_f64());
    }
}

impl DiskTimes {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let register = |name, help| Time::register(registry, name, help, (0.001, 14));
        Ok(Self {
            wal_write: register(
                "etcd_disk_wal_write_duration_seconds",
                "The latency distributions of write calls to the WAL.",
            )?,
            wal_fsync: register(
                "etcd_disk_wal_fsync_duration_seconds",
                "The latency distributions of fsync called by WAL.",
            )?,
            backend_commit: register(
                "etcd_disk_backend_commit_duration_seconds",
                "The latency distributions of commit called by backend.",
            )?,
            defragment: Time::register(
                registry,
                "etcd_disk_backend_defrag_duration_seconds",
                "The latency distribution of backend defragmentation.",
                (0.1, 13),
            )?,
            snapshot: Time::register(
                registry,
                "etcd_disk_backend_snapshot_duration_seconds",
                "The latency distribution of backend snapshots.",
                (0.01, 17),
            )?,
        })
    }
}

impl HealthMetrics {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let last = GaugeVec::new(
            Opts::new("etcd_server_healthcheck", "The result of each kind of healthcheck."),
            &["type", "name"],
        )?;
        registry.register(Box::new(last.clone()))?;
        let runs = IntCounterVec::new(
            Opts::new(
                "etcd_server_healthchecks_total",
                "The total number of each kind of healthcheck.",
            ),
            &["type", "name", "status"],
        )?;
        registry.register(Box::new(runs.clone()))?;
        Ok(Self {
            success: counter(
                registry,
                "etcd_server_health_success",
                "The total number of successful health checks",
            )?,
            failures: counter(
                registry,
                "etcd_server_health_failures",
                "The total number of failed health checks",
            )?,
            last,
            runs,
        })
    }
}

/// Registers a counter without labels.
fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    let counter = IntCounter::new(name, help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_cannot_make_series_without_end() {
        let versions = ClientVersions::default();
        assert_eq!(versions.label("3.7.1"), "3.7.1");
        assert_eq!(versions.label(&"9".repeat(33)), "other");
        for number in 0..1000 {
            versions.label(&number.to_string());
        }
        assert_eq!(versions.label("1000"), "other");
        assert_eq!(versions.label("3.7.1"), "3.7.1");
        assert_eq!(versions.0.read().len(), ClientVersions::COUNT_MAX);
    }
}
