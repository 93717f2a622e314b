//! Snapshots on their way to followers that need entries which the log in memory does not have any more.
//!
//! Raft offers one ([`crate::consensus`]); the shell makes its database while it sends it. Meanwhile, and for as long as the
//! receiver may take to install it, the log keeps what comes behind it.

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
    /// By follower: the index of its snapshot, and when it no longer counts, once it was sent.
    to: BTreeMap<u64, (u64, Option<Now>)>,
}

impl Sending {
    /// Notes that a snapshot at `index` leaves for `peer`.
    fn begin(&mut self, peer: u64, index: u64) {
        self.to.insert(peer, (index, None));
    }

    /// Notes what became of it.
    fn end(&mut self, peer: u64, is_done: bool, now: Now) {
        if !is_done {
            self.to.remove(&peer);
        } else if let Some((_, until)) = self.to.get_mut(&peer) {
            *until = Some(Now(now.0 + HOLD_AFTER));
        }
    }

    /// Forgets those that were sent long ago; returns the lowest index of the others.
    fn held_from(&mut self, now: Now) -> Option<u64> {
        self.to.retain(|_, (_, until)| until.is_none_or(|until| now < until));
        self.to.values().map(|(index, _)| *index).min()
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
}
