//! What the store holds of authentication (`spec/grpc-api.md` §9). It is off: a store where it is on is refused at start, and
//! the requests that would change anything here are not carried out yet.

/// The user whom authentication cannot be switched on without.
pub(crate) const ROOT: &[u8] = b"root";

/// The auth store, as a restart found it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Auth {
    /// Counts the changes of users, roles and the switch.
    pub revision: u64,
    /// Whether there is a user `root`.
    pub has_root: bool,
}
