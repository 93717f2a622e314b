//! What the judges of whole clusters share: members as processes, a network that can fail, loads, and checks.
//!
//! Everything here runs in one thread, on a `LocalSet`: state that tasks share is in cells, and no borrow lives across an
//! await.

pub(crate) mod api;
pub(crate) mod cluster;
pub(crate) mod hashes;
pub(crate) mod load;
pub(crate) mod logs;
pub(crate) mod network;
pub(crate) mod options;
pub(crate) mod registers;
