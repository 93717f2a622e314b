//! What is counted of the traffic between members: by the peer thread, and by what it starts.
//!
//! Whoever sends or receives much takes the figures of its peer once; counting is one relaxed addition then. Only those
//! who were members of the cluster have figures: nobody else can make series.

#![expect(clippy::cast_precision_loss, reason = "bytes and counts are far below 2^53")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::family::{Family, Label, counters, gauges, histograms, only};
use super::histogram::{Histogram, Shape, Snapshot};

/// Buckets of what takes a snapshot's time.
const SNAPSHOT: Shape = Shape::seconds(Duration::from_millis(100), 10);

/// Traffic with all other members.
#[derive(Debug)]
pub struct NetworkFigures {
    peers: Mutex<BTreeMap<u64, Arc<PeerFigures>>>,
    /// Bytes of messages that only show that a stream is alive; etcd counts them as those of member 0.
    signs_of_life: AtomicU64,
    /// Heartbeats that left late.
    late_heartbeats: AtomicU64,
    /// Snapshots that take the place of the state right now.
    installing: AtomicU64,
    /// Syncs of a received database.
    pub database_fsync: Histogram,
    /// Receptions of databases until they are durable.
    pub database_save: Histogram,
    promoted: AtomicU64,
    /// Promotions that failed, by reason; the reasons are texts of ours.
    not_promoted: Mutex<BTreeMap<String, u64>>,
}

/// Traffic with one other member.
#[derive(Debug)]
pub struct PeerFigures {
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    sent_failures: AtomicU64,
    received_failures: AtomicU64,
    is_active: AtomicBool,
    disconnected: AtomicU64,
    /// What a probe took.
    pub round_trip: Histogram,
    /// Snapshots to it.
    pub snapshots_sent: SnapshotFigures,
    /// Snapshots from it.
    pub snapshots_received: SnapshotFigures,
}

/// Snapshots in one direction.
#[derive(Debug)]
pub struct SnapshotFigures {
    under_way: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    took: Histogram,
}

impl Default for NetworkFigures {
    fn default() -> Self {
        Self {
            peers: Mutex::default(),
            signs_of_life: AtomicU64::new(0),
            late_heartbeats: AtomicU64::new(0),
            installing: AtomicU64::new(0),
            database_fsync: Histogram::new(Shape::seconds(Duration::from_millis(1), 14)),
            database_save: Histogram::new(SNAPSHOT),
            promoted: AtomicU64::new(0),
            not_promoted: Mutex::default(),
        }
    }
}

impl Default for PeerFigures {
    fn default() -> Self {
        Self {
            sent_bytes: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            sent_failures: AtomicU64::new(0),
            received_failures: AtomicU64::new(0),
            is_active: AtomicBool::new(false),
            disconnected: AtomicU64::new(0),
            round_trip: Histogram::new(Shape::seconds(Duration::from_micros(100), 16)),
            snapshots_sent: SnapshotFigures::default(),
            snapshots_received: SnapshotFigures::default(),
        }
    }
}

impl Default for SnapshotFigures {
    fn default() -> Self {
        Self {
            under_way: AtomicU64::new(0),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            took: Histogram::new(SNAPSHOT),
        }
    }
}

impl NetworkFigures {
    /// The figures of a member of the cluster.
    pub fn member(&self, id: u64) -> Arc<PeerFigures> {
        Arc::clone(self.peers.lock().entry(id).or_default())
    }

    /// The figures of whoever says that it is `id`, if that was ever a member.
    pub fn known(&self, id: u64) -> Option<Arc<PeerFigures>> {
        self.peers.lock().get(&id).cloned()
    }

    /// The members that have figures.
    pub(super) fn ids(&self) -> Vec<u64> {
        self.peers.lock().keys().copied().collect()
    }

    /// Notes that a member is reached; true if it was not.
    pub fn connected(&self, id: u64) -> bool {
        self.known(id).is_some_and(|peer| !peer.is_active.swap(true, Ordering::Relaxed))
    }

    /// Notes that a member is not reached; true if it was.
    pub fn disconnected(&self, id: u64) -> bool {
        let Some(peer) = self.known(id) else { return false };
        let was_active = peer.is_active.swap(false, Ordering::Relaxed);
        if was_active {
            peer.disconnected.fetch_add(1, Ordering::Relaxed);
        }
        was_active
    }

