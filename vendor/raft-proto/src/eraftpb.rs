//! The messages, with the accessors that raft calls on them.

use std::sync::LazyLock;

use bytes::Bytes;
use prost::Message as _;
use protobuf::{ProtobufError, ProtobufResult};

/// What an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum EntryType {
    /// A command.
    EntryNormal = 0,
    /// A change of one member.
    EntryConfChange = 1,
    /// A general change.
    EntryConfChangeV2 = 2,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum MessageType {
    /// Local: campaign.
    MsgHup = 0,
    /// Local: send heartbeats.
    MsgBeat = 1,
    /// A proposal.
    MsgPropose = 2,
    /// Entries.
    MsgAppend = 3,
    /// The answer to entries or a snapshot.
    MsgAppendResponse = 4,
    /// A vote request.
    MsgRequestVote = 5,
    /// A vote.
    MsgRequestVoteResponse = 6,
    /// A snapshot.
    MsgSnapshot = 7,
    /// A heartbeat.
    MsgHeartbeat = 8,
    /// Its answer.
    MsgHeartbeatResponse = 9,
    /// Local: a member cannot be reached.
    MsgUnreachable = 10,
    /// Local: the end of a snapshot transfer.
    MsgSnapStatus = 11,
    /// Local: check that a quorum is active.
    MsgCheckQuorum = 12,
    /// A wish for another leader.
    MsgTransferLeader = 13,
    /// Campaign at once.
    MsgTimeoutNow = 14,
    /// A request for a read index.
    MsgReadIndex = 15,
    /// A read index.
    MsgReadIndexResp = 16,
    /// A question whether a vote would be given.
    MsgRequestPreVote = 17,
    /// Its answer.
    MsgRequestPreVoteResponse = 18,
}

/// How a joint configuration is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ConfChangeTransition {
    /// If needed, left by raft.
    Auto = 0,
    /// Always, left by raft.
    Implicit = 1,
    /// Always, left by the user.
    Explicit = 2,
}

/// What changes. The numbers are raft-rs's, not etcd's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ConfChangeType {
    /// Add a voter or promote a learner.
    AddNode = 0,
    /// Remove a member.
    RemoveNode = 1,
    /// Add a learner.
    AddLearnerNode = 2,
}

/// One entry of the log.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Entry {
    /// What `data` is.
    #[prost(enumeration = "EntryType", tag = "1")]
    pub entry_type: i32,
    /// The term it was made in.
    #[prost(uint64, tag = "2")]
    pub term: u64,
    /// Its place in the log.
    #[prost(uint64, tag = "3")]
    pub index: u64,
    /// The command, or an encoded configuration change.
    #[prost(bytes = "bytes", tag = "4")]
    pub data: Bytes,
    /// For the user of raft.
    #[prost(bytes = "bytes", tag = "6")]
    pub context: Bytes,
}

impl Entry {
    /// Returns `entry_type`.
    pub fn get_entry_type(&self) -> EntryType {
        self.entry_type()
    }

    /// Returns `term`.
    pub fn get_term(&self) -> u64 {
        self.term
    }

    /// Returns `index`.
    pub fn get_index(&self) -> u64 {
        self.index
    }

    /// Returns `data`.
    pub fn get_data(&self) -> &[u8] {
        &self.data
    }

    /// Takes `data`.
    pub fn take_data(&mut self) -> Bytes {
        std::mem::take(&mut self.data)
    }
}

/// What a snapshot stands for.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SnapshotMetadata {
    /// The configuration at `index`.
    #[prost(message, optional, tag = "1")]
    pub conf_state: Option<ConfState>,
    /// The last entry it covers.
    #[prost(uint64, tag = "2")]
    pub index: u64,
    /// The term of that entry.
    #[prost(uint64, tag = "3")]
    pub term: u64,
}

impl SnapshotMetadata {
    /// Returns `conf_state`, an empty one if it is unset.
    pub fn get_conf_state(&self) -> &ConfState {
        static EMPTY: LazyLock<ConfState> = LazyLock::new(ConfState::default);
        self.conf_state.as_ref().unwrap_or(&EMPTY)
    }

    /// Returns `conf_state` for changes, made if it is unset.
    pub fn mut_conf_state(&mut self) -> &mut ConfState {
        self.conf_state.get_or_insert_default()
    }

    /// Sets `conf_state`.
    pub fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = Some(conf_state);
    }

    /// Takes `conf_state`.
    pub fn take_conf_state(&mut self) -> ConfState {
        self.conf_state.take().unwrap_or_default()
    }
}

