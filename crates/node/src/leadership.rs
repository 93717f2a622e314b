//! Who leads, since when, and who is heard of: what follows from a change, and why something timed out.

use std::collections::BTreeMap;
use std::time::Duration;

#[cfg(feature = "planted-faults")]
use crate::fault_hooks::{Planted, is_planted};
use crate::node::Node;
use crate::office::Confirmed;
use crate::{Effects, Failure, Now};

/// What is remembered of leaders and peers.
#[derive(Debug, Default)]
pub(crate) struct Leadership {
    term: u64,
    leader: u64,
    is_leader: bool,
    has_committed_in_term: bool,
    /// When the present leader was first seen.
    elected_at: Option<Now>,
    /// By member.
    contacts: BTreeMap<u64, Contact>,
    /// The peer whose process was lost last, until it is heard of again.
    lost: Option<u64>,
    /// Set while a lost leader is to be followed by this member.
    succession: Option<Succession>,
}

/// An election that does not wait for its timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Succession {
    /// The term whose leader was lost.
    term: u64,
    /// Ticks to let others go first.
    ticks: usize,
    /// How many members take turns.
    heirs: usize,
    /// Turns that are left.
    turns: usize,
}

/// Turns of one member after a leader was lost; after them the election timeout decides.
const TURNS_MAX: usize = 3;

/// Ticks from one member's turn to the next one's: the first one may be about to come at any moment, and what is sent in its
/// turn has to arrive before the next one begins, or both ask, and neither wins.
const TURN_TICKS: usize = 2;

/// Since when a peer is heard of without a long pause, and when for the last time.
#[derive(Debug, Clone, Copy)]
struct Contact {
    since: Now,
    last: Now,
}

impl Leadership {
    /// Notes that a peer was heard of. A pause of more than `pause_max` since the last time begins a new contact.
    pub(crate) fn hear(&mut self, peer: u64, now: Now, pause_max: Duration) {
        let contact = self.contacts.entry(peer).or_insert(Contact { since: now, last: now });
        if now.0.saturating_sub(contact.last.0) > pause_max {
            contact.since = now;
        }
        contact.last = now;
        self.lost.take_if(|lost| *lost == peer);
    }

    /// Returns the leader that was seen last; 0 for none.
    pub(crate) fn leader(&self) -> u64 {
        self.leader
    }

    /// Tells whether a peer was heard of within `pause_max`, and its process is not known to be gone.
    pub(crate) fn may_live(&self, peer: u64, now: Now, pause_max: Duration) -> bool {
        self.lost != Some(peer)
            && self
                .contacts
                .get(&peer)
                .is_some_and(|contact| now.0.saturating_sub(contact.last.0) <= pause_max)
    }

    /// Tells whether a peer has been heard of from before `since` until now.
    fn is_heard(&self, peer: u64, since: Now, now: Now, pause_max: Duration) -> bool {
        self.contacts.get(&peer).is_some_and(|contact| {
            contact.since <= since && now.0.saturating_sub(contact.last.0) <= pause_max
        })
    }
}

impl Node {
    /// Sees whether leadership has changed since the last time, and does what follows.
    pub(crate) fn notice_leader(&mut self, effects: &mut Effects) {
        let status = self.consensus.status();
        let was = &mut self.leadership;
        let has_new_leader = status.leader != was.leader || status.term != was.term;
        let has_first_commit = status.has_committed_in_term && !was.has_committed_in_term;
        // Who has left the office and come back has been no primary in between.
        let has_left = was.is_leader && (!status.is_leader() || status.term != was.term);
        let had_leader = was.leader;
        was.has_committed_in_term = status.has_committed_in_term;
        was.term = status.term;
        was.is_leader = status.is_leader();
        was.leader = status.leader;
        if has_new_leader {
            if status.leader != 0 {
                was.elected_at = Some(self.now);
                tracing::info!(
                    leader = format!("{:x}", status.leader),
                    term = status.term,
                    "leader elected"
                );
            } else if had_leader != 0 {
                tracing::warn!(
                    leader = format!("{had_leader:x}"),
                    term = status.term,
                    "lost leader"
                );
            }
            if had_leader != 0 && had_leader != status.leader {
                effects.fail(self.reads.leader_changed(), Failure::LeaderChanged);
            }
        }
        if has_first_commit || has_new_leader {
            self.reads.ask_again();
            self.office.ask_again();
        }
        self.notice_transfers(&status, effects);
        if has_left {
            self.office.settle();
            self.leases.trust(self.now, true);
        }
        #[cfg(feature = "planted-faults")]
        let has_left = has_left && !is_planted(Planted::DeposedPrimary);
        if has_left {
            // Whoever waits for what only a primary can tell is told so at the end of the burst.
            self.machine.lessor_mut().demote();
        }
    }

