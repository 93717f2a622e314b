//! What is measured of each request: one set of figures per serving thread, so that counting contends with nobody.

#![expect(clippy::cast_precision_loss, reason = "counters stay below 2^53")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use machine::{RequestKind, watch};
use node::Failure;

use super::apply::ApplyFigures;
use super::family::{Family, counters, histograms, only};
use super::histogram::{Histogram, Shape, Snapshot};
use crate::grpc::status::{Code, Status};

/// Buckets of a request, and of a turn of a watch stream.
pub(super) const REQUEST: Shape = Shape::seconds(Duration::from_millis(1), 14);
/// Buckets of a range.
const RANGE: Shape = Shape::seconds(Duration::from_micros(100), 20);

/// Values of a `success` label, by [`usize::from`] of the fact.
pub(super) const SUCCESS: [&str; 2] = ["false", "true"];

/// Of one serving thread.
#[derive(Debug)]
#[repr(align(128))]
pub struct RequestFigures {
    /// By kind, then by success.
    requests: [[Histogram; 2]; RequestKind::ALL.len()],
    read_only_txns: [Histogram; 2],
    /// By success.
    ranges: [Histogram; 2],
    proposals_failed: AtomicU64,
    read_indexes_failed: AtomicU64,
    read_indexes_slow: AtomicU64,
    slow_applies: AtomicU64,
    broken_watches: AtomicU64,
    broken_keep_alives: AtomicU64,
    /// What watch streams send.
    pub watch: WatchFigures,
}

/// What watch streams hold and how long they take to send.
#[derive(Debug)]
pub struct WatchFigures {
    streams: AtomicU64,
    watchers: AtomicU64,
    slow_watchers: AtomicU64,
    pending_events: AtomicU64,
    events_total: AtomicU64,
    events: Histogram,
    per_event: Histogram,
    control: Histogram,
    progress: Histogram,
}

impl Default for WatchFigures {
    fn default() -> Self {
        let [events, per_event, control, progress] =
            std::array::from_fn(|_| Histogram::new(REQUEST));
        let zero = || AtomicU64::new(0);
        Self {
            streams: zero(),
            watchers: zero(),
            slow_watchers: zero(),
            pending_events: zero(),
            events_total: zero(),
            events,
            per_event,
            control,
            progress,
        }
    }
}

impl WatchFigures {
    /// Adds a turn in which a stream has sent `events`, or control answers only.
    pub fn sent(&self, events: usize, took: Duration) {
        match u32::try_from(events) {
            Ok(0) => self.control.observe(took),
            Ok(count) => {
                self.events.observe(took);
                self.per_event.observe(took / count);
            }
            Err(_more) => self.events.observe(took),
        }
    }

    /// Takes over what the thread's hub holds.
    pub fn set(&self, stats: &watch::Stats) {
        self.streams.store(stats.streams as u64, Ordering::Relaxed);
        self.watchers.store(stats.watchers as u64, Ordering::Relaxed);
        self.slow_watchers.store(stats.slow_watchers as u64, Ordering::Relaxed);
        self.pending_events.store(stats.pending_events as u64, Ordering::Relaxed);
        self.events_total.store(stats.events_total, Ordering::Relaxed);
    }

    /// Adds a round of periodic progress notifications.
    pub fn progressed(&self, took: Duration) {
        self.progress.observe(took);
    }
}

impl Default for RequestFigures {
    fn default() -> Self {
        let both = |shape| std::array::from_fn(|_| Histogram::new(shape));
        Self {
            requests: std::array::from_fn(|_| both(REQUEST)),
            read_only_txns: both(REQUEST),
            ranges: both(RANGE),
            proposals_failed: AtomicU64::new(0),
            read_indexes_failed: AtomicU64::new(0),
            read_indexes_slow: AtomicU64::new(0),
            slow_applies: AtomicU64::new(0),
            broken_watches: AtomicU64::new(0),
            broken_keep_alives: AtomicU64::new(0),
            watch: WatchFigures::default(),
        }
    }
}

