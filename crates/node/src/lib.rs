//! One whole member, synchronous: events in, effects out (`docs/architecture.md`).

mod consensus;
