//! etcd's database file, the format of every snapshot and backup: a bbolt image, version 2.
//!
//! [`reader`] reads any such file and trusts nothing in it; [`writer`] makes an image of known length in one sequential
//! pass. Buckets hold pairs; what they mean is not known here. Layout: `docs/formats/bbolt.md`.

mod check;
mod emit;
mod entries;
mod grow;
mod page;
pub mod reader;
#[cfg(test)]
mod tests;
pub mod writer;

pub use check::{Summary, check_image};
pub use reader::{Bolt, Bucket, Pairs};
pub use writer::{Layout, Planner, Writer};

/// Tells whether a file that begins with `head` says that it is such a database.
pub(crate) fn is_head(head: &[u8]) -> bool {
    let meta = head.get(page::HEADER_BYTES..).unwrap_or_default();
    meta.starts_with(&page::MAGIC.to_le_bytes())
}
