//! What is measured of the work on disks: by the WAL and backend threads, and by the services that read a lot.

#![expect(clippy::cast_precision_loss, reason = "bytes and times are far below 2^53")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use machine::JobKind;

use super::family::{Family, gauges, histograms, only};
use super::histogram::{Histogram, Shape};

/// Buckets of a single write or sync.
const WRITE: Shape = Shape::seconds(Duration::from_millis(1), 14);
/// Buckets of what goes through the whole store.
const HASH: Shape = Shape::seconds(Duration::from_millis(10), 15);

/// Durations of disk work, and what it has come to.
#[derive(Debug)]
pub struct DiskWork {
    /// `write` calls on the log.
    pub wal_write: Histogram,
    /// `fdatasync` calls on the log.
    pub wal_fsync: Histogram,
    /// Bytes written to the log.
    pub wal_bytes: AtomicU64,
    /// Commits of the backend.
    pub backend_commit: Histogram,
    /// Defragmentations.
    pub defragment: Histogram,
    /// Defragmentations under way.
    pub defragmenting: AtomicU64,
    /// Snapshots streamed to clients.
    pub snapshot: Histogram,
    /// Encoding a raft snapshot's file.
    pub snap_encode: Histogram,
    /// Writing it until it is durable.
    pub snap_fsync: Histogram,
    /// Both.
    pub snap_save: Histogram,
    /// Hashes of the whole file's content.
    pub hash: Histogram,
    /// Hashes of the keys at a revision.
    pub hash_kv: Histogram,
    compact_index: Histogram,
    compact_records: Histogram,
    compaction: Histogram,
    /// Seconds since 1970 when the last compaction ended; 0 when there was none since the start.
    compacted_at: AtomicU64,
}

impl Default for DiskWork {
    fn default() -> Self {
        let pause = Shape::millis(Duration::from_millis(1), 13);
        Self {
            wal_write: Histogram::new(WRITE),
            wal_fsync: Histogram::new(WRITE),
            wal_bytes: AtomicU64::new(0),
            backend_commit: Histogram::new(WRITE),
            defragment: Histogram::new(Shape::seconds(Duration::from_millis(100), 13)),
            defragmenting: AtomicU64::new(0),
            snapshot: Histogram::new(Shape::seconds(Duration::from_millis(10), 17)),
            snap_encode: Histogram::new(WRITE),
            snap_fsync: Histogram::new(WRITE),
            snap_save: Histogram::new(WRITE),
            hash: Histogram::new(HASH),
            hash_kv: Histogram::new(HASH),
            compact_index: Histogram::new(Shape::millis(Duration::from_micros(500), 14)),
            compact_records: Histogram::new(pause),
            compaction: Histogram::new(Shape::millis(Duration::from_millis(100), 14)),
            compacted_at: AtomicU64::new(0),
        }
    }
}

impl DiskWork {
    /// Adds a job of the backend thread.
    pub fn job_done(&self, kind: JobKind, took: Duration) {
        match kind {
            JobKind::Commit => self.backend_commit.observe(took),
            JobKind::CompactIndex => self.compact_index.observe(took),
            JobKind::CompactRecords => self.compact_records.observe(took),
            // Timed as a whole: it comes in steps.
            JobKind::Defragment | JobKind::Install => {}
        }
    }

    /// Adds a compaction that has just ended and began at `started`.
    pub fn compacted(&self, started: Instant) {
        self.compaction.observe(started.elapsed());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.compacted_at.store(now.as_secs(), Ordering::Relaxed);
    }

    /// Waits for a defragmentation: times it, and tells meanwhile that it is under way.
    pub async fn defragmenting<T>(&self, work: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let _under_way = UnderWay::begin(&self.defragmenting);
        let done = work.await;
        self.defragment.observe(started.elapsed());
        done
    }

    /// What a scrape shows.
    pub fn families(&self) -> Vec<Family> {
        let mut families = self.histograms();
        families.push(histograms(
            "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
            "Bucketed histogram of db compaction total duration.",
            only(self.compaction.snapshot()),
        ));
        let get = |figure: &AtomicU64| figure.load(Ordering::Relaxed) as f64;
        families.push(gauges(
            "etcd_disk_wal_write_bytes_total",
            "Total number of bytes written in WAL.",
            only(get(&self.wal_bytes)),
        ));
        families.push(gauges(
            "etcd_disk_defrag_inflight",
            "Whether or not defrag is active on the member. 1 means active, 0 means not.",
            only(get(&self.defragmenting)),
        ));
        families.push(gauges(
            "etcd_debugging_mvcc_db_compaction_last",
            "The unix time of the last db compaction. Resets to 0 on start.",
            only(get(&self.compacted_at)),
        ));
        families
    }

    fn histograms(&self) -> Vec<Family> {
        let named: [(&str, &str, &Histogram); 12] = [
            (
                "etcd_disk_wal_write_duration_seconds",
                "The latency distributions of write called by WAL.",
                &self.wal_write,
            ),
            (
                "etcd_disk_wal_fsync_duration_seconds",
                "The latency distributions of fsync called by WAL.",
                &self.wal_fsync,
            ),
            (
                "etcd_disk_backend_commit_duration_seconds",
                "The latency distributions of commit called by backend.",
                &self.backend_commit,
            ),
            (
                "etcd_disk_backend_defrag_duration_seconds",
                "The latency distribution of backend defragmentation.",
                &self.defragment,
            ),
            (
                "etcd_disk_backend_snapshot_duration_seconds",
                "The latency distribution of backend snapshots.",
                &self.snapshot,
            ),
            (
                "etcd_debugging_snap_save_marshalling_duration_seconds",
                "The marshalling cost distributions of save called by snapshot.",
                &self.snap_encode,
            ),
            (
                "etcd_snap_fsync_duration_seconds",
                "The latency distributions of fsync called by snap.",
                &self.snap_fsync,
            ),
            (
                "etcd_debugging_snap_save_total_duration_seconds",
                "The total latency distributions of save called by snapshot.",
                &self.snap_save,
            ),
            (
                "etcd_mvcc_hash_duration_seconds",
                "The latency distribution of storage hash operation.",
                &self.hash,
            ),
            (
                "etcd_mvcc_hash_rev_duration_seconds",
                "The latency distribution of storage hash by revision operation.",
                &self.hash_kv,
            ),
            (
                "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
                "Bucketed histogram of index compaction pause duration.",
                &self.compact_index,
            ),
            (
                "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
                "Bucketed histogram of db compaction pause duration.",
                &self.compact_records,
            ),
        ];
        named
            .iter()
            .map(|(name, help, histogram)| histograms(name, help, only(histogram.snapshot())))
            .collect()
    }
}

/// Counts something as under way until it is dropped: a caller may go away meanwhile.
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
