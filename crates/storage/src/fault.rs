//! The one error type for a disk that failed or holds what it must not.
//!
//! A fault is never part of the replicated result: the member reports it and stops, or tries something else. Every
//! variant names the path; the message alone must tell an operator what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the disk could not do what was asked.
///
/// Cheap to clone, so that the thread that saw it and the one that reports it can both keep it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Fault {
    /// The operating system refused or failed an operation.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: "open", "write".
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: Arc<io::Error>,
    },
    /// The file system has no room left.
    #[error("cannot {operation} {}: {cause}", path.display())]
    Full {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Whose limit it is.
        cause: FullCause,
    },
    /// The process lacks the right to do it.
    #[error(
        "cannot {operation} {}: permission denied; make the file and its directories accessible (0700) to the user \
         that runs this process",
        path.display()
    )]
    Denied {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// Another process, or another part of this one, uses the file.
    #[error(
        "{} is locked: another process uses this data directory; stop it, or choose another directory",
        path.display()
    )]
    Locked {
        /// The locked file.
        path: PathBuf,
    },
    /// Bytes are not what was written.
    #[error("{} is damaged at offset {offset}: {what}; {remedy}", path.display())]
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: String,
        /// What an operator can do.
        remedy: &'static str,
    },
    /// A file or directory as a whole is missing or not what it has to be.
    #[error("{} cannot be used: {what}; {remedy}", path.display())]
    Unusable {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What an operator can do.
        remedy: &'static str,
    },
}

/// Whose limit a [`Fault::Full`] ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FullCause {
    /// The file system has no free space (`ENOSPC`).
    #[error("no space left on the file system; free some, then restart")]
    Space,
    /// The user's disk quota is used up (`EDQUOT`).
    #[error("the disk quota of this user is used up; raise it, then restart")]
    Quota,
}

impl Fault {
    /// Sorts an operating system error on `path` into its kind.
    pub fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull => Self::Full { operation, path, cause: FullCause::Space },
            io::ErrorKind::QuotaExceeded => Self::Full { operation, path, cause: FullCause::Quota },
            io::ErrorKind::PermissionDenied => Self::Denied { operation, path },
            _ => Self::Io { operation, path, source: Arc::new(source) },
        }
    }

    /// Says that the bytes of `path` at `offset` are wrong.
    pub fn damaged(
        path: &Path,
        offset: u64,
        what: impl Into<String>,
        remedy: &'static str,
    ) -> Self {
        Self::Damaged { path: path.to_owned(), offset, what: what.into(), remedy }
    }

    /// Says that `path` as a whole is of no use.
    pub fn unusable(path: &Path, what: impl Into<String>, remedy: &'static str) -> Self {
        Self::Unusable { path: path.to_owned(), what: what.into(), remedy }
    }
}

/// Turns an [`io::Result`] into one with a [`Fault`] that names operation and path.
pub trait OrFault<T> {
    /// Names what was tried on which path.
    fn or_fault(self, operation: &'static str, path: &Path) -> Result<T, Fault>;
}

impl<T> OrFault<T> for io::Result<T> {
    fn or_fault(self, operation: &'static str, path: &Path) -> Result<T, Fault> {
        self.map_err(|source| Fault::io(operation, path, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_disk_and_exhausted_quota_are_told_apart() {
        let path = Path::new("/data/member/wal/0.tmp");
        let space = Fault::io("write", path, io::ErrorKind::StorageFull.into());
        let quota = Fault::io("write", path, io::ErrorKind::QuotaExceeded.into());
        assert!(matches!(space, Fault::Full { cause: FullCause::Space, .. }));
        assert!(matches!(quota, Fault::Full { cause: FullCause::Quota, .. }));
        assert_eq!(
            space.to_string(),
            "cannot write /data/member/wal/0.tmp: no space left on the file system; free some, then restart"
        );
    }

    #[test]
    fn damage_names_file_offset_and_remedy() {
        let fault = Fault::damaged(Path::new("a.wal"), 512, "checksum mismatch", "restore it");
        assert_eq!(
            fault.to_string(),
            "a.wal is damaged at offset 512: checksum mismatch; restore it"
        );
    }
}
