//! Files, not keys: the disk as a trait, the write-ahead log, raft's snapshot files, the backend engine, and etcd's
//! database file. See `docs/architecture.md`.

pub mod backend;
pub mod bolt;
pub mod disk;
#[cfg(feature = "planted-faults")]
pub mod fault_hooks;
pub mod mem;
pub mod os;

mod fault;

pub mod datadir;
pub mod snap;
pub mod wal;

pub use disk::{Disk, File, OpenMode};
pub use fault::{Fault, FullCause, OrFault};
pub use os::OsDisk;

const _: () = assert!(usize::BITS >= 64, "a length in a file is a length in memory");

/// Turns a length in a file into one in memory.
#[expect(clippy::cast_possible_truncation, reason = "the assertion above rules it out")]
pub(crate) const fn length(bytes: u64) -> usize {
    bytes as usize
}
