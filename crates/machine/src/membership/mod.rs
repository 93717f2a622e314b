//! Who belongs to the cluster, which version it speaks, and whether a downgrade is under way.
//!
//! A change arrives as a conf change entry. [`Membership::check`] judges it against the stored
//! membership, equally on all members (given equal `learners_max`); only then does consensus take
//! it, and only then is it carried out.

mod ids;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use proto::raftpb;

use crate::fault::{EntryFault, Fault};
use crate::{Refusal, schema};
pub use ids::{added_member_id, cluster_id, initial_member_id};

/// One member as stored.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Member {
    /// Unique in the cluster, for ever; not 0.
    pub id: u64,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Whether it follows without a vote.
    pub is_learner: bool,
    /// Its name; empty until it has published itself.
    pub name: String,
    /// Where clients reach it; empty until it has published itself.
    pub client_urls: Vec<String>,
}

/// A downgrade job.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Downgrade {
    /// The version to go to, `X.Y.0`; empty when disabled.
    pub target_version: String,
    /// Whether a job is under way.
    pub is_enabled: bool,
}

/// A release.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// First number.
    pub major: u64,
    /// Second number.
    pub minor: u64,
    /// Third number.
    pub patch: u64,
}

impl Version {
    /// Makes a version.
    pub const fn new(major: u64, minor: u64, patch: u64) -> Self {
        Self { major, minor, patch }
    }

    /// Returns the series before this one: where a downgrade may go.
    pub fn one_minor_below(self) -> Option<Self> {
        self.minor.checked_sub(1).map(|minor| Self { minor, patch: 0, ..self })
    }

