//! The randomized election timeout, as a function of a seed.

/// Derives a timeout in ticks within `election_ticks..2 * election_ticks`.
///
/// `term` and `attempt` make successive elections differ, so that members that collide once do not collide for ever.
pub(super) fn election_timeout(seed: u64, term: u64, attempt: u64, election_ticks: usize) -> usize {
    let word = mix(mix(mix(seed).wrapping_add(term)).wrapping_add(attempt));
    let spread = word % election_ticks as u64;
    election_ticks + usize::try_from(spread).unwrap_or(0)
}

/// Mixes all bits of a word (the finalizer of `splitmix64`).
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_cover_their_range_and_repeat_for_equal_inputs() {
        let timeouts: Vec<usize> = (0..200).map(|term| election_timeout(7, term, 0, 10)).collect();
        assert!(timeouts.iter().all(|timeout| (10..20).contains(timeout)));
        assert!((10..20).all(|timeout| timeouts.contains(&timeout)));
        assert_eq!(election_timeout(7, 3, 1, 10), election_timeout(7, 3, 1, 10));
        assert_ne!(
            (0..8).map(|attempt| election_timeout(7, 3, attempt, 10)).collect::<Vec<_>>(),
            (0..8).map(|attempt| election_timeout(8, 3, attempt, 10)).collect::<Vec<_>>()
        );
    }
}
