//! Revisions: the store's clock.

/// A position in the store's history: `main` counts write transactions, `sub` the changes inside
/// one.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The write transaction, from 2 on in a fresh store (`spec/grpc-api.md` §3.5).
    pub main: i64,
    /// The change within it, from 0.
    pub sub: i64,
}

impl Revision {
    /// Makes a revision.
    pub const fn new(main: i64, sub: i64) -> Self {
        Self { main, sub }
    }
}
