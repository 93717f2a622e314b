//! Which other members are connected, and since when: what changes of the membership are judged by.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Time for which a member has to be connected before it is relied on, as etcd has it.
pub const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// Kept by the peer thread, readable from any thread.
#[derive(Debug, Default)]
pub struct Activity {
    /// By member: since when all that was tried succeeded.
    since: Mutex<BTreeMap<u64, Instant>>,
}

impl Activity {
    /// Notes that something reached `peer`, or came from it; tells whether that is new.
    pub fn up(&self, peer: u64) -> bool {
        match self.since.lock().entry(peer) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(Instant::now());
                true
            }
        }
    }

    /// Notes that `peer` could not be reached; tells whether that is new.
    pub fn down(&self, peer: u64) -> bool {
        self.since.lock().remove(&peer).is_some()
    }

    /// Tells whether `peer` is connected.
    pub fn is_up(&self, peer: u64) -> bool {
        self.since.lock().contains_key(&peer)
    }

    /// Counts those of `peers` that have been connected for [`SETTLED_AFTER`] at `now`.
    pub fn settled(&self, peers: impl IntoIterator<Item = u64>, now: Instant) -> usize {
        let since = self.since.lock();
        let is_settled = |peer: &u64| {
            since.get(peer).is_some_and(|since| now.duration_since(*since) >= SETTLED_AFTER)
        };
        peers.into_iter().filter(is_settled).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_relied_on_when_it_was_there_for_a_while() {
        let activity = Activity::default();
        assert!(activity.up(1) && !activity.up(1));
        assert!(activity.up(2));
        let later = Instant::now() + SETTLED_AFTER;
        assert_eq!(activity.settled([1, 2, 3], Instant::now()), 0);
        assert_eq!(activity.settled([1, 2, 3], later), 2);
        assert!(activity.down(2) && !activity.down(2));
        assert!(activity.up(2));
        assert!(activity.is_up(2) && !activity.is_up(3));
        assert_eq!(activity.settled([1, 2, 3], later), 1, "2 begins anew");
    }
}
