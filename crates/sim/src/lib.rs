//! Whole members in a simulated world: clock and disk from a seed, and judges of what the members do.
//!
//! One seed is one run ([`world::World`]), a function of the seed and the code: what was seen once can be seen again. The
//! same node that serves clients runs here, with everything below it; the world does what drivers, threads and the
//! operating system do, and strikes at moments that they would hardly find.

pub mod check;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod history;
pub mod model;
#[cfg(feature = "planted-faults")]
pub mod planted;
pub mod rng;
pub mod runner;
pub mod scenario;
pub mod serving;
pub mod workload;
pub mod world;
