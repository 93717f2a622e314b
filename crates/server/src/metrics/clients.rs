//! Calls by the version that clients say they have.

#![expect(clippy::cast_precision_loss, reason = "counters stay below 2^53")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::family::{Family, counters};
use crate::grpc::method::Kind;

/// Values of the `type` label; the first is that of unary calls.
const KINDS: [&str; 2] = ["unary", "stream"];

/// Calls of clients of one version, by kind.
type ByKind = [AtomicU64; 2];

/// Versions that clients have named. Each is a series of its own for the life of the process, and a client may name
/// anything: after `COUNT_MAX` of them, and for texts that are too long, all others share one.
#[derive(Debug, Default)]
pub struct ClientRequests(Mutex<BTreeMap<Box<str>, Arc<ByKind>>>);

impl ClientRequests {
    const COUNT_MAX: usize = 64;
    const BYTES_MAX: usize = 32;
    const OTHER: &str = "other";

    fn of(&self, version: &str) -> Arc<ByKind> {
        let mut known = self.0.lock();
        if let Some(by_kind) = known.get(version) {
            return Arc::clone(by_kind);
        }
        // One place is kept for the others.
        let has_place = version.len() <= Self::BYTES_MAX && known.len() < Self::COUNT_MAX - 1;
        let label = if !has_place { Self::OTHER } else { version };
        Arc::clone(known.entry(label.into()).or_default())
    }

    /// What a scrape shows.
    pub(super) fn family(&self) -> Family {
        let known = self.0.lock();
        let series = known.iter().flat_map(|(version, by_kind)| {
            KINDS.iter().zip(by_kind.iter()).filter_map(|(kind, count)| {
                let count = count.load(Ordering::Relaxed);
                let labels = vec![("client_api_version", &**version), ("type", *kind)];
                (count > 0).then_some((labels, count as f64))
            })
        });
        counters(
            "etcd_server_client_requests_total",
            "The total number of client requests per client version.",
            series,
        )
    }
}

/// One serving thread's way to the counters, without a lock for versions it has met.
#[derive(Debug, Default)]
pub struct KnownClients(RefCell<Vec<(Box<str>, Arc<ByKind>)>>);

impl KnownClients {
    /// Counts a call by the client's version.
    pub fn count(&self, all: &ClientRequests, kind: Kind, version: &str) {
        let kind = usize::from(kind != Kind::Unary);
        let mut known = self.0.borrow_mut();
        if let Some((_, by_kind)) = known.iter().find(|(met, _)| **met == *version) {
            by_kind[kind].fetch_add(1, Ordering::Relaxed);
            return;
        }
        let by_kind = all.of(version);
        by_kind[kind].fetch_add(1, Ordering::Relaxed);
        if known.len() < ClientRequests::COUNT_MAX && version.len() <= ClientRequests::BYTES_MAX {
            known.push((version.into(), by_kind));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_count_by_kind_and_version() {
        let (all, known) = (ClientRequests::default(), KnownClients::default());
        for _ in 0..3 {
            known.count(&all, Kind::Unary, "3.7");
        }
        known.count(&all, Kind::BidiStream, "3.7");
        let family = all.family();
        let counts: Vec<_> = family
            .get_metric()
            .iter()
            .map(|metric| metric.get_counter().get_value().to_string())
            .collect();
        assert_eq!(counts, ["3", "1"]);
    }

    #[test]
    fn clients_cannot_make_series_without_end() {
        let (all, known) = (ClientRequests::default(), KnownClients::default());
        known.count(&all, Kind::Unary, "3.7.1");
        known.count(&all, Kind::Unary, &"9".repeat(33));
        for number in 0..1000 {
            known.count(&all, Kind::Unary, &number.to_string());
        }
        known.count(&all, Kind::Unary, "3.7.1");
        assert!(all.0.lock().len() <= ClientRequests::COUNT_MAX);
        assert_eq!(all.of("3.7.1")[0].load(Ordering::Relaxed), 2);
        assert!(all.of("other")[0].load(Ordering::Relaxed) > 900);
        assert!(known.0.borrow().len() <= ClientRequests::COUNT_MAX);
    }
}
