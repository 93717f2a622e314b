//! Random numbers that are a function of a seed and nothing else.

use std::ops::Range;
use std::time::Duration;

/// A stream of random numbers: `SplitMix64`, whose whole state is one word.
#[derive(Debug, Clone)]
pub struct Rng {
    state: u64,
}

/// Mixes the bits of `word` so that every bit of the result depends on all of them.
pub fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

impl Rng {
    /// Starts the stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)) }
    }

    /// Starts a stream of its own for `purpose`, so that one part's draws do not shift another's.
    pub fn fork(&self, purpose: u64) -> Self {
        Self::new(self.state ^ mix(purpose.wrapping_add(1)))
    }

    /// Returns any number.
    pub fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// Returns a number below `end`, 0 for 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // The product's high half; the bias is far below what a simulation could notice.
        let product = u128::from(self.word()) * u128::from(end);
        u64::try_from(product >> 64).unwrap_or(0)
    }

    /// Returns a number in `range`.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.below(range.end.saturating_sub(range.start))
    }

    /// Returns an index into something of `len` elements.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// Tells yes in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Returns one of `choices`, of which there is at least one.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }

    /// Returns a time in microseconds out of `range`.
    pub fn micros(&mut self, range: Range<u64>) -> Duration {
        Duration::from_micros(self.within(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_streams_and_forks_differ() {
        let (mut a, mut b) = (Rng::new(7), Rng::new(7));
        let mut fork = a.fork(1);
        let words: Vec<u64> = (0..100).map(|_| a.word()).collect();
        assert_eq!(words, (0..100).map(|_| b.word()).collect::<Vec<_>>());
        assert!((0..100).all(|_| !words.contains(&fork.word())));
    }

    #[test]
    fn numbers_keep_their_bounds_and_reach_them() {
        let mut rng = Rng::new(1);
        let drawn: Vec<u64> = (0..1000).map(|_| rng.within(3..6)).collect();
        assert!(drawn.iter().all(|number| (3..6).contains(number)));
        assert!([3, 4, 5].iter().all(|number| drawn.contains(number)));
        assert_eq!(rng.below(0), 0);
    }
}
