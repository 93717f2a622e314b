//! A stand-in for `raft-proto` 0.7: the message types that raft 0.7 works on, without a build script.
//!
//! The types exist in memory only: what goes to peers and into the WAL is encoded by our own definitions
//! (`node/src/consensus.rs` converts). `bytes` fields are [`bytes::Bytes`], so that an entry is cloned without copying
//! its data. See `docs/decisions/0004-raft-dependency-stand-ins.md`.

mod change;
pub mod eraftpb;

pub use change::{ConfChangeI, conf_state_eq, new_conf_change_single};

/// The types that raft re-exports.
pub mod prelude {
    pub use crate::eraftpb::{
        ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2,
        ConfState, Entry, EntryType, HardState, Message, MessageType, Snapshot, SnapshotMetadata,
    };
}
