//! Snapshots on their way to followers that need entries which the log in memory does not have any more.
//!
//! Raft offers one ([`crate::consensus`]); the shell makes its database while it sends it. Meanwhile, and for as long as the
//! receiver may take to install it, the log keeps what comes behind it, the WAL for so long as its marks allow.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::raftpb;

use crate::Now;
use crate::node::Node;

/// After a snapshot has reached its receiver, entries behind it stay this long, as etcd has it: the receiver asks for them
/// when it has installed it.
const HOLD_AFTER: Duration = Duration::from_secs(30);

/// Snapshots on their way to followers: entries behind them must not be dropped, or the follower needs another one.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    /// By follower.
    to: BTreeMap<u64, Sent>,
}

#[derive(Debug)]
struct Sent {
    /// The index of the snapshot.
    index: u64,
    /// When it no longer counts, once it was sent.
    until: Option<Now>,
    /// Marks of this member's own since it left.
    marks: usize,
}

/// The WAL keeps what comes behind a snapshot until so many further marks: a receiver that takes longer needs another one. At
/// most 256 MiB of entries come between two marks.
const MARKS_MAX: usize = 16;

impl Sending {
    /// Notes that a snapshot at `index` leaves for `peer`.
    fn begin(&mut self, peer: u64, index: u64) {
        self.to.insert(peer, Sent { index, until: None, marks: 0 });
    }

    /// Notes what became of it.
    fn end(&mut self, peer: u64, is_done: bool, now: Now) {
        if !is_done {
            self.to.remove(&peer);
        } else if let Some(sent) = self.to.get_mut(&peer) {
            sent.until = Some(Now(now.0 + HOLD_AFTER));
        }
    }

    /// Forgets those that were sent long ago; returns the lowest index of the others.
    fn held_from(&mut self, now: Now) -> Option<u64> {
        self.to.retain(|_, sent| sent.until.is_none_or(|until| now < until));
        self.to.values().map(|sent| sent.index).min()
    }

    /// Counts a mark; returns the lowest index that the WAL has to hold.
    pub(crate) fn held_at_mark(&mut self, now: Now) -> Option<u64> {
        self.held_from(now);
        self.to.values_mut().for_each(|sent| sent.marks += 1);
        let held = self.to.values().filter(|sent| sent.marks <= MARKS_MAX);
        held.map(|sent| sent.index).min()
    }
}

impl Node {
    /// Sees which snapshots leave. What they offer has to be durable before it can be read for them.
    pub(crate) fn notice_snapshots(&mut self, messages: &[raftpb::Message]) {
        for message in messages {
            if let Some(snapshot) = &message.snapshot {
                let index = snapshot.metadata.index;
                tracing::info!(
                    to = format!("{:x}", message.to),
                    index,
                    "sending database snapshot"
                );
                self.sending.begin(message.to, index);
                self.backend.want_commit();
            }
        }
        self.hold_log();
    }

    /// Takes note of a snapshot that has reached its receiver, or has not.
    pub(crate) fn snapshot_sent(&mut self, peer: u64, is_done: bool) {
        self.consensus.snapshot_sent(peer, is_done);
        self.sending.end(peer, is_done, self.now);
        self.hold_log();
    }

    /// Has the log keep what followers need after their snapshots.
    pub(crate) fn hold_log(&mut self) {
        let held_from = self.sending.held_from(self.now);
        self.consensus.hold_log(held_from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_held_for_the_furthest_behind_and_a_while_longer() {
        let at = |seconds| Now(Duration::from_secs(seconds));
        let mut sending = Sending::default();
        assert_eq!(sending.held_from(at(0)), None);
        sending.begin(2, 50);
        sending.begin(3, 40);
        assert_eq!(sending.held_from(at(0)), Some(40));
        sending.end(3, true, at(1));
        sending.end(2, false, at(2));
        assert_eq!(sending.held_from(at(30)), Some(40));
        assert_eq!(sending.held_from(at(31)), None);
    }

    #[test]
    fn the_wal_is_held_for_so_many_marks() {
        let mut sending = Sending::default();
        assert_eq!(sending.held_at_mark(Now::default()), None);
        sending.begin(2, 50);
        for _ in 0..MARKS_MAX {
            assert_eq!(sending.held_at_mark(Now::default()), Some(50));
        }
        assert_eq!(sending.held_at_mark(Now::default()), None);
        assert_eq!(sending.held_from(Now::default()), Some(50), "the log in memory");
    }
}
