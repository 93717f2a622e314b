//! What is committed and not applied yet: more than nothing only while the write-behind tail is full, or a snapshot takes the
//! place of the state.

use std::collections::VecDeque;

use crate::consensus::{Committed, Payload};

/// Committed entries that wait to be applied, in order, and their bytes.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    entries: VecDeque<Committed>,
    bytes: usize,
}

impl Backlog {
    pub(crate) fn extend(&mut self, committed: Vec<Committed>) {
        self.bytes += committed.iter().map(cost).sum::<usize>();
        self.entries.extend(committed);
    }

    pub(crate) fn pop_front(&mut self) -> Option<Committed> {
        let entry = self.entries.pop_front()?;
        self.bytes -= cost(&entry);
        Some(entry)
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns what all of it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn cost(entry: &Committed) -> usize {
    let (Payload::Request(data) | Payload::ConfChange(data)) = &entry.payload;
    size_of::<Committed>() + data.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_what_waits() {
        let entry = |index, bytes| Committed {
            index,
            term: 1,
            payload: Payload::Request(vec![0; bytes].into()),
        };
        let mut backlog = Backlog::default();
        backlog.extend(vec![entry(1, 100), entry(2, 50)]);
        let all = backlog.bytes();
        assert_eq!(backlog.pop_front().map(|entry| entry.index), Some(1));
        assert_eq!(all - backlog.bytes(), 100 + size_of::<Committed>());
        assert!(backlog.pop_front().is_some() && backlog.pop_front().is_none());
        assert_eq!(backlog.bytes(), 0);
        backlog.extend(vec![entry(3, 1)]);
        backlog.clear();
        assert_eq!((backlog.bytes(), backlog.pop_front()), (0, None));
    }
}
