//! Histograms with buckets that double, cheap enough for the path of every request.
//!
//! An observation is two relaxed additions and no search: the bucket follows from the value's length in bits. Values are
//! whole units (nanoseconds, or seconds of a lease); only a scrape turns them into what etcd shows.

#![expect(
    clippy::cast_precision_loss,
    reason = "Prometheus knows only floats; above 2^53 they are near enough"
)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::proto;

/// Buckets that a histogram may have, without the last one, which has no bound.
const BUCKETS_MAX: usize = 24;

/// What a histogram's buckets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The first bucket's upper bound, in units; each further one's is twice the one before.
    first: u64,
    /// Bounded buckets.
    count: usize,
    /// Units in one of what is shown.
    scale: u64,
}

impl Shape {
    /// Durations shown in seconds.
    pub const fn seconds(first: Duration, count: usize) -> Self {
        Self::new(nanos(first), count, 1_000_000_000)
    }

    /// Durations shown in milliseconds.
    pub const fn millis(first: Duration, count: usize) -> Self {
        Self::new(nanos(first), count, 1_000_000)
    }

    /// Whole numbers from 1.
    pub const fn numbers(count: usize) -> Self {
        Self::new(1, count, 1)
    }

    const fn new(first: u64, count: usize, scale: u64) -> Self {
        assert!(first > 0 && count <= BUCKETS_MAX);
        Self { first, count, scale }
    }

    /// The number of the first bucket whose bound is not below `value`; `count` for the unbounded one.
    fn bucket(self, value: u64) -> usize {
        // value <= first * 2^k exactly if (value - 1) / first < 2^k, that is if its bits are at most k.
        let bits = u64::BITS - (value.saturating_sub(1) / self.first).leading_zeros();
        (bits as usize).min(self.count)
    }
}

/// Nanoseconds of a short constant.
const fn nanos(duration: Duration) -> u64 {
    duration.as_secs() * 1_000_000_000 + duration.subsec_nanos() as u64
}

/// Counts observations by size.
#[derive(Debug)]
pub struct Histogram {
    shape: Shape,
    /// The last one used has no bound. Not cumulative.
    buckets: [AtomicU64; BUCKETS_MAX + 1],
    sum: AtomicU64,
}

impl Histogram {
    /// Makes an empty one.
    pub fn new(shape: Shape) -> Self {
        Self { shape, buckets: Default::default(), sum: AtomicU64::new(0) }
    }

    /// Adds a duration, to one that counts durations.
    pub fn observe(&self, duration: Duration) {
        self.observe_number(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds a number of units.
    pub fn observe_number(&self, value: u64) {
        self.buckets[self.shape.bucket(value)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Reads it.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::empty(self.shape);
        snapshot.add(self);
        snapshot
    }
}

/// A histogram, or the sum of several, as it was.
#[derive(Debug, Clone)]
pub struct Snapshot {
    shape: Shape,
    buckets: [u64; BUCKETS_MAX + 1],
    sum: u64,
}

impl Snapshot {
    /// Nothing yet.
    pub fn empty(shape: Shape) -> Self {
        Self { shape, buckets: [0; BUCKETS_MAX + 1], sum: 0 }
    }

    /// Adds what `other`, which has the same shape, holds now.
    pub fn add(&mut self, other: &Histogram) {
        debug_assert_eq!(self.shape, other.shape, "only equal histograms add up");
        for (count, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *count += more.load(Ordering::Relaxed);
        }
        self.sum = self.sum.wrapping_add(other.sum.load(Ordering::Relaxed));
    }

    /// Counts the observations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// As a scrape shows it.
    pub fn shown(&self) -> proto::Histogram {
        let Shape { first, count, scale } = self.shape;
        // The order of these operations gives etcd's own bounds: doubled from the first.
        let mut bound = first as f64 / scale as f64;
        let mut cumulative = 0;
        let mut buckets = Vec::with_capacity(count);
        for observed in &self.buckets[..count] {
            cumulative += observed;
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(cumulative);
            buckets.push(bucket);
            bound *= 2.0;
        }
        let mut shown = proto::Histogram::default();
        shown.set_bucket(buckets);
        shown.set_sample_count(self.count());
        shown.set_sample_sum(self.sum as f64 / scale as f64);
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_first_bucket_that_holds_it() {
        let shape = Shape::seconds(Duration::from_millis(1), 3);
        let micros = |n: u64| shape.bucket(n * 1000);
        assert_eq!((micros(0), micros(1), micros(1000)), (0, 0, 0));
        assert_eq!((shape.bucket(1_000_001), micros(2000)), (1, 1));
        assert_eq!((shape.bucket(2_000_001), micros(4000)), (2, 2));
        assert_eq!((shape.bucket(4_000_001), shape.bucket(u64::MAX)), (3, 3));
        for value in 1..200_u64 {
            let shape = Shape::new(3, 5, 1);
            let by_search = (0..5).find(|k| value <= 3 << k).unwrap_or(5);
            assert_eq!(shape.bucket(value), by_search, "{value}");
        }
    }

    #[test]
    fn what_is_shown_is_cumulative_and_in_the_unit_asked_for() {
        let histogram = Histogram::new(Shape::seconds(Duration::from_millis(1), 14));
        for ms in [1, 3, 20_000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let shown = histogram.snapshot().shown();
        let bounds: Vec<_> =
            shown.get_bucket().iter().map(|bucket| bucket.upper_bound().to_string()).collect();
        assert_eq!(bounds[..3], ["0.001", "0.002", "0.004"]);
        assert_eq!(bounds[13], "8.192");
        let counts: Vec<_> =
            shown.get_bucket().iter().map(proto::Bucket::cumulative_count).collect();
        assert_eq!(counts[..3], [1, 1, 2]);
        assert_eq!((counts[13], shown.get_sample_count()), (2, 3));
        assert!((shown.get_sample_sum() - 20.004).abs() < 1e-9);
    }

    #[test]
    fn equal_histograms_add_up() {
        let (one, other) = (Histogram::new(Shape::numbers(4)), Histogram::new(Shape::numbers(4)));
        one.observe_number(1);
        other.observe_number(16);
        let mut both = one.snapshot();
        both.add(&other);
        assert_eq!((both.count(), both.sum, both.buckets[0], both.buckets[4]), (2, 17, 1, 1));
    }
}