    /// Adds bytes that only showed that a stream is alive.
    pub fn signs_of_life(&self, bytes: u64) {
        self.signs_of_life.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a heartbeat that left late.
    pub fn late_heartbeat(&self) {
        self.late_heartbeats.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for a snapshot to take the place of the state, and tells meanwhile that it does.
    pub async fn installing<T>(&self, work: impl Future<Output = T>) -> T {
        let _under_way = UnderWay::begin(&self.installing);
        work.await
    }

    /// Counts a learner that was given a vote by this member.
    pub fn promoted(&self) {
        self.promoted.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one that was not.
    pub fn not_promoted(&self, reason: &str) {
        *self.not_promoted.lock().entry(reason.to_owned()).or_default() += 1;
    }

    /// What a scrape of member `own` shows.
    pub fn families(&self, own: &str) -> Vec<Family> {
        let peers = self.peers.lock();
        let peers: Vec<(String, &PeerFigures)> =
            peers.iter().map(|(id, figures)| (format!("{id:x}"), &**figures)).collect();
        let peers = Peers { own, peers: &peers };
        let mut families = self.own_families();
        families.extend(peers.connections());
        let signs_of_life = self.signs_of_life.load(Ordering::Relaxed);
        families.extend(peers.traffic(signs_of_life));
        families.push(peers.round_trips());
        families.extend(peers.snapshots(&SENT, |peer| &peer.snapshots_sent));
        families.extend(peers.snapshots(&RECEIVED, |peer| &peer.snapshots_received));
        families
    }

    fn own_families(&self) -> Vec<Family> {
        let get = |figure: &AtomicU64| only(figure.load(Ordering::Relaxed) as f64);
        let not_promoted = self.not_promoted.lock();
        let reasons = not_promoted.iter();
        vec![
            counters(
                "etcd_server_heartbeat_send_failures_total",
                "The total number of leader heartbeat send failures (likely overloaded from slow disk).",
                get(&self.late_heartbeats),
            ),
            gauges(
                "etcd_server_snapshot_apply_in_progress_total",
                "1 if the server is applying the incoming snapshot. 0 if none.",
                get(&self.installing),
            ),
            counters(
                "etcd_server_learner_promote_successes",
                "The total number of successful learner promotions while this member is leader.",
                get(&self.promoted),
            ),
            counters(
                "etcd_server_learner_promote_failures",
                "The total number of failed learner promotions (likely learner not ready) while this member is leader.",
                reasons.map(|(reason, count)| (vec![("Reason", reason.as_str())], *count as f64)),
            ),
            histograms(
                "etcd_snap_db_fsync_duration_seconds",
                "The latency distributions of fsyncing .snap.db file",
                only(self.database_fsync.snapshot()),
            ),
            histograms(
                "etcd_snap_db_save_total_duration_seconds",
                "The total latency distributions of v3 snapshot save",
                only(self.database_save.snapshot()),
            ),
        ]
    }
}

impl PeerFigures {
    /// Adds bytes on their way.
    pub fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Adds bytes that have come.
    pub fn received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts a message that is lost.
    pub fn sent_failed(&self) {
        self.sent_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a message that could not be taken.
    pub fn receive_failed(&self) {
        self.received_failures.fetch_add(1, Ordering::Relaxed);
    }
}

impl SnapshotFigures {
    /// Waits for a snapshot, and counts it.
    pub async fn counted<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let started = Instant::now();
        let under_way = UnderWay::begin(&self.under_way);
        let done = work.await;
        drop(under_way);
        if done.is_ok() {
            self.done.fetch_add(1, Ordering::Relaxed);
            self.took.observe(started.elapsed());
        } else {
            self.failed();
        }
        done
    }

    /// Counts one that did not even begin.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts what is under way, as long as it lives.
struct UnderWay<'a>(&'a AtomicU64);

impl<'a> UnderWay<'a> {
    fn begin(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The peers of one scrape, with their ids as labels have them.
#[derive(Clone, Copy)]
struct Peers<'a> {
    own: &'a str,
    peers: &'a [(String, &'a PeerFigures)],
}

/// Names and helps of what is counted of snapshots in one direction.
struct Direction {
    label: &'static str,
    under_way: (&'static str, &'static str),
    done: (&'static str, &'static str),
    failed: (&'static str, &'static str),
    took: (&'static str, &'static str),
}

const SENT: Direction = Direction {
    label: "To",
    under_way: (
        "etcd_network_snapshot_send_inflights_total",
        "Total number of inflight snapshot sends",
    ),
    done: ("etcd_network_snapshot_send_success", "Total number of successful snapshot sends"),
    failed: ("etcd_network_snapshot_send_failures", "Total number of snapshot send failures"),
    took: (
        "etcd_network_snapshot_send_total_duration_seconds",
        "Total latency distributions of v3 snapshot sends",
    ),
};

const RECEIVED: Direction = Direction {
    label: "From",
    under_way: (
        "etcd_network_snapshot_receive_inflights_total",
        "Total number of inflight snapshot receives",
    ),
    done: ("etcd_network_snapshot_receive_success", "Total number of successful snapshot receives"),
    failed: ("etcd_network_snapshot_receive_failures", "Total number of snapshot receive failures"),
    took: (
        "etcd_network_snapshot_receive_total_duration_seconds",
        "Total latency distributions of v3 snapshot receives",
    ),
};

impl<'a> Peers<'a> {
    /// One series for each peer of which something was counted.
    fn used(
        self,
        label: &'static str,
        figure: impl Fn(&PeerFigures) -> u64,
    ) -> impl Iterator<Item = (Vec<Label<'a>>, f64)> {
        self.peers.iter().filter_map(move |(id, peer)| {
            let count = figure(peer);
            (count > 0).then(|| (vec![(label, id.as_str())], count as f64))
        })
    }

    fn connections(self) -> [Family; 2] {
        let both = |id: &'a str| vec![("Local", self.own), ("Remote", id)];
        // A peer that was never there has no series.
        let seen = self.peers.iter().filter_map(move |(id, peer)| {
            let lost = peer.disconnected.load(Ordering::Relaxed);
            let is_active = peer.is_active.load(Ordering::Relaxed);
            (is_active || lost > 0).then_some((id.as_str(), is_active, lost))
        });
        let seen: Vec<_> = seen.collect();
        [
            gauges(
                "etcd_network_active_peers",
                "The current number of active peer connections.",
                seen.iter().map(|(id, is_active, _)| (both(id), f64::from(u8::from(*is_active)))),
            ),
            counters(
                "etcd_network_disconnected_peers_total",
                "The total number of disconnected peers.",
                seen.iter()
                    .filter(|(.., lost)| *lost > 0)
                    .map(|(id, _, lost)| (both(id), *lost as f64)),
            ),
        ]
    }

    fn traffic(self, signs_of_life: u64) -> [Family; 4] {
        let get = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let nobody = (signs_of_life > 0).then(|| (vec![("From", "0")], signs_of_life as f64));
        [
            counters(
                "etcd_network_peer_sent_bytes_total",
                "The total number of bytes sent to peers.",
                self.used("To", |peer| get(&peer.sent_bytes)),
            ),
            counters(
                "etcd_network_peer_received_bytes_total",
                "The total number of bytes received from peers.",
                nobody.into_iter().chain(self.used("From", |peer| get(&peer.received_bytes))),
            ),
            counters(
                "etcd_network_peer_sent_failures_total",
                "The total number of send failures from peers.",
                self.used("To", |peer| get(&peer.sent_failures)),
            ),
            counters(
                "etcd_network_peer_received_failures_total",
                "The total number of receive failures from peers.",
                self.used("From", |peer| get(&peer.received_failures)),
            ),
        ]
    }

    fn round_trips(self) -> Family {
        histograms(
            "etcd_network_peer_round_trip_time_seconds",
            "Round-Trip-Time histogram between peers",
            self.observed("To", |peer| &peer.round_trip),
        )
    }

    fn observed(
        self,
        label: &'static str,
        histogram: impl Fn(&'a PeerFigures) -> &'a Histogram,
    ) -> impl Iterator<Item = (Vec<Label<'a>>, Snapshot)> {
        self.peers.iter().filter_map(move |(id, peer)| {
            let snapshot = histogram(peer).snapshot();
            (snapshot.count() > 0).then(|| (vec![(label, id.as_str())], snapshot))
        })
    }

    fn snapshots(
        self,
        names: &Direction,
        figures: impl Fn(&'a PeerFigures) -> &'a SnapshotFigures,
    ) -> [Family; 4] {
        let Direction { label, under_way, done, failed, took } = *names;
        let get = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let begun = self.peers.iter().filter_map(|(id, peer)| {
            let figures = figures(peer);
            let now = get(&figures.under_way);
            let all = now + get(&figures.done) + get(&figures.failed);
            (all > 0).then(|| (vec![(label, id.as_str())], now as f64))
        });
        let count = |of: fn(&SnapshotFigures) -> &AtomicU64| {
            let counts = self.peers.iter().filter_map(|(id, peer)| {
                let count = get(of(figures(peer)));
                (count > 0).then(|| (vec![(label, id.as_str())], count as f64))
            });
            counts.collect::<Vec<_>>()
        };
        [
            gauges(under_way.0, under_way.1, begun),
            counters(done.0, done.1, count(|figures| &figures.done)),
            counters(failed.0, failed.1, count(|figures| &figures.failed)),
            histograms(took.0, took.1, self.observed(label, |peer| &figures(peer).took)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    fn shown(figures: &NetworkFigures) -> Vec<String> {
        let families = figures.families("a1");
        let families: Vec<_> =
            families.into_iter().filter(|family| !family.get_metric().is_empty()).collect();
        let text = prometheus::TextEncoder::new().encode_to_string(&families).expect("text");
        let lines = text.lines().filter(|line| line.starts_with("etcd_network"));
        lines.filter(|line| !line.contains("_bucket")).map(str::to_owned).collect()
    }

    #[test]
    fn only_members_have_series_and_only_of_what_was_counted() {
        let figures = NetworkFigures::default();
        let peer = figures.member(0xb2);
        assert!(shown(&figures).is_empty());
        assert!(figures.known(7).is_none() && !figures.connected(7) && !figures.disconnected(7));
        peer.sent(10);
        peer.sent(5);
        assert!(figures.connected(0xb2) && !figures.connected(0xb2));
        let active = r#"etcd_network_active_peers{Local="a1",Remote="b2"}"#;
        let sent = r#"etcd_network_peer_sent_bytes_total{To="b2"} 15"#;
        assert_eq!(shown(&figures), [format!("{active} 1"), sent.to_owned()]);
        assert!(figures.disconnected(0xb2) && !figures.disconnected(0xb2));
        let lost = r#"etcd_network_disconnected_peers_total{Local="a1",Remote="b2"} 1"#;
        assert_eq!(shown(&figures)[..2], [format!("{active} 0"), lost.to_owned()]);
    }

    #[test]
    fn snapshots_are_counted_by_their_ends() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let figures = NetworkFigures::default();
        let peer = figures.member(0xb2);
        let sent = &peer.snapshots_sent;
        let good = runtime.block_on(sent.counted(async { Ok::<_, ()>(3) }));
        let bad = runtime.block_on(sent.counted(async { Err::<(), _>(4) }));
        assert_eq!((good, bad), (Ok(3), Err(4)));
        let inflights = |count| {
            let line = format!(r#"etcd_network_snapshot_send_inflights_total{{To="b2"}} {count}"#);
            assert!(shown(&figures).contains(&line), "{line}");
        };
        {
            let given_up = sent.counted(std::future::pending::<Result<(), ()>>());
            let mut given_up = std::pin::pin!(given_up);
            let mut context = Context::from_waker(Waker::noop());
            assert!(given_up.as_mut().poll(&mut context).is_pending());
            inflights(1);
        }
        inflights(0);
        let shown = shown(&figures);
        for line in [
            r#"etcd_network_snapshot_send_success{To="b2"} 1"#,
            r#"etcd_network_snapshot_send_failures{To="b2"} 1"#,
            r#"etcd_network_snapshot_send_total_duration_seconds_count{To="b2"} 1"#,
        ] {
            assert!(shown.contains(&line.to_owned()), "{line} in {shown:#?}");
        }
    }
}