impl RequestFigures {
    /// Adds a request that went, or should have gone, through the log, and how long its caller waited.
    pub fn proposed(&self, kind: RequestKind, is_ok: bool, took: Duration) {
        self.requests[kind as usize][usize::from(is_ok)].observe(took);
    }

    /// Adds a request whose outcome is not known.
    pub fn proposal_failed(&self) {
        self.proposals_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds a range; `reading` is the part of `took` after it was known to be linearizable.
    pub fn ranged(&self, is_ok: bool, took: Duration, reading: Duration) {
        self.requests[RequestKind::Range as usize][usize::from(is_ok)].observe(took);
        self.ranges[usize::from(is_ok)].observe(reading);
    }

    /// Adds a range that could not be made linearizable.
    pub fn unread_range(&self, took: Duration) {
        self.requests[RequestKind::Range as usize][0].observe(took);
    }

    /// Adds a transaction that did not go through the log.
    pub fn read_only_txn(&self, is_ok: bool, took: Duration) {
        self.read_only_txns[usize::from(is_ok)].observe(took);
    }

    /// Adds a read that could not be made linearizable.
    pub fn read_index_failed(&self, failure: Failure) {
        let figure = match failure {
            Failure::TimedOut | Failure::TimedOutLeaderFail | Failure::TimedOutConnectionLost => {
                &self.read_indexes_slow
            }
            Failure::TooManyRequests
            | Failure::LeaderChanged
            | Failure::NoLeader
            | Failure::NotLeader
            | Failure::NoTransferee
            | Failure::TransferTimedOut
            | Failure::SnapshotNotTaken
            | Failure::LearnerNotReady
            | Failure::MemberNotFound
            | Failure::NotPrimary
            | Failure::DefragmentGivenUp
            | Failure::Stopped => &self.read_indexes_failed,
        };
        figure.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds a watch stream that ends because of what its client has sent. One whose client went away is not broken.
    pub fn watch_broken(&self, status: &Status) {
        self.broken_watches.fetch_add(u64::from(status.code != Code::Canceled), Ordering::Relaxed);
    }

    /// Adds a keep-alive stream likewise.
    pub fn keep_alive_broken(&self, status: &Status) {
        let is_broken = u64::from(status.code != Code::Canceled);
        self.broken_keep_alives.fetch_add(is_broken, Ordering::Relaxed);
    }

    /// Adds a read that took longer than an apply should.
    pub fn slow_apply(&self) {
        self.slow_applies.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the watch hubs of all threads hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WatchTotals {
    pub(super) streams: u64,
    pub(super) watchers: u64,
    pub(super) slow_watchers: u64,
    pub(super) pending_events: u64,
    pub(super) events_total: u64,
}

impl WatchTotals {
    pub(super) fn of(threads: &[RequestFigures]) -> Self {
        let total = |figure: fn(&WatchFigures) -> &AtomicU64| {
            threads.iter().map(|thread| figure(&thread.watch).load(Ordering::Relaxed)).sum()
        };
        Self {
            streams: total(|watch| &watch.streams),
            watchers: total(|watch| &watch.watchers),
            slow_watchers: total(|watch| &watch.slow_watchers),
            pending_events: total(|watch| &watch.pending_events),
            events_total: total(|watch| &watch.events_total),
        }
    }
}

/// What a scrape shows of all threads together, those of the node among them.
pub(super) fn families(threads: &[RequestFigures], node: &ApplyFigures) -> Vec<Family> {
    let total = |figure: fn(&RequestFigures) -> &AtomicU64| {
        threads.iter().map(|thread| figure(thread).load(Ordering::Relaxed)).sum::<u64>()
    };
    let mut families = watch_families(threads);
    families.push(requests(threads, node));
    families.push(by_success(
        "etcd_server_range_duration_seconds",
        "The latency distributions of txn.Range",
        |success| sum(threads, |thread| &thread.ranges[success]),
    ));
    let named = [
        (
            "etcd_server_proposals_failed_total",
            "The total number of failed proposals seen.",
            total(|thread| &thread.proposals_failed),
        ),
        (
            "etcd_server_read_indexes_failed_total",
            "The total number of failed read indexes seen.",
            total(|thread| &thread.read_indexes_failed),
        ),
        (
            "etcd_server_slow_read_indexes_total",
            "The total number of pending read indexes not in sync with leader's or timed out read index requests.",
            total(|thread| &thread.read_indexes_slow),
        ),
        (
            "etcd_server_slow_apply_total",
            "The total number of slow apply requests (likely overloaded from slow disk).",
            node.slow_applies() + total(|thread| &thread.slow_applies),
        ),
    ];
    families.extend(named.map(|(name, help, count)| counters(name, help, only(count as f64))));
    let broken = [
        ("lease-keepalive", total(|thread| &thread.broken_keep_alives)),
        ("watch", total(|thread| &thread.broken_watches)),
    ];
    let series = broken.into_iter().filter(|(_, count)| *count > 0);
    families.push(counters(
        "etcd_network_server_stream_failures_total",
        "The total number of stream failures from the local server.",
        series.map(|(api, count)| (vec![("API", api), ("Type", "receive")], count as f64)),
    ));
    families
}

fn requests(threads: &[RequestFigures], node: &ApplyFigures) -> Family {
    let kinds = RequestKind::ALL.into_iter().flat_map(|kind| [0, 1].map(|success| (kind, success)));
    let logged = kinds.map(|(kind, success)| {
        let mut all = sum(threads, |thread| &thread.requests[kind as usize][success]);
        if success == 1 {
            all.add(node.own_requests(kind));
        }
        (kind.name(), success, all)
    });
    let read_only = [0, 1].map(|success| {
        let snapshot = sum(threads, |thread| &thread.read_only_txns[success]);
        ("ReadonlyTxn", success, snapshot)
    });
    let used = logged.chain(read_only).filter(|(_, _, snapshot)| snapshot.count() > 0);
    histograms(
        "etcd_server_request_duration_seconds",
        "Response latency distribution in seconds for each type.",
        used.map(|(name, success, snapshot)| {
            (vec![("success", SUCCESS[success]), ("type", name)], snapshot)
        }),
    )
}

fn watch_families(threads: &[RequestFigures]) -> Vec<Family> {
    type Figure = fn(&WatchFigures) -> &Histogram;
    let named: [(&str, &str, Figure); 4] = [
        (
            "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds",
            "The total duration in seconds of running through the send loop watch stream response all events.",
            |watch| &watch.events,
        ),
        (
            "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds",
            "The average duration in seconds of running through the send loop watch stream response, per event.",
            |watch| &watch.per_event,
        ),
        (
            "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds",
            "The total duration in seconds of running through the send loop control stream response.",
            |watch| &watch.control,
        ),
        (
            "etcd_debugging_server_watch_send_loop_progress_duration_seconds",
            "The total duration in seconds of running through the progress loop control stream response.",
            |watch| &watch.progress,
        ),
    ];
    let shown = named.iter().map(|(name, help, figure)| {
        histograms(name, help, only(sum(threads, |thread| figure(&thread.watch))))
    });
    shown.collect()
}

/// A family by success; outcomes that did not happen are absent.
fn by_success(name: &str, help: &str, snapshot: impl Fn(usize) -> Snapshot) -> Family {
    let series = [0, 1].map(|success| (vec![("success", SUCCESS[success])], snapshot(success)));
    histograms(name, help, series.into_iter().filter(|(_, snapshot)| snapshot.count() > 0))
}

fn sum(threads: &[RequestFigures], figure: impl Fn(&RequestFigures) -> &Histogram) -> Snapshot {
    let (first, rest) = threads.split_first().expect("there is a serving thread");
    let mut sum = figure(first).snapshot();
    for thread in rest {
        sum.add(figure(thread));
    }
    sum
}
