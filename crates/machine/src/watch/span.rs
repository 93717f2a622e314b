//! The keys that a watcher watches.

use bytes::Bytes;

use super::Refused;

/// A non-empty set of keys: one, or all from `start` to before `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Span {
    /// One key.
    Key(Bytes),
    /// Keys from `start` on, below `end` if there is one. Invariant: `start` < `end`.
    Range { start: Bytes, end: Option<Bytes> },
}

impl Span {
    /// Reads `key` and `range_end` of a watch request: an empty key is the least one, an end of one zero byte is none. Copies both: a watcher
    /// lives long, and must not keep the buffer that its request arrived in.
    pub(super) fn parse(key: &Bytes, range_end: &Bytes) -> Result<Self, Refused> {
        let start = if key.is_empty() { Bytes::from_static(b"\0") } else { Bytes::copy_from_slice(key) };
        match &range_end[..] {
            b"" => Ok(Self::Key(start)),
            b"\0" => Ok(Self::Range { start, end: None }),
            end if end <= &start[..] => Err(Refused::EmptyRange),
            _ => Ok(Self::Range { start, end: Some(Bytes::copy_from_slice(range_end)) }),
        }
    }

    /// Tells whether `key` is one of them.
    pub(super) fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Key(one) => one == key,
            Self::Range { start, end } => {
                &start[..] <= key && end.as_ref().is_none_or(|end| end > key)
            }
        }
    }

    /// Returns the least key.
    #[cfg(test)]
    pub(super) fn start(&self) -> &Bytes {
        match self {
            Self::Key(start) | Self::Range { start, .. } => start,
        }
    }
}
