//! Who is to be blamed for hashes that differ: the rules of etcd, so that a cluster of both comes to the same alarms.

use std::collections::BTreeMap;

use machine::KeyValueHash;

use super::super::admission::hex;
use super::{Peer, Told, Untold};

/// Counts the members that have other data than one that is about to start. Hashes of different compactions say nothing.
pub(super) fn differing(own: u64, hash: KeyValueHash, peers: &[Peer]) -> usize {
    let mut count = 0;
    for peer in peers {
        match &peer.told {
            Ok(told) if told.hash.hash == hash.hash => {}
            Ok(told) if told.hash.compact_revision == hash.compact_revision => {
                count += 1;
                warn_different(
                    own,
                    hash,
                    peer,
                    told,
                    "found different hash values from remote peer",
                );
            }
            Ok(told) => {
                let what = "found different compact revision values from remote peer";
                warn_different(own, hash, peer, told, what);
            }
            Err(Untold::FutureRevision) => {
                warn_untold(own, hash, peer, "cannot fetch hash from slow remote peer");
            }
            Err(Untold::Compacted) => {
                let what = "cannot fetch hash from remote peer; local member is behind";
                warn_untold(own, hash, peer, what);
            }
            Err(Untold::ClusterMismatch) => warn_untold(own, hash, peer, "cluster ID mismatch"),
            // Told of when it was asked.
            Err(Untold::Refused(_) | Untold::Connection(_)) => {}
        }
    }
    count
}

fn warn_different(own: u64, hash: KeyValueHash, peer: &Peer, told: &Told, what: &str) {
    tracing::warn!(
        local_member_id = hex(own),
        local_member_revision = hash.revision,
        local_member_compact_revision = hash.compact_revision,
        local_member_hash = hash.hash,
        remote_peer_id = hex(peer.id),
        remote_peer_endpoints = peer.urls,
        remote_peer_revision = told.current,
        remote_peer_compact_revision = told.hash.compact_revision,
        remote_peer_hash = told.hash.hash,
        "{what}"
    );
}

fn warn_untold(own: u64, hash: KeyValueHash, peer: &Peer, what: &str) {
    tracing::warn!(
        local_member_id = hex(own),
        local_member_revision = hash.revision,
        local_member_compact_revision = hash.compact_revision,
        local_member_hash = hash.hash,
        remote_peer_id = hex(peer.id),
        remote_peer_endpoints = peer.urls,
        "{what}"
    );
}

/// What a leader finds of itself before and after it has asked the others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leader {
    /// The leader.
    pub(super) id: u64,
    /// Before; the others were asked for the same revision.
    pub(super) first: KeyValueHash,
    /// Afterwards, and after a linearizable read.
    pub(super) second: KeyValueHash,
    /// The revision then.
    pub(super) current: i64,
}

/// Returns the first member found that has data which the leader does not have, or other data: one alarm is enough to stop
/// the cluster.
pub(super) fn ahead_or_different(leader: &Leader, peers: &[Peer]) -> Option<u64> {
    let Leader { id, first, second, current } = *leader;
    let mut blamed = None;
    let is_same_place =
        first.revision == second.revision && first.compact_revision == second.compact_revision;
    if first.hash != second.hash && is_same_place {
        tracing::warn!(
            revision_1 = first.revision,
            compact_revision_1 = first.compact_revision,
            hash_1 = first.hash,
            revision_2 = second.revision,
            compact_revision_2 = second.compact_revision,
            hash_2 = second.hash,
            "found hash mismatch"
        );
        blamed.get_or_insert(id);
    }
    for peer in peers {
        let Ok(told) = &peer.told else { continue };
        let theirs = told.hash;
        let follower_peer_id = hex(peer.id);
        if told.current > current {
            tracing::warn!(
                leader_revision = current,
                follower_revision = told.current,
                follower_peer_id,
                "revision from follower must be less than or equal to leader's"
            );
            blamed.get_or_insert(peer.id);
        }
        if theirs.compact_revision > second.compact_revision {
            tracing::warn!(
                leader_compact_revision = second.compact_revision,
                follower_compact_revision = theirs.compact_revision,
                follower_peer_id,
                "compact revision from follower must be less than or equal to leader's"
            );
            blamed.get_or_insert(peer.id);
        }
        if theirs.compact_revision == first.compact_revision && theirs.hash != first.hash {
            tracing::warn!(
                leader_compact_revision = second.compact_revision,
                leader_hash = first.hash,
                follower_compact_revision = theirs.compact_revision,
                follower_hash = theirs.hash,
                follower_peer_id,
                "same compact revision then hashes must match"
            );
            blamed.get_or_insert(peer.id);
        }
    }
    blamed
}

/// What comes of comparing the hash of a compaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Compared {
    /// All members have the same.
    Equal,
    /// Those that have told one have the same.
    Partly,
    /// These members have another one than the quorum has; only 0 when no quorum agrees.
    Different(Vec<u64>),
}