/// The state at an index.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Snapshot {
    /// For the user of raft.
    #[prost(bytes = "bytes", tag = "1")]
    pub data: Bytes,
    /// What it stands for.
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<SnapshotMetadata>,
}

impl Snapshot {
    /// Returns `metadata`, an empty one if it is unset.
    pub fn get_metadata(&self) -> &SnapshotMetadata {
        static EMPTY: LazyLock<SnapshotMetadata> = LazyLock::new(SnapshotMetadata::default);
        self.metadata.as_ref().unwrap_or(&EMPTY)
    }

    /// Returns `metadata` for changes, made if it is unset.
    pub fn mut_metadata(&mut self) -> &mut SnapshotMetadata {
        self.metadata.get_or_insert_default()
    }

    /// Sets `metadata`.
    pub fn set_metadata(&mut self, metadata: SnapshotMetadata) {
        self.metadata = Some(metadata);
    }

    /// Takes `metadata`.
    pub fn take_metadata(&mut self) -> SnapshotMetadata {
        self.metadata.take().unwrap_or_default()
    }

    /// Tells whether it stands for nothing.
    pub fn is_empty(&self) -> bool {
        self.get_metadata().index == 0
    }
}

/// What members send each other.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Message {
    /// What it is.
    #[prost(enumeration = "MessageType", tag = "1")]
    pub msg_type: i32,
    /// The receiver.
    #[prost(uint64, tag = "2")]
    pub to: u64,
    /// The sender.
    #[prost(uint64, tag = "3")]
    pub from: u64,
    /// The sender's term; 0 in local and forwarded messages.
    #[prost(uint64, tag = "4")]
    pub term: u64,
    /// The term of the entry at `index`.
    #[prost(uint64, tag = "5")]
    pub log_term: u64,
    /// An index, by message type.
    #[prost(uint64, tag = "6")]
    pub index: u64,
    /// The entries.
    #[prost(message, repeated, tag = "7")]
    pub entries: Vec<Entry>,
    /// The commit index.
    #[prost(uint64, tag = "8")]
    pub commit: u64,
    /// The term of the entry at `commit`, in votes; unused on our wire.
    #[prost(uint64, tag = "15")]
    pub commit_term: u64,
    /// The snapshot.
    #[prost(message, optional, tag = "9")]
    pub snapshot: Option<Snapshot>,
    /// The index from which a snapshot is asked for; unused on our wire.
    #[prost(uint64, tag = "13")]
    pub request_snapshot: u64,
    /// Whether the request is refused.
    #[prost(bool, tag = "10")]
    pub reject: bool,
    /// Where to try next.
    #[prost(uint64, tag = "11")]
    pub reject_hint: u64,
    /// For the sender.
    #[prost(bytes = "bytes", tag = "12")]
    pub context: Bytes,
    /// Unused on our wire.
    #[prost(uint64, tag = "14")]
    pub deprecated_priority: u64,
    /// Unused on our wire.
    #[prost(int64, tag = "16")]
    pub priority: i64,
}

impl Message {
    /// Returns `msg_type`.
    pub fn get_msg_type(&self) -> MessageType {
        self.msg_type()
    }

    /// Returns `index`.
    pub fn get_index(&self) -> u64 {
        self.index
    }

    /// Sets `index`.
    pub fn set_index(&mut self, index: u64) {
        self.index = index;
    }

    /// Sets `commit`.
    pub fn set_commit(&mut self, commit: u64) {
        self.commit = commit;
    }

    /// Returns `entries` for changes.
    pub fn mut_entries(&mut self) -> &mut [Entry] {
        &mut self.entries
    }

    /// Sets `entries`.
    pub fn set_entries(&mut self, entries: Vec<Entry>) {
        self.entries = entries;
    }

    /// Takes `entries`.
    pub fn take_entries(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries)
    }

    /// Takes `context`.
    pub fn take_context(&mut self) -> Bytes {
        std::mem::take(&mut self.context)
    }

    /// Returns `snapshot`, an empty one if it is unset.
    pub fn get_snapshot(&self) -> &Snapshot {
        static EMPTY: LazyLock<Snapshot> = LazyLock::new(Snapshot::default);
        self.snapshot.as_ref().unwrap_or(&EMPTY)
    }

    /// Sets `snapshot`.
    pub fn set_snapshot(&mut self, snapshot: Snapshot) {
        self.snapshot = Some(snapshot);
    }

    /// Takes `snapshot`.
    pub fn take_snapshot(&mut self) -> Snapshot {
        self.snapshot.take().unwrap_or_default()
    }
}

