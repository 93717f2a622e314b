//! What a message from a peer must be before raft sees it.
//!
//! raft-rs trusts its peers: a number out of range makes it panic. Each rule here stands before one such place; a
//! message that breaks one is dropped, as if the network had lost it.

use proto::raftpb::{self, MessageType};

use super::convert::Unusable;

/// Terms and indexes above this come from no cluster that ever was; raft adds to them.
const NUMBER_MAX: u64 = 1 << 62;

/// What the rules need to know of this member.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own {
    pub(super) id: u64,
    pub(super) term: u64,
    pub(super) last: u64,
    pub(super) is_leader: bool,
    /// Whether the WAL has not confirmed everything yet that raft gave it.
    pub(super) is_persisting: bool,
    /// Whether raft would not bear an election now.
    pub(super) must_not_campaign: bool,
}

/// Judges `message`.
pub(super) fn check(message: &raftpb::Message, own: Own) -> Result<MessageType, Unusable> {
    let kind = MessageType::try_from(message.r#type)
        .map_err(|_unknown| Unusable::MessageType(message.r#type))?;
    if message.to != own.id {
        return Err(Unusable::Receiver);
    }
    if message.from == 0 || (message.from == own.id && kind != MessageType::MsgTransferLeader) {
        return Err(Unusable::Sender);
    }
    check_numbers(message)?;
    check_term(kind, message.term)?;
    check_kind(kind, message, own)?;
    Ok(kind)
}

fn check_numbers(message: &raftpb::Message) -> Result<(), Unusable> {
    for (number, name) in [
        (message.term, "term"),
        (message.log_term, "log term"),
        (message.index, "index"),
        (message.commit, "commit index"),
        (message.reject_hint, "reject hint"),
    ] {
        if number > NUMBER_MAX {
            return Err(Unusable::OutOfRange(name));
        }
    }
    Ok(())
}

/// Forwarded messages carry no term, all others do: raft refuses to send what it forwards otherwise.
fn check_term(kind: MessageType, term: u64) -> Result<(), Unusable> {
    let is_forwarded = matches!(kind, MessageType::MsgProp | MessageType::MsgReadIndex);
    let is_transfer = kind == MessageType::MsgTransferLeader;
    if is_transfer || is_forwarded == (term == 0) {
        return Ok(());
    }
    Err(Unusable::OutOfRange("term"))
}

fn check_kind(kind: MessageType, message: &raftpb::Message, own: Own) -> Result<(), Unusable> {
    match kind {
        MessageType::MsgApp => check_append(message),
        MessageType::MsgHeartbeat => {
            // Only a leader that took us for further ahead than we are would tell us to commit what we lack.
            if message.term >= own.term && message.commit > own.last {
                return Err(Unusable::OutOfRange("commit index"));
            }
            Ok(())
        }
        MessageType::MsgAppResp => {
            if own.is_leader && message.term == own.term && message.index > own.last {
                return Err(Unusable::OutOfRange("index"));
            }
            Ok(())
        }
        MessageType::MsgVoteResp | MessageType::MsgPreVoteResp => {
            // Vote requests leave when everything is durable, so an honest vote cannot come before that. A leader, who writes
            // the first entry of its term, passes over the votes of those who were not needed any more.
            if own.is_persisting && !own.is_leader { Err(Unusable::Early) } else { Ok(()) }
        }
        MessageType::MsgTimeoutNow => {
            if own.must_not_campaign {
                Err(Unusable::Early)
            } else {
                Ok(())
            }
        }
        MessageType::MsgProp => {
            if message.entries.is_empty() {
                return Err(Unusable::OutOfRange("number of entries"));
            }
            Ok(())
        }
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => {
            if message.entries.len() != 1 {
                return Err(Unusable::OutOfRange("number of entries"));
            }
            Ok(())
        }
        MessageType::MsgTransferLeader => {
            // A follower would forward it with its term, which raft refuses to send.
            if own.is_leader { Ok(()) } else { Err(Unusable::Sender) }
        }
        MessageType::MsgVote | MessageType::MsgPreVote | MessageType::MsgHeartbeatResp => Ok(()),
        MessageType::MsgSnap => Err(Unusable::Snapshot),
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgStorageAppend
        | MessageType::MsgStorageAppendResp
        | MessageType::MsgStorageApply
        | MessageType::MsgStorageApplyResp
        | MessageType::MsgForgetLeader => Err(Unusable::MessageType(message.r#type)),
    }
}

/// Judges a snapshot whose database is at hand.
pub(super) fn check_snapshot(message: &raftpb::Message, own: Own) -> Result<(), Unusable> {
    if message.to != own.id {
        return Err(Unusable::Receiver);
    }
    if message.from == 0 || message.from == own.id {
        return Err(Unusable::Sender);
    }
    check_numbers(message)?;
    let Some(raftpb::Snapshot { metadata, .. }) = &message.snapshot else {
        return Err(Unusable::Snapshot);
    };
    let raftpb::SnapshotMetadata { conf_state, index, term } = metadata;
    let is_place = (1..=NUMBER_MAX).contains(index) && (1..=message.term).contains(term);
    if message.r#type() != MessageType::MsgSnap || !is_place {
        return Err(Unusable::OutOfRange("index or term of a snapshot"));
    }
    let raftpb::ConfState { voters, learners, voters_outgoing, learners_next, .. } = conf_state;
    let mut all: Vec<u64> = voters.iter().chain(learners).copied().collect();
    all.sort_unstable();
    let has_doubles = all.windows(2).any(|pair| pair[0] == pair[1]);
    // A joint configuration is none that members of etcd go through.
    let is_joint = !voters_outgoing.is_empty() || !learners_next.is_empty();
    if voters.is_empty() || all[0] == 0 || has_doubles || is_joint {
        return Err(Unusable::Configuration);
    }
    Ok(())
}

/// Entries follow the one before them without a gap, in terms that do not fall.
fn check_append(message: &raftpb::Message) -> Result<(), Unusable> {
    let mut index = message.index;
    let mut term = message.log_term;
    // Raft takes an entry that it does not have for one of term 0.
    if (index == 0) != (term == 0) {
        return Err(Unusable::OutOfRange("log term"));
    }
    for entry in &message.entries {
        index += 1;
        if entry.index != index {
            return Err(Unusable::OutOfRange("index of an entry"));
        }
        if entry.term < term || entry.term > message.term || entry.term == 0 {
            return Err(Unusable::OutOfRange("term of an entry"));
        }
        term = entry.term;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Own = Own {
        id: 1,
        term: 5,
        last: 10,
        is_leader: false,
        is_persisting: false,
        must_not_campaign: false,
    };

    fn message(kind: MessageType) -> raftpb::Message {
        raftpb::Message { r#type: kind.into(), to: 1, from: 2, term: 5, ..Default::default() }
    }

    fn entry(index: u64, term: u64) -> raftpb::Entry {
        raftpb::Entry { index, term, ..Default::default() }
    }

    #[test]
    fn honest_messages_pass() {
        for kind in [
            MessageType::MsgApp,
            MessageType::MsgAppResp,
            MessageType::MsgVote,
            MessageType::MsgVoteResp,
            MessageType::MsgPreVote,
            MessageType::MsgPreVoteResp,
            MessageType::MsgHeartbeat,
            MessageType::MsgHeartbeatResp,
            MessageType::MsgTimeoutNow,
        ] {
            assert_eq!(check(&message(kind), OWN), Ok(kind));
        }
        let append = raftpb::Message {
            index: 10,
            log_term: 4,
            entries: vec![entry(11, 4), entry(12, 5)],
            ..message(MessageType::MsgApp)
        };
        assert_eq!(check(&append, OWN), Ok(MessageType::MsgApp));
    }

    #[test]
    fn local_messages_and_those_for_others_are_dropped() {
        for number in [0, 1, 10, 11, 12, 19, 20, 21, 22, 23, 99, -1] {
            let message = raftpb::Message { r#type: number, ..message(MessageType::MsgApp) };
            assert_eq!(check(&message, OWN), Err(Unusable::MessageType(number)));
        }
        let to_other = raftpb::Message { to: 3, ..message(MessageType::MsgApp) };
        assert_eq!(check(&to_other, OWN), Err(Unusable::Receiver));
        let from_self = raftpb::Message { from: 1, ..message(MessageType::MsgApp) };
        assert_eq!(check(&from_self, OWN), Err(Unusable::Sender));
    }

    #[test]
    fn what_would_make_raft_panic_is_dropped() {
        let app = || message(MessageType::MsgApp);
        let heartbeat = || message(MessageType::MsgHeartbeat);
        let cases = [
            raftpb::Message { term: u64::MAX, ..app() },
            raftpb::Message { term: 0, ..app() },
            raftpb::Message { index: u64::MAX, ..app() },
            raftpb::Message { index: 11, entries: vec![entry(12, 5)], ..app() },
            raftpb::Message { index: 10, log_term: 5, entries: vec![entry(12, 5)], ..app() },
            raftpb::Message { index: 10, log_term: 5, entries: vec![entry(11, 6)], ..app() },
            raftpb::Message { index: 10, log_term: 5, entries: vec![entry(11, 4)], ..app() },
            raftpb::Message { commit: 11, ..heartbeat() },
            raftpb::Message { term: 5, ..message(MessageType::MsgProp) },
            raftpb::Message { term: 0, ..message(MessageType::MsgProp) },
            raftpb::Message { term: 0, ..message(MessageType::MsgReadIndex) },
            message(MessageType::MsgReadIndexResp),
            message(MessageType::MsgSnap),
            message(MessageType::MsgTransferLeader),
        ];
        for case in cases {
            assert!(check(&case, OWN).is_err(), "{case:?}");
        }
        let vote = message(MessageType::MsgVoteResp);
        assert_eq!(check(&vote, Own { is_persisting: true, ..OWN }), Err(Unusable::Early));
        let ahead = raftpb::Message { index: 11, ..message(MessageType::MsgAppResp) };
        assert!(check(&ahead, Own { is_leader: true, ..OWN }).is_err());
    }
}
