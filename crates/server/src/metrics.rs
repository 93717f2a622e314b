//! etcd's metrics (`spec/metrics.md`): what the shell counts itself, and what it reads from the core when asked.
//!
//! Counters on the path of a request are resolved once per method, so that counting is one relaxed addition.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use prometheus::{GaugeVec, IntCounter, IntCounterVec, Opts, Registry, TextEncoder};

use crate::config::Config;
use crate::service::Services;
use family::{Family, counters, gauges, only};
use requests::WatchTotals;

mod apply;
mod clients;
mod core;
mod disk;
mod family;
mod grpc;
mod histogram;
mod network;
mod requests;

pub use apply::ApplyFigures;
pub use clients::{ClientRequests, KnownClients};
pub use disk::DiskWork;
pub use grpc::GrpcMetrics;
pub use histogram::Histogram;
pub use network::{NetworkFigures, PeerFigures};
pub use requests::{RequestFigures, WatchFigures};

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Calls and messages by method.
    pub grpc: GrpcMetrics,
    /// Disk work.
    pub disk: Arc<DiskWork>,
    /// What the node's thread measures.
    pub apply: Arc<ApplyFigures>,
    /// Traffic with other members.
    pub network: Arc<NetworkFigures>,
    /// Calls by the client's version.
    pub clients: ClientRequests,
    /// By serving thread.
    threads: Box<[RequestFigures]>,
    fixed: [Family; 2],
    health: HealthMetrics,
    read_faults: IntCounter,
    scrapes: [AtomicU64; 2],
    /// Cluster versions that were shown, by major and minor number.
    cluster_versions: Mutex<BTreeSet<(u64, u64)>>,
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
        // One more for the peer thread.
        let threads = config.memory.serving_threads.max(1) + 1;
        Ok(Self {
            grpc: GrpcMetrics::new(&registry, config.monitoring.extensive_metrics)?,
            disk: Arc::default(),
            apply: Arc::default(),
            network: Arc::default(),
            clients: ClientRequests::default(),
            threads: (0..threads).map(|_| RequestFigures::default()).collect(),
            fixed: core::fixed(config),
            health: HealthMetrics::new(&registry)?,
            read_faults: counter(
                &registry,
                "quorate_read_faults_total",
                "Reads of the backend that failed because of the disk or damaged data.",
            )?,
            registry,
            scrapes: Default::default(),
            cluster_versions: Mutex::default(),
        })
    }

    /// Encodes everything as it is now, in the text format 0.0.4.
    pub fn encode(&self, services: &Services) -> Result<String, prometheus::Error> {
        let mut families = self.registry.gather();
        families.extend(core::families(services));
        families.extend(self.disk.families());
        families.extend(self.apply.families());
        let own = format!("{:x}", services.handle().gate().member());
        families.extend(self.network.families(&own));
        families.extend(requests::families(&self.threads, &self.apply));
        families.extend(self.fixed.iter().cloned());
        families.push(self.clients.family());
        families.extend(self.scrapes());
        // A name without series does not appear.
        families.retain(|family| !family.get_metric().is_empty());
        families.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        let encoded = TextEncoder::new().encode_to_string(&families);
        self.scrapes[usize::from(encoded.is_ok())].fetch_add(1, Ordering::Relaxed);
        encoded
    }

    /// What was counted of scrapes before this one, which is the one under way.
    fn scrapes(&self) -> [Family; 2] {
        let count = |is_ok: bool| {
            u32::try_from(self.scrapes[usize::from(is_ok)].load(Ordering::Relaxed))
                .map_or(f64::INFINITY, f64::from)
        };
        let by_code = [("200", count(true)), ("500", count(false)), ("503", 0.0)];
        [
            counters(
                "promhttp_metric_handler_requests_total",
                "Total number of scrapes by HTTP status code.",
                by_code.map(|(code, count)| (vec![("code", code)], count)),
            ),
            gauges(
                "promhttp_metric_handler_requests_in_flight",
                "Current number of scrapes being served.",
                only(1.0),
            ),
        ]
    }

    /// What serving thread number `thread` counts in.
    pub fn thread(&self, thread: u8) -> &RequestFigures {
        &self.threads[usize::from(thread)]
    }

    fn watch_totals(&self) -> WatchTotals {
        WatchTotals::of(&self.threads)
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