    /// Takes note of a peer whose process is gone. If it leads, this member does not wait for the election timeout: it
    /// votes for others at once, and asks for votes itself when it is its turn, so that no two ask at the same time. A
    /// leader that lives all the same keeps its office: those who hear of it refuse.
    pub(crate) fn lose_peer(&mut self, peer: u64) {
        self.leadership.lost = Some(peer);
        self.doubt_lost(peer);
        let status = self.consensus.status();
        let is_known = self.leadership.succession.is_some_and(|known| known.term == status.term);
        if peer != status.leader || status.is_leader() || is_known {
            return;
        }
        tracing::warn!(
            leader = format!("{peer:x}"),
            term = status.term,
            "the leader's process is gone"
        );
        self.consensus.doubt_leader();
        let voters = self.consensus.conf_state().voters;
        let heirs: Vec<u64> = voters.into_iter().filter(|voter| *voter != peer).collect();
        if let Some(place) = heirs.iter().position(|heir| *heir == self.own.id) {
            let (term, heirs) = (status.term, heirs.len());
            // Each term begins with another one.
            let first = usize::try_from(term).unwrap_or_default() % heirs;
            let ticks = (place + heirs - first) % heirs * TURN_TICKS;
            let succession = Succession { term, ticks, heirs, turns: TURNS_MAX };
            self.leadership.succession = Some(succession);
            self.succeed();
        }
    }

    /// Doubts that this member still leads, if `passed` since the last tick is so long that others may have elected a leader.
    pub(crate) fn doubt_office(&mut self, passed: Duration) {
        let status = self.consensus.status();
        if passed > self.own.raft.pause_max() && status.is_leader() && !status.is_lone {
            tracing::warn!(
                passed_ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX),
                "this member was held up; before it answers for leases, the others have to confirm that it leads"
            );
            self.office.doubt(self.now);
            self.leases.doubt();
        }
    }

    /// Asks the others whether this member leads, if that is in doubt.
    pub(crate) fn ask_for_office(&mut self) {
        let ids = &self.ids;
        if let Some(context) = self.office.ask(self.now, || ids.next()) {
            self.consensus.read_index(context);
        }
    }

    /// Takes the answer to a read index, which may be about the office.
    pub(crate) fn confirm_office(&mut self, context: u64) {
        if let Some(Confirmed { asked, is_over }) = self.office.confirm(context) {
            self.leases.trust(asked, is_over);
        }
    }

    /// Lets a tick pass for a succession that is under way.
    pub(crate) fn tick_succession(&mut self) {
        if let Some(succession) = &mut self.leadership.succession {
            succession.ticks = succession.ticks.saturating_sub(1);
            self.succeed();
        }
    }

    /// Asks for votes when it is this member's turn, unless there is a leader by now.
    fn succeed(&mut self) {
        let Some(succession) = &mut self.leadership.succession else { return };
        let status = self.consensus.status();
        let has_successor = status.leader != 0 && status.term != succession.term;
        if succession.turns == 0 || has_successor || !self.consensus.is_leaderless() {
            self.leadership.succession = None;
        } else if succession.ticks == 0 {
            // The others may not have noticed yet when they are asked, or have asked themselves: there is another turn.
            succession.ticks = succession.heirs * TURN_TICKS;
            succession.turns -= 1;
            self.consensus.campaign();
        }
    }

    /// Tells why a proposal that began at `since` has no outcome by now.
    pub(crate) fn timeout_failure(&self, since: Now) -> Failure {
        let window = 2 * self.own.raft.election_timeout();
        if let Some(elected_at) = self.leadership.elected_at
            && since < elected_at
            && elected_at.0.saturating_sub(window) < since.0
        {
            return Failure::TimedOutLeaderFail;
        }
        let status = self.consensus.status();
        let pause_max = self.own.raft.election_timeout();
        let is_heard = |peer| self.leadership.is_heard(peer, since, self.now, pause_max);
        let is_connected = if status.is_leader() {
            let voters = self.consensus.conf_state().voters;
            let reached =
                voters.iter().filter(|&&voter| voter == self.own.id || is_heard(voter)).count();
            reached > voters.len() / 2
        } else {
            status.leader != 0 && is_heard(status.leader)
        };
        if is_connected { Failure::TimedOut } else { Failure::TimedOutConnectionLost }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contact_ends_with_a_long_pause() {
        let at = |seconds| Now(Duration::from_secs(seconds));
        let pause_max = Duration::from_secs(2);
        let mut leadership = Leadership::default();
        for second in 1..=5 {
            leadership.hear(7, at(second), pause_max);
        }
        assert!(leadership.is_heard(7, at(3), at(6), pause_max));
        assert!(!leadership.is_heard(7, at(0), at(6), pause_max), "began later");
        assert!(!leadership.is_heard(7, at(3), at(8), pause_max), "silent by now");
        assert!(!leadership.is_heard(8, at(3), at(6), pause_max), "never heard");
        leadership.hear(7, at(9), pause_max);
        assert!(!leadership.is_heard(7, at(3), at(9), pause_max), "silent in between");
        assert!(leadership.is_heard(7, at(9), at(9), pause_max));
    }
}
