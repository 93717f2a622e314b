//! Sampling: a message that repeats without end must not fill the disk.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Level;

/// Equal messages logged in a second before sampling starts.
const FIRST: u64 = 100;
/// Of the rest, each how many-th is logged.
const THEREAFTER: u64 = 100;
/// Counters; messages that share one are sampled together.
const COUNTERS: usize = 1024;
/// Bits of a counter that hold the count; the rest hold the second.
const COUNT_BITS: u32 = 24;

/// Counts messages per second.
pub(super) struct Sampler {
    counters: Box<[AtomicU64]>,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { counters: (0..COUNTERS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Sampler {
    /// Whether the message is logged.
    pub(super) fn admits(&self, level: Level, message: &str) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.admits_at(level, message, now)
    }

    fn admits_at(&self, level: Level, message: &str, second: u64) -> bool {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((level.name(), message));
        let slot = usize::try_from(hash % COUNTERS as u64).unwrap_or(0);
        let second = second << COUNT_BITS;
        let mut count = 0;
        // Second and count share a word, so that no thread counts in a second that another has just
        // ended.
        self.counters[slot].update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let same = word >> COUNT_BITS << COUNT_BITS == second;
            count = if same { (word & ((1 << COUNT_BITS) - 1)) + 1 } else { 1 };
            // A count that would reach into the second stays; it is far beyond the first ones.
            second | count.min((1 << COUNT_BITS) - 1)
        });
        count <= FIRST || (count - FIRST).is_multiple_of(THEREAFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hundredth_is_admitted_after_the_first_hundred_of_a_second() {
        let sampler = Sampler::default();
        let admitted =
            |second| (0..1000).filter(|_| sampler.admits_at(Level::Info, "again", second)).count();
        assert_eq!(admitted(7), 100 + 9);
        assert_eq!(admitted(8), 100 + 9, "a new second starts anew");
        assert!(sampler.admits_at(Level::Warn, "something else", 8));
    }
}
