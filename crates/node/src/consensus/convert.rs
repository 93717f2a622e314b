//! Between etcd's messages and entries, which are on the wire and in the WAL, and raft-rs's, which are in memory.
//!
//! Two things differ. raft-rs numbers the kinds of conf changes differently and refuses those that it does not know:
//! an entry in memory carries etcd's bytes in `context`, and in `data` a stand-in that raft-rs understands. And some
//! fields of raft-rs's messages do not exist on etcd's wire; they stay zero.

use bytes::Bytes;
use prost::Message as _;
use proto::raftpb;
use raft::eraftpb::{self, ConfChangeType, EntryType};

/// Why bytes of others cannot be given to raft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    /// The message is none that members send each other.
    #[error("message type {0} is not sent between members")]
    MessageType(i32),
    /// The entry is of no kind that etcd writes.
    #[error("entry type {0} is unknown")]
    EntryType(i32),
    /// The entry's conf change does not decode.
    #[error("a conf change does not decode")]
    ConfChange,
    /// A number is outside of what it can be.
    #[error("{0} is out of range")]
    OutOfRange(&'static str),
    /// The message is not for this member.
    #[error("it is meant for another member")]
    Receiver,
    /// The sender cannot have sent it.
    #[error("it cannot come from its sender")]
    Sender,
    /// It comes before what it answers can have arrived.
    #[error("it answers what was not sent yet")]
    Early,
    /// A snapshot without the database that comes with it.
    #[error("a snapshot comes with its database, not as a message")]
    Snapshot,
    /// A snapshot's configuration that cannot be one.
    #[error("the snapshot's configuration is none")]
    Configuration,
}

