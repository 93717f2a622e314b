//! Files, not keys: the disk as a trait, the write-ahead log, raft's snapshot files, the backend engine, and etcd's
//! database file. See `docs/architecture.md`.

pub mod disk;
pub mod os;

mod fault;

pub mod datadir;
pub mod snap;
pub mod wal;

pub use disk::{Disk, File, OpenMode};
pub use fault::{Fault, FullCause, OrFault};
pub use os::OsDisk;
