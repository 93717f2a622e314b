//! Between two leaders: proposals of peers that reach a member while leadership moves.
//!
//! Raft drops what is proposed to a leader that hands over, and to a follower that does not know the new leader yet. Who forwarded
//! it cannot tell: etcd's members let their callers wait for the timeout of seconds. So such proposals wait here, for the
//! few round trips that it takes, and go on to whoever leads then. Each goes on once; who gave up meanwhile was told
//! that the outcome is unknown.

use std::collections::VecDeque;

use prost::Message as _;
use proto::raftpb::{self, ConfChangeType, EntryType};

/// Bytes of proposals that wait, with what each costs beside its data; one beyond is dropped, as raft would.
const HELD_BYTES_MAX: usize = 16 << 20;

/// Proposals that wait for a leader.
#[derive(Debug, Default)]
pub(super) struct Held {
    messages: VecDeque<raftpb::Message>,
    bytes: usize,
    /// Ticks since the first of them came.
    ticks: usize,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Returns the one that came first.
    pub(super) fn first(&self) -> Option<&raftpb::Message> {
        self.messages.front()
    }

    /// Takes the one that came first.
    pub(super) fn pop(&mut self) -> Option<raftpb::Message> {
        let message = self.messages.pop_front()?;
        self.bytes -= cost(&message);
        if self.messages.is_empty() {
            self.ticks = 0;
        }
        Some(message)
    }

    /// Keeps a proposal; tells whether there was room for it.
    pub(super) fn push(&mut self, message: raftpb::Message) -> bool {
        let bytes = cost(&message);
        if self.bytes + bytes > HELD_BYTES_MAX {
            return false;
        }
        self.bytes += bytes;
        self.messages.push_back(message);
        true
    }

    /// Lets a tick pass. What has waited for more than `ticks_max` is dropped; returns how many proposals that were.
    pub(super) fn tick(&mut self, ticks_max: usize) -> usize {
        if self.messages.is_empty() {
            return 0;
        }
        self.ticks += 1;
        if self.ticks > ticks_max { std::mem::take(self).messages.len() } else { 0 }
    }
}

fn cost(message: &raftpb::Message) -> usize {
    let entries = message.entries.iter();
    size_of::<raftpb::Message>()
        + entries.map(|entry| size_of::<raftpb::Entry>() + entry.data.len()).sum::<usize>()
}

/// Tells whether one of `entries` changes the membership.
pub(super) fn changes(entries: &[raftpb::Entry]) -> bool {
    entries.iter().any(|entry| entry.r#type() == EntryType::EntryConfChange)
}

/// Tells whether one of `entries` removes `member`.
pub(super) fn removes(entries: &[raftpb::Entry], member: u64) -> bool {
    entries.iter().filter(|entry| entry.r#type() == EntryType::EntryConfChange).any(|entry| {
        raftpb::ConfChange::decode(entry.data.clone()).is_ok_and(|change| {
            change.r#type() == ConfChangeType::ConfChangeRemoveNode && change.node_id == member
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> raftpb::Message {
        let entry = raftpb::Entry { data: vec![0; bytes].into(), ..Default::default() };
        raftpb::Message { entries: vec![entry], ..Default::default() }
    }

    #[test]
    fn proposals_wait_within_bounds_of_bytes_and_time() {
        let mut held = Held::default();
        assert!(held.push(message(HELD_BYTES_MAX / 2)));
        assert!(!held.push(message(HELD_BYTES_MAX / 2)), "beyond the bound");
        assert!(held.push(message(1)));
        assert_eq!((held.tick(2), held.tick(2)), (0, 0));
        assert_eq!(held.tick(2), 2);
        assert!(held.is_empty() && held.bytes == 0);
        assert!(held.push(message(HELD_BYTES_MAX / 2)));
        assert_eq!(held.tick(1), 0, "time begins anew");
        assert!(held.first().is_some() && held.pop().is_some() && held.pop().is_none());
        assert_eq!((held.bytes, held.ticks), (0, 0));
    }

    #[test]
    fn a_removal_is_told_by_kind_and_member() {
        let change = |kind: ConfChangeType, node_id| {
            let change = raftpb::ConfChange { r#type: kind.into(), node_id, ..Default::default() };
            let kind = EntryType::EntryConfChange.into();
            vec![raftpb::Entry {
                r#type: kind,
                data: change.encode_to_vec().into(),
                ..Default::default()
            }]
        };
        assert!(removes(&change(ConfChangeType::ConfChangeRemoveNode, 7), 7));
        assert!(!removes(&change(ConfChangeType::ConfChangeRemoveNode, 8), 7));
        assert!(!removes(&change(ConfChangeType::ConfChangeUpdateNode, 7), 7));
        assert!(!removes(&message(9).entries, 7));
    }
}
