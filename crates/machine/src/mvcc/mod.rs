//! The multi-version key-value store.
//!
//! The key index, in memory, maps a key to its revisions; records are stored by revision, newest
//! ones in the write-behind tail, the others in the engine. `store` writes, `view` reads at one
//! revision, `compact` drops history, [`hash`] compares members.

pub(crate) mod cache;
mod catch_up;
pub(crate) mod compact;
pub mod hash;
pub(crate) mod history;
pub(crate) mod key_index;
pub mod pager;
pub mod range;
pub mod record;
pub mod revision;
pub(crate) mod shared;
pub(crate) mod store;
pub(crate) mod tail;
pub mod txn;
pub(crate) mod view;
