//! Whole members in a simulated world: clock and disk from a seed, and judges of what the members do.

pub mod clock;
pub mod disk;
pub mod rng;
