//! What the node's thread measures: each request that is applied, and what the lessor counts.

#![expect(clippy::cast_precision_loss, reason = "counters stay below 2^53")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use machine::{Outcome, Reply, RequestKind, lease};

use super::family::{Family, counters, histograms, only};
use super::histogram::{Histogram, Shape};
use super::requests::{REQUEST, SUCCESS};

/// Figures that only the node's thread changes.
#[derive(Debug)]
pub struct ApplyFigures {
    /// By kind, then by success.
    applies: [[Histogram; 2]; RequestKind::ALL.len()],
    /// Requests of the member's own, by kind.
    own_requests: [Histogram; RequestKind::ALL.len()],
    lease_ttls: Histogram,
    leases_granted: AtomicU64,
    leases_revoked: AtomicU64,
    leases_renewed: AtomicU64,
    leases_expired: AtomicU64,
    slow: AtomicU64,
}

impl Default for ApplyFigures {
    fn default() -> Self {
        let shape = Shape::seconds(Duration::from_micros(100), 20);
        Self {
            applies: std::array::from_fn(|_| std::array::from_fn(|_| Histogram::new(shape))),
            own_requests: std::array::from_fn(|_| Histogram::new(REQUEST)),
            lease_ttls: Histogram::new(Shape::numbers(24)),
            leases_granted: AtomicU64::new(0),
            leases_revoked: AtomicU64::new(0),
            leases_renewed: AtomicU64::new(0),
            leases_expired: AtomicU64::new(0),
            slow: AtomicU64::new(0),
        }
    }
}

impl ApplyFigures {
    /// Adds a request that was applied. Entries without one are passed over.
    pub fn applied(&self, kind: RequestKind, outcome: &Outcome, took: Duration) {
        if kind == RequestKind::NoOp {
            return;
        }
        self.applies[kind as usize][usize::from(outcome.result.is_ok())].observe(took);
        if let Ok(Reply::LeaseGrant { ttl, .. }) = &outcome.result {
            self.lease_ttls.observe_number(ttl.unsigned_abs());
        }
    }

    /// Adds a request of the member's own that was answered.
    pub fn own_answered(&self, kind: RequestKind, took: Duration) {
        self.own_requests[kind as usize].observe(took);
    }

    /// Requests of the member's own of one kind.
    pub(super) fn own_requests(&self, kind: RequestKind) -> &Histogram {
        &self.own_requests[kind as usize]
    }

    /// Adds an apply that took longer than it should.
    pub fn slow(&self) {
        self.slow.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts those.
    pub fn slow_applies(&self) -> u64 {
        self.slow.load(Ordering::Relaxed)
    }

    /// Takes over what the lessor counts.
    pub fn set_leases(&self, stats: &lease::Stats) {
        self.leases_granted.store(stats.granted, Ordering::Relaxed);
        self.leases_revoked.store(stats.revoked, Ordering::Relaxed);
        self.leases_renewed.store(stats.renewed, Ordering::Relaxed);
        self.leases_expired.store(stats.expired, Ordering::Relaxed);
    }

    /// What a scrape shows.
    pub(super) fn families(&self) -> Vec<Family> {
        let series = RequestKind::ALL
            .into_iter()
            .flat_map(|kind| [0, 1].map(|success| (kind, success)))
            .map(|(kind, success)| {
                let labels =
                    vec![("op", kind.name()), ("success", SUCCESS[success]), ("version", "v3")];
                (labels, self.applies[kind as usize][success].snapshot())
            });
        let get = |figure: &AtomicU64| only(figure.load(Ordering::Relaxed) as f64);
        vec![
            histograms(
                "etcd_server_apply_duration_seconds",
                "The latency distributions of v2 apply called by backend.",
                series.filter(|(_, snapshot)| snapshot.count() > 0),
            ),
            histograms(
                "etcd_debugging_lease_ttl_total",
                "Bucketed histogram of lease TTLs.",
                only(self.lease_ttls.snapshot()),
            ),
            counters(
                "etcd_debugging_lease_granted_total",
                "The total number of granted leases.",
                get(&self.leases_granted),
            ),
            counters(
                "etcd_debugging_lease_revoked_total",
                "The total number of revoked leases.",
                get(&self.leases_revoked),
            ),
            counters(
                "etcd_debugging_lease_renewed_total",
                "The number of renewed leases seen by the leader.",
                get(&self.leases_renewed),
            ),
            counters(
                "etcd_debugging_server_lease_expired_total",
                "The total number of expired leases.",
                get(&self.leases_expired),
            ),
        ]
    }
}
