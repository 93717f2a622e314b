//! A stand-in for `fxhash`: a fast hasher without a seed, so that raft's maps iterate in the same order in every
//! run, which the simulator relies on.
//!
//! The keys are member ids and read contexts of our own making, so resistance against chosen keys is not needed.
//! See `docs/decisions/0004-raft-dependency-stand-ins.md`.

use std::hash::Hasher;

/// An odd constant with well-mixed bits: 2^64 divided by the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hashes by xor and multiplication, one word at a time.
#[derive(Debug, Default, Clone, Copy)]
pub struct FxHasher {
    state: u64,
}

impl FxHasher {
    fn add(&mut self, word: u64) {
        // The product mixes low bits upwards only; the shift brings high bits down again.
        let product = (self.state ^ word).wrapping_mul(MULTIPLIER);
        self.state = product ^ (product >> 32);
    }
}

impl Hasher for FxHasher {
    fn finish(&self) -> u64 {
        self.state
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
        self.add(bytes.len() as u64);
    }

    fn write_u8(&mut self, i: u8) {
        self.add(u64::from(i));
    }

    fn write_u64(&mut self, i: u64) {
        self.add(i);
    }

    fn write_usize(&mut self, i: usize) {
        self.add(i as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(bytes: &[u8]) -> u64 {
        let mut hasher = FxHasher::default();
        hasher.write(bytes);
        hasher.finish()
    }

    #[test]
    fn trailing_zeros_change_the_hash() {
        assert_ne!(hash(b"a"), hash(b"a\0"));
        assert_eq!(hash(b"context"), hash(b"context"));
    }
}