    /// Returns major and minor number.
    pub const fn series(self) -> (u64, u64) {
        (self.major, self.minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The text is no version of the form `X.Y.Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a version of the form X.Y.Z")]
pub struct BadVersion;

impl FromStr for Version {
    type Err = BadVersion;

    /// Parses `X.Y.Z`; a pre-release or build suffix is ignored.
    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let core = text.split(['-', '+']).next().unwrap_or_default();
        let mut parts = core.split('.').map(|part| part.parse::<u64>().ok());
        let mut next = || parts.next().flatten().ok_or(BadVersion);
        let version = Self::new(next()?, next()?, next()?);
        if parts.next().is_some() { Err(BadVersion) } else { Ok(version) }
    }
}

/// A change of the membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembershipChange {
    /// A new member or learner.
    Add(Member),
    /// A learner gets a vote.
    Promote(u64),
    /// A member goes, and its id never returns.
    Remove(u64),
    /// A member moves.
    Update {
        /// Its id.
        id: u64,
        /// Where its peers reach it from now on.
        peer_urls: Vec<String>,
    },
}

/// What becomes of a conf change entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The backend already holds its effect: it is replayed for consensus only.
    AlreadyApplied,
    /// It changes nothing; consensus is given a change without a member.
    Refused(Refusal),
    /// It holds.
    Accepted(MembershipChange),
}

/// The cluster as this member knows it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Membership {
    members: BTreeMap<u64, Member>,
    removed: BTreeSet<u64>,
    /// What all members can speak; `None` until the first leader has decided.
    pub cluster_version: Option<Version>,
    /// The downgrade job.
    pub downgrade: Downgrade,
}

impl Membership {
    /// Collects what the backend holds.
    pub(crate) fn new(
        members: BTreeMap<u64, Member>,
        removed: BTreeSet<u64>,
        cluster_version: Option<Version>,
        downgrade: Downgrade,
    ) -> Self {
        Self { members, removed, cluster_version, downgrade }
    }

    /// Returns the members by ascending id.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    /// Returns a member.
    pub fn member(&self, id: u64) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Tells whether `id` was a member and is none any more.
    pub fn is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    /// Returns the ids of former members, ascending.
    pub fn removed(&self) -> impl ExactSizeIterator<Item = u64> {
        self.removed.iter().copied()
    }

    /// Decodes a conf change; an unreadable one is a fault, for skipping it would be a silent
    /// divergence.
    pub(crate) fn decode(change: &raftpb::ConfChange) -> Result<MembershipChange, EntryFault> {
        let context = || {
            schema::decode_conf_change_context(&change.context).ok_or(EntryFault::ConfChangeContext)
        };
        match raftpb::ConfChangeType::try_from(change.r#type) {
            Ok(raftpb::ConfChangeType::ConfChangeRemoveNode) => {
                Ok(MembershipChange::Remove(change.node_id))
            }
            Ok(raftpb::ConfChangeType::ConfChangeUpdateNode) => {
                let (member, _) = context()?;
                Ok(MembershipChange::Update { id: change.node_id, peer_urls: member.peer_urls })
            }
            Ok(raftpb::ConfChangeType::ConfChangeAddNode) => match context()? {
                (_, true) => Ok(MembershipChange::Promote(change.node_id)),
                (member, false) => Ok(MembershipChange::Add(Member {
                    id: change.node_id,
                    is_learner: false,
                    ..member
                })),
            },
            Ok(raftpb::ConfChangeType::ConfChangeAddLearnerNode) => {
                let (member, _) = context()?;
                Ok(MembershipChange::Add(Member { id: change.node_id, is_learner: true, ..member }))
            }
            Err(_) => Err(EntryFault::ConfChangeType(change.r#type)),
        }
    }

    /// Judges a change.
    pub fn check(&self, change: &MembershipChange, learners_max: usize) -> Result<(), Refusal> {
        let id = change.id();
        if self.removed.contains(&id) {
            return Err(Refusal::MemberIdRemoved);
        }
        match change {
            MembershipChange::Add(member) => self.check_add(member, learners_max),
            MembershipChange::Promote(id) => match self.members.get(id) {
                None => Err(Refusal::MemberIdNotFound),
                Some(member) if !member.is_learner => Err(Refusal::MemberNotLearner),
                Some(_) => Ok(()),
            },
            MembershipChange::Remove(id) => {
                let is_known = self.members.contains_key(id);
                if is_known { Ok(()) } else { Err(Refusal::MemberIdNotFound) }
            }
            MembershipChange::Update { id, peer_urls } => {
                if !self.members.contains_key(id) {
                    return Err(Refusal::MemberIdNotFound);
                }
                self.check_urls(peer_urls, Some(*id))
            }
        }
    }

    fn check_add(&self, member: &Member, learners_max: usize) -> Result<(), Refusal> {
        if self.members.contains_key(&member.id) {
            return Err(Refusal::MemberIdExists);
        }
        self.check_urls(&member.peer_urls, None)?;
        let learners = self.members.values().filter(|member| member.is_learner).count();
        if member.is_learner && learners >= learners_max {
            return Err(Refusal::TooManyLearners);
        }
        Ok(())
    }

    fn check_urls(&self, urls: &[String], except: Option<u64>) -> Result<(), Refusal> {
        let is_used = self
            .members
            .values()
            .filter(|member| Some(member.id) != except)
            .any(|member| member.peer_urls.iter().any(|url| urls.contains(url)));
        if is_used { Err(Refusal::PeerUrlExists) } else { Ok(()) }
    }

    /// Carries out a change that [`Membership::check`] granted; returns the member to store, or
    /// `None` when one was removed.
    pub(crate) fn apply(&mut self, change: MembershipChange) -> Option<&Member> {
        match change {
            MembershipChange::Add(member) => {
                let id = member.id;
                self.members.insert(id, member);
                self.members.get(&id)
            }
            MembershipChange::Promote(id) => {
                let member = self.members.get_mut(&id)?;
                member.is_learner = false;
                Some(member)
            }
            MembershipChange::Remove(id) => {
                self.members.remove(&id);
                self.removed.insert(id);
                None
            }
            MembershipChange::Update { id, peer_urls } => {
                let member = self.members.get_mut(&id)?;
                member.peer_urls = peer_urls;
                Some(member)
            }
        }
    }

    /// Replaces what a member has published of itself; `None` when it is unknown.
    pub(crate) fn set_attributes(
        &mut self,
        id: u64,
        name: String,
        client_urls: Vec<String>,
    ) -> Option<&Member> {
        let member = self.members.get_mut(&id)?;
        member.name = name;
        member.client_urls = client_urls;
        Some(member)
    }

    /// Tells whether the cluster has agreed on `version` or a later one.
    pub(crate) fn is_at_least(&self, version: Version) -> bool {
        self.cluster_version.is_some_and(|current| current >= version)
    }
}

impl MembershipChange {
    /// Returns the id of the member that changes.
    pub fn id(&self) -> u64 {
        match self {
            Self::Add(member) => member.id,
            Self::Promote(id) | Self::Remove(id) | Self::Update { id, .. } => *id,
        }
    }
}

/// Judges a conf change entry for [`crate::Machine::check_conf_change`].
pub(crate) fn judge(
    membership: &Membership,
    change: &raftpb::ConfChange,
    index: u64,
    learners_max: usize,
) -> Result<Verdict, Fault> {
    let change = Membership::decode(change).map_err(|reason| Fault::Entry { index, reason })?;
    Ok(match membership.check(&change, learners_max) {
        Ok(()) => Verdict::Accepted(change),
        Err(refusal) => Verdict::Refused(refusal),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_parse_as_in_the_log() {
        assert_eq!("3.7.0".parse(), Ok(Version::new(3, 7, 0)));
        assert_eq!("3.7.1-rc.0".parse(), Ok(Version::new(3, 7, 1)));
        for bad in ["", "3", "3.7", "3.7.x", "3.7.0.1", "not_decided"] {
            assert_eq!(bad.parse::<Version>(), Err(BadVersion), "{bad}");
        }
        assert!(Version::new(3, 10, 0) > Version::new(3, 9, 9));
    }
}
