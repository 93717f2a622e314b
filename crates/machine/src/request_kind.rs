//! What kinds of requests there are in the log.

/// A kind of request, by its field in `InternalRaftRequest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestKind {
    /// An entry without effect.
    NoOp,
    /// `range`
    Range,
    /// `put`
    Put,
    /// `delete_range`
    DeleteRange,
    /// `txn`
    Txn,
    /// `compaction`
    Compaction,
    /// `lease_grant`
    LeaseGrant,
    /// `lease_revoke`
    LeaseRevoke,
    /// `lease_checkpoint`
    LeaseCheckpoint,
    /// `alarm`
    Alarm,
    /// `cluster_version_set`
    ClusterVersionSet,
    /// `cluster_member_attr_set`
    ClusterMemberAttrSet,
    /// `downgrade_info_set`
    DowngradeInfoSet,
}

impl RequestKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::NoOp,
        Self::Range,
        Self::Put,
        Self::DeleteRange,
        Self::Txn,
        Self::Compaction,
        Self::LeaseGrant,
        Self::LeaseRevoke,
        Self::LeaseCheckpoint,
        Self::Alarm,
        Self::ClusterVersionSet,
        Self::ClusterMemberAttrSet,
        Self::DowngradeInfoSet,
    ];

    /// etcd's name of it, in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoOp => "NoOp",
            Self::Range => "Range",
            Self::Put => "Put",
            Self::DeleteRange => "DeleteRange",
            Self::Txn => "Txn",
            Self::Compaction => "Compaction",
            Self::LeaseGrant => "LeaseGrant",
            Self::LeaseRevoke => "LeaseRevoke",
            Self::LeaseCheckpoint => "LeaseCheckpoint",
            Self::Alarm => "Alarm",
            Self::ClusterVersionSet => "ClusterVersionSet",
            Self::ClusterMemberAttrSet => "ClusterMemberAttrSet",
            Self::DowngradeInfoSet => "DowngradeInfoSet",
        }
    }
}