/// Takes an entry from the wire or the WAL.
pub(super) fn entry_in(entry: raftpb::Entry) -> Result<eraftpb::Entry, Unusable> {
    let raftpb::Entry { r#type, term, index, data } = entry;
    let kind =
        raftpb::EntryType::try_from(r#type).map_err(|_unknown| Unusable::EntryType(r#type))?;
    Ok(match kind {
        raftpb::EntryType::EntryNormal => eraftpb::Entry {
            entry_type: EntryType::EntryNormal.into(),
            term,
            index,
            data,
            ..Default::default()
        },
        raftpb::EntryType::EntryConfChange => eraftpb::Entry {
            entry_type: EntryType::EntryConfChange.into(),
            term,
            index,
            data: stand_in(&data)?,
            context: data,
        },
        raftpb::EntryType::EntryConfChangeV2 => return Err(Unusable::EntryType(r#type)),
    })
}

/// Gives an entry to the wire or the WAL.
pub(super) fn entry_out(entry: eraftpb::Entry) -> raftpb::Entry {
    let is_conf_change = entry.entry_type() == EntryType::EntryConfChange;
    let kind = if is_conf_change {
        raftpb::EntryType::EntryConfChange
    } else {
        raftpb::EntryType::EntryNormal
    };
    let data = if is_conf_change { entry.context } else { entry.data };
    raftpb::Entry { r#type: kind.into(), term: entry.term, index: entry.index, data }
}

/// Makes what raft-rs sees of an encoded conf change of etcd.
fn stand_in(bytes: &Bytes) -> Result<Bytes, Unusable> {
    let change =
        raftpb::ConfChange::decode(bytes.clone()).map_err(|_invalid| Unusable::ConfChange)?;
    let change = conf_change_in(&change)?.unwrap_or_default();
    Ok(change.encode_to_vec().into())
}

/// Translates a conf change; `None` if it changes nothing that raft knows about.
pub(super) fn conf_change_in(
    change: &raftpb::ConfChange,
) -> Result<Option<eraftpb::ConfChange>, Unusable> {
    let kind =
        raftpb::ConfChangeType::try_from(change.r#type).map_err(|_unknown| Unusable::ConfChange)?;
    let kind = match kind {
        raftpb::ConfChangeType::ConfChangeAddNode => ConfChangeType::AddNode,
        raftpb::ConfChangeType::ConfChangeRemoveNode => ConfChangeType::RemoveNode,
        raftpb::ConfChangeType::ConfChangeAddLearnerNode => ConfChangeType::AddLearnerNode,
        raftpb::ConfChangeType::ConfChangeUpdateNode => return Ok(None),
    };
    Ok((change.node_id != 0).then(|| eraftpb::ConfChange {
        change_type: kind.into(),
        node_id: change.node_id,
        ..Default::default()
    }))
}

/// Takes a configuration from the disk.
pub(super) fn conf_state_in(state: &raftpb::ConfState) -> eraftpb::ConfState {
    eraftpb::ConfState {
        voters: state.voters.clone(),
        learners: state.learners.clone(),
        ..Default::default()
    }
}

/// Gives a configuration to the disk.
pub(super) fn conf_state_out(state: &eraftpb::ConfState) -> raftpb::ConfState {
    raftpb::ConfState {
        voters: state.voters.clone(),
        learners: state.learners.clone(),
        ..Default::default()
    }
}

/// Takes what a vote and a term were from the disk.
pub(super) fn hard_state_in(state: raftpb::HardState) -> eraftpb::HardState {
    eraftpb::HardState { term: state.term, vote: state.vote, commit: state.commit }
}

/// Gives what a vote and a term are to the disk.
pub(super) fn hard_state_out(state: &eraftpb::HardState) -> raftpb::HardState {
    raftpb::HardState { term: state.term, vote: state.vote, commit: state.commit }
}

/// Takes a message from the wire. That raft can bear it is [`super::validate`]'s business.
pub(super) fn message_in(message: raftpb::Message) -> Result<eraftpb::Message, Unusable> {
    let snapshot = match message.snapshot {
        Some(snapshot) if message.r#type == i32::from(raftpb::MessageType::MsgSnap) => {
            Some(snapshot_in(snapshot))
        }
        Some(_) | None => None,
    };
    Ok(eraftpb::Message {
        snapshot,
        // The numbers are etcd's; validation lets only those through that raft-rs has too.
        msg_type: message.r#type,
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message.entries.into_iter().map(entry_in).collect::<Result<_, _>>()?,
        commit: message.commit,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context,
        ..Default::default()
    })
}

/// Gives a message to the wire.
pub(super) fn message_out(message: eraftpb::Message) -> raftpb::Message {
    let is_snapshot = message.msg_type() == eraftpb::MessageType::MsgSnapshot;
    raftpb::Message {
        r#type: message.msg_type,
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message.entries.into_iter().map(entry_out).collect(),
        commit: message.commit,
        snapshot: message.snapshot.filter(|_| is_snapshot).map(snapshot_out),
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context,
        vote: 0,
        responses: Vec::new(),
    }
}

/// Takes a snapshot's metadata from the wire; the rest of it raft need not see.
fn snapshot_in(snapshot: raftpb::Snapshot) -> eraftpb::Snapshot {
    let raftpb::SnapshotMetadata { conf_state, index, term } = snapshot.metadata;
    let conf_state = Some(conf_state_in(&conf_state));
    let metadata = eraftpb::SnapshotMetadata { conf_state, index, term };
    eraftpb::Snapshot { data: Bytes::new(), metadata: Some(metadata) }
}

/// Gives an offered snapshot to whoever adds the database to it.
fn snapshot_out(snapshot: eraftpb::Snapshot) -> raftpb::Snapshot {
    let metadata = snapshot.metadata.unwrap_or_default();
    let conf_state = conf_state_out(&metadata.conf_state.unwrap_or_default());
    raftpb::Snapshot {
        data: Bytes::new(),
        metadata: raftpb::SnapshotMetadata {
            conf_state,
            index: metadata.index,
            term: metadata.term,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(kind: raftpb::ConfChangeType) -> raftpb::ConfChange {
        raftpb::ConfChange { id: 9, r#type: kind.into(), node_id: 5, context: "{}".into() }
    }

    #[test]
    fn a_conf_change_keeps_its_bytes_and_shows_raft_its_own_numbers() {
        for (theirs, ours) in [
            (raftpb::ConfChangeType::ConfChangeAddNode, Some(ConfChangeType::AddNode)),
            (raftpb::ConfChangeType::ConfChangeRemoveNode, Some(ConfChangeType::RemoveNode)),
            (
                raftpb::ConfChangeType::ConfChangeAddLearnerNode,
                Some(ConfChangeType::AddLearnerNode),
            ),
            (raftpb::ConfChangeType::ConfChangeUpdateNode, None),
        ] {
            let change = change(theirs);
            let entry = raftpb::Entry {
                r#type: raftpb::EntryType::EntryConfChange.into(),
                term: 2,
                index: 3,
                data: change.encode_to_vec().into(),
            };
            let inside = entry_in(entry.clone()).expect("a conf change");
            let shown = eraftpb::ConfChange::decode(inside.data.clone()).expect("a stand-in");
            assert_eq!(shown.node_id, if ours.is_some() { 5 } else { 0 });
            assert_eq!(shown.change_type(), ours.unwrap_or(ConfChangeType::AddNode));
            assert_eq!(entry_out(inside), entry);
        }
    }

    #[test]
    fn entries_that_etcd_never_writes_are_refused() {
        for (r#type, data) in
            [(2, Bytes::new()), (7, Bytes::new()), (1, Bytes::from_static(b"\xff"))]
        {
            let entry = raftpb::Entry { r#type, term: 1, index: 1, data };
            assert!(entry_in(entry).is_err());
        }
    }

    #[test]
    fn message_types_have_equal_numbers_on_both_sides() {
        for number in 0..=18 {
            let theirs = raftpb::MessageType::try_from(number).expect("known to etcd");
            let ours = eraftpb::MessageType::try_from(number).expect("known to raft-rs");
            let (theirs, ours) = (format!("{theirs:?}"), format!("{ours:?}"));
            let ours = ours
                .replace("Propose", "Prop")
                .replace("Append", "App")
                .replace("RequestPreVote", "PreVote")
                .replace("RequestVote", "Vote")
                .replace("Response", "Resp")
                .replace("Snapshot", "Snap");
            assert_eq!(theirs, ours);
        }
        assert!(eraftpb::MessageType::try_from(19).is_err());
    }
}