/// Compares the leader's hash of a compaction with those of the others.
pub(super) fn outvoted(leader: u64, hash: KeyValueHash, peers: &[Peer]) -> Compared {
    let mut by_hash = BTreeMap::from([(hash.hash, vec![leader])]);
    let mut told = 0;
    for peer in peers {
        let reason = match &peer.told {
            Err(_) => "no response".to_owned(),
            Ok(told) if told.hash.compact_revision != hash.compact_revision => format!(
                "the peer's CompactRevision {} doesn't match leader's CompactRevision {}",
                told.hash.compact_revision, hash.compact_revision
            ),
            Ok(theirs) => {
                told += 1;
                by_hash.entry(theirs.hash.hash).or_default().push(peer.id);
                continue;
            }
        };
        tracing::warn!(
            number_of_peers = peers.len(),
            leader_id = hex(leader),
            peer_id = hex(peer.id),
            reason,
            "Skipped peer's hash"
        );
    }
    if by_hash.len() == 1 {
        return equal(hash, told, peers.len());
    }
    let members = peers.len() + 1;
    let quorum = members / 2 + 1;
    let majority =
        by_hash.iter().find(|(_, members)| members.len() >= quorum).map(|(hash, _)| *hash);
    if let Some(majority) = majority {
        by_hash.remove(&majority);
    } else {
        tracing::error!(
            leader_id = hex(leader),
            leader_revision = hash.revision,
            leader_compact_revision = hash.compact_revision,
            leader_hash = hash.hash,
            "Detected compaction hash mismatch but cannot identify the corrupted members, so intentionally set the memberID as 0"
        );
    }
    for (peer_hash, members) in &by_hash {
        let members: Vec<_> = members.iter().map(|id| hex(*id)).collect();
        tracing::error!(
            leader_id = hex(leader),
            leader_revision = hash.revision,
            leader_compact_revision = hash.compact_revision,
            leader_hash = hash.hash,
            peer_hash,
            peer_ids = members.join(","),
            quorum_exist = majority.is_some(),
            "Detected compaction hash mismatch"
        );
    }
    let blamed =
        if majority.is_some() { by_hash.into_values().flatten().collect() } else { vec![0] };
    Compared::Different(blamed)
}

fn equal(hash: KeyValueHash, told: usize, peers: usize) -> Compared {
    if told == peers {
        tracing::info!(
            number_of_peers_checked = told,
            revision = hash.revision,
            compactRevision = hash.compact_revision,
            "successfully checked hash on whole cluster"
        );
        return Compared::Equal;
    }
    tracing::warn!(
        number_of_peers_checked = told,
        number_of_peers = peers,
        revision = hash.revision,
        compactRevision = hash.compact_revision,
        "skipped revision in compaction hash check; was not able to check all peers"
    );
    Compared::Partly
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(hash: u32, compact_revision: i64) -> KeyValueHash {
        KeyValueHash { hash, compact_revision, revision: 9 }
    }

    fn peer(id: u64, told: Result<(i64, KeyValueHash), Untold>) -> Peer {
        let told = told.map(|(current, hash)| Told { current, hash });
        Peer { id, urls: String::new(), told }
    }

    fn silent(id: u64) -> Peer {
        peer(id, Err(Untold::Refused("404 page not found".to_owned())))
    }

    #[test]
    fn a_start_minds_only_other_hashes_of_the_same_compaction() {
        let peers = [
            peer(2, Ok((9, hash(1, 3)))),
            peer(3, Ok((12, hash(7, 3)))),
            peer(4, Ok((9, hash(7, 5)))),
            peer(5, Err(Untold::Compacted)),
            peer(6, Err(Untold::FutureRevision)),
            silent(7),
        ];
        assert_eq!(differing(1, hash(1, 3), &peers), 1);
        assert_eq!(differing(1, hash(1, 3), &peers[..1]), 0);
        assert_eq!(differing(1, hash(1, 3), &[]), 0);
    }

    #[test]
    fn a_leader_blames_whoever_is_ahead_of_it_or_has_other_data() {
        let leader = Leader { id: 1, first: hash(1, 3), second: hash(2, 5), current: 20 };
        let blamed = |peers: &[Peer]| ahead_or_different(&leader, peers);
        assert_eq!(blamed(&[]), None);
        let equal = || peer(2, Ok((20, hash(1, 3))));
        assert_eq!(blamed(&[equal(), silent(3), peer(4, Ok((9, hash(7, 4))))]), None);
        assert_eq!(blamed(&[equal(), peer(3, Ok((21, hash(1, 3))))]), Some(3), "ahead");
        assert_eq!(blamed(&[equal(), peer(3, Ok((20, hash(1, 6))))]), Some(3), "compacted further");
        assert_eq!(blamed(&[equal(), peer(3, Ok((20, hash(7, 3))))]), Some(3), "other data");
        let two = [peer(5, Ok((20, hash(7, 3)))), peer(4, Ok((21, hash(1, 3))))];
        assert_eq!(blamed(&two), Some(5), "the first one");
        let unsteady = Leader { id: 1, first: hash(1, 3), second: hash(2, 3), current: 20 };
        assert_eq!(ahead_or_different(&unsteady, &two), Some(1), "the leader itself");
    }

    #[test]
    fn a_quorum_says_whose_compaction_differs() {
        let with = |id, value| peer(id, Ok((20, hash(value, 3))));
        let compared = |peers: &[Peer]| outvoted(1, hash(1, 3), peers);
        assert_eq!(compared(&[with(2, 1), with(3, 1)]), Compared::Equal);
        assert_eq!(compared(&[with(2, 1), silent(3)]), Compared::Partly);
        let elsewhere = peer(3, Ok((20, hash(9, 4))));
        assert_eq!(compared(&[with(2, 1), elsewhere]), Compared::Partly, "another compaction");
        assert_eq!(compared(&[with(2, 1), with(3, 7)]), Compared::Different(vec![3]));
        assert_eq!(compared(&[with(2, 7), with(3, 7)]), Compared::Different(vec![1]), "the leader");
        assert_eq!(compared(&[with(2, 7), with(3, 8)]), Compared::Different(vec![0]));
        assert_eq!(compared(&[with(2, 7), silent(3)]), Compared::Different(vec![0]), "no quorum");
        let five = [with(2, 1), with(3, 1), with(4, 8), with(5, 7)];
        assert_eq!(compared(&five), Compared::Different(vec![5, 4]));
    }
}
