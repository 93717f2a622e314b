//! The generated modules, one per protobuf package. They use each other as siblings.

#![allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    clippy::derive_partial_eq_without_eq,
    clippy::large_stack_frames,
    clippy::or_fun_call,
    clippy::use_self,
    reason = "generated code is not ours to style, and its names are etcd's"
)]

/// The client API, and what log entries carry.
pub mod etcdserverpb {
    include!("generated/etcdserverpb.rs");
}

/// Stored values and their events.
pub mod mvccpb {
    include!("generated/mvccpb.rs");
}

/// Users, roles and permissions.
pub mod authpb {
    include!("generated/authpb.rs");
}

/// Membership requests in the log.
pub mod membershippb {
    include!("generated/membershippb.rs");
}

/// Stored leases, and lease requests between members.
pub mod leasepb {
    include!("generated/leasepb.rs");
}

/// Locks.
pub mod v3lockpb {
    include!("generated/v3lockpb.rs");
}

/// Elections.
pub mod v3electionpb {
    include!("generated/v3electionpb.rs");
}

/// Log entries and the messages between members.
pub mod raftpb {
    include!("generated/raftpb.rs");
}

/// Records of the write-ahead log.
pub mod walpb {
    include!("generated/walpb.rs");
}

/// The envelope of a snapshot file.
pub mod snappb {
    include!("generated/snappb.rs");
}

/// The standard health service, package `grpc.health.v1`.
pub mod health {
    include!("generated/grpc.health.v1.rs");
}
