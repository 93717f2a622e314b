//! Request ids: unique in the cluster, without asking anyone.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bits below the member's prefix.
const LOW_BITS: u32 = 48;
const LOW_MASK: u64 = (1 << LOW_BITS) - 1;

/// Makes request ids; shared by all threads of the process.
///
/// | bits | content |
/// |---|---|
/// | 16 | the low bits of the member's id |
/// | 40 | milliseconds since 1970 when the process started, growing by one for each 256 ids |
/// | 8 | a counter |
#[derive(Debug)]
pub struct RequestIds {
    prefix: u64,
    low: AtomicU64,
}

impl RequestIds {
    /// Makes a generator for `member`, whose process started `unix_ms` milliseconds after 1970 began.
    pub fn new(member: u64, unix_ms: u64) -> Self {
        Self { prefix: member << LOW_BITS, low: AtomicU64::new((unix_ms << 8) & LOW_MASK) }
    }

    /// Makes an id that this member has not made before.
    pub fn next(&self) -> u64 {
        // Uniqueness needs only that each caller sees another value; no other memory is published.
        let low = self.low.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        self.prefix | (low & LOW_MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_member_time_and_counter() {
        let ids = RequestIds::new(0xaaaa_bbbb_cccc_1234, 0x0123_4567_89ab);
        assert_eq!(ids.next(), 0x1234_2345_6789_ab01);
        assert_eq!(ids.next(), 0x1234_2345_6789_ab02);
    }

    #[test]
    fn a_full_counter_carries_into_the_time_but_never_into_the_member() {
        let ids = RequestIds::new(0x1234, (1 << 40) - 1);
        let last = (0..255).map(|_| ids.next()).last();
        assert_eq!(last, Some(0x1234_ffff_ffff_ffff));
        assert_eq!(ids.next(), 0x1234_0000_0000_0000);
    }
}
