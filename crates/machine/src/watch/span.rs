//! The keys that a watcher watches.

use std::sync::Arc;

use super::Refused;

/// A non-empty set of keys: one, or a range. Small, for there are many: nearly all are one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Span {
    /// One key.
    Key(Box<[u8]>),
    /// Several ones.
    Range(Box<Range>),
}

/// All keys from `start` on, below `end` if there is one. Invariant: `start` < `end`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Range {
    pub(super) start: Arc<[u8]>,
    pub(super) end: Option<Arc<[u8]>>,
}

impl Span {
    /// Reads `key` and `range_end` of a watch request: an empty key is the least one, an end of one zero byte is none. Copies both: a watcher
    /// lives long, and must not keep the buffer that its request arrived in.
    pub(super) fn parse(key: &[u8], range_end: &[u8]) -> Result<Self, Refused> {
        let start = if key.is_empty() { b"\0" } else { key };
        let range = |end| Self::Range(Box::new(Range { start: start.into(), end }));
        match range_end {
            b"" => Ok(Self::Key(start.into())),
            b"\0" => Ok(range(None)),
            end if end <= start => Err(Refused::EmptyRange),
            end => Ok(range(Some(end.into()))),
        }
    }

    /// Tells whether `key` is one of them.
    pub(super) fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Key(one) => **one == *key,
            Self::Range(range) => *range.start <= *key && range.reaches_beyond(key),
        }
    }

    /// Returns the least key.
    #[cfg(test)]
    pub(super) fn start(&self) -> &[u8] {
        match self {
            Self::Key(start) => start,
            Self::Range(range) => &range.start,
        }
    }
}

impl Range {
    /// Tells whether it does not end before `key` or with it.
    pub(super) fn reaches_beyond(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_none_or(|end| **end > *key)
    }
}