/// What must be durable before messages leave.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HardState {
    /// The term.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// The vote in that term.
    #[prost(uint64, tag = "2")]
    pub vote: u64,
    /// The commit index.
    #[prost(uint64, tag = "3")]
    pub commit: u64,
}

/// A configuration.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfState {
    /// The voters.
    #[prost(uint64, repeated, tag = "1")]
    pub voters: Vec<u64>,
    /// The learners.
    #[prost(uint64, repeated, tag = "2")]
    pub learners: Vec<u64>,
    /// The voters that are being left, in a joint configuration.
    #[prost(uint64, repeated, tag = "3")]
    pub voters_outgoing: Vec<u64>,
    /// The voters that become learners when the joint configuration is left.
    #[prost(uint64, repeated, tag = "4")]
    pub learners_next: Vec<u64>,
    /// Whether raft leaves the joint configuration by itself.
    #[prost(bool, tag = "5")]
    pub auto_leave: bool,
}

impl ConfState {
    /// Returns `voters`.
    pub fn get_voters(&self) -> &[u64] {
        &self.voters
    }

    /// Sets `voters`.
    pub fn set_voters(&mut self, voters: Vec<u64>) {
        self.voters = voters;
    }

    /// Returns `learners`.
    pub fn get_learners(&self) -> &[u64] {
        &self.learners
    }

    /// Sets `learners`.
    pub fn set_learners(&mut self, learners: Vec<u64>) {
        self.learners = learners;
    }

    /// Returns `voters_outgoing`.
    pub fn get_voters_outgoing(&self) -> &[u64] {
        &self.voters_outgoing
    }

    /// Sets `voters_outgoing`.
    pub fn set_voters_outgoing(&mut self, voters_outgoing: Vec<u64>) {
        self.voters_outgoing = voters_outgoing;
    }

    /// Returns `learners_next`.
    pub fn get_learners_next(&self) -> &[u64] {
        &self.learners_next
    }

    /// Sets `learners_next`.
    pub fn set_learners_next(&mut self, learners_next: Vec<u64>) {
        self.learners_next = learners_next;
    }
}

/// A change of one member.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfChange {
    /// For the user of raft.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// What changes.
    #[prost(enumeration = "ConfChangeType", tag = "2")]
    pub change_type: i32,
    /// Whom it concerns.
    #[prost(uint64, tag = "3")]
    pub node_id: u64,
    /// For the user of raft.
    #[prost(bytes = "bytes", tag = "4")]
    pub context: Bytes,
}

/// One part of a general change.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfChangeSingle {
    /// What changes.
    #[prost(enumeration = "ConfChangeType", tag = "1")]
    pub change_type: i32,
    /// Whom it concerns.
    #[prost(uint64, tag = "2")]
    pub node_id: u64,
}

impl ConfChangeSingle {
    /// Returns `change_type`.
    pub fn get_change_type(&self) -> ConfChangeType {
        self.change_type()
    }
}

/// A general change.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfChangeV2 {
    /// How a joint configuration is used.
    #[prost(enumeration = "ConfChangeTransition", tag = "1")]
    pub transition: i32,
    /// The parts.
    #[prost(message, repeated, tag = "2")]
    pub changes: Vec<ConfChangeSingle>,
    /// For the user of raft.
    #[prost(bytes = "bytes", tag = "3")]
    pub context: Bytes,
}

impl ConfChangeV2 {
    /// Sets `changes`.
    pub fn set_changes(&mut self, changes: Vec<ConfChangeSingle>) {
        self.changes = changes;
    }
}

/// Gives the types their encoding under the trait that raft uses.
macro_rules! encoded_by_prost {
    ($($message:ty),*) => {$(
        impl protobuf::Message for $message {
            fn compute_size(&self) -> u32 {
                u32::try_from(self.encoded_len()).unwrap_or(u32::MAX)
            }

            fn write_to_bytes(&self) -> ProtobufResult<Vec<u8>> {
                Ok(self.encode_to_vec())
            }

            fn merge_from_bytes(&mut self, bytes: &[u8]) -> ProtobufResult<()> {
                self.merge(bytes).map_err(|error| ProtobufError { message: error.to_string() })
            }
        }
    )*};
}

encoded_by_prost!(Entry, Message, ConfChange, ConfChangeV2);
